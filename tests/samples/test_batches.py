"""Batches that threads read against those of a plain `DataLoader`."""

from threading import Event, get_ident

import pytest
import torch
from torch.utils.data import DataLoader

from comedian.errors import InputError
from comedian.samples.batches import BatchReader, finished
from comedian.samples.datasets import (
    ClipDataset,
    HalfDataset,
    TargetSettings,
    WindowDataset,
    WindowKey,
    WindowSampler,
    WindowShape,
    collate_windows,
)
from comedian.soccernet.builder import SoccerNet
from comedian.soccernet.prepare import prepare
from comedian.video.frame_store import FrameStore, StoreSettings
from match_factory import LABELS, write_matches


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    root = write_matches(folder / "root")
    prepare(root, folder / "store", StoreSettings(fps=4, height=16), workers=1, progress=False)
    builder = SoccerNet(data_dir=str(root), labels=list(LABELS), cache_dir=str(folder / "cache"))
    builder.download_and_prepare()
    return HalfDataset(list(builder.as_dataset(split="train")), FrameStore(folder / "store"), LABELS, fps=4)


def loader_of(reader: BatchReader) -> DataLoader:
    return DataLoader(reader, 5, sampler=WindowSampler(reader.dataset, seed=3), collate_fn=reader.collate_fn)


@pytest.mark.parametrize("kind", ["windows", "clips"])
def test_batches_are_those_of_a_plain_loader(halves, kind):
    windows = WindowDataset(halves, WindowShape(8, 2, 3, "random"), TargetSettings())
    dataset = windows if kind == "windows" else ClipDataset(halves, 2)
    plain = DataLoader(dataset, 5, sampler=WindowSampler(dataset, seed=3), collate_fn=collate_windows)
    read = [finished(batch) for batch in loader_of(BatchReader(dataset, collate_windows, num_threads=3))]
    assert len(read) == len(plain)
    for one, other in zip(read, plain, strict=True):
        assert set(one) == set(other)
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("yuv", [False, True])
def test_frames_are_read_to_where_the_batch_has_them(halves, yuv):
    dataset = ClipDataset(halves, 2)
    dataset.yuv = yuv
    keys = dataset.with_places([dataset.key_of(number) for number in range(5)])
    places = {name: tensor.data_ptr() for name, tensor in keys[0].place.items()}
    batch = collate_windows(dataset.__getitems__(keys))
    assert {name: batch[name].data_ptr() for name in places} == places and len(places) == (3 if yuv else 1)
    assert all(torch.equal(batch[name], torch.stack([key.place[name] for key in keys])) for name in places)


def test_frames_in_another_order_or_changed_are_copied(halves):
    class Flipped(ClipDataset):
        def __getitem__(self, key):
            window = super().__getitem__(key)
            return window | {"frames": window["frames"].flip(2)}

    keys = [WindowKey(1, 4, 0), WindowKey(0, 2, 0), WindowKey(0, 2, 0)]
    frames = torch.stack([torch.from_numpy(halves[key.half_index].read(key.start, 2)) for key in keys])
    backwards = collate_windows(ClipDataset(halves, 2).__getitems__(ClipDataset(halves, 2).with_places(keys))[::-1])
    assert torch.equal(backwards["frames"], frames.flip(0))
    flipped = finished(BatchReader(Flipped(halves, 2), collate_windows, num_threads=2).__getitems__(keys))
    assert torch.equal(flipped["frames"], frames.flip(3))


def test_the_next_batch_is_read_while_one_is_in_use(halves):
    threads, may_read = set(), Event()

    class Watched(ClipDataset):
        def __getitem__(self, key):
            assert may_read.wait(timeout=60)
            threads.add(get_ident())
            return super().__getitem__(key)

    batches = iter(loader_of(BatchReader(Watched(halves, 2), collate_windows, num_threads=2)))
    # neither waits
    first, second = next(batches), next(batches)
    assert not first.done()
    may_read.set()
    assert second.result(timeout=60)["frames"].shape == first.result()["frames"].shape
    assert get_ident() not in threads


def test_an_error_reaches_the_one_who_waits(halves):
    class Damaged(ClipDataset):
        def __getitem__(self, key):
            raise InputError("`1.frames` is damaged")

    with pytest.raises(InputError, match=r"`1.frames` is damaged"):
        finished(next(iter(loader_of(BatchReader(Damaged(halves, 2), collate_windows, num_threads=2)))))

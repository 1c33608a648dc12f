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

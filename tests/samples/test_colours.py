"""Frames that are converted to RGB by us against libswscale's, which `HalfFrames.read` returns."""

import av
import numpy as np
import pytest
import torch

from comedian.errors import InputError
from comedian.samples import colours
from comedian.samples.batches import BatchReader, finished
from comedian.samples.colours import rgb_of_yuv, with_rgb_frames
from comedian.samples.datasets import (
    ClipDataset,
    HalfDataset,
    TargetSettings,
    WindowDataset,
    WindowKey,
    WindowShape,
    can_read_yuv,
    collate_windows,
)
from comedian.video.frame_store import FrameStore, HalfFrames, StoreSettings, claim_store, write_half

SIZES = [(48, 64), (45, 63), (48, 61)]
FPS, NUM_FRAMES = 2, 20


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Every colour at once, in blocks that the encoder keeps: of three sizes, even and odd."""
    store = tmp_path_factory.mktemp("store")
    claim_store(store, StoreSettings(FPS, 48, quality=1))
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(SIZES):
        colours_of_blocks = rng.integers(256, size=(NUM_FRAMES, 6, 8, 3), dtype=np.uint8)
        colours_of_blocks[0, :2, :4] = np.array(np.meshgrid([0, 255], [0, 255], [0, 255])).T.reshape(2, 4, 3)
        frames = colours_of_blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
        pairs = ((index / FPS, np.ascontiguousarray(frame)) for index, frame in enumerate(frames))
        write_half(store / "one" / f"{number}.frames", pairs, fps=FPS, quality=1, source={})
    rows = [{"video_id": "one", "half": number, "events": []} for number in range(len(SIZES))]
    return HalfDataset(rows, FrameStore(store), ("Goal",), FPS)


@pytest.mark.parametrize("number", range(len(SIZES)))
def test_the_conversion_equals_that_of_libswscale_within_three_levels(halves, number, monkeypatch):
    truth = halves[number].read(3, 8, 2)
    assert truth.min() == 0 and truth.max() == 255
    planes = [torch.from_numpy(plane)[None] for plane in halves[number].read_yuv(3, 8, 2)]
    rgb = rgb_of_yuv(*planes)
    assert rgb.dtype == torch.uint8 and rgb.is_contiguous()
    difference = np.abs(rgb[0].movedim(1, -1).numpy().astype(int) - truth)
    assert difference.max() <= 3 and difference.mean() < 1
    # a part of the windows at a time
    monkeypatch.setattr(colours, "PIXELS_AT_ONCE", 1)
    assert torch.equal(
        rgb_of_yuv(*(plane.expand(3, *plane.shape[1:]) for plane in planes)), rgb.expand(3, *rgb.shape[1:])
    )


@pytest.mark.parametrize("kind", ["windows", "clips"])
def test_batches_of_several_sizes_are_those_of_rgb(halves, kind):
    def read(yuv: bool) -> dict[str, torch.Tensor]:
        windows = WindowDataset(halves, WindowShape(8, 2, 2, "random"), TargetSettings())
        dataset = windows if kind == "windows" else ClipDataset(halves, 4)
        assert can_read_yuv(dataset)
        dataset.yuv = yuv
        # past the end of the half, too
        keys = [WindowKey(0, 3, 1), WindowKey(1, 14, 2), WindowKey(1, 18, 3), WindowKey(2, 0, 4)]
        return finished(BatchReader(dataset, collate_windows, num_threads=2).__getitems__(keys))

    rgb, yuv = read(False), read(True)
    assert {"y", "u", "v"} <= set(yuv) and "frames" not in yuv
    converted = with_rgb_frames(yuv)
    assert set(converted) == set(rgb)
    for name in set(rgb) - {"frames"}:
        assert torch.equal(rgb[name].nan_to_num(), converted[name].nan_to_num())
    for one, other, (height, width) in zip(rgb["frames"], converted["frames"], rgb["frame_sizes"], strict=True):
        difference = one[:, :height, :width].int() - other[:, :height, :width].int()
        assert difference.abs().max() <= 3
    assert with_rgb_frames(rgb) is rgb


def test_samples_of_a_subclass_are_made_of_rgb(halves):
    class Marked(ClipDataset):
        def __getitem__(self, key):
            return super().__getitem__(key) | {"mark": key.start}

    class Longer(ClipDataset):
        def clips_of(self, index):
            return 2

    assert not can_read_yuv(Marked(halves, 2))
    assert can_read_yuv(Longer(halves, 2))
    assert not can_read_yuv([1])


@pytest.mark.parametrize("pictures", [[], [av.VideoFrame(64, 48, "yuv444p")]])
def test_a_damaged_half_is_refused_as_it_is_in_rgb(halves, pictures, monkeypatch):
    with pytest.raises(IndexError, match="of 20"):
        halves[0].read_yuv(15, 6)
    for picture in pictures:
        picture.pts = 0
    monkeypatch.setattr(HalfFrames, "_decode", lambda half, wanted: iter(pictures))
    with pytest.raises(InputError, match="is damaged"):
        halves[0].read_yuv(0, 1)

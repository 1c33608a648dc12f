import copy
import multiprocessing
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comedian.errors import InputError
from comedian.video import frame_store
from comedian.video.frame_store import (
    GOP_FRAMES,
    StoreSettings,
    open_half,
    write_half,
)
from video_factory import draw_frame, frame_number, truncate

SETTINGS = StoreSettings(fps=2, height=64)
SOURCE = {"name": "1.mkv", "size_bytes": 1, "mtime_ns": 1}


def write_numbers(path, numbers, fps=2.0, height=64, width=96, quality=30):
    frames = ((number / fps, draw_frame(number, height, width)) for number in numbers)
    write_half(path, frames, fps=fps, quality=quality, source=SOURCE)
    return open_half(path)


def test_a_store_without_frames_is_refused(tmp_path):
    path = tmp_path / "1.frames"
    with pytest.raises(ValueError, match="no frame"):
        write_numbers(path, [])
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return write_numbers(tmp_path_factory.mktemp("store") / "1.frames", range(20 * GOP_FRAMES + 3))


@pytest.fixture(scope="module")
def everything(half):
    return half.read(0, half.num_frames)


def test_frames_come_back_in_order(half, everything):
    assert [frame_number(frame) for frame in everything] == list(range(half.num_frames))
    assert everything.dtype == np.uint8 and everything.shape == (half.num_frames, 64, 96, 3)
    assert (half.fps, half.height, half.width, half.duration_s) == (2, 64, 96, half.num_frames / 2)
    assert half.timestamps_s.dtype == np.float64
    assert np.array_equal(half.timestamps_s, np.arange(half.num_frames) / 2)
    truth = np.stack([draw_frame(number) for number in range(half.num_frames)])
    assert np.abs(everything.astype(int) - truth).mean() < 6


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_access_equals_reading_all(half, everything, data):
    step = data.draw(st.integers(1, 3 * GOP_FRAMES))
    start = data.draw(st.integers(0, half.num_frames - 1))
    count = data.draw(st.integers(0, (half.num_frames - 1 - start) // step + 1))
    assert np.array_equal(half.read(start, count, step), everything[start : start + count * step : step])


def test_a_window_costs_no_full_decode(half, monkeypatch):
    decoded = []
    decode = frame_store.HalfFrames._decode
    monkeypatch.setattr(
        frame_store.HalfFrames,
        "_decode",
        lambda self, wanted: (decoded.append(picture) or picture for picture in decode(self, wanted)),
    )
    half.read(2 * GOP_FRAMES - 1, 4)
    assert len(decoded) == GOP_FRAMES + 3
    decoded.clear()
    half.read(0, 2, 4 * GOP_FRAMES)
    assert len(decoded) == 2


@pytest.mark.parametrize("arguments", [(-1, 2), (0, 84), (83, 1), (80, 2, 3)])
def test_out_of_range(half, arguments):
    with pytest.raises(IndexError, match="of 83"):
        half.read(*arguments)


@pytest.mark.parametrize("height, width", [(45, 97), (64, 97), (17, 16), (112, 200)])
def test_odd_sizes(tmp_path, height, width):
    half = write_numbers(tmp_path / "1.frames", range(5), height=height, width=width, quality=20)
    frames = half.read(0, 5)
    assert frames.shape == (5, height, width, 3)
    truth = np.stack([draw_frame(number, height, width) for number in range(5)])
    assert np.abs(frames.astype(int) - truth).mean() < 8
    # the last row and column are pixels of the frame, not of what it was padded with
    assert np.abs(frames[:, -1].astype(int) - truth[:, -1]).mean() < 12


def test_one_frame(tmp_path):
    half = write_numbers(tmp_path / "1.frames", [7])
    assert [frame_number(frame) for frame in half.read(0, 1)] == [7]
    assert half.duration_s == 0.5


def test_lower_quality_is_smaller(tmp_path):
    generator = np.random.default_rng(0)
    noise = [(float(i), generator.integers(0, 256, (64, 96, 3), np.uint8)) for i in range(8)]
    sizes = []
    for quality in (20, 40):
        write_half(tmp_path / f"{quality}.frames", noise, fps=1, quality=quality, source=SOURCE)
        sizes.append((tmp_path / f"{quality}.frames").stat().st_size)
    assert sizes[1] < sizes[0] / 2


def test_pickles_copies_and_threads(half, everything):
    for twin in (pickle.loads(pickle.dumps(half)), copy.deepcopy(half)):
        assert np.array_equal(twin.read(20, 5), everything[20:25])
    wrong = []

    def work(start):
        for _ in range(10):
            if not np.array_equal(half.read(start, 20), everything[start : start + 20]):
                wrong.append(start)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 13, 40, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _checksum(half, start):
    return int(half.read(start, 10).sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes(half, everything, method):
    half.read(0, 1)
    with multiprocessing.get_context(method).Pool(2) as pool:
        sums = pool.starmap(_checksum, [(half, start) for start in (0, 30, 70)])
    assert sums == [int(everything[start : start + 10].sum()) for start in (0, 30, 70)]


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.999])
def test_a_file_cut_short(tmp_path, fraction):
    write_numbers(tmp_path / "1.frames", range(40))
    with pytest.raises(InputError, match="1.frames.*comedian prepare"):
        open_half(truncate(tmp_path / "1.frames", fraction))


def test_a_foreign_file(tmp_path):
    (tmp_path / "1.frames").write_bytes(bytes(1000))
    with pytest.raises(InputError, match="1.frames"):
        open_half(tmp_path / "1.frames")


def test_a_damaged_payload(tmp_path):
    half = write_numbers(tmp_path / "1.frames", range(40))
    content = bytearray(half.path.read_bytes())
    content[half._offsets[16] : half._offsets[32]] = bytes(int(half._offsets[32] - half._offsets[16]))
    half.path.write_bytes(content)
    assert [frame_number(frame) for frame in half.read(0, 16)] == list(range(16))
    with pytest.raises(InputError, match="damaged"):
        half.read(16, 4)

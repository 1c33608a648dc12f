import copy
import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comedian.data import frame_store
from comedian.data.decoding import iter_frames
from comedian.data.frame_store import (
    GOP_FRAMES,
    FrameStore,
    StoreSettings,
    open_half,
    prepare,
    same_source,
    source_of,
    write_half,
)
from comedian.errors import InputError
from video_factory import draw_frame, frame_number, truncate, write_video

SETTINGS = StoreSettings(fps=2, height=64)
SOURCE = {"name": "1.mkv", "size_bytes": 1, "mtime_ns": 1}


def write_numbers(path, numbers, fps=2.0, height=64, width=96, quality=30):
    frames = ((number / fps, draw_frame(number, height, width)) for number in numbers)
    write_half(path, frames, fps=fps, quality=quality, source=SOURCE)
    return open_half(path)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return write_numbers(tmp_path_factory.mktemp("store") / "1.frames", range(5 * GOP_FRAMES + 3))


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
    threads = data.draw(st.integers(1, 3))
    assert np.array_equal(
        half.read(start, count, step, threads=threads), everything[start : start + count * step : step]
    )


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


# --- stores


@pytest.fixture
def root(tmp_path):
    for video_id in ("league/season/a - b", "league/season/c - d"):
        for half in (1, 2):
            write_video(tmp_path / "root" / video_id / f"{half}_224p.mkv", num_frames=40 + 10 * half)
    return tmp_path / "root"


def stamps(store):
    return {path: path.stat().st_mtime_ns for path in store.rglob("*.frames")}


def prepare_quietly(root, store, settings=SETTINGS, **options):
    return prepare(root, store, settings, **{"workers": 1, "progress": False} | options)


def test_prepare_then_open(root, tmp_path):
    report = prepare_quietly(root, tmp_path / "store", workers=2)
    store = FrameStore(tmp_path / "store")
    assert store.fps == 2
    assert store.halves == [(f"league/season/{name}", half) for name in ("a - b", "c - d") for half in (1, 2)]
    assert sorted(report.done) == store.halves and not report.skipped and not report.bad
    assert report.footage_s == 2 * (5 + 6) and report.times_real_time > 0
    assert report.size_bytes == sum(path.stat().st_size for path in (tmp_path / "store").rglob("*.frames"))
    for video_id, half in store.halves:
        frames = store.open(video_id, half)
        assert [frame_number(frame) for frame in frames.read(0, frames.num_frames)] == list(
            range(0, 40 + 10 * half, 5)
        )
        assert frames.timestamps_s == pytest.approx(np.arange(frames.num_frames) / 2)
    assert not list((tmp_path / "store").rglob("*.partial"))


def test_the_store_holds_what_iter_frames_gives(tmp_path):
    times_s = [0, 0.1, 0.15, 0.9, 1.0, 1.02, 2.5, 2.6, 3.0]
    video = write_video(tmp_path / "root/m/1_224p.mkv", times_s=times_s, start_s=4.2, fps=25, audio_s=9)
    prepare_quietly(tmp_path / "root", tmp_path / "store", StoreSettings(fps=3, height=32, width=40))
    frames = FrameStore(tmp_path / "store").open("m", 1)
    truth = list(iter_frames(video, 3, (32, 40)))
    assert frames.timestamps_s.tolist() == [timestamp_s for timestamp_s, _ in truth]
    assert [frame_number(frame) for frame in frames.read(0, frames.num_frames)] == [frame_number(f) for _, f in truth]
    assert (frames.height, frames.width) == (32, 40)


def test_resume_leaves_finished_halves_alone(root, tmp_path):
    store = tmp_path / "store"
    prepare_quietly(root, store)
    before = stamps(store)
    gone = sorted(before)[1]
    gone.unlink()
    (gone.parent / "2.frames.partial").write_bytes(b"half a half")
    assert (("league/season/a - b", 2) in FrameStore(store).halves) is False
    report = prepare_quietly(root, store)
    assert report.done == [("league/season/a - b", 2)] and len(report.skipped) == 3
    after = stamps(store)
    assert all(after[path] == before[path] for path in before if path != gone)
    assert not list(store.rglob("*.partial"))
    assert FrameStore(store).open("league/season/a - b", 2).num_frames == 12


def test_interrupted_between_halves(root, tmp_path, monkeypatch):
    store, write = tmp_path / "store", frame_store.write_half

    def interrupt_third(path, frames, **options):
        if len(stamps(store)) == 2:
            next(iter(frames))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(path.name + ".partial").write_bytes(b"begun")
            raise KeyboardInterrupt
        return write(path, frames, **options)

    monkeypatch.setattr(frame_store, "write_half", interrupt_third)
    with pytest.raises(KeyboardInterrupt):
        prepare_quietly(root, store)
    before = stamps(store)
    assert len(before) == len(FrameStore(store).halves) == 2
    monkeypatch.undo()
    assert len(prepare_quietly(root, store).done) == 2
    assert before.items() < stamps(store).items()


def test_a_changed_video_is_done_again(root, tmp_path):
    store, video = tmp_path / "store", root / "league/season/a - b/1_224p.mkv"
    prepare_quietly(root, store)
    write_video(video, num_frames=20)
    assert prepare_quietly(root, store).done == [("league/season/a - b", 1)]
    assert FrameStore(store).open("league/season/a - b", 1).num_frames == 4
    # a copy with another time of change is the same video
    os.utime(video, ns=(1, 1))
    assert prepare_quietly(root, store).done == []


def test_videos_of_one_size_are_told_apart_by_what_they_hold(tmp_path):
    """Whatever the place of the change: in the first, in the last and in a block between; times play no part."""
    content = bytes(range(256)) * 8192
    one = tmp_path / "one.mkv"
    one.write_bytes(content)
    for place in (0, len(content) // 7, len(content) - 1):
        other = tmp_path / f"{place}.mkv"
        other.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert other.stat().st_size == one.stat().st_size
        os.utime(other, ns=(one.stat().st_atime_ns, one.stat().st_mtime_ns))
        assert not same_source(source_of(one), source_of(other)), place
    other = tmp_path / "copy" / "one.mkv"
    other.parent.mkdir()
    other.write_bytes(content)
    os.utime(other, ns=(5, 5))
    assert source_of(one) == source_of(other)
    # a store made before hashes were kept
    old = {"name": "one.mkv", "size_bytes": len(content), "mtime_ns": 7}
    assert same_source(old, source_of(one)) and not same_source(old | {"size_bytes": 8}, source_of(one))


def test_a_stale_half_whose_video_went_bad_is_not_kept(root, tmp_path):
    store = tmp_path / "store"
    prepare_quietly(root, store)
    (root / "league/season/a - b/1_224p.mkv").write_bytes(b"gone bad")
    assert len(prepare_quietly(root, store, skip_bad=True).bad) == 1
    assert len(FrameStore(store).halves) == 3


@pytest.mark.parametrize("other", [{"fps": 5}, {"height": 32}, {"width": 50}, {"quality": 25}])
def test_other_settings_are_refused(root, tmp_path, other):
    prepare_quietly(root, tmp_path / "store")
    wished = StoreSettings(**{"fps": 2, "height": 64} | other)
    with pytest.raises(InputError) as caught:
        prepare_quietly(root, tmp_path / "store", wished)
    assert str(SETTINGS) in str(caught.value) and str(wished) in str(caught.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_videos(root, tmp_path, workers):
    store = tmp_path / "store"
    (root / "league/season/a - b/2_224p.mkv").write_bytes(b"no video at all")
    with pytest.raises(InputError, match="a - b/2_224p.mkv.*--skip-bad"):
        prepare_quietly(root, store, workers=workers)
    report = prepare_quietly(root, store, workers=workers, skip_bad=True)
    assert len(report.bad) == 1 and "a - b/2_224p.mkv" in report.bad[0]
    assert len(FrameStore(store).halves) == 3
    assert not list(store.rglob("*.partial"))


def test_a_truncated_video_is_kept_and_named(root, tmp_path):
    truncate(root / "league/season/a - b/2_224p.mkv", 0.5)
    report = prepare_quietly(root, tmp_path / "store")
    assert len(report.done) == 4 and not report.bad
    assert len(report.damaged) == 1 and "a - b/2_224p.mkv" in report.damaged[0]
    assert 1 <= FrameStore(tmp_path / "store").open("league/season/a - b", 2).num_frames < 12


def test_what_is_no_store(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/store.json").write_text('{"format": "comedian-frame-store", "version": 99}')
    (tmp_path / "list").mkdir()
    (tmp_path / "list/store.json").write_text("[]")
    for path in (tmp_path / "none", tmp_path, tmp_path / "other", tmp_path / "list"):
        with pytest.raises(InputError, match="comedian prepare"):
            FrameStore(path)


def test_a_missing_half_is_named(root, tmp_path):
    prepare_quietly(root, tmp_path / "store")
    with pytest.raises(InputError, match="half 3 of `league/season/a - b`"):
        FrameStore(tmp_path / "store").open("league/season/a - b", 3)


@pytest.mark.parametrize("bad", [{"fps": 0}, {"fps": float("nan")}, {"height": 0}, {"width": 2}, {"quality": 60}])
def test_settings_out_of_range(root, tmp_path, bad):
    with pytest.raises(InputError):
        prepare_quietly(root, tmp_path / "store", StoreSettings(**{"fps": 2, "height": 64} | bad))
    assert not (tmp_path / "store").exists()


def test_no_videos(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no videos"):
        prepare_quietly(tmp_path / "empty", tmp_path / "store")
    assert not (tmp_path / "store").exists()

import os

import numpy as np
import pytest

from comedian.errors import InputError
from comedian.soccernet import prepare as prepare_module
from comedian.soccernet.prepare import prepare
from comedian.video.decoding import iter_frames
from comedian.video.frame_store import (
    FrameStore,
    StoreSettings,
    same_source,
    source_of,
)
from video_factory import frame_number, truncate, write_video

SETTINGS = StoreSettings(fps=2, height=64)


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
    store, write = tmp_path / "store", prepare_module.write_half

    def interrupt_third(path, frames, **options):
        if len(stamps(store)) == 2:
            next(iter(frames))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(path.name + ".partial").write_bytes(b"begun")
            raise KeyboardInterrupt
        return write(path, frames, **options)

    monkeypatch.setattr(prepare_module, "write_half", interrupt_third)
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
    # what was stored without a hash may be of another content
    assert not same_source({"name": "one.mkv", "size_bytes": len(content)}, source_of(one))
    assert same_source({}, source_of(one))


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

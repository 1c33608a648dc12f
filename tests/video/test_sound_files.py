"""`comedian prepare --sound`: spectrograms beside the frames, and windows of them."""

import re

import numpy as np
import pytest
import torch

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.models.sound_comedian import read_sound, sound_of_tokens
from comedian.samples.datasets import HalfDataset, TargetSettings, WindowDataset, WindowKey, WindowShape
from comedian.soccernet import prepare as prepare_module
from comedian.soccernet.prepare import prepare
from comedian.video.decoding import probe
from comedian.video.frame_store import FrameStore, StoreSettings
from comedian.video.sound_files import open_sound, sound_path
from video_factory import write_video

SETTINGS = StoreSettings(fps=4, height=16)
SHAPE = WindowShape(num_frames=8, tubelet_size=2, windows_per_half=2, sampling="random")


def noise(seed: int, duration_s: float = 6.0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(16_000 * duration_s))


@pytest.fixture
def root(tmp_path):
    """A half with sound, which begins late, and one without."""
    write_video(tmp_path / "root/match/1_224p.mkv", 60, sound=noise(1), sound_start_s=0.5)
    write_video(tmp_path / "root/match/2_224p.mkv", 60)
    return tmp_path / "root"


def prepared(root, store, **options):
    return prepare(root, store, SETTINGS, workers=1, progress=False, **options)


def test_codecs_that_ffmpeg_does_not_know(root, tmp_path, capsys):
    """Pictures: the video is left out; sound: none."""
    path = root / "match/1_224p.mkv"
    content = path.read_bytes()
    codec = re.search(rb"A_[A-Z0-9/_]+", content)[0]
    path.write_bytes(content.replace(codec, b"A_XYZ" + b"Z" * (len(codec) - 5)))
    assert read_sound(str(path)) is None
    assert len(prepared(root, tmp_path / "store", sound=True).done) == 2
    path.write_bytes(content.replace(b"V_MPEG4/ISO/AVC", b"V_XPEG9/ISO/XYZ"))
    with pytest.raises(InputError, match="has pictures of a codec that FFmpeg does not know"):
        probe(path)
    words = ["prepare", str(root), str(tmp_path / "other"), "--fps", "4", "--height", "16", "--skip-bad"]
    assert main(words) == 1
    assert "of a codec that FFmpeg does not know" in capsys.readouterr().err
    assert [found.name for found in (tmp_path / "other").rglob("2.frames")] == ["2.frames"]


def files_of(store) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (store / "match").iterdir()}


def test_sound_lies_beside_the_frames(root, tmp_path):
    store = tmp_path / "store"
    report = prepared(root, store, sound=True)
    assert report.silent == [("match", 2)] and len(report.done) == 2
    assert report.size_bytes == sum(path.stat().st_size for path in (store / "match").iterdir())
    first, second = (FrameStore(store).open("match", half) for half in (1, 2))
    sound = first.sound()
    assert isinstance(sound, np.memmap) and sound.dtype == np.float16
    np.testing.assert_array_equal(sound, read_sound(root / "match/1_224p.mkv"))
    assert second.sound() is None
    assert FrameStore(store).halves == [("match", 1), ("match", 2)]


def test_sound_is_left_out_unless_it_is_asked_for(root, tmp_path):
    store = tmp_path / "store"
    assert prepared(root, store).silent == []
    before = files_of(store)
    assert set(before) == {"1.frames", "2.frames"} and FrameStore(store).open("match", 1).sound() is None
    # asked for later, it is added, and the frames are left alone
    report = prepared(root, store, sound=True)
    after = files_of(store)
    assert before.items() < after.items() and report.footage_s == 12.0
    assert set(after) - set(before) == {"1.sound.npy", "2.sound.npy"}
    assert len(prepared(root, store, sound=True).skipped) == 2 and files_of(store) == after
    assert len(prepared(root, store).skipped) == 2 and files_of(store) == after


def test_interrupted_before_the_sound(root, tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    store, write = tmp_path / "store", prepare_module.write_sound
    monkeypatch.setattr(prepare_module, "write_sound", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepared(root, store, sound=True)
    before = files_of(store)
    assert set(before) == {"1.frames"}
    monkeypatch.setattr(prepare_module, "write_sound", write)
    assert len(prepared(root, store, sound=True).done) == 2
    assert before.items() < files_of(store).items() and len(files_of(store)) == 4


@pytest.mark.parametrize("sound", [True, False])
def test_the_sound_of_a_changed_video_is_not_kept(root, tmp_path, sound):
    store = tmp_path / "store"
    prepared(root, store, sound=True)
    video = write_video(root / "match/1_224p.mkv", 50, sound=noise(2))
    prepared(root, store, sound=sound)
    found = FrameStore(store).open("match", 1).sound()
    if sound:
        np.testing.assert_array_equal(found, read_sound(video))
    else:
        assert found is None


def test_a_damaged_file_is_named(root, tmp_path):
    prepared(root, tmp_path / "store", sound=True)
    path = sound_path(tmp_path / "store/match/1.frames")
    for content in (b"", b"\x93NUMPY", path.read_bytes()[:-100], b"no numbers at all"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="1.sound.npy` is damaged"):
            open_sound(path)
    for wrong in (np.zeros(64), np.zeros((5, 64)), np.zeros((5, 63), np.float16), np.zeros((5, 64, 1), np.float16)):
        np.save(path, wrong)
        with pytest.raises(InputError, match="1.sound.npy` is damaged"):
            open_sound(path)


def test_the_command_counts_what_is_silent(root, tmp_path, capsys):
    command = ["prepare", str(root), str(tmp_path / "store"), "--height", "16", "--workers", "1"]
    assert main(command) == 0 and "audio" not in capsys.readouterr().out
    assert main([*command, "--sound"]) == 0
    assert "halves without an audio track: 1" in capsys.readouterr().out


def halves_of(store, fps: float = 2) -> HalfDataset:
    rows = [{"video_id": "match", "half": half, "events": []} for half in (1, 2)]
    return HalfDataset(rows, FrameStore(store), ["Goal"], fps)


def test_windows_carry_the_sound_of_their_tokens(root, tmp_path):
    prepared(root, tmp_path / "store", sound=True)
    halves = halves_of(tmp_path / "store")
    windows = WindowDataset(halves, SHAPE, TargetSettings(), sound=True)
    sound = read_sound(root / "match/1_224p.mkv")
    # frame 3 at the store's rate is at 0.75 s: 37.5 spectrogram frames, rounded up
    window = windows[WindowKey(0, 3, 0)]
    assert window["sound"].shape == (4, 50, 64) and window["sound"].dtype == torch.float32
    for token in range(4):
        expected = sound[38 + 50 * token : 88 + 50 * token].astype(np.float32)
        np.testing.assert_array_equal(window["sound"][token], expected)
    # where a window begins as whole tokens do, it hears what scoring a half hears
    whole = sound_of_tokens(sound, 6, 1.0)
    np.testing.assert_array_equal(windows[WindowKey(0, 8, 0)]["sound"], whole[2:6])
    assert windows[WindowKey(1, 0, 0)]["sound"].isnan().all()
    assert "sound" not in WindowDataset(halves, SHAPE, TargetSettings())[WindowKey(0, 3, 0)]


def test_a_store_without_any_sound_is_told(root, tmp_path):
    prepared(root, tmp_path / "store")
    with pytest.raises(InputError, match="rerun `comedian prepare` with `--sound`"):
        halves_of(tmp_path / "store").check_sound()
    prepared(root, tmp_path / "store", sound=True)
    halves_of(tmp_path / "store").check_sound()

import pytest

from comedian.cli.main import main
from comedian.video.frame_store import FrameStore
from video_factory import truncate, write_video


@pytest.fixture
def root(tmp_path):
    for half in (1, 2):
        write_video(tmp_path / f"root/match/{half}_224p.mkv", num_frames=30)
    return tmp_path / "root"


def prepare(root, store, *options):
    return main(["prepare", str(root), str(store), "--height", "32", "--workers", "1", *options])


def test_prepare_and_resume(root, tmp_path, capsys):
    assert prepare(root, tmp_path / "store", "--fps", "5", "--width", "40") == 0
    assert "2 done, 0 there already, 0 bad" in capsys.readouterr().out
    store = FrameStore(tmp_path / "store")
    half = store.open("match", 2)
    assert (store.fps, half.num_frames, half.height, half.width) == (5, 15, 32, 40)
    assert prepare(root, tmp_path / "store", "--fps", "5", "--width", "40") == 0
    assert "0 done, 2 there already" in capsys.readouterr().out


def test_defaults_keep_the_aspect(root, tmp_path):
    assert prepare(root, tmp_path / "store") == 0
    half = FrameStore(tmp_path / "store").open("match", 1)
    assert (half.fps, half.height, half.width) == (2, 32, 48)


def test_a_bad_video_stops_with_one_line(root, tmp_path, capsys):
    (root / "match/2_224p.mkv").write_bytes(b"no video")
    assert prepare(root, tmp_path / "store") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("comedian prepare:")]
    assert len(lines) == 1 and "match/2_224p.mkv" in lines[0]


def test_skip_bad_exits_with_one(root, tmp_path, capsys):
    (root / "match/2_224p.mkv").write_bytes(b"no video")
    assert prepare(root, tmp_path / "store", "--skip-bad") == 1
    printed = capsys.readouterr()
    assert "bad, omitted: " in printed.err and "match/2_224p.mkv" in printed.err
    assert "1 done, 0 there already, 1 bad" in printed.out
    assert FrameStore(tmp_path / "store").halves == [("match", 1)]


def test_a_damaged_video_is_named_and_no_failure(root, tmp_path, capsys):
    truncate(write_video(root / "match/2_224p.mkv", num_frames=100), 0.5)
    assert prepare(root, tmp_path / "store") == 0
    assert "damaged, kept: " in (printed := capsys.readouterr().err) and "match/2_224p.mkv" in printed


def test_other_settings_and_missing_root(root, tmp_path, capsys):
    assert prepare(root, tmp_path / "store") == 0
    assert prepare(root, tmp_path / "store", "--fps", "4") == 2
    assert "fps=2.0" in (printed := capsys.readouterr().err) and "fps=4.0" in printed
    assert prepare(tmp_path / "none", tmp_path / "other") == 2

"""`comedian spot` of several videos, each on its own: a folder, a pattern, or names."""

import json
import shutil

import pytest

from comedian.cli.main import main
from comedian.events.formats import read_events
from comedian.inference import spotter
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from testing_utils import tiny_config
from video_factory import write_video

LABELS = ["Goal", "Corner"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and videos of different lengths: two in a folder, one in a folder of that."""
    folder = tmp_path_factory.mktemp("many")
    config = tiny_config(initializer_range=0.5, id2label=dict(enumerate(LABELS)), label_thresholds=[0.3, 0.4])
    ComedianForActionSpotting(config).save_pretrained(folder / "model")
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "model")
    for name, num_frames in (("a.mkv", 160), ("b.mp4", 200), ("deep/c.mkv", 180)):
        write_video(folder / "videos" / name, num_frames=num_frames, fps=10)
    return folder


@pytest.fixture
def spot(folder, tmp_path, monkeypatch, capsys):
    """Run the command in a new folder; returns exit code, output, and the videos that were decoded."""
    monkeypatch.chdir(tmp_path)
    decoded = []
    iter_frames = spotter.iter_frames
    monkeypatch.setattr(
        spotter,
        "iter_frames",
        lambda path, *words, **named: decoded.append(path) or iter_frames(path, *words, **named),
    )

    def run(*words, model=folder / "model"):
        decoded.clear()
        code = main(["spot", *map(str, words), "--model", str(model)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err, sorted(path.name for path in decoded)

    return run


def results(path):
    return json.loads(path.read_text())


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_each_video_of_a_folder_has_its_own_events(spot, folder, tmp_path):
    code, printed, _ = spot(folder / "videos", "--output", "found")
    assert code == 0 and "3 videos" in printed
    assert files_of(tmp_path / "found") == ["a.json", "b.json", "deep/c.json", "spot.json"]
    for name in ("a.mkv", "b.mp4", "deep/c.mkv"):
        assert spot(folder / "videos" / name, "--output", "one.json")[0] == 0
        together = results((tmp_path / "found" / name).with_suffix(".json"))
        assert together["predictions"] == results(tmp_path / "one.json")["predictions"] != []
        # so that the files are read as labels of these videos
        assert together["UrlLocal"] == name
        [video] = read_events((tmp_path / "found" / name).with_suffix(".json")).videos
        assert video.name == name and (folder / "videos" / video.name).is_file()


def test_again_only_what_is_missing_is_done(spot, folder, tmp_path):
    videos = shutil.copytree(folder / "videos", tmp_path / "videos")
    (videos / "deep/c.mkv").rename(tmp_path / "c.mkv")
    assert spot("videos")[2] == ["a.mkv", "b.mp4"]
    (tmp_path / "c.mkv").rename(videos / "deep/c.mkv")
    code, printed, decoded = spot("videos")
    assert (code, decoded) == (0, ["c.mkv"]) and "2 of them from an earlier run" in printed
    before = {path: path.read_bytes() for path in (tmp_path / "events").rglob("*.json")}
    # a pattern of these videos, quoted or on Windows, goes on in the same folder
    assert spot("videos/**/*.m*")[2] == []
    (tmp_path / "events/a.json").unlink()
    write_video(videos / "b.mp4", num_frames=120, fps=10)
    assert spot("videos")[2] == ["a.mkv", "b.mp4"]
    changed = [path.name for path, content in before.items() if path.read_bytes() != content]
    assert sorted(changed) == ["b.json", "spot.json"]


@pytest.mark.parametrize(
    "words, named",
    [(["--threshold", "0.5"], "threshold"), (["--nms-window", "3"], "nms_window_s"), (["--keep-all"], "keep_all")],
)
def test_events_of_other_settings_are_not_mixed(spot, folder, tmp_path, words, named):
    assert spot(folder / "videos")[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "events").rglob("*.json")}
    code, printed, decoded = spot(folder / "videos", *words)
    assert code == 2 and f"other settings ({named})" in printed and "`--restart`" in printed and decoded == []
    assert all(path.read_bytes() == content for path, content in before.items())
    code, _, decoded = spot(folder / "videos", *words, "--restart")
    assert (code, len(decoded)) == (0, 3) and before[tmp_path / "events/a.json"] != (
        tmp_path / "events/a.json"
    ).read_bytes()


def test_a_broken_video_does_not_keep_the_others(spot, folder, tmp_path):
    (tmp_path / "bad.mkv").write_bytes(b"no video")
    code, printed, _ = spot("bad.mkv", folder / "videos/a.mkv", folder / "videos/b.mp4")
    [last] = [line for line in printed.splitlines() if line.startswith("comedian spot:")]
    assert code == 2 and "1 of 3 videos" in last and "bad.mkv is omitted" in printed
    assert [name.rpartition("/")[2] for name in files_of(tmp_path / "events")] == ["a.json", "b.json", "spot.json"]


def test_parts_of_a_match_are_said_so(spot, folder, tmp_path):
    videos = [folder / "videos/a.mkv", folder / "videos/b.mp4"]
    assert spot(*videos, "--match", "--output", "match.json")[0] == 0
    assert {event["half"] for event in results(tmp_path / "match.json")["predictions"]} == {"1", "2"}
    assert spot(*videos)[0] == 0 and files_of(tmp_path / "events") == ["a.json", "b.json", "spot.json"]


def test_names_of_halves_in_a_folder(spot, folder, tmp_path):
    """`1.mp4` is anybody's name in a folder of videos, and that of a half where a match has its own folder."""
    for name in ("1.mkv", "2.mkv"):
        for place in ("loose", "root/match"):
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "videos/a.mkv", tmp_path / place / name)
    assert spot("loose")[0] == 0 and files_of(tmp_path / "events") == ["1.json", "2.json", "spot.json"]
    shutil.copy(folder / "videos/a.mkv", tmp_path / "root/trailer.mkv")
    code, printed, _ = spot("root")
    assert code == 0 and (tmp_path / "results.zip").is_file()
    assert "omitted, because they are not halves of a match: trailer.mkv" in printed


def test_each_video_has_a_file_of_its_own_whatever_its_name(spot, folder, tmp_path):
    (tmp_path / "videos").mkdir()
    names = ["a.mov", "a.mp4", "a.mp4.mkv", "spot.mkv", "b.mkv"]
    for name in names:
        shutil.copy(folder / "videos/a.mkv", tmp_path / "videos" / name)
    code, printed, _ = spot("videos")
    files = ["a.mov.json", "a.mp4.json", "a.mp4.mkv.json", "b.json", "spot.json", "spot.mkv.json"]
    assert code == 0 and files_of(tmp_path / "events") == files
    written = {results(tmp_path / "events" / file).get("UrlLocal") for file in files}
    assert written == {None, *names}
    # no file of another name or other settings stays
    (tmp_path / "videos/b.ts").write_bytes((tmp_path / "videos/b.mkv").read_bytes())
    assert spot("videos")[0] == 0
    expected = sorted([*(file for file in files if file != "b.json"), "b.mkv.json", "b.ts.json"])
    assert files_of(tmp_path / "events") == expected
    assert spot("videos/a.mov", "videos/spot.mkv", "--threshold", "0.9", "--restart")[0] == 0
    assert files_of(tmp_path / "events") == ["a.json", "spot.json", "spot.mkv.json"]
    shutil.copy(folder / "videos/a.mkv", tmp_path / "spot")
    code, printed, _ = spot("spot", "videos/b.mkv", "--output", "other")
    assert code == 2 and "`spot`: its events would replace the record" in printed


def test_the_longest_name_of_a_video(spot, folder, tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("x" * 247 + ".mkv", "a.mkv"):
        shutil.copy(folder / "videos/a.mkv", tmp_path / "videos" / name)
    assert spot("videos")[0] == 0
    assert files_of(tmp_path / "events") == ["a.json", "spot.json", "x" * 247 + ".json"]


def test_events_of_another_video_are_not_replaced_or_taken(spot, folder, tmp_path):
    for place, names in (("x", ("a.mp4", "b.mkv")), ("y", ("a.mkv", "b.mp4"))):
        (tmp_path / place).mkdir()
        for name in names:
            source = "a.mkv" if place == "x" else "b.mp4"
            shutil.copy(folder / "videos" / source, tmp_path / place / name)
    assert spot("x")[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "events").iterdir()}
    code, printed, _ = spot("y")
    assert code == 2 and "a.json` has the events of `" in printed and "give another `--output`" in printed
    assert {path.name: path.read_bytes() for path in (tmp_path / "events").iterdir()} == before
    # a video that was moved, or renamed, or replaced
    (tmp_path / "x").rename(tmp_path / "z")
    (tmp_path / "z/a.mp4").rename(tmp_path / "z/a.mkv")
    shutil.copy(folder / "videos/b.mp4", tmp_path / "z/b.mkv")
    code, printed, decoded = spot("z")
    assert code == 2 and "b.json` has the events of" in printed
    (tmp_path / "z").rename(tmp_path / "x")
    code, printed, decoded = spot("x")
    assert code == 0 and decoded == ["a.mkv", "b.mkv"]
    assert results(tmp_path / "events/a.json")["UrlLocal"] == "a.mkv"
    assert list(results(tmp_path / "events/spot.json")["videos"]) == ["a.mkv", "b.mkv"]


def test_a_video_that_is_still_being_copied_is_done_again(spot, folder, tmp_path, monkeypatch):
    (tmp_path / "videos").mkdir()
    for name in ("a.mkv", "b.mkv"):
        shutil.copy(folder / "videos/a.mkv", tmp_path / "videos" / name)
    score = spotter.ActionSpotter.score

    def and_copy(self, video, **options):
        scores = score(self, video, **options)
        shutil.copy(folder / "videos/b.mp4", tmp_path / "videos/b.mkv")
        return scores

    with monkeypatch.context() as patched:
        patched.setattr(spotter.ActionSpotter, "score", and_copy)
        assert spot("videos/b.mkv", "videos/a.mkv", "--save-scores", "scores")[0] == 0
    code, _, decoded = spot("videos/b.mkv", "videos/a.mkv", "--save-scores", "scores")
    assert code == 0 and "b.mkv" in decoded and "a.mkv" not in decoded


def test_videos_of_one_name_and_raw_scores(spot, folder, tmp_path):
    (tmp_path / "videos").mkdir()
    for suffix in (".mkv", ".ts"):
        shutil.copy(folder / "videos/a.mkv", tmp_path / f"videos/a{suffix}")
    assert spot("videos", "--save-scores", "scores")[0] == 0
    assert files_of(tmp_path / "events") == ["a.mkv.json", "a.ts.json", "spot.json"]
    shutil.rmtree(tmp_path / "events")
    code, _, decoded = spot("videos", "--save-scores", "scores")
    assert (code, decoded) == (0, []) and len(files_of(tmp_path / "events")) == 3

"""Own videos and a CSV of events: the layout that comes of them, and one line for each thing that cannot be."""

import json
import os
import re
import shutil
import unicodedata

import pytest

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.events.check import check_events
from comedian.events.own_videos import import_videos
from comedian.soccernet.builder import SoccerNet
from comedian.soccernet.labels import read_label_list
from comedian.soccernet.layout import find_halves
from video_factory import write_video

HEADER = "video,label,time_s\n"
ROWS = "a.mp4,Goal,1.5\ncup/b.mkv,Corner,0:02.25\na.mp4,Corner,00:00:03\ncup/b.mkv,Goal,0\n"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Four seconds each."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("a.mp4", "cup/b.mkv", "c.mp4", "same.mp4", "same.mkv", ".hidden/d.mp4"):
        write_video(folder / name, num_frames=16, fps=4, height=32, width=32)
    (folder / "notes.txt").write_text("no video\n")
    (folder / "notes.mp4").write_text("no video\n")
    return folder


def write_csv(tmp_path, text=HEADER + ROWS):
    path = tmp_path / "events.csv"
    path.write_text(text, encoding="utf-8")
    return path


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_builder_reads_what_the_csv_says(videos, tmp_path):
    made = import_videos(videos, write_csv(tmp_path), tmp_path / "out")
    builder = SoccerNet(data_dir=str(made.root), labels=list(read_label_list(made.labels_path)))
    builder.download_and_prepare()
    rows = {row["video_id"]: row for split in made.splits for row in builder.as_dataset(split=split)}
    found = {
        video_id: [(event["label"], event["position_ms"]) for event in row["events"]] for video_id, row in rows.items()
    }
    assert found == {"a": [("Goal", 1500), ("Corner", 3000)], "cup/b": [("Goal", 0), ("Corner", 2250)]}
    assert rows["a"]["video_path"].endswith("out/a/1_a.mp4") and rows["a"]["duration_s"] == pytest.approx(4)
    assert os.path.samefile(rows["cup/b"]["video_path"], videos / "cup/b.mkv")
    assert made.labels == ("Corner", "Goal")
    assert sorted(map(len, made.splits.values())) == [1, 1]
    assert made.count("train") + made.count("validation") == {"Goal": 2, "Corner": 2}
    assert made.unlisted == ("c.mp4", "notes.mp4", "same.mkv", "same.mp4")


@pytest.mark.parametrize(
    "time, position_ms", [("3", 3000), ("3.", 3000), ("0.0004", 0), ("0:01", 1000), ("00:00:02.5", 2500)]
)
def test_times(videos, tmp_path, time, position_ms):
    made = import_videos(videos, write_csv(tmp_path, f"{HEADER}c.mp4,x,{time}\na.mp4,x,1\n"), tmp_path / "out")
    assert made.events["c"][0].position_ms == position_ms


def test_long_times(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("comedian.events.own_videos.probe", lambda path: type("Info", (), {"duration_s": 9000.0}))
    text = f"{HEADER}c.mp4,x,95:10\na.mp4,x,1:35:10.5\n"
    made = import_videos(videos, write_csv(tmp_path, text), tmp_path / "out")
    assert [made.events[name][0].position_ms for name in ("c", "a")] == [5_710_000, 5_710_500]


def test_other_columns_order_spaces_and_marks_do_not_count(videos, tmp_path):
    text = '\ufefftime_s, who,label ,video\n1, me, "Goal, own" ,a.mp4\n\n 2 ,,Élan, c.mp4\n'
    made = import_videos(videos, write_csv(tmp_path, text), tmp_path / "out")
    assert made.labels == ("Goal, own", "Élan")
    assert read_label_list(made.labels_path) == made.labels


BAD = {
    "a.mp4,,1": "line 2: `label` is empty; write what happened",
    'a.mp4,"x\ny",1': "a label is one line",
    ",x,1": "line 2: `video` is empty; write the name of the video's file",
    "a.mp4,x": "line 2: `time_s` is ''; write seconds from the video's start, `mm:ss` or `hh:mm:ss`",
    "a.mp4,x,-1": "line 2: `time_s` is '-1'",
    "a.mp4,x,nan": "`time_s` is 'nan'",
    "a.mp4,x,1:60": "`time_s` is '1:60'",
    "a.mp4,x,1:75:00": "`time_s` is '1:75:00'",
    "a.mp4,x,4": "line 2: 'x' at 4 s is after the end of `a.mp4`, which is 4.0 s long; correct the time",
    "c.mp4,x,1\na.mp4,x,0:09": "line 3: 'x' at 9 s is after the end of `a.mp4`",
    "b.mkv,x,1": "line 2: there is no video `b.mkv` in `VIDEOS`; did you mean `cup/b.mkv`?",
    "cup,x,1": "line 2: `cup` is a folder, and it contains no part with a name such as `1.mp4`",
    "notes.txt,x,1": "`notes.txt` does not have the extension of a video (.avi, .m4v",
    "notes.mp4,x,1": "line 2: `VIDEOS/notes.mp4` ",
    "../a.mp4,x,1": "line 2: '../a.mp4' leads out of `VIDEOS`",
    "/etc/a.mp4,x,1": "leads out of",
    ".hidden/d.mp4,x,1": "`.hidden/d.mp4` is hidden",
    "a.mp4,x,1\nc.mp4,x,1\na.mp4,x,0:01": "line 4: 'x' at 1 s in `a.mp4` is already in line 2; delete one",
    "same.mp4,x,1\nsame.mkv,x,1": "`same.mp4` and `same.mkv` are both half 1 of a match `same`; rename one",
    "a.mp4,x,1": "one video is in training; training and validation need two or more",
    "": "contains no events; write one per line, such as",
}


@pytest.mark.parametrize("rows", BAD)
def test_what_cannot_be_is_one_line_and_leaves_nothing(videos, tmp_path, rows):
    path = write_csv(tmp_path, HEADER + rows + "\n")
    with pytest.raises(InputError) as caught:
        import_videos(videos, path, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(f"`{path}`") and BAD[rows].replace("VIDEOS", str(videos)) in message, message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("header", ["", "video,label\n", "video;label;when\n", "a.mp4,Goal,1\n"])
def test_a_missing_column_is_named_with_all_that_there_must_be(videos, tmp_path, header):
    with pytest.raises(InputError, match=re.escape("no column `")) as caught:
        import_videos(videos, write_csv(tmp_path, header), tmp_path / "out")
    assert "line 1: " in str(caught.value) and "must be `video,label,time_s`" in str(caught.value)


def test_a_file_that_is_no_text_or_not_there(videos, tmp_path):
    path = tmp_path / "events.csv"
    path.write_bytes(f"{HEADER}a.mp4,But marqué,1\n".encode() + b"a.mp4,\x81,1\n")
    with pytest.raises(InputError, match="is not text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8"):
        import_videos(videos, path, tmp_path / "out")
    with pytest.raises(InputError, match="cannot be read"):
        import_videos(videos, tmp_path / "none.csv", tmp_path / "out")
    with pytest.raises(InputError, match="is not a folder"):
        import_videos(tmp_path / "none", path, tmp_path / "out")


@pytest.mark.parametrize("on_disk, in_file", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_names_in_other_unicode_forms_are_found(tmp_path, on_disk, in_file):
    names = [f"{place}/Köln {number}.mp4" for number, place in enumerate(("Hinrunde", "Rückrunde"))]
    for number, name in enumerate(names):
        path = tmp_path / "in" / unicodedata.normalize(on_disk, name)
        write_video(path, num_frames=8 + number, fps=4, height=32, width=32)
    rows = "".join(f"{unicodedata.normalize(form, name)},x,1\n" for form, name in zip((in_file, "NFC"), names))
    rows += f"{unicodedata.normalize(on_disk, names[0])},y,1\n"
    made = import_videos(tmp_path / "in", write_csv(tmp_path, HEADER + rows), tmp_path / "out")
    assert not made.unlisted and sum(map(len, made.events.values())) == 3
    assert sorted(made.events) == sorted(name.removesuffix(".mp4") for name in names)
    checked = check_events(tmp_path / "in", write_csv(tmp_path, HEADER + rows), progress=False)
    assert checked.num_videos == 2 and not any("missing" in found.kind for found in checked.findings)


def test_the_same_again_changes_nothing_and_a_changed_csv_counts(videos, tmp_path):
    path, output = write_csv(tmp_path), tmp_path / "out"
    first = import_videos(videos, path, output)
    before = files_of(output)
    assert import_videos(videos, path, output) == first
    assert files_of(output) == before
    path.write_text(HEADER + ROWS + "c.mp4,Foul,1\n")
    assert import_videos(videos, path, output).labels == ("Corner", "Foul", "Goal")
    assert find_halves(output / "c") == {1: output / "c" / "1_c.mp4"}


def test_a_video_under_another_suffix_does_not_lie_beside_the_one_before(videos, tmp_path):
    """Two videos of one half: every later command would take the smaller one, whichever the events mean."""
    csv = f"{HEADER}same.mp4,x,1\na.mp4,x,1\n"
    made = import_videos(videos, write_csv(tmp_path, csv), tmp_path / "out")
    before = files_of(tmp_path / "out")
    with pytest.raises(InputError, match=r"1_same.mp4` is the video of an earlier import, now `1_same.mkv`; delete"):
        import_videos(videos, write_csv(tmp_path, csv.replace("mp4,x,1", "mkv,x,1", 1)), tmp_path / "out")
    assert files_of(tmp_path / "out") == before and find_halves(made.root / "same") == {
        1: made.root / "same/1_same.mp4"
    }


def test_a_folder_with_other_things_is_left_alone(videos, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "splits.json").write_text("mine")
    with pytest.raises(InputError, match="contains other files; give a new folder"):
        import_videos(videos, write_csv(tmp_path), output)
    assert files_of(output) == {"splits.json": b"mine"}


def test_an_output_inside_the_videos_is_no_video(videos, tmp_path):
    made = import_videos(videos, write_csv(tmp_path), videos / "out")
    try:
        assert not any(name.startswith("out/") for name in made.unlisted)
        assert import_videos(videos, tmp_path / "events.csv", videos / "out") == made
    finally:
        shutil.rmtree(videos / "out")


def test_without_hard_links_the_links_are_soft(videos, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    made = import_videos(videos, write_csv(tmp_path), tmp_path / "out")
    assert (made.root / "a" / "1_a.mp4").readlink() == (videos / "a.mp4").resolve()
    assert not list(made.root.rglob("*.partial"))


def test_splits_follow_the_seed_and_move_few_videos_when_some_are_added(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("comedian.events.own_videos.probe", lambda path: type("Info", (), {"duration_s": 4.0}))
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(50):
        (folder / f"{index}.mp4").touch()

    def splits(count, **settings):
        rows = "".join(f"{index}.mp4,x,1\n" for index in range(count))
        made = import_videos(folder, write_csv(tmp_path, HEADER + rows), tmp_path / "out", **settings)
        assert not set(made.splits["train"]) & set(made.splits["validation"])
        assert json.loads((made.root / "splits.json").read_text()) == made.splits
        return set(made.splits["validation"])

    small, large = splits(45), splits(50)
    assert (len(small), len(large)) == (9, 10)
    assert len(small - large) <= 2
    assert splits(50) == large != splits(50, seed=1)
    assert len(splits(50, validation_share=0.5)) == 25
    assert len(splits(2)) == 1
    with pytest.raises(InputError, match="share between 0 and 1"):
        splits(2, validation_share=1.0)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A match of three parts, one of one part as in ball action spotting, and a video."""
    folder = tmp_path_factory.mktemp("parts")
    for name in ("cup/final/1.mkv", "cup/final/2.mkv", "cup/final/3.mkv", "ball/224p.mp4", "a.mp4"):
        write_video(folder / name, num_frames=16, fps=4, height=32, width=32)
    return folder


def test_a_match_of_three_parts_and_of_one(parts, tmp_path):
    text = "video,label,time_s,half\ncup/final,x,1,3\ncup/final,y,2,1\nball,x,1,\na.mp4,x,3,\ncup/final,,,2\n"
    made = import_videos(parts, write_csv(tmp_path, text), tmp_path / "out")
    assert find_halves(made.root / "cup/final") == {half: made.root / f"cup/final/{half}.mkv" for half in (1, 2, 3)}
    assert find_halves(made.root / "ball") == {1: made.root / "ball/1_224p.mp4"}
    builder = SoccerNet(data_dir=str(made.root))
    builder.download_and_prepare()
    rows = [row for split in made.splits for row in builder.as_dataset(split=split)]
    found = {(row["video_id"], row["half"]): [event["label"] for event in row["events"]] for row in rows}
    assert found == {
        ("cup/final", 1): ["y"],
        ("cup/final", 2): [],
        ("cup/final", 3): ["x"],
        ("ball", 1): ["x"],
        ("a", 1): ["x"],
    }
    assert made.unlisted == ()


@pytest.mark.parametrize(
    "row, message",
    [
        ("cup/final,x,1,", "line 2: `cup/final` is a folder, and its parts are 1, 2, 3; give the part in `half`"),
        ("cup/final,x,1,4", "its parts are 1, 2, 3"),
        ("a.mp4,x,1,2", "line 2: `a.mp4` is one video and has no half 2; leave `half` empty"),
        ("cup/final,x,4,2", "line 2: 'x' at 4 s is after the end of `cup/final`, which is 4.0 s long"),
    ],
)
def test_parts_that_are_not_there(parts, tmp_path, row, message):
    with pytest.raises(InputError, match=re.escape(message)):
        import_videos(parts, write_csv(tmp_path, f"video,label,time_s,half\n{row}\n"), tmp_path / "out")


def test_a_file_of_another_format_and_its_splits(parts, tmp_path):
    path = tmp_path / "test.json"
    event = {"frame": 5, "label": "x"}
    videos = [{"video": name, "fps": 4, "num_frames": 16, "events": [event]} for name in ("a", "cup/final/1", "ball")]
    path.write_text(json.dumps(videos))
    made = import_videos(parts, path, tmp_path / "out")
    assert {name: [found.position_ms for found in events] for name, events in made.events.items()} == {
        "a": [1250],
        "cup/final": [1250],
        "ball": [1250],
    }
    assert made.unlisted == ("cup/final/2.mkv", "cup/final/3.mkv")


@pytest.mark.parametrize(
    "told, wanted",
    [
        # what is not told is for training
        (["valid", "", "test"], {"train": ["a"], "validation": ["cup/final"], "test": ["ball"]}),
        (["test", "", ""], {"test": ["cup/final"]}),
        (["valid", "valid", None], "no video is in training"),
        (["test", "test", None], "no video is in training"),
        (["test", "test", "train"], "one video is in training"),
    ],
)
def test_splits_that_are_told(parts, tmp_path, told, wanted):
    final, video, ball = told
    text = f"video,label,time_s,half,split\ncup/final,x,1,2,{final}\na.mp4,x,1,,{video}\n"
    text += "" if ball is None else f"ball,x,1,,{ball}\n"
    if isinstance(wanted, str):
        with pytest.raises(InputError, match=wanted):
            import_videos(parts, write_csv(tmp_path, text), tmp_path / "out")
        return
    splits = import_videos(parts, write_csv(tmp_path, text), tmp_path / "out").splits
    assert {name: splits[name] for name in wanted} == wanted
    assert sorted(sum(splits.values(), [])) == ["a", "ball", "cup/final"] and all(splits.values())


def test_the_command_imports_and_counts(parts, tmp_path, capsys):
    path = write_csv(tmp_path, "video,label,time_s\na.mp4,x,1\nball,x,1\nball,y,2\n")
    assert main(["data", "import", str(parts), str(path), str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["events", "train", "validation"]
    assert sorted(lines[1].split()) == ["1", "1", "x"] and sorted(lines[2].split()) == ["0", "1", "y"]
    assert (
        lines[3] == "omitted, because the events do not list them: cup/final/1.mkv, cup/final/2.mkv, cup/final/3.mkv"
    )
    assert main(["data", "import", str(parts), str(path), str(tmp_path / "out2"), "--validation-share", "2"]) == 2

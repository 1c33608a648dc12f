"""A clean data set has no finding; each thing that is broken in it has one, with the file and how to mend it."""

import json
import re
import shutil

import pytest

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.events.check import check_events, check_layout
from video_factory import write_video

SPLITS = {"train": ["league/one", "league/two"], "validation": ["league/three"]}
LABELS = ("Goal", "Corner")


def annotation(label, half, position_ms, **fields):
    clock = f"{half} - {position_ms // 60_000:02d}:{position_ms // 1000 % 60:02d}"
    return {"gameTime": clock, "label": label, "position": str(position_ms)} | fields


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Three matches of two halves of about four seconds, no two alike, with the same labels in each."""
    root = tmp_path_factory.mktemp("clean")
    for number, video_id in enumerate(SPLITS["train"] + SPLITS["validation"]):
        for half in (1, 2):
            video = root / video_id / f"{half}_224p.mkv"
            write_video(video, num_frames=16 + 2 * number + half, fps=4, height=32, width=32)
        write_labels(root / video_id, [annotation(label, half, 1000 * half) for half in (1, 2) for label in LABELS])
    (root / "splits.json").write_text(json.dumps(SPLITS))
    (root / "labels.txt").write_text("\n".join(LABELS) + "\n")
    return root


def write_labels(folder, annotations):
    (folder / "Labels-v2.json").write_text(json.dumps({"annotations": annotations}))


def add_labels(folder, *annotations):
    content = json.loads((folder / "Labels-v2.json").read_text())
    write_labels(folder, content["annotations"] + list(annotations))


@pytest.fixture
def root(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "root")


def findings_of(root, **settings):
    return [(found.kind, found.message) for found in check_layout(root, progress=False, **settings).findings]


def test_a_clean_data_set_has_no_finding(clean, capsys):
    checked = check_layout(clean, progress=False)
    assert (checked.findings, checked.num_videos, checked.num_events) == ((), 6, 12)
    assert main(["data", "check", str(clean)]) == 0
    assert capsys.readouterr().out == "6 videos, 12 events: no problems found\n"


def outside(root):
    add_labels(root / "league/two", annotation("Goal", 2, 5000))


def at_the_end(root):
    # 16 + 2 + 1 frames at 4 fps
    add_labels(root / "league/two", annotation("Goal", 1, 4750), annotation("Corner", 1, 4749))


def twice(root):
    add_labels(root / "league/one", annotation("Corner", 2, 2000))


def unknown(root):
    add_labels(root / "league/one", annotation("Foul", 2, 2500), annotation("Foul", 1, 2500))


def spelt(root):
    (root / "labels.txt").unlink()
    add_labels(root / "league/one", annotation("goal ", 2, 2500))
    add_labels(root / "league/three", annotation("goal ", 2, 2500))


def no_such_label(root):
    (root / "labels.txt").write_text("Goal\nCorner\nPenalty\n")


def no_half_video(root):
    (root / "league/one/2_224p.mkv").unlink()


def no_middle_half(root):
    (root / "league/one/2_224p.mkv").rename(root / "league/one/3_224p.mkv")
    write_labels(root / "league/one", [annotation(label, half, 1000) for half in (1, 3) for label in LABELS])


def no_videos(root):
    for half in (1, 2):
        (root / f"league/one/{half}_224p.mkv").unlink()


def no_labels(root):
    (root / "league/one/Labels-v2.json").unlink()


def empty_labels(root):
    (root / "league/one/Labels-v2.json").write_text("")


def bad_label(root):
    add_labels(root / "league/one", {"label": "Goal", "gameTime": "soon"})


def no_events_of_a_half(root):
    write_labels(root / "league/one", [annotation(label, 1, 1000) for label in LABELS])


def no_picture(root):
    (root / "league/one/1_224p.mkv").write_text("no video\n")


def empty_video(root):
    (root / "league/one/1_224p.mkv").write_bytes(b"")


def no_frame_that_decodes(root):
    video = root / "league/one/1_224p.mkv"
    header, cluster, frames = video.read_bytes().partition(b"\x1f\x43\xb6\x75")
    video.write_bytes(header + cluster + bytes(len(frames)))


def two_videos(root):
    shutil.copy(root / "league/one/1_224p.mkv", root / "league/one/1_224p.mp4")


def other_rate(root):
    write_video(root / "league/one/1_224p.mkv", num_frames=50, fps=10, height=32, width=32)


def no_splits(root):
    (root / "splits.json").unlink()


def in_no_split(root):
    (root / "splits.json").write_text(json.dumps({"train": ["league/one"], "validation": ["league/three"]}))


def in_two_splits(root):
    (root / "splits.json").write_text(json.dumps(SPLITS | {"test": ["league/one"]}))


def missing_match(root):
    (root / "splits.json").write_text(json.dumps(SPLITS | {"test": ["league/four"]}))


def not_in_train(root):
    for name in SPLITS["train"]:
        write_labels(root / name, [annotation("Goal", half, 1000) for half in (1, 2)])


def not_in_validation(root):
    write_labels(root / "league/three", [annotation("Goal", half, 1000) for half in (1, 2)])


def other_shares(root):
    corners = [annotation("Corner", 1, 100 + 10 * index) for index in range(30)]
    add_labels(root / "league/three", *corners)
    goals = [annotation("Goal", 1, 100 + 10 * index) for index in range(30)]
    add_labels(root / "league/one", *goals)


def no_training(root):
    (root / "splits.json").write_text(json.dumps({"train": [], "validation": SPLITS["train"] + SPLITS["validation"]}))


def copy_across(root):
    shutil.copy(root / "league/one/1_224p.mkv", root / "league/three/1_224p.mkv")


def copy_within(root):
    shutil.copy(root / "league/one/1_224p.mkv", root / "league/two/1_224p.mkv")


# what is broken -> the findings: kind and what the message says
BROKEN = {
    outside: [
        ("event outside the video", r"two/Labels-v2.json`, annotations\[4\]: 'Goal' at 5 s .* 5.0 s long; correct")
    ],
    at_the_end: [("event outside the video", r"annotations\[4\]: 'Goal' at 4.75 s is after the end .* 4.8 s long")],
    twice: [("duplicate event", r"one/Labels-v2.json`, annotations\[4\]: .* is already in annotations\[3\]; delete")],
    unknown: [("unknown label", r"annotations\[5\] and 1 more: 'Foul' is not in `.*labels.txt`; add it there")],
    spelt: [("label in two spellings", r"annotations\[4\] and 1 more: 'goal ', elsewhere 'Goal'; use one")],
    no_such_label: [("label without events", r"labels.txt`: no event has the label 'Penalty'; delete it")],
    no_half_video: [("missing video", r"one/Labels-v2.json`: 2 events of half 2, and no video such as `2_224p.mkv`")],
    no_middle_half: [("missing video", r"one/Labels-v2.json`: no half 2, and no video such as `2_224p.mkv`")],
    no_videos: [("missing video", "2 events of half 1,"), ("missing video", "2 events of half 2,")],
    no_labels: [("missing labels", r"league/one` has no label file; write a `Labels-v2.json`")],
    empty_labels: [("unreadable labels", r"one/Labels-v2.json` is not valid JSON")],
    bad_label: [("unreadable labels", r"one/Labels-v2.json`, annotations\[4\]: `gameTime` is 'soon'")],
    no_events_of_a_half: [("no event", r"one/Labels-v2.json` has no event of half 2; label it, unless")],
    no_picture: [("unreadable video", r"one/1_224p.mkv` ")],
    empty_video: [("unreadable video", r"one/1_224p.mkv` is empty, 0 bytes; copy it again")],
    no_frame_that_decodes: [("unreadable video", r"one/1_224p.mkv` contains no frame that can be decoded")],
    two_videos: [("several videos", r"league/one` has several videos for half 1")],
    other_rate: [("differing rate", r"one/1_224p.mkv`: 10 fps, where 5 videos have 4; times are in seconds")],
    no_splits: [("no split", r"has no splits; write `splits.json`, such as")],
    in_no_split: [("in no split", r"league/two` is in no split and is omitted; add it")],
    in_two_splits: [("splits", r"splits.json` lists 'league/one' more than once")],
    missing_match: [("splits", r"lists 'league/four' in test, and there is not a folder")],
    not_in_train: [("unbalanced splits", r"'Corner': 2 events in validation, none in train; it cannot be learned")],
    not_in_validation: [
        ("unbalanced splits", r"'Corner': 4 events in train, none in validation to choose a threshold with")
    ],
    other_shares: [
        # 4 + 30 Corners of 36 of validation; 4 of 8 + 30 of training
        ("unbalanced splits", r"'Corner' is 94.1 % of the events of validation and 10.5 % of those of train; move"),
        ("unbalanced splits", r"'Goal' is 5.9 % of the events of validation and 89.5 % of those of train"),
    ],
    no_training: [("unbalanced splits", r"no event is in the split train; put matches")],
    copy_across: [("overlap between splits", r"are the same video in the splits train and validation; keep one")],
    copy_within: [("same video twice", r"two/1_224p.mkv` are the same video; keep one")],
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_what_is_broken_is_named_and_nothing_else(root, broken):
    broken(root)
    found = findings_of(root)
    assert [kind for kind, _ in found] == [kind for kind, _ in BROKEN[broken]], found
    for (_, message), (_, pattern) in zip(found, BROKEN[broken], strict=True):
        assert re.search(pattern, message), message
        assert "\n" not in message
        assert str(root) in message or BROKEN[broken][0][0] == "unbalanced splits"


@pytest.mark.parametrize(
    "found, of",
    [
        ("look like seconds; write milliseconds", lambda half, ms: ms // 1000),
        ("look like frames at 25 a second", lambda half, ms: ms * 25 // 1000),
        ("look like frames at 29.97 a second", lambda half, ms: round(ms * 30_000 / 1001 / 1000)),
        ("the clock of the whole match", lambda half, ms: ms + (half - 1) * 2_700_000),
        ("correct the wrong one", lambda half, ms: ms * 3),
        (None, lambda half, ms: ms + 900),
    ],
)
def test_positions_that_contradict_the_clock(root, found, of):
    events = [annotation("Goal", half, ms) for half in (1, 2) for ms in (600_000, 754_000, 1_801_000)]
    events = [event | {"position": str(of(int(event["gameTime"][0]), int(event["position"])))} for event in events]
    write_labels(root / "league/one", events)
    told = [message for kind, message in findings_of(root) if kind == "contradicting times"]
    if found is None:
        assert told == []
        return
    (message,) = told
    assert f"{root}/league/one/Labels-v2.json`, annotations[" in message and found in message, message
    count = 6 if "whole match" not in found else 3
    assert f"and {count - 1} more" in message
    one = write_json_file(root.parent / "one.json", events)
    assert any(found in finding.message for finding in check_events(root, one, progress=False).findings)


def write_json_file(path, events):
    path.write_text(json.dumps({"UrlLocal": "league/one", "annotations": events}))
    return path


def test_label_files_of_different_names(root):
    (root / "league/two/Labels-v2.json").rename(root / "league/two/Labels.json")
    ((kind, message),) = findings_of(root)
    assert kind == "label files of different names"
    assert f"`{root}/league/two/Labels.json`, where 2 matches have Labels-v2.json" in message


def test_few_events_may_differ_and_a_test_may_lack_a_label(root):
    splits = {"train": ["league/one"], "validation": ["league/two"], "test": ["league/three"]}
    (root / "splits.json").write_text(json.dumps(splits))
    write_labels(root / "league/three", [annotation("Goal", half, 1000) for half in (1, 2)])
    add_labels(root / "league/one", *(annotation("Goal", 1, 1500 + index) for index in range(6)))
    # Corners are 2 of 10 events of training and 5 of 7 of validation
    write_labels(
        root / "league/two",
        [annotation("Goal", half, 1000) for half in (1, 2)]
        + [annotation("Corner", 1, 1000 + index) for index in range(5)],
    )
    assert findings_of(root) == []


def test_a_challenge_needs_no_labels(root):
    (root / "splits.json").write_text(json.dumps({"train": SPLITS["train"], "challenge": ["league/three"]}))
    (root / "league/three/Labels-v2.json").unlink()
    assert [kind for kind, _ in findings_of(root)] == ["unbalanced splits"]  # no validation


def test_an_empty_folder_and_none(tmp_path):
    assert [kind for kind, _ in findings_of(tmp_path)] == ["no match"]
    with pytest.raises(InputError, match="is not a folder"):
        check_layout(tmp_path / "none")


def test_the_command_prints_a_few_of_a_kind_and_writes_all(root, tmp_path, capsys):
    add_labels(root / "league/one", *(annotation("Goal", 1, 60_000 + second) for second in range(12)))
    assert main(["data", "check", str(root), "--output", str(tmp_path / "found.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["event outside the video"] * 11 + ["6 videos, 24 events"]
    assert lines[-2] == "event outside the video: 2 more; `--output FILE` writes all"
    written = json.loads((tmp_path / "found.json").read_text())
    assert len(written["findings"]) == 12 and written["findings"][0]["kind"] == "event outside the video"
    for words in (
        ["--labels", str(tmp_path / "none.txt")],
        ["--fps", "2"],
        ["--splits", "a.json", "--events", "a.csv"],
    ):
        assert main(["data", "check", str(root), *words]) == 2


@pytest.fixture
def videos(clean, tmp_path):
    """Two videos and a match of two parts."""
    folder = tmp_path / "videos"
    shutil.copytree(clean / "league/one", folder / "cup")
    (folder / "cup/Labels-v2.json").unlink()
    for half in (1, 2):
        shutil.copy(clean / f"league/two/{half}_224p.mkv", folder / f"{half}.mkv")
    return folder


CLEAN_CSV = "video,label,time_s,half\n1.mkv,Goal,1,\n2.mkv,Goal,2,\ncup,Goal,1,1\ncup,Goal,2,2\n"


@pytest.mark.parametrize(
    "text, wanted",
    [
        (CLEAN_CSV, []),
        (CLEAN_CSV + "1.mkv,Goal,9,\n", [("event outside the video", "line 6: 'Goal' at 9 s")]),
        (
            CLEAN_CSV + "2.mkv,Goal,0:02,\n",
            [("duplicate event", "line 6: 'Goal' at 2 s in `2.mkv` is already in line 3")],
        ),
        (CLEAN_CSV + "1.mkv,Goal,soon,\n,Goal,1,\n", [("unreadable event", "line 6"), ("unreadable event", "line 7")]),
        (CLEAN_CSV + "3.mkv,Goal,1,\n", [("missing video", "line 6: there is no video `3.mkv`")]),
        (
            CLEAN_CSV + "cup,Goal,1,\n",
            [("missing video", "`cup` is a folder, and its parts are 1, 2; give the part in `half`")],
        ),
        (CLEAN_CSV + "cup,Goal,1,3\n", [("missing video", "its parts are 1, 2")]),
        (
            CLEAN_CSV + "1.mkv,Goal,1,2\n",
            [("missing video", "`1.mkv` is one video and has no half 2; leave `half` empty")],
        ),
        (CLEAN_CSV.replace("2.mkv,Goal,2,", "2.mkv,,,"), [("no event", "has no event of `2.mkv`; label it, unless")]),
        (CLEAN_CSV.replace("2.mkv,Goal,2,\n", ""), [("video without labels", "2.mkv` is not listed in")]),
        (CLEAN_CSV + "1.mkv,goal,2,\n", [("label in two spellings", "line 6: 'goal', elsewhere 'Goal'; use one")]),
    ],
)
def test_videos_and_a_file_of_events(videos, tmp_path, text, wanted):
    path = tmp_path / "events.csv"
    path.write_text(text)
    found = check_events(videos, path, progress=False).findings
    assert [
        (finding.kind, pattern in finding.message) for finding, (_, pattern) in zip(found, wanted, strict=True)
    ] == [(kind, True) for kind, _ in wanted], found


def test_one_video_alone_and_no_event_at_all(videos, tmp_path):
    for name in ("cup", "2.mkv"):
        shutil.rmtree(videos / name) if name == "cup" else (videos / name).unlink()
    path = tmp_path / "events.csv"
    path.write_text("video,label,time_s\n1.mkv,Goal,1\n")
    assert [found.kind for found in check_events(videos, path, progress=False).findings] == ["no split"]
    path.write_text("video,label,time_s\n")
    kinds = [found.kind for found in check_events(videos, path, progress=False).findings]
    assert kinds == ["no event", "video without labels"]


@pytest.mark.parametrize(
    "fps, num_frames, found",
    [
        (4, 19, []),  # 4 fps as the video
        (2, 10, []),  # counted at another rate, of the same length
        (8, 19, ["wrong rate"]),  # 2.4 s of 4.75
        (4, None, []),
        (8, None, ["wrong rate"]),
    ],
)
def test_frames_at_a_wrong_rate(videos, tmp_path, fps, num_frames, found):
    for name in ("cup", "2.mkv"):
        shutil.rmtree(videos / name) if name == "cup" else (videos / name).unlink()
    video = {"video": "1", "fps": fps, "events": [{"frame": 3, "label": "Goal"}]}
    path = tmp_path / "events.json"
    path.write_text(json.dumps([video if num_frames is None else video | {"num_frames": num_frames}]))
    kinds = [finding.kind for finding in check_events(videos, path, progress=False).findings]
    assert [kind for kind in kinds if kind != "no split"] == found

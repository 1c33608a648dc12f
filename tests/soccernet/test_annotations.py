import json
import logging
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from SoccerNet.Evaluation.ActionSpotting import label2vector, predictions2vector
from SoccerNet.Evaluation.utils import EVENT_DICTIONARY_BALL, EVENT_DICTIONARY_V2

from comedian.errors import InputError
from comedian.soccernet.annotations import (
    Annotation,
    game_time,
    position_ms_of,
    read_annotations,
    read_results,
    timestamp_s_of,
    write_results,
)
from comedian.soccernet.labels import BALL_LABELS_2, BALL_LABELS_12, SOCCERNET_V2_LABELS, read_label_list
from comedian.soccernet.layout import find_halves, find_label_file, find_matches

GFSPOT = Path(__file__).parents[3] / "shared" / "gfspot"

KICK_OFF = {
    "gameTime": "1 - 00:14",
    "label": "Kick-off",
    "position": "14044",
    "team": "home",
    "visibility": "not shown",
}
RESULT = {"gameTime": "2 - 0:31", "label": "Goal", "position": "31500", "half": "2", "confidence": "0.0066"}


def write_labels(path, *annotations):
    path.write_text(json.dumps({"UrlLocal": "", "annotations": annotations}))
    return path


def test_label_lists_are_the_official_scorers():
    assert {label: index for index, label in enumerate(SOCCERNET_V2_LABELS)} == EVENT_DICTIONARY_V2
    assert {label: index for index, label in enumerate(BALL_LABELS_2)} == EVENT_DICTIONARY_BALL
    assert len(set(BALL_LABELS_12)) == 12


def test_a_label_list_keeps_its_order(tmp_path):
    (tmp_path / "labels.txt").write_text("Throw-in\n Goal \r\n\nYellow->red card")
    assert read_label_list(tmp_path / "labels.txt") == ("Throw-in", "Goal", "Yellow->red card")


@pytest.mark.parametrize("text", ["", "\n \n", "Goal\nFoul\nGoal\n"])
def test_a_label_list_that_is_empty_or_repeats_itself_is_refused(tmp_path, text):
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(InputError, match=r"labels\.txt"):
        read_label_list(tmp_path / "labels.txt")


def test_an_annotation_is_read_in_full(tmp_path):
    (annotation,) = read_annotations(write_labels(tmp_path / "Labels-v2.json", KICK_OFF))
    assert annotation == Annotation("Kick-off", 1, 14044, "home", "not shown")
    assert annotation.timestamp_s == 14.044


def test_what_the_first_version_of_soccernet_leaves_out_has_defaults(tmp_path):
    path = write_labels(tmp_path / "Labels.json", {"gameTime": "2 - 104:05", "label": "soccer-ball"})
    assert read_annotations(path) == [Annotation("soccer-ball", 2, (104 * 60 + 5) * 1000, "not applicable", "visible")]


@pytest.mark.parametrize("position", ["90500", 90500, 90500.0, 90500.9, "90500.0"])
def test_a_position_is_a_number_or_a_string(tmp_path, position):
    path = write_labels(tmp_path / "Labels-v2.json", KICK_OFF | {"position": position})
    assert read_annotations(path)[0].position_ms == 90500


@settings(max_examples=30, deadline=None)  # the official arrays are 72 MB a match
@given(
    events=st.lists(
        st.tuples(st.integers(1, 2), st.integers(0, 90 * 60_000), st.booleans(), st.sampled_from(SOCCERNET_V2_LABELS)),
        max_size=20,
    )
)
def test_annotations_mean_what_the_official_scorer_reads(tmp_path_factory, events):
    framerate = 25
    raw = []
    for half, position_ms, has_position, label in events:
        seconds = position_ms // 1000
        event = {
            "gameTime": f"{half} - {seconds // 60:02d}:{seconds % 60:02d}",
            "label": label,
            "visibility": "visible",
        }
        raw.append(event | ({"position": str(position_ms)} if has_position else {}))
    path = write_labels(tmp_path_factory.mktemp("labels") / "Labels-v2.json", *raw)

    official = label2vector(json.loads(path.read_text()), framerate=framerate, EVENT_DICTIONARY=EVENT_DICTIONARY_V2)
    ours = {
        (a.half, int(framerate * (a.position_ms / 1000)), SOCCERNET_V2_LABELS.index(a.label))
        for a in read_annotations(path)
    }
    assert ours == {
        (half, frame, column) for half in (1, 2) for frame, column in zip(*official[half - 1].nonzero(), strict=True)
    }


def test_a_label_list_restricts_and_says_so(tmp_path, caplog):
    path = write_labels(tmp_path / "Labels-v2.json", KICK_OFF, KICK_OFF | {"label": "Goal"}, KICK_OFF)
    with caplog.at_level(logging.INFO, logger="comedian"):
        assert [a.label for a in read_annotations(path, ["Goal", "Foul"])] == ["Goal"]
    assert len(caplog.records) == 1
    assert "2 annotations" in caplog.text and "Kick-off (2)" in caplog.text
    assert len(read_annotations(path, None)) == 3


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    "change",
    [
        *({"position": bad} for bad in (NAN, INFINITY, -1, "-1", "nan", "", "12:30", None, [], True, 10**400, 1e18)),
        *({"gameTime": bad} for bad in (None, "", "0 - 01:00", "-1 - 01:00", "1.5 - 01:00", "x", "1 - 01:75", 7)),
        *({"label": bad} for bad in (None, 3, ["Goal"])),
        *({"visibility": bad} for bad in (None, "", "hidden", 1, ["visible"])),
        {"team": 3},
    ],
)
def test_a_field_without_sense_is_named_with_file_and_number(tmp_path, change):
    path = write_labels(tmp_path / "Labels-v2.json", KICK_OFF, KICK_OFF | change)
    with pytest.raises(InputError) as error:
        read_annotations(path, ["Goal"])
    (field,) = change
    assert f"`{path}`, annotations[1]: `{field}`" in str(error.value)


@pytest.mark.parametrize("key", ["gameTime", "label"])
def test_a_missing_field_is_named(tmp_path, key):
    path = write_labels(tmp_path / "Labels-v2.json", {k: v for k, v in KICK_OFF.items() if k != key})
    with pytest.raises(InputError, match=rf"annotations\[0\]: `{key}`"):
        read_annotations(path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"annotations": {}}', '{"annotations": ["Goal"]}', "null"])
def test_a_label_file_of_another_shape_is_refused(tmp_path, content):
    (tmp_path / "Labels-v2.json").write_text(content)
    with pytest.raises(InputError, match=r"Labels-v2\.json"):
        read_annotations(tmp_path / "Labels-v2.json")


@pytest.mark.parametrize(
    ("half", "position_ms", "expected"),
    [(1, 0, "1 - 00:00"), (1, 754_999, "1 - 12:34"), (2, 6_005_000, "2 - 100:05")],
)
def test_game_time(half, position_ms, expected):
    assert game_time(half, position_ms) == expected


@pytest.mark.parametrize("fps", [2, 2.5, 5, 10, 12.5, 24, 25, 29.97, 30, 50, 60])
def test_the_official_scorer_finds_every_frame_from_the_position_written_for_it(fps):
    for frame in range(int(3600 * fps)):
        assert int(fps * (position_ms_of(frame / fps) / 1000)) == frame


@given(st.integers(1, 10**7))
def test_positions_survive_being_read_and_written(position_ms):
    assert position_ms_of(timestamp_s_of(position_ms)) == position_ms
    assert timestamp_s_of(position_ms) >= 0


def test_results_are_strings_by_half_and_time(tmp_path):
    spots = [
        {"label": "Goal", "timestamp_s": 1.0, "half": 2, "score": 0.123456789012345},
        {"label": "Foul", "timestamp_s": 6000.25, "half": 1, "score": 1},
        {"label": "Foul", "timestamp_s": 2.5, "half": 1, "score": 1e-7},
    ]
    write_results(tmp_path / "league" / "results_spotting.json", "league", spots)
    assert json.loads((tmp_path / "league" / "results_spotting.json").read_text()) == {
        "UrlLocal": "league",
        "predictions": [
            {"gameTime": "1 - 00:02", "label": "Foul", "position": "2501", "half": "1", "confidence": "1e-07"},
            {"gameTime": "1 - 100:00", "label": "Foul", "position": "6000251", "half": "1", "confidence": "1.0"},
            {
                "gameTime": "2 - 00:01",
                "label": "Goal",
                "position": "1001",
                "half": "2",
                "confidence": "0.123456789012345",
            },
        ],
    }
    assert read_results(tmp_path / "league" / "results_spotting.json") == [spots[2], spots[1], spots[0]]


def test_the_official_scorer_reads_what_is_written(tmp_path):
    spots = [{"label": "Goal", "timestamp_s": k / 25, "half": 1 + k % 2, "score": 0.1 + k / 1000} for k in range(200)]
    write_results(tmp_path / "results.json", "a", spots)
    halves = predictions2vector(
        json.loads((tmp_path / "results.json").read_text()), framerate=25, EVENT_DICTIONARY=EVENT_DICTIONARY_V2
    )
    for k in range(200):
        assert halves[k % 2][k, 2] == spots[k]["score"]


def test_results_of_others_are_read(tmp_path):
    numbers = {"label": "Goal", "position": 31500, "half": 2, "confidence": 0.5}
    (tmp_path / "results.json").write_text(json.dumps({"predictions": [RESULT, numbers]}))
    first, second = read_results(tmp_path / "results.json")
    assert first == {"label": "Goal", "timestamp_s": 31.499, "half": 2, "score": 0.0066}
    assert second == first | {"score": 0.5}


@pytest.mark.parametrize(
    "change",
    [
        *({"position": bad} for bad in (NAN, -1, "x", None)),
        *({"half": bad} for bad in (0, -1, 1.5, "x", None, NAN, 10**6)),
        *({"confidence": bad} for bad in (NAN, INFINITY, -0.5, "x", None)),
        {"label": None},
    ],
)
def test_a_prediction_without_sense_is_named_with_file_and_number(tmp_path, change):
    path = tmp_path / "results_spotting.json"
    path.write_text(json.dumps({"predictions": [RESULT, RESULT | change]}))
    (field,) = change
    with pytest.raises(InputError) as error:
        read_results(path)
    assert f"`{path}`, predictions[1]: `{field}`" in str(error.value)


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "quality", "expected"),
    [
        (["1_224p.mkv", "2_224p.mkv"], None, {1: "1_224p.mkv", 2: "2_224p.mkv"}),
        (["1_HQ.mkv", "1_720p.mkv", "1_1080p.mkv"], None, {1: "1_720p.mkv"}),
        (["1_HQ.mkv", "1_720p.mkv", "1_1080p.mkv"], "HQ", {1: "1_HQ.mkv"}),
        (["1_224p.mkv", "1_720p.mkv", "2_720p.mkv"], "720p", {1: "1_720p.mkv", 2: "2_720p.mkv"}),
        (["2.MP4", "1.mp4"], None, {1: "1.mp4", 2: "2.MP4"}),
        (["224p.mp4", "720p.mp4"], None, {1: "224p.mp4"}),
        (["224p.mp4", "720p.mp4"], "720p", {1: "720p.mp4"}),
        (["1_ResNET_TF2.npy", "1_224p.mkv.partial", "._1_224p.mkv", "video.ini", "0_224p.mkv", "goal.mp4"], None, {}),
    ],
)
def test_the_videos_of_the_halves_are_found(tmp_path, names, quality, expected):
    found = find_halves(touch(tmp_path, *names), quality)
    assert list(found.items()) == [(half, tmp_path / name) for half, name in expected.items()]


@pytest.mark.parametrize(
    ("names", "quality"),
    [
        (["1_224p.mkv", "1_224p.mp4"], None),
        (["1_224p.mkv", "1_224p.mp4"], "224p"),
        (["1_HQ.mkv", "1_fancam.mkv"], None),
        (["1_224p.mkv", "2_720p.mkv"], "720p"),
    ],
)
def test_a_half_without_one_video_to_choose_is_refused(tmp_path, names, quality):
    with pytest.raises(InputError, match="for half 1"):
        find_halves(touch(tmp_path, *names), quality)


def test_matches_are_found_at_any_depth(tmp_path):
    root = tmp_path / "root"
    touch(root / "b" / "2016" / "match", "1_224p.mkv")
    touch(root / "a", "Labels-v2.json")
    touch(root / "c" / "d", "720p.mp4", "Labels-ball.json")
    touch(root / "notes", "readme.txt", "video.mkv.partial", "results_spotting.json")
    touch(root / ".cache" / "x", "1_224p.mkv")
    touch(tmp_path / "elsewhere" / "match", "1_224p.mkv")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "loop").symlink_to(root)
    assert find_matches(root) == ["a", "b/2016/match", "c/d", "linked/match"]
    with pytest.raises(InputError, match="not a folder"):
        find_matches(tmp_path / "nowhere")


def test_the_label_file_of_the_newest_version_is_preferred(tmp_path):
    touch(tmp_path, "Labels.json", "Labels-v2.json", "Labels-ball.json")
    assert find_label_file(tmp_path) == tmp_path / "Labels-v2.json"
    assert find_label_file(tmp_path, "Labels-ball.json") == tmp_path / "Labels-ball.json"
    assert find_label_file(tmp_path, "Labels-v3.json") is None


@pytest.mark.skipif(not GFSPOT.is_dir(), reason="needs GF-Spot in ../shared")
def test_gf_spot_has_the_counts_of_its_readme():
    table, counts = {}, {split: Counter() for split in ("train", "validation", "test")}
    for line in (GFSPOT / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[1].isdecimal():
            table[cells[0]] = tuple(map(int, cells[1:]))
    for split, matches in json.loads((GFSPOT / "splits.json").read_text()).items():
        for match in matches:
            counts[split].update(a.label for a in read_annotations(GFSPOT / match / "Labels-v2.json"))
    labels = set().union(*counts.values())
    assert len(table) == 15
    assert {label: tuple(counts[split][label] for split in counts) for label in labels} == table

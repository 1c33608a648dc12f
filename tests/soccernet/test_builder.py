import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from SoccerNet.utils import getListGames

from comedian.errors import InputError
from comedian.soccernet.builder import SoccerNet
from comedian.soccernet.labels import BALL_LABELS_2, BALL_LABELS_12, SOCCERNET_V2_LABELS

GFSPOT = Path(__file__).parents[3] / "shared" / "gfspot"


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """Return a video of 2 s, 64 x 48, 25 fps."""
    path = tmp_path_factory.mktemp("video") / "video.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(50):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
        container.mux(stream.encode())
    return path


@pytest.fixture
def add_match(tmp_path, video):
    """Return a function that writes a match with videos and, unless `events` is None, a label file."""

    def add(video_id, events=((1, "Goal", 500),), videos=("1_224p.mkv",), label_file="Labels-v2.json"):
        folder = tmp_path / "root" / video_id
        folder.mkdir(parents=True)
        for name in videos:
            shutil.copy(video, folder / name)
        if events is not None:
            write_events(folder / label_file, events)
        return folder

    return add


def write_events(path, events):
    annotations = [
        {"gameTime": f"{half} - 00:00", "label": label, "position": str(position_ms), "team": "home"}
        for half, label, position_ms in events
    ]
    path.write_text(json.dumps({"annotations": annotations}))


@pytest.fixture
def build(tmp_path):
    """Return a function that builds `root` and gives split -> rows, with a cache that lasts for the test."""

    def build(**kwargs):
        builder = SoccerNet(data_dir=tmp_path / "root", cache_dir=tmp_path / "cache", **kwargs)
        builder.download_and_prepare()
        return {split: rows.to_list() for split, rows in builder.as_dataset().items()}

    return build


def ids(splits):
    return {split: [row["video_id"] for row in rows] for split, rows in splits.items()}


def labels_of(row):
    return [event["label"] for event in row["events"]]


def test_a_row_a_half(add_match, build):
    events = [(1, "Goal", 1500), (2, "Foul", 99_000), (1, "Foul", 40)]
    folder = add_match("league/season/match", events, ["1_224p.mkv", "2_224p.mkv", "1_720p.mkv", "2_720p.mkv"])
    first, second = build()["train"]
    event = {"team": "home", "visibility": "visible"}
    assert first == {
        "video_id": "league/season/match",
        "half": 1,
        "video_path": str(folder / "1_224p.mkv"),
        "duration_s": pytest.approx(2.0, abs=0.01),
        "fps": 25.0,
        "annotated": True,
        "events": [{"label": "Goal", "position_ms": 1500} | event, {"label": "Foul", "position_ms": 40} | event],
    }
    assert second["half"] == 2
    assert second["events"] == [{"label": "Foul", "position_ms": 99_000} | event]  # past the end: the metric clamps
    assert [row["video_path"] for row in build(quality="720p")["train"]] == [
        str(folder / "1_720p.mkv"),
        str(folder / "2_720p.mkv"),
    ]


def test_a_match_without_labels_is_unannotated(add_match, build):
    add_match("a", events=None)
    add_match("b", events=[])
    unannotated, without_events = build()["train"]
    assert (unannotated["annotated"], unannotated["events"]) == (False, [])
    assert (without_events["annotated"], without_events["events"]) == (True, [])


@pytest.mark.parametrize(
    ("config_name", "labels"),
    [
        ("action-spotting", SOCCERNET_V2_LABELS),
        ("ball-action-spotting-2", BALL_LABELS_2),
        ("ball-action-spotting-12", BALL_LABELS_12),
    ],
)
def test_a_configuration_keeps_its_task(add_match, build, config_name, labels):
    events = [(1, label, 10 * i) for i, label in enumerate((*SOCCERNET_V2_LABELS, *BALL_LABELS_12))]
    label_file = "Labels-v2.json" if config_name == "action-spotting" else "Labels-ball.json"
    folder = add_match("match", events, ["224p.mp4"], label_file)
    other_file = ({"Labels-v2.json", "Labels-ball.json"} - {label_file}).pop()
    write_events(folder / other_file, [(1, labels[0], 0)])
    (row,) = build(config_name=config_name)["train"]
    assert labels_of(row) == list(labels)
    assert row["half"] == 1


def test_labels_of_ones_own(add_match, build):
    add_match("match", [(1, "Serve", 1), (1, "Smash", 2), (1, "Serve", 3)], label_file="Labels.json")
    assert labels_of(build(labels=["Serve"])["train"][0]) == ["Serve", "Serve"]
    assert labels_of(build()["train"][0]) == ["Serve", "Smash", "Serve"]
    with pytest.raises(InputError, match="'Serve' more than once"):
        build(labels=["Serve", "Serve"])


def test_splits_of_a_file(add_match, build, tmp_path):
    for name in "abcd":
        add_match(f"league/{name}")
    (tmp_path / "root" / "splits.json").write_text(
        json.dumps({"train": ["league/c", "league/a/"], "valid": ["league/d"], "test": []})
    )
    assert ids(build()) == {"train": ["league/c", "league/a"], "validation": ["league/d"]}
    (tmp_path / "mine.json").write_text(json.dumps({"challenge": ["league/b"]}))
    assert ids(build(splits=str(tmp_path / "mine.json"))) == {"challenge": ["league/b"]}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"train": ["a", "gone"]}, "'gone' in train"),
        ({"train": ["a"], "test": ["a/"]}, "'a/' more than once"),
        ({"train": ["../root/a"]}, "leads out"),
        ({"train": ["/a"]}, "leads out"),
        ({"train": "a"}, "list of match folders"),
        (["a"], "list of match folders"),
        ({"my split!": ["a"]}, "not a valid name of a split"),
        ({"train": []}, "no match with a video"),
    ],
)
def test_a_split_file_that_cannot_be_followed_is_refused(add_match, build, tmp_path, content, match):
    add_match("a")
    (tmp_path / "root" / "splits.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=match):
        build()


def test_splits_of_folders(add_match, build, caplog):
    for video_id in ("train/league/a", "train/b", "valid/league/a", "test/c", "other/d"):
        add_match(video_id)
    add_match("challenge/e", events=None)
    assert ids(build()) == {
        "train": ["train/b", "train/league/a"],
        "validation": ["valid/league/a"],
        "test": ["test/c"],
        "challenge": ["challenge/e"],
    }
    assert len(caplog.records) == 1 and "1 matches omitted" in caplog.text and "other/d" in caplog.text


def official_matches():
    """Return one match of each official split and task."""
    return {
        (split, task): getListGames(split, task)[-1]
        for split in ("train", "valid", "test", "challenge")
        for task in ("spotting", "spotting-ball")
    }


def test_splits_of_soccernets_own_lists(add_match, build, caplog):
    for (split, task), video_id in official_matches().items():
        events = None if split == "challenge" else [(1, "Goal" if task == "spotting" else "PASS", 0)]
        label_file = "Labels-v2.json" if task == "spotting" else "Labels-ball.json"
        add_match(video_id, events, label_file=label_file)
    add_match("england_epl/2016-2017/of nobody's list")
    for config_name, task in (("action-spotting", "spotting"), ("ball-action-spotting-12", "spotting-ball")):
        splits = build(config_name=config_name)
        assert ids(splits) == {
            "validation" if split == "valid" else split: [video_id]
            for (split, its_task), video_id in official_matches().items()
            if its_task == task
        }
        assert {split: rows[0]["annotated"] for split, rows in splits.items()} == {
            "train": True,
            "validation": True,
            "test": True,
            "challenge": False,
        }
    assert "none of SoccerNet's lists" in caplog.text
    assert {split: len(rows) for split, rows in build().items()} == dict.fromkeys(
        ("train", "validation", "test", "challenge"), 2
    )


def test_without_the_soccernet_package_its_lists_are_asked_for_in_one_line(add_match, build, monkeypatch):
    add_match("england_epl/2016-2017/match")
    monkeypatch.setitem(sys.modules, "SoccerNet.utils", None)
    with pytest.raises(InputError, match=r"pip install SoccerNet.*splits\.json"):
        build()


def test_changed_labels_are_read_again(add_match, build):
    add_match("another")
    folder = add_match("match", [(1, "Goal", 500)])
    assert labels_of(build()["train"][1]) == ["Goal"]
    before = (folder / "Labels-v2.json").stat()
    write_events(folder / "Labels-v2.json", [(1, "Foul", 500)])
    os.utime(folder / "Labels-v2.json", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (folder / "Labels-v2.json").stat().st_size == before.st_size
    assert labels_of(build()["train"][1]) == ["Foul"]
    (folder / "Labels-v2.json").unlink()
    assert build()["train"][1]["annotated"] is False


def test_a_changed_video_is_probed_again(add_match, build, tmp_path, monkeypatch):
    folder = add_match("match")
    probed = []
    real = SoccerNet._generate_examples
    monkeypatch.setattr(SoccerNet, "_generate_examples", lambda self, matches: probed.append(1) or real(self, matches))
    build()
    build()
    assert len(probed) == 1  # the second came from the cache
    os.utime(folder / "1_224p.mkv", ns=(0, 1))
    build()
    assert len(probed) == 2
    shutil.copy(folder / "1_224p.mkv", folder / "2_224p.mkv")
    assert [row["half"] for row in build()["train"]] == [1, 2]
    (tmp_path / "root" / "splits.json").write_text(json.dumps({"test": ["match"]}))
    assert list(build()) == ["test"]


def test_two_roots_with_the_same_contents_do_not_share_a_cache(add_match, tmp_path, monkeypatch):
    add_match("match")
    shutil.copytree(tmp_path / "root", tmp_path / "elsewhere" / "root")
    paths = []
    for folder in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(folder)
        builder = SoccerNet(data_dir="root", cache_dir=tmp_path / "cache")
        builder.download_and_prepare()
        paths.append(builder.as_dataset(split="train")[0]["video_path"])
    assert paths == [str(tmp_path / path / "root/match/1_224p.mkv") for path in (".", "elsewhere")]


def test_a_builder_older_than_the_labels_is_refused(add_match, tmp_path):
    folder = add_match("match")
    builder = SoccerNet(data_dir=tmp_path / "root", cache_dir=tmp_path / "cache")
    builder.download_and_prepare()
    write_events(folder / "Labels-v2.json", [])
    with pytest.raises(InputError, match="changed since"):
        builder.download_and_prepare()


def test_what_cannot_be_read_is_one_line(add_match, build, tmp_path):
    folder = add_match("match", [(1, "Goal", 500), (1, "Goal", -1)])
    with pytest.raises(InputError, match=r"annotations\[1\]"):
        build()
    write_events(folder / "Labels-v2.json", [])
    (folder / "1_224p.mkv").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"1_224p\.mkv"):
        build()
    (folder / "1_224p.mkv").unlink()
    with pytest.raises(InputError, match="no match with a video"):
        build()
    with pytest.raises(InputError, match="not a folder"):
        SoccerNet(data_dir=tmp_path / "nowhere", cache_dir=tmp_path / "cache")
    with pytest.raises(InputError, match="`data_dir` is missing"):
        SoccerNet(config_name="action-spotting", cache_dir=tmp_path / "cache")


def test_missing_videos_are_spoken_of(add_match, build, caplog):
    add_match("a", [(1, "Goal", 1), (2, "Goal", 1)], ["2_224p.mkv"])
    folder = add_match("b", videos=[])
    assert ids(build()) == {"train": ["a"]}
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("comedian")]
    assert messages == [
        f"`{folder}` has no video and is omitted",
        f"`{folder.parent / 'a' / 'Labels-v2.json'}`: no video for annotated half [1]",
    ]


def test_streaming_gives_the_same_rows(add_match, build, tmp_path):
    add_match("a", videos=["1_224p.mkv", "2_224p.mkv"])
    add_match("b", events=None)
    streamed = SoccerNet(data_dir=tmp_path / "root", cache_dir=tmp_path / "cache").as_streaming_dataset("train")
    assert list(streamed) == build()["train"]


def test_only_the_cache_is_written(add_match, build, tmp_path):
    add_match("match")
    before = sorted((tmp_path / "root").rglob("*"))
    build()
    assert sorted((tmp_path / "root").rglob("*")) == before


@pytest.mark.skipif(not GFSPOT.is_dir(), reason="needs GF-Spot in ../shared")
def test_gf_spot(tmp_path):
    builder = SoccerNet(config_name="action-spotting", data_dir=GFSPOT, cache_dir=tmp_path)
    builder.download_and_prepare()
    splits = builder.as_dataset()
    assert {split: rows.num_rows for split, rows in splits.items()} == {"train": 38, "validation": 8, "test": 12}
    for rows in splits.values():
        assert set(zip(rows["duration_s"], rows["fps"], rows["annotated"])) == {(300.0, 10.0, True)}
    goals = {
        split: Counter(event["label"] for events in rows["events"] for event in events)["Goal"]
        for split, rows in splits.items()
    }
    assert goals == {"train": 65, "validation": 9, "test": 16}

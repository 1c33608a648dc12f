"""Files of events: what the published ones say, there and back again, and one line for each thing that cannot be."""

import json
import random
from dataclasses import replace

import pytest

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.events.events import Event, EventSet, EventVideo, event_set, find_video, parse_time_ms
from comedian.events.formats import (
    BY_FRAME,
    FORMATS,
    HOLDS,
    detect_format,
    lost_fields,
    measure,
    read_events,
    write_events,
)
from comedian.events.frames import frame_of
from comedian.soccernet.annotations import read_annotations
from comedian.soccernet.labels import BALL_LABELS_2, BALL_LABELS_12
from video_factory import write_video

# as the datasets of https://github.com/jhong93/spot have it
TENNIS = [
    {
        "events": [
            {"comment": "extended dataset", "frame": 93, "label": "near_court_serve"},
            {"comment": "extended dataset", "frame": 104, "label": "far_court_bounce"},
        ],
        "fps": 29.97002997002997,
        "height": 1080,
        "num_events": 2,
        "num_frames": 296,
        "video": "usopen_2019_womens_round1_williams_sharapova_2058_2354",
        "width": 1920,
    },
    {"events": [], "fps": 25.0, "num_events": 0, "num_frames": 260, "video": "wimbledon_2015_36375_36635"},
]
FINEDIVING = [
    {
        "_source_info": {"action_type": "407c", "difficulty": 3.2, "dive_score": 88.0},
        "events": [{"comment": "Inward -> 3.5 Soms.Tuck", "frame": 2, "label": "Som(s).Tuck"}],
        "fps": -1,
        "num_events": 1,
        "num_frames": 85,
        "video": "01__1",
    }
]
E2E_SOCCERNET = [
    {
        "events": [{"comment": "home; not shown", "frame": 28, "label": "Foul"}],
        "fps": 2.0,
        "num_events": 1,
        "num_frames": 5400,
        "video": "england_epl/2014-2015/one/2",
    },
    # OpenSportsLab's files of this form
    {
        "events": [{"frame": 51, "label": "Foul", "team": "home", "visibility": "not shown"}],
        "fps": 2.0833333333333335,
        "num_frames": 5625,
        "num_frames_base": 67500,
        "video": "england_epl/2014-2015/one/1_224p",
    },
]
# as the guide of https://github.com/OpenSportsLab/opensportslib has it
OSL_2 = {
    "version": "2.0",
    "date": "2026-05-19",
    "task": "action_spotting",
    "modalities": ["video"],
    "metadata": {"sport": "soccer", "split": "valid"},
    "labels": {"action": {"type": "single_label", "labels": ["pass", "shot", "save"]}},
    "data": [
        {
            "id": "attack_0001",
            "inputs": [{"type": "video", "path": "clips/1.mp4", "fps": 25.0}],
            "events": [
                {"head": "action", "label": "shot", "position_ms": 4320, "confidence_score": 0.84},
                {"head": "action", "label": "pass", "position_ms": 1240},
                {"head": "action", "label": "shot", "gameTime": "1 - 01:04", "confidence": 0.5, "frame": 73},
            ],
        },
        {"inputs": [{"type": "frames_npy", "path": "a/1.npy"}, {"path": "league/match/2_720p.mkv"}]},
    ],
}
OSL_1 = {
    "version": 1,
    "date": "2023.08.31",
    "videos": [
        {
            "path_features": "league/one/2_ResNET_TF2_PCA512.npy",
            "path": "league/one/2_224p.mkv",
            "annotations": [
                {
                    "gameTime": "2 - 00:14",
                    "label": "Goal",
                    "position": 14044,
                    "team": "away",
                    "visibility": "not shown",
                }
            ],
        }
    ],
    "labels": ["Penalty", "Goal"],
}


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


FPS = 29.97002997002997


def random_events(seed=0, fps=FPS):
    """A set that has something everywhere; its events are at frames, to the millisecond."""
    rng = random.Random(seed)
    videos = []
    for number, (name, half, split) in enumerate(
        [("cup/final", 1, "train"), ("cup/final", 2, "train"), ("cup/final", 3, "train"), ("league/b", 1, "test")]
    ):
        num_frames = rng.randrange(2000, 400_000)
        events = [
            Event(
                label=rng.choice(["Goal", "Corner, left", "Élan"]),
                position_ms=round(1000 * rng.randrange(num_frames) / fps),
                team=rng.choice(["home", "not applicable", "left"]),
                visibility=rng.choice(["visible", "not shown"]),
                score=rng.choice([None, rng.random()]),
                comment=rng.choice(["", 'said "what?"; then, more']),
            )
            for _ in range(0 if number == 1 else 40)
        ]
        videos.append(EventVideo(name, half, split, fps, num_frames / fps, tuple(events)))
    return event_set(videos, ["Élan", "Goal", "Corner, left", "never"])


def kept(events: EventSet, name: str) -> EventSet:
    """What a format must give back."""
    holds = HOLDS[name]

    def event(one: Event) -> Event:
        defaults = {"team": "not applicable", "visibility": "visible", "score": None, "comment": ""}
        position_ms = one.position_ms // 1000 * 1000 if name == "youtube" else one.position_ms
        lost = {key: value for key, value in defaults.items() if key not in holds}
        return replace(one, position_ms=position_ms, **lost)

    def video(one: EventVideo) -> EventVideo:
        lost = {key: None for key in ("split", "fps", "duration_s") if key not in holds}
        if name in BY_FRAME:
            lost["fps"] = FPS  # the rate that it is read with
        return replace(one, events=tuple(map(event, one.events)), **lost)

    # SoccerNet has a part without an event where there is its video
    there = [one for one in events.videos if one.events or not name.startswith("soccernet")]
    videos = tuple(map(video, there))
    labels = events.labels if "labels" in holds else sorted({one.label for part in videos for one in part.events})
    return EventSet(videos, tuple(labels))


def sorted_by_name(events: EventSet) -> EventSet:
    return replace(events, videos=tuple(sorted(events.videos, key=lambda video: (video.name, video.half or 0))))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FORMATS)
def test_there_and_back_loses_what_is_said_and_nothing_else(tmp_path, name, seed):
    events = random_events(seed)
    endings = {"csv": ".csv", "json": ".json", "osl": ".json", "via": ".json", "label-studio": ".json"}
    path = tmp_path / f"out{endings.get(name, '')}"
    write_events(events, path, name)
    told = []
    back = read_events(path, name, fps=FPS, problem=told.append)
    assert not told
    assert sorted_by_name(back) == sorted_by_name(kept(events, name))
    assert detect_format(path) == name.removesuffix("-ball")
    everything = set().union(*HOLDS.values())
    # the set holds something of everything, and its times are those of frames
    lost = lost_fields(events, name, path)
    if name.startswith("soccernet"):
        assert "parts without events" in lost.pop()
    if name == "youtube":
        assert "shows three or more" in lost.pop() and lost.pop() == "parts of a second"
    assert set(lost) == everything - HOLDS[name]


def test_one_e2e_file_cannot_tell_splits_and_frames_round_times(tmp_path):
    events = EventSet((EventVideo("a", None, "test", 25.0, 8.0, (Event("x", 1019),)),), ("x",))
    assert lost_fields(events, "e2e-spot", tmp_path / "one.json") == ["split", "times between frames"]
    assert lost_fields(replace(events, unread=frozenset({"width"})), "csv") == ["width", "duration_s", "fps"]
    write_events(events, tmp_path / "one.json", "e2e-spot")
    (video,) = json.loads((tmp_path / "one.json").read_text())
    assert video == {
        "video": "a",
        "num_frames": 200,
        "num_events": 1,
        "events": [{"frame": 25, "label": "x", "comment": ""}],
        "fps": 25.0,
    }
    assert (tmp_path / "class.txt").read_text() == "x\n"
    with pytest.raises(InputError, match="class.txt` exists and lacks 'y'"):
        write_events(
            event_set([EventVideo("a", fps=1, duration_s=9, events=(Event("y", 0),))]), tmp_path / "2.json", "e2e-spot"
        )
    assert not (tmp_path / "2.json").exists()


def test_e2e_spot_has_a_file_a_split_named_as_theirs(tmp_path):
    splits = ("train", "validation", "test", None)
    videos = [EventVideo(f"{split}", None, split, 25.0, 8.0) for split in splits]
    write_events(event_set(videos), tmp_path, "e2e-spot")
    names = {path.name: [video["video"] for video in json.loads(path.read_text())] for path in tmp_path.glob("*.json")}
    assert names == {"train.json": ["train", "None"], "val.json": ["validation"], "test.json": ["test"]}


@pytest.mark.parametrize(
    "fps", [2, 2.0833333333333335, 10, 23.976023976023978, 25, 29.97002997002997, 50, 59.94, 100, 240]
)
def test_frames_and_times(fps):
    """Back to the same frame; and E2E-Spot's own rule, `int(position / 1000 * fps)`, off the frames' starts."""
    for frame in (*range(300), 77_777, 162_001):
        start_ms = 1000 * frame / fps
        assert frame_of(round(start_ms), fps) == frame
        middle_ms = round(start_ms + 500 / fps)
        assert frame_of(middle_ms, fps) == int(middle_ms / 1000 * fps) == frame


def test_tennis(tmp_path):
    (tmp_path / "class.txt").write_text("far_court_bounce\nnear_court_swing\nnear_court_serve\n")
    events = read_events(write_json(tmp_path / "val.json", TENNIS))
    assert events.labels == ("far_court_bounce", "near_court_swing", "near_court_serve")
    first, second = events.videos
    assert (first.name, first.half, first.split) == (TENNIS[0]["video"], None, None)
    assert [event.position_ms for event in first.events] == [3103, 3470]  # 93 / 29.97 s, 104 / 29.97 s
    assert first.events[0].comment == "extended dataset" and first.duration_s == pytest.approx(9.8765, abs=1e-4)
    assert second.events == () and second.duration_s == 10.4
    assert events.unread == {"width", "height"}
    # a folder tells the splits
    write_json(tmp_path / "train.json", [TENNIS[1] | {"video": "another"}])
    assert [video.split for video in read_events(tmp_path).videos] == ["train", "validation", "validation"]


def test_fine_diving_tells_no_rate(tmp_path):
    path = write_json(tmp_path / "test.json", FINEDIVING)
    with pytest.raises(InputError, match=r"test.json`, \[0\]: `fps` is -1; set `--fps`"):
        read_events(path)
    events = read_events(path, fps=25)
    assert events.videos[0].events == (Event("Som(s).Tuck", 80, comment="Inward -> 3.5 Soms.Tuck"),)
    assert (events.videos[0].fps, events.unread) == (25, {"_source_info"})


def test_soccernet_in_e2e_form(tmp_path):
    first, second = read_events(write_json(tmp_path / "a.json", E2E_SOCCERNET)).videos
    assert (first.name, first.half) == ("england_epl/2014-2015/one", 2)
    assert (second.name, second.half) == ("england_epl/2014-2015/one", 1)
    assert first.events == (Event("Foul", 14_000, "home", "not shown"),)
    assert second.events == (Event("Foul", 24_480, "home", "not shown"),)


@pytest.mark.parametrize("team", ["home", "away", "left", "right", "not applicable"])
def test_teams_in_the_comments_of_e2e_spot(tmp_path, team):
    event = {"comment": f"{team}; not shown", "frame": 2, "label": "PASS"}
    path = write_json(tmp_path / "a.json", [{"video": "a", "fps": 2, "num_frames": 9, "events": [event]}])
    assert read_events(path).videos[0].events == (Event("PASS", 1000, team, "not shown"),)


def test_osl_2(tmp_path):
    events = read_events(write_json(tmp_path / "a.json", OSL_2))
    assert events.labels == ("pass", "shot", "save")
    first, second = events.videos
    assert (first.name, first.half, first.split, first.fps) == ("clips/1.mp4", None, "validation", 25)
    assert first.events == (Event("pass", 1240), Event("shot", 4320, score=0.84), Event("shot", 64_000, score=0.5))
    assert (second.name, second.half, second.events) == ("league/match", 2, ())
    assert events.unread == {"sport"}


def test_osl_1(tmp_path):
    events = read_events(write_json(tmp_path / "a.json", OSL_1))
    assert events.videos == (EventVideo("league/one", 2, events=(Event("Goal", 14_044, "away", "not shown"),)),)
    assert events.labels == ("Penalty", "Goal")


def test_what_is_written_for_osl_is_what_their_tools_read(tmp_path):
    write_video(tmp_path / "cup/final/2_224p.mkv", 4, 4, height=32, width=32)
    score = EventVideo("cup/final", 2, "train", 25.0, events=(Event("Goal", 61_250, score=0.5),))
    write_events(event_set([score]), tmp_path / "a.json", "osl", tmp_path)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["labels"] == {"action": {"type": "single_label", "labels": ["Goal"]}}
    (sample,) = content["data"]
    assert sample["inputs"] == [{"type": "video", "path": "cup/final/2_224p.mkv", "fps": 25.0}]
    (event,) = sample["events"]
    assert event == {
        "head": "action",
        "label": "Goal",
        "position_ms": 61_250,
        "gameTime": "2 - 01:01",
        "confidence": 0.5,
        "confidence_score": 0.5,
    }


@pytest.mark.parametrize("labels", [BALL_LABELS_2, BALL_LABELS_12], ids=len)
def test_ball_action_spotting(tmp_path, labels):
    match = "england_efl/2019-2020/2019-10-01 - Leeds United - West Bromwich"
    annotations = [
        {
            "gameTime": f"1 - {100 * i // 60:02d}:{100 * i % 60:02d}",
            "label": label,
            "position": str(100_000 * i),
            "team": "left",
            "visibility": "visible",
        }
        for i, label in enumerate(labels)
    ]
    content = {"UrlLocal": f"{match}/", "UrlYoutube": "", "halftime": "1 - 46:04", "annotations": annotations}
    path = write_json(tmp_path / "root" / match / "Labels-ball.json", content)
    alone, (found,) = read_events(path).videos, read_events(tmp_path / "root", "soccernet-ball").videos
    # the package `SoccerNet` tells the split of a match in its place
    assert alone == (replace(found, split=None),) and found.split == "train"
    assert read_events(path).unread == {"halftime"}
    assert found == EventVideo(
        match, 1, "train", events=tuple(Event(label, 100_000 * i, "left") for i, label in enumerate(labels))
    )
    events = read_events(tmp_path / "root")
    write_events(events, tmp_path / "out", "soccernet-ball")
    written = tmp_path / "out" / match / "Labels-ball.json"
    assert read_annotations(written) == read_annotations(path)
    (tmp_path / "out" / "labels.txt").unlink()
    write_events(events, tmp_path / "out", "soccernet-ball")
    assert (tmp_path / "out" / "labels.txt").read_text().splitlines() == list(events.labels)
    written.write_text(written.read_text().replace("left", "right"))
    with pytest.raises(InputError, match="Labels-ball.json` already exists"):
        write_events(events, tmp_path / "out", "soccernet-ball")


def test_every_field_of_soccernet_that_has_no_place_is_named(tmp_path, capsys):
    annotations = [
        {"gameTime": "1 - 00:01", "label": "Goal", "position": "1000", "player": "9", "confidence": 0.5, "note": ""},
        {"gameTime": "1 - 00:02", "label": "Goal", "position": "2000", "comment": "header", "team": "home"},
    ]
    write_json(
        tmp_path / "in/m/Labels-v2.json", {"UrlLocal": "m", "UrlYoutube": "https://x", "annotations": annotations}
    )
    for target in ("out.csv", "out.json", "out"):
        words = ["--to", {".csv": "csv", ".json": "osl"}.get(target[3:], "soccernet")]
        assert main(["data", "convert", str(tmp_path / "in"), str(tmp_path / target), *words]) == 0
        told = capsys.readouterr().err
        assert "UrlYoutube, comment, confidence, player" in told and "note" not in told


def test_csv_by_hand(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("video,label,time_s,half,split\nb,Goal,1:02:03.5,2,valid\na.mp4,,,,\nb,Foul,7,2,\n")
    assert read_events(path) == EventSet(
        (
            EventVideo("b", 2, "validation", events=(Event("Foul", 7000), Event("Goal", 3_723_500))),
            EventVideo("a.mp4"),
        ),
        ("Foul", "Goal"),
    )
    write_events(read_events(path), tmp_path / "b.csv", "csv")
    assert (tmp_path / "b.csv").read_text() == (
        "video,label,time_s,half,split\nb,Foul,7.0,2,validation\nb,Goal,3723.5,2,validation\na.mp4,,,,\n"
    )


def test_json_by_hand(tmp_path):
    videos = [{"video": "b.mp4", "events": [{"label": "Goal", "time_s": "2:03"}, {"label": "Foul", "time_s": 1.5}]}]
    path = write_json(tmp_path / "a.json", {"videos": [*videos, {"video": "a.mp4", "events": []}], "author": "me"})
    events = read_events(path)
    assert events.videos == (
        EventVideo("b.mp4", events=(Event("Foul", 1500), Event("Goal", 123_000))),
        EventVideo("a.mp4"),
    )
    assert events.unread == {"author"}


BAD = {
    "a.csv": [
        ("video,label,time_s,half\na,x,1,0\n", "line 2: `half` is '0'; expected a whole number from 1 to 99"),
        ("video,label,time_s,visibility\na,x,1,hidden\n", "line 2: `visibility` is 'hidden'; expected 'visible' or"),
        (
            "video,label,time_s,score\na,x,1,2-1\n",
            "line 2: `score` is '2-1'; expected a number; otherwise rename the column",
        ),
        ("video,label,time_s,split\na,x,1,train\na,x,2,test\n", "line 3: `split` of `a` is test, but train above"),
        ("video,label,time_s,split\na,x,1,a b\n", "line 2: `split` is 'a b'; use train, validation"),
        ("video,label,time_s\na,x,86400\n", "line 2: `time_s` is '86400', a day or more"),
        ("video,label,time_s\na,,5\n", "line 2: `label` is empty"),
    ],
    "a.json": [
        (
            '{"videos": [{"video": "a", "events": [{"label": 3, "time_s": 1}]}]}',
            "videos[0].events[0]: `label` is 3; expected text",
        ),
        ('{"videos": [{"video": "a", "events": {}}]}', "`videos[0].events` is {}; expected a list"),
        (
            '{"videos": [{"video": "a", "events": [{"label": "x", "time_s": true}]}]}',
            "`time_s` is True; write seconds",
        ),
        ('{"videos": [{"video": "a", "events": [{"label": "x", "time_s": NaN}]}]}', "`time_s` is nan; write seconds"),
        ('{"videos": ["a"]}', "videos[0]: expected an object, found 'a'"),
        ('{"videos": [{"events": []}]}', "videos[0]: `video` is empty"),
        ('{"videos": [{"video": "a", "fps": 0}]}', "videos[0]: `fps` is 0; expected a number above 0"),
        ('{"videos": [], "labels": ["a", "a"]}', "lists 'a' more than once"),
        ('{"videos": [], "labels": "a"}', "`labels` is 'a'; expected a list of strings"),
        ('{"videos": 3}', "`videos` is 3; expected a list"),
        ("{}", "has an unknown format; supported: csv, json"),
        ("3", "has an unknown format"),
        (
            '[{"video": "a", "fps": 2, "events": [{"label": "x", "frame": -1}]}]',
            "[0].events[0]: `frame` is -1; expected",
        ),
        ('[{"video": "a", "fps": 2, "events": [{"label": "x", "frame": 1.5}]}]', "`frame` is 1.5; expected a whole"),
        ('{"data": [{"events": []}]}', "data[0]: `inputs` contains no video"),
        ('{"data": 1}', "`data` is 1; expected a list"),
        (
            '{"data": [{"inputs": [{"path": "a"}], "events": [{"label": "x", "position_ms": "soon"}]}]}',
            "`position_ms` is 'soon'",
        ),
        ('{"data": [{"inputs": [{"path": "a"}], "events": [{"label": "x"}]}]}', "data[0].events[0]: `gameTime` is ''"),
        ('{"annotations": [{"label": "x"}]}', "annotations[0]: `gameTime` is None"),
    ],
}


@pytest.mark.parametrize("name, text, message", [(name, *case) for name, cases in BAD.items() for case in cases])
def test_what_cannot_be_is_one_line_or_all_that_is_wrong(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_events(path)
    told = str(caught.value)
    assert told.startswith(f"`{path}`") and told.count(str(path)) == 1 and message in told and "\n" not in told


def test_all_problems_of_a_file_are_told_and_the_rest_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("video,label,time_s\na,x,soon\na,x,2\n,x,3\na,y,4\n")
    told = []
    events = read_events(path, problem=told.append)
    assert [event.position_ms for event in events.videos[0].events] == [2000, 4000]
    assert [message.split(": ")[0] for message in told] == [f"`{path}`, line 2", f"`{path}`, line 4"]


def test_times():
    """Against a sum of the parts."""
    rng = random.Random(1)
    for _ in range(200):
        hours, minutes, ms = rng.randrange(24), rng.randrange(60), rng.randrange(60_000)
        wanted = 1000 * (3600 * hours + 60 * minutes) + ms
        seconds = f"{ms // 1000:02d}.{ms % 1000:03d}"
        assert parse_time_ms(f"{hours}:{minutes:02d}:{seconds}") == wanted
        assert parse_time_ms(f"{60 * hours + minutes}:{seconds}") == wanted
        assert parse_time_ms(wanted / 1000) == wanted
    assert parse_time_ms(1e-7) == 0


def test_videos_are_found_by_file_by_name_and_by_part(tmp_path):
    for name in ("a.mp4", "cup/final/1.mkv", "cup/final/2.mkv", "ball/224p.mp4"):
        write_video(tmp_path / name, 10, 5, height=32, width=32)
    assert (
        find_video(tmp_path, "a.mp4")
        == find_video(tmp_path, "a")
        == find_video(tmp_path, "a", 1)
        == tmp_path / "a.mp4"
    )
    assert find_video(tmp_path, "cup/final", 2) == tmp_path / "cup/final/2.mkv"
    assert find_video(tmp_path, "ball") == find_video(tmp_path, "ball", 1) == tmp_path / "ball/224p.mp4"
    for name, half in (("a", 2), ("cup/final", 3), ("cup/final", None), ("b", None)):
        assert find_video(tmp_path, name, half) is None
    with pytest.raises(InputError, match="leads out of"):
        find_video(tmp_path, "../a.mp4")
    measured = measure(event_set([EventVideo("a"), EventVideo("b")]), tmp_path).videos
    assert [(video.fps, video.duration_s) for video in measured] == [(5, pytest.approx(2)), (None, None)]
    assert measure(event_set([EventVideo("a")]), tmp_path, fps=2).videos[0].fps == 2


def test_soccernet_refuses_names_that_lead_out_and_matches_in_two_splits(tmp_path):
    with pytest.raises(InputError, match="leads out of"):
        write_events(event_set([EventVideo("../a")]), tmp_path / "out", "soccernet")
    two = [EventVideo("a", 1, "train"), EventVideo("a", 2, "test")]
    with pytest.raises(InputError, match="parts of `a` are in several splits"):
        write_events(event_set(two), tmp_path / "out", "soccernet")
    with pytest.raises(InputError, match="`a.mp4` and `a` are both half 1"):
        write_events(event_set([EventVideo("a.mp4"), EventVideo("a", 1)]), tmp_path / "out", "soccernet")
    assert not (tmp_path / "out").exists()


def test_a_video_that_is_listed_twice_keeps_all_events(tmp_path):
    for name, row in (("goals", "friday.mp4,Goal,10"), ("corners", "friday.mp4,Corner,20")):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / f"two/{name}.csv").write_text(f"video,label,time_s\n{row}\n")
    [video] = read_events(tmp_path / "two").videos
    assert [event.label for event in video.events] == ["Goal", "Corner"]
    assert main(["data", "convert", str(tmp_path / "two"), str(tmp_path / "out"), "--to", "elan"]) == 0
    assert len(read_events(tmp_path / "out").videos[0].events) == 2
    twice = [{"video": "a.mp4", "fps": 25, "events": []}, {"video": "a.mp4", "fps": 50, "events": []}]
    with pytest.raises(InputError, match="`a.mp4` is listed twice, with the `fps` 25.0 and 50.0"):
        read_events(write_json(tmp_path / "twice.json", {"videos": twice}))


def test_videos_are_found_whatever_the_case_of_their_ending(tmp_path):
    write_video(tmp_path / "UP.mp4", 10, 5, height=32, width=32).rename(tmp_path / "UP.MP4")
    assert find_video(tmp_path, "UP") == find_video(tmp_path, "UP", 1) == tmp_path / "UP.MP4"
    write_video(tmp_path / "UP.mkv", 10, 5, height=32, width=32)
    with pytest.raises(InputError, match="`UP` may be .*UP.MP4` or .*UP.mkv`; write the name with its ending"):
        find_video(tmp_path, "UP")


def test_a_rate_that_is_given_is_that_of_the_frames(tmp_path, capsys):
    item = {"video": "a", "fps": 25, "num_frames": 1000, "num_events": 1, "events": [{"label": "x", "frame": 100}]}
    write_json(tmp_path / "in.json", [item])
    words = ["data", "convert", str(tmp_path / "in.json"), str(tmp_path / "out.json"), "--to", "json"]
    for fps, time_s, duration_s in ((None, 4.0, 40.0), (50, 2.0, 20.0)):
        assert main([*words, *(["--fps", str(fps)] if fps else [])]) == 0
        [video] = json.loads((tmp_path / "out.json").read_text())["videos"]
        assert (video["fps"], video["duration_s"]) == (fps or 25, duration_s)
        assert video["events"][0]["time_s"] == time_s
    assert main([*words, "--labels", "y"]) == 2
    assert "has no 'y'; known: x" in capsys.readouterr().err


@pytest.mark.parametrize(
    "output, says",
    [("out", "is a folder; give the name of a file"), ("in.csv", "is an input, and would be overwritten")],
)
def test_outputs_that_cannot_be_written_are_told_before_the_work(tmp_path, capsys, output, says):
    (tmp_path / "in.csv").write_text("video,label,time_s\na.mp4,x,1\n")
    (tmp_path / "out").mkdir()
    assert main(["data", "convert", str(tmp_path / "in.csv"), str(tmp_path / output), "--to", "csv"]) == 2
    assert says in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out"]
    # in a place that is a file
    assert main(["data", "convert", str(tmp_path / "in.csv"), str(tmp_path / "in.csv/o"), "--to", "soccernet"]) == 2
    assert "give another name" in capsys.readouterr().err


def test_a_label_of_soccernet_is_not_empty(tmp_path):
    annotation = {"gameTime": "1 - 00:02", "label": " ", "position": "2000", "team": "home", "visibility": "visible"}
    path = write_json(tmp_path / "match/Labels-v2.json", {"annotations": [annotation]})
    with pytest.raises(InputError, match="`label` is empty"):
        read_events(path)


def test_events_of_a_video_named_like_a_split(tmp_path):
    prediction = {"gameTime": "1 - 00:02", "label": "Goal", "position": "2000", "half": "1", "confidence": "0.5"}
    write_json(tmp_path / "train.json", {"UrlLocal": "train.mp4", "predictions": [prediction]})
    assert [video.name for video in read_events(tmp_path).videos] == ["train.mp4"]


def test_the_command_converts_and_says_what_is_lost(tmp_path, capsys):
    write_json(tmp_path / "spot" / "test.json", TENNIS)
    assert main(["data", "convert", str(tmp_path / "spot"), str(tmp_path / "out.csv")]) == 0
    printed = capsys.readouterr()
    assert "out.csv: 2 videos or parts, 2 events, 2 labels" in printed.out
    assert printed.err == "omitted, because csv cannot store it: height, width, duration_s, fps\n"
    words = ["data", "convert", str(tmp_path / "out.csv"), str(tmp_path / "out.json")]
    assert main(words) == 2
    assert "`--to` is missing" in capsys.readouterr().err
    assert main([*words, "--to", "e2e-spot"]) == 2
    assert "is unknown; give the folder of the videos with `--videos`" in capsys.readouterr().err
    assert main([*words, "--to", "json", "--labels", "far_court_bounce"]) == 0
    assert [event.label for event in read_events(tmp_path / "out.json").videos[0].events] == ["far_court_bounce"]
    assert main([*words, "--to", "e2e-spot", "--fps", "0"]) == 2
    assert main(["data", "convert", str(tmp_path / "none.csv"), str(tmp_path / "b.csv")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_the_command_takes_rates_and_lengths_from_the_videos(tmp_path, capsys):
    root = tmp_path / "root"
    write_video(root / "league/one/1_224p.mkv", 20, 5, height=32, width=32)
    annotation = {
        "gameTime": "1 - 00:02",
        "label": "Goal",
        "position": "2450",
        "team": "home",
        "visibility": "visible",
    }
    write_json(root / "league/one/Labels-v2.json", {"annotations": [annotation]})
    assert main(["data", "convert", str(root), str(tmp_path / "a.json"), "--to", "e2e-spot"]) == 0
    (video,) = json.loads((tmp_path / "a.json").read_text())
    assert (video["video"], video["fps"], video["num_frames"]) == ("league/one/1", 5, 20)
    assert video["events"] == [{"frame": 12, "comment": "", "label": "Goal", "team": "home"}]
    assert "times between frames" in capsys.readouterr().err
    assert main(["data", "convert", str(root), str(tmp_path / "b.json"), "--to", "e2e-spot", "--fps", "2"]) == 0
    (video,) = json.loads((tmp_path / "b.json").read_text())
    assert (video["fps"], video["num_frames"], video["events"][0]["frame"]) == (2, 8, 4)

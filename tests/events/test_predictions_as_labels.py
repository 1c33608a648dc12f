"""What `comedian spot` writes, read as labels by every command of `comedian data`; and what becomes of its scores."""

import json
import shutil

import pytest

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.events.events import Event, EventVideo
from comedian.events.formats import detect_format, read_events
from comedian.events.own_videos import import_videos
from comedian.inference.outputs import write_csv, write_results_zip
from comedian.soccernet.annotations import read_annotations, write_results
from comedian.soccernet.layout import find_halves
from video_factory import write_video

SPOTS = {
    "friday": [
        {"label": "Goal", "timestamp_s": 1.5, "half": 1, "score": 0.9},
        {"label": "Corner", "timestamp_s": 2.25, "half": 1, "score": 0.4},
    ],
    "cup/final": [
        {"label": "Goal", "timestamp_s": 0.5, "half": 1, "score": 0.8},
        {"label": "Goal", "timestamp_s": 2.0, "half": 2, "score": 0.7},
        {"label": "Foul", "timestamp_s": 3.0, "half": 2, "score": 0.05},
    ],
}
PARTS = {
    EventVideo("friday", 1, events=(Event("Goal", 1500, score=0.9), Event("Corner", 2250, score=0.4))),
    EventVideo("cup/final", 1, events=(Event("Goal", 500, score=0.8),)),
    EventVideo("cup/final", 2, events=(Event("Goal", 2000, score=0.7), Event("Foul", 3000, score=0.05))),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name in ("friday.mp4", "cup/final/1_224p.mkv", "cup/final/2_224p.mkv"):
        write_video(folder / name, num_frames=16, fps=4, height=32, width=32)
    return folder


def write_folder(path, ending):
    for video_id, spots in SPOTS.items():
        file = path / f"{video_id}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        if ending == "csv":
            write_csv(file, spots)
        else:
            write_results(file, video_id.rpartition("/")[2], spots)
    return path


def write_zip(path, ending):
    write_results_zip(path.with_suffix(".zip"), SPOTS)
    return path.with_suffix(".zip")


def write_unpacked(path, ending):
    shutil.unpack_archive(write_zip(path, ending), path)
    return path


WRITERS = [(write_folder, "json"), (write_folder, "csv"), (write_zip, "zip"), (write_unpacked, "folder")]


@pytest.fixture(params=WRITERS, ids=lambda param: param[1])
def events_file(request, tmp_path):
    write, ending = request.param
    return write(tmp_path / "predictions", ending)


def test_all_that_comedian_spot_writes_is_read(events_file):
    assert detect_format(events_file) == ("csv" if list(events_file.rglob("*.csv")) else "soccernet")
    events = read_events(events_file)
    assert set(events.videos) == PARTS
    assert events.unread == set()


def test_one_file_is_of_the_video_that_it_is_called_after_or_that_is_said(videos, tmp_path, capsys):
    write_csv(tmp_path / "friday.csv", SPOTS["friday"])
    write_csv(tmp_path / "events.csv", SPOTS["friday"])
    assert read_events(tmp_path / "friday.csv").videos[0].name == "friday"
    words = ["data", "check", str(videos), "--events", str(tmp_path / "events.csv")]
    assert main(words) == 1
    told = capsys.readouterr().out
    assert "there is no video `events` in" in told and "rename it, or say `--video`" in told
    assert main([*words, "--video", "friday.mp4", "--min-score", "0.5"]) == 1
    told = capsys.readouterr().out
    assert "missing video" not in told and "predictions as labels" not in told
    assert "2 of 2 events are predictions with scores; 1 with a score below 0.5 are left out" in told


def test_one_json_is_checked(videos, tmp_path, capsys):
    write_results(tmp_path / "events.json", "friday", SPOTS["friday"])
    assert main(["data", "check", str(videos), "--events", str(tmp_path / "events.json"), "--min-score", "0.5"]) == 1
    assert "1 videos, 1 events: 2 video without labels" in capsys.readouterr().out


def test_a_match_that_says_its_whole_name_may_lie_anywhere(tmp_path):
    (tmp_path / "top/x").mkdir(parents=True)
    write_results(tmp_path / "top/x/results_spotting.json", "league/one", SPOTS["friday"])
    assert {video.name for video in read_events(tmp_path).videos} == {"league/one"}


def test_checking_predictions_says_that_nobody_has_reviewed_them(events_file, videos, capsys):
    assert main(["data", "check", str(videos), "--events", str(events_file)]) == 1
    told = capsys.readouterr().out
    assert "5 of 5 events are predictions with scores from 0.05 to 0.90, and all of them count as labels" in told
    assert "3 videos, 5 events: 1 predictions as labels" in told
    assert main(["data", "check", str(videos), "--events", str(events_file), "--min-score", "0.06"]) == 0
    assert "3 videos, 4 events: nothing to mend" in capsys.readouterr().out


def test_importing_predictions(events_file, videos, tmp_path, capsys):
    words = ["data", "import", str(videos), str(events_file), str(tmp_path / "out")]
    if events_file.suffix == ".zip":  # every candidate, whatever its score
        assert main(words) == 2
        assert "say from which score on they are: `--min-score`" in capsys.readouterr().err
    else:
        assert main(words) == 0
        assert "5 of 5 events are predictions with scores from 0.05 to 0.90" in capsys.readouterr().out
        labels = read_annotations(tmp_path / "out/friday/Labels-v2.json")
        assert [(label.label, label.half, label.position_ms) for label in labels] == [
            ("Goal", 1, 1500),
            ("Corner", 1, 2250),
        ]
        assert set(find_halves(tmp_path / "out/friday")) == {1}
        assert set(find_halves(tmp_path / "out/cup/final")) == {1, 2}
        shutil.rmtree(tmp_path / "out")
    assert main([*words, "--min-score", "0.5"]) == 0
    assert (
        "5 of 5 events are predictions with scores; 2 with a score below 0.5 are left out" in capsys.readouterr().out
    )
    # labels of which no event is left are none to train on
    assert (tmp_path / "out/labels.txt").read_text() == "Goal\n"
    labels = read_annotations(tmp_path / "out/cup/final/Labels-v2.json")
    assert [(label.half, label.position_ms) for label in labels] == [(1, 500), (2, 2000)]


def test_converting_predictions_keeps_their_scores(events_file, tmp_path, capsys):
    assert main(["data", "convert", str(events_file), str(tmp_path / "out.csv")]) == 0
    assert set(read_events(tmp_path / "out.csv").videos) == PARTS
    assert capsys.readouterr().err == ""
    assert main(["data", "convert", str(events_file), str(tmp_path / "out.csv"), "--min-score", "0.5"]) == 0
    kept = [event.score for video in read_events(tmp_path / "out.csv").videos for event in video.events]
    assert sorted(kept) == [0.7, 0.8, 0.9]
    assert "2 with a score below 0.5 are left out" in capsys.readouterr().err


def test_events_without_a_score_are_no_predictions(videos, tmp_path):
    rows = "video,label,time_s,score\nfriday.mp4,Goal,1,\nfriday.mp4,Goal,2,0.2\ncup/final/1_224p.mkv,Foul,1,\n"
    (tmp_path / "a.csv").write_text(rows)
    data = import_videos(videos, tmp_path / "a.csv", tmp_path / "out", min_score=0.5)
    assert data.predictions == "1 of 3 events are predictions with scores; 1 with a score below 0.5 are left out"
    assert [event.position_ms for event in data.events["friday"]] == [1000]
    assert data.table()[-1] == data.predictions


def test_a_video_that_is_alone_keeps_its_name_where_the_videos_are_said(videos, tmp_path):
    write_results(tmp_path / "friday.json", "friday", SPOTS["friday"])
    words = ["data", "convert", str(tmp_path / "friday.json"), str(tmp_path / "out"), "--to", "elan"]
    assert main([*words, "--videos", str(videos)]) == 0
    (file,) = (tmp_path / "out").rglob("*.eaf")
    assert file.name == "friday.mp4.eaf"
    (video,) = read_events(tmp_path / "out").videos
    assert (video.name, video.half) == ("friday.mp4", None)


def test_a_zip_of_other_things_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/annotations.xml").write_text("<annotations/>")
    shutil.make_archive(str(tmp_path / "cvat"), "zip", tmp_path / "in")
    with pytest.raises(InputError, match="holds no predictions; unpack a zip of other files"):
        read_events(tmp_path / "cvat.zip")
    (tmp_path / "in/a.json").write_text(json.dumps({"predictions": [{"label": "Goal"}]}))
    shutil.make_archive(str(tmp_path / "bad"), "zip", tmp_path / "in")
    with pytest.raises(InputError, match=r"bad.zip/a.json`, predictions\[0\]: `half` is None"):
        read_events(tmp_path / "bad.zip")

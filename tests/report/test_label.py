"""The page of `comedian label`, opened as a file and used in a real browser."""

import json
import os
import re

import pytest
from playwright.sync_api import expect

from chromium import file_pages
from comedian import ComedianConfig
from comedian.cli.main import main
from comedian.evaluation.reported_events import read_reported
from comedian.events.formats import read_events
from comedian.inference.suggestions import Moment, uncertain_moments
from comedian.models import ComedianForActionSpotting
from comedian.report.label import LabelEvent, is_playable, write_label_page
from comedian.training.base_trainer import build_processor
from comedian.video.decoding import frames_at
from testing_utils import tiny_config
from video_factory import frame_number, numbered_from, write_video

HOSTILE = "</script><img src=x onerror=\"document.title='hacked'\">"
LABELS = ["Goal", "Corner", HOSTILE]


@pytest.fixture(scope="module")
def pages():
    with file_pages() as open_page:
        yield open_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two videos of 12 s at 10 frames per second, and one that browsers do not play."""
    folder = tmp_path_factory.mktemp("label")
    for name in ("a.mp4", "deep/b ü#.mp4"):
        write_video(folder / "videos" / name, 120)
    write_video(folder / "videos/c.avi", 50, codec="mpeg4")
    return folder


def write(folder, name, videos=("a.mp4", "deep/b ü#.mp4"), **content):
    path = folder / f"{name}.html"
    write_label_page(path, {video: folder / "videos" / video for video in videos}, LABELS, **content)
    return path


def open_ready(pages, path):
    page = pages(path, viewport={"width": 1280, "height": 900})
    page.wait_for_function("() => document.querySelector('video').readyState >= 2")
    return page


def seek(page, time_s):
    """Move the playhead, and wait for the picture."""
    page.evaluate("(time_s) => { video.currentTime = time_s; }", time_s)
    page.wait_for_function(
        "(time_s) => !video.seeking && Math.abs(shown_s - time_s) <= 0.11", arg=time_s, timeout=5000
    )


def rows(page):
    return [
        (
            row.locator("button").inner_text(),
            row.locator(".label").inner_text().strip(),
            row.locator(".status").inner_text(),
        )
        for row in page.locator("#events tbody tr").all()
    ]


def export(page, kind):
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Export {kind}").click()
    return download.value


def test_a_video_of_another_content_has_another_copy_and_other_work(tmp_path):
    identities, copies = [], []
    for folder, first in (("thu", 0), ("fri", 100)):
        video = write_video(tmp_path / folder / "clip.avi", 20, codec="mpeg4", draw=numbered_from(first))
        # older than the copy of the other
        os.utime(video, (0, 0))
        copies += write_label_page(tmp_path / "p.html", {"clip.avi": video}, LABELS)
        identities.append(re.search(r'"id": ?"(\w+)"', (tmp_path / "p.html").read_text())[1])
    assert [frame_number(frame) for copy in copies for frame in frames_at(copy, [1.0])] == [10, 110]
    assert len(set(identities)) == 2
    assert write_label_page(tmp_path / "p.html", {"clip.avi": tmp_path / "thu/clip.avi"}, LABELS) == []
    assert identities[0] in (tmp_path / "p.html").read_text()


def test_ten_events_by_keys_three_corrected_exported_and_trained_on(pages, folder, tmp_path, capsys):
    page = open_ready(pages, write(folder, "keys"))
    for number in range(10):
        if number == 6:
            page.locator("#videos button").nth(1).click()
            page.wait_for_function("() => current === data.videos[1] && video.readyState >= 2")
        seek(page, number + 0.05)
        page.keyboard.press("12"[number % 2])
    assert [label for _, label, _ in rows(page)] == ["Goal", "Corner"] * 5
    # relabelled, moved by frames, deleted
    page.get_by_role("button", name="Select Goal, 1 · 0:02.0").click()
    page.locator("#edit select[name=label]").select_option("Corner")
    page.get_by_role("button", name="Select Corner, 1 · 0:03.0").click()
    page.keyboard.press(">")
    page.keyboard.press(">")
    page.get_by_role("button", name="Select Goal, 1 · 0:04.0").click()
    page.keyboard.press("Delete")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+y")
    download = export(page, "CSV")
    download.save_as(tmp_path / "events.csv")
    page.close()
    found = {
        video.name: [(event.label, event.position_ms) for event in video.events]
        for video in read_events(tmp_path / "events.csv").videos
    }
    first = [("Goal", 0), ("Corner", 1000), ("Corner", 2000), ("Corner", 3200), ("Corner", 5000)]
    second = [("Goal", 6000), ("Corner", 7000), ("Goal", 8000), ("Corner", 9000)]
    assert found == {"a.mp4": first, "deep/b ü#.mp4": second}

    start = ComedianForActionSpotting(tiny_config(fps=2.0))
    start.save_pretrained(tmp_path / "start")
    build_processor(start.config).save_pretrained(tmp_path / "start")
    words = ["--videos", folder / "videos", "--events", tmp_path / "events.csv", "--model", tmp_path / "start"]
    one_batch = ["--training.num_train_epochs=1", "--training.windows_per_half=4", "--training.disable_tqdm=true"]
    assert main(["finetune", *map(str, words), "--output", str(tmp_path / "run"), *one_batch]) == 0
    counts = {label: counts.there for label, counts in read_reported(tmp_path / "run/model")[0].items()}
    # one of the videos is for validation
    of_each = [{"Corner": 4, "Goal": 1}, {"Corner": 2, "Goal": 2}]
    assert counts in of_each and "epoch 1 of 1" in capsys.readouterr().out
    trained = json.loads((tmp_path / "run/matches/a/Labels-v2.json").read_text())["annotations"]
    assert [(event["label"], int(event["position"])) for event in trained] == first


def test_the_time_of_an_event_is_that_of_the_frame_on_screen(pages, folder):
    page = open_ready(pages, write(folder, "frames", videos=["a.mp4"]))
    seek(page, 2.05)
    for _ in range(3):
        page.keyboard.press(".")
        page.wait_for_timeout(200)
    page.keyboard.press(",")
    page.wait_for_timeout(200)
    page.keyboard.press("1")
    [event] = page.evaluate("() => state.events")
    [frame] = frames_at(folder / "videos/a.mp4", [event["time_s"]])
    assert event["time_s"] == 2.2 and frame_number(frame) == 22
    page.close()


def test_proposals_are_reviewed_and_only_confirmed_events_exported(pages, folder):
    proposed = [LabelEvent(0, "Goal", 2.0, score, "proposed") for score in (0.9,)]
    proposed += [LabelEvent(1, "Corner", 3.0, 0.55, "proposed"), LabelEvent(0, HOSTILE, 4.0, 0.3, "proposed")]
    page = open_ready(pages, write(folder, "review", events=proposed, moments=[Moment(1, 5.0, 0.8)]))
    assert page.title().startswith("Label ")
    expect(page.locator("#counts")).to_have_text("3 events, 3 to review")
    page.keyboard.press("n")
    # the least certain one comes first
    expect(page.locator("#events tr[aria-current] .label")).to_have_text("Corner")
    page.keyboard.press("Enter")
    expect(page.locator("#counts")).to_have_text("3 events, 2 to review")
    content = json.loads(open(export(page, "JSON").path(), encoding="utf-8").read())
    assert content["videos"] == [
        {
            "video": "deep/b ü#.mp4",
            "duration_s": 12.0,
            "events": [{"label": "Corner", "time_s": 3, "visibility": "visible"}],
        }
    ]
    assert "2 are not reviewed and were omitted" in page.locator("#file-note").inner_text()
    page.locator("#with-proposed").check()
    content = json.loads(open(export(page, "JSON").path(), encoding="utf-8").read())
    assert [len(video["events"]) for video in content["videos"]] == [2, 1]
    exported = folder / "exported.json"
    exported.write_text(json.dumps(content))
    assert [(video.name, len(video.events)) for video in read_events(exported).videos] == [
        ("a.mp4", 2),
        ("deep/b ü#.mp4", 1),
    ]
    page.get_by_role("button", name="2 · 0:05.0").click()
    page.wait_for_function("() => current === data.videos[1] && Math.abs(video.currentTime - 5) < 0.1")
    page.close()


def test_changes_outlive_the_page_and_can_be_discarded(pages, folder):
    path = write(folder, "kept")
    page = open_ready(pages, path)
    page.keyboard.press("2")
    page.reload()
    expect(page.locator("#restored")).to_be_visible()
    assert [label for _, label, _ in rows(page)] == ["Corner"]
    page.get_by_role("button", name="Discard all changes").click()
    assert rows(page) == []
    page.keyboard.press("Control+z")
    assert len(rows(page)) == 1
    page.close()


def test_an_export_is_imported_again_and_strange_files_are_refused(pages, folder, tmp_path):
    page = open_ready(pages, write(folder, "import"))
    good, bad, torn = tmp_path / "good.csv", tmp_path / "bad.csv", tmp_path / "torn.json"
    good.write_text('video,label,time_s,comment\na.mp4,"New, one",2.5,"a ""b"""\na.mp4,Goal,1,\n')
    bad.write_text("video,label,time_s\nother.mp4,Goal,1\n")
    torn.write_text('{"videos": [')
    page.locator("#import").set_input_files(good)
    expect(page.locator("#file-note")).to_have_text("2 events imported, 0 were there already.")
    page.locator("#import").set_input_files(good)
    expect(page.locator("#file-note")).to_have_text("0 events imported, 2 were there already.")
    assert [(label, status) for _, label, status in rows(page)] == [("Goal", "confirmed"), ("New, one", "confirmed")]
    for path, reason in ((bad, "other.mp4 is not on this page"), (torn, "torn.json was not imported")):
        page.locator("#import").set_input_files(path)
        expect(page.locator("#file-note")).to_contain_text(reason)
    assert len(rows(page)) == 2
    page.close()


def test_a_mark_is_dragged(pages, folder):
    page = open_ready(pages, write(folder, "drag", events=[LabelEvent(0, "Goal", 6.0)]))
    mark = page.locator(".mark").bounding_box()
    track = page.locator(".track").bounding_box()
    page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    page.mouse.down()
    page.mouse.move(track["x"] + track["width"] * 0.75, mark["y"] + 5, steps=4)
    page.mouse.up()
    [event] = page.evaluate("() => state.events")
    assert abs(event["time_s"] - 9.0) < 0.1
    page.close()


def test_what_browsers_do_not_play_gets_a_copy_with_the_same_times(pages, folder):
    video = folder / "videos/c.avi"
    assert is_playable(folder / "videos/a.mp4") and not is_playable(video)
    reached = []
    path = folder / "copy.html"
    [copy] = write_label_page(
        path, {"c.avi": video}, LABELS, progress=lambda name, duration_s: lambda time_s: reached.append(time_s)
    )
    assert (
        (copy.parent, copy.name[:2]) == (folder / "copy_videos", "c_")
        and is_playable(copy)
        and reached == sorted(reached)
        and reached[-1] > 4.5
    )
    times_s = [0.0, 1.7, 4.9]
    assert [frame_number(frame) for frame in frames_at(copy, times_s)] == [0, 17, 49]
    assert write_label_page(path, {"c.avi": video}, LABELS) == []
    page = open_ready(pages, path)
    seek(page, 1.75)
    page.keyboard.press("1")
    assert [event["time_s"] for event in page.evaluate("() => state.events")] == [1.7]
    page.close()


def test_the_least_certain_moments_come_first_and_from_every_video():
    spots = [
        [{"label": "Goal", "timestamp_s": t, "score": s} for t, s in ((5, 0.5), (8, 0.49), (40, 0.95), (60, 0.4))],
        [{"label": "Corner", "timestamp_s": 3, "score": 0.01}],
    ]
    config = ComedianConfig(id2label={0: "Corner", 1: "Goal"}, label_thresholds=[0.2, 0.5])
    moments = uncertain_moments(spots, config, 3)
    assert [(moment.video, moment.time_s) for moment in moments] == [(0, 5), (1, 3), (0, 60)]
    assert [round(moment.uncertainty, 3) for moment in moments] == [1.0, 0.05, 0.8]


def test_the_command(folder, tmp_path, capsys):
    (tmp_path / "labels.txt").write_text("Goal\nCorner\n")
    (tmp_path / "events.json").write_text(
        json.dumps(
            {
                "UrlLocal": "a.mp4",
                "predictions": [
                    {"label": "Goal", "half": "1", "position": "2001", "confidence": "0.5", "gameTime": "1 - 00:02"}
                ],
            }
        )
    )
    videos = [str(folder / "videos/a.mp4"), str(folder / "videos/c.avi")]
    words = ["label", *videos, "--labels", str(tmp_path / "labels.txt"), "--output", str(tmp_path / "p.html")]
    assert main([*words, "--events", str(tmp_path / "events.json")]) == 0
    content = json.loads((tmp_path / "p.html").read_text().split('id="data">')[1].split("</script>")[0])
    assert [video["name"] for video in content["videos"]] == ["a.mp4", "c.avi"] and content["labels"] == [
        "Goal",
        "Corner",
    ]
    [event] = content["events"]
    assert (event["video"], event["time_s"], event["status"], event["score"]) == (0, 2.0, "proposed", 0.5)
    capsys.readouterr()
    for wrong, reason in (
        (["label", "nowhere.mp4", "--output", "x.html"], "does not exist"),
        (["label", videos[0], "--output", "x.txt"], "ends in .html"),
        (["label", videos[0], videos[0], "--output", "x.html"], "given twice"),
        (["label", videos[0], "--suggest", "3", "--output", "x.html"], "--suggest requires --model"),
        (
            ["label", videos[1], "--events", str(tmp_path / "events.json"), "--output", "x.html"],
            "not among the videos",
        ),
    ):
        assert main(wrong) == 2 and reason in capsys.readouterr().err, wrong

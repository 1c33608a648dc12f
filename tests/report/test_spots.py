"""The page of `comedian spot --report`, opened as a file and used in a real browser."""

import base64
import csv
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from chromium import file_pages
from comedian.events.events import name_video
from comedian.events.formats import read_events
from comedian.inference.outputs import write_csv
from comedian.models.time_grid_comedian import token_timestamps_s
from comedian.report import spots as report
from comedian.report.spots import write_spots_report
from comedian.soccernet.annotations import Annotation, prediction_of
from testing_utils import tiny_config
from video_factory import frame_number, write_video

HOSTILE = "</script><img src=x onerror=\"document.title='hacked'\">"
LABELS = ["Goal", HOSTILE, "Corner, short"]
SPOTS = [
    {"label": "Goal", "timestamp_s": 2.25, "half": 1, "score": 0.75},
    {"label": HOSTILE, "timestamp_s": 2.25, "half": 1, "score": 0.5},
    {"label": "Corner, short", "timestamp_s": 7.25, "half": 1, "score": 0.25},
    {"label": "Goal", "timestamp_s": 4.25, "half": 2, "score": 0.875},
]
# at ±1 s: the first goal is a hit, that of half 2 too far off and so a false alarm beside a miss
ANNOTATIONS = [
    Annotation("Goal", 1, 3000, "home", "visible"),
    Annotation("Goal", 2, 7000, "home", "not shown"),
    Annotation("Foul", 1, 1000, "home", "visible"),
    Annotation("Goal", 3, 1000, "home", "visible"),
]


def config(**overrides):
    return tiny_config(id2label=dict(enumerate(LABELS)), **overrides)


def some_scores(num_tokens=12):
    return np.random.default_rng(0).random((num_tokens, len(LABELS)), np.float32)


def data_of(path):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())[1])


@pytest.fixture(scope="module")
def pages():
    with file_pages() as open_page:
        yield open_page


@pytest.fixture(scope="module")
def match(tmp_path_factory):
    """Two halves of 12 s in a folder with a difficult name, beside the page's own."""
    folder = tmp_path_factory.mktemp("report")
    names = {half: folder / "50% of <it> #1 ü" / f"{half} ?.mp4" for half in (1, 2)}
    return folder, {half: write_video(path, 120, audio_s=12.0) for half, path in names.items()}


def write(folder, videos, name="out.html", spots=SPOTS, **options):
    path = folder / "pages" / name
    write_spots_report(
        path, "league/a", spots, {1: some_scores(), 2: some_scores()}, config(), videos=videos, **options
    )
    return path


def hold(page):
    """Keep the video where it is told to play, so that its time can be compared; `played` counts."""
    page.evaluate("() => { window.played = 0; video.play = () => { played += 1; return Promise.resolve(); }; }")
    return page


@pytest.fixture
def page(match, pages):
    page = hold(pages(write(*match), viewport={"width": 1280, "height": 900}))
    yield page
    page.close()


@pytest.fixture
def judged(match, pages):
    page = hold(pages(write(*match, name="judged.html", annotations=ANNOTATIONS, tolerance_s=2)))
    yield page
    page.close()


def rows(page):
    return page.locator("#events tbody tr:visible")


def texts(page):
    """Label, time and score of the rows that are shown."""
    return [
        (
            row.locator(".label").inner_text().strip(),
            row.locator("button").inner_text(),
            row.locator("td").nth(3).inner_text(),
        )
        for row in rows(page).all()
    ]


def mark(page, name):
    return page.get_by_role("group", name="Timeline").get_by_role("button", name=name)


def expect_position(page, file_name, time_s):
    page.wait_for_function(
        """([name, time]) => {
          const video = document.querySelector("video");
          return decodeURI(video.currentSrc).endsWith(name) && Math.abs(video.currentTime - time) < 0.01;
        }""",
        arg=[file_name.replace("?", "%3F"), time_s],
        timeout=5000,
    )


def export(page, name):
    with page.expect_download() as download:
        page.get_by_role("button", name=name, exact=True).click()
    return download.value.suggested_filename, open(download.value.path(), newline="").read()


def test_a_click_shows_the_event_in_its_half(page):
    assert texts(page) == [
        ("Goal", "1 · 0:02.3", "0.75"),
        (HOSTILE, "1 · 0:02.3", "0.50"),
        ("Corner, short", "1 · 0:07.3", "0.25"),
        ("Goal", "2 · 0:04.3", "0.88"),
    ]
    expect(page.locator("#shown")).to_have_text("4 of 4 shown")
    mark(page, "Corner, short, half 1, 0:07.3, score 0.25").click()
    # from three seconds before
    expect_position(page, "1 ?.mp4", 4.25)
    expect(page.locator("#events [aria-current]")).to_contain_text("Corner, short")
    rows(page).nth(3).get_by_role("button").click()
    expect_position(page, "2 ?.mp4", 1.25)
    assert page.evaluate("played") == 2
    expect(page.get_by_role("button", name="Half 2", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("[aria-current]")).to_have_count(2)
    page.get_by_role("button", name="Half 1", exact=True).click()
    expect_position(page, "1 ?.mp4", 0)
    # anywhere on a track: 3 of 12 s
    track = page.locator(".half").nth(1).locator(".track").first
    box = track.bounding_box()
    track.click(position={"x": box["width"] / 4, "y": 30})
    page.wait_for_function("() => Math.abs(document.querySelector('video').currentTime - 3) < 0.1")
    heads = page.locator(".playhead:visible")
    expect(heads).to_have_count(1)
    assert heads.evaluate("head => parseFloat(head.style.getPropertyValue('--at'))") == pytest.approx(25, abs=1)
    expect(page.locator("#video-note")).to_be_empty()


def test_marks_lie_at_their_times_on_the_curve_that_was_scored(match, page):
    half = data_of(match[0] / "pages" / "out.html")["halves"][0]
    goal = mark(page, "Goal, half 1").bounding_box()
    track = page.locator(".track").first.bounding_box()
    assert goal["x"] + goal["width"] / 2 == pytest.approx(track["x"] + track["width"] * 2.25 / 12, abs=0.5)
    # on the curve, whatever score suppression and calibration made of it
    height = np.interp(2.25, token_timestamps_s(12, config().fps, config().tubelet_size), some_scores()[:, 0])
    drawn = page.locator(".track svg").first.bounding_box()
    assert goal["y"] + goal["height"] / 2 == pytest.approx(drawn["y"] + drawn["height"] * (1 - height), abs=1)
    times_s = token_timestamps_s(12, config().fps, config().tubelet_size)
    points = page.locator(".track path").first.get_attribute("d")[1:-1].replace("L", "").split()
    curve = np.array(points, float).reshape(-1, 2)[1:-1]
    assert half["duration_s"] == 12
    np.testing.assert_allclose(curve[:, 0], times_s)
    np.testing.assert_allclose(1 - curve[:, 1] / 255, some_scores()[:, 0], atol=0.5 / 255 + 1e-6)


def test_a_page_of_scores_finer_than_tokens_lasts_as_long_as_the_video(tmp_path):
    settings = config(scores_per_token=4, offset_radius_s=1.0)
    scores = np.zeros((48, len(LABELS)), np.float32)
    scores[29, 0] = 1
    write_spots_report(tmp_path / "out.html", "a", [], {1: scores}, settings)
    half = data_of(tmp_path / "out.html")["halves"][0]
    assert half["duration_s"] == 12
    curve = np.frombuffer(base64.b64decode(half["curves"][0]), np.uint8)
    # the middle of the 30th quarter of a second, but for half a frame: frame 0 is at 0 s
    assert half["curve_begin_s"] + half["curve_step_s"] * curve.argmax() == pytest.approx(
        29.5 / 4 - 0.5 / settings.fps
    )


def test_sound_before_the_picture_is_in_the_players_times_alone(tmp_path, pages):
    """The sound begins 3 s before the picture: what a browser shows at 9.2 s is 6.2 s after the first picture."""
    video = write_video(tmp_path / "early.mp4", 100, start_s=3.0, audio_s=13.0)
    spots = [{"label": "Goal", "timestamp_s": 6.2, "half": 1, "score": 0.5}]
    write_spots_report(tmp_path / "out.html", "a", spots, {1: some_scores(10)}, config(), videos={1: video})
    offset_s = data_of(tmp_path / "out.html")["halves"][0]["video"]["offset_s"]
    assert offset_s == pytest.approx(3.0, abs=0.07)  # AAC begins a frame early
    page = hold(pages(tmp_path / "out.html"))
    assert texts(page) == [("Goal", "0:06.2", "0.50")]
    rows(page).first.get_by_role("button").click()
    expect_position(page, "early.mp4", 3.2 + offset_s)
    at = page.locator(".playhead:visible").evaluate("head => parseFloat(head.style.getPropertyValue('--at'))")
    assert at == pytest.approx(32, abs=0.2)
    page.evaluate("time => { video.currentTime = time; }", 6.2 + offset_s)
    page.evaluate(
        """async () => {
          const video = document.querySelector("video");
          video.controls = false;
          video.style.cssText = "width: 384px; height: 256px; object-fit: fill; aspect-ratio: auto; border-radius: 0";
          if (video.seeking) await new Promise((done) => video.addEventListener("seeked", done));
        }"""
    )
    shown = Image.open(io.BytesIO(page.locator("video").screenshot())).convert("RGB")
    assert frame_number(np.asarray(shown)) in (61, 62)
    begin = f"00:00:{6.2 + offset_s:06.3f}"
    assert export(page, "SRT subtitles")[1].splitlines()[1].startswith(begin.replace(".", ","))
    assert export(page, "WebVTT chapters")[1].splitlines()[2].startswith(begin)
    assert export(page, "CSV")[1].splitlines()[1].startswith("1,Goal,6.2,")


@pytest.mark.parametrize(
    "time_s, text",
    [(34.6, "0:34.6"), (59.96, "1:00.0"), (3599.99, "1:00:00.0"), (0.04, "0:00.0"), (754.25, "12:34.3")],
)
def test_times_are_rounded(tmp_path, pages, time_s, text):
    spots = [{"label": "Goal", "timestamp_s": time_s, "half": 1, "score": 0.5}]
    write_spots_report(tmp_path / "out.html", "a", spots, {1: some_scores(3600)}, config())
    page = pages(tmp_path / "out.html")
    assert [time for _, time, _ in texts(page)] == [text]


SUM = [{"label": "Goal", "timestamp_s": 53 * 0.2, "half": 1, "score": 0.5}]  # at 10.600000000000001 s


def test_the_pages_table_has_milliseconds(tmp_path, pages):
    write_spots_report(tmp_path / "out.html", "a", SUM, {1: some_scores()}, config())
    assert export(pages(tmp_path / "out.html"), "CSV")[1].splitlines()[1] == "1,Goal,10.6,00:10,0.5"


def test_the_commands_table_has_milliseconds(tmp_path):
    write_csv(tmp_path / "out.csv", SUM)
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == "1,Goal,10.6,1 - 00:10,0.5"


def test_the_offset_of_a_player_that_begins_with_the_sound(tmp_path):
    video = write_video(tmp_path / "early.mp4", 100, start_s=3.0, audio_s=13.0)
    late = write_video(tmp_path / "late.mp4", 30, start_s=3.0)  # a player begins with what there is
    write_spots_report(tmp_path / "out.html", "a", [], {1: some_scores()}, config(), videos={1: video})
    assert data_of(tmp_path / "out.html")["halves"][0]["video"]["offset_s"] == pytest.approx(3.0, abs=0.07)
    write_spots_report(tmp_path / "out.html", "a", [], {1: some_scores()}, config(), videos={1: late})
    assert data_of(tmp_path / "out.html")["halves"][0]["video"]["offset_s"] == 0


def test_a_title_is_the_matchs():
    name = "england_epl/2014-2015/2015-02-21 - 18-00 Chelsea 1 - 1 Burnley"
    assert report.title_of(name) == ("Chelsea 1 - 1 Burnley", ["england epl", "2014-2015", "2015-02-21"])
    assert report.title_of("friday") == ("friday", [])


def test_a_click_plays_and_speed_holds_in_every_half(match, pages):
    page = pages(write(*match))
    page.locator("#speed").select_option("2")
    rows(page).nth(3).get_by_role("button").click()
    page.wait_for_function("() => !video.paused && video.currentTime > 1.5 && video.playbackRate === 2")
    page.close()


def test_frames_are_stepped(page):
    rows(page).first.get_by_role("button").click()
    expect_position(page, "1 ?.mp4", 0)
    # ten frames a second: into the middle of each
    for press, time_s in ((".", 0.15), (".", 0.25), (",", 0.15)):
        page.keyboard.press(press)
        expect_position(page, "1 ?.mp4", time_s)
        page.wait_for_function("time => Math.abs(shown_s - time) < 0.06", arg=time_s)
    page.get_by_role("button", name="+1 frame").click()
    expect_position(page, "1 ?.mp4", 0.25)
    page.get_by_role("button", name="+5 s").click()
    expect_position(page, "1 ?.mp4", 5.25)


def test_zoom_stays_at_the_playhead_and_refines_the_ticks(page):
    ticks = lambda: page.locator(".half").first.locator(".ticks span").all_inner_texts()  # noqa: E731
    assert ticks() == [f"0:{second:02d}" for second in range(0, 12, 2)]
    page.evaluate("() => { video.currentTime = 9; }")
    page.wait_for_function("() => !video.seeking")
    page.locator("#zoom").select_option("8")
    assert ticks() == [f"0:{second:02d}" for second in range(12)]

    def place():
        """Where the playhead is in the part that is seen, from 0 to 1."""
        return page.evaluate(
            """() => {
              const half = current, lanes = half.lanes.getBoundingClientRect(), ticks = half.ticks.getBoundingClientRect();
              const left = lanes.left + half.ticks.offsetLeft;
              return (ticks.left + ticks.width * playhead_s() / half.duration_s - left) / (lanes.right - left);
            }"""
        )

    assert place() == pytest.approx(0.5, abs=0.01)
    # while it plays, the part that is seen follows
    page.evaluate(
        """() => {
          Object.defineProperty(video, "paused", { value: false });
          video.currentTime = 5;
        }"""
    )
    page.wait_for_function("() => !video.seeking && Math.abs(video.currentTime - 5) < 0.01")
    page.wait_for_timeout(50)
    assert place() == pytest.approx(0.5, abs=0.01)


def test_many_rows_are_seen_at_once(match, pages):
    spots = [SPOTS[0] | {"timestamp_s": 0.5 * number} for number in range(20)]
    page = pages(write(*match, name="rows.html", spots=spots), viewport={"width": 1280, "height": 900})
    box = page.locator(".events .table").bounding_box()
    seen = [row for row in rows(page).all() if row.bounding_box()["y"] + 20 < box["y"] + box["height"]]
    assert len(seen) >= 9
    page.close()


def test_filters(page):
    page.locator("#score").fill("0.5")
    assert [name for name, *_ in texts(page)] == ["Goal", HOSTILE, "Goal"]
    expect(page.locator("#shown")).to_have_text("3 of 4 shown")
    expect(page.locator("#score-text")).to_have_text("0.50")
    page.locator("#labels label").nth(0).click()
    assert [name for name, *_ in texts(page)] == [HOSTILE]
    expect(page.locator(".lane:visible")).to_have_count(4)
    expect(page.locator(".mark:visible")).to_have_count(1)
    page.get_by_role("button", name="None", exact=True).click()
    expect(page.locator("#shown")).to_have_text("0 of 4 shown")
    page.get_by_role("button", name="All", exact=True).click()
    expect(page.locator("#shown")).to_have_text("3 of 4 shown")
    assert page.locator("#shown").get_attribute("aria-live") == "polite"


def test_keyboard_alone(page):
    focused = lambda: page.evaluate("document.activeElement.getAttribute('aria-label')")  # noqa: E731
    page.locator("#zoom").focus()
    for _ in range(6):  # three labels, All, None, the timeline
        page.keyboard.press("Tab")
    assert focused() == "Goal, half 1, 0:02.3, score 0.75"
    visited = []
    for key in (
        "ArrowRight",
        "ArrowRight",
        "ArrowRight",
        "ArrowLeft",
        "ArrowUp",
        "ArrowUp",
        "ArrowDown",
        "End",
        "Home",
    ):
        page.keyboard.press(key)
        visited.append(focused().split(", ")[0])
    corner, hostile = "Corner", HOSTILE
    assert visited == [hostile, corner, corner, hostile, "Goal", "Goal", hostile, corner, "Goal"]
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect_position(page, "1 ?.mp4", 4.25)
    page.keyboard.press("Tab")
    assert focused() == "Goal, half 2, 0:04.3, score 0.88"
    page.keyboard.press("Space")
    expect_position(page, "2 ?.mp4", 1.25)
    # what the filter hid is stepped over, and cannot hold the one stop of the Tab key
    page.locator("#score").fill("0.5")
    page.locator("#zoom").focus()
    for _ in range(6):
        page.keyboard.press("Tab")
    assert focused() == "Goal, half 1, 0:02.3, score 0.75"
    page.keyboard.press("End")
    assert focused().startswith(HOSTILE)


def test_exports_hold_what_is_shown(page, tmp_path):
    page.locator("#score").fill("0.5")
    name, text = export(page, "JSON")
    assert name == "events.json"
    kept = [SPOTS[0], SPOTS[1], SPOTS[3]]
    assert json.loads(text) == {"UrlLocal": "league/a", "predictions": list(map(prediction_of, kept))}
    (tmp_path / "a.json").write_text(text)
    name, text = export(page, "CSV")
    (tmp_path / "a.csv").write_text(text)
    # as labels: the CSV names no video and is of the one it is called after
    told = {ending: read_events(tmp_path / f"a.{ending}") for ending in ("csv", "json")}
    assert [event.position_ms for event in told["json"].videos[0].events] == [2250, 2250]
    assert told["json"] == name_video(told["csv"], "league/a")
    table = list(csv.DictReader(io.StringIO(text)))
    assert [(row["half"], row["label"], row["game_time"], row["timestamp_s"], row["score"]) for row in table] == [
        ("1", "Goal", "00:02", "2.25", "0.75"),
        ("1", HOSTILE, "00:02", "2.25", "0.5"),
        ("2", "Goal", "00:04", "4.25", "0.875"),
    ]
    assert export(page, "SRT subtitles, half 1") == (
        "1 _.srt",  # the browser's own care
        f"1\n00:00:02,250 --> 00:00:05,250\nGoal (0.75)\n\n2\n00:00:02,250 --> 00:00:05,250\n{HOSTILE} (0.50)\n\n",
    )
    escaped = HOSTILE.replace("<", "&lt;").replace(">", "&gt;")
    assert export(page, "WebVTT chapters, half 1")[1] == f"WEBVTT\n\n00:00:02.250 --> 00:00:12.000\nGoal, {escaped}\n"
    page.locator("#score").fill("0.1")
    assert [row["label"] for row in csv.DictReader(io.StringIO(export(page, "CSV")[1]))] == [
        spot["label"] for spot in SPOTS
    ]
    chapters = export(page, "WebVTT chapters, half 1")[1]
    assert "00:00:02.250 --> 00:00:07.250\n" in chapters
    assert "00:00:07.250 --> 00:00:12.000\nCorner, short\n" in chapters


def test_exported_chapters_are_read_by_the_browser(page, pages, tmp_path):
    text = export(page, "WebVTT chapters, half 1")[1]
    (tmp_path / "empty.html").write_text("<!doctype html>")  # the page's own policy lets no chapters in
    cues = pages(tmp_path / "empty.html").evaluate(
        """async (text) => {
          const video = document.createElement("video"), track = document.createElement("track");
          track.kind = "chapters";
          track.src = "data:text/vtt," + encodeURIComponent(text);
          video.append(track);
          document.body.append(video);
          track.track.mode = "hidden";
          await new Promise((done) => ["load", "error"].forEach((end) => track.addEventListener(end, done)));
          return [...track.track.cues].map((cue) => [cue.startTime, cue.endTime, cue.getCueAsHTML().textContent]);
        }""",
        text,
    )
    assert cues == [[2.25, 7.25, f"Goal, {HOSTILE}"], [7.25, 12, "Corner, short"]]


def test_labels_from_files_are_text(page):
    expect(page).to_have_title("a")
    expect(page.locator(".page-head p")).to_contain_text("league · 4 events")
    assert page.locator("img[src=x]").count() == 0
    assert page.locator(".name").nth(1).inner_text() == HOSTILE


def test_pictures_are_the_events_frames(match):
    pictures = [spot["picture"] for spot in data_of(write(*match))["spots"]]
    for picture, spot in zip(pictures, SPOTS, strict=True):
        kind, content = picture.split(",")
        assert kind == "data:image/jpeg;base64"
        frame = np.asarray(report_image(content))
        assert frame.shape[0] == 90 and frame_number(frame) == int(spot["timestamp_s"] * 10)


def report_image(content):

    return Image.open(io.BytesIO(base64.b64decode(content)))


def counts(page):
    return page.locator("#truth tfoot td").all_inner_texts()


def test_hits_misses_and_false_alarms(judged):
    results = [row.locator(".result").inner_text() for row in rows(judged).all()]
    # the label of another model, and of a half that was not looked at, count for nothing
    assert results == ["hit", "false alarm", "false alarm", "false alarm", "miss, not shown"]
    expect(judged.locator("#shown")).to_have_text("4 of 4 shown, 1 missed")
    assert counts(judged) == ["1", "1", "3", "0.25", "0.50"]
    expect(judged.locator("#truth-note")).to_contain_text("±1 s")
    goals = judged.locator("#truth tbody tr").first
    assert goals.locator("td").all_inner_texts() == ["1", "1", "1", "0.50", "0.50"]
    # a hit that the score filter takes away is a miss
    judged.locator("#score").fill("0.8")
    assert [row.locator(".result").inner_text() for row in rows(judged).all()] == [
        "miss",
        "false alarm",
        "miss, not shown",
    ]
    assert counts(judged) == ["0", "2", "1", "0.00", "0.00"]
    mark(judged, "Goal, half 2, 0:07.0, miss, not shown").click()
    expect_position(judged, "2 ?.mp4", 4)
    judged.locator("#results label").nth(2).click()
    assert len(texts(judged)) == 1
    assert counts(judged) == ["0", "2", "1", "0.00", "0.00"]
    assert len(json.loads(export(judged, "JSON")[1])["predictions"]) == 1


def test_a_miss_has_its_picture(match):
    path = write(*match, name="judged.html", annotations=ANNOTATIONS, tolerance_s=2)
    hit, missed = data_of(path)["truths"]
    assert hit["picture"] is None
    assert frame_number(np.asarray(report_image(missed["picture"].split(",")[1]))) == 70


def test_without_videos(match, pages):
    page = pages(write(match[0], None, name="bare.html"))
    expect(page.locator("#player")).to_be_hidden()
    mark(page, "Corner").click()
    expect(page.locator("#events [aria-current]")).to_contain_text("Corner")
    assert export(page, "SRT subtitles, half 2")[0] == "half_2.srt"


@pytest.mark.parametrize("content", [None, b"no video"], ids=["missing", "broken"])
def test_a_video_that_does_not_play_is_told_and_the_rest_works(match, pages, caplog, content):
    video = match[0] / "gone #2.mkv"
    if content:
        video.write_bytes(content)
    path = write(match[0], {1: video}, name="gone.html")
    assert "pictures are missing" in caplog.text
    page = pages(path)
    expect(page.locator("#video-note")).to_contain_text("cannot play gone #2.mkv")
    mark(page, "Corner").click()
    expect(page.locator("#events [aria-current]")).to_contain_text("Corner")


def test_nothing_found(match, pages):
    page = pages(write(*match, name="none.html", spots=[], annotations=[]))
    expect(page.locator("#shown")).to_have_text("0 of 0 shown, 0 missed")
    assert export(page, "CSV")[1] == "half,label,timestamp_s,game_time,score\n"
    assert export(page, "WebVTT chapters, half 1")[1] == "WEBVTT\n"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_can_be_read(match, pages, width, scheme):
    """No sideways scrolling, and texts that stand out from what is behind them (WCAG AA: 4.5)."""
    page = pages(
        write(*match, name="judged.html", annotations=ANNOTATIONS),
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
    )
    assert page.evaluate("document.documentElement.scrollWidth") == width
    contrasts = page.evaluate(
        """() => {
          const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
          const luminance = (colour) => {
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((c) => c / 255)
              .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const behind = (element) => {
            const colour = getComputedStyle(element).backgroundColor;
            return colour === "rgba(0, 0, 0, 0)" ? behind(element.parentElement) : colour;
          };
          return ["h1", ".page-head .muted", "#shown", ".result.hit", ".result.alarm", ".result.miss", "#labels label",
            ".ticks span", "#truth th", "[aria-pressed=true]", "#exports button", ".name"].map((selector) => {
              const element = document.querySelector(selector);
              const [a, b] = [luminance(getComputedStyle(element).color), luminance(behind(element))];
              return [selector, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
            });
        }"""
    )
    assert [(selector, ratio) for selector, ratio in contrasts if ratio < 4.5] == []
    page.close()


def test_a_long_match_stays_small(tmp_path):
    """Three hours, 17 labels, every candidate: the curves keep every peak and the best spots are there."""
    labels = [f"label {index}" for index in range(17)]
    settings = tiny_config(id2label=dict(enumerate(labels)), num_labels=17)
    scores = np.random.default_rng(0).random((10_803, 17), np.float32) ** 4
    spots = [
        {"label": labels[label], "timestamp_s": float(step), "half": 1, "score": float(scores[step, label])}
        for step in range(len(scores))
        for label in range(0, 17, 8)
    ]
    path = tmp_path / "long.html"
    write_spots_report(path, "long", spots, {1: scores}, settings)
    assert path.stat().st_size < 1_500_000
    data = data_of(path)
    assert len(data["spots"]) == report.MAX_SPOTS
    assert {spot["score"] for spot in data["spots"]} == set(
        sorted(spot["score"] for spot in spots)[-report.MAX_SPOTS :]
    )
    assert "the 2000 best of 32409 events" in path.read_text()
    half = data["halves"][0]
    assert half["curve_step_s"] == 3
    times_s = token_timestamps_s(len(scores), settings.fps, settings.tubelet_size)
    assert half["curve_begin_s"] == pytest.approx(times_s[:3].mean())
    for label in (0, 16):
        curve = np.frombuffer(base64.b64decode(half["curves"][label]), np.uint8)
        assert len(curve) == 3601
        for point in (0, 1, 1800, 3600):
            assert curve[point] == round(255 * float(scores[3 * point : 3 * point + 3, label].max()))


def test_no_more_pictures_than_a_page_can_bear(match, monkeypatch):
    monkeypatch.setattr(report, "MAX_PICTURES", 1)
    pictures = [spot["picture"] for spot in data_of(write(*match))["spots"]]
    # the best of all
    assert [picture is not None for picture in pictures] == [False, False, False, True]


def test_a_failure_leaves_no_page(tmp_path):
    with pytest.raises(ValueError):
        write_spots_report(
            tmp_path / "out.html", "a", [SPOTS[0] | {"score": float("nan")}], {1: some_scores()}, config()
        )
    assert list(tmp_path.iterdir()) == []

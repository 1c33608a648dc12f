"""The Space of examples/space: its page in a real browser, and what the page is made of."""

import csv
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from playwright.sync_api import expect, sync_playwright

from chromium import CHROMIUM, FLAGS
from comedian import InputError
from comedian.video.decoding import iter_frames
from video_factory import corrupt, frame_number, write_video

ROOT = Path(__file__).parents[1]
SPACE = ROOT / "examples" / "space"
METRIC_SPACE = ROOT / "src" / "comedian" / "evaluation" / "soccernet_average_map"
VIDEO = ROOT / "examples" / "demo" / "match" / "2_224p.mkv"
# runs app.py as it is, and says when the model runs
LAUNCH = """
import runpy, sys
from comedian import ActionSpotter
score = ActionSpotter.score
ActionSpotter.score = lambda *args, **options: print("model runs", flush=True) or score(*args, **options)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    module = sys.modules["space_app"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The Space on a free port: its address and its log."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("space")
    settings = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "TMPDIR": str(folder),
    }
    environment = {name: value for name, value in os.environ.items() if name != "COMEDIAN_MODEL"} | settings
    log = folder / "log"
    with log.open("w") as output:
        words = [sys.executable, "-W", "ignore", "-c", LAUNCH, str(SPACE / "app.py")]
        process = subprocess.Popen(words, env=environment, stdout=output, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    while "Running on local URL" not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}", log
    process.terminate()
    process.wait(30)


@pytest.fixture
def page(server):
    """The page in Chromium; whatever it asks of another host fails the test."""
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        strangers = []
        page.on("request", lambda request: strangers.append(request.url))
        page.goto(server[0])
        yield page
        browser.close()
    assert [url for url in strangers if not url.startswith((server[0], "blob:", "data:"))] == []


def find_events(page, video: Path) -> None:
    if page.locator("#upload [aria-label=Clear]").count():
        page.locator("#upload [aria-label=Clear]").click()
    page.set_input_files("#upload input[type=file]", str(video))
    expect(page.locator("#upload")).to_contain_text(video.stem)
    page.get_by_role("button", name="Find events").click()


def position_s(page) -> float:
    return page.evaluate("document.querySelector('#player video').currentTime")


def test_a_visitor_finds_and_sees_the_events(page, server, tmp_path):
    page.get_by_role("button", name="Find events").click()
    expect(page.get_by_test_id("toast-body")).to_contain_text("Choose a video first.")
    page.get_by_test_id("toast-close").click()

    rows = page.locator("#table tbody tr")
    find_events(page, VIDEO)
    foul = rows.filter(has_text="Foul").filter(has_text="1:05.3")
    expect(foul).to_have_count(1, timeout=60_000)
    mark = page.locator("#timeline button[title^='Foul, 1:05.3']")
    # 65.3 of 69 s
    assert float(mark.evaluate("mark => mark.style.left").rstrip("%")) == pytest.approx(94.6, abs=0.2)
    num_events = rows.count()

    expect(page.locator("#player video")).to_have_js_property("readyState", 4, timeout=10_000)
    assert position_s(page) < 1
    foul.click()
    assert position_s(page) == pytest.approx(65.3, abs=0.05)
    page.locator("#timeline button[title^='Kick-off']").first.click()
    assert position_s(page) == pytest.approx(34.5, abs=0.05)
    # the line over the timeline follows
    page.wait_for_function(
        "getComputedStyle(document.querySelector('#timeline .head')).getPropertyValue('--at') > '40%'"
    )

    limit = page.locator("#limit input[type=number]")
    limit.fill("0.84")
    limit.press("Enter")
    expect(foul).to_have_count(0)
    expect(page.get_by_label("The model's own threshold")).not_to_be_checked()
    assert 0 < rows.count() < num_events
    limit.fill("0.1")
    limit.press("Enter")
    expect(rows.nth(num_events)).to_be_visible()
    page.locator("#labels input").fill("Foul")
    page.locator("#labels input").press("Enter")
    page.locator("#labels input").press("Tab")
    expect(rows.filter(has_not_text="Foul")).to_have_count(0)
    page.get_by_label("The model's own threshold").check()
    expect(rows).to_have_count(1)
    assert server[1].read_text().count("model runs") == 1

    files = {}
    for kind in ("JSON", "CSV"):
        with page.expect_download() as download:
            page.get_by_text(f"Download {kind}").click()
        files[kind] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[kind])
    prediction, *others = json.loads(files["JSON"].read_text())["predictions"]
    assert (prediction["label"], prediction["position"], others) == ("Foul", "65301", [])
    (event,) = csv.DictReader(files["CSV"].open())
    assert (event["label"], float(event["timestamp_s"])) == ("Foul", pytest.approx(65.3))


def test_a_file_that_is_no_video_is_told_in_one_line(page, tmp_path):
    find_events(page, VIDEO)
    rows = page.locator("#table tbody tr")
    expect(rows).not_to_have_count(0, timeout=60_000)
    text = tmp_path / "notes <b>.txt"
    text.write_text("Goal at 25 s\n" * 100)
    find_events(page, text)
    message = page.get_by_test_id("toast-body")
    expect(message).to_contain_text("`notes b.txt` ")
    expect(message).not_to_contain_text("/")
    expect(rows).to_have_count(0)


@pytest.mark.parametrize(
    "options",
    [
        {"audio_s": 4.0},
        {"start_s": 1.4},
        {"codec": "mpeg4"},
        {"audio_s": 4.0, "start_s": 1.4},
        {"pixel_format": "yuv444p", "start_s": 0.7, "height": 51, "width": 97},
    ],
    ids=str,
)
def test_the_players_video_has_the_frames_at_their_times(app, tmp_path, options):
    source = write_video(tmp_path / "source.mkv", 40, **options)
    playable = app.write_playable(source, tmp_path / "playable.mp4")
    with av.open(str(playable)) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt, stream.start_time) == ("h264", "yuv420p", 0)
        assert len(container.streams.audio) == bool(options.get("audio_s"))
    assert [frame_number(frame) for _, frame in iter_frames(playable, 10)] == list(range(40))
    assert playable.read_bytes().index(b"moov") < playable.read_bytes().index(b"mdat")


def test_a_damaged_video_can_be_played_as_far_as_it_goes(app, tmp_path):
    source = corrupt(write_video(tmp_path / "source.mkv", 200), 0.4, 0.5)
    playable = app.write_playable(source, tmp_path / "playable.mp4")
    expected = [frame.mean() for _, frame in iter_frames(source, 10, on_damage=lambda line: None)]
    found = [frame.mean() for _, frame in iter_frames(playable, 10, on_damage=lambda line: None)]
    assert np.allclose(found[:60], expected[:60], atol=3)


def test_a_video_that_cannot_be_copied_is_encoded(app, tmp_path, monkeypatch):
    def broken(source, streams, start_s, path):
        path.write_bytes(b"half of it")
        raise av.error.InvalidDataError(1, "times go back")

    monkeypatch.setattr(app, "_copy", broken)
    playable = app.write_playable(write_video(tmp_path / "source.mkv", 20), tmp_path / "playable.mp4")
    assert [frame_number(frame) for _, frame in iter_frames(playable, 10)] == list(range(20))


def test_what_comes_from_files_is_escaped(app):
    spots = [{"label": "<b>'\"&", "timestamp_s": 65.04, "half": 1, "score": 0.5}]
    for made in (app.timeline(spots, 100.0), app.event_table(spots)):
        assert "&lt;b&gt;&#x27;&quot;&amp;" in made and "<b>" not in made and "1:05.0" in made


def test_the_model_is_the_variables_or_the_demos(app, monkeypatch, tmp_path):
    monkeypatch.delenv("COMEDIAN_MODEL", raising=False)
    assert Path(app.model_name()) == ROOT / "examples" / "demo" / "model"
    monkeypatch.setenv("COMEDIAN_MODEL", "user/model")
    assert app.model_name() == "user/model"
    monkeypatch.delenv("COMEDIAN_MODEL")
    monkeypatch.setattr(app, "DEMO", tmp_path)
    with pytest.raises(InputError, match="COMEDIAN_MODEL"):
        app.model_name()


@pytest.mark.parametrize("folder", [SPACE, METRIC_SPACE], ids=lambda folder: folder.name)
def test_the_card_is_a_spaces(folder):
    card = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    constraints = (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    assert card["sdk"] == "gradio" and f"gradio=={card['sdk_version']}" in constraints
    assert (folder / card["app_file"]).is_file() and card["title"] and card["license"] == "apache-2.0"
    assert len(card["short_description"]) <= 60  # the Hub's limit


def test_the_requirements_are_the_packages():
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert (SPACE / "requirements.txt").read_text().split("\n") == [*needed, ""]
    metric = (METRIC_SPACE / "requirements.txt").read_text().split()
    assert [line for line in needed if line.startswith(("datasets", "evaluate", "numpy"))] == metric

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from comedian.cli.main import main
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from comedian.video import live
from stream_servers import http_stream, rtsp_stream, udp_stream
from testing_utils import tiny_config
from video_factory import corrupt, write_video


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    torch.manual_seed(0)
    config = tiny_config(initializer_range=0.5, nms_window_s=3.0, nms_type="hard", label_thresholds=[0.3, 0.4, 0.5])
    ComedianForActionSpotting(config).save_pretrained(folder / "model")
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "model")
    # a transport stream has no length, and this one's clock is far from 0
    write_video(folder / "stream.ts", num_frames=400, fps=10, start_s=1234.5, height=128, width=192)
    return folder


@pytest.fixture
def spot(shared, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main(["spot", *map(str, words), "--model", str(shared / "model")])
        return code, *capsys.readouterr()

    return run


def events_of(out):
    return sorted(map(json.loads, out.splitlines()), key=lambda event: (event["timestamp_s"], event["label"]))


@pytest.fixture
def expected(shared, spot, tmp_path):
    """What the command finds in the stream's file, without `--live`."""
    assert spot(shared / "stream.ts", "--output", "expected.json")[0] == 0
    return (tmp_path / "expected.json").read_text()


def same_events(path, expected):
    found, expected = json.loads(path.read_text())["predictions"], json.loads(expected)["predictions"]
    assert len(found) == len(expected) > 5
    for one, other in zip(sorted(found, key=str), sorted(expected, key=str), strict=True):
        assert one | {"confidence": ""} == other | {"confidence": ""}
        assert float(one["confidence"]) == pytest.approx(float(other["confidence"]), abs=1e-2)


def test_a_file(shared, spot, expected, tmp_path):
    code, out, err = spot(shared / "stream.ts", "--live", "--output", "live.json", "--csv", "live.csv")
    assert code == 0 and "about 6 s of video after it" in err and "40 s of video" in err
    same_events(tmp_path / "live.json", expected)
    events = events_of(out)
    assert (
        len(events)
        == len((tmp_path / "live.csv").read_text().splitlines()) - 1
        == len(json.loads(expected)["predictions"])
    )
    assert list(events[0]) == ["label", "timestamp_s", "half", "score"]


def test_streams_over_the_network(shared, spot, expected, tmp_path):
    content = (shared / "stream.ts").read_bytes()
    pieces = [content[first : first + 10_000] for first in range(0, len(content), 10_000)]
    for stream in (http_stream(pieces, 0.01), udp_stream(content, 1.0), rtsp_stream(content)):
        with stream as address:
            code, out, err = spot(address, "--live", "--output", "live.json")
        assert code == 0, err
        same_events(tmp_path / "live.json", expected)


def test_broken_packets_are_passed_over(shared, spot, tmp_path, caplog):
    broken = corrupt(write_video(tmp_path / "broken.ts", num_frames=200, height=128, width=192), 0.4, 0.5)
    code, out, err = spot(broken, "--live", "--all")
    assert code == 0 and "broken data" in caplog.text
    times_s = [event["timestamp_s"] for event in events_of(out)]
    assert times_s[0] < 5 and times_s[-1] > 15


def test_a_pipe_that_is_interrupted_tells_what_is_known(shared, expected):
    words = ["spot", "-", "--live", "--look-ahead", "1", "--all", "--model", str(shared / "model")]
    program = "import sys; from comedian.cli.main import main; sys.exit(main(sys.argv[1:]))"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": ""},
        **pipes,
    )
    # a command that does not hear would wait for more of the pipe for ever
    deadline = threading.Timer(120, process.kill)
    deadline.start()
    with process:
        content = (shared / "stream.ts").read_bytes()
        process.stdin.write(content[: len(content) // 2])
        process.stdin.flush()
        # half of it is there, and the pipe stays open: events come all the same
        early = [json.loads(process.stdout.readline()) for _ in range(5)]
        assert all(event["timestamp_s"] < 20 for event in early)
        process.send_signal(signal.SIGINT)
        late = [json.loads(line) for line in process.stdout]
        assert process.wait(30) == 0
        deadline.cancel()
        assert f"-: {len(early + late)} events" in process.stderr.read().decode()
    assert late and all(event["timestamp_s"] < 22 for event in late)


@pytest.mark.parametrize(
    "words, message",
    [
        (["a.ts", "b.ts", "--live"], "one file, one address or -"),
        (["--live"], "one file, one address or -"),
        ([".", "--live"], "one file, one address or -"),
        (["a.ts", "--live", "--save-scores", "s"], "--save-scores cannot be combined with --live"),
        (["a.ts", "--live", "--report", "r.html"], "--report cannot be combined with --live"),
        (["a.ts", "--live", "--report-labels", "l.json"], "--report-labels cannot be combined with --live"),
        (["a.ts", "--live", "--tolerance", "2"], "--tolerance cannot be combined with --live"),
        (["a.ts", "--live", "--threshold", "2"], "--threshold 2"),
        (["a.ts", "--look-ahead", "2"], "add --live"),
        (["a.ts", "--live", "--output", "x.zip"], "--output x.zip: give a name that ends in .json"),
        (["a.ts", "--live", "--csv", "a.ts"], "`a.ts` is an input, and would be overwritten"),
        (["a.ts", "--live", "--look-ahead", "-1"], "look-ahead of -1 s"),
        (["none.ts", "--live"], "none.ts"),
        (["http://127.0.0.1:9/none.ts", "--live"], "http://127.0.0.1:9/none.ts"),
    ],
)
def test_what_cannot_be_mended_by_waiting(spot, tmp_path, words, message):
    code, out, err = spot(*words)
    assert code == 2 and out == "" and message in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_the_thread_ends_with_its_reader(shared):
    stopped = threading.Event()
    frames = live.live_frames(shared / "stream.ts", 10, (16, 16), stopped)
    next(frames)
    frames.close()
    for thread in threading.enumerate():
        if thread.name == "live source":
            thread.join(10)
            assert not thread.is_alive()


def test_a_stopped_source_gives_no_more(shared):
    stopped = threading.Event()
    frames = live.live_frames(shared / "stream.ts", 2, (16, 16), stopped)
    next(frames)
    stopped.set()
    assert list(frames) == []

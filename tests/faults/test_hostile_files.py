"""Every command over the corpus of `hostile_files`: one line, exit code 2, nothing half-written, nothing run."""

import json
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import hostile_files as hostile
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from comedian.cli.main import main
from comedian.data.annotations import read_results
from comedian.data.decoding import iter_frames
from comedian.data.feature_bank import FeatureHeader, features_path, write_features
from comedian.data.frame_store import FrameStore
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from comedian.models.pipeline_comedian import read_frames
from comedian.models.sound_comedian import read_sound
from testing_utils import tiny_config
from video_factory import write_video

SEED = 7
MAX_S = 30
LABELS = ["Goal", "Corner", "Foul"]
ANNOTATION = {"gameTime": "1 - 00:01", "label": "Goal", "position": "1000", "team": "home", "visibility": "visible"}
LABEL_FILE = {"UrlLocal": "match/", "annotations": [ANNOTATION]}
RESULTS = {
    "UrlLocal": "match",
    "predictions": [{"gameTime": "1 - 00:01", "label": "Goal", "position": "1000", "half": "1", "confidence": "0.5"}],
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A model, a match with video and labels, its scores and features: all good."""
    folder = tmp_path_factory.mktemp("good")
    torch.manual_seed(0)
    config = tiny_config(initializer_range=0.5, id2label=dict(enumerate(LABELS)), label_thresholds=[0.3] * 3)
    ComedianForActionSpotting(config).save_pretrained(folder / "model")
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "model")
    write_video(folder / "root/match/1_224p.mkv", 60)
    (folder / "root/match/Labels-v2.json").write_text(json.dumps(LABEL_FILE))
    (folder / "labels.txt").write_text("\n".join(LABELS))
    (folder / "results.json").write_text(json.dumps(RESULTS))
    words = ["--save-scores", str(folder / "scores"), "--output", str(folder / "results.zip")]
    assert main(["spot", str(folder / "root"), "--model", str(folder / "model"), *words]) == 0
    header = FeatureHeader(fps=1.0, offset_s=0.0, source="x", duration_s=6.0, video={})
    write_features(features_path(folder / "bank", "match", 1), np.ones((6, 4), np.float32), header)
    return folder


def files_of(out: Path) -> list[str]:
    """The files in a folder, but for what says with which settings the command may be given again."""
    return sorted(path.name for path in out.rglob("*") if path.is_file() and path.name != "store.json")


class Runner:
    """Runs commands in a folder of its own, and notes what is not as it must be."""

    def __init__(self, folder: Path, capsys):
        self.folder, self.capsys = folder, capsys
        self.canary = folder / "canary"
        self.wrong: list[str] = []
        self.count = 0

    def __call__(
        self,
        name: str,
        *words,
        code: int | None = 2,
        says: str | None = None,
        holds: Callable[[], bool] | None = None,
    ) -> int:
        """Run a command whose output goes to `out`.

        Args:
            name: of the case.
            words: the command.
            code: that it must end with; None for 0 or 2.
            says: what the line of code 2 must name.
            holds: asked of what lies in `out` after code 0 or 1.
        """
        self.count += 1
        out, before, began_s = self.folder / "out", self.files(), time.monotonic()
        out.mkdir()
        self.capsys.readouterr()
        try:
            ended = main([str(word) for word in words])
        except SystemExit as end:
            ended = f"exit {end.code}"
        except BaseException:
            ended = traceback.format_exc()[-1500:]
        printed, said = self.capsys.readouterr()
        lines = [line for line in said.splitlines() if line.startswith(f"comedian {words[0]}: ")]
        for what, is_wrong in {
            f"ended with {ended}": ended not in ((0, 2) if code is None else (code,)),
            f"said {lines} of `{says}`": ended == 2
            and (len(lines) != 1 or (says is not None and says not in lines[0])),
            "said more than can be read": any(len(line) > 2000 for line in said.splitlines()),
            "printed a traceback": "Traceback" in said,
            "printed what orders a terminal": "\x1b[2J" in printed + said,
            f"left {files_of(out)}": ended == 2 and files_of(out),
            f"wrote what is not right: {files_of(out)}": ended in (0, 1) and holds is not None and not holds(),
            "left something half-written": any(out.rglob("*.partial")),
            f"wrote {self.files() - before}": self.files() != before,
            "ran code": self.canary.exists(),
            "took long": time.monotonic() - began_s > MAX_S,
        }.items():
            if is_wrong:
                self.wrong.append(f"{' '.join(map(str, words[:2]))} with `{name}` {what}")
        shutil.rmtree(out)
        return ended

    def files(self) -> set[tuple[Path, int]]:
        """All there is, but for `out`: what a command may read, and not change."""
        found = set()
        for folder, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if Path(folder, name) != self.folder / "out"]
            found |= {(Path(folder, name), Path(folder, name).lstat().st_mtime_ns) for name in names}
        return found

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        return path

    @property
    def out(self) -> Path:
        return self.folder / "out"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runner = Runner(tmp_path, capsys)
    yield runner
    assert runner.count
    assert not runner.wrong, "\n" + "\n".join(runner.wrong)


def test_what_is_no_video(run, good, tmp_path_factory):
    model, out = good / "model", run.out
    for name, content in hostile.bad_videos(tmp_path_factory.mktemp("made"), SEED).items():
        video = run.write("root/match/1_224p.mkv", content)
        run(name, "spot", video, "--model", model, "--output", out / "e.json", says="1_224p.mkv")
        run(name, "spot", run.folder / "root", "--model", model, "--output", out / "r.zip", says="1_224p.mkv")
        words = ["--scores", good / "scores", "--output", out / "e.json", "--report", out / "p.html"]
        # the scores are there; the page does without pictures
        run(name, "spot", video, *words, code=0)
        run(name, "spot", "--live", video, "--model", model, "--output", out / "e.json", says="1_224p.mkv")
        run(name, "clips", good / "results.json", video, "--output", out / "clips", says="1_224p.mkv")
        run(name, "clips", good / "results.json", video, "--exact", "--output", out / "clips", says="1_224p.mkv")
        prepare = ["prepare", run.folder / "root", out / "store", "--workers", 1, "--height", 16]
        run(name, *prepare, says="1_224p.mkv")
        run(name, *prepare, "--skip-bad", code=1)
        run(name, "extract-features", run.folder / "root", out / "bank", "--model", model, says="1_224p.mkv")
        run(name, "data", "check", run.folder / "root", code=1)
        events = run.write("events.csv", b"video,label,time_s\nmatch/1_224p.mkv,Goal,1\n")
        run(name, "data", "import", run.folder / "root", events, out / "data", says="1_224p.mkv")


def times_of(video: Path) -> list[float]:
    """When the frames of a video that can be decoded are shown, in seconds after the first of them."""
    times_s = []
    with av.open(str(video)) as container, suppress(av.error.FFmpegError):
        for packet in container.demux(video=0):
            with suppress(av.error.FFmpegError):
                times_s += [frame.time for frame in packet.decode() if frame.time is not None]
    return [time_s - times_s[0] for time_s in times_s]


def test_damaged_videos_give_what_is_there_or_one_line(run, good, tmp_path_factory):
    """What can be decoded is used, by all commands or by none; its events lie in it."""
    ended, out = set(), run.out

    def spots_lie_inside() -> bool:
        spots = read_results(out / "e.json")
        return bool(spots) and all(0 <= spot["timestamp_s"] <= max(times_of(video)) + 1 for spot in spots)

    def frames_are_kept() -> bool:
        return FrameStore(out / "store").open("match", 1).num_frames > 0

    def nothing_is_kept() -> bool:
        return not list((out / "store").rglob("*.frames"))

    def a_clip_plays() -> bool:
        return all(times_of(clip) for clip in (out / "clips").glob("*.mp4"))

    for name, content in hostile.damaged_videos(tmp_path_factory.mktemp("made"), SEED).items():
        video = run.write(f"match/1.{name.split()[-1]}", content)
        words = ["--model", good / "model", "--all", "--output", out / "e.json"]
        code = run(name, "spot", video, *words, code=None, says="1.", holds=spots_lie_inside)
        ended.add(code)
        prepare = ["prepare", run.folder, out / "store", "--workers", 1, "--height", 16, "--skip-bad"]
        run(
            name,
            *prepare,
            **{0: {"code": 0, "holds": frames_are_kept}, 2: {"code": 1, "holds": nothing_is_kept}}[code],
        )
        # a clip takes places that can be sought
        clips = [good / "results.json", video, "--output", out / "clips"]
        run(name, "clips", *clips, code=2 if code == 2 else None, says="1.", holds=a_clip_plays)
        video.unlink()
    assert ended == {0, 2}


def test_odd_videos_are_good_ones(run, good, tmp_path_factory):
    for name, made in hostile.odd_videos(tmp_path_factory.mktemp("made")).items():
        video = run.write(f"match/1{made.suffix}", made.read_bytes())
        words = [video, "--model", good / "model", "--all", "--output", run.out / "e.json"]
        run(name, "spot", *words, "--report", run.out / "p.html", code=0)
        run(name, "prepare", run.folder, run.out / "store", "--workers", 1, "--height", 16, code=0)
        run(name, "spot", "--live", *words, code=0)
        video.unlink()


class Hits(BaseHTTPRequestHandler):
    """A server that has the same video everywhere, and remembers what was asked for."""

    content: bytes
    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *words):
        pass


@pytest.fixture
def server(tmp_path_factory):
    """A server of a good video, and that video: handler, address, file."""
    other = write_video(tmp_path_factory.mktemp("other") / "secret.ts", 30)
    handler = type("Handler", (Hits,), {"content": other.read_bytes(), "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}/secret.ts", other
    server.shutdown()
    server.server_close()


def test_a_list_of_other_files_opens_none_of_them(run, good, server):
    handler, address, other = server
    assert iter_frames(address, 2) and next(iter_frames(address, 2)) and handler.asked.pop() == "/secret.ts"
    handler.asked.clear()
    for ending in ("mkv", "m3u8"):
        shutil.copy(other, run.folder / other.name)
        for name, content in hostile.lists(other, address).items():
            video = run.write(f"1.{ending}", content)
            words = ["--model", good / "model", "--output", run.out / "e.json"]
            run(name, "spot", video, *words, says=f"1.{ending}")
            run(name, "spot", "--live", video, *words, says=f"1.{ending}")
            # the folder of a model on the Hub reads videos by itself
            for read in (lambda path: next(read_frames(path, 2, 16, 16)), read_sound):
                with pytest.raises((ValueError, av.error.FFmpegError)):
                    read(str(video))
    assert handler.asked == []


@pytest.mark.parametrize("name", ["concat:secret.ts", "subfile,,start,0,end,99999,,:secret.ts", "file:secret.ts"])
def test_the_name_of_a_file_is_no_protocol(run, good, server, name):
    shutil.copy(server[2], run.folder / "secret.ts")
    run.write(name, b"no video")
    run(name, "spot", name, "--model", good / "model", "--output", run.out / "e.json", says="cannot be opened")
    with pytest.raises(ValueError, match="cannot be opened"):
        next(read_frames(name, 2, 16, 16))


def test_times_that_cannot_be(run, good):
    """Five frames with a year between two of them are not filled up with pictures, nor with silence."""
    video = write_video(run.folder / "match/1.mkv", times_s=[0, 0.5, 1.0, 3e7, 3e7 + 0.5])
    run("spot", "spot", video, "--model", good / "model", "--output", run.out / "e.json", code=0)
    prepare = ["prepare", run.folder, run.out / "store", "--workers", 1, "--height", 16, "--fps", 2]
    run("prepare", *prepare, code=0, holds=lambda: FrameStore(run.out / "store").open("match", 1).num_frames == 3)
    assert len(list(read_frames(str(video), 2, 16, 16))) == 3
    run("clips", "clips", good / "results.json", video, "--output", run.out / "clips", says="a day or more")
    samples = np.ones(1600, np.float32)
    late = write_video(run.folder / "late.mkv", 20, sound=samples, sound_start_s=3e7)
    assert read_sound(str(late)) is None


def test_labels_and_predictions_that_make_no_sense(run, good):
    for name, content in hostile.bad_json(LABEL_FILE, "annotations", ("label", "position", "gameTime")).items():
        label_file = run.write("labels/match/Labels-v2.json", content)
        # `gameTime` then tells the time, as it does to the official scorer
        code = 0 if name == "position missing" else 2
        report = ["--scores", good / "scores", "--output", run.out / "e.json", "--report", run.out / "p.html"]
        says = {"code": code, "says": "Labels-v2.json"}
        run(name, "spot", *report, "--report-labels", label_file, **says)
        run(name, "data", "convert", run.folder / "labels", run.out / "x.csv", **says)
        run(name, "data", "check", run.folder / "labels", code=1)
        predictions = run.write("predictions/match/results_spotting.json", json.dumps(RESULTS).encode()).parents[1]
        words = ["evaluate", run.folder / "labels", predictions, "--report", run.out / "p.html"]
        run(name, *words, "--output", run.out / "s.json", **says)
        run(name, "tune", run.folder / "labels", good / "scores", "--output", run.out / "s.json", **says)
        shutil.rmtree(run.folder / "labels")
    for name, content in hostile.bad_json(RESULTS, "predictions", ("label", "position", "half", "confidence")).items():
        file = run.write("predictions/match/results_spotting.json", content)
        words = [file, good / "root/match/1_224p.mkv", "--output", run.out / "clips"]
        run(name, "clips", *words, says="results_spotting.json")
        run(name, "evaluate", good / "root", run.folder / "predictions", says="results_spotting.json")


def test_events_in_tables(run, good):
    write_video(run.folder / "videos/a.mp4", 20)
    write_video(run.folder / "videos/c.mp4", 20)
    run.write("secret.mp4", b"")
    for name, content in hostile.bad_csvs().items():
        events = run.write("events.csv", content)
        run(name, "data", "import", run.folder / "videos", events, run.out / "data", says="events.csv")
        is_no_table = name in ("empty", "UTF-16", "Latin-1", "other columns", "binary", "long field")
        code = 2 if is_no_table else 1
        run(name, "data", "check", run.folder / "videos", "--events", events, code=code, says="events.csv")
        # what is wrong only beside the videos, or where a name becomes a folder, is no matter of the format
        is_bad_name = name in ("leads out", "root", "long name")
        is_fine = name in ("no such video", "after the end", "twice", "no event")
        for to in ("soccernet", "osl", "json"):
            code = 0 if is_fine or (is_bad_name and to != "soccernet") else 2
            run(name, "data", "convert", events, run.out / "x", "--to", to, code=code)
        start = ["--videos", run.folder / "videos", "--events", events, "--model", good / "model"]
        run(name, "finetune", *start, "--output", run.out / "run", says="events.csv")


def test_events_of_every_format(run):
    """A file in the format that `--from` names, and any other file said to be in it."""
    for name, (source, ending, content) in hostile.bad_events().items():
        events = run.write(f"events.{ending}", content)
        run(name, "data", "convert", events, run.out / "x", "--from", source, "--to", "osl", says=f"events.{ending}")


def test_zips_of_predictions(run, good):
    for name, content in hostile.bad_zips("match", "results_spotting.json", json.dumps(RESULTS).encode()).items():
        predictions = run.write("predictions.zip", content)
        run(name, "evaluate", good / "root", predictions, "--output", run.out / "s.json", says="predictions.zip")
    for name, content in hostile.bad_zips("match", "Labels-v2.json", json.dumps(LABEL_FILE).encode()).items():
        labels = run.write("labels.zip", content)
        run(name, "evaluate", labels, good / "root", "--output", run.out / "s.json")
        run(name, "tune", labels, good / "scores", "--output", run.out / "s.json")


def test_models(run, good, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    video, copies = good / "root/match/1_224p.mkv", hostile.bad_models(good / "model", folder, run.canary)
    for name, model in copies.items():
        run(name, "spot", video, "--model", model, "--output", run.out / "e.json", says=name)
        run(name, "spot", "--live", video, "--model", model, "--output", run.out / "e.json", says=name)
        run(name, "average", good / "model", model, "--output", run.out / "mean", says=name)
        run(name, "export", model, run.out / "graphs", "--format", "torch-export", says=name)
        run(name, "extract-features", good / "root", run.out / "bank", "--model", model, says=name)
        if "weight" not in name:
            run(name, "publish", model, "me/model", "--dry-run", says=name)
            words = ["tune", good / "root", good / "scores", "--model", model]
            run(name, *words, says=name)


def test_checkpoints_of_others(run):
    for name, content in hostile.pickles(run.canary).items():
        for ending in ("ckpt", "pth"):
            run(name, "convert", run.write(f"a.{ending}", content), run.out / "model", says=f"a.{ending}")
    for name in ("empty", "text"):
        content = hostile.pickles(run.canary)[name]
        run(name, "convert", run.write("a.safetensors", content), run.out / "model", says="a.safetensors")


def test_scores_and_features(run, good):
    [path] = (good / "scores").rglob("*.safetensors")
    shape = load_file(path)["scores"].shape
    for name, content in hostile.bad_scores(path.read_bytes(), shape).items():
        run.write("scores/match/1.safetensors", content)
        scores = run.folder / "scores"
        run(name, "spot", "--scores", scores, "--output", run.out / "e.json", says="1.safetensors")
        run(name, "tune", good / "root", scores, "--output", run.out / "s.json", says="1.safetensors")
    for name, content in hostile.bad_scores(features_path(good / "bank", "match", 1).read_bytes(), (6, 4)).items():
        bank = run.write("bank/match/1.safetensors", content).parents[1]
        fit = ["--dim", 2, "--data", good / "root", "--split", "train"]
        run(name, "reduce-features", bank, run.out / "reduced", *fit, says="1.safetensors")
        run(name, "reduce-features", good / "bank", run.out / "reduced", "--transform", bank)


def test_recipes(run, good):
    (run.folder / "config.json").write_text(json.dumps({"model_type": "comedian"}))
    for name, content in hostile.bad_yamls().items():
        recipe = run.write("recipe.yaml", content)
        for stage in ("pretrain", "distill", "finetune"):
            run(name, stage, "--config", recipe, "--training.output_dir", run.out / "run")
        run.write("recipes/train.yaml", content)
        run(name, "train", run.folder / "recipes", "--data", good / "root", "--output", run.out, says="train.yaml")
        run(name, "publish", good / "model", "me/model", "--dry-run", "--card", recipe, says="recipe.yaml")


def test_links_of_a_data_root_end(run, good):
    root = run.folder / "root"
    shutil.copytree(good / "root", root)
    for name in ("back", "again"):
        (root / name).symlink_to(root)
        (root / "match" / name).symlink_to(root / "match")
    (root / "elsewhere").symlink_to(good / "root")
    run("links", "prepare", root, run.out / "store", "--workers", 1, "--height", 16, code=0)
    run("links", "evaluate", root, root, says="Labels-v2.json` has no list `predictions`")
    run("links", "data", "check", root, code=1)


def test_a_store_is_inside_its_folder(good, tmp_path):
    assert main(["prepare", str(good / "root"), str(tmp_path / "store"), "--workers", "1", "--height", "16"]) == 0
    assert FrameStore(tmp_path / "store").halves == [("match", 1)]

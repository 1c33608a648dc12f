"""Every command over the corpus of `hostile_files`: one line, exit code 2, nothing half-written, nothing run."""

import json
import os
import shutil
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

import hostile_files as hostile
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from comedian.cli.main import main
from comedian.data.feature_bank import FeatureHeader, features_path, write_features
from comedian.data.frame_store import FrameStore
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
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

    def __call__(self, name: str, *words, codes: Iterable[int] = (2,), says: str | None = None) -> int:
        """Run a command whose output goes to `out`; `says` is what the line must name."""
        self.count += 1
        out, before, began_s = self.folder / "out", self.files(), time.monotonic()
        out.mkdir()
        self.capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = f"exit {end.code}"
        except BaseException:
            code = traceback.format_exc()[-1500:]
        said = self.capsys.readouterr().err
        lines = [line for line in said.splitlines() if line.startswith(f"comedian {words[0]}: ")]
        for what, is_wrong in {
            f"ended with {code}": code not in codes,
            f"said {lines} of `{says}`": code == 2
            and (len(lines) != 1 or (says is not None and says not in lines[0])),
            "printed a traceback": "Traceback" in said,
            "printed what orders a terminal": "\x1b[2J" in said,
            f"left {files_of(out)}": code == 2 and files_of(out),
            "left something half-written": any(out.rglob("*.partial")),
            f"wrote {self.files() - before}": self.files() != before,
            "ran code": self.canary.exists(),
            "took long": time.monotonic() - began_s > MAX_S,
        }.items():
            if is_wrong:
                self.wrong.append(f"{' '.join(map(str, words[:2]))} with `{name}` {what}")
        shutil.rmtree(out)
        return code

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
        run(name, "spot", video, *words, codes=(0, 2))
        run(name, "spot", "--live", video, "--model", model, "--output", out / "e.json", says="1_224p.mkv")
        run(name, "clips", good / "results.json", video, "--output", out / "clips", says="1_224p.mkv")
        run(name, "clips", good / "results.json", video, "--exact", "--output", out / "clips", says="1_224p.mkv")
        prepare = ["prepare", run.folder / "root", out / "store", "--workers", 1, "--height", 16]
        run(name, *prepare, codes=(2,), says="1_224p.mkv")
        run(name, *prepare, "--skip-bad", codes=(1,))
        run(name, "extract-features", run.folder / "root", out / "bank", "--model", model, says="1_224p.mkv")
        run(name, "data", "check", run.folder / "root", codes=(1,))
        events = run.write("events.csv", b"video,label,time_s\nmatch/1_224p.mkv,Goal,1\n")
        run(name, "data", "import", run.folder / "root", events, out / "data", says="1_224p.mkv")


def test_damaged_videos_give_what_is_there_or_one_line(run, good, tmp_path_factory):
    codes = set()
    for name, content in hostile.damaged_videos(tmp_path_factory.mktemp("made"), SEED).items():
        video = run.write(f"match/1.{name.split()[-1]}", content)
        codes.add(
            run(
                name, "spot", video, "--model", good / "model", "--output", run.out / "e.json", codes=(0, 2), says="1."
            )
        )
        run(name, "clips", good / "results.json", video, "--output", run.out / "clips", codes=(0, 2), says="1.")
        prepare = ["prepare", run.folder, run.out / "store", "--workers", 1, "--height", 16, "--skip-bad"]
        run(name, *prepare, codes=(0, 1))
        video.unlink()
    assert codes == {0, 2}


def test_odd_videos_are_good_ones(run, good, tmp_path_factory):
    for name, made in hostile.odd_videos(tmp_path_factory.mktemp("made")).items():
        video = run.write(f"match/1{made.suffix}", made.read_bytes())
        words = [video, "--model", good / "model", "--all", "--output", run.out / "e.json"]
        run(name, "spot", *words, "--report", run.out / "p.html", codes=(0,))
        run(name, "prepare", run.folder, run.out / "store", "--workers", 1, "--height", 16, codes=(0,))
        run(name, "spot", "--live", *words, codes=(0,))
        video.unlink()


def test_labels_and_predictions_that_make_no_sense(run, good):
    fields = ("label", "position", "gameTime")
    for name, content in hostile.bad_json(LABEL_FILE, "annotations", fields).items():
        label_file = run.write("labels/match/Labels-v2.json", content)
        # what only one reader needs, another may do without
        lenient = (0, 2) if "gameTime" in name or "missing" in name or "escape" not in name else (2,)
        report = ["--scores", good / "scores", "--output", run.out / "e.json", "--report", run.out / "p.html"]
        run(name, "spot", *report, "--report-labels", label_file, codes=lenient, says="Labels-v2.json")
        run(name, "data", "convert", run.folder / "labels", run.out / "x.csv", codes=lenient, says="Labels-v2.json")
        run(name, "data", "check", run.folder / "labels", codes=(1, 2))
        predictions = run.write("predictions/match/results_spotting.json", json.dumps(RESULTS).encode()).parents[1]
        words = ["evaluate", run.folder / "labels", predictions, "--report", run.out / "p.html"]
        run(name, *words, "--output", run.out / "s.json", codes=lenient, says="Labels-v2.json")
        run(name, "tune", run.folder / "labels", good / "scores", "--output", run.out / "s.json", codes=(0, 2))
        shutil.rmtree(run.folder / "labels")
    for name, content in hostile.bad_json(RESULTS, "predictions", ("label", "position", "half", "confidence")).items():
        file = run.write("predictions/match/results_spotting.json", content)
        words = ["clips", file, good / "root/match/1_224p.mkv", "--output", run.out / "clips"]
        is_fine = name in ("position missing", "half missing") or "half a" in name
        run(name, *words, codes=(2,) if not is_fine else (0, 2), says="results_spotting.json")
        run(name, "evaluate", good / "root", run.folder / "predictions", codes=(0, 2))


def test_events_in_tables(run, good):
    write_video(run.folder / "videos/a.mp4", 20)
    write_video(run.folder / "videos/c.mp4", 20)
    run.write("secret.mp4", b"")
    for name, content in hostile.bad_csvs().items():
        events = run.write("events.csv", content)
        run(name, "data", "import", run.folder / "videos", events, run.out / "data", says="events.csv")
        run(name, "data", "check", run.folder / "videos", "--events", events, codes=(1, 2))
        for to in ("soccernet", "osl", "json"):
            run(name, "data", "convert", events, run.out / "x", "--to", to, codes=(0, 2))
        start = ["--videos", run.folder / "videos", "--events", events, "--model", good / "model"]
        run(name, "finetune", *start, "--output", run.out / "run", says="events.csv")


def test_zips_of_predictions(run, good):
    for name, content in hostile.bad_zips("match", "results_spotting.json", json.dumps(RESULTS).encode()).items():
        predictions = run.write("predictions.zip", content)
        run(name, "evaluate", good / "root", predictions, "--output", run.out / "s.json", says="predictions.zip")
    for name, content in hostile.bad_zips("match", "Labels-v2.json", json.dumps(LABEL_FILE).encode()).items():
        labels = run.write("labels.zip", content)
        codes = (0, 2) if name == "leads out" else (2,)
        run(name, "evaluate", labels, good / "root", "--output", run.out / "s.json", codes=codes)
        run(name, "tune", labels, good / "scores", "--output", run.out / "s.json", codes=codes)


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
    run("links", "prepare", root, run.out / "store", "--workers", 1, "--height", 16, codes=(0,))
    run("links", "evaluate", root, root, codes=(2,))
    run("links", "data", "check", root, codes=(0, 1))


def test_a_store_is_inside_its_folder(good, tmp_path):
    assert main(["prepare", str(good / "root"), str(tmp_path / "store"), "--workers", "1", "--height", "16"]) == 0
    assert FrameStore(tmp_path / "store").halves == [("match", 1)]

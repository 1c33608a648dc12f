"""The example scripts and the notebook, run as they stand."""

import csv
import importlib
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from comedian import ActionSpotter, ComedianConfig
from comedian.cli.main import main
from comedian.hub.model_record import ModelRecord, StageRecord, read_record
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from comedian.samples.datasets import TargetSettings, WindowShape
from comedian.soccernet.annotations import read_results, write_results
from comedian.soccernet.prepare import prepare
from comedian.training.contrastive_config import ContrastiveConfig
from comedian.training.distillation_config import DistillationConfig
from comedian.training.recipe import load_recipe, parse_overrides
from comedian.training.spotting_config import SpottingConfig
from comedian.training.stage import read_settings
from comedian.video.frame_store import StoreSettings
from match_factory import write_matches
from processes import warm_programs

TESTS, EXAMPLES = Path(__file__).parent, Path(__file__).parents[1] / "examples"
DEMO = EXAMPLES / "demo"
RESULTS = EXAMPLES.parent / "hub_configs" / "gfspot-viswin-nano" / "results"
WITHOUT_THE_PACKAGE = """
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "comedian":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*words: object, code: int = 0, folder: Path = EXAMPLES, cold: bool = False) -> subprocess.CompletedProcess:
    """Run Python with these words, warm unless its imports are tested; `comedian` is found, warm too."""
    path = f"{warm_programs()}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable if cold else "python", "-W", "ignore", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, timeout=300, env=os.environ | {"PATH": path}
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done


@pytest.fixture
def run_here(monkeypatch, capsys, tmp_path):
    """Run a script in this process, which has imported what takes the most time; return its exit code and output."""

    def run_script(script: str, *words: object) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        try:
            runpy.run_path(str(EXAMPLES / script), run_name="__main__")
            code = 0
        except SystemExit as done:
            code = done.code
        return code, *capsys.readouterr()

    return run_script


@pytest.mark.parametrize("script", ["demo/demo.py", *sorted(path.name for path in EXAMPLES.glob("*.py"))])
def test_every_example_has_help(run_here, script):
    code, printed, _ = run_here(script, "--help")
    assert code == 0 and "usage:" in printed
    assert f" examples/{script} " in printed or "\nmake demo\n" in printed


@pytest.fixture(scope="module")
def demo_events():
    """What the demo's model spots in each half."""
    spotter = ActionSpotter.from_pretrained(DEMO / "model")
    return spotter((DEMO / "match" / "1_224p.mkv", DEMO / "match" / "2_224p.mkv"))


def found_by_auto_classes(printed: str) -> list[tuple[str, str, str]]:
    return re.findall(r"^ +([\d.]+) s  (.+)  ([\d.]+)$", printed, re.MULTILINE)


def of_half(events: list[dict], half: int) -> list[tuple[str, str, str]]:
    wanted = [event for event in events if event["half"] == half]
    return [(f"{event['timestamp_s']:.1f}", event["label"], f"{event['score']:.2f}") for event in wanted]


def test_use_auto_model_finds_what_the_package_finds(demo_events):
    printed = run("use_auto_model.py").stdout
    assert "13 labels, windows of 40 s at 5 frames per second" in printed
    assert "pixels (1, 200, 3, 64, 112) -> tokens (1, 100, 192) -> scores (1, 100, 13)" in printed
    assert found_by_auto_classes(printed) == of_half(demo_events, 2)


def test_use_auto_model_needs_no_package(demo_events, tmp_path):
    for part in (ComedianForActionSpotting, ComedianVideoProcessor):
        part.from_pretrained(DEMO / "model").save_pretrained(tmp_path)
    words = [EXAMPLES / "use_auto_model.py", tmp_path, DEMO / "match" / "1_224p.mkv"]
    assert found_by_auto_classes(run("-c", WITHOUT_THE_PACKAGE, *words, cold=True).stdout) == of_half(demo_events, 1)
    refused = run("-c", WITHOUT_THE_PACKAGE, EXAMPLES / "spot_match.py", code=1, cold=True)
    assert "No module named 'comedian'" in refused.stderr


def test_spot_match_writes_events_and_candidates(demo_events, tmp_path):
    printed = run(EXAMPLES / "spot_match.py", folder=tmp_path).stdout
    with (tmp_path / "spots" / "events.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["timestamp_s"]) for row in rows] == [
        (event["label"], str(round(event["timestamp_s"], 3))) for event in demo_events
    ]
    candidates = read_results(tmp_path / "spots" / "results_spotting.json")
    assert len(candidates) > 10 * len(rows)
    assert {(spot["half"], spot["label"]) for spot in candidates} >= {
        (event["half"], event["label"]) for event in demo_events
    }
    sure = sum(event["score"] >= 0.7 for event in demo_events)
    assert f"{len(rows)} events, {sure} of them above 0.7; {len(candidates)} candidates; see spots" in printed


def test_spot_match_takes_an_ensemble(run_here, tmp_path):
    other = ComedianForActionSpotting.from_pretrained(DEMO / "model")
    with torch.no_grad():
        other.classifier.bias += torch.linspace(-2, 2, len(other.classifier.bias))
    other.save_pretrained(tmp_path / "other")
    ComedianVideoProcessor.from_pretrained(DEMO / "model").save_pretrained(tmp_path / "other")
    members = [DEMO / "model", tmp_path / "other"]
    assert run_here("spot_match.py", "--output", tmp_path / "spots", "--model", *members)[0] == 0
    videos = tuple(DEMO / "match" / f"{half}_224p.mkv" for half in (1, 2))
    wanted = ActionSpotter.from_pretrained(*members)(videos, keep_all=True)
    write_results(tmp_path / "wanted.json", "match", wanted)
    assert (tmp_path / "spots" / "results_spotting.json").read_text() == (tmp_path / "wanted.json").read_text()


def test_plot_spots_draws_the_demo(run_here, tmp_path):
    assert run_here("plot_spots.py", "--output", tmp_path / "spots.png")[0] == 0
    assert (tmp_path / "spots.png").read_bytes().startswith(b"\x89PNG")


def test_results_table_gives_means_over_seeds(run_here, tmp_path):
    files = sorted(RESULTS.glob("stages12_[012].json"))
    scores = [json.loads(path.read_text()) for path in files]
    number = len(scores[0]["tight"]["a_mAP_per_class"])
    (tmp_path / "labels.txt").write_text("".join(f"label {index}\n" for index in range(number)))
    code, printed, _ = run_here("results_table.py", "--labels", tmp_path / "labels.txt", *files)
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    assert code == 0 and len(rows) == 2 + number
    column = rows[0].index("tight")
    mean = 100 * sum(run["tight"]["a_mAP"] for run in scores) / len(scores)
    assert f"{mean:.1f}" in rows[1][column]


@pytest.fixture
def evidence():
    return runpy.run_path(str(EXAMPLES / "suggestion_evidence.py"), run_name="evidence")


def test_evidence_of_suggestions_trains_on_labelled_minutes_alone(evidence):
    halves = HalvesOfFiveMinutes([])
    shape = WindowShape(num_frames=200, tubelet_size=2, windows_per_half=8, sampling="edges")
    dataset = evidence["LabelledMinutes"](halves, shape, TargetSettings())
    type(dataset).minutes = frozenset({(1, 0), (1, 3)})
    rng, starts = np.random.default_rng(0), []
    for _ in range(200):
        assert len(dataset.draw_starts(0, rng)) == 0
        starts.append(dataset.draw_starts(1, rng))
    # of 300 frames, a window takes 200
    first, second = np.split(np.array(starts), 2, axis=1)
    assert (first.min(), first.max(), second.min(), second.max()) == (0, 100, 900, 1000)
    assert len(dataset) == 4


class HalvesOfFiveMinutes(list):
    frame_step = 1

    def __getitem__(self, index):
        return SimpleNamespace(fps=5.0, num_frames=1500)


def test_evidence_of_suggestions_takes_the_least_certain_minutes_of_the_pool(evidence, monkeypatch):
    config = ComedianConfig(id2label={0: "Goal"}, label_thresholds=[0.5])
    scores = {0: {30: 0.95, 70: 0.52, 200: 0.1}, 1: {10: 0.45, 100: 0.6, 130: 0.5}}
    spots = {
        half: [{"label": "Goal", "timestamp_s": time_s, "score": score} for time_s, score in of_half.items()]
        for half, of_half in scores.items()
    }
    names = evidence["suggested_minutes"].__globals__
    for name, value in {
        "load_model": lambda start: (),
        "TorchModel": lambda: SimpleNamespace(config=config),
        "score_halves": lambda model, halves, indices: None,
        "spots_of_halves": lambda *words: spots,
        "NEW_MINUTES": 4,
    }.items():
        monkeypatch.setitem(names, name, value)
    # all but the second minute of the first half
    pool = [(half, minute) for half in (0, 1) for minute in range(5) if (half, minute) != (0, 1)]
    # each half's least certain moment first, then the second of each
    assert evidence["suggested_minutes"]("start", None, pool) == [(1, 2), (1, 0), (0, 3), (1, 1)]


def test_the_second_sport_gives_commands_that_exist(monkeypatch, tmp_path):
    """Its commands are read for real, and run by nothing; training takes minutes."""
    script = runpy.run_path(str(EXAMPLES / "second_sport.py"), run_name="sport")
    commands = []
    monkeypatch.setitem(script["train_and_score"].__globals__, "comedian", lambda *words: commands.append(words))
    seen = []
    for name in ("finetune", "spot", "evaluate"):
        monkeypatch.setattr(importlib.import_module(f"comedian.cli.commands.{name}"), "run", seen.append)
    for settings in script["ARMS"].values():
        with pytest.raises(FileNotFoundError):  # no scores
            script["train_and_score"](tmp_path, tmp_path / "run", settings, 0)
    for words in commands:
        assert main([str(word) for word in words]) == 0
    found = []
    for args in seen:
        if hasattr(args, "overrides"):
            fields = {name.removeprefix("training."): value for name, value in parse_overrides(args.overrides)}
            found.append(SpottingConfig(output_dir=str(tmp_path), **fields).average_decay)
    assert found == [None, 0.99]


def test_evidence_of_stages_counts_the_teacher_and_what_was_shared_once(run_here, tmp_path):
    """Stage 1 takes 10 minutes, the teacher 20 from there, stage 2 30, stage 3 40; all on one day."""
    fields = {"settings": {}, "data": {}, "features": None, "batch_size": 4, "epochs": 8, "planned_epochs": 8}
    fields |= {"hardware": "", "versions": {}, "date": "2026-11-29"}
    first, teacher, second, third = (
        StageRecord(title=f"Stage {number}", train_time_s=60 * minutes, **fields)
        for number, minutes in ((1, 10), (3, 20), (2, 30), (3, 40))
    )
    runs = {
        "teacher": [first, teacher],
        "scratch0": [third],
        "scratch1": [third],
        "stages12_0": [first, second, third],
    }
    for score, (name, stages) in enumerate(runs.items(), start=6):
        folder = tmp_path / "model" / name
        folder.mkdir(parents=True)
        save_file({"weight": torch.zeros(400_000)}, folder / "model.safetensors")
        ModelRecord(stages=stages).save(folder)
        entry = {"epoch": 2.0, "eval_average_map_tight": score / 10}
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": [entry]}))
        if name != "teacher":
            scores = {metric: {"a_mAP": score / 10} for metric in ("tight", "loose", "at1")}
            (tmp_path / "model" / f"{name}.json").write_text(json.dumps(scores))
    code, printed, _ = run_here("gfspot_evidence.py", tmp_path / "model", "--output", tmp_path / "results")
    assert code == 0
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in printed.splitlines()[3:]]
    assert cells == [
        ["model", "scratch", "2", *["75.0 ± 7.1"] * 4, "2", "0.4 M", "40"],
        ["model", "stages 1 + 2", "1", *["90.0"] * 4, "2", "0.4 M", "100"],
    ]
    assert (tmp_path / "results" / "curves.svg").is_file()


def test_the_second_sport_is_a_game(tmp_path):
    """Rallies: a serve, hits from side to side, a point; and the video shows the ball where they are."""
    script = runpy.run_path(str(EXAMPLES / "second_sport.py"), run_name="sport")
    frames, events = zip(*script["play"](np.random.default_rng(0)), strict=True)
    assert len(frames) == script["VIDEO_S"] * script["FPS"]
    assert re.fullmatch("(SH*P)*(SH*)?", "".join(event[0] for event in events if event))
    assert {"Serve", "Hit", "Point"} <= set(events)
    # a serve comes from the middle, where nothing is two seconds later
    middle = [frame[58:70, 104:120].astype(int) for frame in frames]
    serve = events.index("Serve")
    assert np.abs(middle[serve] - middle[serve + 20]).mean() > 10


def test_reproduce_gfspot_gives_commands_that_exist(run_here, monkeypatch, tmp_path):
    """The script as it stands with programs that only note their arguments; then each command's are read for real."""
    programs = tmp_path / "bin"
    programs.mkdir()
    # a stage leaves what says that it is done
    note = 'printf "%s\\n" "$(basename "$0") $*" >> "$LOG"\n'
    for name in ("comedian", "python"):
        (programs / name).write_text(f"#!/bin/sh\n{note}")
        (programs / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
    environment["STAGE_3"] = "--training.num_train_epochs 8 --training.eval_steps 152 --training.save_steps 152"
    words = ["bash", EXAMPLES / "reproduce_gfspot.sh", "GFSPOT", "WORK"]
    subprocess.run(words, env=environment, cwd=tmp_path, check=True, timeout=60)
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    stages = {"pretrain": ContrastiveConfig, "distill": DistillationConfig, "finetune": SpottingConfig}
    seen = []
    for program, command, *words in lines:
        if program == "python":
            script = Path(command)
            printed = run_here(script.resolve().relative_to(EXAMPLES.resolve()), "--help")[1]
            assert all(word in printed for word in words if word.startswith("--"))
            continue
        module = importlib.import_module(f"comedian.cli.commands.{command.replace('-', '_')}")
        monkeypatch.setattr(module, "run", seen.append)
        assert main([command, *words]) == 0
        if command in stages:
            recipe = load_recipe(seen[-1].config, seen[-1].overrides)
            if command == "finetune" and "teacher" not in seen[-1].config:
                assert recipe.training["num_train_epochs"] == 8 and recipe.training["eval_steps"] == 152
            read_settings(recipe.training, stages[command])
    # of two models: a teacher, and four arms of three seeds, each trained, spotted, evaluated
    assert sum(command == "finetune" for _, command, *_ in lines) == 2 * (1 + 12)
    assert len(seen) == len([line for line in lines if line[0] == "comedian"]) == 1 + 2 * (6 + 3 * 12 + 2)


def test_training_in_python_leaves_a_model_with_its_record(run_here, tmp_path):
    root = write_matches(tmp_path / "root", num_frames=260, fps=5.0, size=(64, 112))
    store = tmp_path / "frames"
    prepare(root, store, StoreSettings(fps=5, height=64, width=112, quality=24), workers=1, progress=False)
    code, printed, _ = run_here("train_in_python.py", root, store, tmp_path / "run", "--epochs", "1")
    assert code == 0
    assert re.search(r"'tight': [\d.]+, 'loose': [\d.]+", printed)
    model = ComedianForActionSpotting.from_pretrained(tmp_path / "run")
    assert model.config.label_names == ["red flash", "green flash"]
    (stage,) = read_record(tmp_path / "run").stages
    assert (stage.batch_size, stage.epochs, stage.data["train"]["matches"]) == (4, 1, 2)


def test_the_notebook_goes_from_videos_to_what_would_be_published(tmp_path):
    (tmp_path / "demo").symlink_to(DEMO)
    printed = run(TESTS / "run_notebook.py", EXAMPLES / "own_videos.ipynb", folder=tmp_path).stdout
    # flashes of two colours are easy to tell; scores of 90 to 100 where the notebook was written
    tight = re.search(r"^tight: ([\d.]+) %$", printed, re.MULTILINE)
    assert float(tight[1]) > 70, printed
    assert "3 videos decoded, 0 there already" in printed
    published = re.findall(r"^ +[\d.]+ MB  (\S+)$", printed, re.MULTILINE)
    assert {"README.md", "config.json", "model.safetensors", "modeling_comedian.py", "recipe.yaml"} <= set(published)
    assert "blue flash" in printed.partition("# my-model")[2]
    ComedianForActionSpotting.from_pretrained(tmp_path / "own_videos_run" / "model")


def test_the_notebook_is_committed_without_outputs():
    for cell in json.loads((EXAMPLES / "own_videos.ipynb").read_text())["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None

"""Killed at random points and run again, every command ends as if nothing had been.

`COMEDIAN_KILLS=100 pytest tests/faults/test_killed.py` kills more often than a run of all tests has time for.
"""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from kill_harness import Killer, contents, stamps

from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from match_factory import write_recipe, write_stage_data
from testing_utils import tiny_config

KILLS = int(os.environ.get("COMEDIAN_KILLS", 20))
SEED = 2026
# what tells when and how long, and the settings with their absolute paths
TIMES = (
    "trainer_state.json",
    "model_record.json",
    "training_args.bin",
    "recipe.yaml",
    "README.md",
    "learning_curve.svg",
)
HEAD = {"projector_sizes": [8, 6], "queue_size": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Matches, their frame store and a bank of features."""
    return write_stage_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    ComedianForActionSpotting(tiny_config(initializer_range=0.5)).save_pretrained(folder)
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def is_result(name: str) -> bool:
    """Whether a file counts: no checkpoint, and nothing that tells the time."""
    return not name.startswith("checkpoint-") and "/checkpoint-" not in name and Path(name).name not in TIMES


def survive(words, tmp_path: Path, results=is_result, done_once=lambda name: False) -> Killer:
    """Kill a command that writes to `out` until it has been killed often enough; compare each end with a run left alone.

    Args:
        words: of the command; it runs in a folder of its own and writes to `out` there.
        tmp_path: where the folders are made.
        results: which files must be equal in the end.
        done_once: which files, once there, may not be written again.
    """
    alone, folder = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    folder.mkdir()
    reference = Killer(words, alone, SEED)
    reference.run()
    expected = contents(alone / "out", lambda name: not results(name))
    assert expected
    killer = Killer(words, folder, SEED)
    killer.unkilled_s = reference.unkilled_s
    while killer.kills < KILLS:
        finished, written = False, {}
        while not finished and killer.kills < KILLS:
            finished = not killer.kill_once()
            now = stamps(folder / "out")
            again = [name for name in written if done_once(name) and now.get(name) != written[name]]
            assert not again, f"written again: {again}"
            written = now
        killer.run()
        assert contents(folder / "out", lambda name: not results(name)) == expected
        shutil.rmtree(folder / "out")
    assert killer.survivors() == []
    return killer


def test_prepare(data, tmp_path):
    words = ["prepare", data[0], "out", "--fps", "2", "--height", "16"]
    survive(words, tmp_path, done_once=lambda name: name.endswith(".mkv"))


def test_extract_features(data, model, tmp_path):
    words = ["extract-features", data[0], "out", "--model", model, "--device", "cpu"]
    survive(words, tmp_path, done_once=lambda name: name.endswith(".safetensors"))


def test_reduce_features(data, tmp_path):
    words = ["reduce-features", data[2], "out", "--dim", "3", "--data", data[0], "--split", "train"]
    survive(words, tmp_path)


def test_spot(data, model, tmp_path):
    words = ["spot", data[0], "--model", model, "--output", "out/results.zip", "--save-scores", "out/scores"]
    survive([*words, "--device", "cpu"], tmp_path, done_once=lambda name: name.endswith(".safetensors"))


@pytest.mark.parametrize("stage", ["pretrain", "distill", "finetune"])
def test_training(data, tmp_path, stage):
    root, store, bank = data
    steps = {"save_strategy": "steps", "save_steps": 1, "logging_steps": 1}
    if stage == "finetune":
        steps |= {"eval_strategy": "steps", "eval_steps": 1}
    recipe = write_recipe(tmp_path / "recipe", root, store, num_train_epochs=1, output_dir="out", **steps)
    content = yaml.safe_load(recipe.read_text())
    if stage != "finetune":
        head = HEAD | {"predictor_sizes": [8, 6]} if stage == "pretrain" else HEAD
        name = "contrastive_config" if stage == "pretrain" else "distillation_config"
        content["model"]["overrides"] = {name: head}
    if stage == "pretrain":
        del content["training"]["windows_per_half"]
    if stage == "distill":
        content["data"]["features"] = str(bank)
    recipe.write_text(yaml.safe_dump(content))
    survive([stage, "--config", recipe], tmp_path)

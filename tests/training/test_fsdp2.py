"""FSDP 2 with the shipped config, on two CPU processes: every stage trains as one process does and leaves whole weights."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from comedian.models import ComedianForActionSpotting, ComedianModel
from comedian.training.distill import distill
from comedian.training.finetune import finetune
from comedian.training.pretrain import pretrain
from comedian.training.recipe import load_recipe
from match_factory import write_recipe, write_stage_data
from processes import ENVIRONMENT, EXAMPLES, launch

TESTS = Path(__file__).parents[1]
STAGES = {"pretrain": pretrain, "distill": distill, "finetune": finetune}
HEADS = {
    "pretrain": {"contrastive_config": {"projector_sizes": [12, 6], "predictor_sizes": [10, 6], "queue_size": 21}},
    "distill": {"distillation_config": {"projector_sizes": [12, 6], "queue_size": 21}},
    "finetune": {},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_stage_data(folder)
    return folder


def recipe_of(stage: str, folder: Path, data: Path, batch: int) -> Path:
    settings = {"num_train_epochs": 1, "base_learning_rate": 0.05, "logging_strategy": "steps", "logging_steps": 1}
    path = write_recipe(folder, data / "root", data / "store", per_device_train_batch_size=batch, **settings)
    content = yaml.safe_load(path.read_text())
    content["model"]["overrides"] = HEADS[stage]
    if stage == "distill":
        content["data"]["features"] = str(data / "bank")
    if stage == "pretrain":
        del content["training"]["windows_per_half"]
        # two processes see the negatives of the whole batch
        content["model"]["overrides"]["contrastive_config"]["use_batch_keys"] = True
    if stage == "finetune":
        content["training"] |= {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 5}
        content["training"] |= {"eval_strategy": "steps", "eval_steps": 1}
    path.write_text(yaml.safe_dump(content))
    return path


def launch_with_fsdp(recipes: dict[str, Path], folder: Path) -> None:
    """Train stages on two CPU processes in float32; all else as in the shipped config."""
    config = yaml.safe_load((EXAMPLES / "accelerate_configs" / "fsdp2.yaml").read_text())
    path = folder / "fsdp2.yaml"
    path.write_text(yaml.safe_dump(config | {"use_cpu": True, "mixed_precision": "no"}))
    runs = [[str(EXAMPLES / f"{stage}.py"), "--config", str(recipe)] for stage, recipe in recipes.items()]
    words = launch(TESTS / "fsdp_on_cpu.py", json.dumps(runs), config=path)
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=300 * len(runs))
    assert done.returncode == 0, done.stderr[-3000:]


def history_of(output: Path) -> list[dict]:
    """What was logged of training and validation, without times."""
    names = ("loss", "grad_norm", "negative_similarity", "eval_knn_accuracy", "eval_average_map_loose")
    entries = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [{name: entry[name] for name in names if name in entry} for entry in entries]


@pytest.fixture(scope="module")
def fsdp_runs(data, tmp_path_factory):
    """Stage -> the folder of its run with FSDP."""
    folder = tmp_path_factory.mktemp("fsdp")
    launch_with_fsdp({stage: recipe_of(stage, folder / stage, data, batch=2) for stage in STAGES}, folder)
    return {stage: folder / stage for stage in STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_trains_as_on_one_process(stage, data, fsdp_runs, tmp_path):
    """Same total batch, float32: losses and weights are equal up to the order of sums."""
    STAGES[stage](load_recipe(recipe_of(stage, tmp_path, data, batch=4)))
    one, two = tmp_path / "output", fsdp_runs[stage] / "output"
    assert history_of(two) == [pytest.approx(entry, abs=1e-4, rel=1e-3) for entry in history_of(one)]
    # of stage 3 the last checkpoint: which step is best may hang on the last digit of a score
    trained = "checkpoint-3/model.safetensors" if stage == "finetune" else "model.safetensors"
    wanted, found = load_file(one / trained), load_file(two / trained)
    assert wanted.keys() == found.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], atol=5e-5, rtol=1e-3, msg=name)
    model_class = ComedianForActionSpotting if stage == "finetune" else ComedianModel
    assert json.loads((two / "config.json").read_text())["architectures"] == [model_class.__name__]
    assert (two / "modeling_comedian.py").is_file()
    model_class.from_pretrained(two)


def test_a_run_that_broke_off_goes_on(fsdp_runs):
    folder = fsdp_runs["finetune"]
    last = folder / "output" / "checkpoint-3"
    whole = load_file(last / "model.safetensors")
    shutil.rmtree(last)
    # a folder that has it is done
    (folder / "output" / "recipe.yaml").unlink()
    launch_with_fsdp({"finetune": folder / "recipe.yaml"}, folder)
    resumed = load_file(last / "model.safetensors")
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)

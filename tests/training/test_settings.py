"""Settings of a recipe: types and ranges are checked before any data is read, in one line."""

import re
from pathlib import Path

import pytest

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.files import parse_yaml
from comedian.training.contrastive_config import ContrastiveConfig
from comedian.training.distillation_config import DistillationConfig
from comedian.training.recipe import load_recipe
from comedian.training.spotting_config import SpottingConfig
from comedian.training.stage import check_settings, read_settings
from comedian.training.train_all import read_plan
from match_factory import write_recipe

HUB_CONFIGS = Path(__file__).parents[2] / "hub_configs"
SETTINGS = {"pretrain": ContrastiveConfig, "distill": DistillationConfig}


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe whose data does not exist: nothing that is refused for its settings needs them."""
    monkeypatch.chdir(tmp_path)
    return write_recipe(tmp_path / "recipes", Path("nowhere"), Path("nowhere"), output_dir="output")


def refuse(recipe: Path, capsys, *words: str, stage: str = "finetune") -> str:
    """Run a stage that must end with exit code 2 and one line, and leave nothing; return the line."""
    assert main([stage, "--config", str(recipe), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not Path("output").exists(), error
    return error


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("freeze_backbone", "no", "true or false"),
        ("bf16", "'no'", "true or false"),
        ("push_to_hub", "no", "true or false"),
        ("bf16", "1", "true or false"),
        ("seed", "1.5", "a whole number"),
        ("seed", "true", "a whole number"),
        ("max_steps", "2.5", "a whole number"),
        ("windows_per_half", "2.5", "a whole number"),
        ("num_train_epochs", "'3'", "a number"),
        ("max_grad_norm", "null", "a number"),
        ("average_decay", "yes", "a number or null"),
        ("output_dir", "5", "text in quotes or null"),
        ("report_to", "[1]", "text in quotes or a list of text"),
        ("lr_scheduler_kwargs", "5", "fields, text in quotes or null"),
    ],
)
def test_a_value_of_another_type_is_refused(recipe, capsys, name, value, wanted):
    error = refuse(recipe, capsys, f"--training.{name}", value)
    assert f"`training`: `{name}` is {parse_yaml(value)!r}; it must be {wanted}\n" in error


def test_a_section_of_another_type_is_refused(recipe, capsys):
    assert "`data`: `root` is 5; it must be text in quotes or null" in refuse(recipe, capsys, "--data.root", "5")


@pytest.mark.parametrize(
    "settings",
    [
        {"num_train_epochs": 3, "learning_rate": 1, "schedule_epochs": 4},
        {"optim": "adamw_torch", "hub_strategy": "end", "debug": "underflow_overflow"},
        {"lr_scheduler_kwargs": '{"min_lr_rate": 0.1}', "accelerator_config": {"dispatch_batches": False}},
        {"report_to": ["none"], "include_num_input_tokens_seen": True, "disable_tqdm": None, "save_total_limit": None},
        {"activation_checkpointing_kwargs": {"use_reentrant": False}, "liger_kernel_config": {"rope": True}},
    ],
)
def test_values_that_transformers_converts_are_accepted(settings, tmp_path):
    args = read_settings(settings | {"output_dir": str(tmp_path), "use_cpu": True}, SpottingConfig)
    assert args.optim in ("adamw_torch", "adamw_torch_fused")
    # sharding needs several processes
    check_settings({"fsdp": True}, SpottingConfig)
    check_settings({"fsdp": "full_shard auto_wrap"}, SpottingConfig)


@pytest.mark.parametrize(
    "path", sorted(HUB_CONFIGS.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_shipped_recipes_are_accepted(path, tmp_path):
    if path.stem == "train":
        read_plan(path)
    elif path.stem != "card":
        words = ["--model.config=config.json", "--model.checkpoint=null"]
        words += [f"--training.output_dir={tmp_path}", "--training.use_cpu=true"]
        read_settings(load_recipe(path, words).training, SETTINGS.get(path.stem, SpottingConfig))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ('frames: {fps: "5", height: 16}', "section `frames`: `fps` is '5'; it must be a number"),
        ("frames: {fps: null, height: 16}", "section `frames`: `fps` is None; it must be a number"),
        ('frames: {fps: 5, height: "16"}', "section `frames`: `height` is '16'; it must be a whole number"),
        ("frames: [fps, height]", "section `frames` is ['fps', 'height']; it must hold fields"),
        (
            "frames: {fps: 5, height: 16}\nfeatures: {teacher: 5}",
            "section `features`: `teacher` is 5; it must be text in quotes or null",
        ),
    ],
)
def test_a_plan_with_a_value_of_another_type_is_refused(plan, message, tmp_path):
    (tmp_path / "train.yaml").write_text(plan)
    with pytest.raises(InputError, match=re.escape(message)):
        read_plan(tmp_path / "train.yaml")

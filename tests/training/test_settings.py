"""Settings of a recipe: types and ranges are checked before any data is read, in one line."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.files import parse_yaml
from comedian.training.base_config import RANGES
from comedian.training.contrastive_config import ContrastiveConfig
from comedian.training.distillation_config import DistillationConfig
from comedian.training.recipe import check_fields, load_recipe
from comedian.training.spotting_config import SpottingConfig
from comedian.training.stage import read_settings
from comedian.training.train_all import read_plan
from match_factory import write_recipe, write_stage_data

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
    assert args.optim.startswith("adamw_torch")
    # sharding needs several processes
    check_fields({"fsdp": True}, SpottingConfig, "settings")
    check_fields({"fsdp": "full_shard auto_wrap"}, SpottingConfig, "settings")


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


@pytest.mark.parametrize(
    ("stage", "name", "value", "wanted"),
    [
        ("finetune", "num_train_epochs", "0", "above 0, and finite, unless `max_steps` is given"),
        ("finetune", "num_train_epochs", "-1", "above 0, and finite, unless `max_steps` is given"),
        ("finetune", "label_radius_s", "-1", "0 or more, and finite"),
        ("finetune", "label_falloff_s", "-1", "0 or more, and finite"),
        ("finetune", "mixup_alpha", "-1", "0 or more, and finite"),
        ("finetune", "weight_decay", "-1", "0 or more, and finite"),
        ("finetune", "warmup_steps", ".nan", "0 or more, and finite"),
        ("finetune", "dataloader_num_workers", "-1", "0 or more, and finite"),
        ("finetune", "learning_rate", "-1", "0 or more, and finite"),
        ("finetune", "learning_rate", ".nan", "0 or more, and finite"),
        ("finetune", "base_learning_rate", ".inf", "0 or more, and finite"),
        ("finetune", "max_grad_norm", ".nan", "0 or more"),
        ("finetune", "layer_decay", "-1", "between 0 and 1"),
        ("finetune", "flip_prob", "7", "between 0 and 1"),
        ("finetune", "max_shift", "5", "between 0 and 1"),
        ("finetune", "min_learning_rate_ratio", ".nan", "between 0 and 1"),
        ("finetune", "hue", ".nan", "between 0 and 0.5"),
        ("finetune", "min_crop_scale", "0", "above 0 and at most 1"),
        ("finetune", "average_decay", "1", "above 0 and below 1"),
        ("finetune", "adam_beta1", "2", "0 or more and below 1"),
        ("finetune", "per_device_train_batch_size", "0", "1 or more"),
        ("finetune", "gradient_accumulation_steps", "0", "1 or more"),
        ("finetune", "windows_per_half", "0", "1 or more"),
        ("finetune", "seed", "-1", "between 0 and 4294967295"),
        ("pretrain", "ema_momentum", "2", "between 0 and 1"),
        ("pretrain", "second_blur_prob", "-1", "between 0 and 1"),
        ("distill", "schedule_epochs", ".nan", "above 0, and finite"),
    ],
)
def test_a_value_out_of_range_is_refused(recipe, capsys, stage, name, value, wanted):
    if stage == "pretrain":
        recipe.write_text(recipe.read_text().replace("windows_per_half: 3", ""))
    error = refuse(recipe, capsys, f"--training.{name}", value, stage=stage)
    assert error.endswith(f"`{name}` is {parse_yaml(value)}; must be {wanted}\n")


def test_every_range_is_that_of_a_setting():
    """A misspelt name would never be checked."""
    names = {item.name for kind in (SpottingConfig, ContrastiveConfig, DistillationConfig) for item in fields(kind)}
    assert {name for _, _, ranged in RANGES for name in ranged} <= names


def test_epochs_do_not_count_beside_steps(tmp_path):
    settings = {"num_train_epochs": 0, "max_steps": 1, "output_dir": str(tmp_path), "use_cpu": True}
    assert read_settings(settings, SpottingConfig).max_steps == 1


def test_a_file_in_place_of_the_output_folder_is_refused(recipe, capsys):
    for words in (str(recipe), f"{recipe}/model"):
        error = refuse(recipe, capsys, "--training.output_dir", words)
        assert f"`training.output_dir` is `{words}`, but `{recipe}` is a file; give a folder" in error


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_stage_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report_to=wandb"], "wandb to be installed"),
        (["report_to=nonsense"], "nonsense is not supported, only"),
        (["metric_for_best_model=nope"], "`training.metric_for_best_model` is `nope`; known: average_map_loose"),
        (["metric_for_best_model=average_map_tigt"], "did you mean `average_map_tight`?"),
        (["optim=adamw_bnb_8bit"], "invalid `optim` or `optim_args`: You need to install `bitsandbytes`"),
        (["optim=adamw_bnb_8bit", "layer_decay=0.5"], "invalid `optim` or `optim_args`: You need to install"),
        (["optim_args=foo"], "invalid `optim` or `optim_args`"),
        (["lr_scheduler_type=warmup_stable_decay"], "invalid `lr_scheduler_type` or `lr_scheduler_kwargs`: "),
        (["log_level=nope"], "invalid training settings: 'nope'"),
        (["deepspeed=nope.json"], "deepspeed"),
        (["accelerator_config=nope.json"], "No such file or directory: 'nope.json'"),
        (["fsdp=true"], "fsdp only works in distributed training"),
        (["push_to_hub=true"], "offline mode is on"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_transformers_refuses_is_one_line(words, message, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    path = write_recipe(tmp_path, *data[:2])
    assert main(["finetune", "--config", str(path), *(f"--training.{word}" for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.glob("output/*"))


@pytest.mark.parametrize("setting", ["eval_strategy=epoch", "eval_on_start=true"])
def test_stage_2_refuses_to_evaluate(recipe, capsys, setting):
    error = refuse(recipe, capsys, f"--training.{setting}", stage="distill")
    assert f"`{setting.split('=')[0]}` is " in error and "stage 2 has no evaluation; remove it" in error


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_features_outside_stage_2_are_refused(recipe, capsys, stage):
    if stage == "pretrain":
        recipe.write_text(recipe.read_text().replace("windows_per_half: 3", ""))
    error = refuse(recipe, capsys, "--data.features", "/nope", stage=stage)
    assert "`data.features` is `/nope`, which stage 2 alone uses; remove it" in error

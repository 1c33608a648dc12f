"""Fine-tuning: what is trained, how fast, and that a broken run equals a whole one."""

import json
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import ViTConfig

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.hub.model_record import read_record, record_of_start
from comedian.inference.model_names import DEMO_FOLDER
from comedian.models import ComedianForActionSpotting, ComedianModel, ComedianVideoProcessor
from comedian.soccernet.prepare import prepare
from comedian.training.contrastive_config import ContrastiveConfig
from comedian.training.distillation_config import DistillationConfig
from comedian.training.finetune import finetune
from comedian.training.recipe import ModelSection, load_recipe
from comedian.training.spotting_config import SpottingConfig
from comedian.training.spotting_trainer import SpottingTrainer, layer_depths
from comedian.training.stage import build_model
from comedian.video.frame_store import StoreSettings
from match_factory import LABELS, write_matches, write_recipe
from processes import ENVIRONMENT, launch
from testing_utils import tiny_config

HUB_CONFIGS = Path(__file__).parents[2] / "hub_configs"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    root = write_matches(folder / "root")
    prepare(root, folder / "store", StoreSettings(fps=4, height=16), workers=1, progress=False)
    return root, folder / "store"


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Folder of a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    scores = finetune(load_recipe(write_recipe(folder, *data, save_total_limit=5)))
    return folder, scores


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_every_weight_is_trained(trained, data):
    folder, _ = trained
    initial = weights(folder / "output" / "checkpoint-3")
    final = weights(folder / "output" / "checkpoint-6")
    # the mask token is needed only where a window has four tubelets or more to mask: here one of four
    unchanged = [name for name in final if torch.equal(initial[name], final[name])]
    assert unchanged == []


def test_the_folder_holds_model_processor_recipe_thresholds_and_scores(trained):
    folder, scores = trained
    output = folder / "output"
    model = ComedianForActionSpotting.from_pretrained(output)
    assert model.config.label_names == list(LABELS)
    assert len(model.config.label_thresholds) == len(model.config.label_calibration) == 2
    assert all(model.config.label_curves)
    assert all(0 <= threshold <= 1 for threshold in model.config.label_thresholds)
    assert ComedianVideoProcessor.from_pretrained(output).size["height"] == 16
    assert json.loads((output / "validation_scores.json").read_text()) == scores
    assert set(scores) == {"tight", "loose"}
    assert yaml.safe_load((output / "recipe.yaml").read_text())["training"]["seed"] == 3


def test_the_best_checkpoint_is_the_one_with_the_best_tight_score(trained):
    folder, scores = trained
    state = json.loads((folder / "output" / "trainer_state.json").read_text())
    tight = {
        entry["step"]: entry["eval_average_map_tight"]
        for entry in state["log_history"]
        if "eval_average_map_tight" in entry
    }
    assert len(tight) == 2
    assert state["best_metric"] == max(tight.values()) == pytest.approx(scores["tight"]["a_mAP"])
    best = weights(folder / "output" / f"checkpoint-{max(tight, key=tight.get)}")
    saved = weights(folder / "output")
    assert all(torch.equal(best[name], saved[name]) for name in best)


@pytest.mark.parametrize("steps, average_decay", [(2, None), (3, None), (2, 0.9)])
def test_a_run_that_broke_off_ends_bit_identical(trained, data, tmp_path, steps, average_decay):
    """Stopped within the first epoch and at its end."""
    every_step = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 10, "average_decay": average_decay}
    recipe = load_recipe(write_recipe(tmp_path, *data, **every_step, eval_strategy="no", load_best_model_at_end=False))
    finetune(recipe)
    checkpoints = tmp_path / "output"
    whole = weights(checkpoints / "checkpoint-6")
    for step in range(steps + 1, 7):
        shutil.rmtree(checkpoints / f"checkpoint-{step}")
    (checkpoints / "recipe.yaml").unlink()
    finetune(recipe)
    resumed = weights(checkpoints / "checkpoint-6")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("best", [False, True])
def test_the_average_of_the_weights_is_scored_and_saved(data, tmp_path, best):
    every_step = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 10}
    every_step |= {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": best}
    recipe = write_recipe(tmp_path, *data, **every_step, average_decay=0.5)
    finetune(load_recipe(recipe))
    output = tmp_path / "output"
    checkpoints = [output / f"checkpoint-{step}" for step in range(1, 7)]
    trained = [load_file(checkpoint / "trained_weights.safetensors") for checkpoint in checkpoints]
    for name in ("classifier.weight", "comedian.spatial_encoder.layers.0.mlp.fc1.weight"):
        average = weights(checkpoints[0])[name]
        for step, (checkpoint, own) in enumerate(zip(checkpoints[1:], trained[1:]), start=2):
            decay = min(0.5, step / (step + 9))
            average = decay * average + (1 - decay) * own[name]
            torch.testing.assert_close(weights(checkpoint)[name], average)
            assert not torch.equal(average, own[name])
    state = json.loads((checkpoints[-1] / "trainer_state.json").read_text())
    chosen = Path(state["best_model_checkpoint"]).name if best else "checkpoint-6"
    assert torch.equal(weights(output)["classifier.weight"], weights(output / chosen)["classifier.weight"])
    assert not (output / "trained_weights.safetensors").exists()
    # what was scored is what was saved
    scores = {
        entry["step"]: entry["eval_average_map_tight"] for entry in state["log_history"] if "eval_runtime" in entry
    }
    final = json.loads((output / "validation_scores.json").read_text())
    assert final["tight"]["a_mAP"] == pytest.approx(scores[int(chosen.rpartition("-")[2])], abs=1e-6)


def test_without_a_best_checkpoint_the_last_average_is_saved(data, tmp_path):
    """No evaluation comes before its delay has passed."""
    finetune(load_recipe(write_recipe(tmp_path, *data, average_decay=0.5, eval_delay=100)))
    output = tmp_path / "output"
    assert json.loads((output / "trainer_state.json").read_text())["best_model_checkpoint"] is None
    name, last = "comedian.spatial_encoder.layers.0.mlp.fc1.weight", output / "checkpoint-6"
    assert torch.equal(weights(output)[name], weights(last)[name])
    assert not torch.equal(weights(output)[name], load_file(last / "trained_weights.safetensors")[name])


def test_processes_share_the_statistics_of_batch_norms(data, tmp_path):
    """Of the first norm, where each process's mean is of half the batch, and the weights stand still."""
    frozen = {"learning_rate": 0.0, "base_learning_rate": None, "num_train_epochs": 1, "jitter_prob": 0.0}
    outputs = []
    for batch in (4, 2):
        recipe = write_recipe(tmp_path / str(batch), *data, **frozen, per_device_train_batch_size=batch)
        config = json.loads((recipe.parent / "config.json").read_text())
        fields = {"spatial_encoder": "convolutional", "spatial_depths": [1, 1], "temporal_mask_ratio": 0.0}
        (recipe.parent / "config.json").write_text(json.dumps(config | fields))
        outputs.append(recipe.parent / "output")
        if batch == 4:
            finetune(load_recipe(recipe))
        else:
            words = launch("-m", "comedian.cli.main", "finetune", "--config", recipe)
            done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=400)
            assert done.returncode == 0, done.stderr[-3000:]
    one, two = map(weights, outputs)
    name = "comedian.spatial_encoder.embeddings.layers.0.norm"
    assert one[f"{name}.mean"].abs().max() > 0.01
    torch.testing.assert_close(one[f"{name}.mean"], two[f"{name}.mean"], atol=1e-4, rtol=1e-3)


def test_stage_3a_trains_the_classifier_alone_from_a_backbone(data, tmp_path):
    backbone = ComedianModel(tiny_config(num_labels=5))
    backbone.save_pretrained(tmp_path / "backbone")
    path = write_recipe(tmp_path, *data, freeze_backbone=True, num_train_epochs=1)
    content = yaml.safe_load(path.read_text())
    content["model"] = {"checkpoint": str(tmp_path / "backbone")}
    path.write_text(yaml.safe_dump(content))
    finetune(load_recipe(path))
    tuned = ComedianForActionSpotting.from_pretrained(tmp_path / "output")
    before, after = backbone.state_dict(), tuned.comedian.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert tuned.classifier.weight.shape == (2, 16)


def make_trainer(tmp_path, **settings) -> SpottingTrainer:
    args = SpottingConfig(
        output_dir=str(tmp_path), use_cpu=True, eval_strategy="no", load_best_model_at_end=False, **settings
    )
    return SpottingTrainer(ComedianForActionSpotting(tiny_config()), args)


def test_weight_decay_falls_on_weight_matrices_alone(tmp_path):
    trainer = make_trainer(tmp_path)
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    for name, parameter in trainer.model.named_parameters():
        is_matrix = parameter.ndim == 2 and name.endswith("weight")
        assert (name in decayed) == is_matrix, name


@pytest.mark.parametrize("encoder", ["vivit", "viswin"])
def test_bias_tables_of_viswin_decay(encoder, tmp_path):
    trainer = make_trainer(tmp_path)
    model = ComedianForActionSpotting(tiny_config(spatial_encoder=encoder))
    decayed = {name for name in trainer.get_decay_parameter_names(model) if name.endswith("relative_position_bias")}
    tables = {name for name, _ in model.named_parameters() if name.endswith("relative_position_bias")}
    assert decayed == tables and bool(tables) == (encoder == "viswin")


def settings_of(config_class=SpottingConfig, **settings):
    return config_class(**{"output_dir": "output", "use_cpu": True, "eval_strategy": "no"} | settings)


@pytest.mark.parametrize(
    ("config_class", "settings", "expected"),
    [
        (SpottingConfig, {}, 1e-3 * 64 / 256),
        (ContrastiveConfig, {}, 5e-4 * 1024 / 256),
        (DistillationConfig, {}, 4e-3 * 32 / 256),
        (SpottingConfig, {"base_learning_rate": 2e-3}, 2e-3 * 64 / 256),
        (SpottingConfig, {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2}, 1e-3 * 32 / 256),
        (SpottingConfig, {"learning_rate": 3e-4}, 3e-4),
        (SpottingConfig, {"learning_rate": 3e-4, "base_learning_rate": None}, 3e-4),
        # both, and they agree
        (SpottingConfig, {"learning_rate": 5e-4, "base_learning_rate": 2e-3}, 5e-4),
        (SpottingConfig, {"learning_rate": 0.0}, 0.0),
    ],
)
def test_the_learning_rate_that_is_given_holds(config_class, settings, expected):
    if config_class is SpottingConfig:
        settings = settings | {"load_best_model_at_end": False}
    assert settings_of(config_class, **settings).learning_rate == pytest.approx(expected)


def test_a_search_over_either_learning_rate_has_an_effect():
    """A search sets fields of settings that are made already."""
    args = settings_of(load_best_model_at_end=False)
    args.base_learning_rate = 4e-3
    assert args.learning_rate == pytest.approx(4e-3 * 64 / 256)
    args.per_device_train_batch_size = 16
    assert args.learning_rate == pytest.approx(4e-3 * 16 / 256)
    args.learning_rate = 1e-5
    args.per_device_train_batch_size = 32
    assert (args.learning_rate, args.base_learning_rate) == (1e-5, None)
    args.lr_scheduler_kwargs = {"min_lr_rate": 0.25}
    assert args.cosine_settings()["floor"] == 0.25
    args.lr_scheduler_kwargs, args.min_learning_rate_ratio = None, 0.5
    assert args.cosine_settings()["floor"] == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"learning_rate": 3e-4, "base_learning_rate": 1e-3},
            "`learning_rate` 0.0003 contradicts `base_learning_rate`",
        ),
        ({"lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "min_learning_rate_ratio": 0.2}, "contradict each other"),
        ({"lr_scheduler_kwargs": {"min_lr_rate": 0.1, "min_lr": 0.1}}, "contradict each other"),
        ({"lr_scheduler_kwargs": {"min_lr_ratio": 0.1}}, "unknown name `min_lr_ratio`"),
        ({"lr_scheduler_type": "linear", "min_learning_rate_ratio": 0.2}, "`linear` does not take"),
        ({"lr_scheduler_type": "linear", "warmup_start_ratio": 0.2}, "`linear` does not take"),
        ({"min_learning_rate_ratio": 2.0}, "between 0 and 1"),
        ({"lr_scheduler_kwargs": {"min_lr": 2.0}}, "between 0 and 1"),
        ({"schedule_epochs": 10}, "`schedule_epochs` 10 is less than `num_train_epochs` 20"),
    ],
)
def test_settings_that_contradict_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        settings_of(load_best_model_at_end=False, **settings)


def rates_of(trainer, steps: int) -> list[float]:
    """Learning rate of each step."""
    trainer.create_optimizer()
    scheduler = trainer.create_scheduler(steps)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        trainer.optimizer.step()
        scheduler.step()
    return rates


def test_the_schedule_warms_up_and_falls_to_its_floor(tmp_path):
    trainer = make_trainer(tmp_path, learning_rate=1.0, warmup_steps=11, warmup_start_ratio=0.2)
    rates = rates_of(trainer, 112)
    assert rates[0] == pytest.approx(0.2)
    assert rates[5] == pytest.approx(0.6)
    # the last step of the warm-up has the peak, and the one after it
    assert rates[10] == rates[11] == 1.0 > rates[12]
    assert rates[61] == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi * 50 / 101)) / 2)
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(0.01)


def test_settings_of_the_scheduler_hold(tmp_path):
    kwargs = {"min_lr": 0.25, "num_cycles": 1.0}
    rates = rates_of(make_trainer(tmp_path, learning_rate=0.5, lr_scheduler_kwargs=kwargs), 8)
    assert rates[4] == pytest.approx(0.25) and rates[0] == 0.5
    assert rates[2] == rates[6] == pytest.approx(0.375)
    given = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 0.1, "power": 1.0}}
    rates = rates_of(make_trainer(tmp_path, learning_rate=0.5, **given), 4)
    assert rates == pytest.approx([0.5, 0.4, 0.3, 0.2])


def test_training_stops_before_a_longer_schedule_ends(data, tmp_path):
    """Six steps of a schedule of twelve; the share of warm-up is one of the twelve."""
    settings = {"schedule_epochs": 4, "num_train_epochs": 2, "warmup_steps": 0.25, "logging_strategy": "steps"}
    settings |= {
        "logging_steps": 1,
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "base_learning_rate": 0.0064,
    }
    finetune(load_recipe(write_recipe(tmp_path, *data, **settings)))
    log = json.loads((tmp_path / "output" / "trainer_state.json").read_text())["log_history"]
    rates = [entry["learning_rate"] for entry in log if "learning_rate" in entry]
    expected = [0.0, 0.5, 1.0] + [0.01 + 0.99 * (1 + math.cos(math.pi * step / 9)) / 2 for step in range(3)]
    assert rates == pytest.approx([1e-4 * share for share in expected])


def test_a_frozen_backbone_is_in_evaluation_mode_and_sees_every_tubelet(tmp_path):
    windows = {
        "frames": torch.randint(256, (2, 8, 16, 16, 3), dtype=torch.uint8),
        "labels": torch.rand(2, 4, 3),
        "seed": torch.tensor([1, 2]),
    }
    for frozen in (True, False):
        args = settings_of(output_dir=str(tmp_path), freeze_backbone=frozen, load_best_model_at_end=False)
        model = ComedianForActionSpotting(tiny_config(drop_path_rate=0.5, classifier_dropout_prob=0.5))
        processor = ComedianVideoProcessor(size={"height": 16, "width": 16})
        trainer = SpottingTrainer(model, args, processing_class=processor)
        seen = []
        model.register_forward_pre_hook(lambda module, args, kwargs, seen=seen: seen.append(kwargs), with_kwargs=True)
        modes = []
        model.comedian.register_forward_pre_hook(
            lambda module, args, model=model, modes=modes: modes.append(
                (module.training, module.temporal_encoder.layers[-1].drop_path.training, model.dropout.training)
            )
        )
        trainer.compute_loss(model.train(), trainer.augment_windows(dict(windows)))
        assert modes == [(not frozen, not frozen, True)]
        assert ("kept_tubelets" in seen[0]) == (not frozen)


@pytest.mark.parametrize("folder", ["vivit-tiny-soccernet", "viswin-tiny-soccernet"])
def test_stage_3b_starts_from_the_last_model_of_stage_3a(folder, data, tmp_path):
    published = yaml.safe_load((HUB_CONFIGS / folder / "finetune_head.yaml").read_text())["training"]
    names = ("freeze_backbone", "load_best_model_at_end")
    settings = {name: published[name] for name in names} | {"save_total_limit": 5, "num_train_epochs": 3}
    # so high that the score falls again
    finetune(load_recipe(write_recipe(tmp_path, *data, **settings, base_learning_rate=64.0)))
    output = tmp_path / "output"
    last = weights(output / "checkpoint-9")
    assert all(torch.equal(last[name], tensor) for name, tensor in weights(output).items())


def spoiled_recipe(folder, data, **training) -> Path:
    """A recipe that diverges at once."""
    settings = {"base_learning_rate": 1e30, "max_grad_norm": 1e30, "save_strategy": "steps", "save_steps": 1}
    path = write_recipe(
        folder, *data, **settings | {"eval_strategy": "no", "load_best_model_at_end": False} | training
    )
    return path


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "c"]], ids=["same_labels", "other_labels"])
def test_a_checkpoint_in_half_precision_is_trained_in_float32(labels, tmp_path):
    model = ComedianForActionSpotting(tiny_config(id2label={0: "a", 1: "b"}))
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    built = build_model(ComedianForActionSpotting, ModelSection(checkpoint=str(tmp_path)), tmp_path, labels)
    assert {weight.dtype for weight in built.parameters()} == {torch.float32}


def test_training_stops_at_the_first_loss_that_is_not_finite(data, tmp_path, capsys):
    path = spoiled_recipe(tmp_path, data)
    assert main(["finetune", "--config", str(path)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "is not finite in step 2 of 6" in line and "checkpoint-1`" in line
    assert "Lower `training.base_learning_rate` (now 1e+30)" in line
    output = tmp_path / "output"
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-1"]
    assert not (output / "model.safetensors").exists() and not (output / "recipe.yaml").exists()
    assert all(tensor.isfinite().all() for tensor in weights(output / "checkpoint-1").values())


class Scaler:
    """Of a float16 run."""

    def __init__(self, scale: float):
        self.scale = scale

    def get_scale(self) -> float:
        return self.scale


@pytest.mark.parametrize(
    ("loss", "norm", "scale", "message"),
    [
        (1.0, 1.0, None, None),
        (torch.nan, 1.0, None, "the loss is not finite"),
        (torch.inf, torch.nan, None, "the loss is not finite"),
        (1.0, torch.nan, None, "the gradient is not finite"),
        (1.0, torch.inf, None, "the gradient is not finite"),
        # a gradient that overflows because the loss is scaled up, which the scaler will skip
        (1.0, torch.inf, 65536.0, None),
        (torch.nan, torch.nan, 65536.0, "the loss is not finite.*`bf16` instead of `fp16`"),
        (1.0, torch.nan, 1.0, "the gradient is not finite"),
    ],
)
def test_what_counts_as_not_finite(loss, norm, scale, message, tmp_path):
    trainer = make_trainer(tmp_path, learning_rate=1e-3)
    trainer.accelerator.scaler = None if scale is None else Scaler(scale)
    losses, norm = torch.tensor([0.5, loss]), torch.tensor(norm)
    if message is None:
        trainer.refuse_non_finite(losses, norm)
    else:
        with pytest.raises(InputError, match=f"{message}"):
            trainer.refuse_non_finite(losses, norm)


def test_layer_decay_multiplies_from_the_classifier_down(tmp_path):
    trainer = make_trainer(tmp_path, base_learning_rate=None, learning_rate=1.0, layer_decay=0.5)
    trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert rates["classifier.weight"] == 1.0
    assert rates["comedian.temporal_encoder.layers.1.mlp.fc1.weight"] == 0.5
    assert rates["comedian.spatial_encoder.layers.1.mlp.fc1.weight"] == 0.5**3
    assert rates["comedian.spatial_encoder.layers.0.mlp.fc1.weight"] == 0.5**4
    assert rates["comedian.spatial_encoder.embeddings.projection.weight"] == 0.5**5
    assert set(rates) == set(names.values())


def test_depths_of_swin_follow_its_stages():
    depths = layer_depths(ComedianForActionSpotting(tiny_config(spatial_encoder="viswin")))
    prefix = "comedian.spatial_encoder.stages."
    assert depths[f"{prefix}0.layers.1.mlp.fc1.weight"] == depths[f"{prefix}0.merging.reduction.weight"] == 2
    assert depths[f"{prefix}1.layers.0.mlp.fc1.weight"] == 3


def test_a_width_of_suppression_for_all_labels_outlives_new_labels(tmp_path):
    for number, (width, expected) in enumerate(((3.0, 3.0), ([1.0, 2.0, 3.0], 10.0))):
        ComedianForActionSpotting(tiny_config(nms_window_s=width)).save_pretrained(tmp_path / str(number))
        section = ModelSection(checkpoint=str(tmp_path / str(number)))
        assert build_model(ComedianForActionSpotting, section, tmp_path, ["a", "b"]).config.nms_window_s == expected


def test_depths_of_convolutions_follow_their_stages():
    depths = layer_depths(ComedianForActionSpotting(tiny_config(spatial_encoder="convolutional")))
    prefix = "comedian.spatial_encoder."
    assert depths[f"{prefix}embeddings.layers.1.convolution.weight"] == 0
    assert depths[f"{prefix}stages.0.layers.1.first_norm.weight"] == 2
    assert depths[f"{prefix}stages.0.merging.convolution.weight"] == 2
    assert depths[f"{prefix}stages.1.layers.1.second_convolution.weight"] == 4
    # with the time embeddings: below the first temporal layer
    assert depths["comedian.temporal_encoder.convolutions.0.convolution.weight"] == 4
    assert depths["comedian.temporal_encoder.layers.0.mlp.fc1.weight"] == 5


def test_a_run_from_the_demos_model_tells_of_its_stages(tmp_path):
    """`demo` is a name of this package: the Hub knows nothing of it."""
    model = build_model(ComedianForActionSpotting, ModelSection(checkpoint="demo"), tmp_path, ["a", "b"])
    record = record_of_start(model.config.name_or_path)
    assert record.stages and record.stages == read_record(DEMO_FOLDER).stages


@pytest.mark.parametrize("encoder", ["vivit", "viswin", "convolutional"])
def test_each_parameter_of_an_encoder_is_in_one_group(encoder):
    model = ComedianForActionSpotting(tiny_config(spatial_encoder=encoder)).comedian
    for part in (model.spatial_encoder, model.temporal_encoder):
        grouped = [id(parameter) for group in part.layer_groups() for parameter in group]
        assert sorted(grouped) == sorted(map(id, part.parameters()))


def test_layer_decay_is_refused_for_an_image_model():
    backbone = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32
    )
    model = ComedianForActionSpotting(tiny_config(backbone_config=backbone.to_dict(), image_size=[32, 32]))
    with pytest.raises(InputError, match="`layer_decay` is not supported with `spatial_encoder: backbone`"):
        layer_depths(model)


def test_overrides_reach_the_recipe_and_errors_name_the_field(data, tmp_path, capsys):
    path = str(write_recipe(tmp_path, *data))
    words = ["--training.seed", "9", "--model.overrides.fps=4", "--training.learning_rate", "3e-4"]
    words += ["--training.eval_strategy", "no", "--training.bf16=true", "--training.fp16", "False"]
    recipe = load_recipe(path, words)
    assert recipe.training["seed"] == 9
    assert recipe.training["learning_rate"] == 3e-4
    assert recipe.training["eval_strategy"] == "no"
    assert recipe.training["bf16"] is True and recipe.training["fp16"] is False
    assert recipe.model.overrides == {"fps": 4}
    for words, message in {
        ("--training.sed", "9"): "unknown field `sed`",
        ("--data.root",): "`--data.root` has no value",
        ("--nonsense", "1"): "is not an override",
        ("--data.root", "/nowhere"): "/nowhere",
        ("--data.frames", "/nowhere"): "/nowhere",
        ("--model.overrides.patch_size", "5"): "patch_size",
        ("--training.sampling", "some"): "sampling",
    }.items():
        assert main(["finetune", "--config", path, *words]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error and "\n" not in error, error


def test_without_augmentation_a_window_is_what_the_processor_makes_of_it(tmp_path):
    off = dict.fromkeys(("flip_prob", "jitter_prob", "blur_prob", "mixup_alpha"), 0.0)
    trainer = make_trainer(tmp_path, **off)
    trainer.processing_class = ComedianVideoProcessor(size={"height": 16, "width": 16})
    frames = torch.randint(0, 256, (2, 8, 20, 24, 3), dtype=torch.uint8)
    labels = torch.zeros(2, 4, 3)
    inputs = trainer.augment_windows({"frames": frames, "labels": labels, "seed": torch.tensor([1, 2])})
    expected = [
        trainer.processing_class(video.numpy(), return_tensors="pt")["pixel_values_videos"][0] for video in frames
    ]
    torch.testing.assert_close(inputs["pixel_values_videos"], torch.stack(expected), atol=1e-5, rtol=0)
    assert "mixup_targets" not in inputs
    # a quarter of four tubelets is masked
    assert inputs["kept_tubelets"].shape == (2, 3)


def test_mixed_windows_carry_both_targets_and_their_weights(tmp_path):
    trainer = make_trainer(tmp_path, mixup_alpha=0.5)
    trainer.processing_class = ComedianVideoProcessor(size={"height": 16, "width": 16})
    labels = torch.rand(2, 4, 3)
    windows = {
        "frames": torch.zeros(2, 8, 16, 16, 3, dtype=torch.uint8),
        "labels": labels,
        "seed": torch.tensor([1, 2]),
    }
    inputs = trainer.augment_windows(windows)
    offsets_s = torch.rand(2, 4, 3)
    pointing = trainer.augment_windows(windows | {"offset_targets_s": offsets_s})
    assert torch.equal(pointing["offset_targets_s"], offsets_s)
    assert torch.equal(pointing["mixup_offset_targets_s"], offsets_s.flip(0))
    assert torch.equal(inputs["labels"], labels)
    assert torch.equal(inputs["mixup_targets"], labels.flip(0))
    assert inputs["mixup_weights"].shape == (2,)
    assert torch.isfinite(trainer.model(**inputs).loss)


def test_a_finer_model_is_trained_from_a_coarse_one(trained, data, tmp_path):
    recipe = load_recipe(
        write_recipe(tmp_path, *data, label_radius_s=0.5, label_falloff_s=1.0, num_train_epochs=1),
        ["--model.overrides.offset_radius_s", "1.5", "--model.overrides.scores_per_token", "4"],
    )
    start = replace(recipe.model, config=None, checkpoint=str(trained[0] / "output"))
    finetune(replace(recipe, model=start))
    model = ComedianForActionSpotting.from_pretrained(tmp_path / "output")
    assert model.config.score_rate == 4.0 and model.config.label_thresholds is not None
    # it starts at 0
    assert weights(tmp_path / "output")["offset_head.bias"].abs().sum() > 0
    steps = replace(start, overrides={"scores_per_token": 2})
    fine = build_model(ComedianForActionSpotting, steps, tmp_path, LABELS)
    assert fine.classifier.weight.shape[0] == 2 * len(LABELS) and fine.config.label_names == list(LABELS)
    # the classifier went on from the coarse model's, the head for displacements started afresh
    assert (
        weights(tmp_path / "output")["classifier.weight"].shape
        == weights(trained[0] / "output")["classifier.weight"].shape
    )

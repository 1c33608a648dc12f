"""Stages 1 and 2: what is trained and left behind, and that a broken or accumulated run equals a whole one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.models import (
    ComedianForActionSpotting,
    ComedianForContrastivePretraining,
    ComedianForFeatureDistillation,
    ComedianModel,
    ComedianVideoProcessor,
)
from comedian.samples.datasets import ClipDataset, DistillationDataset
from comedian.soccernet.prepare import prepare
from comedian.training.contrastive_config import ContrastiveConfig
from comedian.training.contrastive_trainer import ContrastiveTrainer, cosine_momentum
from comedian.training.distill import distill
from comedian.training.distillation_trainer import DistillationTrainer
from comedian.training.finetune import finetune
from comedian.training.pretrain import pretrain
from comedian.training.recipe import load_recipe
from comedian.video.frame_store import FrameStore, StoreSettings
from match_factory import write_recipe, write_stage_data
from video_factory import write_video

FEATURE_DIM = 6
HEADS = {
    "pretrain": {
        "contrastive_config": {"projector_sizes": [12, 6], "predictor_sizes": [10, 6], "queue_size": 21},
    },
    "distill": {"distillation_config": {"projector_sizes": [12, FEATURE_DIM], "queue_size": 21}},
}
STAGES = {"pretrain": pretrain, "distill": distill}
CLASSES = {
    "pretrain": (ComedianForContrastivePretraining, ContrastiveTrainer, ClipDataset),
    "distill": (ComedianForFeatureDistillation, DistillationTrainer, DistillationDataset),
}
# clips or windows of the four training halves of 12 seconds, in batches of 4: 3 or 11 steps an epoch
STEPS = {"pretrain": 11, "distill": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_stage_data(tmp_path_factory.mktemp("data"), FEATURE_DIM)


def recipe_of(stage: str, folder: Path, data, **training):
    """A recipe of one epoch for a model of a few thousand weights."""
    root, store, bank = data
    training = {
        "num_train_epochs": 1,
        "base_learning_rate": 0.05,
        "warmup_steps": 0.0,
        "eval_strategy": "no",
    } | training
    path = write_recipe(folder, root, store, **training)
    content = yaml.safe_load(path.read_text())
    content["model"]["overrides"] = HEADS[stage]
    if stage == "pretrain":
        del content["training"]["windows_per_half"]
    else:
        content["data"]["features"] = str(bank)
    path.write_text(yaml.safe_dump(content))
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(one: dict, other: dict):
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_trains_its_part_and_moves_the_queue(stage, data, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 20}
    log = STAGES[stage](load_recipe(recipe_of(stage, tmp_path, data, **settings)))
    output = tmp_path / "output"
    first, last = weights(output / "checkpoint-1"), weights(output / f"checkpoint-{STEPS[stage]}")
    unchanged = [name for name in last if torch.equal(first[name], last[name])]
    # the momentum branch and the queue move too; what stage 1 does not train stays
    untrained = "comedian.temporal_encoder." if stage == "pretrain" else "nothing"
    assert [name for name in unchanged if not name.startswith(untrained)] == []
    assert stage == "distill" or len(unchanged) > 5
    keys_a_step = 4 * (2 if stage == "pretrain" else 4)
    assert last["queue_ptr"].item() == STEPS[stage] * keys_a_step % 21
    entry = next(entry for entry in log if "loss" in entry)
    assert {"positive_similarity", "negative_similarity", "embedding_std"} <= set(entry)
    assert 0 < entry["embedding_std"] < 2 and -1 <= entry["negative_similarity"] <= 1


def test_stage_1_leaves_the_spatial_encoder_alone_and_probes_it(data, tmp_path):
    log = pretrain(load_recipe(recipe_of("pretrain", tmp_path, data, eval_strategy="epoch")))
    output = tmp_path / "output"
    left = weights(output)
    assert left and all(name.startswith("spatial_encoder.") for name in left)
    trained = weights(output / f"checkpoint-{STEPS['pretrain']}")
    assert all(torch.equal(trained[f"comedian.{name}"], value) for name, value in left.items())
    config = json.loads((output / "config.json").read_text())
    assert config["architectures"] == ["ComedianModel"] and config["contrastive_config"] is None
    assert ComedianVideoProcessor.from_pretrained(output).size["height"] == 16
    assert yaml.safe_load((output / "recipe.yaml").read_text())["training"]["seed"] == 3
    (probe,) = [entry["eval_knn_accuracy"] for entry in log if "eval_knn_accuracy" in entry]
    assert 0 <= probe <= 1
    model = ComedianModel.from_pretrained(output)
    assert all(torch.isfinite(value).all() and value.abs().max() < 10 for value in model.state_dict().values())


def test_stage_1_starts_stage_2_and_stage_2_stage_3(data, tmp_path):
    pretrain(load_recipe(recipe_of("pretrain", tmp_path / "one", data)))
    frozen = {"learning_rate": 0.0, "base_learning_rate": None}
    recipe = load_recipe(
        recipe_of("distill", tmp_path / "two", data, **frozen),
        ["--model.config", "null", "--model.checkpoint", str(tmp_path / "one" / "output")],
    )
    distill(recipe)
    spatial, backbone = weights(tmp_path / "one" / "output"), weights(tmp_path / "two" / "output")
    assert all(torch.equal(backbone[name], value) for name, value in spatial.items())
    assert any(name.startswith("temporal_encoder.") for name in backbone)
    recipe = load_recipe(
        write_recipe(tmp_path / "three", *data[:2], num_train_epochs=1, **frozen),
        ["--model.config", "null", "--model.checkpoint", str(tmp_path / "two" / "output")]
        + ["--model.overrides.class_weights", "[[1, 1], [4, 4]]"],
    )
    finetune(recipe)
    spotting = ComedianForActionSpotting.from_pretrained(tmp_path / "three" / "output")
    assert_same(spotting.comedian.state_dict(), backbone)
    assert spotting.config.class_weights == [[1, 1], [4, 4]]
    assert spotting.config.distillation_config is None


def test_videos_of_different_aspects_train_together(data, tmp_path):
    """A store that keeps the aspect: batches, and the probe's, mix frames of several sizes, read by workers."""
    root = tmp_path / "root"
    shutil.copytree(data[0], root)
    for video, width in (("one/1", 64), ("two/2", 48), ("three/2", 40)):
        write_video(root / "league" / f"{video}_224p.mkv", 48, 4.0, height=32, width=width)
    store = tmp_path / "store"
    prepare(root, store, StoreSettings(fps=4, height=24), workers=1, progress=False)
    assert {FrameStore(store).open(*key).width for key in FrameStore(store).halves} == {24, 48, 36, 30}
    paths = {stage: recipe_of(stage, tmp_path / stage, (root, store, data[2])) for stage in STAGES}
    words = ["--training.eval_strategy", "epoch", "--training.dataloader_num_workers", "2"]
    log = pretrain(load_recipe(paths["pretrain"], words))
    assert any("eval_knn_accuracy" in entry for entry in log)
    log += distill(load_recipe(paths["distill"]))
    finetune(load_recipe(write_recipe(tmp_path / "finetune", root, store, num_train_epochs=1)))
    assert all(np.isfinite(entry["loss"]) for entry in log if "loss" in entry)


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_broke_off_ends_bit_identical(stage, data, tmp_path):
    """Weights, momentum branch, queue and pointer."""
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 30, "num_train_epochs": 2}
    recipe = load_recipe(recipe_of(stage, tmp_path, data, **settings))
    STAGES[stage](recipe)
    last = 2 * STEPS[stage]
    whole = weights(tmp_path / "output" / f"checkpoint-{last}")
    for step in range(3, last + 1):
        shutil.rmtree(tmp_path / "output" / f"checkpoint-{step}")
    (tmp_path / "output" / "recipe.yaml").unlink()
    STAGES[stage](recipe)
    assert_same(whole, weights(tmp_path / "output" / f"checkpoint-{last}"))


@pytest.mark.parametrize("stage", STAGES)
def test_accumulated_micro_batches_train_as_one_batch(stage, data, tmp_path):
    """The queue too: it is filled once a step, in the order of the whole batch."""
    ends = []
    for batch, accumulated in ((4, 1), (2, 2)):
        folder = tmp_path / str(batch)
        settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated}
        STAGES[stage](load_recipe(recipe_of(stage, folder, data, **settings)))
        ends.append(weights(folder / "output" / f"checkpoint-{STEPS[stage]}"))
    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], atol=5e-5, rtol=1e-3, msg=name)


def test_the_momentum_rises_by_half_a_cosine():
    assert cosine_momentum(0.9, 0.0) == pytest.approx(0.9)
    assert cosine_momentum(0.9, 0.5) == pytest.approx(0.95)
    assert cosine_momentum(0.9, 1.0) == pytest.approx(1.0)
    rises = np.diff([cosine_momentum(0.9, step / 20) for step in range(21)])
    assert (rises > 0).all() and rises[10] > rises[0] and rises[10] > rises[-1]


def test_the_views_are_augmented_by_their_own_settings(tmp_path):
    first, second = ContrastiveConfig(output_dir=str(tmp_path), use_cpu=True).view_augmentations
    assert (first.blur_prob, first.solarize_prob) == (1.0, 0.0)
    assert (second.blur_prob, second.solarize_prob) == (0.1, 0.2)
    assert (first.hue, first.min_crop_scale, first.mixup_alpha) == (0.1, 0.2, 0.0)


def test_bad_input_is_one_line(data, tmp_path, capsys):
    recipes = {stage: str(recipe_of(stage, tmp_path / stage, data)) for stage in STAGES}
    bank = ["--data.features"]
    for stage, words, message in (
        (
            "pretrain",
            ["--training.per_device_train_batch_size", "100"],
            "44 windows an epoch, fewer than a batch of 100",
        ),
        ("distill", ["--training.per_device_train_batch_size", "13"], "12 windows an epoch, fewer than a batch of 13"),
        ("distill", ["--model.overrides.logits_per_token", "2"], "logits_per_token"),
        ("pretrain", ["--training.ema_momentum", "2"], "`ema_momentum` is 2"),
        ("pretrain", ["--training.windows_per_half", "2"], "unknown field `windows_per_half`"),
        ("pretrain", ["--model.overrides.contrastive_config.queue_size", "0"], "queue_size"),
        ("distill", [*bank, "null"], "comedian extract-features"),
        ("distill", [*bank, "/nowhere"], "/nowhere"),
        ("distill", ["--model.overrides.distillation_config.projector_sizes", "[12, 7]"], "7"),
        ("distill", ["--model.overrides.fps", "4", "--model.overrides.tubelet_size", "1"], "features per second"),
        ("distill", ["--model.checkpoint", "x"], "not both"),
        (
            "distill",
            ["--model.config", "null", "--model.checkpoint", str(tmp_path)],
            f"`{tmp_path}` holds no config.json",
        ),
        (
            "distill",
            ["--model.config", "null", "--model.checkpoint", "/nowhere/x"],
            "`/nowhere/x` does not exist",
        ),
    ):
        assert main([stage, "--config", recipes[stage], *words]) == 2
        printed = capsys.readouterr().err
        assert message in printed.splitlines()[-1] and "Traceback" not in printed, printed


def subclass_that_notes(own: type, used: set[type]) -> type:
    """A subclass that adds `own` to `used` when it is made."""

    class Noting(own):
        def __init__(self, *args, **kwargs):
            used.add(own)
            super().__init__(*args, **kwargs)

    return Noting


@pytest.mark.parametrize("stage", STAGES)
def test_classes_are_arguments(stage, data, tmp_path):
    recipe, used = load_recipe(recipe_of(stage, tmp_path, data, max_steps=1)), set()
    kinds = ("model_class", "trainer_class", "dataset_class")
    own = dict(zip(kinds, CLASSES[stage], strict=True))
    STAGES[stage](recipe, **{kind: subclass_that_notes(each, used) for kind, each in own.items()})
    assert used == set(CLASSES[stage])
    # what it leaves is a plain backbone, whatever trained it
    assert json.loads((tmp_path / "output" / "config.json").read_text())["architectures"] == ["ComedianModel"]
    for kind, each in own.items():
        with pytest.raises(InputError, match=f"not a subclass of `{each.__name__}`"):
            STAGES[stage](recipe, **{kind: torch.nn.Linear})

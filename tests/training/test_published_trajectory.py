"""Training against a recording of the published system's: every step of six runs, from its first weights.

The recording lies in the folder named by `COMEDIAN_TRAJECTORY`, by default in `../shared/reference/training`; its
`README.md` says what it holds. The trainers and settings are those of a user, and data comes from memory. Replaced is what
is drawn at random and was recorded: the order of the samples, mixing weights, masking noise, and the second view of a clip.
"""

import functools
import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import TrainerCallback

from comedian.conversion.lightning import SPOTTING, STAGE_1, STAGE_2, published_name
from comedian.models import (
    ComedianConfig,
    ComedianForActionSpotting,
    ComedianForContrastivePretraining,
    ComedianForFeatureDistillation,
    ComedianVideoProcessor,
)
from comedian.samples.datasets import FrameWindows
from comedian.training import base_trainer
from comedian.training.contrastive_config import ContrastiveConfig
from comedian.training.contrastive_trainer import ContrastiveTrainer, cosine_momentum
from comedian.training.distillation_config import DistillationConfig
from comedian.training.distillation_trainer import DistillationTrainer
from comedian.training.spotting_config import SpottingConfig
from comedian.training.spotting_trainer import SpottingTrainer

CHECKOUT = Path(__file__).parents[2]
DEFAULT_FOLDER = CHECKOUT.parent / "shared" / "reference" / "training"
FOLDER = Path(os.environ.get("COMEDIAN_TRAJECTORY", DEFAULT_FOLDER))
# a clone of the repository alone has no recording; where one is asked for, or its neighbours lie, it must be there
AT_HAND = "COMEDIAN_TRAJECTORY" in os.environ or DEFAULT_FOLDER.parents[1].is_dir()
pytestmark = pytest.mark.skipif(not AT_HAND, reason=f"no recording: {FOLDER} is not part of the repository")

RUNS = ("stage1.vivit", "stage2.vivit", "stage3a.vivit", "stage3b.vivit", "stage1.viswin", "stage3b.viswin")
NO_AUGMENTATION = dict.fromkeys(
    ("flip_prob", "jitter_prob", "grey_prob", "blur_prob", "solarize_prob", "max_shift"), 0.0
) | {"min_crop_scale": 1.0}
# absolute, relative
TOLERANCES = {
    "loss": (5e-6, 0),
    "lr": (1e-12, 0),
    "grad_norm": (0, 5e-6),
    "ema_momentum": (1e-12, 0),
    "queue_ptr": (0, 0),
}
CONFIGS = {"1": ContrastiveConfig, "2": DistillationConfig, "3a": SpottingConfig, "3b": SpottingConfig}
RECIPES = {
    "stage 1": ("pretrain.yaml", ContrastiveConfig),
    "stage 2": ("distill.yaml", DistillationConfig),
    "stage 3a": ("finetune_head.yaml", SpottingConfig),
    "stage 3b": ("finetune.yaml", SpottingConfig),
}


@pytest.fixture(scope="module")
def story() -> dict:
    path = FOLDER / "trajectory.json"
    assert path.is_file(), f"{path} is missing; set COMEDIAN_TRAJECTORY to the folder of a recording"
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def tensors(story) -> dict[str, torch.Tensor]:
    return load_file(FOLDER / "trajectory.safetensors")


class RecordedSamples(FrameWindows):
    """Samples of the recording, one sample a "half"; `place` in the epoch's order stands in for the seed of a window."""

    def __init__(self, columns: dict[str, torch.Tensor], order: list[list[int]]):
        self.columns = columns
        self.order = order
        self.halves = ()
        self.features = ()

    def __len__(self) -> int:
        return len(self.order[0])

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        epoch, place = key
        sample = self.order[epoch][place]
        return {name: values[sample] for name, values in self.columns.items()} | {
            "seed": torch.tensor(epoch * len(self) + place)
        }


class RecordedOrder:
    """In the place of `WindowSampler`."""

    def __init__(self, dataset: RecordedSamples, seed: int):
        self.dataset = dataset
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        return ((self.epoch, place) for place in range(len(self)))


class TwoViewTrainer(ContrastiveTrainer):
    """The second view of a clip is its second pair of frames instead of a second augmentation."""

    def augment_planes(self, planes, seeds, *args, **kwargs):
        view, frames = int(seeds[0]) % 2, self.model.config.tubelet_size
        views = [clip[view * frames : (view + 1) * frames] for clip in planes]
        return super().augment_planes(views, seeds // 2, *args, **kwargs)


class Recorder(TrainerCallback):
    """What there is to compare after each step and each epoch."""

    def __init__(self, model, snapshot):
        self.steps: list[dict] = []
        self.weights: dict[int, dict[str, torch.Tensor]] = {}
        self.model, self.snapshot = model, snapshot
        self.momentum = None

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        rates = {group["lr"] for group in optimizer.param_groups}
        assert len(rates) == 1
        self.rate = rates.pop()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "grad_norm" in logs:
            step = {"loss": logs["loss"], "grad_norm": logs["grad_norm"], "lr": self.rate}
            assert logs["learning_rate"] == self.rate
            if hasattr(self.model, "queue"):
                step["queue_ptr"] = int(self.model.queue_ptr)
            if self.momentum is not None:
                step["ema_momentum"] = self.momentum
            self.steps.append(step)

    def on_epoch_end(self, args, state, control, **kwargs):
        self.weights[round(state.epoch)] = self.snapshot()


def recorded_name(name: str, stage: str) -> str:
    """Name of one of our tensors in the recording."""
    lightning_stage = {"1": STAGE_1, "2": STAGE_2}.get(stage, SPOTTING)
    if name.startswith("momentum_encoder."):
        inside = name.replace("momentum_encoder.", "comedian.spatial_encoder.")
        return "momentum_" + published_name(inside, lightning_stage)
    for head in ("projector", "predictor", "momentum_projector"):
        if name.startswith(f"{head}.layers."):
            # the activations between the layers count too
            _, _, index, kind = name.split(".")
            return f"{head}.layers.{2 * int(index)}.{kind}"
    return name if name in ("queue", "queue_ptr") else published_name(name, lightning_stage)


def in_recorded_form(name: str, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if name == "queue":
        return tensor.T
    return tensor.reshape(like.shape) if name.endswith("embeddings.projection.weight") else tensor


@dataclass
class Run:
    """One of the six runs, ours and the recorded one."""

    name: str
    steps: list[dict]
    recorded: dict
    weights: dict[int, dict[str, torch.Tensor]]
    expected: dict[int, dict[str, torch.Tensor]]
    decayed: list[str]
    not_decayed: list[str]
    modes: list[dict[str, bool]]


def model_of(stage: str, encoder: str, story: dict):
    sizes = story["sizes"]
    own = sizes[encoder]
    settings = story["settings"][f"stage {stage}"]
    fields = {
        "spatial_encoder": encoder,
        "spatial_hidden_size": own["width"],
        "spatial_depths": own["depths"] if encoder == "viswin" else [own["spatial_depth"]],
        "spatial_num_heads": own["heads"] if encoder == "viswin" else [own["spatial_heads"]],
        "spatial_window_size": own.get("window", 7),
        "temporal_depth": own["temporal_depth"],
        "temporal_num_heads": own["temporal_heads"],
        "patch_size": own["patch"],
        "image_size": [sizes["image"]] * 2,
        "tubelet_size": sizes["tubelet"],
        "num_frames": sizes["frames"],
        "num_labels": sizes["classes"],
        "drop_path_rate": settings["drop_path"],
        "hidden_dropout_prob": settings["dropout"],
    }
    if "mask_ratio" in settings:
        fields["temporal_mask_ratio"] = settings["mask_ratio"]
    if stage in "12":
        loss = ("temperature", "momentum_temperature", "contrastive_weight", "negatives")
        heads = {name: settings[name] for name in loss if name in settings}
        heads |= {"projector_sizes": sizes[f"stage {stage}"]["projector"][1:]}
        heads |= {"queue_size": sizes[f"stage {stage}"]["queue"]}
        if stage == "1":
            heads["predictor_sizes"] = sizes["stage 1"]["predictor"][1:]
            return ComedianForContrastivePretraining(ComedianConfig(**fields, contrastive_config=heads))
        return ComedianForFeatureDistillation(ComedianConfig(**fields, distillation_config=heads))
    return ComedianForActionSpotting(ComedianConfig(**fields))


@torch.no_grad()
def load_first_weights(model, stage: str, first: dict[str, torch.Tensor]) -> None:
    used = set()
    for name, tensor in model.state_dict().items():
        recorded = recorded_name(name, stage)
        untrained = stage == "1" and name.startswith("comedian.temporal_encoder.")
        if name.startswith("momentum_") or untrained or (name == "queue_ptr" and name not in first):
            continue
        value = first[recorded]
        tensor.copy_(value.T if name == "queue" else value.reshape(tensor.shape))
        used.add(recorded)
    left = {name for name in first if not name.startswith("momentum_")} - used
    assert not left, left
    if stage == "1":
        model.reset_momentum_branch()


def training_settings(stage: str, story: dict, folder: Path) -> dict:
    settings, sizes = story["settings"][f"stage {stage}"], story["sizes"]
    per_step = sizes["stage 3" if stage.startswith("3") else f"stage {stage}"]
    batch = per_step.get("clips a step") or per_step["windows a step"]
    training = {
        "output_dir": str(folder),
        "use_cpu": True,
        "num_train_epochs": settings["epochs"],
        "per_device_train_batch_size": batch,
        # the recorded peak is that of its batch
        "base_learning_rate": settings["peak_lr"] * 256 / batch,
        "warmup_steps": settings["warmup_steps"],
        "warmup_start_ratio": settings.get("warmup_start", 0.0) / settings["peak_lr"],
        "min_learning_rate_ratio": settings["floor"] / settings["peak_lr"],
        "weight_decay": settings["weight_decay"],
        "max_grad_norm": settings["clip_norm"],
        "adam_epsilon": settings["eps"],
        "adam_beta1": settings["betas"][0],
        "adam_beta2": settings["betas"][1],
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "disable_tqdm": True,
    } | NO_AUGMENTATION
    if stage == "1":
        training |= {"ema_momentum": settings["ema_start"], "second_blur_prob": 0.0, "second_solarize_prob": 0.0}
    if stage.startswith("3"):
        training |= {"mixup_alpha": settings["mixup_alpha"], "freeze_backbone": stage == "3a"}
        training |= {"load_best_model_at_end": False}
    return training


def trainer_of(stage: str, model, args, story: dict, tensors: dict):
    if stage == "1":
        dataset = RecordedSamples({"frames": tensors["clips"]}, story["order"]["clips"])
        trainer_class = TwoViewTrainer
    else:
        columns = {"frames": tensors["windows"]}
        if stage == "2":
            columns["teacher_features"] = tensors["teacher_features"]
        else:
            columns["labels"] = tensors["token_labels"].float()
        dataset = RecordedSamples(columns, story["order"]["windows"])
        trainer_class = DistillationTrainer if stage == "2" else SpottingTrainer
    side = story["sizes"]["image"]
    mean, std = [story["sizes"]["mean"]] * 3, [story["sizes"]["std"]] * 3
    processor = ComedianVideoProcessor(size={"height": side, "width": side}, image_mean=mean, image_std=std)
    return trainer_class(model, args, train_dataset=dataset, processing_class=processor)


@pytest.fixture(scope="module")
def runs(story, tensors, tmp_path_factory):
    """Each of the six runs, trained once."""

    @functools.cache
    def train(name: str) -> Run:
        with pytest.MonkeyPatch.context() as patch:
            return train_run(name, story, tensors, tmp_path_factory.mktemp("run"), patch)

    return train


def train_run(name: str, story: dict, tensors: dict, folder: Path, patch) -> Run:
    stage, _, encoder = name.removeprefix("stage").partition(".")
    model = model_of(stage, encoder, story)
    parts: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        if key.startswith(f"{name}."):
            part, _, tensor_name = key.removeprefix(f"{name}.").partition(".")
            parts[part][tensor_name] = tensor
    first = parts.pop("first")
    load_first_weights(model, stage, first)

    def snapshot() -> dict[str, torch.Tensor]:
        ours = {}
        for own_name, tensor in model.state_dict().items():
            recorded = recorded_name(own_name, stage)
            like = first.get(recorded, first.get(recorded.removeprefix("momentum_")))
            if like is not None:
                ours[recorded] = in_recorded_form(own_name, tensor, like).clone()
        return ours

    draw = base_trainer.draw_parameters

    def draw_recorded(seeds, *args, **kwargs):
        parameters = draw(seeds, *args, **kwargs)
        if stage != "1":
            parameters["mask_noise"] = tensors["mask_noise"].flatten(0, 1)[seeds]
            parameters["mixup_weights"] = tensors["mixup_weights"].flatten()[seeds]
        return parameters

    patch.setattr(base_trainer, "draw_parameters", draw_recorded)
    patch.setattr(base_trainer, "WindowSampler", RecordedOrder)
    args = CONFIGS[stage](**training_settings(stage, story, folder))
    trainer = trainer_of(stage, model, args, story, tensors)
    recorder, modes, kept = Recorder(model, snapshot), [], []
    trainer.add_callback(recorder)
    if stage == "1":
        update = model.update_momentum_branch

        def note_momentum(momentum: float):
            recorder.momentum = momentum
            update(momentum)

        patch.setattr(model, "update_momentum_branch", note_momentum)

    def note_modes(module, args, kwargs):
        trunk = model.comedian.spatial_encoder if stage == "1" else model.comedian
        modes.append({"trunk": trunk.training})
        kept.append(kwargs.get("kept_tubelets"))

    hook = model.register_forward_pre_hook(note_modes, with_kwargs=True)
    trainer.train()
    hook.remove()
    if "mask_ratio" in story["settings"][f"stage {stage}"]:
        assert torch.equal(torch.cat(kept).int(), tensors["kept_tubelets"].flatten(0, 1))
    else:
        assert kept == [None] * len(modes)
    names = trainer.get_decay_parameter_names(model)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [[recorded_name(n, stage) for n in trained if (n in names) == wanted] for wanted in (True, False)]
    recorded = story["runs"][name]
    expected = {int(part.removeprefix("epoch")): first | after for part, after in parts.items()}
    return Run(name, recorder.steps, recorded, recorder.weights, expected, *groups, modes)


def column(steps: list[dict], name: str) -> torch.Tensor:
    return torch.tensor([step[name] for step in steps], dtype=torch.float64)


def test_a_label_of_a_token_is_that_of_any_of_its_frames(story, tensors):
    frames = tensors["frame_labels"].unflatten(1, (-1, story["sizes"]["tubelet"]))
    assert torch.equal(frames.amax(dim=2), tensors["token_labels"])


@pytest.mark.parametrize("name", RUNS)
def test_every_step_is_the_published_one(name, runs, story):
    assert set(RUNS) == set(story["runs"])
    run = runs(name)
    recorded = run.recorded["steps"]
    assert len(run.steps) == len(recorded)
    assert set(run.steps[0]) == set(recorded[0])
    for quantity in recorded[0]:
        absolute, relative = TOLERANCES[quantity]
        ours, theirs = column(run.steps, quantity), column(recorded, quantity)
        torch.testing.assert_close(
            ours, theirs, atol=absolute, rtol=relative, msg=lambda text, name=quantity: f"{name}: {text}"
        )


@pytest.mark.parametrize("name", RUNS)
def test_the_weights_and_the_queue_are_the_published_ones_after_each_epoch(name, runs):
    run = runs(name)
    assert max(run.weights) in run.expected
    for epoch, expected in run.expected.items():
        ours = run.weights[epoch]
        missing = expected.keys() - ours.keys()
        assert not missing, missing
        for tensor_name, value in expected.items():
            own = ours[tensor_name]
            if tensor_name.endswith("qkv.bias"):
                # the keys' share has no gradient but rounding, which Adam scales up
                third = len(own) // 3
                own, value = torch.cat([own[:third], own[2 * third :]]), torch.cat([value[:third], value[2 * third :]])
            where = f"{tensor_name} after epoch {epoch}"
            torch.testing.assert_close(
                own.to(value.dtype), value, atol=1e-6, rtol=0, msg=lambda text, where=where: f"{where}: {text}"
            )


@pytest.mark.parametrize("name", RUNS)
def test_what_decays_and_what_is_in_training_mode(name, runs):
    run = runs(name)
    assert sorted(run.decayed) == sorted(run.recorded["decayed"])
    assert sorted(run.not_decayed) == sorted(run.recorded["not decayed"])
    assert len(run.modes) == len(run.steps)
    # the momentum branch is deterministic here on purpose, see the training guide
    assert all(modes["trunk"] == run.recorded["modes"]["trunk"] for modes in run.modes)


@pytest.mark.parametrize("folder", ["vivit-tiny-soccernet", "viswin-tiny-soccernet"])
@pytest.mark.parametrize("stage", RECIPES)
def test_the_recipes_have_the_published_schedules(stage, folder, story, tmp_path):
    (recorded,) = (values for title, values in story["schedules"].items() if title.startswith(stage))
    steps_per_epoch = int(story["schedules"]["unit"].rpartition(", ")[2].split()[0])
    file_name, config_class = RECIPES[stage]
    training = yaml.safe_load((CHECKOUT / "hub_configs" / folder / file_name).read_text())["training"]
    args = config_class(
        **training | {"output_dir": str(tmp_path), "eval_strategy": "no", "load_best_model_at_end": False}
    )
    trainer_class = {ContrastiveConfig: ContrastiveTrainer, DistillationConfig: DistillationTrainer}.get(
        config_class, SpottingTrainer
    )
    stage_number = stage.removeprefix("stage ")
    order = [[0] * (args.train_batch_size * steps_per_epoch)]
    model = model_of(stage_number, "vivit", story)
    trainer = trainer_class(model, args, train_dataset=RecordedSamples({}, order))
    *_, max_steps = trainer.set_initial_training_values(args, trainer.get_train_dataloader())[:7]
    assert max_steps == args.num_train_epochs * steps_per_epoch
    trainer.create_optimizer()
    share = trainer.create_scheduler(max_steps).lr_lambdas[0]
    for step, expected in recorded.items():
        assert share(int(step)) == pytest.approx(expected, abs=1e-12), step
    if stage == "stage 1":
        (title,) = (title for title in story if title.startswith("ema of "))
        assert trainer.schedule_steps == int(title.split()[2])
        assert args.ema_momentum == story["settings"]["stage 1"]["ema_start"]
        for step, expected in story[title].items():
            progress = int(step) / (trainer.schedule_steps - 1)
            assert cosine_momentum(args.ema_momentum, progress) == pytest.approx(expected, abs=1e-12), step

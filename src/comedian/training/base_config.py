"""Settings that all three stages share."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from enum import Enum
from operator import attrgetter
from typing import Any, ClassVar

import torch
from transformers import SchedulerType, TrainingArguments

from comedian.errors import InputError
from comedian.models.encoders_comedian import is_bfloat16_fast
from comedian.samples.augmentation import AugmentationSettings
from comedian.samples.datasets import SAMPLINGS

REFERENCE_BATCH_SIZE = 256
# the type of schedule that the fields of `StageConfig` describe, and the names in `lr_scheduler_kwargs` that it takes
COSINE = "cosine_with_min_lr"
COSINE_KWARGS = ("min_lr", "min_lr_rate", "num_cycles")
BATCH_FIELDS = ("per_device_train_batch_size", "gradient_accumulation_steps")

logger = logging.getLogger(__name__)

# settings of transformers that nothing here would follow: their only values, and why
REFUSED_SETTINGS: dict[str, tuple[Any, str]] = {
    "remove_unused_columns": (False, "windows hold no unused columns"),
    "label_smoothing_factor": (0.0, "the losses do not use it"),
    "include_for_metrics": ([], "whole halves are evaluated"),
    "batch_eval_metrics": (False, "whole halves are evaluated"),
    "eval_accumulation_steps": (None, "whole halves are evaluated"),
    "per_device_eval_batch_size": (8, "whole halves are evaluated"),
    "data_seed": (None, "windows are drawn from `seed`"),
    "train_sampling_strategy": ("random", "windows are drawn from `seed`"),
    "accelerator_config.split_batches": (False, "`per_device_train_batch_size` is the batch of each process"),
    "resume_from_checkpoint": (None, "a run resumes from the last checkpoint in `output_dir`"),
    "save_only_model": (False, "a run that was interrupted resumes with the optimizer and schedule of its checkpoint"),
    "use_liger_kernel": (False, "these models have no such kernels"),
}

# ranges of the numbers in the settings of all stages: in words, the test, and the settings
RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    (
        "0 or more, and finite",
        lambda value: 0 <= value < math.inf,
        (
            *("learning_rate", "base_learning_rate", "warmup_steps", "weight_decay", "adam_epsilon"),
            *("dataloader_num_workers", "brightness", "contrast", "saturation"),
            *("label_radius_s", "label_falloff_s", "mixup_alpha"),
        ),
    ),
    ("0 or more", lambda value: value >= 0, ("max_grad_norm",)),
    ("1 or more", lambda value: value >= 1, (*BATCH_FIELDS, "windows_per_half")),
    (
        "between 0 and 1",
        lambda value: 0 <= value <= 1,
        (
            *("flip_prob", "jitter_prob", "grey_prob", "blur_prob", "solarize_prob", "max_shift"),
            *("second_blur_prob", "second_solarize_prob"),
            *("min_learning_rate_ratio", "warmup_start_ratio", "layer_decay", "ema_momentum"),
        ),
    ),
    ("between 0 and 0.5", lambda value: 0 <= value <= 0.5, ("hue",)),
    ("above 0 and at most 1", lambda value: 0 < value <= 1, ("min_crop_scale",)),
    ("above 0 and below 1", lambda value: 0 < value < 1, ("average_decay",)),
    ("0 or more and below 1", lambda value: 0 <= value < 1, ("adam_beta1", "adam_beta2")),
    ("above 0, and finite", lambda value: 0 < value < math.inf, ("schedule_epochs",)),
    ("between 0 and 4294967295", lambda value: 0 <= value < 2**32, ("seed",)),
)

# what transformers raises for a setting: TypeError for missing `lr_scheduler_kwargs`, KeyError for an unknown `log_level`,
# the last two for a file of settings
SETTING_ERRORS = (ValueError, TypeError, KeyError, ImportError, RuntimeError, FileNotFoundError, NotADirectoryError)
# of the optimizer, for a message
OPTIMIZER_SETTINGS = "`optim` or `optim_args`"


@contextmanager
def setting_errors(names: str = "training settings") -> Iterator[None]:
    """Turn what transformers raises for a setting into `InputError`, such as for a package that is not installed.

    Args:
        names: the settings that the block follows, for the message.

    Raises:
        InputError: in place of one of `SETTING_ERRORS`.
    """
    try:
        yield
    except InputError:
        raise
    except SETTING_ERRORS as error:
        raise InputError(f"invalid {names}: {' '.join(str(error).split())}") from error


@dataclass
class StageConfig(TrainingArguments):
    r"""
    Settings of [`StageTrainer`]: those of [`transformers.TrainingArguments`] and the ones below.

    Defaults that differ from `TrainingArguments`: AdamW with `weight_decay` 0.05, cosine to a floor (`lr_scheduler_type`),
    clipping at 1, saving and logging once an epoch, whole batches only (`dataloader_drop_last`: a last, smaller batch
    would be filled up with the epoch's first windows on several processes, but not on one), buffers not synchronised
    by DDP (`ddp_broadcast_buffers`). `fp16` is for accelerators, `bf16` for accelerators and CPUs with bfloat16
    instructions; elsewhere training is in float32, with a warning.

    With `dataloader_num_workers` 0, the default, threads on all cores read the next batch; with more, so many processes do.

    Of two fields for one thing, `learning_rate` and `base_learning_rate`, or `min_learning_rate_ratio` and
    `lr_scheduler_kwargs`, the one that is given holds; two that contradict are refused. A field that is set later, as by a
    hyperparameter search, replaces the other.

    Args:
        learning_rate (`float`, *optional*): Peak learning rate.
        base_learning_rate (`float`, *optional*): Peak learning rate for a total batch of 256; `learning_rate` becomes
            `base_learning_rate * batch / 256`. The published one of the stage where neither is given.
        min_learning_rate_ratio (`float`, *optional*): Floor of the cosine as a share of the peak; the published one of the
            stage by default.
        warmup_start_ratio (`float`, *optional*): Learning rate of the first warm-up step as a share of the peak; the
            published one of the stage by default.
        schedule_epochs (`float`, *optional*): Epochs that the schedules of learning rate and momentum are laid out
            over; as many as are trained by default. With more, training stops before the schedules end. A share in
            `warmup_steps` is one of this length.
        flip_prob (`float`): Probability of a horizontal flip.
        jitter_prob (`float`): Probability of colour jitter.
        brightness (`float`): Range of the brightness factor around 1.
        contrast (`float`): Range of the contrast factor around 1.
        saturation (`float`): Range of the saturation factor around 1.
        hue (`float`): Range of the hue shift in turns of the colour circle of HSV.
        grey_prob (`float`): Probability that the colours go.
        blur_prob (`float`): Probability of a Gaussian blur of 23 taps, sigma 0.1 to 2 pixels.
        solarize_prob (`float`): Probability that bright values are inverted.
        min_crop_scale (`float`): Smallest share of the area that a random crop keeps; 1 for no crop. Crops are taken from
            the frames as they are stored: those of a store that keeps the videos' aspect are 1.33 to 2.21 times as wide as
            high where the frames are 398 x 224 pixels.
        max_shift (`float`): Largest translation as a share of the sides.
    """

    # overridden defaults
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's weight decay."})
    lr_scheduler_type: str = field(default="cosine_with_min_lr", metadata={"help": "Schedule of the learning rate."})
    warmup_steps: float = field(default=0.0, metadata={"help": "Warm-up steps, or a share of all steps below 1."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Norm that gradients are clipped to."})
    save_strategy: str = field(default="epoch", metadata={"help": "When a checkpoint is written."})
    logging_strategy: str = field(default="epoch", metadata={"help": "When the loss is logged."})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Drop the last, smaller batch."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Windows hold no unused columns."})
    ddp_broadcast_buffers: bool | None = field(default=False, metadata={"help": "Queues are equal on all processes."})
    report_to: str | list[str] = field(default="none", metadata={"help": "`tensorboard`, `trackio`, ..."})
    # transformers' annotation lacks the values that it takes
    fsdp: bool | str | list[str] | None = field(default=None, metadata={"help": "Shard the weights with FSDP."})

    # a loss that is not finite ends the run, see `StageTrainer`, and is not hidden from the logs
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Omit losses that are not finite from the logs."}
    )

    # learning rate
    learning_rate: float | None = field(default=None, metadata={"help": "Peak learning rate."})
    base_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate for a total batch of 256, scaled linearly."}
    )
    min_learning_rate_ratio: float | None = field(
        default=None, metadata={"help": "Floor of the cosine as a share of the peak."}
    )
    warmup_start_ratio: float | None = field(
        default=None, metadata={"help": "Learning rate of the first warm-up step as a share of the peak."}
    )
    schedule_epochs: float | None = field(
        default=None, metadata={"help": "Epochs that the schedules are laid out over; by default those trained."}
    )

    # augmentation
    flip_prob: float = field(default=0.5, metadata={"help": "Probability of a horizontal flip."})
    jitter_prob: float = field(default=0.8, metadata={"help": "Probability of colour jitter."})
    brightness: float = field(default=0.4, metadata={"help": "Range of the brightness factor around 1."})
    contrast: float = field(default=0.4, metadata={"help": "Range of the contrast factor around 1."})
    saturation: float = field(default=0.4, metadata={"help": "Range of the saturation factor around 1."})
    hue: float = field(default=0.0, metadata={"help": "Range of the hue shift in turns of the colour circle."})
    grey_prob: float = field(default=0.0, metadata={"help": "Probability that the colours go."})
    blur_prob: float = field(default=0.5, metadata={"help": "Probability of a Gaussian blur."})
    solarize_prob: float = field(default=0.0, metadata={"help": "Probability that bright values are inverted."})
    min_crop_scale: float = field(default=1.0, metadata={"help": "Smallest share of the area a random crop keeps."})
    max_shift: float = field(default=0.0, metadata={"help": "Largest translation as a share of the sides."})

    # settings that a stage does not follow
    refused: ClassVar[dict[str, tuple[Any, str]]] = REFUSED_SETTINGS
    # of fields that are `None` unless given
    published: ClassVar[dict[str, float]] = {
        "base_learning_rate": 1e-3,
        "min_learning_rate_ratio": 0.01,
        "warmup_start_ratio": 0.0,
    }

    def __post_init__(self):
        self._check_ranges()
        # transformers refuses `bf16` on a machine without accelerator unless `use_cpu` is set
        if not torch.accelerator.is_available():
            self.use_cpu = True
        super().__post_init__()
        # mypy does not follow TrainingArguments, whose attribute it is
        if self.mixed_precision == "fp16" and self.device.type == "cpu":  # type: ignore[has-type]
            logger.warning(
                "`fp16` has no effect on a CPU, training is in float32; set `bf16: true` for mixed precision"
            )
            self.fp16, self.mixed_precision = False, "no"
        if self.mixed_precision == "bf16" and not is_bfloat16_fast(self.device):
            logger.warning(
                "this CPU has no bfloat16 instructions and would emulate them slowly; training is in float32"
            )
            self.bf16, self.mixed_precision = False, "no"
        self._settle_learning_rate()
        self._check_schedule()
        for name, (only, reason) in self.refused.items():
            value = attrgetter(name)(self)
            if value != only:
                shown = value.value if isinstance(value, Enum) else value
                raise ValueError(f"`{name}` is {shown!r}, but {reason}; remove it")

    def _check_ranges(self) -> None:
        for words, holds, names in RANGES:
            for name in names:
                value = getattr(self, name, None)
                if value is not None and not holds(value):
                    raise ValueError(f"`{name}` is {value}; must be {words}")
        if self.max_steps <= 0 and not 0 < self.num_train_epochs < math.inf:
            raise ValueError(
                f"`num_train_epochs` is {self.num_train_epochs}; must be above 0, and finite, unless `max_steps` is given"
            )

    def __setattr__(self, name: str, value) -> None:
        """Set a field; of the two fields of the learning rate, the other follows once both are settled."""
        super().__setattr__(name, value)
        if "_settled" not in self.__dict__:
            return
        if name == "learning_rate":
            self.__dict__["base_learning_rate"] = None
        elif name in ("base_learning_rate", *BATCH_FIELDS) and self.base_learning_rate is not None:
            self.__dict__["learning_rate"] = self._scaled_learning_rate()

    def _scaled_learning_rate(self) -> float:
        batch = self.train_batch_size * self.gradient_accumulation_steps * self.world_size
        return self.base_learning_rate * batch / REFERENCE_BATCH_SIZE

    def _settle_learning_rate(self) -> None:
        """Derive `learning_rate` from `base_learning_rate`, unless it is given."""
        given = self.learning_rate
        if given is None and self.base_learning_rate is None:
            self.base_learning_rate = self.published["base_learning_rate"]
        if self.base_learning_rate is not None:
            self.learning_rate = self._scaled_learning_rate()
            if given is not None and not math.isclose(given, self.learning_rate, rel_tol=1e-6):
                raise ValueError(
                    f"`learning_rate` {given:g} contradicts `base_learning_rate` {self.base_learning_rate:g}, which makes "
                    f"it {self.learning_rate:g}; give one of them and set the other to null"
                )
        self._settled = True

    def _check_schedule(self) -> None:
        """Reject settings of the schedule that contradict each other or that the type of schedule does not take."""
        if self.lr_scheduler_type == COSINE:
            self.cosine_settings()
        else:
            for name in ("min_learning_rate_ratio", "warmup_start_ratio"):
                if getattr(self, name) is not None:
                    kind = SchedulerType(self.lr_scheduler_type).value
                    raise ValueError(
                        f"`{name}` is given, which `lr_scheduler_type` `{kind}` does not take; set it to null, or use "
                        f"`{COSINE}`"
                    )
        if self.schedule_epochs is not None and self.max_steps <= 0 and self.schedule_epochs < self.num_train_epochs:
            raise ValueError(
                f"`schedule_epochs` {self.schedule_epochs:g} is less than `num_train_epochs` "
                f"{self.num_train_epochs:g}; the schedules must be as long as the training, or longer"
            )

    def cosine_settings(self) -> dict[str, float]:
        """Settings of the schedule `cosine_with_min_lr`.

        Returns:
            `start` and `floor`, shares of the peak, and `num_cycles` of the cosine (0.5 falls once).

        Raises:
            ValueError: `lr_scheduler_kwargs` has an unknown name or contradicts `min_learning_rate_ratio`.
        """
        kwargs = self.lr_scheduler_kwargs or {}
        for name in kwargs:
            if name not in COSINE_KWARGS:
                raise ValueError(
                    f"`lr_scheduler_kwargs` has the unknown name `{name}`; {COSINE} takes {', '.join(COSINE_KWARGS)}"
                )
        floors = {
            "min_learning_rate_ratio": self.min_learning_rate_ratio,
            "lr_scheduler_kwargs.min_lr_rate": kwargs.get("min_lr_rate"),
            "lr_scheduler_kwargs.min_lr": kwargs["min_lr"] / (self.learning_rate or 1.0)
            if "min_lr" in kwargs
            else None,
        }
        given = {name: floor for name, floor in floors.items() if floor is not None}
        (first, floor), *others = given.items() or [("", self.published["min_learning_rate_ratio"])]
        for name, other in others:
            if not math.isclose(floor, other, rel_tol=1e-6):
                raise ValueError(
                    f"`{first}` and `{name}` contradict each other ({floor:g} and {other:g} of the peak); give one of them"
                )
        if not 0 <= floor <= 1:
            raise ValueError(f"`{first}` makes the floor {floor:g} of the peak; must be between 0 and 1")
        start = self.published["warmup_start_ratio"] if self.warmup_start_ratio is None else self.warmup_start_ratio
        return {"start": start, "floor": floor, "num_cycles": kwargs.get("num_cycles", 0.5)}

    def __getstate__(self) -> dict:
        """All but the token: `training_args.bin` is a pickle of the settings, which goes where checkpoints go."""
        return self.__dict__ | {"hub_token": None}

    @property
    def augmentation(self) -> AugmentationSettings:
        """The settings of the augmentation alone."""
        names = [item.name for item in fields(AugmentationSettings) if hasattr(self, item.name)]
        return AugmentationSettings(**{name: getattr(self, name) for name in names})


@dataclass
class WindowConfig(StageConfig):
    r"""
    Settings of the stages that train on windows, 2 and 3; beside those of [`StageConfig`]:

    Args:
        windows_per_half (`int`): Windows drawn from each half in an epoch.
        sampling (`str`): How the windows of a half are drawn. `"disjoint"`: both edges in every epoch, the others at
            random starts without overlap among them. `"parts"`: one at random within each of `windows_per_half` equal
            parts of the half. `"random"`: one start in each equal part of all possible starts; windows may overlap.
            `"edges"`: the same, with the edges of a half in about as many windows as its middle.
    """

    windows_per_half: int = field(default=25, metadata={"help": "Windows drawn from each half in an epoch."})
    sampling: str = field(default="disjoint", metadata={"help": "`disjoint`, `parts`, `random` or `edges`."})

    def __post_init__(self):
        super().__post_init__()
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"`sampling` is {self.sampling!r}; must be one of {', '.join(SAMPLINGS)}")

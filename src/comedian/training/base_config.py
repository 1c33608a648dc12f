"""Settings that all three stages share."""

from dataclasses import dataclass, field, fields

import torch
from transformers import TrainingArguments

from comedian.data.augmentation import AugmentationSettings
from comedian.data.window_dataset import SAMPLINGS

REFERENCE_BATCH_SIZE = 256


@dataclass
class StageConfig(TrainingArguments):
    r"""
    Settings of [`StageTrainer`]: those of [`transformers.TrainingArguments`] and the ones below.

    Defaults that differ from `TrainingArguments`: AdamW with `weight_decay` 0.05, cosine to a floor (`lr_scheduler_type`),
    clipping at 1, saving and logging once an epoch, whole batches only (`dataloader_drop_last`: a last, smaller batch would
    be filled up with the epoch's first windows on several processes, but not on one), buffers left alone by DDP
    (`ddp_broadcast_buffers`).

    Args:
        base_learning_rate (`float`, *optional*): Learning rate for a total batch of 256; `learning_rate` becomes
            `base_learning_rate * batch / 256`. `None` takes `learning_rate` as it is.
        min_learning_rate_ratio (`float`): Floor of the cosine, as a share of the learning rate.
        flip_prob (`float`): Probability of a horizontal flip.
        jitter_prob (`float`): Probability of colour jitter.
        brightness (`float`): Range of the brightness factor around 1.
        contrast (`float`): Range of the contrast factor around 1.
        saturation (`float`): Range of the saturation factor around 1.
        hue (`float`): Range of the hue shift in turns of the colour circle.
        grey_prob (`float`): Probability that the colours go.
        blur_prob (`float`): Probability of a Gaussian blur.
        solarize_prob (`float`): Probability that bright values are inverted.
        min_crop_scale (`float`): Smallest share of the area that a random crop keeps; 1 for no crop.
        max_shift (`float`): Largest translation as a share of the sides.
    """

    # overridden defaults
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's weight decay."})
    lr_scheduler_type: str = field(default="cosine_with_min_lr", metadata={"help": "Schedule of the learning rate."})
    warmup_steps: float = field(default=0.0, metadata={"help": "Warm-up steps, or a share of all steps below 1."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Norm that gradients are clipped to."})
    save_strategy: str = field(default="epoch", metadata={"help": "When a checkpoint is written."})
    logging_strategy: str = field(default="epoch", metadata={"help": "When the loss is logged."})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Leave out the last, smaller batch."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Windows hold no unused columns."})
    ddp_broadcast_buffers: bool | None = field(default=False, metadata={"help": "Queues are equal on all processes."})
    report_to: str | list[str] = field(default="none", metadata={"help": "`tensorboard`, `trackio`, ..."})

    # learning rate
    base_learning_rate: float | None = field(
        default=1e-3, metadata={"help": "Learning rate for a total batch of 256, scaled linearly; None to switch off."}
    )
    min_learning_rate_ratio: float = field(
        default=0.01, metadata={"help": "Floor of the cosine as a share of the learning rate."}
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

    def __post_init__(self):
        # transformers refuses `bf16` on a machine without accelerator unless it is told to use the CPU
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        super().__post_init__()
        if self.base_learning_rate is not None:
            batch = self.train_batch_size * self.gradient_accumulation_steps * self.world_size
            self.learning_rate = self.base_learning_rate * batch / REFERENCE_BATCH_SIZE
        if self.lr_scheduler_type == "cosine_with_min_lr":
            self.lr_scheduler_kwargs = {"min_lr_rate": self.min_learning_rate_ratio}
        if not 0 < self.min_crop_scale <= 1:
            raise ValueError(f"`min_crop_scale` is {self.min_crop_scale}; must be above 0 and at most 1")

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
        sampling (`str`): `"disjoint"`: no overlap, both edges always taken; `"random"`; or `"edges"`: random, with the edges
            of a half as often as its middle.
    """

    windows_per_half: int = field(default=25, metadata={"help": "Windows drawn from each half in an epoch."})
    sampling: str = field(default="disjoint", metadata={"help": "`disjoint`, `random` or `edges`."})

    def __post_init__(self):
        super().__post_init__()
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"`sampling` is {self.sampling!r}; must be one of {', '.join(SAMPLINGS)}")
        if self.windows_per_half < 1:
            raise ValueError(f"`windows_per_half` is {self.windows_per_half}; must be 1 or more")

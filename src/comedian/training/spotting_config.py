"""Settings of stage 3, fine-tuning to action spotting."""

from dataclasses import dataclass, field, fields

import torch
from transformers import TrainingArguments

from comedian.data.augmentation import AugmentationSettings
from comedian.data.window_dataset import SAMPLINGS

REFERENCE_BATCH_SIZE = 256


@dataclass
class SpottingConfig(TrainingArguments):
    r"""
    Settings of [`SpottingTrainer`]: those of [`transformers.TrainingArguments`] and the ones below.

    Defaults that differ from `TrainingArguments`: AdamW with `weight_decay` 0.05, cosine to a floor (`lr_scheduler_type`),
    no warm-up, clipping at 1, evaluation, saving and logging once an epoch, the best model by validation tight average-mAP
    loaded at the end, whole batches only (`dataloader_drop_last`).

    Args:
        base_learning_rate (`float`, *optional*, defaults to 1e-3): Learning rate for a total batch of 256; `learning_rate`
            becomes `base_learning_rate * batch / 256`. `None` takes `learning_rate` as it is.
        min_learning_rate_ratio (`float`, defaults to 0.01): Floor of the cosine, as a share of the learning rate.
        layer_decay (`float`, *optional*): Factor of the learning rate from one layer to the one below (layer-wise decay).
        freeze_backbone (`bool`, defaults to `False`): Train the classifier alone (stage 3a).
        windows_per_half (`int`, defaults to 25): Windows drawn from each half in an epoch.
        sampling (`str`, defaults to `"disjoint"`): `"disjoint"`: no overlap, both edges always taken; or `"random"`.
        label_radius_s (`float`, defaults to 0.5): A frame within this time of an event carries its label.
        flip_prob (`float`, defaults to 0.5): Probability of a horizontal flip.
        jitter_prob (`float`, defaults to 0.8): Probability of colour jitter.
        brightness (`float`, defaults to 0.4): Range of the brightness factor around 1.
        contrast (`float`, defaults to 0.4): Range of the contrast factor around 1.
        saturation (`float`, defaults to 0.4): Range of the saturation factor around 1.
        blur_prob (`float`, defaults to 0.5): Probability of a Gaussian blur.
        max_shift (`float`, defaults to 0.0): Largest translation as a share of the sides.
        mixup_alpha (`float`, defaults to 0.1): Mixing weights are drawn from Beta(alpha, alpha); 0 for none.
    """

    # overridden defaults
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Windows per device and step."})
    num_train_epochs: float = field(default=20, metadata={"help": "Epochs."})
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's weight decay."})
    lr_scheduler_type: str = field(default="cosine_with_min_lr", metadata={"help": "Schedule of the learning rate."})
    warmup_steps: float = field(default=0.0, metadata={"help": "Warm-up steps, or a share of all steps below 1."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Norm that gradients are clipped to."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When the validation halves are scored."})
    save_strategy: str = field(default="epoch", metadata={"help": "When a checkpoint is written."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept: the best and the last."})
    logging_strategy: str = field(default="epoch", metadata={"help": "When the loss is logged."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the best checkpoint."})
    metric_for_best_model: str | None = field(
        default="average_map_tight", metadata={"help": "Validation metric that chooses the best checkpoint."}
    )
    greater_is_better: bool | None = field(default=True, metadata={"help": "Whether larger metrics are better."})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Leave out the last, smaller batch."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Windows hold no unused columns."})
    report_to: str | list[str] = field(default="none", metadata={"help": "`tensorboard`, `trackio`, ..."})

    # learning rate
    base_learning_rate: float | None = field(
        default=1e-3, metadata={"help": "Learning rate for a total batch of 256, scaled linearly; None to switch off."}
    )
    min_learning_rate_ratio: float = field(
        default=0.01, metadata={"help": "Floor of the cosine as a share of the learning rate."}
    )
    layer_decay: float | None = field(
        default=None, metadata={"help": "Learning rate factor from a layer to the one below it."}
    )

    # stage
    freeze_backbone: bool = field(default=False, metadata={"help": "Train the classifier alone (stage 3a)."})

    # windows
    windows_per_half: int = field(default=25, metadata={"help": "Windows drawn from each half in an epoch."})
    sampling: str = field(default="disjoint", metadata={"help": "`disjoint` or `random` windows."})
    label_radius_s: float = field(default=0.5, metadata={"help": "Seconds around an event that carry its label."})

    # augmentation
    flip_prob: float = field(default=0.5, metadata={"help": "Probability of a horizontal flip."})
    jitter_prob: float = field(default=0.8, metadata={"help": "Probability of colour jitter."})
    brightness: float = field(default=0.4, metadata={"help": "Range of the brightness factor around 1."})
    contrast: float = field(default=0.4, metadata={"help": "Range of the contrast factor around 1."})
    saturation: float = field(default=0.4, metadata={"help": "Range of the saturation factor around 1."})
    blur_prob: float = field(default=0.5, metadata={"help": "Probability of a Gaussian blur."})
    max_shift: float = field(default=0.0, metadata={"help": "Largest translation as a share of the sides."})
    mixup_alpha: float = field(default=0.1, metadata={"help": "Beta parameter of mixup; 0 for none."})

    def __post_init__(self):
        # transformers refuses `bf16` on a machine without accelerator unless it is told to use the CPU
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        super().__post_init__()
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"`sampling` is {self.sampling!r}; must be one of {', '.join(SAMPLINGS)}")
        if self.windows_per_half < 1:
            raise ValueError(f"`windows_per_half` is {self.windows_per_half}; must be 1 or more")
        if self.base_learning_rate is not None:
            batch = self.train_batch_size * self.gradient_accumulation_steps * self.world_size
            self.learning_rate = self.base_learning_rate * batch / REFERENCE_BATCH_SIZE
        if self.lr_scheduler_type == "cosine_with_min_lr":
            self.lr_scheduler_kwargs = {"min_lr_rate": self.min_learning_rate_ratio}

    @property
    def augmentation(self) -> AugmentationSettings:
        """The settings of the augmentation alone."""
        return AugmentationSettings(**{item.name: getattr(self, item.name) for item in fields(AugmentationSettings)})

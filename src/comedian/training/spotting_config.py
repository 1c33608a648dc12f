"""Settings of stage 3, fine-tuning to action spotting."""

from dataclasses import dataclass, field

from comedian.training.base_config import WindowConfig


@dataclass
class SpottingConfig(WindowConfig):
    r"""
    Settings of [`SpottingTrainer`]: those of [`WindowConfig`] and the ones below.

    Defaults that differ: 20 epochs of batches of 64, evaluation once an epoch, the best model by validation tight
    average-mAP loaded at the end.

    Args:
        layer_decay (`float`, *optional*): Factor of the learning rate from one layer to the one below (layer-wise decay).
        average_decay (`float`, *optional*): Score and save a moving average of the weights, of which this share stays at a
            step, such as 0.99. It finds more than the last weights while the learning rate is high.
        freeze_backbone (`bool`, defaults to `False`): Train the classifier alone (stage 3a); the backbone stays in
            evaluation mode, without temporal masking and stochastic depth.
        label_radius_s (`float`, defaults to 0.5): A frame within this time of an event carries its label.
        label_falloff_s (`float`, defaults to 0.0): Beyond that time the target falls linearly to 0 in so many seconds.
        mixup_alpha (`float`, defaults to 0.1): Mixing weights are drawn from Beta(alpha, alpha); 0 for none.
    """

    # overridden defaults
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Windows per device and step."})
    num_train_epochs: float = field(default=20, metadata={"help": "Epochs."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When the validation halves are scored."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept: the best and the last."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the best checkpoint."})
    metric_for_best_model: str | None = field(
        default="average_map_tight", metadata={"help": "Validation metric that chooses the best checkpoint."}
    )
    greater_is_better: bool | None = field(default=True, metadata={"help": "Whether larger metrics are better."})

    layer_decay: float | None = field(
        default=None, metadata={"help": "Learning rate factor from a layer to the one below it."}
    )
    average_decay: float | None = field(
        default=None, metadata={"help": "Score and save a moving average of the weights that keeps this share a step."}
    )
    freeze_backbone: bool = field(default=False, metadata={"help": "Train the classifier alone (stage 3a)."})
    label_radius_s: float = field(default=0.5, metadata={"help": "Seconds around an event that carry its label."})
    label_falloff_s: float = field(
        default=0.0, metadata={"help": "Seconds beyond the radius in which the target falls to 0."}
    )
    mixup_alpha: float = field(default=0.1, metadata={"help": "Beta parameter of mixup; 0 for none."})

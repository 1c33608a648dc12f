"""Settings of stage 1, contrastive training of the spatial encoder."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from comedian.samples.augmentation import AugmentationSettings
from comedian.training.base_config import StageConfig


@dataclass
class ContrastiveConfig(StageConfig):
    r"""
    Settings of [`ContrastiveTrainer`]: those of [`StageConfig`] and the ones below; the defaults are the published ones.
    The published run has `schedule_epochs` 200 with `warmup_steps` 0.05 too, so that it stops halfway through its schedules.

    Defaults that differ: 100 epochs of batches of 1024 clips, a tenth of them warm-up, `base_learning_rate` 5e-4 falling to
    0, a nearest-neighbour probe on labelled seconds once an epoch (`eval_strategy: "no"` where there are no labels), and the
    published augmentation of the first view.

    Args:
        ema_momentum (`float`, defaults to 0.99): Momentum of the slow branch at the start; rises to 1 by a cosine.
        second_blur_prob (`float`, defaults to 0.1): `blur_prob` of the second view.
        second_solarize_prob (`float`, defaults to 0.2): `solarize_prob` of the second view.
    """

    # overridden defaults
    per_device_train_batch_size: int = field(default=1024, metadata={"help": "Clips per device and step."})
    num_train_epochs: float = field(default=100, metadata={"help": "Epochs."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Warm-up steps, or a share of all steps below 1."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When labelled seconds are probed."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept."})
    saturation: float = field(default=0.2, metadata={"help": "Range of the saturation factor around 1."})
    hue: float = field(default=0.1, metadata={"help": "Range of the hue shift in turns of the colour circle."})
    grey_prob: float = field(default=0.2, metadata={"help": "Probability that the colours go."})
    blur_prob: float = field(default=1.0, metadata={"help": "Probability of a Gaussian blur of the first view."})
    min_crop_scale: float = field(default=0.2, metadata={"help": "Smallest share of the area a random crop keeps."})

    ema_momentum: float = field(default=0.99, metadata={"help": "Momentum of the slow branch at the start."})
    second_blur_prob: float = field(default=0.1, metadata={"help": "Probability of a blur of the second view."})
    second_solarize_prob: float = field(
        default=0.2, metadata={"help": "Probability that bright values of the second view are inverted."}
    )

    published: ClassVar[dict[str, float]] = {
        "base_learning_rate": 5e-4,
        "min_learning_rate_ratio": 0.0,
        "warmup_start_ratio": 0.0,
    }

    @property
    def view_augmentations(self) -> tuple[AugmentationSettings, AugmentationSettings]:
        """The augmentation of each of the two views."""
        first = self.augmentation
        return first, replace(first, blur_prob=self.second_blur_prob, solarize_prob=self.second_solarize_prob)

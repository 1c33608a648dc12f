"""Settings of stage 2, distillation of a feature bank."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from comedian.training.base_config import REFUSED_SETTINGS, WindowConfig


@dataclass
class DistillationConfig(WindowConfig):
    r"""
    Settings of [`DistillationTrainer`]: those of [`WindowConfig`]; the defaults are the published ones.

    Defaults that differ: 100 epochs of batches of 32 windows, one in each of 38 parts of a half (`sampling: parts`),
    a tenth of the steps warm-up from a hundredth, `base_learning_rate` 4e-3 falling to a hundredth, and stronger colours.
    """

    refused: ClassVar[dict[str, tuple[Any, str]]] = REFUSED_SETTINGS | {
        "eval_strategy": ("no", "stage 2 has no evaluation"),
        "eval_on_start": (False, "stage 2 has no evaluation"),
    }
    published: ClassVar[dict[str, float]] = {
        "base_learning_rate": 4e-3,
        "min_learning_rate_ratio": 0.01,
        "warmup_start_ratio": 0.01,
    }

    per_device_train_batch_size: int = field(default=32, metadata={"help": "Windows per device and step."})
    num_train_epochs: float = field(default=100, metadata={"help": "Epochs."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Warm-up steps, or a share of all steps below 1."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept."})
    windows_per_half: int = field(default=38, metadata={"help": "Windows drawn from each half in an epoch."})
    sampling: str = field(default="parts", metadata={"help": "`disjoint`, `parts`, `random` or `edges`."})
    brightness: float = field(default=0.8, metadata={"help": "Range of the brightness factor around 1."})
    contrast: float = field(default=0.8, metadata={"help": "Range of the contrast factor around 1."})
    hue: float = field(default=0.2, metadata={"help": "Range of the hue shift in turns of the colour circle."})
    grey_prob: float = field(default=0.2, metadata={"help": "Probability that the colours go."})
    solarize_prob: float = field(default=0.2, metadata={"help": "Probability that bright values are inverted."})

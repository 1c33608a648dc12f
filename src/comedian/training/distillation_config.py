"""Settings of stage 2, distillation of a feature bank."""

from dataclasses import dataclass, field

from comedian.training.base_config import WindowConfig


@dataclass
class DistillationConfig(WindowConfig):
    r"""
    Settings of [`DistillationTrainer`]: those of [`WindowConfig`]; the defaults are the published ones.

    Defaults that differ: 100 epochs of batches of 32 windows, 38 of them jittered in each half, a tenth of the steps
    warm-up, `base_learning_rate` 4e-3 falling to a hundredth, and stronger colours.
    """

    per_device_train_batch_size: int = field(default=32, metadata={"help": "Windows per device and step."})
    num_train_epochs: float = field(default=100, metadata={"help": "Epochs."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Warm-up steps, or a share of all steps below 1."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept."})
    base_learning_rate: float | None = field(
        default=4e-3, metadata={"help": "Learning rate for a total batch of 256, scaled linearly; None to switch off."}
    )
    windows_per_half: int = field(default=38, metadata={"help": "Windows drawn from each half in an epoch."})
    sampling: str = field(default="random", metadata={"help": "`disjoint`, `random` or `edges`."})
    brightness: float = field(default=0.8, metadata={"help": "Range of the brightness factor around 1."})
    contrast: float = field(default=0.8, metadata={"help": "Range of the contrast factor around 1."})
    hue: float = field(default=0.2, metadata={"help": "Range of the hue shift in turns of the colour circle."})
    grey_prob: float = field(default=0.2, metadata={"help": "Probability that the colours go."})
    solarize_prob: float = field(default=0.2, metadata={"help": "Probability that bright values are inverted."})

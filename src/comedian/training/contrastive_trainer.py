"""Trainer of stage 1: clips of one tubelet in two views, momentum branch, nearest-neighbour probe."""

import math

from torch import Tensor

from comedian.errors import InputError
from comedian.evaluation.nearest_neighbours import nearest_neighbour_probe
from comedian.samples.datasets import HalfDataset
from comedian.training.base_trainer import QueuedTrainer, planes_of


class ContrastiveTrainer(QueuedTrainer):
    """Train [`ComedianForContrastivePretraining`].

    Args:
        model: the model.
        args: the settings.
        train_dataset: clips.
        eval_dataset: annotated halves to find neighbours in, and halves to look for.
        processing_class: the model's processor; saved with every checkpoint.
        kwargs: as [`transformers.Trainer`].

    Raises:
        InputError: an adapter of PEFT that is not the same in both branches.
    """

    title = "Stage 1: contrastive pre-training of the spatial encoder"
    metrics = ("knn_accuracy",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if hasattr(self.model, "peft_config"):
            try:
                # PEFT starts half of each pair of matrices at random
                self.model.reset_momentum_branch()
            except (RuntimeError, ValueError):
                raise InputError(
                    "the adapter is not the same in the momentum branch, which follows the online one; give "
                    '`target_modules` that match both, such as ["qkv"]'
                ) from None

    def recorded_halves(self) -> dict[str, HalfDataset]:
        """Halves of each split; those of validation serve the probe."""
        asked = self.eval_dataset and {"validation": self.eval_dataset[1]}
        train = getattr(self.train_dataset, "halves", None)
        return ({"train": train} if train else {}) | (asked or {})

    def augment_windows(self, windows: dict[str, Tensor]) -> dict[str, Tensor]:
        """`frames` and `seed` of a batch to two views."""
        planes = planes_of(windows)
        # neighbouring seeds draw unrelated numbers
        views = [
            self.augment_planes(planes, 2 * windows["seed"] + view, settings)[0]
            for view, settings in enumerate(self.args.view_augmentations)
        ]
        return {"pixel_values_videos": views[0], "second_view": views[1]}

    def after_optimizer_step(self) -> None:
        """Move the queue, and the momentum branch by the schedule."""
        super().after_optimizer_step()
        # `global_step` still counts the steps before this one: the first has the start, the last one exactly 1
        progress = min(self.state.global_step / max(self.schedule_steps - 1, 1), 1.0)
        self.model.update_momentum_branch(cosine_momentum(self.args.ema_momentum, progress))

    def evaluate(
        self,
        eval_dataset: tuple[HalfDataset, HalfDataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Measure how well nearest neighbours predict the labels of one-second clips, see [`nearest_neighbour_probe`].

        Returns:
            `{prefix}_knn_accuracy`, a fraction.
        """
        known, asked = self.eval_dataset if eval_dataset is None else eval_dataset
        model = self.whole_model()
        training = model.training
        model.eval()
        accuracy = nearest_neighbour_probe(model.comedian, self.processing_class, known, asked)
        model.train(training)
        metrics = {f"{metric_key_prefix}_knn_accuracy": accuracy}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def cosine_momentum(start: float, progress: float) -> float:
    """Momentum that rises from `start` to 1 by half a cosine; `progress` from 0 to 1."""
    return 1 - (1 - start) * (1 + math.cos(math.pi * progress)) / 2

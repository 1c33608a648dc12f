"""Trainer of stage 2: windows with a teacher's features."""

from torch import Tensor

from comedian.models.modeling_comedian import keep_tubelets
from comedian.training.base_trainer import QueuedTrainer


class DistillationTrainer(QueuedTrainer):
    """Train [`ComedianForFeatureDistillation`] on a [`DistillationDataset`] with the settings of [`DistillationConfig`]."""

    title = "Stage 2: distillation of a teacher's features"

    def recorded_features(self) -> str | None:
        """What made the feature bank."""
        features = getattr(self.train_dataset, "features", None)
        return features[0].source if features else None

    def augment_windows(self, windows: dict[str, Tensor]) -> dict[str, Tensor]:
        """`frames`, `teacher_features` and `seed` of a batch to the arguments of the model's `forward`."""
        planes = self.planes_of(windows["frames"])
        pixels, parameters = self.augment_planes(planes, windows["seed"], self.args.augmentation)
        inputs = {"pixel_values_videos": pixels, "teacher_features": windows["teacher_features"]}
        kept = keep_tubelets(parameters["mask_noise"], self.model.config.temporal_mask_ratio)
        return inputs if kept is None else inputs | {"kept_tubelets": kept}

"""Trainer of stage 2: windows with a teacher's features."""

from collections.abc import Sequence

from torch import Tensor

from comedian.features.bank import HalfFeatures
from comedian.models.modeling_comedian import keep_tubelets
from comedian.training.base_trainer import QueuedTrainer, planes_of


class DistillationTrainer(QueuedTrainer):
    """Train [`ComedianForFeatureDistillation`] on a [`DistillationDataset`] with the settings of [`DistillationConfig`]."""

    title = "Stage 2: distillation of a teacher's features"

    def recorded_feature_files(self) -> Sequence[HalfFeatures]:
        """The files of the feature bank, one a training half."""
        return getattr(self.train_dataset, "features", ())

    def augment_windows(self, windows: dict[str, Tensor]) -> dict[str, Tensor]:
        """`frames`, `teacher_features` and `seed` of a batch to the arguments of the model's `forward`."""
        pixels, parameters = self.augment_planes(planes_of(windows), windows["seed"], self.args.augmentation)
        inputs = {"pixel_values_videos": pixels, "teacher_features": windows["teacher_features"]}
        kept = keep_tubelets(parameters["mask_noise"], self.model.config.temporal_mask_ratio)
        return inputs if kept is None else inputs | {"kept_tubelets": kept}

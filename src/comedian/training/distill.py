"""Stage 2 from a recipe: windows with a teacher's features, the backbone that stage 3 starts from."""

from comedian.errors import InputError
from comedian.features.bank import FeatureBank
from comedian.models import ComedianForFeatureDistillation
from comedian.samples.datasets import DistillationDataset, WindowShape
from comedian.training.base_trainer import build_processor
from comedian.training.distillation_config import DistillationConfig
from comedian.training.distillation_trainer import DistillationTrainer
from comedian.training.extension import chosen_class
from comedian.training.recipe import Recipe
from comedian.training.stage import build_model, load_halves, read_log_history, read_settings, save_backbone, train


def distill(
    recipe: Recipe,
    resume: bool = True,
    *,
    model_class: type[ComedianForFeatureDistillation] | None = None,
    trainer_class: type[DistillationTrainer] | None = None,
    dataset_class: type[DistillationDataset] | None = None,
) -> list[dict]:
    """Distil a teacher's features into a backbone (contrastive) and save it in `training.output_dir`.

    A run that was interrupted resumes from its last checkpoint, and a finished one is left as it is.

    Args:
        recipe: from `load_recipe`.
        resume: continue the run in the output folder; otherwise start from scratch.
        model_class, trainer_class, dataset_class: subclasses in place of the stage's own and of the recipe's `classes`.

    Returns:
        What was logged: loss, similarities, spread.

    Raises:
        InputError: an invalid field or class, missing data, fewer windows than a batch, a feature bank that does not fit.
        RunChanged: the output folder holds a run of other settings or data, and `resume` is set.
    """
    args = read_settings(recipe.training, DistillationConfig)
    if recipe.data.features is None:
        raise InputError("`data.features` is missing; make a feature bank with `comedian extract-features`")
    model_class = chosen_class(recipe, "model", model_class, ComedianForFeatureDistillation)
    model = build_model(model_class, recipe.model, recipe.folder)
    config = model.config
    (halves,) = load_halves(recipe.data, config, ["train"], annotated=False)
    shape = WindowShape(config.num_frames, config.tubelet_size, args.windows_per_half, args.sampling)
    feature_dim = config.distillation_config.projector_sizes[-1]
    trainer_class = chosen_class(recipe, "trainer", trainer_class, DistillationTrainer)
    dataset_class = chosen_class(recipe, "dataset", dataset_class, DistillationDataset)
    trainer = trainer_class(
        model,
        args,
        train_dataset=dataset_class(halves, shape, FeatureBank(recipe.data.features), feature_dim),
        processing_class=build_processor(config),
    )
    if not train(trainer, recipe, resume):
        return read_log_history(args.output_dir)
    save_backbone(trainer, recipe, parts=["spatial_encoder", "temporal_encoder"])
    return trainer.state.log_history

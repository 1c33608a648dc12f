"""Stage 1 from a recipe: clips, contrastive model, the spatial encoder that stages 2 and 3 start from."""

from comedian.models import ComedianForContrastivePretraining
from comedian.samples.datasets import ClipDataset
from comedian.training.base_trainer import build_processor
from comedian.training.contrastive_config import ContrastiveConfig
from comedian.training.contrastive_trainer import ContrastiveTrainer
from comedian.training.extension import chosen_class
from comedian.training.recipe import Recipe
from comedian.training.stage import (
    build_model,
    load_halves,
    read_log_history,
    read_settings,
    refuse_features,
    save_backbone,
    train,
)


def pretrain(
    recipe: Recipe,
    resume: bool = True,
    *,
    model_class: type[ComedianForContrastivePretraining] | None = None,
    trainer_class: type[ContrastiveTrainer] | None = None,
    dataset_class: type[ClipDataset] | None = None,
) -> list[dict]:
    """Train a spatial encoder without labels and leave it in `training.output_dir`.

    Labels serve the nearest-neighbour probe alone. A run that was interrupted resumes from its last
    checkpoint, and a finished one is left as it is.

    Args:
        recipe: from `load_recipe`.
        resume: continue the run in the output folder; otherwise start from scratch.
        model_class, trainer_class, dataset_class: subclasses in place of the stage's own and of the recipe's `classes`.

    Returns:
        What was logged: loss, similarities, spread, probes.

    Raises:
        InputError: an invalid field or class, missing data, fewer clips than a batch.
        RunChanged: the output folder holds a run of other settings or data, and `resume` is set.
    """
    args = read_settings(recipe.training, ContrastiveConfig)
    refuse_features(recipe.data)
    model_class = chosen_class(recipe, "model", model_class, ComedianForContrastivePretraining)
    model = build_model(model_class, recipe.model, recipe.folder)
    (train_halves,) = load_halves(recipe.data, model.config, ["train"], annotated=False)
    probed = args.eval_strategy != "no" or args.eval_on_start
    trainer_class = chosen_class(recipe, "trainer", trainer_class, ContrastiveTrainer)
    dataset_class = chosen_class(recipe, "dataset", dataset_class, ClipDataset)
    trainer = trainer_class(
        model,
        args,
        train_dataset=dataset_class(train_halves, model.config.tubelet_size),
        eval_dataset=tuple(load_halves(recipe.data, model.config, ["train", "validation"])) if probed else None,
        processing_class=build_processor(model.config),
    )
    if not train(trainer, recipe, resume):
        return read_log_history(args.output_dir)
    save_backbone(trainer, recipe, parts=["spatial_encoder"])
    return trainer.state.log_history

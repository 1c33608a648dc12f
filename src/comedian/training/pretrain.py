"""Stage 1 from a recipe: clips, contrastive model, the spatial encoder that stages 2 and 3 start from."""

from comedian.data.window_dataset import ClipDataset
from comedian.models import ComedianForContrastivePretraining
from comedian.training.base_trainer import build_processor
from comedian.training.contrastive_config import ContrastiveConfig
from comedian.training.contrastive_trainer import ContrastiveTrainer
from comedian.training.recipe import Recipe
from comedian.training.stage import build_model, load_halves, read_settings, save_backbone, train


def pretrain(recipe: Recipe, resume: bool = True) -> list[dict]:
    """Train a spatial encoder without labels and leave it in `training.output_dir`.

    Labels serve the nearest-neighbour probe alone. A run that broke off goes on from its last checkpoint.

    Args:
        recipe: from `load_recipe`.
        resume: go on from the last checkpoint, if there is one.

    Returns:
        What was logged: loss, similarities, spread, probes.

    Raises:
        InputError: a field that cannot be, data that is not there, fewer clips than a batch.
    """
    args = read_settings(recipe.training, ContrastiveConfig)
    model = build_model(ComedianForContrastivePretraining, recipe.model, recipe.folder)
    fps = model.config.fps
    (train_halves,) = load_halves(recipe.data, fps, ["train"], annotated=False)
    probed = args.eval_strategy != "no"
    trainer = ContrastiveTrainer(
        model,
        args,
        train_dataset=ClipDataset(train_halves, model.config.tubelet_size),
        eval_dataset=tuple(load_halves(recipe.data, fps, ["train", "validation"])) if probed else None,
        processing_class=build_processor(model.config),
    )
    train(trainer, resume)
    save_backbone(trainer, recipe, parts=["spatial_encoder"])
    return trainer.state.log_history

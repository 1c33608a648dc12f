"""Stage 3 from a recipe: data, model, trainer, thresholds, the folder that is published."""

import json
from pathlib import Path

from comedian.data.window_dataset import WindowDataset, WindowShape
from comedian.evaluation.spotting_evaluator import average_map_of, choose_thresholds
from comedian.files import atomic_write_text
from comedian.models import ComedianForActionSpotting
from comedian.training.recipe import Recipe
from comedian.training.spotting_config import SpottingConfig
from comedian.training.spotting_trainer import SpottingTrainer
from comedian.training.stage import build_model, build_processor, load_halves, read_labels, read_settings, train


def finetune(recipe: Recipe, resume: bool = True) -> dict[str, dict]:
    """Train a spotting model as the recipe says and leave the best one in `training.output_dir`.

    A run that broke off goes on from its last checkpoint.

    Args:
        recipe: from `load_recipe`.
        resume: go on from the last checkpoint, if there is one.

    Returns:
        Official scores on the validation split (`tight`, `loose`, fractions).

    Raises:
        InputError: a field that cannot be, data that is not there.
    """
    args = read_settings(recipe.training, SpottingConfig)
    model = build_model(ComedianForActionSpotting, recipe.model, recipe.folder, read_labels(recipe.data))
    config = model.config
    train_halves, validation_halves = load_halves(recipe.data, config.fps, ["train", "validation"])
    shape = WindowShape(config.num_frames, config.tubelet_size, args.windows_per_half, args.sampling)
    trainer = SpottingTrainer(
        model,
        args,
        train_dataset=WindowDataset(train_halves, shape, args.label_radius_s),
        eval_dataset=validation_halves,
        processing_class=build_processor(config),
    )
    train(trainer, resume)
    return finish(trainer, recipe)


def finish(trainer: SpottingTrainer, recipe: Recipe) -> dict[str, dict]:
    """Choose thresholds, save model, processor, recipe, learning curve and validation scores; return the scores."""
    halves, config = trainer.eval_dataset, trainer.model.config
    spots = trainer.spot_halves(halves)
    config.label_thresholds = choose_thresholds(spots, halves, config.label_names)
    scores = average_map_of(spots, halves)
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        output = Path(trainer.args.output_dir)
        atomic_write_text(output / "validation_scores.json", json.dumps(scores, indent=1) + "\n")
        # last: a folder that has it is done
        recipe.save(output / "recipe.yaml")
    return scores

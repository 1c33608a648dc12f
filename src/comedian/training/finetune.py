"""Stage 3 from a recipe: data, model, trainer, thresholds, the folder that is published."""

from pathlib import Path

from comedian.files import read_json
from comedian.hub.model_card import SCORES_SUFFIX
from comedian.models import ComedianForActionSpotting
from comedian.samples.datasets import TargetSettings, WindowDataset, WindowShape
from comedian.training.base_trainer import build_processor
from comedian.training.extension import chosen_class
from comedian.training.recipe import Recipe
from comedian.training.spotting_config import SpottingConfig
from comedian.training.spotting_trainer import SpottingTrainer
from comedian.training.stage import build_model, load_halves, read_labels, read_settings, refuse_features, train


def finetune(
    recipe: Recipe,
    resume: bool = True,
    *,
    model_class: type[ComedianForActionSpotting] | None = None,
    trainer_class: type[SpottingTrainer] | None = None,
    dataset_class: type[WindowDataset] | None = None,
) -> dict[str, dict]:
    """Train a spotting model with a recipe and save the best one in `training.output_dir`.

    A run that was interrupted resumes from its last checkpoint, and a finished one is left as it is.

    Args:
        recipe: from `load_recipe`.
        resume: continue the run in the output folder; otherwise start from scratch.
        model_class, trainer_class, dataset_class: subclasses in place of the stage's own and of the recipe's `classes`.

    Returns:
        Official scores on the validation split (`tight`, `loose`, fractions).

    Raises:
        InputError: an invalid field or class, missing data, fewer windows than a batch.
        RunChanged: the output folder holds a run of other settings or data, and `resume` is set.
    """
    args = read_settings(recipe.training, SpottingConfig)
    refuse_features(recipe.data)
    model_class = chosen_class(recipe, "model", model_class, ComedianForActionSpotting)
    model = build_model(model_class, recipe.model, recipe.folder, read_labels(recipe.data))
    config = model.config
    train_halves, validation_halves = load_halves(recipe.data, config, ["train", "validation"])
    if config.sound:
        train_halves.check_sound()
    shape = WindowShape(config.num_frames, config.tubelet_size, args.windows_per_half, args.sampling)
    targets = TargetSettings(
        args.label_radius_s, args.label_falloff_s, config.logits_per_token, config.offset_radius_s
    )
    trainer_class = chosen_class(recipe, "trainer", trainer_class, SpottingTrainer)
    dataset_class = chosen_class(recipe, "dataset", dataset_class, WindowDataset)
    trainer = trainer_class(
        model,
        args,
        train_dataset=dataset_class(train_halves, shape, targets, config.sound),
        eval_dataset=validation_halves,
        processing_class=build_processor(config),
    )
    if not train(trainer, recipe, resume):
        # missing if `comedian tune` has changed the settings they were computed with
        path = Path(args.output_dir) / f"validation{SCORES_SUFFIX}"
        return read_json(path) if path.is_file() else {}
    scores = trainer.finish()
    if trainer.is_world_process_zero():
        # last: a folder that has it is done
        recipe.save(Path(args.output_dir) / "recipe.yaml")
    if args.push_to_hub:
        trainer.push_to_hub()
    return scores

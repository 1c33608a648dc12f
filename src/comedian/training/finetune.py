"""Stage 3 from a recipe: data, model, trainer, thresholds, the folder that is published."""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, set_seed
from transformers.trainer_utils import get_last_checkpoint

from comedian.data.annotations import SOCCERNET_V2_LABELS, read_label_list
from comedian.data.frame_store import FrameStore
from comedian.data.soccernet import SoccerNet
from comedian.data.window_dataset import HalfDataset, WindowDataset, WindowShape
from comedian.errors import InputError
from comedian.evaluation.spotting_evaluator import average_map_of, choose_thresholds
from comedian.files import atomic_write_text
from comedian.models import ComedianConfig, ComedianForActionSpotting, ComedianModel, ComedianVideoProcessor
from comedian.training.recipe import DataSection, ModelSection, Recipe
from comedian.training.spotting_config import SpottingConfig
from comedian.training.spotting_trainer import SpottingTrainer


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
    args = read_settings(recipe.training)
    # before the model is made: its initial weights depend on the seed
    set_seed(args.seed)
    labels = read_label_list(recipe.data.labels) if recipe.data.labels else SOCCERNET_V2_LABELS
    model = build_model(recipe.model, labels, recipe.folder)
    processor = build_processor(model.config)
    train_halves, validation_halves = load_halves(recipe.data, labels, model.config.fps, ("train", "validation"))
    shape = WindowShape(
        num_frames=model.config.num_frames,
        tubelet_size=model.config.tubelet_size,
        windows_per_half=args.windows_per_half,
        sampling=args.sampling,
        label_radius_s=args.label_radius_s,
    )
    trainer = SpottingTrainer(
        model,
        args,
        train_dataset=WindowDataset(train_halves, shape),
        eval_dataset=validation_halves,
        processing_class=processor,
    )
    checkpoint = get_last_checkpoint(args.output_dir) if resume and Path(args.output_dir).is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)
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
        recipe.save(output / "recipe.yaml")
        atomic_write_text(output / "validation_scores.json", json.dumps(scores, indent=1) + "\n")
    return scores


def read_settings(training: dict[str, Any]) -> SpottingConfig:
    """Build the settings from a recipe's `training` section.

    Raises:
        InputError: an unknown field, a value that cannot be, no `output_dir`.
    """
    known = {item.name for item in fields(SpottingConfig) if item.init}
    for name in training:
        if name not in known:
            raise InputError(f"the recipe's section `training` has the unknown field `{name}`; see `SpottingConfig`")
    if not training.get("output_dir"):
        raise InputError("`training.output_dir` is missing; say where the model goes")
    try:
        return SpottingConfig(**training)
    except (ValueError, TypeError) as error:
        raise InputError(f"the recipe's section `training`: {' '.join(str(error).split())}") from None


def build_model(section: ModelSection, labels: Sequence[str], folder: Path) -> ComedianForActionSpotting:
    """Make the model from scratch, or load the checkpoint with a classifier for these labels."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    try:
        if section.config is not None:
            path = folder / section.config
            if not path.is_file():
                raise InputError(f"`model.config` is `{path}`, which is no file")
            return ComedianForActionSpotting(ComedianConfig.from_pretrained(path, **names, **section.overrides))
        config = AutoConfig.from_pretrained(section.checkpoint, **section.overrides)
        if config.model_type != ComedianConfig.model_type:
            raise InputError(f"`model.checkpoint` `{section.checkpoint}` is a {config.model_type} model, not comedian")
        if config.label_names == list(labels):
            return ComedianForActionSpotting.from_pretrained(section.checkpoint, config=config)
        backbone = ComedianModel.from_pretrained(section.checkpoint, config=config)
        fields_of_labels = dict.fromkeys(("class_weights", "label_thresholds"))
        model = ComedianForActionSpotting(
            ComedianConfig.from_dict(config.to_dict() | {"nms_window_s": 10.0} | fields_of_labels | names)
        )
        model.comedian.load_state_dict(backbone.state_dict())
        return model
    except (StrictDataclassError, OSError) as error:
        raise InputError(f"the recipe's section `model`: {' '.join(str(error).split())}") from None


def build_processor(config: ComedianConfig) -> ComedianVideoProcessor:
    """Processor for the model's image size."""
    height, width = config.image_size
    return ComedianVideoProcessor(size={"height": height, "width": width})


def load_halves(
    data: DataSection, labels: Sequence[str], fps: float, splits: Sequence[str], annotated: bool = True
) -> list[HalfDataset]:
    """Open the halves of some splits.

    Raises:
        InputError: a missing path or split, or halves without annotations where they are needed.
    """
    for name in ("root", "frames"):
        if getattr(data, name) is None:
            raise InputError(f"`data.{name}` is missing; give it in the recipe or as `--data.{name} FOLDER`")
    store = FrameStore(data.frames)
    builder = SoccerNet(data_dir=data.root, labels=list(labels), splits=data.splits)
    builder.download_and_prepare()
    halves = []
    for split in splits:
        if split not in builder.info.splits:
            raise InputError(f"`{data.root}` has no split `{split}`; it has {', '.join(builder.info.splits)}")
        rows = list(builder.as_dataset(split=split))
        if annotated and not any(row["annotated"] for row in rows):
            raise InputError(f"no half of the split `{split}` in `{data.root}` has a label file")
        halves.append(HalfDataset([row for row in rows if row["annotated"] or not annotated], store, labels, fps))
    return halves

"""What running a stage takes, whichever it is: settings, model, processor, halves, and where a broken run goes on."""

import copy
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, set_seed
from transformers.trainer_callback import TrainerState

from comedian.data.annotations import SOCCERNET_V2_LABELS, read_label_list
from comedian.data.frame_store import FrameStore
from comedian.data.model_names import find_model
from comedian.data.soccernet import SoccerNet
from comedian.data.window_dataset import HalfDataset
from comedian.errors import InputError
from comedian.models import (
    ComedianConfig,
    ComedianForContrastivePretraining,
    ComedianForFeatureDistillation,
    ComedianModel,
    ComedianPreTrainedModel,
    ComedianVideoProcessor,
)
from comedian.models.configuration_comedian import CHOSEN_ON_VALIDATION
from comedian.training.base_config import StageConfig
from comedian.training.base_trainer import StageTrainer
from comedian.training.recipe import DataSection, ModelSection, Recipe

Settings = TypeVar("Settings", bound=StageConfig)
Model = TypeVar("Model", bound=ComedianPreTrainedModel)


def read_settings(training: dict[str, Any], settings_class: type[Settings]) -> Settings:
    """Build the settings from a recipe's `training` section, and seed everything: a model's first weights depend on it.

    Raises:
        InputError: an unknown field, a value that cannot be, no `output_dir`.
    """
    known = {item.name for item in fields(settings_class) if item.init}
    for name in training:
        if name not in known:
            raise InputError(
                f"the recipe's section `training` has the unknown field `{name}`; see `{settings_class.__name__}`"
            )
    if not training.get("output_dir"):
        raise InputError("`training.output_dir` is missing; say where the model goes")
    try:
        settings = settings_class(**training)
    except (ValueError, TypeError) as error:
        raise InputError(f"the recipe's section `training`: {' '.join(str(error).split())}") from None
    set_seed(settings.seed)
    return settings


def build_model(
    model_class: type[Model], section: ModelSection, folder: Path, labels: Sequence[str] | None = None
) -> Model:
    """Make a model from scratch, or around the backbone of a checkpoint; what the checkpoint lacks starts afresh.

    Args:
        model_class: the stage's.
        section: the recipe's `model`.
        folder: the recipe's, where `model.config` starts from.
        labels: for a model with a classifier: a checkpoint of the same labels keeps its own.

    Raises:
        InputError: no such file or checkpoint, or fields that cannot be.
    """
    names = (
        {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
        if labels
        else {}
    )
    try:
        if section.config is not None:
            path = folder / section.config
            if not path.is_file():
                raise InputError(f"`model.config` is `{path}`, which is no file")
            return model_class(ComedianConfig.from_pretrained(path, **names, **section.overrides))
        stored, place = load_config(section.checkpoint), find_model(section.checkpoint)
        if stored.model_type != ComedianConfig.model_type:
            raise InputError(f"`model.checkpoint` `{section.checkpoint}` is a {stored.model_type} model, not comedian")
        new_labels = labels and stored.label_names != list(labels)
        # what belongs to the labels of another data set does not count here
        fields_of_labels = {"class_weights": None, **dict.fromkeys(CHOSEN_ON_VALIDATION)} if new_labels else {}
        if new_labels and isinstance(stored.nms_window_s, list):
            fields_of_labels["nms_window_s"] = ComedianConfig.nms_window_s
        config = ComedianConfig.from_dict(stored.to_dict() | fields_of_labels | names | dict(section.overrides))
        if labels and not new_labels and config.logits_per_token == stored.logits_per_token:
            model = model_class.from_pretrained(
                place.source, subfolder=place.subfolder, config=config, use_safetensors=True
            )
            model.config.name_or_path = section.checkpoint
            return model
        backbone, loading = ComedianModel.from_pretrained(
            place.source, subfolder=place.subfolder, config=config, use_safetensors=True, output_loading_info=True
        )
        backbone.config.name_or_path = section.checkpoint
        model = model_class(backbone.config)
        model.comedian.load_state_dict(backbone.state_dict())
        if isinstance(model, ComedianForContrastivePretraining):
            model.reset_momentum_branch()
        if (
            isinstance(model, ComedianForFeatureDistillation)
            and "temporal_encoder.norm.weight" in loading["missing_keys"]
        ):
            model.start_temporal_encoder()
        return model
    except InputError:
        raise
    except (StrictDataclassError, OSError, ValueError, RuntimeError, AttributeError, SafetensorError) as error:
        raise InputError(f"the recipe's section `model`: {' '.join(str(error).split())}") from None


def load_config(checkpoint: str) -> PreTrainedConfig:
    """Read the configuration of a checkpoint of any kind.

    Raises:
        InputError: there is none, or it names no model that is known, or an ensemble.
    """
    place = find_model(checkpoint)
    try:
        return AutoConfig.from_pretrained(place.source, subfolder=place.subfolder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"`model.checkpoint` `{checkpoint}` has no configuration to load: {reason}") from None


def build_processor(config: ComedianConfig) -> ComedianVideoProcessor:
    """Processor for the model's image size."""
    height, width = config.image_size
    return ComedianVideoProcessor(size={"height": height, "width": width})


def read_labels(data: DataSection) -> Sequence[str]:
    """The data set's labels: those of its file, or SoccerNet-v2's."""
    return read_label_list(data.labels) if data.labels else SOCCERNET_V2_LABELS


def load_halves(data: DataSection, fps: float, splits: Sequence[str], annotated: bool = True) -> list[HalfDataset]:
    """Open the halves of some splits.

    Raises:
        InputError: a missing path or split, or halves without annotations where they are needed.
    """
    for name in ("root", "frames"):
        if getattr(data, name) is None:
            raise InputError(f"`data.{name}` is missing; give it in the recipe or as `--data.{name} FOLDER`")
    store, labels = FrameStore(data.frames), read_labels(data)
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


def train(trainer: StageTrainer, resume: bool) -> None:
    """Train, from the last checkpoint of a run that broke off if there is one and `resume` is set.

    Raises:
        InputError: the windows, or clips, of an epoch are fewer than a batch.
    """
    args, windows = trainer.args, len(trainer.train_dataset)
    batch = args.train_batch_size * args.world_size
    if windows < batch and args.dataloader_drop_last:
        raise InputError(
            f"the training split has {windows} windows an epoch, fewer than a batch of {batch} on all processes; lower "
            "`training.per_device_train_batch_size`"
        )
    output = Path(args.output_dir)
    checkpoint = last_checkpoint(output) if resume else None
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def last_checkpoint(output: Path) -> Path | None:
    """Return the last checkpoint that a run wrote to its end; one that broke off is written again when its step comes.

    transformers writes a checkpoint file by file, the state of the Trainer last.
    """
    checkpoints = [path for path in output.glob("checkpoint-*") if _is_whole(path)]
    return max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    except (OSError, ValueError, TypeError):
        return False
    return True


def save_backbone(trainer: StageTrainer, recipe: Recipe, parts: Sequence[str]) -> None:
    """Leave the trained backbone alone in the output folder: no heads, no momentum branch, no queue.

    Args:
        trainer: after training.
        recipe: saved beside it.
        parts: the modules of [`ComedianModel`] that were trained; the others are left out and start afresh when it is
            loaded.
    """
    trainer.save_state()
    model, output = trainer.whole_model(), Path(trainer.args.output_dir)
    if not trainer.is_world_process_zero():
        return
    config = copy.deepcopy(model.config)
    config.contrastive_config = config.distillation_config = None
    backbone = ComedianModel(config)
    weights = {
        name: tensor.contiguous()
        for name, tensor in model.comedian.state_dict().items()
        if name.startswith(tuple(f"{part}." for part in parts))
    }
    backbone.save_pretrained(output, state_dict=weights)
    trainer.processing_class.save_pretrained(output)
    trainer.record().save(output)
    recipe.save(output / "recipe.yaml")

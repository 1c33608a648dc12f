"""What all stages share: settings, model, halves of the data set, and resuming an interrupted run."""

import copy
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig, set_seed
from transformers.trainer_callback import TrainerState

from comedian.errors import InputError, suggest
from comedian.files import atomic_path, read_json
from comedian.hub.model_record import RECORD_FILE_NAME, hash_weights, read_record
from comedian.inference.loading import LOADING_ERRORS
from comedian.inference.model_names import find_model
from comedian.models import (
    ComedianConfig,
    ComedianForActionSpotting,
    ComedianForContrastivePretraining,
    ComedianForFeatureDistillation,
    ComedianModel,
    ComedianPreTrainedModel,
)
from comedian.samples.datasets import HalfDataset
from comedian.soccernet.builder import SoccerNet
from comedian.soccernet.labels import SOCCERNET_V2_LABELS, read_label_list
from comedian.training.base_config import StageConfig, setting_errors
from comedian.training.base_trainer import StageTrainer
from comedian.training.recipe import DataSection, ModelSection, Recipe, check_fields, folder_of, start_of
from comedian.training.run_facts import (
    RUN_FILE_NAME,
    STAGE_FILES,
    RunChanged,
    delete_owned,
    facts_of_stage,
    find_changes,
    find_written,
    write_facts,
)
from comedian.video.frame_store import FrameStore, same_source, source_of

logger = logging.getLogger(__name__)

Settings = TypeVar("Settings", bound=StageConfig)
Model = TypeVar("Model", bound=ComedianPreTrainedModel)

# AttributeError: a `config.json` of another form
READING_ERRORS = (*LOADING_ERRORS, AttributeError)


def read_settings(training: Mapping[str, Any], settings_class: type[Settings]) -> Settings:
    """Build the settings from a recipe's `training` section, and set all random seeds, which initial weights depend on.

    Raises:
        InputError: an unknown field, a value of another type or out of range, or no `output_dir`.
    """
    settings = make_settings(training, settings_class)
    set_seed(settings.seed)
    return settings


def make_settings(training: Mapping[str, Any], settings_class: type[Settings]) -> Settings:
    """Build the settings from a recipe's `training` section alone; a command with several stages checks all of them first.

    Raises:
        InputError: as `read_settings`.
    """
    check_fields(training, settings_class, "the recipe's section `training`")
    if not training.get("output_dir"):
        raise InputError("`training.output_dir` is missing; give the output folder of the model")
    output = Path(training["output_dir"]).expanduser()
    if file := next((path for path in (output, *output.parents) if path.is_file()), None):
        raise InputError(f"`training.output_dir` is `{output}`, but `{file}` is a file; give a folder")
    with setting_errors():
        return settings_class(**training)


def build_model(
    model_class: type[Model], section: ModelSection, folder: Path, labels: Sequence[str] | None = None
) -> Model:
    """Build a model from scratch or from a checkpoint; weights that the checkpoint lacks are initialised.

    Args:
        model_class: class of the model of the stage.
        section: section `model` of the recipe.
        folder: folder of the recipe, which `model.config` is relative to.
        labels: for a model with a classifier: its labels; those that the checkpoint also has keep their weights.

    Raises:
        InputError: the file or checkpoint does not exist, or fields are invalid.
    """
    names: dict[str, Any] = (
        {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
        if labels
        else {}
    )
    try:
        if section.config is not None:
            return _from_config(model_class, folder / section.config, names | dict(section.overrides))
        checkpoint = start_of(section)
        stored = load_config(checkpoint)
        if stored.model_type != ComedianConfig.model_type:
            raise InputError(f"`model.checkpoint` `{checkpoint}` is a {stored.model_type} model, not comedian")
        config = effective_config(stored, section, **names)
        new_labels = labels and stored.label_names != list(labels)
        if labels and not new_labels and config.logits_per_token == stored.logits_per_token:
            return _whole_from_checkpoint(model_class, checkpoint, config)
        model = _around_backbone(model_class, checkpoint, config)
        if new_labels and ComedianForActionSpotting.__name__ in (stored.architectures or ()):
            keep_known_labels(model, _load(ComedianForActionSpotting, checkpoint)[0])
        return model
    except InputError:
        raise
    except (StrictDataclassError, OSError, ValueError) as error:
        raise _section_error(error) from None


def _section_error(error: Exception) -> InputError:
    return InputError(f"the recipe's section `model`: {' '.join(str(error).split())}")


def _from_config(model_class: type[Model], path: Path, overrides: Mapping[str, Any]) -> Model:
    """Build a model from scratch."""
    if not path.is_file():
        raise InputError(f"`model.config` is `{path}`, which is not a file")
    try:
        config = ComedianConfig.from_pretrained(path, **overrides)
    except READING_ERRORS as error:
        raise _section_error(error) from None
    try:
        return model_class(config)
    except RuntimeError as error:
        # sizes that memory does not hold, or an image model with weights of other sizes
        raise _section_error(error) from None


def _whole_from_checkpoint(model_class: type[Model], checkpoint: str, config: ComedianConfig) -> Model:
    """Load a model with its heads."""
    model, missing = _load(model_class, checkpoint, config)
    _warn_of_missing(checkpoint, missing)
    return model


def _around_backbone(model_class: type[Model], checkpoint: str, config: ComedianConfig) -> Model:
    """Load a backbone and build the model of a stage around it, with new heads."""
    backbone, missing = _load(ComedianModel, checkpoint, config)
    _warn_of_missing(checkpoint, missing)
    model = model_class(backbone.config)
    model.comedian.load_state_dict(backbone.state_dict())
    if isinstance(model, ComedianForContrastivePretraining):
        model.reset_momentum_branch()
    if isinstance(model, ComedianForFeatureDistillation) and "temporal_encoder.norm.weight" in missing:
        model.start_temporal_encoder()
    return model


def _load(
    model_class: type[Model], checkpoint: str, config: ComedianConfig | None = None
) -> tuple[Model, Collection[str]]:
    """Load a checkpoint without transformers' report on missing and unexpected weights, expected between stages.

    Returns:
        The model, and the names of the weights that the checkpoint lacks.
    """

    def is_news(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return "LOAD REPORT" not in text or "MISMATCH" in text or "CONVERSION" in text

    place, reporter = find_model(checkpoint), logging.getLogger("transformers.modeling_utils")
    reporter.addFilter(is_news)
    try:
        model, loading = model_class.from_pretrained(
            place.source,
            subfolder=place.subfolder,
            config=config,
            # steps of a small learning rate are lost in half precision; `bf16` and `fp16` compute in it
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except READING_ERRORS as error:
        raise _section_error(error) from None
    finally:
        reporter.removeFilter(is_news)
    # the trainer reads the record of the earlier stages there
    record = place.find(RECORD_FILE_NAME)
    model.config.name_or_path = checkpoint if record is None else str(record.parent)
    return model, loading["missing_keys"]


def _warn_of_missing(checkpoint: str, missing: Collection[str]) -> None:
    if spatial := sorted(name for name in missing if "spatial_encoder." in name):
        logger.warning(
            "`%s` lacks %d weights of the spatial encoder, such as `%s`; they are initialised at random",
            *(checkpoint, len(spatial), spatial[0]),
        )


@torch.no_grad()
def keep_known_labels(model: ComedianForActionSpotting, start: ComedianForActionSpotting) -> None:
    """Copy the weights beside the backbone: the rows of the heads for labels that both models have, and the audio branch.

    Args:
        model: model to change; rows of labels that `start` does not have are unchanged.
        start: model with the same backbone.
    """
    old_labels = {label: index for index, label in enumerate(start.config.label_names)}
    pairs = [(new, old_labels[label]) for new, label in enumerate(model.config.label_names) if label in old_labels]
    if not pairs:
        return
    new, old = map(list, zip(*pairs, strict=True))
    # a custom class may have another head
    is_same_head = type(model.classifier) is type(start.classifier)
    if is_same_head and model.config.logits_per_token == start.config.logits_per_token:
        for name in ("weight", "bias"):
            rows, start_rows = (
                getattr(of.classifier, name).unflatten(0, (of.config.logits_per_token, -1)) for of in (model, start)
            )
            rows[:, new] = start_rows[:, old]
    if model.config.offset_radius_s is not None and model.config.offset_radius_s == start.config.offset_radius_s:
        for name in ("weight", "bias"):
            getattr(model.offset_head, name)[new] = getattr(start.offset_head, name)[old]
    if model.config.sound and start.config.sound:
        model.sound_encoder.load_state_dict(start.sound_encoder.state_dict())


def effective_config(stored: ComedianConfig, section: ModelSection, **fields_of_data: Any) -> ComedianConfig:
    """Return the configuration of a checkpoint, with fields that the data determine and the overrides of a recipe.

    Raises:
        InputError: the fields are invalid together.
    """
    try:
        return ComedianConfig.from_dict(stored.to_dict(), **(fields_of_data | dict(section.overrides)))
    except StrictDataclassError as error:
        raise _section_error(error) from None


def load_config(checkpoint: str) -> PreTrainedConfig:
    """Read the configuration of a checkpoint of any kind.

    Raises:
        InputError: the configuration does not exist, is of an unknown model, or of an ensemble.
    """
    place = find_model(checkpoint)
    try:
        return AutoConfig.from_pretrained(place.source, subfolder=place.subfolder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"`model.checkpoint` `{checkpoint}` has no configuration to load: {reason}") from None


def read_labels(data: DataSection) -> Sequence[str]:
    """Return the labels of the data set: those of its file, or the 17 labels of SoccerNet-v2."""
    return read_label_list(data.labels) if data.labels else SOCCERNET_V2_LABELS


def refuse_features(data: DataSection) -> None:
    """Raise `InputError` if a recipe of stage 1 or 3 has `data.features`, which would have no effect."""
    if data.features is not None:
        raise InputError(f"`data.features` is `{data.features}`, which stage 2 alone uses; remove it")


def read_matches(data: DataSection) -> SoccerNet:
    """Read which matches a data set has, in which splits, with which events.

    Raises:
        InputError: the folder is missing, or a label file or a video cannot be read.
    """
    builder = SoccerNet(data_dir=folder_of(data, "root"), labels=list(read_labels(data)), splits=data.splits)
    builder.download_and_prepare()
    return builder


def is_annotated(data: DataSection, split: str) -> bool:
    """Return whether a data set has the split and a label file for at least one half of it."""
    builder = read_matches(data)
    return split in builder.info.splits and any(builder.as_dataset(split=split)["annotated"])


def load_halves(
    data: DataSection, config: ComedianConfig, splits: Sequence[str], annotated: bool = True
) -> list[HalfDataset]:
    """Open the halves of splits for a model.

    Raises:
        InputError: a path or split is missing, no half is annotated, or the frame store does not fit the model or was
            decoded from other videos.
    """
    root, frames = folder_of(data, "root"), folder_of(data, "frames")
    store, labels = FrameStore(frames), read_labels(data)
    builder, halves = read_matches(data), []
    for split in splits:
        if split not in builder.info.splits:
            raise InputError(f"`{data.root}` has no split `{split}`; it has {', '.join(builder.info.splits)}")
        rows = list(builder.as_dataset(split=split))
        if annotated and not any(row["annotated"] for row in rows):
            raise InputError(f"no half of the split `{split}` in `{data.root}` has a label file")
        rows = [row for row in rows if row["annotated"] or not annotated]
        halves.append(HalfDataset(rows, store, labels, config.fps))
        _check_frames(halves[-1], store, root, config)
    return halves


def _check_frames(halves: HalfDataset, store: FrameStore, root: str, config: ComedianConfig) -> None:
    """Check that frames were decoded from the present videos and are not smaller than the input of the model.

    Frames are stretched to `image_size` in training and in spotting, so another aspect ratio is valid. If it is not that of
    the videos, a warning is logged, as it may be a mistake.
    """
    height, width = config.image_size
    command = f"comedian prepare {root} NEW_STORE --fps {config.fps:g} --height {height} --width {width}"
    for row, half in zip(halves.rows, halves.halves, strict=True):
        if not same_source(half.source, source_of(Path(row["video_path"]))):
            raise InputError(
                f"`{half.path}` holds frames of another `{half.source['name']}` than `{row['video_path']}`; bring the "
                f"store up to date with `comedian prepare {root} {store.path}` and its settings, or give another store"
            )
        if half.height < height or half.width < width:
            raise InputError(
                f"`{store.path}` holds frames of {half.width} x {half.height} pixels, and the model takes {width} x "
                f"{height} (`image_size`), which would only enlarge them; decode larger ones: `{command}`"
            )
    chosen = store.settings.width
    if chosen is not None and not math.isclose(chosen / store.settings.height, width / height, rel_tol=0.02):
        logger.warning(
            "`%s` holds frames of %d x %d pixels, which are stretched to the model's %d x %d; unless that is the shape of "
            "the videos, decode them again: `%s`",
            *(store.path, chosen, store.settings.height, width, height, command),
        )


def train(trainer: StageTrainer, recipe: Recipe, resume: bool) -> bool:
    """Train, from the last checkpoint of an interrupted run if there is one; a finished run is unchanged.

    Args:
        trainer: trainer with model and data.
        recipe: recipe of the stage.
        resume: resume the run in the output folder; otherwise, delete the files of an earlier run first.

    Returns:
        Whether the model was trained; `False` if the folder contains the finished run of the same settings and data.

    Raises:
        InputError: an epoch has fewer windows, or clips, than a batch, no evaluation has `metric_for_best_model`, or the
            folder contains other files.
        RunChanged: the folder contains a run with other settings or data, and `resume` is set.
    """
    _check_metric(trainer)
    args, windows = trainer.args, len(trainer.train_dataset)
    batch = args.train_batch_size * args.world_size
    if windows < batch and args.dataloader_drop_last:
        raise InputError(
            f"the training split has {windows} windows an epoch, fewer than a batch of {batch} on all processes; lower "
            "`training.per_device_train_batch_size`"
        )
    output = Path(args.output_dir)
    if begin_run(trainer, recipe, resume):
        unsent = ", and nothing is uploaded to the Hub: use `comedian publish`" if args.push_to_hub else ""
        PartialState().print(
            f"`{output}` holds this run, finished: nothing is trained{unsent}; `--restart` trains it again"
        )
        return False
    checkpoint = last_checkpoint(output)
    if checkpoint is not None and trainer.is_world_process_zero():
        _relocate_best(checkpoint, output)
    PartialState().wait_for_everyone()
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except InputError:
        # if a damaged file is found before the first checkpoint, the folder does not count as a run
        if trainer.is_world_process_zero() and find_written(output, STAGE_FILES) is None:
            (output / RUN_FILE_NAME).unlink(missing_ok=True)
        raise
    return True


def _check_metric(trainer: StageTrainer) -> None:
    """Before training: transformers looks for the metric after the first evaluation."""
    name, is_evaluated = trainer.args.metric_for_best_model, trainer.args.eval_strategy != "no"
    if is_evaluated and name is not None and name.removeprefix("eval_") not in trainer.metrics:
        raise InputError(f"`training.metric_for_best_model` is `{name}`; {suggest(name, trainer.metrics)}")


def begin_run(trainer: StageTrainer, recipe: Recipe, resume: bool) -> bool:
    """Record the inputs of a run, or compare them with those in its folder; called on every process.

    Returns:
        Whether the run is finished.

    Raises:
        InputError: the folder contains another model, or its weights have changed since training.
        RunChanged: the folder contains a run with other settings or data, and `resume` is set.
    """
    output, start = Path(trainer.args.output_dir), recipe.model.checkpoint
    if start is not None and Path(start).is_dir() and Path(start).resolve().is_relative_to(output.resolve()):
        raise InputError(f"`model.checkpoint` `{start}` lies in `training.output_dir`; give another output folder")
    facts = facts_of_stage(trainer, recipe)
    found = find_changes(output, facts, STAGE_FILES)
    finished = resume and found == "" and (output / "recipe.yaml").is_file()
    record = read_record(output) if finished else None
    # no process may write before all have read
    PartialState().wait_for_everyone()
    if found and resume:
        raise RunChanged(
            output, found, "give another `training.output_dir`, or train again in this one with `--restart`"
        )
    if finished:
        if record is None or record.weights_sha256 != hash_weights(output):
            raise InputError(
                f"the weights in `{output}` are not those that its run trained; train again with `--restart`, or give "
                "another `training.output_dir`"
            )
        return True
    if trainer.is_world_process_zero():
        if not resume:
            delete_owned(output, STAGE_FILES)
        write_facts(output, facts)
    PartialState().wait_for_everyone()
    return False


def _relocate_best(checkpoint: Path, output: Path) -> None:
    """Correct the path of the best checkpoint after the output folder was moved: transformers stores it as absolute."""
    path = checkpoint / "trainer_state.json"
    state = TrainerState.load_from_json(str(path))
    if state.best_model_checkpoint is not None and Path(state.best_model_checkpoint).parent != output:
        state.best_model_checkpoint = str(output / Path(state.best_model_checkpoint).name)
        with atomic_path(path) as partial:
            state.save_to_json(str(partial))


def last_checkpoint(output: Path) -> Path | None:
    """Return the last complete checkpoint of a run, or None; an incomplete one is written again at its step.

    transformers writes a checkpoint file by file, and the state of the Trainer last.
    """
    checkpoints = [path for path in output.glob("checkpoint-*") if _is_whole(path)]
    return max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    except (OSError, ValueError, TypeError):
        return False
    return True


def read_log_history(output: str | Path) -> list[dict]:
    """Return what a finished run logged."""
    return read_json(Path(output) / "trainer_state.json")["log_history"]


def save_backbone(trainer: StageTrainer, recipe: Recipe, parts: Sequence[str]) -> None:
    """Save only the trained backbone in the output folder, without heads, momentum branch and queue, and publish it if set.

    Args:
        trainer: trainer after training.
        recipe: recipe, saved beside the backbone.
        parts: the modules of [`ComedianModel`] that were trained; the others are omitted, and initialised when the model
            is loaded.
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
    if trainer.args.push_to_hub:
        # the pushes of the training held checkpoints
        trainer.publish_output()

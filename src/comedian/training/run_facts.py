"""The inputs of a run: written into its folder when it begins, and compared when the same command is rerun.

`run.json` holds the effective settings and a fingerprint of everything else that the result depends on: labels in their
order, splits, annotations, videos, frame store, feature bank and the weights that training starts from. A rerun
of the command resumes or repeats the same run; with other inputs it is refused, and the message lists the differences.
"""

import hashlib
import inspect
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import cached_file

from comedian.errors import InputError
from comedian.files import atomic_write_text, read_json
from comedian.hub.model_record import hash_weights
from comedian.inference.loading import hash_tensors
from comedian.inference.model_names import demo_or_name
from comedian.models import ComedianConfig
from comedian.models.settings_comedian import CHOSEN_ON_VALIDATION
from comedian.samples.datasets import HalfDataset
from comedian.training.base_trainer import StageTrainer
from comedian.training.recipe import Recipe, folder_of
from comedian.training.run_record import MACHINE_SETTINGS
from comedian.video.frame_store import FrameStore, source_of

RUN_FILE_NAME = "run.json"
# beginnings of the names of settings that may differ when a run is continued or repeated
FREE_SETTINGS = (
    # of the machine, of logs, and of what is written where
    *MACHINE_SETTINGS,
    # what recomputes the same values, or says what the command itself decides
    "gradient_checkpointing",
    "activation_checkpointing",
    "do_",
    # batches of evaluation, which no score depends on
    "per_device_eval_",
    "eval_accumulation_",
    # the total batch is compared instead, so that a run may continue on another number of devices
    "per_device_train_",
    "gradient_accumulation_",
)
# with `load_best_model_at_end`, these determine which checkpoint is the best one
SAVING = ("save_strategy", "save_steps")
# fields of a configuration that say where it was saved, that other facts hold, or that a run chooses itself
FREE_FIELDS = {"_name_or_path", "transformers_version", "dtype", "architectures", "id2label", "label2id"}
FREE_FIELDS |= set(CHOSEN_ON_VALIDATION)
# facts that are hashes, one per match or half: differences list only the names
HASHED = ("annotations", "videos", "events", "sound", "features of halves", "published files")
# complete dumps of settings, to which versions of the package and of transformers add fields: only the fields that both
# sides have are compared. All other facts are compared whole.
DUMPS = {"training", "model", *(f"model.{name}" for name in ComedianConfig.sub_configs)}
# limits of one message: number of differences, length of a value
MAX_NAMED, MAX_VALUE = 8, 80
# what a stage writes into its folder, without the code, which has no state
STAGE_FILES = (
    "recipe.yaml",
    "checkpoint-*",
    "model*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "*_scores.json",
    "*_reported.json",
    "predictions_*.zip",
    "learning_curve.svg",
    "model_record.json",
    "trainer_state.json",
    "training_args.bin",
)


class RunChanged(InputError):
    """The folder contains a run with other inputs.

    Args:
        folder: folder of the run.
        found: the differences, as text.
        advice: what to do.
    """

    def __init__(self, folder: Path, found: str, advice: str):
        super().__init__(f"`{folder}` holds a run with other inputs: {found}; {advice}")
        self.folder, self.found = folder, found


def facts_of_stage(trainer: StageTrainer, recipe: Recipe) -> dict[str, Any]:
    """Return what the result of a stage depends on, before its training begins.

    Videos are read by [`source_of`]: half a megabyte each. Weights are read whole.
    """
    args, config = trainer.args, trainer.model.config
    settings = args.to_dict()
    kept = SAVING if args.load_best_model_at_end else ()
    facts = {
        "stage": trainer.title,
        "training": {
            name: value for name, value in settings.items() if name in kept or not name.startswith(FREE_SETTINGS)
        },
        "batch": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "windows of an epoch": windows_of_epoch(trainer),
        "model": {name: value for name, value in config.to_dict().items() if name not in FREE_FIELDS},
        "start weights": recipe.model.checkpoint and hash_start(recipe.model.checkpoint)[:16],
        "image model weights": hash_image_model(trainer.model) if starts_from_image_model(recipe) else None,
        "frames": asdict(FrameStore(folder_of(recipe.data, "frames")).settings),
        "classes": {
            "model": source_of_class(type(trainer.model)),
            "trainer": source_of_class(type(trainer)),
            "dataset": source_of_class(type(trainer.train_dataset)),
        },
    }
    splits = trainer.recorded_halves()
    facts |= {split: list(dict.fromkeys(row["video_id"] for row in halves.rows)) for split, halves in splits.items()}
    facts["videos"] = _of_rows(splits, lambda row: content_of(Path(row["video_path"])))
    if trainer.eval_dataset:
        # no score and no target without them
        facts["labels"] = list(splits["train"].labels)
        facts["annotations"] = _of_rows(splits, _events_of)
    if config.sound:
        facts["sound"] = {
            _key(row): 0 if (sound := half.sound()) is None else len(sound)
            for halves in splits.values()
            for row, half in zip(halves.rows, halves.halves, strict=True)
        }
    if features := trainer.recorded_feature_files():
        bank = features[0]
        facts["features"] = {name: getattr(bank, name) for name in ("source", "reduction", "fps", "dim", "dtype")}
        facts["features of halves"] = {
            _key(row): hash_of([half.video, half.num_features, half.offset_s])
            for row, half in zip(splits["train"].rows, features, strict=True)
        }
    return facts


def windows_of_epoch(trainer: StageTrainer) -> int:
    """Return the number of windows, or clips, that an epoch trains on.

    Together with the total batch, it determines the optimizer steps: the windows that `dataloader_drop_last` omits depend
    on how the batch is divided into accumulated ones.
    """
    args, windows = trainer.args, len(trainer.train_dataset)
    return windows - windows % (args.train_batch_size * args.world_size) if args.dataloader_drop_last else windows


def starts_from_image_model(recipe: Recipe) -> bool:
    """Return whether training starts from the weights of an image model.

    Computed from the recipe: the configuration of the model sets the field to `False` once the weights are loaded.
    """
    if recipe.model.config is None:
        return False
    asked = read_json(recipe.folder / recipe.model.config) | recipe.model.overrides
    return bool(asked.get("use_pretrained_backbone"))


def hash_image_model(model: PreTrainedModel) -> str:
    """Hash the image model that is the spatial encoder, before it is trained."""
    digest = hashlib.sha256()
    hash_tensors(digest, model.comedian.spatial_encoder.backbone)
    return digest.hexdigest()[:16]


def source_of_class(found: type) -> str | None:
    """Return what distinguishes a custom class from others: its name and a hash of the file that defines it.

    The version of the package identifies its own classes, and PEFT's wrappers are not trained: `None`.
    """
    if found.__module__.startswith(("comedian.", "peft.")):
        return None
    path = inspect.getsourcefile(found)
    source = b"" if path is None or not Path(path).is_file() else Path(path).read_bytes()
    return f"{found.__module__}.{found.__name__} ({hashlib.sha256(source).hexdigest()[:12]})"


def content_of(video: Path) -> dict[str, Any]:
    """Return what identifies the content of a video regardless of its name: [`source_of`] without the name."""
    return {name: value for name, value in source_of(video).items() if name != "name"}


def hash_of(value: Any) -> str:
    """Hash what JSON can hold."""
    return hashlib.sha256(_dump(value).encode()).hexdigest()[:16]


def hash_start(checkpoint: str) -> str:
    """Hash the weights of a folder, or of a Hub repository's copy here, which is fetched if need be."""
    checkpoint = demo_or_name(checkpoint)
    if Path(checkpoint).is_dir():
        return hash_weights(checkpoint)
    try:
        for name in ("model.safetensors", "model.safetensors.index.json"):
            if path := cached_file(checkpoint, name, _raise_exceptions_for_missing_entries=False):
                return hash_weights(Path(path).parent)
    except OSError as error:
        raise InputError(f"the weights of `{checkpoint}` cannot be fetched: {str(error).splitlines()[0]}") from error
    raise InputError(f"`{checkpoint}` holds no weights as safetensors; give a model that was published with comedian")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs between two sets of facts, old -> new."""
    lines = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if name in HASHED and isinstance(old, dict) and isinstance(new, dict):
            changed = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]
            lines.append(f"{name} of {_some([f'`{key}`' for key in changed])}")
        elif isinstance(old, list) and isinstance(new, list) and set(old) != set(new):
            gone, come = (
                [f"`{item}`" for item in one if item not in other] for one, other in ((old, new), (new, old))
            )
            parts = [f"{word} {_some(items)}" for word, items in (("without", gone), ("with", come)) if items]
            lines.append(f"{name} now {' and '.join(parts)}")
        else:
            lines += _differences_of_value(name, old, new)
    return lines


def _differences_of_value(name: str, old: Any, new: Any) -> list[str]:
    """List the fields that differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in old if key in new] if name in DUMPS else dict.fromkeys([*old, *new])
        return [line for key in keys for line in _differences_of_value(f"{name}.{key}", old.get(key), new.get(key))]
    return [] if old == new else [f"{name} {_short(old)} -> {_short(new)}"]


def find_changes(folder: Path, facts: Mapping[str, Any], patterns: Sequence[str]) -> str | None:
    """Compare the run in a folder with these facts.

    Args:
        folder: folder of the run.
        facts: what the run would be made from now.
        patterns: what a run writes. Until some of it is there, such as when a run ended before its first checkpoint, it may
            be rerun with other inputs.

    Returns:
        The differences in one line, empty if there are none; `None` if no run has written anything.

    Raises:
        InputError: the folder contains such files of something else.
    """
    written = find_written(folder, patterns)
    if written is None:
        return None
    if not (folder / RUN_FILE_NAME).is_file():
        raise InputError(
            f"`{folder}` holds `{written.name}` without the {RUN_FILE_NAME} of the run that wrote it; give another output "
            "folder, or delete this one"
        )
    return _some(differences(read_facts(folder), json.loads(_dump(facts))))


def read_facts(folder: Path) -> dict[str, Any]:
    """Read the facts of a run from its folder.

    Raises:
        InputError: the file cannot be read or does not hold facts.
    """
    path = folder / RUN_FILE_NAME
    facts = read_json(path)
    if not isinstance(facts, dict):
        raise InputError(f"`{path}` is not the record of a run; give another folder")
    return facts


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of a run that begins."""
    atomic_write_text(folder / RUN_FILE_NAME, _dump(facts) + "\n")


def delete_owned(folder: Path, patterns: Sequence[str]) -> None:
    """Delete only what a run wrote. If killed, it leaves no incomplete checkpoint that would be resumed from."""
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                # a checkpoint without its state is not resumed from
                (path / "trainer_state.json").unlink(missing_ok=True)
                shutil.rmtree(path)
            else:
                path.unlink()


def find_written(folder: Path, patterns: Sequence[str]) -> Path | None:
    """Return a file or folder that a run writes, or None."""
    return next((path for pattern in patterns for path in folder.glob(pattern)), None)


def _of_rows(splits: Mapping[str, HalfDataset], of: Callable[[Mapping[str, Any]], Any]) -> dict[str, str]:
    """Half -> hash of something, over all splits."""
    return {_key(row): hash_of(of(row)) for halves in splits.values() for row in halves.rows}


def _key(row: Mapping[str, Any]) -> str:
    return f"{row['video_id']}/{row['half']}"


def _events_of(row: Mapping[str, Any]) -> list[Any]:
    return [[event[name] for name in ("label", "position_ms", "visibility")] for event in row["events"]]


def _dump(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, default=str, ensure_ascii=False)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}..."


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - MAX_NAMED} more" if len(items) > MAX_NAMED else ""
    return ", ".join(items[:MAX_NAMED]) + more

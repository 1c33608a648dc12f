"""`model_record.json` beside a model's weights: what made them. The model card is written from it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from transformers.utils import cached_file

from comedian.errors import InputError
from comedian.files import atomic_write_text, read_json

RECORD_FILE_NAME = "model_record.json"
# of a model, or of an adapter of PEFT
WEIGHT_FILES = "*model*.safetensors"


@dataclass(frozen=True)
class StageRecord:
    """One stage of training, as it really went.

    Attributes:
        title: such as "Stage 3: fine-tuning to spotting".
        settings: fields of the stage's settings that differ from their defaults.
        data: split -> `matches`, `halves`, `hours` and `events`.
        features: what made the teacher's features, in stage 2.
        batch_size: windows an update, over all processes and accumulated steps.
        epochs: done.
        planned_epochs: to be done.
        train_time_s: seconds of training, evaluations and checkpoints included, over all runs that continued each other.
        hardware: device and number of processes.
        versions: package -> version.
        date: of the last save, ISO 8601.
    """

    title: str
    settings: Mapping[str, Any]
    data: Mapping[str, Mapping[str, float]]
    features: str | None
    batch_size: int
    epochs: float
    planned_epochs: float
    train_time_s: float
    hardware: str
    versions: Mapping[str, str]
    date: str


@dataclass(frozen=True)
class ModelRecord:
    """Where a model comes from.

    Attributes:
        stages: of training, in order.
        started_from: the model of other hands that the first stage started from; `None` for random weights.
        converted_from: name of the authors' checkpoint that was converted.
        averaged_from: names of the checkpoints whose mean the weights are.
        weights_sha256: hash of the weights that this is the record of, see `hash_weights`.
    """

    stages: list[StageRecord] = field(default_factory=list)
    started_from: str | None = None
    converted_from: str | None = None
    averaged_from: list[str] = field(default_factory=list)
    weights_sha256: str | None = None

    def save(self, folder: str | Path) -> None:
        """Write the record into the folder whose weights it is about."""
        content = asdict(self) | {"weights_sha256": hash_weights(folder)}
        atomic_write_text(Path(folder) / RECORD_FILE_NAME, json.dumps(content, indent=1) + "\n")


def read_record(folder: str | Path) -> ModelRecord | None:
    """Read the record of a folder; `None` if it does not exist.

    Raises:
        InputError: the file is not a record.
    """
    path = Path(folder) / RECORD_FILE_NAME
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        stages = [StageRecord(**_known(stage, StageRecord)) for stage in content["stages"]]
        return ModelRecord(**_known(content, ModelRecord) | {"stages": stages})
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"`{path}` is not a record of a model ({error!r}); delete it to publish without one"
        ) from None


def record_of_start(name_or_path: str) -> ModelRecord:
    """Record of what a new stage starts from: a checkpoint's own, its name where it has none, or random weights.

    Args:
        name_or_path: `config.name_or_path` of the model, empty for random weights.
    """
    if not name_or_path:
        return ModelRecord()
    try:
        path = cached_file(
            name_or_path,
            RECORD_FILE_NAME,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, HFValidationError):
        path = None
    record = read_record(Path(path).parent) if path else None
    if record is not None:
        return record
    # only the name of a folder, because its path is private
    return ModelRecord(started_from=Path(name_or_path).name if Path(name_or_path).is_dir() else name_or_path)


def record_of_average(folders: Sequence[str | Path]) -> ModelRecord:
    """Record of the mean of checkpoints' weights: what is recorded of the last one, and the names of all."""
    return replace(
        read_record(folders[-1]) or ModelRecord(), averaged_from=[Path(folder).resolve().name for folder in folders]
    )


def hash_weights(folder: str | Path) -> str:
    """SHA-256 over a folder's weight files, in order of their names."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob(WEIGHT_FILES)):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _known(content: Mapping[str, Any], record: type) -> dict[str, Any]:
    names = {item.name for item in fields(record)}
    return {name: value for name, value in content.items() if name in names}

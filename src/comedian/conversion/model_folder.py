"""Models created without training, saved as a folder atomically."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from comedian.errors import InputError
from comedian.hub.model_record import ModelRecord
from comedian.models import ComedianPreTrainedModel, ComedianVideoProcessor


def check_output_dir(output_dir: str | Path) -> None:
    """Raise `InputError` unless `output_dir` is missing or an empty folder."""
    output_dir = Path(output_dir)
    if output_dir.exists() and not (output_dir.is_dir() and not any(output_dir.iterdir())):
        raise InputError(f"`{output_dir}` exists already; give a new or empty folder")


@contextmanager
def new_folder(output_dir: str | Path) -> Iterator[Path]:
    """Yield `<name>.partial` beside `output_dir`; it takes its place when the block ends, and goes when the block raises.

    Raises:
        InputError: the folder holds files or cannot be written.
    """
    output_dir = Path(output_dir)
    partial = output_dir.with_name(f"{output_dir.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, output_dir)
    except OSError as error:
        raise InputError(f"`{output_dir}` cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_model(
    model: ComedianPreTrainedModel,
    processor: ComedianVideoProcessor,
    record: ModelRecord,
    output_dir: str | Path,
    parts: Sequence[str] = ("",),
) -> Path:
    """Write a model with its code, its processor and its record to a new folder.

    Args:
        model: what to write.
        processor: the model's.
        record: what made the weights.
        output_dir: a new or empty folder.
        parts: beginnings of the names of the weights that are written; the others start afresh when it is loaded.

    Raises:
        InputError: a weight is not finite, or the folder holds files or cannot be written.
    """
    with new_folder(output_dir) as partial:
        write_model(model, processor, record, partial, parts)
    return Path(output_dir)


def write_model(
    model: ComedianPreTrainedModel,
    processor: ComedianVideoProcessor,
    record: ModelRecord,
    folder: Path,
    parts: Sequence[str] = ("",),
) -> None:
    """Write what [`save_model`] does into a folder of [`new_folder`].

    Raises:
        InputError: a weight is not finite.
    """
    try:
        model.require_finite_weights()
    except ValueError as error:
        raise InputError(f"`{folder.name.removesuffix('.partial')}` is not written: {error}") from None
    weights = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(tuple(parts))}
    model.save_pretrained(folder, state_dict=weights)
    processor.save_pretrained(folder)
    record.save(folder)

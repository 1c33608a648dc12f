"""Names of models: which is a folder, which a repository of the Hugging Face Hub, and what is there. Decided here
alone."""

import logging
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from comedian.errors import InputError
from comedian.files import read_json
from comedian.hub_errors import hub_errors, hub_url

logger = logging.getLogger(__name__)

CONFIG_FILE_NAME = "config.json"
# of an adapter of PEFT
ADAPTER_FILE_NAME = "adapter_config.json"
# what the authors' code saves
CHECKPOINT_SUFFIXES = (".ckpt", ".pth", ".pt")
# of an ensemble, the models beside the first one, in folders `1`, `2`, ...
ENSEMBLE_FOLDER = "ensemble"
# the model of the demo, in a clone of the repository
DEMO_NAME = "demo"
DEMO_FOLDER = Path(__file__).parents[3] / "examples" / "demo" / "model"
REMEDY = "give a model's folder, which training or `comedian convert` wrote, or a Hub repository USER/NAME"


@dataclass(frozen=True)
class FoundModel:
    """A model that is there.

    Attributes:
        name: as it was given.
        source: a folder or a repository, as `from_pretrained` takes it.
        subfolder: of the repository; empty for its top, and for a folder on disk.
        config: content of its `config.json`; of an adapter without, that of its base model.
        base: folder or repository of the base model of such an adapter.
    """

    name: str
    source: str
    subfolder: str
    config: dict[str, Any]
    base: str | None = None

    @property
    def is_graphs(self) -> bool:
        """Whether it is what `comedian export --format openvino` wrote."""
        return "openvino" in self.config

    def find(self, file_name: str) -> Path | None:
        """Return a file of the model, downloaded where it is on the Hub; `None` if it does not exist."""
        return _file_of(self.source, f"{self.subfolder}/{file_name}".removeprefix("/"))


def is_hub_name(name: str) -> bool:
    """Whether a name that is not there on disk can be that of a repository, `USER/NAME` or `USER/NAME/FOLDER`.

    Paths are not: those that begin with `/`, `.` or `~`, end with the suffix of a checkpoint, or lead into a folder that
    is there.
    """
    user, *rest = name.rstrip("/").split("/")
    is_path = not rest or name.startswith("~") or name.endswith(CHECKPOINT_SUFFIXES) or os.path.exists(user)
    try:
        validate_repo_id("/".join([user, *rest[:1]]))
    except HFValidationError:
        return False
    return not is_path and all(part not in ("", ".", "..") for part in rest)


def demo_or_name(name: str) -> str:
    """Return the folder of the demo's model for the name `demo`, and any other name as it is.

    A folder `demo` comes before the name.

    Raises:
        InputError: `demo`, and the package is not installed from a clone of the repository.
    """
    if name != DEMO_NAME or os.path.exists(name):
        return name
    if not DEMO_FOLDER.is_dir():
        raise InputError(
            "`demo` is the model in `examples/demo/model` of the repository, which is not part of the installed package; "
            "clone the repository and install it with `pip install -e .`, or give another model"
        )
    return str(DEMO_FOLDER)


def check_name(name: str) -> None:
    """Reject a path that does not exist, without a request to the Hub.

    Raises:
        InputError: neither on disk nor the name of a repository.
    """
    if not os.path.exists(name) and not is_hub_name(name):
        raise InputError(f"`{name}` does not exist; {REMEDY}")


def find_models(name: str) -> list[FoundModel]:
    """Find a model by its name; of an ensemble, all its models.

    Args:
        name: a folder, a Hub repository `USER/NAME`, a folder in one, `USER/NAME/FOLDER`, or `demo`, see [`demo_or_name`].

    Raises:
        InputError: there is none. Where there are checkpoints of the authors' code, it names the command that converts
            them.
    """
    name = demo_or_name(name)
    first = _find(name)
    models = [first]
    # a folder in a repository is one model
    while not first.subfolder:
        member = _find(f"{name.rstrip('/')}/{ENSEMBLE_FOLDER}/{len(models)}", is_member=True)
        if member is None:
            break
        models.append(member)
    return models


def find_model(name: str) -> FoundModel:
    """Find one model by its name, see [`find_models`].

    Raises:
        InputError: there is none, or an ensemble.
    """
    model, *others = find_models(name)
    if others:
        raise InputError(
            f"`{name}` is an ensemble of {len(others) + 1} models, and one is needed here; give such as `{others[0].name}`"
        )
    return model


def read_local_config(folder: str | Path) -> dict[str, Any]:
    """Read the `config.json` of a model's folder, which must be on disk.

    Raises:
        InputError: there is none; see [`find_models`].
    """
    if not os.path.exists(folder):
        raise InputError(
            f"`{folder}` does not exist; give a model's folder, which training or `comedian convert` wrote"
        )
    return _find(str(folder)).config


def models_nearby(folder: Path) -> list[Path]:
    """Find spotting models in a folder and up to three levels below it, such as the last run's.

    Args:
        folder: where to look; hidden folders and checkpoints within a run are passed over.

    Returns:
        At most three folders, relative to `folder`, the newest first.
    """
    found = []
    for depth in range(1, 4):
        for path in folder.glob("/".join(["*"] * depth) + "/model.safetensors"):
            here = path.parent.relative_to(folder)
            if not any(part.startswith((".", "checkpoint-", ENSEMBLE_FOLDER)) for part in here.parts):
                found += [(path.stat().st_mtime, here)] if _spots(path.with_name(CONFIG_FILE_NAME)) else []
    return [path for _, path in sorted(found, reverse=True)[:3]]


def _spots(path: Path) -> bool:
    try:
        content = read_json(path)
    except InputError:
        return False
    return isinstance(content, dict) and content.get("architectures") == ["ComedianForActionSpotting"]


def checkpoints_of(name: str) -> list[str]:
    """Names of the checkpoints of the authors' code in a folder or Hub repository, in order.

    Raises:
        InputError: no such folder or repository.
    """
    check_name(name)
    if os.path.isdir(name):
        return _checkpoints(os.listdir(name))
    with hub_errors(name, "model"):
        return _checkpoints(HfApi().list_repo_files(name))


def has_config(name: str) -> bool:
    """Whether a folder or Hub repository holds a `config.json`, as models of transformers do.

    Raises:
        InputError: no such folder or repository.
    """
    check_name(name)
    return _file_of(name, CONFIG_FILE_NAME) is not None


def local_checkpoint(name: str, file_name: str) -> Path:
    """A checkpoint in a folder, or downloaded from a Hub repository.

    Raises:
        InputError: it is not there.
    """
    check_name(name)
    path = _file_of(name, file_name)
    if path is None:
        known = ", ".join(checkpoints_of(name)) or "none"
        raise InputError(f"`{name}` has no file `{file_name}`; its checkpoints: {known}")
    return path


def convert_command(source: str, *options: str) -> str:
    """The command that makes a model of a checkpoint, or of a folder or repository of them."""
    return shlex.join(["comedian", "convert", source, "OUTPUT_DIR", *options])


@overload
def _find(name: str) -> FoundModel: ...


@overload
def _find(name: str, is_member: bool) -> FoundModel | None: ...


def _find(name: str, is_member: bool = False) -> FoundModel | None:
    """Find what one `config.json` belongs to; a member of an ensemble may be missing."""
    source, subfolder = name, ""
    if os.path.isfile(name):
        _refuse_file(name)
    if not os.path.exists(name):
        if not is_hub_name(name):
            if is_member:
                return None
            _refuse_checkpoint(name)
            check_name(name)
        user, repository, *folders = name.rstrip("/").split("/")
        source, subfolder = f"{user}/{repository}", "/".join(folders)
    path, base = _file_of(source, f"{subfolder}/{CONFIG_FILE_NAME}".removeprefix("/")), None
    if path is None and not is_member:
        adapter = _file_of(source, f"{subfolder}/{ADAPTER_FILE_NAME}".removeprefix("/"))
        base = None if adapter is None else base_of_adapter(adapter)
        path = None if base is None else _file_of(base, CONFIG_FILE_NAME)
    if path is None:
        if is_member:
            return None
        if base is not None:
            raise InputError(f"`{name}` is an adapter of `{base}`, which holds no {CONFIG_FILE_NAME}; {REMEDY}")
        if found := [] if subfolder else checkpoints_of(source):
            raise InputError(
                f"`{name}` holds checkpoints of the authors' code ({', '.join(found)}); convert them first, with "
                f"`{convert_command(name)}`, and give OUTPUT_DIR as the model"
            )
        raise InputError(f"`{name}` holds no {CONFIG_FILE_NAME}; {REMEDY}")
    try:
        config = read_json(path)
    except InputError as error:
        raise InputError(f"{error}; {REMEDY}") from error
    if not isinstance(config, dict):
        raise InputError(f"`{path}` is not a configuration; {REMEDY}")
    return FoundModel(name, source, subfolder, config, base)


def base_of_adapter(path: Path) -> str:
    """Folder or repository of the model that an adapter belongs to.

    Args:
        path: the `adapter_config.json` of PEFT.

    Raises:
        InputError: it names none that exists.
    """
    content = read_json(path)
    base = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    if not isinstance(base, str) or not (os.path.isdir(base) or is_hub_name(base)):
        raise InputError(
            f"`{path}` has {base!r} as `base_model_name_or_path`, which is neither a folder nor a Hub repository; write "
            "there what the adapter was trained on"
        )
    return base


def _refuse_file(name: str) -> None:
    if name.endswith(CHECKPOINT_SUFFIXES):
        raise InputError(
            f"`{name}` is a checkpoint, not a model's folder; convert it first, with `{convert_command(name)}`, and give "
            "OUTPUT_DIR as the model"
        )
    raise InputError(f"`{name}` is a file; give the folder of the model")


def _refuse_checkpoint(name: str) -> None:
    """Name the command for `USER/NAME/FILE.pth`, a checkpoint in a repository."""
    parts = name.split("/")
    repository = "/".join(parts[:2])
    if len(parts) == 3 and name.endswith(CHECKPOINT_SUFFIXES) and is_hub_name(repository):
        raise InputError(
            f"`{name}` is not on disk; if it is a checkpoint in the Hub repository `{repository}`, convert it first, with "
            f"`{convert_command(repository, '--file', parts[2])}`, and give OUTPUT_DIR as the model"
        )


def _checkpoints(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.endswith(CHECKPOINT_SUFFIXES) and "/" not in name)


def _file_of(source: str, file_name: str) -> Path | None:
    """A file of a folder, or of a repository: fetched, or taken from the cache; `None` if it does not exist."""
    if os.path.isdir(source):
        path = Path(source, file_name)
        return path if path.is_file() else None
    return _download(source, file_name)


def _download(repo_id: str, file_name: str) -> Path | None:
    try:
        with hub_errors(repo_id, "model"):
            return Path(hf_hub_download(repo_id, file_name))
    except LocalEntryNotFoundError as error:
        # offline: a cached repository is assumed to be complete
        if isinstance(try_to_load_from_cache(repo_id, CONFIG_FILE_NAME), str):
            if file_name.startswith(f"{ENSEMBLE_FOLDER}/") and try_to_load_from_cache(repo_id, file_name) is None:
                logger.warning(
                    "offline: the cache does not show whether `%s` has `%s`; if it is an ensemble, its other models "
                    "are ignored",
                    repo_id,
                    file_name,
                )
            return None
        raise InputError(
            f"`{hub_url(repo_id, 'model')}` is not in the cache and cannot be reached; see to the network, or unset "
            "HF_HUB_OFFLINE"
        ) from error
    except InputError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            return None
        raise

"""A model as a repository of the Hugging Face Hub: weights, code, processor, recipe, scores and card."""

import tempfile
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from comedian import models
from comedian.errors import InputError
from comedian.files import inside, read_json, read_yaml
from comedian.hub.model_card import (
    CARD_FILE_NAME,
    CURVE_FILE_NAME,
    SCORES_SUFFIX,
    CardFacts,
    read_config,
    render_card,
)
from comedian.hub.model_record import RECORD_FILE_NAME
from comedian.hub_errors import hub_errors
from comedian.inference.model_names import ADAPTER_FILE_NAME, ENSEMBLE_FOLDER, base_of_adapter, find_models
from comedian.inference.spotter import ActionSpotter
from comedian.models import ComedianVideoProcessor

RECIPE_FILE_NAME = "recipe.yaml"
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREDICTIONS = "predictions_*.zip"
# of a repository, what an earlier publication or a Trainer left and this one no longer has
REPLACED = (
    "*.py",
    "*.safetensors",
    WEIGHTS_INDEX,
    ADAPTER_FILE_NAME,
    f"*{SCORES_SUFFIX}",
    PREDICTIONS,
    CURVE_FILE_NAME,
    RECIPE_FILE_NAME,
    # the Trainer pushes the record of its run, which names the matches
    *(RECORD_FILE_NAME, "training_args.bin", "run.json", f"{ENSEMBLE_FOLDER}/*"),
)
# fields with paths of the training machine
LOCAL_FIELDS = {"data": ("root", "frames", "labels", "features", "splits"), "training": ("output_dir", "hub_token")}

# a path, or the content itself
Content = Path | bytes


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    ensemble_of: Sequence[str | Path] = (),
    facts: CardFacts | None = None,
    commit_message: str = "Publish with comedian",
    revision: str | None = None,
    token: str | None = None,
) -> CommitInfo:
    """Upload a model in one commit; a repeated call uploads only changed files.

    Files of an earlier publication that this one no longer has are taken out; any others stay.

    Args:
        folder: what training or `comedian convert` wrote.
        repo_id: `<user>/<name>`; created if it does not exist.
        private: who may see a repository that is made now.
        ensemble_of: the other members of an ensemble: folders, which are sent too, or repositories, which are named.
        facts: facts for the card that the run does not record; the `card.yaml` of the folder by default.
        commit_message: of the commit.
        revision: branch; the main one by default.
        token: instead of the login's.

    Returns:
        The commit; `repo_url.url` is the model's address.

    Raises:
        InputError: the weights do not load, a file cannot be read, or the Hub denies access.
    """
    check_weights(folder, ensemble_of)
    # all files are checked before a repository is created
    files = files_to_publish(folder, repo_id, ensemble_of=ensemble_of, facts=facts)
    api = HfApi(library_name="comedian", token=token)
    with hub_errors(repo_id, "model"):
        full_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        before = api.repo_info(full_id, revision=revision)
        present = {sibling.rfilename for sibling in before.siblings}
    if full_id != repo_id:  # a name alone, which the login's user was put before
        files = files_to_publish(folder, full_id, ensemble_of=ensemble_of, facts=facts)
    stale = {name for name in present - set(files) if _is_replaced(name)}
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    operations += [CommitOperationDelete(name) for name in sorted(stale)]
    with hub_errors(full_id, "model"):
        return api.create_commit(
            full_id, operations, commit_message=commit_message, revision=revision, parent_commit=before.sha
        )


def files_to_publish(
    folder: str | Path, repo_id: str, *, ensemble_of: Sequence[str | Path] = (), facts: CardFacts | None = None
) -> dict[str, Content]:
    """What [`publish`] sends, name in the repository -> content; needs neither network nor weights.

    Raises:
        InputError: a file cannot be read.
    """
    folder, named = Path(folder), [str(member) for member in ensemble_of if not Path(member).is_dir()]
    files = _model_files(folder)
    subfolders = {
        f"{ENSEMBLE_FOLDER}/{index}": member for index, member in enumerate(_local_members(folder, ensemble_of), 1)
    }
    for subfolder, member in subfolders.items():
        # the code is at the top, once
        member_files = _model_files(member).items()
        files |= {f"{subfolder}/{name}": content for name, content in member_files if not name.endswith(".py")}
    kept = [RECORD_FILE_NAME, CURVE_FILE_NAME, f"*{SCORES_SUFFIX}", PREDICTIONS]
    files |= {path.name: path for pattern in kept for path in sorted(folder.glob(pattern))}
    if (folder / RECIPE_FILE_NAME).is_file():
        files[RECIPE_FILE_NAME] = _portable_recipe(folder / RECIPE_FILE_NAME).encode()
    files[CARD_FILE_NAME] = render_card(folder, repo_id, facts, len(subfolders), named).encode()
    return files


def _local_members(folder: Path, ensemble_of: Sequence[str | Path]) -> list[Path]:
    """The other models of an ensemble that are sent: those in its folder, then the folders that are named beside it."""
    own = [Path(model.name) for model in find_models(str(folder))[1:]]
    return own + [Path(member) for member in ensemble_of if Path(member).is_dir()]


def check_weights(folder: str | Path, ensemble_of: Sequence[str | Path] = ()) -> None:
    """Load a folder's weights as anyone will.

    Raises:
        InputError: they are missing, broken, not finite, or not those of the model that `config.json` names.
    """
    folder = Path(folder)
    architecture = read_config(folder).architectures[0]
    if (folder / ADAPTER_FILE_NAME).is_file():
        base = base_of_adapter(folder / ADAPTER_FILE_NAME)
        if Path(base).is_dir():
            raise InputError(
                f"`{folder}` is an adapter of the folder `{base}`, which is only on this machine; merge it first "
                "(`merge_and_unload` of PEFT), or publish the base and write its name into "
                f"`{folder / ADAPTER_FILE_NAME}` as `base_model_name_or_path`"
            )
    elif not any((folder / name).is_file() for name in (WEIGHTS, WEIGHTS_INDEX)):
        raise InputError(f"`{folder}` holds no {WEIGHTS}; train or convert a model first")
    try:
        # for a class whose code is in the folder, which is not executed here, only the backbone is loaded
        is_ours = architecture in models.__all__
        model_class = getattr(models, architecture) if is_ours else models.ComedianModel
        _, loading = model_class.from_pretrained(
            folder, output_loading_info=True, local_files_only=not (folder / ADAPTER_FILE_NAME).is_file()
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise InputError(f"the weights in `{folder}` do not load: {' '.join(str(error).split())[:300]}") from None
    # stage 1 trains the spatial encoder alone
    missing = {name for name in loading["missing_keys"] if not name.startswith("temporal_encoder.")}
    for reason, names in (
        ("lack", missing),
        ("hold more than the model:", loading["unexpected_keys"] if is_ours else ()),
    ):
        if names:
            raise InputError(f"the weights in `{folder}` {reason} `{sorted(names)[0]}`; save the model again")
    if ensemble_of or len(find_models(str(folder))) > 1:
        ActionSpotter.from_pretrained(folder, *ensemble_of, device="cpu")


def _model_files(folder: Path) -> dict[str, Content]:
    """Configuration and code as they are saved now, processor and weights."""
    config = read_config(folder)
    height, width = config.image_size
    with tempfile.TemporaryDirectory() as scratch:
        config.save_pretrained(scratch)
        try:
            processor = ComedianVideoProcessor.from_pretrained(folder, local_files_only=True)
        except OSError:
            processor = ComedianVideoProcessor(size={"height": height, "width": width})
        processor.save_pretrained(scratch)
        files: dict[str, Content] = {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir())}
    return files | {name: folder / name for name in _weight_names(folder)}


def _weight_names(folder: Path) -> list[str]:
    if (folder / ADAPTER_FILE_NAME).is_file():
        return [ADAPTER_FILE_NAME, ADAPTER_WEIGHTS]
    index = folder / WEIGHTS_INDEX
    if not index.is_file():
        return [WEIGHTS] if (folder / WEIGHTS).is_file() else []
    content = read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, Mapping) or not all(isinstance(name, str) for name in shards.values()):
        raise InputError(f"`{index}` is not an index of weights; save the model again")
    return [WEIGHTS_INDEX, *sorted({inside(folder, name).name for name in shards.values()})]


def _portable_recipe(path: Path) -> str:
    """The recipe without what lay where on the machine that trained."""
    recipe = read_yaml(path)
    try:
        for section, names in LOCAL_FIELDS.items():
            recipe[section] = {name: value for name, value in recipe[section].items() if name not in names}
        checkpoint = recipe["model"].get("checkpoint")
        if checkpoint is not None and (Path(checkpoint).exists() or checkpoint.count("/") != 1):
            recipe["model"]["checkpoint"] = None
        recipe = _without_folders(recipe)
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"`{path}` is not a recipe of comedian; remove it") from None
    return yaml.safe_dump(recipe, sort_keys=False)


def _without_folders(value: Any) -> Any:
    """Shorten absolute paths, such as of `model.config`, to their last names."""
    if isinstance(value, Mapping):
        return {name: _without_folders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _is_replaced(name: str) -> bool:
    patterns = (pattern for pattern in REPLACED if pattern.count("/") == min(name.count("/"), 1))
    return any(fnmatch(name, pattern) for pattern in patterns)

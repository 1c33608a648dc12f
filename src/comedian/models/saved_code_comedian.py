"""Which code a model's folder holds beside its weights, for users without the package."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_imports
from transformers.utils import cached_file, logging

logger = logging.get_logger(__name__)

# of transformers, for models that spot
SPOTTING_CLASS = "AutoModelForVideoClassification"
# auto class -> class in a file beside the weights
BACKBONE_AUTO_MAP = {
    "AutoConfig": "configuration_comedian.ComedianConfig",
    "AutoModel": "modeling_comedian.ComedianModel",
}
HEAD_AUTO_MAPS = {
    "ComedianForContrastivePretraining": {
        "AutoModelForPreTraining": "modeling_comedian_pretraining.ComedianForContrastivePretraining"
    },
    "ComedianForFeatureDistillation": {
        "AutoModelForPreTraining": "modeling_comedian_pretraining.ComedianForFeatureDistillation"
    },
    "ComedianForActionSpotting": {SPOTTING_CLASS: "modeling_comedian.ComedianForActionSpotting"},
}
SPOTTING_PIPELINES: dict[str, dict[str, Any]] = {
    "action-spotting": {"impl": "pipeline_comedian.ActionSpottingPipeline", "pt": [SPOTTING_CLASS]},
}


def auto_map_of(architectures: Iterable[str], registered: Mapping[str, str]) -> dict[str, str]:
    """Return auto class -> class in a file of the folder.

    Args:
        architectures: names of the classes of models that the folder is for.
        registered: entries that `register_for_auto_class` made; those of `architectures` are kept.
    """
    auto_map = dict(BACKBONE_AUTO_MAP)
    for architecture in architectures:
        auto_map |= HEAD_AUTO_MAPS.get(architecture, {})
        auto_map |= {auto: name for auto, name in registered.items() if name.split(".")[-1] == architecture}
    return auto_map


def custom_class_of(auto_map: Mapping[str, str] | None) -> str | None:
    """Return the class of a spotting model, `module.Class`, if it is not part of this code."""
    named = (auto_map or {}).get(SPOTTING_CLASS)
    return None if named == HEAD_AUTO_MAPS["ComedianForActionSpotting"][SPOTTING_CLASS] else named


def copy_code(modules: Iterable[str], folder: Path, origin: str) -> None:
    """Copy modules, and what they import of each other, into a folder.

    Args:
        modules: names of modules of this folder, or of `folder`.
        folder: where to copy them; created if missing.
        origin: folder or Hub repository that the model came from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left, done = list(modules), set()
    while left:
        module = left.pop()
        if module in done:
            continue
        done.add(module)
        source, target = _find_code(f"{module}.py", folder, origin), folder / f"{module}.py"
        if source is None:
            logger.warning(f"`{target}` is omitted, as its source is not available; install comedian to include it")
            continue
        left += get_relative_imports(source)
        if not (target.exists() and target.samefile(source)):
            shutil.copyfile(source, target)


def _find_code(file_name: str, folder: Path, origin: str) -> str | os.PathLike | None:
    """Look for a file beside this one, then among what transformers copied, then where the model came from."""
    for place in (Path(__file__).parent, folder):
        if (place / file_name).is_file():
            return place / file_name
    # this is remote code, of which transformers fetches no more than is asked for, in a folder named by its commit
    try:
        return Path(cached_file(origin, file_name, revision=Path(__file__).parent.name))
    except OSError:
        return None

"""Settings of inference: what turns the scores of windows into events; in a file or in a model's folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from comedian.errors import InputError
from comedian.files import atomic_write_text, read_json
from comedian.inference.inference_config import InferenceConfig
from comedian.models.settings_comedian import CHOSEN_ON_VALIDATION, ComedianSettings

MERGING = ("merge", "window_stride_s", "edge_trim_s")
SUPPRESSION = ("nms_type", "nms_window_s")
SETTINGS = (*MERGING, *SUPPRESSION, *CHOSEN_ON_VALIDATION)


def with_settings(config: ComedianSettings, settings: Mapping[str, Any]) -> ComedianSettings:
    """Return a configuration with some of its `SETTINGS` replaced.

    Raises:
        InputError: they do not fit each other or the model.
    """
    try:
        return type(config).from_dict(config.to_dict() | dict(settings))
    except StrictDataclassError as error:
        raise InputError(f"the settings do not fit the model: {str(error).splitlines()[-1].strip()}") from error


def same_merging(first: ComedianSettings, second: ComedianSettings) -> bool:
    """Whether two configurations merge the windows of a half in the same way."""
    return [first.merge, first.window_stride_tokens, first.edge_trim_tokens] == [
        second.merge,
        second.window_stride_tokens,
        second.edge_trim_tokens,
    ]


def read_settings(path: str | Path, labels: Sequence[str], weights: Sequence[str]) -> dict[str, Any]:
    """Read a file that [`write_settings`] wrote.

    Args:
        path: a JSON file.
        labels: those of the model that it is for.
        weights: hash of the weights of each model that it is for, in any order.

    Raises:
        InputError: it is not such a file, or was chosen for other labels or weights.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise InputError(f"`{path}` holds no settings; make it with `comedian tune --output`")
    if content.get("labels") != list(labels):
        raise InputError(f"`{path}` holds settings for other labels than the model's {len(labels)}; tune them anew")
    if content.get("weights") != sorted(weights):
        raise InputError(f"`{path}` holds settings that were chosen on scores of other weights; tune them anew")
    unknown = content["settings"].keys() - set(SETTINGS)
    if unknown:
        raise InputError(f"`{path}` holds `{sorted(unknown)[0]}`, which is no setting; known: {', '.join(SETTINGS)}")
    return content["settings"]


def weak_labels(config: ComedianSettings) -> list[str]:
    """Return the labels of which fewer than half of the reported events were right on validation; none where unknown."""
    if config.label_curves is None or config.label_thresholds is None:
        return []
    weak = []
    for label, curve, threshold in zip(config.label_names, config.label_curves, config.label_thresholds, strict=True):
        precisions = [precision for lowest, precision, _ in curve if lowest >= threshold]
        # without a point from the threshold on, no reported event was right
        if not precisions or precisions[-1] < 0.5:
            weak.append(label)
    return weak


def write_settings(
    path: str | Path, settings: Mapping[str, Any], labels: Sequence[str], weights: Sequence[str]
) -> None:
    """Write settings as JSON, for `comedian spot --settings`, with the labels and weights that they were chosen for."""
    content = {"labels": list(labels), "weights": sorted(weights), "settings": dict(settings)}
    atomic_write_text(path, json.dumps(content, indent=1) + "\n")


def write_settings_into(folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Replace settings in the `config.json` of a model's folder; weights and all else stay.

    Raises:
        InputError: there is none, or they do not fit.
    """
    path = Path(folder) / "config.json"
    content = read_json(path)
    if not isinstance(content, dict) or content.get("model_type") != InferenceConfig.model_type:
        raise InputError(f"`{path}` is not the configuration of a COMEDIAN model; give a folder that training wrote")
    with_settings(InferenceConfig.from_dict(content), settings)
    atomic_write_text(path, json.dumps(content | dict(settings), indent=2, sort_keys=True) + "\n")

"""A spotting model for where Python or transformers is not: two graphs, the settings, and what makes spots of scores."""

import copy
import importlib.util
import json
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from comedian.conversion.model_folder import check_output_dir, new_folder
from comedian.errors import InputError
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor, postprocessing_comedian

SETTINGS_FILE_NAME = "spotting.json"
# of the configuration, fields and properties by their names: `stitch_half` and `spots_from_scores` read these
CONFIG_SETTINGS = (
    "fps",
    "tubelet_size",
    "num_channels",
    "image_size",
    "hidden_size",
    "num_tokens",
    "window_stride_tokens",
    "edge_trim_tokens",
    "merge",
    "token_rate",
    "score_rate",
    "scores_per_token",
    "logits_per_token",
    "offset_radius_s",
    "label_names",
    "label_thresholds",
    "label_calibration",
    "nms_type",
    "nms_window_s",
    "nms_threshold",
    "nms_min_weight",
)


class SpatialGraph(nn.Module):
    """`(num_tubelets, tubelet_size, channels, height, width)` of normalised pixels to `(num_tubelets, hidden_size)`."""

    def __init__(self, model: ComedianForActionSpotting):
        super().__init__()
        self.spatial_encoder = model.comedian.spatial_encoder

    def forward(self, tubelets: Tensor) -> Tensor:
        """Encode every tubelet on its own."""
        return self.spatial_encoder(tubelets)


class TemporalGraph(nn.Module):
    """`(batch, time, hidden_size)`, at most a window, to scores `(batch, time * logits_per_token, num_labels)` in [0, 1].

    A model that moves its scores gives the displacements too, `(batch, time, num_labels)` in seconds.
    """

    def __init__(self, model: ComedianForActionSpotting):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Score windows of tokens."""
        scores, offsets_s = self.model.score_windows(tokens)
        return (scores,) if offsets_s is None else (scores, offsets_s)


def export_model(
    model: ComedianForActionSpotting,
    processor: ComedianVideoProcessor,
    output_dir: str | Path,
    file_format: str,
) -> None:
    """Write the graphs of a model, float32 on the CPU, with any number of tubelets, of windows and of tokens in a window.

    The folder holds `spatial_encoder` and `temporal_encoder` (see [`SpatialGraph`], [`TemporalGraph`]) as `.onnx` or `.pt2`,
    `postprocessing_comedian.py` (NumPy only: stitching, suppression, spots) and `spotting.json`: labels, the input's rate,
    size, mean and standard deviation, windows, suppression and thresholds.

    Args:
        model: is not changed.
        processor: the model's.
        output_dir: new or empty folder.
        file_format: `"onnx"` (names of inputs: `tubelets`, `tokens`; of outputs: `spatial_tokens`, `scores`, `offsets_s`) or
            `"torch-export"`, for `torch.export.load`.

    Raises:
        InputError: the model has `sound`, the folder is not empty, or ONNX's packages are missing.
    """
    if model.config.sound:
        raise InputError("the model has `sound`, which no graph takes; export one that was trained without")
    model.require_finite_weights()
    check_output_dir(output_dir)
    suffix, save = {"onnx": (".onnx", _save_onnx), "torch-export": (".pt2", _save_program)}[file_format]
    if file_format == "onnx":
        _check_onnx()
    model = copy.deepcopy(model).float().cpu().eval()
    if file_format == "onnx":
        # the fused kernel's strides are not those that its decomposition for ONNX has
        model.set_attn_implementation("eager")
    settings = {
        "files": {name: f"{name}{suffix}" for name in ("spatial_encoder", "temporal_encoder")},
        "image_mean": list(processor.image_mean),
        "image_std": list(processor.image_std),
        "rescale_factor": processor.rescale_factor,
    }
    settings |= {name: getattr(model.config, name) for name in CONFIG_SETTINGS}
    with new_folder(output_dir) as folder:
        for name, program, names in _programs(model):
            save(program, folder / f"{name}{suffix}", names)
        shutil.copy(postprocessing_comedian.__file__, folder)
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        (folder / SETTINGS_FILE_NAME).write_text(text, encoding="utf-8")


def _programs(model: ComedianForActionSpotting) -> list[tuple[str, ExportedProgram, tuple[list[str], list[str]]]]:
    """Trace both graphs; return the name of each, its program, and the names of its inputs and outputs."""
    config = model.config
    # sizes of 1 would be taken for constants
    tubelets = torch.zeros(2, config.tubelet_size, config.num_channels, *config.image_size)
    tokens = torch.zeros(2, config.num_tokens, config.hidden_size)
    spatial_dims = {0: Dim("num_tubelets", min=1)}
    temporal_dims = {0: Dim("batch", min=1)}
    if config.num_tokens > 1:
        temporal_dims[1] = Dim("time", min=1, max=config.num_tokens)
    outputs = ["scores"] if config.offset_radius_s is None else ["scores", "offsets_s"]
    with torch.no_grad():
        spatial = torch.export.export(SpatialGraph(model), (tubelets,), dynamic_shapes=(spatial_dims,))
        temporal = torch.export.export(TemporalGraph(model), (tokens,), dynamic_shapes=(temporal_dims,))
    return [
        ("spatial_encoder", spatial, (["tubelets"], ["spatial_tokens"])),
        ("temporal_encoder", temporal, (["tokens"], outputs)),
    ]


def _save_program(program: ExportedProgram, path: Path, names: tuple[list[str], list[str]]) -> None:
    torch.export.save(program, path)


def _save_onnx(program: ExportedProgram, path: Path, names: tuple[list[str], list[str]]) -> None:
    inputs, outputs = names
    graph = torch.onnx.export(program, (), input_names=inputs, output_names=outputs, dynamo=True, verbose=False)
    graph.save(path, external_data=False)


def _check_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"the format onnx needs the package {missing[0]}; `pip install comedian[export]`")

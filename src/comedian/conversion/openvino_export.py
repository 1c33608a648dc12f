"""A spotting model as OpenVINO graphs, in bfloat16 or int8, for `comedian spot` on CPUs."""

import atexit
import copy
import importlib.util
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn
from tqdm import tqdm

from comedian.conversion.model_folder import check_output_dir, new_folder
from comedian.errors import InputError
from comedian.evaluation.match_files import find_folder, find_label_files
from comedian.evaluation.soccernet_average_map.soccernet_average_map import average_map
from comedian.files import atomic_write_text
from comedian.hub.model_record import RECORD_FILE_NAME
from comedian.inference.model_names import CONFIG_FILE_NAME, find_model
from comedian.inference.openvino_model import (
    GRAPH_SUFFIXES,
    SPATIAL_GRAPH,
    TEMPORAL_GRAPH,
    OpenVinoModel,
    import_openvino,
    load_openvino_model,
    unreported,
)
from comedian.inference.scoring import encode_half_with_models, score_half
from comedian.inference.torch_model import TorchModel, load_found_model
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from comedian.models.postprocessing_comedian import spots_of_half
from comedian.models.sound_comedian import NUM_MELS, read_sound, sound_of_tokens
from comedian.sharing import balanced_shares, leave_process_group, length_of_video
from comedian.soccernet.annotations import prediction_of
from comedian.soccernet.layout import find_halves
from comedian.soccernet.splits import matches_of_splits
from comedian.video.decoding import frames_at, iter_frames, probe

# tubelets whose activations set the ranges of int8
CALIBRATION_TUBELETS = 256
CALIBRATION_BATCH = 4
# points of tight average-mAP that int8 may cost
MAX_LOSS = 0.5
# of the tokens of both runtimes; bfloat16 has 0.9999
MIN_CORRELATION = 0.999


@dataclass(frozen=True)
class Quantization:
    """How to quantise the spatial encoder, and what it may cost.

    Attributes:
        root: the data set's folder, with videos, labels and splits.
        split: the split whose frames calibrate.
        max_loss: points of tight average-mAP that int8 may lose on validation.
    """

    root: Path
    split: str = "train"
    max_loss: float = MAX_LOSS


class FramesGraph(nn.Module):
    """uint8 frames `(num_tubelets, tubelet_size, height, width, 3)` to tokens `(num_tubelets, hidden_size)`."""

    def __init__(self, model: ComedianForActionSpotting, processor: ComedianVideoProcessor):
        super().__init__()
        self.spatial_encoder = model.comedian.spatial_encoder
        scale = processor.rescale_factor if processor.do_rescale else 1.0
        mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
        mean, std = torch.as_tensor(mean, dtype=torch.float32), torch.as_tensor(std, dtype=torch.float32)
        self.register_buffer("shift", -mean / std)
        self.register_buffer("scale", scale / std)

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise the frames, and encode every tubelet on its own."""
        pixels = torch.addcmul(self.shift, frames.float(), self.scale)
        return self.spatial_encoder(pixels.permute(0, 1, 4, 2, 3))


class WindowsGraph(nn.Module):
    """Windows `(num_windows, num_tokens, hidden_size)`, with sound where the model has it, to temporal tokens and
    scores."""

    def __init__(self, model: ComedianForActionSpotting):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, sound: Tensor | None = None) -> tuple[Tensor, ...]:
        """Relate and score windows; displacements come third, of a model that has them."""
        temporal_tokens = self.model.encode_temporal(tokens)
        fused = self.model.fuse_sound(temporal_tokens, sound)
        found = temporal_tokens, self.model.classify(fused).sigmoid()
        offsets_s = self.model.predict_offsets_s(fused)
        return found if offsets_s is None else (*found, offsets_s)


def export_openvino(name: str, output_dir: str | Path, quantization: Quantization | None = None) -> dict[str, float]:
    """Write the graphs of a model for OpenVINO, a folder that `comedian spot` takes as a model.

    The folder holds `spatial_encoder` (uint8 frames of tubelets to tokens) and `temporal_encoder` (windows of tokens, and
    sound, to scores) as `.xml` and `.bin`, the model's `config.json` with all settings, and its `model_record.json`. The
    weights are float32; they are run in bfloat16 on CPUs that have it. With `quantization` the spatial encoder is in int8,
    its ranges from frames of a training split, and the folder is written if validation loses little by it. Under
    `accelerate launch` the main process writes, and all of them score validation.

    Args:
        name: folder or Hub repository of the model.
        output_dir: new or empty folder.
        quantization: for int8.

    Returns:
        Tight average-mAP on validation, in points, `before` and `after` quantisation; empty without.

    Raises:
        InputError: a package is missing, the model cannot be loaded, the folder is not empty, the matches have no such
            splits, or int8 loses more than it may.
    """
    # the graphs run on CPUs
    state = PartialState(cpu=True)
    atexit.register(leave_process_group)
    if not state.is_main_process:
        return {} if quantization is None else _scores(_score_together([], quantization))
    check_output_dir(output_dir)
    _check_packages(["openvino"] if quantization is None else ["openvino", "nncf"])
    found = find_model(name)
    model, processor = load_found_model(found, "cpu")
    calibration = [] if quantization is None else _calibration_videos(quantization)
    weights = TorchModel(model, processor).hash_weights()
    model = copy.deepcopy(model).float().eval()
    scores: dict[str, float] = {}
    with new_folder(output_dir) as folder, unreported():
        for graph, converted in _converted(model, processor):
            _save(converted, folder / graph)
        _write_config(model, folder, {"precision": "bfloat16", "weights": weights})
        # every CPU runs the folder: graphs that are right in bfloat16 may be wrong in float32
        for float32 in (True, False):
            _check_equal(_load(folder, float32), TorchModel(model, processor))
        if quantization is not None:
            before = Path(shutil.copytree(folder, folder / "before"))
            quantize(folder, model.config, calibration_frames(calibration, model.config))
            scores = _scores(_score_together([before, folder], quantization))
            shutil.rmtree(before)
            _check_loss(scores, quantization.max_loss)
            _write_config(model, folder, {"precision": "int8", "weights": weights, "average_map_tight": scores})
        if record := found.find(RECORD_FILE_NAME):
            (folder / RECORD_FILE_NAME).write_bytes(record.read_bytes())
    return scores


def _scores(of_each: Sequence[float]) -> dict[str, float]:
    return dict(zip(("before", "after"), of_each, strict=True))


def calibration_frames(videos: list[Path], config: Any) -> list[np.ndarray]:
    """Read tubelets spread evenly over videos.

    Args:
        videos: of some halves.
        config: the model's.

    Returns:
        Batches uint8 `(CALIBRATION_BATCH, tubelet_size, height, width, 3)`, `CALIBRATION_TUBELETS` tubelets in all, or
        a few more.
    """
    chosen = [videos[index] for index in np.unique(np.linspace(0, len(videos) - 1, CALIBRATION_TUBELETS).astype(int))]
    of_each = -(-CALIBRATION_TUBELETS // len(chosen))
    tubelets = []
    for video in tqdm(chosen, desc="calibration frames", unit="half"):
        starts_s = (np.arange(of_each) + 0.5) / of_each * probe(video).duration_s
        times_s = (starts_s[:, None] + np.arange(config.tubelet_size) / config.fps).ravel()
        frames = np.stack(list(frames_at(video, times_s, config.frame_size)))
        tubelets.append(frames.reshape(-1, config.tubelet_size, *frames.shape[1:]))
    together = np.concatenate(tubelets)
    return [
        together[first : first + CALIBRATION_BATCH]
        for first in range(0, len(together) - CALIBRATION_BATCH + 1, CALIBRATION_BATCH)
    ]


def _converted(model: ComedianForActionSpotting, processor: ComedianVideoProcessor) -> Iterator[tuple[str, Any]]:
    """Yield both graphs by their names, for any number of tubelets and of windows."""
    config = model.config
    # sizes of 1 would be taken for constants
    frames = torch.zeros(2, config.tubelet_size, *config.frame_size, config.num_channels, dtype=torch.uint8)
    yield SPATIAL_GRAPH, _convert(FramesGraph(model, processor), {"frames": frames}, ["spatial_tokens"])
    inputs = {"tokens": torch.zeros(2, config.num_tokens, config.hidden_size)}
    if config.sound:
        mel_frames = sound_of_tokens(None, 1, config.token_rate).shape[1]
        inputs["sound"] = torch.zeros(2, config.num_tokens, mel_frames, NUM_MELS)
    outputs = ["temporal_tokens", "scores"] + ["offsets_s"] * (config.offset_radius_s is not None)
    yield TEMPORAL_GRAPH, _convert(WindowsGraph(model), inputs, outputs)


def _convert(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> Any:
    """Trace a module on examples of two; the first size of each input is free, the others are those of the example."""
    with torch.no_grad(), warnings.catch_warnings():
        # of sizes that are the same for every input
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        graph = import_openvino().convert_model(module.eval(), example_input=tuple(inputs.values()))
    graph.reshape({index: [-1, *example.shape[1:]] for index, example in enumerate(inputs.values())})
    for port, name in zip([*graph.inputs, *graph.outputs], [*inputs, *outputs], strict=True):
        port.get_tensor().set_names({name})
    return graph


def quantize(folder: Path, config: Any, batches: list[np.ndarray]) -> None:
    """Replace the spatial encoder of an exported folder by one in int8 (post-training quantisation).

    Args:
        folder: holds the graphs.
        config: the model's.
        batches: whose activations set the ranges, from [`calibration_frames`].
    """
    import nncf

    # the logger alone: `nncf.set_log_level` also changes handlers that others have attached to it
    logging.getLogger("nncf").setLevel(logging.ERROR)
    is_transformer = config.spatial_encoder != "convolutional"
    graph = nncf.quantize(
        import_openvino().Core().read_model(folder / f"{SPATIAL_GRAPH}.xml"),
        nncf.Dataset(batches),
        subset_size=len(batches),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
    )
    # beside the graph that it was made from, which is still being read
    _save(graph, folder / "int8")
    for suffix in GRAPH_SUFFIXES:
        (folder / f"int8{suffix}").replace(folder / f"{SPATIAL_GRAPH}{suffix}")


def _save(graph: Any, path: Path) -> None:
    import_openvino().save_model(graph, path.with_suffix(".xml"), compress_to_fp16=False)


def _write_config(model: ComedianForActionSpotting, folder: Path, facts: dict[str, Any]) -> None:
    """Write all fields, and what the graphs are; no code lies beside them that could be named."""
    content = model.config.to_dict() | {"openvino": facts}
    for name in ("auto_map", "custom_pipelines"):
        content.pop(name, None)
    atomic_write_text(folder / CONFIG_FILE_NAME, json.dumps(content, indent=2, sort_keys=True, default=str) + "\n")


def _load(folder: Path, float32: bool = False) -> OpenVinoModel:
    return load_openvino_model(find_model(str(folder)), float32=float32)


def _calibration_videos(quantization: Quantization) -> list[Path]:
    root = quantization.root
    videos = [
        video
        for video_id in matches_of_splits(root, [quantization.split])
        for video in find_halves(root / video_id).values()
    ]
    if not videos:
        raise InputError(
            f"`{root}` has no video in the split `{quantization.split}`; calibrate on matches with videos"
        )
    _validation(root)
    return videos


def _validation(root: Path) -> dict[str, dict[int, Path]]:
    """Match -> half -> video."""
    validation = {video_id: find_halves(root / video_id) for video_id in matches_of_splits(root, ["validation"])}
    for video_id, halves in validation.items():
        if not halves:
            raise InputError(f"`{root}/{video_id}` of validation has no video; int8 is scored on validation")
    return validation


def _score_together(folders: Sequence[Path], quantization: Quantization) -> list[float]:
    """Tight average-mAP of each model on validation, in points, from one pass over the videos.

    The processes of `accelerate launch` divide the halves; those beside the main one wait for its folders, and give none.
    """
    state = PartialState()
    (folders,) = broadcast_object_list([folders])
    models, root = [_load(folder) for folder in folders], quantization.root
    matches = _validation(root)
    halves = [(video_id, half, video) for video_id, videos in matches.items() for half, video in videos.items()]
    shares = balanced_shares([length_of_video(video) for *_, video in halves], state.num_processes)
    mine = sorted(shares[state.process_index])
    found = {
        index: _predictions(models, *halves[index][1:])
        for index in tqdm(mine, desc="validation", unit="half", disable=not state.is_main_process)
    }
    of_halves = dict(gather_object(list(found.items()))) if state.num_processes > 1 else found
    config, labels = models[0].config, find_label_files(root, "validation")
    references = [
        labels[find_folder(video_id, labels, root) or video_id].read_events("annotations") for video_id in matches
    ]
    scores = []
    for number in range(len(models)):
        predictions: dict[str, list] = {video_id: [] for video_id in matches}
        for index, (video_id, *_) in enumerate(halves):
            predictions[video_id] += of_halves[index][number]
        score = average_map(references, list(predictions.values()), config.label_names, metrics="tight")
        scores.append(100 * score["tight"]["a_mAP"])
    return scores


def _predictions(models: Sequence[OpenVinoModel], half: int, video: Path) -> list[list[dict]]:
    """What each model finds in a half, which is decoded once."""
    config = models[0].config
    frames = (
        frame for _, frame in iter_frames(video, config.fps, config.frame_size, threads=models[0].decoder_threads)
    )
    sound = read_sound(str(video)) if config.sound else None
    return [
        [prediction_of(spot) for spot in spots_of_half(score_half(model, tokens, sound), config, half, 0.0)]
        for model, tokens in zip(models, encode_half_with_models(models, frames), strict=True)
    ]


def _check_equal(graphs: OpenVinoModel, model: TorchModel) -> None:
    """Refuse graphs that compute something else: OpenVINO 2026.4 does where a layer has as many heads as tokens."""
    config, rng = model.config, np.random.default_rng(0)
    frames = rng.integers(0, 256, (4 * config.tubelet_size, *config.frame_size, 3), np.uint8)
    windows = rng.standard_normal((4, config.num_tokens, config.hidden_size), np.float32)
    for find in (lambda found: found.encode(frames), lambda found: found.encode_windows(windows)):
        likeness = np.corrcoef(find(graphs).ravel(), find(model).ravel())[0, 1]
        if not likeness > MIN_CORRELATION:
            raise InputError(
                f"OpenVINO computes other tokens than PyTorch (correlation {likeness:.3f}) and cannot run this model; "
                "use the model as it is"
            )


def _check_loss(scores: dict[str, float], max_loss: float) -> None:
    loss = scores["before"] - scores["after"]
    if loss > max_loss:
        raise InputError(
            f"int8 loses {loss:.2f} points of tight average-mAP on validation ({scores['before']:.2f} to "
            f"{scores['after']:.2f}), more than {max_loss:g}; remove --int8, or allow it with --max-loss POINTS"
        )


def _check_packages(names: list[str]) -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f'the format openvino needs the package {missing[0]}; `pip install "comedian[openvino]"`')

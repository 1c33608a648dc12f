"""`ActionSpotter`: a video -> events, with one model or an ensemble."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import HfHubHTTPError, StrictDataclassError
from safetensors import SafetensorError
from tqdm import tqdm
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from comedian.errors import InputError
from comedian.hub_errors import hub_errors
from comedian.inference.model_names import REMEDY, FoundModel, find_model, find_models
from comedian.inference.scoring import (
    WindowScores,
    decoder_threads,
    encode_half_with_models,
    score_half,
    score_windows,
    spots_of_half,
)
from comedian.inference.settings import MERGING, with_settings
from comedian.models import ComedianConfig, ComedianForActionSpotting, ComedianVideoProcessor
from comedian.models.configuration_comedian import DEFAULT_THRESHOLD
from comedian.models.postprocessing_comedian import lower_bound, operating_thresholds, parse_target
from comedian.models.saved_code_comedian import custom_class_of
from comedian.models.sound_comedian import read_sound
from comedian.models.time_grid_comedian import cover_starts
from comedian.video.decoding import iter_frames, probe

BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of video [{elapsed}<{remaining}{postfix}]"
BAR_FORMAT_WITHOUT_TOTAL = "{desc}: {n:.0f} s of video [{elapsed}{postfix}]"


class ActionSpotter:
    """Finds the events of videos.

        spotter = ActionSpotter.from_pretrained("my-model")
        spots = spotter(("half_1.mkv", "half_2.mkv"))  # the halves of one match
        spots_of_each = spotter(["match_1.mkv", "match_2.mkv"])  # a batch

    With several models, the scores are the mean of theirs; `merge_configs` tells which settings hold.

    Args:
        models: put in eval mode.
        processors: one a model.
        names: what to call the models in messages.
        flip: score each frame's mirror image too and take the mean: twice the work. For labels of which none means the
            left or the right side of the picture.

    Attributes:
        config: labels, time grid, suppression and thresholds.

    Raises:
        InputError: the models have different labels or time grids.
    """

    def __init__(
        self,
        models: Sequence[ComedianForActionSpotting],
        processors: Sequence[ComedianVideoProcessor],
        names: Sequence[str] | None = None,
        flip: bool = False,
    ):
        self.models = [model.eval() for model in models]
        for model in models:
            model.require_finite_weights()
        self.processors = list(processors)
        self.names = list(names or (f"model {index + 1}" for index in range(len(models))))
        self.flip = flip
        self.config = merge_configs([model.config for model in models], self.names)

    @classmethod
    def from_pretrained(
        cls,
        *models: str | Path,
        device: str | torch.device | None = None,
        flip: bool = False,
        trust_remote_code: bool = False,
    ) -> "ActionSpotter":
        """Load one model, or several for an ensemble.

        Args:
            models: folders or Hub repositories; one that holds an ensemble, as `comedian convert` and `comedian publish`
                write it, stands for all its models.
            device: where to run; an accelerator by default, where there is one.
            flip: score mirror images too, see the class.
            trust_remote_code: run the code of a folder whose model is of a class of its own.

        Raises:
            InputError: a model or the device cannot be had, or the models do not fit together.
        """
        if not models:
            raise InputError("no model was named; give a folder or a Hub repository")
        # by name, as a model may be given beside the ensemble that it belongs to
        found = {model.name: model for name in models for model in find_models(str(name))}
        loaded = [load_found_model(model, device, trust_remote_code) for model in found.values()]
        return cls(*zip(*loaded, strict=True), names=list(found), flip=flip)

    def __call__(
        self,
        videos: str | Path | tuple[str | Path, ...] | list,
        *,
        keep_all: bool = False,
        threshold: float | str | None = None,
        nms_type: str | None = None,
        nms_window_s: float | list[float] | None = None,
        progress: bool = False,
    ) -> list[dict] | list[list[dict]]:
        """Find the events of a match, or of each match of a batch, as `pipeline("action-spotting")` takes them.

        Args:
            videos: a match, or a list of matches. A match is a video, or a tuple of the videos of its halves in order.
            keep_all: keep every candidate with its raw score, as the metric wants them.
            threshold: smallest score of an event, for all labels, or such as `"precision=0.9"` or `"recall=0.8"`, as
                measured on validation; the model's own thresholds by default.
            nms_type: `"soft"` or `"hard"` suppression; the model's by default.
            nms_window_s: full width of the suppression in seconds, for all labels or one a label; the model's by default.
            progress: show a bar with the speed.

        Returns:
            Spots `{"label", "timestamp_s", "half", "score"}` in order of time; `timestamp_s` in seconds from the half's
            first video frame, `half` from 1. With a calibrated model, `score` is the probability that the event is right.
            Of a list of matches: a list of such lists.

        Raises:
            InputError: a video cannot be decoded, or another argument is invalid.
        """
        # refused before the work
        if isinstance(threshold, str):
            thresholds_at(threshold, self.config)
        suppression = {"nms_type": nms_type, "nms_window_s": nms_window_s}
        suppression = {name: value for name, value in suppression.items() if value is not None}
        config = with_settings(self.config, suppression)
        matches = [_halves_of(match) for match in (videos if isinstance(videos, list) else [videos])]
        found = []
        for halves in matches:
            scores = {half: self.score(video, progress=progress) for half, video in enumerate(halves, 1)}
            found.append(spots_of_match(scores, config, keep_all=keep_all, threshold=threshold))
        return found if isinstance(videos, list) else found[0]

    def score(self, video: str | Path, *, progress: bool = False) -> np.ndarray:
        """Score every step of a video, in memory that hardly grows with its length.

        Args:
            video: any video that FFmpeg reads.
            progress: show a bar with the speed.

        Returns:
            `np.ndarray` of shape `(num_steps, num_labels)`, float32 in [0, 1], `config.score_rate` steps a second.

        Raises:
            InputError: the video cannot be decoded.
        """
        return np.mean([score_half(*encoded) for encoded in self._encode(video, progress)], axis=0)

    def score_windows(self, video: str | Path, stride_s: float, *, progress: bool = False) -> WindowScores:
        """Score overlapping windows of a video with one model; what [`score`] merges, if `stride_s` fits.

        Args:
            video: any video that FFmpeg reads.
            stride_s: hop between windows in seconds; the model's own is a multiple.
            progress: show a bar with the speed.

        Raises:
            InputError: several models, `flip`, a hop that does not fit, or a video that cannot be decoded.
        """
        if len(self.models) > 1 or self.flip:
            raise InputError("the scores of windows are of one model without `flip`; score the models one by one")
        stride_tokens, own = round(stride_s * self.config.token_rate), self.config.window_stride_tokens
        if stride_tokens < 1 or own % stride_tokens:
            raise InputError(
                f"windows every {stride_s:g} s do not hold those of the model, every {own / self.config.token_rate:g} s; "
                f"give a part of that in tokens of {1 / self.config.token_rate:g} s"
            )
        [(model, tokens, sound)] = self._encode(video, progress)
        starts = cover_starts(len(tokens), self.config.num_tokens, stride_tokens)
        return WindowScores(*score_windows(model, tokens, starts, sound), starts, len(tokens))

    def _encode(
        self, video: str | Path, progress: bool
    ) -> list[tuple[ComedianForActionSpotting, torch.Tensor, np.ndarray | None]]:
        """Spatial tokens of a video by each model, and by each of its mirror image with `flip`; what the model hears."""
        encoded = []
        # one pass over the video for all models that take pictures of one size
        for size, group in groupby(sorted(self.members, key=_image_size), key=_image_size):
            models, processors = zip(*group, strict=True)
            frames = _frames(video, self.config.fps, size, decoder_threads(models[0]), progress)
            tokens = encode_half_with_models(models, processors, frames)
            encoded += zip(models, tokens, strict=True)
        sound = read_sound(str(video)) if self.hears else None
        return [(model, tokens, sound if model.config.sound else None) for model, tokens in encoded]

    @property
    def hears(self) -> bool:
        """Whether a model takes the audio track."""
        return any(model.config.sound for model in self.models)

    @property
    def members(self) -> list[tuple[ComedianForActionSpotting, Callable]]:
        """The models whose scores' mean counts, each with what makes its input of frames; mirrored ones too."""
        members = list(zip(self.models, self.processors, strict=True))
        if self.flip:
            members += [(model, partial(_process_mirrored, processor)) for model, processor in members]
        return members

    def spots(
        self, scores: Sequence[np.ndarray], *, keep_all: bool = False, threshold: float | str | None = None
    ) -> list[dict]:
        """Find the events in the scores of a match's halves, from [`score`]; for the rest see [`__call__`]."""
        return spots_of_match(dict(enumerate(scores, 1)), self.config, keep_all=keep_all, threshold=threshold)

    def use_settings(self, settings: Mapping[str, Any]) -> None:
        """Use other settings than those that the models were saved with, from `comedian.inference.settings`.

        Raises:
            InputError: they do not fit the models.
        """
        self.config = with_settings(self.config, settings)
        for model in self.models:
            merging = {name: settings[name] for name in MERGING if name in settings}
            with_settings(model.config, merging)
            for name, value in merging.items():
                setattr(model.config, name, value)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that the scores depend on: weights, configurations and processors."""
        digest = hashlib.sha256(b"flip" if self.flip else b"")
        for model, processor in zip(self.models, self.processors, strict=True):
            digest.update(model.config.to_json_string().encode() + processor.to_json_string().encode())
        digest.update("".join(self.weights_fingerprint).encode())
        return digest.hexdigest()

    @cached_property
    def weights_fingerprint(self) -> list[str]:
        """Hash of each model's weights alone, which no setting changes."""
        return [_hash_weights(model) for model in self.models]


def _halves_of(match: str | Path | tuple[str | Path, ...]) -> tuple[str | Path, ...]:
    halves = match if isinstance(match, tuple) else (match,)
    for video in halves:
        if not isinstance(video, str | os.PathLike):
            raise InputError(
                f"a video is a {type(video).__name__}; give its path, the halves of one match as a tuple of paths, and "
                "several matches as a list"
            )
    if not halves:
        raise InputError("a match is an empty tuple; give at least one video")
    return halves


def _hash_weights(model: ComedianForActionSpotting) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()


def spots_of_match(
    scores: Mapping[int, np.ndarray],
    config: ComedianConfig,
    *,
    keep_all: bool = False,
    threshold: float | str | None = None,
) -> list[dict]:
    """Find the events in the scores of a match.

    A model with a `label_calibration` gives the probability that an event is right as its score, and thresholds are on
    it; but candidates for the metric (`keep_all` without `threshold`) have raw scores, as its fixed thresholds want.

    Args:
        scores: half -> `(num_steps, num_labels)`.
        config: labels, time grid, suppression, `label_thresholds` and calibration; without thresholds, events are reported
            from `DEFAULT_THRESHOLD` on.
        keep_all: keep every candidate.
        threshold: smallest score of an event, for all labels, instead of `label_thresholds`; or `"precision=0.9"` or
            `"recall=0.8"`, which takes each label's threshold from `label_curves`; both with a margin where validation has
            few events, see `operating_thresholds`.

    Returns:
        Spots in order of time.

    Raises:
        InputError: `threshold` names no such point, or the model has no curves.
    """
    thresholds, calibrated = thresholds_of(config, keep_all, threshold)
    return [
        spot for half in sorted(scores) for spot in spots_of_half(scores[half], config, half, thresholds, calibrated)
    ]


def thresholds_of(
    config: ComedianConfig, keep_all: bool, threshold: float | str | None
) -> tuple[list[float] | float, bool]:
    """Return the smallest score of a spot, one for all labels or one a label, and whether it is a calibrated one.

    See [`spots_of_match`] for the arguments and errors.
    """
    if threshold is None:
        return (0.0 if keep_all else config.label_thresholds or DEFAULT_THRESHOLD), not keep_all
    return (thresholds_at(threshold, config) if isinstance(threshold, str) else threshold), True


def thresholds_at(target: str, config: ComedianConfig) -> list[float]:
    """Return each label's threshold for `"precision=0.9"` or `"recall=0.8"`; infinite where it is out of reach.

    Raises:
        InputError: `target` is no such thing, or the model has no curves.
    """
    try:
        return operating_thresholds(target, config.label_curves, config.label_num_events)
    except ValueError as error:
        raise InputError(str(error)) from None


def labels_with_too_few_events(target: str, config: ComedianConfig) -> list[str]:
    """Return the labels of which validation has too few events to show a target such as `"precision=0.9"`, found or not."""
    _, value = parse_target(target)
    counts = config.label_num_events or []
    return [label for label, count in zip(config.label_names, counts) if lower_bound(count, count) < value]


def merge_configs(configs: Sequence[ComedianConfig], names: Sequence[str]) -> ComedianConfig:
    """Return the settings of an ensemble: the first model's, with the mean of all `label_thresholds` and calibrations.

    Models of which some are calibrated and some are not have no common scale for thresholds, and so none; the curves of
    single models say nothing of an ensemble.

    Args:
        configs: one a model.
        names: what to call them in messages.

    Raises:
        InputError: two models have different labels or time grids.
    """
    first, *others = configs
    for config, name in zip(others, names[1:], strict=True):
        if config.label_names != first.label_names:
            raise InputError(
                f"`{names[0]}` and `{name}` have different labels; an ensemble needs the same, in one order"
            )
        if (config.fps, config.tubelet_size) != (first.fps, first.tubelet_size):
            raise InputError(
                f"`{names[0]}` has tokens of {first.tubelet_size} frames at {first.fps:g} fps, `{name}` of "
                f"{config.tubelet_size} at {config.fps:g}; an ensemble needs one time grid"
            )
        if config.scores_per_token != first.scores_per_token:
            raise InputError(
                f"`{names[0]}` gives {first.scores_per_token} scores a token, `{name}` {config.scores_per_token}; an "
                "ensemble needs one time grid"
            )
    if not others:
        return ComedianConfig.from_dict(first.to_dict())
    fields = {"label_curves": None, "label_num_events": None}
    fields |= {"label_calibration": _mean([config.label_calibration for config in configs])}
    one_scale = len({config.label_calibration is None for config in configs}) == 1
    fields["label_thresholds"] = _mean([config.label_thresholds for config in configs]) if one_scale else None
    return ComedianConfig.from_dict(first.to_dict() | fields)


def _mean(values: Sequence[list | None]) -> list | None:
    return None if None in values else np.mean(values, axis=0).tolist()


def load_model(
    name: str, device: str | torch.device | None = None
) -> tuple[ComedianForActionSpotting, ComedianVideoProcessor]:
    """Load a spotting model, in float32, and its processor.

    Args:
        name: a folder or a Hub repository, or a folder in one (`user/repository/folder`).
        device: where to put the model; an accelerator by default, where there is one.

    Raises:
        InputError: `name` holds no spotting model of ours, or an ensemble, or the device cannot be used.
    """
    return load_found_model(find_model(name), device)


def class_of(found: FoundModel, trust_remote_code: bool = False) -> type[ComedianForActionSpotting]:
    """Return the class of a model, which may be a subclass in a file of its folder.

    Raises:
        InputError: the folder names a class of its own, and `trust_remote_code` is not set or the class cannot be imported.
    """
    named = custom_class_of(found.config.get("auto_map"))
    if named is None:
        return ComedianForActionSpotting
    if not trust_remote_code:
        raise InputError(
            f"`{found.name}` is a model of the class `{named}`, whose code lies in its folder; read that code, then run it "
            "with `trust_remote_code=True` or `--trust-remote-code`"
        )
    try:
        return get_class_from_dynamic_module(named, found.source)
    except (OSError, ImportError, AttributeError) as error:
        raise InputError(f"the class `{named}` of `{found.name}` cannot be imported: {error}") from error


def load_found_model(
    found: FoundModel, device: str | torch.device | None = None, trust_remote_code: bool = False
) -> tuple[ComedianForActionSpotting, ComedianVideoProcessor]:
    """Load a spotting model that `find_models` found; see [`load_model`]."""
    name, source, subfolder = found.name, found.source, found.subfolder
    if found.config.get("model_type") != ComedianConfig.model_type:
        raise InputError(
            f"`{name}` holds a model of type {found.config.get('model_type')!r}, not 'comedian'; {REMEDY}"
        )
    try:
        model, loading = class_of(found, trust_remote_code).from_pretrained(
            source, subfolder=subfolder, dtype=torch.float32, output_loading_info=True, use_safetensors=True
        )
        height, width = model.config.image_size
        size = {"height": height, "width": width}
        place = {"subfolder": subfolder} if found.base is None else {}
        processor = ComedianVideoProcessor.from_pretrained(found.base or source, size=size, **place)
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            with hub_errors(source, "model"):
                raise error.__cause__ from None
        raise InputError(f"`{name}` cannot be loaded: {_reason(error)}; {REMEDY}") from error
    if loading["missing_keys"]:
        raise InputError(
            f"`{name}` has no weights for {sorted(loading['missing_keys'])[0]}; give a model that was trained to spot"
        )
    try:
        return model.to(device or torch.accelerator.current_accelerator(check_available=True) or "cpu"), processor
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device `{device}` cannot be used: {_reason(error)}; try `cpu`") from error


def _reason(error: Exception) -> str:
    lines = (str(error).strip() or type(error).__name__).splitlines()
    # a configuration's error names the validator first and the reason last
    return lines[-1 if isinstance(error, StrictDataclassError) else 0].strip().rstrip(".")


def _image_size(member: tuple[ComedianForActionSpotting, Callable]) -> tuple[int, int]:
    height, width = member[0].config.image_size
    return height, width


def _process_mirrored(processor: ComedianVideoProcessor, frames: np.ndarray, **options):
    return processor(np.ascontiguousarray(frames[:, :, ::-1]), **options)


def _frames(
    video: str | Path, fps: float, size: tuple[int, int], threads: int, progress: bool
) -> Iterator[np.ndarray]:
    """Yield frames of the model's size, with a bar in seconds of video."""
    total_s = _duration_s(video) if progress else None
    bar = tqdm(
        desc=Path(video).name,
        total=total_s,
        unit="s of video",
        bar_format=BAR_FORMAT if total_s else BAR_FORMAT_WITHOUT_TOTAL,
        disable=not progress,
    )
    begin_s = time.perf_counter()
    with bar:
        for _, frame in iter_frames(video, fps, size, threads=threads):
            yield frame
            bar.set_postfix_str(f"{bar.n / (time.perf_counter() - begin_s):.0f}x real time", refresh=False)
            if bar.total:  # a header may promise less than there is
                bar.total = max(bar.total, bar.n + 1 / fps)
            bar.update(1 / fps)


def _duration_s(video: str | Path) -> float | None:
    try:
        return probe(video).duration_s
    except (
        InputError
    ):  # a stream without a header has no length to tell; what cannot be decoded is told by iter_frames
        return None

"""`ActionSpotter`: a video -> events, with one model or an ensemble."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from comedian.errors import InputError
from comedian.inference.model_names import FoundModel, find_models
from comedian.inference.scoring import (
    Result,
    SpottingModel,
    WindowScores,
    encode_half_with_models,
    score_half,
    score_windows,
)
from comedian.inference.settings import MERGING, with_settings
from comedian.models.postprocessing_comedian import lower_bound, operating_thresholds, parse_target, spots_of_half
from comedian.models.settings_comedian import ComedianSettings
from comedian.models.sound_comedian import read_sound
from comedian.models.time_grid_comedian import cover_starts
from comedian.video.decoding import iter_frames, probe

if TYPE_CHECKING:
    import torch

BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of video [{elapsed}<{remaining}{postfix}]"
BAR_FORMAT_WITHOUT_TOTAL = "{desc}: {n:.0f} s of video [{elapsed}{postfix}]"


class ActionSpotter:
    """Finds the events of videos.

        spotter = ActionSpotter.from_pretrained("my-model")
        spots = spotter(("half_1.mkv", "half_2.mkv"))  # the halves of one match
        spots_of_each = spotter(["match_1.mkv", "match_2.mkv"])  # a batch

    With several models, the scores are the mean of theirs; see `merge_configs` for the settings that are used.

    Args:
        models: such as [`TorchModel`] and [`OpenVinoModel`].
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
        models: Sequence[SpottingModel],
        names: Sequence[str] | None = None,
        flip: bool = False,
    ):
        self.models = list(models)
        self.names = list(names or (f"model {index + 1}" for index in range(len(models))))
        self.flip = flip
        self.config = merge_configs([model.config for model in models], self.names)

    @classmethod
    def from_pretrained(
        cls,
        *models: str | Path,
        device: "str | torch.device | None" = None,
        flip: bool = False,
        trust_remote_code: bool = False,
    ) -> "ActionSpotter":
        """Load one model, or several for an ensemble.

        Args:
            models: folders or Hub repositories; one that holds an ensemble, as `comedian convert` and `comedian publish`
                write it, stands for all its models. A folder of `comedian export --format openvino` is a model, too.
            device: where to run; an accelerator by default, where there is one. OpenVINO's graphs run on the CPU.
            flip: score mirror images too, see the class.
            trust_remote_code: run the code of a folder whose model is of a class of its own.

        Raises:
            InputError: a model or the device cannot be had, or the models do not fit together.
        """
        if not models:
            raise InputError("no model was named; give a folder or a Hub repository")
        # by name, as a model may be given beside the ensemble that it belongs to
        found = {model.name: model for name in models for model in find_models(str(name))}
        loaded = [load_spotting_model(model, device, trust_remote_code) for model in found.values()]
        return cls(loaded, names=list(found), flip=flip)

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
            keep_all: keep all candidates with their raw scores, as needed for the metric.
            threshold: smallest score of an event, for all labels, or such as `"precision=0.9"` or `"recall=0.8"`, as
                measured on validation; the model's own thresholds by default.
            nms_type: `"soft"` or `"hard"` suppression; the model's by default.
            nms_window_s: full width of the suppression in seconds, for all labels or one per label; the model's by
                default.
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
            `np.ndarray` of shape `(num_steps, num_labels)`, float32 in [0, 1], `config.score_rate` steps per second.

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

    def _encode(self, video: str | Path, progress: bool) -> list[tuple[SpottingModel, np.ndarray, np.ndarray | None]]:
        """Spatial tokens of a video by each model, and of its mirror image with `flip`; and its spectrogram or None."""
        encoded: list[tuple[SpottingModel, np.ndarray]] = []
        # one pass over the video for all models that take pictures of one size
        for size, group in groupby(sorted(self.members, key=_image_size), key=_image_size):
            models = list(group)
            frames = _frames(video, self.config.fps, size, models[0].decoder_threads, progress)
            tokens = encode_half_with_models(models, frames)
            encoded += zip(models, tokens, strict=True)
        sound = read_sound(str(video)) if self.uses_sound else None
        return [(model, tokens, sound if model.config.sound else None) for model, tokens in encoded]

    @property
    def uses_sound(self) -> bool:
        """Whether a model takes the audio track."""
        return any(model.config.sound for model in self.models)

    @property
    def members(self) -> list[SpottingModel]:
        """The models whose scores' mean counts; with `flip`, each a second time for mirrored frames."""
        return [*self.models, *(_Mirrored(model) for model in self.models if self.flip)]

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
        for model in self.models:
            digest.update(model.fingerprint().encode())
        digest.update("".join(self.weights_fingerprint).encode())
        return digest.hexdigest()

    @cached_property
    def weights_fingerprint(self) -> list[str]:
        """Hash of each model's weights alone, which no setting changes."""
        return [model.hash_weights() for model in self.models]


def load_spotting_model(
    found: FoundModel, device: "str | torch.device | None" = None, trust_remote_code: bool = False
) -> SpottingModel:
    """Load a spotting model that `find_models` found, on the runtime that its folder is for.

    Args:
        found: the model.
        device: where to run; for graphs of OpenVINO, the CPU alone.
        trust_remote_code: run the code of a folder whose model is of a class of its own.

    Raises:
        InputError: it cannot be loaded, or the device cannot be used.
    """
    if found.is_graphs:
        from comedian.inference.openvino_model import load_openvino_model

        return load_openvino_model(found, device)
    # here, so that graphs run without torch
    from comedian.inference.torch_model import TorchModel, load_found_model

    return TorchModel(*load_found_model(found, device, trust_remote_code))


class _Mirrored:
    """A model whose frames are mirrored first."""

    def __init__(self, model: SpottingModel):
        self.model, self.config, self.name = model, model.config, model.name
        self.tubelets_per_batch, self.decoder_threads = model.tubelets_per_batch, model.decoder_threads

    def encode(self, frames: np.ndarray) -> np.ndarray:
        return self.model.encode(np.ascontiguousarray(frames[:, :, ::-1]))

    def encode_windows(self, windows: np.ndarray) -> np.ndarray:
        return self.model.encode_windows(windows)

    def score(self, windows: np.ndarray, sound: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        return self.model.score(windows, sound)

    def hash_weights(self) -> str:
        return self.model.hash_weights()

    def fingerprint(self) -> str:
        return f"{self.model.fingerprint()}, mirrored"

    def map(self, work: Callable[[np.ndarray], Result], batches: Iterable[np.ndarray]) -> Iterator[Result]:
        return self.model.map(work, batches)


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


def spots_of_match(
    scores: Mapping[int, np.ndarray],
    config: ComedianSettings,
    *,
    keep_all: bool = False,
    threshold: float | str | None = None,
) -> list[dict]:
    """Find the events in the scores of a match.

    A model with a `label_calibration` gives the probability that an event is right as its score, and thresholds are on
    it; but candidates for the metric (`keep_all` without `threshold`) have raw scores, as needed for its fixed thresholds.

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
        spot
        for half in sorted(scores)
        for spot in spots_of_half(scores[half], config, half, thresholds, calibrated=calibrated)
    ]


def thresholds_of(
    config: ComedianSettings, keep_all: bool, threshold: float | str | None
) -> tuple[list[float] | float, bool]:
    """Return the smallest score of a spot, one for all labels or one per label, and whether it is a calibrated one.

    See [`spots_of_match`] for the arguments and errors.
    """
    if threshold is None:
        return (0.0 if keep_all else config.reporting_thresholds), not keep_all
    return (thresholds_at(threshold, config) if isinstance(threshold, str) else threshold), True


def thresholds_at(target: str, config: ComedianSettings) -> list[float]:
    """Return each label's threshold for `"precision=0.9"` or `"recall=0.8"`; infinite if it cannot be reached.

    Raises:
        InputError: `target` is invalid, or the model has no curves.
    """
    try:
        return operating_thresholds(target, config.label_curves, config.label_num_events)
    except ValueError as error:
        raise InputError(str(error)) from None


def labels_with_too_few_events(target: str, config: ComedianSettings) -> list[str]:
    """Return the labels of which validation has too few events to show a target such as `"precision=0.9"`, found or
    not."""
    _, value = parse_target(target)
    counts = config.label_num_events or []
    return [label for label, count in zip(config.label_names, counts) if lower_bound(count, count) < value]


def merge_configs(configs: Sequence[ComedianSettings], names: Sequence[str]) -> ComedianSettings:
    """Return the settings of an ensemble: the first model's, with the mean of all `label_thresholds` and calibrations.

    Models of which some are calibrated and some are not have no common scale for thresholds, and so none; the curves of
    those of single models do not apply to an ensemble.

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
        return type(first).from_dict(first.to_dict())
    fields: dict[str, Any] = {"label_curves": None, "label_num_events": None}
    fields["label_calibration"] = _mean([config.label_calibration for config in configs])
    one_scale = len({config.label_calibration is None for config in configs}) == 1
    fields["label_thresholds"] = _mean([config.label_thresholds for config in configs]) if one_scale else None
    return type(first).from_dict(first.to_dict() | fields)


def _mean(values: Sequence[list | None]) -> list | None:
    known = [value for value in values if value is not None]
    return np.mean(known, axis=0).tolist() if len(known) == len(values) else None


def _image_size(model: SpottingModel) -> tuple[int, int]:
    return model.config.frame_size


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
            if bar.total:  # the duration in a header may be too short
                bar.total = max(bar.total, bar.n + 1 / fps)
            bar.update(1 / fps)


def _duration_s(video: str | Path) -> float | None:
    try:
        return probe(video).duration_s
    except InputError:  # a stream without a header has no known duration; iter_frames reports what cannot be decoded
        return None

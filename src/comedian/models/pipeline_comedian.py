"""`pipeline("action-spotting")`: a video -> events, with nothing but the files of the model's own folder."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from http.client import HTTPException
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.request import urlopen

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel
from transformers.pipelines.base import Pipeline
from transformers.utils import logging

from .encoders_comedian import is_bfloat16_fast
from .frames_comedian import iter_frames
from .postprocessing_comedian import operating_thresholds, spots_of_half, stitch_half
from .settings_comedian import DEFAULT_THRESHOLD
from .sound_comedian import read_sound
from .time_grid_comedian import cover_starts
from .video_processing_comedian import ComedianVideoProcessor
from .windows_comedian import batches_of, fill_tubelet, score_windows

try:
    import av
except ImportError:  # decoded frames need no decoder
    av = None

logger = logging.get_logger(__name__)

MODEL_CLASS = "ComedianForActionSpotting"
# tubelets, and windows, given to the model at once: the default `batch_size`
BATCH_SIZE = 16
# without an answer from a server
TIMEOUT_S = 60

Video = str | os.PathLike | np.ndarray


class ActionSpottingPipeline(Pipeline):
    """Finds the events of videos with a [`ComedianForActionSpotting`].

        spotter = pipeline("action-spotting", model="my-model", trust_remote_code=True)
        spots = spotter(("half_1.mkv", "half_2.mkv"))  # the halves of one match
        spots_of_each = spotter(["match_1.mkv", "match_2.mkv"])  # a batch

    Without `trust_remote_code` where the package is installed and a class of `comedian.models` was imported. Weights in
    float32 run in bfloat16 autocast on accelerators and on CPUs with bfloat16 instructions; weights of another dtype run
    in it.

    Args:
        args: see [`transformers.Pipeline`].
        batch_size (`int`, defaults to 16): tubelets, and windows, given to the model at once.
        kwargs: see [`transformers.Pipeline`], and the parameters of [`__call__`], which become the defaults.

    Raises:
        ValueError: the model spots no actions, or the parameters cannot be.
        OSError: the model's folder holds no video processor and none is given.
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False
    # transformers loads it where torchvision is installed; it is loaded below where not
    _load_video_processor = None
    video_processor: ComedianVideoProcessor

    def __init__(self, *args, batch_size: int = BATCH_SIZE, **kwargs):
        super().__init__(*args, batch_size=None, **kwargs)
        self.batch_size = batch_size
        # by name: to the remote code of one folder the classes of another are strangers
        if MODEL_CLASS not in (base.__name__ for base in type(self.model).__mro__):
            raise ValueError(f"the model is a {type(self.model).__name__}; action spotting needs a {MODEL_CLASS}")
        self.model.eval()
        if self.video_processor is None:
            self.video_processor = ComedianVideoProcessor.from_pretrained(self.model.name_or_path)

    def __call__(
        self, videos: Video | tuple[Video, ...] | Iterable, batch_size: int | None = None, **kwargs
    ) -> list[dict] | list[list[dict]] | Iterator[list[dict]]:
        """Find the events of a match, or of each match of a batch.

        Args:
            videos: a match, or a list, a generator or a data set of matches. A match is a video, or a tuple of the videos
                of its halves in order. A video is the path of any file that FFmpeg reads, its `http://` or `https://`
                address, which is downloaded into a temporary file, or decoded frames: uint8 RGB
                `(num_frames, height, width, 3)` at the model's `fps`.
            batch_size (`int`, *optional*): tubelets, and windows, given to the model at once.
            threshold (`float` or `str`, *optional*): smallest score of an event, for all labels, or such as
                `"precision=0.9"` or `"recall=0.8"`, as measured on validation; the model's `label_thresholds` by default,
                where it has them, and else 0.3. 0 gives every candidate.
            nms_type (`str`, *optional*): `"soft"` or `"hard"` suppression; the model's by default.
            nms_window_s (`float` or `list[float]`, *optional*): full width of the suppression in seconds, for all
                labels or one per label; the model's by default.

        Returns:
            `list[dict]`: spots `{"label", "timestamp_s", "half", "score"}` in order of time; `timestamp_s` in seconds from
            the half's first video frame, `half` from 1. With a calibrated model, `score` is the probability that the event
            is right. Of a list of matches: a list of such lists; of a generator or data set: an iterator of them.

        Raises:
            ValueError: no video, a file that does not exist, an address that cannot be downloaded, frames of another type
                or shape, or a video that cannot be decoded.
            ImportError: a path is given and PyAV is not installed.
        """
        if isinstance(videos, list | tuple) and not videos:
            raise ValueError("`videos` is empty; give at least one video")
        # a wrong path is reported before the first match is scored
        for match in videos if isinstance(videos, list) else []:
            for video in halves_of(match):
                check_video(video)
        return super().__call__(videos, tubelets_per_batch=batch_size or self.batch_size, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Save model, code and video processor."""
        super().save_pretrained(save_directory, **kwargs)
        self.video_processor.save_pretrained(save_directory)

    def _sanitize_parameters(
        self,
        threshold: float | str | None = None,
        nms_type: str | None = None,
        nms_window_s: float | Sequence[float] | None = None,
        tubelets_per_batch: int | None = None,
    ) -> tuple[dict, dict, dict]:
        if nms_type not in (None, "soft", "hard"):
            raise ValueError(f"`nms_type` is {nms_type!r}; must be 'soft' or 'hard'")
        if nms_window_s is not None:
            _check_windows(nms_window_s, self.model.config.num_labels)
        if tubelets_per_batch is not None and tubelets_per_batch < 1:
            raise ValueError(f"`batch_size` is {tubelets_per_batch}; must be 1 or more")
        thresholds: float | list[float] | None
        if isinstance(threshold, str):
            config = self.model.config
            thresholds = operating_thresholds(threshold, config.label_curves, config.label_num_events)
        else:
            thresholds = threshold
        forward = {"tubelets_per_batch": tubelets_per_batch}
        spotting = {"threshold": thresholds, "nms_type": nms_type, "nms_window_s": nms_window_s}
        return {}, _given(forward), _given(spotting)

    def preprocess(self, match: Video | tuple[Video, ...]) -> dict[str, list[tuple[Iterator[np.ndarray], Callable]]]:
        """Open the halves of a match; their frames are read as [`_forward`] draws them, their sound as it asks for it."""
        return {"halves": [self._open(video) for video in halves_of(match)]}

    def _open(self, video: Video) -> tuple[Iterator[np.ndarray], Callable[[], np.ndarray | None]]:
        """Frames of a video, and what reads its sound for a model with an audio branch; decoded frames have none."""
        check_video(video)
        if isinstance(video, np.ndarray):
            return iter(video), lambda: None
        path, config = os.fspath(video), self.model.config
        file = download(path) if is_web_address(path) else None
        path = file.name if file else path
        frames = (frame for _, frame in iter_frames(path, config.fps, config.frame_size, on_damage=logger.warning))

        def sound() -> np.ndarray | None:
            with file or nullcontext():  # the last use of a temporary file
                return read_sound(path) if config.sound else None

        return frames, sound

    def _forward(
        self,
        inputs: dict[str, list[tuple[Iterator[np.ndarray], Callable]]],
        tubelets_per_batch: int = BATCH_SIZE,
    ) -> dict[str, list[np.ndarray]]:
        """Score every step of every half: arrays `(num_steps, num_labels)`, float32 in [0, 1]."""
        scores = []
        for frames, read_sound_of_half in inputs["halves"]:
            tokens = self.encode(frames, tubelets_per_batch)
            scores.append(self.score(tokens, tubelets_per_batch, read_sound_of_half()))
        return {"scores": scores}

    def postprocess(
        self,
        outputs: dict[str, list[np.ndarray]],
        threshold: float | list[float] | None = None,
        nms_type: str | None = None,
        nms_window_s: float | Sequence[float] | None = None,
    ) -> list[dict]:
        """Find the events in the scores of a match's halves."""
        config = self.model.config
        if threshold is None and config.label_thresholds is None:
            logger.warning_once(
                f"The model has no thresholds of its own: events are reported from a score of {DEFAULT_THRESHOLD} on. "
                "Give `threshold` for another, or let `comedian tune` choose one per label on matches with labels."
            )
        thresholds = config.reporting_thresholds if threshold is None else threshold
        spots = []
        for half, scores in enumerate(outputs["scores"], start=1):
            spots += spots_of_half(
                scores, config, half, thresholds, calibrated=True, nms_type=nms_type, nms_window_s=nms_window_s
            )
        return spots

    def encode(self, frames: Iterable[np.ndarray], batch_size: int) -> np.ndarray:
        """Encode every tubelet of a half once, in bounded memory.

        Args:
            frames: uint8 `(height, width, 3)` each, at the model's rate; the last one fills the last tubelet.
            batch_size: tubelets at once.

        Returns:
            `np.ndarray` of shape `(num_tokens, hidden_size)`, float32.
        """
        config = self.model.config
        height, width = config.frame_size
        tokens = []
        for batch in batches_of(frames, batch_size * config.tubelet_size):
            pixels = self.video_processor(
                fill_tubelet(batch, config.tubelet_size),
                size={"height": height, "width": width},
                return_tensors="pt",
                device=self.model.device,
            )["pixel_values_videos"]
            with autocast(self.model):
                tokens.append(self.model.encode_spatial(pixels)[0].float().cpu().numpy())
        return np.concatenate(tokens)

    def score(self, tokens: np.ndarray, batch_size: int, sound: np.ndarray | None = None) -> np.ndarray:
        """Score overlapping windows of a half and stitch them.

        Args:
            tokens (`np.ndarray` of shape `(num_tokens, hidden_size)`): from [`encode`].
            batch_size: windows at once.
            sound: of the half, from [`read_sound`], for a model with an audio branch.

        Returns:
            `np.ndarray` of shape `(num_tokens * scores_per_token, num_labels)`, float32 in [0, 1].
        """
        config = self.model.config
        starts = cover_starts(len(tokens), config.num_tokens, config.window_stride_tokens)

        def score(windows: np.ndarray, sound: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
            return score_arrays(self.model, windows, sound)

        scores, offsets_s = score_windows(score, tokens, starts, config, sound, batch_size=batch_size)
        return stitch_half(scores, offsets_s, starts, len(tokens), config)


def halves_of(match: Video | tuple[Video, ...]) -> tuple[Video, ...]:
    """Videos of the halves of a match.

    Raises:
        ValueError: a list, which is a batch of matches, or an empty tuple.
    """
    if isinstance(match, list):
        raise ValueError(f"{match} is a list within a batch; give the halves of one match as a tuple")
    if isinstance(match, tuple) and not match:
        raise ValueError("a match is an empty tuple; give at least one video")
    return match if isinstance(match, tuple) else (match,)


def check_video(video: Video) -> None:
    """Reject inputs that are not videos before the work begins.

    Raises:
        ValueError: frames of another type or shape, or a path without a file.
        ImportError: a path, and PyAV is not installed.
    """
    if isinstance(video, np.ndarray):
        if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or len(video) == 0:
            raise ValueError(
                f"decoded frames are {video.dtype} {video.shape}; must be uint8 (num_frames, height, width, 3)"
            )
        return
    if not isinstance(video, str | os.PathLike):
        raise ValueError(f"a video is a {type(video).__name__}; must be a path, an address or a uint8 array of frames")
    path = os.fspath(video)
    if "://" in path and not is_web_address(path):
        raise ValueError(f"`{path}` is not an http or https URL; download the video and give its path")
    if not is_web_address(path) and not os.path.isfile(path):
        raise ValueError(f"`{path}` is not a file; give the path of a video")
    if av is None:
        raise ImportError("reading videos needs PyAV: run `pip install av`, or give decoded frames")


def is_web_address(path: str) -> bool:
    """Whether a video is to be downloaded."""
    return path.lower().startswith(("http://", "https://"))


def download(url: str) -> Any:
    """Download a video.

    Returns:
        A temporary file, deleted when it is closed.

    Raises:
        ValueError: it cannot be downloaded to its end.
    """
    file = NamedTemporaryFile(prefix="comedian-")  # noqa: SIM115
    try:
        with urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 http or https, see `check_video`
            shutil.copyfileobj(response, file)
            missing = response.length
        file.flush()
    except (OSError, HTTPException, ValueError) as error:
        file.close()
        raise ValueError(f"`{url}` cannot be downloaded: {error}; give the path of a video") from error
    if missing:
        file.close()
        raise ValueError(f"`{url}` cannot be downloaded: the last {missing} bytes are missing; try again")
    return file


def autocast(model: PreTrainedModel) -> torch.autocast:
    """Return bfloat16 autocast for float32 weights where it pays: accelerators, CPUs with bfloat16 instructions."""
    plain = model.dtype == torch.float32 and not is_quantized(model)
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=plain and is_bfloat16_fast(model.device))


def score_arrays(
    model: PreTrainedModel, windows: np.ndarray, sound: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Score windows of spatial tokens that are arrays.

    Args:
        model: a [`ComedianForActionSpotting`].
        windows (`np.ndarray` of shape `(num_windows, num_tokens, hidden_size)`): float32.
        sound (`np.ndarray` of shape `(num_windows, num_tokens, mel_frames, NUM_MELS)`, *optional*): float32.

    Returns:
        Scores and displacements, see [`ComedianForActionSpotting.score_windows`].
    """
    tokens = torch.from_numpy(windows).to(model.device, model.dtype)
    spectrograms = None if sound is None else torch.from_numpy(sound).to(model.device)
    with autocast(model):
        scores, offsets_s = model.score_windows(tokens, spectrograms)
    return scores.cpu().numpy(), None if offsets_s is None else offsets_s.cpu().numpy()


def is_quantized(model: nn.Module) -> bool:
    """Whether a layer holds its weight in another form than a floating-point table, whatever library made it so."""
    weights = (getattr(module, "weight", None) for module in model.modules())
    return any(weight is not None and type(weight) not in (nn.Parameter, Tensor) for weight in weights)


def _check_windows(windows_s: float | Sequence[float], num_labels: int) -> None:
    windows = np.asarray(windows_s)
    if windows.shape not in ((), (num_labels,)) or not ((windows >= 0) & np.isfinite(windows)).all():
        raise ValueError(f"`nms_window_s` is {windows}; must be one number, or one per label, of 0 or more seconds")


def _given(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters that the caller gave, so that they alone replace those of the pipeline."""
    return {name: value for name, value in parameters.items() if value is not None}


__all__ = ["ActionSpottingPipeline"]

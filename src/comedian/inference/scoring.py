"""From frames to the scores of a half: each tubelet encoded once, windows of tokens stitched."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from comedian.errors import InputError
from comedian.models import ComedianConfig, ComedianForActionSpotting, ComedianVideoProcessor
from comedian.models.encoders_comedian import is_bfloat16_fast
from comedian.models.pipeline_comedian import is_quantized
from comedian.models.postprocessing_comedian import require_finite, spots_from_scores, step_timestamps_s, stitch_half
from comedian.models.sound_comedian import sound_of_tokens
from comedian.models.time_grid_comedian import cover_starts

# tubelets encoded at once: enough to fill the matrix units, small enough for the caches of a CPU
TUBELETS_PER_BATCH = 16
TUBELETS_PER_ACCELERATOR_BATCH = 128
WINDOWS_PER_BATCH = 16
# batches that a CPU works on at a time: each takes its share of memory, about 0.1 GB for ViViT-T
MAX_WORKERS = 8

Result = TypeVar("Result")


def autocast(model: ComedianForActionSpotting) -> torch.autocast:
    """Return bfloat16 autocast where it pays: on accelerators and on CPUs with bfloat16 instructions."""
    enabled = is_bfloat16_fast(model.device) and not is_quantized(model)
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=enabled)


def decoder_threads(model: ComedianForActionSpotting) -> int:
    """Threads for the decoder that works ahead of a model: all cores (0), or a few where the model needs them too."""
    return 0 if model.device.type != "cpu" else max(1, torch.get_num_threads() // 4)


def tubelets_per_batch(model: ComedianForActionSpotting) -> int:
    """Tubelets to encode at once where a model is."""
    return TUBELETS_PER_BATCH if model.device.type == "cpu" else TUBELETS_PER_ACCELERATOR_BATCH


def batches_of(frames: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Stack single frames `(height, width, 3)` into batches of at most `size`."""
    frames = iter(frames)
    while batch := list(islice(frames, size)):
        yield np.stack(batch)


def map_batches(
    work: Callable[[np.ndarray], Result], batches: Iterable[np.ndarray], device: torch.device
) -> Iterator[Result]:
    """Yield `work(batch)` in order, worked on in threads while the caller's own thread makes the next batches.

    Each core of a CPU takes a batch of its own (of many cores, a few share one), so that none waits for another, nor for the
    one that is decoding; an accelerator takes one after the other. The threads begin without `torch.inference_mode` and
    autocast.
    """
    num_threads = torch.get_num_threads()
    workers = min(num_threads, MAX_WORKERS) if device.type == "cpu" else 1
    coming: deque[Future[Result]] = deque()
    try:
        threads_each = (max(num_threads // workers, 1),)
        with ThreadPoolExecutor(workers, "batch", initializer=torch.set_num_threads, initargs=threads_each) as pool:
            for batch in batches:
                coming.append(pool.submit(work, batch))
                # enough to keep all at work, few enough to hold in memory
                if len(coming) > 2 * workers:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
    finally:
        # threads that are yet to be made ask for the number that was set last
        torch.set_num_threads(num_threads)


def encode_half(
    model: ComedianForActionSpotting, processor: ComedianVideoProcessor, frames: Iterable[np.ndarray]
) -> Tensor:
    """Encode every tubelet of a half once, in bounded memory.

    Args:
        model: in eval mode.
        processor: resizes and normalises.
        frames: the half's frames in order, uint8 `(height, width, 3)` each, at the model's rate; the last one is repeated
            to fill the last tubelet. Threads encode while the next ones are drawn.

    Returns:
        `torch.Tensor` of shape `(num_tokens, hidden_size)`, float32, on the model's device.
    """
    return encode_half_with_models([model], [processor], frames)[0]


def encode_half_with_models(
    models: Sequence[ComedianForActionSpotting],
    processors: Sequence[Callable],
    frames: Iterable[np.ndarray],
) -> list[Tensor]:
    """Encode a half with several models of one `tubelet_size` in one pass over its frames; see [`encode_half`]."""

    def encode(batch: np.ndarray) -> list[Tensor]:
        return encode_frames(models, processors, batch)

    batch_size = tubelets_per_batch(models[0]) * models[0].config.tubelet_size
    batches = map_batches(encode, batches_of(frames, batch_size), models[0].device)
    return [torch.cat(tokens) for tokens in zip(*batches, strict=True)]


@torch.inference_mode()
def encode_frames(
    models: Sequence[ComedianForActionSpotting], processors: Sequence[ComedianVideoProcessor], frames: np.ndarray
) -> list[Tensor]:
    """Encode some tubelets with several models of one `tubelet_size`.

    Args:
        models: in eval mode.
        processors: one a model.
        frames: uint8 `(num_frames, height, width, 3)`; the last one is repeated to fill the last tubelet.

    Returns:
        `torch.Tensor` of shape `(num_tokens, hidden_size)` a model, float32, on its device.
    """
    if missing := -len(frames) % models[0].config.tubelet_size:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    tokens = []
    for model, processor in zip(models, processors, strict=True):
        pixels = processor(frames, return_tensors="pt", device=model.device)["pixel_values_videos"]
        with autocast(model):
            tokens.append(model.encode_spatial(pixels)[0].float())
    return tokens


def score_half(model: ComedianForActionSpotting, tokens: Tensor, sound: np.ndarray | None = None) -> np.ndarray:
    """Scores of a half from its spatial tokens: overlapping windows, edges trimmed, merged.

    Args:
        model: in eval mode.
        tokens: `(num_tokens, hidden_size)`, from [`encode_half`].
        sound: `(num_mel_frames, NUM_MELS)`, from [`read_sound`], for a model that hears; `None` for a half without.

    Returns:
        `np.ndarray` of shape `(num_tokens * scores_per_token, num_labels)`, float32 in [0, 1].
    """
    config = model.config
    starts = cover_starts(len(tokens), config.num_tokens, config.window_stride_tokens)
    scores, offsets_s = score_windows(model, tokens, starts, sound)
    return stitch_half(scores, offsets_s, starts, len(tokens), config)


@dataclass(frozen=True)
class WindowScores:
    """What a model says of the overlapping windows of a half, before they are merged.

    Attributes:
        scores: float32 `(num_windows, window_tokens * logits_per_token, num_labels)` in [0, 1].
        offsets_s: float32 `(num_windows, window_tokens, num_labels)` of a model with an offset head, else `None`.
        starts: int64 `(num_windows,)`, first token of each window.
        length: tokens of the half.
    """

    scores: np.ndarray
    offsets_s: np.ndarray | None
    starts: np.ndarray
    length: int

    def merge(self, config: ComedianConfig) -> np.ndarray:
        """Merge the windows that start where those of `config` do, as it says.

        Returns:
            `np.ndarray` of shape `(length * scores_per_token, num_labels)`, float32 in [0, 1].

        Raises:
            ValueError: not all of those windows are here.
        """
        starts = cover_starts(self.length, config.num_tokens, config.window_stride_tokens)
        kept = np.searchsorted(self.starts, starts)
        if not np.array_equal(self.starts[np.minimum(kept, len(self.starts) - 1)], starts):
            raise ValueError(
                f"it has windows that start at tokens {self.starts[:3]}, ..., but not every {config.window_stride_tokens}"
            )
        offsets_s = None if self.offsets_s is None else self.offsets_s[kept]
        return stitch_half(self.scores[kept], offsets_s, starts, self.length, config)


@torch.inference_mode()
def score_windows(
    model: ComedianForActionSpotting, tokens: Tensor, starts: np.ndarray, sound: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """What a model says of windows of spatial tokens.

    Args:
        model: in eval mode.
        tokens: `(num_tokens, hidden_size)`; of less than a window, the last one is repeated to fill it.
        starts: int64 `(num_windows,)`: the first token of each window.
        sound: `(num_mel_frames, NUM_MELS)` from the time of the first token on, for a model that hears.

    Returns:
        Scores, `np.ndarray` of shape `(num_windows, window_tokens * logits_per_token, num_labels)`, float32 in [0, 1], and
        displacements in seconds, `(num_windows, window_tokens, num_labels)`, where the model has them.

    Raises:
        InputError: one of them is not finite.
    """
    window = model.config.num_tokens
    if len(tokens) < window:
        tokens = torch.cat([tokens, tokens[-1:].expand(window - len(tokens), -1)])
    windows, heard = tokens.to(model.dtype).unfold(0, window, 1), None
    if sound is not None:
        heard = torch.from_numpy(sound_of_tokens(sound, len(tokens), model.config.token_rate)).to(tokens.device)
        heard = heard.unfold(0, window, 1)
    scores, offsets_s = [], []
    for batch in torch.from_numpy(starts).to(tokens.device).split(WINDOWS_PER_BATCH):
        with autocast(model):
            temporal_tokens = model.encode_temporal(windows[batch].transpose(1, 2))
            if heard is not None:
                temporal_tokens = model.fuse_sound(temporal_tokens, heard[batch].movedim(-1, 1))
            scores.append(model.classify(temporal_tokens).float().sigmoid().cpu())
            if model.config.offset_radius_s is not None:
                offsets_s.append(model.predict_offsets_s(temporal_tokens).float().cpu())
    found = torch.cat(scores).numpy(), torch.cat(offsets_s).numpy() if offsets_s else None
    try:
        require_finite(*found)
    except ValueError as error:
        raise InputError(f"`{model.name_or_path or 'model'}`: {error}") from None
    return found


def spots_of_half(
    scores: np.ndarray, config: ComedianConfig, half: int, thresholds: list[float] | float, calibrated: bool = False
) -> list[dict]:
    """Spots of one half from its scores, with the stitching grid and suppression of `config`.

    Args:
        scores: `(num_steps, num_labels)`, from [`score_half`].
        config: the model's.
        half: number of the half, from 1.
        thresholds: smallest score of a spot, one for all labels or one a label.
        calibrated: give probabilities for scores, where `config` has a `label_calibration`; thresholds are on them.

    Returns:
        Spots `{"label", "timestamp_s", "half", "score"}` in order of time.
    """
    return spots_from_scores(
        scores,
        step_timestamps_s(len(scores), config.score_rate, config.fps),
        config.label_names,
        half,
        score_rate=config.score_rate,
        nms_type=config.nms_type,
        nms_window_s=config.nms_window_s,
        nms_threshold=config.nms_threshold,
        nms_min_weight=config.nms_min_weight,
        thresholds=thresholds,
        calibration=config.label_calibration if calibrated else None,
    )

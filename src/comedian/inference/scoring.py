"""From frames to the scores of a half: each tubelet encoded once, windows of tokens stitched. NumPy alone."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from comedian.errors import InputError
from comedian.models.postprocessing_comedian import stitch_half
from comedian.models.settings_comedian import ComedianSettings
from comedian.models.time_grid_comedian import cover_starts
from comedian.models.windows_comedian import batches_of, fill_tubelet
from comedian.models.windows_comedian import score_windows as score_windows_of_half

WINDOWS_PER_BATCH = 16
# batches that a CPU works on at a time: each takes its share of memory, about 0.1 GB for ViViT-T
MAX_WORKERS = 8

Result = TypeVar("Result")


class FrameEncoder(Protocol):
    """Encodes frames to tokens, and relates the tokens of a window: a backbone, on PyTorch or another runtime."""

    @property
    def config(self) -> ComedianSettings:
        """Time grid and sizes."""

    @property
    def tubelets_per_batch(self) -> int:
        """Tubelets to give [`encode`] at once."""

    @property
    def decoder_threads(self) -> int:
        """Threads for the decoder that works ahead; 0 for all cores."""

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Encode uint8 `(num_frames, height, width, 3)` of whole tubelets to float32 `(num_tokens, hidden_size)`."""

    def encode_windows(self, windows: np.ndarray) -> np.ndarray:
        """Relate float32 `(num_windows, num_tokens, hidden_size)` of spatial tokens; the result has the same shape."""

    def map(self, work: Callable[[np.ndarray], Result], batches: Iterable[np.ndarray]) -> Iterator[Result]:
        """Yield `work(batch)` in order, in threads that suit the hardware, while the caller's makes the next batches."""


class SpottingModel(FrameEncoder, Protocol):
    """A model that scores windows of tokens, too."""

    @property
    def name(self) -> str:
        """Folder or repository, for messages."""

    def score(self, windows: np.ndarray, sound: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Score windows of spatial tokens.

        Args:
            windows: float32 `(num_windows, num_tokens, hidden_size)`.
            sound: float32 `(num_windows, num_tokens, mel_frames, NUM_MELS)`, for a model with `config.sound`.

        Returns:
            Scores float32 `(num_windows, num_tokens * logits_per_token, num_labels)` in [0, 1], and displacements in
            seconds, `(num_windows, num_tokens, num_labels)`, of a model with an offset head, else `None`.
        """

    def hash_weights(self) -> str:
        """Hash of the weights alone."""

    def fingerprint(self) -> str:
        """All that the scores depend on beside the weights: configuration, preprocessing, precision."""


def map_in_threads(
    work: Callable[[np.ndarray], Result],
    batches: Iterable[np.ndarray],
    workers: int,
    initializer: Callable[..., None] | None = None,
    initargs: tuple = (),
) -> Iterator[Result]:
    """Yield `work(batch)` in order, worked on in `workers` threads while the caller's own thread makes the next batches.

    The initializer, with its arguments, is called at the start of each thread.
    """
    coming: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, "batch", initializer=initializer, initargs=initargs) as pool:
        for batch in batches:
            coming.append(pool.submit(work, batch))
            # enough to keep all at work, few enough to hold in memory
            if len(coming) > 2 * workers:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def encode_half(model: FrameEncoder, frames: Iterable[np.ndarray]) -> np.ndarray:
    """Encode every tubelet of a half once, in bounded memory.

    Args:
        model: encodes frames.
        frames: the half's frames in order, uint8 `(height, width, 3)` each, at the model's rate; the last one is repeated
            to fill the last tubelet. Threads encode while the next ones are drawn.

    Returns:
        `np.ndarray` of shape `(num_tokens, hidden_size)`, float32.
    """
    return encode_half_with_models([model], frames)[0]


def encode_half_with_models(models: Sequence[FrameEncoder], frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Encode a half with several models of one `tubelet_size` in one pass over its frames; see [`encode_half`]."""

    def encode(batch: np.ndarray) -> list[np.ndarray]:
        return encode_frames(models, batch)

    batch_size = models[0].tubelets_per_batch * models[0].config.tubelet_size
    batches = models[0].map(encode, batches_of(frames, batch_size))
    return [np.concatenate(tokens) for tokens in zip(*batches, strict=True)]


def encode_frames(models: Sequence[FrameEncoder], frames: np.ndarray) -> list[np.ndarray]:
    """Encode some tubelets with several models of one `tubelet_size`.

    Args:
        models: encode frames.
        frames: uint8 `(num_frames, height, width, 3)`; the last one is repeated to fill the last tubelet.

    Returns:
        `np.ndarray` of shape `(num_tokens, hidden_size)` a model, float32.
    """
    frames = fill_tubelet(frames, models[0].config.tubelet_size)
    return [model.encode(frames) for model in models]


def score_half(model: SpottingModel, tokens: np.ndarray, sound: np.ndarray | None = None) -> np.ndarray:
    """Scores of a half from its spatial tokens: overlapping windows, edges trimmed, merged.

    Args:
        model: scores windows.
        tokens: `(num_tokens, hidden_size)`, from [`encode_half`].
        sound: `(num_mel_frames, NUM_MELS)`, from [`read_sound`], for a model with an audio branch; `None` for a half
            without audio.

    Returns:
        `np.ndarray` of shape `(num_tokens * scores_per_token, num_labels)`, float32 in [0, 1].
    """
    config = model.config
    starts = cover_starts(len(tokens), config.num_tokens, config.window_stride_tokens)
    scores, offsets_s = score_windows(model, tokens, starts, sound)
    return stitch_half(scores, offsets_s, starts, len(tokens), config)


@dataclass(frozen=True)
class WindowScores:
    """What a model predicts for the overlapping windows of a half, before they are merged.

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

    def merge(self, config: ComedianSettings) -> np.ndarray:
        """Merge the windows according to `config`.

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


def score_windows(
    model: SpottingModel, tokens: np.ndarray, starts: np.ndarray, sound: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """What a model predicts for windows of spatial tokens.

    Args:
        model: scores windows.
        tokens: `(num_tokens, hidden_size)`; of less than a window, the last one is repeated to fill it.
        starts: int64 `(num_windows,)`: the first token of each window.
        sound: `(num_mel_frames, NUM_MELS)` from the time of the first token on, for a model with sound.

    Returns:
        Scores, `np.ndarray` of shape `(num_windows, window_tokens * logits_per_token, num_labels)`, float32 in [0, 1], and
        displacements in seconds, `(num_windows, window_tokens, num_labels)`, where the model has them.

    Raises:
        InputError: one of them is not finite.
    """
    try:
        return score_windows_of_half(model.score, tokens, starts, model.config, sound, batch_size=WINDOWS_PER_BATCH)
    except ValueError as error:
        raise InputError(f"`{model.name}`: {error}") from None

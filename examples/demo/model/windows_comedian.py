"""Tubelets and windows of a half as arrays: cutting, filling, scoring. NumPy only."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np

from .postprocessing_comedian import require_finite
from .settings_comedian import ComedianSettings
from .sound_comedian import sound_of_tokens

# windows of spatial tokens, and their spectrograms -> scores and displacements
ScoreWindows = Callable[[np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray | None]]


def batches_of(frames: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Stack single frames `(height, width, 3)` into batches of at most `size`."""
    frames = iter(frames)
    while batch := list(islice(frames, size)):
        yield np.stack(batch)


def fill_tubelet(frames: np.ndarray, tubelet_size: int) -> np.ndarray:
    """Repeat the last of `(num_frames, height, width, 3)` until the frames fill whole tubelets."""
    return fill(frames, len(frames) + -len(frames) % tubelet_size)


def fill(rows: np.ndarray, length: int) -> np.ndarray:
    """Repeat the last of `(num_rows, ...)` until there are at least `length`."""
    missing = max(length - len(rows), 0)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


def windows_of(rows: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Cut windows of `length` rows that begin at `starts` out of `(num_rows, ...)`: `(num_windows, length, ...)`."""
    return rows[starts[:, None] + np.arange(length)]


def score_windows(
    score: ScoreWindows,
    tokens: np.ndarray,
    starts: np.ndarray,
    config: ComedianSettings,
    sound: np.ndarray | None = None,
    *,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Score windows of spatial tokens, batch by batch.

    Args:
        score: scores windows `(num_windows, window_tokens, hidden_size)` with their spectrograms `(num_windows,
            window_tokens, mel_frames, NUM_MELS)`, if any.
        tokens (`np.ndarray` of shape `(num_tokens, hidden_size)`): of less than a window, the last one is repeated.
        starts (`np.ndarray` of shape `(num_windows,)`, int64): first token of each window.
        config ([`ComedianSettings`]): time grid of the model.
        sound (`np.ndarray` of shape `(num_mel_frames, NUM_MELS)`, *optional*): spectrogram from the time of the first
            token, for a model with an audio branch.
        batch_size (`int`): windows at once.

    Returns:
        Scores, `np.ndarray` of shape `(num_windows, window_tokens * logits_per_token, num_labels)`, float32 in [0, 1], and
        displacements in seconds, `(num_windows, window_tokens, num_labels)`, if the model has them.

    Raises:
        ValueError: a score or a displacement is not finite.
    """
    tokens = fill(tokens, config.num_tokens)
    spectrograms = None if sound is None else sound_of_tokens(sound, len(tokens), config.token_rate)
    outputs = []
    for first in range(0, len(starts), batch_size):
        batch = starts[first : first + batch_size]
        of_batch = None if spectrograms is None else windows_of(spectrograms, batch, config.num_tokens)
        outputs.append(score(windows_of(tokens, batch, config.num_tokens), of_batch))
    scores, offsets_s = zip(*outputs, strict=True)
    found = np.concatenate(scores), None if offsets_s[0] is None else np.concatenate(offsets_s)
    require_finite(*found)
    return found


__all__ = ["batches_of", "fill", "fill_tubelet", "score_windows", "windows_of"]

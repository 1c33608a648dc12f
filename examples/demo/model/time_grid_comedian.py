"""When the frames and tokens of a half are, and which windows cover it: pure arithmetic.

Lengths, windows, strides and starts are integers in one unit of the caller's choice, frames or tokens. A start is the
index of a window's first element. A half shorter than the window has the one start 0, and the caller pads.
"""

import numpy as np

# annotations come in whole milliseconds; this only absorbs the rounding of i / fps
TIME_EPSILON_S = 1e-6


def cover_starts(length: int, window: int, stride: int) -> np.ndarray:
    """Return the starts that cover a half: every `stride`, the last window flush with the end.

    Args:
        length (`int`): elements of the half.
        window (`int`): elements of a window.
        stride (`int`): hop between windows, at most `window`.

    Returns:
        `np.ndarray` of shape `(num_windows,)`, int64: ascending starts without duplicates.

    Raises:
        ValueError: a value below 1, or a stride that leaves holes.
    """
    require_positive(length=length, window=window, stride=stride)
    if stride > window:
        raise ValueError(f"`stride` {stride} is greater than `window` {window}: it would leave holes")
    last = last_start(length, window)
    return np.append(np.arange(0, last, stride, dtype=np.int64), last)


def frame_timestamps_s(num_frames: int, fps: float) -> np.ndarray:
    """Return the time of each frame: frame `i` is at `i / fps`.

    Args:
        num_frames (`int`): frames of the half.
        fps (`float`): frames per second.

    Returns:
        `np.ndarray` of shape `(num_frames,)`, float64: seconds from the start of the half.
    """
    return np.arange(num_frames) / fps


def token_timestamps_s(num_tokens: int, fps: float, tubelet_size: int) -> np.ndarray:
    """Return the time of each token: the mean of its frames' times.

    Args:
        num_tokens (`int`): tokens of the half.
        fps (`float`): frames per second.
        tubelet_size (`int`): frames of a token.

    Returns:
        `np.ndarray` of shape `(num_tokens,)`, float64: seconds from the start of the half.
    """
    return (np.arange(num_tokens) * tubelet_size + (tubelet_size - 1) / 2) / fps


def last_start(length: int, window: int) -> int:
    """Return the start of the window that ends with the half."""
    return max(length - window, 0)


def require_positive(**values: int) -> None:
    """Raise `ValueError` for the first value below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"`{name}` is {value}; must be 1 or more")

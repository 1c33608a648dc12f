"""From the scores of windows to spots: stitching, non-maximum suppression, spots. NumPy only.

Source: COMEDIAN (Denize et al., WACVW 2024), inference; soft-NMS after Bodla et al., "Soft-NMS" (ICCV 2017), in time.
Everything is counted in steps of the score grid (one step a token) until `find_spots` puts timestamps on it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def stitch(
    scores: np.ndarray, starts: np.ndarray, num_tokens: int, edge_trim: int = 0, merge: str = "max"
) -> np.ndarray:
    """Merge the scores of overlapping windows into the scores of a whole half.

    The outer tokens of a window have seen one side of their context only and are dropped, except where the window's
    edge is the half's own. What a window holds beyond the half's end is padding and is dropped too.

    Args:
        scores (`np.ndarray` of shape `(num_windows, window_tokens, num_labels)`, float): scores of each window.
        starts (`np.ndarray` of shape `(num_windows,)`, int): first token of each window, as from
            `comedian.data.windows.cover_starts`.
        num_tokens (`int`): tokens of the half.
        edge_trim (`int`, defaults to 0): tokens dropped at both ends of a window.
        merge (`str`, defaults to `"max"`): `"max"` or `"mean"` of the windows that hold a token.

    Returns:
        `np.ndarray` of shape `(num_tokens, num_labels)`, float32.

    Raises:
        ValueError: unknown `merge`, or a token that no window holds after the trim.
    """
    if merge not in ("max", "mean"):
        raise ValueError(f"`merge` is {merge!r}; must be 'max' or 'mean'")
    window_tokens, num_labels = scores.shape[1:]
    highest = np.full((num_tokens, num_labels), -np.inf, dtype=np.float32)
    # float64: the mean of equal scores is that score again
    total = np.zeros((num_tokens, num_labels), dtype=np.float64)
    support = np.zeros(num_tokens, dtype=np.int64)
    for window, start in zip(scores, starts, strict=True):
        first = 0 if start == 0 else edge_trim
        stop = num_tokens - start if start + window_tokens >= num_tokens else window_tokens - edge_trim
        kept, tokens = window[first:stop], slice(start + first, start + stop)
        if merge == "max":
            np.maximum(highest[tokens], kept, out=highest[tokens])
        else:
            total[tokens] += kept
        support[tokens] += 1
    holes = np.flatnonzero(support == 0)
    if holes.size:
        raise ValueError(
            f"no window holds token {holes[0]} ({holes.size} of {num_tokens} tokens): windows of {window_tokens} tokens "
            f"lose `edge_trim` {edge_trim} at both ends, so they must start at most {window_tokens - 2 * edge_trim} apart"
        )
    return highest if merge == "max" else (total / support[:, None]).astype(np.float32)


def non_maximum_suppression(
    scores: np.ndarray,
    kind: str,
    window: float | Sequence[float],
    threshold: float,
    min_weight: float = 0.0,
) -> np.ndarray:
    """Suppress, label by label, the scores around better ones.

    `"hard"` keeps a score that is at least every score within `window / 2` steps and at least `threshold`; all scores
    of a plateau are kept. `"soft"` repeatedly takes the highest score (the earliest of equals), keeps it, multiplies
    every other one at a distance `d <= window / 2` by `clip(min_weight + (1 - min_weight) * d / (window / 2), 0, 1)`
    and stops below `threshold`. Both equal the published implementation bit for bit, in float32 as there: soft-NMS
    makes near-ties out of saturated scores, and another rounding resolves them to another step.

    Args:
        scores (`np.ndarray` of shape `(num_steps, num_labels)`, float): scores, 0 or more.
        kind (`str`): `"soft"` or `"hard"`.
        window (`float` or sequence of `num_labels` `float`): full width in steps, for all labels or one a label.
        threshold (`float`): scores below are suppressed.
        min_weight (`float`, defaults to 0.0): factor of soft-NMS at distance 0.

    Returns:
        `np.ndarray` of shape `(num_steps, num_labels)`, float32: scores kept (soft: after suppression); 0 = suppressed.

    Raises:
        ValueError: unknown `kind`.
    """
    if kind not in ("soft", "hard"):
        raise ValueError(f"`kind` is {kind!r}; must be 'soft' or 'hard'")
    scores = np.asarray(scores, dtype=np.float32)
    windows = np.broadcast_to(np.asarray(window, dtype=np.float64), scores.shape[1:])
    kept = np.empty_like(scores)
    for width in np.unique(windows):
        labels = windows == width
        if kind == "hard":
            kept[:, labels] = _hard_nms(scores[:, labels], float(width), float(threshold))
        else:
            kept[:, labels] = _soft_nms(scores[:, labels], float(width), float(threshold), float(min_weight))
    return kept


def _hard_nms(scores: np.ndarray, window: float, threshold: float) -> np.ndarray:
    radius = min(int(window / 2), len(scores))
    highest = _sliding_max(np.pad(scores, ((radius, radius), (0, 0))), 2 * radius + 1)
    return np.where((scores >= highest) & (scores >= threshold), scores, np.float32(0))


def _soft_nms(scores: np.ndarray, window: float, threshold: float, min_weight: float) -> np.ndarray:
    """Fix many peaks a round, with the result of one peak at a time.

    A round fixes every score that is the highest (the earliest of equals) within `reach = 2 * radius` steps. Such a
    peak's window shares a step only with the windows of peaks within `reach`. All those still to come are lower, or
    equal and later, and scores never grow, so one at a time would take this peak before any of them too: it has its
    final value, and each step sees the same multiplications in the same order. The peaks of one round are more than
    `reach` apart, so their windows are disjoint. The highest score of a label is always such a peak: rounds end.
    """
    num_steps, num_labels = scores.shape
    radius = min(int(window / 2), num_steps)
    reach = max(2 * radius, 1)
    distances = np.abs(np.arange(-radius, radius + 1)).astype(np.float32)
    # below 2 steps the window holds the peak alone, whose weight is set apart
    weights = np.clip(min_weight + (1 - min_weight) * (distances / max(window / 2, 1)), 0, 1)
    weights[radius] = 0  # the peak itself leaves the field

    # one label after the other, so that a peak's window is one piece of memory; 0 = not a candidate: padding, below the
    # threshold, or fixed
    live = np.zeros((num_labels, num_steps + 2 * reach), dtype=np.float32)
    candidates = live[:, reach : reach + num_steps]
    candidates[:] = np.where(scores >= threshold, scores, 0).T
    kept = np.zeros_like(live)
    flat_live, flat_kept = live.reshape(-1), kept.reshape(-1)
    windows_of_live = sliding_window_view(flat_live, len(weights), writeable=True)
    while True:
        highest = _sliding_max(flat_live, reach)
        # a step's own place is `reach` after the begin of the stretch before it
        before, after = highest[: len(flat_live) - 2 * reach], highest[reach + 1 :]
        inner = flat_live[reach:-reach]
        peaks = np.flatnonzero((inner > before) & (inner >= after)) + reach
        if not peaks.size:
            return np.ascontiguousarray(kept[:, reach : reach + num_steps].T)
        flat_kept[peaks] = flat_live[peaks]
        suppressed = windows_of_live[peaks - radius] * weights
        windows_of_live[peaks - radius] = np.where(suppressed >= threshold, suppressed, 0)


def _sliding_max(values: np.ndarray, width: int) -> np.ndarray:
    """Maxima of `values[i : i + width]` along the first axis: `len(values) - width + 1` rows, by doubling."""
    span = 1
    while 2 * span <= width:
        values = np.maximum(values[:-span], values[span:])
        span *= 2
    rest = width - span
    return np.maximum(values[: len(values) - rest], values[rest:])


def find_spots(
    scores: np.ndarray,
    timestamps_s: np.ndarray,
    labels: Sequence[str],
    half: int,
    thresholds: float | Sequence[float] = 0.0,
) -> list[dict]:
    """List the scores that are left after suppression as spots.

    Args:
        scores (`np.ndarray` of shape `(num_steps, num_labels)`, float): scores; 0 = suppressed.
        timestamps_s (`np.ndarray` of shape `(num_steps,)`, float): ascending seconds from the start of the half.
        labels (sequence of `num_labels` `str`): names in the order of the columns.
        half (`int`): number of the half, from 1.
        thresholds (`float` or sequence of `num_labels` `float`, defaults to 0.0): scores below are no spots.

    Returns:
        `list[dict]`: spots `{"label", "timestamp_s", "half", "score"}` by time, at equal times in the labels' order.
    """
    steps, columns = np.nonzero((scores > 0) & (scores >= np.asarray(thresholds)))
    return [
        {
            "label": labels[column],
            "timestamp_s": float(timestamps_s[step]),
            "half": half,
            "score": float(scores[step, column]),
        }
        for step, column in zip(steps, columns)
    ]


def spots_from_scores(
    scores: np.ndarray,
    timestamps_s: np.ndarray,
    labels: Sequence[str],
    half: int,
    *,
    token_rate: float,
    nms_type: str = "soft",
    nms_window_s: float | Sequence[float] = 10.0,
    nms_threshold: float = 0.001,
    nms_min_weight: float = 0.0,
    thresholds: float | Sequence[float] = 0.0,
) -> list[dict]:
    """Suppress the scores of a half and list the spots that are left.

    The defaults are the published settings: `W = 20` steps of 0.5 s are 10 s, or 10 steps at one token a second.

    Args:
        scores (`np.ndarray` of shape `(num_tokens, num_labels)`, float): stitched scores, 0 or more.
        timestamps_s (`np.ndarray` of shape `(num_tokens,)`, float): ascending seconds from the start of the half.
        labels (sequence of `num_labels` `str`): names in the order of the columns.
        half (`int`): number of the half, from 1.
        token_rate (`float`): tokens per second.
        nms_type (`str`, defaults to `"soft"`): `"soft"` or `"hard"`.
        nms_window_s (`float` or sequence of `num_labels` `float`, defaults to 10.0): full width in seconds.
        nms_threshold (`float`, defaults to 0.001): scores below are suppressed.
        nms_min_weight (`float`, defaults to 0.0): factor of soft-NMS at distance 0.
        thresholds (`float` or sequence of `num_labels` `float`, defaults to 0.0): scores, after suppression, below
            which there is no spot.

    Returns:
        `list[dict]`: spots `{"label", "timestamp_s", "half", "score"}` by time, at equal times in the labels' order.

    Raises:
        ValueError: unknown `nms_type`.
    """
    # rounded: 0.58 s at 100 tokens a second are 58 steps, not 57.99...
    window_steps = np.round(np.asarray(nms_window_s) * token_rate, 6)
    kept = non_maximum_suppression(scores, nms_type, window_steps, nms_threshold, nms_min_weight)
    return find_spots(kept, timestamps_s, labels, half, thresholds)


__all__ = ["find_spots", "non_maximum_suppression", "spots_from_scores", "stitch"]

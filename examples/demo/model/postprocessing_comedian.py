"""From the scores of windows to spots: stitching, non-maximum suppression, spots. NumPy only.

Source: COMEDIAN (Denize et al., WACVW 2024), inference; soft-NMS after Bodla et al., "Soft-NMS" (ICCV 2017), in time.
Everything is counted in steps of the score grid (`scores_per_token` steps a token) until `find_spots` puts timestamps
on it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# keeps logits finite, and apart for all float32 scores that are
SMALLEST_SCORE = 1e-9
# No threshold is chosen below it: of events with so low a probability nine of ten are wrong.
MIN_THRESHOLD = 0.1
# of 90 % confidence
ONE_SIDED_Z = 1.2815515655446004


def stitch(
    scores: np.ndarray, starts: np.ndarray, num_tokens: int, edge_trim: int = 0, merge: str = "max"
) -> np.ndarray:
    """Merge the scores of overlapping windows into the scores of a whole half.

    The outer tokens of a window have seen one side of their context only and are dropped, except where the window's
    edge is the half's own. What a window holds beyond the half's end is padding and is dropped too.

    Args:
        scores (`np.ndarray` of shape `(num_windows, window_tokens, num_labels)`, float): scores of each window.
        starts (`np.ndarray` of shape `(num_windows,)`, int): first token of each window, as from
            `comedian.models.time_grid_comedian.cover_starts`.
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
        first, stop = kept_part(start, window_tokens, num_tokens, edge_trim)
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


def kept_part(start: int, window_tokens: int, num_tokens: int, edge_trim: int) -> tuple[int, int]:
    """Return what `stitch` keeps of a window: its first token and the one after its last, counted in the window."""
    first = 0 if start == 0 else edge_trim
    stop = num_tokens - start if start + window_tokens >= num_tokens else window_tokens - edge_trim
    return first, stop


def require_finite(scores: np.ndarray, offsets_s: np.ndarray | None = None) -> None:
    """Refuse what a model computed of windows, scores and displacements, where it is not finite.

    Raises:
        ValueError: a NaN or an infinite value; suppression would report events at random or none.
    """
    for name, values in (("scores", scores), ("displacements", offsets_s)):
        if values is not None and not np.isfinite(values).all():
            raise ValueError(
                f"the model computes {name} that are not finite, so its weights are of no use; take an earlier "
                "checkpoint, or train again with a lower learning rate"
            )


def stitch_half(
    scores: np.ndarray, offsets_s: np.ndarray | None, starts: np.ndarray, num_tokens: int, config
) -> np.ndarray:
    """Merge the outputs of a model for overlapping windows into the scores of a half, on the grid of its output.

    Args:
        scores (`np.ndarray` of shape `(num_windows, window_tokens * logits_per_token, num_labels)`, float): of each
        window.
        offsets_s (`np.ndarray` of shape `(num_windows, window_tokens, num_labels)`, *optional*): displacements; their mean
            over the windows moves the merged scores.
        starts (`np.ndarray` of shape `(num_windows,)`, int): first token of each window.
        num_tokens (`int`): tokens of the half.
        config (`ComedianConfig`): the model's.

    Returns:
        `np.ndarray` of shape `(num_tokens * scores_per_token, num_labels)`, float32.

    Raises:
        ValueError: scores or displacements are not finite.
    """
    require_finite(scores, offsets_s)
    steps = config.logits_per_token
    merged = stitch(scores, starts * steps, num_tokens * steps, config.edge_trim_tokens * steps, config.merge)
    if offsets_s is None:
        return merged
    means_s = stitch(offsets_s, starts, num_tokens, config.edge_trim_tokens, "mean")
    return displace(merged, means_s, config.token_rate, config.scores_per_token)


def displace(scores: np.ndarray, offsets_s: np.ndarray, token_rate: float, scores_per_token: int) -> np.ndarray:
    """Move each score to the step nearest to where its event is said to be; of several there, the highest stays.

    Source: Soares et al., "Temporally Precise Action Spotting in Soccer Videos Using Dense Detection Anchors" (2022).

    Args:
        scores (`np.ndarray` of shape `(num_tokens, num_labels)`, float32): one per token.
        offsets_s (`np.ndarray` of the same shape, float): seconds from the token to the event.
        token_rate (`float`): tokens per second.
        scores_per_token (`int`): steps of the result in a token.

    Returns:
        `np.ndarray` of shape `(num_tokens * scores_per_token, num_labels)`, float32: 0 where no score was moved to. What
        points outside the half stays at its edge.
    """
    num_steps = len(scores) * scores_per_token
    # a token is at the middle of its steps, step i at i + 0.5 in units of steps
    places = (np.arange(len(scores))[:, None] + 0.5 + offsets_s.astype(np.float64) * token_rate) * scores_per_token
    steps = np.clip(np.floor(places), 0, num_steps - 1).astype(np.int64)
    moved = np.zeros((num_steps, scores.shape[1]), dtype=np.float32)
    np.maximum.at(moved, (steps, np.arange(scores.shape[1])[None]), scores)
    return moved


def step_timestamps_s(num_steps: int, score_rate: float, fps: float) -> np.ndarray:
    """Return the time of each step of the output: steps share out the time of a token, which is at the mean of its frames.

    Args:
        num_steps (`int`): steps of the half.
        score_rate (`float`): steps per second.
        fps (`float`): frames per second; frame 0 is at 0 s, and on screen until `1 / fps`.

    Returns:
        `np.ndarray` of shape `(num_steps,)`, float64: seconds from the start of the half, not below 0.
    """
    return step_timestamp_s(np.arange(num_steps), score_rate, fps)


def step_timestamp_s(step: int | np.ndarray, score_rate: float, fps: float) -> np.ndarray:
    """Return the time of the step of an index, or of many: see [`step_timestamps_s`]."""
    return np.maximum((step + 0.5) / score_rate - 0.5 / fps, 0.0)


def non_maximum_suppression(
    scores: np.ndarray,
    kind: str,
    window: float | Sequence[float] | np.ndarray,
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
        window (`float` or sequence of `num_labels` `float`): full width in steps, for all labels or one per label.
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
    num_steps, num_labels = scores.shape
    weights = soft_nms_weights(window, min_weight, num_steps)
    reach = reach_of(weights)
    # one label after the other, so that a peak's window is one piece of memory
    live = np.zeros((num_labels, num_steps + 2 * reach), dtype=np.float32)
    live[:, reach : reach + num_steps] = np.where(scores >= threshold, scores, 0).T
    kept = fix_peaks(live.reshape(-1), weights, threshold).reshape(live.shape)
    return np.ascontiguousarray(kept[:, reach : reach + num_steps].T)


def soft_nms_weights(window: float, min_weight: float, max_radius: int) -> np.ndarray:
    """Return the factors of soft-NMS around a peak.

    Args:
        window (`float`): full width in steps.
        min_weight (`float`): factor at distance 0.
        max_radius (`int`): steps to either side at most.

    Returns:
        `np.ndarray` of shape `(2 * radius + 1,)`, float32; 0 in the middle, as a peak leaves the field.
    """
    radius = min(int(window / 2), max_radius)
    distances = np.abs(np.arange(-radius, radius + 1)).astype(np.float32)
    # below 2 steps the window holds the peak alone, whose weight is set apart
    weights = np.clip(min_weight + (1 - min_weight) * (distances / max(window / 2, 1)), 0, 1)
    weights[radius] = 0
    return weights


def reach_of(weights: np.ndarray) -> int:
    """Return how far from a peak, in steps, a score can be that [`fix_peaks`] has to know: twice the radius."""
    return max(len(weights) - 1, 1)


def fix_peaks(live: np.ndarray, weights: np.ndarray, threshold: float) -> np.ndarray:
    """Run soft-NMS as far as the scores determine it: fix many peaks a round, with the result of one peak at a time.

    A round fixes every score that is the highest (the earliest of equals) within `reach = 2 * radius` steps. Such a
    peak's window shares a step only with the windows of peaks within `reach`. All those still to come are lower, or
    equal and later, and scores never grow, so one at a time would take this peak before any of them too: it has its
    final value, and each step sees the same multiplications in the same order. The peaks of one round are more than
    `reach` apart, so their windows are disjoint. The highest score of a label is always such a peak: rounds end.

    It matters nowhere when a peak is fixed. So the scores may come piece by piece: what lies within `reach` of either
    end is no peak yet, and is looked at again when more is known.

    Args:
        live (`np.ndarray` of shape `(num_steps,)`, float32): scores in the field, changed in place; 0 = not a candidate:
            padding, below the threshold, or fixed.
        weights (`np.ndarray` of shape `(2 * radius + 1,)`, float32): from [`soft_nms_weights`].
        threshold (`float`): scores below leave the field.

    Returns:
        `np.ndarray` of shape `(num_steps,)`, float32: the scores fixed now; 0 elsewhere.
    """
    kept, radius, reach = np.zeros_like(live), len(weights) // 2, reach_of(weights)
    if len(live) <= 2 * reach:
        return kept
    windows_of_live = sliding_window_view(live, len(weights), writeable=True)
    while True:
        highest = _sliding_max(live, reach)
        # a step's own place is `reach` after the begin of the stretch before it
        before, after = highest[: len(live) - 2 * reach], highest[reach + 1 :]
        inner = live[reach:-reach]
        peaks = np.flatnonzero((inner > before) & (inner >= after)) + reach
        if not peaks.size:
            return kept
        kept[peaks] = live[peaks]
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


def calibrate(scores: np.ndarray, calibration: Sequence[Sequence[float]]) -> np.ndarray:
    """Turn scores into the probabilities that spots with these scores are right (Platt scaling).

    Slopes are greater than 0, so within a label a higher score never gets a lower probability.

    Args:
        scores (`np.ndarray` of shape `(..., num_labels)`, float): in [0, 1].
        calibration (sequence of `num_labels` pairs): `[slope, bias]`, as a model's `label_calibration`.

    Returns:
        `np.ndarray` of the shape of `scores`, float64: in (0, 1], but 0 where the score is 0.
    """
    slopes, biases = np.asarray(calibration, dtype=np.float64).T
    bounded = np.clip(np.asarray(scores, dtype=np.float64), SMALLEST_SCORE, 1 - SMALLEST_SCORE)
    logits = slopes * np.log(bounded / (1 - bounded)) + biases
    return np.where(scores > 0, 1 / (1 + np.exp(-logits)), 0.0)


def operating_thresholds(
    target: str, curves: Sequence[Sequence[Sequence[float]]] | None, num_events: Sequence[int] | None = None
) -> list[float]:
    """Thresholds at which a model had a precision or a recall on validation, with a margin where it has few events.

    Args:
        target (`str`): `"precision=0.9"` for the lowest threshold with at least that precision, none below
            `MIN_THRESHOLD`; `"recall=0.8"` for the highest with at least that recall.
        curves (sequence of `num_labels` sequences of points): a model's `label_curves`.
        num_events (sequence of `num_labels` `int`, *optional*): a model's `label_num_events`: precision and recall are
            replaced by their [`lower_bound`]. `None` takes them as they were measured.

    Returns:
        `list[float]`: one threshold per label; infinite, which no spot reaches, where no point has that precision or
            recall.

    Raises:
        ValueError: no such target, or no curves.
    """
    name, value = parse_target(target)
    if curves is None:
        raise ValueError(f"`threshold` is {target!r}, but the model holds no curves; `comedian tune` measures them")
    thresholds = []
    for label, points in enumerate(curves):
        reached = []
        for threshold, precision, recall in points:
            share = precision if name == "precision" else recall
            if num_events is not None:
                num_hits = recall * num_events[label]
                count = num_hits / max(precision, SMALLEST_SCORE) if name == "precision" else num_events[label]
                share = lower_bound(num_hits, count)
            if share >= value and (name == "recall" or threshold >= MIN_THRESHOLD):
                reached.append(threshold)
        thresholds.append((min if name == "precision" else max)(reached, default=np.inf))
    return thresholds


def parse_target(target: str) -> tuple[str, float]:
    """Return `"precision"` or `"recall"` and its value for a target such as `"precision=0.9"`.

    Raises:
        ValueError: no such target.
    """
    name, _, number = target.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if name not in ("precision", "recall") or not 0 < value <= 1:
        raise ValueError(f"`threshold` is {target!r}; give a score, or such as 'precision=0.9' or 'recall=0.8'")
    return name, value


def lower_bound(num_hits: float, count: float) -> float:
    """Return the share that is exceeded with 90 % confidence where `num_hits` of `count` were observed (Wilson, 1927).

    15 of 15 give 0.90, 5 of 5 give 0.75, 0 of 0 give 0.
    """
    if count <= 0:
        return 0.0
    share, spread = num_hits / count, ONE_SIDED_Z**2 / count
    margin = ONE_SIDED_Z * np.sqrt(max(share * (1 - share), 0) / count + spread / (4 * count))
    return float((share + spread / 2 - margin) / (1 + spread))


def steps_of(seconds: float | Sequence[float], score_rate: float) -> np.ndarray:
    """Return seconds as steps of the score grid, rounded: 0.58 s at 100 steps per second are 58, not 57.99..."""
    return np.round(np.asarray(seconds) * score_rate, 6)


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
            "label": labels[int(column)],
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
    score_rate: float,
    nms_type: str = "soft",
    nms_window_s: float | Sequence[float] = 10.0,
    nms_threshold: float = 0.001,
    nms_min_weight: float = 0.0,
    thresholds: float | Sequence[float] = 0.0,
    calibration: Sequence[Sequence[float]] | None = None,
) -> list[dict]:
    """Suppress the scores of a half and list the spots that are left.

    The defaults are the published settings: `W = 20` steps of 0.5 s are 10 s, or 10 steps at one token a second.

    Args:
        scores (`np.ndarray` of shape `(num_steps, num_labels)`, float): stitched scores, 0 or more.
        timestamps_s (`np.ndarray` of shape `(num_steps,)`, float): ascending seconds from the start of the half.
        labels (sequence of `num_labels` `str`): names in the order of the columns.
        half (`int`): number of the half, from 1.
        score_rate (`float`): steps per second.
        nms_type (`str`, defaults to `"soft"`): `"soft"` or `"hard"`.
        nms_window_s (`float` or sequence of `num_labels` `float`, defaults to 10.0): full width in seconds.
        nms_threshold (`float`, defaults to 0.001): scores below are suppressed.
        nms_min_weight (`float`, defaults to 0.0): factor of soft-NMS at distance 0.
        thresholds (`float` or sequence of `num_labels` `float`, defaults to 0.0): scores, after suppression, below
            which there is no spot.
        calibration (sequence of `num_labels` pairs, *optional*): of [`calibrate`]; spots then have probabilities for
            scores, and the thresholds are on these.

    Returns:
        `list[dict]`: spots `{"label", "timestamp_s", "half", "score"}` by time, at equal times in the labels' order.

    Raises:
        ValueError: unknown `nms_type`.
    """
    window = steps_of(nms_window_s, score_rate)
    kept = non_maximum_suppression(scores, nms_type, window, nms_threshold, nms_min_weight)
    if calibration is not None:
        kept = calibrate(kept, calibration)
    return find_spots(kept, timestamps_s, labels, half, thresholds)


def spots_of_half(
    scores: np.ndarray,
    config,
    half: int,
    thresholds: float | Sequence[float],
    *,
    calibrated: bool = False,
    nms_type: str | None = None,
    nms_window_s: float | Sequence[float] | None = None,
) -> list[dict]:
    """Find the spots of a half with the time grid, labels, suppression and calibration of a configuration.

    Args:
        scores (`np.ndarray` of shape `(num_steps, num_labels)`, float): stitched scores.
        config (`ComedianConfig`): the model's.
        half (`int`): number of the half, from 1.
        thresholds (`float` or sequence of `num_labels` `float`): minimum score of a spot.
        calibrated (`bool`, defaults to `False`): return probabilities as scores, if `config` has a `label_calibration`;
            the thresholds apply to them.
        nms_type (`str`, *optional*): `"soft"` or `"hard"`, instead of that of `config`.
        nms_window_s (`float` or sequence of `num_labels` `float`, *optional*): full width of the suppression window in
            seconds, instead of that of `config`.

    Returns:
        `list[dict]`: spots `{"label", "timestamp_s", "half", "score"}` by time, at equal times in the labels' order.
    """
    return spots_from_scores(
        scores,
        step_timestamps_s(len(scores), config.score_rate, config.fps),
        config.label_names,
        half,
        score_rate=config.score_rate,
        nms_type=config.nms_type if nms_type is None else nms_type,
        nms_window_s=config.nms_window_s if nms_window_s is None else nms_window_s,
        nms_threshold=config.nms_threshold,
        nms_min_weight=config.nms_min_weight,
        thresholds=thresholds,
        calibration=config.label_calibration if calibrated else None,
    )


__all__ = [
    "calibrate",
    "displace",
    "find_spots",
    "fix_peaks",
    "kept_part",
    "lower_bound",
    "non_maximum_suppression",
    "operating_thresholds",
    "parse_target",
    "reach_of",
    "soft_nms_weights",
    "spots_from_scores",
    "spots_of_half",
    "step_timestamp_s",
    "step_timestamps_s",
    "steps_of",
    "stitch",
    "stitch_half",
]

"""Reliability of scores: which spots are correct, calibration, thresholds, operating points, reliability.

A spot is right when it is a hit of the official metric at `RIGHT_TOLERANCE_S`, on exact times: in the order of time, each
event takes the highest-scored spot left within half the tolerance. Calibration is Platt scaling (Platt, 1999) of the
score's logit, with a slope and a bias for each label: the order within a label stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from comedian.evaluation.grid_matching import THRESHOLD_WITHOUT_HIT
from comedian.evaluation.soccernet_average_map.soccernet_average_map import Cells, Grid, hits_of, take_spots
from comedian.models.postprocessing_comedian import MIN_THRESHOLD, SMALLEST_SCORE, calibrate

# full width of the window in which a spot counts as right
RIGHT_TOLERANCE_S = 5.0
# of a half, in cells: finer than annotations and tokens, coarser than the rounding of times
CELLS_PER_S = 100
CELLS_PER_HALF = 24 * 60 * 60 * CELLS_PER_S
# more than any data set has
HALVES_PER_LABEL = 1 << 24
# the many candidates below this score are never reported and are ignored by the calibration
CALIBRATION_FLOOR = 0.05
# labels with fewer events on validation share one calibration and one threshold
MIN_EVENTS = 10
RECALL_STEP = 0.05
NUM_BINS = 10


@dataclass(frozen=True)
class Judged:
    """The candidates of one label, best first.

    Attributes:
        scores: float64 `(num_spots,)`, raw.
        right: bool `(num_spots,)`.
        num_events: events of the label.
    """

    scores: np.ndarray
    right: np.ndarray
    num_events: int


@dataclass(frozen=True)
class Reliability:
    """Reliability diagram: scores and the share of correct spots.

    Attributes:
        edges: float64 `(num_bins + 1,)`, of bins of equal width; a bin holds its lower edge, the last one 1 too.
        counts: int64 `(num_bins,)`.
        mean_scores: float64 `(num_bins,)`; NaN in an empty bin.
        precisions: float64 `(num_bins,)`, share of right spots; NaN in an empty bin.
        expected_calibration_error: mean distance of the two, weighted by counts; NaN without spots.
    """

    edges: np.ndarray
    counts: np.ndarray
    mean_scores: np.ndarray
    precisions: np.ndarray
    expected_calibration_error: float


def judge_spots(
    spots: np.ndarray, events: np.ndarray, num_labels: int, tolerance_s: float = RIGHT_TOLERANCE_S
) -> list[Judged]:
    """Determine which spots are correct.

    Args:
        spots: `(4, num_spots)`: number of the half among all halves, index of the label, seconds, score.
        events: `(3, num_events)`: half, label, seconds.
        num_labels: labels.
        tolerance_s: full width of the window around an event.

    Returns:
        One entry per label.
    """
    halves, labels, times_s, scores = spots
    keys, event_keys = _keys(halves, labels, times_s), np.sort(_keys(*events))
    order = np.argsort(keys, kind="stable")
    cells = Cells(keys[order], scores[order], times_s[order])
    ground_truths = Cells(event_keys, np.ones(len(event_keys)), np.zeros(len(event_keys)))
    # of the grid, only its width of a window counts: these keys are finer, and their halves longer
    taken = take_spots(ground_truths, cells, Grid({}, 0, CELLS_PER_S), tolerance_s)
    right = hits_of(taken, len(keys))
    labels, events_of = labels[order], np.bincount(events[1].astype(np.int64), minlength=num_labels)
    judged = []
    for label in range(num_labels):
        mine = np.flatnonzero(labels == label)
        best_first = mine[np.argsort(-cells.values[mine], kind="stable")]
        judged.append(Judged(cells.values[best_first], right[best_first], int(events_of[label])))
    return judged


def _keys(halves: np.ndarray, labels: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """One integer axis for all labels and halves, the gap between two wider than any tolerance."""
    cells = np.clip(np.round(times_s * CELLS_PER_S), 0, CELLS_PER_HALF).astype(np.int64)
    return (labels.astype(np.int64) * HALVES_PER_LABEL + halves.astype(np.int64)) * (2 * CELLS_PER_HALF) + cells


def reporting_settings(judged: Sequence[Judged]) -> dict[str, list]:
    """Choose the calibration, the thresholds on the calibrated scale, and the curves for reported events.

    Args:
        judged: one entry per label, of validation halves.

    Returns:
        The configuration's `label_calibration`, `label_thresholds`, `label_curves` and `label_num_events`. A label's
        threshold is the one with the best F1, or 0.5 where no spot is right. Labels with fewer than `MIN_EVENTS` events
        share that of all labels together, and none is below `MIN_THRESHOLD`.
    """
    calibration = fit_calibration(judged)
    shown = [
        Judged(calibrate(of_label.scores[:, None], [pair])[:, 0], of_label.right, of_label.num_events)
        for of_label, pair in zip(judged, calibration, strict=True)
    ]
    shared = best_threshold(_pooled(shown))
    chosen = [best_threshold(of_label) if of_label.num_events >= MIN_EVENTS else shared for of_label in shown]
    return {
        "label_calibration": calibration,
        "label_thresholds": [max(threshold, MIN_THRESHOLD) for threshold in chosen],
        "label_curves": [operating_points(of_label) for of_label in shown],
        "label_num_events": [of_label.num_events for of_label in shown],
    }


def too_few_events(labels: Sequence[str], num_events: Sequence[int]) -> str | None:
    """Return one line on the labels with too few events for a threshold of their own; None where all have enough."""
    few = [f"{label} ({count})" for label, count in zip(labels, num_events, strict=True) if count < MIN_EVENTS]
    if not few:
        return None
    return (
        f"fewer than {MIN_EVENTS} events on validation, so calibration and threshold are those of all labels together: "
        f"{', '.join(few)}"
    )


def _pooled(judged: Sequence[Judged]) -> Judged:
    """All labels as one."""
    scores, right = (np.concatenate([getattr(of_label, name) for of_label in judged]) for name in ("scores", "right"))
    order = np.argsort(-scores, kind="stable")
    return Judged(scores[order], right[order], sum(of_label.num_events for of_label in judged))


def fit_calibration(judged: Sequence[Judged]) -> list[list[float]]:
    """Fit slope and bias of each label.

    Labels with fewer than `MIN_EVENTS` events share the fit of all labels together; so do those whose slope would not be
    greater than 0.

    Returns:
        `[slope, bias]`, one pair a label.
    """
    counted = [of_label.scores >= CALIBRATION_FLOOR for of_label in judged]
    scores = [of_label.scores[kept] for of_label, kept in zip(judged, counted, strict=True)]
    right = [of_label.right[kept] for of_label, kept in zip(judged, counted, strict=True)]
    shared = _fit_platt(np.concatenate(scores), np.concatenate(right)) or [1.0, 0.0]
    pairs = []
    for of_label, its_scores, its_right in zip(judged, scores, right, strict=True):
        own = _fit_platt(its_scores, its_right) if of_label.num_events >= MIN_EVENTS else None
        pairs.append(own or shared)
    return pairs


def _fit_platt(scores: np.ndarray, right: np.ndarray) -> list[float] | None:
    """Fit slope and bias by Newton's method, with Platt's smoothed targets; `None` unless the slope is greater than 0."""
    if not right.any() or right.all():
        return None
    bounded = np.clip(scores, SMALLEST_SCORE, 1 - SMALLEST_SCORE)
    inputs = np.stack([np.log(bounded / (1 - bounded)), np.ones(len(scores))])
    num_right, num_wrong = right.sum(), (~right).sum()
    targets = np.where(right, (num_right + 1) / (num_right + 2), 1 / (num_wrong + 2))

    def loss(weights: np.ndarray) -> float:
        logits = weights @ inputs
        return float((np.logaddexp(0, logits) - targets * logits).sum())

    weights = np.array([1.0, 0.0])
    for _ in range(100):
        probabilities = 1 / (1 + np.exp(-(weights @ inputs)))
        gradient = inputs @ (probabilities - targets)
        # small ridge term, because constant scores determine no slope
        hessian = (inputs * (probabilities * (1 - probabilities))) @ inputs.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-12:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-10:
            break
    return weights.tolist() if weights[0] > 0 and np.isfinite(weights).all() else None


def best_threshold(judged: Judged) -> float:
    """Choose the score from which reported spots have the best F1, rounded down; 0.5 where no spot is right."""
    if not judged.right.any():
        return THRESHOLD_WITHOUT_HIT
    f1 = 2 * judged.right.cumsum() / (np.arange(1, len(judged.right) + 1) + judged.num_events)
    return _round_down(judged.scores[f1.argmax()])


def operating_points(judged: Judged) -> list[list[float]]:
    """List thresholds with the precision and recall from there on: the first to reach each 0.05 of recall.

    Returns:
        Points `[threshold, precision, recall]`, thresholds falling.
    """
    if not judged.right.any():
        return []
    found = judged.right.cumsum()
    levels = np.arange(1, round(1 / RECALL_STEP) + 1) * RECALL_STEP
    first = np.searchsorted(found, np.ceil(levels * judged.num_events - 1e-9))
    points = []
    for index in np.unique(first[first < len(found)]):
        threshold = _round_down(judged.scores[index])
        passing = judged.scores >= threshold
        num_right = float(judged.right[passing].sum())
        points.append([threshold, round(num_right / int(passing.sum()), 4), round(num_right / judged.num_events, 4)])
    return points


def _round_down(score: float) -> float:
    """Round down to four digits, so that the spot that defines the threshold still reaches it."""
    return float(np.floor(score * 1e4) / 1e4)


def reliability(scores: np.ndarray, right: np.ndarray, num_bins: int = NUM_BINS) -> Reliability:
    """Compare scores with the share of correct spots, in bins of equal width (Guo et al., 2017).

    Args:
        scores: `(num_spots,)`, in [0, 1].
        right: bool `(num_spots,)`.
        num_bins: bins.
    """
    bins = np.minimum((scores * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    divisor = np.where(counts > 0, counts, np.nan)
    mean_scores = np.bincount(bins, scores, num_bins) / divisor
    precisions = np.bincount(bins, right, num_bins) / divisor
    error = np.nansum(counts * np.abs(mean_scores - precisions)) / len(scores) if len(scores) else np.nan
    return Reliability(np.linspace(0, 1, num_bins + 1), counts, mean_scores, precisions, float(error))

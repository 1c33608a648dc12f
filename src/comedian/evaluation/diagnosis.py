"""Diagnosis of predictions: score by tolerance, errors in time, confusion of labels, examples (numpy only).

All of it rests on the matching of `grid_matching.py`, the official metric's. At an operating point, a prediction that
is no hit is a **repeat** where an event of its label lies within the tolerance (another prediction has taken it); else a
**confusion** where an event of another label does, the nearest one; else it counts as **nothing**.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from comedian.evaluation.grid_matching import (
    Counts,
    Matching,
    best_thresholds,
    count_at,
    found_events,
    match_events,
    precision_recall,
    reach_threshold,
    scores_taken,
)
from comedian.evaluation.soccernet_average_map.soccernet_average_map import METRICS, average_map, average_precisions

# tolerances of tight and loose together
TOLERANCES_S = tuple(sorted({*METRICS["tight"], *METRICS["loose"]}))
EXAMPLES_PER_KIND = 3
# A histogram has about as many bins as that, however wide the tolerance; none is narrower than a frame.
MAX_BINS = 40


class Example(NamedTuple):
    """An example of an event or a prediction.

    Attributes:
        kind: `"hit"`, `"false alarm"` or `"missed"`.
        label: index of its label.
        match: index of its match.
        half: from 1.
        time_s: of the prediction, or of a missed event, from the half's start.
        score: of the prediction; of a missed event the one below the threshold that it took, or 0.
        error_s: of a hit, the prediction's time minus the event's; else NaN.
        seen: of a false alarm, the event there: a column of [`confusion_matrix`]; else its own label.
    """

    kind: str
    label: int
    match: int
    half: int
    time_s: float
    score: float
    error_s: float
    seen: int


@dataclass(frozen=True)
class Diagnosis:
    """All figures of one set of predictions, L labels.

    Attributes:
        scores: average-mAP, `tight` and `loose`, as `average_map` gives them.
        average_precision: the official one, `float64 (num_tolerances, 3, L)`, at each of `TOLERANCES_S`, over all, visible
            and unshown events.
        matching: predictions and events, matched at the tolerance.
        precision: `float64 (L, 200)` at each threshold of the metric.
        recall: likewise.
        thresholds: `float64 (L,)`, the operating point.
        counts: at the operating point.
        found: `bool (num_events,)`, which events are found at the operating point.
        errors_s: `float64 (num_hits,)`, time of prediction minus time of event, of the hits at the operating point.
        error_labels: `int64 (num_hits,)`, their labels.
        confusion: `int64 (L, L + 2)`, see [`confusion_matrix`].
        examples: see [`find_examples`].
    """

    scores: dict[str, dict]
    average_precision: np.ndarray
    matching: Matching
    precision: np.ndarray
    recall: np.ndarray
    thresholds: np.ndarray
    counts: Counts
    found: np.ndarray
    errors_s: np.ndarray
    error_labels: np.ndarray
    confusion: np.ndarray
    examples: list[Example]


def diagnose(
    references: Sequence[Iterable[Mapping]],
    predictions: Sequence[Iterable[Mapping]],
    labels: Sequence[str],
    *,
    framerate: float = 2,
    tolerance_s: float = 5,
    threshold: float | None = None,
    official: bool = False,
) -> Diagnosis:
    """Compute all figures of one set of predictions.

    Args:
        references: see [`match_events`], as the other arguments.
        predictions: likewise.
        labels: likewise.
        framerate: likewise.
        tolerance_s: likewise.
        threshold: score from which predictions count; None takes the best for each label, see [`best_thresholds`].
        official: apply the limits of the official scorer, see [`average_map`].

    Raises:
        MalformedEventError: for an event that misses a key or holds a value that cannot be read.
    """
    matching = match_events(
        references, predictions, labels, framerate=framerate, tolerance_s=tolerance_s, official=official
    )
    thresholds = best_thresholds(matching) if threshold is None else np.full(len(labels), float(threshold))
    precision, recall = precision_recall(matching)
    errors_s, error_labels = timing_errors(matching, thresholds)
    return Diagnosis(
        scores=average_map(references, predictions, labels, framerate=framerate, official=official),
        average_precision=average_precisions(matching.events, matching.spots, matching.grid, TOLERANCES_S),
        matching=matching,
        precision=precision,
        recall=recall,
        thresholds=thresholds,
        counts=count_at(matching, thresholds),
        found=found_events(matching, thresholds),
        errors_s=errors_s,
        error_labels=error_labels,
        confusion=confusion_matrix(matching, thresholds),
        examples=find_examples(matching, thresholds),
    )


def timing_errors(matching: Matching, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Time of prediction minus time of event in seconds, and label, of each hit at an operating point.

    The times are those of the files, not the grid's; so an error may exceed half the tolerance, by less than a frame.

    Returns:
        `float64 (num_hits,)` and `int64 (num_hits,)`, in the order of the events.
    """
    found = found_events(matching, thresholds)
    errors_s = matching.spots.times_s[matching.taken[found]] - matching.events.times_s[found]
    return errors_s, matching.event_labels[found]


def error_histogram(errors_s: np.ndarray, matching: Matching) -> tuple[np.ndarray, np.ndarray]:
    """Count timing errors in bins of equal width, one of them around 0.

    Returns:
        Centres of the bins in seconds and counts, each `(num_bins,)`.
    """
    frame_s = 1 / matching.grid.framerate
    width_s = max(frame_s, matching.tolerance_s / MAX_BINS)
    reach = int(np.ceil((matching.tolerance_s / 2 + frame_s) / width_s))
    bins = np.clip(np.floor(errors_s / width_s + 0.5).astype(int), -reach, reach)
    return np.arange(-reach, reach + 1) * width_s, np.bincount(bins + reach, minlength=2 * reach + 1)


def confusion_matrix(matching: Matching, thresholds: np.ndarray) -> np.ndarray:
    """Count, for the predictions of each label at an operating point, what event was there.

    Returns:
        `int64 (num_labels, num_labels + 2)`. Row: label of the prediction. Columns: label of the event there (its own: a
        hit; another: a confusion), then repeats, then nothing.
    """
    spots, seen = _what_was_there(matching, thresholds)
    num_columns = matching.num_labels + 2
    cells = matching.spot_labels[spots] * num_columns + seen
    return np.bincount(cells, minlength=matching.num_labels * num_columns).reshape(-1, num_columns)


def _what_was_there(matching: Matching, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spots at or above their threshold, by index, and for each its column of the confusion matrix."""
    (spots,) = np.nonzero(reach_threshold(matching, thresholds))
    keys, own = matching.spots.keys[spots], matching.spot_labels[spots]
    half_width = matching.grid.half_width(matching.tolerance_s)
    _, own_distances = _nearest(matching.events.keys, keys)

    # one run of keys a match and half, whatever the label; of events in one frame that of the first label stays
    num_keys = matching.grid.num_keys_of_label
    instants, events = np.unique(matching.events.keys % num_keys, return_index=True)
    nearest, distances = _nearest(instants, keys % num_keys)
    others = np.append(matching.event_labels[events], -1)[nearest]

    repeat, nothing = matching.num_labels, matching.num_labels + 1
    is_near, is_own = distances <= half_width, own_distances <= half_width
    return spots, np.select([matching.hits[spots], is_own, is_near], [own, repeat, others], nothing)


def _nearest(places: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest of ascending `places`, the earlier of two, and distance to it; of none -1 and infinity."""
    after = np.searchsorted(places, keys)
    padded = np.concatenate([[-np.inf], places, [np.inf]])
    to_before, to_after = keys - padded[after], padded[after + 1] - keys
    distances = np.minimum(to_before, to_after)
    return np.where(np.isinf(distances), -1, np.where(to_before <= to_after, after - 1, after)), distances


def find_examples(matching: Matching, thresholds: np.ndarray, count: int = EXAMPLES_PER_KIND) -> list[Example]:
    """Choose examples of each label at an operating point.

    Of each label: the `count` hits and the `count` false alarms with the highest scores, and the `count` missed events
    with the lowest (an event that took no prediction at all has score 0). Equals come in the order of matches and time.

    Returns:
        By label, then hits, false alarms, missed events, each from the most informative one.
    """
    spots, seen = _what_was_there(matching, thresholds)
    (missed,) = np.nonzero(~found_events(matching, thresholds))
    owner_of = np.full(len(matching.spots.keys), -1)
    owner_of[matching.taken[matching.taken >= 0]] = np.flatnonzero(matching.taken >= 0)
    examples = []
    for label in range(matching.num_labels):
        of_label = matching.spot_labels[spots] == label
        for kind, is_hit in (("hit", True), ("false alarm", False)):
            (chosen,) = np.nonzero(of_label & (matching.hits[spots] == is_hit))
            chosen = chosen[np.argsort(-matching.spots.values[spots[chosen]], kind="stable")][:count]
            for spot, what in zip(spots[chosen].tolist(), seen[chosen].tolist()):
                time_s = float(matching.spots.times_s[spot])
                error_s = time_s - float(matching.events.times_s[owner_of[spot]]) if is_hit else float("nan")
                score = float(matching.spots.values[spot])
                examples.append(
                    Example(kind, label, *_where(matching, matching.spots.keys[spot]), time_s, score, error_s, what)
                )
        of_label = missed[matching.event_labels[missed] == label]
        given = scores_taken(matching)
        for event in of_label[np.argsort(given[of_label], kind="stable")][:count].tolist():
            where = _where(matching, matching.events.keys[event])
            time_s = float(matching.events.times_s[event])
            examples.append(Example("missed", label, *where, time_s, float(given[event]), float("nan"), label))
    return examples


def _where(matching: Matching, key: int) -> tuple[int, int]:
    """Match and half of a cell."""
    return matching.grid.match_and_part(matching.grid.part_index_of(int(key)))

"""Predictions matched with events as the official metric matches them, and the resulting counts (NumPy only).

- Events and predictions lie on the metric's grid of frames; of several of one label in one frame the last one stays.
- A tolerance is the full width of the window around an event, as in the metric: 5 s means at most 2.5 s before or after.
- In time order, each event takes the prediction of its label with the highest score that is left in its window. A
  prediction that was taken is a **hit**, an event that took none is missed.
- At an **operating point**, one threshold per label, predictions below the threshold do not count. It is the same
  whether they are dropped before or after the matching.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from comedian.evaluation.soccernet_average_map.soccernet_average_map import (
    THRESHOLDS,
    Cells,
    Grid,
    hits_of,
    place,
    take_spots,
)

# used if no threshold gives a hit
THRESHOLD_WITHOUT_HIT = 0.5


@dataclass(frozen=True)
class Matching:
    """Predictions of all matches matched with the events, at one tolerance.

    Attributes:
        events: on the grid; their `values` are 1 where the event is visible and -1 where it is not shown.
        spots: predictions on the grid; their `values` are scores.
        grid: its labels, matches and framerate.
        tolerance_s: full width of the window of an event.
        taken: `int64 (num_events,)`, the index of the spot that each event took, -1 for none.
    """

    events: Cells
    spots: Cells
    grid: Grid
    tolerance_s: float
    taken: np.ndarray

    @cached_property
    def event_labels(self) -> np.ndarray:
        """Label index of each event, `int64 (num_events,)`."""
        return self.grid.label_of(self.events.keys)

    @cached_property
    def spot_labels(self) -> np.ndarray:
        """Label index of each spot, `int64 (num_spots,)`."""
        return self.grid.label_of(self.spots.keys)

    @cached_property
    def hits(self) -> np.ndarray:
        """Whether each spot was taken by an event, `bool (num_spots,)`."""
        return hits_of(self.taken, len(self.spots.keys))

    @property
    def num_labels(self) -> int:
        """Length of the label list."""
        return len(self.grid.labels)


class Counts(NamedTuple):
    """Counts of a label's predictions at an operating point; each `int64 (num_labels,)`, or the sum over labels.

    Attributes:
        num_events: number of events.
        num_spots: predictions at or above the threshold.
        num_hits: of these, the hits.
    """

    num_events: np.ndarray
    num_spots: np.ndarray
    num_hits: np.ndarray

    @property
    def precision(self) -> np.ndarray:
        """Share of the predictions that are hits; 0 without predictions."""
        return self.num_hits / np.maximum(self.num_spots, 1)

    @property
    def recall(self) -> np.ndarray:
        """Share of the events that are found; 0 without events."""
        return self.num_hits / np.maximum(self.num_events, 1)

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall; 0 without a hit."""
        return 2 * self.num_hits / np.maximum(self.num_spots + self.num_events, 1)

    @property
    def total(self) -> "Counts":
        """All labels pooled."""
        return Counts(*(column.sum() for column in self))


def match_events(
    references: Sequence[Iterable[Mapping]],
    predictions: Sequence[Iterable[Mapping]],
    labels: Sequence[str],
    *,
    framerate: float = 2,
    tolerance_s: float = 5,
    official: bool = False,
) -> Matching:
    """Match predictions with events as the official metric does.

    Args:
        references: events, one item per match, as for `average_map`.
        predictions: likewise.
        labels: names in the order of every per-label figure.
        framerate: frames per second of the metric's grid.
        tolerance_s: full width of the window of an event, less than an hour.
        official: apply the limits of the official scorer, see `average_map`.

    Raises:
        MalformedEventError: for an event that misses a key or holds a value that cannot be read.
    """
    events, spots, grid = place(references, predictions, labels, framerate, official)
    return Matching(events, spots, grid, tolerance_s, take_spots(events, spots, grid, tolerance_s))


def precision_recall(matching: Matching) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall at the metric's 200 thresholds, each `float64 (num_labels, 200)`, thresholds ascending.

    The official average precision is the mean over the recalls 0, 0.1 ... 1 of the best precision at that recall or more.
    """
    counts = _counts_at_thresholds(matching)
    return counts.precision, counts.recall


def _counts_at_thresholds(matching: Matching) -> Counts:
    """Counts at the metric's thresholds, each `(num_labels, 200)` but the events' `(num_labels, 1)`."""
    bins = np.searchsorted(THRESHOLDS, matching.spots.values, side="right") - 1
    bins += matching.spot_labels * len(THRESHOLDS)

    def count(bins: np.ndarray) -> np.ndarray:
        counts = np.bincount(bins, minlength=matching.num_labels * len(THRESHOLDS))
        return counts.reshape(matching.num_labels, -1)[:, ::-1].cumsum(axis=1)[:, ::-1]

    num_events = np.bincount(matching.event_labels, minlength=matching.num_labels)
    return Counts(num_events[:, np.newaxis], count(bins), count(bins[matching.hits]))


def best_thresholds(matching: Matching) -> np.ndarray:
    """Choose for each label, of the metric's 200 thresholds, the highest with the best F1; 0.5 where there is no hit.

    Returns:
        `float64 (num_labels,)`.
    """
    f1 = _counts_at_thresholds(matching).f1[:, ::-1]
    best = THRESHOLDS[::-1][f1.argmax(axis=1)]
    return np.where(f1.max(axis=1) > 0, best, THRESHOLD_WITHOUT_HIT)


def count_at(matching: Matching, thresholds: np.ndarray) -> Counts:
    """Count events, predictions and hits of each label at an operating point, thresholds `(num_labels,)`."""
    counted = reach_threshold(matching, thresholds)

    def count(labels: np.ndarray) -> np.ndarray:
        return np.bincount(labels, minlength=matching.num_labels)

    return Counts(
        count(matching.event_labels),
        count(matching.spot_labels[counted]),
        count(matching.spot_labels[counted & matching.hits]),
    )


def reach_threshold(matching: Matching, thresholds: np.ndarray) -> np.ndarray:
    """Which spots `bool (num_spots,)` reach the threshold of their label."""
    return matching.spots.values >= thresholds[matching.spot_labels]


def found_events(matching: Matching, thresholds: np.ndarray) -> np.ndarray:
    """Return which events `bool (num_events,)` have taken a prediction at or above its label's threshold."""
    return (matching.taken >= 0) & (scores_taken(matching) >= thresholds[matching.event_labels])


def scores_taken(matching: Matching) -> np.ndarray:
    """Score of the spot that each event took `float64 (num_events,)`, 0 for none."""
    return np.append(matching.spots.values, 0.0)[matching.taken]

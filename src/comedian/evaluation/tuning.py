"""Choose merging, suppression, calibration and thresholds on validation from saved scores, without a model.

The average precision of a label depends on the suppression of that label alone, and it is computed from counts that
are sums over matches. So every setting is tried once, its counts are kept a match and a label, and everything else is
sums of them: the best window of each label, exactly; and what the same choice would have given on matches that it was
not made on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from comedian.evaluation.calibration import RIGHT_TOLERANCE_S, judge_spots, reporting_settings
from comedian.evaluation.soccernet_average_map.soccernet_average_map import (
    METRICS,
    THRESHOLDS,
    Cells,
    hits_of,
    interpolated_precision,
    place,
    take_spots,
)
from comedian.models import ComedianConfig
from comedian.models.postprocessing_comedian import non_maximum_suppression, step_timestamps_s, steps_of
from comedian.models.settings_comedian import NMS_TYPES
from comedian.soccernet.annotations import position_ms_of

# widths of suppression to try, in seconds, beside the model's own
NMS_WINDOWS_S = (1.0, 2.0, 4.0, 6.0, 10.0, 15.0, 20.0)
# a label with fewer events keeps its window
MIN_EVENTS = 10
NUM_FOLDS = 5

# match and half -> what belongs to the half
Scores = Mapping[tuple[str, int], np.ndarray]


class Merging(NamedTuple):
    """How the windows of a half are merged: fields of the configuration."""

    merge: str
    window_stride_s: float
    edge_trim_s: float


@dataclass(frozen=True)
class Choice:
    """The tuned settings; `nms_windows_s` has one width per label."""

    merging: Merging
    nms_type: str
    nms_windows_s: tuple[float, ...]

    @classmethod
    def of(cls, config: ComedianConfig) -> "Choice":
        """Return the settings of a configuration."""
        width = config.nms_window_s
        widths = width if isinstance(width, list) else [width] * config.num_labels
        rate = config.token_rate
        merging = Merging(config.merge, config.window_stride_tokens / rate, config.edge_trim_tokens / rate)
        return cls(merging, config.nms_type, tuple(map(float, widths)))

    def settings(self) -> dict[str, Any]:
        """Fields of the configuration."""
        widths = list(self.nms_windows_s)
        one = widths[0] if len(set(widths)) == 1 else widths
        return self.merging._asdict() | {"nms_type": self.nms_type, "nms_window_s": one}


@dataclass(frozen=True)
class Tuned:
    """The outcome.

    Attributes:
        choice: the winner; the default where the gain did not hold on other matches.
        default: what the scores were saved with.
        found: the best on all matches, whether it held or not.
        per_label: average precision of default and choice, float64 `(2, num_labels)`, on all matches.
        found_map: average-mAP of `found` on all matches.
        expected_map: average-mAP where each match is scored with what was chosen on the others.
        num_events: `(num_labels,)`.
        settings: fields of the configuration: the choice, calibration, thresholds and curves.
    """

    choice: Choice
    default: Choice
    found: Choice
    per_label: np.ndarray
    found_map: float
    expected_map: float
    num_events: np.ndarray
    settings: dict[str, Any]


class CountsAtThresholds(NamedTuple):
    """Of one setting: correct spots and all spots at or above each threshold of the metric, a match and a label.

    Attributes:
        right: int32 `(num_deltas, num_matches, num_labels, num_thresholds)`.
        spots: int32 `(num_matches, num_labels, num_thresholds)`.
    """

    right: np.ndarray
    spots: np.ndarray


class Tuner:
    """Tries settings on matches with annotations.

    Args:
        config: what the scores were saved with.
        references: match -> annotations as in `Labels-v2.json`.
        scores_of: gives the scores of all halves for a way of merging.
        metric: of the official ones, such as `"tight"`.
        framerate: of the metric's grid.
        min_events: labels with fewer keep their window.
        progress: show a bar.

    Raises:
        MalformedEventError: an annotation that cannot be read.
    """

    def __init__(
        self,
        config: ComedianConfig,
        references: Mapping[str, Sequence[Mapping]],
        scores_of: Callable[[Merging], Scores],
        *,
        metric: str = "tight",
        framerate: float = 2,
        min_events: int = MIN_EVENTS,
        progress: bool = False,
    ):
        self.config, self.matches, self.min_events = config, list(references), min_events
        self.deltas_s = METRICS[metric]
        nothing: list[list] = [[] for _ in references]
        self.ground_truths, _, self.grid = place(list(references.values()), nothing, config.label_names, framerate)
        self.default = Choice.of(config)
        owners = self._match_of(self.ground_truths.keys) * config.num_labels + self._label_of(self.ground_truths.keys)
        shape = (len(self.matches), config.num_labels)
        self.num_events = np.bincount(owners, minlength=shape[0] * shape[1]).reshape(shape)
        self._scores_of = scores_of
        self._merged: tuple[Merging, np.ndarray, Steps] | None = None
        self.counts = cache(self._counts)
        self._bar = tqdm(desc="settings tried", unit="", disable=not progress)

    def tune(self, mergings: Iterable[Merging] = (), tolerance_s: float = RIGHT_TOLERANCE_S) -> Tuned:
        """Choose on all matches; keep the default unless the gain holds on matches that were not chosen on.

        Args:
            mergings: ways of merging to try beside the default.
            tolerance_s: full width of the window in which a reported event is right.
        """
        mergings = list(dict.fromkeys([self.default.merging, *mergings]))
        everything = np.arange(len(self.matches))
        found = self.choose(everything, mergings)
        expected = self.cross_validate(mergings)
        holds = expected > self.average_precisions(self.default, everything).mean()
        choice = found if holds else self.default
        self._bar.close()
        judged = judge_spots(*self._judged_columns(choice), self.config.num_labels, tolerance_s)
        return Tuned(
            choice=choice,
            default=self.default,
            found=found,
            per_label=np.stack([self.average_precisions(each, everything) for each in (self.default, choice)]),
            found_map=self.average_precisions(found, everything).mean(),
            expected_map=expected,
            num_events=self.num_events.sum(axis=0),
            settings=choice.settings() | reporting_settings(judged),
        )

    def choose(self, matches: np.ndarray, mergings: Sequence[Merging]) -> Choice:
        """Choose on some matches: merging first, then each label's window, then the type; ties go to the default.

        Args:
            matches: int `(num_chosen,)`, indices.
            mergings: the default first.
        """

        def score(choice: Choice) -> float:
            return round(float(self.average_precisions(choice, matches).mean()), 9)

        merged = max((replace(self.default, merging=merging) for merging in mergings), key=score)
        types = [self.default.nms_type, *(nms_type for nms_type in NMS_TYPES if nms_type != self.default.nms_type)]
        return max(
            (self._with_best_windows(replace(merged, nms_type=nms_type), matches) for nms_type in types), key=score
        )

    def _with_best_windows(self, choice: Choice, matches: np.ndarray) -> Choice:
        best = list(choice.nms_windows_s)
        scores = np.round(self.average_precisions(choice, matches), 9)
        free = self.num_events[matches].sum(axis=0) >= self.min_events
        for width in NMS_WINDOWS_S:
            others = np.round(self.average_precisions(replace(choice, nms_windows_s=(width,) * len(best)), matches), 9)
            for label in np.flatnonzero((others > scores) & free):
                best[label], scores[label] = width, others[label]
        return replace(choice, nms_windows_s=tuple(best))

    def cross_validate(self, mergings: Sequence[Merging]) -> float:
        """Average-mAP of all matches, each suppressed and merged as was chosen on the matches of the other folds."""
        everything = np.arange(len(self.matches))
        folds = np.array_split(everything, min(NUM_FOLDS, len(self.matches)))
        of_folds = [self._sum(self.choose(np.setdiff1d(everything, fold), mergings), fold) for fold in folds]
        right, spots = (np.sum(counts, axis=0) for counts in zip(*of_folds))
        return float(self._precisions(right, spots, self.num_events.sum(axis=0)).mean())

    def average_precisions(self, choice: Choice, matches: np.ndarray) -> np.ndarray:
        """Official average precision of each label `(num_labels,)` on some matches, averaged over tolerances."""
        return self._precisions(*self._sum(choice, matches), self.num_events[matches].sum(axis=0))

    def _precisions(self, right: np.ndarray, spots: np.ndarray, num_events: np.ndarray) -> np.ndarray:
        curve = interpolated_precision(right, spots, num_events)
        return curve[0] if len(curve) == 1 else ((curve[:-1] + curve[1:]) / 2).mean(axis=0)

    def _sum(self, choice: Choice, matches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Counts of some matches: right `(num_deltas, num_labels, num_thresholds)`, spots without the first axis."""
        widths = np.array(choice.nms_windows_s)
        right = np.zeros((len(self.deltas_s), len(widths), len(THRESHOLDS)), dtype=np.int64)
        spots = np.zeros(right.shape[1:], dtype=np.int64)
        for width in np.unique(widths):
            counts, labels = self.counts(choice.merging, choice.nms_type, float(width)), widths == width
            right[:, labels] = counts.right[:, matches][:, :, labels].sum(axis=1)
            spots[labels] = counts.spots[matches][:, labels].sum(axis=0)
        return right, spots

    def _counts(self, merging: Merging, nms_type: str, width_s: float) -> CountsAtThresholds:
        keys, values, times_s = self._spots(merging, nms_type, width_s)
        # of the spots in one cell the last one stays, as in the official scorer
        last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
        cells = Cells(keys[last], values[last], times_s[last])
        shape = (len(self.matches), self.config.num_labels, len(THRESHOLDS))
        owners = self._match_of(cells.keys) * shape[1] + self._label_of(cells.keys)
        bins = owners * shape[2] + np.searchsorted(THRESHOLDS, cells.values, side="right") - 1

        def count(chosen: np.ndarray) -> np.ndarray:
            counts = np.bincount(bins[chosen], minlength=shape[0] * shape[1] * shape[2]).reshape(shape)
            return counts[..., ::-1].cumsum(axis=-1, dtype=np.int32)[..., ::-1]

        hits = (
            hits_of(take_spots(self.ground_truths, cells, self.grid, delta_s), len(bins)) for delta_s in self.deltas_s
        )
        self._bar.update()
        return CountsAtThresholds(np.stack([count(hit) for hit in hits]), count(np.ones(len(bins), dtype=bool)))

    def _spots(
        self, merging: Merging, nms_type: str, width_s: float | Sequence[float]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys on the metric's grid in ascending order, scores and times in seconds of all spots."""
        kept, steps = self._suppress(merging, nms_type, width_s)
        labels, places = np.nonzero(kept.T > 0)
        inside = steps.runs[places] >= 0
        labels, places = labels[inside], places[inside]
        keys = labels * self.grid.num_keys_of_label + steps.runs[places] * self.grid.stride + steps.frames[places]
        return keys, kept[places, labels].astype(np.float64), steps.times_s[places]

    def _suppress(
        self, merging: Merging, nms_type: str, width_s: float | Sequence[float]
    ) -> tuple[np.ndarray, "Steps"]:
        if self._merged is None or self._merged[0] != merging:
            self._merged = (merging, *self._chain(self._scores_of(merging)))
        _, scores, steps = self._merged
        config = self.config
        widths = steps_of(width_s, config.score_rate)
        kept = non_maximum_suppression(scores, nms_type, widths, config.nms_threshold, config.nms_min_weight)
        return kept, steps

    def _chain(self, scores: Scores) -> tuple[np.ndarray, "Steps"]:
        """All halves one after the other, further apart than suppression reaches, so that it runs once for all."""
        config = self.config
        gap = int(max(*NMS_WINDOWS_S, *self.default.nms_windows_s) * config.score_rate) + 2
        longest = max(map(len, scores.values()))
        times_s = step_timestamps_s(longest, config.score_rate, config.fps)
        # the very steps from a time to the official grid, for every step of the longest half once
        seconds = [position_ms_of(time_s) / 1000 for time_s in times_s]
        frames = np.array([min(int(self.grid.framerate * second), self.grid.num_frames - 1) for second in seconds])
        pieces, runs, places = [], [], []
        indices = {video_id: index for index, video_id in enumerate(self.matches)}
        for (video_id, half), of_half in sorted(scores.items(), key=lambda item: (indices[item[0][0]], item[0][1])):
            run = self.grid.part_index(indices[video_id], half)
            pieces += [of_half, np.zeros((gap, config.num_labels), dtype=np.float32)]
            runs += [np.full(len(of_half), run), np.full(gap, -1)]
            places += [np.arange(len(of_half)), np.zeros(gap, dtype=np.int64)]
        place_of = np.concatenate(places)
        return np.concatenate(pieces), Steps(np.concatenate(runs), frames[place_of], times_s[place_of])

    def _judged_columns(self, choice: Choice) -> tuple[np.ndarray, np.ndarray]:
        """Spots and events as `judge_spots` takes them."""
        keys, values, times_s = self._spots(choice.merging, choice.nms_type, choice.nms_windows_s)
        events = self.ground_truths
        return (
            np.stack([self.grid.part_index_of(keys), self._label_of(keys), times_s, values]),
            np.stack([self.grid.part_index_of(events.keys), self._label_of(events.keys), events.times_s]),
        )

    def _label_of(self, keys: np.ndarray) -> np.ndarray:
        return self.grid.label_of(keys)

    def _match_of(self, keys: np.ndarray) -> np.ndarray:
        return self.grid.match_and_part(self.grid.part_index_of(keys))[0]


class Steps(NamedTuple):
    """Where each step of chained halves lies: half among those of all matches (-1: in none), frame of the grid,
    seconds."""

    runs: np.ndarray
    frames: np.ndarray
    times_s: np.ndarray


def mergings_to_try(config: ComedianConfig, stride_tokens: int) -> list[Merging]:
    """List a few ways to merge windows that start every `stride_tokens`: each stride, trim and merge with each.

    Strides are the finest, the model's own and half a window; trims none, the model's own and 12/64 of a window.
    """
    window, rate = config.num_tokens, config.token_rate
    strides = dict.fromkeys([stride_tokens, config.window_stride_tokens, window // 2])
    trims = dict.fromkeys([config.edge_trim_tokens, 0, window * 12 // 64])
    return [
        Merging(merge, stride / rate, trim / rate)
        for merge in ("mean", "max")
        for stride in strides
        for trim in trims
        if stride and stride % stride_tokens == 0 and stride <= window - 2 * trim
    ]

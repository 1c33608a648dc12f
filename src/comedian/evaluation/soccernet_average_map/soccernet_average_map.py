"""SoccerNet's average-mAP for action spotting, exact and sparse: one self-contained script for `evaluate.load`.

The official scorer (`SoccerNet.Evaluation.ActionSpotting`) fills dense arrays (frames x labels) and scans them in Python.
Here every occupied cell becomes one integer key, `(label, match, half, frame)` in lexicographic order, so that duplicates,
candidate windows and nearest ground truths are each one sort or one binary search over all matches and labels at once; the
only Python loop left is the greedy choice over ground truths. The figures agree to 1e-9, quirks included: the card names
them.

The official scorer holds two halves of 120 minutes. Here the same definition is applied to any number of parts of any
length, which gives the official figures wherever the official scorer can hold all events; `official=True` has its limits.

Source: Deliege et al., "SoccerNet-v2", CVPRW 2021, section 5 (arXiv:2011.13367), and the `SoccerNet` package, version
0.2.0.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import datasets
import evaluate
import numpy as np

# keys or indices: many, or one
Index = TypeVar("Index", np.ndarray, int)

# The order is official: it is the order of every per-class list.
SOCCERNET_V2_LABELS = (
    "Penalty",
    "Kick-off",
    "Goal",
    "Substitution",
    "Offside",
    "Shots on target",
    "Shots off target",
    "Clearance",
    "Ball out of play",
    "Throw-in",
    "Foul",
    "Indirect free-kick",
    "Direct free-kick",
    "Corner",
    "Yellow card",
    "Red card",
    "Yellow->red card",
)

# Metric -> widths in seconds of the window in which a prediction may lie, ground truth in its middle.
METRICS = {
    "tight": (1, 2, 3, 4, 5),
    "loose": (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60),
    "at1": (1,),
    "at2": (2,),
    "at3": (3,),
    "at4": (4,),
    "at5": (5,),
}

# What `comedian` reads, and what one integer axis can hold.
MAX_PARTS = 99
MAX_PART_LENGTH_S = 24 * 60 * 60
# What the official scorer holds.
OFFICIAL_HALVES = (1, 2)
OFFICIAL_HALF_LENGTH_S = 120 * 60
THRESHOLDS = np.linspace(0, 1, 200)
RECALL_LEVELS = np.arange(11) / 10
# 13 of the 17 labels have unshown events in SoccerNet-v2's test split; the official scorer applies it to any label list.
UNSHOWN_FACTOR = 17 / 13
NOT_SHOWN = "not shown"

_GAME_TIME = re.compile(r" *([0-9]+) *- *([0-9]+):([0-5][0-9]) *")  # part - minutes:seconds

_DESCRIPTION = (
    "SoccerNet's average-mAP of action spotting (tight, loose, at1 ... at5), identical to the official package and "
    "without its limit to two halves of 120 minutes."
)

_CITATION = """\
@inproceedings{deliege2021soccernetv2,
  title = {SoccerNet-v2: A Dataset and Benchmarks for Holistic Understanding of Broadcast Soccer Videos},
  author = {Deli{\\`e}ge, Adrien and Cioppa, Anthony and Giancola, Silvio and Seikavandi, Meisam J. and Dueholm, Jacob V.
            and Nasrollahi, Kamal and Ghanem, Bernard and Moeslund, Thomas B. and Van Droogenbroeck, Marc},
  booktitle = {CVPR Workshops},
  year = {2021}
}
"""

_INPUTS_DESCRIPTION = """
Args:
    predictions: one list per match of dicts with `position` (ms in the half), `label`, `half` and `confidence`.
    references: one list per match, same order, of dicts with `gameTime`, `label` and optional `position` and `visibility`.
    labels: the labels in the order of the per-class lists; by default SoccerNet-v2's 17.
    framerate: frames per second of the grid on which times are compared; 2 as in the official benchmark.
    metrics: any of "tight", "loose", "at1", "at2", "at3", "at4", "at5".
    official: apply the limits of the official scorer: events outside two halves of 120 minutes are dropped or misplaced.
Returns:
    metric -> `a_mAP`, `a_mAP_per_class`, `a_mAP_visible`, `a_mAP_per_class_visible`, `a_mAP_unshown` and
    `a_mAP_per_class_unshown`, as fractions.
"""


class MalformedEventError(ValueError):
    """An event that the official format does not allow.

    Attributes:
        kind: `"references"` or `"predictions"`.
        match: index of the match.
        event: index of the event in its match.
        reason: what is wrong with it.
    """

    def __init__(self, kind: str, match: int, event: int, reason: str):
        super().__init__(f"{kind}[{match}][{event}]: {reason}")
        self.kind, self.match, self.event, self.reason = kind, match, event, reason


class Cells(NamedTuple):
    """The occupied cells of all labels, matches and parts.

    Attributes:
        keys: `int64 (num_cells,)`, strictly increasing.
        values: `float64 (num_cells,)`, a score, or 1 / -1 for a shown / unshown ground truth.
        times_s: `float64 (num_cells,)`, the event's own time, finer than the grid.
    """

    keys: np.ndarray
    values: np.ndarray
    times_s: np.ndarray

    def chosen(self, chosen: np.ndarray) -> "Cells":
        """Return the cells of a mask or of indices."""
        return Cells(*(column[chosen] for column in self))


class Grid(NamedTuple):
    """The one axis on which all cells lie: a run of `stride` keys for each (label, match, part).

    Attributes:
        labels: label -> its index.
        num_matches: number of matches.
        framerate: frames per second.
    """

    labels: Mapping[str, int]
    num_matches: int
    framerate: float

    @property
    def num_frames(self) -> int:
        """Frames of a part of the longest length that is read."""
        return int(MAX_PART_LENGTH_S * self.framerate)

    @property
    def stride(self) -> int:
        """Keys of a part: the gap behind its frames is wider than any tolerance, so no window reaches the next part."""
        return 2 * self.num_frames

    @property
    def num_keys_of_label(self) -> int:
        """Keys of all matches and parts of one label."""
        return self.stride * self.num_parts

    @property
    def num_parts(self) -> int:
        """Parts of all matches, whether or not there are events in them."""
        return MAX_PARTS * self.num_matches

    def part_index(self, match: int, part: int) -> int:
        """Return the index of a part, which counts from 1, among those of all matches."""
        return match * MAX_PARTS + part - 1

    def part_index_of(self, keys: Index) -> Index:
        """Return for each key the index `(num_cells,)` of its part among those of all matches."""
        return keys // self.stride % max(self.num_parts, 1)

    def match_and_part(self, part_index: Index) -> tuple[Index, Index]:
        """Return the match and the part, from 1, of indices from `part_index_of`."""
        match, part = divmod(part_index, MAX_PARTS)
        return match, part + 1

    def half_width(self, delta_s: float) -> int:
        """Return how many frames a window of `delta_s` seconds reaches to each side."""
        return int(delta_s * self.framerate // 2)

    def label_of(self, keys: np.ndarray) -> np.ndarray:
        """Return the label index `(num_cells,)` of each key."""
        return keys // self.num_keys_of_label


def average_map(
    references: Sequence[Iterable[Mapping]],
    predictions: Sequence[Iterable[Mapping]],
    labels: Sequence[str],
    *,
    framerate: float = 2,
    metrics: Sequence[str] | str = ("tight", "loose"),
    official: bool = False,
) -> dict[str, dict]:
    """Score predicted events as `SoccerNet.Evaluation.ActionSpotting.evaluate` does, in any number of parts of any length.

    Args:
        references: one item per match: the dicts under `annotations` in `Labels-v2.json` (`gameTime`, `label`, and
            optional `position` in ms and `visibility`).
        predictions: one item per match, in the same order: the dicts under `predictions` in `results_spotting.json`
            (`position` in ms, `label`, `half`, `confidence`).
        labels: the labels in the order of the per-class lists; events of other labels are skipped.
        framerate: frames per second of the grid on which times are compared.
        metrics: names among `METRICS`, or one of them.
        official: apply the limits of the official scorer, too; see [`within_official_limits`] for what that leaves out.

    Returns:
        Metric name -> `a_mAP`, `a_mAP_visible`, `a_mAP_unshown` (floats) and `a_mAP_per_class`,
        `a_mAP_per_class_visible`, `a_mAP_per_class_unshown` (lists of `len(labels)` floats), all fractions.

    Raises:
        MalformedEventError: for an event that misses a key or holds a value that cannot be read.
        ValueError: when the two lists differ in length, or a metric's name is unknown.
    """
    metrics = [metrics] if isinstance(metrics, str) else metrics
    if unknown := [metric for metric in metrics if metric not in METRICS]:
        raise ValueError(f"unknown metric {unknown[0]!r}; known: {', '.join(METRICS)}")
    ground_truths, spots, grid = place(references, predictions, labels, framerate, official)
    deltas_s = sorted({delta_s for metric in metrics for delta_s in METRICS[metric]})
    curve = dict(zip(deltas_s, average_precisions(ground_truths, spots, grid, deltas_s)))
    return {metric: _summary(np.array([curve[delta_s] for delta_s in METRICS[metric]])) for metric in metrics}


def place(
    references: Sequence[Iterable[Mapping]],
    predictions: Sequence[Iterable[Mapping]],
    labels: Sequence[str],
    framerate: float,
    official: bool = False,
) -> tuple[Cells, Cells, Grid]:
    """Place ground truths and spots on one grid; arguments and errors as those of `average_map`.

    Returns:
        Ground truths, spots with a score of at least 0, and their grid.
    """
    if len(references) != len(predictions):
        raise ValueError(
            f"{len(references)} matches in references, {len(predictions)} in predictions: one item per match"
        )
    grid = Grid({label: index for index, label in enumerate(labels)}, len(references), framerate)
    if grid.num_keys_of_label * max(len(labels), 1) > np.iinfo(np.int64).max:
        raise ValueError(f"{framerate:g} frames per second are too many for {len(references)} matches; choose fewer")
    read_reference = _read_reference_officially if official else _read_reference
    ground_truths = _to_cells(references, read_reference, "references", grid, official)
    spots = _to_cells(predictions, _read_prediction, "predictions", grid, official)
    # after duplicates are gone: a NaN or negative score still erases an earlier spot
    return ground_truths, spots.chosen(spots.values >= 0), grid


def within_official_limits(
    references: Sequence[Iterable[Mapping]], predictions: Sequence[Iterable[Mapping]]
) -> tuple[list[list[Mapping]], list[list[Mapping]]]:
    """Return the events that the official scorer holds where they are: those of halves 1 and 2 before 120 minutes.

    It drops events of parts 3 to 9 and from 30 on, takes annotations of parts 10 to 29 for those of half 1 or 2, puts all
    events after 120 minutes in the last frame, and reads minute 105 of a `gameTime` without `position` as minute 5.

    Args:
        references: as for [`average_map`], of events that can be read.
        predictions: likewise.

    Returns:
        References and predictions without the events outside these limits.
    """

    def is_held(event: Mapping, read: Callable, read_officially: Callable) -> bool:
        _, part, position_ms, _ = place = read(event)
        is_inside = part in OFFICIAL_HALVES and 0 <= position_ms < 1000 * OFFICIAL_HALF_LENGTH_S
        return is_inside and read_officially(event) == place

    def held(matches: Sequence[Iterable[Mapping]], *readers: Callable) -> list[list[Mapping]]:
        return [[event for event in events if is_held(event, *readers)] for events in matches]

    return (
        held(references, _read_reference, _read_reference_officially),
        held(predictions, _read_prediction, _read_prediction),
    )


def _read_reference(event: Mapping) -> tuple[str, int, int, float]:
    """Return label, part, position in ms and visibility (1 or -1) of an annotation."""
    match = _GAME_TIME.fullmatch(event["gameTime"])
    if match is None:
        raise ValueError("`gameTime` is not as '1 - 12:34'")
    part, minutes, seconds = map(int, match.groups())
    return event["label"], part, _position_ms(event, minutes, seconds), _visibility(event)


def _read_reference_officially(event: Mapping) -> tuple[str, int, int, float]:
    """Return the same from the characters that the official scorer looks at: one of the part, two of the minutes."""
    game_time = event["gameTime"]
    half, minutes, seconds = int(game_time[0]), int(game_time[-5:-3]), int(game_time[-2:])
    return event["label"], half, _position_ms(event, minutes, seconds), _visibility(event)


def _position_ms(event: Mapping, minutes: int, seconds: int) -> int:
    position = event.get("position")
    return 1000 * (60 * minutes + seconds) if position is None else int(position)


def _visibility(event: Mapping) -> float:
    return -1.0 if event.get("visibility") == NOT_SHOWN else 1.0


def _read_prediction(event: Mapping) -> tuple[str, int, int, float]:
    """Return label, part, position in ms and score of a prediction."""
    return event["label"], int(event["half"]), int(event["position"]), float(event["confidence"])


def _to_cells(matches: Sequence[Iterable[Mapping]], read: Callable, kind: str, grid: Grid, official: bool) -> Cells:
    """Place events on the grid; of the events in one cell the last one stays."""
    labels, stride, framerate = grid.labels, grid.stride, grid.framerate
    official_frames = range(int(OFFICIAL_HALF_LENGTH_S * framerate))
    keys, values, times_s = [], [], []
    for match, events in enumerate(matches):
        for number, event in enumerate(events):
            try:
                label, part, position_ms, value = read(event)
                if label not in labels or (official and part not in OFFICIAL_HALVES):
                    continue
                frame = int(framerate * (position_ms / 1000))
                if official:
                    # Indexing counts negative frames from the end, as the official dense array does.
                    frame = official_frames[min(frame, len(official_frames) - 1)]
                elif not (1 <= part <= MAX_PARTS and 0 <= position_ms < 1000 * MAX_PART_LENGTH_S):
                    raise ValueError(
                        f"part {part} at {position_ms} ms is out of range (parts 1 to {MAX_PARTS}, from 0 to 24 hours)"
                    )
                run = labels[label] * grid.num_parts + grid.part_index(match, part)
                keys.append(run * stride + frame)
                values.append(value)
                times_s.append(position_ms / 1000)
            except (LookupError, TypeError, ValueError, OverflowError) as error:
                raise MalformedEventError(kind, match, number, f"{type(error).__name__} {error} in {event}") from error
    cells = Cells(np.array(keys, np.int64), np.array(values, np.float64), np.array(times_s, np.float64))
    cells = cells.chosen(np.argsort(cells.keys, kind="stable"))
    last = np.ones(len(cells.keys), dtype=bool)
    last[:-1] = cells.keys[1:] != cells.keys[:-1]
    return cells.chosen(last)


def average_precisions(ground_truths: Cells, spots: Cells, grid: Grid, deltas_s: Sequence[float]) -> np.ndarray:
    """Return the average precision `(num_deltas, 3, num_labels)` over all, visible and unshown events."""
    num_labels = len(grid.labels)
    closest = _closest_visibility(ground_truths, spots.keys, grid.stride)
    views = np.stack([np.ones(len(closest), dtype=bool), closest > 0, closest < 0])
    bins = np.searchsorted(THRESHOLDS, spots.values, side="right") - 1
    bins += grid.label_of(spots.keys) * len(THRESHOLDS)

    def count(chosen: np.ndarray) -> np.ndarray:
        """Count the chosen spots at or above each threshold: `(3, num_labels, num_thresholds)`."""
        counts = [np.bincount(bins[view & chosen], minlength=num_labels * len(THRESHOLDS)) for view in views]
        return np.reshape(counts, (len(views), num_labels, -1))[..., ::-1].cumsum(axis=-1)[..., ::-1]

    gt_labels = grid.label_of(ground_truths.keys)
    shown = ground_truths.values > 0
    num_ground_truths = np.stack(
        [np.bincount(gt_labels[view], minlength=num_labels) for view in (np.ones_like(shown), shown, ~shown)]
    )
    hits = (hits_of(take_spots(ground_truths, spots, grid, delta_s), len(spots.keys)) for delta_s in deltas_s)
    return interpolated_precision(np.stack([count(hit) for hit in hits]), count(views[0]), num_ground_truths)


def _closest_visibility(ground_truths: Cells, keys: np.ndarray, stride: int) -> np.ndarray:
    """Return the visibility `(num_spots,)` of the ground truth nearest to each spot in its part, -1 where there is
    none."""
    # A ground truth in no part comes first, so that every spot has one at or before it.
    owners = np.append(-1, ground_truths.keys)
    visibilities = np.append(-1.0, ground_truths.values)
    runs = owners // stride
    midpoints = (owners[:-1] + owners[1:]) // 2
    boundaries = np.where(runs[:-1] == runs[1:], midpoints, runs[1:] * stride)
    nearest = np.searchsorted(boundaries, keys, side="right")
    return np.where(runs[nearest] == keys // stride, visibilities[nearest], -1.0)


def take_spots(ground_truths: Cells, spots: Cells, grid: Grid, delta_s: float) -> np.ndarray:
    """Give each ground truth, in time order, the best spot left at most `delta_s / 2` from it.

    Returns:
        The index of each ground truth's spot `int64 (num_ground_truths,)`, -1 for none.
    """
    half_width = grid.half_width(delta_s)
    starts = np.searchsorted(spots.keys, ground_truths.keys - half_width, side="left")
    stops = np.searchsorted(spots.keys, ground_truths.keys + half_width, side="right")
    (reachable,) = np.nonzero(starts < stops)
    left, choices = spots.values.copy(), []
    for start, stop in zip(starts[reachable].tolist(), stops[reachable].tolist()):
        best = start + left[start:stop].argmax()  # the first of equals; one already taken where none is left
        left[best] = -1
        choices.append(best)
    chosen, first = np.unique(np.array(choices, dtype=np.int64), return_index=True)
    taken = np.full(len(ground_truths.keys), -1)
    taken[reachable[first]] = chosen
    return taken


def hits_of(taken: np.ndarray, num_spots: int) -> np.ndarray:
    """Return which spots `bool (num_spots,)` some ground truth has taken."""
    hits = np.zeros(num_spots, dtype=bool)
    hits[taken[taken >= 0]] = True
    return hits


def interpolated_precision(
    true_positives: np.ndarray, num_spots: np.ndarray, num_ground_truths: np.ndarray
) -> np.ndarray:
    """Return the 11-point interpolated average precision; 0 where there is nothing to find.

    Args:
        true_positives: hits at or above each threshold, `(..., num_labels, num_thresholds)`.
        num_spots: spots at or above each threshold, same trailing shape.
        num_ground_truths: `(..., num_labels)`.
    """
    precision = true_positives / np.maximum(num_spots, 1)
    recall = true_positives / np.maximum(num_ground_truths, 1)[..., np.newaxis]
    return np.mean([np.where(recall >= level, precision, 0).max(axis=-1) for level in RECALL_LEVELS], axis=0)


def _summary(curve: np.ndarray) -> dict:
    """Average `(num_deltas, 3, num_labels)` over deltas by the trapezoid rule and name the figures as officially."""
    single = len(curve) == 1
    per_class = curve[0] if single else ((curve[:-1] + curve[1:]) / 2).mean(axis=0)
    overall, visible, unshown = per_class.mean(axis=1).tolist()
    per_class, per_class_visible, per_class_unshown = per_class.tolist()
    return {
        "a_mAP": overall,
        "a_mAP_per_class": per_class,
        "a_mAP_visible": visible,
        "a_mAP_per_class_visible": per_class_visible,
        "a_mAP_unshown": unshown if single else unshown * UNSHOWN_FACTOR,
        "a_mAP_per_class_unshown": per_class_unshown,
    }


class SoccerNetAverageMap(evaluate.Metric):
    """`average_map` as an `evaluate.Metric`.

    A match travels as JSON text: Arrow structs would want the same keys and types in every event, and `datasets.Json`
    rounds scores to ten digits.
    """

    def _info(self) -> evaluate.MetricInfo:
        match = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS_DESCRIPTION,
            features=datasets.Features({"predictions": match, "references": match}),
            reference_urls=["https://github.com/SoccerNet/SoccerNet"],
        )

    def add(
        self, *, prediction: Iterable[Mapping] | None = None, reference: Iterable[Mapping] | None = None, **events
    ):
        """Add the events of one match, as `prediction` and `reference` or as `predictions` and `references`."""
        prediction, reference = events.pop("predictions", prediction), events.pop("references", reference)
        if prediction is None or reference is None or events:
            raise ValueError("give the events of one match as `predictions` and `references`")
        super().add(prediction=_to_json(prediction), reference=_to_json(reference))

    def add_batch(self, *, predictions: Iterable, references: Iterable) -> None:
        """Add the events of several matches."""
        super().add_batch(
            predictions=[_to_json(events) for events in predictions],
            references=[_to_json(events) for events in references],
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        labels: Sequence[str] = SOCCERNET_V2_LABELS,
        framerate: float = 2,
        metrics: Sequence[str] = ("tight", "loose"),
        official: bool = False,
    ) -> dict[str, dict]:
        return average_map(
            [json.loads(match) for match in references],
            [json.loads(match) for match in predictions],
            labels,
            framerate=framerate,
            metrics=metrics,
            official=official,
        )


def _to_json(events: Iterable[Mapping]) -> str:
    return json.dumps(list(events), default=float)  # `float`: scores are often numpy or torch scalars

"""The page of an evaluation: one or several sets of predictions of the same matches, side by side."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from comedian.errors import InputError
from comedian.evaluation.calibration import CALIBRATION_FLOOR, reliability
from comedian.evaluation.diagnosis import TOLERANCES_S, Diagnosis, Example, error_histogram
from comedian.evaluation.soccernet_average_map.soccernet_average_map import hits_of
from comedian.files import existing
from comedian.report.charts import Axes, Line, histogram, line_chart, style_of
from comedian.report.page import clock, render_page
from comedian.report.pictures import jpeg_data_uri
from comedian.soccernet.layout import find_halves
from comedian.video.decoding import frames_at

PICTURE_HEIGHT = 108
KINDS = {
    "hit": "Best hits",
    "false alarm": "False alarms with the highest scores",
    "missed": "Missed events with the lowest scores",
}
# match, half and seconds of a picture
Place = tuple[int, int, float]


def render_evaluation(
    diagnoses: Mapping[str, Diagnosis],
    labels: Sequence[str],
    matches: Sequence[str],
    threshold: float | None = None,
    pictures: Mapping[Place, str] | None = None,
) -> str:
    """Write the page.

    Args:
        diagnoses: name -> figures of each set of predictions, all of the same events; the first is what others are
            compared with.
        labels: names, in the order of the figures.
        matches: names, in the order of the figures.
        threshold: the one that was given; None for the best threshold of each label.
        pictures: what [`read_pictures`] found; None for a page without pictures.

    Returns:
        The page, one file that needs no network.
    """
    every = list(diagnoses.values())
    matching = every[0].matching
    return render_page(
        "evaluation.html",
        title="Evaluation" if len(every) > 1 else f"Evaluation of {next(iter(diagnoses))}",
        subtitle=_subtitle(every[0], len(matches)),
        data=None,
        names=list(diagnoses),
        labels=labels,
        styles=[style_of(index) for index in range(len(every))],
        tolerance_s=matching.tolerance_s,
        framerate=matching.grid.framerate,
        threshold=threshold,
        sets=[_figures(diagnosis, labels) for diagnosis in every],
        tolerances_s=TOLERANCES_S,
        curve_chart=_curve_chart(diagnoses, None),
        error_chart=_error_chart(diagnoses, None),
        reliability_chart=_reliability_chart(diagnoses),
        details=[
            {
                "curve": _curve_chart(diagnoses, index),
                "precision_recall": _precision_recall_chart(diagnoses, index),
                "errors": _error_chart(diagnoses, index),
            }
            for index in range(len(labels))
        ],
        kinds=KINDS,
        examples=[_cards(diagnosis.examples, labels, matches, pictures or {}) for diagnosis in every],
        has_pictures=pictures is not None,
    )


def read_pictures(examples: Iterable[Example], matches: Sequence[str], root: Path) -> dict[Place, str]:
    """Read a small picture of each example out of the matches' videos; halves without a video are skipped.

    Args:
        examples: places to read.
        matches: folders relative to `root`, in the order of the examples' numbers.
        root: the videos, in SoccerNet's layout.

    Returns:
        Place -> `data:` address of a JPEG.

    Raises:
        InputError: no video exists, or one cannot be read.
    """
    places: dict[tuple[int, int], set[float]] = {}
    for example in examples:
        places.setdefault((example.match, example.half), set()).add(example.time_s)
    videos = {}
    for match in sorted({match for match, _ in places}):
        folder = existing(root, matches[match])
        for half, video in (find_halves(folder) if folder.is_dir() else {}).items():
            videos[match, half] = video
    found = sorted(places.keys() & videos.keys())
    if places and not found:
        raise InputError(f"`{root}` has no video of any match, such as {matches[0]}/1_224p.mkv; give the folder above")
    pictures = {}
    for match, half in tqdm(found, desc="pictures", unit="half", leave=False):
        times_s = sorted(places[match, half])
        instants_s = [max(time_s, 0.0) for time_s in times_s]
        for time_s, frame in zip(times_s, frames_at(videos[match, half], instants_s, PICTURE_HEIGHT), strict=True):
            pictures[match, half, time_s] = jpeg_data_uri(frame)
    return pictures


def _subtitle(diagnosis: Diagnosis, num_matches: int) -> str:
    values = diagnosis.matching.events.values
    matches = "1 match" if num_matches == 1 else f"{num_matches} matches"
    unshown = f", {int((values < 0).sum())} of them not shown" if (values < 0).any() else ""
    return f"{matches}, {len(values)} events{unshown}"


def _figures(diagnosis: Diagnosis, labels: Sequence[str]) -> dict[str, Any]:
    """Contents of the tables of one set of predictions; shares in percent, None if undefined."""
    matching, scores, total = diagnosis.matching, diagnosis.scores, diagnosis.counts.total
    rows = []
    for index, label in enumerate(labels):
        counts = [int(column[index]) for column in diagnosis.counts]
        rows.append(
            {
                "label": label,
                "num_predictions": int((matching.spot_labels == index).sum()),
                "threshold": float(diagnosis.thresholds[index]),
                "num_events": counts[0],
                "num_spots": counts[1],
                "num_hits": counts[2],
                "tight": 100 * scores["tight"]["a_mAP_per_class"][index],
                "loose": 100 * scores["loose"]["a_mAP_per_class"][index],
                "precision": 100 * float(diagnosis.counts.precision[index]),
                "recall": 100 * float(diagnosis.counts.recall[index]),
                "f1": 100 * float(diagnosis.counts.f1[index]),
                **_errors(diagnosis.errors_s[diagnosis.error_labels == index]),
                "views": _views(diagnosis, index),
                "confusion": diagnosis.confusion[index].tolist(),
                "num_missed": int((~diagnosis.found & (matching.event_labels == index)).sum()),
            }
        )
    return {
        "rows": rows,
        "tight": 100 * scores["tight"]["a_mAP"],
        "loose": 100 * scores["loose"]["a_mAP"],
        "num_events": int(total.num_events),
        "num_predictions": len(matching.spots.keys),
        "num_spots": int(total.num_spots),
        "num_hits": int(total.num_hits),
        "precision": 100 * float(total.precision),
        "recall": 100 * float(total.recall),
        "f1": 100 * float(total.f1),
        **_errors(diagnosis.errors_s),
        "views": _views(diagnosis, None),
        "curve": (100 * diagnosis.average_precision[:, 0].mean(axis=1)).tolist(),
    }


def _errors(errors_s: np.ndarray) -> dict[str, float | None]:
    """Typical size and direction of errors in time."""
    if errors_s.size == 0:
        return {"error_s": None, "bias_s": None}
    return {"error_s": float(np.median(np.abs(errors_s))), "bias_s": float(errors_s.mean())}


def _views(diagnosis: Diagnosis, label: int | None) -> list[dict[str, Any]]:
    """Events, found ones and official scores of visible and of unshown events, of a label or of all."""
    matching = diagnosis.matching
    of_label = np.full(len(matching.event_labels), True) if label is None else matching.event_labels == label
    views = []
    for name, is_shown in (("visible", True), ("unshown", False)):
        chosen = of_label & ((matching.events.values > 0) == is_shown)
        score = {
            metric: figures[f"a_mAP_{name}"] if label is None else figures[f"a_mAP_per_class_{name}"][label]
            for metric, figures in diagnosis.scores.items()
        }
        num_events, num_found = int(chosen.sum()), int((chosen & diagnosis.found).sum())
        views.append(
            {"name": name, "num_events": num_events, "num_found": num_found}
            | {"recall": 100 * num_found / num_events if num_events else None}
            | {metric: 100 * value for metric, value in score.items()}
        )
    return views


def _curve_chart(diagnoses: Mapping[str, Diagnosis], label: int | None) -> str:
    """Average precision of a label, or its mean over all, against the tolerance."""
    lines = []
    for name, diagnosis in diagnoses.items():
        curve = 100 * diagnosis.average_precision[:, 0]
        values = (curve.mean(axis=1) if label is None else curve[:, label]).tolist()
        marks = [(x, y, f"{x} s, {y:.1f} %") for x, y in zip(TOLERANCES_S, values)]
        lines.append(Line(name, list(zip(map(float, TOLERANCES_S), values)), marks))
    what = "mAP" if label is None else "average precision"
    axes = Axes("tolerance (s, full width)", f"{what} (%)", (0, TOLERANCES_S[-1]), (0, 100))
    ends = [f"{line.name}: {line.points[0][1]:.1f} % at 1 s, {line.points[-1][1]:.1f} % at 60 s" for line in lines]
    return line_chart(lines, axes, f"{what} against tolerance. {'. '.join(ends)}")


def _precision_recall_chart(diagnoses: Mapping[str, Diagnosis], label: int) -> str:
    """Precision against recall of a label at the metric's thresholds, with the operating point marked."""
    lines, ends = [], []
    for name, diagnosis in diagnoses.items():
        # from the highest threshold down; a threshold without a hit has no place on the curve
        pairs = zip(diagnosis.recall[label, ::-1].tolist(), diagnosis.precision[label, ::-1].tolist())
        points = list(dict.fromkeys((100 * recall, 100 * precision) for recall, precision in pairs if recall > 0))
        recall, precision = (
            100 * float(share[label]) for share in (diagnosis.counts.recall, diagnosis.counts.precision)
        )
        text = f"from score {diagnosis.thresholds[label]:.2f} precision {precision:.1f} %, recall {recall:.1f} %"
        lines.append(Line(name, points, [(recall, precision, text)] if points else []))
        ends.append(f"{name}: {text}")
    axes = Axes("recall (%)", "precision (%)", (0, 100), (0, 100))
    return line_chart(lines, axes, f"Precision against recall. {'. '.join(ends)}")


def _reliability_chart(diagnoses: Mapping[str, Diagnosis]) -> str:
    """How often predictions with some score are hits; with the diagonal of perfect calibration."""
    lines, ends = [], []
    for name, diagnosis in diagnoses.items():
        matching = diagnosis.matching
        counted = matching.spots.values >= CALIBRATION_FLOOR
        hits = hits_of(matching.taken, len(counted))
        found = reliability(matching.spots.values[counted], hits[counted])
        bins = [tuple(map(float, row)) for row in zip(found.mean_scores, found.precisions, found.counts) if row[2]]
        marks = [
            (score, 100 * share, f"{count:.0f} scored {score:.2f} on average, {100 * share:.0f} % hits")
            for score, share, count in bins
        ]
        lines.append(Line(name, [(score, 100 * share) for score, share, _ in bins], marks))
        ends.append(f"{name}: expected calibration error {100 * found.expected_calibration_error:.1f} %")
    lines.append(Line("perfect calibration", [(0.0, 0.0), (1.0, 100.0)]))
    return line_chart(lines, Axes("score", "hits (%)", (0, 1), (0, 100)), f"Hits against score. {'. '.join(ends)}")


def _error_chart(diagnoses: Mapping[str, Diagnosis], label: int | None) -> str:
    """How many hits came how early or late."""
    counts, ends = [], []
    for name, diagnosis in diagnoses.items():
        errors_s = diagnosis.errors_s if label is None else diagnosis.errors_s[diagnosis.error_labels == label]
        centres_s, bins = error_histogram(errors_s, diagnosis.matching)
        counts.append(bins.tolist())
        late, early = int((errors_s > 0).sum()), int((errors_s < 0).sum())
        ends.append(f"{name}: {len(errors_s)} hits, {early} early, {late} late")
    title = f"Errors in time. {'. '.join(ends)}"
    return histogram(centres_s.tolist(), counts, "← early, seconds, late →", "hits", title)


def _cards(
    examples: Sequence[Example], labels: Sequence[str], matches: Sequence[str], pictures: Mapping[Place, str]
) -> list[dict[str, list[dict[str, Any]]]]:
    """Examples of one set of predictions: of each label, kind -> what its cards show."""
    cards: list[dict[str, list[dict[str, Any]]]] = [{kind: [] for kind in KINDS} for _ in labels]
    for example in examples:
        cards[example.label][example.kind].append(
            {
                "match": matches[example.match].rsplit("/", 1)[-1],
                "half": example.half,
                "clock": clock(example.time_s),
                "note": _note(example, labels),
                "picture": pictures.get((example.match, example.half, example.time_s)),
            }
        )
    return cards


def _note(example: Example, labels: Sequence[str]) -> str:
    if example.kind == "missed":
        return f"best score there {example.score:.2f}" if example.score else "no prediction there"
    if example.kind == "hit":
        late = "late" if example.error_s > 0 else "early"
        return f"score {example.score:.2f}, {abs(example.error_s):.1f} s {late}"
    seen = [*(f"there was: {label}" for label in labels), "a repeat", "nothing there"][example.seen]
    return f"score {example.score:.2f}; {seen}"

"""Score predictions with the official SoccerNet average-mAP.

LABELS and PREDICTIONS are each a folder or a zip in SoccerNet's layout, one folder a match: `Labels-v2.json` in the one,
`results_spotting.json` in the other; a single file of another name is found too. A zip may hold its matches under a top
folder. The terminal shows percent, the JSON of `--output` fractions.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from comedian.data.annotations import NOT_SHOWN, SOCCERNET_V2_LABELS, read_label_list
from comedian.errors import InputError
from comedian.evaluation.match_files import find_label_files, find_prediction_files
from comedian.files import atomic_write_text

# Spelled out, because importing the metric takes seconds that `--help` should not.
METRIC_NAMES = ("tight", "loose", "at1", "at2", "at3", "at4", "at5")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words of `comedian evaluate`."""
    parser.add_argument("labels_root", metavar="LABELS", type=Path, help="folder or zip with the label files")
    parser.add_argument("predictions_root", metavar="PREDICTIONS", type=Path, help="folder or zip with predictions")
    parser.add_argument(
        "--metric",
        nargs="+",
        choices=METRIC_NAMES,
        default=["tight", "loose"],
        help=f"of {', '.join(METRIC_NAMES)}; default: tight loose",
        metavar="NAME",
    )
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the scores as JSON")
    parser.add_argument("--labels", metavar="FILE", type=Path, help="one label a line; default: SoccerNet-v2's 17")
    parser.add_argument("--framerate", type=int, default=2, help="frames per second of the time grid; default: 2")
    parser.add_argument("--split", metavar="NAME", help="score only this split; default: every match with labels")
    parser.add_argument(
        "--splits", metavar="FILE", type=Path, help="splits and their matches; default: LABELS/splits.json"
    )


def run(args: argparse.Namespace) -> None:
    """Score, write the JSON and print the table."""
    if args.framerate < 1:
        raise InputError(f"--framerate {args.framerate}: give a whole number of frames per second, 1 or more")
    if args.splits and not args.split:
        raise InputError(f"--splits {args.splits}: say with --split NAME which of its splits to score")
    labels = read_label_list(args.labels) if args.labels else SOCCERNET_V2_LABELS
    label_files = find_label_files(args.labels_root, args.split, args.splits)
    prediction_files = find_prediction_files(args.predictions_root, label_files)
    references = [file.read_events("annotations") for file in label_files.values()]
    predictions = [file.read_events("predictions") for file in prediction_files]

    from comedian.evaluation.soccernet_average_map.soccernet_average_map import MalformedEventError, average_map

    try:
        scores = average_map(references, predictions, labels, framerate=args.framerate, metrics=args.metric)
    except MalformedEventError as error:
        files = list(label_files.values()) if error.kind == "references" else prediction_files
        raise InputError(
            f"{files[error.match]}, event {error.event + 1}: {error.reason}; mend or remove it"
        ) from error
    if args.output:
        try:
            atomic_write_text(args.output, json.dumps(scores, indent=2) + "\n")
        except OSError as error:
            raise InputError(f"--output {args.output}: {error.strerror}; name a file that can be written") from error
    print(f"{len(references)} matches at {args.framerate} frames per second; percent\n")
    print("\n".join(_table_lines(references, predictions, labels, scores)))


def _table_lines(references: list, predictions: list, labels: Sequence[str], scores: dict[str, dict]) -> list[str]:
    """Return the table: a row a label, then the means over all, visible and unshown events."""
    truths = [event for match in references for event in match]
    num_truths = Counter(event["label"] for event in truths)
    num_spots = Counter(event["label"] for match in predictions for event in match)
    num_known = sum(num_truths[label] for label in labels)
    num_unshown = sum(event["label"] in labels and event.get("visibility") == NOT_SHOWN for event in truths)
    width = max(map(len, (*labels, "mean, visible")))

    def line(name: str, num_truths: int | str, num_spots: int | str, cells: Iterable[str]) -> str:
        return f"{name:<{width}}{num_truths:>9}{num_spots:>13}" + "".join(f"{cell:>8}" for cell in cells)

    def figures(key: str) -> list:
        return [score[key] for score in scores.values()]

    rule = "-" * len(line("", "", "", scores))
    lines = [line("label", "events", "predictions", scores), rule]
    for label, per_metric in zip(labels, zip(*figures("a_mAP_per_class"))):
        lines.append(line(label, num_truths[label], num_spots[label], _percent(per_metric)))
    lines += [
        rule,
        line("mean", num_known, sum(num_spots[label] for label in labels), _percent(figures("a_mAP"))),
        line("mean, visible", num_known - num_unshown, "", _percent(figures("a_mAP_visible"))),
        line("mean, unshown", num_unshown, "", _percent(figures("a_mAP_unshown"))),
    ]
    skipped = (num_truths + num_spots).keys() - set(labels)
    if skipped:
        lines.append(f"\nskipped, not in the label list: {', '.join(sorted(map(str, skipped)))}")
    return lines


def _percent(figures: Iterable[float]) -> list[str]:
    return [f"{100 * figure:.2f}" for figure in figures]

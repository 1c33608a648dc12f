"""Score predictions with the official SoccerNet average-mAP.

LABELS and PREDICTIONS are each a folder or a zip in SoccerNet's layout, one folder per match: `Labels-v2.json` in LABELS,
`results_spotting.json` in PREDICTIONS; a single file with another name is also found. The matches of a zip may be in a
subfolder. The terminal shows percent; the JSON of `--output` contains fractions. Several PREDICTIONS are scored one after
the other, and the page of `--report` compares them.

The official scorer holds two halves of 120 minutes. The figures of such matches are the official ones; longer matches and
further parts are scored by the same definition. `--official` applies the official limits and prints what they exclude.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from comedian.errors import InputError
from comedian.evaluation.match_files import (
    MatchFile,
    find_label_files,
    find_prediction_files,
    matches_without_labels,
    mixed_names,
)
from comedian.files import atomic_write_text, check_outputs, read_json
from comedian.soccernet.annotations import NOT_SHOWN
from comedian.soccernet.labels import SOCCERNET_V2_LABELS, read_label_list

EXAMPLE = """\
comedian evaluate data/SoccerNet results.zip --split test --output scores.json
comedian evaluate data/SoccerNet baseline.zip new.zip --split test --report report.html --videos data/SoccerNet"""
# A copy of the names, because importing the metric would slow `--help` down by seconds.
METRIC_NAMES = ("tight", "loose", "at1", "at2", "at3", "at4", "at5")
DEFAULT_TOLERANCE_S = 5.0
MAX_TOLERANCE_S = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `comedian evaluate`."""
    parser.add_argument("labels_root", metavar="LABELS", type=Path, help="folder or zip with the label files")
    parser.add_argument(
        "predictions_roots",
        metavar="PREDICTIONS",
        nargs="+",
        type=Path,
        help="folder or zip with the predictions; several are compared",
    )
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument(
        "--metric",
        nargs="+",
        choices=METRIC_NAMES,
        default=["tight", "loose"],
        help=f"metrics to compute, among {', '.join(METRIC_NAMES)}; default: tight loose",
        metavar="NAME",
    )
    parser.add_argument_group("output").add_argument(
        "--output", metavar="FILE", type=Path, help="write the scores as JSON; default: print only"
    )
    scoring.add_argument(
        "--labels",
        metavar="FILE",
        type=Path,
        help="label list, one label per line; default: the 17 labels of SoccerNet-v2",
    )
    scoring.add_argument(
        "--framerate",
        metavar="FPS",
        type=int,
        default=2,
        help="frames per second of the metric's time grid, such as 25 for ball action spotting; default: 2",
    )
    scoring.add_argument(
        "--official",
        action="store_true",
        help="apply the limits of the official scorer, two halves of 120 minutes, as a challenge server does",
    )
    scoring.add_argument(
        "--split", metavar="NAME", help="score only this split, such as test; default: all matches with labels"
    )
    scoring.add_argument(
        "--splits",
        metavar="FILE",
        type=Path,
        help="JSON file that lists the matches of each split; default: LABELS/splits.json",
    )
    report = parser.add_argument_group("report")
    report.add_argument(
        "--names", nargs="+", metavar="NAME", help="display names of PREDICTIONS, in order; default: their file names"
    )
    report.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        help="write an HTML page with curves, timing errors, confusions and examples; default: no page",
    )
    report.add_argument(
        "--videos",
        metavar="ROOT",
        type=Path,
        help="folder of the matches with their videos, to add pictures to the examples; default: no pictures",
    )
    report.add_argument(
        "--tolerance",
        metavar="SECONDS",
        type=float,
        help="full width of the window around an event in which a prediction is a hit, at most 60; default: 5",
    )
    report.add_argument(
        "--threshold",
        metavar="SCORE",
        type=float,
        help="count predictions from this score, 0 to 1; default: the best threshold for the F1 of each label",
    )


def run(args: argparse.Namespace) -> None:
    """Score, write the JSON and the report, and print the tables."""
    _check(args)
    names = _names(args.predictions_roots, args.names)
    labels = read_label_list(args.labels) if args.labels else SOCCERNET_V2_LABELS
    if args.output:
        _check_order(args.output, labels)
    label_files = find_label_files(args.labels_root, args.split, args.splits)
    prediction_files = [find_prediction_files(root, label_files) for root in args.predictions_roots]
    references = [file.read_events("annotations") for file in label_files.values()]
    predictions = [[file.read_events("predictions") for file in files] for files in prediction_files]

    from comedian.evaluation.soccernet_average_map.soccernet_average_map import MalformedEventError, average_map

    scores, diagnoses = {}, {}
    for name, files, events in zip(names, prediction_files, predictions):
        try:
            scores[name] = average_map(
                references, events, labels, framerate=args.framerate, metrics=args.metric, official=args.official
            )
        except MalformedEventError as error:
            malformed = (list(label_files.values()) if error.kind == "references" else files)[error.match]
            raise InputError(f"{malformed}, event {error.event + 1}: {error.reason}; fix or remove it") from error
        except ValueError as error:
            raise InputError(f"--framerate: {error}") from error
        if args.report:
            diagnoses[name] = _diagnose(args, references, events, labels)
    if args.report:
        atomic_write_text(args.report, _page(args, diagnoses, labels, list(label_files)))
    if args.output:
        content = scores if len(names) > 1 else scores[names[0]]
        atomic_write_text(args.output, json.dumps(content, indent=2) + "\n")
    for note in _notes(args, label_files):
        print(note, file=sys.stderr)
    limits = ", official limits" if args.official else ""
    print(f"{len(references)} matches at {args.framerate} frames per second{limits}; percent\n")
    for name, events in zip(names, predictions):
        if len(names) > 1:
            print(f"{name}\n")
        print("\n".join(_table_lines(references, events, labels, scores[name], args.official)))
        if name != names[-1]:
            print()


def _check(args: argparse.Namespace) -> None:
    """Raise `InputError` for options that contradict each other."""
    if args.framerate < 1:
        raise InputError(f"--framerate {args.framerate}: give a whole number of frames per second, 1 or more")
    if args.splits and not args.split:
        raise InputError(f"--splits {args.splits}: choose one of its splits with --split NAME")
    for option in ("videos", "tolerance", "threshold"):
        if getattr(args, option) is not None and args.report is None:
            raise InputError(f"--{option} {getattr(args, option)}: it applies to the report only; add --report FILE")
    if args.tolerance is not None and not 0 < args.tolerance <= MAX_TOLERANCE_S:
        raise InputError(f"--tolerance {args.tolerance:g}: give seconds above 0, at most {MAX_TOLERANCE_S}")
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise InputError(f"--threshold {args.threshold:g}: give a score from 0 to 1")
    check_outputs((args.report, args.output), [args.labels_root, *args.predictions_roots])


def _check_order(output: Path, labels: Sequence[str]) -> None:
    """Refuse scores beside a model whose labels have another order, in which its card would read them."""
    path = output.parent / "config.json"
    config = read_json(path) if path.is_file() else None
    of_model = config.get("id2label") if isinstance(config, dict) else None
    if of_model and [of_model.get(str(index)) for index in range(len(of_model))] != list(labels):
        raise InputError(
            f"--output {output}: the model in that folder has other labels, or in another order; give its labels with "
            "--labels, or another folder"
        )


def _names(roots: Sequence[Path], given: Sequence[str] | None) -> list[str]:
    """Return a name for each set of predictions: the given one, or that of its file, or its path where files share
    names."""
    names = list(given or (root.stem if root.is_file() else root.name for root in roots))
    if len(names) != len(roots):
        raise InputError(f"--names: {len(names)} names for {len(roots)} PREDICTIONS; give one name each")
    if not given and len(set(names)) < len(names):
        names = list(map(str, roots))
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"`{repeated[0]}` names two of PREDICTIONS; give each another name with --names")
    return names


def _diagnose(args: argparse.Namespace, references: list, predictions: list, labels: Sequence[str]):
    from comedian.evaluation.diagnosis import diagnose

    return diagnose(
        references,
        predictions,
        labels,
        framerate=args.framerate,
        tolerance_s=DEFAULT_TOLERANCE_S if args.tolerance is None else args.tolerance,
        threshold=args.threshold,
        official=args.official,
    )


def _page(args: argparse.Namespace, diagnoses: dict, labels: Sequence[str], matches: list[str]) -> str:
    from comedian.report.evaluation import read_pictures, render_evaluation

    pictures = None
    if args.videos:
        examples = [example for diagnosis in diagnoses.values() for example in diagnosis.examples]
        pictures = read_pictures(examples, matches, args.videos)
    return render_evaluation(diagnoses, labels, matches, args.threshold, pictures)


def _notes(args: argparse.Namespace, label_files: Mapping[str, MatchFile]) -> Iterator[str]:
    """Print a note on label files of different names, and on matches that are not scored."""
    if names := mixed_names(label_files.values()):
        yield f"label files with different names: {names}; all of them are scored"
    if args.split is None:
        for root in args.predictions_roots:
            if unscored := matches_without_labels(root, label_files):
                yield f"not scored, as `{args.labels_root}` has no labels for them: {', '.join(unscored)}"


def _table_lines(
    references: list, predictions: list, labels: Sequence[str], scores: dict[str, dict], official: bool
) -> list[str]:
    """Return the table: one row per label, then the means over all, visible and unshown events, then what is omitted."""
    left_out = ""
    if official:
        from comedian.evaluation.soccernet_average_map.soccernet_average_map import within_official_limits

        held = within_official_limits(references, predictions)
        counts = [
            f"{sum(map(len, all_)) - sum(map(len, kept))} of {sum(map(len, all_))}"
            for all_, kept in zip((references, predictions), held)
        ]
        left_out = (
            f"excluded by the official limits, two halves of 120 minutes: {counts[0]} events, {counts[1]} predictions"
        )
        references, predictions = held
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
    if left_out:
        lines.append(f"\n{left_out}")
    skipped = (num_truths + num_spots).keys() - set(labels)
    if skipped:
        lines.append(f"\nskipped, not in the label list: {', '.join(sorted(map(str, skipped)))}")
    return lines


def _percent(figures: Iterable[float]) -> list[str]:
    return [f"{100 * figure:.2f}" for figure in figures]

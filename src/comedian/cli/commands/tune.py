"""Choose merging, suppression, calibration and thresholds on validation, from saved scores, in seconds.

LABELS is a folder or a zip in SoccerNet's layout, SCORES a folder written by `comedian spot --save-scores`; several are an
ensemble. The command chooses the type of suppression, its window for each label and, if the scores of windows were saved
(`--save-windows`), how windows are merged. A change is kept only if it also improves the score on matches that it was not
chosen on (cross-validation), so a single match changes nothing. Calibration, thresholds and the curves of
`comedian spot --threshold precision=0.9` are always measured again.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from comedian.errors import InputError
from comedian.files import check_outputs

EXAMPLE = """\
comedian spot data/SoccerNet --split validation --model MODEL --save-scores scores --save-windows 8
comedian tune data/SoccerNet scores --split validation --model MODEL"""
# a copy of the names, because importing the metric would slow `--help` down by seconds
METRIC_NAMES = ("tight", "loose", "at1", "at2", "at3", "at4", "at5")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `comedian tune`."""
    parser.add_argument("labels_root", metavar="LABELS", type=Path, help="folder or zip with the label files")
    parser.add_argument("scores", metavar="SCORES", nargs="+", type=Path, help="folders of saved scores")
    output = parser.add_argument_group("output, one of the two")
    target = output.add_mutually_exclusive_group(required=True)
    target.add_argument("--model", metavar="DIR", type=Path, help="write the settings into this model's config.json")
    target.add_argument(
        "--output", metavar="FILE", type=Path, help="write the settings into a file for `comedian spot --settings`"
    )
    scoring = parser.add_argument_group("scoring")
    scoring.add_argument("--split", metavar="NAME", help="use only the matches of this split; default: all matches")
    scoring.add_argument(
        "--metric", choices=METRIC_NAMES, default="tight", help="average-mAP to maximise; default: tight"
    )
    scoring.add_argument(
        "--framerate",
        metavar="FPS",
        type=int,
        default=2,
        help="frames per second of the metric's time grid; default: 2",
    )
    scoring.add_argument(
        "--tolerance",
        metavar="SECONDS",
        type=float,
        default=5.0,
        help="full width of the window in which a reported event counts as correct, for thresholds and calibration; "
        "default: 5",
    )
    scoring.add_argument(
        "--min-events",
        metavar="N",
        type=int,
        default=10,
        help="a label with fewer events keeps its suppression window; default: 10",
    )


def run(args: argparse.Namespace) -> None:
    """Tune, write the settings and print the gain."""
    if args.framerate < 1 or not 0 < args.tolerance <= 3600:
        raise InputError(
            f"--framerate {args.framerate}, --tolerance {args.tolerance:g}: give an integer of at least 1, and "
            "seconds above 0 and up to 3600"
        )
    if args.model and len(args.scores) > 1:
        raise InputError(
            "--model takes the scores of one model; write the settings of an ensemble to a file with --output"
        )

    from comedian.evaluation.saved_scores import read_references, read_scores, stride_of_windows
    from comedian.evaluation.soccernet_average_map.soccernet_average_map import MalformedEventError
    from comedian.evaluation.tuning import Choice, Tuner, mergings_to_try
    from comedian.hub.model_card import read_config
    from comedian.inference.score_files import check_weights_of, find_scores, weights_of
    from comedian.inference.settings import write_settings, write_settings_into
    from comedian.inference.spotter import ActionSpotter, merge_configs

    check_outputs([args.output])
    files, config = find_scores(args.scores)
    if args.model:
        merge_configs([read_config(args.model), config], [str(args.model), str(args.scores[0])])
        check_weights_of(files, ActionSpotter.from_pretrained(str(args.model), device="cpu"))
    references, scored = read_references(args.labels_root, files, config.label_names, args.split)
    try:
        tuner = Tuner(
            config,
            references,
            lambda merging: read_scores(scored, merging._asdict()),
            metric=args.metric,
            framerate=args.framerate,
            min_events=args.min_events,
            progress=True,
        )
    except MalformedEventError as error:
        match = list(references)[error.match]
        raise InputError(f"labels of `{match}`, event {error.event + 1}: {error.reason}; fix or remove it") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"--framerate: {error}") from error
    stride = stride_of_windows(scored)
    tuned = tuner.tune(mergings_to_try(config, stride) if stride else [], args.tolerance)
    if args.model:
        before = Choice.of(read_config(args.model))
        write_settings_into(args.model, tuned.settings)
    else:
        write_settings(args.output, tuned.settings, config.label_names, weights_of(scored))
    print(f"{len(references)} matches, average-mAP {args.metric} in percent\n")
    print("\n".join(_lines(tuned, config.label_names)))
    if args.model:
        for path in _outdated(args.model, tuned.choice != before):
            path.unlink()
            print(f"removed {path}, which was made with the previous settings")


def _outdated(folder: Path, finds_others: bool) -> list[Path]:
    """Counts of what a model reported before, and scores and predictions if it finds other candidates now."""
    patterns = ("*_reported.json", *(("*_scores.json", "predictions_*.zip") if finds_others else ()))
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def _lines(tuned, labels: Sequence[str]) -> list[str]:
    """The gain, the settings, a table with one row per label, and the labels with too few events."""
    from comedian.evaluation.calibration import too_few_events

    before, after = 100 * tuned.per_label
    lines = [
        f"before         {before.mean():6.2f}",
        f"best           {100 * tuned.found_map:6.2f}",
        f"best elsewhere {100 * tuned.expected_map:6.2f}   cross-validated over matches: expect this",
    ]
    if tuned.choice == tuned.default:
        lines.append("merging and suppression are unchanged: no change improves the score on other matches")
    merging = tuned.choice.merging
    lines += [
        f"\nmerge {merging.merge} of windows every {merging.window_stride_s:g} s without {merging.edge_trim_s:g} s at "
        f"their edges; {tuned.choice.nms_type} suppression\n"
    ]
    width = max(len("label"), *map(len, labels))
    lines.append(f"{'label':<{width}}  events  window (s)  before   after  threshold")
    rows = zip(labels, tuned.num_events, tuned.choice.nms_windows_s, before, after, tuned.settings["label_thresholds"])
    for label, num_events, window_s, old, new, threshold in rows:
        lines.append(f"{label:<{width}}{num_events:>8}{window_s:>12g}{old:>8.2f}{new:>8.2f}{threshold:>11.3f}")
    if few := too_few_events(labels, tuned.num_events):
        lines.append(f"\n{few}")
    return lines

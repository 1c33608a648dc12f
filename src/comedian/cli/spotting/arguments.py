"""The arguments of `comedian spot`, and the checks that hold for every way of spotting."""

import argparse
from pathlib import Path

from comedian.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `comedian spot`."""
    _add_input(parser.add_argument_group("input"))
    _add_model(parser.add_argument_group("model"))
    _add_output(parser.add_argument_group("output"))
    _add_post_processing(parser.add_argument_group("post-processing"))
    _add_report(parser.add_argument_group("report, for one match"))
    _add_live(parser.add_argument_group("live"))
    _add_hardware(parser.add_argument_group("hardware"))


def _add_input(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "videos", metavar="VIDEO", nargs="*", help="videos, one folder of videos, or one folder of matches"
    )
    group.add_argument(
        "--match", action="store_true", help="the videos are the parts of one match, in order: half 1, half 2, ..."
    )
    group.add_argument(
        "--split",
        metavar="NAME",
        help="for a folder of matches: only the matches of this split, such as test; default: all matches",
    )


def _add_model(group: argparse._ArgumentGroup) -> None:
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--model", nargs="+", metavar="MODEL", help="folder or Hub repository; several are used as an ensemble"
    )
    source.add_argument(
        "--scores",
        nargs="+",
        metavar="FOLDER",
        type=Path,
        help="use the scores that --save-scores wrote, without model or video; several folders are used as an ensemble",
    )
    group.add_argument(
        "--flip",
        action="store_true",
        help="also score the mirror image of each frame, and average the scores: twice the computation",
    )
    group.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the code in the folder of a model whose class is not part of this package",
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="for one match: a .json file, default events.json; for several videos: a folder with one .json file per "
        "video, default events; for a folder of matches: a .zip file with one .json file per match, default results.zip",
    )
    group.add_argument(
        "--csv", metavar="FILE", type=Path, help="for one match: also write the events as CSV; default: no CSV"
    )
    group.add_argument(
        "--save-scores",
        metavar="FOLDER",
        type=Path,
        help="save the raw scores of each half, for --scores and `comedian tune`; default: not saved",
    )
    group.add_argument(
        "--save-windows",
        metavar="SECONDS",
        type=float,
        help="with --save-scores: also save the scores of single windows, with this many seconds from the start of one to "
        "the next, such as 8, for `comedian tune`; default: not saved",
    )
    group.add_argument(
        "--restart",
        action="store_true",
        help="for several videos: spot all of them again if --output contains events of other settings",
    )


def _add_post_processing(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--settings",
        metavar="FILE",
        type=Path,
        help="merging, suppression and thresholds from `comedian tune --output`; default: the model's",
    )
    kept = group.add_mutually_exclusive_group()
    kept.add_argument(
        "--keep-all",
        "--all",
        action="store_true",
        help="write every candidate regardless of its score, as the average-mAP needs them",
    )
    kept.add_argument(
        "--threshold",
        metavar="SCORE",
        type=_threshold,
        help="minimum score for all labels, 0 to 1; or precision=0.9 or recall=0.8: for each label the threshold that "
        "reached it on validation; default: the model's threshold of each label",
    )
    group.add_argument(
        "--nms-type",
        choices=("soft", "hard"),
        help="suppression of lower scores around a higher one: soft reduces them, hard removes them; default: the model's",
    )
    group.add_argument(
        "--nms-window",
        nargs="+",
        metavar="SECONDS",
        help="full width of the suppression window in seconds, such as 10; or LABEL=SECONDS for some labels; default: the "
        "model's",
    )


def _add_report(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        help="write an HTML page that shows the events and the video; default: no page",
    )
    group.add_argument(
        "--report-labels",
        metavar="FILE",
        type=Path,
        help="with --report: a Labels-v2.json; the page then shows hits, misses and false alarms; default: no comparison",
    )
    group.add_argument(
        "--tolerance",
        metavar="SECONDS",
        type=float,
        help="with --report-labels: full width of the window around an annotation in which an event is a hit; default: 5",
    )


def _add_live(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--live", action="store_true", help="read VIDEO as a stream and print events while it plays")
    group.add_argument(
        "--look-ahead",
        metavar="SECONDS",
        type=float,
        help="with --live: video after an event that is scored before the event is printed, in seconds; default: enough "
        "for the same scores as without --live",
    )


def _add_hardware(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", help="such as cpu or cuda:1; default: an accelerator, if there is one")
    group.add_argument(
        "--shard",
        metavar="I/N",
        help="for a folder of matches, with --save-scores: only score share I of N, such as 1/4, for jobs that run "
        "separately; default: all halves",
    )


def _threshold(word: str) -> float | str:
    """Parse a score, or a target such as `precision=0.9`."""
    return word if "=" in word else float(word)


def check_options(args: argparse.Namespace) -> None:
    """Check the options that apply to one match and to several videos.

    Raises:
        InputError: an option without the one that it depends on, or an invalid threshold.
    """
    if args.look_ahead is not None:
        raise InputError("--look-ahead requires --live; add --live, or remove --look-ahead")
    check_threshold(args.threshold)
    if args.save_windows is not None and not args.save_scores:
        raise InputError(f"--save-windows {args.save_windows:g}: requires --save-scores FOLDER; add it")
    if args.save_windows is not None and not 0 < args.save_windows < float("inf"):
        raise InputError(f"--save-windows {args.save_windows:g}: give seconds above 0")


def check_threshold(threshold: float | str | None) -> None:
    """Raise `InputError` for a score outside 0 to 1."""
    if isinstance(threshold, float) and not 0 <= threshold <= 1:
        raise InputError(f"--threshold {threshold}: give a score from 0 to 1")

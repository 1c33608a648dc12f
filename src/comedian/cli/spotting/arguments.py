"""The arguments of `comedian spot`, and the checks that hold for every way of spotting."""

import argparse
from pathlib import Path

from comedian.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words of `comedian spot`."""
    parser.add_argument(
        "videos", metavar="VIDEO", nargs="*", help="videos, one folder of videos, or one folder of matches"
    )
    parser.add_argument(
        "--match", action="store_true", help="the videos are the parts of one match, in order: half 1, half 2, ..."
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--model", nargs="+", metavar="MODEL", help="folder or Hub repository; several are an ensemble"
    )
    source.add_argument(
        "--scores",
        nargs="+",
        metavar="FOLDER",
        type=Path,
        help="use the scores that --save-scores wrote, without model or video; several folders are an ensemble",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="a .json, or a .zip with one a match; of several videos, a folder with a .json each; default: events.json, of "
        "several videos the folder events, of a folder of matches results.zip",
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="of several videos: spot all of them anew where --output holds events of other settings",
    )
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the events as CSV too")
    parser.add_argument("--save-scores", metavar="FOLDER", type=Path, help="keep the raw scores of each half")
    parser.add_argument(
        "--save-windows",
        metavar="SECONDS",
        type=float,
        help="with --save-scores: keep the scores of windows so far apart, too, for `comedian tune`",
    )
    parser.add_argument(
        "--settings",
        metavar="FILE",
        type=Path,
        help="merging, suppression and thresholds from `comedian tune --output`",
    )
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--keep-all", "--all", action="store_true", help="keep every candidate, as the metric wants them"
    )
    kept.add_argument(
        "--threshold",
        metavar="SCORE",
        type=_threshold,
        help="one threshold for all labels, 0 to 1; or precision=0.9 or recall=0.8: each label's threshold that had it "
        "on validation",
    )
    parser.add_argument("--nms-type", choices=("soft", "hard"), help="suppression; default: the model's")
    parser.add_argument(
        "--nms-window",
        nargs="+",
        metavar="SECONDS",
        help="width of the suppression, or LABEL=SECONDS for some labels; default: the model's",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the code in a model's folder, where the model is of a class that is not comedian's",
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="score the mirror image of each frame too and take the mean: twice the work",
    )
    parser.add_argument(
        "--report", metavar="FILE", type=Path, help="write a page (HTML) that shows the events and the video"
    )
    parser.add_argument(
        "--report-labels", metavar="FILE", type=Path, help="a Labels-v2.json: the page tells hits and misses"
    )
    parser.add_argument(
        "--tolerance",
        metavar="SECONDS",
        type=float,
        help="with --report-labels: full width of the window in which an event is a hit; default: 5",
    )
    parser.add_argument("--split", metavar="NAME", help="of a folder: only the matches of this split")
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="of a folder, with --save-scores: only score share I of N, such as 1/4; for jobs that run separately",
    )
    parser.add_argument("--live", action="store_true", help="print events while the video goes on")
    parser.add_argument(
        "--look-ahead",
        metavar="SECONDS",
        type=float,
        help="of --live: print an event once this much more was seen; default: as late as the whole video's scores take",
    )
    parser.add_argument("--device", help="such as cpu or cuda:1; default: an accelerator where there is one")


def _threshold(word: str) -> float | str:
    """A score, or a target such as `precision=0.9`."""
    return word if "=" in word else float(word)


def check_options(args: argparse.Namespace) -> None:
    """Check what does not depend on whether the videos are one match."""
    if args.look_ahead is not None:
        raise InputError("--look-ahead is of --live; add --live or leave it out")
    check_threshold(args.threshold)
    if args.save_windows is not None and not args.save_scores:
        raise InputError(f"--save-windows {args.save_windows:g}: say with --save-scores FOLDER where to keep them")


def check_threshold(threshold: float | str | None) -> None:
    """Raise `InputError` for a score outside 0 to 1."""
    if isinstance(threshold, float) and not 0 <= threshold <= 1:
        raise InputError(f"--threshold {threshold}: give a score from 0 to 1")

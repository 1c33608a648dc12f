"""Decode the videos of a data set once into a frame store: one compact random-access file per half.

Rerun the same command after an interruption, or after videos were added or changed. Several processes with the same command,
on one machine or many with a shared file system, share the work; `accelerate launch` starts them. Exit code: 1 if --skip-bad
omitted a video.
"""

import argparse
import sys
from pathlib import Path

EXAMPLE = "comedian prepare data/SoccerNet frames --fps 2 --height 224 --split train valid"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "root", metavar="ROOT", help="folder of the data set: one folder per match, one video per half"
    )
    parser.add_argument("store", metavar="STORE", help="folder of the frame store; created if missing")
    selection = parser.add_argument_group("selection")
    selection.add_argument(
        "--split", nargs="+", metavar="NAME", help="only the matches of these splits; default: all matches"
    )
    selection.add_argument(
        "--skip-bad",
        action="store_true",
        help="omit videos that cannot be decoded, and print their names; default: stop at the first one",
    )
    frames = parser.add_argument_group("frames")
    frames.add_argument("--fps", metavar="FPS", type=float, default=2.0, help="frames per second; default: 2")
    frames.add_argument(
        "--height", metavar="PIXELS", type=int, default=224, help="frame height in pixels; default: 224"
    )
    frames.add_argument(
        "--width", metavar="PIXELS", type=int, help="frame width in pixels; default: keeps the aspect ratio"
    )
    frames.add_argument(
        "--quality",
        metavar="CRF",
        type=int,
        default=30,
        help="constant rate factor of x264, 0 to 51; lower is better and larger; default: 30",
    )
    frames.add_argument(
        "--sound",
        action="store_true",
        help="also store spectrograms of the audio tracks, for models with an audio branch",
    )
    hardware = parser.add_argument_group("hardware")
    hardware.add_argument("--workers", metavar="N", type=int, help="decoding processes; default: one per core")
    hardware.add_argument(
        "--shard",
        metavar="I/N",
        help="only share I of N of the halves, such as 1/4, for jobs that run separately; default: all halves",
    )


def run(args: argparse.Namespace) -> int:
    """Prepare the store and print a summary.

    Returns:
        The exit code: 1 if a video is bad.
    """
    from comedian.sharing import Shard, is_main_process
    from comedian.soccernet.prepare import prepare
    from comedian.soccernet.splits import matches_of_splits
    from comedian.video.frame_store import StoreSettings

    report = prepare(
        args.root,
        args.store,
        StoreSettings(args.fps, args.height, args.width, args.quality),
        video_ids=matches_of_splits(Path(args.root), args.split),
        shard=Shard.parse(args.shard) if args.shard else None,
        sound=args.sound,
        workers=args.workers,
        skip_bad=args.skip_bad,
    )
    for line in report.damaged:
        print(f"damaged, kept: {line}", file=sys.stderr)
    if not is_main_process():
        # the main process prints the same bad videos
        return 0
    for line in report.bad:
        print(f"bad, omitted: {line}", file=sys.stderr)
    elsewhere = f"{len(report.elsewhere)} done by other processes, " if report.elsewhere else ""
    print(
        f"halves: {len(report.done)} done, {elsewhere}{len(report.skipped)} there already, {len(report.bad)} bad; "
        f"{report.size_bytes / 1e6:.1f} MB written, {report.times_real_time:.0f}x real time"
    )
    if args.sound:
        print(f"halves without an audio track: {len(report.silent)}")
    return 1 if report.bad else 0

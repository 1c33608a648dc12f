"""Decode the videos of a data set once into a frame store: one compact random-access file a half.

Run it again to resume after an interruption, or after videos were added or changed. Several processes with the same
command, on one machine or many with a shared file system, share the work; `accelerate launch` starts them. Exit code 1 when
--skip-bad omitted a video.
"""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("root", metavar="ROOT", help="the data set's folder: one folder a match, one video a half")
    parser.add_argument("store", metavar="STORE", help="the frame store's folder; made when missing")
    parser.add_argument("--fps", type=float, default=2.0, help="frames a second (default: 2)")
    parser.add_argument("--height", type=int, default=224, help="frame height in pixels (default: 224)")
    parser.add_argument("--width", type=int, help="frame width in pixels (default: what keeps the aspect)")
    parser.add_argument(
        "--quality", type=int, default=30, help="x264's constant rate factor, lower is better (default: 30)"
    )
    parser.add_argument(
        "--sound", action="store_true", help="keep the audio tracks' spectrograms too, for models that hear"
    )
    parser.add_argument("--split", nargs="+", metavar="NAME", help="only the matches of these splits")
    parser.add_argument("--shard", metavar="I/N", help="only share I of N, such as 1/4; for jobs that run separately")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out videos that cannot be decoded and name them"
    )


def run(args: argparse.Namespace) -> int:
    """Prepare the store and print what was done."""
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
        # the main process has found the same bad videos
        return 0
    for line in report.bad:
        print(f"bad, left out: {line}", file=sys.stderr)
    elsewhere = f"{len(report.elsewhere)} done by other processes, " if report.elsewhere else ""
    print(
        f"halves: {len(report.done)} done, {elsewhere}{len(report.skipped)} there already, {len(report.bad)} bad; "
        f"{report.size_bytes / 1e6:.1f} MB written, {report.times_real_time:.0f}x real time"
    )
    if args.sound:
        print(f"halves without an audio track: {len(report.silent)}")
    return 1 if report.bad else 0

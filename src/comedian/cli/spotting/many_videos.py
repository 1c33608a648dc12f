"""`comedian spot` on several videos, each on its own: a folder with one file of events per video."""

import argparse
import sys
from pathlib import Path

from comedian.cli.spotting.arguments import check_options
from comedian.cli.spotting.models import load_models, print_quality, print_unreachable, with_suppression
from comedian.errors import InputError, printable
from comedian.files import make_folder


def spot_separately(args: argparse.Namespace, videos: dict[str, Path]) -> None:
    """Spot each video on its own, and print one line per video.

    Args:
        args: the command-line arguments.
        videos: name -> video.

    Raises:
        InputError: an invalid option, or a video that cannot be spotted; raised after the others are spotted.
    """
    output = args.output or Path("events")
    _check_many(args, len(videos), output)

    from comedian.inference.many_videos import ManyVideos, check_folder, spot_videos

    check_folder(output)
    spotter = load_models(args)
    print_unreachable(args.threshold, spotter.config)
    config = with_suppression(spotter.config, args.nms_type, args.nms_window)
    run = ManyVideos(videos, output, args.keep_all, args.threshold, args.save_scores, args.save_windows)
    spotted = spot_videos(run, spotter, config, args.restart)
    print_quality(args, config)
    kept = f", {spotted.num_kept} of them from an earlier run" if spotted.num_kept else ""
    print(f"{output}: {spotted.num_found} events in {len(spotted.files)} videos{kept}", file=sys.stderr)
    for name, reason in spotted.failed.items():
        print(f"{printable(name)} is omitted: {reason}", file=sys.stderr)
    if spotted.failed:
        raise InputError(
            f"{len(spotted.failed)} of {len(videos)} videos could not be spotted, see above; the events of the others "
            f"are in `{output}`"
        )


def _check_many(args: argparse.Namespace, count: int, output: Path) -> None:
    """Raise `InputError` before any work for options that do not apply to several videos."""
    parts = "add --match if they are the parts of one match"
    for option in ("csv", "report", "report_labels", "tolerance"):
        if getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise InputError(f"--{name} applies to one match, and the {count} videos are spotted one by one; {parts}")
    if output.suffix in (".json", ".zip"):
        raise InputError(
            f"--output {output}: each of the {count} videos has its own file of events; give a folder, or {parts}"
        )
    check_options(args)
    if args.split:
        raise InputError(f"--split {args.split}: only a folder of matches has splits; remove --split")
    from comedian.sharing import num_launched

    if args.shard or num_launched() > 1:
        raise InputError(
            f"the {count} videos are spotted one by one, by one process; remove --shard and `accelerate launch`, or give "
            "a folder of matches"
        )
    for folder in filter(None, (output, args.save_scores)):
        make_folder(folder)

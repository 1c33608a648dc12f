"""`comedian spot` on several videos, each on its own: a folder with one file of events per video."""

import argparse
import sys
from pathlib import Path

from comedian.cli.spotting.arguments import check_options
from comedian.cli.spotting.models import load_models, print_quality, print_unreachable, with_suppression
from comedian.errors import InputError, printable
from comedian.files import make_folder


def spot_separately(args: argparse.Namespace, videos: dict[str, Path]) -> None:
    """Spot each video on its own, and say in a line what came of each."""
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
    kept = f", {spotted.num_kept} of them spotted before" if spotted.num_kept else ""
    print(f"{output}: {spotted.num_found} events in {len(spotted.files)} videos{kept}", file=sys.stderr)
    for name, reason in spotted.failed.items():
        print(f"{printable(name)} was left out: {reason}", file=sys.stderr)
    if spotted.failed:
        raise InputError(
            f"{len(spotted.failed)} of {len(videos)} videos could not be spotted, see above; the events of the others "
            f"are in `{output}`"
        )


def _check_many(args: argparse.Namespace, count: int, output: Path) -> None:
    """Refuse at once what would otherwise fail after the work."""
    parts = "add --match if they are the parts of one match"
    for option in ("csv", "report", "report_labels", "tolerance"):
        if getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise InputError(f"--{name} is of one match, and the {count} videos are spotted one by one; {parts}")
    if output.suffix in (".json", ".zip"):
        raise InputError(f"--output {output}: {count} videos have a file of events each; give a folder, or {parts}")
    check_options(args)
    if args.split:
        raise InputError(f"--split {args.split}: only a folder of matches has splits")
    from comedian.sharing import num_launched

    if args.shard or num_launched() > 1:
        raise InputError(
            f"the {count} videos are spotted one by one, by one process; leave out --shard and `accelerate launch`, or give "
            "a folder of matches"
        )
    for folder in filter(None, (output, args.save_scores)):
        make_folder(folder)

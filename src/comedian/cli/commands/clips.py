"""Cut clips around events out of videos.

EVENTS is the output of `comedian spot`; VIDEO is the video, or the halves of the match, in order or with SoccerNet's names.
Packets are copied without encoding if a key frame is at most one second before the start of the clip; an edit list hides the
earlier frames. Otherwise, and with --exact, the clip is encoded. Rerun the same command after an interruption.
"""

import argparse
from pathlib import Path

from comedian.errors import InputError
from comedian.files import check_outputs

EXAMPLE = (
    "comedian clips events.json match.mp4 --labels Goal Penalty --before 8 --after 4 --output clips --reel goals.mp4"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `comedian clips`."""
    parser.add_argument("events", metavar="EVENTS", type=Path, help="a results_spotting.json, such as events.json")
    parser.add_argument("videos", metavar="VIDEO", nargs="+", type=Path, help="videos, as given to `comedian spot`")
    selection = parser.add_argument_group("selection of events")
    selection.add_argument("--labels", nargs="+", metavar="LABEL", help="only these labels; default: all labels")
    selection.add_argument(
        "--min-score", metavar="SCORE", type=float, default=0.0, help="minimum score of an event, 0 to 1; default: 0"
    )
    length = parser.add_argument_group("length of a clip")
    length.add_argument(
        "--before", metavar="SECONDS", type=float, default=5.0, help="seconds before the event; default: 5"
    )
    length.add_argument(
        "--after", metavar="SECONDS", type=float, default=5.0, help="seconds after the event; default: 5"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="folder of the clips")
    output.add_argument(
        "--reel",
        metavar="FILE",
        type=Path,
        help="also write one .mp4 of all clips, overlapping ones merged; default: none",
    )
    output.add_argument(
        "--exact", action="store_true", help="encode every clip, for players that do not support edit lists"
    )


def run(args: argparse.Namespace) -> None:
    """Choose the events, cut the clips and print a summary."""
    if not (0 <= args.before < float("inf") and 0 <= args.after < float("inf") and args.before + args.after > 0):
        raise InputError(f"--before {args.before:g} --after {args.after:g}: give seconds, 0 or more, not both 0")
    if args.reel and args.reel.suffix != ".mp4":
        raise InputError(f"--reel {args.reel}: give a name that ends in .mp4")

    from tqdm import tqdm

    from comedian.soccernet.annotations import read_results
    from comedian.soccernet.layout import match_of_videos
    from comedian.video.clips import clip_names, segment_of, write_clips, write_reel

    spots = sorted(read_results(args.events), key=lambda spot: (spot["half"], spot["timestamp_s"]))
    if unknown := set(args.labels or ()) - {spot["label"] for spot in spots}:
        known = ", ".join(sorted({spot["label"] for spot in spots}))
        raise InputError(f"--labels: `{args.events}` has no {sorted(unknown)[0]!r}; it has {known}")
    halves = match_of_videos(args.videos)[1]
    # named before the choice, so that an event's clip has one name
    segments = {
        name: segment_of(spot, halves, args.before, args.after)
        for name, spot in zip(clip_names(spots), spots, strict=True)
        if spot["score"] >= args.min_score and (not args.labels or spot["label"] in args.labels)
    }
    if not segments:
        raise InputError(f"`{args.events}` contains no such event; lower --min-score, or remove --labels")
    check_outputs([args.reel], [args.events, *args.videos, *(args.output / name for name in segments)])
    record = write_clips(
        args.output, segments, exact=args.exact, progress=lambda names: tqdm(names, "clips", unit="clip")
    )
    print(f"{args.output}: {len(record)} clips")
    if args.reel:
        parts = write_reel(args.reel, list(segments.values()), exact=args.exact)
        print(f"{args.reel}: {sum(part.end_s - part.begin_s for part in parts):.0f} s in {len(parts)} pieces")

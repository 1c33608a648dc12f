"""Cut clips around events out of the videos.

EVENTS is what `comedian spot` wrote; VIDEO is the video, or the halves of the match in order. Packets are copied where a key
frame lies within a second before the begin (an edit list hides what is too early); otherwise, and with --exact, the clip is
encoded again. Rerun the same command to resume after an interruption.
"""

import argparse
from pathlib import Path

from comedian.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words of `comedian clips`."""
    parser.add_argument("events", metavar="EVENTS", type=Path, help="a results_spotting.json, such as events.json")
    parser.add_argument("videos", metavar="VIDEO", nargs="+", type=Path, help="videos (half 1, half 2, ...)")
    parser.add_argument("--before", metavar="SECONDS", type=float, default=5.0, help="before the event; default: 5")
    parser.add_argument("--after", metavar="SECONDS", type=float, default=5.0, help="after the event; default: 5")
    parser.add_argument("--labels", nargs="+", metavar="LABEL", help="only events of these labels")
    parser.add_argument("--min-score", metavar="SCORE", type=float, default=0.0, help="only events from this score on")
    parser.add_argument(
        "--exact", action="store_true", help="encode every clip again, for players that do not follow edit lists"
    )
    parser.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="where the clips go")
    parser.add_argument("--reel", metavar="FILE", type=Path, help="one .mp4 with all clips, overlapping ones merged")


def run(args: argparse.Namespace) -> None:
    """Choose the events, cut, and say what came of it."""
    if not (0 <= args.before < float("inf") and 0 <= args.after < float("inf") and args.before + args.after > 0):
        raise InputError(f"--before {args.before:g} --after {args.after:g}: give seconds, 0 or more, not both 0")
    if args.reel and args.reel.suffix != ".mp4":
        raise InputError(f"--reel {args.reel}: give a name that ends in .mp4")
    for path, is_right in ((args.output, args.output.is_dir()), (args.reel, args.reel and not args.reel.is_dir())):
        if path and path.exists() and not is_right:
            raise InputError(f"`{path}` is {'a folder' if path.is_dir() else 'a file'}; give another name")

    from tqdm import tqdm

    from comedian.soccernet.annotations import read_results
    from comedian.video.clips import clip_names, segment_of, write_clips, write_reel

    spots = sorted(read_results(args.events), key=lambda spot: (spot["half"], spot["timestamp_s"]))
    if unknown := set(args.labels or ()) - {spot["label"] for spot in spots}:
        known = ", ".join(sorted({spot["label"] for spot in spots}))
        raise InputError(f"--labels: `{args.events}` has no {sorted(unknown)[0]!r}; it has {known}")
    # named before the choice, so that an event's clip has one name
    segments = {
        name: segment_of(spot, args.videos, args.before, args.after)
        for name, spot in zip(clip_names(spots), spots, strict=True)
        if spot["score"] >= args.min_score and (not args.labels or spot["label"] in args.labels)
    }
    if not segments:
        raise InputError(f"`{args.events}` holds no such event; lower --min-score or leave out --labels")
    record = write_clips(
        args.output, segments, exact=args.exact, progress=lambda names: tqdm(names, "clips", unit="clip")
    )
    print(f"{args.output}: {len(record)} clips")
    if args.reel:
        parts = write_reel(args.reel, list(segments.values()), exact=args.exact)
        print(f"{args.reel}: {sum(part.end_s - part.begin_s for part in parts):.0f} s in {len(parts)} pieces")

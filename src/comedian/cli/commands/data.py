"""Check a data set, convert files of events between formats, or lay out own videos for training.

Formats: `csv` and `json` are this package's own, `soccernet` (Labels-v2.json), `soccernet-ball` (Labels-ball.json),
`e2e-spot` (tennis, FineDiving, figure skating, FineGym) and `osl` (OpenSportsLab) those of others.
`comedian data COMMAND --help` tells more.
"""

import argparse
import sys

FORMATS = ("csv", "json", "soccernet", "soccernet-ball", "e2e-spot", "osl")
# findings of a kind that are printed
MAX_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands and their arguments."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="tell what is wrong with a data set",
        description="Tell in plain words what is wrong with a data set. Exit code 0 for nothing, 1 for something.",
        allow_abbrev=False,
    )
    check.add_argument("root", metavar="ROOT", help="folder in SoccerNet's layout, or of the videos of --events")
    check.add_argument("--events", metavar="FILE", help="file of events of the videos in ROOT")
    check.add_argument("--from", dest="source", choices=FORMATS, help="the format of FILE (default: by what it holds)")
    check.add_argument("--fps", type=float, help="frames a second, where events in frames say none")
    check.add_argument("--labels", metavar="FILE", help="one label a line (default: ROOT/labels.txt, if it is there)")
    check.add_argument("--splits", default="auto", help="where the splits come from: a JSON file, by default found")
    check.add_argument("--output", metavar="FILE", help="all findings as JSON")
    check.set_defaults(handler=check_data)

    convert = commands.add_parser(
        "convert",
        help="turn a file of events into one of another format",
        description="Turn a file or folder of events into one of another format, and say what that has no place for.",
        allow_abbrev=False,
    )
    convert.add_argument("input", metavar="IN", help="file, or folder of matches or of a file a split")
    convert.add_argument("output", metavar="OUT", help="file, or folder for the formats of SoccerNet and of E2E-Spot")
    convert.add_argument("--from", dest="source", choices=FORMATS, help="the format of IN (default: by what it holds)")
    convert.add_argument("--to", choices=FORMATS, help="the format of OUT (default: csv for a name that ends so)")
    convert.add_argument(
        "--videos",
        metavar="DIR",
        help="folder of the videos, for rates and lengths (default: IN, for SoccerNet's folder)",
    )
    convert.add_argument(
        "--fps",
        type=float,
        help="frames a second that events in frames count; needed to read FineDiving, which says none",
    )
    convert.add_argument("--labels", nargs="+", metavar="LABEL", help="only the events of these")
    convert.set_defaults(handler=convert_events)

    import_ = commands.add_parser(
        "import",
        help="lay out own videos and their events as SoccerNet does",
        description="Lay out a folder of videos and a file of their events as SoccerNet does; the videos are linked.",
        allow_abbrev=False,
    )
    import_.add_argument("videos", metavar="VIDEOS", help="folder of videos")
    import_.add_argument("events", metavar="EVENTS", help="their events, such as a CSV with video,label,time_s")
    import_.add_argument("output", metavar="OUT", help="folder to write")
    import_.add_argument(
        "--from", dest="source", choices=FORMATS, help="the format of EVENTS (default: by what it holds)"
    )
    import_.add_argument("--fps", type=float, help="frames a second, where events in frames say none")
    import_.add_argument(
        "--validation-share",
        type=float,
        default=0.2,
        help="of the matches, where EVENTS tells no split (default: 0.2)",
    )
    import_.add_argument("--seed", type=int, default=0, help="chooses which ones (default: 0)")
    import_.set_defaults(handler=import_own_videos)


def run(args: argparse.Namespace) -> int | None:
    """Run the sub-command."""
    return args.handler(args)


def check_data(args: argparse.Namespace) -> int:
    """Print the findings, a few of each kind, and how many there are."""
    import json
    from dataclasses import asdict

    from comedian.errors import InputError
    from comedian.events.check import check_events, check_layout
    from comedian.files import atomic_write_text

    if args.events and args.splits != "auto":
        raise InputError("`--splits` does not go with `--events`; a file of events tells its splits itself")
    if not args.events and (args.source or args.fps):
        raise InputError("`--from` and `--fps` are of a file of events; give it with `--events FILE`")
    if args.events:
        checked = check_events(args.root, args.events, labels=args.labels, name=args.source, fps=args.fps)
    else:
        checked = check_layout(args.root, labels=args.labels, splits=args.splits)
    kinds: dict[str, list[str]] = {}
    for finding in checked.findings:
        kinds.setdefault(finding.kind, []).append(finding.message)
    for kind, messages in kinds.items():
        for message in messages[:MAX_SHOWN]:
            print(f"{kind}: {message}")
        if len(messages) > MAX_SHOWN:
            print(f"{kind}: {len(messages) - MAX_SHOWN} more; `--output FILE` writes all")
    if args.output:
        content = {"num_videos": checked.num_videos, "num_events": checked.num_events}
        content["findings"] = [asdict(finding) for finding in checked.findings]
        atomic_write_text(args.output, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    counts = ", ".join(f"{len(messages)} {kind}" for kind, messages in kinds.items()) or "nothing to mend"
    print(f"{checked.num_videos} videos, {checked.num_events} events: {counts}")
    return 1 if checked.findings else 0


def convert_events(args: argparse.Namespace) -> None:
    """Write the events in the other format and print what was written and what was not."""
    from pathlib import Path

    from comedian.errors import InputError
    from comedian.events.events import keep_labels
    from comedian.events.formats import detect_format, lost_fields, measure, read_events, write_events

    to = args.to or ("csv" if args.output.lower().endswith(".csv") else None)
    if to is None:
        raise InputError(f"`--to` is missing; the name `{args.output}` does not tell the format")
    if args.fps is not None and not args.fps > 0:
        raise InputError(f"`--fps` is {args.fps:g}; give a number above 0")
    source = args.source or detect_format(args.input)
    events = read_events(args.input, source, fps=args.fps)
    if args.labels:
        events = keep_labels(events, args.labels)
    is_folder_of_matches = source.startswith("soccernet") and Path(args.input).is_dir()
    videos = args.videos or (args.input if is_folder_of_matches else None)
    if to in ("json", "e2e-spot", "osl"):
        events = measure(events, videos, args.fps)
    lost = lost_fields(events, to, one_file=args.output.endswith(".json"))
    write_events(events, args.output, to, videos)
    count = sum(len(video.events) for video in events.videos)
    print(f"{args.output}: {len(events.videos)} videos or parts, {count} events, {len(events.labels)} labels")
    if lost:
        print(f"left out, as {to} has no place for it: {', '.join(lost)}", file=sys.stderr)


def import_own_videos(args: argparse.Namespace) -> None:
    """Lay the videos out and print the events of each split."""
    from comedian.events.own_videos import import_videos

    data = import_videos(
        args.videos,
        args.events,
        args.output,
        validation_share=args.validation_share,
        seed=args.seed,
        name=args.source,
        fps=args.fps,
    )
    print("\n".join(data.table()))

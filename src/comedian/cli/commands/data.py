"""Check a data set, convert files of events between formats, or lay out own videos for training.

Formats: `csv` and `json` are this package's own. Of data sets: `soccernet` (Labels-v2.json), `soccernet-ball`
(Labels-ball.json), `e2e-spot` (tennis, FineDiving, figure skating, FineGym), `osl` (OpenSportsLab). Of other tools: `elan`,
`sportscode` (Hudl, Nacsport, LongoMatch), `longomatch` (its CSV, read only), `via`, `cvat`, `label-studio`, `edl` (DaVinci
Resolve), `premiere`, `youtube` (chapters). What `comedian spot` writes is read, too.

  comedian data convert friday.xml friday.csv --lead 5
  comedian data convert events.json friday.eaf --to elan --min-score 0.5
"""

import argparse
import sys

# those of `comedian.events.formats`, which takes long to import
FORMATS = ("csv", "json", "soccernet", "soccernet-ball", "e2e-spot", "osl", "elan", "sportscode", "via", "cvat")
FORMATS += ("label-studio", "edl", "premiere", "youtube")
READ_FORMATS = (*FORMATS, "longomatch")
# endings that only one format has
FORMAT_OF_SUFFIX = {".csv": "csv", ".eaf": "elan", ".edl": "edl"}
# what the videos tell
MEASURED = ("fps", "duration_s")
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
    _add_reading(check, "FILE", "frames a second, where events in frames say none")
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
    convert.add_argument(
        "output",
        metavar="OUT",
        help="file; or folder, for the formats of SoccerNet and of E2E-Spot, and for several videos in formats of one",
    )
    convert.add_argument(
        "--to", choices=FORMATS, help="the format of OUT (default: csv, elan, edl for names that end so)"
    )
    _add_reading(convert, "IN", "frames a second that events in frames count, where files say none")
    convert.add_argument(
        "--videos",
        metavar="DIR",
        help="folder of the videos, for rates and lengths (default: IN, for SoccerNet's folder)",
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
    _add_reading(import_, "EVENTS", "frames a second, where events in frames say none")
    import_.add_argument(
        "--validation-share",
        type=float,
        default=0.2,
        help="of the matches, where EVENTS tells no split (default: 0.2)",
    )
    import_.add_argument("--seed", type=int, default=0, help="chooses which ones (default: 0)")
    import_.set_defaults(handler=import_own_videos)


def _add_reading(parser: argparse.ArgumentParser, file: str, fps: str) -> None:
    """Declare how a file of events is read."""
    reading = parser.add_argument_group(f"reading {file}")
    reading.add_argument(
        "--from", dest="source", choices=READ_FORMATS, help=f"the format of {file} (default: by what it holds)"
    )
    reading.add_argument("--fps", type=float, help=fps)
    reading.add_argument(
        "--min-score",
        metavar="SCORE",
        type=float,
        help="leave out predictions with a lower score, such as 0.5 (default: take all)",
    )
    reading.add_argument(
        "--video",
        metavar="NAME",
        help=f"the video of {file}, relative to the videos' folder (default: what {file} says, or its own name)",
    )
    reading.add_argument(
        "--lead",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="from the start of a clip to its event, where events are clips (default: 0, the clip's start)",
    )
    reading.add_argument(
        "--start-timecode",
        metavar="HH:MM:SS:FF",
        default="00:00:00:00",
        help="of the video's first frame, in edl and premiere, read or written (default: 00:00:00:00; DaVinci Resolve's "
        "timelines begin at 01:00:00:00)",
    )


def _options(args: argparse.Namespace):
    """Return what the file of events does not say."""
    from comedian.errors import InputError
    from comedian.events.formats import ReadOptions

    if args.fps is not None and not args.fps > 0:
        raise InputError(f"`--fps` is {args.fps:g}; give a number above 0")
    if not 0 <= args.lead < 3600:
        raise InputError(f"`--lead` is {args.lead:g}; give seconds from 0 to an hour")
    return ReadOptions(args.video, args.lead, args.start_timecode)


def run(args: argparse.Namespace) -> int | None:
    """Run the sub-command."""
    return args.handler(args)


def check_data(args: argparse.Namespace) -> int:
    """Print the findings, a few of each kind, and how many there are."""
    import json
    from dataclasses import asdict

    from comedian.errors import InputError
    from comedian.events.check import check_events, check_layout
    from comedian.events.formats import ReadOptions
    from comedian.files import atomic_write_text

    if args.events and args.splits != "auto":
        raise InputError("`--splits` does not go with `--events`; a file of events tells its splits itself")
    options = _options(args)
    if not args.events and (args.source or args.fps or args.min_score or options != ReadOptions()):
        raise InputError("`--from`, `--fps` and the like are of a file of events; give it with `--events FILE`")
    if args.events:
        reading = {"name": args.source, "fps": args.fps, "options": options, "min_score": args.min_score}
        checked = check_events(args.root, args.events, labels=args.labels, **reading)
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
    for note in checked.notes:
        print(note)
    counts = ", ".join(f"{len(messages)} {kind}" for kind, messages in kinds.items()) or "nothing to mend"
    print(f"{checked.num_videos} videos, {checked.num_events} events: {counts}")
    return 1 if checked.findings else 0


def convert_events(args: argparse.Namespace) -> None:
    """Write the events in the other format and print what was written and what was not."""
    from pathlib import Path

    from comedian.errors import InputError
    from comedian.events.events import keep_labels, keep_scores, score_note
    from comedian.events.formats import BY_FRAME, detect_format, lost_fields, measure, read_events, write_events

    to = args.to or FORMAT_OF_SUFFIX.get(Path(args.output).suffix.lower())
    if to is None:
        raise InputError(f"`--to` is missing; the name `{args.output}` does not tell the format")
    options = _options(args)
    source = args.source or detect_format(args.input)
    events = read_events(args.input, source, fps=args.fps, options=options)
    note = args.min_score is not None and score_note(events, args.min_score)
    if note:
        events = keep_scores(events, args.min_score)
    if args.labels:
        events = keep_labels(events, args.labels)
    is_folder_of_matches = source.startswith("soccernet") and Path(args.input).is_dir()
    videos = args.videos or (args.input if is_folder_of_matches else None)
    known = lost_fields(events, to, args.output)
    if args.videos or to in ("json", "osl", *BY_FRAME):
        events = measure(events, videos, args.fps)
    # what was measured, and not read, is no loss
    lost = [what for what in lost_fields(events, to, args.output) if what in known or what not in MEASURED]
    write_events(events, args.output, to, videos, args.start_timecode)
    count = sum(len(video.events) for video in events.videos)
    print(f"{args.output}: {len(events.videos)} videos or parts, {count} events, {len(events.labels)} labels")
    if note:
        print(note, file=sys.stderr)
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
        options=_options(args),
        min_score=args.min_score,
    )
    print("\n".join(data.table()))

"""Check a data set, convert files of events between formats, or lay out your videos for training.

Formats: `csv` and `json` are the formats of this package. Data sets: `soccernet` (Labels-v2.json), `soccernet-ball`
(Labels-ball.json), `e2e-spot` (tennis, FineDiving, figure skating, FineGym), `osl` (OpenSportsLab). Other tools: `elan`,
`sportscode` (Hudl, Nacsport, LongoMatch), `longomatch` (its CSV, read only), `via`, `cvat`, `label-studio`, `edl` (DaVinci
Resolve), `premiere`, `youtube` (chapters). The output of `comedian spot` can be read, too.
"""

import argparse
import sys
from typing import Any

from comedian.cli.examples import example_epilog

EXAMPLE = """\
comedian data check VIDEOS --events events.csv
comedian data convert friday.xml friday.csv --lead 5
comedian data import VIDEOS events.csv MATCHES"""
# a copy of the names in `comedian.events.formats`, which takes long to import
FORMATS = (
    *("csv", "json", "soccernet", "soccernet-ball", "e2e-spot", "osl", "elan", "sportscode", "via", "cvat"),
    *("label-studio", "edl", "premiere", "youtube"),
)
READ_FORMATS = (*FORMATS, "longomatch")
# file extensions that belong to only one format
FORMAT_OF_SUFFIX = {".csv": "csv", ".eaf": "elan", ".edl": "edl"}
# fields that are measured on the videos
MEASURED = ("fps", "duration_s")
# maximum number of findings printed per kind
MAX_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands and their arguments."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_check(commands)
    _add_convert(commands)
    _add_import(commands)


def _add_check(commands: Any) -> None:
    check = commands.add_parser(
        "check",
        help="find problems in a data set",
        description="Find and describe problems in a data set. Exit code: 0 without findings, 1 with findings.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=example_epilog("comedian data check VIDEOS --events events.csv"),
        allow_abbrev=False,
    )
    check.add_argument(
        "root", metavar="ROOT", help="folder in SoccerNet's layout, or folder of the videos of --events"
    )
    data = check.add_argument_group("data set")
    data.add_argument(
        "--events", metavar="FILE", help="file of events of the videos in ROOT; default: the label files in ROOT"
    )
    data.add_argument(
        "--labels", metavar="FILE", help="allowed labels, one per line; default: ROOT/labels.txt, if it exists"
    )
    data.add_argument(
        "--splits",
        metavar="FILE",
        default="auto",
        help="JSON file with the splits; default: auto, found as for training",
    )
    check.add_argument_group("output").add_argument(
        "--output", metavar="FILE", help="write all findings as JSON; default: print only"
    )
    _add_reading(check, "FILE")
    check.set_defaults(handler=check_data)


def _add_convert(commands: Any) -> None:
    convert = commands.add_parser(
        "convert",
        help="convert a file of events into another format",
        description="Convert a file or folder of events into another format, and list the fields that the new format\n"
        "cannot store.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=example_epilog(
            "comedian data convert friday.xml friday.csv --lead 5\n"
            "comedian data convert events.json friday.eaf --to elan --min-score 0.5"
        ),
        allow_abbrev=False,
    )
    convert.add_argument("input", metavar="IN", help="file; or folder of matches, or of one file per split")
    convert.add_argument(
        "output",
        metavar="OUT",
        help="file; or folder, for the formats of SoccerNet and E2E-Spot, and for several videos in a format with "
        "one video per file",
    )
    output = convert.add_argument_group("output")
    output.add_argument(
        "--to", choices=FORMATS, help="format of OUT; default: csv, elan or edl, by the extension of OUT"
    )
    output.add_argument(
        "--labels", nargs="+", metavar="LABEL", help="keep only the events with these labels; default: all"
    )
    output.add_argument(
        "--videos",
        metavar="DIR",
        help="folder of the videos, to read frame rates and durations; default: IN, if it is a SoccerNet folder",
    )
    _add_reading(convert, "IN")
    convert.set_defaults(handler=convert_events)


def _add_import(commands: Any) -> None:
    import_ = commands.add_parser(
        "import",
        help="arrange your videos and their events in SoccerNet's layout",
        description="Arrange a folder of videos and a file of their events in SoccerNet's layout; the videos are linked,\n"
        "not copied.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=example_epilog("comedian data import VIDEOS events.csv MATCHES"),
        allow_abbrev=False,
    )
    import_.add_argument("videos", metavar="VIDEOS", help="folder of videos")
    import_.add_argument("events", metavar="EVENTS", help="their events, such as a CSV with video,label,time_s")
    import_.add_argument("output", metavar="OUT", help="output folder")
    splits = import_.add_argument_group("splits")
    splits.add_argument(
        "--validation-share",
        metavar="SHARE",
        type=float,
        default=0.2,
        help="share of the matches for validation, 0 to 1, if EVENTS has no splits; default: 0.2",
    )
    splits.add_argument(
        "--seed", metavar="N", type=int, default=0, help="random seed of the choice of validation matches; default: 0"
    )
    _add_reading(import_, "EVENTS")
    import_.set_defaults(handler=import_own_videos)


def _add_reading(parser: argparse.ArgumentParser, file: str) -> None:
    """Add the options for reading a file of events."""
    reading = parser.add_argument_group(f"reading {file}")
    reading.add_argument(
        "--from", dest="source", choices=READ_FORMATS, help=f"format of {file}; default: detected from its content"
    )
    reading.add_argument(
        "--fps",
        metavar="FPS",
        type=float,
        help="frames per second, such as 25, for reading and writing events in frames; required if neither the file nor a "
        "video has them; default: the rate in the file",
    )
    reading.add_argument(
        "--min-score",
        metavar="SCORE",
        type=float,
        help="skip predictions with a lower score, such as 0.5; default: keep all",
    )
    reading.add_argument(
        "--video",
        metavar="NAME",
        help=f"video of {file}, relative to the folder of the videos; default: the name in {file}, or its file name",
    )
    reading.add_argument(
        "--lead",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="seconds from the start of a clip to its event, if events are clips, such as 5; default: 0",
    )
    reading.add_argument(
        "--start-timecode",
        metavar="HH:MM:SS:FF",
        default="00:00:00:00",
        help="timecode of the first frame of the video, for reading and writing edl and premiere, such as 01:00:00:00 for "
        "DaVinci Resolve; default: 00:00:00:00",
    )


def _options(args: argparse.Namespace):
    """Return the options for reading the file of events."""
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
    """Print up to `MAX_SHOWN` findings of each kind and their counts."""
    import json
    from dataclasses import asdict

    from comedian.errors import InputError
    from comedian.events.check import check_events, check_layout
    from comedian.events.formats import ReadOptions
    from comedian.files import atomic_write_text, check_outputs

    check_outputs([args.output], [args.events])
    if args.events and args.splits != "auto":
        raise InputError(
            "`--splits` and `--events` are mutually exclusive; remove `--splits`, as a file of events has its own splits"
        )
    options = _options(args)
    if not args.events and (args.source or args.fps or args.min_score or options != ReadOptions()):
        raise InputError("`--from`, `--fps` and similar options require a file of events; add `--events FILE`")
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
        content: dict[str, Any] = {"num_videos": checked.num_videos, "num_events": checked.num_events}
        content["findings"] = [asdict(finding) for finding in checked.findings]
        atomic_write_text(args.output, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    for note in checked.notes:
        print(note)
    counts = ", ".join(f"{len(messages)} {kind}" for kind, messages in kinds.items()) or "no problems found"
    print(f"{checked.num_videos} videos, {checked.num_events} events: {counts}")
    return 1 if checked.findings else 0


def convert_events(args: argparse.Namespace) -> None:
    """Write the events in the other format, and print a summary and the omitted fields."""
    from pathlib import Path

    from comedian.errors import InputError, suggest
    from comedian.events.events import keep_labels, keep_scores, score_note
    from comedian.events.formats import (
        BY_FRAME,
        detect_format,
        is_file_of,
        lost_fields,
        measure,
        read_events,
        write_events,
    )
    from comedian.files import check_outputs

    to = args.to or FORMAT_OF_SUFFIX.get(Path(args.output).suffix.lower())
    if to is None:
        raise InputError(f"`--to` is missing; the name `{args.output}` does not determine the format")
    if is_file_of(to, args.output):
        check_outputs([args.output], [args.input])
    options = _options(args)
    source = args.source or detect_format(args.input)
    events = read_events(args.input, source, fps=args.fps, options=options)
    note = args.min_score is not None and score_note(events, args.min_score)
    if note:
        events = keep_scores(events, args.min_score)
    for label in args.labels or ():
        if label not in events.labels:
            raise InputError(f"`--labels`: `{args.input}` has no {label!r}; {suggest(label, events.labels)}")
    if args.labels:
        events = keep_labels(events, args.labels)
    is_folder_of_matches = source.startswith("soccernet") and Path(args.input).is_dir()
    videos = args.videos or (args.input if is_folder_of_matches else None)
    known = lost_fields(events, to, args.output)
    if args.videos or to in ("json", "osl", *BY_FRAME):
        events = measure(events, videos, args.fps)
    # fields that were measured rather than read are not lost
    lost = [what for what in lost_fields(events, to, args.output) if what in known or what not in MEASURED]
    write_events(events, args.output, to, videos, args.start_timecode)
    count = sum(len(video.events) for video in events.videos)
    print(f"{args.output}: {len(events.videos)} videos or parts, {count} events, {len(events.labels)} labels")
    if note:
        print(note, file=sys.stderr)
    if lost:
        print(f"omitted, because {to} cannot store it: {', '.join(lost)}", file=sys.stderr)


def import_own_videos(args: argparse.Namespace) -> None:
    """Arrange the videos and print the number of events in each split."""
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

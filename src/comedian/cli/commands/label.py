"""Make a page to label videos on: from nothing, or by correcting a model's events.

The page is one file that needs no network: play, step by frames, add events with one key a label, drag, relabel, delete,
undo, and export the events as CSV or JSON. Every change is kept in the browser. Train on what it exports with
`comedian finetune --videos FOLDER --events events.csv --model START --output RUN`.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from comedian.errors import InputError
from comedian.files import check_outputs

EXAMPLE = """\
comedian label friday.mp4 --labels labels.txt --output friday.html
comedian label match/*.mp4 --model RUN/model --suggest 20 --output match.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command-line arguments of `comedian label`."""
    parser.add_argument("videos", metavar="VIDEO", nargs="+", type=Path, help="videos, each labelled on its own")
    parser.add_argument_group("output").add_argument(
        "--output", metavar="PAGE", type=Path, required=True, help="the page, a .html file"
    )
    start = parser.add_argument_group("events to start with, default: none").add_mutually_exclusive_group()
    start.add_argument("--model", metavar="MODEL", help="spot the videos with this model, to review its events")
    start.add_argument(
        "--events",
        metavar="FILE",
        type=Path,
        help="file of events, such as an export of this page or the output of `comedian spot`; events with a score are "
        "marked for review",
    )
    labels = parser.add_argument_group("labels and suggestions")
    labels.add_argument(
        "--labels",
        metavar="FILE",
        type=Path,
        help="label list, one label per line; more can be added on the page; default: the labels of the model or the events",
    )
    labels.add_argument(
        "--suggest",
        metavar="COUNT",
        type=int,
        help="with --model: list this many moments with low confidence, such as 20, spread over the videos; default: none",
    )
    parser.add_argument_group("hardware").add_argument(
        "--device", help="with --model: such as cpu or cuda:1; default: an accelerator, if there is one"
    )


def run(args: argparse.Namespace) -> None:
    """Collect the events to start with, and write the page."""
    if args.output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output {args.output}: give a name that ends in .html")
    check_outputs([args.output])
    if args.suggest is not None and args.suggest < 1:
        raise InputError(f"--suggest {args.suggest}: give a number of moments, 1 or more")
    if args.suggest is not None and args.model is None:
        raise InputError("--suggest requires --model, whose scores determine the suggestions; add it")

    from tqdm import tqdm

    from comedian.errors import printable
    from comedian.inference.many_videos import name_videos
    from comedian.report.label import write_label_page
    from comedian.soccernet.labels import read_label_list
    from comedian.video.decoding import probe

    videos = name_videos(args.videos)
    for video in videos.values():
        probe(video)
    labels: tuple[str, ...] = read_label_list(args.labels) if args.labels else ()
    events: list = []
    known: tuple[str, ...] = ()
    moments: list = []
    if args.model is not None:
        events, known, moments = _events_of_model(args, list(videos.values()))
    elif args.events is not None:
        events, known = events_of_file(args.events, videos)
    labels = labels or tuple(known)
    labels += tuple(sorted({event.label for event in events}.difference(labels)))

    def progress(name: str, duration_s: float):
        bar = tqdm(total=round(duration_s), desc=f"copy of {printable(name)} for the browser", unit="s")

        def reached(time_s: float) -> None:
            bar.update(max(0, round(time_s) - bar.n))

        return reached

    copies = write_label_page(args.output, videos, labels, events, moments, progress)
    for copy in copies:
        print(f"{copy}: a copy that browsers play")
    print(f"{args.output}: {len(videos)} videos, {len(events)} events; open it in a browser")


def events_of_file(path: Path, videos: dict[str, Path]) -> tuple[list, tuple[str, ...]]:
    """Read the events of the videos, and the labels of their file.

    Raises:
        InputError: the file cannot be read, or has events of another video.
    """
    from comedian.events.formats import read_events
    from comedian.events.own_videos import find_file
    from comedian.report.label import LabelEvent

    indices = {video.resolve(): index for index, video in enumerate(videos.values())}
    folder = Path(os.path.commonpath([video.absolute().parent for video in videos.values()]))
    found, events = read_events(path), []
    for video in found.videos:
        try:
            index = indices.get(find_file(folder, video).resolve())
        except ValueError as error:
            raise InputError(f"`{path}`: {error}") from None
        if index is None:
            raise InputError(f"`{path}` has events of `{video.name}`, which is not among the videos; add it")
        events += [
            LabelEvent(
                index,
                event.label,
                event.position_ms / 1000,
                event.score,
                "confirmed" if event.score is None else "proposed",
                "" if event.team == "not applicable" else event.team,
                event.visibility,
                event.comment,
            )
            for event in video.events
        ]
    return events, found.labels


def _events_of_model(args: argparse.Namespace, videos: list[Path]) -> tuple[list, tuple[str, ...], list[Any]]:
    """Spot each video on its own."""
    from comedian.inference.spotter import ActionSpotter
    from comedian.inference.suggestions import uncertain_moments
    from comedian.report.label import LabelEvent

    spotter = ActionSpotter.from_pretrained(args.model, device=args.device)
    events, candidates = [], []
    for index, video in enumerate(videos):
        scores = [spotter.score(video, progress=True)]
        events += [
            LabelEvent(index, spot["label"], spot["timestamp_s"], spot["score"], "proposed")
            for spot in spotter.spots(scores)
        ]
        candidates.append(spotter.spots(scores, threshold=0.0))
    moments = uncertain_moments(candidates, spotter.config, args.suggest) if args.suggest else []
    return events, tuple(spotter.config.label_names), moments

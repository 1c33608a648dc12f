"""Events in E2E-Spot's files (https://github.com/jhong93/spot; tennis, FineDiving, figure skating, FineGym).

A list of videos with events by frame, in one file, or a folder with `train.json`, `val.json` and `test.json`;
`class.txt` lists the labels.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from comedian.errors import InputError
from comedian.events.events import (
    EVENT_FIELDS,
    MAX_SIZE,
    Event,
    EventSet,
    EventVideo,
    Problem,
    Reading,
    event_set,
    fields_of,
    parse_event,
    parse_name,
    parse_size,
    parse_text,
    refuse,
)
from comedian.events.frames import frame_of, parse_frame, position_ms_of_frame
from comedian.events.soccernet_files import part_name, split_part_name, to_json
from comedian.files import atomic_write_text, inside, read_json
from comedian.soccernet.labels import read_label_list
from comedian.soccernet.splits import SPLIT_NAMES

CLASSES_FILE_NAME = "class.txt"


# comment that E2E-Spot's conversion writes for SoccerNet's annotations
_TEAM_AND_VISIBILITY = re.compile(r"(home|away|left|right|not applicable); (visible|not shown)")


def read_e2e_spot(path: str | Path, fps: float | None = None, problem: Problem = refuse) -> EventSet:
    """Read E2E-Spot's JSON, labels or predictions.

    Args:
        path: a file, or a folder with one file per split, named after it.
        fps: frame rate; None takes that in the file, which FineDiving gives as `-1`.
        problem: called with a one-line description of each problem; raises by default.

    Raises:
        InputError: the file cannot be read or has another form.
    """
    path = Path(path)
    files: dict[Path, str | None]
    if path.is_dir():
        files = {file: SPLIT_NAMES[file.stem] for file in sorted(path.glob("*.json")) if file.stem in SPLIT_NAMES}
        if not files:
            raise InputError(f"`{path}` contains no `train.json`, `val.json` or `test.json`; give a file")
    else:
        files = {path: None}
    videos: list[EventVideo] = []
    unread: set[str] = set()
    for file, split in files.items():
        reading = Reading(file, problem, unread)
        parse = partial(_e2e_video, reading=reading, fps=fps)
        videos += [replace(video, split=split) for video in reading.each(read_json(file), "", parse)]
    classes = (path if path.is_dir() else path.parent) / CLASSES_FILE_NAME
    return event_set(videos, read_label_list(classes) if classes.is_file() else (), unread, path)


def _e2e_video(item: dict[str, Any], place: str, reading: Reading, fps: float | None) -> EventVideo:
    reading.ignore(item, "video", "num_frames", "num_events", "events", "fps")
    if (rate := fps or item.get("fps")) is None or not isinstance(rate, int | float) or not 0 < rate < MAX_SIZE:
        raise ValueError(f"`fps` is {item.get('fps')!r}; set `--fps`, the frame rate of the events")

    def event(fields: dict[str, Any], place: str) -> Event:
        reading.ignore(fields, "frame", *EVENT_FIELDS)
        if match := _TEAM_AND_VISIBILITY.fullmatch(parse_text(fields, "comment")):
            fields = fields | {"team": match[1], "visibility": match[2], "comment": ""}
        return parse_event(fields, position_ms_of_frame(parse_frame(fields.get("frame")), rate), place)

    events = tuple(reading.each(item.get("events", []), f"{place}.events", event))
    num_frames = parse_size(item, "num_frames")
    name, half = split_part_name(parse_name(item))
    return EventVideo(name, half, None, float(rate), num_frames and num_frames / rate, events)


def write_e2e_spot(events: EventSet, path: str | Path) -> None:
    """Write E2E-Spot's JSON, and `class.txt` beside it; a path that does not end in `.json` is a folder with one file
    per split.

    A frame is the one on screen at the event's time, as in E2E-Spot's own conversion of SoccerNet.

    Raises:
        InputError: a video has no frame rate or duration, or an existing `class.txt` lacks a label.
    """
    path = Path(path)
    files: dict[Path, list[dict[str, Any]]] = {}
    for video in events.videos:
        if video.fps is None or video.duration_s is None:
            raise InputError(
                f"the frame rate or duration of `{video.name}` is unknown; give the folder of the videos with `--videos`"
            )
        split = {"validation": "val", None: "train"}.get(video.split, video.split)
        file = path if path.suffix.lower() == ".json" else inside(path, f"{split}.json")
        listed = [
            {"frame": frame_of(event.position_ms, video.fps), "comment": ""} | fields_of(event)
            for event in video.events
        ]
        files.setdefault(file, []).append(
            {
                "video": part_name(video),
                "num_frames": round(video.duration_s * video.fps),
                "num_events": len(listed),
                "events": listed,
                "fps": video.fps,
            }
        )
    classes = (path.parent if path.suffix.lower() == ".json" else path) / CLASSES_FILE_NAME
    labels = read_label_list(classes) if classes.exists() else events.labels
    if unlisted := set(events.labels).difference(labels):
        raise InputError(f"`{classes}` exists and lacks {sorted(unlisted)[0]!r}; add it or choose another output")
    for file, videos in files.items():
        atomic_write_text(file, to_json(videos))
    atomic_write_text(classes, "".join(f"{label}\n" for label in labels))

"""Events in OpenSportsLab's JSON (https://github.com/OpenSportsLab/opensportslib).

Version 2 is read and written, version 1 is read.
"""

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from comedian.errors import InputError
from comedian.events.events import (
    EVENT_FIELDS,
    Event,
    EventSet,
    EventVideo,
    Problem,
    Reading,
    check_name,
    event_set,
    fields_of,
    find_video,
    parse_event,
    parse_half,
    parse_labels,
    parse_name,
    parse_size,
    parse_split,
    parse_text,
    parse_time_ms,
    refuse,
)
from comedian.events.soccernet_files import part_name, to_json
from comedian.files import atomic_write_text, read_json
from comedian.soccernet.annotations import game_time

OSL_HEAD = "action"


_HALF_FILE = re.compile(r"(.+)/([1-9][0-9]?)_(?:[0-9]+p|HQ)(?:\.\w+)?")


def read_osl(path: str | Path, problem: Problem = refuse) -> EventSet:
    """Read OpenSportsLab's JSON, version 2 or 1, labels or predictions.

    Raises:
        InputError: the file cannot be read or has another form.
    """
    content, reading = read_json(path), Reading(path, problem)
    if not isinstance(content, dict):
        raise InputError(f"`{path}` is not in OpenSportsLab's format: it does not begin with an object")
    if "data" not in content:
        reading.ignore(content, "version", "date", "videos", "labels")
        videos = reading.each(content.get("videos"), "videos", lambda item, place: _osl_1_video(item, place, reading))
        return event_set(videos, parse_labels(content.get("labels"), path), reading.unread, path)
    known = ("version", "date", "task", "dataset_name", "description", "modalities", "labels", "data")
    reading.ignore(content, "metadata", *known)
    metadata = _object(content, "metadata")
    reading.ignore(metadata, "split", "type")
    heads = _object(content, "labels").values()
    lists = (head.get("labels") if isinstance(head, dict) else head for head in heads)
    labels = [label for listed in lists for label in parse_labels(listed, path)]
    videos = reading.each(content["data"], "data", lambda item, place: _osl_2_video(item, place, reading, metadata))
    return event_set(videos, list(dict.fromkeys(labels)), reading.unread, path)


def _object(item: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the object under a key; empty where there is none."""
    found = item.get(key)
    return found if isinstance(found, dict) else {}


def _osl_1_video(item: dict[str, Any], place: str, reading: Reading) -> EventVideo:
    reading.ignore(item, "path", "path_video", "path_features", "annotations", "num_frames")
    paths = (parse_text(item, key) for key in ("path", "path_video", "path_features"))
    name, half = _osl_name(next(filter(None, paths), ""))
    events = reading.each(item.get("annotations", []), f"{place}.annotations", partial(_osl_event, reading=reading))
    return EventVideo(name, half, events=tuple(events))


def _osl_2_video(item: dict[str, Any], place: str, reading: Reading, metadata: Mapping[str, Any]) -> EventVideo:
    reading.ignore(item, "id", "inputs", "events", "metadata")
    inputs = item.get("inputs")
    media = [media for media in (inputs if isinstance(inputs, list) else []) if isinstance(media, dict)]
    media = [media for media in media if media.get("type", "video") == "video"] or media
    if not media:
        raise ValueError("`inputs` contains no video; add one, such as {'type': 'video', 'path': 'clips/1.mp4'}")
    if len(media) > 1:
        reading.unread.add("further views in `inputs`")
    name, half = _osl_name(parse_text(media[0], "path"))
    own = _object(item, "metadata")
    reading.ignore(own, "video", "half", "split")
    if parse_text(own, "video"):
        name, half = parse_name(own), parse_half(own.get("half"))
    events = reading.each(item.get("events", []), f"{place}.events", partial(_osl_event, reading=reading))
    return EventVideo(
        name,
        half,
        parse_split({"split": metadata.get("split")} | own),
        parse_size(media[0], "fps"),
        events=tuple(events),
    )


def _osl_name(path: str) -> tuple[str, int | None]:
    if not path:
        raise ValueError("`path` is empty; write the video's file")
    match = _HALF_FILE.fullmatch(check_name(path))
    return (match[1], int(match[2])) if match else (path, None)


def _osl_event(fields: dict[str, Any], place: str, reading: Reading) -> Event:
    positions = ("position_ms", "position")
    reading.ignore(fields, "head", "gameTime", "frame", "confidence", "confidence_score", *positions, *EVENT_FIELDS)
    if fields.get("head", OSL_HEAD) != OSL_HEAD:
        reading.unread.add("head")
    key = next((key for key in positions if fields.get(key) is not None), None)
    if key:
        position_ms = parse_time_ms(_thousandths(fields[key], key), key)
    else:
        position_ms = parse_time_ms(parse_text(fields, "gameTime").rpartition("-")[2], "gameTime")
    score = fields.get("confidence", fields.get("confidence_score"))
    return parse_event(fields | {"score": score}, position_ms, place)


def _thousandths(value: Any, key: str) -> str:
    try:
        return f"{(math.nan if isinstance(value, bool) else float(value)) / 1000:.6f}"
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"`{key}` is {value!r}; expected milliseconds") from None


def write_osl(events: EventSet, path: str | Path, videos: str | Path | None = None) -> None:
    """Write OpenSportsLab's JSON, version 2.

    A score is written as `confidence`, for their library, and as `confidence_score`, for their annotation tool.

    Args:
        events: what to write.
        path: the file.
        videos: the videos' folder, which paths are relative to; a part that is not found there, or any part without
            it, gets a name such as `league/season/match/1`.
    """
    data = []
    for video in events.videos:
        name = part_name(video)
        if videos and (file := find_video(videos, video.name, video.half)):
            name = file.relative_to(videos).as_posix()
        media = {"type": "video", "path": name, "fps": video.fps}
        metadata = {"video": video.name, "half": video.half, "split": video.split}
        data.append(
            {
                "id": part_name(video),
                "inputs": [_without_none(media)],
                "events": [_osl_entry(event, video.half or 1) for event in video.events],
                "metadata": _without_none(metadata),
            }
        )
    content = {
        "version": "2.0",
        "task": "action_spotting",
        "dataset_name": Path(path).stem,
        "description": "",
        "modalities": ["video"],
        "metadata": {},
        "labels": {OSL_HEAD: {"type": "single_label", "labels": list(events.labels)}},
        "data": data,
    }
    atomic_write_text(path, to_json(content))


def _osl_entry(event: Event, half: int) -> dict[str, Any]:
    times = {"position_ms": event.position_ms, "gameTime": game_time(half, event.position_ms)}
    fields = fields_of(event)
    score = fields.pop("score", None)
    scores = {} if score is None else {"confidence": score, "confidence_score": score}
    return {"head": OSL_HEAD} | fields | times | scores


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}

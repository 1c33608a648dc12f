"""Events in SoccerNet's files: a folder of matches with a `Labels-v2.json` (17 labels) or `Labels-ball.json` (2 or 12)
each, one such file, or a zip for the challenge server."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from comedian.errors import InputError
from comedian.events.events import (
    Event,
    EventSet,
    EventVideo,
    Problem,
    Reading,
    check_name,
    event_set,
    refuse,
)
from comedian.files import atomic_write_text, inside, read_json
from comedian.soccernet.annotations import Annotation, game_time, parse_events, read_annotations
from comedian.soccernet.json_tree import JsonTree
from comedian.soccernet.labels import read_label_list
from comedian.soccernet.layout import (
    LABEL_FILE_NAMES,
    VIDEO_SUFFIXES,
    find_halves,
    find_label_file,
    find_matches,
)
from comedian.soccernet.splits import SPLITS_FILE_NAME

LABELS_FILE_NAME = "labels.txt"


# the fields of SoccerNet's annotations that are read
ANNOTATION_FIELDS = ("gameTime", "label", "position", "team", "visibility")


# `league/season/match/1`, or OpenSportsLab's `league/season/match/1_224p.mkv`
_HALF_OF_MATCH = re.compile(r"(.+)/([1-9][0-9]?)(?:_(?:[0-9]+p|HQ)(?:\.\w+)?)?")


def read_soccernet(path: str | Path, file_name: str | None = None, problem: Problem = refuse) -> EventSet:
    """Read a folder of matches, or one label file, whose match is named by its `UrlLocal` or else by its folder.

    Args:
        path: the folder or file.
        file_name: name of the label files in a folder; None takes the first of `LABEL_FILE_NAMES` that a match has.
        problem: called with a one-line description of each invalid file; raises by default.

    Raises:
        InputError: there is no label file, or the splits cannot be determined.
    """
    path, reading, videos = Path(path), Reading(path), []
    if path.suffix.lower() == ".zip":
        if not (events := _read_predictions(path, reading)).videos:
            raise InputError(f"`{path}` contains no predictions; unpack a zip of other files and give the files")
        return events
    if path.is_file():
        content = read_json(path)
        try:
            name = check_name(_match_name(content))
        except ValueError as error:
            raise InputError(f"`{path}`: {error}") from None
        matches = {name or path.absolute().parent.name: path}
    else:
        found = ((video_id, find_label_file(path / video_id, file_name)) for video_id in find_matches(path))
        matches = {video_id: label_file for video_id, label_file in found if label_file}
        if not matches:
            if (events := _read_predictions(path, reading)).videos:
                return events
            raise InputError(
                f"`{path}` contains no match with {file_name or LABEL_FILE_NAMES[0]}; give another folder"
            )
    splits = _splits(path, file_name) if path.is_dir() else {}
    for video_id, label_file in matches.items():
        try:
            content = read_json(label_file)
            if isinstance(content, dict) and "predictions" in content:
                videos += _predicted(video_id, f"`{label_file}`", content, reading)
                continue
            annotations = read_annotations(label_file)
            reading.ignore(content, "UrlLocal", "annotations")
            for annotation in content["annotations"]:
                reading.ignore(annotation, *ANNOTATION_FIELDS)
            halves = find_halves(label_file.parent) if path.is_dir() else {}
        except InputError as error:
            problem(str(error))
            continue
        for half in sorted({annotation.half for annotation in annotations} | set(halves)) or [1]:
            videos.append(EventVideo(video_id, half, splits.get(video_id), events=events_of_half(annotations, half)))
    labels = path / LABELS_FILE_NAME
    return event_set(videos, read_label_list(labels) if labels.is_file() else (), reading.unread, path)


def _read_predictions(path: Path, reading: Reading) -> EventSet:
    """Read the predictions in a folder or zip, as written by `comedian spot`: `results_spotting.json`, or any name."""
    tree, videos = JsonTree(path), []
    for folder, names in sorted(tree.folders.items()):
        for name in sorted(names):
            member = PurePosixPath(folder, name)
            source, content = f"`{path}/{member}`", tree.read(member)
            if not isinstance(content, dict) or "predictions" not in content:
                continue
            try:
                video_id = _name_in(folder, check_name(_match_name(content)) or member.stem)
            except ValueError as error:
                raise InputError(f"{source}: {error}") from None
            videos += _predicted(video_id, source, content, reading)
    return event_set(videos, (), reading.unread, path)


def _name_in(folder: str, told: str) -> str:
    """Return the name of a match for its `folder` and the name `told` in its file."""
    if f"/{folder}".endswith(f"/{told}"):
        return told
    # the matches may be in a subfolder; each other file in a folder belongs to another video
    return check_name(PurePosixPath(folder, told).as_posix()) if "/" not in told else told


def _predicted(video_id: str, source: str, content: Any, reading: Reading) -> list[EventVideo]:
    """Return the parts of a match in a `results_spotting.json`, as written by `comedian spot`: events with scores."""
    halves: dict[int, list[Event]] = {}
    for index, spot in enumerate(parse_events(content, "predictions", source)):
        position_ms = round(1000 * spot["timestamp_s"])
        event = Event(spot["label"], position_ms, score=spot["score"], source=f"predictions[{index}]")
        halves.setdefault(spot["half"], []).append(event)
    reading.ignore(content, "UrlLocal", "predictions")
    return [EventVideo(video_id, half, events=tuple(halves[half])) for half in sorted(halves)] or [
        EventVideo(video_id, 1)
    ]


def _match_name(content: Any) -> str:
    return str(content.get("UrlLocal", "")).strip().strip("/") if isinstance(content, dict) else ""


def events_of_half(annotations: Sequence[Annotation], half: int) -> tuple[Event, ...]:
    """Return a half's annotations as events, in their order."""
    return tuple(
        Event(found.label, found.position_ms, found.team, found.visibility, source=f"annotations[{index}]")
        for index, found in enumerate(annotations)
        if found.half == half
    )


def _splits(root: Path, file_name: str | None) -> dict[str, str]:
    """Return match -> split; empty if the folder has no splits."""
    from comedian.soccernet.splits import find_splits

    splits = find_splits(root, label_file=file_name)
    return {} if set(splits) == {"train"} else {match: split for split, found in splits.items() for match in found}


def write_soccernet(events: EventSet, root: str | Path, file_name: str = LABEL_FILE_NAMES[0]) -> None:
    """Write a folder of matches: one label file each, `labels.txt`, and `splits.json` if the events have splits.

    An interrupted call can be repeated: existing files must have the content that would be written.

    Raises:
        InputError: a different file exists already, two videos would share a folder, or a name leads out of `root`.
    """
    root, files = Path(root), {}
    splits: dict[str, list[str]] = {}
    for video_id, parts in by_match(events).items():
        files[inside(root, video_id) / file_name] = label_file(video_id, parts)
        if split := parts[0].split:
            splits.setdefault(split, []).append(video_id)
    files[root / LABELS_FILE_NAME] = "".join(f"{label}\n" for label in events.labels)
    if splits:
        files[root / SPLITS_FILE_NAME] = to_json(splits)
    there = {path for path in files if path.exists()}
    for path in there:
        if path.read_bytes() != files[path].encode():
            raise InputError(f"`{path}` already exists; give another folder or delete it")
    for path, text in files.items():
        if path not in there:
            atomic_write_text(path, text)


def by_match(events: EventSet) -> dict[str, list[EventVideo]]:
    """Return SoccerNet's `video_id` -> its parts, each with its `half`; the match of a file is its name without the
    extension.

    Raises:
        InputError: two videos would be the same part of a match, or the parts of a match are in several splits.
    """
    matches: dict[str, dict[int, EventVideo]] = {}
    for video in events.videos:
        video_id, half = match_of(video.name), video.half or 1
        parts = matches.setdefault(video_id, {})
        if other := parts.get(half):
            raise InputError(
                f"`{other.name}` and `{video.name}` are both half {half} of a match `{video_id}`; rename one"
            )
        parts[half] = video
        if len({part.split for part in parts.values()}) > 1:
            raise InputError(f"the parts of `{video_id}` are in several splits; a match belongs to one split")
    return {
        video_id: [replace(parts[half], half=half) for half in sorted(parts)] for video_id, parts in matches.items()
    }


def match_of(name: str) -> str:
    """Return the `video_id` of a video's file, its name without the extension, or of a folder of parts, its name."""
    path = PurePosixPath(name)
    return str(path.with_suffix("") if path.suffix.lower() in VIDEO_SUFFIXES else path)


def label_file(video_id: str, parts: list[EventVideo]) -> str:
    """Return the text of a match's label file."""
    entries = [
        {
            "gameTime": game_time(part.half or 1, event.position_ms),
            "label": event.label,
            "position": str(event.position_ms),
            "team": event.team,
            "visibility": event.visibility,
        }
        for part in parts
        for event in part.events
    ]
    return to_json({"UrlLocal": f"{video_id}/", "UrlYoutube": "", "annotations": entries})


def to_json(content: Any) -> str:
    """Return JSON in the style of these files."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def part_name(video: EventVideo) -> str:
    """Return E2E-Spot's name of a video or part."""
    return video.name if video.half is None else f"{video.name}/{video.half}"


def split_part_name(name: str) -> tuple[str, int | None]:
    """Return the name and half of a video or part from a name of `part_name`."""
    match = _HALF_OF_MATCH.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)

"""Events in the files of others: SoccerNet, E2E-Spot, OpenSportsLab.

- SoccerNet: a folder of matches with a `Labels-v2.json` (17 labels) or `Labels-ball.json` (2 or 12), or one such file.
- E2E-Spot (https://github.com/jhong93/spot; tennis, FineDiving, figure skating, FineGym): a list of videos with events by
  frame, in one file, or a folder with `train.json`, `val.json` and `test.json`; `class.txt` lists the labels.
- OpenSportsLab's JSON: version 2 (https://github.com/OpenSportsLab/opensportslib) read and written, version 1 read.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from comedian.data.annotations import (
    LABEL_FILE_NAMES,
    VIDEO_SUFFIXES,
    Annotation,
    find_halves,
    find_label_file,
    find_matches,
    game_time,
    parse_events,
    read_annotations,
    read_label_list,
)
from comedian.data.events import (
    EVENT_FIELDS,
    MAX_SIZE,
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
from comedian.data.official_splits import SPLIT_NAMES, SPLITS_FILE_NAME
from comedian.errors import InputError
from comedian.files import atomic_write_text, inside, read_json

LABELS_FILE_NAME, CLASSES_FILE_NAME = "labels.txt", "class.txt"
OSL_HEAD = "action"
# what is read of an annotation of SoccerNet's
ANNOTATION_FIELDS = ("gameTime", "label", "position", "team", "visibility")

# E2E-Spot names SoccerNet's halves `league/season/match/1`, OpenSportsLab `league/season/match/1_224p.mkv`.
_HALF_OF_MATCH = re.compile(r"(.+)/([1-9][0-9]?)(?:_(?:[0-9]+p|HQ)(?:\.\w+)?)?")
_HALF_FILE = re.compile(r"(.+)/([1-9][0-9]?)_(?:[0-9]+p|HQ)(?:\.\w+)?")
# what E2E-Spot makes of SoccerNet's annotations
_TEAM_AND_VISIBILITY = re.compile(r"(home|away|left|right|not applicable); (visible|not shown)")


def read_soccernet(path: str | Path, file_name: str | None = None, problem: Problem = refuse) -> EventSet:
    """Read a folder of matches, or one label file, whose match is named by its `UrlLocal` or else by its folder.

    Args:
        path: the folder or file.
        file_name: of the label files in a folder; None takes the first of `LABEL_FILE_NAMES` that a match has.
        problem: told of every file that will not do; raises by default.

    Raises:
        InputError: there is no label file, or the splits cannot be told.
    """
    path, reading, videos = Path(path), Reading(path), []
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
            raise InputError(f"`{path}` holds no match with {file_name or LABEL_FILE_NAMES[0]}; give another folder")
    splits = _splits(path, file_name) if path.is_dir() else {}
    for video_id, label_file in matches.items():
        try:
            content = read_json(label_file)
            if isinstance(content, dict) and "predictions" in content:
                videos += _predicted(video_id, label_file, content, reading)
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
    return event_set(videos, read_label_list(labels) if labels.is_file() else (), reading.unread, labels)


def _predicted(video_id: str, path: Path, content: dict[str, Any], reading: Reading) -> list[EventVideo]:
    """The parts of a match in a `results_spotting.json`, such as `comedian spot` writes: events with scores."""
    reading.ignore(content, "UrlLocal", "predictions")
    halves: dict[int, list[Event]] = {}
    for index, spot in enumerate(parse_events(content, "predictions", f"`{path}`")):
        position_ms = round(1000 * spot["timestamp_s"])
        event = Event(spot["label"], position_ms, score=spot["score"], source=f"predictions[{index}]")
        halves.setdefault(spot["half"], []).append(event)
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
    """Return match -> split where the folder tells of splits."""
    from comedian.data.soccernet import find_splits

    splits = find_splits(root, label_file=file_name)
    return {} if set(splits) == {"train"} else {match: split for split, found in splits.items() for match in found}


def write_soccernet(events: EventSet, root: str | Path, file_name: str = LABEL_FILE_NAMES[0]) -> None:
    """Write a folder of matches: a label file each, `labels.txt`, and `splits.json` where splits are told.

    A call that broke off goes on: what is there already must be what would be written.

    Raises:
        InputError: another file is there already, two videos would share a folder, or a name leads out of `root`.
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
            raise InputError(f"`{path}` is there already; give another folder or delete it")
    for path, text in files.items():
        if path not in there:
            atomic_write_text(path, text)


def by_match(events: EventSet) -> dict[str, list[EventVideo]]:
    """Return SoccerNet's `video_id` -> its parts, each with its `half`; a file's match is named without its ending.

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
            raise InputError(f"the parts of `{video_id}` are in several splits; a match is in one")
    return {
        video_id: [replace(parts[half], half=half) for half in sorted(parts)] for video_id, parts in matches.items()
    }


def match_of(name: str) -> str:
    """Return the `video_id` of a video's file, its name without the ending, or of a folder of parts, its own."""
    path = PurePosixPath(name)
    return str(path.with_suffix("") if path.suffix.lower() in VIDEO_SUFFIXES else path)


def label_file(video_id: str, parts: list[EventVideo]) -> str:
    """Return the text of a match's label file."""
    entries = [
        {
            "gameTime": game_time(part.half, event.position_ms),
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
    """Return JSON as these files have it."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def read_e2e_spot(path: str | Path, fps: float | None = None, problem: Problem = refuse) -> EventSet:
    """Read E2E-Spot's JSON, labels or predictions.

    Args:
        path: a file, or a folder with a file a split, named after it.
        fps: frames a second where a video tells none: FineDiving has `-1` throughout.
        problem: told of everything that will not do; raises by default.

    Raises:
        InputError: the file cannot be read or has another form.
    """
    path = Path(path)
    if path.is_dir():
        files = {file: SPLIT_NAMES[file.stem] for file in sorted(path.glob("*.json")) if file.stem in SPLIT_NAMES}
        if not files:
            raise InputError(f"`{path}` holds no `train.json`, `val.json` or `test.json`; give a file")
    else:
        files = {path: None}
    videos, unread = [], set()
    for file, split in files.items():
        reading = Reading(file, problem, unread)
        videos += [
            replace(video, split=split)
            for video in reading.each(
                read_json(file), "", lambda item, place, reading=reading: _e2e_video(item, place, reading, fps)
            )
        ]
    classes = (path if path.is_dir() else path.parent) / CLASSES_FILE_NAME
    return event_set(videos, read_label_list(classes) if classes.is_file() else (), unread, classes)


def _e2e_video(item: dict[str, Any], place: str, reading: Reading, fps: float | None) -> EventVideo:
    reading.ignore(item, "video", "num_frames", "num_events", "events", "fps")
    if not isinstance(rate := item.get("fps"), int | float) or not 0 < rate < MAX_SIZE:
        rate = fps
    if rate is None:
        raise ValueError(f"`fps` is {item.get('fps')!r}; say `--fps`, the rate that the frames are counted at")

    def event(fields: dict[str, Any], place: str) -> Event:
        reading.ignore(fields, "frame", *EVENT_FIELDS)
        if match := _TEAM_AND_VISIBILITY.fullmatch(parse_text(fields, "comment")):
            fields = fields | {"team": match[1], "visibility": match[2], "comment": ""}
        frame = fields.get("frame")
        if isinstance(frame, bool) or not isinstance(frame, int) or not 0 <= frame < MAX_SIZE:
            raise ValueError(f"`frame` is {frame!r}; expected a whole number from 0, below {MAX_SIZE:g}")
        return parse_event(fields, parse_time_ms(f"{frame / rate:.6f}", "frame"), place)

    events = tuple(reading.each(item.get("events", []), f"{place}.events", event))
    num_frames = parse_size(item, "num_frames")
    name, half = parse_name(item), None
    if match := _HALF_OF_MATCH.fullmatch(name):
        name, half = match[1], int(match[2])
    return EventVideo(name, half, None, float(rate), num_frames and num_frames / rate, events)


def write_e2e_spot(events: EventSet, path: str | Path) -> None:
    """Write E2E-Spot's JSON, and `class.txt` beside it; a path that does not end in `.json` is a folder, a file a split.

    A frame is the one on screen at the event's time, as in E2E-Spot's own conversion of SoccerNet.

    Raises:
        InputError: a video tells no rate or length, or a `class.txt` that is there lacks a label.
    """
    path, files = Path(path), {}
    for video in events.videos:
        if video.fps is None or video.duration_s is None:
            raise InputError(
                f"the rate or length of `{video.name}` is not known; say where the videos are: `--videos`"
            )
        split = {"validation": "val", None: "train"}.get(video.split, video.split)
        file = path if path.suffix == ".json" else inside(path, f"{split}.json")
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
    classes = (path.parent if path.suffix == ".json" else path) / CLASSES_FILE_NAME
    listed = read_label_list(classes) if classes.exists() else events.labels
    if unlisted := set(events.labels).difference(listed):
        raise InputError(f"`{classes}` is there and lacks {sorted(unlisted)[0]!r}; add it or write elsewhere")
    for file, videos in files.items():
        atomic_write_text(file, to_json(videos))
    atomic_write_text(classes, "".join(f"{label}\n" for label in listed))


def frame_of(position_ms: int, fps: float) -> int:
    """Return the frame that is on screen at a time; a time rounded from a frame's own start gives that frame."""
    return math.floor((position_ms + 0.51) * fps / 1000)


def part_name(video: EventVideo) -> str:
    """Return E2E-Spot's name of a video or part."""
    return video.name if video.half is None else f"{video.name}/{video.half}"


def read_osl(path: str | Path, problem: Problem = refuse) -> EventSet:
    """Read OpenSportsLab's JSON, version 2 or 1, labels or predictions.

    Raises:
        InputError: the file cannot be read or has another form.
    """
    content, reading = read_json(path), Reading(path, problem)
    if not isinstance(content, dict):
        raise InputError(f"`{path}` is not in OpenSportsLab's format; it begins with no object")
    if "data" not in content:
        reading.ignore(content, "version", "date", "videos", "labels")
        videos = reading.each(content.get("videos"), "videos", lambda item, place: _osl_1_video(item, place, reading))
        return event_set(videos, parse_labels(content.get("labels"), path), reading.unread, path)
    known = ("version", "date", "task", "dataset_name", "description", "modalities", "labels", "data")
    reading.ignore(content, "metadata", *known)
    metadata = content.get("metadata") if isinstance(content.get("metadata"), dict) else {}
    reading.ignore(metadata, "split", "type")
    heads = content.get("labels") if isinstance(content.get("labels"), dict) else {}
    lists = (head.get("labels") if isinstance(head, dict) else head for head in heads.values())
    labels = [label for listed in lists for label in parse_labels(listed, path)]
    videos = reading.each(content["data"], "data", lambda item, place: _osl_2_video(item, place, reading, metadata))
    return event_set(videos, list(dict.fromkeys(labels)), reading.unread, path)


def _osl_1_video(item: dict[str, Any], place: str, reading: Reading) -> EventVideo:
    reading.ignore(item, "path", "path_video", "path_features", "annotations", "num_frames")
    paths = (parse_text(item, key) for key in ("path", "path_video", "path_features"))
    name, half = _osl_name(next(filter(None, paths), ""))
    events = reading.each(item.get("annotations", []), f"{place}.annotations", lambda *of: _osl_event(*of, reading))
    return EventVideo(name, half, events=tuple(events))


def _osl_2_video(item: dict[str, Any], place: str, reading: Reading, metadata: Mapping[str, Any]) -> EventVideo:
    reading.ignore(item, "id", "inputs", "events", "metadata")
    inputs = item.get("inputs")
    media = [media for media in (inputs if isinstance(inputs, list) else []) if isinstance(media, dict)]
    media = [media for media in media if media.get("type", "video") == "video"] or media
    if not media:
        raise ValueError("`inputs` names no video; write one, such as {'type': 'video', 'path': 'clips/1.mp4'}")
    if len(media) > 1:
        reading.unread.add("further views in `inputs`")
    name, half = _osl_name(parse_text(media[0], "path"))
    own = item.get("metadata") if isinstance(item.get("metadata"), dict) else {}
    reading.ignore(own, "video", "half", "split")
    if parse_text(own, "video"):
        name, half = parse_name(own), parse_half(own.get("half"))
    events = reading.each(item.get("events", []), f"{place}.events", lambda *of: _osl_event(*of, reading))
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
        videos: the videos' folder, which paths are relative to; a part that is not found there, or without a folder, is
            named such as `league/season/match/1`.
    """
    data = []
    for video in events.videos:
        file = videos and find_video(videos, video.name, video.half)
        name = file.relative_to(videos).as_posix() if file else part_name(video)
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

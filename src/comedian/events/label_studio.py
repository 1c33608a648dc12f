"""Events in Label Studio's JSON: a list of tasks, as it exports them, and as it imports them with pre-annotations.

::

    [{"data": {"video": "friday.mp4", "fps": 25.0},
      "annotations": [{"result": [{"type": "timelinelabels", "from_name": "events", "to_name": "video",
                                   "value": {"ranges": [{"start": 1, "end": 1}], "timelinelabels": ["Goal"]}}]}]}]

Timeline labels and regions of a video count frames from 1; labels of `<Audio>` and `<Video>` with `start` and `end` have
seconds. Of a task, the first annotation that is not cancelled is read, and the predictions where there is none.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from comedian.events.events import (
    Event,
    EventSet,
    EventVideo,
    Problem,
    Reading,
    check_name,
    event_set,
    parse_event,
    parse_size,
    parse_split,
    parse_text,
    parse_time_ms,
    refuse,
)
from comedian.events.frames import frame_of, parse_frame, position_ms_of_frame
from comedian.events.one_video import media_name, note_ends, position_in_clip, rate_of
from comedian.events.soccernet_files import part_name, split_part_name, to_json
from comedian.files import atomic_write_text, read_json

# prefix that an upload adds to a file name
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
_TIMELINE = "timelinelabels"
_FROM_NAME, _TO_NAME = "events", "video"


def read_label_studio(
    path: str | Path, fps: float | None = None, lead_s: float = 0.0, problem: Problem = refuse
) -> EventSet:
    """Read Label Studio's JSON.

    Args:
        path: the file.
        fps: frame rate; None takes that in `data`, or by the `framesCount` and `duration` of a region.
        lead_s: seconds from a range's start to its event.
        problem: called with a one-line description of each problem; raises by default.

    Raises:
        InputError: the file cannot be read or has another form.
    """
    content, reading = read_json(path), Reading(path, problem)
    lead_ms = round(1000 * lead_s)
    tasks = reading.each(content, "", lambda item, place: _task(item, place, reading, fps, lead_ms))
    return event_set(tasks, (), reading.unread, path)


def _task(item: dict[str, Any], place: str, reading: Reading, fps: float | None, lead_ms: int) -> EventVideo:
    data = item.get("data")
    if not isinstance(data, dict):
        raise ValueError("`data` is missing; export as JSON, not as JSON-MIN")
    name, half = _name_of(data)
    results, key = _results(item, reading)
    rate = fps or parse_size(data, "fps") or _rate_of(results)
    clips: list[tuple[int, int | None]] = []

    def region(found: dict[str, Any], place: str) -> Event | None:
        value = found.get("value")
        if not isinstance(value, dict) or (label := _label_of(found, value)) is None:
            reading.unread.add(f"results of the type {found.get('type')!r}")
            return None
        clips.append(_clip_of(value, rate))
        meta = found.get("meta")
        notes = meta.get("text") if isinstance(meta, dict) else None
        comment = "\n".join(map(str, notes)) if isinstance(notes, list) else notes
        fields = {"label": label, "score": found.get("score") if key == "predictions" else None, "comment": comment}
        return parse_event(fields, position_in_clip(*clips[-1], lead_ms), place)

    events = reading.each(results, f"{place}.{key}.result", region)
    note_ends(reading, clips)
    return EventVideo(name, half, parse_split(data), rate, events=tuple(filter(None, events)))


def _results(item: dict[str, Any], reading: Reading) -> tuple[list[Any], str]:
    """Return the regions of a task that are used, and their key."""
    for key in ("annotations", "predictions"):
        listed = item.get(key)
        found = [
            one
            for one in (listed if isinstance(listed, list) else [])
            if isinstance(one, dict) and not one.get("was_cancelled")
        ]
        if found:
            if len(found) > 1:
                reading.unread.add(f"further {key} of a task")
            if key == "annotations" and item.get("predictions"):
                reading.unread.add("predictions of annotated tasks")
            return found[0].get("result", []), key
    return [], "annotations"


def _name_of(data: dict[str, Any]) -> tuple[str, int | None]:
    """Return the name and half of a task's video: the first entry of its data named `video` or similar, or with a URL."""
    keys = [key for key in ("video", "video_url", "url", "audio") if isinstance(data.get(key), str)]
    address = parse_text(data, keys[0]) if keys else ""
    if not address:
        raise ValueError(
            f"`data` has no `video`, only {', '.join(sorted(data)) or 'nothing'}; rename the field to `video`"
        )
    local = parse_qs(urlsplit(address).query).get("d")
    name = media_name(local[0] if local else address)
    if "/upload/" in address:
        name = _UPLOADED.sub("", Path(name).name, count=1)
    return split_part_name(check_name(name))


def _rate_of(results: Any) -> float | None:
    """Return the frame rate of a video region, computed from its numbers of frames and seconds."""
    for found in results if isinstance(results, list) else ():
        value = found.get("value") if isinstance(found, dict) else None
        if isinstance(value, dict):
            frames, duration_s = parse_size(value, "framesCount"), parse_size(value, "duration")
            if frames and duration_s:
                return frames / duration_s
    return None


def _label_of(found: dict[str, Any], value: dict[str, Any]) -> str | None:
    """Return the label of a region, or None for a result without a time."""
    if found.get("type") == "videorectangle" or "start" in value:
        labels = value.get("labels")
    else:
        labels = value.get(_TIMELINE)
    if labels is None:
        return None
    if not isinstance(labels, list) or len(labels) != 1:
        raise ValueError(f"a region has the labels {labels!r}; give it exactly one")
    return labels[0]


def _clip_of(value: dict[str, Any], rate: float | None) -> tuple[int, int | None]:
    """Return when a region begins and ends, in milliseconds."""
    if "start" in value:
        return parse_time_ms(value["start"], "start"), parse_time_ms(value.get("end", value["start"]), "end")
    frames = list(_frames_of(value))
    if rate is None:
        raise ValueError("it counts frames, and the frame rate is unknown; set `--fps`")
    start, end = (position_ms_of_frame(parse_frame(frame, 1), rate) for frame in (frames[0], frames[-1]))
    return start, end


def _frames_of(value: dict[str, Any]) -> Iterator[Any]:
    """Yield the first frame of a region, and its last one if it has one."""
    listed = value.get("ranges", value.get("sequence"))
    if not isinstance(listed, list) or not listed or not all(isinstance(item, dict) for item in listed):
        raise ValueError("`ranges` or `sequence` is not a list with an object; correct the region")
    if "ranges" in value and len(listed) > 1:
        raise ValueError(f"a region has {len(listed)} ranges; split it")
    yield listed[0].get("start", listed[0].get("frame"))
    if "end" in listed[0]:
        yield listed[0]["end"]


def write_label_studio(events: EventSet, path: str | Path) -> None:
    """Write tasks for Label Studio's import, one per video.

    The events of a video are written as pre-annotations (`predictions`) if one of them has a score, otherwise as an
    annotation. The project's configuration must have `<TimelineLabels name="events" toName="video">` and `<Video
    name="video" value="$video" framerate="..."/>` with the rate of the videos.

    Raises:
        InputError: a frame rate is unknown.
    """
    tasks = []
    for video in events.videos:
        fps = rate_of(video)
        data = {"video": part_name(video), "fps": fps} | ({"split": video.split} if video.split else {})
        results = [_result(event, number, fps) for number, event in enumerate(video.events, 1)]
        if any(event.score is not None for event in video.events):
            tasks.append({"data": data, "predictions": [{"model_version": "comedian", "result": results}]})
        else:
            tasks.append({"data": data, "annotations": [{"result": results}]})
    atomic_write_text(path, to_json(tasks))


def _result(event: Event, number: int, fps: float) -> dict[str, Any]:
    frame = frame_of(event.position_ms, fps) + 1
    result = {
        "id": f"event{number}",
        "type": _TIMELINE,
        "from_name": _FROM_NAME,
        "to_name": _TO_NAME,
        "value": {"ranges": [{"start": frame, "end": frame}], _TIMELINE: [event.label]},
    }
    result |= {"meta": {"text": [event.comment]}} if event.comment else {}
    return result if event.score is None else result | {"score": event.score}

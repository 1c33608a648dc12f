"""Files of events in any format: tell which it is, read it, write another, say what is lost.

`csv` and `json` are this package's own (`comedian.events.events`), `soccernet`, `soccernet-ball`, `e2e-spot` and `osl`
those of others (`comedian.events.soccernet_files`).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from comedian.errors import InputError
from comedian.events.e2e_spot import frame_of, read_e2e_spot, write_e2e_spot
from comedian.events.events import (
    EventSet,
    EventVideo,
    Problem,
    find_video,
    read_csv,
    read_event_json,
    refuse,
    write_csv,
    write_event_json,
)
from comedian.events.opensportslab import read_osl, write_osl
from comedian.events.soccernet_files import read_soccernet, write_soccernet
from comedian.files import read_json
from comedian.soccernet.annotations import NO_TEAM, VISIBLE
from comedian.soccernet.layout import LABEL_FILE_NAMES
from comedian.soccernet.splits import SPLIT_NAMES
from comedian.video.decoding import probe

BALL_FILE_NAME = LABEL_FILE_NAMES[1]

# format -> what it has a place for
HOLDS = {
    "csv": {"half", "split", "team", "visibility", "score", "comment"},
    "json": {"half", "split", "team", "visibility", "score", "comment", "fps", "duration_s", "labels"},
    "soccernet": {"half", "split", "team", "visibility", "labels"},
    "soccernet-ball": {"half", "split", "team", "visibility", "labels"},
    "e2e-spot": {"half", "split", "team", "visibility", "score", "comment", "fps", "duration_s", "labels"},
    "osl": {"half", "split", "team", "visibility", "score", "comment", "fps", "labels"},
}
FORMATS = tuple(HOLDS)
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx")


def detect_format(path: str | Path) -> str:
    """Tell the format of a file or folder by what it holds.

    Raises:
        InputError: it is not there, or is none of `FORMATS`.
    """
    path = Path(path)
    if path.is_dir():
        has_split_files = any((path / f"{split}.json").is_file() for split in SPLIT_NAMES)
        return "e2e-spot" if has_split_files else "soccernet"
    if path.suffix.lower() in TABLE_SUFFIXES:
        return "csv"
    content = read_json(path)
    if isinstance(content, list):
        return "e2e-spot"
    if isinstance(content, dict):
        videos = content.get("videos")
        first = videos[0] if isinstance(videos, list) and videos and isinstance(videos[0], dict) else {}
        if "annotations" in content or "predictions" in content:
            return "soccernet"
        if "data" in content or any(key.startswith("path") for key in first):
            return "osl"
        if "videos" in content:
            return "json"
    raise InputError(f"`{path}` is in no known format; known: {', '.join(FORMATS)}")


def read_events(
    path: str | Path, name: str | None = None, *, fps: float | None = None, problem: Problem = refuse
) -> EventSet:
    """Read a file or folder of events.

    Args:
        path: the file or folder.
        name: one of `FORMATS`; None finds out.
        fps: frames a second where events are counted in frames and the file tells no rate.
        problem: told in one line of everything that will not do, which is then left out; raises by default.

    Raises:
        InputError: it cannot be read.
    """
    readers: dict[str, Callable[..., EventSet]] = {
        "csv": read_csv,
        "json": read_event_json,
        "soccernet": read_soccernet,
        "soccernet-ball": partial(read_soccernet, file_name=BALL_FILE_NAME),
        "e2e-spot": partial(read_e2e_spot, fps=fps),
        "osl": read_osl,
    }
    return readers[name or detect_format(path)](path, problem=problem)


def write_events(events: EventSet, path: str | Path, name: str, videos: str | Path | None = None) -> None:
    """Write events in a format, whole or not at all.

    Args:
        events: what to write.
        path: the file; a folder for SoccerNet's formats, and for E2E-Spot's where it does not end in `.json`.
        name: one of `FORMATS`.
        videos: the videos' folder, for OpenSportsLab's paths.

    Raises:
        InputError: the format needs what is not told, or a file is in the way.
    """
    writers: dict[str, Callable[[EventSet, str | Path], None]] = {
        "csv": write_csv,
        "json": write_event_json,
        "soccernet": write_soccernet,
        "soccernet-ball": partial(write_soccernet, file_name=BALL_FILE_NAME),
        "e2e-spot": write_e2e_spot,
        "osl": partial(write_osl, videos=videos),
    }
    writers[name](events, path)


def measure(events: EventSet, videos: str | Path | None = None, fps: float | None = None) -> EventSet:
    """Complete rates and lengths by what the video files say.

    Args:
        events: what is known.
        videos: the videos' folder; videos that are not in it stay as they are.
        fps: a rate for all videos instead of their own.

    Raises:
        InputError: a video cannot be read.
    """
    measured = []
    for video in events.videos:
        file = videos and find_video(videos, video.name, video.half)
        if file:
            info = probe(file)
            video = replace(video, fps=info.fps, duration_s=info.duration_s)
        measured.append(replace(video, fps=fps or video.fps))
    return replace(events, videos=tuple(measured))


def lost_fields(events: EventSet, name: str, one_file: bool = True) -> list[str]:
    """Return what of `events` a format has no place for, in words.

    Args:
        events: what is to be written.
        name: one of `FORMATS`.
        one_file: of E2E-Spot: one file in all, which cannot tell splits.
    """
    used = {key for video in events.videos for key in ("half", "split", "fps", "duration_s") if getattr(video, key)}
    for event in (event for video in events.videos for event in video.events):
        told = {
            "team": event.team != NO_TEAM,
            "visibility": event.visibility != VISIBLE,
            "score": event.score is not None,
            "comment": event.comment,
        }
        used |= {key for key, is_told in told.items() if is_told}
    if list(events.labels) != sorted({event.label for video in events.videos for event in video.events}):
        used.add("labels")
    holds = HOLDS[name] - ({"split"} if name == "e2e-spot" and one_file else set())
    lost = sorted(used - holds)
    if name == "e2e-spot" and any(map(_is_between_frames, events.videos)):
        lost.append("times between frames")
    if name.startswith("soccernet") and any(video.half and not video.events for video in events.videos):
        lost.append("parts without an event, which their video tells of")
    return sorted(events.unread) + lost


def _is_between_frames(video: EventVideo) -> bool:
    starts = (round(1000 * frame_of(event.position_ms, video.fps) / video.fps) for event in video.events if video.fps)
    return any(start != event.position_ms for start, event in zip(starts, video.events, strict=False))

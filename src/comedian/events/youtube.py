"""Events as YouTube's chapters: lines of a video's description, a time in whole seconds and a title::

    0:00 Start
    12:34 Goal
    1:02:03 Corner

YouTube shows chapters where the first is at 0:00, there are three or more, and each is 10 seconds long or longer
(https://support.google.com/youtube/answer/9884579). So the chapter at 0:00 stands for the video's beginning, not for an
event.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from comedian.errors import InputError
from comedian.events.events import Event, EventSet, EventVideo, Problem, Reading, parse_event, parse_time_ms, refuse
from comedian.events.one_video import read_one_video_files, write_one_video_files
from comedian.files import atomic_write_text, read_text

SUFFIX = ".txt"
MIN_CHAPTER_MS = 10_000
_FIRST = "0:00 Start"
CHAPTER = re.compile(r"\W*((?:[0-9]{1,2}:)?[0-9]{1,3}:[0-5][0-9])\)?\s*[-–—:|]?\s+(\S.*)")


def read_youtube(path: str | Path, problem: Problem = refuse) -> EventSet:
    """Read chapters from a text, such as a video's description, or from a folder with one a video.

    Raises:
        InputError: a file cannot be read.
    """
    return read_one_video_files(path, SUFFIX, _parse_file, problem)


def _parse_file(path: Path, reading: Reading) -> tuple[EventVideo, Sequence[str]]:
    def event(match: re.Match, place: str) -> Event | None:
        position_ms = parse_time_ms(match[1], "time")
        if not position_ms:
            reading.unread.add("the chapter at 0:00")
            return None
        return parse_event({"label": match[2]}, position_ms, place)

    found = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if match := CHAPTER.fullmatch(line.strip()):
            found.append((f"line {number}", match))
        elif line.strip():
            reading.unread.add("lines that are no chapters")
    events = reading.collect(found, event)
    return EventVideo("", events=tuple(filter(None, events))), ()


def write_youtube(events: EventSet, path: str | Path) -> None:
    """Write chapters, each from the whole second before its event on; several videos are a folder with a file each.

    Raises:
        InputError: there are several videos for one file.
    """
    for video in events.videos:
        if video.events and video.events[0].position_ms < 1000:
            name = video.events[0].label
            raise InputError(
                f"{name!r} is in the first second of `{video.name}`, where the chapter of the beginning is; leave it out"
            )
    write_one_video_files(events, path, SUFFIX, _write_file)


def _write_file(video: EventVideo, path: Path, name: str) -> None:
    lines = [_FIRST, *(f"{_clock(event.position_ms)} {event.label}" for event in video.events)]
    atomic_write_text(path, "\n".join(lines) + "\n")


def _clock(position_ms: int) -> str:
    minutes, seconds = divmod(position_ms // 1000, 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"


def short_chapters(video: EventVideo) -> bool:
    """Whether YouTube shows none of a video's chapters, as one is too short or there are less than three."""
    starts = [0, *(event.position_ms // 1000 * 1000 for event in video.events)]
    return len(starts) < 3 or any(later - start < MIN_CHAPTER_MS for start, later in zip(starts, starts[1:]))

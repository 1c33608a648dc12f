"""Events as markers in an edit decision list (EDL, CMX 3600), as DaVinci Resolve exports and imports timeline markers.

A marker is an event of a frame, and a line with a note, a colour, a name and a duration in frames::

    TITLE: friday
    FCM: NON-DROP FRAME

    001  001      V     C        00:12:34:05 00:12:34:06 00:12:34:05 00:12:34:06
    header |C:ResolveColorBlue |M:Goal |D:1

The name is the label of the event, the note its comment. Timecodes start at the start timecode of the timeline, in
Resolve 01:00:00:00 by default. The file has no frame rate.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from comedian.errors import CONTROL, InputError
from comedian.events.events import Event, EventSet, EventVideo, Problem, Reading, parse_event, refuse
from comedian.events.frames import (
    START_TIMECODE,
    frame_of,
    frame_of_timecode,
    is_drop_frame,
    position_ms_of_frame,
    timecode_of,
)
from comedian.events.one_video import rate_of, read_one_video_files, write_one_video_files
from comedian.files import atomic_write_text, read_text

SUFFIX = ".edl"
# number, reel, track, kind of edit, optional duration; then source in and out, record in and out
_EDIT = re.compile(r"[0-9]+\s+\S+\s+\S+\s+\S+(?:\s+[0-9]+)?((?:\s+[0-9]{1,2}[:;][0-9:;.,]+){4})\s*")
_MARKER = re.compile(r"(?P<note>[^|]*)\|C:[^|]*\|M:(?P<name>[^|]*)\|D:\s*(?P<frames>[0-9]+)\s*")


def read_edl(
    path: str | Path, fps: float | None = None, start_timecode: str = START_TIMECODE, problem: Problem = refuse
) -> EventSet:
    """Read the markers of an EDL, or of a folder with one per video.

    Args:
        path: the file or folder.
        fps: the timeline's frames per second, which the file does not contain.
        start_timecode: that of the video's first frame.
        problem: called with a one-line description of each problem; raises by default.

    Raises:
        InputError: a file cannot be read or has no marker, `fps` is None, or `start_timecode` is not a timecode.
    """
    parse = partial(_parse_file, fps=fps, start_timecode=start_timecode)
    return read_one_video_files(path, SUFFIX, parse, problem)


def _parse_file(
    path: Path, reading: Reading, fps: float | None, start_timecode: str
) -> tuple[EventVideo, Sequence[str]]:
    lines = read_text(path).splitlines()
    if fps is None:
        raise InputError(f"`{path}` counts frames and contains no frame rate; set `--fps`")
    first = first_frame(start_timecode, fps)
    drops = any(re.match(r"FCM:\s*DROP", line) for line in lines)

    def event(found: tuple[str, re.Match], place: str) -> Event:
        timecode, marker = found
        frame = frame_of_timecode(timecode, fps, drops) - first
        if int(marker["frames"]) > 1:
            reading.unread.add("durations of markers")
        fields = {"label": marker["name"], "comment": marker["note"]}
        return parse_event(fields, position_after_start(frame, timecode, start_timecode, fps), place)

    events = reading.collect(_markers(lines, reading), event)
    return EventVideo("", None, None, fps, events=tuple(events)), ()


def _markers(lines: Sequence[str], reading: Reading) -> Iterator[tuple[str, tuple[str, re.Match]]]:
    """Yield the line of each marker, the timecode of its record in, and its name and note."""
    timecode = None
    for number, line in enumerate(lines, 1):
        if edit := _EDIT.fullmatch(line):
            timecode = edit[1].split()[2]
        elif (marker := _MARKER.fullmatch(line)) and timecode:
            yield f"line {number}", (timecode, marker)
        elif line.strip() and not line.startswith(("TITLE:", "FCM:")):
            reading.unread.add("lines that are no markers")


def first_frame(start_timecode: str, fps: float) -> int:
    """Return the frame number of the start timecode.

    Raises:
        InputError: it is not a timecode.
    """
    try:
        return frame_of_timecode(start_timecode, fps)
    except ValueError as error:
        raise InputError(f"`--start-timecode`: {error}") from None


def position_after_start(frame: int, timecode: str, start_timecode: str, fps: float) -> int:
    """Return milliseconds for a frame number, relative to the first frame of the video.

    Raises:
        ValueError: it is before it, or the time is a day or more.
    """
    if frame < 0:
        raise ValueError(
            f"the timecode {timecode} is before the start timecode {start_timecode}; correct `--start-timecode`"
        )
    return position_ms_of_frame(frame, fps)


def write_edl(events: EventSet, path: str | Path, start_timecode: str = START_TIMECODE) -> None:
    """Write an EDL of markers; several videos are written as a folder with one file per video.

    Timecodes are drop-frame if `start_timecode` is, with a semicolon before its frames.

    Raises:
        InputError: a frame rate is unknown, there are several videos for one file, a text contains characters that an
            EDL cannot store, or `start_timecode` is not a timecode.
    """
    for video in events.videos:
        rate_of(video)
        for event in video.events:
            texts = (event.label, event.comment)
            if found := next((text for text in texts if "|" in text or CONTROL.search(text)), None):
                raise InputError(
                    f"{found[:60]!r} has a `|`, several lines or control characters, which an EDL cannot store; change it"
                )
    write_one_video_files(events, path, SUFFIX, partial(_write_file, start_timecode=start_timecode))


def _write_file(video: EventVideo, path: Path, name: str, start_timecode: str) -> None:
    fps = rate_of(video)
    first, drops = first_frame(start_timecode, fps), is_drop_frame(start_timecode)
    lines = [f"TITLE: {name}", f"FCM: {'DROP' if drops else 'NON-DROP'} FRAME", ""]
    for number, event in enumerate(video.events, 1):
        frame = first + frame_of(event.position_ms, fps)
        times = f"{timecode_of(frame, fps, drops)} {timecode_of(frame + 1, fps, drops)}"
        lines.append(f"{number:03d}  001      V     C        {times} {times}")
        lines += [f"{event.comment} |C:ResolveColorBlue |M:{event.label} |D:1", ""]
    atomic_write_text(path, "\n".join(lines) + "\n")

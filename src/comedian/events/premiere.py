"""Events as Adobe Premiere Pro's markers, in the CSV that it exports: tabs between cells, timecodes of a sequence::

    Marker Name  Description  In           Out          Duration     Marker Type
    Goal         header       00:12:34:05  00:12:34:05  00:00:00:00  Comment

The name is the event's label, the description its comment. The file has no rate.
"""

import csv
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from comedian.errors import InputError
from comedian.events.edl import first_frame, position_after_start
from comedian.events.events import Event, EventSet, EventVideo, Problem, Reading, parse_event, refuse
from comedian.events.frames import START_TIMECODE, frame_of, frame_of_timecode, is_drop_frame, timecode_of
from comedian.events.one_video import rate_of, read_one_video_files, write_one_video_files
from comedian.events.tables import read_table
from comedian.files import atomic_write_text

SUFFIX = ".csv"
# spelled as in `Table.columns`
MARKER_COLUMNS = ("marker_name", "in")
_HEADER = ("Marker Name", "Description", "In", "Out", "Duration", "Marker Type")


def read_premiere(
    path: str | Path, fps: float | None = None, start_timecode: str = START_TIMECODE, problem: Problem = refuse
) -> EventSet:
    """Read Premiere's CSV of markers, or a folder with one per video.

    Args:
        path: the file or folder.
        fps: frame rate of the sequence, which the file does not contain.
        start_timecode: that of the video's first frame.
        problem: called with a one-line description of each problem; raises by default.

    Raises:
        InputError: a file cannot be read or is not such a table, `fps` is None, or `start_timecode` is not a timecode.
    """
    parse = partial(_parse_file, fps=fps, start_timecode=start_timecode)
    return read_one_video_files(path, SUFFIX, parse, problem)


def _parse_file(
    path: Path, reading: Reading, fps: float | None, start_timecode: str
) -> tuple[EventVideo, Sequence[str]]:
    table = read_table(path, (*MARKER_COLUMNS, "description"))
    try:
        columns = table.columns((*MARKER_COLUMNS, "description", "out"))
    except ValueError as error:
        raise InputError(f"`{path}`, line 1: {error}") from None
    if not set(MARKER_COLUMNS) <= columns.keys():
        raise InputError(f"`{path}` is not in Premiere's format: it has no columns `Marker Name` and `In`")
    if fps is None:
        raise InputError(f"`{path}` counts frames and contains no frame rate; set `--fps`")
    first = first_frame(start_timecode, fps)

    def event(row: Any, place: str) -> Event:
        if isinstance(row, str):
            raise ValueError(row)
        frame = frame_of_timecode(row["in"], fps) - first
        if row.get("out") not in (None, "", row["in"]):
            reading.unread.add("durations of markers")
        fields = {"label": row["marker_name"], "comment": row.get("description", "")}
        return parse_event(fields, position_after_start(frame, row["in"], start_timecode, fps), place)

    events = reading.collect(((f"line {line}", row) for line, row in table.cells(columns)), event)
    return EventVideo("", None, None, fps, events=tuple(events)), ()


def write_premiere(events: EventSet, path: str | Path, start_timecode: str = START_TIMECODE) -> None:
    """Write Premiere's CSV of markers; several videos are written as a folder with one file per video.

    Timecodes are drop-frame if `start_timecode` is, with a semicolon before its frames.

    Raises:
        InputError: a frame rate is unknown, there are several videos for one file, or `start_timecode` is not a timecode.
    """
    for video in events.videos:
        rate_of(video)
    write_one_video_files(events, path, SUFFIX, partial(_write_file, start_timecode=start_timecode))


def _write_file(video: EventVideo, path: Path, name: str, start_timecode: str) -> None:
    fps = rate_of(video)
    first, drops, text = first_frame(start_timecode, fps), is_drop_frame(start_timecode), io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(_HEADER)
    for event in video.events:
        timecode = timecode_of(first + frame_of(event.position_ms, fps), fps, drops)
        writer.writerow([event.label, event.comment, timecode, timecode, timecode_of(0, fps, drops), "Comment"])
    atomic_write_text(path, text.getvalue())

"""Events in the CSV that LongoMatch exports: the events of each category under a line with its name::

    CATEGORY: Goal
    Goal 1;0:12:34,200;0:12:44,200;LOCAL;1;0

Cells are the event's name, its start and stop, the team and, for each of the category's tags, 1 or 0. It is read only:
LongoMatch itself reads Sportscode's XML (`comedian.events.sportscode`), and exports it, too.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from comedian.errors import InputError
from comedian.events.events import Event, EventSet, EventVideo, Problem, Reading, parse_event, parse_time_ms, refuse
from comedian.events.one_video import note_ends, position_in_clip, read_one_video_files
from comedian.files import read_text

SUFFIX = ".csv"
CATEGORY = re.compile(r"CATEGORY: (.+)")
# columns
_TIMES = ((1, "Start"), (2, "Stop"))
_TEAMS = {"LOCAL": "home", "VISITOR": "away", "NONE": "", "BOTH": ""}


def read_longomatch(path: str | Path, lead_s: float = 0.0, problem: Problem = refuse) -> EventSet:
    """Read LongoMatch's CSV, or a folder with one a video.

    Args:
        path: the file or folder.
        lead_s: seconds from an event's start to what happened.
        problem: told of everything that will not do; raises by default.

    Raises:
        InputError: a file cannot be read or has another form.
    """
    return read_one_video_files(path, SUFFIX, partial(_parse_file, lead_ms=round(1000 * lead_s)), problem)


def _parse_file(path: Path, reading: Reading, lead_ms: int) -> tuple[EventVideo, Sequence[str]]:
    labels, rows, clips = [], [], []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if match := CATEGORY.fullmatch(line.strip()):
            labels.append(match[1])
        elif line.strip():
            rows.append((f"line {number}", (labels[-1] if labels else None, line)))
    if not labels:
        raise InputError(f"`{path}` is not in LongoMatch's format; it has no line such as `CATEGORY: Goal`")

    def event(found: tuple[str | None, str], place: str) -> Event:
        label, line = found
        cells = [cell.strip() for cell in line.split(";")]
        if label is None or len(cells) < 4:
            raise ValueError(f"{line[:60]!r} is no event; expected `Name;Start;Stop;Team` under a category")
        start_ms, stop_ms = (parse_time_ms(cells[index].replace(",", "."), key) for index, key in _TIMES)
        clips.append((start_ms, stop_ms))
        if any(cell not in ("", "0") for cell in cells[4:]):
            reading.unread.add("tags")
        fields = {"label": label, "comment": cells[0], "team": _TEAMS.get(cells[3].upper(), cells[3])}
        return parse_event(fields, position_in_clip(start_ms, stop_ms, lead_ms), place)

    events = reading.collect(rows, event)
    note_ends(reading, clips)
    return EventVideo("", events=tuple(events)), list(dict.fromkeys(labels))

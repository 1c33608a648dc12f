"""Events of any data set, and the two file formats of this package, CSV and JSON.

The CSV has a header and one event per row; only the first three columns are required::

    video,label,time_s,half,team,visibility,score,comment,split
    friday.mp4,Goal,754.2,,home,visible,,header,train
    cup/final,Corner,12:34,2,,,,,validation
    monday.mp4,,

The JSON has the same fields, and fields of videos and of the whole data set::

    {"labels": ["Corner", "Goal"],
     "videos": [{"video": "friday.mp4", "split": "train", "fps": 25.0, "duration_s": 5400.0,
                 "events": [{"label": "Goal", "time_s": 754.2, "team": "home", "comment": "header"}]},
                {"video": "monday.mp4", "events": []}]}

`video` is a file, or a folder of parts as SoccerNet has it (`1.mp4`, `2.mp4` ...), and then `half` is the number of
the part. Times count from the start of the video or part, in seconds, `m:ss` or `h:mm:ss`, and are kept to the
millisecond. A video that is listed without an event has no events.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from comedian.errors import CONTROL, MAX_POSITION_MS, InputError
from comedian.events.tables import Table, read_table
from comedian.files import atomic_write_text, comparable, existing, read_json
from comedian.soccernet.annotations import NO_TEAM, VISIBILITIES, VISIBLE
from comedian.soccernet.labels import check_label_list
from comedian.soccernet.layout import MAX_HALVES, VIDEO_SUFFIXES, find_halves
from comedian.soccernet.splits import split_name

COLUMNS = ("video", "label", "time_s")
EVENT_FIELDS = ("label", "team", "visibility", "score", "comment")
# instead of `time_s`
TIME_COLUMNS = ("time_ms", "hour", "minute", "second")
# columns of `comedian spot --csv` that repeat the time
DERIVED_COLUMNS = ("game_time",)
OPTIONAL_COLUMNS = ("half", "team", "visibility", "score", "comment", "split")

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_CLOCK = re.compile(r"(?:([0-9]+):(?=[0-5]?[0-9]:))?([0-9]+):([0-5][0-9](?:\.[0-9]*)?)")

# maximum of a frame rate, or of a duration in seconds or frames
MAX_SIZE = 1e9

EMPTY: tuple = (None, "", [], {})

Problem = Callable[[str], None]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Event:
    """One event of a video.

    Attributes:
        label: what happened.
        position_ms: milliseconds from the start of the video.
        team: `home`, `away`, `left`, `right`, any name, or `not applicable`.
        visibility: `visible` or `not shown`.
        score: of a prediction, else None.
        comment: free text.
        source: its position in the file, such as `line 3`; ignored in comparisons.
    """

    label: str
    position_ms: int
    team: str = NO_TEAM
    visibility: str = VISIBLE
    score: float | None = None
    comment: str = ""
    source: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class EventVideo:
    """One video, or one part of a match, and its events.

    Attributes:
        name: a video's file, or a match's folder; relative, with forward slashes.
        half: which part of the folder, from 1; None where `name` is one video.
        split: `train`, `validation`, `test`, ... or None.
        fps: frame rate in the file, or None.
        duration_s: duration in the file, in seconds, or None.
        events: by time.
    """

    name: str
    half: int | None = None
    split: str | None = None
    fps: float | None = None
    duration_s: float | None = None
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class EventSet:
    """Content of a file or folder of events.

    Attributes:
        videos: in the file's order.
        labels: the list of labels in the file, or the labels that occur, sorted.
        unread: names of fields in the file that are not supported here; ignored in comparisons.
    """

    videos: tuple[EventVideo, ...]
    labels: tuple[str, ...]
    unread: frozenset[str] = field(default=frozenset(), compare=False)


def refuse(message: str) -> None:
    """Raise a problem as `InputError`: the default handler of problems."""
    raise InputError(message)


def event_set(
    videos: Iterable[EventVideo], labels: Sequence[str] = (), unread: Iterable[str] = (), source: str | Path = ""
) -> EventSet:
    """Join the entries of each video, sort events by time, and complete the labels by those that are not listed.

    Raises:
        InputError: a label is listed twice, or a video with two splits, rates or durations; `source` names the file.
    """
    check_label_list(labels, f"`{source}`")
    joined: dict[tuple[str, int | None], EventVideo] = {}
    for video in videos:
        part = video.name, video.half
        joined[part] = _join(joined[part], video, source) if part in joined else video
    by_time = tuple(
        replace(video, events=tuple(sorted(video.events, key=lambda event: event.position_ms)))
        for video in joined.values()
    )
    unlisted = {event.label for video in by_time for event in video.events}.difference(labels)
    return EventSet(by_time, (*labels, *sorted(unlisted)), frozenset(unread))


def _join(first: EventVideo, second: EventVideo, source: str | Path) -> EventVideo:
    """Return one video for two entries of it."""
    told: dict[str, Any] = {}
    for name in ("split", "fps", "duration_s"):
        values = {value for video in (first, second) if (value := getattr(video, name)) is not None}
        if len(values) > 1:
            where = f"`{source}`: " if source else ""
            found = " and ".join(sorted(map(str, values)))
            raise InputError(f"{where}`{first.name}` is listed twice, with the `{name}` {found}; correct one of them")
        told[name] = values.pop() if values else None
    return replace(first, **told, events=first.events + second.events)


def keep_labels(events: EventSet, labels: Sequence[str]) -> EventSet:
    """Remove the events with other labels; the videos are kept."""
    videos = (
        replace(video, events=tuple(event for event in video.events if event.label in labels))
        for video in events.videos
    )
    return EventSet(tuple(videos), tuple(labels), events.unread)


def keep_scores(events: EventSet, min_score: float) -> EventSet:
    """Remove the predictions whose score is below `min_score`, and labels that no longer occur.

    Events without a score, the videos, and labels without events are kept.
    """
    videos = tuple(
        replace(
            video, events=tuple(event for event in video.events if event.score is None or event.score >= min_score)
        )
        for video in events.videos
    )
    before, after = ({event.label for video in listed for event in video.events} for listed in (events.videos, videos))
    labels = tuple(label for label in events.labels if label in after or label not in before)
    return EventSet(videos, labels, events.unread)


def score_note(events: EventSet, min_score: float | None) -> str | None:
    """Return a note on the predictions among events that are used as labels; None without predictions."""
    all_events = [event for video in events.videos for event in video.events]
    scores = [event.score for event in all_events if event.score is not None]
    if not scores:
        return None
    counted = f"{len(scores)} of {len(all_events)} events are predictions with scores"
    if min_score is None:
        return (
            f"{counted} from {min(scores):.2f} to {max(scores):.2f}, and all of them are used as labels; skip those "
            "below a score with `--min-score`, or review them with `comedian label --events`"
        )
    return f"{counted}; {sum(score < min_score for score in scores)} with a score below {min_score:g} are omitted"


def name_video(events: EventSet, name: str) -> EventSet:
    """Return the events of one video or match, renamed.

    Raises:
        ValueError: there are several videos.
    """
    if len(names := {video.name for video in events.videos}) > 1:
        raise ValueError(f"it has events of {len(names)} videos; remove `--video`, which names one")
    return replace(events, videos=tuple(replace(video, name=check_name(name)) for video in events.videos))


def parse_event(fields: Mapping[str, Any], position_ms: int, source: str = "") -> Event:
    """Create an event from the fields `label`, `team`, `visibility`, `score` and `comment`; None means empty.

    Raises:
        ValueError: a field is invalid; the message continues `file, place:`.
    """
    visibility = parse_text(fields, "visibility") or VISIBLE
    if visibility not in VISIBILITIES:
        raise ValueError(f"`visibility` is {visibility!r}; expected 'visible' or 'not shown'")
    score = fields.get("score")
    try:
        score = None if score in (None, "") else math.nan if isinstance(score, bool) else float(score)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if score is not None and not math.isfinite(score):
        raise ValueError(f"`score` is {fields['score']!r}; expected a number; otherwise rename the column")
    label = parse_text(fields, "label")
    if not label:
        raise ValueError("`label` is empty; write what happened")
    if CONTROL.search(label):
        raise ValueError(f"`label` is {label!r}; a label is one line without control characters")
    team, comment = parse_text(fields, "team") or NO_TEAM, parse_text(fields, "comment")
    return Event(label, position_ms, team, visibility, score, comment, source)


def parse_text(fields: Mapping[str, Any], key: str) -> str:
    """Return the text under `key`, without spaces around it; empty where there is none.

    Raises:
        ValueError: the value has another type.
    """
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"`{key}` is {value!r}; expected text")
    return (value or "").strip()


def parse_time_ms(value: Any, key: str = "time_s") -> int:
    """Return milliseconds for seconds, `m:ss` or `h:mm:ss`.

    Raises:
        ValueError: the time is invalid, or a day or more.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    text = f"{value:.6f}" if is_number and value < MAX_POSITION_MS else str(value).strip()
    if match := _CLOCK.fullmatch(text):
        hours, minutes, seconds = match.groups()
        time_s = 3600 * float(hours or 0) + 60 * float(minutes) + float(seconds)
    elif _SECONDS.fullmatch(text):
        time_s = float(text)
    else:
        raise ValueError(f"`{key}` is {value!r}; write seconds from the video's start, `mm:ss` or `hh:mm:ss`")
    if 1000 * time_s >= MAX_POSITION_MS:
        raise ValueError(f"`{key}` is {value!r}, a day or more; write seconds from the video's start")
    return round(1000 * time_s)


def parse_half(value: Any) -> int | None:
    """Return the number of a part, or None if there is none.

    Raises:
        ValueError: it is not a whole number from 1 to 99.
    """
    if value is None or value == "":
        return None
    if not re.fullmatch(r"[1-9][0-9]?", str(value)):
        raise ValueError(f"`half` is {value!r}; expected a whole number from 1 to {MAX_HALVES}")
    return int(value)


def parse_split(fields: Mapping[str, Any]) -> str | None:
    """Return this package's name of the split, or None if there is none.

    Raises:
        ValueError: it is not a valid name.
    """
    name = parse_text(fields, "split")
    if name and not re.fullmatch(r"\w+", name):
        raise ValueError(f"`split` is {name!r}; use train, validation, test or challenge")
    return split_name(name) or None


def read_csv(path: str | Path, problem: Problem = refuse, video: str | None = None) -> EventSet:
    """Read a table of events: the CSV of this module, or one with other delimiters, encodings and headers.

    Headers are case-insensitive, and the required ones have aliases, such as `file`, `event`, `timestamp` or `time_ms`;
    the time may be in the columns `minute` and `second`. See `comedian.events.tables` for the supported tables.
    Unknown columns are ignored. A table without a video column, as written by `comedian spot --csv`, belongs to one video.

    Args:
        path: the file.
        problem: called with a one-line description of each invalid row, which is then skipped; raises by default.
        video: the video of a table without a video column; None takes the file name without its extension.

    Raises:
        InputError: the file cannot be read, a column is missing, or two columns have the same meaning.
    """
    table = read_table(path, (*COLUMNS, *TIME_COLUMNS))
    videos: dict[tuple[str, int | None], list[Event]] = {}
    splits: dict[tuple[str, int | None], str] = {}
    try:
        columns = table.columns((*COLUMNS, *OPTIONAL_COLUMNS))
        if "time_s" not in columns:
            columns |= _time_columns(table)
        if missing := [
            name
            for name in COLUMNS
            if name not in columns
            and not (name == "time_s" and _has_time(columns))
            and not (name == "video" and _is_of_one_video(table))
        ]:
            found = ", ".join(f"`{name}`" for name in table.header) or "nothing"
            absent = " and no column ".join(f"`{name}`" for name in missing)
            raise ValueError(f"no column {absent}; the first line must be `{','.join(COLUMNS)}`, and is {found:.200}")
    except ValueError as error:
        raise InputError(f"`{path}`, line 1: {error}") from None
    for line, row in table.cells(columns):
        source = f"line {line}"
        try:
            if isinstance(row, str):
                raise ValueError(row)
            part, event, split = _read_row({"video": video or Path(path).stem} | row, table, source)
            if split and splits.setdefault(part, split) != split:
                raise ValueError(
                    f"`split` of `{part[0]}` is {split}, but {splits[part]} above; a video belongs to one split"
                )
            videos.setdefault(part, []).extend([event] if event else [])
        except InputError:
            raise
        except ValueError as error:
            problem(f"`{path}`, {source}: {error}")
    known = {*columns.values(), *table.columns(DERIVED_COLUMNS).values()}
    unread = {name for index, name in enumerate(table.header) if name and index not in known}
    parts = (EventVideo(*part, splits.get(part), events=tuple(events)) for part, events in videos.items())
    return event_set(parts, unread=unread)


def _time_columns(table: Table) -> dict[str, int]:
    """Return the columns of milliseconds, or of hours, minutes and seconds; a column of seconds without minutes is a
    time in seconds."""
    found = table.columns(TIME_COLUMNS)
    if "time_ms" in found:
        return {"time_ms": found["time_ms"]}
    if "minute" not in found and "second" in found:
        return {"time_s": found["second"]}
    return found


def _is_of_one_video(table: Table) -> bool:
    """Whether a table was written by `comedian spot --csv` or the report page, which have no video column."""
    return table.columns(DERIVED_COLUMNS).keys() == set(DERIVED_COLUMNS)


def _has_time(columns: Mapping[str, int]) -> bool:
    return "time_ms" in columns or {"minute", "second"} <= columns.keys()


def _read_row(
    row: Mapping[str, str], table: Table, source: str
) -> tuple[tuple[str, int | None], Event | None, str | None]:
    row = {**row, "score": table.number(row.get("score", ""))}
    part = parse_name(row), parse_half(parse_text(row, "half"))
    has_time = any(row.get(name) for name in ("time_s", *TIME_COLUMNS))
    event = parse_event(row, _row_time_ms(row, table), source) if parse_text(row, "label") or has_time else None
    return part, event, parse_split(row)


def _row_time_ms(row: Mapping[str, str], table: Table) -> int:
    """Return the time of a row from its time columns."""
    if "time_s" in row:
        return parse_time_ms(table.number(row["time_s"]))
    if "time_ms" in row:
        text = table.number(row["time_ms"])
        if not _SECONDS.fullmatch(text) or float(text) >= MAX_POSITION_MS:
            raise ValueError(f"`time_ms` is {text!r}; write milliseconds from the video's start, less than a day")
        return round(float(text))
    hour, minute, second = (table.number(row.get(name, "")) for name in ("hour", "minute", "second"))
    hour = hour or "0"
    if not (hour.isdecimal() and minute.isdecimal() and _SECONDS.fullmatch(second) and float(second) < 60):
        raise ValueError(f"`minute` is {minute!r} and `second` {second!r}; write whole minutes, and seconds below 60")
    return parse_time_ms(f"{3600 * int(hour) + 60 * int(minute) + float(second):.6f}", "minute")


def write_csv(events: EventSet, path: str | Path) -> None:
    """Write the CSV of this module, without empty columns."""
    rows = [row for video in events.videos for row in _rows_of(video)]
    used = [column for column in OPTIONAL_COLUMNS if any(row[column] != "" for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *used], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write_text(path, text.getvalue())


def _rows_of(video: EventVideo) -> list[dict[str, Any]]:
    common: dict[str, Any] = dict.fromkeys((*COLUMNS, *OPTIONAL_COLUMNS), "")
    common |= {"video": video.name, "half": video.half or "", "split": video.split or ""}
    rows = [common | {"time_s": event.position_ms / 1000} | fields_of(event) for event in video.events]
    return rows or [common]


def fields_of(event: Event) -> dict[str, Any]:
    """Return the fields of an event for a file, without its time and without default values."""
    fields = {"label": event.label, "team": event.team, "visibility": event.visibility, "comment": event.comment}
    usual = {"team": NO_TEAM, "visibility": VISIBLE, "comment": ""}
    fields = {key: value for key, value in fields.items() if value != usual.get(key)}
    return fields if event.score is None else fields | {"score": event.score}


@dataclass
class Reading:
    """A JSON file that is being read.

    Attributes:
        path: the file.
        problem: called with a one-line description of each invalid entry, which is then skipped.
        unread: names of the fields that are not supported here.
    """

    path: str | Path
    problem: Problem = refuse
    unread: set[str] = field(default_factory=set)

    def each(self, items: Any, source: str, parse: Callable[[dict[str, Any], str], Item]) -> list[Item]:
        """Parse each object of a list with `parse(object, its place)`; a `ValueError` is reported as a problem."""

        def parse_object(item: Any, place: str) -> Item:
            if not isinstance(item, dict):
                raise ValueError(f"expected an object, found {item!r:.40}")
            return parse(item, place)

        if not isinstance(items, list):
            self.problem(f"`{self.path}`: `{source}` is {items!r:.40}; expected a list")
            return []
        return self.collect(((f"{source}[{index}]", item) for index, item in enumerate(items)), parse_object)

    def collect(self, items: Iterable[tuple[str, Any]], parse: Callable[[Any, str], Item]) -> list[Item]:
        """Parse each of some `(place, item)` with `parse(item, place)`; a `ValueError` is reported as a problem."""
        parsed = []
        for place, item in items:
            try:
                parsed.append(parse(item, place))
            except InputError:  # a problem of a nested field, which has been reported
                raise
            except ValueError as error:
                self.problem(f"`{self.path}`, {place}: {error}")
        return parsed

    def ignore(self, item: Mapping[str, Any], *known: str) -> None:
        """Record the non-empty fields of an object that are not `known`."""
        self.unread.update({key for key, value in item.items() if value not in EMPTY}.difference(known))


def read_event_json(path: str | Path, problem: Problem = refuse) -> EventSet:
    """Read the JSON of this module; `problem` as in `read_csv`.

    Raises:
        InputError: the file cannot be read or has another form.
    """
    content, reading = read_json(path), Reading(path, problem)

    def event(item: dict[str, Any], place: str) -> Event:
        reading.ignore(item, "time_s", *EVENT_FIELDS)
        return parse_event(item, parse_time_ms(item.get("time_s")), place)

    def video(item: dict[str, Any], place: str) -> EventVideo:
        reading.ignore(item, "video", "half", "split", "fps", "duration_s", "events")
        events = reading.each(item.get("events", []), f"{place}.events", event)
        return EventVideo(
            parse_name(item),
            parse_half(item.get("half")),
            parse_split(item),
            parse_size(item, "fps"),
            parse_size(item, "duration_s"),
            tuple(events),
        )

    if not isinstance(content, dict):
        raise InputError(f"`{path}` is in another format; see `comedian data --help` for the supported ones")
    reading.ignore(content, "videos", "labels")
    videos = reading.each(content.get("videos"), "videos", video)
    return event_set(videos, parse_labels(content.get("labels"), path), reading.unread, path)


def parse_name(fields: Mapping[str, Any]) -> str:
    """Return the name under `video`.

    Raises:
        ValueError: it is missing or invalid.
    """
    name = parse_text(fields, "video")
    if not name:
        raise ValueError("`video` is empty; write the name of the video's file")
    return check_name(name)


def check_name(name: str) -> str:
    """Return the name of a video in the form in which names are compared; `ValueError` for control characters."""
    if CONTROL.search(name):
        raise ValueError(f"a video is named {name!r}; names must not contain control characters")
    return comparable(name)


def parse_size(fields: Mapping[str, Any], key: str) -> float | None:
    """Return a positive number, or None if there is none.

    Raises:
        ValueError: the value has another type.
    """
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MAX_SIZE:
        raise ValueError(f"`{key}` is {value!r}; expected a number above 0 and below {MAX_SIZE:g}")
    return float(value)


def parse_labels(value: Any, path: str | Path) -> tuple[str, ...]:
    """Return the list of labels of a file.

    Raises:
        InputError: it is not a list of strings.
    """
    if value is not None and not (isinstance(value, list) and all(isinstance(label, str) for label in value)):
        raise InputError(f"`{path}`: `labels` is {value!r}; expected a list of strings")
    return tuple(value or ())


def write_event_json(events: EventSet, path: str | Path) -> None:
    """Write the JSON of this module."""
    videos = []
    for video in events.videos:
        fields = {
            **{"video": video.name, "half": video.half, "split": video.split},
            **{"fps": video.fps, "duration_s": video.duration_s},
        }
        listed = [{"time_s": event.position_ms / 1000} | fields_of(event) for event in video.events]
        videos.append({key: value for key, value in fields.items() if value is not None} | {"events": listed})
    content = {"labels": list(events.labels), "videos": videos}
    atomic_write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def find_video(folder: str | Path, name: str, half: int | None = None) -> Path | None:
    """Return the file of a video or part, or None if there is none.

    Args:
        folder: what `name` is relative to.
        name: a file, with or without its extension, or a folder of parts.
        half: which part; None if there is only one.

    Raises:
        InputError: `name` leads out of `folder`, or could be one of several files.
    """
    path = existing(folder, name)
    if path.is_dir():
        parts = find_halves(path)
        return parts.get(half) if half else next(iter(parts.values())) if len(parts) == 1 else None
    if half not in (None, 1):
        return None
    if path.is_file() or not path.parent.is_dir():
        return path if path.is_file() else None
    # cameras write endings in capital letters
    found = [
        file
        for file in sorted(path.parent.iterdir())
        if comparable(file.stem) == comparable(path.name) and file.suffix.lower() in VIDEO_SUFFIXES and file.is_file()
    ]
    if len(found) > 1:
        raise InputError(f"`{name}` may be `{found[0]}` or `{found[1]}`; write the name with its ending")
    return found[0] if found else None

"""A folder of videos and a CSV of events -> a data set in SoccerNet's layout, for every later step.

The CSV has a header and one event a row::

    video,label,time_s
    friday.mp4,Goal,754.2
    cup/final.mkv,Corner,12:34

`video` is relative to the folder, `time_s` counts from the video's start, in seconds, `mm:ss` or `hh:mm:ss`; other columns
do not count. Each video becomes a match of one half::

    OUTPUT/import.json                      where the data set comes from; marks a folder that may be written again
    OUTPUT/cup/final/1_final.mkv            a link to the video
    OUTPUT/cup/final/Labels-v2.json
    OUTPUT/labels.txt
    OUTPUT/splits.json                      written last
"""

import csv
import difflib
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from comedian.data.annotations import LABEL_FILE_NAMES, VIDEO_SUFFIXES, VISIBLE, Annotation, game_time
from comedian.data.decoding import probe
from comedian.data.soccernet import SPLITS_FILE_NAME
from comedian.errors import InputError
from comedian.files import atomic_path, atomic_write_text, inside, read_text

COLUMNS = ("video", "label", "time_s")
IMPORT_FILE_NAME, LABELS_FILE_NAME = "import.json", "labels.txt"

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?")
_CLOCK = re.compile(r"(?:([0-9]+):(?=[0-5]?[0-9]:))?([0-9]+):([0-5][0-9](?:\.[0-9]*)?)")


@dataclass(frozen=True)
class OwnVideos:
    """A data set that `import_videos` made.

    Attributes:
        root: its folder, in SoccerNet's layout.
        labels: in the order of `labels_path`.
        splits: `train` and `validation` -> their `video_id`s.
        events: `video_id` -> its events, by time.
        unlisted: videos of the folder that the CSV does not name and that were left out.
    """

    root: Path
    labels: tuple[str, ...]
    splits: Mapping[str, Sequence[str]]
    events: Mapping[str, Sequence[Annotation]]
    unlisted: tuple[str, ...]

    @property
    def labels_path(self) -> Path:
        """The file with one label a line."""
        return self.root / LABELS_FILE_NAME

    def count(self, split: str) -> Counter[str]:
        """Events of each label in a split."""
        return Counter(event.label for video_id in self.splits[split] for event in self.events[video_id])


def import_videos(
    videos: str | Path, events_csv: str | Path, output: str | Path, *, validation_share: float = 0.2, seed: int = 0
) -> OwnVideos:
    """Lay out videos and a CSV of their events as SoccerNet does; the videos are linked, not copied.

    All is read and checked before anything is written. The same call again changes nothing; after changes in the CSV it
    brings labels and splits up to date, and few videos change splits when others are added.

    Args:
        videos: the folder of the videos, at any depth.
        events_csv: see the module.
        output: the data set's folder; new, empty or of an earlier call.
        validation_share: share of the videos for validation, at least one of them.
        seed: which ones.

    Raises:
        InputError: a row, a video or a folder that will not do, in one line.
    """
    videos, events_csv, output = Path(videos), Path(events_csv), Path(output)
    if not videos.is_dir():
        raise InputError(f"`{videos}` is no folder; give the folder that holds the videos")
    events = _read_events(videos, events_csv)
    sources = _match_names(events, events_csv)
    if len(sources) < 2:
        raise InputError(f"`{events_csv}` has events of one video; training and validation need two or more")
    splits = _split(sorted(sources), validation_share, seed)
    _claim(output, {"videos": str(videos.absolute()), "events": str(events_csv.absolute()), "seed": seed})
    for video_id, name in sources.items():
        target = output / video_id / f"1_{Path(name).name}"
        _link(videos / name, target)
        annotations = [_entry(event) for event in events[name]]
        _write_json(target.with_name(LABEL_FILE_NAMES[0]), {"annotations": annotations})
    labels = tuple(sorted({event.label for of_video in events.values() for event in of_video}))
    atomic_write_text(output / LABELS_FILE_NAME, "".join(f"{label}\n" for label in labels))
    _write_json(output / SPLITS_FILE_NAME, splits)
    unlisted = _video_names(videos, output) - events.keys()
    by_match = {video_id: events[name] for video_id, name in sources.items()}
    return OwnVideos(output, labels, splits, by_match, tuple(sorted(unlisted)))


def _read_events(videos: Path, path: Path) -> dict[str, list[Annotation]]:
    """Return video -> events by time, all checked; videos are relative to their folder, with forward slashes."""
    reader = csv.DictReader(io.StringIO(read_text(path)), skipinitialspace=True)
    events: dict[str, list[Annotation]] = {}
    lengths_s: dict[str, float] = {}
    lines: dict[tuple[str, Annotation], int] = {}
    try:
        reader.fieldnames = [(name or "").strip() for name in reader.fieldnames or []]
        if missing := [name for name in COLUMNS if name not in reader.fieldnames]:
            raise ValueError(f"no column `{missing[0]}`; the first line must be `{','.join(COLUMNS)}`")
        for row in reader:
            name, label, time = ((row[column] or "").strip() for column in COLUMNS)
            name = _video_name(videos, name)
            if name not in lengths_s:
                lengths_s[name] = probe(videos / name).duration_s
            event = Annotation(_label(label), 1, _position_ms(time, name, lengths_s[name]), "not applicable", VISIBLE)
            if (first := lines.setdefault((name, event), reader.line_num)) != reader.line_num:
                raise ValueError(f"{label!r} at {time} in `{name}` stands in line {first} already; delete one")
            events.setdefault(name, []).append(event)
    except (ValueError, csv.Error) as error:
        raise InputError(f"`{path}`, line {max(reader.line_num, 1)}: {error}") from None
    if not events:
        raise InputError(f"`{path}` has no event; write one a line, such as `friday.mp4,Goal,12:34`")
    return {name: sorted(of_video, key=lambda event: event.position_ms) for name, of_video in events.items()}


def _video_name(videos: Path, name: str) -> str:
    if not name:
        raise ValueError("`video` is empty; write the name of the video's file")
    path = inside(videos, name)
    if not path.is_file():
        near = difflib.get_close_matches(name, _video_names(videos), n=1, cutoff=0.4)
        hint = f"did you mean `{near[0]}`?" if near else "give a name relative to that folder"
        raise ValueError(f"there is no video `{name}` in `{videos}`; {hint}")
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise ValueError(f"`{name}` does not end as a video does ({', '.join(sorted(VIDEO_SUFFIXES))}); convert it")
    parts = path.relative_to(videos).parts
    if any(part.startswith(".") for part in parts):
        raise ValueError(f"`{name}` is hidden, its name or a folder's begins with a dot; rename it")
    return "/".join(parts)


def _label(label: str) -> str:
    if not label:
        raise ValueError("`label` is empty; write what happened")
    if len(label.splitlines()) > 1:
        raise ValueError(f"`label` is {label!r}; a label is one line")
    return label


def _position_ms(text: str, name: str, length_s: float) -> int:
    if match := _CLOCK.fullmatch(text):
        hours, minutes, seconds = match.groups()
        time_s = 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds)
    elif _SECONDS.fullmatch(text):
        time_s = float(text)
    else:
        raise ValueError(f"`time_s` is {text!r}; write seconds from the video's start, `mm:ss` or `hh:mm:ss`")
    if time_s >= length_s:
        raise ValueError(f"{text} is after the end of `{name}`, which is {length_s:.1f} s long; mend the time")
    return round(1000 * time_s)


def _match_names(events: Mapping[str, Sequence[Annotation]], path: Path) -> dict[str, str]:
    """Return `video_id` -> video; the match's folder is named as the video without its ending."""
    sources: dict[str, str] = {}
    for name in sorted(events):
        video_id = os.path.splitext(name)[0]
        if (other := sources.setdefault(video_id, name)) != name:
            raise InputError(f"`{path}`: `{other}` and `{name}` differ in their ending alone; rename one")
    return sources


def _split(video_ids: Sequence[str], validation_share: float, seed: int) -> dict[str, list[str]]:
    """Choose by hashes of the names, so that a video that is added moves few others."""
    if not 0 < validation_share < 1:
        raise InputError(f"`validation_share` is {validation_share}; give a share between 0 and 1")
    count = min(max(round(validation_share * len(video_ids)), 1), len(video_ids) - 1)
    shuffled = sorted(video_ids, key=lambda video_id: hashlib.sha256(f"{seed}/{video_id}".encode()).digest())
    return {"train": sorted(shuffled[count:]), "validation": sorted(shuffled[:count])}


def _claim(output: Path, origin: Mapping[str, str | int]) -> None:
    """Make `output` a folder of ours, or make sure that it is one: no data set of others is written over."""
    is_new = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not is_new and not (output / IMPORT_FILE_NAME).is_file():
        raise InputError(f"`{output}` holds other things; give a new folder")
    _write_json(output / IMPORT_FILE_NAME, origin)


def _link(source: Path, target: Path) -> None:
    """Link hard, which outlives a move of the video, or softly where the file system has no hard links to it."""
    source = source.resolve()
    with atomic_path(target) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(source, partial)
        except OSError:
            partial.symlink_to(source)


def _entry(event: Annotation) -> dict[str, str]:
    return {
        "gameTime": game_time(event.half, event.position_ms),
        "label": event.label,
        "position": str(event.position_ms),
        "team": event.team,
        "visibility": event.visibility,
    }


def _video_names(videos: Path, output: Path | None = None) -> set[str]:
    """Return all videos of the folder, without those of `output`, which may lie in it."""
    found = (path for path in videos.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    return {
        path.relative_to(videos).as_posix()
        for path in found
        if output is None or not path.resolve().is_relative_to(output.resolve())
    }


def _write_json(path: Path, content: Mapping) -> None:
    atomic_write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

"""SoccerNet's files: label lists, annotations, predictions and the folder layout.

A match is a folder, `<league>/<season>/<match>` in SoccerNet, any depth elsewhere. It holds one video a half
(`1_224p.mkv`, `2_224p.mkv`) or, in ball action spotting, one video in all (`224p.mp4`), and a label file unless its
labels are kept back.
"""

import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comedian.errors import InputError
from comedian.files import atomic_write_text, read_json, read_text, walk

logger = logging.getLogger(__name__)

# The order is the official scorer's.
SOCCERNET_V2_LABELS = (
    "Penalty",
    "Kick-off",
    "Goal",
    "Substitution",
    "Offside",
    "Shots on target",
    "Shots off target",
    "Clearance",
    "Ball out of play",
    "Throw-in",
    "Foul",
    "Indirect free-kick",
    "Direct free-kick",
    "Corner",
    "Yellow card",
    "Red card",
    "Yellow->red card",
)
BALL_LABELS_2 = ("PASS", "DRIVE")
BALL_LABELS_12 = (
    "PASS",
    "DRIVE",
    "HEADER",
    "HIGH PASS",
    "OUT",
    "CROSS",
    "THROW IN",
    "SHOT",
    "BALL PLAYER BLOCK",
    "PLAYER SUCCESSFUL TACKLE",
    "FREE KICK",
    "GOAL",
)

# A match with several is read by the first of these.
LABEL_FILE_NAMES = ("Labels-v2.json", "Labels-ball.json", "Labels.json")
RESULTS_FILE_NAME = "results_spotting.json"

VISIBLE, NOT_SHOWN = "visible", "not shown"
VISIBILITIES = (VISIBLE, NOT_SHOWN)
NO_TEAM = "not applicable"

VIDEO_SUFFIXES = frozenset((".mkv", ".mp4", ".avi", ".mov", ".m4v", ".webm", ".ts", ".mpg", ".mpeg"))

# A position of a day or more is a wrong unit, and without a bound one would overflow the tables' integers.
MAX_POSITION_MS = 24 * 60 * 60 * 1000
MAX_HALVES = 99
# what SoccerNet's own scorer holds
OFFICIAL_HALVES = (1, 2)
OFFICIAL_HALF_LENGTH_MS = 120 * 60 * 1000

# What breaks a line or gives orders to a terminal; no label has it.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_GAME_TIME = re.compile(r"([1-9][0-9]?) *- *([0-9]{1,4}):([0-5][0-9])")
_HALF_VIDEO = re.compile(r"([1-9][0-9]?)(?:_(.+))?")  # 1, 1_224p, 2_HQ
_WHOLE_VIDEO = re.compile(r"[0-9]+p|HQ")  # 224p: ball action spotting


@dataclass(frozen=True)
class Annotation:
    """One ground-truth event.

    Attributes:
        label: what happened.
        half: from 1.
        position_ms: milliseconds from the start of the half's video.
        team: `home`, `away`, `left`, `right` or `not applicable`.
        visibility: `visible` or `not shown` (the camera was elsewhere).
    """

    label: str
    half: int
    position_ms: int
    team: str
    visibility: str

    @property
    def timestamp_s(self) -> float:
        """Seconds from the start of the half's video."""
        return self.position_ms / 1000


def read_label_list(path: str | Path) -> tuple[str, ...]:
    """Read a label list: one label a line, in the order of the model's outputs; blank lines do not count.

    Raises:
        InputError: the file cannot be read, holds no label or one twice.
    """
    labels = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not labels:
        raise InputError(f"`{path}` holds no label; write one a line")
    check_label_list(labels, f"`{path}`")
    return labels


def check_label_list(labels: Sequence[str], source: str) -> None:
    """Raise `InputError` naming `source` where a label occurs twice in `labels`, or is more than a line of text."""
    if odd := next(filter(CONTROL.search, labels), None):
        raise InputError(f"{source} has the label {odd!r}; a label is one line without control characters")
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        raise InputError(f"{source} lists {repeated[0]!r} more than once")


def read_annotations(path: str | Path, labels: Sequence[str] | None = None) -> list[Annotation]:
    """Read a label file of SoccerNet's (`Labels-v2.json`, `Labels.json`, `Labels-ball.json`), in the file's order.

    The time is `position`, or `gameTime` where there is none; a missing visibility is `visible`, a missing team
    `not applicable`, as the official scorer has it.

    Args:
        path: the label file.
        labels: keep only these labels; None keeps all. What is left out is counted in the log (level info).

    Raises:
        InputError: the file cannot be read, or a field is missing or makes no sense.
    """
    annotations = parse_events(read_json(path), "annotations", f"`{path}`")
    if labels is None:
        return annotations
    left_out = Counter(annotation.label for annotation in annotations if annotation.label not in labels)
    if left_out:
        logger.info(
            "`%s`: left out %d annotations whose labels are not in the list: %s",
            path,
            left_out.total(),
            ", ".join(f"{label} ({count})" for label, count in sorted(left_out.items())),
        )
    return [annotation for annotation in annotations if annotation.label in labels]


def game_time(half: int, position_ms: int) -> str:
    """Return SoccerNet's `gameTime`, such as `1 - 12:34`; minutes have as many digits as they need."""
    minutes, seconds = divmod(position_ms // 1000, 60)
    return f"{half} - {minutes:02d}:{seconds:02d}"


def position_ms_of(timestamp_s: float) -> int:
    """Return the `position` to write for an instant: the first whole millisecond after it.

    The official scorer finds the frame with `int(framerate * (position / 1000))`, in floats. A position on a frame's very
    start, such as 1160 ms at 25 fps, can so fall into the frame before; a millisecond later it cannot.
    """
    return math.floor(round(1000 * timestamp_s, 3)) + 1


def timestamp_s_of(position_ms: int) -> float:
    """Return the instant in seconds for which `position_ms_of` gives `position_ms`; 0 for position 0."""
    return max(position_ms - 1, 0) / 1000


def prediction_of(spot: Mapping[str, Any]) -> dict[str, str]:
    """Return a spot as an entry of SoccerNet's `results_spotting.json`; all values are strings."""
    position_ms = position_ms_of(spot["timestamp_s"])
    return {
        "gameTime": game_time(spot["half"], position_ms),
        "label": spot["label"],
        "position": str(position_ms),
        "half": str(spot["half"]),
        "confidence": repr(float(spot["score"])),
    }


def write_results(path: str | Path, video_id: str, spots: Iterable[Mapping[str, Any]]) -> None:
    """Write a match's spots as SoccerNet's `results_spotting.json`, by half and time; all values are strings.

    Args:
        path: the file to write, whole or not at all.
        video_id: the match's folder relative to the data root.
        spots: dicts with `label`, `timestamp_s`, `half` and `score`.
    """
    ordered = sorted(spots, key=lambda spot: (spot["half"], spot["timestamp_s"]))
    predictions = [prediction_of(spot) for spot in ordered]
    atomic_write_text(path, json.dumps({"UrlLocal": video_id, "predictions": predictions}, indent=4) + "\n")


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Read a `results_spotting.json`, ours or anybody's, as spots in the file's order.

    Written again, a spot gets the position that it was read from (or 1 ms for 0 ms).

    Raises:
        InputError: the file cannot be read, or a field is missing or makes no sense.
    """
    return parse_events(read_json(path), "predictions", f"`{path}`")


def parse_events(content: Any, key: str, source: str) -> list:
    """Parse the content of a file in SoccerNet's format.

    Args:
        content: what the JSON holds.
        key: `annotations` for a list of `Annotation`, `predictions` for one of spots.
        source: what to call the file in an error.

    Raises:
        InputError: there is no such list, or a field is missing or makes no sense.
    """
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        raise InputError(f"{source} has no list `{key}`; give a file in SoccerNet's format")
    parse, events = _annotation if key == "annotations" else _spot, []
    for index, item in enumerate(content[key]):
        try:
            if not isinstance(item, dict):
                raise ValueError(f"expected an object, found {item!r}")
            events.append(parse(item))
        except ValueError as error:
            raise InputError(f"{source}, {key}[{index}]: {error}") from error
    return events


def find_matches(root: str | Path) -> list[str]:
    """Return the folders under `root`, at any depth, that hold a label file or a half's video.

    They are relative to `root`, with forward slashes, sorted. Links are followed; hidden folders are passed over.

    Raises:
        InputError: `root` is no folder, or a match's name has control characters.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"`{root}` is no folder; give the folder that holds the matches")
    matches = sorted(
        folder.relative_to(root).as_posix()
        for folder, file_names in walk(root)
        if any(name in LABEL_FILE_NAMES or _half_and_quality(name) for name in file_names)
    )
    if odd := next(filter(CONTROL.search, matches), None):
        raise InputError(f"`{root}` has a match `{odd}`, with control characters in its name; rename it")
    return matches


def find_label_file(match_dir: str | Path, name: str | None = None) -> Path | None:
    """Return a match's label file, or None for a match without labels.

    Args:
        match_dir: the match's folder.
        name: the file's name; None takes the first of `LABEL_FILE_NAMES` that is there.
    """
    candidates = (Path(match_dir) / candidate for candidate in ((name,) if name else LABEL_FILE_NAMES))
    return next((path for path in candidates if path.is_file()), None)


def match_of_videos(videos: Sequence[str | Path]) -> tuple[str, dict[int, Path]]:
    """Return what to call the match of some videos, and half -> video.

    Videos that are named as SoccerNet names halves (`1_224p.mkv`, `2_HQ.mkv`, `224p.mp4`) and lie in one folder are of the
    match of that folder, and their names say which halves. Any others are halves 1, 2, ... of a match named after the first.

    Raises:
        InputError: two videos are of one half.
    """
    paths = [Path(os.path.abspath(video)) for video in videos]
    found = [_half_and_quality(path.name) for path in paths]
    is_soccernet = all(half and _WHOLE_VIDEO.fullmatch(half[1]) for half in found)
    folders = {path.parent for path in paths}
    if not is_soccernet or len(folders) > 1 or not paths[0].parent.name:
        return paths[0].stem, dict(enumerate(map(Path, videos), 1))
    halves: dict[int, Path] = {}
    for (half, _), video in zip(found, videos, strict=True):
        if half in halves:
            raise InputError(f"`{halves[half]}` and `{video}` are both half {half} of a match; give one of them")
        halves[half] = Path(video)
    return paths[0].parent.name, halves


def find_halves(match_dir: str | Path, quality: str | None = None) -> dict[int, Path]:
    """Return half -> video of a match, by half; empty for a match without videos.

    Args:
        match_dir: the match's folder, with `1_224p.mkv`, `2_224p.mkv` or `1.mp4` a half, or `224p.mp4` for half 1.
        quality: which of several files a half to take, such as `720p`; None takes the smallest picture.

    Raises:
        InputError: a half has no video of that quality, or several that cannot be told apart.
    """
    videos: dict[int, list[tuple[str, Path]]] = {}
    for path in sorted(Path(match_dir).iterdir()):
        if (found := _half_and_quality(path.name)) and path.is_file():
            videos.setdefault(found[0], []).append((found[1], path))
    return {half: _choose_video(half, videos[half], quality, match_dir) for half in sorted(videos)}


def _annotation(item: dict[str, Any]) -> Annotation:
    half, clock_ms = half_and_clock_ms(item)
    visibility = item.get("visibility", VISIBLE)
    if visibility not in VISIBILITIES:
        raise ValueError(f"`visibility` is {visibility!r}; expected 'visible' or 'not shown'")
    return Annotation(
        label=_label(item),
        half=half,
        position_ms=int(_number(item, "position", MAX_POSITION_MS)) if "position" in item else clock_ms,
        team=_text(item, "team") if "team" in item else NO_TEAM,
        visibility=visibility,
    )


def _spot(item: dict[str, Any]) -> dict[str, Any]:
    half = _number(item, "half", MAX_HALVES + 1)
    if half not in range(1, MAX_HALVES + 1):
        raise ValueError(f"`half` is {item['half']!r}; expected a whole number from 1")
    return {
        "label": _label(item),
        "timestamp_s": timestamp_s_of(int(_number(item, "position", MAX_POSITION_MS))),
        "half": int(half),
        "score": _number(item, "confidence", math.inf),
    }


def half_and_clock_ms(item: Mapping[str, Any]) -> tuple[int, int]:
    """Return the half and the milliseconds of an annotation's `gameTime`; `ValueError` where it is no such time."""
    match = _GAME_TIME.fullmatch(_text(item, "gameTime"))
    if match is None:
        raise ValueError(f"`gameTime` is {item['gameTime']!r}; expected half - minutes:seconds, such as '1 - 12:34'")
    half, minutes, seconds = map(int, match.groups())
    clock_ms = 1000 * (60 * minutes + seconds)
    if "position" not in item and clock_ms >= MAX_POSITION_MS:
        raise ValueError(f"`gameTime` is {item['gameTime']!r}, a day or more; expected the time in the half's video")
    return half, clock_ms


def _text(item: Mapping[str, Any], key: str) -> str:
    if not isinstance(value := item.get(key), str):
        raise ValueError(f"`{key}` is {value!r}; expected text")
    return value


def _label(item: dict[str, Any]) -> str:
    if CONTROL.search(label := _text(item, "label")):
        raise ValueError(f"`label` is {label!r}; a label is one line without control characters")
    return label


def _number(item: dict[str, Any], key: str, bound: float) -> float:
    """Return a number at least 0 and below `bound`, which the file may hold as a string."""
    value = item.get(key)
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < bound:
        raise ValueError(f"`{key}` is {value!r}; expected a number, at least 0 and below {bound}")
    return number


def _half_and_quality(file_name: str) -> tuple[int, str] | None:
    """Return what a half's video is named by, such as (1, "224p"), or None for any other file."""
    stem, suffix = os.path.splitext(file_name)
    if suffix.lower() not in VIDEO_SUFFIXES:
        return None
    if _WHOLE_VIDEO.fullmatch(stem):
        return 1, stem
    match = _HALF_VIDEO.fullmatch(stem)
    return (int(match[1]), match[2] or "") if match else None


def _choose_video(half: int, videos: list[tuple[str, Path]], quality: str | None, match_dir: str | Path) -> Path:
    names = ", ".join(path.name for _, path in videos)
    if quality is not None:
        chosen = [path for found, path in videos if found == quality]
        if not chosen:
            raise InputError(f"`{match_dir}` has no video of quality {quality!r} for half {half}, only {names}")
    else:
        smallest = min(_picture_height(found) for found, _ in videos)
        chosen = [path for found, path in videos if _picture_height(found) == smallest]
    if len(chosen) > 1:
        raise InputError(f"`{match_dir}` has several videos for half {half}: {names}; keep one or choose a `quality`")
    return chosen[0]


def _picture_height(quality: str) -> float:
    """Return the lines of a picture named such as `224p`; anything else, such as `HQ`, counts as full size."""
    return int(quality[:-1]) if re.fullmatch(r"[0-9]+p", quality) else math.inf

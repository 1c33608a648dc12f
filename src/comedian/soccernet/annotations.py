"""SoccerNet's annotations (`Labels-v2.json`) and predictions (`results_spotting.json`): reading, checking, writing."""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comedian.errors import CONTROL, MAX_POSITION_MS, InputError
from comedian.files import atomic_write_text, read_json
from comedian.soccernet.layout import MAX_HALVES

logger = logging.getLogger(__name__)

VISIBLE, NOT_SHOWN = "visible", "not shown"


VISIBILITIES = (VISIBLE, NOT_SHOWN)


NO_TEAM = "not applicable"


# limits of SoccerNet's own scorer
OFFICIAL_HALVES = (1, 2)


OFFICIAL_HALF_LENGTH_MS = 120 * 60 * 1000


_GAME_TIME = re.compile(r"([1-9][0-9]?) *- *([0-9]{1,4}):([0-5][0-9])")


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


def read_annotations(path: str | Path, labels: Sequence[str] | None = None) -> list[Annotation]:
    """Read a label file of SoccerNet's (`Labels-v2.json`, `Labels.json`, `Labels-ball.json`), in the file's order.

    The time is `position`, or `gameTime` where there is none; a missing visibility is `visible`, a missing team
    `not applicable`, as in the official scorer.

    Args:
        path: the label file.
        labels: keep only these labels; None keeps all. What is omitted is counted in the log (level info).

    Raises:
        InputError: the file cannot be read, or a field is missing or is invalid.
    """
    annotations = parse_events(read_json(path), "annotations", f"`{path}`")
    if labels is None:
        return annotations
    left_out = Counter(annotation.label for annotation in annotations if annotation.label not in labels)
    if left_out:
        logger.info(
            "`%s`: skipped %d annotations whose labels are not in the list: %s",
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
    start, such as 1160 ms at 25 fps, can therefore be assigned to the previous frame; a position a millisecond later
    cannot.
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
        path: the file, written atomically.
        video_id: the match's folder relative to the data root.
        spots: dicts with `label`, `timestamp_s`, `half` and `score`.
    """
    ordered = sorted(spots, key=lambda spot: (spot["half"], spot["timestamp_s"]))
    predictions = [prediction_of(spot) for spot in ordered]
    atomic_write_text(path, json.dumps({"UrlLocal": video_id, "predictions": predictions}, indent=4) + "\n")


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """Read a `results_spotting.json`, from this package or another, as spots in the file's order.

    Writing a spot again restores its position (1 ms for 0 ms).

    Raises:
        InputError: the file cannot be read, or a field is missing or is invalid.
    """
    return parse_events(read_json(path), "predictions", f"`{path}`")


def parse_events(content: Any, key: str, source: str) -> list:
    """Parse the content of a file in SoccerNet's format.

    Args:
        content: the parsed JSON.
        key: `annotations` for a list of `Annotation`, `predictions` for one of spots.
        source: the name of the file in error messages.

    Raises:
        InputError: the list does not exist, or a field is missing or is invalid.
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
    """Return the half and the milliseconds of an annotation's `gameTime`; raise `ValueError` if it is invalid."""
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
    if not (label := _text(item, "label")).strip():
        raise ValueError("`label` is empty; write what happened")
    if CONTROL.search(label):
        raise ValueError(f"`label` is {label!r}; a label is one line without control characters")
    return label


def _number(item: dict[str, Any], key: str, bound: float) -> float:
    """Return a number at least 0 and below `bound`, given as a number or a string."""
    value = item.get(key)
    try:
        number = math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < bound:
        raise ValueError(f"`{key}` is {value!r}; expected a number, at least 0 and below {bound}")
    return number

"""Times as frames and timecodes."""

import math
import re
from typing import Any

from comedian.events.events import MAX_SIZE, parse_time_ms

START_TIMECODE = "00:00:00:00"
_TIMECODE = re.compile(r"([0-9]{1,2})[:;]([0-5][0-9])[:;]([0-5][0-9])([:;.,])([0-9]{2,3})")
# the rates whose timecode may drop numbers, so that it stays with the clock
_DROPPING_RATES = (30, 60)


def frame_of(position_ms: int, fps: float) -> int:
    """Return the frame that is on screen at a time; a time rounded from a frame's own start gives that frame."""
    return math.floor((position_ms + 0.51) * fps / 1000)


def position_ms_of_frame(frame: int, fps: float) -> int:
    """Return the milliseconds at which a frame begins.

    Raises:
        ValueError: that is a day or more.
    """
    return parse_time_ms(f"{frame / fps:.6f}", "frame")


def parse_frame(value: Any, first: int = 0) -> int:
    """Return a frame's number, of frames that are counted from `first`, counted from 0.

    Raises:
        ValueError: it is no such number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not first <= value < MAX_SIZE:
        raise ValueError(f"`frame` is {value!r}; expected a whole number from {first}, below {MAX_SIZE:g}")
    return value - first


def frame_of_timecode(text: str, fps: float, drops: bool = False) -> int:
    """Return the frame that a timecode `HH:MM:SS:FF` names, counted from 00:00:00:00.

    Args:
        text: the timecode; drop-frame where a semicolon is before the frames.
        fps: frames a second; the timecode counts in the next whole number of them.
        drops: whether it is drop-frame in any case.

    Raises:
        ValueError: there is no such timecode.
    """
    match = _TIMECODE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no timecode; expected HH:MM:SS:FF")
    hours, minutes, seconds, frames = (int(match[group]) for group in (1, 2, 3, 5))
    rate = _rate_of_timecode(fps)
    if frames >= rate:
        raise ValueError(f"the timecode {text!r} counts {frames} frames, at {fps:g} a second; mend `--fps`")
    minutes += 60 * hours
    number = rate * (60 * minutes + seconds) + frames
    if not (drops or match[4] in ";,"):
        return number
    if rate not in _DROPPING_RATES:
        raise ValueError(f"{text!r} is drop-frame timecode, which {fps:g} fps does not have; mend `--fps`")
    dropped = rate // 15
    if seconds == 0 and frames < dropped and minutes % 10:
        raise ValueError(f"the timecode {text!r} does not exist; drop-frame timecode leaves its number out")
    return number - dropped * (minutes - minutes // 10)


def timecode_of(frame: int, fps: float) -> str:
    """Return the timecode `HH:MM:SS:FF` of a frame, which drops no numbers."""
    seconds, frames = divmod(frame, _rate_of_timecode(fps))
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frames:02d}"


def _rate_of_timecode(fps: float) -> int:
    return max(math.ceil(fps - 0.01), 1)

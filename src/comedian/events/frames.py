"""Times as frames and timecodes."""

import math
import re
from typing import Any

from comedian.events.events import MAX_SIZE, parse_time_ms

START_TIMECODE = "00:00:00:00"
_TIMECODE = re.compile(r"([0-9]{1,2})[:;]([0-5][0-9])[:;]([0-5][0-9])([:;.,])([0-9]{2,3})")
# frame rates with drop-frame timecodes, which skip numbers to stay in sync with the clock
_DROPPING_RATES = (30, 60)
# they skip this share of a second's numbers each minute, but for every tenth
_RATE_OVER_DROPPED = 15


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
    """Return a frame number counted from 0, for a value counted from `first`.

    Raises:
        ValueError: it is not a valid number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not first <= value < MAX_SIZE:
        raise ValueError(f"`frame` is {value!r}; expected a whole number from {first}, below {MAX_SIZE:g}")
    return value - first


def frame_of_timecode(text: str, fps: float, drops: bool = False) -> int:
    """Return the frame number of a timecode `HH:MM:SS:FF`, counted from 00:00:00:00.

    Args:
        text: the timecode; drop-frame if a semicolon precedes the frames.
        fps: frames per second; the timecode counts at this rate rounded up to an integer.
        drops: treat it as drop-frame regardless of the separator.

    Raises:
        ValueError: the timecode is invalid or does not exist.
    """
    match = _TIMECODE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a timecode; expected HH:MM:SS:FF")
    hours, minutes, seconds, frames = (int(match[group]) for group in (1, 2, 3, 5))
    rate = _rate_of_timecode(fps)
    if frames >= rate:
        raise ValueError(
            f"the timecode {text!r} has frame number {frames}, but the frame rate is {fps:g} fps; correct `--fps`"
        )
    minutes += 60 * hours
    number = rate * (60 * minutes + seconds) + frames
    if not (drops or is_drop_frame(text)):
        return number
    if rate not in _DROPPING_RATES:
        raise ValueError(f"{text!r} is a drop-frame timecode, which {fps:g} fps does not have; correct `--fps`")
    dropped = rate // _RATE_OVER_DROPPED
    if seconds == 0 and frames < dropped and minutes % 10:
        raise ValueError(f"the timecode {text!r} does not exist; drop-frame timecodes skip its number")
    return number - dropped * (minutes - minutes // 10)


def is_drop_frame(timecode: str) -> bool:
    """Whether a timecode is a drop-frame one, with a semicolon or comma before its frames."""
    match = _TIMECODE.fullmatch(timecode.strip())
    return match is not None and match[4] in ";,"


def timecode_of(frame: int, fps: float, drops: bool = False) -> str:
    """Return the timecode of a frame: `HH:MM:SS:FF`, or `HH:MM:SS;FF` if it is a drop-frame one."""
    rate = _rate_of_timecode(fps)
    if drops:
        dropped = rate // _RATE_OVER_DROPPED
        tens, rest = divmod(frame, 600 * rate - 9 * dropped)
        frame += dropped * (9 * tens + max(rest - dropped, 0) // (60 * rate - dropped))
    seconds, frames = divmod(frame, rate)
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{clock}{';' if drops else ':'}{frames:02d}"


def _rate_of_timecode(fps: float) -> int:
    return max(math.ceil(fps - 0.01), 1)

"""One timeline for the packets and frames of a video whose container's clock may restart; standard library only.

`comedian.models` contains an identical copy of this file, because it is part of the code of models on the Hub.

Containers of streams (MPEG-TS, MPEG-PS, VOB) and Matroska files can be concatenated byte by byte, and an encoder that
restarts resets its clock. Players then show the second part right after the first one; a [`Timeline`] does the same. A
clock that jumps forward by `FORWARD_S` or more is also treated as a restart in a container of streams, as in FFmpeg.
In other containers a gap between two frames is part of the file's own timeline: players show the picture before it for
that long.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

# FFmpeg's AVFMT_TS_DISCONT and AVFMT_NOTIMESTAMPS
CLOCK_MAY_JUMP, HAS_NO_TIMES = 0x200, 0x80
# FFmpeg's interpolated decoding times of a program stream may decrease by a few frames
BACKWARD_S = 1.0
# FFmpeg's `dts_delta_threshold`
FORWARD_S = 10.0
# tolerance: a key frame is shown after all earlier frames in the file, but some writers round its time
KEY_FRAME_JITTER_S = 0.1
# audio packets that are held until the video clock restarts like theirs
MAX_HELD = 1000
DEFAULT_RATE = 25.0


def frame_rate(container: Any, stream: Any) -> float:
    """Return the average frames per second of a video stream; for a raw stream, the rate in its header."""
    is_raw = container.format.flags & HAS_NO_TIMES
    rates = (stream.codec_context.framerate,) if is_raw else (stream.average_rate, stream.guessed_rate)
    return next((float(rate) for rate in rates if rate and 0.001 < rate <= 1000), DEFAULT_RATE)


class Timeline:
    """Maps the packets of a container to one timeline, starting at its current position.

    The timeline is the container's clock up to the first break; after it, the next frame follows the last one.

    Args:
        container: an open `av` container.
        picture: its video stream, whose times define the timeline.
        on_restart: called with the time of each restart on the timeline, in seconds.

    Attributes:
        rate: frames per second, see [`frame_rate`].
        time_base: seconds a tick of the picture.
        has_decoding_times: the container stores only decoding times, although frames are reordered (AVI). A packet's
            `pts` is then its `dts`, and [`time_s`] returns when a frame is shown.
        is_raw: the container stores no times.
        end: ticks, where the last frame read ends; `None` before the first.
        shifts: ticks from the container's clock to the timeline, one per clock.
    """

    def __init__(self, container: Any, picture: Any, on_restart: Callable[[float], None] = lambda time_s: None):
        self.container, self.picture, self.on_restart = container, picture, on_restart
        self.rate, self.time_base = frame_rate(container, picture), picture.time_base
        self.clock_may_jump = bool(container.format.flags & CLOCK_MAY_JUMP)
        self.is_raw = bool(container.format.flags & HAS_NO_TIMES)
        self._is_avi = container.format.name == "avi"
        self.has_decoding_times = self._is_avi and picture.codec_context.has_b_frames
        self.shifts = [0]
        self.end: int | None = None
        self._second = float(1 / self.time_base)
        self._frame_ticks = round(1 / (self.rate * self.time_base))
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._last_beside: dict[int, float] = {}
        self._reordered_ticks = 0
        self._delay_ticks = 0
        self._known_s: float | None = None
        self._num_since = 0

    def packets(self, *others: Any) -> Iterator[Any]:
        """Yield the packets of the picture, and of other streams, with their times on the timeline.

        `None` precedes the first packet of each new clock: the decoder must then be flushed.
        """
        held: deque[Any] = deque()
        for packet in self.container.demux(self.picture, *others):
            if not packet.size:
                continue
            if packet.stream.index != self.picture.index:
                held.append(packet)
            else:
                if self._place(packet):
                    yield None
                yield packet
            yield from self._settled(held)
        yield from self._settled(held, ended=True)

    def decode(self, packet: Any) -> list[Any]:
        """Return the frames that a packet completes; for `None`, the remaining frames of the decoder."""
        try:
            return self.picture.decode(packet)
        finally:
            if packet is None:
                self.picture.codec_context.flush_buffers()

    def time_s(self, frame: Any) -> float:
        """Return the presentation time of a frame; must be called for every frame, in the decoder's output order."""
        ticks = frame.pts
        if self.has_decoding_times and frame.dts is not None and ticks is not None:
            if self._known_s is None:
                self._delay_ticks = frame.dts - ticks
            ticks = frame.dts - self._delay_ticks
        elif self.has_decoding_times:
            ticks = None
        if ticks is not None:
            self._known_s, self._num_since = float(ticks * self.time_base), 0
        elif self._known_s is None:
            self._known_s = 0.0
        else:
            self._num_since += 1
        return self._known_s + self._num_since / self.rate

    def _place(self, packet: Any) -> bool:
        """Shift a video packet to the timeline; return whether the clock restarts with it."""
        if self._is_avi:  # FFmpeg's presentation times for the decoding times of AVI are wrong for H.264
            packet.pts = packet.dts
        if packet.pts is not None and packet.dts is not None:
            delay = packet.pts - packet.dts
            if self.clock_may_jump and delay > FORWARD_S * self._second:
                # in program streams, FFmpeg reads the last time before a restart from the clock after it
                packet.pts = packet.dts + self._reordered_ticks
            elif delay > 0:
                self._reordered_ticks = delay
        pts, stamp = packet.pts, packet.pts if packet.dts is None else packet.dts
        if stamp is None:
            return False
        is_new = self._starts_anew(packet, stamp)
        if is_new:
            self.shifts.append(self._shift_after_break(stamp, pts))
            self._last_pts = None
            self.on_restart(float(self.end * self.time_base))
        shift = self.shifts[-1]
        self._last_dts = stamp + shift
        if pts is not None:
            self._last_pts = pts + shift if self._last_pts is None else max(self._last_pts, pts + shift)
            end = pts + shift + (packet.duration or self._frame_ticks)
            self.end = end if self.end is None else max(self.end, end)
        _move(packet, shift)
        return is_new

    def _starts_anew(self, packet: Any, stamp: int) -> bool:
        if self._last_pts is None or self._last_dts is None or packet.is_discard:
            return False
        shift, second = self.shifts[-1], self._second
        if packet.is_keyframe and packet.pts is not None:
            if packet.pts + shift < self._last_pts - KEY_FRAME_JITTER_S * second:
                return True
        if self._fits_clock_before(stamp):
            return True
        step = stamp + shift - self._last_dts
        return self.clock_may_jump and not -BACKWARD_S * second < step < FORWARD_S * second

    def _fits_clock_before(self, stamp: int) -> bool:
        """Whether a packet is closer to the clock before the last restart; that restart was then a broken timestamp."""
        if len(self.shifts) < 2 or self._last_dts is None:
            return False
        step, step_before = (abs(stamp + shift - self._last_dts) for shift in (self.shifts[-1], self.shifts[-2]))
        return step_before < BACKWARD_S * self._second and step_before < step / 2

    def _shift_after_break(self, stamp: int, pts: int | None) -> int:
        """The shift with which a packet follows the last frame."""
        if self._fits_clock_before(stamp):
            return self.shifts[-2]
        return (self.end or 0) - (stamp if pts is None else pts)

    def _settled(self, held: deque, ended: bool = False) -> Iterator[Any]:
        """Yield the held packets of other streams whose clock is known: the clock with which they are closest to the
        video."""
        while held:
            packet = held[0]
            stamp = packet.pts if packet.dts is None else packet.dts
            if stamp is not None and self._last_dts is not None:
                time_s, picture_s = float(stamp * packet.time_base), float(self._last_dts * self.time_base)
                shifts_s = [float(shift * self.time_base) for shift in self.shifts[-2:]]
                shift_s = min(shifts_s, key=lambda shift_s: abs(time_s + shift_s - picture_s))
                time_s += shift_s
                last_s = self._last_beside.get(packet.stream.index, time_s)
                is_far = self.clock_may_jump and abs(time_s - picture_s) > FORWARD_S
                if (is_far or time_s < last_s - BACKWARD_S) and not ended and len(held) < MAX_HELD:
                    return
                self._last_beside[packet.stream.index] = time_s
                _move(packet, round(shift_s / packet.time_base))
            yield held.popleft()


def _move(packet: Any, ticks: int) -> None:
    """Delay a packet by a number of ticks."""
    if ticks:
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks


def first_shown_s(timeline: Timeline, broken: type[Exception]) -> float | None:
    """Return the time of the first frame that players show, in seconds on the container's clock; `None` without one.

    It is the decoder's first output: not hidden by an edit list, and not before the first key frame.

    Args:
        timeline: of a container that was just opened.
        broken: exception types raised for broken data.
    """
    with suppress(broken):
        for packet in chain(timeline.packets(), [None]):
            with suppress(broken):
                for frame in timeline.decode(packet):
                    return timeline.time_s(frame)
    return None


__all__ = ["Timeline", "first_shown_s", "frame_rate"]

"""Videos: their times, and their frames on an exact time grid or at some instants.

The grid and the decoding are those of `comedian.models.frames_comedian`, which is part of the code of models on the Hub; all
commands use its definition of time. Errors are `InputError` here.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from comedian.errors import InputError
from comedian.models.frames_comedian import (
    MAX_LENGTH_S,
    TRUNCATION_TOLERANCE_S,
    FrameConverter,
    VideoError,
    decode_packets,
    demux,
    pixel_aspect,
    stated_end_s,
    tick_tolerance_s,
)
from comedian.models.frames_comedian import iter_frames as iter_frames_of_model
from comedian.models.frames_comedian import open_video as open_video_of_model
from comedian.models.frames_comedian import video_stream as video_stream_of_model
from comedian.models.timeline_comedian import Timeline, first_shown_s, frame_rate

logger = logging.getLogger(__name__)

# How far before an instant to look for a key frame: seeking in containers without an index may end after it.
SEEK_BACK_S = (0, 10, 60, math.inf)
# containers of which FFmpeg reads concatenated files to the end
FORMATS_OF_JOINABLE_FILES = ("matroska", "avi")


@contextmanager
def _input_errors() -> Iterator[None]:
    """Raise `InputError` for videos that cannot be decoded."""
    try:
        yield
    except VideoError as error:
        raise InputError(str(error)) from error.__cause__


def open_video(path: str | Path) -> InputContainer:
    """Open a file or a URL with PyAV; raise `InputError` if FFmpeg cannot read it.

    Only the file itself is read: lists of other files or addresses (HLS, DASH, concat) are rejected.
    """
    with _input_errors():
        return open_video_of_model(path)


def video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    """Return the video stream; raise `InputError` if `path` has none."""
    with _input_errors():
        return video_stream_of_model(container, path)


def iter_frames(
    path: str | Path,
    fps: float,
    size: int | tuple[int, int] | None = None,
    *,
    threads: int = 0,
    live: bool = False,
    on_damage: Callable[[str], None] = logger.warning,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the frame on screen at 0, 1 / fps, 2 / fps, ... seconds after the first video frame.

    See `comedian.models.frames_comedian.iter_frames` for the arguments and what is yielded.

    Raises:
        InputError: no frame can be decoded.
    """
    with _input_errors():
        yield from iter_frames_of_model(path, fps, size, threads=threads, live=live, on_damage=on_damage)


@dataclass(frozen=True)
class VideoInfo:
    """Properties from a video's header, and its duration.

    Attributes:
        duration_s: seconds from the first shown frame to the end of the last one.
        fps: average frames per second of the source.
        width: pixels.
        height: pixels.
    """

    duration_s: float
    fps: float
    width: int
    height: int


@dataclass(frozen=True)
class Timing:
    """Times of the pictures of a video, in seconds on the container's clock (equal to the timeline up to its first
    restart).

    Attributes:
        first_s: when the first shown frame is: time 0 of every command.
        end_s: when the last one ends.
        player_s: time 0 of a player, which begins with the first stream, also if that is audio.
        restarts_s: times on the timeline at which the container's clock restarts.
        can_seek: whether the container supports seeking.
    """

    first_s: float
    end_s: float
    player_s: float
    restarts_s: tuple[float, ...] = ()
    can_seek: bool = True

    @property
    def duration_s(self) -> float:
        """Seconds from the first shown frame to the end of the last one."""
        return self.end_s - self.first_s

    @property
    def player_offset_s(self) -> float:
        """When a player shows the first frame, by its own clock."""
        return round(max(self.first_s - self.player_s, 0.0), 6)


def timing_of(path: str | Path) -> Timing:
    """Return when the pictures of a video are shown.

    The packets of a file without an index (MPEG-TS, MPEG-PS, raw streams) are all read once, without decoding.

    Raises:
        InputError: `path` is not a readable video, or contains no pictures.
    """
    try:
        status = Path(path).stat()
        return _timing_of(str(path), status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):  # a URL, or an invalid file name
        return _read_timing(str(path))


@lru_cache(64)
def _timing_of(path: str, size_bytes: int, mtime_ns: int) -> Timing:
    return _read_timing(path)


def _read_timing(path: str) -> Timing:
    with open_video(path) as container:
        stream = video_stream(container, path)
        timeline = Timeline(container, stream)
        first_s = first_shown_s(timeline, av.error.FFmpegError)
        if first_s is None:
            first_s = float((stream.start_time or 0) * stream.time_base)
        end_s = stated_end_s(container, stream)
        player_s = first_s if container.start_time is None else container.start_time / av.time_base
        reads_on = _goes_on_after_index(container, stream, end_s)
    if not (timeline.clock_may_jump or timeline.is_raw or reads_on):
        # the presentation time of a frame depends on where decoding begins
        return Timing(first_s, end_s, player_s, can_seek=not timeline.has_decoding_times)
    restarts_s: list[float] = []
    with open_video(path) as container:
        timeline = Timeline(container, video_stream(container, path), restarts_s.append)
        num_packets = 0
        with suppress(av.error.FFmpegError):
            for packet in timeline.packets():
                num_packets += packet is not None
        if timeline.end is not None:
            end_s = float(timeline.end * timeline.time_base)
        elif timeline.is_raw:
            end_s = first_s + num_packets / timeline.rate
        can_seek = not (restarts_s or timeline.is_raw or timeline.has_decoding_times)
    return Timing(first_s, end_s, player_s, tuple(restarts_s), can_seek)


def _goes_on_after_index(container: InputContainer, stream: VideoStream, end_s: float) -> bool:
    """Whether a file in a format that can be concatenated continues after the end stated in its header."""
    if not (container.format.name.startswith(FORMATS_OF_JOINABLE_FILES) and end_s < MAX_LENGTH_S):
        return False
    timeline = Timeline(container, stream)
    with suppress(av.error.FFmpegError):
        container.seek(int(end_s / stream.time_base), stream=stream)
        for _ in timeline.packets():
            if len(timeline.shifts) > 1:
                return True
    return timeline.end is not None and timeline.end * timeline.time_base > end_s + TRUNCATION_TOLERANCE_S


def probe(path: str | Path) -> VideoInfo:
    """Read a video's length, rate and size.

    Raises:
        InputError: `path` is not a readable video, contains no pictures, or is a day or more long according to its header.
    """
    timing = timing_of(path)
    with open_video(path) as container:
        stream = video_stream(container, path)
        info = VideoInfo(timing.duration_s, frame_rate(container, stream), stream.width, stream.height)
    if info.duration_s <= 0 or info.width == 0:
        raise InputError(f"`{path}` has zero duration or size; re-encode it")
    if info.duration_s >= MAX_LENGTH_S:
        raise InputError(
            f"`{path}` is {info.duration_s:.0f} s long according to its header; the maximum is a day; re-encode it"
        )
    return info


def shown_size(path: str | Path) -> tuple[int, int]:
    """Return `(height, width)` in pixels as players show a video: upright, with square pixels.

    Raises:
        InputError: no frame can be decoded.
    """
    _, frame = next(iter_frames(path, fps=1))
    with open_video(path) as container:
        is_square = pixel_aspect(video_stream(container, path)) == 1
    if not is_square:
        _, frame = next(iter_frames(path, 1, frame.shape[0]))
    return frame.shape[:2]


def frames_at(
    path: str | Path, timestamps_s: Iterable[float], size: int | tuple[int, int] | None = None
) -> Iterator[np.ndarray]:
    """Yield the frame on screen at each of `timestamps_s`, by seeking; efficient for a few frames of a long video.

    Args:
        path: any video that FFmpeg reads.
        timestamps_s: seconds after the first video frame, in any order; after the end it is the last frame.
        size: as for `iter_frames`.

    Yields:
        uint8 of shape `(height, width, 3)`.

    Raises:
        InputError: `path` is not a video, or no frame before a timestamp can be decoded.
    """
    with open_video(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "AUTO"
        to_array = FrameConverter(size, float(pixel_aspect(stream)), threads=0)
        timing = timing_of(path)
        if not timing.can_seek:
            yield from _frames_of_one_pass(path, list(timestamps_s), size)
            return
        for timestamp_s in timestamps_s:
            frame = _frame_on_screen(container, stream, timing, timestamp_s)
            if frame is None:
                raise InputError(
                    f"`{path}` holds no frame at {timestamp_s:.1f} s that can be decoded; check that the file is complete"
                )
            yield to_array(frame)


def _frames_of_one_pass(
    path: str | Path, timestamps_s: list[float], size: int | tuple[int, int] | None
) -> Iterator[np.ndarray]:
    """The frames on screen at `timestamps_s` of a video without seeking: every frame is decoded."""
    found: dict[float, np.ndarray] = {}
    coming = deque(sorted(set(timestamps_s)))
    with open_video(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "AUTO"
        to_array = FrameConverter(size, float(pixel_aspect(stream)), threads=0)
        timeline, shown, start_s = Timeline(container, stream), None, None
        packets = ((packet, None) for packet in demux(timeline, path, lambda line: None))
        for frame in decode_packets(packets, timeline, path, lambda line: None, lambda pts, next_pts: False):
            time_s = timeline.time_s(frame)
            start_s = time_s if start_s is None else start_s
            while shown is not None and coming and coming[0] < time_s - start_s - tick_tolerance_s(stream):
                found[coming.popleft()] = to_array(shown)
            shown = frame
        if shown is None or start_s is None:
            raise InputError(f"`{path}` contains no frame that can be decoded; check that the file is complete")
        found |= dict.fromkeys(coming, to_array(shown))
    yield from (found[timestamp_s] for timestamp_s in timestamps_s)


def _frame_on_screen(
    container: InputContainer, stream: VideoStream, timing: Timing, timestamp_s: float
) -> VideoFrame | None:
    """The last frame at or before a timestamp, decoded from the nearest seekable position before it."""
    target_s = timing.first_s + timestamp_s + tick_tolerance_s(stream)
    for place in seek_places(stream, timing, target_s):
        container.seek(place, stream=stream)
        shown, timeline = None, Timeline(container, stream)
        with suppress(av.error.FFmpegError):
            for packet in chain(timeline.packets(), [None]):
                frames = timeline.decode(packet)
                times_s = [timeline.time_s(frame) for frame in frames]
                for frame, time_s in zip(frames, times_s, strict=True):
                    if time_s > target_s:
                        break
                    shown = frame
                else:
                    continue
                break
        if shown is not None:
            return shown
    return None


def seek_places(stream: Stream, timing: Timing, time_s: float | Fraction) -> Iterator[int]:
    """Yield ticks to seek to for a key frame at or before a time of the container's clock, in increasing distance."""
    for back_s in SEEK_BACK_S:
        # seeking near the start of a stream without an index may end after the requested time
        yield math.floor(max(time_s - back_s, timing.first_s - SEEK_BACK_S[-2]) / stream.time_base)

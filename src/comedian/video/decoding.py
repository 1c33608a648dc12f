"""PyAV: any video -> RGB frames on an exact time grid.

Time 0 is when the first frame is shown, regardless of the container's clock; all commands use this definition. Frames that
an edit list hides and those before the first key frame are not shown. If the container's clock restarts, time
continues (see `comedian.video.timeline`). Grid point `i` is at `i / fps` seconds and shows the frame on screen at that
time: the last frame presented at or before it. Only the timestamps of the frames are used, so variable frame rates,
start times other than 0 and rates that do not divide the source's need no special case. Frames are upright, as players
show them: phones store rotated pictures and a rotation flag.
"""

import logging
import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from comedian.errors import CONTROL, MAX_POSITION_MS, InputError
from comedian.video.timeline import Timeline, first_shown_s, frame_rate

logger = logging.getLogger(__name__)

# A stream that is shorter than its container's duration by more than this is truncated.
TRUNCATION_TOLERANCE_S = 1.0
# More packets than any codec reorders frames by (H.264 and HEVC: 16).
PACKETS_AHEAD = 40
# How far before an instant to look for a key frame: seeking in containers without an index may end after it.
SEEK_BACK_S = (0, 10, 60, math.inf)
# containers of which FFmpeg reads concatenated files to the end
FORMATS_OF_JOINABLE_FILES = ("matroska", "avi")
# further restarts of one clock are not reported
MAX_RESTARTS_TOLD = 10
# A later frame has a broken timestamp: filling the gap up to it could repeat a frame for years.
MAX_LENGTH_S = MAX_POSITION_MS / 1000
# Formats that refer to other files or addresses, or contain scripts: they could open anything on this machine.
LISTS = frozenset("avisynth concat dash hls image2 imf rtp rtsp sap sdp vapoursynth webm_dash_manifest".split())


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
        end_s = _end_s(container, stream)
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


def scaled_size(source_height: float, source_width: float, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Return `(height, width)` in pixels for a `size` as for `iter_frames`.

    A height alone keeps the display aspect ratio; the width is rounded
    to the nearest even number.
    """
    if size is None:
        return round(source_height), round(source_width)
    if isinstance(size, int):
        return size, max(2, 2 * round(size * source_width / source_height / 2))
    return size


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

    There is a frame for every grid point before the end of the video's last frame; an `fps` above the source's repeats
    frames (the same array). Memory is bounded regardless of the length: frames are decoded on demand, and only
    those on the grid are scaled (swscale, bilinear with anti-aliasing) and turned to RGB. Frames off the grid that no
    other frame refers to are not decoded.

    Args:
        path: any video that FFmpeg reads: a file, or the address of a stream.
        fps: grid points per second.
        size: `(height, width)` in pixels, or a height alone (`scaled_size` computes the width, also for non-square
            pixels), or None for the source's size.
        threads: decoder threads; 0 for one per core.
        live: yield each frame as soon as the next frame of the source arrives. Slower: nothing is read ahead, and
            frames are not decoded in parallel.
        on_damage: called with a one-line description of a missing end or of packets that could not be decoded; all
            frames that can be decoded are still yielded.

    Yields:
        `(timestamp_s, frame)`: the source frame's own time in seconds after the first frame, never later than the grid
        point, and its pixels, uint8 of shape `(height, width, 3)`.

    Raises:
        InputError: no frame can be decoded.
    """
    with open_video(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "SLICE" if live else "AUTO"
        stream.codec_context.thread_count = threads
        time_base, tolerance_s = float(stream.time_base), _tolerance_s(stream)
        to_array = _ArrayConverter(size, float(pixel_aspect(stream)), threads)

        shown, shown_s, start_s, index, num_late = None, 0.0, None, 0, 0

        def is_off_grid(pts: int, next_pts: int) -> bool:
            """Whether no grid point is near the time that a frame is on screen."""
            if start_s is None:
                return False
            first = math.ceil((pts * time_base - start_s - 2 * tolerance_s) * fps)
            return math.floor((next_pts * time_base - start_s + 2 * tolerance_s) * fps) < first

        restarts_s: list[float] = []
        timeline = Timeline(container, stream, restarts_s.append)
        demuxed = _demux(timeline, path, on_damage)
        packets: Iterator[tuple[av.Packet | None, int | None]]
        if live or timeline.has_decoding_times:
            packets = ((packet, None) for packet in demuxed)
        else:
            packets = _with_next_pts(demuxed)
        for frame in _decode(packets, timeline, path, on_damage, is_off_grid):
            time_s = timeline.time_s(frame)
            start_s = time_s if start_s is None else start_s
            # packets are read before the frames, and the first frame determines time 0
            while restarts_s:
                _tell_restart(path, restarts_s.pop(0) - start_s, len(timeline.shifts), on_damage)
            if not live and time_s - start_s >= MAX_LENGTH_S:
                num_late += 1
                continue
            while shown is not None and index / fps < time_s - start_s - tolerance_s:
                yield shown_s, to_array(shown)
                index += 1
            shown, shown_s = frame, time_s - start_s
        if shown is None or start_s is None:
            raise InputError(f"`{path}` contains no frame that can be decoded; check that it is a complete video")
        end_s = shown_s + (shown.duration * time_base or 1 / timeline.rate)
        while index / fps < end_s - tolerance_s:
            yield shown_s, to_array(shown)
            index += 1
        if num_late:
            on_damage(
                f"`{path}` has {num_late} frames a day or more after the first, with broken timestamps; they are skipped"
            )
        promised_s = _end_s(container, stream) - start_s
        has_promised = not timeline.clock_may_jump and not timeline.is_raw
        if has_promised and end_s < promised_s - TRUNCATION_TOLERANCE_S:
            on_damage(f"`{path}` ends at {end_s:.1f} s, but its header states {promised_s:.1f} s")


def _tell_restart(path: str | Path, time_s: float, num_clocks: int, on_damage: Callable[[str], None]) -> None:
    if num_clocks <= MAX_RESTARTS_TOLD + 1:
        on_damage(f"the clock of `{path}` restarts at {time_s:.1f} s; the following frames are appended")


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
        to_array = _ArrayConverter(size, float(pixel_aspect(stream)), threads=0)
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
        to_array = _ArrayConverter(size, float(pixel_aspect(stream)), threads=0)
        timeline, shown, start_s = Timeline(container, stream), None, None
        packets = ((packet, None) for packet in _demux(timeline, path, lambda line: None))
        for frame in _decode(packets, timeline, path, lambda line: None, lambda pts, next_pts: False):
            time_s = timeline.time_s(frame)
            start_s = time_s if start_s is None else start_s
            while shown is not None and coming and coming[0] < time_s - start_s - _tolerance_s(stream):
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
    target_s = timing.first_s + timestamp_s + _tolerance_s(stream)
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


class _ArrayConverter:
    """Frame -> upright uint8 RGB array of one size; a repeated frame is converted only once."""

    def __init__(self, size: int | tuple[int, int] | None, pixel_aspect: float, threads: int):
        self.size = size
        self.pixel_aspect = pixel_aspect if isinstance(size, int) else 1.0
        self.threads = threads
        self.reformatter = (
            VideoReformatter()
        )  # shared by all frames: setting up swscale takes longer than a conversion
        self.frame: VideoFrame | None = None
        self.array = np.empty(0, np.uint8)

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        if frame is not self.frame:
            turns = quarter_turns(frame)
            sides = frame.height, frame.width * self.pixel_aspect
            height, width = scaled_size(*(sides[::-1] if turns % 2 else sides), self.size)
            if turns % 2:
                height, width = width, height
            converted = self.reformatter.reformat(
                frame, width, height, "rgb24", interpolation=Interpolation.BILINEAR, threads=self.threads
            )
            self.frame, self.array = frame, np.ascontiguousarray(np.rot90(converted.to_ndarray(), turns))
        return self.array


def open_video(path: str | Path) -> InputContainer:
    """Open a file or a URL with PyAV; raise `InputError` if FFmpeg cannot read it.

    Only the file itself is read: lists of other files or addresses (HLS, DASH, concat) are rejected.
    """
    # Importing torchvision redirects FFmpeg's log to Python. A decoder thread that logs then waits for the GIL, while
    # closing a container early holds the GIL and waits for that thread: a deadlock.
    av.logging.set_level(None)
    if CONTROL.search(str(path)):
        raise InputError(f"`{path}` has control characters in its name; rename it")
    try:
        if Path(path).is_file():
            # the protocol by name: a file may be called `concat:a|b`
            return av.open(f"file:{path}", options=_of_one_file())
        return av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(
            f"`{path}` cannot be opened as a video: {error.strerror}; give a file that FFmpeg reads"
        ) from error


@cache
def _of_one_file() -> dict[str, str]:
    """FFmpeg options that restrict it to one file."""
    formats = (name for name in av.formats_available if LISTS.isdisjoint(name.split(",")))
    return {"format_whitelist": ",".join(formats), "protocol_whitelist": "file"}


def video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    """Return the video stream; raise `InputError` if `path` has none."""
    for stream in container.streams.video:
        # FFmpeg reports cover art as a video stream, and any text file as a terminal recording.
        if not stream.disposition & Disposition.attached_pic and container.format.name != "tty":
            return stream
    raise InputError(f"`{path}` contains no video stream; give a video file")


def quarter_turns(frame: VideoFrame) -> int:
    """Number of 90-degree counter-clockwise rotations, 0 to 3, that make a frame upright, according to the file."""
    return round(frame.rotation / 90) % 4


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Return the width of a pixel relative to its height; 1 if the file has no value or an implausible one."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if 0.1 < aspect < 10 else Fraction(1)


def _tolerance_s(stream: VideoStream) -> float:
    """Tolerance in seconds: containers round timestamps to ticks, so a frame may be up to half a tick late."""
    return min(0.51 * float(stream.time_base), 1e-3)


def _end_s(container: InputContainer, stream: VideoStream) -> float:
    """End of the video on the container's clock according to the header; 0 if unknown."""
    start_s = float((stream.start_time or 0) * stream.time_base)
    if stream.duration is not None:
        return start_s + float(stream.duration * stream.time_base)
    if "DURATION" in stream.metadata:  # Matroska: the track's end on the container's clock
        with suppress(ValueError):  # no time
            hours, minutes, seconds = stream.metadata["DURATION"].split(":")
            end_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            if math.isfinite(end_s):
                return end_s
    if container.duration is not None:
        return container.duration / av.time_base
    return 0.0


def _decode(
    packets: Iterator[tuple[av.Packet | None, int | None]],
    timeline: Timeline,
    path: str | Path,
    on_damage: Callable[[str], None],
    is_off_grid: Callable[[int, int], bool],
) -> Iterator[VideoFrame]:
    """Yield decodable frames in presentation order, including all frames on the grid; broken packets are counted."""
    broken, context, skipping = 0, timeline.picture.codec_context, False
    before: deque[int] = deque(maxlen=PACKETS_AHEAD)
    has_drained = False
    for packet, next_pts in packets:
        if has_drained:
            # in concatenated recordings, the last packets of the first one may be truncated
            broken, has_drained = before[0], False
        before.append(broken)
        broken += packet is not None and packet.is_corrupt
        skips = packet is not None and next_pts is not None and is_off_grid(packet.pts, next_pts)
        if skips != skipping:
            # the decoder skips only frames that no other frame refers to: the other frames are bit-identical
            context.skip_frame, skipping = "NONREF" if skips else "DEFAULT", skips
        try:
            for frame in timeline.decode(packet):
                broken += frame.is_corrupt
                yield frame
        except av.error.FFmpegError:
            broken += 1
        has_drained = packet is None
    if broken:
        on_damage(f"`{path}` has broken data in {broken} places")


def _with_next_pts(packets: Iterator[av.Packet | None]) -> Iterator[tuple[av.Packet | None, int | None]]:
    """Yield packets in decoding order, with the time of the next shown frame; `None` if unknown."""
    ahead: deque[av.Packet | None] = deque()
    shown: list[int] = []
    for packet in packets:
        ahead.append(packet)
        if packet is not None and packet.pts is not None:
            insort(shown, packet.pts)
        if len(ahead) > PACKETS_AHEAD:
            yield ahead[0], _after(ahead[0], shown)
            ahead.popleft()
            del shown[: -2 * PACKETS_AHEAD]
    # the last frame determines the end of the video
    yield from ((packet, _after(packet, shown)) for packet in ahead)


def _after(packet: av.Packet | None, shown: list[int]) -> int | None:
    if packet is None or packet.pts is None:
        return None
    index = bisect_right(shown, packet.pts)
    return shown[index] if index < len(shown) else None


def _demux(timeline: Timeline, path: str | Path, on_damage: Callable[[str], None]) -> Iterator[av.Packet | None]:
    """Yield the packets of the stream that can be read, then None, which flushes the decoder."""
    try:
        yield from timeline.packets()
    except av.error.FFmpegError as error:
        on_damage(f"`{path}` cannot be read to its end: {error.strerror}")
    yield None

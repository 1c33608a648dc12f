"""PyAV: any video -> RGB frames on an exact time grid.

Time 0 is when the first frame is shown, whatever the container's clock says; every command takes it from here. Frames that
an edit list hides and those before the first key frame are not shown. Where the container's clock starts anew, time
goes on (see `comedian.video.timeline`). Grid point `i` is at
`i / fps` seconds and shows what a viewer would see then: the last frame presented at or before it. Everything goes by
the frames' own timestamps, so variable frame rates, start times other than 0 and rates that do not divide the source's
need no special case. Frames are upright, as players show them: a telephone films sideways and notes how to turn the picture.
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

# A stream shorter than its container claims by more than this has lost its tail.
TRUNCATION_TOLERANCE_S = 1.0
# More packets than any codec reorders frames by (H.264 and HEVC: 16).
PACKETS_AHEAD = 40
# How far before an instant to look for a key frame: some containers have no index and land behind it.
SEEK_BACK_S = (0, 10, 60, math.inf)
# FFmpeg reads on after the end of the first file
FORMATS_OF_JOINABLE_FILES = ("matroska", "avi")
# further restarts of one clock are not reported
MAX_RESTARTS_TOLD = 10
# A later frame has a broken time: filling up to it, five frames would make years.
MAX_LENGTH_S = MAX_POSITION_MS / 1000
# What names other files or addresses, or is a script: whoever wrote it would choose what is opened.
LISTS = frozenset("avisynth concat dash hls image2 imf rtp rtsp sap sdp vapoursynth webm_dash_manifest".split())


@dataclass(frozen=True)
class VideoInfo:
    """What a video's header says, and when its pictures are shown.

    Attributes:
        duration_s: seconds from the first shown frame to the end of the last one.
        fps: average frames a second of the source.
        width: pixels.
        height: pixels.
    """

    duration_s: float
    fps: float
    width: int
    height: int


@dataclass(frozen=True)
class Timing:
    """When the pictures of a video are shown, in seconds on the container's clock, which is the timeline up to a break.

    Attributes:
        first_s: when the first shown frame is: time 0 of every command.
        end_s: when the last one ends.
        player_s: time 0 of a player, which begins with the first stream, be it sound.
        restarts_s: where on the timeline the container's clock starts anew.
        can_seek: whether the container finds a place by its time.
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

    The packets of a file without an index (MPEG-TS, MPEG-PS, raw streams) are all read once, none of them decoded.

    Raises:
        InputError: `path` is not a readable video, or holds no picture.
    """
    try:
        status = Path(path).stat()
        return _timing_of(str(path), status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):  # an address, or no name of a file
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
        # of where decoding begins depends when a frame is shown
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
    """Whether a file that can be joined to another one byte by byte goes on behind the end that its header promises."""
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
        InputError: `path` is no readable video, holds no picture, or says that it lasts a day or more.
    """
    timing = timing_of(path)
    with open_video(path) as container:
        stream = video_stream(container, path)
        info = VideoInfo(timing.duration_s, frame_rate(container, stream), stream.width, stream.height)
    if info.duration_s <= 0 or info.width == 0:
        raise InputError(f"`{path}` is a video of zero length or size; encode it again")
    if info.duration_s >= MAX_LENGTH_S:
        raise InputError(f"`{path}` says that it is {info.duration_s:.0f} s long, a day or more; encode it again")
    return info


def scaled_size(source_height: float, source_width: float, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Return `(height, width)` in pixels for a `size` as `iter_frames` takes it.

    A height alone keeps the aspect, which is what the source's sides are to each other on a screen; the width is rounded
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
    frames (the same array). Memory is bounded whatever the length: frames are decoded as they are asked for, and only
    those on the grid are scaled (swscale, bilinear with anti-aliasing) and turned to RGB. Frames off the grid that no other
    frame refers to are not even decoded.

    Args:
        path: any video that FFmpeg reads: a file, or the address of a stream.
        fps: grid points a second.
        size: `(height, width)` in pixels, or a height alone (`scaled_size` tells the width, of pixels that are not square
            too), or None for the source's size.
        threads: decoder threads; 0 for one a core.
        live: yield each frame as soon as the next one of the source has come, which takes more computing: nothing is read
            ahead, and frames are not decoded side by side.
        on_damage: told in one line of a tail that is missing or packets that could not be decoded; what can be decoded
            is still yielded.

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
            # packets are read ahead of the frames, and the first frame tells where time 0 is
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
            raise InputError(f"`{path}` holds no frame that can be decoded; is it complete and a video?")
        end_s = shown_s + (shown.duration * time_base or 1 / timeline.rate)
        while index / fps < end_s - tolerance_s:
            yield shown_s, to_array(shown)
            index += 1
        if num_late:
            on_damage(
                f"`{path}` has {num_late} frames a day or more after the first, whose times are broken; left out"
            )
        promised_s = _end_s(container, stream) - start_s
        has_promised = not timeline.clock_may_jump and not timeline.is_raw
        if has_promised and end_s < promised_s - TRUNCATION_TOLERANCE_S:
            on_damage(f"`{path}` ends at {end_s:.1f} s, though its header promises {promised_s:.1f} s")


def _tell_restart(path: str | Path, time_s: float, num_clocks: int, on_damage: Callable[[str], None]) -> None:
    if num_clocks <= MAX_RESTARTS_TOLD + 1:
        on_damage(f"the clock of `{path}` starts anew at {time_s:.1f} s; what follows is taken as the next frames")


def frames_at(
    path: str | Path, timestamps_s: Iterable[float], size: int | tuple[int, int] | None = None
) -> Iterator[np.ndarray]:
    """Yield the frame on screen at each of some instants, by seeking: for a few frames of a long video.

    Args:
        path: any video that FFmpeg reads.
        timestamps_s: seconds after the first video frame, in any order; after the end it is the last frame.
        size: as `iter_frames` takes it.

    Yields:
        uint8 of shape `(height, width, 3)`.

    Raises:
        InputError: `path` is no video, or no frame before an instant can be decoded.
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
                    f"`{path}` holds no frame at {timestamp_s:.1f} s that can be decoded; is it complete?"
                )
            yield to_array(frame)


def _frames_of_one_pass(
    path: str | Path, timestamps_s: list[float], size: int | tuple[int, int] | None
) -> Iterator[np.ndarray]:
    """The frames on screen at some instants of a video that cannot be sought, every frame of which is decoded."""
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
            raise InputError(f"`{path}` holds no frame that can be decoded; is it complete?")
        found |= dict.fromkeys(coming, to_array(shown))
    yield from (found[timestamp_s] for timestamp_s in timestamps_s)


def _frame_on_screen(
    container: InputContainer, stream: VideoStream, timing: Timing, timestamp_s: float
) -> VideoFrame | None:
    """The last frame at or before an instant, from the nearest place before it that can be sought."""
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
    """Yield ticks to seek for a key frame at or before an instant of the container's clock, ever farther before it."""
    for back_s in SEEK_BACK_S:
        # a stream without an index may land behind an instant at its very begin
        yield math.floor(max(time_s - back_s, timing.first_s - SEEK_BACK_S[-2]) / stream.time_base)


class _ArrayConverter:
    """Frame -> upright uint8 RGB array of one size; converts a frame that is shown twice once."""

    def __init__(self, size: int | tuple[int, int] | None, pixel_aspect: float, threads: int):
        self.size = size
        self.pixel_aspect = pixel_aspect if isinstance(size, int) else 1.0
        self.threads = threads
        self.reformatter = VideoReformatter()  # one for all frames: setting up swscale costs more than a conversion
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
    """Open a file or an address for PyAV; `InputError` where FFmpeg cannot read it.

    Of a file, nothing but itself is read: lists of other files or addresses (HLS, DASH, concat) are no videos here.
    """
    # With logs hooked into Python, as importing torchvision does, a decoder thread that logs waits for the GIL while closing
    # a container half-way holds the GIL and waits for that thread.
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
    """Options with which FFmpeg opens one file and nothing else."""
    formats = (name for name in av.formats_available if LISTS.isdisjoint(name.split(",")))
    return {"format_whitelist": ",".join(formats), "protocol_whitelist": "file"}


def video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    """Return the stream with the moving picture; `InputError` naming `path` where there is none."""
    for stream in container.streams.video:
        # FFmpeg takes cover art for a video stream, and any text file for a terminal recording.
        if not stream.disposition & Disposition.attached_pic and container.format.name != "tty":
            return stream
    raise InputError(f"`{path}` holds no video stream; give a video file")


def quarter_turns(frame: VideoFrame) -> int:
    """How often to turn a frame by 90 degrees counter-clockwise until it is upright, 0 to 3, as the file says."""
    return round(frame.rotation / 90) % 4


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Return the width of a pixel relative to its height; 1 where the file says nothing, or an implausible value."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if 0.1 < aspect < 10 else Fraction(1)


def _tolerance_s(stream: VideoStream) -> float:
    """Containers round timestamps to ticks: a frame due at an instant may be stamped up to half a tick after it."""
    return min(0.51 * float(stream.time_base), 1e-3)


def _end_s(container: InputContainer, stream: VideoStream) -> float:
    """When the video ends on the container's clock, as the header has it; 0 where it says nothing."""
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
    """Yield frames that decode, in presentation order, all on the grid among them; what is broken is counted."""
    broken, context, skipping = 0, timeline.picture.codec_context, False
    before: deque[int] = deque(maxlen=PACKETS_AHEAD)
    has_drained = False
    for packet, next_pts in packets:
        if has_drained:
            # where recordings were joined, the last packets of the first one may be cut off
            broken, has_drained = before[0], False
        before.append(broken)
        broken += packet is not None and packet.is_corrupt
        skips = packet is not None and next_pts is not None and is_off_grid(packet.pts, next_pts)
        if skips != skipping:
            # what the decoder skips so is never referred to: the other frames do not change by a bit
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
    """Yield packets, in order of decoding, with the time of the frame shown next; `None` where it is not known."""
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
    # the last frame tells the video's end
    yield from ((packet, _after(packet, shown)) for packet in ahead)


def _after(packet: av.Packet | None, shown: list[int]) -> int | None:
    if packet is None or packet.pts is None:
        return None
    index = bisect_right(shown, packet.pts)
    return shown[index] if index < len(shown) else None


def _demux(timeline: Timeline, path: str | Path, on_damage: Callable[[str], None]) -> Iterator[av.Packet | None]:
    """Yield the stream's packets as far as they can be read, then None, which has the decoder give its last frames."""
    try:
        yield from timeline.packets()
    except av.error.FFmpegError as error:
        on_damage(f"`{path}` cannot be read to its end: {error.strerror}")
    yield None

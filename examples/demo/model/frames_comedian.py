"""Any video -> RGB frames on an exact time grid. NumPy and PyAV only.

Time 0 is when the first frame is shown, regardless of the container's clock. Frames that an edit list hides and those
before the first key frame are not shown. If the container's clock restarts, time continues (see [`Timeline`]). Grid point
`i` is at `i / fps` seconds and shows the frame on screen at that time: the last frame presented at or before it. Only the
timestamps of the frames are used, so variable frame rates, start times other than 0 and rates that do not divide the
source's need no special case. Frames are upright, as players show them: phones store rotated pictures and a rotation flag.
"""

import math
import os
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from .settings_comedian import CONTROL
from .timeline_comedian import Timeline

try:
    import av
    import av.logging
except ImportError:  # decoded frames need no decoder
    av = None

# A stream that is shorter than its container's duration by more than this is truncated.
TRUNCATION_TOLERANCE_S = 1.0
# More packets than any codec reorders frames by (H.264 and HEVC: 16).
PACKETS_AHEAD = 40
# further restarts of one clock are not reported
MAX_REPORTED_RESTARTS = 10
# A later frame has a broken timestamp: filling the gap up to it could repeat a frame for years.
MAX_LENGTH_S = 24 * 60 * 60
# Formats that refer to other files or addresses, or contain scripts: they could open anything on this machine.
LISTS = frozenset("avisynth concat dash hls image2 imf rtp rtsp sap sdp vapoursynth webm_dash_manifest".split())


class VideoError(ValueError):
    """A file is not a video that can be decoded: one line that names the file and what to do."""


def open_video(path: str | os.PathLike) -> Any:
    """Open a file or a URL with PyAV.

    Only the file itself is read: lists of other files or addresses (HLS, DASH, concat) are rejected.

    Raises:
        VideoError: FFmpeg cannot read it.
    """
    # Importing torchvision redirects FFmpeg's log to Python. A decoder thread that logs then waits for the GIL, while
    # closing a container early holds the GIL and waits for that thread: a deadlock.
    av.logging.set_level(None)
    if CONTROL.search(str(path)):
        raise VideoError(f"`{path}` has control characters in its name; rename it")
    try:
        if os.path.isfile(path):
            # the protocol by name: a file may be called `concat:a|b`
            return av.open(f"file:{path}", options=_of_one_file())
        return av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(
            f"`{path}` cannot be opened as a video: {error.strerror}; give a file that FFmpeg reads"
        ) from error


@cache
def _of_one_file() -> dict[str, str]:
    """FFmpeg options that restrict it to one file."""
    formats = (name for name in av.formats_available if LISTS.isdisjoint(name.split(",")))
    return {"format_whitelist": ",".join(formats), "protocol_whitelist": "file"}


def video_stream(container: Any, path: str | os.PathLike) -> Any:
    """Return the video stream of an open container.

    Raises:
        VideoError: `path` has none, or of a codec that FFmpeg does not know.
    """
    for stream in container.streams.video:
        # FFmpeg reports cover art as a video stream, and any text file as a terminal recording.
        if not stream.disposition & av.stream.Disposition.attached_pic and container.format.name != "tty":
            if stream.codec_context is None:
                raise VideoError(f"`{path}` has pictures of a codec that FFmpeg does not know; encode it as H.264")
            return stream
    raise VideoError(f"`{path}` contains no video stream; give a video file")


def scaled_size(source_height: float, source_width: float, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Return `(height, width)` in pixels for a `size` as for `iter_frames`.

    A height alone keeps the display aspect ratio; the width is rounded to the nearest even number.
    """
    if size is None:
        return round(source_height), round(source_width)
    if isinstance(size, int):
        return size, max(2, 2 * round(size * source_width / source_height / 2))
    return size


def iter_frames(
    path: str | os.PathLike,
    fps: float,
    size: int | tuple[int, int] | None = None,
    *,
    threads: int = 0,
    live: bool = False,
    on_damage: Callable[[str], None],
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the frame on screen at 0, 1 / fps, 2 / fps, ... seconds after the first video frame.

    There is a frame for every grid point before the end of the video's last frame; an `fps` above the source's repeats
    frames (the same array). Memory is bounded regardless of the length: frames are decoded on demand, and only those
    on the grid are scaled (swscale, bilinear with anti-aliasing) and converted to RGB. Frames off the grid that no other
    frame refers to are not decoded.

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
        VideoError: no frame can be decoded.
    """
    with open_video(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "SLICE" if live else "AUTO"
        stream.codec_context.thread_count = threads
        time_base, tolerance_s = float(stream.time_base), tick_tolerance_s(stream)
        to_array = FrameConverter(size, float(pixel_aspect(stream)), threads)

        shown, shown_s, start_s, index, num_late = None, 0.0, None, 0, 0

        def is_off_grid(pts: int, next_pts: int) -> bool:
            """Whether no grid point is near the time that a frame is on screen."""
            if start_s is None:
                return False
            first = math.ceil((pts * time_base - start_s - 2 * tolerance_s) * fps)
            return math.floor((next_pts * time_base - start_s + 2 * tolerance_s) * fps) < first

        restarts_s: list[float] = []
        timeline = Timeline(container, stream, restarts_s.append)
        demuxed = demux(timeline, path, on_damage)
        packets: Iterator[tuple[Any, int | None]]
        if live or timeline.has_decoding_times:
            packets = ((packet, None) for packet in demuxed)
        else:
            packets = _with_next_pts(demuxed)
        for frame in decode_packets(packets, timeline, path, on_damage, is_off_grid):
            time_s = timeline.time_s(frame)
            start_s = time_s if start_s is None else start_s
            # packets are read before the frames, and the first frame determines time 0
            while restarts_s:
                _report_restart(path, restarts_s.pop(0) - start_s, len(timeline.shifts), on_damage)
            if not live and time_s - start_s >= MAX_LENGTH_S:
                num_late += 1
                continue
            while shown is not None and index / fps < time_s - start_s - tolerance_s:
                yield shown_s, to_array(shown)
                index += 1
            shown, shown_s = frame, time_s - start_s
        if shown is None or start_s is None:
            raise VideoError(f"`{path}` contains no frame that can be decoded; check that it is a complete video")
        end_s = shown_s + (shown.duration * time_base or 1 / timeline.rate)
        while index / fps < end_s - tolerance_s:
            yield shown_s, to_array(shown)
            index += 1
        if num_late:
            on_damage(
                f"`{path}` has {num_late} frames a day or more after the first, with broken timestamps; they are skipped"
            )
        promised_s = stated_end_s(container, stream) - start_s
        has_promised = not timeline.clock_may_jump and not timeline.is_raw
        if has_promised and end_s < promised_s - TRUNCATION_TOLERANCE_S:
            on_damage(f"`{path}` ends at {end_s:.1f} s, but its header states {promised_s:.1f} s")


def _report_restart(path: str | os.PathLike, time_s: float, num_clocks: int, on_damage: Callable[[str], None]) -> None:
    if num_clocks <= MAX_REPORTED_RESTARTS + 1:
        on_damage(f"the clock of `{path}` restarts at {time_s:.1f} s; the following frames are appended")


class FrameConverter:
    """Frame -> upright uint8 RGB array of one size.

    Args:
        size: as for [`iter_frames`].
        pixel_aspect: width of a pixel relative to its height.
        threads: threads of swscale; 0 for one per core.
    """

    def __init__(self, size: int | tuple[int, int] | None, pixel_aspect: float, threads: int):
        self.size = size
        self.pixel_aspect = pixel_aspect if isinstance(size, int) else 1.0
        self.threads = threads
        # shared by all frames: setting up swscale takes longer than a conversion
        self.reformatter = av.video.reformatter.VideoReformatter()
        self.frame: Any = None
        self.array = np.empty(0, np.uint8)

    def __call__(self, frame: Any) -> np.ndarray:
        """Return uint8 `(height, width, 3)`; the same array if the frame is the previous one."""
        if frame is not self.frame:
            turns = quarter_turns(frame)
            sides = frame.height, frame.width * self.pixel_aspect
            height, width = scaled_size(*(sides[::-1] if turns % 2 else sides), self.size)
            if turns % 2:
                height, width = width, height
            bilinear = av.video.reformatter.Interpolation.BILINEAR
            converted = self.reformatter.reformat(
                frame, width, height, "rgb24", interpolation=bilinear, threads=self.threads
            )
            self.frame, self.array = frame, np.ascontiguousarray(np.rot90(converted.to_ndarray(), turns))
        return self.array


def quarter_turns(frame: Any) -> int:
    """Number of 90-degree counter-clockwise rotations, 0 to 3, that make a frame upright, according to the file."""
    return round(frame.rotation / 90) % 4


def pixel_aspect(stream: Any) -> Fraction:
    """Return the width of a pixel relative to its height; 1 if the file has no value or an implausible one."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if 0.1 < aspect < 10 else Fraction(1)


def tick_tolerance_s(stream: Any) -> float:
    """Tolerance in seconds: containers round timestamps to ticks, so a frame may be up to half a tick late."""
    return min(0.51 * float(stream.time_base), 1e-3)


def stated_end_s(container: Any, stream: Any) -> float:
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


def decode_packets(
    packets: Iterator[tuple[Any, int | None]],
    timeline: Timeline,
    path: str | os.PathLike,
    on_damage: Callable[[str], None],
    is_off_grid: Callable[[int, int], bool],
) -> Iterator[Any]:
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


def _with_next_pts(packets: Iterator[Any]) -> Iterator[tuple[Any, int | None]]:
    """Yield packets in decoding order, with the time of the next shown frame; `None` if unknown."""
    ahead: deque[Any] = deque()
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


def _after(packet: Any, shown: list[int]) -> int | None:
    if packet is None or packet.pts is None:
        return None
    index = bisect_right(shown, packet.pts)
    return shown[index] if index < len(shown) else None


def demux(timeline: Timeline, path: str | os.PathLike, on_damage: Callable[[str], None]) -> Iterator[Any]:
    """Yield the packets of the stream that can be read, then None, which flushes the decoder."""
    try:
        yield from timeline.packets()
    except av.error.FFmpegError as error:
        on_damage(f"`{path}` cannot be read to its end: {error.strerror}")
    yield None


__all__ = ["FrameConverter", "VideoError", "iter_frames", "open_video", "video_stream"]

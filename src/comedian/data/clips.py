"""Clips around events: packets copied as they are where that can be, encoded again where it cannot.

A copied clip can only begin at a key frame, so it begins at the last one at or before the instant that was asked for. Its
end is exact but for frames that its own last frames refer to.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from comedian.data.decoding import SEEK_BACK_S, open_video, probe, quarter_turns, video_stream
from comedian.data.frame_store import source_of
from comedian.errors import STORAGE_ERRORS, InputError
from comedian.files import atomic_path, atomic_write_text, read_json

logger = logging.getLogger(__name__)

RECORD_NAME = "clips.json"
# what players expect in an MP4
COPIED_CODECS = frozenset(("h264", "hevc", "av1", "vp9", "mpeg4", "aac", "mp3", "ac3", "eac3", "opus"))
# frames that a codec may show later than it decodes them
MAX_REORDERED = 16
# how far behind the picture in a file its sound may be
INTERLEAVING_S = 2.0
MAX_LABEL_LETTERS = 60


@dataclass(frozen=True)
class Segment:
    """A stretch of a video, in seconds after its first frame."""

    video: Path
    begin_s: float
    end_s: float


class _NotCopyable(Exception):
    """The packets cannot be taken as they are."""


def segment_of(spot: Mapping[str, Any], videos: Sequence[Path], before_s: float, after_s: float) -> Segment:
    """Return the stretch around a spot, cut at the ends of its half's video.

    Args:
        spot: `label`, `timestamp_s` and `half`.
        videos: of half 1, half 2 and so on.
        before_s: seconds before the spot.
        after_s: seconds after it.

    Raises:
        InputError: there is no video of the half, or it ends before the spot.
    """
    if spot["half"] > len(videos):
        raise InputError(f"an event is in half {spot['half']}, but {len(videos)} videos were given; name one a half")
    video = videos[spot["half"] - 1]
    duration_s = probe(video).duration_s
    if spot["timestamp_s"] >= duration_s:
        raise InputError(
            f"`{video}` ends at {duration_s:.1f} s, before {spot['label']!r} at {spot['timestamp_s']:.1f} s; give the "
            "videos of these events, in order"
        )
    return Segment(video, max(0.0, spot["timestamp_s"] - before_s), min(duration_s, spot["timestamp_s"] + after_s))


def clip_name(number: int, spot: Mapping[str, Any]) -> str:
    """Return a file's name such as `0001_h1_12m34s_Goal.mp4`, whatever the label holds."""
    minutes, seconds = divmod(int(spot["timestamp_s"]), 60)
    label = re.sub(r"[^\w-]+", "_", spot["label"]).strip("_")[:MAX_LABEL_LETTERS] or "event"
    return f"{number:04d}_h{spot['half']}_{minutes:02d}m{seconds:02d}s_{label}.mp4"


def write_clips(
    folder: str | Path,
    segments: Mapping[str, Segment],
    *,
    exact: bool = False,
    progress: Callable[[Iterator], Iterator] = iter,
) -> dict[str, dict[str, Any]]:
    """Write one clip a segment; those that are there already, of the same video and stretch, are kept.

    What the clips are stands in `clips.json` beside them, written after each.

    Args:
        folder: made if need be.
        segments: file name -> what to cut.
        exact: encode again, so that each clip begins at its very frame.
        progress: wraps what is gone through, such as `tqdm`.

    Returns:
        File name -> `video`, `begin_s`, `end_s`, `exact`, and `first_frame_s`, where in the video the clip really begins.

    Raises:
        InputError: a video cannot be read or its frames not be encoded.
    """
    record_path = Path(folder) / RECORD_NAME
    record = read_json(record_path) if record_path.exists() else {}
    if not isinstance(record, dict):
        raise InputError(f"`{record_path}` is no record of clips; remove it or choose another folder")
    for name in progress(segments):
        segment, path = segments[name], Path(folder) / name
        wanted = {"source": source_of(segment.video), **asdict(segment), "exact": exact, "video": str(segment.video)}
        known = record.get(name)
        if isinstance(known, dict) and path.exists() and {**known, **wanted} == known:
            continue
        record[name] = wanted | {"first_frame_s": write_segments(path, [segment], exact=exact)}
        atomic_write_text(record_path, json.dumps(record, indent=1) + "\n")
    return {name: record[name] for name in segments}


def write_reel(path: str | Path, segments: Sequence[Segment], *, exact: bool = False) -> list[Segment]:
    """Write segments one after the other into one video; those that overlap become one.

    Returns:
        What the reel holds.

    Raises:
        InputError: a video cannot be read or its frames not be encoded.
    """
    if not exact:  # the key frame may lie in the segment before
        segments = [Segment(part.video, _key_frame_s(part), part.end_s) for part in segments]
    merged: list[Segment] = []
    for part in segments:
        last = merged[-1] if merged else None
        if last and last.video == part.video and last.begin_s <= part.begin_s <= last.end_s:
            merged[-1] = Segment(last.video, last.begin_s, max(last.end_s, part.end_s))
        else:
            merged.append(part)
    write_segments(path, merged, exact=exact)
    return merged


def write_segments(path: str | Path, segments: Sequence[Segment], *, exact: bool = False) -> float:
    """Write segments into one MP4, copied where that can be and unless `exact`, otherwise as H.264 and AAC.

    Args:
        path: the file, whole or not at all.
        segments: in the order of the video to write.
        exact: encode again.

    Returns:
        Seconds after the first frame of its video at which the first segment really begins.

    Raises:
        InputError: a video cannot be read or its frames not be encoded.
        OSError: the file cannot be written.
    """
    with atomic_path(path) as partial:
        if not exact:
            try:
                return _write(partial, segments, _copy)
            except (_NotCopyable, av.error.FFmpegError, ValueError) as error:
                logger.info("`%s` is encoded, as its packets cannot be copied: %s", path, error)
        try:
            return _write(partial, segments, _encode)
        except av.error.FFmpegError as error:
            if error.errno in STORAGE_ERRORS:  # the video itself was opened
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise InputError(f"`{segments[0].video}` cannot be cut: {error.strerror}; is it complete?") from error


# ---- one output, many segments ----


@dataclass
class _Output:
    """A video that is being written: its streams and their formats by kind, and where they and the next segment are."""

    container: OutputContainer
    streams: dict[str, Stream] = field(default_factory=dict)
    formats: dict[str, tuple] = field(default_factory=dict)
    last_dts: dict[str, int] = field(default_factory=dict)
    next_s: Fraction = Fraction(0)


def _write(path: Path, segments: Sequence[Segment], add: Callable[[_Output, InputContainer, Segment], float]) -> float:
    begins_s = []
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        output = _Output(container)
        for segment in segments:
            with open_video(segment.video) as source:
                begins_s.append(add(output, source, segment))
        if add is _encode:
            for stream in output.streams.values():
                container.mux(stream.encode(None))
    return begins_s[0]


def _sources(source: InputContainer, segment: Segment) -> dict[str, Stream]:
    """The picture, and the sound where there is some."""
    return {"video": video_stream(source, segment.video)} | dict(zip(["audio"], source.streams.audio))


def _first_pts(source: InputContainer, stream: VideoStream) -> int:
    """Time of the frame that is shown first."""
    times = []
    for packet in source.demux(stream):
        if packet.pts is not None:
            times.append(packet.pts)
        if len(times) > MAX_REORDERED:
            break
    if not times:
        raise _NotCopyable("packets have no times")
    return min(times)


def _seek_key_frame(source: InputContainer, stream: VideoStream, target: int) -> int:
    """Go to a place at or before the last key frame at or before `target`, in ticks; return that key frame's time."""
    for back_s in SEEK_BACK_S:
        place = int(target - back_s / stream.time_base) if back_s < float("inf") else 0
        source.seek(max(place, 0), stream=stream)
        found = None
        for packet in source.demux(stream):
            if packet.pts is None:
                continue
            if packet.pts > target:
                break
            if packet.is_keyframe:
                found = packet.pts
        if found is not None:
            source.seek(max(place, 0), stream=stream)
            return found
    raise _NotCopyable("no key frame can be sought")


def _ticks(stream: Stream, time_s: float | Fraction) -> int:
    return round(time_s / stream.time_base)


def _key_frame_s(segment: Segment) -> float:
    """Where a copy of the segment would begin; its own begin where it cannot be copied."""
    with open_video(segment.video) as source:
        stream = video_stream(source, segment.video)
        try:
            first = _first_pts(source, stream)
            return float(
                (_seek_key_frame(source, stream, first + _ticks(stream, segment.begin_s)) - first) * stream.time_base
            )
        except (_NotCopyable, av.error.FFmpegError):
            return segment.begin_s


# ---- copying ----


def _copy(output: _Output, source: InputContainer, segment: Segment) -> float:
    """Append the packets of a segment, from the key frame at or before its begin; return where that is."""
    sources = _sources(source, segment)
    picture = sources["video"]
    first = _first_pts(source, picture)
    key = _seek_key_frame(source, picture, first + _ticks(picture, segment.begin_s))
    if others := {stream.codec.canonical_name for stream in sources.values()} - COPIED_CODECS:
        raise _NotCopyable(f"MP4 players do not expect {others.pop()}")
    formats = {kind: _format(stream) for kind, stream in sources.items()}
    if not output.streams:
        output.streams = {kind: output.container.add_stream_from_template(stream) for kind, stream in sources.items()}
        output.formats = formats
    elif formats != output.formats:
        raise _NotCopyable("the videos differ in codec, size or sound")
    begin_s = key * picture.time_base
    end_s = Fraction(segment.end_s) + first * picture.time_base
    shift_s, end_of_output_s = output.next_s - begin_s, output.next_s
    # Matroska keeps no decoding times, and FFmpeg finds none for the first frames after a seek: any before theirs will do
    before = count(key - MAX_REORDERED)
    for packet in _packets_between(source, sources, key, end_s):
        kind = packet.stream.type
        shift = _ticks(packet.stream, shift_s)
        dts = next(before) if packet.dts is None else packet.dts
        packet.pts += shift
        last = output.last_dts.get(kind)
        output.last_dts[kind] = packet.dts = dts + shift if last is None else max(dts + shift, last + 1)
        if packet.dts > packet.pts:
            raise _NotCopyable("decoding times go back")
        if kind == "video":
            end_of_output_s = max(end_of_output_s, (packet.pts + (packet.duration or 1)) * packet.time_base)
        packet.stream = output.streams[kind]
        output.container.mux(packet)
    output.next_s = end_of_output_s
    return float(begin_s - first * picture.time_base)


def _format(stream: Stream) -> tuple:
    """What two streams share whose packets may follow each other."""
    context = stream.codec_context
    size = (context.width, context.height, context.pix_fmt) if stream.type == "video" else (context.rate,)
    return context.codec.canonical_name, context.extradata, *size


def _packets_between(
    source: InputContainer, sources: Mapping[str, Stream], key: int, end_s: Fraction
) -> Iterator[av.Packet]:
    """Yield the picture's packets from the key frame up to the last one before `end_s`, and the sound beside them."""
    begin_s = key * sources["video"].time_base
    begun, after_end, ended = False, [], set()
    for packet in source.demux(*sources.values()):
        if packet.pts is None:
            if packet.size:
                raise _NotCopyable("packets have no times")
            continue
        kind, time_s = packet.stream.type, packet.pts * packet.time_base
        if kind == "audio":
            if begin_s <= time_s < end_s:
                yield packet
            elif time_s >= end_s:
                ended.add(kind)
        elif packet.pts == key and packet.is_keyframe:
            begun = True
            yield packet
        elif begun and packet.pts > key and "video" not in ended:
            # a frame after the end counts only where one before the end comes after it, and may refer to it
            after_end.append(packet)
            if time_s < end_s:
                yield from after_end
                after_end = []
            elif len(after_end) > MAX_REORDERED:
                ended.add(kind)
        if begun and (ended >= set(sources) or ("video" in ended and time_s > end_s + Fraction(INTERLEAVING_S))):
            return


# ---- encoding ----


def _encode(output: _Output, source: InputContainer, segment: Segment) -> float:
    """Append the frames of a segment, encoded; return where it begins."""
    sources = _sources(source, segment)
    picture = sources["video"]
    picture.thread_type = "AUTO"
    first = next(frame for frame in source.decode(picture) if frame.pts is not None)
    start, turns = first.pts, quarter_turns(first)
    if not output.streams:
        output.streams = _encoders(output.container, sources, picture, is_sideways=turns % 2 == 1)
    start_s, begin_s, end_s = start * picture.time_base, Fraction(segment.begin_s), Fraction(segment.end_s)
    try:
        _seek_key_frame(source, picture, start + _ticks(picture, begin_s))
    except _NotCopyable:
        source.seek(0)
    # half a millisecond: containers round times
    slack_s = Fraction(1, 2000)
    target, shown_s, done = output.streams["video"], None, set()
    for frame in source.decode(*sources.values()):
        if frame.pts is None:
            continue
        kind = "video" if isinstance(frame, av.VideoFrame) else "audio"
        time_s = frame.pts * frame.time_base - start_s
        if time_s >= end_s - slack_s:
            done.add(kind)
            if done >= set(sources) or ("video" in done and time_s > end_s + Fraction(INTERLEAVING_S)):
                break
        elif time_s >= begin_s - slack_s and kind in output.streams:
            place_s = time_s - begin_s + output.next_s
            if kind == "video":
                shown_s = time_s if shown_s is None else shown_s
                if turns:
                    frame = VideoFrame.from_ndarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
                frame = frame.reformat(target.width, target.height, "yuv420p")
                frame.pict_type = 0
            encoder = output.streams[kind]
            frame.time_base = encoder.codec_context.time_base
            frame.pts = max(round(place_s / frame.time_base), output.last_dts.get(kind, -1) + 1)
            output.last_dts[kind] = frame.pts
            output.container.mux(encoder.encode(frame))
    if shown_s is None:
        raise InputError(f"`{segment.video}` holds no frame from {segment.begin_s:.1f} to {segment.end_s:.1f} s")
    output.next_s += end_s - begin_s
    return float(shown_s)


def _encoders(
    container: OutputContainer, sources: Mapping[str, Stream], picture: VideoStream, is_sideways: bool
) -> dict[str, Stream]:
    rate = picture.average_rate or picture.guessed_rate or Fraction(25)
    video = container.add_stream("libx264", rate, options={"crf": "18", "preset": "veryfast"})
    sides = (picture.height, picture.width) if is_sideways else (picture.width, picture.height)
    video.width, video.height, video.pix_fmt = sides[0] // 2 * 2, sides[1] // 2 * 2, "yuv420p"
    video.codec_context.time_base = Fraction(1, 90_000)
    if "audio" not in sources:
        return {"video": video}
    sound = container.add_stream("aac", sources["audio"].rate)
    sound.layout = sources["audio"].layout
    sound.codec_context.time_base = Fraction(1, sources["audio"].rate)
    return {"video": video, "audio": sound}

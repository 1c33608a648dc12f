"""Clips around events: packets are copied if possible and re-encoded otherwise.

A copy must contain the packets from the key frame at or before the requested time. A clip hides the packets before
that time with an edit list, which players follow; further segments of a reel show them. Where the key frame is more
than `MAX_EARLY_S` before the requested time, the packets are re-encoded instead. The end of a copy is exact, except
for frames that its own last frames refer to.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from comedian.errors import STORAGE_ERRORS, InputError
from comedian.files import atomic_path, atomic_write_text, read_json
from comedian.models.frames_comedian import pixel_aspect, quarter_turns
from comedian.models.timeline_comedian import Timeline, frame_rate
from comedian.video.decoding import Timing, open_video, probe, seek_places, timing_of, video_stream
from comedian.video.frame_store import same_source, source_of

logger = logging.getLogger(__name__)

RECORD_NAME = "clips.json"
# codecs that players support in an MP4
COPIED_CODECS = frozenset(("h264", "hevc", "av1", "vp9", "mpeg4", "aac", "mp3", "ac3", "eac3", "opus"))
# the packets of a copy may begin at most this much before the requested time
MAX_EARLY_S = 1.0
# maximum reordering delay of a codec, in frames
MAX_REORDERED = 16
# the audio packets of a file may be at most this far behind the video packets
INTERLEAVING_S = 2.0
MAX_LABEL_LETTERS = 60
# of a copy for a browser: sufficient for labelling
COPY_HEIGHT = 360
# sample rates of AAC in an MP4; audio with another rate is resampled
AAC_RATES = frozenset((8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000))
DEFAULT_AAC_RATE = 48_000
# tolerance for containers that round timestamps
SLACK_S = Fraction(1, 2000)


@dataclass(frozen=True)
class Segment:
    """A segment of a video, in seconds after its first shown frame."""

    video: Path
    begin_s: float
    end_s: float


class _NotCopyable(Exception):
    """The packets cannot be copied."""


def segment_of(spot: Mapping[str, Any], halves: Mapping[int, Path], before_s: float, after_s: float) -> Segment:
    """Return the segment around a spot, clipped to the duration of the half's video.

    Args:
        spot: `label`, `timestamp_s` and `half`.
        halves: half -> video, see [`match_of_videos`].
        before_s: seconds before the spot.
        after_s: seconds after it.

    Raises:
        InputError: the half has no video, or the video ends before the spot.
    """
    video = halves.get(spot["half"])
    if video is None:
        given = ", ".join(f"`{path}` is half {half}" for half, path in sorted(halves.items()))
        raise InputError(f"an event is in half {spot['half']}, but {given}; give one video per half")
    duration_s = probe(video).duration_s
    if spot["timestamp_s"] >= duration_s:
        raise InputError(
            f"`{video}` ends at {duration_s:.1f} s, before {spot['label']!r} at {spot['timestamp_s']:.1f} s; give the "
            "videos of these events, in order"
        )
    return Segment(video, max(0.0, spot["timestamp_s"] - before_s), min(duration_s, spot["timestamp_s"] + after_s))


def clip_names(spots: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one file name per spot, such as `Goal_h1_12m34s.mp4`; other characters of labels are replaced.

    Spots of one label within a second are numbered: `Goal_h1_12m34s_2.mp4`.
    """
    names = []
    taken: Counter[str] = Counter()
    for spot in spots:
        minutes, seconds = divmod(int(spot["timestamp_s"]), 60)
        label = re.sub(r"[^\w-]+", "_", spot["label"]).strip("_")[:MAX_LABEL_LETTERS] or "event"
        name = f"{label}_h{spot['half']}_{minutes:02d}m{seconds:02d}s"
        # some file systems are case-insensitive
        taken[name.casefold()] += 1
        number = taken[name.casefold()]
        names.append(f"{name}.mp4" if number == 1 else f"{name}_{number}.mp4")
    return names


def write_clips(
    folder: str | Path,
    segments: Mapping[str, Segment],
    *,
    exact: bool = False,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> dict[str, dict[str, Any]]:
    """Write one clip per segment; existing clips of the same video and segment are kept.

    If a segment cannot be written, the others are still written. `clips.json` in the same folder describes the clips;
    it is updated after each clip.

    Args:
        folder: created if missing.
        segments: file name -> segment.
        exact: re-encode, so that each clip begins and ends at the exact frame, also in players that ignore edit lists.
        progress: wraps the iterable of segments, such as `tqdm`.

    Returns:
        File name -> `video`, `begin_s`, `end_s`, `exact`, and `first_frame_s`, the actual start of the clip in the video.

    Raises:
        InputError: the folder has a clip of that name of another video; or a video cannot be read or its frames cannot be
            encoded, which is raised after the other clips are written.
    """
    record_path = Path(folder) / RECORD_NAME
    record = read_json(record_path) if record_path.exists() else {}
    if not isinstance(record, dict):
        raise InputError(f"`{record_path}` is not a valid record of clips; remove it or choose another folder")
    for name, segment in segments.items():
        _check_owner(Path(folder) / name, record.get(name), segment.video)
    failures = []
    for name in progress(segments):
        segment, path = segments[name], Path(folder) / name
        wanted = {"source": source_of(segment.video), **asdict(segment), "exact": exact, "video": str(segment.video)}
        known = record.get(name)
        if isinstance(known, dict) and path.exists() and {**known, **wanted} == known:
            continue
        try:
            record[name] = wanted | {"first_frame_s": write_segments(path, [segment], exact=exact)}
        except InputError as error:
            failures.append(f"`{name}`: {error}")
            continue
        atomic_write_text(record_path, json.dumps(record, indent=1) + "\n")
    if failures:
        raise InputError(
            f"{len(failures)} of {len(segments)} clips cannot be written; the first error is {failures[0]}"
        )
    return {name: record[name] for name in segments}


def _check_owner(path: Path, known: Any, video: Path) -> None:
    """Raise `InputError` if a file that exists is the video, or a clip of another one; a renamed or replaced one is the
    same."""
    if path.exists() and path.samefile(video):
        raise InputError(f"`{path}` is a video, which its clip would replace; give another folder for the clips")
    if not isinstance(known, dict) or not path.exists() or known.get("video") == str(video):
        return
    if not same_source(known.get("source") or {}, source_of(video)):
        raise InputError(
            f"`{path}` is a clip of `{known.get('video')}`, not of `{video}`; give another folder for these clips"
        )


def write_reel(path: str | Path, segments: Sequence[Segment], *, exact: bool = False) -> list[Segment]:
    """Write segments one after the other into one video; overlapping segments are merged.

    Returns:
        The segments of the reel.

    Raises:
        InputError: a video cannot be read or its frames cannot be encoded.
    """
    if not exact:  # the key frame may be in the previous segment
        found = [_begin_of_copy_s(part) for part in segments]
        begins_s = [begin_s for begin_s in found if begin_s is not None]
        exact = len(begins_s) < len(found)
    if not exact:
        begins_s[:1] = [segment.begin_s for segment in segments[:1]]  # an edit list hides the frames before it
        segments = [Segment(part.video, begin_s, part.end_s) for part, begin_s in zip(segments, begins_s, strict=True)]
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
    """Write segments into one MP4: copied if possible and not `exact`, otherwise re-encoded as H.264 and AAC.

    Args:
        path: the file, written atomically.
        segments: in the order of the video to write.
        exact: re-encode.

    Returns:
        Seconds after the first frame of its video at which the first segment actually begins.

    Raises:
        InputError: a video cannot be read or its frames cannot be encoded.
        OSError: the file cannot be written.
    """
    with atomic_path(path) as partial:
        if not exact:
            try:
                return _write(partial, segments, _copy)
            except (_NotCopyable, av.error.FFmpegError, ValueError) as error:
                logger.info("`%s` is encoded, as its packets cannot be copied: %s", path, error)
        with _encoding(path, segments[0].video):
            return _write(partial, segments, _encode)


def write_copy(path: str | Path, video: Path, progress: Callable[[float], None] = lambda time_s: None) -> None:
    """Write a whole video as a small MP4 (H.264 and AAC) that browsers play; its time 0 is the video's first shown frame.

    Args:
        path: the file, written atomically.
        video: what to copy.
        progress: called with the time in the video that has been reached, in seconds.

    Raises:
        InputError: the video cannot be read or its frames not be encoded.
    """
    segment = Segment(video, 0.0, probe(video).duration_s)
    with atomic_path(path) as partial, _encoding(path, video):
        _write(partial, [segment], _encode, max_height=COPY_HEIGHT, progress=progress)


@contextmanager
def _encoding(path: str | Path, video: Path) -> Iterator[None]:
    """Turn FFmpeg's errors into those of the file that is written, or of the video."""
    try:
        yield
    except av.error.FFmpegError as error:
        if error.errno in STORAGE_ERRORS:  # the video itself could be opened
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise InputError(f"`{video}` cannot be encoded: {error.strerror}; check that the file is complete") from error


# ---- one output, many segments ----


@dataclass
class _Output:
    """A video that is being written: its streams and their formats by kind, and the current positions."""

    container: OutputContainer
    streams: dict[str, Stream] = field(default_factory=dict)
    formats: dict[str, tuple] = field(default_factory=dict)
    last_dts: dict[str, int] = field(default_factory=dict)
    next_s: Fraction = Fraction(0)
    max_height: int | None = None
    progress: Callable[[float], None] | None = None


def _write(
    path: Path, segments: Sequence[Segment], add: Callable[[_Output, InputContainer, Segment], float], **options: Any
) -> float:
    begins_s = []
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        output = _Output(container, **options)
        for segment in segments:
            with open_video(segment.video) as source:
                begins_s.append(add(output, source, segment))
        if add is _encode:
            for stream in output.streams.values():
                container.mux(stream.encode(None))
    return begins_s[0]


def _sources(source: InputContainer, segment: Segment) -> dict[str, Stream]:
    """The video stream, and the first audio stream of a codec that FFmpeg knows, if there is one."""
    heard = (stream for stream in source.streams.audio if stream.codec_context is not None)
    return {"video": video_stream(source, segment.video)} | dict(zip(["audio"], heard))


def _ticks(stream: Stream, time_s: float | Fraction) -> int:
    return round(time_s / stream.time_base)


class _Place(NamedTuple):
    """Start of a segment in a video, in ticks of the video stream on the timeline.

    Attributes:
        key: the last key frame at or before it.
        shown: the frame on screen.
        seek: a position before the key frame to seek to; `None` for the start of the file.
    """

    key: int
    shown: int
    seek: int | None


def _place_of(segment: Segment, timing: Timing) -> _Place:
    with open_video(segment.video) as source:
        picture = video_stream(source, segment.video)
        target = _ticks(picture, timing.first_s + segment.begin_s + SLACK_S)
        for place in seek_places(picture, timing, target * picture.time_base) if timing.can_seek else [None]:
            if place is not None:
                source.seek(place, stream=picture)
            timeline, key, shown, num_after = Timeline(source, picture), None, None, 0
            if timeline.has_decoding_times:
                raise _NotCopyable("AVI does not store presentation times of reordered frames")
            for packet in timeline.packets():
                if packet is None or packet.pts is None:
                    continue
                if packet.pts <= target:
                    key = packet.pts if packet.is_keyframe else key
                    shown = packet.pts if shown is None else max(shown, packet.pts)
                num_after += packet.pts > target
                if num_after > MAX_REORDERED:
                    break
            if key is not None:
                return _Place(key, max(shown, key), place)
    raise _NotCopyable("no key frame can be found by seeking")


def _begin_of_copy_s(segment: Segment) -> float | None:
    """Where a copy of the segment begins, in seconds after the first frame; `None` if it is re-encoded instead."""
    timing = timing_of(segment.video)
    try:
        with open_video(segment.video) as source:
            place = _place_of(segment, timing)
            begin_s = float(place.key * video_stream(source, segment.video).time_base) - timing.first_s
    except (_NotCopyable, av.error.FFmpegError):
        return None
    return begin_s if _begins_in_time(begin_s, segment) else None


def _begins_in_time(begin_s: float, segment: Segment) -> bool:
    """Whether a copy that begins at a key frame contains no frames before the video's first shown frame, and at most
    `MAX_EARLY_S` before the segment."""
    return begin_s >= max(segment.begin_s - MAX_EARLY_S, 0) - SLACK_S


# ---- copying ----


def _copy(output: _Output, source: InputContainer, segment: Segment) -> float:
    """Append the packets of a segment, from the key frame at or before its start; return the time of the first shown
    frame."""
    sources, timing = _sources(source, segment), timing_of(segment.video)
    picture = sources["video"]
    place = _place_of(segment, timing)
    key_s, first_s = place.key * picture.time_base, _ticks(picture, timing.first_s) * picture.time_base
    if not _begins_in_time(float(key_s - first_s), segment):
        raise _NotCopyable(f"the key frame is {segment.begin_s - float(key_s - first_s):.1f} s before the start")
    if others := {stream.codec.canonical_name for stream in sources.values()} - COPIED_CODECS:
        raise _NotCopyable(f"MP4 players do not support {others.pop()}")
    formats = {kind: _format(stream) for kind, stream in sources.items()}
    if not output.streams:
        output.streams = {kind: output.container.add_stream_from_template(stream) for kind, stream in sources.items()}
        output.formats = formats
        if picture.codec.canonical_name == "hevc":  # Apple's players do not play FFmpeg's default tag, hev1
            output.streams["video"].codec_context.codec_tag = "hvc1"
    elif formats != output.formats:
        raise _NotCopyable("the videos differ in codec, size or audio format")
    end_s = Fraction(segment.end_s) + first_s
    # a packet with a time below 0 is hidden by an edit list
    begin_s = key_s if output.last_dts else place.shown * picture.time_base
    shift_s, end_of_output_s = output.next_s - begin_s, output.next_s
    # Matroska stores no decoding times, and FFmpeg computes none for the first frames after a seek: any earlier time
    # is valid
    before = count(place.key - MAX_REORDERED)
    if place.seek is not None:
        source.seek(place.seek, stream=picture)
    for packet in _packets_between(source, sources, place.key, begin_s, end_s):
        kind = packet.stream.type
        shift = _ticks(packet.stream, shift_s)
        dts = next(before) if packet.dts is None else packet.dts
        packet.pts += shift
        last = output.last_dts.get(kind)
        output.last_dts[kind] = packet.dts = dts + shift if last is None else max(dts + shift, last + 1)
        if packet.dts > packet.pts:
            raise _NotCopyable("decoding times decrease")
        if kind == "video":
            end_of_output_s = max(end_of_output_s, (packet.pts + (packet.duration or 1)) * packet.time_base)
        packet.stream = output.streams[kind]
        output.container.mux(packet)
    output.next_s = end_of_output_s
    return float(begin_s - first_s)


def _format(stream: Stream) -> tuple:
    """Properties that two streams must share for their packets to be concatenated."""
    context = stream.codec_context
    size = (context.width, context.height, context.pix_fmt) if stream.type == "video" else (context.rate,)
    return context.codec.canonical_name, context.extradata, *size


def _packets_between(
    source: InputContainer, sources: Mapping[str, Stream], key: int, begin_s: Fraction, end_s: Fraction
) -> Iterator[av.Packet]:
    """Yield the video packets from the key frame to the last one before `end_s`, and the audio packets from `begin_s`."""
    picture, *others = sources.values()
    begun, after_end, ended = False, [], set()
    for packet in Timeline(source, picture).packets(*others):
        if packet is None:
            if begun and "video" not in ended:
                raise _NotCopyable("the container's clock restarts, and the rest may be another recording")
            continue
        if packet.pts is None:
            raise _NotCopyable("packets have no times")
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
    """Encode and append the frames of a segment; return its start time."""
    sources = _sources(source, segment)
    frames = _frames_between(source, sources, segment)
    early = []
    for item in frames:
        early.append(item)
        if item[0] == "video":
            break
    else:
        raise InputError(f"`{segment.video}` has no frame from {segment.begin_s:.1f} to {segment.end_s:.1f} s")
    _, first_s, first = early[-1]
    turns = quarter_turns(first)
    if not output.streams:
        output.streams = _encoders(output.container, sources, turns % 2 == 1, output.max_height)
    sound = output.streams.get("audio")
    resampler = av.AudioResampler("fltp", sound.layout, sound.rate) if sound else None
    for kind, time_s, frame in chain(early, frames):
        place_s = time_s - Fraction(segment.begin_s) + output.next_s
        if kind == "video":
            _encode_frame(output, kind, _upright(frame, turns, output.streams[kind]), place_s)
            if output.progress is not None:
                output.progress(float(time_s))
        elif resampler:
            frame.time_base = Fraction(1, frame.sample_rate)
            frame.pts = round(place_s / frame.time_base)
            for part in resampler.resample(frame):
                _encode_frame(output, kind, part, part.pts * part.time_base)
    if resampler:
        for part in resampler.resample(None):
            _encode_frame(output, "audio", part, part.pts * part.time_base)
    output.next_s += Fraction(segment.end_s) - Fraction(segment.begin_s)
    return float(first_s)


def _encode_frame(output: _Output, kind: str, frame: av.VideoFrame | av.AudioFrame, place_s: Fraction) -> None:
    """Encode a frame at its time in the output, or one tick after the previous frame if that is later."""
    encoder = output.streams[kind]
    frame.time_base = encoder.codec_context.time_base
    frame.pts = max(round(place_s / frame.time_base), output.last_dts.get(kind, -1) + 1)
    output.last_dts[kind] = frame.pts + (frame.samples - 1 if kind == "audio" else 0)
    output.container.mux(encoder.encode(frame))


def _upright(frame: VideoFrame, turns: int, target: VideoStream) -> VideoFrame:
    """A frame in the format of the encoder."""
    if turns:
        frame = VideoFrame.from_ndarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
    frame = frame.reformat(target.width, target.height, "yuv420p")
    frame.pict_type = 0
    return frame


def _frames_between(
    source: InputContainer, sources: Mapping[str, Stream], segment: Segment
) -> Iterator[tuple[str, Fraction, av.VideoFrame | av.AudioFrame]]:
    """Yield the video and audio frames of a segment: kind, seconds after the video's first frame, and frame.

    The first picture is the one on screen at the start; the last one is shown until the end.
    """
    picture, timing = sources["video"], timing_of(segment.video)
    picture.thread_type = "AUTO"
    begin_s, end_s = Fraction(segment.begin_s), Fraction(segment.end_s)
    before, last, last_s = None, None, begin_s
    for kind, time_s, frame in _frames_from_key_frame(source, sources, segment, timing, end_s):
        if kind == "audio":
            if begin_s - SLACK_S <= time_s < end_s - SLACK_S:
                yield kind, time_s, frame
        elif time_s < begin_s - SLACK_S:
            before = frame
        elif time_s < end_s - SLACK_S:
            if last is None and before is not None and time_s > begin_s + SLACK_S:
                yield kind, begin_s, before
            yield kind, time_s, frame
            last, last_s = frame, time_s
    if last is None and before is not None:
        yield "video", begin_s, before
        last = before
    step_s = 1 / Fraction(frame_rate(source, picture)).limit_denominator(1001)
    if last is not None and last_s + 3 * step_s / 2 < end_s:
        yield "video", end_s - step_s, last


def _frames_from_key_frame(
    source: InputContainer, sources: Mapping[str, Stream], segment: Segment, timing: Timing, end_s: Fraction
) -> Iterator[tuple[str, Fraction, av.VideoFrame | av.AudioFrame]]:
    """Yield the frames that decode from a key frame before a segment until its end, or from the start of the file."""
    picture, *others = sources.values()
    try:
        key, _, place = _place_of(segment, timing)
    except (_NotCopyable, av.error.FFmpegError):
        key, place = None, None
    if place is not None:
        source.seek(place, stream=picture)
    timeline, begun, done = Timeline(source, picture), key is None, set()
    first_s = Fraction(timing.first_s)
    for packet in chain(timeline.packets(*others), [None]):
        is_sound = packet is not None and packet.stream.type == "audio"
        if is_sound and segment.begin_s > (packet.pts or 0) * packet.time_base - first_s + 1:
            continue
        begun = begun or (packet is not None and not is_sound and packet.is_keyframe and packet.pts == key)
        if not begun and not is_sound:
            continue
        try:
            frames = packet.decode() if is_sound else timeline.decode(packet)
        except av.error.FFmpegError:
            continue
        for frame in frames:
            if is_sound and frame.pts is None:
                continue
            time_s = (frame.pts * frame.time_base if is_sound else Fraction(timeline.time_s(frame))) - first_s
            if time_s >= end_s - SLACK_S:
                done.add("audio" if is_sound else "video")
            yield "audio" if is_sound else "video", time_s, frame
        if done >= set(sources) or ("video" in done and time_s > end_s + Fraction(INTERLEAVING_S)):
            return


def _encoders(
    container: OutputContainer, sources: Mapping[str, Stream], is_sideways: bool, max_height: int | None
) -> dict[str, Stream]:
    picture = sources["video"]
    rate, aspect = picture.average_rate or picture.guessed_rate or Fraction(25), pixel_aspect(picture)
    video = container.add_stream("libx264", rate, options={"crf": "18", "preset": "veryfast"})
    sides = (picture.height, picture.width) if is_sideways else (picture.width, picture.height)
    scale = min(1.0, (max_height or sides[1]) / sides[1])
    video.width, video.height = (max(2, 2 * round(scale * side / 2)) if scale < 1 else side // 2 * 2 for side in sides)
    video.pix_fmt = "yuv420p"
    video.codec_context.sample_aspect_ratio = 1 / aspect if is_sideways else aspect
    video.codec_context.time_base = Fraction(1, 90_000)
    if "audio" not in sources:
        return {"video": video}
    heard = sources["audio"]
    sound = container.add_stream("aac", heard.rate if heard.rate in AAC_RATES else DEFAULT_AAC_RATE)
    sound.layout = heard.layout
    if heard.layout.name.endswith("channels"):  # PCM files store the number of channels, not their layout
        sound.layout = "mono" if heard.layout.nb_channels == 1 else "stereo"
    sound.codec_context.time_base = Fraction(1, sound.rate)
    return {"video": video, "audio": sound}

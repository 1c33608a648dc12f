"""Small synthetic videos whose every frame says which one it is, in blocks that survive compression and scaling."""

import struct
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np

NUM_BITS = 10
COLOURS = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200)], np.uint8)


def draw_frame(number: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Return uint8 RGB `(height, width, 3)`: `number` in binary as black and white bars over a red, green or blue band."""
    frame = np.empty((height, width, 3), np.uint8)
    for bit, columns in enumerate(np.array_split(np.arange(width), NUM_BITS)):
        frame[:, columns] = 235 if number >> bit & 1 else 20
    frame[height // 2 :] = COLOURS[number % len(COLOURS)]
    return frame


def frame_number(frame: np.ndarray) -> int:
    """Return the number that `draw_frame` drew, at whatever size it comes back; its colour must agree."""
    height, width = frame.shape[:2]
    bars = np.array_split(np.arange(width), NUM_BITS)
    bits = [frame[: height // 3, columns[len(columns) // 3 : -(len(columns) // 3)]].mean() > 128 for columns in bars]
    number = sum(1 << bit for bit, is_set in enumerate(bits) if is_set)
    colour = frame[-(height // 3) :].reshape(-1, 3).mean(axis=0)
    assert colour.argmax() == number % len(COLOURS), (number, colour)
    return number


def write_video(
    path: str | Path,
    num_frames: int = 40,
    fps: float = 10,
    *,
    times_s: list[float] | None = None,
    start_s: float = 0.0,
    height: int = 64,
    width: int = 96,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    b_frames: int = 2,
    gop: int = 12,
    draw: Callable[[int, int, int], np.ndarray] = draw_frame,
    audio_s: float = 0.0,
    sound: np.ndarray | None = None,
    sound_rate: int = 16_000,
    sound_start_s: float = 0.0,
    sound_codec: str = "pcm_s16le",
    pixel_aspect: Fraction | None = None,
    codec_options: dict[str, str] | None = None,
) -> Path:
    """Write a video whose frame `k` is `draw_frame(k)`; the name's ending chooses the container.

    Args:
        path: the file; missing folders are made.
        num_frames: frames, where `times_s` does not say.
        fps: frames a second, likewise; with `times_s`, the nominal rate.
        times_s: when each frame is presented, for a variable rate.
        start_s: added to every presentation time.
        height: pixels.
        width: pixels.
        codec: FFmpeg's name of the encoder.
        pixel_format: FFmpeg's name.
        b_frames: B-frames in a row at most.
        gop: frames from one key frame to the next.
        draw: number, height and width to the frame.
        audio_s: seconds of silence in a second stream that starts at 0; none by default.
        sound: what is heard instead, float `(num_samples,)` or `(num_channels, num_samples)` in [-1, 1].
        sound_rate: samples of `sound` a second.
        sound_start_s: when the first of them is heard, on the container's clock.
        sound_codec: FFmpeg's name of the encoder.
        pixel_aspect: width of a pixel relative to its height; square ones by default.
        codec_options: options of FFmpeg's encoder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(fps).limit_denominator(1001)
    # MPEG-2 knows no other ticks than its frames
    is_fine = (times_s is not None or start_s) and codec != "mpeg2video"
    time_base = Fraction(1, 90_000) if is_fine else 1 / rate
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=codec_options or {})
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        stream.codec_context.max_b_frames, stream.codec_context.gop_size = b_frames, gop
        stream.codec_context.time_base = time_base
        stream.codec_context.thread_count = 1
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if audio_s:
            sound, sound_codec = np.zeros(round(audio_s * sound_rate)), "aac"
        if sound is not None:
            channels = np.atleast_2d(sound).astype(np.float32)
            layout = "mono" if len(channels) == 1 else "stereo"
            audio = container.add_stream(sound_codec, rate=sound_rate, layout=layout)
            heard = av.AudioFrame.from_ndarray(channels, "fltp", layout)
            heard.sample_rate, heard.time_base = sound_rate, Fraction(1, sound_rate)
            heard.pts = round(sound_start_s * sound_rate)
        for index, time_s in enumerate(times_s or [index / fps for index in range(num_frames)]):
            picture = av.VideoFrame.from_ndarray(draw(index, height, width))
            picture.time_base = time_base
            picture.pts = round((start_s + time_s) / time_base)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound is not None:
            container.mux(audio.encode(heard))
            container.mux(audio.encode(None))
    return path


def numbered_from(first: int) -> Callable[[int, int, int], np.ndarray]:
    """Return a `draw` whose frame `k` is `draw_frame(first + k)`."""
    return lambda number, height, width: draw_frame(first + number, height, width)


def join(path: Path, *parts: Path) -> Path:
    """Join files byte by byte."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def begin_later(source: Path, path: Path, begin_s: float, first_packet: int = 0) -> Path:
    """Copy a video without encoding so that time 0 is `begin_s`: an MP4 hides what comes before with an edit list.

    Args:
        source: without sound.
        path: the copy.
        begin_s: what becomes 0.
        first_packet: the first one to copy, be it a key frame or not.
    """
    with av.open(str(source)) as given, av.open(str(path), "w") as made:
        picture = given.streams.video[0]
        copy = made.add_stream_from_template(picture)
        shift = round(begin_s / picture.time_base)
        packets = (packet for packet in given.demux(picture) if packet.size)
        for packet in islice(packets, first_packet, None):
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
            made.mux(packet)
    return path


def note_turn(path: Path, turns: int) -> Path:
    """Note in the header of an MP4 that players turn the picture by `turns` times 90 degrees clockwise.

    As QuickTime has it: the matrix of the track's header takes a pixel's place (x, y) to where it is shown.
    """
    content = bytearray(path.read_bytes())
    # after the box's name: version and flags, five times and numbers, reserved, layer, group, volume, reserved
    start = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    a, b, c, d = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)][turns]
    one = 1 << 16
    content[start : start + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def truncate(path: Path, fraction: float) -> Path:
    """Cut a file to its first `fraction`, as a download that broke off."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    return path


def corrupt(path: Path, begin: float, end: float) -> Path:
    """Overwrite the bytes between two fractions of a file with noise."""
    content = bytearray(path.read_bytes())
    first, last = int(len(content) * begin), int(len(content) * end)
    content[first:last] = np.random.default_rng(0).bytes(last - first)
    path.write_bytes(content)
    return path


def on_screen(times_s: list[float], grid_fps: float, end_s: float) -> list[int]:
    """Return which frame is on screen at each grid point: the independent truth, by linear search."""
    shown, index = [], 0
    while index / grid_fps < end_s - 1e-6:
        shown.append(max(k for k, time_s in enumerate(times_s) if time_s - times_s[0] <= index / grid_fps + 1e-6))
        index += 1
    return shown

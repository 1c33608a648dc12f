"""Small synthetic videos whose every frame says which one it is, in blocks that survive compression and scaling."""

from fractions import Fraction
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
    audio_s: float = 0.0,
) -> Path:
    """Write a video whose frame `k` is `draw_frame(k)`; the name's ending chooses the container.

    Args:
        path: where; missing folders are made.
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
        audio_s: seconds of silence in a second stream that starts at 0; none by default.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(fps).limit_denominator(1001)
    ticks = 90_000 if times_s is not None or start_s else None
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        stream.codec_context.max_b_frames, stream.codec_context.gop_size = b_frames, gop
        stream.codec_context.time_base = Fraction(1, ticks) if ticks else 1 / rate
        stream.codec_context.thread_count = 1
        if audio_s:
            sound = container.add_stream("aac", rate=16_000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, round(audio_s * 16_000)), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts, silence.time_base = 16_000, 0, Fraction(1, 16_000)
        for index, time_s in enumerate(times_s or [index / fps for index in range(num_frames)]):
            picture = av.VideoFrame.from_ndarray(draw_frame(index, height, width))
            picture.time_base = stream.codec_context.time_base
            picture.pts = round((start_s + time_s) * ticks) if ticks else index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if audio_s:
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
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

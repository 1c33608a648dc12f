"""Which codec should a frame store use? Size, write speed, random-read speed and fidelity of the candidates.

1. Decode a few halves on the store's grid.
2. Encode those frames with each candidate, one packet a frame, on one thread.
3. Read random 64-s windows and clips of two frames back into RGB arrays on one thread, as a data loader does.

Times are CPU seconds of this process, so that a busy machine changes little.

    python examples/benchmarks/frame_store_codecs.py /work/shared/gfspot --fps 2 --height 224
"""

import argparse
import io
import random
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from comedian.video.decoding import iter_frames

HALF_S = 45 * 60
WINDOW_S = 64
CLIP_FRAMES, NUM_CLIPS = 2, 200


class StillCodec:
    """One Pillow image a frame."""

    def __init__(self, image_format: str, **options):
        self.image_format, self.options = image_format, options

    def encode(self, frames: np.ndarray) -> Iterator[tuple[bytes, bool]]:
        """Yield `(packet, is_key)` a frame."""
        for frame in frames:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, self.image_format, **self.options)
            yield buffer.getvalue(), True

    def decode(self, packets: list[bytes]) -> Iterator[np.ndarray]:
        """Yield uint8 RGB frames."""
        for packet in packets:
            yield np.asarray(Image.open(io.BytesIO(packet)).convert("RGB"))


class StillFolder(StillCodec):
    """One image file a frame: what most spotting code bases train from."""

    def __init__(self, image_format: str, **options):
        super().__init__(image_format, **options)
        self.folder = tempfile.TemporaryDirectory()

    def encode(self, frames: np.ndarray) -> Iterator[tuple[Path, bool]]:
        """Yield `(file, is_key)` a frame."""
        for index, (packet, is_key) in enumerate(super().encode(frames)):
            path = Path(self.folder.name) / f"{index:06d}"
            path.write_bytes(packet)
            yield path, is_key

    def decode(self, packets: list[Path]) -> Iterator[np.ndarray]:
        """Yield uint8 RGB frames."""
        for path in packets:
            with Image.open(path) as image:
                yield np.asarray(image.convert("RGB"))


class VideoCodec:
    """A video codec with a key frame every `gop` frames and no B-frames."""

    def __init__(self, encoder: str, decoder: str, gop: int, fps: float, qscale: int | None = None, **options):
        self.encoder, self.decoder, self.gop, self.fps = encoder, decoder, gop, fps
        self.qscale, self.options = qscale, options
        self.pixel_format = "yuvj420p" if encoder == "mjpeg" else "yuv420p"

    def encode(self, frames: np.ndarray) -> Iterator[tuple[bytes, bool]]:
        """Yield `(packet, is_key)` a frame."""
        context = av.CodecContext.create(self.encoder, "w")
        context.height, context.width, context.pix_fmt = *frames.shape[1:3], self.pixel_format
        context.framerate = Fraction(self.fps)
        context.time_base = 1 / context.framerate
        context.gop_size, context.max_b_frames, context.thread_count = self.gop, 0, 1
        if self.qscale is not None:
            context.qmin = context.qmax = self.qscale
        context.options = {name: str(value) for name, value in self.options.items()}
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame)
            picture.pts = index
            yield from ((bytes(packet), packet.is_keyframe) for packet in context.encode(picture))
        yield from ((bytes(packet), packet.is_keyframe) for packet in context.encode(None))

    def decode(self, packets: list[bytes]) -> Iterator[np.ndarray]:
        """Yield uint8 RGB frames."""
        context = av.CodecContext.create(self.decoder, "r")
        context.thread_count = 1
        reformatter = VideoReformatter()
        for packet in (*packets, None):
            for picture in context.decode(packet and av.Packet(packet)):
                plane = reformatter.reformat(picture, format="rgb24", threads=1).planes[0]
                rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : picture.width * 3]
                yield rows.reshape(picture.height, picture.width, 3)


def candidates(fps: float) -> Iterator[tuple[str, StillCodec | VideoCodec]]:
    """Yield `(name, codec)`."""

    def h264(preset: str, crf: int, gop: int, **options) -> VideoCodec:
        return VideoCodec("libx264", "h264", gop, fps, preset=preset, crf=crf, **options)

    for quality in (75, 95):
        yield f"folder of JPEG files, quality {quality}", StillFolder("JPEG", quality=quality)
    yield "JPEG in one file, Pillow, quality 75", StillCodec("JPEG", quality=75)
    for qscale in (4, 6):
        yield f"MJPEG, qscale {qscale}", VideoCodec("mjpeg", "mjpeg", 1, fps, qscale)
    yield "WebP in one file, quality 75", StillCodec("WEBP", quality=75, method=2)
    for qscale in (3, 5):  # MPEG-2 knows a few frame rates only
        yield f"MPEG-2, qscale {qscale}, GOP 16", VideoCodec("mpeg2video", "mpeg2video", 16, 25, qscale)
    yield "H.264 ultrafast, crf 30, GOP 1", h264("ultrafast", 30, 1)
    for gop in (2, 4, 8):
        yield f"H.264 ultrafast, crf 30, GOP {gop}", h264("ultrafast", 30, gop)
    for crf in (26, 28, 30, 32):
        yield f"H.264 ultrafast, crf {crf}, GOP 16", h264("ultrafast", crf, 16)
    yield "H.264 ultrafast, crf 30, GOP 32", h264("ultrafast", 30, 32)
    yield "H.264 superfast, crf 30, GOP 16", h264("superfast", 30, 16)
    yield "H.264 veryfast, crf 28, GOP 16", h264("veryfast", 28, 16)
    yield "H.264 veryfast fastdecode, crf 28, GOP 16", h264("veryfast", 28, 16, tune="fastdecode")
    hevc = {"x265-params": "log-level=none:pools=none:frame-threads=1:bframes=0"}
    yield (
        "HEVC ultrafast, crf 28, GOP 16",
        VideoCodec("libx265", "hevc", 16, fps, preset="ultrafast", crf=28, **hevc),
    )


def read_window(codec: StillCodec | VideoCodec, packets: list, keys: np.ndarray, start: int, count: int) -> list:
    """Return frames `start .. start + count` as one array, decoding from the key frame before `start`."""
    key = keys[start]
    window = None
    for index, frame in enumerate(codec.decode(packets[key : start + count]), start=key - start):
        if window is None:
            window = np.empty((count, *frame.shape), np.uint8)
        if index >= 0:
            window[index] = frame
    return window


def measure(name: str, codec: StillCodec | VideoCodec, frames: np.ndarray, fps: float, num_windows: int) -> None:
    """Print one row of the table."""
    began_s = time.process_time()
    encoded = list(codec.encode(frames))
    encode_s = time.process_time() - began_s
    packets = [packet for packet, _ in encoded]
    keys = np.maximum.accumulate([index if is_key else 0 for index, (_, is_key) in enumerate(encoded)])
    size = sum(len(packet) if isinstance(packet, bytes) else packet.stat().st_size for packet in packets)
    count, generator = round(WINDOW_S * fps), random.Random(0)
    read_s, squared_errors = [], []
    for _ in range(num_windows):
        start = generator.randrange(len(packets) - count)
        began_s = time.process_time()
        window = read_window(codec, packets, keys, start, count)
        read_s.append(time.process_time() - began_s)
        squared_errors.append(np.mean((window.astype(np.float32) - frames[start : start + count]) ** 2))
    starts = [generator.randrange(len(packets) - CLIP_FRAMES) for _ in range(NUM_CLIPS)]
    began_s = time.process_time()
    for start in starts:
        read_window(codec, packets, keys, start, CLIP_FRAMES)
    clip_s = (time.process_time() - began_s) / NUM_CLIPS
    print(
        f"| {name} | {size / len(packets) * HALF_S * fps / 1e6:.1f} | {len(packets) / encode_s:.0f} "
        f"| {1e3 * np.median(read_s):.1f} | {1e3 * clip_s:.2f} "
        f"| {10 * np.log10(255**2 / np.mean(squared_errors)):.1f} |",
        flush=True,
    )


def main():
    """Print a Markdown table, one row a candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="a folder of videos, searched to any depth")
    parser.add_argument("--fps", type=float, default=2)
    parser.add_argument("--height", type=int, default=224)
    parser.add_argument("--halves", type=int, default=3, help="videos to use (default: 3)")
    parser.add_argument("--windows", type=int, default=15, help="random windows to read (default: 15)")
    args = parser.parse_args()
    videos = sorted(args.root.rglob("*.mkv"))
    chosen = videos[:: max(1, len(videos) // args.halves)][: args.halves]
    frames = np.stack([frame for video in chosen for _, frame in iter_frames(video, args.fps, args.height)])
    print(f"{len(frames)} frames of {frames.shape[2]}x{frames.shape[1]} at {args.fps} fps, {len(chosen)} halves\n")
    print("| codec | MB a 45-min half | frames written a CPU s | CPU ms a 64-s window | CPU ms a clip | PSNR, dB |")
    print("|---|---|---|---|---|---|")
    for name, codec in candidates(args.fps):
        measure(name, codec, frames, args.fps, args.windows)


if __name__ == "__main__":
    main()

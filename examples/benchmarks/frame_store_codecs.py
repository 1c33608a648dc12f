"""Which codec should a frame store use? Size, write speed, random-read speed and fidelity of the candidates.

1. Decode a few halves on the store's grid.
2. Encode those frames with each candidate, one packet a frame, on one thread.
3. Read random 64-s windows back to RGB arrays on one thread, as a data loader's worker does.

    python examples/benchmarks/frame_store_codecs.py /work/shared/gfspot --fps 2 --height 224
"""

import argparse
import io
import random
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from comedian.data.decoding import iter_frames

HALF_S = 45 * 60
WINDOW_S = 64


class PillowCodec:
    """One still image a frame."""

    def __init__(self, image_format, **options):
        self.image_format, self.options = image_format, options

    def encode(self, frames):
        for frame in frames:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, self.image_format, **self.options)
            yield buffer.getvalue(), True

    def decode(self, packets):
        return [np.asarray(Image.open(io.BytesIO(packet)).convert("RGB")) for packet in packets]


class JpegFolder(PillowCodec):
    """One JPEG file a frame: what most spotting code bases train from."""

    def __init__(self, **options):
        super().__init__("JPEG", **options)
        self.folder = tempfile.TemporaryDirectory()

    def encode(self, frames):
        for index, (packet, is_key) in enumerate(super().encode(frames)):
            path = Path(self.folder.name) / f"{index:06d}.jpg"
            path.write_bytes(packet)
            yield path.read_bytes(), is_key

    def read(self, start, count):
        folder = Path(self.folder.name)
        return np.stack([np.asarray(Image.open(folder / f"{i:06d}.jpg").convert("RGB")) for i in range(start, start + count)])


class FFmpegCodec:
    """A video codec with a key frame at least every `gop` frames and no B-frames."""

    def __init__(self, encoder, decoder, gop, pixel_format="yuv420p", fps=2, **options):
        self.encoder, self.decoder, self.gop = encoder, decoder, gop
        self.pixel_format, self.fps, self.options = pixel_format, fps, options
        self.reformatter = VideoReformatter()

    def encode(self, frames):
        context = av.CodecContext.create(self.encoder, "w")
        context.height, context.width = frames[0].shape[:2]
        context.pix_fmt, context.time_base = self.pixel_format, Fraction(1, self.fps)
        context.framerate = Fraction(self.fps)
        context.gop_size, context.max_b_frames, context.thread_count = self.gop, 0, 1
        if "qscale" in self.options:
            context.qmin = context.qmax = self.options["qscale"]
        else:
            context.options = {name: str(value) for name, value in self.options.items()}
        for index, frame in enumerate(frames):
            picture = self.reformatter.reformat(av.VideoFrame.from_ndarray(frame), format=self.pixel_format, threads=1)
            picture.pts, picture.time_base = index, context.time_base
            yield from ((bytes(packet), packet.is_keyframe) for packet in context.encode(picture))
        yield from ((bytes(packet), packet.is_keyframe) for packet in context.encode(None))

    def decode(self, packets):
        context = av.CodecContext.create(self.decoder, "r")
        context.thread_count = 1
        pictures = [p for packet in packets for p in context.decode(av.Packet(packet))] + context.decode(None)
        return [self.reformatter.reformat(p, format="rgb24", threads=1).to_ndarray() for p in pictures]


def candidates(fps):
    """Yield `(name, codec)`."""
    yield "JPEG folder, quality 90", JpegFolder(quality=90)
    yield "JPEG folder, quality 75", JpegFolder(quality=75)
    yield "JPEG in one file, quality 75", PillowCodec("JPEG", quality=75)
    yield "MJPEG, qscale 4, FFmpeg", FFmpegCodec("mjpeg", "mjpeg", 1, "yuvj420p", fps, qscale=4)
    yield "WebP, quality 75", PillowCodec("WEBP", quality=75, method=2)
    for gop in (1, 8, 16, 32, 64):
        yield f"H.264 veryfast, crf 23, GOP {gop}", FFmpegCodec("libx264", "h264", gop, fps=fps, preset="veryfast", crf=23)
    for crf in (18, 20, 26):
        yield f"H.264 veryfast, crf {crf}, GOP 16", FFmpegCodec("libx264", "h264", 16, fps=fps, preset="veryfast", crf=crf)
    yield (
        "H.264 veryfast fastdecode, crf 23, GOP 16",
        FFmpegCodec("libx264", "h264", 16, fps=fps, preset="veryfast", tune="fastdecode", crf=23),
    )
    yield "H.264 superfast, crf 23, GOP 16", FFmpegCodec("libx264", "h264", 16, fps=fps, preset="superfast", crf=23)
    yield "H.264 medium, crf 23, GOP 16", FFmpegCodec("libx264", "h264", 16, fps=fps, preset="medium", crf=23)
    yield (
        "HEVC ultrafast, crf 25, GOP 16",
        FFmpegCodec(
            "libx265", "hevc", 16, fps=fps, preset="ultrafast", crf=25,
            **{"x265-params": "log-level=none:pools=none:frame-threads=1:bframes=0"},
        ),
    )
    yield (
        "AV1 (SVT preset 10, dav1d), crf 35, GOP 16",
        FFmpegCodec("libsvtav1", "libdav1d", 16, fps=fps, preset=10, crf=35, **{"svtav1-params": "lp=1:pred-struct=1"}),
    )


def read_window(codec, packets, keys, start, count):
    """Return frames `start .. start + count`, decoding from the key frame before `start`."""
    if isinstance(codec, JpegFolder):
        return codec.read(start, count)
    key = keys[start]
    return np.stack(codec.decode(packets[key : start + count])[start - key :])


def measure(name, codec, halves, fps, num_windows):
    """Print one row of the table."""
    began = time.perf_counter()
    encoded = list(codec.encode(halves))
    encode_s = time.perf_counter() - began
    packets = [packet for packet, _ in encoded]
    keys = np.maximum.accumulate([i if is_key else 0 for i, (_, is_key) in enumerate(encoded)])
    count = WINDOW_S * fps
    starts = [random.Random(0).randrange(len(packets) - count) for _ in range(1)]
    generator = random.Random(0)
    starts = [generator.randrange(len(packets) - count) for _ in range(num_windows)]
    squared_error, began = 0.0, time.perf_counter()
    windows = [read_window(codec, packets, keys, start, count) for start in starts]
    read_s = time.perf_counter() - began
    for start, window in zip(starts, windows):
        squared_error += np.mean((window.astype(np.float32) - halves[start : start + count]) ** 2) / num_windows
    psnr_db = 10 * np.log10(255**2 / squared_error)
    megabytes = sum(map(len, packets)) / len(packets) * HALF_S * fps / 1e6
    print(
        f"| {name} | {megabytes:.1f} | {len(packets) / encode_s:.0f} | {1e3 * read_s / num_windows:.1f} "
        f"| {num_windows / read_s:.1f} | {psnr_db:.1f} |",
        flush=True,
    )


def main():
    """Print a Markdown table, one row a candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="a folder of videos, searched to any depth")
    parser.add_argument("--fps", type=int, default=2)
    parser.add_argument("--height", type=int, default=224)
    parser.add_argument("--halves", type=int, default=3, help="videos to use (default: 3)")
    parser.add_argument("--windows", type=int, default=12, help="random windows to read (default: 12)")
    args = parser.parse_args()
    videos = sorted(args.root.rglob("*.mkv"))
    chosen = videos[:: max(1, len(videos) // args.halves)][: args.halves]
    frames = np.stack([frame for video in chosen for _, frame in iter_frames(video, args.fps, args.height)])
    print(f"{len(frames)} frames of {frames.shape[2]}x{frames.shape[1]} at {args.fps} fps, {len(chosen)} halves\n")
    print("| codec | MB a 45-min half | frames written/s | ms a 64-s window | windows/s | PSNR, dB |")
    print("|---|---|---|---|---|---|")
    for name, codec in candidates(args.fps):
        measure(name, codec, frames, args.fps, args.windows)


if __name__ == "__main__":
    main()

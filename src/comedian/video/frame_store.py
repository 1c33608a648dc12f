"""One compact random-access file per half, so that training does not decode whole videos.

A store is a folder::

    STORE/store.json                 format, version and settings: fps, height, width, quality
    STORE/<video_id>/<half>.frames   one file per half
    STORE/<video_id>/<half>.sound.npy  if prepared with sound: see `comedian.video.sound_files`

A `.frames` file holds H.264 pictures without B-frames, a key frame every `GOP_FRAMES`, one packet (Annex B, parameter
sets in band) a grid point. A reader decodes from the key frame before the first frame it wants, without a demuxer;
`examples/benchmarks/README.md` has the figures behind the choice. All numbers are little-endian::

    8 bytes              magic
    packets              end to end
    n float64            timestamps_s: each frame's true time in its video, from the first video frame
    n + 1 int64          offsets: start of each packet; the last entry is the end of the packets
    n int64              keys: the key frame that each frame is decoded from
    JSON, UTF-8          fps, height, width, num_frames, source: see `source_of`
    int64, 8 bytes       length of the JSON, magic: a truncated file does not end with it
"""

import hashlib
import json
import mmap
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter

from comedian.errors import InputError
from comedian.files import atomic_path, atomic_write_text, existing
from comedian.sharing import alone_at
from comedian.video.sound_files import open_sound, sound_path

MAGIC = b"COMEFRM1"
TRAILER = struct.Struct("<q8s")
STORE_FORMAT = "comedian-frame-store"
STORE_VERSION = 1
# a clip of two frames is decoded from at most 5: twice as fast as with a key frame every 16, for a sixth more room
GOP_FRAMES = 4
DEFAULT_QUALITY = 30
MAX_FPS = 1000
# blocks of a video, evenly spaced over the file, that are hashed to distinguish it from others of the same size
SAMPLED_BLOCKS, BLOCK_BYTES = 8, 2**16
# of a picture, in pixels: a larger value means a damaged header
MAX_SIDE = 16_384


@dataclass(frozen=True)
class StoreSettings:
    """Settings of a frame store.

    Attributes:
        fps: frames per second.
        height: pixels.
        width: pixels, or None to keep each video's aspect.
        quality: x264's constant rate factor; lower values give larger files and better quality.
    """

    fps: float
    height: int
    width: int | None = None
    quality: int = DEFAULT_QUALITY


@dataclass(frozen=True)
class HalfFrames:
    """The frames of one half; each `read` opens the file, so an instance may be shared by threads and processes.

    Attributes:
        path: the `.frames` file.
        fps: frames per second; frame `i` shows `i / fps` seconds after the first video frame.
        height: pixels.
        width: pixels.
        timestamps_s: float64 of shape `(num_frames,)`, each frame's true time in the source video.
        source: the video that the frames were decoded from, see [`source_of`].
    """

    path: Path
    fps: float
    height: int
    width: int
    timestamps_s: np.ndarray
    _offsets: np.ndarray
    _keys: np.ndarray
    source: dict

    @property
    def num_frames(self) -> int:
        """Frames in the half."""
        return len(self.timestamps_s)

    @property
    def duration_s(self) -> float:
        """Seconds that the frames cover."""
        return self.num_frames / self.fps

    @property
    def chroma_size(self) -> tuple[int, int]:
        """Height and width of the colour planes, in pixels."""
        return -(-self.height // 2), -(-self.width // 2)

    def read(self, start: int, count: int, step: int = 1, out: np.ndarray | None = None) -> np.ndarray:
        """Read frames `start, start + step, ...`.

        Args:
            start: index of the first frame.
            count: frames to read.
            step: distance between them, from 1.
            out: where to, contiguous and of the result's shape; a new array by default.

        Returns:
            uint8 RGB of shape `(count, height, width, 3)`.

        Raises:
            IndexError: a frame is out of range.
            InputError: the file is damaged.
        """
        wanted = self._range(start, count, step)
        frames = np.empty((count, self.height, self.width, 3), np.uint8) if out is None else out
        rows = frames.reshape(count, self.height, self.width * 3)
        reformatter = VideoReformatter()

        def copy(picture: av.VideoFrame, index: int) -> None:
            plane = reformatter.reformat(picture, format="rgb24", threads=1).planes[0]
            rows[index] = _rows(plane, self.height, self.width * 3)

        self._read(wanted, copy)
        return frames

    def read_yuv(
        self, start: int, count: int, step: int = 1, out: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read frames as [`HalfFrames.read`] does, but as they are stored: 4:2:0, ITU-R BT.601, limited range.

        Returns:
            `y` uint8 `(count, height, width)`, `u` and `v` uint8 `(count, *chroma_size)`.
        """
        wanted = self._range(start, count, step)
        sizes = (self.height, self.width), self.chroma_size, self.chroma_size
        y, u, v = out or (np.empty((count, *size), np.uint8) for size in sizes)

        def copy(picture: av.VideoFrame, index: int) -> None:
            if picture.format.name != "yuv420p":
                raise ValueError(picture.format.name)
            for plane, pixels in zip(picture.planes, (y, u, v), strict=True):
                pixels[index] = _rows(plane, *pixels.shape[1:])

        self._read(wanted, copy)
        return y, u, v

    def sound(self) -> np.ndarray | None:
        """The half's spectrogram, see [`open_sound`]."""
        return open_sound(sound_path(self.path))

    def _range(self, start: int, count: int, step: int) -> range:
        wanted = range(start, start + count * step, step)
        if start < 0 or (count and wanted[-1] >= self.num_frames):
            raise IndexError(f"frames {start} to {start + (count - 1) * step} of {self.num_frames} in `{self.path}`")
        return wanted

    def _read(self, wanted: range, copy: Callable[[av.VideoFrame, int], None]) -> None:
        """Call `copy` with each wanted picture and its place among them."""
        found = 0
        try:
            for picture in self._decode(wanted):
                if picture.pts in wanted:
                    copy(picture, wanted.index(picture.pts))
                    found += 1
        except (av.error.FFmpegError, ValueError):  # ValueError: pictures of another size
            found = -1
        if found != len(wanted):
            raise InputError(f"`{self.path}` is damaged; delete it and run `comedian prepare` again")

    def _decode(self, wanted: range) -> Iterator[av.VideoFrame]:
        """Decode the wanted pictures and those they depend on; each carries its frame index as `pts`."""
        decoder = av.CodecContext.create("h264", "r")
        decoder.thread_count = 1
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            position = 0
            for index in wanted:
                for needed in range(max(position, int(self._keys[index])), index + 1):
                    packet = av.Packet(data[self._offsets[needed] : self._offsets[needed + 1]])
                    packet.pts = needed
                    yield from decoder.decode(packet)
                position = index + 1
        yield from decoder.decode(None)


def _rows(plane: VideoPlane, height: int, width: int) -> np.ndarray:
    """The bytes of a plane that belong to the picture, uint8 `(height, width)`."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, :width]


class FrameStore:
    """The halves that `comedian prepare` wrote into a folder.

    Args:
        path: the store's folder.

    Attributes:
        path: the store's folder.
        settings: settings it was prepared with.
        fps: frames per second.
        halves: sorted `(video_id, half)` pairs.

    Raises:
        InputError: `path` is not a frame store, or has another format version.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.settings = _read_settings(self.path)
        self.fps = self.settings.fps
        self.halves: list[tuple[str, int]] = sorted(
            (file.parent.relative_to(self.path).as_posix(), int(file.stem))
            for file in self.path.rglob("*.frames")
            if file.stem.isdecimal()
        )

    def open(self, video_id: str, half: int) -> HalfFrames:
        """Open one half; only its index is read.

        Raises:
            InputError: the store has no such half, or its file is damaged.
        """
        file = half_path(self.path, video_id, half)
        if not file.is_file():
            raise InputError(
                f"frame store `{self.path}` has no half {half} of `{video_id}`; run `comedian prepare` again"
            )
        return open_half(file)


def open_half(path: Path) -> HalfFrames:
    """Open one `.frames` file; only its index is read.

    Raises:
        InputError: the file is truncated, damaged or not a `.frames` file.
    """
    try:
        return _read_index(path)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"`{path}` is damaged or not a file of a frame store ({error}); delete it and run `comedian prepare`"
        ) from error


def _read_index(path: Path) -> HalfFrames:
    """Parse the index of a half; raises `ValueError`, `KeyError` or `TypeError` if it is invalid."""
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(0, size - TRAILER.size))
        trailer = file.read(TRAILER.size)
        header_size, magic = TRAILER.unpack(trailer) if len(trailer) == TRAILER.size else (0, b"")
        if magic != MAGIC:
            raise ValueError("it is truncated")
        header_start = size - TRAILER.size - header_size
        if not 0 < header_size <= header_start:
            raise ValueError("its header is truncated")
        file.seek(header_start)
        header = json.loads(file.read(header_size))
        count, sizes = header["num_frames"], (header["height"], header["width"])
        index_start = header_start - 8 * (3 * count + 1)
        if count < 1 or index_start < len(MAGIC) or not 0 < header["fps"] <= MAX_FPS:
            raise ValueError(f"{count} frames at {header['fps']} a second do not match its size")
        if not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in sizes):
            raise ValueError(f"its frames are {sizes[0]} x {sizes[1]}")
        file.seek(index_start)
        timestamps_s = np.frombuffer(file.read(8 * count), "<f8")
        offsets = np.frombuffer(file.read(8 * (count + 1)), "<i8")
        keys = np.frombuffer(file.read(8 * count), "<i8")
    rises = offsets[0] == len(MAGIC) and offsets[-1] == index_start and (np.diff(offsets) >= 0).all()
    if not rises or not np.isfinite(timestamps_s).all() or (keys < 0).any() or (keys > np.arange(count)).any():
        raise ValueError("its index is damaged")
    return HalfFrames(path, header["fps"], *sizes, timestamps_s, offsets, keys, header["source"])


def write_half(
    path: Path, frames: Iterable[tuple[float, np.ndarray]], *, fps: float, quality: int, source: dict
) -> int:
    """Write one `.frames` file atomically.

    Args:
        path: the file; missing folders are created.
        frames: `(timestamp_s, frame)` pairs, one a grid point, as `iter_frames` yields them; at least one.
        fps: grid points per second.
        quality: x264's constant rate factor.
        source: the description of the video from `source_of`.

    Returns:
        The number of frames.

    Raises:
        ValueError: there is no frame.
    """
    with atomic_path(path) as partial, partial.open("wb") as file:
        return _write(file, frames, fps, quality, source)


def _write(file: BinaryIO, frames: Iterable[tuple[float, np.ndarray]], fps: float, quality: int, source: dict) -> int:
    timestamps_s: list[float] = []
    keys: list[int] = []
    offsets = [len(MAGIC)]
    encoder = None
    file.write(MAGIC)
    for timestamp_s, frame in frames:
        if encoder is None:
            height, width = frame.shape[:2]
            encoder = _encoder(height, width, fps, quality)
        picture = av.VideoFrame.from_ndarray(_even(frame))
        picture.pts = len(timestamps_s)
        timestamps_s.append(timestamp_s)
        _write_packets(encoder.encode(picture), file, offsets, keys)
    if encoder is None:
        raise ValueError("there is no frame to write")
    _write_packets(encoder.encode(None), file, offsets, keys)
    header = {"fps": fps, "height": height, "width": width, "num_frames": len(timestamps_s), "source": source}
    encoded_header = json.dumps(header, ensure_ascii=False).encode()
    file.write(np.array(timestamps_s, "<f8").tobytes())
    file.write(np.array(offsets, "<i8").tobytes())
    file.write(np.array(keys, "<i8").tobytes())
    file.write(encoded_header + TRAILER.pack(len(encoded_header), MAGIC))
    return len(timestamps_s)


def _encoder(height: int, width: int, fps: float, quality: int) -> av.VideoCodecContext:
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width, encoder.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
    encoder.framerate = Fraction(fps).limit_denominator(1001)
    encoder.time_base = 1 / encoder.framerate
    encoder.gop_size, encoder.max_b_frames, encoder.thread_count = GOP_FRAMES, 0, 1
    # ultrafast is also the fastest to decode: no CABAC, no deblocking.
    encoder.options = {"preset": "ultrafast", "crf": str(quality)}
    return encoder


def _even(frame: np.ndarray) -> np.ndarray:
    """Repeat the last row or column of an odd side, because 4:2:0 pictures have even sides. The reader crops it."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else frame


def _write_packets(packets: list[av.Packet], file: BinaryIO, offsets: list[int], keys: list[int]) -> None:
    for packet in packets:
        file.write(packet)
        keys.append(len(keys) if packet.is_keyframe else keys[-1])
        offsets.append(offsets[-1] + packet.size)


def source_of(video_path: Path) -> dict:
    """Return a description that identifies a file: its name, its size and a hash of some of its blocks.

    At most half a megabyte is read, so that a thousand videos take only seconds.
    """
    status = video_path.stat()
    blocks_sha256 = _hash_blocks(video_path, status.st_size, status.st_mtime_ns)
    return {"name": video_path.name, "size_bytes": status.st_size, "blocks_sha256": blocks_sha256}


def same_source(stored: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether two descriptions from [`source_of`] are of the same content; names are ignored.

    An empty `stored`, of unknown content, matches every file.
    """
    return not stored or all(stored.get(name) == found.get(name) for name in ("size_bytes", "blocks_sha256"))


@cache
def _hash_blocks(path: Path, size_bytes: int, mtime_ns: int) -> str:
    """Hash a file's sampled blocks; size and time are only part of the cache key."""
    digest, last = hashlib.sha256(), max(0, size_bytes - BLOCK_BYTES)
    with path.open("rb") as file:
        for index in range(SAMPLED_BLOCKS):
            file.seek(last * index // (SAMPLED_BLOCKS - 1))
            digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


def half_path(store: Path, video_id: str, half: int) -> Path:
    """Return the path of a half's `.frames` file, inside the store."""
    return existing(store, video_id) / f"{half}.frames"


def check_settings(settings: StoreSettings) -> None:
    """Raise `InputError` for settings out of bounds."""
    if not 0 < settings.fps <= MAX_FPS:
        raise InputError(f"`fps` is {settings.fps}; give a rate above 0 and up to {MAX_FPS}")
    if settings.height < 16 or (settings.width is not None and settings.width < 16):
        raise InputError(
            f"frames of height {settings.height}, width {settings.width} are too small; give 16 px or more"
        )
    if not 0 <= settings.quality <= 51:
        raise InputError(f"`quality` is {settings.quality}; give 0 (largest file) to 51 (smallest)")


def _read_settings(store: Path) -> StoreSettings:
    try:
        content = json.loads((store / "store.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"`{store}` is not a frame store; create one with `comedian prepare ROOT STORE`") from error
    found = (content.get("format"), content.get("version")) if isinstance(content, dict) else None
    if found != (STORE_FORMAT, STORE_VERSION):
        raise InputError(
            f"`{store}` is not a frame store of version {STORE_VERSION}; create a new one with `comedian prepare "
            "ROOT STORE`"
        )
    try:
        settings = StoreSettings(**content["settings"])
        check_settings(settings)
    except (KeyError, TypeError, InputError) as error:
        raise InputError(
            f"`{store}/store.json` is damaged ({error}); create a new one with `comedian prepare`"
        ) from error
    return settings


def claim_store(store: Path, settings: StoreSettings) -> None:
    """Create the store with these settings, or check that an existing one has them."""
    path = store / "store.json"
    if not path.exists():
        content = {"format": STORE_FORMAT, "version": STORE_VERSION, "settings": asdict(settings)}
        with alone_at(path):
            if not path.exists():
                atomic_write_text(path, json.dumps(content, indent=2) + "\n")
    if (found := _read_settings(store)) != settings:
        raise InputError(
            f"`{store}` was prepared with {found}, requested are {settings}; give another folder or the same settings"
        )

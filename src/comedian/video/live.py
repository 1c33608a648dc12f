"""Frames of a live source: a thread decodes, so that waiting for the next frame can be interrupted."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread

import numpy as np

from comedian.video.decoding import iter_frames

# decoded frames that are buffered while the model is busy
FRAMES_AHEAD = 64
POLL_S = 0.2


def live_frames(source: str | Path, fps: float, size: tuple[int, int], stopped: Event) -> Iterator[np.ndarray]:
    """Yield the frames of a source as they arrive, until it ends or is stopped.

    If the consumer is too slow for long, the source waits (pipe, HTTP) or loses pictures (UDP).

    Args:
        source: a file, the address of a stream that FFmpeg reads (`rtsp://`, `http://`, `udp://`, ...), or `-` for
            standard input.
        fps: frames per second, see [`iter_frames`].
        size: `(height, width)` in pixels.
        stopped: set it, from any thread, to stop the iteration.

    Yields:
        uint8 `(height, width, 3)`.

    Raises:
        InputError: no frame can be decoded.
    """
    coming: Queue[np.ndarray | Exception | None] = Queue(FRAMES_AHEAD)

    def decode() -> None:
        try:
            for _, frame in iter_frames("pipe:0" if source == "-" else source, fps, size, live=True):
                coming.put(frame)
                if stopped.is_set():
                    return
            coming.put(None)
        except Exception as error:
            coming.put(error)

    Thread(target=decode, name="live source", daemon=True).start()
    try:
        while not stopped.is_set():
            with suppress(Empty):
                frame = coming.get(timeout=POLL_S)
                if frame is None:
                    return
                if isinstance(frame, Exception):
                    raise frame
                yield frame
    finally:
        # unblock the thread if it waits for space in the queue; it then ends
        stopped.set()
        with suppress(Empty):
            while True:
                coming.get_nowait()

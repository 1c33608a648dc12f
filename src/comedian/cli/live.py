"""Implementation of `comedian spot --live`: prints each event as soon as it is final."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

from tqdm import tqdm

from comedian.inference.spotter import BAR_FORMAT_WITHOUT_TOTAL
from comedian.inference.streaming import StreamingSpotter
from comedian.video.live import live_frames


def spot_live(source: str, spotter: StreamingSpotter) -> list[dict]:
    """Spot a source to its end, or to the first Ctrl-C, printing one line of JSON per event; return the events.

    Raises:
        InputError: no frame of the source can be decoded.
    """
    config, events, stopped = spotter.config, [], Event()
    height, width = config.frame_size
    bar = tqdm(desc="live", unit="s of video", bar_format=BAR_FORMAT_WITHOUT_TOTAL)

    def tell(spots: list[dict]) -> None:
        for spot in spots:
            # above the bar, where both go to one terminal
            tqdm.write(json.dumps(spot), file=sys.stdout)
            sys.stdout.flush()
        events.extend(spots)

    with bar, _first_interrupt(stopped.set):
        for frame in live_frames(source, config.fps, (height, width), stopped):
            tell(spotter.push([frame]))
            bar.update(1 / config.fps)
        tell(spotter.finish())
    return events


@contextmanager
def _first_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on the first Ctrl-C or SIGTERM; the next one interrupts as usual."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(*_) -> None:
        restore()
        stop()

    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        restore()

"""`comedian spot --live`: print each event of a stream as soon as it is final."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from tqdm import tqdm

from comedian.cli.spotting.arguments import check_threshold
from comedian.cli.spotting.models import load_models, print_quality, print_unreachable, with_suppression
from comedian.errors import InputError
from comedian.files import check_outputs
from comedian.inference.outputs import write_csv
from comedian.inference.spotter import BAR_FORMAT_WITHOUT_TOTAL
from comedian.inference.streaming import StreamingSpotter
from comedian.soccernet.annotations import write_results
from comedian.video.live import live_frames

# options that need a whole video
NOT_LIVE = "scores match split save_scores save_windows restart report report_labels tolerance shard".split()


def run_live(args: argparse.Namespace) -> None:
    """Print the events of a stream as they become final, then write `--output` and `--csv`.

    Raises:
        InputError: an invalid option, or a stream that cannot be decoded.
    """
    for name in NOT_LIVE:
        if getattr(args, name) not in (None, False):
            raise InputError(f"--{name.replace('_', '-')} cannot be combined with --live; remove one of them")
    if len(args.videos) != 1 or Path(args.videos[0]).is_dir():
        raise InputError("--live needs one file, one address or -; give it before --model")
    check_threshold(args.threshold)
    if args.output and args.output.suffix != ".json":
        raise InputError(f"--output {args.output}: give a name that ends in .json")
    check_outputs((args.output, args.csv), args.videos)

    models = load_models(args)
    models.config = with_suppression(models.config, args.nms_type, args.nms_window)
    print_unreachable(args.threshold, models.config)
    spotter = StreamingSpotter(models, look_ahead_s=args.look_ahead, keep_all=args.keep_all, threshold=args.threshold)
    if models.uses_sound:
        print("--live reads no audio track: models with an audio branch use the frames only", file=sys.stderr)
    print_quality(args, models.config)
    print(f"an event is printed about {spotter.latency_s:g} s of video after it", file=sys.stderr)
    events = spot_live(args.videos[0], spotter)
    if args.output:
        write_results(args.output, Path(args.videos[0]).stem, events)
    if args.csv:
        write_csv(args.csv, events)
    print(f"{args.videos[0]}: {len(events)} events", file=sys.stderr)


def spot_live(source: str, spotter: StreamingSpotter) -> list[dict]:
    """Spot a source to its end, or to the first Ctrl-C, and print one line of JSON per event.

    Returns:
        The events, in the order in which they were printed.

    Raises:
        InputError: no frame of the source can be decoded.
    """
    config, events, stopped = spotter.config, [], Event()
    height, width = config.frame_size
    bar = tqdm(desc="live", unit="s of video", bar_format=BAR_FORMAT_WITHOUT_TOTAL)

    def report(spots: list[dict]) -> None:
        for spot in spots:
            # above the bar, where both go to one terminal
            tqdm.write(json.dumps(spot), file=sys.stdout)
            sys.stdout.flush()
        events.extend(spots)

    with bar, _first_interrupt(stopped.set):
        for frame in live_frames(source, config.fps, (height, width), stopped):
            report(spotter.push([frame]))
            bar.update(1 / config.fps)
        report(spotter.finish())
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

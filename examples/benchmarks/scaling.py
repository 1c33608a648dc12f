"""How cost grows: spotting with the length of the video and the batch, the official score with matches and labels.

python examples/benchmarks/scaling.py /tmp/bench/45min.mkv /tmp/bench/vivit-tiny examples/benchmarks/scaling.svg

Takes the video and model that `spotting.py` made. Spotting is in this process, imports not counted; its memory is that of a
process for each length. The official package is measured up to `--official` matches, as it takes seconds for each.
"""

import argparse
import sys
import time
from itertools import islice
from pathlib import Path

import matplotlib
import numpy as np
from common import machine, run_measured
from official_score import make_matches, official, ours

from comedian.inference import scoring, torch_model
from comedian.inference.torch_model import TorchModel, load_model
from comedian.video.decoding import iter_frames

MINUTES = (2, 5, 10, 20)
BATCHES = (1, 2, 4, 8, 16, 32)
MATCHES = (5, 10, 25, 50, 100, 200)
LABELS = (1, 2, 4, 8, 17)


def spot(video: Path, folder: Path, minutes: float) -> float:
    """Seconds to decode and score the first minutes of a video."""
    model = TorchModel(*load_model(str(folder), "cpu"))
    config = model.config
    begin_s = time.perf_counter()
    frames = (frame for _, frame in iter_frames(video, config.fps, tuple(config.image_size), threads=1))
    tokens = scoring.encode_half(model, islice(frames, round(60 * minutes * config.fps)))
    scoring.score_half(model, tokens)
    return time.perf_counter() - begin_s


def score(way, count: int, labels: int) -> float:
    """Seconds to score matches in which only some labels occur."""
    kept = {event["label"] for event in make_matches(1, 1)[0][0][: labels * 5]}
    references, predictions = (
        [[event for event in match if event["label"] in kept] for match in matches]
        for matches in make_matches(count, 250)
    )
    begin_s = time.perf_counter()
    way(references, predictions)
    return time.perf_counter() - begin_s


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--official", type=int, default=10, help="largest number of matches for the official package")
    parser.add_argument("--minutes", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.minutes:
        spot(args.video, args.model, args.minutes)
        return
    panels = {
        "spotting: seconds against minutes of video": {
            "ours": [(m, spot(args.video, args.model, m)) for m in MINUTES]
        },
        "spotting: peak memory in MB against minutes of video": {
            "ours": [
                (m, run_measured([sys.executable, "-W", "ignore", *sys.argv, "--minutes", str(m)])[2] / 1e6)
                for m in MINUTES
            ]
        },
    }
    seconds = []
    for batch in BATCHES:
        torch_model.TUBELETS_PER_BATCH = batch
        seconds.append((batch, spot(args.video, args.model, 2)))
    panels["spotting 2 minutes: seconds against tubelets a batch"] = {"ours": seconds}
    panels["score: seconds against matches, 17 labels"] = {
        "ours": [(count, score(ours, count, 17)) for count in MATCHES],
        "SoccerNet package": [(count, score(official, count, 17)) for count in MATCHES if count <= args.official],
    }
    panels["score: seconds against labels that occur, 50 matches"] = {
        "ours": [(n, score(ours, 50, n)) for n in LABELS]
    }
    for title, curves in panels.items():
        for name, points in curves.items():
            print(f"{title}, {name}: " + ", ".join(f"{x:g}: {y:.3g}" for x, y in points))
    print(machine())

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "comedian"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(13, 7))
    for axis, (title, curves) in zip(axes.flat, panels.items()):
        for name, points in curves.items():
            axis.plot(*np.array(points).T, marker="o", label=name)
        axis.set_title(title, fontsize=9)
        axis.set_ylim(0)
        if len(curves) > 1:
            axis.set_yscale("log")
            axis.set_ylim(1e-3)
            axis.legend()
    axes.flat[-1].axis("off")
    figure.tight_layout()
    figure.savefig(args.picture, metadata={"Date": None})


if __name__ == "__main__":
    main()

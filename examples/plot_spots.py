"""Draw what a model spots in a match beside what happened: the picture of the README.

python examples/plot_spots.py --output spots.png
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from comedian import ActionSpotter
from comedian.soccernet.annotations import read_annotations
from comedian.soccernet.layout import find_halves, find_label_file
from comedian.video.decoding import iter_frames

DEMO = Path(__file__).parent / "demo"
NUM_THUMBNAILS = 6


def main() -> None:
    """Spot the match and draw one row of panels a half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(DEMO / "model"), help="folder or Hub repository of a model")
    parser.add_argument("--match", type=Path, default=DEMO / "match", help="folder of a match in SoccerNet's layout")
    parser.add_argument("--output", type=Path, required=True, help="picture to write")
    args = parser.parse_args()

    spotter = ActionSpotter.from_pretrained(args.model)
    videos = find_halves(args.match)
    events = read_annotations(find_label_file(args.match), spotter.config.label_names)
    figure = plt.figure(figsize=(12, 4.2 * len(videos)), layout="constrained")
    for part, half in zip(figure.subfigures(len(videos), 1, squeeze=False)[:, 0], sorted(videos), strict=True):
        spots = spotter.spots([spotter.score(videos[half])])
        draw_half(part, half, videos[half], [event for event in events if event.half == half], spots)
    figure.savefig(args.output, dpi=90)


def draw_half(figure, half: int, video: Path, events, spots) -> None:
    """Thumbnails at spotted events above a timeline of one line per label."""
    grid = figure.add_gridspec(2, NUM_THUMBNAILS, height_ratios=[1, 1.6])
    step = max(len(spots) / NUM_THUMBNAILS, 1)
    chosen = [spots[int(index * step)] for index in range(min(NUM_THUMBNAILS, len(spots)))]
    frames = [frame for _, frame in iter_frames(video, 5)]
    for column, spot in enumerate(chosen):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(frames[min(round(5 * spot["timestamp_s"]), len(frames) - 1)])
        axes.set_title(f"{spot['timestamp_s']:.0f} s  {spot['label']}", fontsize=8)
        axes.axis("off")
    axes = figure.add_subplot(grid[1, :])
    labels = sorted({event.label for event in events} | {spot["label"] for spot in spots}, reverse=True)
    axes.scatter(
        [event.timestamp_s for event in events],
        [labels.index(event.label) for event in events],
        s=160,
        facecolors="none",
        edgecolors="black",
        label="happened",
    )
    axes.scatter(
        [spot["timestamp_s"] for spot in spots],
        [labels.index(spot["label"]) for spot in spots],
        c=[spot["score"] for spot in spots],
        s=50,
        cmap="viridis",
        vmin=0,
        vmax=1,
        label="spotted (colour: score)",
    )
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlabel(f"seconds of half {half}", fontsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper right")


if __name__ == "__main__":
    main()

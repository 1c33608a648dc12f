"""Spot the shipped match with the shipped model and print what was found beside what happened.

make demo
"""

import argparse
import time
from pathlib import Path

from comedian import ActionSpotter
from comedian.evaluation.soccernet_average_map.soccernet_average_map import average_map
from comedian.files import read_json
from comedian.soccernet.annotations import prediction_of, read_annotations
from comedian.soccernet.layout import find_halves, find_label_file
from comedian.video.decoding import probe

HERE = Path(__file__).parent
# a spot stands beside an event of its label at most this far away
TOLERANCE_S = 2.5


def main() -> None:
    """Spot, compare, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(HERE / "model"), help="folder or Hub repository of a model")
    parser.add_argument("--match", type=Path, default=HERE / "match", help="folder of a match in SoccerNet's layout")
    args = parser.parse_args()

    spotter = ActionSpotter.from_pretrained(args.model)
    videos = find_halves(args.match)
    start_s = time.perf_counter()
    scores = [spotter.score(videos[half], progress=True) for half in sorted(videos)]
    elapsed_s = time.perf_counter() - start_s
    footage_s = sum(probe(video).duration_s for video in videos.values())

    label_file = find_label_file(args.match)
    events = read_annotations(label_file, spotter.config.label_names)
    print_side_by_side(events, spotter.spots(scores))
    print_scores(
        read_json(label_file)["annotations"], spotter.spots(scores, keep_all=True), spotter.config.label_names
    )
    print(f"{footage_s:.0f} s of footage in {elapsed_s:.1f} s: {footage_s / elapsed_s:.0f} x real time")


def print_side_by_side(events, spots) -> None:
    """Print one line an event or spot, in order of time, matched where label and time agree."""
    free = list(spots)
    lines = []
    for event in events:
        near = [spot for spot in free if spot["label"] == event.label and spot["half"] == event.half]
        near = [spot for spot in near if abs(spot["timestamp_s"] - event.timestamp_s) <= TOLERANCE_S]
        spot = min(near, key=lambda spot: abs(spot["timestamp_s"] - event.timestamp_s), default=None)
        if spot is not None:
            free.remove(spot)
        lines.append((event.half, event.timestamp_s, event, spot))
    lines += [(spot["half"], spot["timestamp_s"], None, spot) for spot in free]
    print(f"\n{'half':<6}{'what happened':<34}{'what was spotted':<42}")
    for half, _, event, spot in sorted(lines, key=lambda line: line[:2]):
        truth = f"{clock(event.timestamp_s)}  {event.label}" if event else "-"
        found = f"{clock(spot['timestamp_s'])}  {spot['label']} ({spot['score']:.2f})" if spot else "-"
        verdict = "hit" if event and spot else "missed" if event else "false alarm"
        print(f"{half:<6}{truth:<34}{found:<42}{verdict}")


def clock(timestamp_s: float) -> str:
    """Minutes, seconds and tenths."""
    return f"{int(timestamp_s // 60)}:{timestamp_s % 60:04.1f}"


def print_scores(references: list[dict], candidates: list[dict], labels: list[str]) -> None:
    """Print the official average-mAP, over the labels that occur."""
    predictions = [prediction_of(spot) for spot in candidates]
    occurring = [label for label in labels if any(event["label"] == label for event in references)]
    scores = average_map([references], [predictions], occurring)
    print(f"\naverage-mAP of the {len(occurring)} labels that occur:", end=" ")
    print(", ".join(f"{metric} {100 * values['a_mAP']:.1f} %" for metric, values in scores.items()))


if __name__ == "__main__":
    main()

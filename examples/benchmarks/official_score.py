"""The official average-mAP: ours against the `SoccerNet` package, on the same matches.

python examples/benchmarks/official_score.py --matches 100

Synthetic matches of two halves with 17 labels: 5 events and 250 predictions a label and half, at random times. Both give
tight and loose; reading files is part of neither. Figures must agree to 1e-9. `--scaling` repeats it for more
matches.
"""

import argparse
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial

import numpy as np
from common import interleaved, machine
from SoccerNet.Evaluation.ActionSpotting import average_mAP, label2vector, predictions2vector

from comedian.evaluation.soccernet_average_map.soccernet_average_map import METRICS, SOCCERNET_V2_LABELS, average_map

FRAMERATE = 2
VECTOR = {
    "num_classes": 17,
    "framerate": FRAMERATE,
    "EVENT_DICTIONARY": {n: i for i, n in enumerate(SOCCERNET_V2_LABELS)},
}


def make_matches(count: int, num_predictions: int, num_events: int = 5) -> tuple[list, list]:
    """References and predictions, one list per match."""
    rng = np.random.default_rng(0)
    references, predictions = [], []
    for _ in range(count):
        events, spots = [], []
        for half in (1, 2):
            for label in SOCCERNET_V2_LABELS:
                for position in np.sort(rng.integers(0, 2_700_000, num_events)):
                    time = f"{half} - {position // 60000:02d}:{position // 1000 % 60:02d}"
                    shown = "visible" if rng.random() < 0.8 else "not shown"
                    events.append({"gameTime": time, "label": label, "position": str(position), "visibility": shown})
                for position, score in zip(rng.integers(0, 2_700_000, num_predictions), rng.random(num_predictions)):
                    spot = {"position": str(position), "label": label, "half": str(half), "confidence": str(score)}
                    spots.append(spot)
        references.append(events)
        predictions.append(spots)
    return references, predictions


def official(references: list, predictions: list) -> dict[str, float]:
    """What `SoccerNet.Evaluation.ActionSpotting.evaluate` does after reading its files, for tight and loose."""
    targets, closests, detections = [], [], []
    for events, spots in zip(references, predictions):
        for half_target, half_detection in zip(
            label2vector({"annotations": events}, **VECTOR), predictions2vector({"predictions": spots}, **VECTOR)
        ):
            closest = np.full_like(half_target, -1)
            for label in range(half_target.shape[1]):
                at = np.flatnonzero(half_target[:, label])
                if not at.size:
                    continue
                middle = (at[:-1] + at[1:]) // 2
                edges = np.concatenate([[0], middle, [len(half_target)]])
                for first, last, event in zip(edges[:-1], edges[1:], at):
                    closest[first:last, label] = half_target[event, label]
            targets.append(half_target)
            detections.append(half_detection)
            closests.append(closest)
    scores = {}
    for name in ("tight", "loose"):
        with redirect_stdout(io.StringIO()):
            values = average_mAP(targets, detections, closests, framerate=FRAMERATE, deltas=np.array(METRICS[name]))
        scores[name] = values[0]
    return scores


def ours(references: list, predictions: list) -> dict[str, float]:
    """See [`average_map`]."""
    return {
        name: values["a_mAP"] for name, values in average_map(references, predictions, SOCCERNET_V2_LABELS).items()
    }


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matches", type=int, default=100)
    parser.add_argument("--predictions", type=int, default=250, help="a label and half")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--scaling", action="store_true", help="also a tenth, a third of the matches")
    args = parser.parse_args()
    counts = [args.matches // 10, args.matches // 3, args.matches] if args.scaling else [args.matches]
    print("| matches | predictions | SoccerNet, s | ours, s | ratio |\n|---|---|---|---|---|")
    for count in counts:
        matches = make_matches(count, args.predictions)
        found = {}

        def keep(name: str, way: Callable, matches: tuple = matches, found: dict = found) -> None:
            found[name] = way(*matches)

        ways = {"official": partial(keep, "official", official), "ours": partial(keep, "ours", ours)}
        times_s = interleaved(ways, args.repeats, warm_up=0)
        assert all(abs(found["official"][name] - score) < 1e-9 for name, score in found["ours"].items()), found
        spots = sum(map(len, matches[1]))
        ratio = times_s["official"] / times_s["ours"]
        print(f"| {count} | {spots} | {times_s['official']:.1f} | {times_s['ours']:.2f} | {ratio:.0f} |")
    print(f"\n{machine()}, numpy {np.__version__}")


if __name__ == "__main__":
    main()

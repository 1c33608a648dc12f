"""Hard and soft NMS of a half: all labels and many peaks at once, against the loop of the published description.

python examples/benchmarks/suppression.py

The loops follow the formulas of the published description, step by step in NumPy: hard looks at the neighbourhood of every
score, soft takes one maximum after the other. 17 labels, 5 400 steps (45 minutes on the published grid of 0.5 s), the
published window of 20 steps and threshold of 0.001. Scores are noise, every step above the threshold (`dense`: an untrained
model) or some hills above a floor below it (`sparse`: a trained one). Results must agree bit for bit.
"""

import argparse

import numpy as np
from common import interleaved, machine

from comedian.models.postprocessing_comedian import non_maximum_suppression

WINDOW, THRESHOLD = 20, 0.001


def loop_hard(scores: np.ndarray) -> np.ndarray:
    """Keep a score that is at least every score within half a window."""
    kept, radius = np.zeros_like(scores), WINDOW // 2
    for label in range(scores.shape[1]):
        for step in range(len(scores)):
            score = scores[step, label]
            around = scores[max(step - radius, 0) : step + radius + 1, label]
            if score >= THRESHOLD and score >= around.max():
                kept[step, label] = score
    return kept


def loop_soft(scores: np.ndarray) -> np.ndarray:
    """Take the maximum, multiply its neighbours by their distance's weight, go on until it is below the threshold."""
    kept, radius = np.zeros_like(scores), WINDOW // 2
    weights = np.clip(np.abs(np.arange(-radius, radius + 1, dtype=np.float32)) / radius, 0, 1)
    for label in range(scores.shape[1]):
        left = scores[:, label].copy()
        while left[step := int(left.argmax())] >= THRESHOLD:
            kept[step, label] = left[step]
            first, last = max(step - radius, 0), min(step + radius + 1, len(left))
            left[first:last] *= weights[first - step + radius : last - step + radius]
            left[step] = 0
    return kept


def make_scores(kind: str, num_steps: int, num_labels: int) -> np.ndarray:
    """Scores float32 `(num_steps, num_labels)`."""
    noise = np.random.default_rng(0).random((num_steps, num_labels), dtype=np.float32)
    if kind == "dense":
        return 0.01 + 0.98 * noise
    # about one peak a minute and label, some steps wide
    peaks = np.where(noise > 1 - 1 / 120, noise, 0)
    hill = np.exp(-0.5 * (np.arange(-8, 9) / 2.5) ** 2)
    smooth = np.stack([np.convolve(column, hill, mode="same") for column in peaks.T], axis=1)
    return np.clip(smooth, 0, 1).astype(np.float32) * 0.95 + np.float32(1e-4) * noise


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5400)
    parser.add_argument("--labels", type=int, default=17)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print("| NMS | scores | loop, ms | ours, ms | ratio |\n|---|---|---|---|---|")
    for kind in ("dense", "sparse"):
        scores = make_scores(kind, args.steps, args.labels)
        for name, loop in (("hard", loop_hard), ("soft", loop_soft)):
            ways = {
                "loop": lambda loop=loop, scores=scores: loop(scores),
                "ours": lambda name=name, scores=scores: non_maximum_suppression(scores, name, WINDOW, THRESHOLD),
            }
            assert (ways["loop"]() == ways["ours"]()).all()
            times_s = interleaved(ways, args.repeats)
            loop_ms, ours_ms = 1e3 * times_s["loop"], 1e3 * times_s["ours"]
            print(f"| {name} | {kind} | {loop_ms:.1f} | {ours_ms:.2f} | {loop_ms / ours_ms:.0f} |")
    print(f"\n{args.steps} steps, {args.labels} labels; {machine()}, numpy {np.__version__}")


if __name__ == "__main__":
    main()

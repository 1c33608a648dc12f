"""A model on whole halves of a frame store: scores, the official average-mAP, thresholds for people."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from comedian.data.annotations import prediction_of
from comedian.data.window_dataset import HalfDataset
from comedian.evaluation.soccernet_average_map.soccernet_average_map import average_map
from comedian.inference.scoring import encode_half, score_half, spots_of_half
from comedian.models import ComedianConfig, ComedianForActionSpotting, ComedianVideoProcessor

READ_FRAMES = 64
# full width of the window in which a spot counts as right when thresholds are chosen
THRESHOLD_TOLERANCE_S = 5.0
# for labels without an event to choose by
DEFAULT_THRESHOLD = 0.5


def score_halves(
    model: ComedianForActionSpotting,
    processor: ComedianVideoProcessor,
    halves: HalfDataset,
    indices: Iterable[int],
    progress: bool = True,
) -> dict[int, np.ndarray]:
    """Score halves one by one.

    Args:
        model: in eval mode.
        processor: resizes and normalises.
        halves: frames at the model's rate.
        indices: which halves.
        progress: show a bar.

    Returns:
        Index of a half -> scores float32 `(num_steps, num_labels)`.
    """
    indices = list(indices)
    return {
        index: score_half(model, encode_half(model, processor, _frames(halves, index)))
        for index in tqdm(indices, desc="scoring", unit="half", disable=not progress, leave=False)
    }


def _frames(halves: HalfDataset, index: int) -> Iterator[np.ndarray]:
    half, step, count = halves[index], halves.frame_step, halves.num_frames(index)
    for start in range(0, count, READ_FRAMES):
        yield from half.read(start * step, min(READ_FRAMES, count - start), step)


def spots_of_halves(
    scores: dict[int, np.ndarray], halves: HalfDataset, config: ComedianConfig
) -> dict[int, list[dict]]:
    """Every candidate of every half, index of the half -> spots."""
    return {index: spots_of_half(scores[index], config, halves.rows[index]["half"], 0.0) for index in sorted(scores)}


def average_map_of(
    spots: dict[int, list[dict]], halves: HalfDataset, metrics: Sequence[str] = ("tight", "loose")
) -> dict[str, dict]:
    """Official score of the spots of all halves; see `average_map` for the result."""
    references = halves.references()
    predictions: dict[str, list[dict[str, str]]] = {video_id: [] for video_id in references}
    for index, found in spots.items():
        predictions[halves.rows[index]["video_id"]].extend(map(prediction_of, found))
    return average_map(list(references.values()), list(predictions.values()), halves.labels, metrics=metrics)


def flatten_scores(scores: dict[str, dict], prefix: str) -> dict[str, float]:
    """Official scores as flat floats: `{prefix}average_map_tight`, ..."""
    return {f"{prefix}average_map_{metric}": float(values["a_mAP"]) for metric, values in scores.items()}


def choose_thresholds(spots: dict[int, list[dict]], halves: HalfDataset, labels: Sequence[str]) -> list[float]:
    """Choose for each label the score from which events are reported: the one with the best F1 on these halves.

    A spot is right when an event of its label, not taken by a better spot, lies within half of `THRESHOLD_TOLERANCE_S`.

    Args:
        spots: every candidate of every half, from [`spots_of_halves`].
        halves: with annotations.
        labels: names in the order of the logits.

    Returns:
        One threshold a label; 0.5 where no spot of the label is right.
    """
    return [_best_threshold(*_judge(spots, halves, label)) for label in labels]


def _judge(spots: dict[int, list[dict]], halves: HalfDataset, label: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores and correctness of all spots of a label, best first, and the number of its events."""
    judged, num_events = [], 0
    for index, found in spots.items():
        times_s, labels = halves.events(index)
        free = times_s[labels == halves.labels.index(label)].tolist()
        num_events += len(free)
        for spot in sorted((spot for spot in found if spot["label"] == label), key=lambda spot: -spot["score"]):
            near = min(free, key=lambda time_s: abs(time_s - spot["timestamp_s"]), default=np.inf)
            right = abs(near - spot["timestamp_s"]) <= THRESHOLD_TOLERANCE_S / 2
            if right:
                free.remove(near)
            judged.append((spot["score"], right))
    judged.sort(key=lambda pair: -pair[0])
    scores, right = zip(*judged, strict=True) if judged else ((), ())
    return np.array(scores), np.array(right, dtype=bool), num_events


def _best_threshold(scores: np.ndarray, right: np.ndarray, num_events: int) -> float:
    if not right.any():
        return DEFAULT_THRESHOLD
    true_positives = right.cumsum()
    f1 = 2 * true_positives / (np.arange(1, len(right) + 1) + num_events)
    # rounded down, so that the spot it was read off stays above it
    return float(np.floor(scores[f1.argmax()] * 1e4) / 1e4)

"""Evaluation of a model on whole halves of a frame store: scores, official average-mAP, thresholds."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from comedian.evaluation.calibration import Judged, judge_spots
from comedian.evaluation.soccernet_average_map.soccernet_average_map import average_map
from comedian.inference.scoring import SpottingModel, encode_half, score_half
from comedian.models.postprocessing_comedian import spots_of_half
from comedian.models.settings_comedian import ComedianSettings
from comedian.samples.datasets import HalfDataset
from comedian.sharing import balanced_shares
from comedian.soccernet.annotations import prediction_of

READ_FRAMES = 64


def score_halves(
    model: SpottingModel,
    halves: HalfDataset,
    indices: Iterable[int],
    progress: bool = True,
) -> dict[int, np.ndarray]:
    """Score halves one by one.

    Args:
        model: such as [`TorchModel`].
        halves: frames at the model's rate.
        indices: which halves.
        progress: show a bar.

    Returns:
        Index of a half -> scores float32 `(num_steps, num_labels)`.
    """
    scores = {}
    for index in tqdm(list(indices), desc="scoring", unit="half", disable=not progress, leave=False):
        sound = halves[index].sound() if model.config.sound else None
        scores[index] = score_half(model, encode_half(model, _frames(halves, index)), sound)
    return scores


def score_halves_together(
    model: SpottingModel,
    halves: HalfDataset,
    progress: bool = True,
) -> dict[int, np.ndarray]:
    """Score all halves, divided over the processes of `accelerate` by their lengths; see [`score_halves`].

    Returns:
        Index of a half -> scores float32 `(num_steps, num_labels)`, of all halves and on every process.
    """
    state = PartialState()
    lengths = [halves.num_frames(index) for index in range(len(halves))]
    mine = balanced_shares(lengths, state.num_processes)[state.process_index]
    scores = score_halves(model, halves, mine, progress and state.is_main_process)
    return dict(gather_object(list(scores.items()))) if state.num_processes > 1 else scores


def _frames(halves: HalfDataset, index: int) -> Iterator[np.ndarray]:
    half, step, count = halves[index], halves.frame_step, halves.num_frames(index)
    for start in range(0, count, READ_FRAMES):
        yield from half.read(start * step, min(READ_FRAMES, count - start), step)


def spots_of_halves(
    scores: dict[int, np.ndarray], halves: HalfDataset, config: ComedianSettings
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


def judge_spots_of_halves(spots: dict[int, list[dict]], halves: HalfDataset, labels: Sequence[str]) -> list[Judged]:
    """Determine which candidates are correct, per label; see [`judge_spots`].

    Args:
        spots: every candidate of every half, from [`spots_of_halves`].
        halves: with annotations.
        labels: names in the order of the logits.
    """
    indices = {label: index for index, label in enumerate(labels)}
    found = [
        (half, indices[spot["label"]], spot["timestamp_s"], spot["score"])
        for half, of_half in spots.items()
        for spot in of_half
    ]
    events = [
        (half, indices[halves.labels[label]], time_s)
        for half in spots
        for time_s, label in zip(*halves.events(half), strict=True)
    ]
    return judge_spots(_columns(found, 4), _columns(events, 3), len(labels))


def _columns(rows: list[tuple], count: int) -> np.ndarray:
    return np.array(rows, dtype=np.float64).reshape(-1, count).T

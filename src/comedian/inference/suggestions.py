"""Which moments to label next: those that a model is least certain of, spread over the videos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comedian.models.settings_comedian import ComedianSettings

# moments closer to each other are reviewed together
MIN_DISTANCE_S = 10.0


@dataclass(frozen=True)
class Moment:
    """A moment to look at.

    Attributes:
        video: index of its video.
        time_s: seconds after the first shown frame.
        uncertainty: from 0, certain, to 1, a score at its label's threshold.
    """

    video: int
    time_s: float
    uncertainty: float


def uncertain_moments(
    candidates: Sequence[Sequence[Mapping[str, Any]]], config: ComedianSettings, count: int
) -> list[Moment]:
    """Choose the moments whose scores lie nearest to their labels' thresholds.

    Each video gives its least certain moment first, then its second, and so on, so that no video gives all of them.

    Args:
        candidates: one list per video: every candidate with `label`, `timestamp_s` and `score`, on the thresholds' scale.
        config: of the model that found them.
        count: moments to choose.

    Returns:
        At most `count` moments, what to label first in front.
    """
    thresholds = dict(zip(config.label_names, config.reporting_thresholds, strict=True))
    ranked: list[tuple[int, Moment]] = []
    for video, spots in enumerate(candidates):
        moments = [
            Moment(
                video,
                spot["timestamp_s"],
                _uncertainty(spot["score"], thresholds[spot["label"]]),
            )
            for spot in spots
        ]
        chosen: list[Moment] = []
        for moment in sorted(moments, key=lambda moment: (-moment.uncertainty, moment.time_s)):
            if all(abs(moment.time_s - other.time_s) >= MIN_DISTANCE_S for other in chosen):
                chosen.append(moment)
            if len(chosen) == count:
                break
        ranked += enumerate(chosen)
    in_turn = sorted(ranked, key=lambda item: (item[0], -item[1].uncertainty))
    return [moment for _, moment in in_turn[:count]]


def _uncertainty(score: float, threshold: float) -> float:
    """1 at the threshold, falling to 0 at scores 0 and 1."""
    if score <= threshold:
        return score / threshold if threshold > 0 else 1.0
    return (1 - score) / (1 - threshold)

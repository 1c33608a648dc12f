"""Non-maximum suppression of scores that come piece by piece: each spot as soon as nothing to come can change it."""

import numpy as np

from comedian.models.postprocessing_comedian import (
    fix_peaks,
    non_maximum_suppression,
    reach_of,
    soft_nms_weights,
    steps_of,
)
from comedian.models.settings_comedian import ComedianSettings


class RunningSuppression:
    """The suppression of `config`, with the result of [`non_maximum_suppression`] over the whole half.

    Hard suppression settles a score once the scores around it are known. Soft suppression settles it once it is the best
    within twice as far: a falling score waits until the better ones before it are settled, so what is held grows with a
    stretch over which a label's score never stops rising, and with nothing else.

    Args:
        config: the model's.

    Attributes:
        wait_steps: steps that a score waits for at most, but for such a stretch.
    """

    def __init__(self, config: ComedianSettings):
        kind = {"hard": _HardLabel, "soft": _SoftLabel}[config.nms_type]
        windows = np.broadcast_to(steps_of(config.nms_window_s, config.score_rate), config.num_labels)
        self._labels = [kind(float(window), config.nms_threshold, config.nms_min_weight) for window in windows]
        self.wait_steps = max(label.wait for label in self._labels)

    def add(self, scores: np.ndarray, ended: bool = False) -> list[tuple[int, int, float]]:
        """Take the scores of the next steps, and tell what is settled.

        Args:
            scores: float32 `(num_steps, num_labels)`.
            ended: nothing comes after them.

        Returns:
            `(step, label, score)` of what is kept, by step, then by label.
        """
        settled = []
        for column, label in enumerate(self._labels):
            settled += [(step, column, score) for step, score in label.add(scores[:, column], ended)]
        return sorted(settled)

    @property
    def num_held(self) -> int:
        """Scores that are held, of all labels."""
        return sum(len(label.field) for label in self._labels)


class _HardLabel:
    """Holds the scores that are not settled, and those before them that they are compared with."""

    def __init__(self, window: float, threshold: float, min_weight: float):
        self.wait = int(window / 2)
        self.window, self.threshold = window, threshold
        # before the first score there is nothing, as after the last
        self.field = np.zeros(self.wait, np.float32)
        self.first = -self.wait

    def add(self, scores: np.ndarray, ended: bool) -> list[tuple[int, float]]:
        field = np.concatenate([self.field, scores, np.zeros(self.wait * ended, np.float32)])
        kept = non_maximum_suppression(field[:, None], "hard", self.window, self.threshold)[:, 0]
        settled = range(self.wait, len(field) - self.wait)
        found = [(self.first + place, float(kept[place])) for place in settled if kept[place]]
        self.first += len(settled)
        self.field = field[len(settled) :]
        return found


class _SoftLabel:
    """Holds what is in the field from the first score on that is not settled; all before it has left the field."""

    def __init__(self, window: float, threshold: float, min_weight: float):
        self.weights = soft_nms_weights(window, min_weight, int(window / 2))
        self.wait = reach_of(self.weights)
        self.threshold = threshold
        self.field = np.zeros(self.wait, np.float32)
        self.first = -self.wait

    def add(self, scores: np.ndarray, ended: bool) -> list[tuple[int, float]]:
        candidates = np.where(scores >= self.threshold, scores, np.float32(0))
        field = np.concatenate([self.field, candidates, np.zeros(self.wait * ended, np.float32)])
        kept = fix_peaks(field, self.weights, self.threshold)
        found = [(self.first + int(place), float(kept[place])) for place in np.flatnonzero(kept)]
        waiting = np.flatnonzero(field)
        # of what has left the field, as much as a peak looks back
        done = (waiting[0] if waiting.size else len(field)) - self.wait
        self.first += int(done)
        self.field = field[done:]
        return found

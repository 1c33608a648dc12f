"""Scores of a video that is still going on: each one as soon as nothing to come can change it."""

import math

import numpy as np

from comedian.inference.scoring import SpottingModel, score_windows
from comedian.models.postprocessing_comedian import displace, kept_part
from comedian.models.settings_comedian import ComedianSettings


class RunningScores:
    """Scores of one model, with the result of [`score_half`] over the whole half.

    The windows are those of `cover_starts`, whose last one ends with the video: with `n` tokens so far it starts at
    `n - window` or later, so a start below that is one of the others. What comes after keeps nothing of the tokens before
    `n - window + trim`; and as windows leave no gap, those have all their scores. They are final then, or, where the model
    moves its scores, once those are that may be moved there.

    Args:
        model: scores windows.
    """

    def __init__(self, model: SpottingModel):
        config = model.config
        self.model = model
        self.window, self.stride, self.trim = config.num_tokens, config.window_stride_tokens, config.edge_trim_tokens
        self.tokens = np.empty((0, config.hidden_size), np.float32)
        self.num_tokens = self.next_start = 0
        self.stitches = [_RunningStitch(config, config.logits_per_token, config.merge)]
        self.displacement = None
        if config.offset_radius_s is not None:
            self.stitches.append(_RunningStitch(config, 1, "mean"))
            self.displacement = _RunningDisplacement(config)

    def add(self, tokens: np.ndarray) -> np.ndarray:
        """Take the next tokens `(num_tokens, hidden_size)`; return the scores `(num_steps, num_labels)` now final."""
        self.tokens = np.concatenate([self.tokens, tokens])
        self.num_tokens += len(tokens)
        last_start = self.num_tokens - self.window
        starts = np.arange(self.next_start, last_start, self.stride)
        if starts.size:
            self._run(starts)
            self.next_start = int(starts[-1]) + self.stride
        self.tokens = self.tokens[-self.window :]
        return self._take(last_start + self.trim if last_start > 0 else 0, ended=False)

    def finish(self) -> np.ndarray:
        """Run the last window; return the scores that are left."""
        if self.num_tokens:
            self._run(np.array([max(self.num_tokens - self.window, 0)]))
        return self._take(self.num_tokens, ended=True)

    def wait_tokens(self, behind: int) -> int:
        """Return how many tokens follow a token before its scores, and those of `behind` more tokens, are final, at most."""
        # the first window is whole before anything is known
        return max(self.window, self.window - self.trim + offset_radius_tokens(self.model.config) + behind)

    @property
    def num_held(self) -> int:
        """Scores and displacements that are held, of all labels."""
        held = [stitch.merged for stitch in self.stitches]
        return sum(array.size for array in held) + (self.displacement.moved.size if self.displacement else 0)

    def _run(self, starts: np.ndarray) -> None:
        first_held = self.num_tokens - len(self.tokens)
        for stitch, values in zip(self.stitches, score_windows(self.model, self.tokens, starts - first_held)):
            stitch.add(values, starts, self.num_tokens)

    def _take(self, stop: int, ended: bool) -> np.ndarray:
        final = [stitch.take(stop) for stitch in self.stitches]
        return final[0] if self.displacement is None else self.displacement.add(*final, ended)


def offset_radius_tokens(config: ComedianSettings) -> int:
    """Return how far a model moves its scores, in tokens, rounded up; 0 where it does not."""
    return math.ceil((config.offset_radius_s or 0) * config.token_rate)


class _RunningStitch:
    """`stitch` of windows that come one after the other, `steps` values a token."""

    def __init__(self, config: ComedianSettings, steps: int, merge: str):
        self.steps, self.trim = steps, config.edge_trim_tokens * steps
        self.combine = {"max": np.maximum, "mean": np.add}[merge]
        self.num_final = 0
        # of what is not final; float64 as in `stitch`
        self.nothing = {"max": -np.inf, "mean": 0.0}[merge]
        self.merged = np.empty((0, config.num_labels))
        self.support = np.empty((0, 1))

    def add(self, windows: np.ndarray, starts: np.ndarray, num_tokens: int) -> None:
        new = num_tokens * self.steps - self.num_final - len(self.merged)
        self.merged = np.pad(self.merged, ((0, new), (0, 0)), constant_values=self.nothing)
        self.support = np.pad(self.support, ((0, new), (0, 0)))
        for window, start in zip(windows, starts * self.steps, strict=True):
            first, stop = kept_part(start, len(window), num_tokens * self.steps, self.trim)
            rows = slice(start + first - self.num_final, start + stop - self.num_final)
            self.merged[rows] = self.combine(self.merged[rows], window[first:stop])
            self.support[rows] += 1

    def take(self, stop: int) -> np.ndarray:
        """Return the values up to token `stop`, which are final."""
        count = stop * self.steps - self.num_final
        rows, support = self.merged[:count], self.support[:count]
        self.merged, self.support, self.num_final = self.merged[count:], self.support[count:], stop * self.steps
        return (rows if self.combine is np.maximum else rows / support).astype(np.float32)


class _RunningDisplacement:
    """`displace` of scores that come piece by piece: a step is final once no token to come is near enough to reach it."""

    def __init__(self, config: ComedianSettings):
        self.token_rate, self.steps = config.token_rate, config.scores_per_token
        self.radius = offset_radius_tokens(config)
        # from the first step that is not final on; at the begin, steps before the half too, whose scores stay at its edge
        self.moved = np.zeros((2 * self.radius * self.steps, config.num_labels), np.float32)
        self.first = -self.radius * self.steps

    def add(self, scores: np.ndarray, offsets_s: np.ndarray, ended: bool) -> np.ndarray:
        # room on both sides, so that nothing is held back there
        room = ((self.radius, self.radius), (0, 0))
        moved = displace(np.pad(scores, room), np.pad(offsets_s, room), self.token_rate, self.steps)
        moved[: len(self.moved)] = np.maximum(moved[: len(self.moved)], self.moved)
        before, stop = max(-self.first, 0), len(scores) * self.steps
        moved[before] = moved[: before + 1].max(axis=0)
        if ended:
            stop += self.radius * self.steps
            moved[stop - 1] = moved[stop - 1 :].max(axis=0)
        self.moved = moved[stop:]
        self.first += stop
        return moved[before:stop]

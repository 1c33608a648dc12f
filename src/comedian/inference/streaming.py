"""`StreamingSpotter`: frames go in as they come, events come out, in memory that does not grow."""

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from comedian.errors import InputError
from comedian.inference.running_scores import RunningScores, offset_radius_tokens
from comedian.inference.running_suppression import RunningSuppression
from comedian.inference.scoring import SpottingModel, encode_frames, score_windows
from comedian.inference.spotter import ActionSpotter, thresholds_of
from comedian.models.postprocessing_comedian import (
    calibrate,
    non_maximum_suppression,
    step_timestamp_s,
    steps_of,
    stitch_half,
)
from comedian.models.settings_comedian import ComedianSettings
from comedian.models.windows_comedian import batches_of

if TYPE_CHECKING:
    import torch


class StreamingSpotter:
    """Finds the events of a live video.

        spotter = StreamingSpotter.from_pretrained("my-model", look_ahead_s=10)
        for frame in camera:
            for spot in spotter.push([frame]):
                print(spot)
        print(spotter.finish())

    Every tubelet is encoded once; held are the tokens of one window and what their scores may still change.

    Without `look_ahead_s` the spots are those of [`ActionSpotter`]: an event is returned when no later window contains
    it and no later event can suppress it. With it, an event is returned after this delay: the score of a token is that
    of the window that ends then, and only earlier events and the tokens up to then can suppress it. These scores
    differ from those of a whole video, because less of the following footage is known. Events are never withdrawn, so
    an event whose score is still rising may be returned twice within its suppression window.

    Args:
        spotter: the model or ensemble, of one image size.
        look_ahead_s: seconds to look ahead of an event, rounded down to whole tubelets; less than a window, and no less
            than the model moves its scores.
        keep_all: return all candidates.
        threshold: smallest score of an event, for all labels, or such as `"precision=0.9"`; the model's own thresholds by
            default. As with [`ActionSpotter`], scores are the probabilities of a calibrated model.
        half: number of the half that the spots get.

    Attributes:
        latency_s: seconds of video from an event to its spot, at most; computing and decoding come on top. Soft
            suppression without `look_ahead_s` lets an event wait longer where better ones of its label follow each other
            closely.

    Raises:
        InputError: a look-ahead that is too short or too long, an invalid `threshold`, or models of several image
            sizes.
    """

    def __init__(
        self,
        spotter: ActionSpotter,
        *,
        look_ahead_s: float | None = None,
        keep_all: bool = False,
        threshold: float | str | None = None,
        half: int = 1,
    ):
        self.config = spotter.config
        self.half = half
        self._models = models = spotter.members
        thresholds, calibrated = thresholds_of(self.config, keep_all, threshold)
        self._thresholds = np.broadcast_to(thresholds, self.config.num_labels)
        self._calibration = self.config.label_calibration if calibrated else None
        self._waiting: list[np.ndarray] = []
        if len({model.config.frame_size for model in models}) > 1:
            raise InputError(
                "the models take pictures of several sizes; a stream is scaled to one: name models of one"
            )
        if look_ahead_s is None:
            self._events: _OfflineEvents | _LookAheadEvents = _OfflineEvents(models, self.config)
        else:
            self._events = _LookAheadEvents(models, self.config, look_ahead_s)
        self.latency_s = (self._events.wait_tokens + 1) / self.config.token_rate

    @classmethod
    def from_pretrained(
        cls, *models: str | Path, device: "str | torch.device | None" = None, **options
    ) -> "StreamingSpotter":
        """Load one model, or several for an ensemble.

        Args:
            models: folders or Hub repositories.
            device: where to run; an accelerator by default, where there is one.
            options: see the class.

        Raises:
            InputError: see [`ActionSpotter.from_pretrained`] and the class.
        """
        return cls(ActionSpotter.from_pretrained(*models, device=device), **options)

    def push(self, frames: Iterable[np.ndarray]) -> list[dict]:
        """Take the next frames.

        Args:
            frames: uint8 `(height, width, 3)` each, `config.fps` of them a second; best of the model's size, as
                [`iter_frames`] scales them.

        Returns:
            Spots `{"label", "timestamp_s", "half", "score"}` that have become final, in order of time; `timestamp_s` in
            seconds from the first frame.
        """
        size, spots = self.config.tubelet_size, []
        for batch in batches_of(chain(self._waiting, frames), self._models[0].tubelets_per_batch * size):
            whole = len(batch) - len(batch) % size
            self._waiting = list(batch[whole:])
            if whole:
                spots += self._spots(self._events.add(self._encode(batch[:whole])))
        return spots

    def finish(self) -> list[dict]:
        """End the stream and return the spots that are left, as [`push`] does; the last frame fills its tubelet."""
        spots = []
        if self._waiting:
            spots = self._spots(self._events.add(self._encode(np.stack(self._waiting))))
            self._waiting = []
        return spots + self._spots(self._events.finish())

    @property
    def num_held(self) -> dict[str, int]:
        """How much is held between two calls: `frames`, `tokens` of all models, and `scores` of all labels."""
        return {"frames": len(self._waiting), "tokens": self._events.num_tokens, "scores": self._events.num_scores}

    def _encode(self, frames: np.ndarray) -> list[np.ndarray]:
        return encode_frames(self._models, frames)

    def _spots(self, events: Iterable[tuple[int, int, float]]) -> list[dict]:
        spots = []
        for step, column, score in events:
            if self._calibration is not None:
                score = float(calibrate(np.array([score]), self._calibration[column : column + 1])[0])
            if score >= self._thresholds[column]:
                timestamp_s = float(step_timestamp_s(step, self.config.score_rate, self.config.fps))
                label = self.config.label_names[column]
                spots.append({"label": label, "timestamp_s": timestamp_s, "half": self.half, "score": score})
        return spots


class _OfflineEvents:
    """Events `(step, label, score)` of one or more models, with the result of the whole video."""

    def __init__(self, models: Sequence[SpottingModel], config: ComedianSettings):
        self.scores = [RunningScores(model) for model in models]
        self.rows = [np.empty((0, config.num_labels), np.float32) for _ in models]
        self.suppression = RunningSuppression(config)
        behind = math.ceil(self.suppression.wait_steps / config.scores_per_token)
        self.wait_tokens = max(scores.wait_tokens(behind) for scores in self.scores)

    def add(self, tokens: Sequence[np.ndarray]) -> list[tuple[int, int, float]]:
        return self._suppress([scores.add(own) for scores, own in zip(self.scores, tokens, strict=True)])

    def finish(self) -> list[tuple[int, int, float]]:
        return self._suppress([scores.finish() for scores in self.scores], ended=True)

    def _suppress(self, new_rows: Sequence[np.ndarray], ended: bool = False) -> list[tuple[int, int, float]]:
        rows = [np.concatenate(pair) for pair in zip(self.rows, new_rows, strict=True)]
        # models with longer windows have a longer delay
        common = min(map(len, rows))
        self.rows = [own[common:] for own in rows]
        return self.suppression.add(np.mean([own[:common] for own in rows], axis=0), ended)

    @property
    def num_tokens(self) -> int:
        return sum(len(scores.tokens) for scores in self.scores)

    @property
    def num_scores(self) -> int:
        return sum(own.size for own in self.rows) + sum(s.num_held for s in self.scores) + self.suppression.num_held


class _LookAheadEvents:
    """Events `(step, label, score)` of one or more models, each returned `wait_tokens` tokens later."""

    def __init__(self, models: Sequence[SpottingModel], config: ComedianSettings, look_ahead_s: float):
        least = max(offset_radius_tokens(model.config) for model in models)
        most = min(model.config.num_tokens for model in models) - 1
        if not least <= look_ahead_s * config.token_rate <= most:
            raise InputError(
                f"a look-ahead of {look_ahead_s:g} s: give {least / config.token_rate:g} to {most / config.token_rate:g}, "
                "less than the model's window, or none for the scores of the whole video"
            )
        self.models, self.config = models, config
        self.wait_tokens = int(steps_of(look_ahead_s, config.token_rate))
        self.nms_windows = steps_of(config.nms_window_s, config.score_rate)
        self.tokens = [np.empty((0, model.config.hidden_size), np.float32) for model in models]
        self.num_told = 0
        # returned events that can still suppress others, and the newest scores of later steps
        self.told = np.empty((0, config.num_labels), np.float32)
        self.open = np.empty((0, config.num_labels), np.float32)

    def add(self, tokens: Sequence[np.ndarray]) -> list[tuple[int, int, float]]:
        events, steps = [], self.config.scores_per_token
        for token in zip(*tokens, strict=True):
            self.open = self._newest_scores(token, len(self.open) + steps)
            events += self._tell(len(self.open) - self.wait_tokens * steps)
        return events

    def finish(self) -> list[tuple[int, int, float]]:
        return self._tell(len(self.open))

    def _newest_scores(self, token: Sequence[np.ndarray], count: int) -> np.ndarray:
        """Scores of the last `count` steps, from the windows that end with this token."""
        scores, start = [], np.array([0])
        for index, (model, own) in enumerate(zip(self.models, token, strict=True)):
            self.tokens[index] = held = np.concatenate([self.tokens[index], own[None]])[-model.config.num_tokens :]
            window_scores, offsets_s = score_windows(model, held, start)
            scores.append(stitch_half(window_scores, offsets_s, start, len(held), model.config)[-count:])
        return np.mean(scores, axis=0)

    def _tell(self, count: int) -> list[tuple[int, int, float]]:
        if count <= 0:
            return []
        config, known = self.config, np.concatenate([self.told, self.open])
        kept = non_maximum_suppression(
            known, config.nms_type, self.nms_windows, config.nms_threshold, config.nms_min_weight
        )
        told = kept[len(self.told) : len(self.told) + count]
        events = [
            (self.num_told + int(row), int(column), float(told[row, column])) for row, column in np.argwhere(told)
        ]
        self.num_told += count
        radius = int(self.nms_windows.max() / 2)
        self.told = np.concatenate([self.told, told])[max(len(self.told) + count - radius, 0) :]
        self.open = self.open[count:]
        return events

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.tokens))

    @property
    def num_scores(self) -> int:
        return self.told.size + self.open.size

"""Labelled halves of a frame store, and the windows a training run draws from them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from comedian.data.annotations import game_time
from comedian.data.frame_store import FrameStore, HalfFrames
from comedian.data.windows import disjoint_starts, random_starts, token_targets
from comedian.errors import InputError

IGNORE_INDEX = -100
SAMPLINGS = ("disjoint", "random")


class HalfDataset(Dataset):
    """Halves whose frames lie in a frame store, with their annotations.

    Args:
        rows: rows of the `SoccerNet` builder (`video_id`, `half`, `events`).
        store: the frame store that holds them.
        labels: names in the order of the model's logits; events with other labels are left out.
        fps: frames per second of the model; the store's rate must be a multiple.

    Raises:
        InputError: a half is not in the store, or the rates do not fit.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], store: FrameStore, labels: Sequence[str], fps: float):
        self.frame_step = round(store.fps / fps)
        if self.frame_step < 1 or abs(self.frame_step * fps - store.fps) > 1e-6 * store.fps:
            raise InputError(
                f"`{store.path}` holds {store.fps:g} frames per second, which is no multiple of the model's {fps:g}; "
                f"make one with `comedian prepare --fps {fps:g}`"
            )
        self.labels = tuple(labels)
        self.fps = fps
        self.rows = [dict(row) for row in rows]
        self.halves = [store.open(row["video_id"], row["half"]) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> HalfFrames:
        return self.halves[index]

    def num_frames(self, index: int) -> int:
        """Frames of a half at the model's rate."""
        return -(-self.halves[index].num_frames // self.frame_step)

    def events(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Times in seconds, float64 `(num_events,)`, and label indices, int64 `(num_events,)`, of a half."""
        events = [event for event in self.rows[index]["events"] if event["label"] in self.labels]
        times_s = np.array([event["position_ms"] / 1000 for event in events], dtype=np.float64)
        return times_s, np.array([self.labels.index(event["label"]) for event in events], dtype=np.int64)

    def references(self) -> dict[str, list[dict[str, str]]]:
        """Annotations of each match in the form of `Labels-v2.json`, as the official score takes them."""
        matches: dict[str, list[dict[str, str]]] = {}
        for row in self.rows:
            matches.setdefault(row["video_id"], []).extend(
                {
                    "gameTime": game_time(row["half"], event["position_ms"]),
                    "label": event["label"],
                    "position": str(event["position_ms"]),
                    "visibility": event["visibility"],
                }
                for event in row["events"]
            )
        return matches


class WindowKey(NamedTuple):
    """One training window: which half, its first frame in the store's rate, and the seed of its augmentation."""

    half_index: int
    start: int
    seed: int


@dataclass(frozen=True)
class WindowShape:
    """Sizes of the windows a model takes.

    Attributes:
        num_frames: frames of a window at the model's rate.
        tubelet_size: frames of a token.
        windows_per_half: windows drawn from each half in an epoch.
        sampling: `"disjoint"` (no overlap, both edges always) or `"random"` (stratified).
        label_radius_s: a frame within this time of an event carries its label.
    """

    num_frames: int
    tubelet_size: int
    windows_per_half: int
    sampling: str
    label_radius_s: float


class WindowDataset(Dataset):
    """Training windows, addressed by [`WindowKey`] so that the sampler alone holds the randomness."""

    def __init__(self, halves: HalfDataset, shape: WindowShape):
        self.halves = halves
        self.shape = shape

    def __len__(self) -> int:
        """Windows of an epoch."""
        return len(self.halves) * self.shape.windows_per_half

    def __getitem__(self, key: WindowKey) -> dict[str, Tensor]:
        """Read one window.

        Returns:
            `frames` uint8 `(num_frames, height, width, 3)`, `labels` float32 `(num_tokens, num_labels)` and `seed`. A half
            shorter than the window repeats its last frame, and the tokens there are ignored (-100).
        """
        half, step = self.halves[key.half_index], self.halves.frame_step
        available = min(self.shape.num_frames, -(-(half.num_frames - key.start) // step))
        frames = half.read(key.start, available, step)
        if available < self.shape.num_frames:
            frames = np.concatenate([frames, np.repeat(frames[-1:], self.shape.num_frames - available, axis=0)])
        return {
            "frames": torch.from_numpy(frames),
            "labels": torch.from_numpy(self.targets(key, available)),
            "seed": torch.tensor(key.seed),
        }

    def targets(self, key: WindowKey, available_frames: int) -> np.ndarray:
        """Targets of a window, float32 `(num_tokens, num_labels)`; -100 where there is no footage."""
        times_s, labels = self.halves.events(key.half_index)
        start_s = key.start / (self.halves.fps * self.halves.frame_step)
        targets = token_targets(
            times_s - start_s,
            labels,
            self.shape.num_frames // self.shape.tubelet_size,
            len(self.halves.labels),
            self.halves.fps,
            self.shape.tubelet_size,
            self.shape.label_radius_s,
        )
        targets[-(-available_frames // self.shape.tubelet_size) :] = IGNORE_INDEX
        return targets


class WindowSampler(Sampler[WindowKey]):
    """Draws an epoch's windows from `(seed, epoch)` alone, so a resumed run sees what an uninterrupted one would."""

    def __init__(self, dataset: WindowDataset, seed: int):
        self.dataset = dataset
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[WindowKey]:
        rng = np.random.default_rng((self.seed, self.epoch))
        keys = [
            (index, start)
            for index in range(len(self.dataset.halves))
            for start in self.draw_starts(index, rng).tolist()
        ]
        seeds = rng.integers(2**62, size=len(keys)).tolist()
        for position in rng.permutation(len(keys)).tolist():
            yield WindowKey(*keys[position], seeds[position])

    def draw_starts(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """First frames, at the store's rate, of the windows of one half; always `windows_per_half` of them."""
        shape, halves = self.dataset.shape, self.dataset.halves
        length, window = halves[index].num_frames, shape.num_frames * halves.frame_step
        if shape.sampling == "random":
            return random_starts(length, window, shape.windows_per_half, rng)
        # a half with room for fewer windows without overlap is gone over again until the count is full
        rounds = []
        while (missing := shape.windows_per_half - sum(map(len, rounds))) > 0:
            rounds.append(rng.permutation(disjoint_starts(length, window, rng))[:missing])
        return np.concatenate(rounds)

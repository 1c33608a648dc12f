"""Labelled halves of a frame store, and the windows a training run draws from them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, Sampler, default_collate, get_worker_info

from comedian.errors import InputError
from comedian.features.bank import FeatureBank
from comedian.models.loss_comedian import IGNORE_INDEX
from comedian.models.sound_comedian import sound_of_tokens
from comedian.models.time_grid_comedian import token_timestamps_s
from comedian.samples.colours import YUV
from comedian.samples.windows import (
    disjoint_starts,
    edge_starts,
    part_starts,
    random_starts,
    token_offsets_s,
    token_targets,
)
from comedian.soccernet.annotations import game_time
from comedian.video.frame_store import FrameStore, HalfFrames

SAMPLINGS = ("disjoint", "parts", "random", "edges")


class HalfDataset(Dataset):
    """Halves whose frames are in a frame store, with their annotations.

    Args:
        rows: rows of the `SoccerNet` builder (`video_id`, `half`, `events`).
        store: the frame store that holds them.
        labels: names in the order of the model's logits; events with other labels are omitted.
        fps: frames per second of the model; the store's rate must be a multiple.

    Raises:
        InputError: a half is not in the store, or the rates do not fit.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], store: FrameStore, labels: Sequence[str], fps: float):
        self.frame_step = round(store.fps / fps)
        if self.frame_step < 1 or abs(self.frame_step * fps - store.fps) > 1e-6 * store.fps:
            raise InputError(
                f"`{store.path}` holds {store.fps:g} frames per second, which is not a multiple of the model's "
                f"{fps:g}; create one with `comedian prepare --fps {fps:g}`"
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

    def check_sound(self) -> None:
        """Check that at least one half has a spectrogram.

        Raises:
            InputError: no half has a spectrogram.
        """
        if all(half.sound() is None for half in self.halves):
            raise InputError(
                f"the frame store of `{self.rows[0]['video_id']}` contains no sound, which a model with `sound` "
                "needs: rerun `comedian prepare` with `--sound`, or check that the videos have an audio track"
            )

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
    """One training window: which half, its first frame in the store's rate, and the seed of its augmentation.

    `place` is where the frames are to be read to, by field: rows of a batch, see [`FrameWindows.with_places`].
    """

    half_index: int
    start: int
    seed: int
    place: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class WindowShape:
    """Sizes of the windows a model takes.

    Attributes:
        num_frames: frames of a window at the model's rate.
        tubelet_size: frames of a token.
        windows_per_half: windows drawn from each half in an epoch.
        sampling: `"disjoint"`, `"parts"`, `"random"` or `"edges"`: see [`disjoint_starts`], [`part_starts`],
            [`random_starts`] and [`edge_starts`].
    """

    num_frames: int
    tubelet_size: int
    windows_per_half: int
    sampling: str

    @property
    def num_tokens(self) -> int:
        """Tokens of a window."""
        return self.num_frames // self.tubelet_size


class FrameWindows(Dataset):
    """Windows of frames, addressed by [`WindowKey`], so that only the sampler is random.

    A number stands for a window of the first epoch of seed 0, so that a plain `DataLoader` or `Subset` works too; it
    has the same windows in every epoch.

    Args:
        halves: the halves that the windows are cut from.
        shape: their sizes.

    Attributes:
        yuv: read frames as they are stored; see [`comedian.samples.colours.rgb_of_yuv`].
    """

    yuv = False

    def __init__(self, halves: HalfDataset, shape: WindowShape):
        self.halves = halves
        self.shape = shape
        self._numbered: list[WindowKey] | None = None

    def key_of(self, key: WindowKey | int) -> WindowKey:
        """Return a key as it is; of a number, that of its window."""
        if isinstance(key, WindowKey):
            return key
        if self._numbered is None:
            self._numbered = sorted(WindowSampler(self, seed=0))
        return self._numbered[key]

    def __len__(self) -> int:
        """Windows of an epoch."""
        return len(self.halves) * self.shape.windows_per_half

    def __getitem__(self, key: WindowKey | int) -> dict[str, Tensor]:
        """Read one window.

        Returns:
            `frames` uint8 `(num_frames, height, width, 3)` and `seed`. A half shorter than the window repeats its last
            frame. With `yuv`, `y`, `u` and `v` in place of `frames`, see [`HalfFrames.read_yuv`].
        """
        key = self.key_of(key)
        return self.read(key) | {"seed": torch.tensor(key.seed)}

    def __getitems__(self, keys: Sequence[WindowKey | int]) -> list[dict[str, Tensor]]:
        """Read a batch."""
        return [self[key] for key in keys]

    def with_places(self, keys: Sequence[WindowKey]) -> list[WindowKey]:
        """Have the frames of a batch read into one tensor a field, which [`collate_windows`] then need not copy.

        Returns:
            The keys, each with its rows of new tensors; as they are, where the halves differ in frame size or a key is none
            of [`WindowSampler`].
        """
        if not all(isinstance(key, WindowKey) for key in keys):
            return list(keys)
        shapes = self._pixel_shapes(keys[0])
        if any(self._pixel_shapes(key) != shapes for key in keys[1:]):
            return list(keys)
        batch = {name: _room_for((len(keys), *shape)) for name, shape in shapes.items()}
        rows = zip(*(tensor.unbind() for tensor in batch.values()), strict=True)
        return [key._replace(place=dict(zip(batch, row))) for key, row in zip(keys, rows, strict=True)]

    def read(self, key: WindowKey) -> dict[str, Tensor]:
        """Frames of a window: what [`FrameWindows.__getitem__`] returns without the seed."""
        place = key.place or {name: _room_for(shape) for name, shape in self._pixel_shapes(key).items()}
        half, count = self.halves[key.half_index], self.available_frames(key)
        pixels, wanted = [tensor.numpy() for tensor in place.values()], (key.start, count, self.halves.frame_step)
        if self.yuv:
            y, u, v = (array[:count] for array in pixels)
            half.read_yuv(*wanted, out=(y, u, v))
        else:
            half.read(*wanted, out=pixels[0][:count])
        for array in pixels:
            # past the end of the half
            array[count:] = array[count - 1]
        return dict(place)

    def _pixel_shapes(self, key: WindowKey) -> dict[str, tuple[int, ...]]:
        half, count = self.halves[key.half_index], self.shape.num_frames
        if not self.yuv:
            return {"frames": (count, half.height, half.width, 3)}
        return dict(zip(YUV, [(count, half.height, half.width), *[(count, *half.chroma_size)] * 2], strict=True))

    def available_frames(self, key: WindowKey) -> int:
        """Number of frames of a window within its half."""
        left = self.halves[key.half_index].num_frames - key.start
        return min(self.shape.num_frames, -(-left // self.halves.frame_step))

    def start_s(self, key: WindowKey) -> float:
        """Time of a window's first frame in its half."""
        return key.start / (self.halves.fps * self.halves.frame_step)

    def draw_starts(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """First frames, at the store's rate, of an epoch's windows of one half; always `windows_per_half` of them."""
        length, window = self.halves[index].num_frames, self.shape.num_frames * self.halves.frame_step
        if self.shape.sampling == "random":
            return random_starts(length, window, self.shape.windows_per_half, rng)
        if self.shape.sampling == "edges":
            return edge_starts(length, window, self.shape.windows_per_half, rng)
        if self.shape.sampling == "parts":
            return part_starts(length, window, self.shape.windows_per_half, rng)
        return disjoint_starts(length, window, rng, self.shape.windows_per_half)


@dataclass(frozen=True)
class TargetSettings:
    """How the events of a window are turned into targets.

    Attributes:
        label_radius_s: a frame within this time of an event carries its label.
        label_falloff_s: beyond the radius, the target falls from 1 to 0 in this time.
        steps_per_token: targets of each token, which divide its frames evenly.
        offset_radius_s: tokens within this time of an event get its displacement as a target; `None` for no such targets.
    """

    label_radius_s: float = 0.5
    label_falloff_s: float = 0.0
    steps_per_token: int = 1
    offset_radius_s: float | None = None


class WindowDataset(FrameWindows):
    """Windows with targets, for stage 3.

    Args:
        halves: with annotations.
        shape: sizes of the windows.
        settings: how the events are turned into targets.
        sound: add the spectrogram.
    """

    def __init__(self, halves: HalfDataset, shape: WindowShape, settings: TargetSettings, sound: bool = False):
        super().__init__(halves, shape)
        self.settings = settings
        self.sound = sound

    def __getitem__(self, key: WindowKey | int) -> dict[str, Tensor]:
        """Read one window.

        Returns:
            As [`FrameWindows`], with `labels` float32 `(num_tokens * steps_per_token, num_labels)`, -100 without footage,
            and, where tokens learn them, `offset_targets_s` float32 `(num_tokens, num_labels)`, NaN without footage or
            event; with `sound`, `sound` float32 `(num_tokens, mel_frames, NUM_MELS)`, NaN for a half without sound.
        """
        key = self.key_of(key)
        window = super().__getitem__(key) | {"labels": torch.from_numpy(self.targets(key))}
        if (radius_s := self.settings.offset_radius_s) is not None:
            window["offset_targets_s"] = torch.from_numpy(self.offset_targets_s(key, radius_s))
        if self.sound:
            window["sound"] = torch.from_numpy(self.sound_of(key))
        return window

    def sound_of(self, key: WindowKey) -> np.ndarray:
        """Spectrogram of each token of a window, see [`sound_of_tokens`]."""
        token_rate = self.halves.fps / self.shape.tubelet_size
        return sound_of_tokens(
            self.halves[key.half_index].sound(), self.shape.num_tokens, token_rate, self.start_s(key)
        )

    def targets(self, key: WindowKey) -> np.ndarray:
        """Targets of a window, float32 `(num_tokens * steps_per_token, num_labels)`; -100 where there is no footage."""
        settings, step_frames = self.settings, self.shape.tubelet_size // self.settings.steps_per_token
        targets = token_targets(
            *self._events(key),
            self.shape.num_frames // step_frames,
            len(self.halves.labels),
            self.halves.fps,
            step_frames,
            settings.label_radius_s,
            settings.label_falloff_s,
        )
        targets[-(-self.available_frames(key) // step_frames) :] = IGNORE_INDEX
        return targets

    def offset_targets_s(self, key: WindowKey, radius_s: float) -> np.ndarray:
        """Seconds from each token to the nearest event of each label, float32 `(num_tokens, num_labels)`, or NaN."""
        offsets_s = token_offsets_s(
            *self._events(key),
            self.shape.num_tokens,
            len(self.halves.labels),
            self.halves.fps,
            self.shape.tubelet_size,
            radius_s,
        )
        offsets_s[-(-self.available_frames(key) // self.shape.tubelet_size) :] = np.nan
        return offsets_s

    def _events(self, key: WindowKey) -> tuple[np.ndarray, np.ndarray]:
        """Times in seconds from the window's first frame, and label indices."""
        times_s, labels = self.halves.events(key.half_index)
        return times_s - self.start_s(key), labels


class ClipDataset(FrameWindows):
    """Every clip of one tubelet, without overlap, for stage 1; the grid starts elsewhere in each half and epoch.

    Args:
        halves: with or without annotations.
        tubelet_size: frames of a clip at the model's rate.
    """

    def __init__(self, halves: HalfDataset, tubelet_size: int):
        super().__init__(halves, WindowShape(tubelet_size, tubelet_size, windows_per_half=0, sampling="all"))

    def __len__(self) -> int:
        """Clips of an epoch."""
        return sum(map(self.clips_of, range(len(self.halves))))

    def clips_of(self, index: int) -> int:
        """Clips of one half: one fewer than fit if the offset of the grid needs the space."""
        clip = self.shape.num_frames * self.halves.frame_step
        return max((self.halves[index].num_frames - clip + 1) // clip, 1)

    def draw_starts(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """First frames, at the store's rate, of all clips of one half."""
        clip = self.shape.num_frames * self.halves.frame_step
        room = self.halves[index].num_frames - self.clips_of(index) * clip
        return rng.integers(min(max(room, 0), clip - 1) + 1) + clip * np.arange(self.clips_of(index))


class DistillationDataset(FrameWindows):
    """Windows with a teacher's features of each token's second, for stage 2.

    Args:
        halves: with or without annotations.
        shape: sizes of the windows.
        bank: features of the same halves.
        feature_dim: width that the features must have.

    Raises:
        InputError: the bank lacks a half, is too slow, too short or of another width.
    """

    def __init__(self, halves: HalfDataset, shape: WindowShape, bank: FeatureBank, feature_dim: int):
        super().__init__(halves, shape)
        self.features = [bank.open(row["video_id"], row["half"]) for row in halves.rows]
        for index, features in enumerate(self.features):
            features.check_source(Path(halves.rows[index]["video_path"]))
            token_rate = halves.fps / shape.tubelet_size
            features.check(token_rate=token_rate, duration_s=self.last_frame_s(index), dim=feature_dim)

    def __getitem__(self, key: WindowKey | int) -> dict[str, Tensor]:
        """Read one window: see [`FrameWindows`]; with `teacher_features` float32 `(num_tokens, dim)`."""
        key = self.key_of(key)
        features = self.features[key.half_index].at(self.token_times_s(key))
        return super().__getitem__(key) | {"teacher_features": torch.from_numpy(features)}

    def last_frame_s(self, index: int) -> float:
        """Time of a half's last frame: the time of a padded last token is not after it."""
        half = self.halves[index]
        return (half.num_frames - 1) / half.fps

    def token_times_s(self, key: WindowKey) -> np.ndarray:
        """Times of a window's tokens in its half, float64 `(num_tokens,)`; the last one repeats with the last frame."""
        times_s = token_timestamps_s(self.shape.num_tokens, self.halves.fps, self.shape.tubelet_size)
        last_token = -(-self.available_frames(key) // self.shape.tubelet_size) - 1
        times_s = self.start_s(key) + times_s[np.minimum(np.arange(len(times_s)), last_token)]
        return np.minimum(times_s, self.last_frame_s(key.half_index))


def collate_windows(windows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Make a batch of windows, also of halves whose frames differ in size.

    Returns:
        Each field of the windows stacked. Smaller frames are padded at the bottom and on the right to the largest, and
        `frame_sizes` int64 `(batch_size, 2)`, which is there only then, holds the height and width of each.
    """
    images = [name for name in ("frames", *YUV) if name in windows[0]]
    batch = default_collate([{name: window[name] for name in window if name not in images} for window in windows])
    for name in images:
        of_windows = [window[name] for window in windows]
        sizes = torch.tensor([pixels.shape[1:3] for pixels in of_windows])
        if (sizes != sizes[0]).any():
            channels = (0, 0) if name == "frames" else ()
            missing = (sizes.amax(dim=0) - sizes).tolist()
            of_windows = [
                F.pad(pixels, (*channels, 0, right, 0, bottom))
                for pixels, (bottom, right) in zip(of_windows, missing, strict=True)
            ]
            if name in ("frames", "y"):
                batch["frame_sizes"] = sizes
        batch[name] = _stacked(of_windows)
    return batch


def _stacked(images: list[Tensor]) -> Tensor:
    if get_worker_info() is not None:
        # into memory that is shared with the process that trains
        return default_collate(images)
    first = images[0]
    if all(
        image.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        and image.storage_offset() == first.storage_offset() + index * first.numel()
        and image.is_contiguous()
        for index, image in enumerate(images)
    ):
        # the rows of one tensor, in order: see `FrameWindows.with_places`
        return first.as_strided((len(images), *first.shape), (first.numel(), *first.stride()))
    return torch.stack(images, out=_room_for((len(images), *first.shape)))


def _room_for(shape: tuple[int, ...]) -> Tensor:
    """An empty uint8 tensor; NumPy asks Linux for large pages, without which most of the time goes into getting memory."""
    return torch.from_numpy(np.empty(shape, np.uint8))


def can_read_yuv(dataset: Dataset) -> bool:
    """Whether a data set has the switch `yuv`, and the `__getitem__` of this module: another one may use the RGB frames."""
    return isinstance(dataset, FrameWindows) and type(dataset).__getitem__.__module__ == __name__


class WindowSampler(Sampler[WindowKey]):
    """Draws an epoch's windows from `(seed, epoch)` alone, so a resumed run sees what an uninterrupted one would.

    Args:
        dataset: the windows.
        seed: of all epochs.
    """

    def __init__(self, dataset: FrameWindows, seed: int):
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
        starts = [self.dataset.draw_starts(index, rng).tolist() for index in range(len(self.dataset.halves))]
        seeds = iter(rng.integers(2**62, size=sum(map(len, starts))).tolist())
        keys = [WindowKey(index, start, next(seeds)) for index, of_half in enumerate(starts) for start in of_half]
        for number in rng.permutation(len(keys)).tolist():
            yield keys[number]

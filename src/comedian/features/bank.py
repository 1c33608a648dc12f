"""The feature bank: a teacher's features of every half, computed once, read by time.

A bank is a folder of `<video_id>/<half>.safetensors` files. Each holds the tensor `features` `(num_features, dim)`,
float16 or float32, and as metadata (text) the fields of `FeatureHeader`, `dim` and the format. Features are read by
time, not by index, so banks with different feature rates are interchangeable.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from comedian.errors import InputError
from comedian.files import atomic_write_tensors, existing
from comedian.models.time_grid_comedian import TIME_EPSILON_S
from comedian.sharing import SharedWork, is_main_process
from comedian.video.frame_store import same_source, source_of

FORMAT = "comedian-feature-bank-1"
DTYPES = ("float16", "float32")
# the ends of a video and of its features may differ by this much, or by one feature
EDGE_TOLERANCE_S = 1.0

_STORED_DTYPES = {"F16": "float16", "F32": "float32"}
_REMEDY = "delete it and rerun `comedian extract-features` or `comedian reduce-features`"


@dataclass(frozen=True, kw_only=True)
class FeatureHeader:
    """Description of the features of a half.

    Attributes:
        fps: features per second; feature `i` is at time `offset_s + i / fps`.
        offset_s: time of the first feature, in seconds from the first video frame.
        duration_s: duration of the video in seconds.
        source: how they were computed: the model and the length of its clips, or the kind of imported files.
        video: the video, as described by `frame_store.source_of`; empty if unknown.
        reduction: the applied standardisation and PCA, as a fingerprint and a description; empty for none.
    """

    fps: float
    offset_s: float
    duration_s: float
    source: str
    video: dict[str, Any]
    reduction: str = ""


@dataclass(frozen=True, kw_only=True)
class HalfFeatures(FeatureHeader):
    """The features of one half; each read opens the file, so an instance may be shared by threads and processes.

    Attributes:
        path: the file.
        num_features: number of features.
        dim: width of a feature.
        dtype: `float16` or `float32`, as stored.
    """

    path: Path
    num_features: int
    dim: int
    dtype: str

    @property
    def header(self) -> FeatureHeader:
        """The header given to `write_features`."""
        return FeatureHeader(**{name: getattr(self, name) for name in _HEADER_FIELDS})

    @property
    def last_s(self) -> float:
        """Time of the last feature, in seconds from the first video frame."""
        return self.offset_s + (self.num_features - 1) / self.fps

    @property
    def reach_s(self) -> float:
        """Maximum distance of a requested time before the first or after the last feature: one step of the bank, at
        least 1 s."""
        return max(1 / self.fps, EDGE_TOLERANCE_S)

    def read(self, start: int, count: int) -> np.ndarray:
        """Read only the features `start` to `start + count - 1` of the file.

        Returns:
            `np.ndarray` of shape `(count, dim)`, float32.

        Raises:
            IndexError: a feature is out of range.
            InputError: the file is damaged or missing, or a value is NaN or infinite.
        """
        if start < 0 or count < 0 or start + count > self.num_features:
            raise IndexError(f"features {start} to {start + count - 1} of {self.num_features} in `{self.path}`")
        try:
            with safe_open(self.path, framework="numpy") as file:
                features = file.get_slice("features")[start : start + count].astype(np.float32)
        except (OSError, SafetensorError) as error:
            raise InputError(f"`{self.path}` cannot be read: {error}; {_REMEDY}") from error
        if not (finite := np.isfinite(features).all(axis=1)).all():
            raise InputError(
                f"`{self.path}` has NaN or infinite values in feature {start + finite.argmin()}; {_REMEDY}"
            )
        return features

    def at(self, times_s: np.ndarray) -> np.ndarray:
        """Read the feature nearest in time to each of `times_s`; of two at equal distance, the earlier one.

        Args:
            times_s (`np.ndarray` of shape `(num_times,)`): seconds from the first video frame, in any order.

        Returns:
            `np.ndarray` of shape `(num_times, dim)`, float32.

        Raises:
            InputError: a time lies more than `reach_s` before the first feature or after the last.
        """
        times_s = np.asarray(times_s, dtype=np.float64)
        if len(times_s) == 0:
            return np.empty((0, self.dim), np.float32)
        slack_s = self.reach_s + TIME_EPSILON_S
        outside = times_s[~((self.offset_s - slack_s <= times_s) & (times_s <= self.last_s + slack_s))]
        if len(outside):
            raise InputError(
                f"`{self.path}` has no feature near {outside[0]:.2f} s; it covers {self.offset_s:.2f} s to "
                f"{self.last_s:.2f} s; extract the features of this video again"
            )
        # ties are always rounded down (`rint` could assign one feature to two tokens), regardless of rounding errors
        # of the times
        nearest = np.ceil((times_s - self.offset_s - TIME_EPSILON_S) * self.fps - 0.5).astype(np.int64)
        nearest = nearest.clip(0, self.num_features - 1)
        first = int(nearest.min())
        return self.read(first, int(nearest.max()) - first + 1)[nearest - first]

    def check_source(self, video: Path) -> None:
        """Check that the features were computed from a video, or imported from the published file beside it.

        Raises:
            InputError: they belong to another file.
        """
        # an imported file may have been deleted, unlike the video
        imported = self.video.get("name", "").endswith(".npy")
        file = video.with_name(self.video["name"]) if imported else video
        if (file.is_file() or not imported) and not same_source(self.video, source_of(file)):
            raise InputError(
                f"`{self.path}` contains features of another `{self.video['name']}` than `{file}`; {_REMEDY}"
            )

    def check(self, token_rate: float, duration_s: float, dim: int | None = None) -> None:
        """Check that each token of a half has its own feature; a higher feature rate is allowed.

        Args:
            token_rate: tokens per second.
            duration_s: seconds that the tokens cover.
            dim: width that a feature must have; any by default.

        Raises:
            InputError: the bank has less than one feature per token, lacks more than `reach_s` at an end of the half,
                or has another width.
        """
        if dim is not None and self.dim != dim:
            raise InputError(
                f"`{self.path}` has features with {self.dim} dimensions, required are {dim}; give a bank with {dim} "
                "dimensions"
            )
        if self.fps < token_rate * (1 - 1e-6):
            raise InputError(
                f"`{self.path}` has {self.fps:g} features per second for {token_rate:g} tokens per second, so two "
                f"tokens would share one; create a bank with at least {token_rate:g} features per second"
            )
        slack_s = self.reach_s + TIME_EPSILON_S
        if self.offset_s > slack_s or self.last_s + slack_s < duration_s:
            raise InputError(
                f"`{self.path}` covers {self.offset_s:.2f} s to {self.last_s:.2f} s of a half of {duration_s:.2f} s; "
                "extract the features of the whole video"
            )


_HEADER_FIELDS = [item.name for item in fields(FeatureHeader)]


class FeatureBank:
    """The halves of a feature bank.

    Args:
        path: the bank's folder.

    Attributes:
        path: the bank's folder.
        halves: sorted `(video_id, half)` pairs.

    Raises:
        InputError: `path` contains no features.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.halves = find_features(self.path)
        if not self.halves:
            raise InputError(f"`{path}` is not a feature bank; create one with `comedian extract-features ROOT BANK`")
        self._first: HalfFeatures | None = None

    @property
    def first(self) -> HalfFeatures:
        """The first half, which defines the width, rate, source and reduction of the bank."""
        if self._first is None:
            self._first = open_features(features_path(self.path, *self.halves[0]))
        return self._first

    def open(self, video_id: str, half: int) -> HalfFeatures:
        """Open one half; only its header is read.

        Raises:
            InputError: the bank does not contain the half, its file is damaged, or its features are of another kind.
        """
        path = features_path(self.path, video_id, half)
        if not path.is_file():
            raise InputError(
                f"feature bank `{self.path}` has no half {half} of `{video_id}`; run `comedian extract-features` again"
            )
        opened = open_features(path)
        for name in ("dim", "fps", "source", "reduction"):
            if getattr(opened, name) != getattr(self.first, name):
                raise InputError(
                    f"`{path}` has {name} {getattr(opened, name)!r}, `{self.first.path}` has "
                    f"{getattr(self.first, name)!r}; use one bank per kind of features"
                )
        return opened


def features_path(bank: str | Path, video_id: str, half: int) -> Path:
    """Return the path of a half's features in a bank."""
    return existing(bank, video_id) / f"{half}.safetensors"


def find_features(bank: Path) -> list[tuple[str, int]]:
    """Return the sorted `(video_id, half)` pairs in a folder; none where there is not a folder."""
    files = [path for path in bank.rglob("*.safetensors") if path.stem.isdecimal()]
    return sorted((path.parent.relative_to(bank).as_posix(), int(path.stem)) for path in files)


def write_features(path: str | Path, features: np.ndarray, header: FeatureHeader) -> None:
    """Write the features of a half atomically.

    Args:
        path: the file; missing folders are created.
        features (`np.ndarray` of shape `(num_features, dim)`): float16 or float32.
        header: their description.

    Raises:
        InputError: there are no features, or one is NaN or infinite.
        ValueError: another shape or dtype.
    """
    if features.ndim != 2 or features.dtype.name not in DTYPES:
        raise ValueError(f"features are {features.dtype} of shape {features.shape}; expected two axes, {DTYPES}")
    if features.size == 0:
        raise InputError(f"`{path}` would contain no features; check that the video is not empty")
    if not np.isfinite(features).all():
        raise InputError(f"`{path}` would contain NaN or infinite features; float16 is limited to 65504, try float32")
    metadata = {name: json.dumps(value) for name, value in asdict(header).items()}
    metadata |= {"format": FORMAT, "dim": str(features.shape[1])}
    atomic_write_tensors(path, {"features": np.ascontiguousarray(features)}, metadata)


def open_features(path: str | Path) -> HalfFeatures:
    """Open one file of features; only its header is read.

    Raises:
        InputError: the file cannot be read, is truncated or not a file of features.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata, stored = file.metadata() or {}, file.get_slice("features")
            shape, dtype = stored.get_shape(), _STORED_DTYPES[stored.get_dtype()]
        if metadata["format"] != FORMAT:
            raise ValueError(f"the format is {metadata['format']!r}, not {FORMAT!r}")
        header = FeatureHeader(**{name: json.loads(metadata[name]) for name in _HEADER_FIELDS})
        num_features, dim = shape
        numbers = (header.fps, header.offset_s, header.duration_s)
        if dim != int(metadata["dim"]) or num_features < 1 or not all(map(math.isfinite, numbers)) or header.fps <= 0:
            raise ValueError(
                f"{metadata['dim']} values at {header.fps} a second do not match a tensor of shape {shape}"
            )
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"`{path}` is not a file of features, or damaged ({error}); {_REMEDY}") from error
    return HalfFeatures(path=Path(path), num_features=num_features, dim=dim, dtype=dtype, **asdict(header))


@dataclass(frozen=True)
class FeatureJob:
    """One half to add to a bank.

    Attributes:
        video_id: the match.
        half: from 1.
        header: description of the features.
        compute: returns the features, `(num_features, dim)`, any float dtype.
    """

    video_id: str
    half: int
    header: FeatureHeader
    compute: Callable[[], np.ndarray]

    @property
    def key(self) -> tuple[str, int]:
        """Match and half."""
        return self.video_id, self.half


@dataclass
class FillReport:
    """Result of `fill_bank`, as `(video_id, half)` pairs.

    Attributes:
        done: halves written now.
        skipped: halves that existed already.
        elsewhere: halves that other processes wrote meanwhile.
    """

    done: list[tuple[str, int]] = field(default_factory=list)
    skipped: list[tuple[str, int]] = field(default_factory=list)
    elsewhere: list[tuple[str, int]] = field(default_factory=list)


def fill_bank(bank: str | Path, jobs: Sequence[FeatureJob], dtype: str, *, progress: bool = True) -> FillReport:
    """Compute and write the halves that a bank does not yet contain with the same header and dtype, the longest first.

    Any number of processes may fill one bank at the same time: they share the halves, and each returns when all are done
    (see [`SharedWork`]).

    Args:
        bank: the folder; created if missing.
        jobs: the halves, all of one kind.
        dtype: `float16` or `float32`.
        progress: show a bar.

    Raises:
        InputError: the bank contains features of another kind, or features cannot be made.
    """
    if dtype not in DTYPES:
        raise InputError(f"`dtype` is {dtype!r}; give {' or '.join(DTYPES)}")
    bank, report = Path(bank), FillReport()
    if jobs:
        _check_kind(bank, jobs[0].header)

    def path_of(job: FeatureJob) -> Path:
        return features_path(bank, job.video_id, job.half)

    longest_first = sorted(jobs, key=lambda job: -job.header.duration_s)
    with SharedWork(longest_first, path_of, lambda job: _is_fresh(path_of(job), job.header, dtype)) as work:
        report.skipped = sorted(job.key for job in work.there)
        for job in tqdm(work, total=len(work.pending), unit="half", disable=not (progress and is_main_process())):
            path = path_of(job)
            # delete the old features first: they must not be read if this run is interrupted
            path.unlink(missing_ok=True)
            with np.errstate(over="ignore"):  # write_features raises the error
                features = job.compute().astype(dtype)
            write_features(path, features, job.header)
            report.done.append(job.key)
        report.elsewhere = sorted(job.key for job in work.elsewhere)
    return report


def _check_kind(bank: Path, header: FeatureHeader) -> None:
    """Reject a bank whose first readable half has another source, rate or reduction."""
    for video_id, half in find_features(bank):
        try:
            found = open_features(features_path(bank, video_id, half))
        except InputError:
            continue
        for name in ("source", "fps", "reduction"):
            if getattr(found, name) != getattr(header, name):
                raise InputError(
                    f"`{bank}` contains features with {name} {getattr(found, name)!r}, requested is "
                    f"{getattr(header, name)!r}; give another folder"
                )
        return


def _is_fresh(path: Path, header: FeatureHeader, dtype: str) -> bool:
    try:
        found = open_features(path)
    except InputError:
        return False
    same = same_source(found.video, header.video) if found.video else not header.video
    return same and replace(found.header, video={}) == replace(header, video={}) and found.dtype == dtype

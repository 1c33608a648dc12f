"""Standardise the features of a bank and reduce them with a PCA, fitted on some of its matches only.

Source: COMEDIAN's teacher features, 2048 values -> standardise -> PCA of 512. The fit is exact and in one pass: count,
mean and covariance are merged half by half, so a bank may be larger than the memory.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from comedian.errors import InputError
from comedian.features.bank import FeatureBank, FeatureJob, FillReport, HalfFeatures, fill_bank
from comedian.files import atomic_write_tensors, comparable
from comedian.sharing import alone_at

FORMAT = "comedian-feature-reduction-1"
FILE_NAME = "reduction.safetensors"
ROWS_AT_ONCE = 2048

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reduction:
    """A standardisation and a PCA.

    Attributes:
        mean: float64 `(width,)`, of the features.
        scale: float64 `(width,)`: their standard deviation, 1 where they are constant.
        components: float64 `(dim, width)`: orthonormal rows, of falling variance; the entry of greatest size is positive.
        explained_variance: float64 `(dim,)`: variance of the standardised features along each component.
        source: how the features were computed.
        fitted_on: description of the data it was fitted on.
        fit: hash of the data it was fitted on.
    """

    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    explained_variance: np.ndarray
    source: str
    fitted_on: str
    fit: str

    @property
    def description(self) -> str:
        """A fingerprint and a description, for the headers of reduced features."""
        digest = hashlib.sha256()
        for array in (self.mean, self.scale, self.components):
            digest.update(np.ascontiguousarray(array).data)
        dim, width = self.components.shape
        return f"{digest.hexdigest()[:12]}: standardise + PCA {width} -> {dim}, fitted on {self.fitted_on}"

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Reduce features `(num_features, width)` to `(num_features, dim)`, float32."""
        standardised = ((features - self.mean) / self.scale).astype(np.float32)
        return standardised @ self.components.T.astype(np.float32)


def reduce_features(
    bank: str | Path,
    output: str | Path,
    dim: int,
    video_ids: Collection[str],
    *,
    dtype: str = "float16",
    progress: bool = True,
) -> FillReport:
    """Fit a reduction on some matches of a bank and write all its halves, reduced; resumes where it stopped.

    Of several processes one fits, and all share the writing; see [`fill_bank`].

    Args:
        bank: the bank's folder.
        output: the reduced bank's folder; created if missing. The reduction is saved in it as `reduction.safetensors`.
        dim: dimensions of the reduced features.
        video_ids: the matches to fit on: those of the train split.
        dtype: `float16` or `float32`.
        progress: show bars.

    Raises:
        InputError: none of the matches is in the bank, `dim` is greater than the width or the number of features, or
            `output` has another reduction.
    """
    found = _open_unreduced(bank, output)
    halves = _halves_of(found, video_ids)
    fit, path = _fit_hash(halves, dim), Path(output) / FILE_NAME
    if not path.exists():
        _check_dim(halves, dim)
        with alone_at(path):
            if not path.exists():
                save_reduction(path, fit_reduction(halves, dim, progress=progress))
    reduction = load_reduction(path)
    _check_same(reduction, fit, output)
    return _write_reduced(found, output, reduction, dtype, progress)


def apply_reduction(
    bank: str | Path, output: str | Path, transform: str | Path, *, dtype: str = "float16", progress: bool = True
) -> FillReport:
    """Apply the reduction of another bank, without fitting; resumes where it stopped.

    Args:
        bank: the bank's folder.
        output: the reduced bank's folder; created if missing.
        transform: the folder of the bank that `reduce_features` wrote.
        dtype: `float16` or `float32`.
        progress: show a bar.

    Raises:
        InputError: `transform` contains no reduction, or one for other features.
    """
    found, reduction = _open_unreduced(bank, output), load_reduction(Path(transform) / FILE_NAME)
    if (found.first.source, found.first.dim) != (reduction.source, reduction.components.shape[1]):
        raise InputError(
            f"`{transform}` reduces {reduction.components.shape[1]} values of {reduction.source}; `{bank}` holds "
            f"{found.first.dim} values of {found.first.source}; give a reduced bank of the same features"
        )
    path = Path(output) / FILE_NAME
    if path.exists():
        _check_same(load_reduction(path), reduction.fit, output)
    else:
        save_reduction(path, reduction)
    return _write_reduced(found, output, reduction, dtype, progress)


def fit_reduction(halves: Collection[HalfFeatures], dim: int, *, progress: bool = True) -> Reduction:
    """Fit a standardisation and a PCA in one pass over some halves.

    Raises:
        InputError: `dim` is below 1, or greater than the width or the number of features.
    """
    width, num_features = _check_dim(halves, dim)
    mean, covariance = mean_and_covariance(tqdm(_chunks(halves), unit="chunk", disable=not progress), width)
    scale = np.sqrt(covariance.diagonal())
    scale[scale == 0] = 1.0  # the sum of a chunk of equal float32 values is exact in float64, and so is its mean
    covariance /= scale[:, None]
    covariance /= scale
    variances, vectors = np.linalg.eigh(covariance)
    components = np.ascontiguousarray(vectors[:, ::-1][:, :dim].T)
    largest = np.abs(components).argmax(axis=1)
    components *= np.sign(components[np.arange(dim), largest])[:, None]
    return Reduction(
        mean=mean,
        scale=scale,
        components=components,
        explained_variance=np.maximum(variances[::-1][:dim], 0),
        source=next(iter(halves)).source,
        fitted_on=f"{num_features} features of {len(halves)} halves",
        fit=_fit_hash(halves, dim),
    )


def mean_and_covariance(chunks: Iterable[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the covariance (divided by the count) of all rows, in one pass.

    Each chunk is centred on its own mean and then merged, so a mean far from 0 does not reduce the precision (Chan,
    Golub & LeVeque, 1979).

    Args:
        chunks: arrays of shape `(num_rows, width)`, num_rows from 1.
        width: columns.

    Returns:
        float64 arrays of shape `(width,)` and `(width, width)`.
    """
    count, mean, scatter = 0, np.zeros(width), np.zeros((width, width))
    for chunk in chunks:
        rows = chunk.astype(np.float64)
        chunk_mean = rows.mean(axis=0)
        rows -= chunk_mean
        scatter += rows.T @ rows
        shift, total = chunk_mean - mean, count + len(rows)
        scatter += np.outer(shift, shift * (count * len(rows) / total))
        mean += shift * (len(rows) / total)
        count = total
    scatter /= count
    return mean, scatter


def save_reduction(path: Path, reduction: Reduction) -> None:
    """Write a reduction atomically."""
    tensors = {name: np.ascontiguousarray(getattr(reduction, name)) for name in _ARRAYS}
    words = {name: getattr(reduction, name) for name in _WORDS}
    atomic_write_tensors(path, tensors, words | {"format": FORMAT})


def load_reduction(path: Path) -> Reduction:
    """Read a reduction.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata["format"] != FORMAT:
                raise ValueError(f"the format is {metadata['format']!r}, not {FORMAT!r}")
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
            return Reduction(**arrays, **{name: metadata[name] for name in _WORDS})
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"`{path}` is not a reduction ({error}); create one with `comedian reduce-features`"
        ) from error


_ARRAYS = ("mean", "scale", "components", "explained_variance")
_WORDS = ("source", "fitted_on", "fit")


def _open_unreduced(bank: str | Path, output: str | Path) -> FeatureBank:
    if Path(bank).resolve() == Path(output).resolve():
        raise InputError(f"`{output}` is the bank to reduce; give another folder for the output")
    found = FeatureBank(bank)
    if found.first.reduction:
        raise InputError(f"`{bank}` is already reduced ({found.first.reduction}); give the original bank")
    return found


def _check_same(found: Reduction, fit: str, output: str | Path) -> None:
    if found.fit != fit:
        raise InputError(f"`{output}` has another reduction ({found.description}); give another folder")


def _check_dim(halves: Collection[HalfFeatures], dim: int) -> tuple[int, int]:
    """Return the width and the number of all features, from which `dim` components can be fitted; else `InputError`."""
    width, num_features = next(iter(halves)).dim, sum(half.num_features for half in halves)
    if not 1 <= dim <= min(width, num_features):
        raise InputError(
            f"a PCA of {dim} values cannot be fitted on {num_features} features of {width} values; "
            f"give a dim from 1 to {min(width, num_features)}"
        )
    return width, num_features


def _halves_of(bank: FeatureBank, video_ids: Collection[str]) -> list[HalfFeatures]:
    """Open the halves of some matches; missing matches are logged."""
    wanted, there = set(map(comparable, video_ids)), {comparable(video_id) for video_id, _ in bank.halves}
    halves = [bank.open(video_id, half) for video_id, half in bank.halves if comparable(video_id) in wanted]
    missing = sorted(wanted - there)
    if not halves:
        raise InputError(
            f"`{bank.path}` contains none of the {len(missing)} matches to fit on; extract their features"
        )
    if missing:
        logger.warning("`%s` lacks %d matches to fit on, such as `%s`", bank.path, len(missing), missing[0])
    return halves


def _fit_hash(halves: Collection[HalfFeatures], dim: int) -> str:
    """Hash the inputs of a fit; the headers of the halves identify their sources."""
    seen = [[half.source, half.reduction, half.video, half.num_features, half.dim, half.dtype] for half in halves]
    return hashlib.sha256(json.dumps([dim, seen]).encode()).hexdigest()


def _chunks(halves: Iterable[HalfFeatures]) -> Iterator[np.ndarray]:
    for half in halves:
        for start in range(0, half.num_features, ROWS_AT_ONCE):
            yield half.read(start, min(ROWS_AT_ONCE, half.num_features - start))


def _write_reduced(
    bank: FeatureBank, output: str | Path, reduction: Reduction, dtype: str, progress: bool
) -> FillReport:
    jobs = []
    for video_id, index in bank.halves:
        half = bank.open(video_id, index)
        header = replace(half.header, reduction=reduction.description)
        jobs.append(FeatureJob(video_id, index, header, partial(_reduce_half, half, reduction)))
    return fill_bank(output, jobs, dtype, progress=progress)


def _reduce_half(half: HalfFeatures, reduction: Reduction) -> np.ndarray:
    return np.concatenate([reduction(chunk) for chunk in _chunks([half])])

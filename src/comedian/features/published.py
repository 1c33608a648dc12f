"""Import SoccerNet's published features, one `.npy` a half in the match folders, into a feature bank."""

import logging
import tokenize
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from comedian.errors import InputError, suggest
from comedian.features.bank import FeatureHeader, FeatureJob, FillReport, fill_bank
from comedian.soccernet.layout import MAX_HALVES, PUBLISHED, find_halves, find_matches
from comedian.video.decoding import probe
from comedian.video.frame_store import source_of

logger = logging.getLogger(__name__)


def import_features(
    root: str | Path,
    bank: str | Path,
    kind: str,
    *,
    video_ids: Sequence[str] | None = None,
    dtype: str = "float16",
    progress: bool = True,
) -> FillReport:
    """Import one kind of published features for all matches that have them; halves already in the bank are skipped.

    Args:
        root: the data set's folder, in SoccerNet's layout.
        bank: the bank's folder; created if missing.
        kind: a key of `PUBLISHED`.
        video_ids: only these matches, see `matches_of_splits`; all by default.
        dtype: `float16` or `float32`.
        progress: show a bar.

    Raises:
        InputError: there are no such files, one cannot be read or contains NaN or infinite values, or the bank
            contains features of another kind.
    """
    root = Path(root)
    jobs = []
    for video_id in find_matches(root) if video_ids is None else video_ids:
        found = find_published(root / video_id, kind)
        if not found:
            logger.warning("`%s` has no *_%s: skipped", root / video_id, PUBLISHED[kind].suffix)
        videos = find_halves(root / video_id) if found else {}
        for half, path in found.items():
            header = _header(path, kind, videos.get(half))
            jobs.append(FeatureJob(video_id, half, header, partial(_read_checked, path)))
    if not jobs:
        raise InputError(
            f"no match under `{root}` has a file such as `1_{PUBLISHED[kind].suffix}`; download them first"
        )
    return fill_bank(bank, jobs, dtype, progress=progress)


def find_published(match_dir: Path, kind: str) -> dict[int, Path]:
    """Return half -> file of published features in a match folder.

    Raises:
        InputError: unknown kind.
    """
    if kind not in PUBLISHED:
        raise InputError(f"unknown published features `{kind}`; {suggest(kind, PUBLISHED)}")
    ending = f"_{PUBLISHED[kind].suffix}"
    named = ((half, match_dir / f"{half}{ending}") for half in range(1, MAX_HALVES + 1))
    return {half: path for half, path in named if path.is_file()}


def _header(path: Path, kind: str, video: Path | None) -> FeatureHeader:
    """Return the header of a file; without a video in the folder, the duration is computed from the number of features."""
    published = PUBLISHED[kind]
    return FeatureHeader(
        fps=published.fps,
        offset_s=published.offset_s,
        duration_s=probe(video).duration_s if video else len(_open_array(path)) / published.fps,
        source=f"SoccerNet {published.suffix}",
        video=source_of(path),
    )


def _open_array(path: Path) -> np.ndarray:
    """Map the `(num_features, dim)` array of a file into memory."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    # exceptions of NumPy's header parser, which parses Python literals without executing them
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, tokenize.TokenError, RecursionError) as error:
        raise InputError(f"`{path}` cannot be read as a NumPy array: {error}; download it again") from error
    if array.ndim != 2 or array.dtype.kind != "f" or array.size == 0:
        raise InputError(
            f"`{path}` contains {array.dtype} of shape {array.shape}, expected floats (num_features, dim); download "
            "it again"
        )
    return array


def _read_checked(path: Path) -> np.ndarray:
    array = np.asarray(_open_array(path))
    if not (finite := np.isfinite(array).all(axis=1)).all():
        raise InputError(
            f"`{path}` contains NaN or infinite values in feature {int(finite.argmin())}; download it again"
        )
    return array

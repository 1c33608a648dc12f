"""SoccerNet's folder layout: which folders are matches, which of their files are videos, labels, predictions and features.

A match is a folder, `<league>/<season>/<match>` in SoccerNet, any depth elsewhere. It holds one video a half
(`1_224p.mkv`, `2_224p.mkv`) or, in ball action spotting, one video in all (`224p.mp4`), and a label file unless its
labels are not public.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comedian.errors import CONTROL, InputError
from comedian.files import walk

# In a match with several, the first of these is read.
LABEL_FILE_NAMES = ("Labels-v2.json", "Labels-ball.json", "Labels.json")


RESULTS_FILE_NAME = "results_spotting.json"


VIDEO_SUFFIXES = frozenset((".mkv", ".mp4", ".avi", ".mov", ".m4v", ".webm", ".ts", ".mpg", ".mpeg"))


MAX_HALVES = 99


_HALF_VIDEO = re.compile(r"([1-9][0-9]?)(?:_(.+))?")  # 1, 1_224p, 2_HQ


_WHOLE_VIDEO = re.compile(r"[0-9]+p|HQ")  # 224p: ball action spotting


def find_matches(root: str | Path) -> list[str]:
    """Return the folders under `root`, at any depth, that hold a label file or a half's video.

    They are relative to `root`, with forward slashes, sorted. Links are followed; hidden folders are skipped.

    Raises:
        InputError: `root` is not a folder, or a match's name has control characters.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"`{root}` is not a folder; give the folder that holds the matches")
    matches = sorted(
        folder.relative_to(root).as_posix()
        for folder, file_names in walk(root)
        if any(name in LABEL_FILE_NAMES or _half_and_quality(name) for name in file_names)
    )
    if odd := next(filter(CONTROL.search, matches), None):
        raise InputError(f"`{root}` has a match `{odd}`, with control characters in its name; rename it")
    return matches


def find_videos(folder: Path) -> list[Path]:
    """Return the videos of a folder, at any depth, by their endings; hidden files and folders are passed over."""
    return sorted(
        directory / name
        for directory, names in walk(folder)
        for name in names
        if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")
    )


def find_label_file(match_dir: str | Path, name: str | None = None) -> Path | None:
    """Return a match's label file, or None for a match without labels.

    Args:
        match_dir: the match's folder.
        name: the file's name; None takes the first of `LABEL_FILE_NAMES` that exists.
    """
    candidates = (Path(match_dir) / candidate for candidate in ((name,) if name else LABEL_FILE_NAMES))
    return next((path for path in candidates if path.is_file()), None)


def match_of_videos(videos: Sequence[str | Path]) -> tuple[str, dict[int, Path]]:
    """Return the name of the match of some videos, and half -> video.

    Videos in one folder with SoccerNet's names of halves (`1_224p.mkv`, `2_HQ.mkv`, `224p.mp4`) belong to the match of
    that folder, and their names determine the halves. Others are halves 1, 2, ... of a match named after the first video.

    Raises:
        InputError: two videos belong to the same half.
    """
    paths = [Path(os.path.abspath(video)) for video in videos]
    if not are_named_halves(videos):
        return paths[0].stem, dict(enumerate(map(Path, videos), 1))
    found = [part for path in paths if (part := _half_and_quality(path.name)) is not None]
    halves: dict[int, Path] = {}
    for (half, _), video in zip(found, videos, strict=True):
        if half in halves:
            raise InputError(f"`{halves[half]}` and `{video}` are both half {half} of a match; give one of them")
        halves[half] = Path(video)
    return paths[0].parent.name, halves


def are_named_halves(videos: Sequence[str | Path]) -> bool:
    """Whether videos lie in one folder and are named as SoccerNet names halves: `1_224p.mkv`, `2_HQ.mkv`, `224p.mp4`."""
    paths = [Path(os.path.abspath(video)) for video in videos]
    found = [_half_and_quality(path.name) for path in paths]
    is_soccernet = all(half and _WHOLE_VIDEO.fullmatch(half[1]) for half in found)
    return is_soccernet and len({path.parent for path in paths}) == 1 and bool(paths[0].parent.name)


def find_halves(match_dir: str | Path, quality: str | None = None) -> dict[int, Path]:
    """Return half -> video of a match, by half; empty for a match without videos.

    Args:
        match_dir: the match's folder, with `1_224p.mkv`, `2_224p.mkv` or `1.mp4` a half, or `224p.mp4` for half 1.
        quality: which of several files per half to use, such as `720p`; None takes the smallest picture size.

    Raises:
        InputError: a half has no video of that quality, or several that are ambiguous.
    """
    videos: dict[int, list[tuple[str, Path]]] = {}
    for path in sorted(Path(match_dir).iterdir()):
        if (found := _half_and_quality(path.name)) and path.is_file():
            videos.setdefault(found[0], []).append((found[1], path))
    return {half: _choose_video(half, videos[half], quality, match_dir) for half in sorted(videos)}


def _half_and_quality(file_name: str) -> tuple[int, str] | None:
    """Return half and quality from the name of a half's video, such as (1, "224p"), or None for any other file."""
    stem, suffix = os.path.splitext(file_name)
    if suffix.lower() not in VIDEO_SUFFIXES:
        return None
    if _WHOLE_VIDEO.fullmatch(stem):
        return 1, stem
    match = _HALF_VIDEO.fullmatch(stem)
    return (int(match[1]), match[2] or "") if match else None


def _choose_video(half: int, videos: list[tuple[str, Path]], quality: str | None, match_dir: str | Path) -> Path:
    names = ", ".join(path.name for _, path in videos)
    if quality is not None:
        chosen = [path for found, path in videos if found == quality]
        if not chosen:
            raise InputError(f"`{match_dir}` has no video of quality {quality!r} for half {half}, only {names}")
    else:
        smallest = min(_picture_height(found) for found, _ in videos)
        chosen = [path for found, path in videos if _picture_height(found) == smallest]
    if len(chosen) > 1:
        raise InputError(f"`{match_dir}` has several videos for half {half}: {names}; keep one or choose a `quality`")
    return chosen[0]


def _picture_height(quality: str) -> float:
    """Return the height of a quality such as `224p`; others, such as `HQ`, count as full size."""
    return int(quality[:-1]) if re.fullmatch(r"[0-9]+p", quality) else math.inf


@dataclass(frozen=True)
class PublishedFeatures:
    """One kind of published features.

    Attributes:
        suffix: the file's name after `<half>_`.
        fps: features per second.
        offset_s: time of the first feature, in seconds.
    """

    suffix: str
    fps: float
    offset_s: float


PUBLISHED = {
    # feature i is computed on second [i, i + 1); its time is the middle
    "baidu": PublishedFeatures("baidu_soccer_embeddings.npy", 1.0, 0.5),
    # feature i is computed on the frame at i / 2 s
    "resnet-pca512": PublishedFeatures("ResNET_TF2_PCA512.npy", 2.0, 0.0),
    "resnet": PublishedFeatures("ResNET_TF2.npy", 2.0, 0.0),
}

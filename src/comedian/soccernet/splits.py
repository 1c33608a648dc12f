"""Splits of a folder of matches: `splits.json`, folders named as splits, or the lists in the `SoccerNet` package."""

import logging
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from comedian.errors import InputError
from comedian.files import comparable, existing, read_json
from comedian.soccernet.layout import find_matches

logger = logging.getLogger(__name__)

SPLITS_FILE_NAME = "splits.json"


# Names of splits in files and folders -> names in `datasets`.
SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "challenge": "challenge",
}
SOCCERNET_LEAGUES = frozenset(
    (
        "england_efl",  # ball action spotting
        "england_epl",
        "europe_uefa-champions-league",
        "france_ligue-1",
        "germany_bundesliga",
        "italy_serie-a",
        "spain_laliga",
    )
)


def split_name(name: str) -> str:
    """Return the name in `datasets` of the split `name`, in any case; other names are unchanged."""
    return SPLIT_NAMES.get(name.lower(), name)


def official_splits(label_file: str | None = None) -> dict[str, str]:
    """Return match -> split.

    Args:
        label_file: `Labels-v2.json` or `Labels-ball.json`, which determines the task; None takes the matches of both.

    Raises:
        InputError: the package is not installed.
    """
    try:
        from SoccerNet.utils import getListGames
    except ImportError as error:
        raise InputError(
            "the official splits are in the package `SoccerNet`: `pip install SoccerNet`, or write a `splits.json`"
        ) from error
    # The two tasks share no match; a folder may contain both, and then the name of the label file selects the task.
    tasks = {"Labels-v2.json": ["spotting"], "Labels-ball.json": ["spotting-ball"]}
    return {
        comparable(Path(game).as_posix()): SPLIT_NAMES[split]
        for task in tasks.get(label_file or "", ["spotting", "spotting-ball"])
        for split in ("train", "valid", "test", "challenge")
        for game in getListGames(split, task)
    }


def find_splits(root: Path, splits: str = "auto", label_file: str | None = None) -> dict[str, list[str]]:
    """Return split -> match folders relative to `root`; see `SoccerNetConfig.splits` for their source.

    Raises:
        InputError: `root` is not a folder, the split file is malformed or names a missing match, or SoccerNet's own
            lists are needed and not installed.
    """
    if splits != "auto":
        return _splits_of_file(root, Path(splits))
    if (root / SPLITS_FILE_NAME).is_file():
        return _splits_of_file(root, root / SPLITS_FILE_NAME)
    video_ids = find_matches(root)
    if any((root / folder).is_dir() for folder in SPLIT_NAMES):
        splits_of_folders = ((SPLIT_NAMES.get(video_id.split("/")[0]), video_id) for video_id in video_ids)
        return _group(splits_of_folders, root, "not in a split folder")
    if any(video_id.split("/")[0] in SOCCERNET_LEAGUES for video_id in video_ids):
        official = official_splits(label_file)
        return _group(
            ((official.get(comparable(video_id)), video_id) for video_id in video_ids),
            root,
            "in none of SoccerNet's lists",
        )
    return {"train": video_ids}


def matches_of_splits(root: Path, names: Sequence[str] | None = None, splits: str = "auto") -> list[str]:
    """Return the match folders of the named splits, relative to `root`; all matches if none is given.

    See `SoccerNetConfig.splits` for `splits`, the source of the splits.

    Raises:
        InputError: `root` is not a folder, or does not have the split.
    """
    if not names:
        return find_matches(root)
    found = find_splits(root, splits)
    names = [split_name(name) for name in names]
    for name in names:
        if name not in found:
            raise InputError(f"`{root}` has no split {name!r}; it has {', '.join(found)}")
    return [video_id for name in dict.fromkeys(names) for video_id in found[name]]


def _splits_of_file(root: Path, path: Path) -> dict[str, list[str]]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(names, list) for names in content.values()):
        raise InputError(f"`{path}` must contain one object, split -> list of match folders")
    splits: dict[str, list[str]] = {}
    listed = set()
    for name, folders in content.items():
        split = split_name(name)
        if not re.fullmatch(r"\w+", split):
            raise InputError(
                f"`{path}`: {name!r} is not a valid name of a split; use train, validation, test or challenge"
            )
        for folder in folders:
            match_dir = existing(root, str(folder))
            video_id = match_dir.relative_to(root).as_posix()
            if not match_dir.is_dir():
                raise InputError(f"`{path}` lists {folder!r} in {name}, and there is not a folder `{match_dir}`")
            if video_id in listed:
                raise InputError(f"`{path}` lists {folder!r} more than once")
            listed.add(video_id)
            splits.setdefault(split, []).append(video_id)
    return splits


def _group(splits_of_matches: Iterable[tuple[str | None, str]], root: Path, where: str) -> dict[str, list[str]]:
    """Collect matches by split, in the usual order of splits; those without one are skipped and logged."""
    splits: dict[str, list[str]] = {split: [] for split in SPLIT_NAMES.values()}
    left_out: list[str] = []
    for split, video_id in splits_of_matches:
        (left_out if split is None else splits.setdefault(split, [])).append(video_id)
    if left_out:
        warn_once(f"`{root}`: {len(left_out)} matches omitted ({where}), such as `{left_out[0]}`")
    return splits


@cache
def warn_once(message: str) -> None:
    """Log a warning once, although the folder is read several times for one builder."""
    logger.warning(message)

"""SoccerNet's official splits, as the lists in the `SoccerNet` package have them."""

from pathlib import Path

from comedian.errors import InputError
from comedian.files import comparable

SPLITS_FILE_NAME = "splits.json"
# What splits are called in files and folders -> what `datasets` calls them.
SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "challenge": "challenge",
}


def split_name(name: str) -> str:
    """Return what `datasets` calls a split that a file, a folder or a person calls `name`, in any case; other names stay."""
    return SPLIT_NAMES.get(name.lower(), name)


def official_splits(label_file: str | None = None) -> dict[str, str]:
    """Return match -> split.

    Args:
        label_file: `Labels-v2.json` or `Labels-ball.json`, which tells the task; None takes the matches of both.

    Raises:
        InputError: the package is not installed.
    """
    try:
        from SoccerNet.utils import getListGames
    except ImportError as error:
        raise InputError(
            "the official splits are in the package `SoccerNet`: `pip install SoccerNet`, or write a `splits.json`"
        ) from error
    # The two tasks share no match; a folder may hold both, and then the label file's name tells which is meant.
    tasks = {"Labels-v2.json": ["spotting"], "Labels-ball.json": ["spotting-ball"]}
    return {
        comparable(Path(game).as_posix()): SPLIT_NAMES[split]
        for task in tasks.get(label_file, ["spotting", "spotting-ball"])
        for split in ("train", "valid", "test", "challenge")
        for game in getListGames(split, task)
    }

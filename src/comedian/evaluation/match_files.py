"""The files of an evaluation: labels and predictions of matches, in a folder or a zip of SoccerNet's layout."""

from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from comedian.errors import InputError
from comedian.files import comparable, read_json
from comedian.soccernet.annotations import parse_events
from comedian.soccernet.json_tree import JsonTree
from comedian.soccernet.layout import LABEL_FILE_NAMES, RESULTS_FILE_NAME
from comedian.soccernet.splits import SPLITS_FILE_NAME, split_name


def find_folder(match: str, folders: Iterable[str], root: Path) -> str | None:
    """Return which of the folders is the match's: both may lie under a top folder; None where there is none.

    Args:
        match: its folder.
        folders: where to look, in the form in which names are compared.
        root: what they are in, for messages.

    Raises:
        InputError: it may be several.
    """
    match, folders = comparable(match), list(folders)
    if match in folders:
        return match
    found = [folder for folder in folders if _is_same(folder, match)]
    if len(found) > 1:
        raise InputError(f"`{root}`: match `{match}` may be any of {', '.join(found)}; leave one of them")
    return found[0] if found else None


def _is_same(folder: str, match: str) -> bool:
    """Whether one is the other, or is it under a top folder."""
    return f"/{folder}".endswith(f"/{match}") or f"/{match}".endswith(f"/{folder}")


class MatchFile(NamedTuple):
    """A match's labels or predictions: a JSON file of a folder or a zip; as text, its name for messages."""

    tree: JsonTree
    path: PurePosixPath

    def __str__(self) -> str:
        return f"`{self.tree.root}/{self.path}`"

    def read_events(self, key: str) -> list:
        """Return the list under `key`, as it is in the file.

        Raises:
            InputError: the file cannot be read, holds no such list, or an event of it makes no sense. The official scorer
                takes some of those for something else: a time before 0 for one at the end, a score of NaN for none.
        """
        content = self.tree.read(self.path)
        parse_events(content, key, str(self))
        return content[key]


def find_label_files(root: Path, split: str | None = None, splits_path: Path | None = None) -> dict[str, MatchFile]:
    """Find the label file of each match: the first of `LABEL_FILE_NAMES` that it has, or else its only `Labels*.json`.

    Args:
        root: a folder or a zip in SoccerNet's layout.
        split: only the matches of this split; None takes all of `root`.
        splits_path: says which matches a split has; None takes the `splits.json` of `root`.

    Returns:
        Match -> label file.

    Raises:
        InputError: `root` is neither folder nor zip, or labels or the split are not found or may be several.
    """
    tree = JsonTree(root)
    files = {}
    for folder, names in tree.folders.items():
        labels = [name for name in names if fnmatch(name, "Labels*.json")]
        known = [name for name in LABEL_FILE_NAMES if name in labels] or labels
        if known and known[0] not in LABEL_FILE_NAMES and len(known) > 1:
            where = f"`{root}`" if folder == "." else f"`{root}/{folder}`"
            raise InputError(f"{where} holds {', '.join(known)}; rename the labels to score {LABEL_FILE_NAMES[0]}")
        if known:
            files[folder] = MatchFile(tree, PurePosixPath(folder, known[0]))
    if not files:
        raise InputError(f"`{tree.root}` holds no {LABEL_FILE_NAMES[0]}; give the folder or zip above the matches")
    if split is None:
        return files
    matches = _matches_of_split(tree, split, splits_path)
    folders = {match: find_folder(match, files, tree.root) for match in matches}
    for match, folder in folders.items():
        if folder is None:
            raise InputError(
                f"`{tree.root}` has no {LABEL_FILE_NAMES[0]} for match `{match}` of the split `{split}`; add it"
            )
    return {match: files[folder] for match, folder in folders.items()}


def mixed_names(files: Iterable[MatchFile]) -> str | None:
    """Return how many matches are read from which file name, in words; None where all files have one name."""
    counts = Counter(file.path.name for file in files)
    if len(counts) < 2:
        return None
    return ", ".join(f"{count} from {name}" for name, count in sorted(counts.items()))


def _matches_of_split(tree: JsonTree, split: str, splits_path: Path | None) -> list[str]:
    """Return the match folders of a split; "val", "valid" and "validation" are one."""
    if splits_path:
        source, splits = f"`{splits_path}`", read_json(splits_path)
    else:
        folders = [folder for folder, names in tree.folders.items() if SPLITS_FILE_NAME in names]
        if not folders:
            raise InputError(f"`{tree.root}` holds no {SPLITS_FILE_NAME}; give one with --splits FILE")
        file = MatchFile(tree, PurePosixPath(min(folders, key=len), SPLITS_FILE_NAME))  # the outermost
        source, splits = str(file), tree.read(file.path)
    if not isinstance(splits, dict):
        raise InputError(f'{source} is no splits file; write {{"train": [...], "validation": [...], "test": [...]}}')
    lists = [listed for name, listed in splits.items() if split_name(name) == split_name(split)]
    matches = [match for listed in lists if isinstance(listed, list) for match in listed]
    if not matches or not all(isinstance(match, str) for match in matches):
        raise InputError(
            f"{source} lists no matches for the split `{split}`; it has {', '.join(splits) or 'no split'}"
        )
    return list(dict.fromkeys(comparable(PurePosixPath(match).as_posix()) for match in matches))


def find_prediction_files(root: Path, matches: Iterable[str]) -> list[MatchFile]:
    """Find the prediction file of each match, in the order of `matches`.

    Args:
        root: a folder or a zip in SoccerNet's layout.
        matches: as the keys of [`find_label_files`].

    Raises:
        InputError: `root` is neither folder nor zip, or a match's predictions are not found or may be several.
    """
    tree = JsonTree(root)
    owners, files = {}, []
    for match in matches:
        folder = find_folder(match, tree.folders, tree.root)
        if folder is None:
            raise InputError(
                f"`{tree.root}` has no predictions for match `{match}`; add {match}/{RESULTS_FILE_NAME}, "
                "or leave the match out with --split"
            )
        if owners.setdefault(folder, match) != match:
            raise InputError(
                f"`{tree.root}/{folder}` fits `{owners[folder]}` and `{match}`; give both their full folders"
            )
        names = tree.folders[folder]
        if len(names) > 1 and RESULTS_FILE_NAME not in names:
            raise InputError(
                f"`{tree.root}/{folder}` holds {', '.join(names)}; name the predictions {RESULTS_FILE_NAME}"
            )
        name = RESULTS_FILE_NAME if RESULTS_FILE_NAME in names else names[0]
        files.append(MatchFile(tree, PurePosixPath(folder, name)))
    return files


def matches_without_labels(root: Path, labelled: Iterable[str]) -> list[str]:
    """Return the matches of `root` that have a `results_spotting.json` and none of the labels; sorted."""
    labelled = list(labelled)
    predicted = [folder for folder, names in JsonTree(root).folders.items() if RESULTS_FILE_NAME in names]
    return sorted(folder for folder in predicted if not any(_is_same(folder, match) for match in labelled))

"""Score predictions with the official SoccerNet average-mAP.

LABELS and PREDICTIONS are each a folder or a zip in SoccerNet's layout, one folder a match: `Labels-v2.json` in the one,
`results_spotting.json` in the other; a single file of another name is found too. A zip may hold its matches under a top
folder. The terminal shows percent, the JSON of `--output` fractions.
"""

import argparse
import glob
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from comedian.data.annotations import (
    LABEL_FILE_NAMES,
    NOT_SHOWN,
    RESULTS_FILE_NAME,
    SOCCERNET_V2_LABELS,
    read_label_list,
)
from comedian.errors import InputError
from comedian.files import atomic_write_text, read_json

# Spelled out, because importing the metric takes seconds that `--help` should not.
METRIC_NAMES = ("tight", "loose", "at1", "at2", "at3", "at4", "at5")
SPLITS_FILE_NAME = "splits.json"
SPLIT_SYNONYMS = {"valid": "validation", "validation": "valid"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words of `comedian evaluate`."""
    parser.add_argument("labels_root", metavar="LABELS", type=Path, help="folder or zip with the label files")
    parser.add_argument("predictions_root", metavar="PREDICTIONS", type=Path, help="folder or zip with predictions")
    parser.add_argument(
        "--metric",
        nargs="+",
        choices=METRIC_NAMES,
        default=["tight", "loose"],
        help=f"of {', '.join(METRIC_NAMES)}; default: tight loose",
        metavar="NAME",
    )
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the scores as JSON")
    parser.add_argument("--labels", metavar="FILE", type=Path, help="one label a line; default: SoccerNet-v2's 17")
    parser.add_argument("--framerate", type=int, default=2, help="frames per second of the time grid; default: 2")
    parser.add_argument("--split", metavar="NAME", help="score only this split; default: every match with labels")
    parser.add_argument(
        "--splits", metavar="FILE", type=Path, help="splits and their matches; default: LABELS/splits.json"
    )


def run(args: argparse.Namespace) -> None:
    """Score, write the JSON and print the table."""
    if args.framerate < 1:
        raise InputError(f"--framerate {args.framerate}: give a whole number of frames per second, 1 or more")
    if args.splits and not args.split:
        raise InputError(f"--splits {args.splits}: say with --split NAME which of its splits to score")
    labels = read_label_list(args.labels) if args.labels else SOCCERNET_V2_LABELS
    label_files = _label_files(_Tree(args.labels_root), args.split, args.splits)
    prediction_files = _prediction_files(_Tree(args.predictions_root), label_files)
    references = [file.read_events("annotations") for file in label_files.values()]
    predictions = [file.read_events("predictions") for file in prediction_files]

    from comedian.evaluation.soccernet_average_map.soccernet_average_map import MalformedEventError, average_map

    try:
        scores = average_map(references, predictions, labels, framerate=args.framerate, metrics=args.metric)
    except MalformedEventError as error:
        files = list(label_files.values()) if error.kind == "references" else prediction_files
        raise InputError(
            f"{files[error.match]}, event {error.event + 1}: {error.reason}; mend or remove it"
        ) from error
    if args.output:
        try:
            atomic_write_text(args.output, json.dumps(scores, indent=2) + "\n")
        except OSError as error:
            raise InputError(f"--output {args.output}: {error.strerror}; name a file that can be written") from error
    print(f"{len(references)} matches at {args.framerate} frames per second; percent\n")
    print("\n".join(_table_lines(references, predictions, labels, scores)))


class _Tree:
    """The JSON files of a folder or a zip, read in place.

    Attributes:
        root: the folder or zip.
        folders: folder relative to the root, with forward slashes -> names of its JSON files.
    """

    def __init__(self, root: Path):
        self.root = root
        self._archive = None
        if root.is_dir():
            members = glob.glob("**/*.json", root_dir=root, recursive=True)
        elif zipfile.is_zipfile(root):
            self._archive = zipfile.ZipFile(root)
            members = self._archive.namelist()
        else:
            found = "is neither a folder nor a zip" if root.exists() else "does not exist"
            raise InputError(f"`{root}` {found}; give a folder or a zip in SoccerNet's layout")
        paths = {PurePosixPath(Path(member).as_posix()): member for member in sorted(members)}
        # A zip made on a Mac holds a hidden twin of each file.
        self._members = {p: m for p, m in paths.items() if p.suffix == ".json" and not p.name.startswith(".")}
        self.folders: dict[str, list[str]] = {}
        for path in self._members:
            self.folders.setdefault(path.parent.as_posix(), []).append(path.name)

    def find(self, match: str, folders: Iterable[str]) -> str | None:
        """Return which of the folders is the match's: both may lie under a top folder; None where there is none."""
        if match in folders:
            return match
        found = [folder for folder in folders if folder.endswith(f"/{match}") or match.endswith(f"/{folder}")]
        if len(found) > 1:
            raise InputError(f"`{self.root}`: match `{match}` may be any of {', '.join(found)}; leave one of them")
        return found[0] if found else None

    def read(self, path: PurePosixPath) -> Any:
        """Return the content of a JSON file."""
        if self._archive is None:
            return read_json(self.root / path)
        try:
            return json.loads(self._archive.read(self._members[path]).decode("utf-8-sig"))
        except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:  # RuntimeError: encrypted
            raise InputError(f"`{self.root}/{path}` cannot be read as JSON: {error}") from error


class _File(NamedTuple):
    """A JSON file of a tree."""

    tree: _Tree
    path: PurePosixPath

    def __str__(self) -> str:
        return f"`{self.tree.root}/{self.path}`"

    def read_events(self, key: str) -> list:
        """Return the list under `key`."""
        content = self.tree.read(self.path)
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f'{self} holds no list "{key}"; give a file in SoccerNet\'s format')
        return content[key]


def _label_files(tree: _Tree, split: str | None, splits_path: Path | None) -> dict[str, _File]:
    """Return match -> label file, of the split or of the whole tree; all label files have the same name."""
    names = {name for names in tree.folders.values() for name in names if fnmatch(name, "Labels*.json")}
    known = [name for name in LABEL_FILE_NAMES if name in names] or sorted(names)
    if not known:
        raise InputError(f"`{tree.root}` holds no {LABEL_FILE_NAMES[0]}; give the folder or zip above the matches")
    if known[0] not in LABEL_FILE_NAMES and len(known) > 1:
        raise InputError(f"`{tree.root}` holds {', '.join(known)}; rename the labels to score {LABEL_FILE_NAMES[0]}")
    files = {
        folder: _File(tree, PurePosixPath(folder, known[0]))
        for folder, names in tree.folders.items()
        if known[0] in names
    }
    if split is None:
        return files
    matches = _matches_of_split(tree, split, splits_path)
    folders = {match: tree.find(match, files) for match in matches}
    for match, folder in folders.items():
        if folder is None:
            raise InputError(f"`{tree.root}` has no {known[0]} for match `{match}` of the split `{split}`; add it")
    return {match: files[folder] for match, folder in folders.items()}


def _matches_of_split(tree: _Tree, split: str, splits_path: Path | None) -> list[str]:
    """Return the match folders of a split; "valid" and "validation" are one."""
    if splits_path:
        source, splits = f"`{splits_path}`", read_json(splits_path)
    else:
        folders = [folder for folder, names in tree.folders.items() if SPLITS_FILE_NAME in names]
        if not folders:
            raise InputError(f"`{tree.root}` holds no {SPLITS_FILE_NAME}; give one with --splits FILE")
        file = _File(tree, PurePosixPath(min(folders, key=len), SPLITS_FILE_NAME))  # the outermost
        source, splits = str(file), tree.read(file.path)
    if not isinstance(splits, dict):
        raise InputError(f'{source} is no splits file; write {{"train": [...], "validation": [...], "test": [...]}}')
    matches = splits.get(split, splits.get(SPLIT_SYNONYMS.get(split)))
    if not isinstance(matches, list) or not matches or not all(isinstance(match, str) for match in matches):
        raise InputError(
            f"{source} lists no matches for the split `{split}`; it has {', '.join(splits) or 'no split'}"
        )
    return [PurePosixPath(match).as_posix() for match in matches]


def _prediction_files(tree: _Tree, matches: Iterable[str]) -> list[_File]:
    """Return the prediction file of each match."""
    owners, files = {}, []
    for match in matches:
        folder = tree.find(match, tree.folders)
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
        files.append(_File(tree, PurePosixPath(folder, name)))
    return files


def _table_lines(references: list, predictions: list, labels: Sequence[str], scores: dict[str, dict]) -> list[str]:
    """Return the table: a row a label, then the means over all, visible and unshown events."""
    truths = [event for match in references for event in match]
    num_truths = Counter(event["label"] for event in truths)
    num_spots = Counter(event["label"] for match in predictions for event in match)
    num_known = sum(num_truths[label] for label in labels)
    num_unshown = sum(event["label"] in labels and event.get("visibility") == NOT_SHOWN for event in truths)
    width = max(map(len, (*labels, "mean, visible")))

    def line(name: str, num_truths: int | str, num_spots: int | str, cells: Iterable[str]) -> str:
        return f"{name:<{width}}{num_truths:>9}{num_spots:>13}" + "".join(f"{cell:>8}" for cell in cells)

    def figures(key: str) -> list:
        return [score[key] for score in scores.values()]

    rule = "-" * len(line("", "", "", scores))
    lines = [line("label", "events", "predictions", scores), rule]
    for label, per_metric in zip(labels, zip(*figures("a_mAP_per_class"))):
        lines.append(line(label, num_truths[label], num_spots[label], _percent(per_metric)))
    lines += [
        rule,
        line("mean", num_known, sum(num_spots[label] for label in labels), _percent(figures("a_mAP"))),
        line("mean, visible", num_known - num_unshown, "", _percent(figures("a_mAP_visible"))),
        line("mean, unshown", num_unshown, "", _percent(figures("a_mAP_unshown"))),
    ]
    skipped = (num_truths + num_spots).keys() - set(labels)
    if skipped:
        lines.append(f"\nskipped, not in the label list: {', '.join(sorted(map(str, skipped)))}")
    return lines


def _percent(figures: Iterable[float]) -> list[str]:
    return [f"{100 * figure:.2f}" for figure in figures]

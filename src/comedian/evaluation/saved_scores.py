"""Inputs of tuning: annotations of the scored matches, and their scores with any merging."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comedian.errors import InputError
from comedian.evaluation.match_files import find_folder, find_label_files
from comedian.inference.score_files import load_scores, merged_scores
from comedian.soccernet.annotations import parse_events

# match and half -> its files of scores, one per member of an ensemble
ScoreFiles = Mapping[tuple[str, int], Sequence[Path]]


def read_references(
    labels_root: Path, files: ScoreFiles, labels: Sequence[str], split: str | None = None
) -> tuple[dict[str, list], ScoreFiles]:
    """Read the annotations of the matches that were scored.

    Args:
        labels_root: a folder or a zip in SoccerNet's layout.
        files: as from `find_scores`.
        labels: the model's; events with other labels need no scores.
        split: only the matches of this split.

    Returns:
        Match -> annotations as in `Labels-v2.json`, and the score files of these matches.

    Raises:
        InputError: labels cannot be read; a match of the scores has none, or one of the split no scores; or a half with
            events was not scored.
    """
    label_files = find_label_files(labels_root, split)
    scored = sorted({video_id for video_id, _ in files})
    owners: dict[str, str] = {}
    for video_id in scored:
        match = find_folder(video_id, label_files, labels_root)
        if match is None and split is None:
            raise InputError(f"match `{video_id}` has no labels; add them, or choose other matches with --split")
        if match is not None and owners.setdefault(match, video_id) != video_id:
            raise InputError(
                f"the scores of `{owners[match]}` and `{video_id}` are both of the match `{match}`; remove one"
            )
    if split is not None and (missing := sorted(label_files.keys() - owners.keys())):
        raise InputError(f"match `{missing[0]}` has no scores; add them, or choose other matches with --split")
    references = {
        video_id: label_files[match].read_events("annotations")
        for match, video_id in sorted(owners.items(), key=lambda item: item[1])
    }
    for match, video_id in owners.items():
        for annotation in parse_events({"annotations": references[video_id]}, "annotations", str(label_files[match])):
            if annotation.label in labels and (video_id, annotation.half) not in files:
                raise InputError(f"half {annotation.half} of `{video_id}` has events and no scores; score all halves")
    return references, {key: paths for key, paths in files.items() if key[0] in references}


def read_scores(files: ScoreFiles, settings: Mapping[str, Any]) -> dict[tuple[str, int], np.ndarray]:
    """Read the scores of all halves, merged as some settings say; the mean over an ensemble's members.

    Raises:
        InputError: a file does not hold the windows that this takes.
    """
    return {key: np.mean([merged_scores(path, settings) for path in paths], axis=0) for key, paths in files.items()}


def stride_of_windows(files: ScoreFiles) -> int | None:
    """Hop in tokens between the windows that the first file holds; `None` where it holds merged scores alone."""
    windows = load_scores(next(iter(files.values()))[0], with_windows=True).windows
    if windows is None:
        return None
    return int(windows.starts[1] - windows.starts[0]) if len(windows.starts) > 1 else None

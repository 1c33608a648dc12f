"""What tuning reads: annotations of the matches that were scored, and their scores, merged in any way."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comedian.errors import InputError
from comedian.evaluation.match_files import find_label_files
from comedian.inference.score_files import load_scores, merged_scores

# match and half -> its files of scores, one a member of an ensemble
ScoreFiles = Mapping[tuple[str, int], Sequence[Path]]


def read_references(
    labels_root: Path, files: ScoreFiles, labels: Sequence[str], split: str | None = None
) -> tuple[dict[str, list], ScoreFiles]:
    """Read the annotations of the matches that were scored.

    Args:
        labels_root: a folder or a zip in SoccerNet's layout.
        files: as from `find_scores`.
        labels: the model's; an event of another label asks for no scores.
        split: only the matches of this split.

    Returns:
        Match -> annotations as in `Labels-v2.json`, and the score files of these matches.

    Raises:
        InputError: labels cannot be read; a match of the scores has none, or one of the split no scores; or a half with
            events was not scored.
    """
    label_files = find_label_files(labels_root, split)
    scored = {video_id for video_id, _ in files}
    if split is None:
        missing, what = sorted(scored - label_files.keys()), "labels"
    else:
        missing, what = sorted(label_files.keys() - scored), "scores"
    if missing:
        raise InputError(f"match `{missing[0]}` has no {what}; add them, or choose other matches with --split")
    references = {
        video_id: label_files[video_id].read_events("annotations") for video_id in sorted(scored & label_files.keys())
    }
    for video_id, events in references.items():
        for event in events:
            half = event["gameTime"][0]
            if event["label"] in labels and (video_id, int(half)) not in files:
                raise InputError(f"half {half} of `{video_id}` has events and no scores; score all halves")
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

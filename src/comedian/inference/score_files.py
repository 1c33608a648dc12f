"""Raw scores on disk, one safetensors file a half, so that spots can be made anew without the model.

A folder of scores holds `<video_id>/<half>.safetensors`: the tensor `scores` `(num_steps, num_labels)`, float32, and as
metadata the half, the model's configuration and what the scores were computed from.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from comedian.data.annotations import MAX_HALVES
from comedian.data.decoding import iter_frames
from comedian.data.frame_store import source_of
from comedian.errors import InputError
from comedian.files import atomic_path, inside
from comedian.inference.spotter import ActionSpotter, merge_configs
from comedian.models import ComedianConfig

FORMAT = "comedian-scores-1"

# video_id -> half -> what belongs to the half
Matches = Mapping[str, Mapping[int, Path]]
MatchScores = dict[str, dict[int, np.ndarray]]


@dataclass(frozen=True)
class ScoredHalf:
    """The scores of one half.

    Attributes:
        video_id: the match.
        half: from 1.
        scores: float32 `(num_steps, num_labels)`, `config.score_rate` steps a second.
        config: labels, time grid, suppression and thresholds.
        models: names of the models, for people.
        fingerprint: what the scores depend on: hash of the models, and name, size and time of the video.
    """

    video_id: str
    half: int
    scores: np.ndarray
    config: ComedianConfig
    models: list[str]
    fingerprint: dict


def score_path(folder: str | Path, video_id: str, half: int) -> Path:
    """Where a half's scores are in a folder of scores."""
    return Path(folder) / video_id / f"{half}.safetensors"


def save_scores(folder: str | Path, scored: ScoredHalf) -> None:
    """Write the scores of a half into a folder of scores."""
    config = scored.config
    metadata = {
        "format": FORMAT,
        "video_id": scored.video_id,
        "half": str(scored.half),
        "score_rate": str(config.score_rate),
        "labels": json.dumps(config.label_names),
        "models": json.dumps(scored.models),
        "config": config.to_json_string(),
        "fingerprint": json.dumps(scored.fingerprint),
    }
    with atomic_path(score_path(folder, scored.video_id, scored.half)) as partial:
        save_file({"scores": scored.scores}, partial, metadata)


def load_scores(path: str | Path) -> ScoredHalf:
    """Read the scores of a half.

    Raises:
        InputError: `path` is no score file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata, scores = file.metadata() or {}, file.get_tensor("scores")
        if metadata["format"] != FORMAT:
            raise ValueError(f"the format is {metadata['format']!r}, not {FORMAT!r}")
        config = ComedianConfig.from_dict(json.loads(metadata["config"]))
        video_id, half = metadata["video_id"], int(metadata["half"])
        inside("", video_id)
        if not 1 <= half <= MAX_HALVES or scores.dtype != np.float32 or scores.shape[1:] != (config.num_labels,):
            raise ValueError(f"half {half} has {scores.dtype} scores of shape {scores.shape}")
        fingerprint = json.loads(metadata["fingerprint"])
        return ScoredHalf(video_id, half, scores, config, json.loads(metadata["models"]), fingerprint)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, StrictDataclassError) as error:
        raise InputError(
            f"`{path}` is no file of scores: {error}; make it with `comedian spot --save-scores`"
        ) from error


def load_score_folders(folders: Sequence[str | Path]) -> tuple[MatchScores, ComedianConfig]:
    """Read all scores of a folder, or the mean of several folders' scores of the same halves: an ensemble.

    Returns:
        Scores by match and half, and the settings; see `merge_configs` for those of an ensemble.

    Raises:
        InputError: a folder holds no scores, one half twice, or other halves, labels or lengths than the first.
    """
    all_halves = [_load_folder(folder) for folder in folders]
    configs = [next(iter(halves.values())).config for halves in all_halves]
    config = merge_configs(configs, list(map(str, folders)))
    matches: MatchScores = {}
    for (video_id, half), first in all_halves[0].items():
        members = [halves.get((video_id, half)) for halves in all_halves]
        for member, folder in zip(members, folders, strict=True):
            if member is None or member.scores.shape != first.scores.shape:
                raise InputError(
                    f"`{folder}` and `{folders[0]}` do not hold the same halves: see {video_id}, half {half}"
                )
        matches.setdefault(video_id, {})[half] = np.mean([member.scores for member in members], axis=0)
    return matches, config


def _load_folder(folder: str | Path) -> dict[tuple[str, int], ScoredHalf]:
    paths = sorted(Path(folder).rglob("*.safetensors"))
    if not paths:
        raise InputError(f"`{folder}` holds no scores; give a folder that `comedian spot --save-scores` wrote")
    halves: dict[tuple[str, int], ScoredHalf] = {}
    for path in paths:
        scored = load_scores(path)
        key = scored.video_id, scored.half
        if key in halves:
            raise InputError(
                f"`{folder}` holds {scored.video_id}, half {scored.half} twice; remove one, such as `{path}`"
            )
        halves[key] = scored
        first = next(iter(halves.values())).config
        merge_configs([first, scored.config], [str(paths[0]), str(path)])
    return halves


def score_matches(
    spotter: ActionSpotter, matches: Matches, folder: str | Path | None = None, progress: bool = False
) -> MatchScores:
    """Score the videos of matches, but for those that a folder of scores has from the same models and videos already.

    Every video is opened before the first is scored, so that a broken one is told at once.

    Args:
        spotter: the models.
        matches: video_id -> half -> video.
        folder: where to save the scores of each half as soon as they are there.
        progress: show a bar with the speed: of halves for several matches, else of seconds of video.

    Returns:
        Scores by match and half.

    Raises:
        InputError: a video cannot be decoded.
    """
    halves = [(video_id, half, path) for video_id, videos in matches.items() for half, path in videos.items()]
    found = {} if folder is None else _saved(spotter, halves, folder)
    pending = [entry for entry in halves if entry[:2] not in found]
    for _, _, path in pending:
        _check_video(path)
    several = len(matches) > 1
    begin_s, scored_s = time.perf_counter(), 0.0
    bar = tqdm(pending, "halves", unit="half", disable=not (progress and several))
    for video_id, half, path in bar:
        fingerprint = {"models": spotter.fingerprint, "video": source_of(path)} if folder is not None else {}
        scores = spotter.score(path, progress=progress and not several)
        found[video_id, half] = scores
        if folder is not None:
            save_scores(folder, ScoredHalf(video_id, half, scores, spotter.config, spotter.names, fingerprint))
        scored_s += len(scores) / spotter.config.score_rate
        bar.set_postfix_str(f"{scored_s / (time.perf_counter() - begin_s):.0f}x real time")
    return {video_id: {half: found[video_id, half] for half in videos} for video_id, videos in matches.items()}


def _saved(
    spotter: ActionSpotter, halves: Sequence[tuple[str, int, Path]], folder: str | Path
) -> dict[tuple[str, int], np.ndarray]:
    """The scores in `folder` that scoring these halves again would give."""
    found = {}
    for video_id, half, path in halves:
        try:
            scored = load_scores(score_path(folder, video_id, half))
            if scored.fingerprint == {"models": spotter.fingerprint, "video": source_of(path)}:
                found[video_id, half] = scored.scores
        except (InputError, FileNotFoundError):
            continue
    return found


def _check_video(path: Path) -> None:
    """Raise `InputError` unless the first frame can be decoded; a header alone may lie, or be missing."""
    frames = iter_frames(path, fps=1)
    next(frames)
    frames.close()

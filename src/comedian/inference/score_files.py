"""Raw scores on disk, one safetensors file per half, to compute spots again without the model.

A folder of scores holds `<video_id>/<half>.safetensors`: the tensor `scores` `(num_steps, num_labels)`, float32, and as
metadata the half, the configuration of the model and the fingerprints of models and video. A file may also contain the
scores of every window before merging, so that they can be merged with other settings: `window_scores`, `window_starts` and,
for a model that predicts offsets, `window_offsets_s`; see `WindowScores`.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from comedian.errors import InputError
from comedian.files import atomic_write_tensors, comparable, inside
from comedian.inference.inference_config import InferenceConfig
from comedian.inference.scoring import WindowScores
from comedian.inference.settings import MERGING, SETTINGS, read_settings, same_merging, with_settings
from comedian.inference.spotter import ActionSpotter, merge_configs
from comedian.models.settings_comedian import ComedianSettings
from comedian.sharing import Shard, SharedWork, is_main_process, length_of_video, num_launched
from comedian.soccernet.layout import MAX_HALVES
from comedian.video.decoding import iter_frames
from comedian.video.frame_store import source_of

FORMAT = "comedian-scores-1"

# video_id -> half -> what belongs to the half
Matches = Mapping[str, Mapping[int, Path]]
MatchScores = dict[str, dict[int, np.ndarray]]


@dataclass(frozen=True)
class ScoredHalf:
    """The scores of one half.

    Attributes:
        video_id: name of the match.
        half: number of the half, from 1.
        scores: float32 `(num_steps, num_labels)`, with `config.score_rate` steps per second.
        config: labels, time grid, suppression and thresholds.
        models: names of the models, for display.
        fingerprint: what the scores depend on: hashes of the models, hashes of their weights, and `source_of` the video.
        windows: the scores of windows that `scores` were merged from, if they were saved and are read.
        video_path: absolute path of the video when it was scored; empty if unknown.
    """

    video_id: str
    half: int
    scores: np.ndarray
    config: ComedianSettings
    models: list[str]
    fingerprint: dict
    windows: WindowScores | None = None
    video_path: str = ""


def score_path(folder: str | Path, video_id: str, half: int) -> Path:
    """Return the path of the scores of a half in a folder of scores."""
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
        "video_path": scored.video_path,
    }
    tensors = {"scores": scored.scores}
    if scored.windows is not None:
        tensors |= {"window_scores": scored.windows.scores, "window_starts": scored.windows.starts}
        if scored.windows.offsets_s is not None:
            tensors["window_offsets_s"] = scored.windows.offsets_s
    atomic_write_tensors(score_path(folder, scored.video_id, scored.half), tensors, metadata)


def load_scores(path: str | Path, with_windows: bool = False) -> ScoredHalf:
    """Read the scores of a half and, with `with_windows`, those of its windows if they were saved.

    Raises:
        InputError: `path` is not a score file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata, scores = file.metadata() or {}, file.get_tensor("scores")
            of_windows = {name: file.get_tensor(name) for name in file.keys() if with_windows and name != "scores"}
        if metadata["format"] != FORMAT:
            raise ValueError(f"the format is {metadata['format']!r}, not {FORMAT!r}")
        config = InferenceConfig.from_dict(json.loads(metadata["config"]))
        video_id, half = metadata["video_id"], int(metadata["half"])
        inside("", video_id)
        if not 1 <= half <= MAX_HALVES or scores.dtype != np.float32 or scores.shape[1:] != (config.num_labels,):
            raise ValueError(f"half {half} has {scores.dtype} scores of shape {scores.shape}")
        if not len(scores):
            raise ValueError("it holds no scores")
        _check_unit(scores)
        fingerprint = json.loads(metadata["fingerprint"])
        windows = _windows(of_windows, len(scores) // config.scores_per_token, config) if of_windows else None
        models, video_path = json.loads(metadata["models"]), metadata.get("video_path", "")
        return ScoredHalf(video_id, half, scores, config, models, fingerprint, windows, video_path)
    except (
        OSError,
        SafetensorError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        StrictDataclassError,
    ) as error:
        raise InputError(
            f"`{path}` is not a score file: {error}; create it with `comedian spot --save-scores`"
        ) from error


def _windows(tensors: Mapping[str, np.ndarray], length: int, config: ComedianSettings) -> WindowScores:
    """The scores of windows from a file's tensors; `KeyError` or `ValueError` if they are invalid."""
    scores, starts = tensors["window_scores"], tensors["window_starts"]
    shape = (len(starts), config.num_tokens * config.logits_per_token, config.num_labels)
    if scores.dtype != np.float32 or starts.dtype != np.int64 or scores.shape != shape:
        raise ValueError(f"{len(starts)} windows have {scores.dtype} scores of shape {scores.shape}")
    if not len(starts) or starts[0] != 0 or (np.diff(starts) <= 0).any():
        raise ValueError(f"its windows start at {starts[:3]}, ..., which do not rise from 0")
    _check_unit(scores)
    offsets_s = None if config.offset_radius_s is None else tensors["window_offsets_s"]
    if offsets_s is not None and (offsets_s.shape != shape or not np.isfinite(offsets_s).all()):
        raise ValueError(f"its offsets, of shape {offsets_s.shape}, are not a number a score")
    return WindowScores(scores, offsets_s, starts, length)


def _check_unit(scores: np.ndarray) -> None:
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("it holds NaN, or scores that are not between 0 and 1")


def merged_scores(path: str | Path, settings: Mapping[str, Any]) -> np.ndarray:
    """Read the scores of a half, merged from its windows with some settings.

    Args:
        path: a score file.
        settings: values of fields of `MERGING`; missing ones are those of the file, other fields are ignored.

    Returns:
        float32 `(num_steps, num_labels)`.

    Raises:
        InputError: `path` is not a score file, or lacks the windows that the settings need.
    """
    scored = load_scores(path)
    config = with_settings(scored.config, {name: settings[name] for name in MERGING if name in settings})
    if same_merging(config, scored.config):
        return scored.scores
    windows = load_scores(path, with_windows=True).windows
    if windows is None:
        raise InputError(
            f"`{path}` holds only merged scores, which cannot be merged with other settings; score the videos with "
            "`comedian spot --save-scores FOLDER --save-windows SECONDS`"
        )
    try:
        return windows.merge(config)
    except ValueError as error:
        raise InputError(f"`{path}`: {error}; use settings that fit its windows") from None


def load_score_folders(
    folders: Sequence[str | Path], settings_file: str | Path | None = None
) -> tuple[MatchScores, ComedianSettings]:
    """Read all scores of a folder, or the mean of the scores in several folders: an ensemble.

    Args:
        folders: folders of scores, of the same halves.
        settings_file: file of `comedian tune` whose settings replace those that the scores were saved with.

    Returns:
        video_id -> half -> scores, and the settings; see `merge_configs` for those of an ensemble.

    Raises:
        InputError: a folder has no scores, has one half twice, or other halves, labels or lengths than the first; or the
            settings do not fit.
    """
    files, config = find_scores(folders)
    settings = read_settings(settings_file, config.label_names, weights_of(files)) if settings_file else {}
    matches: MatchScores = {}
    for (video_id, half), paths in files.items():
        members = [merged_scores(path, settings) for path in paths]
        matches.setdefault(video_id, {})[half] = np.mean(members, axis=0)
    return matches, with_settings(config, settings)


def find_scores(folders: Sequence[str | Path]) -> tuple[dict[tuple[str, int], list[Path]], ComedianSettings]:
    """Find the score files of each half in one folder, or in the folders of the members of an ensemble.

    Returns:
        `(video_id, half)` -> one file per folder, and the settings; see `merge_configs` for those of an ensemble.

    Raises:
        InputError: a folder has no scores, has one half twice, or other halves, labels or lengths than the first.
    """
    all_halves = [_load_folder(folder) for folder in folders]
    config = merge_configs([config for _, config in all_halves], list(map(str, folders)))
    files: dict[tuple[str, int], list[Path]] = {}
    for key in sorted({key for halves, _ in all_halves for key in halves}):
        found = [
            halves.get(key, (Path(folder), None)) for (halves, _), folder in zip(all_halves, folders, strict=True)
        ]
        for (path, length), folder in zip(found, folders, strict=True):
            if length != found[0][1]:
                raise InputError(
                    f"`{folder}` and `{folders[0]}` do not hold the same halves: see {key[0]}, half {key[1]}"
                )
            files.setdefault(key, []).append(path)
    return files, config


def weights_of(files: Mapping[tuple[str, int], Sequence[Path]]) -> list[str]:
    """Return the hashes of the weights that the scores were computed with; they are equal within a folder."""
    paths = next(iter(files.values()))
    return [weights for path in paths for weights in load_scores(path).fingerprint.get("weights", ())]


def check_weights_of(files: Mapping[tuple[str, int], Sequence[Path]], spotter: ActionSpotter) -> None:
    """Check that scores were computed with the weights of a model, with whatever settings.

    Raises:
        InputError: they were computed with other weights, or without a record of the weights.
    """
    path = next(iter(files.values()))[0]
    if weights_of(files) != spotter.weights_fingerprint:
        raise InputError(
            f"`{path}` holds scores of other weights than those of `{spotter.names[0]}`; score the videos with this model "
            "first"
        )


def _load_folder(folder: str | Path) -> tuple[dict[tuple[str, int], tuple[Path, int]], ComedianSettings]:
    """Match and half -> file and number of steps, and the settings of the first file."""
    paths = sorted(Path(folder).rglob("*.safetensors"))
    if not paths:
        raise InputError(f"`{folder}` holds no scores; give a folder that `comedian spot --save-scores` wrote")
    halves: dict[tuple[str, int], tuple[Path, int]] = {}
    first = load_scores(paths[0])
    for path in paths:
        scored = first if path == paths[0] else load_scores(path)
        key = comparable(scored.video_id), scored.half
        if key in halves:
            raise InputError(
                f"`{folder}` holds {scored.video_id}, half {scored.half} twice; remove one, such as `{path}`"
            )
        halves[key] = path, len(scored.scores)
        merge_configs([first.config, scored.config], [str(paths[0]), str(path)])
        have_other_settings = _settings_of(scored.config) != _settings_of(first.config)
        if have_other_settings or scored.fingerprint.get("models") != first.fingerprint.get("models"):
            raise InputError(
                f"`{paths[0]}` and `{path}` hold scores of different models or settings; give each its own folder, or "
                "rerun the same `comedian spot --save-scores` for all of them"
            )
    return halves, first.config


def score_matches(
    spotter: ActionSpotter,
    matches: Matches,
    folder: str | Path | None = None,
    progress: bool = False,
    window_stride_s: float | None = None,
    shard: Shard | None = None,
) -> MatchScores:
    """Score the videos of matches, except those whose scores by the same models are in `folder` already.

    All videos are opened before the first is scored, so that a damaged one is reported before the work. Any number of
    processes may save to one folder at the same time: they share the halves, the longest first, and each returns all scores
    when all are saved (see [`SharedWork`]).

    Args:
        spotter: the models.
        matches: video_id -> half -> video.
        folder: folder to save the scores of each half in as soon as they are computed.
        progress: show a progress bar with the speed: of halves for several matches, otherwise of seconds of video.
        window_stride_s: also save the scores of windows with this many seconds from the start of one to the next.
        shard: only this fixed share of the halves, divided by the size of their videos.

    Returns:
        video_id -> half -> scores.

    Raises:
        InputError: a video cannot be decoded, or processes that were launched together have no folder to share scores in.
    """
    halves = [(video_id, half, path) for video_id, videos in matches.items() for half, path in videos.items()]
    found: dict[tuple[str, int], np.ndarray] = {}
    if folder is None and num_launched() > 1:
        raise InputError(
            f"{num_launched()} processes share halves through a folder of scores; add --save-scores FOLDER"
        )

    if folder is None:
        _score_each(spotter, halves, found, None, progress, window_stride_s)
    else:
        with _shared_halves(spotter, halves, found, folder, window_stride_s, shard) as work:
            _score_each(spotter, work, found, folder, progress and is_main_process(), window_stride_s)
    scores = {
        video_id: {half: found[video_id, half] for half in videos if (video_id, half) in found}
        for video_id, videos in matches.items()
    }
    return {video_id: of_match for video_id, of_match in scores.items() if of_match}


def _shared_halves(
    spotter: ActionSpotter,
    halves: Sequence[tuple[str, int, Path]],
    found: dict[tuple[str, int], np.ndarray],
    folder: str | Path,
    window_stride_s: float | None,
    shard: Shard | None,
) -> SharedWork[tuple[str, int, Path]]:
    """Return the halves of a shard, the longest first, to share with other processes; saved scores go into `found`."""

    def is_saved(entry: tuple[str, int, Path]) -> bool:
        scores = _saved(spotter, entry, folder, window_stride_s)
        if scores is not None:
            found[entry[:2]] = scores
        return scores is not None

    # share 1 of 1 is all halves
    shared = (shard or Shard(1, 1)).of(halves, lambda entry: length_of_video(entry[2]))
    return SharedWork(shared, lambda entry: score_path(folder, *entry[:2]), is_saved)


def _score_each(
    spotter: ActionSpotter,
    work: Sequence[tuple[str, int, Path]] | SharedWork[tuple[str, int, Path]],
    found: dict[tuple[str, int], np.ndarray],
    folder: str | Path | None,
    progress: bool,
    window_stride_s: float | None,
) -> None:
    """Score halves into `found` and the folder."""
    pending = list(work.pending if isinstance(work, SharedWork) else work)
    for _, _, path in pending:
        _check_video(path)
    several = len({video_id for video_id, _, _ in pending}) > 1
    begin_s, scored_s = time.perf_counter(), 0.0
    bar = tqdm(work, "halves", len(pending), unit="half", disable=not (progress and several))
    for video_id, half, path in bar:
        bar_of_half, windows = progress and not several, None
        # before it is read: a file that is still being written has other contents afterwards
        fingerprint = {} if folder is None else _fingerprint(spotter, path, window_stride_s)
        if window_stride_s is None:
            scores = spotter.score(path, progress=bar_of_half)
        else:
            windows = spotter.score_windows(path, window_stride_s, progress=bar_of_half)
            scores = windows.merge(spotter.config)
        found[video_id, half] = scores
        if folder is not None:
            place = str(Path(path).absolute())
            scored = ScoredHalf(video_id, half, scores, spotter.config, spotter.names, fingerprint, windows, place)
            save_scores(folder, scored)
        scored_s += len(scores) / spotter.config.score_rate
        bar.set_postfix_str(f"{scored_s / (time.perf_counter() - begin_s):.0f}x real time")


def _fingerprint(spotter: ActionSpotter, path: Path, window_stride_s: float | None) -> dict:
    found = {"models": spotter.fingerprint, "weights": spotter.weights_fingerprint, "video": source_of(path)}
    return found if window_stride_s is None else found | {"window_stride_s": window_stride_s}


def _saved(
    spotter: ActionSpotter, entry: tuple[str, int, Path], folder: str | Path, window_stride_s: float | None
) -> np.ndarray | None:
    """The saved scores of a half, if scoring it again would give the same; otherwise None.

    Their file gets the settings of the models, such as of `--settings`, which do not change scores.
    """
    video_id, half, path = entry
    try:
        scored = load_scores(score_path(folder, video_id, half), with_windows=True)
        # a file that also has the scores of windows fits, too
        fits = scored.fingerprint | _fingerprint(spotter, path, window_stride_s) == scored.fingerprint
    except (InputError, FileNotFoundError):
        return None
    if not fits:
        return None
    if _settings_of(scored.config) != _settings_of(spotter.config):
        save_scores(folder, replace(scored, config=spotter.config))
    return scored.scores


def _settings_of(config: ComedianSettings) -> list[Any]:
    return [getattr(config, name) for name in SETTINGS]


def check_owners(folder: str | Path, matches: Matches) -> None:
    """Check that a folder has no scores of other videos under the names of these halves.

    A video counts as another one if both its path and its [`source_of`] differ. Thus the scores of a match are not
    overwritten by those of another match with the same name.

    Args:
        folder: folder of scores.
        matches: video_id -> half -> video.

    Raises:
        InputError: the folder has scores of another video.
    """
    for video_id, videos in matches.items():
        for half, path in videos.items():
            try:
                scored = load_scores(score_path(folder, video_id, half))
            except (InputError, FileNotFoundError):
                continue
            video = scored.fingerprint.get("video", {})
            if scored.video_path != str(Path(path).absolute()) and video != source_of(path):
                raise InputError(
                    f"`{folder}` has scores of `{scored.video_path or video.get('name')}` as half {half} of `{video_id}`, "
                    f"which those of `{path}` would overwrite; save these scores in another folder"
                )


def _check_video(path: Path) -> None:
    """Raise `InputError` unless the first frame can be decoded; the header alone may be wrong or missing."""
    next(iter_frames(path, fps=1))

"""A folder of videos and a file of their events -> a spotting model: import, decode once, fine-tune, compare."""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

from comedian.errors import InputError
from comedian.evaluation.reported_events import ReportedEvents, count_reported, read_reported, write_reported
from comedian.evaluation.spotting_evaluator import judge_spots_of_halves, score_halves, spots_of_halves
from comedian.events.events import Event, EventVideo
from comedian.events.formats import read_events
from comedian.events.own_videos import IMPORT_FILE_NAME, find_parts, import_videos
from comedian.events.soccernet_files import by_match
from comedian.files import atomic_path, make_folder
from comedian.inference.torch_model import TorchModel, load_model
from comedian.models import ComedianConfig, ComedianForActionSpotting
from comedian.soccernet.layout import find_halves
from comedian.soccernet.prepare import prepare
from comedian.soccernet.splits import SPLITS_FILE_NAME, matches_of_splits
from comedian.training.finetune import finetune
from comedian.training.recipe import ModelSection, Recipe, make_recipe, parse_overrides, start_of
from comedian.training.run_facts import (
    RUN_FILE_NAME,
    RunChanged,
    content_of,
    find_changes,
    hash_of,
    hash_start,
    write_facts,
)
from comedian.training.spotting_config import SpottingConfig
from comedian.training.stage import effective_config, load_config, load_halves, make_settings, read_labels
from comedian.training.train_all import on_main_process
from comedian.video.decoding import probe
from comedian.video.frame_store import FrameStore, StoreSettings

logger = logging.getLogger(__name__)

# What suits a few videos and a model that knows similar pictures; any field can be overridden.
TRAINING = {
    "num_train_epochs": 20,
    "per_device_train_batch_size": 4,
    "sampling": "edges",
    "base_learning_rate": None,
    "learning_rate": 2e-4,
}
# windows of an epoch, however short the videos are
MIN_WINDOWS = 24


@dataclass(frozen=True)
class VideoRun:
    """One `comedian finetune --videos`; the fields are those of the command.

    Attributes:
        videos: the folder of the videos.
        events: their events, in any format of `comedian.events.formats`.
        model: a folder or Hub repository to start from.
        output: gets `matches` (the data set, in SoccerNet's layout), `frames`, `model`, and `run.json`, what they are
            made from.
        validation_share: share of the matches for validation, where the events tell no split.
        seed: of the split and of the training.
        continue_from: the output of a former run, whose matches for validation stay for validation and whose frames are
            used again; `model` is then its model.
    """

    videos: Path
    events: Path
    model: str
    output: Path
    validation_share: float = 0.2
    seed: int = 0
    continue_from: Path | None = None

    @property
    def matches(self) -> Path:
        """The data set."""
        return self.output / "matches"

    @property
    def frames(self) -> Path:
        """Its frame store."""
        return self.output / "frames"


def finetune_videos(
    run: VideoRun,
    overrides: Sequence[str] = (),
    resume: bool = True,
    tell: Callable[[str], None] = logger.info,
) -> tuple[Recipe, dict[str, dict]]:
    """Lay the videos out, decode them once and fine-tune; an interrupted run resumes, a finished one is left as it is.

    Args:
        run: what to train on, and where it goes.
        overrides: words such as `--training.num_train_epochs 3`, as for `load_recipe`.
        resume: continue what the output folder holds; otherwise train anew.
        tell: told in lines how many events of each label each split holds.

    Returns:
        The recipe that was run and the official scores on the validation videos.

    Raises:
        InputError: an event, a video, a model or a setting that will not do.
        RunChanged: the output was begun with other ones, and `resume` is set.
    """
    if run.continue_from is not None:
        _check_former(run, run.continue_from)
    stored = load_config(run.model)
    if stored.model_type != ComedianConfig.model_type:
        raise InputError(f"`{run.model}` is a {stored.model_type} model, not comedian")
    # before the work: what is overridden, which the frames may depend on
    parsed = parse_overrides(overrides)
    asked = make_recipe(_sections(run, windows_per_half=1), Path.cwd(), parsed)
    make_settings(asked.training, SpottingConfig)
    config = effective_config(stored, ModelSection(overrides=asked.model.overrides))
    on_main_process(lambda: _prepare(run, config, resume, tell))
    recipe = make_recipe(_sections(run, _windows_per_half(run, config)), Path.cwd(), parsed)
    scores = finetune(recipe, resume)
    on_main_process(lambda: compare_with_start(recipe))
    return recipe, scores


def _prepare(run: VideoRun, config: ComedianConfig, resume: bool, tell: Callable[[str], None]) -> None:
    """Import and decode, unless the output was begun with something else."""
    height, width = config.image_size
    settings = StoreSettings(config.fps, height, width, quality=24)
    facts = _facts(run, settings, config.sound)
    # written once the data set is imported
    found = find_changes(run.output, facts, [RUN_FILE_NAME])
    if found and resume:
        more = f"to go on with added labels, give a new `--output` and `--continue-from {run.output}`"
        raise RunChanged(run.output, found, f"{more}; or train anew in this one with `--restart`")
    if found:
        _delete_outdated(run, settings)
    data = import_videos(
        run.videos,
        run.events,
        run.matches,
        validation_share=run.validation_share,
        seed=run.seed,
        validation=_former_validation(run),
    )
    write_facts(run.output, facts)
    tell("\n".join(data.table()))
    if run.continue_from is not None:
        _reuse_frames(run, run.continue_from, settings)
    prepare(run.matches, run.frames, settings, sound=config.sound)


def _facts(run: VideoRun, settings: StoreSettings, sound: bool) -> dict[str, Any]:
    """What the data set and its frames are made from; the recipe and the labels are compared by the training itself."""
    events = read_events(run.events)
    # as a folder that does not exist is refused by the import, in better words
    parts = find_parts(run.videos, events, run.events) if run.videos.is_dir() else []
    facts = {
        "events": {
            _key(video): hash_of([video.split, *map(_facts_of_event, video.events)]) for video in events.videos
        },
        "labels": list(events.labels),
        "videos": {_key(part.video): hash_of(content_of(part.file)) for part in parts},
        "start weights": hash_start(run.model)[:16],
        "validation_share": run.validation_share,
        "seed": run.seed,
        "frames": asdict(settings) | {"sound": sound},
    }
    if run.continue_from is not None:
        facts["validation"] = sorted(_former_validation(run))
    return facts


def _check_former(run: VideoRun, former: Path) -> None:
    """Refuse a former run that is not finished, or is this one, or whose matches for validation have no events now."""
    if former.resolve() == run.output.resolve():
        raise InputError(f"`--continue-from {former}` is the `--output` too; give a new folder for the new model")
    if not (former / "model" / "recipe.yaml").is_file() or not (former / "matches" / SPLITS_FILE_NAME).is_file():
        raise InputError(
            f"`{former}` is not a finished run of `comedian finetune --videos`; give the folder that was its `--output`"
        )
    there = by_match(read_events(run.events))
    if gone := [video_id for video_id in _former_validation(run) if video_id not in there]:
        raise InputError(
            f"`{run.events}` has no events of `{gone[0]}`, which was for validation in `{former}`; give a file with the "
            "former labels and the added ones"
        )


def _former_validation(run: VideoRun) -> list[str]:
    """The matches that the former run had for validation."""
    return [] if run.continue_from is None else matches_of_splits(run.continue_from / "matches", ["validation"])


def _reuse_frames(run: VideoRun, former: Path, settings: StoreSettings) -> None:
    """Link the former run's frames, so that only new videos are decoded; `prepare` refuses those of other videos."""
    store = former / "frames"
    if not (store / "store.json").is_file() or FrameStore(store).settings != settings:
        return
    for file in sorted(store.rglob("*")):
        place = file.relative_to(store)
        target = run.frames / place
        if not file.is_file() or target.exists() or not (run.matches / place).parent.is_dir():
            continue
        make_folder(target.parent)
        try:
            os.link(file, target)
        except OSError:
            # another file system
            with atomic_path(target) as partial:
                shutil.copyfile(file, partial)


def compare_with_start(recipe: Recipe) -> None:
    """Count on validation what the start model reports, of the labels that it has, beside what the new model does.

    A start model that cannot read the frames of the new one, or has none of its labels, has no counts.
    """
    folder = Path(recipe.training["output_dir"])
    counted = read_reported(folder)
    if counted is None or counted[1] is not None:
        return
    write_reported(folder, counted[0], _count_start(recipe))


def _count_start(recipe: Recipe) -> dict[str, ReportedEvents]:
    """What the start model reports, of each label that is one of the data set's too."""
    start = start_of(recipe.model)
    stored = load_config(start)
    shared = [label for label in stored.label_names if label in read_labels(recipe.data)]
    if not shared or ComedianForActionSpotting.__name__ not in (stored.architectures or ()):
        return {}
    try:
        model = TorchModel(*load_model(start))
        (halves,) = load_halves(recipe.data, model.config, ["validation"])
    except InputError as error:
        logger.info("the start model is not compared: %s", error)
        return {}
    scores = score_halves(model, halves, range(len(halves)), progress=False)
    spots = spots_of_halves(scores, halves, model.config)
    # labels that the model does not have come after its own
    others = [label for label in halves.labels if label not in model.config.label_names]
    judged = judge_spots_of_halves(spots, halves, [*model.config.label_names, *others])
    counts = count_reported(judged[: model.config.num_labels], model.config)
    return {label: counts[label] for label in shared}


def _key(video: EventVideo) -> str:
    return video.name if video.half is None else f"{video.name}/{video.half}"


def _facts_of_event(event: Event) -> list[Any]:
    # not the line it stands in
    return [event.label, event.position_ms, event.team, event.visibility]


def _delete_outdated(run: VideoRun, settings: StoreSettings) -> None:
    """Delete the data set, whose videos are links, and frames of other settings; those of unchanged videos are kept."""
    if (run.matches / IMPORT_FILE_NAME).is_file():
        shutil.rmtree(run.matches)
    if (run.frames / "store.json").is_file() and FrameStore(run.frames).settings != settings:
        shutil.rmtree(run.frames)


def _windows_per_half(run: VideoRun, config: ComedianConfig) -> int:
    """Windows of an epoch and half: as many as the training videos are long, on average."""
    durations_s = [
        probe(video).duration_s
        for video_id in matches_of_splits(run.matches, ["train"])
        for video in find_halves(run.matches / video_id).values()
    ]
    as_long = round(sum(durations_s) / len(durations_s) / (config.num_frames / config.fps))
    return max(as_long, ceil(MIN_WINDOWS / len(durations_s)))


def _sections(run: VideoRun, windows_per_half: int) -> dict[str, dict]:
    """Return the recipe's sections."""
    return {
        "model": {"checkpoint": run.model},
        "data": {
            "root": str(run.matches),
            "frames": str(run.frames),
            "labels": str(run.matches / "labels.txt"),
        },
        "training": {
            "output_dir": str(run.output / "model"),
            "windows_per_half": windows_per_half,
            "seed": run.seed,
        }
        | TRAINING,
    }

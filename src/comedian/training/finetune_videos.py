"""A folder of videos and a file of their events -> a spotting model: import, decode once, fine-tune."""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comedian.errors import InputError
from comedian.events.events import Event, EventVideo
from comedian.events.formats import read_events
from comedian.events.own_videos import IMPORT_FILE_NAME, find_parts, import_videos
from comedian.models import ComedianConfig
from comedian.soccernet.layout import find_halves
from comedian.soccernet.prepare import prepare
from comedian.soccernet.splits import matches_of_splits
from comedian.training.finetune import finetune
from comedian.training.recipe import ModelSection, Recipe, make_recipe
from comedian.training.run_facts import RunChanged, content_of, find_changes, hash_of, hash_start, write_facts
from comedian.training.spotting_config import SpottingConfig
from comedian.training.stage import check_settings, effective_config, load_config
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
MIN_WINDOWS_PER_HALF = 12


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
    """

    videos: Path
    events: Path
    model: str
    output: Path
    validation_share: float = 0.2
    seed: int = 0

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
    stored = load_config(run.model)
    if stored.model_type != ComedianConfig.model_type:
        raise InputError(f"`{run.model}` is a {stored.model_type} model, not comedian")
    # before the work: what is overridden, which the frames may depend on
    asked = make_recipe(_sections(run, windows_per_half=MIN_WINDOWS_PER_HALF), Path.cwd(), overrides)
    check_settings(asked.training, SpottingConfig)
    config = effective_config(stored, ModelSection(overrides=asked.model.overrides))
    on_main_process(lambda: _prepare(run, config, resume, tell))
    recipe = make_recipe(_sections(run, _windows_per_half(run, config)), Path.cwd(), overrides)
    return recipe, finetune(recipe, resume)


def _prepare(run: VideoRun, config: ComedianConfig, resume: bool, tell: Callable[[str], None]) -> None:
    """Import and decode, unless the output was begun with something else."""
    height, width = config.image_size
    settings = StoreSettings(config.fps, height, width, quality=24)
    facts = _facts(run, settings, config.sound)
    found = find_changes(run.output, facts)
    if found and resume:
        raise RunChanged(run.output, found, "give a new `--output`, or train anew in this one with `--restart`")
    if found:
        _delete_outdated(run, settings)
    data = import_videos(run.videos, run.events, run.matches, validation_share=run.validation_share, seed=run.seed)
    write_facts(run.output, facts)
    tell("\n".join(data.table()))
    prepare(run.matches, run.frames, settings, sound=config.sound)


def _facts(run: VideoRun, settings: StoreSettings, sound: bool) -> dict[str, Any]:
    """What the data set and its frames are made from; the recipe and the labels are compared by the training itself."""
    events = read_events(run.events)
    # as a folder that does not exist is refused by the import, in better words
    parts = find_parts(run.videos, events, run.events) if run.videos.is_dir() else []
    return {
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
    windows = round(sum(durations_s) / len(durations_s) / (config.num_frames / config.fps))
    return max(windows, MIN_WINDOWS_PER_HALF)


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

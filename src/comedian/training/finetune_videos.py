"""A folder of videos and a file of their events -> a spotting model: import, decode once, fine-tune."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from comedian.data.annotations import find_halves
from comedian.data.decoding import probe
from comedian.data.event_formats import read_events
from comedian.data.foreign_events import to_json
from comedian.data.frame_store import StoreSettings, prepare
from comedian.data.own_videos import import_videos
from comedian.data.soccernet import matches_of_splits
from comedian.errors import InputError
from comedian.files import atomic_write_text, read_json
from comedian.models import ComedianConfig
from comedian.training.finetune import finetune
from comedian.training.recipe import Recipe, make_recipe
from comedian.training.stage import load_config
from comedian.training.train_all import on_main_process

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
        events: their events, in any format of `comedian.data.event_formats`.
        model: a folder or Hub repository to start from.
        output: gets `matches` (the data set, in SoccerNet's layout), `frames`, `model`, and `run.json`, what the run was
            begun with.
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
    """Lay the videos out, decode them once and fine-tune; what was done before goes on.

    Args:
        run: what to train on, and where it goes.
        overrides: words such as `--training.num_train_epochs 3`, as for `load_recipe`.
        resume: go on from the last checkpoint, if there is one.
        tell: told in lines how many events of each label each split holds.

    Returns:
        The recipe that was run and the official scores on the validation videos.

    Raises:
        InputError: an event, a video or a model that will not do, or an output that was begun with other ones.
    """
    config = load_config(run.model)
    if config.model_type != ComedianConfig.model_type:
        raise InputError(f"`{run.model}` is a {config.model_type} model, not comedian")
    on_main_process(lambda: _prepare(run, config, tell))
    recipe = make_recipe(_sections(run, config), Path.cwd(), overrides)
    return recipe, finetune(recipe, resume)


def _prepare(run: VideoRun, config: ComedianConfig, tell: Callable[[str], None]) -> None:
    """Import and decode, unless the output was begun with something else."""
    events = read_events(run.events)
    begun_with = {
        "events": hashlib.sha256(repr((events.videos, events.labels)).encode()).hexdigest(),
        "model": run.model,
        "validation_share": run.validation_share,
        "seed": run.seed,
    }
    begun = run.output / "run.json"
    if begun.is_file() and read_json(begun) != begun_with:
        raise InputError(f"`{run.output}` was begun with other events, model, seed or share; give a new folder")
    data = import_videos(run.videos, run.events, run.matches, validation_share=run.validation_share, seed=run.seed)
    atomic_write_text(begun, to_json(begun_with))
    tell("\n".join(data.table()))
    height, width = config.image_size
    prepare(run.matches, run.frames, StoreSettings(config.fps, height, width, quality=24), sound=config.sound)


def _sections(run: VideoRun, config: ComedianConfig) -> dict[str, dict]:
    """Return the recipe's sections; an epoch draws as many windows as the training videos are long, on average."""
    durations_s = [
        probe(video).duration_s
        for video_id in matches_of_splits(run.matches, ["train"])
        for video in find_halves(run.matches / video_id).values()
    ]
    windows = round(sum(durations_s) / len(durations_s) / (config.num_frames / config.fps))
    return {
        "model": {"checkpoint": run.model},
        "data": {
            "root": str(run.matches),
            "frames": str(run.frames),
            "labels": str(run.matches / "labels.txt"),
        },
        "training": {
            "output_dir": str(run.output / "model"),
            "windows_per_half": max(windows, MIN_WINDOWS_PER_HALF),
            "seed": run.seed,
        }
        | TRAINING,
    }

"""All stages of a recipe folder, one after the other: `comedian train`."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState

from comedian.errors import InputError, suggest
from comedian.evaluation.spotting_evaluator import average_map_of, score_halves_together, spots_of_halves
from comedian.features.extraction import extract_features, load_extractor
from comedian.features.published import find_published, import_features
from comedian.features.reduction import reduce_features
from comedian.files import atomic_write_text, read_json
from comedian.hub.model_card import SCORES_SUFFIX
from comedian.inference.torch_model import TorchModel, load_model
from comedian.soccernet.layout import find_halves
from comedian.soccernet.prepare import prepare
from comedian.soccernet.splits import matches_of_splits
from comedian.training.base_config import StageConfig
from comedian.training.contrastive_config import ContrastiveConfig
from comedian.training.curves import draw_curves, read_curve
from comedian.training.distill import distill
from comedian.training.distillation_config import DistillationConfig
from comedian.training.finetune import finetune
from comedian.training.pretrain import pretrain
from comedian.training.recipe import (
    DataSection,
    Recipe,
    check_fields,
    folder_of,
    make_recipe,
    parse_overrides,
    read_sections,
    refuse_unknown,
)
from comedian.training.recipe_names import find_recipe
from comedian.training.run_facts import (
    RunChanged,
    content_of,
    delete_owned,
    find_changes,
    write_facts,
)
from comedian.training.spotting_config import SpottingConfig
from comedian.training.spotting_trainer import write_scores
from comedian.training.stage import is_annotated, load_halves, make_settings
from comedian.video.frame_store import StoreSettings

# what a recipe folder may hold, in the order of training; each stage starts from the model of the one before
STAGES: dict[str, Callable[..., Any]] = {
    "pretrain": pretrain,
    "distill": distill,
    "finetune_head": finetune,
    "finetune": finetune,
}
# purpose of each stage, printed before it starts
PURPOSES = {
    "pretrain": "spatial encoder without labels",
    "distill": "backbone on a teacher's features",
    "finetune_head": "spotting head on the labels",
    "finetune": "whole model on the labels",
}
TEACHER = "teacher"
SETTINGS: dict[str, type[StageConfig]] = {"pretrain": ContrastiveConfig, "distill": DistillationConfig}
# of a feature bank, and of the reduction beside it
FEATURE_FILES = ["**/*.safetensors"]
RESTART = (
    "repeat the command with `--restart` to make it anew, with all that follows from it, or give another `--output`"
)


@dataclass(frozen=True)
class FeatureSource:
    """Where stage 2's features come from: a teacher trained here, another model, or published files.

    Attributes:
        teacher: recipe of a short-window spotting model to train on the training split first.
        teacher_start: `pretrain`, whose model the teacher starts from; from scratch by default.
        model: a model of transformers, by name or folder.
        clip_s, fps, hop_s: its clips, see `load_extractor`.
        published: files in the match folders, see `import_features`.
        dim: values that are left after standardising and PCA; all of them by default.
    """

    teacher: str | None = None
    teacher_start: str | None = None
    model: str | None = None
    clip_s: float | None = None
    fps: float | None = None
    hop_s: float | None = None
    published: str | None = None
    dim: int | None = None


@dataclass(frozen=True)
class Plan:
    """`train.yaml` of a recipe folder.

    Attributes:
        frames: settings of the frame store.
        sound: store spectrograms of the audio tracks in the frame store, for models with an audio branch.
        features: source of the features for stage 2.
        stages: recipes of the folder to run, in order.
    """

    frames: StoreSettings
    sound: bool = False
    features: FeatureSource | None = None
    stages: Sequence[str] = tuple(STAGES)


@dataclass
class Run:
    """One `comedian train`.

    Attributes:
        folder: the recipe folder, or the name of a shipped one, such as `gfspot-viswin-nano`.
        output: output folder.
        data: root, frames, labels and splits for every stage; a field with its default leaves the recipes' own.
        overrides: stage -> dotted name of a field -> value, from `overrides_of_stages`.
        restart: train the stages again whose settings, data or start have changed since they began.
    """

    folder: Path
    output: Path
    data: DataSection
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    restart: bool = False

    def __post_init__(self):
        self.folder = find_recipe(self.folder)


def overrides_of_stages(words: Sequence[str], seed: int | None = None) -> dict[str, dict[str, Any]]:
    """Sort overrides such as `--finetune.training.num_train_epochs 3` by stage.

    Args:
        words: what the command line holds.
        seed: for every stage that the words give no other.

    Returns:
        Stage -> dotted name -> value.

    Raises:
        InputError: a stage that no recipe folder has, or what `parse_overrides` refuses.
    """
    overrides = {stage: {} if seed is None else {"training.seed": seed} for stage in (*STAGES, TEACHER)}
    for name, value in parse_overrides(words):
        stage, _, field_name = name.partition(".")
        if stage not in overrides:
            raise InputError(f"`--{name}` does not begin with a stage; {suggest(stage, overrides)}")
        overrides[stage][field_name] = value
    return overrides


def train_all(run: Run, stages: Sequence[str] | None = None) -> dict[str, dict]:
    """Run the stages of a recipe folder in order, skipping what is done and continuing what was interrupted.

    Each stage is bound to the weights that it started from: after a change, it and what follows from it are refused, or
    trained anew with `run.restart`.

    `output` gets `frames` (unless the data has its own), a folder for each stage, `features`, and at the end `scores.json`
    and `curves.svg`.

    Args:
        run: what to train, on what, and where it goes.
        stages: some of the plan's stages; all by default.

    Returns:
        Split (`validation`, and `test` where it is annotated) -> official scores.

    Raises:
        InputError: invalid recipes or data, or an output folder that was made from others.
    """
    plan = read_plan(run.folder / "train.yaml")
    stages = plan.stages if stages is None else stages
    for stage in stages:
        if stage not in plan.stages:
            raise InputError(f"`{run.folder}` has no stage `{stage}`; it has {', '.join(plan.stages)}")
    source = plan.features
    if "distill" in stages and source and source.teacher_start not in (None, *stages[: stages.index("distill")]):
        raise InputError(
            f"the teacher starts from `{source.teacher_start}`, which is not among the stages before `distill`"
        )
    if "finetune" not in stages:
        raise InputError("`finetune` is not among the stages: there would be no model to score")
    _check_recipes(run, plan, stages)
    root = folder_of(run.data, "root")
    if run.data.frames is None:
        frames = run.output / "frames"
        run.data = replace(run.data, frames=str(frames))
        prepare(root, frames, plan.frames, sound=plan.sound)
        PartialState().wait_for_everyone()
    if "distill" in stages:
        run.data = replace(run.data, features=str(bank_of(run, plan.features)))
    checkpoint = None
    for number, stage in enumerate(stages, 1):
        PartialState().print(
            f"\n== stage {number} of {len(stages)}: {stage}, {PURPOSES[stage]} -> {run.output / stage}"
        )
        if stage == "distill" and plan.features is not None:
            make_features(run, plan.features)
        run_stage(run, stage, STAGES[stage], checkpoint)
        checkpoint = run.output / stage
    return report(run, stages)


def read_plan(path: Path) -> Plan:
    """Read `train.yaml`.

    Raises:
        InputError: no such file, unknown fields, values of another type.
    """
    content = read_sections(path)
    refuse_unknown(content, [item.name for item in fields(Plan)], f"`{path}`")
    features, sound, stages = content.get("features"), content.get("sound", False), content.get("stages", list(STAGES))
    try:
        for name, section in (("frames", StoreSettings), ("features", FeatureSource)):
            check_fields(content.get(name) or {}, section, f"`{path}`, section `{name}`")
        if not isinstance(stages, list) or not isinstance(sound, bool):
            raise TypeError(f"`stages` is {stages!r} and `sound` {sound!r}; give a list, and true or false")
        refuse_unknown(stages, STAGES, f"`{path}`, section `stages`", "stage")
        return Plan(
            frames=StoreSettings(**content["frames"]),
            sound=sound,
            features=None if features is None else FeatureSource(**features),
            stages=[stage for stage in STAGES if stage in stages],
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"`{path}` does not fit: {error}; see `hub_configs` for examples") from None


def _check_recipes(run: Run, plan: Plan, stages: Sequence[str]) -> None:
    """Read all recipes before any data, so that a mistake in the last one does not show after days."""
    files = {stage: f"{stage}.yaml" for stage in stages}
    if "distill" in stages and plan.features is not None and plan.features.teacher is not None:
        files[TEACHER] = plan.features.teacher
    for stage, values in run.overrides.items():
        # `--seed` is for every stage
        if stage not in files and (names := values.keys() - {"training.seed"}):
            raise InputError(
                f"`--{stage}.{sorted(names)[0]}`: the stage `{stage}` is not run; run are {', '.join(files)}"
            )
    for stage, file_name in files.items():
        make_settings(_load_recipe(run, stage, None, file_name).training, SETTINGS.get(stage, SpottingConfig))


def bank_of(run: Run, source: FeatureSource | None) -> Path:
    """The folder that the features of stage 2 go to."""
    if source is None:
        raise InputError(f"`{run.folder / 'train.yaml'}` says nothing of `features`, which `distill` needs")
    return run.output / ("features" if source.dim is None else "features_reduced")


def make_features(run: Run, source: FeatureSource) -> None:
    """Make the feature bank of the training split, and reduce it; all processes share the halves."""
    data, model = _load_recipe(run, "distill", None).data, source.model
    root = folder_of(data, "root")
    if source.teacher is not None:
        model = str(run.output / TEACHER)
        start = None if source.teacher_start is None else run.output / source.teacher_start
        PartialState().print(f"-- the teacher of `distill`, a model of short windows -> {model}")
        run_stage(run, TEACHER, finetune, start, source.teacher)
    bank = run.output / "features"
    video_ids = matches_of_splits(Path(root), ["train"], data.splits)

    PartialState().print(f"-- features for `distill` -> {bank}")
    facts: dict[str, Any] = {"source": asdict(source), "train": video_ids}
    facts["videos"] = _contents(root, video_ids, find_halves)
    if source.published is not None:
        facts["published files"] = _contents(root, video_ids, partial(find_published, kind=source.published))
        on_main_process(partial(_begin_features, run, bank, facts))
        import_features(root, bank, source.published, video_ids=video_ids)
    else:
        extractor = load_extractor(str(model), clip_s=source.clip_s, fps=source.fps, hop_s=source.hop_s)
        on_main_process(partial(_begin_features, run, bank, facts | {"extractor": extractor.source}))
        extract_features(root, bank, extractor, video_ids=video_ids)
    if source.dim is not None:
        reduce_features(bank, run.output / "features_reduced", source.dim, video_ids)
    PartialState().wait_for_everyone()


def _contents(root: str, video_ids: Sequence[str], find: Callable[[Path], Mapping[int, Path]]) -> dict[str, Any]:
    """Return what identifies the content of one file a half."""
    return {
        f"{video_id}/{half}": content_of(path)
        for video_id in video_ids
        for half, path in find(Path(root) / video_id).items()
    }


def _begin_features(run: Run, bank: Path, facts: Mapping[str, Any]) -> None:
    """Record what a bank is made from, or compare it with what it was begun with."""
    found = find_changes(bank, facts, FEATURE_FILES)
    if found and not run.restart:
        raise RunChanged(bank, found, RESTART)
    if found != "":
        # with a bank that is begun, also the reduction of an earlier one
        for folder in (bank, run.output / "features_reduced"):
            delete_owned(folder, FEATURE_FILES)
    write_facts(bank, facts)


def run_stage(
    run: Run, stage: str, train: Callable[..., Any], checkpoint: Path | None, file_name: str | None = None
) -> None:
    """Run one stage, or continue it; one that is done is left as it is.

    Args:
        run: what to train.
        stage: name of the stage and of its output folder.
        train: the stage's function.
        checkpoint: model of the stage before; from scratch without one.
        file_name: the recipe's, `<stage>.yaml` by default.

    Raises:
        RunChanged: its folder holds a run of other settings, data or start, and `run.restart` is not set.
    """
    recipe = _load_recipe(run, stage, checkpoint, file_name)
    try:
        train(recipe)
    except RunChanged as changed:
        if not run.restart:
            raise RunChanged(changed.folder, changed.found, RESTART) from None
        train(recipe, resume=False)
    PartialState().wait_for_everyone()


def _load_recipe(run: Run, stage: str, checkpoint: Path | None, file_name: str | None = None) -> Recipe:
    """Return the recipe that a stage runs; the arguments are those of [`run_stage`]."""
    data = run.data if stage == "distill" else replace(run.data, features=None)
    given = {name: value for name, value in vars(data).items() if value != getattr(DataSection, name)}
    values: dict[str, Any] = {f"data.{name}": value for name, value in given.items()}
    values["training.output_dir"] = str(run.output / stage)
    values["model.config"] = "config.json" if checkpoint is None else None
    values["model.checkpoint"] = None if checkpoint is None else str(checkpoint)
    values |= run.overrides.get(stage, {})
    path = find_recipe(run.folder / (file_name or f"{stage}.yaml"))
    return make_recipe(read_sections(path), path.parent, values.items())


def report(run: Run, stages: Sequence[str]) -> dict[str, dict]:
    """Collect the last model's scores on validation and test, and draw the learning curve; `scores.json`, `curves.svg`.

    Raises:
        InputError: a split with labels cannot be scored, such as without its frames.
    """
    folder, data = run.output / "finetune", _load_recipe(run, "finetune", None).data
    model = TorchModel(*load_model(str(folder), PartialState().device))
    scores = {}
    # the stage has scored validation itself, unless `comedian tune` has removed what its settings changed
    if (folder / "validation_scores.json").is_file():
        scores["validation"] = read_json(folder / "validation_scores.json")
    for split in [split for split in ("validation", "test") if split not in scores]:
        # an earlier run may have had other matches
        stale = [f"{split}{SCORES_SUFFIX}", f"predictions_{split}.zip"]
        on_main_process(partial(delete_owned, folder, stale))
        if not is_annotated(data, split):
            PartialState().print(f"`{data.root}` has no annotated halves in the split `{split}`: no score on it")
            continue
        (halves,) = load_halves(data, model.config, [split])
        spots = spots_of_halves(score_halves_together(model, halves), halves, model.config)
        scores[split] = average_map_of(spots, halves)
        on_main_process(partial(write_scores, folder, split, scores[split], spots, halves))

    def write() -> None:
        atomic_write_text(run.output / "scores.json", json.dumps(scores, indent=1) + "\n")
        curve = read_curve(folder / "trainer_state.json")
        atomic_write_text(run.output / "curves.svg", draw_curves({" + ".join(stages): curve}))

    on_main_process(write)
    return scores


def on_main_process(work: Callable[[], Any]) -> None:
    """Do something once for all processes while the others wait."""
    state = PartialState()
    if state.is_main_process:
        work()
    state.wait_for_everyone()

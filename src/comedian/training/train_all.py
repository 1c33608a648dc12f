"""All stages of a recipe folder, one after the other: `comedian train`."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from comedian.data.feature_import import import_features
from comedian.data.feature_reduction import reduce_features
from comedian.data.frame_store import StoreSettings, prepare
from comedian.data.soccernet import matches_of_splits
from comedian.errors import InputError
from comedian.evaluation.spotting_evaluator import average_map_of, score_halves, spots_of_halves
from comedian.files import atomic_write_text, read_json
from comedian.inference.feature_extraction import extract_features, load_extractor
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from comedian.training.curves import draw_curves, read_curve
from comedian.training.distill import distill
from comedian.training.finetune import finetune
from comedian.training.pretrain import pretrain
from comedian.training.recipe import DataSection, Recipe, load_recipe, parse_overrides, read_sections
from comedian.training.spotting_trainer import write_scores
from comedian.training.stage import load_halves

# what a recipe folder may hold, in the order of training; each stage starts from the model of the one before
STAGES: dict[str, Callable[[Recipe], Any]] = {
    "pretrain": pretrain,
    "distill": distill,
    "finetune_head": finetune,
    "finetune": finetune,
}
TEACHER = "teacher"


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
        sound: keep sound in the frame store, for models that hear.
        features: where stage 2's features come from.
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
        folder: the recipe folder.
        output: where everything goes.
        data: root, frames, labels and splits for every stage.
        overrides: stage -> dotted name of a field -> value, from `overrides_of_stages`.
    """

    folder: Path
    output: Path
    data: DataSection
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


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
            raise InputError(f"`--{name}` begins with no stage; known: {', '.join(overrides)}")
        overrides[stage][field_name] = value
    return overrides


def train_all(run: Run, stages: Sequence[str] | None = None) -> dict[str, dict]:
    """Run the stages of a recipe folder in order, skipping what is done and continuing what broke off.

    `output` gets `frames` (unless the data has its own), a folder for each stage, `features`, and at the end `scores.json`
    and `curves.svg`.

    Args:
        run: what to train, on what, and where it goes.
        stages: some of the plan's stages; all by default.

    Returns:
        Split (`validation`, and `test` where it is annotated) -> official scores.

    Raises:
        InputError: a recipe or data that cannot be, or an output folder of another recipe.
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
    if run.data.frames is None:
        run.data = replace(run.data, frames=str(run.output / "frames"))
        on_main_process(lambda: prepare(run.data.root, run.data.frames, plan.frames, sound=plan.sound))
    if "distill" in stages:
        run.data = replace(run.data, features=str(bank_of(run, plan.features)))
    checkpoint = None
    for stage in stages:
        if stage == "distill":
            make_features(run, plan.features)
        run_stage(run, stage, STAGES[stage], checkpoint)
        checkpoint = run.output / stage
    return report(run, stages)


def read_plan(path: Path) -> Plan:
    """Read `train.yaml`.

    Raises:
        InputError: no such file, unknown fields.
    """
    content = read_sections(path)
    known = {item.name for item in fields(Plan)}
    if unknown := set(content) - known:
        raise InputError(
            f"`{path}` has the unknown field `{sorted(map(str, unknown))[0]}`; known: {', '.join(sorted(known))}"
        )
    try:
        features = content.get("features")
        return Plan(
            frames=StoreSettings(**content["frames"]),
            sound=content.get("sound", False),
            features=None if features is None else FeatureSource(**features),
            stages=[stage for stage in STAGES if stage in content.get("stages", STAGES)],
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"`{path}` does not fit: {error}; see `hub_configs` for examples") from None


def bank_of(run: Run, source: FeatureSource | None) -> Path:
    """The folder that the features of stage 2 go to."""
    if source is None:
        raise InputError(f"`{run.folder / 'train.yaml'}` says nothing of `features`, which `distill` needs")
    return run.output / ("features" if source.dim is None else "features_reduced")


def make_features(run: Run, source: FeatureSource) -> None:
    """Make the feature bank of the training split, and reduce it."""
    model = source.model
    if source.teacher is not None:
        model = run.output / TEACHER
        start = None if source.teacher_start is None else run.output / source.teacher_start
        run_stage(run, TEACHER, finetune, start, source.teacher)
    bank, reduced = run.output / "features", run.output / "features_reduced"

    def fill() -> None:
        video_ids = matches_of_splits(Path(run.data.root), ["train"], run.data.splits)
        if source.published is not None:
            import_features(run.data.root, bank, source.published, video_ids=video_ids)
        else:
            extractor = load_extractor(str(model), clip_s=source.clip_s, fps=source.fps, hop_s=source.hop_s)
            extract_features(run.data.root, bank, extractor, video_ids=video_ids)
        if source.dim is not None:
            reduce_features(bank, reduced, source.dim, video_ids)

    on_main_process(fill)


def run_stage(
    run: Run, stage: str, train: Callable[[Recipe], Any], checkpoint: Path | None, file_name: str | None = None
) -> None:
    """Run one stage unless its output says that it is done; a run that broke off goes on.

    Args:
        run: what to train.
        stage: name of the stage and of its output folder.
        train: the stage's function.
        checkpoint: model of the stage before; from scratch without one.
        file_name: the recipe's, `<stage>.yaml` by default.
    """
    values = {f"data.{name}": value for name, value in vars(run.data).items() if value is not None}
    values["training.output_dir"] = str(run.output / stage)
    values["model.config"] = "config.json" if checkpoint is None else None
    values["model.checkpoint"] = None if checkpoint is None else str(checkpoint)
    words = [f"--{name}={json.dumps(value)}" for name, value in (values | run.overrides.get(stage, {})).items()]
    recipe = load_recipe(run.folder / (file_name or f"{stage}.yaml"), words)
    # written when a stage is done
    done = run.output / stage / "recipe.yaml"
    if not done.exists():
        train(recipe)
        PartialState().wait_for_everyone()
    elif load_recipe(done) != replace(recipe, folder=done.parent):
        raise InputError(f"`{done.parent}` holds a model of another recipe; give another output or delete it")


def report(run: Run, stages: Sequence[str]) -> dict[str, dict]:
    """Collect the last model's scores on validation and test, and draw the learning curve; `scores.json`, `curves.svg`."""
    folder = run.output / "finetune"
    model = ComedianForActionSpotting.from_pretrained(folder)
    processor = ComedianVideoProcessor.from_pretrained(folder)
    # the stage has scored validation itself
    scores = {"validation": read_json(folder / "validation_scores.json")}
    try:
        (halves,) = load_halves(run.data, model.config.fps, ["test"])
    except InputError:
        # no test split, or one without labels
        pass
    else:
        spots = spots_of_halves(score_halves(model, processor, halves, range(len(halves))), halves, model.config)
        scores["test"] = average_map_of(spots, halves)
        on_main_process(lambda: write_scores(folder, "test", scores["test"], spots, halves))

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

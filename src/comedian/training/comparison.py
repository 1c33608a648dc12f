"""Several runs side by side: the settings that differ, the scores, the spread over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from comedian.errors import InputError
from comedian.files import read_json
from comedian.hub.model_card import SCORES_SUFFIX
from comedian.hub.model_record import read_record
from comedian.training.recipe import read_sections
from comedian.training.run_facts import RUN_FILE_NAME, hash_of, read_facts

SEED = "training.seed"
# paths, which may differ between runs of one kind
PLACES = ("training.output_dir", "data.root", "data.frames", "data.features")
# facts of run.json on the data, which are independent of paths
DATA_FACTS = ("train", "validation", "videos", "annotations", "labels", "frames")


@dataclass(frozen=True)
class ComparedRun:
    """A finished run of stage 3.

    Attributes:
        folder: of the run.
        settings: dotted name -> value, of its recipe; `data` is a hash of what it was trained on, where its `run.json` is
            there.
        scores: `split metric`, such as `validation tight`, -> average-mAP in percent.
        minutes: of training, all stages that led to the weights.
    """

    folder: Path
    settings: Mapping[str, Any]
    scores: Mapping[str, float]
    minutes: float


def read_run(folder: str | Path) -> ComparedRun:
    """Read a finished run from its folder.

    Raises:
        InputError: the folder holds no finished run of stage 3.
    """
    folder = Path(folder)
    paths = sorted(folder.glob(f"*{SCORES_SUFFIX}"))
    if not (folder / "recipe.yaml").is_file() or not paths:
        raise InputError(
            f"`{folder}` holds no finished run of stage 3: no recipe.yaml and scores; give folders of runs"
        )
    scores = {
        f"{path.name.removesuffix(SCORES_SUFFIX)} {metric}": 100 * of_metric["a_mAP"]
        for path in paths
        for metric, of_metric in read_json(path).items()
        if isinstance(of_metric, dict) and "a_mAP" in of_metric
    }
    record = read_record(folder)
    minutes = sum(stage.train_time_s for stage in record.stages) / 60 if record else 0.0
    sections = read_sections(folder / "recipe.yaml")
    if (folder / RUN_FILE_NAME).is_file():
        facts = read_facts(folder)
        sections["data"] = hash_of({name: facts.get(name) for name in DATA_FACTS})[:8]
    return ComparedRun(folder, dict(_flat(sections)), scores, minutes)


def compare_runs(runs: Sequence[ComparedRun]) -> str:
    """Return a Markdown table: one row for each set of runs that differ in nothing but their seed and where files are.

    Columns are the settings in which the rows differ, `data` where they were trained on other data, the scores that any run
    has, as mean ± standard deviation over seeds, and the minutes of training.
    """
    names = sorted({name for run in runs for name in run.settings if name not in (SEED, *PLACES)})
    groups: dict[tuple[str, ...], list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(tuple(repr(run.settings.get(name)) for name in names), []).append(run)
    columns = [index for index in range(len(names)) if len({values[index] for values in groups}) > 1]
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.scores))
    head = ["run", "seeds", *(names[index] for index in columns), *metrics, "minutes"]
    rows = [
        [
            ", ".join(run.folder.name for run in of_group),
            str(len({run.settings.get(SEED) for run in of_group})),
            *(values[index].strip("'") for index in columns),
            *(mean_and_spread([run.scores[metric] for run in of_group if metric in run.scores]) for metric in metrics),
            f"{mean(run.minutes for run in of_group):.0f}",
        ]
        for values, of_group in groups.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def mean_and_spread(values: Sequence[float]) -> str:
    """Return "mean ± standard deviation" to one digit; no spread of one value, "-" of none."""
    if not values:
        return "-"
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _flat(value: Mapping[str, Any], prefix: str = ""):
    """Yield dotted name and value of each field that is not a mapping."""
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item

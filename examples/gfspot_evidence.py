"""Compare what each arm of `reproduce_gfspot.sh` reached: a table with the peer in it, learning curves, raw numbers.

python examples/gfspot_evidence.py WORK/gfspot-conv-small WORK/gfspot-vivit-small --output WORK/results

Each folder is a model's and holds, for each arm and seed, the folder `<arm><seed>` of its stage 3 and its test scores
`<arm><seed>.json`; arms without any are left out.
"""

import argparse
import json
import math
from pathlib import Path
from statistics import mean, stdev

from safetensors import safe_open

from comedian.hub.model_record import read_record
from comedian.training.comparison import mean_and_spread
from comedian.training.curves import draw_curves, read_curve

ARMS = {"scratch": "scratch", "stage1_": "stage 1", "stage2_": "stage 2", "stages12_": "stages 1 + 2"}
METRICS = ("tight", "loose", "at1")
# E2E-Spot (jhong93/spot: RegNetY-200MF, GSM, GRU), trained on the same footage by its public code, one seed
PEER_CELLS = ("E2E-Spot", "scratch", "1", "73.8", "78.2", "70.5", "73.1", "", "4.5 M", "62")
PEER_CURVE = [(2, 0.247), (3, 0.437), (5, 0.546), (7, 0.658), (10, 0.674), (13, 0.703), (16.5, 0.731)]
COLUMNS = ("model", "before stage 3", "seeds", "test tight", "loose", "±0.5 s", "validation tight")
COLUMNS += ("epochs to scratch's best", "weights", "minutes of training")


def main() -> None:
    """Print the table; write `<model>/<arm><seed>.json`, `curves.json` and `curves.svg`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", metavar="DIR", help="folders that reproduce_gfspot.sh filled")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where raw results and figure go")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    print(f"| {' | '.join(PEER_CELLS)} |")
    curves = {"E2E-Spot": [PEER_CURVE]}
    for folder in args.models:
        seeds = {arm: seeds_of(folder, arm) for arm in ARMS}
        runs = {
            arm: [read_curve(folder / f"{arm}{seed}" / "trainer_state.json") for seed in seeds[arm]]
            for arm in ARMS
            if seeds[arm]
        }
        for arm in runs:
            print(row(folder, arm, seeds[arm], runs))
            curves[f"{folder.name}, {ARMS[arm]}"] = runs[arm]
            (args.output / folder.name).mkdir(exist_ok=True)
            for seed in seeds[arm]:
                scores = (folder / f"{arm}{seed}.json").read_text()
                (args.output / folder.name / f"{arm}{seed}.json").write_text(scores)
    (args.output / "curves.json").write_text(json.dumps(curves, indent=1) + "\n")
    means = {name: mean_curve(runs) for name, runs in curves.items()}
    picture = draw_curves(
        {name: [(epoch, score) for epoch, score, _ in points] for name, points in means.items()},
        {name: [spread for *_, spread in points] for name, points in means.items()},
    )
    (args.output / "curves.svg").write_text(picture)


def seeds_of(folder: Path, arm: str) -> list[str]:
    """Seeds of an arm that are scored."""
    return sorted(
        path.stem.removeprefix(arm) for path in folder.glob(f"{arm}*.json") if path.stem[len(arm) :].isdigit()
    )


def row(folder: Path, arm: str, seeds: list[str], runs: dict[str, list[list[tuple[float, float]]]]) -> str:
    """One line of the table."""
    tests = [json.loads((folder / f"{arm}{seed}.json").read_text()) for seed in seeds]
    cells = [mean_and_spread([100 * test[metric]["a_mAP"] for test in tests]) for metric in METRICS]
    cells.append(mean_and_spread([100 * max(score for _, score in run) for run in runs[arm]]))
    best = max((score for _, score, _ in mean_curve(runs.get("scratch", []))), default=0.0)
    reached = [epoch for epoch, score, _ in mean_curve(runs[arm]) if score >= best]
    cells.append(f"{reached[0]:g}" if reached else "not reached")
    cells.append(f"{count_weights(folder / f'{arm}{seeds[0]}') / 1e6:.1f} M")
    cells.append(f"{mean(minutes_of(folder, arm, seed) for seed in seeds):.0f}")
    return f"| {folder.name} | {ARMS[arm]} | {len(seeds)} | {' | '.join(cells)} |"


def minutes_of(folder: Path, arm: str, seed: str) -> float:
    """Minutes of all stages that made a model, the teacher's own where there was one."""
    stages = read_record(folder / f"{arm}{seed}").stages
    if arm in ("stage2_", "stages12_"):
        teacher = read_record(folder / "teacher").stages
        # what teacher and student both started from was trained once
        stages = stages + [stage for stage in teacher if stage not in stages]
    return sum(stage.train_time_s for stage in stages) / 60


def count_weights(folder: Path) -> int:
    """Numbers in a model's weight file."""
    with safe_open(folder / "model.safetensors", "pt") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]
    return sum(math.prod(shape) for shape in shapes)


def mean_curve(runs: list[list[tuple[float, float]]]) -> list[tuple[float, float, float]]:
    """`(epoch, mean, standard deviation)` over runs that were scored at the same epochs."""
    points = []
    for scored in zip(*runs, strict=True):
        scores = [score for _, score in scored]
        points.append((scored[0][0], mean(scores), stdev(scores) if len(scores) > 1 else 0.0))
    return points


if __name__ == "__main__":
    main()

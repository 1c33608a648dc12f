"""Compare what each arm of `reproduce_gfspot.sh` reached: a Markdown table, a figure of learning curves, raw numbers.

python examples/gfspot_evidence.py WORK --output hub_configs/gfspot-viswin-nano/results

WORK holds, for each arm and seed, the folder `<arm><seed>` of its stage 3 and its test scores `<arm><seed>.json`.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

from comedian.training.curves import draw_curves, read_curve

ARMS = {"scratch": "scratch", "stage1_": "stage 1", "stage2_": "stage 2", "stages12_": "stages 1 + 2"}
SEEDS = (0, 1, 2)


def main() -> None:
    """Print the table; write `<arm><seed>.json`, `curves.json` and `curves.svg`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK", help="folder that reproduce_gfspot.sh filled")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where raw results and figure go")
    args = parser.parse_args()
    curves = {arm: [read_curve(args.work / f"{arm}{seed}" / "trainer_state.json") for seed in SEEDS] for arm in ARMS}
    means = {arm: mean_curve(runs) for arm, runs in curves.items()}
    best = max(score for _, score, _ in means["scratch"])
    print(
        "| before stage 3 | test tight | test loose | validation tight | epochs to scratch's best |\n|---|---|---|---|---|"
    )
    args.output.mkdir(parents=True, exist_ok=True)
    for arm, name in ARMS.items():
        tests = [json.loads((args.work / f"{arm}{seed}.json").read_text()) for seed in SEEDS]
        cells = [summarise([test[metric]["a_mAP"] for test in tests]) for metric in ("tight", "loose")]
        cells.append(summarise([max(score for _, score in run) for run in curves[arm]]))
        reached = [epoch for epoch, score, _ in means[arm] if score >= best]
        print(f"| {name} | {' | '.join(cells)} | {f'{reached[0]:g}' if reached else 'not reached'} |")
        for seed, test in zip(SEEDS, tests, strict=True):
            (args.output / f"{arm}{seed}.json").write_text(json.dumps(test, indent=1) + "\n")
    (args.output / "curves.json").write_text(json.dumps(curves, indent=1) + "\n")
    picture = draw_curves(
        {ARMS[arm]: [(epoch, score) for epoch, score, _ in points] for arm, points in means.items()},
        {ARMS[arm]: [spread for *_, spread in points] for arm, points in means.items()},
    )
    (args.output / "curves.svg").write_text(picture)


def mean_curve(runs: list[list[tuple[float, float]]]) -> list[tuple[float, float, float]]:
    """`(epoch, mean, standard deviation)` over runs that were scored at the same epochs."""
    points = []
    for scored in zip(*runs, strict=True):
        scores = [score for _, score in scored]
        points.append((scored[0][0], mean(scores), stdev(scores)))
    return points


def summarise(values: list[float]) -> str:
    """Percent with the standard deviation."""
    return f"{100 * mean(values):.1f} ± {100 * stdev(values):.1f}"


if __name__ == "__main__":
    main()

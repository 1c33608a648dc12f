"""Train a model through all stages of a recipe folder, and score it.

    comedian train gfspot-viswin-nano --data MATCHES --labels labels.txt --output RUN

A recipe folder holds a YAML file for each stage (pretrain, distill, finetune_head, finetune) and `train.yaml`, with the
settings of their frames and features. When rerun, the command skips finished stages and resumes an interrupted one. If
settings, data or an earlier stage have changed, it prints the differences, and needs --restart to train again.
Override a field of a stage: `--finetune.training.num_train_epochs 3 --teacher.training.seed 1`.
Several processes: `accelerate launch -m comedian.cli.main train RECIPE_DIR ...`.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "recipe_dir",
        metavar="RECIPE_DIR",
        type=Path,
        help="folder with train.yaml and the recipes, or the name of a shipped one, such as gfspot-viswin-nano",
    )
    parser.add_argument("--data", required=True, metavar="ROOT", help="matches in SoccerNet's layout")
    parser.add_argument("--output", required=True, metavar="DIR", type=Path, help="output folder of all stages")
    parser.add_argument("--labels", metavar="FILE", help="one label a line; SoccerNet-v2's by default")
    parser.add_argument("--splits", default="auto", help="JSON file of the splits (default: found in ROOT)")
    parser.add_argument("--frames", metavar="STORE", help="an existing frame store (default: made in DIR/frames)")
    parser.add_argument(
        "--stages", nargs="+", metavar="STAGE", help="run only these stages; `finetune` alone trains from scratch"
    )
    parser.add_argument("--seed", type=int, help="random seed of every stage (default: the recipe's)")
    parser.add_argument(
        "--restart",
        action="store_true",
        help="train the stages whose settings, data or start have changed again; the others are kept",
    )
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> None:
    """Train and print the scores."""
    from accelerate import PartialState

    from comedian.cli.recipe_arguments import hide_short_bars
    from comedian.evaluation.reported_events import lines_of, read_reported
    from comedian.training.recipe import DataSection
    from comedian.training.train_all import Run, overrides_of_stages, train_all

    hide_short_bars()
    data = DataSection(root=args.data, frames=args.frames, labels=args.labels, splits=args.splits)
    overrides = overrides_of_stages(args.overrides, args.seed)
    scores = train_all(Run(args.recipe_dir, args.output, data, overrides, args.restart), args.stages)
    for split, metrics in scores.items():
        for metric, values in metrics.items():
            PartialState().print(f"{split} average-mAP {metric}: {100 * values['a_mAP']:.2f} %")
    if counted := read_reported(args.output / "finetune"):
        PartialState().print("\n" + "\n".join(lines_of(*counted)) + "\n")
    PartialState().print(
        f"the model is in {args.output / 'finetune'}, its learning curve in {args.output / 'curves.svg'}"
    )

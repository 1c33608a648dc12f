"""Train a model through all stages of a recipe folder, and score it.

A recipe folder holds a YAML file for each stage (pretrain, distill, finetune_head, finetune) and `train.yaml`, with the
settings of their frames and features. When rerun, the command skips finished stages and resumes an interrupted one. If
settings, data or an earlier stage have changed, it prints the differences, and needs --restart to train again.
Override a field of a stage: `--finetune.training.num_train_epochs 3 --teacher.training.seed 1`.
Several processes: `accelerate launch -m comedian.cli.main train RECIPE_DIR ...`.
"""

import argparse
from pathlib import Path

EXAMPLE = "comedian train gfspot-viswin-nano --data MATCHES --labels labels.txt --output RUN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "recipe_dir",
        metavar="RECIPE_DIR",
        type=Path,
        help="folder with train.yaml and the recipes, or the name of a shipped one, such as gfspot-viswin-nano",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--data", required=True, metavar="ROOT", help="folder of the matches in SoccerNet's layout")
    data.add_argument(
        "--labels",
        metavar="FILE",
        help="label list, one label per line; default: the recipes', else the 17 labels of SoccerNet-v2",
    )
    data.add_argument(
        "--splits",
        metavar="FILE",
        help="JSON file that lists the matches of each split; default: the recipes', else auto: found in ROOT",
    )
    data.add_argument("--frames", metavar="STORE", help="an existing frame store; default: created in DIR/frames")
    parser.add_argument_group("output").add_argument(
        "--output", required=True, metavar="DIR", type=Path, help="output folder of all stages"
    )
    training = parser.add_argument_group("training")
    training.add_argument(
        "--stages",
        nargs="+",
        metavar="STAGE",
        help="run only these stages; `finetune` alone trains from scratch; default: all stages of train.yaml",
    )
    training.add_argument("--seed", metavar="N", type=int, help="random seed of every stage; default: the recipe's")
    training.add_argument(
        "--restart",
        action="store_true",
        help="train stages again whose settings, data or start have changed; the others are kept",
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
    splits = args.splits or DataSection.splits
    data = DataSection(root=args.data, frames=args.frames, labels=args.labels, splits=splits)
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

"""Train a model through all stages of a recipe folder, such as `hub_configs/gfspot-viswin-nano`, and score it.

The folder holds a recipe a stage (pretrain, distill, finetune_head, finetune) and `train.yaml`, which says what frames and
features they need. Given again, the same command skips the stages that are done and resumes one that was interrupted. Where
settings, data or an earlier stage have changed since, it says what, and trains nothing without --restart.
Fields of a stage can be overridden: `--finetune.training.num_train_epochs 3 --teacher.training.seed 1`.
Several processes: `accelerate launch -m comedian.cli.main train RECIPE_DIR ...`.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("recipe_dir", metavar="RECIPE_DIR", type=Path, help="folder with train.yaml and the recipes")
    parser.add_argument("--data", required=True, metavar="ROOT", help="matches in SoccerNet's layout")
    parser.add_argument("--output", required=True, metavar="DIR", type=Path, help="where everything goes")
    parser.add_argument("--labels", metavar="FILE", help="one label a line; SoccerNet-v2's by default")
    parser.add_argument("--splits", default="auto", help="where the splits come from: a JSON file, by default found")
    parser.add_argument("--frames", metavar="STORE", help="a frame store that is there; made in DIR by default")
    parser.add_argument("--stages", nargs="+", metavar="STAGE", help="only these, such as `finetune` from scratch")
    parser.add_argument("--seed", type=int, help="of every stage")
    parser.add_argument(
        "--restart",
        action="store_true",
        help="train anew the stages whose settings, data or start have changed; the others are kept",
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

"""Stage 2: train a backbone to tell the features of a teacher apart, from a YAML recipe and a feature bank.

Any field can be overridden: `--training.num_train_epochs 3 --data.features BANK --model.checkpoint STAGE_1`.
Given again, the same command resumes an interrupted run from its last checkpoint, and leaves a finished one as it is.
Several processes: `accelerate launch examples/distill.py --config recipe.yaml ...`.
"""

import argparse

from comedian.cli.recipe_arguments import add_arguments as add_arguments
from comedian.cli.recipe_arguments import hide_short_bars


def run(args: argparse.Namespace) -> None:
    """Train and say where the backbone is."""
    from accelerate import PartialState

    from comedian.training.distill import distill
    from comedian.training.recipe import load_recipe

    hide_short_bars()
    recipe = load_recipe(args.config, args.overrides)
    distill(recipe, resume=not args.restart)
    PartialState().print(f"the backbone is in {recipe.training['output_dir']}")

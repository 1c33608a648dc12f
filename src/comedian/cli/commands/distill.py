"""Stage 2: contrastive distillation of a teacher's features into a backbone, from a YAML recipe and a feature bank.

Any field of the recipe can be overridden: `--training.num_train_epochs 3 --data.features BANK --model.checkpoint STAGE_1`.
When rerun, the same command resumes an interrupted run from its last checkpoint; a finished run is unchanged.
Several processes: `accelerate launch -m comedian.cli.main distill --config recipe.yaml ...`.
"""

import argparse

from comedian.cli.recipe_arguments import add_arguments as add_arguments
from comedian.cli.recipe_arguments import hide_short_bars

EXAMPLE = "comedian distill --config gfspot-viswin-nano/distill.yaml --data.root MATCHES --data.features BANK"


def run(args: argparse.Namespace) -> None:
    """Train and print the folder of the backbone."""
    from accelerate import PartialState

    from comedian.training.distill import distill
    from comedian.training.recipe import load_recipe

    hide_short_bars()
    recipe = load_recipe(args.config, args.overrides)
    distill(recipe, resume=not args.restart)
    PartialState().print(f"the backbone is in {recipe.training['output_dir']}")

"""Stage 1: train a spatial encoder on one-second clips, without labels, from a YAML recipe.

Any field of the recipe can be overridden: `--training.num_train_epochs 3 --data.root FOLDER --model.overrides.fps 5`.
When rerun, the same command resumes an interrupted run from its last checkpoint; a finished run is unchanged.
Several processes: `accelerate launch -m comedian.cli.main pretrain --config recipe.yaml ...`.
"""

import argparse

from comedian.cli.recipe_arguments import add_arguments as add_arguments
from comedian.cli.recipe_arguments import hide_short_bars

EXAMPLE = "comedian pretrain --config gfspot-viswin-nano/pretrain.yaml --data.root MATCHES --data.frames FRAMES"


def run(args: argparse.Namespace) -> None:
    """Train and print the folder of the encoder."""
    from accelerate import PartialState

    from comedian.training.pretrain import pretrain
    from comedian.training.recipe import load_recipe

    hide_short_bars()
    recipe = load_recipe(args.config, args.overrides)
    pretrain(recipe, resume=not args.restart)
    PartialState().print(f"the spatial encoder is in {recipe.training['output_dir']}")

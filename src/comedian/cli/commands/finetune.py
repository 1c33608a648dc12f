"""Train a model to spot actions, from a YAML recipe with the sections `model`, `data` and `training`.

Any field can be overridden: `--training.num_train_epochs 3 --data.root FOLDER --model.overrides.fps 5`.
A run that broke off goes on from its last checkpoint when the same command is given again.
Several processes: `accelerate launch examples/finetune.py --config recipe.yaml ...`.
"""

import argparse

from comedian.cli.recipe_arguments import add_arguments as add_arguments


def run(args: argparse.Namespace) -> None:
    """Train and print the validation scores."""
    from accelerate import PartialState

    from comedian.training.finetune import finetune
    from comedian.training.recipe import load_recipe

    recipe = load_recipe(args.config, args.overrides)
    scores = finetune(recipe, resume=not args.restart)
    for metric, values in scores.items():
        PartialState().print(f"validation average-mAP {metric}: {100 * values['a_mAP']:.2f} %")
    PartialState().print(f"the model is in {recipe.training['output_dir']}")

"""Arguments of the commands that run one stage from a recipe."""

import argparse


def add_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the command's arguments; `required` is whether there must be a recipe."""
    parser.add_argument(
        "--config",
        required=required,
        metavar="RECIPE",
        help="the YAML recipe: a file, or a shipped one by its name, such as gfspot-conv-small/finetune.yaml",
    )
    parser.add_argument(
        "--restart", action="store_true", help="train anew: delete what an earlier run left in the output folder"
    )
    parser.set_defaults(overrides=[])

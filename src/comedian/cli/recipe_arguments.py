"""Arguments of the commands that run one stage from a recipe."""

import argparse


def add_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the command's arguments; `required` sets whether `--config` is mandatory."""
    parser.add_argument(
        "--config",
        required=required,
        metavar="RECIPE",
        help="YAML recipe: a file, or the name of a shipped recipe, such as gfspot-conv-small/finetune.yaml",
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="start training from scratch: delete the files of an earlier run in the output folder",
    )
    parser.set_defaults(overrides=[])

"""Arguments of the commands that run one stage from a recipe."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--config", required=True, metavar="RECIPE", help="the YAML recipe")
    parser.add_argument("--restart", action="store_true", help="start anew instead of going on from a checkpoint")
    parser.set_defaults(overrides=[])

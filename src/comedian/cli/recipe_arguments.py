"""What the commands that train share: the arguments of a recipe, and a terminal without bars of loading and saving."""

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


def hide_short_bars() -> None:
    """Hide the bars of loading and saving weights and of building tables; downloads keep theirs."""
    from datasets.utils.logging import disable_progress_bar as hide_bars_of_datasets
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    is_asked_for = not are_progress_bars_disabled()
    hide_bars_of_datasets()
    logging.disable_progress_bar()
    # which transformers hides too
    if is_asked_for:
        enable_progress_bars()

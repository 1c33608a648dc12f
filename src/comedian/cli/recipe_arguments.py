"""What the commands that train share: the arguments of a recipe, and a terminal without bars of loading and saving."""

import argparse


def add_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the command's arguments; `required` sets whether `--config` is mandatory."""
    parser.add_argument_group("recipe").add_argument(
        "--config",
        required=required,
        metavar="RECIPE",
        help="YAML recipe: a file, or the name of a shipped recipe, such as gfspot-conv-small/finetune.yaml",
    )
    parser.add_argument_group("resuming").add_argument(
        "--restart",
        action="store_true",
        help="delete the files of an earlier run in the output folder and train again; default: resume it",
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

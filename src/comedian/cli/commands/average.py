"""Average the weights of several checkpoints of one run.

The mean of the last checkpoints often scores slightly higher than each of them, at the same inference cost. Thresholds are
not copied: choose new ones with `comedian tune`.
"""

import argparse
from pathlib import Path

from comedian.errors import InputError

EXAMPLE = "comedian average runs/finetune/checkpoint-* --output averaged"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `comedian average`."""
    parser.add_argument("checkpoints", metavar="CKPT", nargs="+", type=Path, help="folders of spotting models")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="new or empty folder")


def run(args: argparse.Namespace) -> None:
    """Average the weights, and save the model with its code, processor and record."""
    from comedian.conversion.model_folder import check_output_dir, save_model

    check_output_dir(args.output)
    for folder in args.checkpoints:
        if not folder.exists():
            raise InputError(f"`{folder}` does not exist; name the checkpoints of a run, such as RUN/checkpoint-*")

    from comedian.conversion.averaging import average_models
    from comedian.hub.model_record import record_of_average
    from comedian.inference.torch_model import load_model

    first, *others = map(str, args.checkpoints)
    model, processor = load_model(first, "cpu")
    average = average_models(model, ((name, load_model(name, "cpu")[0]) for name in others))
    save_model(average, processor, record_of_average(args.checkpoints), args.output)
    print(f"{args.output}: the mean of {len(args.checkpoints)} checkpoints")

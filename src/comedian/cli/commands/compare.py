"""Compare finished runs of stage 3: settings that differ, scores, spread over seeds.

Runs on the same data that differ only in their seed share a row, with the mean and the standard deviation of their scores
(average-mAP, in percent).
"""

import argparse
from pathlib import Path

EXAMPLE = "comedian compare RUNS/scratch0 RUNS/scratch1 RUNS/pretrained0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `comedian compare`."""
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path, help="output folders of `comedian finetune` or `train`"
    )


def run(args: argparse.Namespace) -> None:
    """Print a Markdown table."""
    from comedian.training.comparison import compare_runs, read_run

    # `comedian train` leaves its model one folder below
    folders = (path / "finetune" if (path / "finetune" / "recipe.yaml").is_file() else path for path in args.runs)
    print(compare_runs([read_run(folder) for folder in folders]))

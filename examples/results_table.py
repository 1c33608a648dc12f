"""Turn the score files of several seeds into the Markdown table of the README.

python examples/results_table.py --labels labels.txt seed0.json seed1.json seed2.json
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

from comedian.soccernet.labels import read_label_list


def main() -> None:
    """Print mean and standard deviation of each metric, over all and for each label."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", nargs="+", type=Path, help="files that `comedian evaluate --output` wrote")
    parser.add_argument("--labels", type=Path, required=True, help="the labels, one per line")
    args = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in args.scores]
    metrics = list(runs[0])
    print(f"| label | {' | '.join(metrics)} |\n|---|{'---|' * len(metrics)}")
    cells = [summarise([run[metric]["a_mAP"] for run in runs]) for metric in metrics]
    print(f"| **all** | {' | '.join(f'**{cell}**' for cell in cells)} |")
    for index, label in enumerate(read_label_list(args.labels)):
        cells = [summarise([run[metric]["a_mAP_per_class"][index] for run in runs]) for metric in metrics]
        print(f"| {label} | {' | '.join(cells)} |")


def summarise(values: list[float]) -> str:
    """Percent, with the standard deviation where there are several runs."""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()

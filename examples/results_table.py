"""Turn the score files of several seeds into the Markdown table of the README.

python examples/results_table.py --labels labels.txt seed0.json seed1.json seed2.json
"""

import argparse
import json
from pathlib import Path

from comedian.soccernet.labels import read_label_list
from comedian.training.comparison import mean_and_spread


def main() -> None:
    """Print mean and standard deviation of each metric, over all and for each label."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", nargs="+", type=Path, help="files that `comedian evaluate --output` wrote")
    parser.add_argument("--labels", type=Path, required=True, help="the labels, one per line")
    args = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in args.scores]
    metrics = list(runs[0])
    print(f"| label | {' | '.join(metrics)} |\n|---|{'---|' * len(metrics)}")
    cells = [mean_and_spread([100 * run[metric]["a_mAP"] for run in runs]) for metric in metrics]
    print(f"| **all** | {' | '.join(f'**{cell}**' for cell in cells)} |")
    for index, label in enumerate(read_label_list(args.labels)):
        cells = [mean_and_spread([100 * run[metric]["a_mAP_per_class"][index] for run in runs]) for metric in metrics]
        print(f"| {label} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

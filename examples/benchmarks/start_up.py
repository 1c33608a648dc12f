"""How long it takes to begin: `comedian --help` and `import comedian`, and what the imports of other packages take.

python examples/benchmarks/start_up.py

Whole processes, in turn, medians.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from common import interleaved, machine

WAYS = {
    "python that does nothing": [sys.executable, "-c", "pass"],
    "comedian --help": [str(Path(sys.executable).with_name("comedian")), "--help"],
    "comedian spot --help": [str(Path(sys.executable).with_name("comedian")), "spot", "--help"],
    "import comedian": [sys.executable, "-c", "import comedian"],
    "import torch": [sys.executable, "-c", "import torch"],
    "models": [sys.executable, "-c", "from comedian.models import ComedianConfig"],
}


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    runs = {
        name: lambda words=words: subprocess.run(words, check=True, capture_output=True)
        for name, words in WAYS.items()
    }
    print("| what | s |\n|---|---|")
    for name, time_s in interleaved(runs, args.repeats).items():
        print(f"| {name} | {time_s:.2f} |")
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()

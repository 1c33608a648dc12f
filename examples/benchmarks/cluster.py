"""Hours and bytes of many matches on many processes, from the measured rates in the README beside this file.

python examples/benchmarks/cluster.py --page examples/guides/how_to/cluster.md

Nothing is measured here. A process is what the rates were measured with: two cores, no GPU. Halves are of 45 minutes and are
not divided, so the slowest process has the number of halves a process, rounded up. The file system is taken to keep up.
"""

import argparse
import math
import re
from pathlib import Path

from comedian.models import ComedianConfig
from comedian.soccernet.labels import SOCCERNET_V2_LABELS

RATES = Path(__file__).with_name("README.md")
# the beginnings of the rows that the rates are read from
SPOTTING, PREPARE = "| a 45-minute half, ViViT-T, from file to events |", "| `comedian prepare` |"
HALF_S, HALVES_A_MATCH = 45 * 60, 2
# a league of 20 teams, each against each other one at home and away
SIZES = {"SoccerNet": 500, "a league's season": 20 * 19, "100 000 matches": 100_000}
PROCESSES = {"SoccerNet": (1, 16), "a league's season": (1, 16), "100 000 matches": (16, 1000)}
HEADER = "| data | matches | processes | `prepare`, hours | `spot`, hours | frames | scores |"


def main() -> None:
    """Print the table; put it into a page if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="a page that holds the table: its rows are written anew")
    arguments = parser.parse_args()
    table = make_table(RATES.read_text())
    print(table)
    if arguments.page:
        arguments.page.write_text(with_table(arguments.page.read_text(), table))


def make_table(rates: str) -> str:
    """Return the Markdown table that follows from a README with measured rates."""
    spotting, prepare = rate_of(rates, SPOTTING, "x real time"), rate_of(rates, PREPARE, "x")
    frames_mb = rate_of(rates, PREPARE, " MB")
    lines = [HEADER, "|---|" + "---:|" * (HEADER.count("|") - 2)]
    for name, matches in SIZES.items():
        halves = HALVES_A_MATCH * matches
        for processes in PROCESSES[name]:
            slowest_h = math.ceil(halves / processes) * HALF_S / 3600
            cells = [name, number(matches), number(processes)]
            cells += [hours(slowest_h / prepare), hours(slowest_h / spotting)]
            cells += [size(halves * frames_mb * 1e6), size(halves * score_bytes())]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rate_of(rates: str, row: str, unit: str) -> float:
    """Return the number before a unit in the column "ours" of a row of the README's table."""
    line = next((line for line in rates.splitlines() if line.startswith(row)), "")
    _, _, ours = line.removeprefix(row).partition("|")
    if not (found := re.search(rf"([\d.]+){unit}", ours.partition("|")[0])):
        raise SystemExit(f"{RATES} has no row `{row}` with a number of `{unit.strip()}` in the third column")
    return float(found[1])


def score_bytes() -> float:
    """Bytes of the scores of a half: float32, one a step and label."""
    config = ComedianConfig.published("vivit-tiny", id2label=dict(enumerate(SOCCERNET_V2_LABELS)))
    return HALF_S * config.score_rate * config.num_labels * 4


def number(value: int) -> str:
    """`100 000`."""
    return f"{value:,}".replace(",", " ")


def hours(value: float) -> str:
    """Hours with two digits."""
    return f"{value:.2g}" if value < 100 else number(round(value))


def size(value: float) -> str:
    """Bytes in the largest unit that leaves a number from 1."""
    unit = max(0, min(int(math.log10(value) // 3), 5))
    return f"{value / 1000**unit:.3g} {['B', 'kB', 'MB', 'GB', 'TB', 'PB'][unit]}"


def with_table(page: str, table: str) -> str:
    """Return a page with another table in place of the one of the same header."""
    pattern = re.compile(re.escape(HEADER) + r"(\n\|.*)*")
    if not pattern.search(page):
        raise SystemExit(f"the page holds no table `{HEADER}`")
    return pattern.sub(lambda _: table, page)


if __name__ == "__main__":
    main()

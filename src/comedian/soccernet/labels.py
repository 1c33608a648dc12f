"""SoccerNet's label lists, and label lists in files: one label per line."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from comedian.errors import CONTROL, InputError
from comedian.files import read_text

# The order is the official scorer's.
SOCCERNET_V2_LABELS = (
    "Penalty",
    "Kick-off",
    "Goal",
    "Substitution",
    "Offside",
    "Shots on target",
    "Shots off target",
    "Clearance",
    "Ball out of play",
    "Throw-in",
    "Foul",
    "Indirect free-kick",
    "Direct free-kick",
    "Corner",
    "Yellow card",
    "Red card",
    "Yellow->red card",
)


BALL_LABELS_2 = ("PASS", "DRIVE")


BALL_LABELS_12 = (
    "PASS",
    "DRIVE",
    "HEADER",
    "HIGH PASS",
    "OUT",
    "CROSS",
    "THROW IN",
    "SHOT",
    "BALL PLAYER BLOCK",
    "PLAYER SUCCESSFUL TACKLE",
    "FREE KICK",
    "GOAL",
)


def read_label_list(path: str | Path) -> tuple[str, ...]:
    """Read a label list: one label per line, in the order of the model's outputs; blank lines are ignored.

    Raises:
        InputError: the file cannot be read, contains no label or a label twice.
    """
    labels = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not labels:
        raise InputError(f"`{path}` contains no labels; write one per line")
    check_label_list(labels, f"`{path}`")
    return labels


def check_label_list(labels: Sequence[str], source: str) -> None:
    """Raise `InputError` naming `source` if a label occurs twice in `labels`, or is not a single line of text."""
    if odd := next(filter(CONTROL.search, labels), None):
        raise InputError(f"{source} has the label {odd!r}; a label is one line without control characters")
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        raise InputError(f"{source} lists {repeated[0]!r} more than once")

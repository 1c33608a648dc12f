"""What a model reports to people, counted on validation and said in plain words."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comedian.evaluation.calibration import MIN_EVENTS, RIGHT_TOLERANCE_S, Judged
from comedian.files import atomic_write_text, read_json
from comedian.models import ComedianConfig
from comedian.models.postprocessing_comedian import calibrate

REPORTED_FILE_NAME = "validation_reported.json"
# a model with a lower F1 over all labels says that it is weak
WEAK_F1 = 0.5
# of a model that is weak, the labels that are worst are named
MAX_NAMED = 8


@dataclass(frozen=True)
class ReportedEvents:
    """Events of one label, or of several together.

    Attributes:
        there: events that the labels say.
        reported: events that the model reports: candidates from its threshold on.
        right: reported ones that are an event's, one to one.
    """

    there: int
    reported: int
    right: int

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision; 0 where nothing is there and nothing reported."""
        return 2 * self.right / max(self.there + self.reported, 1)


def count_reported(judged: Sequence[Judged], config: ComedianConfig) -> dict[str, ReportedEvents]:
    """Count what a model reports.

    Args:
        judged: one entry a label of the configuration, in its order; raw scores.
        config: with the thresholds and the calibration that events are reported by.

    Returns:
        Label -> counts.
    """
    pairs = config.label_calibration or [None] * config.num_labels
    counts = {}
    for label, of_label, threshold, pair in zip(
        config.label_names, judged, config.reporting_thresholds, pairs, strict=True
    ):
        scores = of_label.scores if pair is None else calibrate(of_label.scores[:, None], [pair])[:, 0]
        passing = scores >= threshold
        counts[label] = ReportedEvents(of_label.num_events, int(passing.sum()), int(of_label.right[passing].sum()))
    return counts


def write_reported(
    folder: Path, after: Mapping[str, ReportedEvents], before: Mapping[str, ReportedEvents] | None = None
) -> None:
    """Write the counts of validation beside a model, and those of the start model where they were made."""
    content = {"after": after, "before": before}
    counts = {
        name: {label: asdict(counts) for label, counts in of.items()} for name, of in content.items() if of is not None
    }
    atomic_write_text(folder / REPORTED_FILE_NAME, json.dumps(counts, indent=1) + "\n")


def read_reported(folder: Path) -> tuple[dict[str, ReportedEvents], dict[str, ReportedEvents] | None] | None:
    """Read the counts beside a model, and those of the start model; None where there are none.

    `comedian tune` removes them where it changes what is reported.
    """
    path = folder / REPORTED_FILE_NAME
    if not path.is_file():
        return None
    content = read_json(path)
    before = content.get("before")
    return _from_dicts(content["after"]), None if before is None else _from_dicts(before)


def _from_dicts(counts: Mapping[str, Mapping[str, Any]]) -> dict[str, ReportedEvents]:
    return {label: ReportedEvents(**of_label) for label, of_label in counts.items()}


def add_up(counts: Iterable[ReportedEvents]) -> ReportedEvents:
    """All labels as one."""
    rows = np.array([(of.there, of.reported, of.right) for of in counts], dtype=np.int64).reshape(-1, 3)
    return ReportedEvents(*rows.sum(axis=0).tolist())


def lines_of(
    after: Mapping[str, ReportedEvents], before: Mapping[str, ReportedEvents] | None = None, place: str = "validation"
) -> list[str]:
    """Say in lines what a model finds, label by label.

    Args:
        after: the model's, see [`count_reported`].
        before: those of the model that its training started from, of the labels that it has; None where there is none.
        place: what they were counted on.
    """
    together = add_up(after.values())
    width = max(map(len, [*after, "all labels"]))
    heads = [f"{'label':<{width}}", f"{'found of those there':<22}", f"{'right of those reported':<23}"]
    if before:
        heads += [f"{'before: found':<20}", "before: right"]
    lines = [
        f"events on {place}; found and right are those within {RIGHT_TOLERANCE_S / 2:g} s of a labelled one",
        "  ".join(heads).rstrip(),
    ]
    rows = dict(after) if len(after) == 1 else {**after, "all labels": together}
    old = dict(before or {})
    if before and set(before) == set(after):
        old["all labels"] = add_up(before.values())
    for label, counts in rows.items():
        cells = [f"{label:<{width}}", f"{_share(counts.right, counts.there):<22}"]
        cells.append(f"{_share(counts.right, counts.reported):<23}")
        if before and label in old:
            cells += [
                f"{_share(old[label].right, old[label].there):<20}",
                _share(old[label].right, old[label].reported),
            ]
        elif before and label in after:
            cells.append("not a label of the start model")
        lines.append("  ".join(cells).rstrip())
    if few := [f"{label} ({counts.there})" for label, counts in after.items() if counts.there < MIN_EVENTS]:
        lines.append(f"too few labelled events to tell, fewer than {MIN_EVENTS} on {place}: {', '.join(few)}")
    if together.f1 < WEAK_F1:
        lines.append(_weakness(after, together))
    return lines


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / whole:.0f} %)" if whole else "none"


def _weakness(after: Mapping[str, ReportedEvents], together: ReportedEvents) -> str:
    missed, wrong = together.there - together.right, together.reported - together.right
    weak = sorted((label for label in after if after[label].f1 < WEAK_F1), key=lambda label: after[label].f1)
    more = f" and {len(weak) - MAX_NAMED} more" if len(weak) > MAX_NAMED else ""
    return (
        f"the model is weak: it misses {missed} of {together.there} events, and {wrong} of {together.reported} that it "
        f"reports are wrong; label more events, above all of {', '.join(weak[:MAX_NAMED])}{more}"
    )

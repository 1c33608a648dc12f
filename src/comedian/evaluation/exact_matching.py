"""Which spots are hits: the official metric's rule, on exact times."""

from collections.abc import Mapping, Sequence
from typing import Any

from comedian.soccernet.annotations import Annotation


def match_spots(
    spots: Sequence[Mapping[str, Any]], annotations: Sequence[Annotation], tolerance_s: float
) -> list[int | None]:
    """Pair annotations and spots of a match one to one, each within its label and half.

    As in the official metric, the annotations of a label choose in the order of time: each takes the spot with the
    highest score, the earliest of equals, of those at most `tolerance_s / 2` away that are left. The pairs of the spots
    from some score on are therefore among the pairs of all. The official metric rounds times to its frames first; here
    they are exact to the millisecond.

    Args:
        spots: `label`, `timestamp_s`, `half` and `score`.
        annotations: the events that happened.
        tolerance_s: full width of the window, in seconds.

    Returns:
        For each annotation, the index of its spot, or None for a miss. Spots without an annotation are false alarms.
    """
    candidates: dict[tuple[str, int], list[int]] = {}
    for index in sorted(range(len(spots)), key=lambda index: spots[index]["timestamp_s"]):
        candidates.setdefault((spots[index]["label"], spots[index]["half"]), []).append(index)
    pairs: list[int | None] = [None] * len(annotations)
    for number in sorted(range(len(annotations)), key=lambda number: annotations[number].position_ms):
        annotation = annotations[number]
        left = candidates.get((annotation.label, annotation.half), [])
        near = [
            index
            for index in left
            if abs(round(1000 * spots[index]["timestamp_s"]) - annotation.position_ms) <= 500 * tolerance_s
        ]
        if near:
            best = max(near, key=lambda index: spots[index]["score"])
            pairs[number] = best
            left.remove(best)
    return pairs

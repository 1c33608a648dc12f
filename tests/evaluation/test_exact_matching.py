"""Hits and misses against the official package, whose rule it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from SoccerNet.Evaluation.ActionSpotting import compute_class_scores

from comedian.evaluation.exact_matching import match_spots
from comedian.soccernet.annotations import Annotation

NUM_FRAMES = 20
events = st.dictionaries(st.integers(0, NUM_FRAMES - 1), st.sampled_from((0.1, 0.4, 0.4001, 0.9)), max_size=12)


def spot(timestamp_s, score, label="Goal", half=1):
    return {"label": label, "timestamp_s": timestamp_s, "half": half, "score": score}


def annotation(timestamp_s, label="Goal", half=1):
    return Annotation(label, half, round(1000 * timestamp_s), "home", "visible")


def official_hits(truth_frames, scores, tolerance_frames) -> list[int]:
    """Frames of the spots that the official package counts as hits."""
    target, detection = np.zeros(NUM_FRAMES), np.full(NUM_FRAMES, -1.0)
    target[list(truth_frames)] = 1
    for frame, score in scores.items():
        detection[frame] = score
    found, _, _ = compute_class_scores(target, np.ones(NUM_FRAMES), detection, tolerance_frames)
    return [frame for frame, hit in zip(np.flatnonzero(detection >= 0), found[:, 1]) if hit]


@settings(max_examples=200, deadline=None)
@given(events, events, st.sampled_from((2, 4, 6, 10)), st.randoms())
def test_hits_are_the_official_ones(truths, scores, tolerance, random):
    spots = [spot(frame, score) for frame, score in scores.items()]
    annotations = [annotation(frame) for frame in truths]
    random.shuffle(spots), random.shuffle(annotations)
    pairs = match_spots(spots, annotations, tolerance)
    taken = [index for index in pairs if index is not None]
    assert len(set(taken)) == len(taken)
    assert sorted(spots[index]["timestamp_s"] for index in taken) == official_hits(truths, scores, tolerance)
    for found, index in zip(annotations, pairs):
        assert index is None or abs(spots[index]["timestamp_s"] - found.timestamp_s) <= tolerance / 2
    # the pairs of the better spots are among those of all
    kept = [entry for entry in spots if entry["score"] >= 0.4]
    hits = {number: spots[index] for number, index in enumerate(pairs) if index is not None}
    assert {
        number: kept[index]
        for number, index in enumerate(match_spots(kept, annotations, tolerance))
        if index is not None
    } == {number: entry for number, entry in hits.items() if entry["score"] >= 0.4}


@pytest.mark.parametrize(
    "found, pairs",
    [
        ([spot(12.5, 0.1)], [0]),
        ([spot(12.501, 0.1)], [None]),
        ([spot(7.5, 0.1)], [0]),
        ([spot(10, 0.9, label="Foul")], [None]),
        ([spot(10, 0.9, half=2)], [None]),
        ([], [None]),
    ],
    ids=["edge", "beyond", "before", "label", "half", "nothing"],
)
def test_label_half_and_tolerance(found, pairs):
    assert match_spots(found, [annotation(10)], 5) == pairs

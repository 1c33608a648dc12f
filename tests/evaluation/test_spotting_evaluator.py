"""Thresholds and flat metrics against hand-made cases."""

import numpy as np
import pytest

from comedian.evaluation.spotting_evaluator import average_map_of, choose_thresholds, flatten_scores


class Halves:
    """Just the annotations of a HalfDataset: two halves of one match."""

    labels = ("a", "b")
    rows = [{"video_id": "m", "half": 1}, {"video_id": "m", "half": 2}]
    times = [[("a", 10.0), ("a", 50.0)], [("a", 30.0), ("b", 5.0)]]

    def events(self, index):
        events = self.times[index]
        return np.array([t for _, t in events]), np.array([self.labels.index(label) for label, _ in events])

    def references(self):
        return {
            "m": [
                {
                    "gameTime": f"{index + 1} - 00:00",
                    "label": label,
                    "position": str(int(t * 1000)),
                    "visibility": "visible",
                }
                for index, events in enumerate(self.times)
                for label, t in events
            ]
        }


def spot(label, timestamp_s, score, half=1):
    return {"label": label, "timestamp_s": timestamp_s, "half": half, "score": score}


def test_the_threshold_is_where_f1_is_best():
    # of label a: right at .9, .7 and .4, wrong at .5 (a second spot of one event) and .1
    spots = {
        0: [spot("a", 10.5, 0.9), spot("a", 9.0, 0.5), spot("a", 52.4, 0.4), spot("a", 100.0, 0.1)],
        1: [spot("a", 29.0, 0.7, 2)],
    }
    # F1 down to .9: 2/4, .7: 4/5, .5: 4/6, .4: 6/7, .1: 6/8
    assert choose_thresholds(spots, Halves(), ["a", "b"]) == [pytest.approx(0.4), 0.5]


def test_a_spot_further_than_the_tolerance_is_wrong():
    spots = {0: [spot("a", 12.6, 0.9)], 1: [spot("b", 7.4, 0.25, 2)]}
    assert choose_thresholds(spots, Halves(), ["a", "b"]) == [0.5, pytest.approx(0.25)]


def test_perfect_spots_score_one():
    spots = {0: [spot("a", 10.0, 0.9), spot("a", 50.0, 0.8)], 1: [spot("a", 30.0, 0.9, 2), spot("b", 5.0, 0.9, 2)]}
    scores = average_map_of(spots, Halves())
    assert flatten_scores(scores, "eval_") == {"eval_average_map_tight": 1.0, "eval_average_map_loose": 1.0}

"""Thresholds and flat metrics against hand-made cases."""

import numpy as np

from comedian.evaluation.spotting_evaluator import average_map_of, flatten_scores, judge_spots_of_halves


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


def test_which_spots_are_right():
    spots = {
        0: [spot("a", 10.5, 0.9), spot("a", 9.0, 0.5), spot("a", 52.4, 0.4), spot("a", 100.0, 0.1)],
        1: [spot("a", 29.0, 0.7, 2), spot("b", 7.6, 0.25, 2)],
    }
    a, b = judge_spots_of_halves(spots, Halves(), ["a", "b"])
    # a second spot of one event is wrong, and so is one of another half or further than 2.5 s
    np.testing.assert_allclose(a.scores, [0.9, 0.7, 0.5, 0.4, 0.1])
    assert a.right.tolist() == [True, True, False, True, False] and a.num_events == 3
    assert b.right.tolist() == [False] and b.num_events == 1
    b, a = judge_spots_of_halves(spots, Halves(), ["b", "a"])
    assert a.num_events == 3 and len(b.scores) == 1
    assert [len(judged.scores) for judged in judge_spots_of_halves({0: [], 1: []}, Halves(), ["a", "b"])] == [0, 0]


def test_perfect_spots_score_one():
    spots = {0: [spot("a", 10.0, 0.9), spot("a", 50.0, 0.8)], 1: [spot("a", 30.0, 0.9, 2), spot("b", 5.0, 0.9, 2)]}
    scores = average_map_of(spots, Halves())
    assert flatten_scores(scores, "eval_") == {"eval_average_map_tight": 1.0, "eval_average_map_loose": 1.0}

"""The figures of the evaluation report against naive loops over the events and against the official metric."""

import numpy as np
import pytest

from comedian.evaluation.diagnosis import (
    TOLERANCES_S,
    confusion_matrix,
    diagnose,
    error_histogram,
    find_examples,
    timing_errors,
)
from comedian.evaluation.grid_matching import best_thresholds, count_at, found_events, match_events, precision_recall
from comedian.evaluation.soccernet_average_map.soccernet_average_map import METRICS, THRESHOLDS, average_map

LABELS = ("Goal", "Corner", "Foul", "Never happens")
FRAMERATE = 2
TOLERANCE_S = 5


def event(label, half, time_s, visible=True):
    return {
        "gameTime": f"{half} - {int(time_s) // 60:02d}:{int(time_s) % 60:02d}",
        "label": label,
        "position": str(round(1000 * time_s)),
        "visibility": "visible" if visible else "not shown",
    }


def spot(label, half, time_s, score):
    return {"label": label, "half": str(half), "position": str(round(1000 * time_s)), "confidence": str(score)}


def random_match(rng, span_s=90):
    """Crowded events and predictions, some of another label than the event, no two of a label in one frame."""
    references, predictions, used = [], [], set()

    def add(events, kind, make, label, half, time_s, *rest):
        cell = (kind, label, half, int(FRAMERATE * time_s))
        if time_s >= 0 and cell not in used:
            used.add(cell)
            events.append(make(label, half, time_s, *rest))

    for _ in range(30):
        label, half, time_s = (
            str(rng.choice([*LABELS[:3], "Unknown"])),
            int(rng.integers(1, 3)),
            rng.uniform(0, span_s),
        )
        add(references, "event", event, label, half, time_s, rng.random() < 0.7)
        for _ in range(rng.integers(0, 3)):
            wrong = str(rng.choice(LABELS[:3])) if rng.random() < 0.3 else label
            score = float(np.round(rng.random(), 2))
            add(predictions, "spot", spot, wrong, half, time_s + rng.normal(0, 2), score)
    return references, predictions


@pytest.fixture(scope="module")
def matches():
    rng = np.random.default_rng(1)
    references, predictions = zip(*(random_match(rng) for _ in range(6)))
    return references, predictions


class Naive:
    """The definitions, word for word, one event at a time; `threshold` drops predictions before they are matched."""

    def __init__(self, matches, threshold=0.0, tolerance_s=TOLERANCE_S, framerate=FRAMERATE):
        self.events, self.spots = [], []
        for match, (references, predictions) in enumerate(zip(*matches)):
            for item in references:
                time_s = int(item["position"]) / 1000
                self.events.append(
                    {"match": match, "half": int(item["gameTime"][0]), "label": item["label"], "time_s": time_s}
                    | {"frame": int(framerate * time_s), "visible": item["visibility"] == "visible", "spot": None}
                )
            for item in predictions:
                time_s, score = int(item["position"]) / 1000, float(item["confidence"])
                if score >= threshold and item["label"] in LABELS:
                    self.spots.append(
                        {"match": match, "half": int(item["half"]), "label": item["label"], "time_s": time_s}
                        | {"frame": int(framerate * time_s), "score": score, "event": None}
                    )
        self.events = [event for event in self.events if event["label"] in LABELS]
        self.events.sort(
            key=lambda event: (LABELS.index(event["label"]), event["match"], event["half"], event["frame"])
        )
        self.spots.sort(key=lambda spot: (LABELS.index(spot["label"]), spot["match"], spot["half"], spot["frame"]))
        self.reach = tolerance_s * framerate / 2
        for event in self.events:
            left = [spot for spot in self.spots if spot["event"] is None and spot["label"] == event["label"]]
            left = [spot for spot in left if self.near(spot, event)]
            if left:
                best = max(left, key=lambda spot: (spot["score"], -spot["frame"]))
                best["event"], event["spot"] = event, best

    def near(self, spot, event):
        same = (spot["match"], spot["half"]) == (event["match"], event["half"])
        return same and abs(spot["frame"] - event["frame"]) <= self.reach

    def what_was_there(self, spot):
        if spot["event"]:
            return LABELS.index(spot["label"])
        near = [event for event in self.events if self.near(spot, event)]
        if any(event["label"] == spot["label"] for event in near):
            return len(LABELS)
        if not near:
            return len(LABELS) + 1
        nearest = min(
            near,
            key=lambda event: (
                abs(event["frame"] - spot["frame"]),
                event["frame"],
                LABELS.index(event["label"]),
            ),
        )
        return LABELS.index(nearest["label"])


def match(matches, **options):
    return match_events(*matches, LABELS, **({"framerate": FRAMERATE, "tolerance_s": TOLERANCE_S} | options))


@pytest.mark.parametrize(("framerate", "tolerance_s"), [(2, 5), (2, 1), (2, 60), (3, 2), (25, 1)])
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.83])
def test_hits_and_errors_are_those_of_the_definition(matches, framerate, tolerance_s, threshold):
    matching = match(matches, framerate=framerate, tolerance_s=tolerance_s)
    naive = Naive(matches, threshold, tolerance_s, framerate)
    thresholds = np.full(len(LABELS), threshold)
    counts = count_at(matching, thresholds)
    for index, label in enumerate(LABELS):
        events = [event for event in naive.events if event["label"] == label]
        spots = [spot for spot in naive.spots if spot["label"] == label]
        hits = [spot for spot in spots if spot["event"]]
        assert [column[index] for column in counts] == [len(events), len(spots), len(hits)]
        assert counts.precision[index] == pytest.approx(len(hits) / len(spots) if spots else 0)
        assert counts.recall[index] == pytest.approx(len(hits) / len(events) if events else 0)
        f1 = 2 * len(hits) / (len(spots) + len(events)) if hits else 0
        assert counts.f1[index] == pytest.approx(f1)
    assert counts.total.num_hits == sum(spot["event"] is not None for spot in naive.spots) > 0
    assert found_events(matching, thresholds).tolist() == [event["spot"] is not None for event in naive.events]

    errors_s, labels = timing_errors(matching, thresholds)
    pairs = [(event["spot"], event) for event in naive.events if event["spot"]]
    assert errors_s == pytest.approx([spot["time_s"] - event["time_s"] for spot, event in pairs])
    assert labels.tolist() == [LABELS.index(event["label"]) for _, event in pairs]


@pytest.mark.parametrize("delta_s", METRICS["tight"])
def test_the_area_under_precision_recall_is_the_official_average_precision(matches, delta_s):
    matching = match(matches, tolerance_s=delta_s)
    precision, recall = precision_recall(matching)
    areas = [
        np.mean([max([p for p, r in zip(*curve) if r >= level], default=0) for level in np.arange(11) / 10])
        for curve in zip(precision, recall)
    ]
    official = average_map(*matches, LABELS, framerate=FRAMERATE, metrics=[f"at{delta_s}"])
    assert areas == pytest.approx(official[f"at{delta_s}"]["a_mAP_per_class"], abs=1e-12)
    assert max(areas) > 0.1 and areas[3] == 0


def test_precision_and_recall_at_a_threshold_count_what_reaches_it(matches):
    precision, recall = precision_recall(match(matches))
    for number in (0, 57, 131, 199):
        naive = Naive(matches, THRESHOLDS[number])
        for index, label in enumerate(LABELS):
            spots = [spot for spot in naive.spots if spot["label"] == label]
            hits = sum(spot["event"] is not None for spot in spots)
            num_events = sum(event["label"] == label for event in naive.events)
            assert precision[index, number] == pytest.approx(hits / max(len(spots), 1))
            assert recall[index, number] == pytest.approx(hits / max(num_events, 1))


def test_the_curve_over_tolerances_integrates_to_the_average_map(matches):
    diagnosis = diagnose(*matches, LABELS)
    official = average_map(*matches, LABELS)
    assert diagnosis.scores == official
    for metric in ("tight", "loose"):
        chosen = np.isin(TOLERANCES_S, METRICS[metric])
        deltas_s, curve = np.array(TOLERANCES_S)[chosen], diagnosis.average_precision[chosen]
        area = np.trapezoid(curve, deltas_s, axis=0) / (deltas_s[-1] - deltas_s[0])
        assert area[0] == pytest.approx(np.array(official[metric]["a_mAP_per_class"]))
        assert area[0].mean() == pytest.approx(official[metric]["a_mAP"])
        assert area[1].mean() == pytest.approx(official[metric]["a_mAP_visible"])


def test_the_best_threshold_has_the_best_f1(matches):
    matching = match(matches)
    thresholds = best_thresholds(matching)
    best = count_at(matching, thresholds).f1
    every = np.array([count_at(matching, np.full(len(LABELS), threshold)).f1 for threshold in THRESHOLDS])
    assert best == pytest.approx(every.max(axis=0))
    for index in range(3):
        higher = THRESHOLDS > thresholds[index]
        assert higher.any() and (every[higher, index] < best[index]).all()
    assert thresholds[3] == 0.5


@pytest.mark.parametrize("threshold", [0.0, 0.35, 0.7])
@pytest.mark.parametrize("tolerance_s", [2, 5, 12])
def test_confusion_is_what_the_definition_says(matches, threshold, tolerance_s):
    naive = Naive(matches, threshold, tolerance_s)
    expected = np.zeros((len(LABELS), len(LABELS) + 2), int)
    for found in naive.spots:
        expected[LABELS.index(found["label"]), naive.what_was_there(found)] += 1
    found = confusion_matrix(match(matches, tolerance_s=tolerance_s), np.full(len(LABELS), threshold))
    assert found.tolist() == expected.tolist()
    assert tolerance_s < 5 or (expected[:3].sum(axis=0)[[0, 1, 2, 4, 5]] > 0).all(), "the data shows every case"


def test_of_two_events_as_near_the_earlier_is_confused():
    references = [[event("Corner", 1, 10), event("Foul", 1, 14), event("Goal", 1, 40), event("Corner", 1, 40)]]
    predictions = [[spot("Goal", 1, 12, 0.9), spot("Foul", 1, 41, 0.8), spot("Corner", 2, 10, 0.7)]]
    found = confusion_matrix(match((references, predictions)), np.zeros(4))
    assert found[0].tolist() == [0, 1, 0, 0, 0, 0]
    assert found[2].tolist() == [1, 0, 0, 0, 0, 0], "of two in one frame, the first label"
    assert found[1].tolist() == [0, 0, 0, 0, 0, 1], "the other half is another place"


def test_examples_are_the_most_telling_ones(matches):
    threshold, count = 0.3, 4
    examples = find_examples(match(matches), np.full(len(LABELS), threshold), count)
    everything, naive = Naive(matches), Naive(matches, threshold)
    expected = []
    for index, label in enumerate(LABELS):
        spots = [spot for spot in naive.spots if spot["label"] == label]
        for kind, is_hit in (("hit", True), ("false alarm", False)):
            chosen = [spot for spot in spots if (spot["event"] is not None) == is_hit]
            for found in sorted(chosen, key=lambda spot: -spot["score"])[:count]:
                error_s = found["time_s"] - found["event"]["time_s"] if is_hit else None
                place = (found["match"], found["half"], found["time_s"])
                expected.append((kind, index, *place, found["score"], error_s, naive.what_was_there(found)))
        missed = [event for event in everything.events if event["label"] == label]
        missed = [event for event in missed if event["spot"] is None or event["spot"]["score"] < threshold]
        scores = [event["spot"]["score"] if event["spot"] else 0.0 for event in missed]
        for number in np.argsort(scores, kind="stable")[:count].tolist():
            place = (missed[number]["match"], missed[number]["half"], missed[number]["time_s"])
            expected.append(("missed", index, *place, scores[number], None, index))
    assert len(examples) == len(expected) == 3 * 3 * count
    for example, truth in zip(examples, expected):
        assert tuple(example)[:6] == truth[:6] and example.seen == truth[7]
        assert truth[6] is None and np.isnan(example.error_s) or example.error_s == pytest.approx(truth[6])


@pytest.mark.parametrize(("framerate", "tolerance_s"), [(2, 5), (25, 5), (2, 60), (25, 1)])
def test_every_error_lies_in_its_bin(framerate, tolerance_s):
    matching = match(([[]], [[]]), framerate=framerate, tolerance_s=tolerance_s)
    widest_s = tolerance_s / 2 + 0.999 / framerate
    errors_s = np.linspace(-widest_s, widest_s, 1001)
    centres_s, counts = error_histogram(errors_s, matching)
    widths_s = np.diff(centres_s)
    assert widths_s == pytest.approx(widths_s[0]) and widths_s[0] >= 1 / framerate - 1e-9
    assert np.abs(centres_s).min() == 0 and len(centres_s) <= 45
    nearest = np.abs(errors_s[:, np.newaxis] - centres_s).argmin(axis=1)
    assert np.abs(counts - np.bincount(nearest, minlength=len(centres_s))).max() <= 1, "but for errors on an edge"
    assert counts.sum() == len(errors_s)


def test_nothing_to_find_and_nothing_found():
    for references, predictions in (
        ([[]], [[]]),
        ([[event("Goal", 1, 3)]], [[]]),
        ([[]], [[spot("Goal", 1, 3, 0.9)]]),
    ):
        diagnosis = diagnose(references, predictions, LABELS)
        assert diagnosis.counts.num_hits.sum() == 0 and diagnosis.errors_s.size == 0
        assert (diagnosis.thresholds == 0.5).all()
        assert diagnosis.confusion.sum() == len(predictions[0])
        assert len(diagnosis.examples) == len(references[0]) + len(predictions[0])


def test_a_given_threshold_is_that_of_every_label(matches):
    diagnosis = diagnose(*matches, LABELS, threshold=0.6, tolerance_s=2)
    assert diagnosis.thresholds.tolist() == [0.6] * 4
    naive = Naive(matches, 0.6, 2)
    assert diagnosis.counts.total.num_spots == len(naive.spots)
    assert diagnosis.confusion.sum() == len(naive.spots)
    assert diagnosis.found.sum() == sum(event["spot"] is not None for event in naive.events)

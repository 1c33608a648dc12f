"""Calibration, thresholds and reliability against naive loops, closed forms and another optimiser."""

import json

import numpy as np
import pytest
import torch

from comedian.evaluation import calibration
from comedian.evaluation.calibration import (
    Judged,
    best_threshold,
    fit_calibration,
    judge_spots,
    operating_points,
    reliability,
    reporting_settings,
    too_few_events,
)
from comedian.evaluation.exact_matching import match_spots
from comedian.models.postprocessing_comedian import MIN_THRESHOLD, calibrate, lower_bound, operating_thresholds
from comedian.soccernet.annotations import Annotation

LABELS = ["a", "b", "c"]


def random_spots(seed, num_halves=3):
    """Spots and events as columns: times in tenths of a second, crowded."""
    rng = np.random.default_rng(seed)
    spots = np.stack([rng.integers(num_halves, size=200), rng.integers(3, size=200), rng.integers(600, size=200) / 10])
    spots = np.unique(spots, axis=1)
    spots = np.vstack([spots, rng.permutation(spots.shape[1]) / spots.shape[1]])
    events = np.stack([rng.integers(num_halves, size=40), rng.integers(2, size=40), rng.integers(600, size=40) / 10])
    return spots[:, rng.permutation(spots.shape[1])], events


@pytest.mark.parametrize("seed", range(5))
def test_right_is_what_the_official_rule_says(seed):
    spots, events = random_spots(seed)
    as_dicts = [
        {"half": int(half) + 1, "label": LABELS[int(label)], "timestamp_s": time_s, "score": score}
        for half, label, time_s, score in spots.T
    ]
    annotations = [
        Annotation(
            label=LABELS[int(label)],
            half=int(half) + 1,
            position_ms=round(1000 * time_s),
            team="",
            visibility="visible",
        )
        for half, label, time_s in events.T
    ]
    hits = {index for index in match_spots(as_dicts, annotations, 5.0) if index is not None}
    for label, judged in zip(LABELS, judge_spots(spots, events, 3), strict=True):
        expected = sorted(
            ((spot["score"], index in hits) for index, spot in enumerate(as_dicts) if spot["label"] == label),
            reverse=True,
        )
        assert list(zip(judged.scores, judged.right)) == expected
        assert judged.num_events == sum(annotation.label == label for annotation in annotations)


def simulated(slope, bias, count, seed=0, num_events=None):
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.uniform(0.06, 0.99, count))[::-1]
    right = rng.random(count) < 1 / (1 + np.exp(-(slope * np.log(scores / (1 - scores)) + bias)))
    return Judged(scores, right, int(right.sum()) if num_events is None else num_events)


def test_the_fit_is_the_minimum_that_another_optimiser_finds():
    judged = simulated(0.7, -0.8, 300)
    [(slope, bias)] = fit_calibration([judged])
    logits = torch.logit(torch.tensor(judged.scores.copy()))
    right = torch.tensor(judged.right)
    targets = torch.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2)).double()
    weights = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            weights[0] * logits + weights[1], targets, reduction="sum"
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    assert [slope, bias] == pytest.approx(weights.tolist(), abs=1e-5)


def test_a_known_distortion_is_found_again():
    [(slope, bias), (other_slope, other_bias)] = fit_calibration(
        [simulated(0.5, -1, 50_000), simulated(2, 1, 50_000, 1)]
    )
    assert (slope, bias) == (pytest.approx(0.5, abs=0.03), pytest.approx(-1, abs=0.05))
    assert (other_slope, other_bias) == (pytest.approx(2, abs=0.06), pytest.approx(1, abs=0.05))


def test_few_events_or_a_falling_slope_take_the_shared_fit():
    plenty, few = simulated(1, -1, 400), simulated(3, 2, 30, 1, num_events=calibration.MIN_EVENTS - 1)
    falling = simulated(-0.5, 0, 100, 2)
    no_spot = Judged(np.zeros(0), np.zeros(0, bool), 20)
    together = Judged(
        np.concatenate([plenty.scores, few.scores, falling.scores]),
        np.concatenate([plenty.right, few.right, falling.right]),
        100,
    )
    own, shared, also_shared, none = fit_calibration([plenty, few, falling, no_spot])
    assert shared == also_shared == none == pytest.approx(fit_calibration([together])[0])
    assert own == pytest.approx(fit_calibration([plenty])[0]) and own != pytest.approx(shared, abs=1e-3)
    enough = Judged(few.scores, few.right, calibration.MIN_EVENTS)
    assert fit_calibration([plenty, enough])[1] == pytest.approx(fit_calibration([enough])[0])
    # nothing to learn from: scores stay as they are
    assert fit_calibration([no_spot]) == [[1.0, 0.0]]
    assert fit_calibration([Judged(np.array([0.9, 0.8]), np.ones(2, bool), 20)]) == [[1.0, 0.0]]


def test_candidates_that_nobody_sees_do_not_count():
    judged = simulated(1, -1, 400)
    tail = np.full(5000, 0.01)
    longer = Judged(np.append(judged.scores, tail), np.append(judged.right, tail > 1), judged.num_events)
    assert fit_calibration([longer]) == fit_calibration([judged])


def test_calibration_keeps_order_and_zeros():
    rng = np.random.default_rng(0)
    scores = np.sort(rng.random((500, 2)).astype(np.float32), axis=0)
    scores[:3], scores[-1] = 0, 1
    scores[-2] = np.nextafter(np.float32(1), np.float32(0))
    probabilities = calibrate(scores, [[0.3, -2], [1.5, 1]])
    assert (probabilities[:3] == 0).all() and (
        np.diff(probabilities[3:], axis=0)[np.diff(scores[3:], axis=0) > 0] > 0
    ).all()
    assert probabilities.max() < 1
    np.testing.assert_allclose(calibrate(scores[3:-1], [[1, 0], [1, 0]]), scores[3:-1], rtol=1e-6)
    # logit(0.8) = log 4: 2 * log 4 - log 4 is the logit of 0.8 again, and 0 that of a half
    found = calibrate(np.array([[0.8, 0.8]]), [[2, -np.log(4)], [1, -np.log(4)]])
    np.testing.assert_allclose(found, [[0.8, 0.5]])


def naive_precision_recall(judged, threshold):
    passing = [right for score, right in zip(judged.scores, judged.right) if score >= threshold]
    return sum(passing) / len(passing), sum(passing) / judged.num_events


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_has_the_best_f1(seed):
    judged = simulated(1, -1, 60, seed)
    judged = Judged(judged.scores, judged.right, 3 * judged.num_events)

    def f1(threshold):
        precision, recall = naive_precision_recall(judged, threshold)
        return 2 * precision * recall / max(precision + recall, 1e-9)

    chosen = best_threshold(judged)
    assert f1(chosen) == max(f1(score) for score in judged.scores)
    assert 0 <= judged.scores[judged.scores >= chosen].min() - chosen <= 1e-4
    assert best_threshold(Judged(np.array([0.9]), np.array([False]), 3)) == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_points_tell_precision_and_recall_from_their_threshold_on(seed):
    judged = simulated(1, 0, 300, seed)
    judged = Judged(judged.scores, judged.right, int(judged.num_events / 0.83))
    points = operating_points(judged)
    assert json.loads(json.dumps(points)) == points
    # recall ends at 0.83: sixteen steps of 0.05
    assert len(points) == 16 and [point[0] for point in points] == sorted((point[0] for point in points), reverse=True)
    for level, (threshold, precision, recall) in zip(np.arange(1, 17) * 0.05, points):
        assert (precision, recall) == pytest.approx(naive_precision_recall(judged, threshold), abs=1e-4)
        higher = judged.scores[judged.scores > threshold + 1e-4]
        assert recall >= level - 1e-4 and (not len(higher) or naive_precision_recall(judged, higher.min())[1] < level)
    assert operating_points(Judged(np.array([0.5]), np.array([False]), 0)) == []
    assert operating_points(Judged(np.zeros(0), np.zeros(0, bool), 2)) == []


def test_the_lower_bound_is_where_the_observed_share_is_one_sided_z_away():
    for hits, count in ((5, 5), (0, 4), (7, 9), (90, 100), (1, 1000)):
        bound = lower_bound(hits, count)
        assert 0 <= bound <= hits / count
        assert hits / count - bound == pytest.approx(1.2815515655 * np.sqrt(bound * (1 - bound) / count), abs=1e-9)
    assert lower_bound(0, 0) == 0
    # in words: what 90 of 100 samples with that share would not have reached by chance
    rng = np.random.default_rng(0)
    assert (rng.binomial(50, lower_bound(45, 50), 100_000) >= 45).mean() == pytest.approx(0.1, abs=0.04)


def test_few_events_show_no_target():
    perfect = Judged(np.linspace(0.95, 0.5, 5), np.ones(5, bool), 5)
    plenty = Judged(np.linspace(0.99, 0.5, 100), np.arange(100) < 95, 110)
    curves, counts = [operating_points(judged) for judged in (perfect, plenty)], [5, 110]
    assert operating_thresholds("precision=0.9", curves)[0] < 1  # as it was measured
    few, enough = operating_thresholds("precision=0.9", curves, counts)
    assert few == np.inf and 0.5 < enough < 0.6
    assert operating_thresholds("precision=0.75", curves, counts)[0] < 1
    assert operating_thresholds("recall=0.8", curves, counts)[0] == np.inf
    # the next point of more recall than as measured
    assert operating_thresholds("recall=0.8", curves, counts)[1] < operating_thresholds("recall=0.8", curves)[1]
    low = [[[0.9, 0.99, 0.5], [0.075, 0.95, 1.0]]]
    assert operating_thresholds("precision=0.9", low, [500]) == [0.9]


def test_labels_with_few_events_share_a_threshold():
    rng = np.random.default_rng(0)
    plenty = simulated(1, 0, 400)
    few = [
        Judged(np.array([0.9, 0.8, 0.07]), np.array([False, False, True]), 3),
        Judged(np.zeros(0), np.zeros(0, bool), 0),
    ]
    weak = Judged(np.sort(rng.uniform(0.05, 0.3, 300))[::-1], rng.random(300) < 0.02, 12)
    settings = reporting_settings([plenty, *few, weak])
    shown = [calibrate(j.scores[:, None], [p])[:, 0] for j, p in zip([plenty, *few], settings["label_calibration"])]
    shown.append(calibrate(weak.scores[:, None], [settings["label_calibration"][3]])[:, 0])
    scores, right = np.concatenate(shown), np.concatenate([j.right for j in (plenty, *few, weak)])
    num_events = sum(j.num_events for j in (plenty, *few, weak))

    def f1(threshold):
        passing = scores >= threshold
        return 2 * (right & passing).sum() / (passing.sum() + num_events)

    own, first, second, floor = settings["label_thresholds"]
    # on its own, the best of three spots would be 0.07
    assert best_threshold(Judged(shown[1], few[0].right, 3)) < MIN_THRESHOLD < first == second and own > MIN_THRESHOLD
    assert f1(first) == pytest.approx(max(f1(score) for score in scores), abs=1e-9)
    assert floor == MIN_THRESHOLD
    assert settings["label_num_events"] == [plenty.num_events, 3, 0, 12]
    line = too_few_events(["a", "b", "c", "d"], settings["label_num_events"])
    assert line.endswith(": b (3), c (0)") and too_few_events(["a"], [10]) is None


def test_a_target_picks_the_best_point_that_reaches_it():
    curves = [[[0.9, 1.0, 0.2], [0.7, 0.8, 0.5], [0.4, 0.85, 0.7], [0.1, 0.3, 0.9]], [[0.6, 0.7, 0.4]], []]
    assert operating_thresholds("precision=0.8", curves) == [0.4, np.inf, np.inf]
    assert operating_thresholds("precision=0.7", curves) == [0.4, 0.6, np.inf]
    assert operating_thresholds("recall=0.4", curves) == [0.7, 0.6, np.inf]
    for target in ("precision", "precision=", "precision=0", "recall=1.1", "f1=0.5", "precision=nan"):
        with pytest.raises(ValueError, match="`threshold`"):
            operating_thresholds(target, curves)
    with pytest.raises(ValueError, match="no curves"):
        operating_thresholds("recall=0.5", None)


def test_thresholds_and_curves_are_on_the_calibrated_scale():
    judged = [simulated(0.5, -1, 500), simulated(1, 0.5, 500, 1)]
    settings = reporting_settings(judged)
    for index, of_label in enumerate(judged):
        pair = settings["label_calibration"][index]
        raw = best_threshold(of_label)
        passing = calibrate(of_label.scores[:, None], [pair])[:, 0] >= settings["label_thresholds"][index]
        assert passing.sum() == (of_label.scores >= raw).sum()
        threshold, precision, _ = settings["label_curves"][index][5]
        shown = Judged(calibrate(of_label.scores[:, None], [pair])[:, 0], of_label.right, of_label.num_events)
        assert precision == pytest.approx(naive_precision_recall(shown, threshold)[0], abs=1e-4)


def test_reliability_is_the_naive_loops():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.random(200) ** 2, [0.0, 1.0, 0.3, 0.7]])
    right = rng.random(len(scores)) < 0.5
    found = reliability(scores, right, num_bins=5)
    error = 0.0
    for index, (low, high) in enumerate(zip(found.edges[:-1], found.edges[1:])):
        members = [i for i, s in enumerate(scores) if low <= s < high or (index == 4 and s == 1)]
        mean_score = sum(scores[i] for i in members) / len(members)
        precision = sum(bool(right[i]) for i in members) / len(members)
        assert found.counts[index] == len(members)
        assert found.mean_scores[index] == pytest.approx(mean_score)
        assert found.precisions[index] == pytest.approx(precision)
        error += len(members) / len(scores) * abs(mean_score - precision)
    assert found.expected_calibration_error == pytest.approx(error)


def test_reliability_of_empty_bins_and_of_nothing():
    found = reliability(np.array([0.95, 0.95]), np.array([True, False]))
    assert found.counts.tolist() == [0] * 9 + [2] and np.isnan(found.precisions[:9]).all()
    assert found.expected_calibration_error == pytest.approx(0.45)
    assert np.isnan(reliability(np.zeros(0), np.zeros(0, bool)).expected_calibration_error)


def test_calibration_mends_what_is_not_calibrated():
    fitted, held_out = simulated(0.5, -1, 5000), simulated(0.5, -1, 5000, 1)
    before = reliability(held_out.scores, held_out.right).expected_calibration_error
    shown = calibrate(held_out.scores[:, None], fit_calibration([fitted]))[:, 0]
    after = reliability(shown, held_out.right).expected_calibration_error
    assert before > 0.1 and after < 0.02

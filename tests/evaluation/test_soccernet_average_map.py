"""The official SoccerNet package is the truth: every figure must agree with it on randomised matches."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from SoccerNet.Evaluation import ActionSpotting
from SoccerNet.Evaluation.utils import EVENT_DICTIONARY_V2

from comedian.data import annotations
from comedian.evaluation.soccernet_average_map import soccernet_average_map
from comedian.evaluation.soccernet_average_map.soccernet_average_map import (
    METRICS,
    SOCCERNET_V2_LABELS,
    THRESHOLDS,
    MalformedEventError,
    SoccerNetAverageMap,
    average_map,
)

METRIC_FOLDER = Path(soccernet_average_map.__file__).parent
LABELS = ("Goal", "Corner", "Foul", "Never happens")
HALF_MS = 120 * 60 * 1000
FIGURES = (
    "a_mAP",
    "a_mAP_per_class",
    "a_mAP_visible",
    "a_mAP_per_class_visible",
    "a_mAP_unshown",
    "a_mAP_per_class_unshown",
)


def official_scores(folder, references, predictions, labels, framerate, metrics):
    """Score with the SoccerNet package, through the files it reads."""
    for match, (reference, prediction) in enumerate(zip(references, predictions)):
        for name, key, events in (
            ("Labels-v2.json", "annotations", reference),
            ("results_spotting.json", "predictions", prediction),
        ):
            path = folder / key / "league" / "season" / str(match) / name
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({key: events}))
    scores = {}
    for metric in metrics:
        with contextlib.redirect_stderr(io.StringIO()):
            scores[metric] = ActionSpotting.evaluate(
                str(folder / "annotations"),
                str(folder / "predictions"),
                dataset=None,
                EVENT_DICTIONARY={label: index for index, label in enumerate(labels)},
                framerate=framerate,
                metric=metric,
            )
    return scores


def assert_same(ours, official):
    assert ours.keys() == official.keys()
    for metric in official:
        assert tuple(ours[metric]) == FIGURES
        for figure in FIGURES:
            np.testing.assert_allclose(
                ours[metric][figure], official[metric][figure], rtol=0, atol=1e-9, err_msg=f"{metric} {figure}"
            )


def random_match(rng, span_ms, odd):
    """One match: events crowded in `span_ms` so that windows overlap; `odd` adds what the quirks are about."""
    labels = [*LABELS[:3], "Unknown"]

    def reference():
        half, position_ms = rng.integers(1, 4 if odd else 3), rng.integers(0, span_ms)
        event = {
            "gameTime": f"{half} - {position_ms // 60000 % 100:02d}:{position_ms // 1000 % 60:02d}",
            "label": str(rng.choice(labels)),
        }
        if rng.random() < 0.8:
            event["position"] = str(position_ms) if rng.random() < 0.5 else int(position_ms)
        if odd and rng.random() < 0.1:
            event["position"] = int(rng.choice([-1, -500, -40_000, HALF_MS - 1, HALF_MS, HALF_MS + 70_000]))
        if rng.random() < 0.8:
            event["visibility"] = "not shown" if rng.random() < 0.4 else "visible"
        return event

    def prediction(near=None):
        position_ms = rng.integers(0, span_ms)
        label, half = str(rng.choice(labels)), int(rng.integers(1, 4 if odd else 3))
        if near is not None:
            position_ms = int(near.get("position", position_ms)) + int(rng.normal(0, 2000))
            label, half = near["label"], near["gameTime"][0]
        score = float(rng.choice([rng.random(), rng.random() ** 6, round(rng.random(), 1)]))
        if odd:
            position_ms = rng.choice([position_ms] * 9 + [-700, HALF_MS + 5])
            score = float(rng.choice([score] * 9 + [-0.1, 0.0, 1.0, 1.7, float("nan")]))
        return {
            "position": str(position_ms) if rng.random() < 0.5 else int(position_ms),
            "label": label,
            "half": str(half) if rng.random() < 0.5 else int(half),
            "confidence": str(score) if rng.random() < 0.5 else score,
        }

    references = [reference() for _ in range(rng.integers(0, 40))]
    predictions = [prediction(event) for event in references if rng.random() < 0.9]
    predictions += [prediction() for _ in range(rng.integers(0, 150))]
    # Whole copies with other scores fall into the same cells.
    predictions += [event | {"confidence": float(rng.random())} for event in predictions if rng.random() < 0.2]
    return references, predictions


@pytest.mark.parametrize(
    ("framerate", "span_ms", "odd", "metrics"),
    [
        (2, 60_000, True, tuple(METRICS)),
        (2, 600_000, True, ("tight", "loose")),
        (2, 5_400_000, False, ("tight", "loose", "at5")),
        (1, 120_000, True, ("tight", "loose", "at1")),
        (3, 120_000, True, ("tight", "at1")),
        (5, 300_000, True, ("tight", "loose", "at2")),
        (25, 120_000, True, ("tight", "at1")),
    ],
)
def test_agrees_with_the_official_package(tmp_path, framerate, span_ms, odd, metrics):
    rng = np.random.default_rng([framerate, span_ms])
    references, predictions = zip(*(random_match(rng, span_ms, odd) for _ in range(3)))
    ours = average_map(references, predictions, LABELS, framerate=framerate, metrics=metrics)
    assert 0 < ours["tight"]["a_mAP"] < 1
    assert_same(ours, official_scores(tmp_path, references, predictions, LABELS, framerate, metrics))


@pytest.mark.parametrize("empty", ["references", "predictions", "both"])
def test_agrees_where_there_is_nothing(tmp_path, empty):
    references, predictions = random_match(np.random.default_rng(0), 60_000, odd=False)
    references = [[] if empty != "predictions" else references]
    predictions = [[] if empty != "references" else predictions]
    ours = average_map(references, predictions, LABELS)
    assert ours["tight"]["a_mAP"] == ours["loose"]["a_mAP_unshown"] == 0
    assert_same(ours, official_scores(tmp_path, references, predictions, LABELS, 2, ("tight", "loose")))


def goal(position_ms, visibility="visible", half=1):
    return {"gameTime": f"{half} - 00:00", "label": "Goal", "position": str(position_ms), "visibility": visibility}


def spot(position_ms, confidence, half=1):
    return {"position": str(position_ms), "label": "Goal", "half": str(half), "confidence": str(confidence)}


def goal_score(references, predictions, metric="at1", figure="a_mAP", **options):
    return average_map([references], [predictions], ["Goal"], metrics=[metric], **options)[metric][figure]


def test_the_window_is_as_wide_as_delta_not_twice():
    # "at1" at 2 fps: one frame to either side.
    assert goal_score([goal(10_000)], [spot(10_500, 0.5)]) == 1
    assert goal_score([goal(10_000)], [spot(9_500, 0.5)]) == 1
    assert goal_score([goal(10_000)], [spot(11_000, 0.5)]) == 0


def test_average_over_deltas_halves_the_ends():
    # Found from delta 4 s on: the curve 0 0 0 1 1 has a trapezoid area of 1.5 over 4 intervals.
    assert goal_score([goal(10_000)], [spot(12_000, 0.5)], metric="tight") == pytest.approx(1.5 / 4)


def test_eleven_points():
    # One of two found, before any false alarm: precision 1 up to recall 0.5, six of eleven levels.
    assert goal_score([goal(10_000), goal(50_000)], [spot(10_000, 0.9), spot(90_000, 0.1)]) == pytest.approx(6 / 11)


def test_two_hundred_thresholds_merge_close_scores():
    # 1/199 is the first threshold above 0: below it a hit is not told from a false alarm that scores less.
    assert goal_score([goal(10_000)], [spot(10_000, 0.004), spot(90_000, 0.001)]) == 0.5
    assert goal_score([goal(10_000)], [spot(10_000, 0.006), spot(90_000, 0.001)]) == 1


def test_an_early_ground_truth_takes_the_best_spot_of_the_next():
    # Both windows reach 10.5 s; the first ground truth takes it, though 9.5 s would have been left for it.
    references = [goal(10_000), goal(11_000)]
    assert goal_score(references, [spot(9_500, 0.5), spot(10_500, 0.9)]) == pytest.approx(6 / 11)
    assert goal_score(references, [spot(9_500, 0.9), spot(10_500, 0.5)]) == 1


def test_the_last_of_a_cell_stays_even_where_it_erases():
    assert goal_score([goal(10_000)], [spot(10_000, 0.9), spot(10_200, "nan")]) == 0
    assert goal_score([goal(10_000)], [spot(10_000, "nan"), spot(10_200, 0.9)]) == 1


def test_false_alarms_in_a_half_without_the_label_count_against_unshown_alone():
    references = [goal(10_000), goal(50_000, "not shown")]
    predictions = [spot(10_000, 0.5), spot(50_000, 0.5), spot(10_000, 0.9, half=2)]
    assert goal_score(references, predictions, figure="a_mAP_visible") == 1
    assert goal_score(references, predictions, figure="a_mAP_unshown") == 0.5


def test_the_unshown_factor_spares_single_deltas():
    references, predictions = [goal(10_000, "not shown")], [spot(10_000, 0.5)]
    assert goal_score(references, predictions, "tight", "a_mAP_unshown") == pytest.approx(17 / 13)
    assert goal_score(references, predictions, "tight", "a_mAP_per_class_unshown") == [1]
    assert goal_score(references, predictions, "at1", "a_mAP_unshown") == 1


def test_a_framerate_may_be_a_fraction():
    assert goal_score([goal(10_000)], [spot(10_400, 0.5)], framerate=2.5) == 1
    assert goal_score([goal(10_000)], [spot(10_800, 0.5)], framerate=2.5) == 0


@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        ([[], [{"label": "Goal"}]], [[], []], r"references\[1\]\[0\].*gameTime"),
        ([[]], [[spot(0, 0.5), spot("soon", 0.5)]], r"predictions\[0\]\[1\].*soon"),
        ([[]], [[spot(-HALF_MS - 500, 0.5)]], r"predictions\[0\]\[0\].*out of range"),
        ([["Goal"]], [[]], r"references\[0\]\[0\]"),
    ],
)
def test_a_malformed_event_is_named(references, predictions, message):
    with pytest.raises(MalformedEventError, match=message):
        average_map(references, predictions, LABELS)


def test_references_and_predictions_must_pair():
    with pytest.raises(ValueError, match="2 matches in references, 1 in predictions"):
        average_map([[], []], [[]], LABELS)


def test_the_label_order_is_official():
    assert SOCCERNET_V2_LABELS == annotations.SOCCERNET_V2_LABELS
    assert {label: index for index, label in enumerate(SOCCERNET_V2_LABELS)} == EVENT_DICTIONARY_V2


def test_evaluate_loads_the_folder_without_the_package(tmp_path):
    rng = np.random.default_rng(7)
    references, predictions = zip(*(random_match(rng, 60_000, odd=True) for _ in range(3)))
    matches = tmp_path / "matches.json"
    matches.write_text(json.dumps({"references": references, "predictions": predictions}))
    code = """
import json, sys
sys.modules["comedian"] = None  # importing it would fail
import evaluate
folder, matches = sys.argv[1:]
scores = evaluate.load(folder).compute(**json.load(open(matches)), labels=["Goal", "Corner", "Foul"], metrics=["tight"])
print(json.dumps(scores))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(METRIC_FOLDER), str(matches)],
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == average_map(references, predictions, LABELS[:3], metrics=["tight"])


def test_the_metric_adds_up_batches_and_keeps_every_digit(tmp_path):
    threshold = THRESHOLDS[100]
    just_below = np.nextafter(threshold, 0)
    metric = SoccerNetAverageMap(cache_dir=str(tmp_path))
    metric.add(reference=[goal(10_000)], prediction=[spot(10_000, 0) | {"confidence": np.float32(0.75)}])
    metric.add_batch(
        references=[[goal(10_000)]],
        predictions=[[spot(10_000, 0) | {"confidence": threshold}, spot(90_000, 0) | {"confidence": just_below}]],
    )
    assert metric.compute(labels=["Goal"], metrics=["at1"])["at1"]["a_mAP"] == 1

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

from comedian import errors
from comedian.evaluation.soccernet_average_map import soccernet_average_map
from comedian.evaluation.soccernet_average_map.soccernet_average_map import (
    METRICS,
    SOCCERNET_V2_LABELS,
    THRESHOLDS,
    MalformedEventError,
    SoccerNetAverageMap,
    average_map,
    within_official_limits,
)
from comedian.soccernet import annotations, labels, layout

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
    ours = average_map(references, predictions, LABELS, framerate=framerate, metrics=metrics, official=True)
    assert 0 < ours["tight"]["a_mAP"] < 1
    assert_same(ours, official_scores(tmp_path, references, predictions, LABELS, framerate, metrics))
    if not odd:  # to the bit: what the official scorer can hold is scored as it does
        assert average_map(references, predictions, LABELS, framerate=framerate, metrics=metrics) == ours


@pytest.mark.parametrize("empty", ["references", "predictions", "both"])
def test_agrees_where_there_is_nothing(tmp_path, empty):
    references, predictions = random_match(np.random.default_rng(0), 60_000, odd=False)
    references = [[] if empty != "predictions" else references]
    predictions = [[] if empty != "references" else predictions]
    ours = average_map(references, predictions, LABELS)
    assert ours["tight"]["a_mAP"] == ours["loose"]["a_mAP_unshown"] == 0
    assert_same(ours, official_scores(tmp_path, references, predictions, LABELS, 2, ("tight", "loose")))


def place_of(event):
    """Half and milliseconds of an event."""
    if "half" in event:
        return int(event["half"]), int(event["position"])
    half, clock = event["gameTime"].split(" - ")
    minutes, seconds = clock.split(":")
    return int(half), int(event.get("position", 1000 * (60 * int(minutes) + int(seconds))))


def moved(event, part, shift_ms):
    """The same event in another part and later."""
    position_ms = place_of(event)[1] + shift_ms
    if "half" in event:
        return event | {"half": str(part), "position": position_ms}
    clock = f"{part} - {position_ms // 60_000:02d}:{position_ms // 1000 % 60:02d}"
    return event | {"gameTime": clock} | ({"position": position_ms} if "position" in event else {})


@pytest.mark.parametrize("minutes", [0, 55, 100, 118, 300, 1300])
def test_parts_and_lengths_beyond_the_official_limits(tmp_path, minutes):
    """The truth: what the official package says of the same events as halves of six matches, from minute 1 on."""
    rng = np.random.default_rng(minutes)
    drawn = [random_match(rng, 120_000, odd=False) for _ in range(6)]
    matches = [[[moved(event, place_of(event)[0], 60_000) for event in events] for events in both] for both in drawn]
    references, predictions = zip(*matches)
    longest = [
        [
            moved(event, 2 * number + place_of(event)[0], 60_000 * minutes)
            for number, events in enumerate(kind)
            for event in events
        ]
        for kind in (references, predictions)
    ]
    options = {"framerate": 2, "metrics": ("tight", "loose", "at1")}
    ours = average_map([longest[0]], [longest[1]], LABELS, **options)
    assert 0 < ours["tight"]["a_mAP"] < 1
    assert_same(ours, official_scores(tmp_path, references, predictions, LABELS, *options.values()))
    held = tuple(
        [
            [
                event
                for event in events
                if place_of(event)[0] <= 2
                and place_of(event)[1] < HALF_MS
                # a time in `gameTime` alone is read from two digits of its minutes
                and ("position" in event or len(event["gameTime"]) < 10)
            ]
        ]
        for events in longest
    )
    assert within_official_limits([longest[0]], [longest[1]]) == held


@pytest.mark.parametrize("part", [1, 2, 3, 9, 10, 12, 21, 99])
@pytest.mark.parametrize("minutes", [0, 119, 120, 135, 1439])
def test_perfect_predictions_have_100_and_a_missed_event_costs(part, minutes):
    times_ms = [60_000 * minutes + 1000 * second for second in (0, 10, 50)]
    references = [
        {"gameTime": f"{part} - {at_ms // 60_000:02d}:{at_ms // 1000 % 60:02d}", "label": "Goal"} for at_ms in times_ms
    ]
    predictions = [spot(at_ms, 0.5, part) for at_ms in times_ms]
    for metric in METRICS:
        assert goal_score(references, predictions, metric) == 1
        assert goal_score(references, predictions[:2], metric) == pytest.approx(7 / 11)
        assert goal_score(references, [], metric) == 0
    # a prediction in another part, or two hours off, finds nothing
    assert goal_score(references, [spot(at_ms, 0.5, part % 99 + 1) for at_ms in times_ms], "loose") == 0
    assert goal_score(references, [spot(abs(at_ms - HALF_MS), 0.5, part) for at_ms in times_ms], "loose") == 0


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
        ([[]], [[spot(-1, 0.5)]], r"predictions\[0\]\[0\].*out of range"),
        ([[]], [[spot(0, 0.5, half=100)]], r"predictions\[0\]\[0\].*out of range"),
        ([[goal(0, half=0)]], [[]], r"references\[0\]\[0\].*out of range"),
        ([[{"gameTime": "1 - 1:05:30", "label": "Goal"}]], [[]], r"references\[0\]\[0\].*gameTime"),
    ],
)
def test_a_malformed_event_is_named(references, predictions, message):
    with pytest.raises(MalformedEventError, match=message):
        average_map(references, predictions, LABELS)


def test_references_and_predictions_must_pair():
    with pytest.raises(ValueError, match="2 matches in references, 1 in predictions"):
        average_map([[], []], [[]], LABELS)


def test_an_unknown_metric_is_named():
    with pytest.raises(ValueError, match="unknown metric 'tigth'; known: tight, loose"):
        average_map([[]], [[]], LABELS, metrics=["loose", "tigth"])
    assert list(average_map([[]], [[]], LABELS, metrics="at2")) == ["at2"]


def test_the_label_order_is_official():
    assert SOCCERNET_V2_LABELS == labels.SOCCERNET_V2_LABELS
    script = soccernet_average_map
    assert (script.MAX_PARTS, 1000 * script.MAX_PART_LENGTH_S) == (layout.MAX_HALVES, errors.MAX_POSITION_MS)
    assert script.OFFICIAL_HALVES == annotations.OFFICIAL_HALVES
    assert 1000 * script.OFFICIAL_HALF_LENGTH_S == annotations.OFFICIAL_HALF_LENGTH_MS
    assert {label: index for index, label in enumerate(SOCCERNET_V2_LABELS)} == EVENT_DICTIONARY_V2


def test_evaluate_loads_the_folder_without_the_package(tmp_path):
    rng = np.random.default_rng(7)
    references, predictions = zip(*(random_match(rng, 60_000, odd=False) for _ in range(3)))
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
    metric.add(references=[goal(10_000)], predictions=[spot(10_000, 0.6)])
    metric.add_batch(
        references=[[goal(10_000)]],
        predictions=[[spot(10_000, 0) | {"confidence": threshold}, spot(90_000, 0) | {"confidence": just_below}]],
    )
    assert metric.compute(labels=["Goal"], metrics=["at1"])["at1"]["a_mAP"] == 1


def test_add_takes_the_events_of_one_match_under_either_name(tmp_path):
    metric = SoccerNetAverageMap(cache_dir=str(tmp_path))
    for words in ({"predictions": []}, {"references": []}, {"predictions": [], "references": [], "labels": []}):
        with pytest.raises(ValueError, match="`predictions` and `references`"):
            metric.add(**words)
    metric.add(predictions=[spot(8_000_000, 0.6)], references=[goal(8_000_000) | {"gameTime": "1 - 133:20"}])
    metric.add(prediction=[spot(10_000, 0.6)], reference=[])
    assert metric.compute(labels=["Goal"], metrics=["at1"])["at1"]["a_mAP"] == 0.5
    metric.add(predictions=[spot(10_000, 0.6, half=3)], references=[goal(10_000, half=3)])
    assert metric.compute(labels=["Goal"], metrics=["at1"], official=True)["at1"]["a_mAP"] == 0
    metric.add(predictions=[], references=[])
    with pytest.raises(ValueError, match="unknown metric 'at7'"):
        metric.compute(labels=["Goal"], metrics=["at7"])

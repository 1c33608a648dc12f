"""What tuning chooses, against the official score of predictions that were made one by one."""

from dataclasses import replace

import numpy as np
import pytest

from comedian.evaluation import tuning
from comedian.evaluation.soccernet_average_map.soccernet_average_map import average_map
from comedian.evaluation.tuning import Choice, Merging, Tuner, mergings_to_try
from comedian.inference.settings import with_settings
from comedian.inference.spotter import spots_of_match
from comedian.soccernet.annotations import game_time, prediction_of
from testing_utils import tiny_config

MATCHES = ["league/a", "league/b", "league/c", "league/d", "league/e"]
NUM_STEPS = 160


def make_case(seed, nms_window_s=10.0, **overrides):
    """Configuration, annotations and scores: bumps at the events of two labels, and noise; of label 2 there are few."""
    rng = np.random.default_rng(seed)
    config = tiny_config(nms_window_s=nms_window_s, **overrides)
    references, scores = {}, {}
    for match in MATCHES:
        references[match] = []
        for half in (1, 2):
            values = rng.random((NUM_STEPS, 3)).astype(np.float32) ** 6 * 0.7
            for label, count in ((0, 5), (1, 7), (2, 1)):
                for step in rng.choice(NUM_STEPS - 2, count, replace=False):
                    position_ms = int(1000 * (step + 0.5 + rng.normal(0, 1)) / config.score_rate) % 70_000
                    event = {
                        "gameTime": game_time(half, position_ms),
                        "label": f"LABEL_{label}",
                        "position": position_ms,
                    }
                    references[match].append(event)
                    values[step : step + 2, label] += rng.random() * 0.3
            scores[match, half] = values
    return config, references, scores


def make_tuner(case, **options):
    config, references, scores = case
    return Tuner(config, references, lambda merging: scores, **options)


def predictions_of(case, choice, match):
    """The predictions of a match as `comedian spot --keep-all` writes them."""
    config, _, scores = case
    config = with_settings(
        config, {name: value for name, value in choice.settings().items() if name.startswith("nms")}
    )
    halves = {half: scores[match, half] for half in (1, 2)}
    return [prediction_of(spot) for spot in spots_of_match(halves, config, keep_all=True)]


def official(case, choices, metric="tight", framerate=2, matches=MATCHES):
    """Average precision of each label by the official score; `choices` is one for all matches, or match -> choice."""
    config, references, _ = case
    choices = choices if isinstance(choices, dict) else dict.fromkeys(matches, choices)
    predictions = [predictions_of(case, choices[match], match) for match in matches]
    found = average_map(
        [references[match] for match in matches],
        predictions,
        config.label_names,
        framerate=framerate,
        metrics=[metric],
    )
    return np.array(found[metric]["a_mAP_per_class"])


@pytest.mark.parametrize("metric, framerate", [("tight", 2), ("loose", 2), ("at1", 1), ("tight", 5)])
def test_average_precision_is_the_official_one(metric, framerate):
    # two steps of the output in a frame of the grid where the rate is 1
    case = make_case(0, fps=4.0, scores_per_token=1)
    tuner = make_tuner(case, metric=metric, framerate=framerate)
    for nms_type, widths in (("soft", (10.0, 10.0, 10.0)), ("hard", (2.0, 6.0, 2.0)), ("soft", (1.0, 20.0, 4.0))):
        choice = replace(tuner.default, nms_type=nms_type, nms_windows_s=widths)
        for chosen in ([0, 1, 2, 3, 4], [1, 3]):
            matches = [MATCHES[index] for index in chosen]
            expected = official(case, choice, metric, framerate, matches)
            assert expected.max() > 0.05
            np.testing.assert_allclose(tuner.average_precisions(choice, np.array(chosen)), expected, atol=1e-12)


def naive_choice(case, tuner, matches, min_events):
    """Every type and width by the official score of its predictions."""
    _, references, _ = case
    best = None
    for nms_type in ("soft", "hard"):
        default = official(case, replace(tuner.default, nms_type=nms_type), matches=matches)
        widths, scores = [10.0] * 3, default.copy()
        for width in tuning.NMS_WINDOWS_S:
            found = official(
                case, replace(tuner.default, nms_type=nms_type, nms_windows_s=(width,) * 3), matches=matches
            )
            for label in range(3):
                events = sum(event["label"] == f"LABEL_{label}" for match in matches for event in references[match])
                if events >= min_events and found[label] > scores[label] + 1e-9:
                    widths[label], scores[label] = width, found[label]
        if best is None or scores.mean() > best[0] + 1e-9:
            best = scores.mean(), nms_type, tuple(widths)
    return best


@pytest.mark.parametrize("seed", range(2))
def test_each_labels_window_is_chosen_exactly(seed):
    case = make_case(seed)
    tuner = make_tuner(case, min_events=20)
    score, nms_type, widths = naive_choice(case, tuner, MATCHES, 20)
    found = tuner.choose(np.arange(5), [tuner.default.merging])
    assert (found.nms_type, found.nms_windows_s) == (nms_type, widths) and widths[2] == 10.0 and set(widths) != {10.0}
    assert tuner.average_precisions(found, np.arange(5)).mean() == pytest.approx(score)


def test_the_gain_is_expected_from_matches_that_were_not_chosen_on():
    case = make_case(0)
    tuner = make_tuner(case, min_events=20)
    choices = {}
    for match in MATCHES:
        others = [other for other in MATCHES if other != match]
        _, nms_type, widths = naive_choice(case, tuner, others, 20)
        choices[match] = replace(tuner.default, nms_type=nms_type, nms_windows_s=widths)
    assert len(set(choices.values())) > 1
    expected = official(case, choices).mean()
    assert tuner.cross_validate([tuner.default.merging]) == pytest.approx(expected)


def test_what_does_not_hold_on_other_matches_is_not_kept():
    kept = []
    for seed, width in ((0, 10.0), (1, 10.0), (2, 80.0), (3, 80.0)):
        case = make_case(seed, nms_window_s=width)
        tuner = make_tuner(case, min_events=1)
        tuned = tuner.tune()
        before = official(case, tuned.default).mean()
        assert tuned.found_map == pytest.approx(official(case, tuned.found).mean()) and tuned.found_map >= before
        kept.append(tuned.choice == tuned.found)
        assert tuned.choice == (tuned.found if tuned.expected_map > before else tuned.default)
        np.testing.assert_allclose(
            tuned.per_label, [official(case, tuned.default), official(case, tuned.choice)], atol=1e-12
        )
        assert tuned.settings["nms_type"] == tuned.choice.nms_type
        config = with_settings(case[0], tuned.settings)
        assert Choice.of(config) == tuned.choice and len(config.label_thresholds) == len(config.label_curves) == 3
    assert len(set(kept)) == 2


def test_parts_beyond_the_second_and_hours_beyond_the_second_count():
    """The truth: the same halves as parts 7 and 12 of one match, and later than two hours."""
    config, references, scores = make_case(0)
    late = 7_200  # steps of a second
    moved_references = {match: [] for match in MATCHES}
    for match, events in references.items():
        for event in events:
            part = {"1": 7, "2": 12}[event["gameTime"][0]]
            position_ms = event["position"] + 1000 * round(late / config.score_rate)
            clock = game_time(part, position_ms)
            moved_references[match].append(event | {"gameTime": clock, "position": position_ms})
    nothing = np.zeros((late, 3), np.float32)
    moved = {
        (match, {1: 7, 2: 12}[half]): np.concatenate([nothing, of_half]) for (match, half), of_half in scores.items()
    }
    plain = make_tuner((config, references, scores), min_events=20).tune()
    tuned = make_tuner((config, moved_references, moved), min_events=20).tune()
    assert tuned.choice == plain.choice and tuned.found_map > 0
    np.testing.assert_allclose(tuned.per_label, plain.per_label, atol=1e-9)
    assert tuned.settings["label_thresholds"] == pytest.approx(plain.settings["label_thresholds"], abs=1e-3)


def test_ties_go_to_the_default():
    config, references, scores = make_case(0)
    nothing = {key: np.zeros_like(of_half) for key, of_half in scores.items()}
    tuned = make_tuner((config, references, nothing), min_events=1).tune()
    assert tuned.choice == tuned.found == tuned.default and tuned.found_map == 0


def test_the_better_merging_wins():
    config, references, scores = make_case(0)
    noise = np.random.default_rng(1)
    worse = {key: noise.permutation(of_half) for key, of_half in scores.items()}
    default = Choice.of(config).merging
    better = Merging("mean", 1.0, 1.0)
    asked = []
    tuner = Tuner(
        config,
        references,
        lambda merging: asked.append(merging) or (scores if merging == better else worse),
        min_events=99,
    )
    tuned = tuner.tune([Merging("mean", 2.0, 0.0), better])
    assert tuned.choice.merging == better and tuned.settings["window_stride_s"] == 1.0
    np.testing.assert_allclose(tuned.per_label[1], official((config, references, scores), tuned.choice), atol=1e-12)
    assert asked[0] == default and len(asked) <= 5


def test_thresholds_are_of_the_spots_that_are_reported():
    case = make_case(2)
    config, references, scores = case
    tuned = make_tuner(case).tune(tolerance_s=3.0)
    config = with_settings(config, tuned.settings)
    threshold, precision, recall = config.label_curves[1][8]
    right = reported = 0
    for match in MATCHES:
        halves = {half: scores[match, half] for half in (1, 2)}
        spots = [spot for spot in spots_of_match(halves, config, threshold=threshold) if spot["label"] == "LABEL_1"]
        reported += len(spots)
        for half in (1, 2):
            mine = sorted((spot["timestamp_s"], spot["score"]) for spot in spots if spot["half"] == half)
            events = [event for event in references[match] if event["label"] == "LABEL_1"]
            times_s = sorted(event["position"] / 1000 for event in events if event["gameTime"].startswith(f"{half} "))
            for time_s in times_s:
                near = [spot for spot in mine if abs(spot[0] - time_s) <= 1.5 + 1e-9]
                if near:
                    mine.remove(max(near, key=lambda spot: spot[1]))
                    right += 1
    # of two in one cell of the metric's grid one counts
    cells = {
        (match, event["gameTime"][0], event["position"] // 500)
        for match in MATCHES
        for event in references[match]
        if event["label"] == "LABEL_1"
    }
    assert precision == pytest.approx(right / reported, abs=0.01)
    assert recall == pytest.approx(right / len(cells), abs=0.01)


def test_mergings_that_can_be_made_of_the_windows():
    config = tiny_config(num_frames=32, window_stride_s=4.0, edge_trim_s=2.0)  # 16 tokens of a second
    found = mergings_to_try(config, 2)
    assert {merging.window_stride_s for merging in found} == {2.0, 4.0, 8.0}
    assert {merging.edge_trim_s for merging in found} == {0.0, 2.0, 3.0}
    assert len(found) == len(set(found)) == 18
    for merging in found:
        with_settings(config, merging._asdict())
    assert {merging.window_stride_s for merging in mergings_to_try(config, 4)} == {4.0, 8.0}
    # half a window does not reach over two trims of five
    wide = mergings_to_try(tiny_config(num_frames=32, window_stride_s=4.0, edge_trim_s=5.0), 2)
    assert all(merging.window_stride_s <= 16 - 2 * merging.edge_trim_s for merging in wide)

"""Stitching and suppression against the published numbers and against plain loops of their descriptions."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from comedian.models.postprocessing_comedian import (
    displace,
    find_spots,
    non_maximum_suppression,
    spots_from_scores,
    step_timestamps_s,
    stitch,
)
from comedian.models.time_grid_comedian import cover_starts

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "reference.safetensors"
seeds = st.integers(0, 2**32 - 1)


# --- suppression ---------------------------------------------------------------------------------------------------


def naive_soft_nms(scores, window, threshold, min_weight):
    """Take the highest, suppress its neighbours, again: one label, one peak, one step at a time."""
    one = np.float32(1)
    kept = np.zeros_like(scores)
    for label in range(scores.shape[1]):
        live = list(scores[:, label])
        while True:
            best = max(live)
            if best <= 0 or best < np.float32(threshold):
                break
            peak = live.index(best)
            kept[peak, label] = best
            for step in range(len(live)):
                distance = abs(step - peak)
                if distance <= window / 2 and distance > 0:
                    share = np.float32(distance) / np.float32(window / 2)
                    weight = np.float32(min_weight) + np.float32(1 - min_weight) * share
                    live[step] = live[step] * min(max(weight, np.float32(0)), one)
            live[peak] = np.float32(-1)
    return kept


def naive_hard_nms(scores, window, threshold):
    kept = np.zeros_like(scores)
    for label in range(scores.shape[1]):
        for step in range(len(scores)):
            score = scores[step, label]
            beaten = any(
                scores[other, label] > score for other in range(len(scores)) if abs(other - step) <= window / 2
            )
            if not beaten and score >= np.float32(threshold):
                kept[step, label] = score
    return kept


@pytest.mark.skipif(not REFERENCE.is_file(), reason="../shared/reference is not at hand")
def test_suppression_is_the_published_one_bit_for_bit():
    reference = load_file(REFERENCE)
    cases = 0
    for name, expected in reference.items():
        match = re.fullmatch(r"nms\.(soft|hard)\.window(\d+)\.threshold([\d.]+)\.minw([\d.]+)", name)
        if match:
            kind, window, threshold, min_weight = match[1], *map(float, match.groups()[1:])
            kept = non_maximum_suppression(reference["nms.scores"], kind, window, threshold, min_weight)
            np.testing.assert_array_equal(kept, expected, err_msg=name)
            cases += 1
    assert cases >= 4


@st.composite
def score_arrays(draw):
    """Scores of one of three kinds: rough, smooth with long slopes, and few values with ties and plateaus."""
    rng = np.random.default_rng(draw(seeds))
    shape = draw(st.integers(1, 60)), draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["rough", "smooth", "tied", "constant"]))
    if kind == "rough":
        scores = rng.random(shape) ** 3
    elif kind == "smooth":
        scores = 1 / (1 + np.exp(-np.cumsum(rng.normal(size=shape), axis=0)))
    elif kind == "tied":
        scores = np.repeat(rng.integers(0, 4, size=shape) / 4, rng.integers(1, 5), axis=0)[: shape[0]]
    else:
        scores = np.full(shape, 0.5)
    return scores.astype(np.float32)


window_widths = st.sampled_from([0, 0.5, 1, 2, 3, 7.5, 8, 15, 20, 200])
score_thresholds = st.sampled_from([0.0, 0.001, 0.05, 0.25, 0.5])


@settings(max_examples=150)
@given(score_arrays(), window_widths, score_thresholds, st.sampled_from([0.0, 0.2, 1.0]))
def test_soft_nms_equals_one_peak_at_a_time(scores, window, threshold, min_weight):
    kept = non_maximum_suppression(scores, "soft", window, threshold, min_weight)
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, naive_soft_nms(scores, window, threshold, min_weight))


@given(score_arrays(), window_widths, score_thresholds)
def test_hard_nms_equals_the_double_loop(scores, window, threshold):
    kept = non_maximum_suppression(scores, "hard", window, threshold)
    np.testing.assert_array_equal(kept, naive_hard_nms(scores, window, threshold))


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_each_label_may_have_its_own_window(kind):
    scores = np.random.default_rng(0).random((80, 4)).astype(np.float32)
    windows = [4, 20, 4, 7.5]
    kept = non_maximum_suppression(scores, kind, windows, 0.01)
    for label, window in enumerate(windows):
        alone = non_maximum_suppression(scores[:, label : label + 1], kind, window, 0.01)
        np.testing.assert_array_equal(kept[:, label : label + 1], alone)


def test_suppression_leaves_its_input_alone():
    scores = np.random.default_rng(0).random((80, 4)).astype(np.float32)
    before = scores.copy()
    non_maximum_suppression(scores, "soft", 20, 0.001)
    np.testing.assert_array_equal(scores, before)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="`kind` is 'gaussian'"):
        non_maximum_suppression(np.zeros((4, 1)), "gaussian", 2, 0.1)


# --- stitching -----------------------------------------------------------------------------------------------------


def naive_stitch(scores, starts, num_tokens, edge_trim, merge):
    window_tokens, num_labels = scores.shape[1:]
    stitched = np.empty((num_tokens, num_labels), dtype=np.float32)
    for token in range(num_tokens):
        seen = []
        for window, start in enumerate(starts):
            inside = start <= token < start + window_tokens
            is_start, is_end = start == 0, start + window_tokens >= num_tokens
            trimmed_start = not is_start and token < start + edge_trim
            trimmed_end = not is_end and token >= start + window_tokens - edge_trim
            if inside and not trimmed_start and not trimmed_end:
                seen.append(scores[window, token - start].astype(np.float64))
        stitched[token] = np.max(seen, axis=0) if merge == "max" else np.mean(seen, axis=0)
    return stitched


@st.composite
def covers(draw):
    window = draw(st.integers(1, 16))
    edge_trim = draw(st.integers(0, (window - 1) // 2))
    stride = draw(st.integers(1, window - 2 * edge_trim))
    num_tokens = draw(st.integers(1, 80))
    return num_tokens, window, edge_trim, cover_starts(num_tokens, window, stride)


@given(covers(), st.sampled_from(["max", "mean"]), seeds)
def test_stitch_equals_the_loop_over_tokens(cover, merge, seed):
    num_tokens, window, edge_trim, starts = cover
    scores = np.random.default_rng(seed).normal(size=(len(starts), window, 2)).astype(np.float32)
    stitched = stitch(scores, starts, num_tokens, edge_trim, merge)
    assert stitched.dtype == np.float32
    np.testing.assert_allclose(stitched, naive_stitch(scores, starts, num_tokens, edge_trim, merge), atol=1e-6)


@given(covers(), st.sampled_from(["max", "mean"]), st.integers(0, 1000).map(lambda share: share / 1000))
def test_stitch_of_a_constant_is_the_constant(cover, merge, constant):
    num_tokens, window, edge_trim, starts = cover
    scores = np.full((len(starts), window, 3), constant, dtype=np.float32)
    stitched = stitch(scores, starts, num_tokens, edge_trim, merge)
    np.testing.assert_array_equal(stitched, np.full((num_tokens, 3), constant, dtype=np.float32))


def test_the_padding_of_a_short_half_is_dropped():
    scores = np.arange(8, dtype=np.float32).reshape(1, 8, 1)
    assert stitch(scores, np.array([0]), 5, edge_trim=2)[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_hole_is_named():
    scores = np.ones((2, 8, 1), dtype=np.float32)
    with pytest.raises(ValueError, match=r"token 6 \(2 of 14 tokens\).*8 tokens.*`edge_trim` 2.*at most 4 apart"):
        stitch(scores, np.array([0, 6]), 14, edge_trim=2)


def test_an_unknown_merge_is_named():
    with pytest.raises(ValueError, match="`merge` is 'min'"):
        stitch(np.ones((1, 4, 1)), np.array([0]), 4, merge="min")


# --- spots ---------------------------------------------------------------------------------------------------------


def test_spots_are_listed_by_time_from_their_threshold_on():
    scores = np.array([[0.0, 0.3], [0.9, 0.0], [0.4, 0.5]], dtype=np.float32)
    spots = find_spots(scores, np.array([0.5, 1.5, 2.5]), ["Goal", "Foul"], 2, thresholds=[0.5, 0.3])
    assert [(spot["label"], spot["timestamp_s"]) for spot in spots] == [("Foul", 0.5), ("Goal", 1.5), ("Foul", 2.5)]
    assert all(spot["half"] == 2 for spot in spots)
    assert spots[1] == {"label": "Goal", "timestamp_s": 1.5, "half": 2, "score": pytest.approx(0.9)}
    assert len(find_spots(scores, np.arange(3), ["Goal", "Foul"], 1)) == 4


def test_a_threshold_is_met_by_the_score_it_was_taken_from():
    scores = np.array([[0.1], [0.7]], dtype=np.float32)
    timestamps_s, threshold = np.arange(2), find_spots(scores, np.arange(2), ["Goal"], 1)[0]["score"]
    assert len(find_spots(scores, timestamps_s, ["Goal"], 1, threshold)) == 2


def test_the_window_is_given_in_seconds():
    scores = np.zeros((40, 1), dtype=np.float32)
    scores[[10, 14, 30], 0] = 0.9, 0.8, 0.7
    timestamps_s = np.arange(40) / 2
    settings_2hz = {"score_rate": 2.0, "nms_type": "hard", "nms_threshold": 0.1}
    wide = spots_from_scores(scores, timestamps_s, ["Goal"], 1, nms_window_s=4.0, **settings_2hz)
    narrow = spots_from_scores(scores, timestamps_s, ["Goal"], 1, nms_window_s=3.0, **settings_2hz)
    assert [spot["timestamp_s"] for spot in wide] == [5.0, 15.0]
    assert [spot["timestamp_s"] for spot in narrow] == [5.0, 7.0, 15.0]


def test_a_window_that_is_whole_steps_keeps_its_last_step():
    # 0.58 * 100 is 57.99... in floating point; the neighbour 29 steps away is in the window
    scores = np.zeros((40, 1), dtype=np.float32)
    scores[[0, 29], 0] = 0.9, 0.8
    spots = spots_from_scores(
        scores, np.arange(40) / 100, ["Goal"], 1, score_rate=100, nms_type="hard", nms_window_s=0.58
    )
    assert len(spots) == 1


@pytest.mark.parametrize("scores_per_token", [1, 2, 5])
def test_scores_move_to_the_step_nearest_to_their_event(scores_per_token):
    rng = np.random.default_rng(scores_per_token)
    scores, offsets_s = rng.random((30, 3), dtype=np.float32), rng.uniform(-3, 3, (30, 3))
    fps, tubelet_size = 2.5, 2
    moved = displace(scores, offsets_s, fps / tubelet_size, scores_per_token)
    times_s = step_timestamps_s(30 * scores_per_token, fps / tubelet_size * scores_per_token, fps)
    expected = np.zeros_like(moved)
    for token in range(30):
        for label in range(3):
            event_s = (2 * token + 0.5) / fps + offsets_s[token, label]
            step = np.abs(times_s - event_s).argmin()
            expected[step, label] = max(expected[step, label], scores[token, label])
    assert moved.dtype == np.float32 and len(np.unique(moved)) > 20
    # beyond the first step's time, which is never negative, all are as near
    np.testing.assert_array_equal(moved[scores_per_token:], expected[scores_per_token:])
    assert moved.max() == scores.max()


def test_steps_share_out_the_frames_of_a_token():
    frames_s = np.arange(12) / 2.5
    np.testing.assert_allclose(step_timestamps_s(12, 2.5, 2.5), frames_s)
    np.testing.assert_allclose(step_timestamps_s(6, 1.25, 2.5), frames_s.reshape(6, 2).mean(axis=1))
    np.testing.assert_allclose(step_timestamps_s(3, 0.625, 2.5), frames_s.reshape(3, 4).mean(axis=1))
    assert step_timestamps_s(2, 10, 2.5).tolist() == [0, 0]

"""Window starts hold their promises for every length; targets equal the description's triple loop."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comedian.models.time_grid_comedian import cover_starts, frame_timestamps_s, token_timestamps_s
from comedian.samples.windows import (
    disjoint_starts,
    edge_starts,
    part_starts,
    random_starts,
    token_offsets_s,
    token_targets,
)

lengths = st.integers(1, 400)
windows = st.integers(1, 90)
seeds = st.integers(0, 2**32 - 1)


def assert_inside(starts, length, window):
    assert starts.dtype == np.int64
    assert (starts >= 0).all()
    assert (starts + window <= max(length, window)).all()


@given(lengths, windows, st.data())
def test_cover_holds_every_index_and_stays_inside(length, window, data):
    stride = data.draw(st.integers(1, window))
    starts = cover_starts(length, window, stride)
    assert_inside(starts, length, window)
    covered = set()
    for start in starts:
        covered.update(range(start, start + window))
    assert covered >= set(range(length))
    assert starts[0] == 0
    assert starts[-1] == max(length - window, 0)
    assert (np.diff(starts) > 0).all()
    assert (np.diff(starts)[:-1] == stride).all()


def test_cover_of_known_halves():
    assert cover_starts(200, 64, 32).tolist() == [0, 32, 64, 96, 128, 136]
    assert cover_starts(128, 64, 32).tolist() == [0, 32, 64]
    assert cover_starts(64, 64, 32).tolist() == [0]
    assert cover_starts(10, 64, 32).tolist() == [0]


def test_cover_refuses_holes_and_nonsense():
    with pytest.raises(ValueError, match="`stride` 65 is greater than `window` 64"):
        cover_starts(200, 64, 65)
    with pytest.raises(ValueError, match="`stride` is 0"):
        cover_starts(200, 64, 0)
    with pytest.raises(ValueError, match="`window` is 0"):
        disjoint_starts(200, 0, np.random.default_rng(0), 25)
    with pytest.raises(ValueError, match="`count` is 0"):
        part_starts(200, 64, 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="`count` is 0"):
        disjoint_starts(200, 64, np.random.default_rng(0), count=0)
    with pytest.raises(ValueError, match="`length` is 0"):
        random_starts(0, 64, 3, np.random.default_rng(0))


@given(lengths, windows, st.integers(1, 60), seeds)
def test_random_starts_take_one_in_each_part(length, window, count, seed):
    starts = random_starts(length, window, count, np.random.default_rng(seed))
    assert_inside(starts, length, window)
    assert len(starts) == count
    edges = np.arange(count + 1) * (max(length - window, 0) + 1) / count
    assert (starts >= np.floor(edges[:-1])).all()
    assert (starts <= np.ceil(edges[1:])).all()


def test_random_starts_are_uniform_over_all_starts():
    rng = np.random.default_rng(0)
    drawn = np.concatenate([random_starts(16, 10, 3, rng) for _ in range(5000)])
    shares = np.bincount(drawn, minlength=7) / len(drawn)
    np.testing.assert_allclose(shares, 1 / 7, atol=0.015)


@given(lengths, windows, st.integers(1, 60), seeds)
def test_edge_starts_stay_inside_and_ascend(length, window, count, seed):
    starts = edge_starts(length, window, count, np.random.default_rng(seed))
    assert_inside(starts, length, window)
    assert len(starts) == count and (np.diff(starts) >= 0).all()


def test_edge_starts_show_the_edges_about_as_often_as_the_middle():
    rng, length, window = np.random.default_rng(0), 300, 40
    shown, shown_at_random = np.zeros(length), np.zeros(length)
    for _ in range(3000):
        for draw, counts in ((edge_starts, shown), (random_starts, shown_at_random)):
            for start in draw(length, window, 8, rng):
                counts[start : start + window] += 1
    # of 300 starts, 20 before the half, the 261 inside and 20 after it: the first element is in 20 + 1, the middle in 40
    for index, expected in ((0, 21 / 301), (150, 40 / 301), (299, 21 / 301)):
        assert shown[index] / 24000 == pytest.approx(expected, rel=0.1)
    assert shown_at_random[0] / 24000 == pytest.approx(1 / 261, rel=0.3)


@given(lengths, windows, st.integers(2, 30), seeds)
def test_disjoint_starts_take_the_edges_and_never_overlap_between_them(length, window, count, seed):
    starts = disjoint_starts(length, window, np.random.default_rng(seed), count)
    assert_inside(starts, length, window)
    assert len(starts) == count
    last = max(length - window, 0)
    assert starts.min() == 0 and starts.max() == last
    fitting = (last - 2 * (window / 2)) // window + 1
    if last and count - 2 <= fitting:
        assert starts[:2].tolist() == [0, last]
        inner = np.sort(starts[2:])
        assert (np.diff(inner) >= window).all()
        assert (inner >= window // 2).all() and (inner <= last - window / 2).all()


def test_windows_between_the_edges_move_as_far_as_the_published_ones():
    rng = np.random.default_rng(0)
    # a half of 45 minutes at 2 frames a second, windows of 64 s, 200 epochs
    epochs = np.array([disjoint_starts(5400, 128, rng, 25) for _ in range(200)])
    assert (epochs[:, 0] == 0).all() and (epochs[:, 1] == 5400 - 128).all()
    assert abs(len(np.unique(epochs)) - 3049) < 100
    assert ((epochs / 2) % 64).std() == pytest.approx(19, abs=0.5)


def test_every_arrangement_of_disjoint_windows_is_as_likely():
    rng = np.random.default_rng(0)
    # starts from 1 to 6 for two windows of 2: the pairs that are 2 or more apart
    drawn = Counter(tuple(disjoint_starts(9, 2, rng, 4)[2:].tolist()) for _ in range(10_000))
    pairs = [(a, b) for a in range(1, 7) for b in range(a + 2, 7)]
    assert sorted(drawn) == pairs
    assert max(abs(count / 10_000 - 1 / len(pairs)) for count in drawn.values()) < 0.015


@given(lengths, windows, st.integers(1, 40), seeds)
def test_every_part_holds_its_window(length, window, count, seed):
    starts = part_starts(length, window, count, np.random.default_rng(seed))
    assert_inside(starts, length, window)
    assert len(starts) == count
    if length >= count * window:
        assert (starts >= np.floor(np.arange(count) * length / count)).all()
        assert (starts + window <= np.arange(1, count + 1) * length / count).all()


def test_starts_in_a_part_are_uniform():
    rng = np.random.default_rng(0)
    # parts of 71 seconds as in a half of 45 minutes: starts from 0 to 7 of each
    drawn = np.array([part_starts(38 * 71, 64, 38, rng) for _ in range(500)]) - 71 * np.arange(38)
    np.testing.assert_allclose(np.bincount(drawn.ravel()) / drawn.size, 1 / 8, atol=0.01)


def seen(draw, length: int, window: int, epochs: int = 400) -> np.ndarray:
    """How often each element is in a window, relative to the mean."""
    rng = np.random.default_rng(0)
    starts = np.concatenate([draw(rng) for _ in range(epochs)])
    begins = np.bincount(starts, minlength=length + 1) - np.bincount(
        np.minimum(starts + window, length), minlength=length + 1
    )
    counts = np.cumsum(begins)[:-1]
    return counts / counts.mean()


@pytest.mark.parametrize("length", [40, 64, 70, 100, 127, 130, 192, 250, 300, 700, 1500, 2432])
@pytest.mark.parametrize("sampling", ["disjoint", "parts"])
def test_every_second_of_a_short_half_is_seen_about_equally_often(sampling, length):
    # too short for as many windows side by side
    draw = {
        "disjoint": lambda rng: disjoint_starts(length, 64, rng, 25),
        "parts": lambda rng: part_starts(length, 64, 38, rng),
    }[sampling]
    shares = seen(draw, length, 64)
    assert shares.min() > 0.45 and shares.max() < 2.5
    assert shares[:10].mean() > 0.6 and shares[-10:].mean() > 0.6


@pytest.mark.parametrize("length", [2500, 2700, 3060])
def test_every_second_of_a_whole_half_is_seen_about_equally_often(length):
    shares = seen(lambda rng: disjoint_starts(length, 64, rng, 25), length, 64)
    # the edges are in every epoch, what lies between them in about 60 % of the epochs
    assert shares.min() > 0.65 and shares.max() < 3
    middle = shares[200:-200]
    assert middle.max() < 1.35 * middle.min()
    # of stage 2, every part is seen as the first one is
    parts = seen(lambda rng: part_starts(length, 64, 38, rng), length, 64, epochs=2000)
    sums = [parts[round(i * length / 38) :][: length // 38].mean() for i in range(38)]
    assert max(sums) < 1.02 * min(sums)


def test_a_token_lies_at_the_mean_of_its_frames():
    frames_s = frame_timestamps_s(8, fps=2.0)
    assert frames_s.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]
    assert token_timestamps_s(4, fps=2.0, tubelet_size=2).tolist() == [0.25, 1.25, 2.25, 3.25]
    np.testing.assert_allclose(
        token_timestamps_s(9, fps=12.5, tubelet_size=3), frame_timestamps_s(27, 12.5).reshape(9, 3).mean(axis=1)
    )


def naive_targets(times_s, labels, num_tokens, num_labels, fps, tubelet_size, radius_s):
    targets = np.zeros((num_tokens, num_labels), dtype=np.float32)
    for time_s, label in zip(times_s, labels):
        for token in range(num_tokens):
            for frame in range(token * tubelet_size, (token + 1) * tubelet_size):
                if abs(frame / fps - time_s) <= radius_s + 1e-6:
                    targets[token, label] = 1
    return targets


@given(
    st.lists(st.tuples(st.integers(-3000, 20000), st.integers(0, 3)), max_size=8),
    st.integers(1, 15),
    st.sampled_from([1.0, 2.0, 2.083, 12.5, 25.0]),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.04, 0.5, 1.0]),
)
def test_targets_equal_the_triple_loop(events, num_tokens, fps, tubelet_size, radius_s):
    times_s = np.array([position_ms / 1000 for position_ms, _ in events])
    labels = np.array([label for _, label in events], dtype=np.int64)
    arguments = (times_s, labels, num_tokens, 4, fps, tubelet_size, radius_s)
    targets = token_targets(*arguments)
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, naive_targets(*arguments))


def test_the_radius_is_closed():
    # frames at 0, 0.5, ..., 3.5 s: an event at 1.0 s reaches the frames at 0.5, 1.0 and 1.5 s, tokens 0 and 1
    assert token_targets(np.array([1.0]), np.array([0]), 4, 1, 2.0, 2, 0.5)[:, 0].tolist() == [1, 1, 0, 0]
    # 0.1 + 0.2 is above 0.3 in floating point
    assert token_targets(np.array([0.1 + 0.2]), np.array([0]), 4, 1, 10.0, 1, 0.1)[:, 0].tolist() == [0, 0, 1, 1]
    assert token_targets(np.array([1.001]), np.array([0]), 4, 1, 2.0, 2, 0.5)[:, 0].tolist() == [0, 1, 0, 0]


@given(
    st.lists(st.tuples(st.integers(-3000, 20000), st.integers(0, 2)), max_size=6),
    st.integers(1, 12),
    st.sampled_from([1.0, 2.083, 12.5]),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([0.3, 1.0, 4.0]),
)
def test_soft_targets_are_the_highest_ramp(events, num_tokens, fps, tubelet_size, radius_s, falloff_s):
    times_s = np.array([position_ms / 1000 for position_ms, _ in events])
    labels = np.array([label for _, label in events], dtype=np.int64)
    targets = token_targets(times_s, labels, num_tokens, 3, fps, tubelet_size, radius_s, falloff_s)
    for token in range(num_tokens):
        for label in range(3):
            ramps = [
                min(max((radius_s + falloff_s - abs(frame / fps - time_s)) / falloff_s, 0), 1)
                for time_s, event_label in zip(times_s, labels)
                for frame in range(token * tubelet_size, (token + 1) * tubelet_size)
                if event_label == label
            ]
            assert targets[token, label] == pytest.approx(max(ramps, default=0), abs=1e-4)


@given(
    st.lists(st.tuples(st.integers(-3000, 20000), st.integers(0, 2)), max_size=6),
    st.integers(1, 12),
    st.sampled_from([1.0, 2.083, 12.5]),
    st.integers(1, 3),
    st.sampled_from([0.5, 2.0, 30.0]),
)
def test_offsets_point_at_the_nearest_event(events, num_tokens, fps, tubelet_size, radius_s):
    times_s = np.array([position_ms / 1000 for position_ms, _ in events])
    labels = np.array([label for _, label in events], dtype=np.int64)
    offsets_s = token_offsets_s(times_s, labels, num_tokens, 3, fps, tubelet_size, radius_s)
    assert offsets_s.shape == (num_tokens, 3) and offsets_s.dtype == np.float32
    for token, token_s in enumerate(token_timestamps_s(num_tokens, fps, tubelet_size)):
        for label in range(3):
            distances_s = [abs(time_s - token_s) for time_s in times_s[labels == label]]
            nearest_s = min(distances_s, default=np.inf)
            if abs(nearest_s - radius_s) > 1e-5:
                assert np.isnan(offsets_s[token, label]) == (nearest_s > radius_s)
            if not np.isnan(offsets_s[token, label]):
                assert abs(offsets_s[token, label]) == pytest.approx(nearest_s, abs=1e-4)
                reached_s = token_s + offsets_s[token, label]
                assert min(abs(reached_s - time_s) for time_s in times_s[labels == label]) < 1e-4

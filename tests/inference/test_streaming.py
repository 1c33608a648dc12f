from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comedian import ActionSpotter, InputError
from comedian.inference import scoring, torch_model
from comedian.inference.running_suppression import RunningSuppression
from comedian.inference.streaming import StreamingSpotter
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from comedian.models.postprocessing_comedian import non_maximum_suppression
from testing_utils import compute_in_float32, tiny_config


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    compute_in_float32(monkeypatch)


def make_spotter(*configs, seed=0):
    torch.manual_seed(seed)
    models = [ComedianForActionSpotting(tiny_config(initializer_range=0.5, **fields)) for fields in configs]
    with torch.no_grad():
        for model in models:
            # scores all over [0, 1]
            model.classifier.weight *= 2
    sizes = [model.config.image_size for model in models]
    processors = [ComedianVideoProcessor(size={"height": h, "width": w}) for h, w in sizes]
    return ActionSpotter(list(map(torch_model.TorchModel, models, processors)))


def random_frames(count, side=16):
    return np.random.default_rng(count).integers(256, size=(count, side, side, 3), dtype=np.uint8)


def offline_spots(spotter, frames, **options):
    tokens = scoring.encode_half_with_models(spotter.models, frames)
    scores = np.mean(list(map(scoring.score_half, spotter.models, tokens)), axis=0)
    return spotter.spots([scores], **options)


def live_spots(streaming, frames, chunk=1):
    found = [spot for first in range(0, len(frames), chunk) for spot in streaming.push(frames[first : first + chunk])]
    return found, streaming.finish()


def place(spot):
    return spot["timestamp_s"], spot["label"]


def assert_same_spots(found, expected):
    found, expected = sorted(found, key=place), sorted(expected, key=place)
    assert list(map(place, found)) == list(map(place, expected))
    assert [spot["score"] for spot in found] == pytest.approx([spot["score"] for spot in expected], abs=1e-5)


SUPPRESSIONS = [("soft", 6.0), ("hard", 3.0), ("soft", [0.0, 2.0, 9.0]), ("hard", [0.0, 2.0, 9.0])]


@pytest.mark.parametrize("nms_type, nms_window_s", SUPPRESSIONS, ids=str)
@pytest.mark.parametrize(
    "encoder, merge, trim_s, stride_s",
    [
        ("vivit", "max", 1.0, 1.0),
        ("viswin", "mean", 0.0, 3.0),
        ("vivit", "mean", 1.0, 2.0),
        ("viswin", "max", 1.0, 2.0),
        ("convolutional", "mean", 1.0, 1.0),
    ],
)
def test_without_a_look_ahead_the_spots_are_those_of_the_whole_video(
    encoder, merge, trim_s, stride_s, nms_type, nms_window_s
):
    windows = {"merge": merge, "edge_trim_s": trim_s, "window_stride_s": stride_s}
    spotter = make_spotter({"spatial_encoder": encoder, "nms_type": nms_type, "nms_window_s": nms_window_s} | windows)
    # less than a window of 8 frames, a window, half a tubelet more, and many
    for num_frames, chunk in ((1, 1), (3, 2), (7, 7), (8, 1), (9, 3), (10, 1), (23, 5), (68, 1), (97, 50)):
        frames = random_frames(num_frames)
        early, late = live_spots(StreamingSpotter(spotter), frames, chunk)
        assert_same_spots(early + late, offline_spots(spotter, frames))
    assert early and late


@pytest.mark.parametrize(
    "output",
    [
        {"scores_per_token": 2},
        {"scores_per_token": 3, "offset_radius_s": 1.5},
        {"scores_per_token": 1, "offset_radius_s": 3.0, "merge": "mean"},
    ],
    ids=str,
)
def test_scores_that_are_finer_or_move(output):
    spotter = make_spotter({"window_stride_s": 1.0, "edge_trim_s": 1.0, "nms_window_s": [0.0, 2.0, 5.0]} | output)
    for num_frames, chunk in ((1, 1), (6, 2), (11, 3), (60, 1), (97, 50)):
        frames = random_frames(num_frames)
        assert_same_spots(
            sum(live_spots(StreamingSpotter(spotter), frames, chunk), []), offline_spots(spotter, frames)
        )
        # an extreme look-ahead: all of a short video is one window
        if num_frames < 7:
            streaming = StreamingSpotter(spotter, look_ahead_s=3)
            assert_same_spots(sum(live_spots(streaming, frames), []), offline_spots(spotter, frames))


def test_mirror_images_count_too():
    plain, frames = make_spotter({"nms_window_s": 2.0}), random_frames(41)
    spotter = ActionSpotter(plain.models, flip=True)
    mirrored = np.ascontiguousarray(frames[:, :, ::-1])
    tokens = [scoring.encode_half(plain.models[0], images) for images in (frames, mirrored)]
    scores = np.mean([scoring.score_half(plain.models[0], own) for own in tokens], axis=0)
    found = sum(live_spots(StreamingSpotter(spotter), frames), [])
    assert_same_spots(found, plain.spots([scores]))
    assert found != offline_spots(plain, frames)


def test_thresholds_and_halves_are_those_of_the_spotter():
    spotter, frames = make_spotter({"label_thresholds": [0.3, 0.6, 0.5], "nms_window_s": 2.0}), random_frames(60)
    spotter.config.label_calibration = [[0.5, 0.1], [1.0, -1.0], [2.0, 0.0]]
    spotter.config.label_curves = [[[0.4, 0.8, 0.9]], [[0.3, 0.9, 0.5]], [[0.2, 0.1, 1.0]]]
    for options in ({}, {"keep_all": True}, {"threshold": 0.7}, {"threshold": "precision=0.8"}):
        expected = [spot | {"half": 2} for spot in offline_spots(spotter, frames, **options)]
        found = sum(live_spots(StreamingSpotter(spotter, half=2, **options), frames), [])
        assert_same_spots(found, expected)
        assert {spot["half"] for spot in found} == {2}
    assert len(offline_spots(spotter, frames)) < len(offline_spots(spotter, frames, keep_all=True))


def test_an_ensemble_of_different_windows():
    short = {"num_frames": 8, "window_stride_s": 1.0, "edge_trim_s": 1.0, "nms_window_s": 3.0}
    spotter = make_spotter(short, {"num_frames": 20, "merge": "mean", "spatial_encoder": "viswin"})
    for num_frames in (6, 13, 75):
        frames = random_frames(num_frames)
        assert_same_spots(sum(live_spots(StreamingSpotter(spotter), frames), []), offline_spots(spotter, frames))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_steps=st.integers(1, 120),
    levels=st.sampled_from([2, 5, 1000]),
    kind=st.sampled_from(["soft", "hard"]),
    min_weight=st.sampled_from([0.0, 0.3]),
)
def test_suppression_piece_by_piece_is_that_of_the_whole(seed, num_steps, levels, kind, min_weight):
    rng = np.random.default_rng(seed)
    # few levels make ties and plateaus; a cumulated sum makes long slopes
    scores = rng.integers(0, levels + 1, (num_steps, 3)).astype(np.float32) / levels
    if seed % 2:
        scores = np.cumsum(scores, axis=0) / num_steps
    windows = [0.0, 3.0, 14.0]
    config = tiny_config(nms_type=kind, nms_window_s=windows, nms_threshold=0.1, nms_min_weight=min_weight)
    running, found, step = RunningSuppression(config), [], 0
    while step < num_steps:
        size = int(rng.integers(1, 9))
        found += running.add(scores[step : step + size])
        step += size
    found += running.add(scores[:0], ended=True)
    kept = np.zeros_like(scores)
    for token, column, score in found:
        assert kept[token, column] == 0
        kept[token, column] = score
    np.testing.assert_array_equal(kept, non_maximum_suppression(scores, kind, windows, 0.1, min_weight))


@pytest.mark.parametrize("kind, wait", [("soft", 10), ("hard", 5)])
def test_a_peak_waits_for_what_could_change_it(kind, wait):
    running = RunningSuppression(tiny_config(nms_type=kind, nms_window_s=10.0))
    assert running.wait_steps == wait
    scores = np.full((40, 3), 0.01, np.float32)
    scores[8, 1] = 0.9
    told = [step for step in range(40) for event in running.add(scores[step : step + 1]) if event[:2] == (8, 1)]
    assert told == [8 + wait]


def test_each_tubelet_is_encoded_once(monkeypatch):
    spotter, seen = make_spotter({"window_stride_s": 1.0, "edge_trim_s": 1.0}), []
    model = spotter.models[0].model
    encode = model.encode_spatial
    monkeypatch.setattr(model, "encode_spatial", lambda pixels: seen.append(pixels[0]) or encode(pixels))
    frames = random_frames(45)
    for look_ahead_s in (None, 2.0):
        seen.clear()
        live_spots(StreamingSpotter(spotter, look_ahead_s=look_ahead_s), frames)
        pixels = torch.from_numpy(np.concatenate([frames, frames[-1:]])).permute(0, 3, 1, 2)
        torch.testing.assert_close(torch.cat(seen), (pixels / 255 - 0.45) / 0.225)


@pytest.mark.parametrize("nms_type, look_ahead_s", [("hard", None), ("soft", None), ("soft", 2.0)])
def test_memory_does_not_grow(nms_type, look_ahead_s):
    windows = {"window_stride_s": 2.0, "edge_trim_s": 1.0, "nms_window_s": 6.0, "nms_type": nms_type}
    streaming, held, memory = StreamingSpotter(make_spotter(windows), look_ahead_s=look_ahead_s), [], []
    frame = np.zeros((256, 256, 3), np.uint8)
    for index in range(300):
        # each frame is 0.2 MB of its own, so that 40 MB would be left behind
        streaming.push([frame + np.uint8(37 * index % 251)])
        held.append(streaming.num_held)
        pages = Path("/proc/self/statm").read_text().split()[1]
        memory.append(int(pages) * 4096)
    assert memory[-1] - memory[100] < 15e6
    assert max(now["tokens"] for now in held) == 4 and max(now["frames"] for now in held) == 1
    scores = [now["scores"] for now in held]
    if (nms_type, look_ahead_s) == ("soft", None):
        # what falls waits for what is better before it, as long as that goes on
        assert max(scores) < 200
    else:
        assert max(scores[50:]) <= max(scores[:50])


def test_what_soft_suppression_holds_does_not_grow():
    running, held = RunningSuppression(tiny_config(nms_window_s=10.0)), []
    for scores in np.random.default_rng(0).random((8000, 1, 3), np.float32):
        running.add(scores)
        held.append(running.num_held)
    # a score held is one of 24000
    assert max(held[1000:]) < 1.2 * max(held[:1000]) < 500


@pytest.mark.parametrize("nms_type", ["hard", "soft"])
@pytest.mark.parametrize("look_ahead_s", [None, 0.0, 1.0, 2.4])
def test_latency_is_as_stated(look_ahead_s, nms_type):
    windows = {"window_stride_s": 1.0, "edge_trim_s": 1.0, "nms_window_s": 4.0, "nms_type": nms_type}
    spotter = make_spotter(windows)
    streaming, frames = StreamingSpotter(spotter, look_ahead_s=look_ahead_s, keep_all=True), random_frames(120)
    # tokens of 1 s; windows of 4 s, of which the last is trimmed; suppression looks 2 s ahead, or 4 s
    offline_s = 4 - 1 + (4 if nms_type == "soft" else 2) + 1
    assert streaming.latency_s == {None: offline_s, 0.0: 1, 1.0: 2, 2.4: 3}[look_ahead_s]
    waits_s = []
    for index, frame in enumerate(frames):
        # frame i is on screen from i / fps on; the first instant of a token is 0.25 s before its time
        waits_s += [(index + 1) / 2 - (spot["timestamp_s"] - 0.25) for spot in streaming.push([frame])]
    assert len(waits_s) > 20
    if look_ahead_s is not None:
        assert set(waits_s) == {streaming.latency_s}
    elif nms_type == "hard":
        assert max(waits_s) == streaming.latency_s
    else:
        # as long as that, or longer where better ones follow
        assert min(waits_s) == streaming.latency_s < max(waits_s)


def naive_look_ahead(model, frames, look_ahead, radius):
    """Every window run whole through the model, in loops over tokens; hard suppression by what is known."""
    window, size = model.config.num_tokens, model.config.tubelet_size
    tubelets = [frames[first : first + size] for first in range(0, len(frames), size)]
    newest, told = {}, {}

    def score(end):
        first = max(end - window, 0)
        held = tubelets[first:end]
        pixels = np.concatenate(held + [held[-1]] * (window - len(held)))
        pixels = (torch.tensor(pixels).permute(0, 3, 1, 2) / 255 - 0.45) / 0.225
        with torch.no_grad():
            scores = model(pixels[None]).logits[0].sigmoid().numpy()
        newest.update({token: scores[token - first] for token in range(first, end)})

    def tell(tokens, end):
        before = dict(told)
        for token in tokens:
            told[token] = newest[token].copy()
            for label in range(len(told[token])):
                others = range(max(token - radius, 0), min(token + radius + 1, end))
                if any(before.get(other, newest[other])[label] > newest[token][label] for other in others):
                    told[token][label] = 0

    for end in range(1, len(tubelets) + 1):
        score(end)
        if end > look_ahead:
            tell([end - 1 - look_ahead], end)
    tell(range(len(told), len(tubelets)), len(tubelets))
    return np.array([told[token] for token in range(len(tubelets))])


@pytest.mark.parametrize("num_frames", [4, 8, 50])
@pytest.mark.parametrize("look_ahead", [0, 1, 3])
def test_with_a_look_ahead_scores_are_those_of_the_window_that_ends_then(look_ahead, num_frames):
    spotter = make_spotter({"nms_type": "hard", "nms_window_s": 4.0})
    frames = random_frames(num_frames)
    expected = naive_look_ahead(spotter.models[0].model, frames, look_ahead, radius=2)
    found = np.zeros_like(expected)
    for spot in sum(live_spots(StreamingSpotter(spotter, look_ahead_s=look_ahead, keep_all=True), frames), []):
        found[int(spot["timestamp_s"]), spotter.config.label_names.index(spot["label"])] = spot["score"]
    assert 0 < np.count_nonzero(expected) < expected.size or num_frames == 4
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_soft_suppression_weakens_what_follows_a_told_event():
    """Two tokens, nothing seen ahead: the second is weakened by the first where that is better, and never the other way."""
    spotters = [make_spotter({"nms_window_s": window_s, "nms_threshold": 1e-6}) for window_s in (0.0, 6.0)]
    weakened = 0
    for seed in range(20):
        frames = np.random.default_rng(seed).integers(256, size=(4, 16, 16, 3), dtype=np.uint8)
        alone, near = (
            {
                place(spot): spot["score"]
                for spot in sum(live_spots(StreamingSpotter(spotter, look_ahead_s=0, keep_all=True), frames), [])
            }
            for spotter in spotters
        )
        for label in spotters[0].config.label_names:
            first, second = alone[0.25, label], alone[1.25, label]
            weakened += first >= second
            assert near[0.25, label] == first
            assert near[1.25, label] == pytest.approx(second / 3 if first >= second else second)
    assert 10 < weakened < 50


def test_a_stream_of_nothing():
    for look_ahead_s in (None, 1.0):
        assert StreamingSpotter(make_spotter({}), look_ahead_s=look_ahead_s).finish() == []


@pytest.mark.parametrize("look_ahead_s", [-1.0, 3.5, 4.0, float("nan")])
def test_a_look_ahead_that_no_window_has(look_ahead_s):
    with pytest.raises(InputError, match="look-ahead of .* 0 to 3"):
        StreamingSpotter(make_spotter({}), look_ahead_s=look_ahead_s)


def test_a_look_ahead_reaches_as_far_as_scores_move():
    with pytest.raises(InputError, match="look-ahead of 1 s: give 2 to 3"):
        StreamingSpotter(make_spotter({"offset_radius_s": 1.5}), look_ahead_s=1.0)


def test_models_of_several_picture_sizes():
    spotter = make_spotter({}, {"image_size": [32, 32]})
    with pytest.raises(InputError, match="several sizes"):
        StreamingSpotter(spotter)

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from comedian.inference import scoring, torch_model
from comedian.inference.scoring import encode_half, encode_half_with_models, score_half
from comedian.inference.torch_model import TorchModel, map_batches
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from comedian.models.postprocessing_comedian import spots_of_half
from testing_utils import compute_in_float32, tiny_config


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    compute_in_float32(monkeypatch)


def make_model(**overrides):
    # trained models have position tables and logits of some size; the initial ones would hide mistakes
    return ComedianForActionSpotting(tiny_config(initializer_range=0.5, **overrides)).eval()


def random_frames(count, side=16):
    return np.random.default_rng(count).integers(256, size=(count, side, side, 3), dtype=np.uint8)


def scoring_model(model):
    height, width = model.config.image_size
    return TorchModel(model, ComedianVideoProcessor(size={"height": height, "width": width}))


def scores_of(model, frames):
    model = scoring_model(model)
    return score_half(model, encode_half(model, frames))


def naive_scores(model, frames):
    """Every window run whole through the model; a loop over tokens and windows merges them."""
    config = model.config
    size, window, trim = config.tubelet_size, config.num_tokens, config.edge_trim_tokens
    tubelets = [
        [frames[min(size * k + j, len(frames) - 1)] for j in range(size)] for k in range(-(-len(frames) // size))
    ]
    length = len(tubelets)
    padded = tubelets + [tubelets[-1]] * (window - length)
    starts, start = [], 0
    while start + window < length:
        starts.append(start)
        start += config.window_stride_tokens
    starts.append(max(length - window, 0))
    outputs = {}
    for start in starts:
        pixels = torch.tensor(np.array(padded[start : start + window]).reshape(-1, 16, 16, 3)).permute(0, 3, 1, 2)
        pixels = (pixels / 255 - 0.45) / 0.225
        with torch.no_grad():
            outputs[start] = model(pixels[None]).logits[0].sigmoid().numpy()
    merged = []
    for token in range(length):
        votes = []
        for start in starts:
            first = start + (trim if start > 0 else 0)
            last = start + window - 1 - (trim if start + window < length else 0)
            if first <= token <= last:
                votes.append(outputs[start][token - start])
        merged.append(np.max(votes, axis=0) if config.merge == "max" else np.mean(votes, axis=0))
    return np.array(merged)


@pytest.mark.parametrize("num_frames", [1, 3, 7, 8, 9, 23, 42], ids=lambda count: f"{count} frames")
@pytest.mark.parametrize("merge, trim_s, stride_s", [("max", 1.0, 1.0), ("mean", 0.0, 3.0), ("mean", 1.0, 2.0)])
def test_scores_are_those_of_whole_windows(num_frames, merge, trim_s, stride_s):
    model = make_model(merge=merge, edge_trim_s=trim_s, window_stride_s=stride_s)
    frames = random_frames(num_frames)
    scores = scores_of(model, frames)
    expected = naive_scores(model, frames)
    assert scores.shape == expected.shape == (-(-num_frames // 2), 3) and scores.dtype == np.float32
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_many_batches_are_one(monkeypatch):
    model, frames = make_model(edge_trim_s=1.0, window_stride_s=1.0), random_frames(41)
    expected = scores_of(model, frames)
    monkeypatch.setattr(torch_model, "TUBELETS_PER_BATCH", 3)
    monkeypatch.setattr(scoring, "WINDOWS_PER_BATCH", 2)
    np.testing.assert_allclose(scores_of(model, frames), expected, atol=1e-6)


def test_each_tubelet_is_encoded_once(monkeypatch):
    model, encoded = make_model(window_stride_s=1.0, edge_trim_s=1.0), []
    encode_spatial = model.encode_spatial
    monkeypatch.setattr(model, "encode_spatial", lambda pixels: encoded.append(pixels) or encode_spatial(pixels))
    frames = random_frames(100)
    scores_of(model, iter(frames))
    # batches are encoded side by side, so in any order: their first pixels tell which is which
    expected = ((torch.tensor(frames).permute(0, 3, 1, 2) / 255 - 0.45) / 0.225).split(32)
    order = [min(range(4), key=lambda i: (expected[i][0] - batch[0, 0]).abs().sum()) for batch in encoded]
    assert sorted(order) == [0, 1, 2, 3]
    for index, batch in zip(order, encoded, strict=True):
        torch.testing.assert_close(batch[0], expected[index])


def test_several_models_in_one_pass():
    models = [scoring_model(make_model()), scoring_model(make_model(spatial_encoder="viswin"))]
    frames = random_frames(30)
    together = encode_half_with_models(models, iter(frames))
    for model, tokens in zip(models, together):
        np.testing.assert_allclose(tokens, encode_half(model, frames), rtol=1e-5, atol=1e-5)
    assert together[0].shape != together[1].shape


def test_spots_are_on_the_grid_of_the_tokens():
    config = tiny_config(nms_type="hard", nms_window_s=2.0)
    scores = np.zeros((10, 3), np.float32)
    scores[4, 1], scores[7, 2], scores[8, 2] = 0.9, 0.4, 0.3
    spots = spots_of_half(scores, config, 2, [0.5, 0.5, 0.2])
    # a token of two frames at 2 fps: token 4 holds the frames at 4.0 and 4.5 s
    assert [(spot["label"], spot["timestamp_s"], spot["half"]) for spot in spots] == [
        ("LABEL_1", 4.25, 2),
        ("LABEL_2", 7.25, 2),
    ]


def test_batches_are_worked_on_in_order_while_the_next_are_made(request):
    made, threads = [], set()

    def batches():
        for index in range(40):
            made.append((index, threading.current_thread()))
            yield np.full(1, index)

    def work(batch):
        threads.add(threading.current_thread())
        time.sleep(0.01 * (batch[0] % 3))
        return int(batch[0]), torch.get_num_threads()

    before = 2
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(before)
    results = map_batches(work, batches(), torch.device("cpu"))
    assert next(results) == (0, 1) and 1 < len(made) < 20
    assert list(results) == [(index, 1) for index in range(1, 40)]
    assert {thread for _, thread in made} == {threading.current_thread()}
    assert len(threads) == before and torch.get_num_threads() == before
    # a new thread has the old number too
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before


def test_many_cores_share_batches():
    before = torch.get_num_threads()
    torch.set_num_threads(20)
    try:
        threads = set()

        def work(batch):
            threads.add(threading.current_thread())
            time.sleep(0.01)
            return torch.get_num_threads()

        assert set(map_batches(work, np.zeros((60, 1)), torch.device("cpu"))) == {2} and len(threads) == 8
        assert torch.get_num_threads() == 20
    finally:
        torch.set_num_threads(before)


def test_errors_of_batches_and_of_the_work_on_them_are_raised():
    def torn():
        yield np.zeros(1)
        raise OSError("torn")

    with pytest.raises(OSError, match="torn"):
        list(map_batches(len, torn(), torch.device("cpu")))
    with pytest.raises(ZeroDivisionError):
        list(map_batches(lambda batch: 1 // int(batch[0]), np.zeros((100, 1)), torch.device("cpu")))


def test_threads_stop_with_their_reader():
    before = threading.active_count(), torch.get_num_threads()
    results = map_batches(len, iter(np.zeros((1000, 1))), torch.device("cpu"))
    next(results)
    results.close()
    assert (threading.active_count(), torch.get_num_threads()) == before


@pytest.mark.parametrize("num_frames", [3, 9, 42])
def test_finer_scores_are_those_of_whole_windows(num_frames):
    model = make_model(merge="mean", edge_trim_s=1.0, window_stride_s=2.0, scores_per_token=2)
    frames = random_frames(num_frames)
    scores = scores_of(model, frames)
    # the same logits, one step of every token after the other, as the labels of a coarse model
    coarse = make_model(merge="mean", edge_trim_s=1.0, window_stride_s=2.0, num_labels=6)
    coarse.load_state_dict(model.state_dict())
    expected = naive_scores(coarse, frames).reshape(-1, 3)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    spots = spots_of_half(scores, model.config, 1, 0.0)
    assert {spot["timestamp_s"] for spot in spots} <= set(np.arange(-(-num_frames // 2) * 2) / 2)


def test_displaced_scores_lie_where_the_mean_offset_says(monkeypatch):
    settings = {"edge_trim_s": 1.0, "window_stride_s": 1.0}
    model = make_model(offset_radius_s=2.0, scores_per_token=4, **settings)
    frames = random_frames(30)
    tokens = encode_half(scoring_model(model), frames)
    scores = score_half(scoring_model(model), tokens)
    plain = make_model(**settings)
    plain.load_state_dict(model.state_dict(), strict=False)
    expected, offsets_s = score_half(scoring_model(plain), tokens), np.zeros((15, 3))
    for token in range(15):
        values = []
        for start in range(12):
            first, last = start + (1 if start else 0), start + 3 - (1 if start < 11 else 0)
            if first <= token <= last:
                window = model.encode_temporal(torch.from_numpy(tokens)[None, start : start + 4])
                values.append(model.predict_offsets_s(window)[0, token - start].detach().numpy())
        offsets_s[token] = np.mean(values, axis=0)
    assert scores.shape == (60, 3)
    for label in range(3):
        found = {}
        for token in range(15):
            step = int(np.clip((token + 0.5 + offsets_s[token, label]) * 4, 0, 59))
            found[step] = max(found.get(step, 0), expected[token, label])
        np.testing.assert_allclose(scores[sorted(found), label], [found[step] for step in sorted(found)], atol=1e-5)
        assert np.count_nonzero(scores[:, label]) == len(found)

"""`pipeline("action-spotting")` finds what `ActionSpotter` finds, from paths, parts and decoded frames."""

import gc
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from transformers import pipeline

from comedian import ActionSpotter
from comedian.inference.scoring import encode_half, score_half
from comedian.inference.torch_model import TorchModel
from comedian.models import (
    ActionSpottingPipeline,
    ComedianForActionSpotting,
    ComedianModel,
    ComedianVideoProcessor,
    pipeline_comedian,
)
from comedian.models.postprocessing_comedian import spots_of_half
from testing_utils import compute_in_float32, tiny_config
from video_factory import write_video

TASK = "action-spotting"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    # windows and trims of its own, so that the pipeline cannot pass with the defaults
    settings = {"window_stride_s": 1.0, "edge_trim_s": 1.0, "nms_window_s": 3.0, "label_thresholds": [0.2, 0.4, 0.6]}
    ComedianForActionSpotting(tiny_config(initializer_range=0.5, **settings)).save_pretrained(path)
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos")
    # 35 and 46 frames at the model's rate: the last tubelet of the first is not full
    return tuple(str(write_video(path / f"{half}.mkv", num_frames=120 + 55 * half, fps=10)) for half in (1, 2))


@pytest.fixture(scope="module")
def spotter(folder):
    return ActionSpotter.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def spot(folder):
    return pipeline(TASK, model=str(folder), device="cpu")


def test_the_package_is_its_own_code(spot):
    assert type(spot) is ActionSpottingPipeline and type(spot.model) is ComedianForActionSpotting
    assert type(spot.video_processor) is ComedianVideoProcessor


def test_halves_of_a_match(spot, spotter, videos):
    found = spot(videos)
    assert found == spotter(videos) and {event["half"] for event in found} == {1, 2}
    assert spot(videos[0]) == spotter(videos[0])
    assert list(found[0]) == ["label", "timestamp_s", "half", "score"]
    assert [type(value) for value in found[0].values()] == [str, float, int, float]


def test_a_generator_is_many_matches(spot, spotter, videos):
    assert list(spot(match for match in (videos[0], videos))) == [spotter(videos[0]), spotter(videos)]


def test_a_list_is_a_batch_of_matches(spot, videos):
    assert spot([videos[1], videos]) == [spot(videos[1]), spot(videos)]
    assert spot([videos[0]]) == [spot(videos[0])]


@pytest.fixture
def server(videos):
    """Serves the folder of the videos; `/short` breaks off before the end that it announces."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=Path(videos[0]).parent)

        def do_GET(self):
            if self.path != "/short":
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_addresses_are_downloaded(spot, videos, server, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert spot((f"{server}/1.mkv", videos[1])) == spot(videos)
    gc.collect()
    assert not list(tmp_path.iterdir())
    for name, reason in (("none.mkv", "404"), ("short", "last 990 bytes are missing")):
        with pytest.raises(ValueError, match=f"{name}` cannot be downloaded: .*{reason}"):
            spot(f"{server}/{name}")
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_video_classification_is_refused_in_one_line(folder, videos):
    with pytest.raises(ValueError, match='use `pipeline."action-spotting".`') as caught:
        pipeline("video-classification", model=str(folder), device="cpu")(videos[0])
    assert "\n" not in str(caught.value)


def test_a_video_shorter_than_a_window(spot, spotter, tmp_path):
    video = write_video(tmp_path / "short.mkv", num_frames=15)
    assert spot(video, threshold=0.0) == spotter(video, threshold=0.0) != []


def test_parameters_of_a_call_and_of_the_pipeline(folder, spot, spotter, videos):
    candidates = spotter(videos[0], keep_all=True)
    assert spot(videos[0], threshold=0.0) == candidates != spot(videos[0])
    assert spot(videos[0], threshold=0.7) == [event for event in candidates if event["score"] >= 0.7]
    strict = pipeline(TASK, model=str(folder), device="cpu", threshold=0.7)
    assert strict(videos[0]) == spot(videos[0], threshold=0.7)
    assert strict(videos[0], threshold=0.0) == candidates

    scores, config = spotter.score(videos[0]), spotter.config
    for changed, given in (
        ({"nms_type": "hard"}, {"nms_type": "hard"}),
        ({"nms_window_s": 8.0}, {"nms_window_s": 8.0}),
    ):
        settings = type(config).from_dict(config.to_dict() | changed)
        expected = spots_of_half(scores, settings, 1, config.label_thresholds)
        assert spot(videos[0], **given) == expected != spot(videos[0])


def test_a_calibrated_model_gives_the_same_probabilities(folder, videos):
    model = ComedianForActionSpotting.from_pretrained(folder)
    model.config.label_calibration = [[0.5, -1.0], [1.5, 0.5], [1.0, 0.3]]
    model.config.label_curves = [[[0.4, 0.9, 0.3], [0.3, 0.6, 0.6]], [[0.8, 0.95, 0.4]], [[0.5, 0.5, 0.1]]]
    processor = ComedianVideoProcessor.from_pretrained(folder)
    spotter, spot = (
        ActionSpotter([TorchModel(model, processor)]),
        pipeline(TASK, model=model, video_processor=processor),
    )
    for threshold in (None, 0.0, 0.5, "precision=0.9", "recall=0.5"):
        assert spot(videos, threshold=threshold) == spotter(videos, threshold=threshold) != []
    assert spot(videos, threshold=0.0) != spotter(videos, keep_all=True)
    for target in ("precision=2", "often"):
        with pytest.raises(ValueError, match="`threshold`"):
            spot(videos, threshold=target)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batch_size_changes_nothing_but_memory(folder, spot, videos, monkeypatch, batch_size):
    compute_in_float32(monkeypatch)
    expected = [{**event, "score": pytest.approx(event["score"], abs=1e-5)} for event in spot(videos[1], threshold=0)]
    sizes = []
    encode = ComedianForActionSpotting.encode_spatial
    monkeypatch.setattr(
        ComedianForActionSpotting,
        "encode_spatial",
        lambda self, pixels: sizes.append(pixels.shape[1]) or encode(self, pixels),
    )
    assert spot(videos[1], batch_size=batch_size, threshold=0) == expected
    assert max(sizes) == 2 * batch_size and sum(sizes) == 46
    sizes.clear()
    other = pipeline(TASK, model=str(folder), device="cpu", batch_size=batch_size)
    assert other(videos[1], threshold=0) == expected and max(sizes) == 2 * batch_size


def test_frames_are_read_as_the_model_draws_them(spot, videos, monkeypatch):
    drawn, ahead = [], []
    read = pipeline_comedian.iter_frames
    monkeypatch.setattr(
        pipeline_comedian,
        "iter_frames",
        lambda *args, **named: (drawn.append(1) or each for each in read(*args, **named)),
    )
    encode = ComedianForActionSpotting.encode_spatial
    monkeypatch.setattr(
        ComedianForActionSpotting,
        "encode_spatial",
        lambda self, pixels: ahead.append(len(drawn)) or encode(self, pixels),
    )
    spot(videos, batch_size=4)
    assert ahead == [8, 16, 24, 32, 35, 43, 51, 59, 67, 75, 81]


def test_decoded_frames_are_spotted_as_the_evaluator_does(spot, spotter):
    frames = np.random.default_rng(0).integers(0, 255, (35, 20, 24, 3), np.uint8)
    model = spotter.models[0]
    scores = score_half(model, encode_half(model, frames))
    expected = spots_of_half(scores, model.config, 1, model.config.label_thresholds)
    assert spot(frames) == expected != []
    second = [{**event, "half": 2} for event in expected]
    assert spot((frames, frames)) == expected + second and spot([frames, frames]) == [expected, expected]


def test_weights_in_bfloat16(folder, spot, videos):
    half = pipeline(TASK, model=str(folder), device="cpu", dtype=torch.bfloat16)
    assert half.model.dtype == torch.bfloat16
    expected = {(event["label"], event["timestamp_s"]): event["score"] for event in spot(videos[0], threshold=0)}
    found = {(event["label"], event["timestamp_s"]): event["score"] for event in half(videos[0], threshold=0)}
    common = expected.keys() & found.keys()
    assert len(common) > 0.5 * len(expected)
    assert np.median([abs(expected[key] - found[key]) for key in common]) < 0.02


def test_one_threshold_for_a_model_without(folder, videos, monkeypatch):
    model = ComedianForActionSpotting.from_pretrained(folder)
    model.config.label_thresholds = None
    processor = ComedianVideoProcessor.from_pretrained(folder)
    # the model's size holds, not the processor's
    spot = pipeline(TASK, model=model.train(), video_processor=ComedianVideoProcessor(size=224), device="cpu")
    assert not model.training
    warnings = []
    monkeypatch.setattr(pipeline_comedian.logger, "warning_once", warnings.append)
    spotter, found = ActionSpotter([TorchModel(model, processor)]), spot(videos[0])
    assert found == spotter(videos[0]) == spotter(videos[0], threshold=0.3)
    assert len(warnings) == 1 and "0.3" in warnings[0] and "comedian tune" in warnings[0]
    candidates = spot(videos[0], threshold=0)
    assert candidates == spotter(videos[0], keep_all=True) and len(warnings) == 1
    assert found == [event for event in candidates if event["score"] >= 0.3] and 0 < len(found) < len(candidates)


def test_a_saved_pipeline_is_whole(spot, videos, tmp_path):
    spot.save_pretrained(tmp_path)
    assert pipeline(TASK, model=str(tmp_path), device="cpu")(videos[0]) == spot(videos[0])


WRONG_INPUTS = {
    "not an http or https URL": "rtsp://example.org/match.mkv",
    "halves of one match as a tuple": [["1.mkv", "2.mkv"]],
    "an empty tuple": [()],
    "a video is a int": 3,
    "not a file": "/nowhere/match.mkv",
    "empty": [],
    "must be uint8": np.zeros((4, 8, 8, 3), np.float32),
    r"\(4, 3, 8, 8\)": np.zeros((4, 3, 8, 8), np.uint8),
    r"\(0, 8, 8, 3\)": np.zeros((0, 8, 8, 3), np.uint8),
}


@pytest.mark.parametrize("message, videos", WRONG_INPUTS.items())
def test_inputs_that_are_refused(spot, message, videos):
    with pytest.raises(ValueError, match=message):
        spot(videos)


def test_the_last_half_is_looked_for_before_the_first_is_scored(spot, videos, monkeypatch):
    monkeypatch.setattr(ActionSpottingPipeline, "encode", lambda *args: pytest.fail("scored"))
    with pytest.raises(ValueError, match="not a file"):
        spot((videos[0], "/nowhere/match.mkv"))
    with pytest.raises(ValueError, match="not a file"):
        spot([videos[0], "/nowhere/match.mkv"])


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"nms_type": "none"}, "`nms_type`"),
        ({"nms_window_s": [1.0]}, "`nms_window_s`"),
        ({"nms_window_s": -1}, "`nms_window_s`"),
        ({"batch_size": -1}, "`batch_size`"),
    ],
)
def test_parameters_that_are_refused(spot, videos, parameters, message):
    with pytest.raises(ValueError, match=message):
        spot(videos[0], **parameters)


def test_a_model_that_spots_nothing_is_refused():
    with pytest.raises(ValueError, match="ComedianModel; action spotting needs"):
        pipeline(TASK, model=ComedianModel(tiny_config()), device="cpu")


@pytest.mark.parametrize("content", [b"no video", b""])
def test_a_file_that_is_no_video(spot, tmp_path, content):
    (tmp_path / "no.mkv").write_bytes(content)
    with pytest.raises(ValueError, match="no.mkv"):
        spot(str(tmp_path / "no.mkv"))


def test_without_pyav_decoded_frames_are_spotted(spot, videos, monkeypatch):
    monkeypatch.setattr(pipeline_comedian, "av", None)
    assert isinstance(spot(np.zeros((8, 16, 16, 3), np.uint8)), list)
    with pytest.raises(ImportError, match="pip install av"):
        spot(videos[0])


@pytest.mark.parametrize("settings", [{"scores_per_token": 2}, {"scores_per_token": 3, "offset_radius_s": 1.0}])
def test_finer_models_are_spotted_alike(tmp_path, videos, settings):
    model = ComedianForActionSpotting(
        tiny_config(initializer_range=0.5, window_stride_s=1.0, merge="mean", **settings)
    )
    model.save_pretrained(tmp_path)
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    found = pipeline(TASK, model=str(tmp_path), device="cpu")(videos)
    assert found == ActionSpotter.from_pretrained(tmp_path, device="cpu")(videos)
    # step i is at (i + 0.5) / steps a second - 0.25 s, but for the first of three, which would be before the half
    steps = np.array([event["timestamp_s"] for event in found if event["timestamp_s"] > 0]) + 0.25
    steps = steps * settings["scores_per_token"] - 0.5
    np.testing.assert_allclose(steps, steps.round(), atol=1e-6)
    assert len(set(steps.round() % settings["scores_per_token"])) == settings["scores_per_token"]

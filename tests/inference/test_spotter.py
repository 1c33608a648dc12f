import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline

from comedian import ActionSpotter, InputError
from comedian.cli.main import main
from comedian.conversion.averaging import average_models
from comedian.inference import score_files, spotter
from comedian.inference.score_files import load_score_folders, load_scores, score_matches, score_path
from comedian.inference.scoring import encode_half, score_half
from comedian.inference.spotter import merge_configs
from comedian.inference.streaming import StreamingSpotter
from comedian.inference.torch_model import TorchModel
from comedian.models import ComedianForActionSpotting, ComedianModel, ComedianVideoProcessor
from comedian.video.decoding import iter_frames
from testing_utils import tiny_config
from video_factory import write_video


def save_model(path, seed=0, **overrides):
    torch.manual_seed(seed)
    model = ComedianForActionSpotting(tiny_config(initializer_range=0.5, **overrides))
    model.save_pretrained(path)
    height, width = model.config.image_size
    ComedianVideoProcessor(size={"height": height, "width": width}).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spotter")


@pytest.fixture(scope="module")
def model(folder):
    return save_model(folder / "model", label_thresholds=[0.2, 0.4, 0.6])


@pytest.fixture(scope="module")
def videos(folder):
    return tuple(write_video(folder / f"{half}.mkv", num_frames=130 + 50 * half, fps=10) for half in (1, 2))


def test_a_video_is_its_frames_on_the_evaluators_road(model, videos):
    loaded = ComedianForActionSpotting.from_pretrained(model)
    frames = [frame for _, frame in iter_frames(videos[0], 2, (16, 16))]
    assert len(frames) == 36
    scoring = TorchModel(loaded, ComedianVideoProcessor.from_pretrained(model))
    expected = score_half(scoring, encode_half(scoring, frames))
    scores = ActionSpotter.from_pretrained(model, device="cpu").score(videos[0])
    assert scores.dtype == np.float32 and scores.shape == (18, 3)
    np.testing.assert_array_equal(scores, expected)


def test_halves_and_thresholds(model, videos):
    spot = ActionSpotter.from_pretrained(model, device="cpu")
    candidates = spot(videos, keep_all=True)
    assert {found["half"] for found in candidates} == {1, 2}
    keys = [(found["half"], found["timestamp_s"]) for found in candidates]
    assert keys == sorted(keys) and len(keys) > 10
    second = [{**found, "half": 2} for found in spot(videos[1], keep_all=True)]
    assert [found for found in candidates if found["half"] == 2] == second
    thresholds = dict(zip(("LABEL_0", "LABEL_1", "LABEL_2"), (0.2, 0.4, 0.6)))
    events = spot(videos)
    assert events == [found for found in candidates if found["score"] >= thresholds[found["label"]]]
    assert 0 < len(events) < len(candidates)
    assert spot(videos, threshold=0.7) == [found for found in candidates if found["score"] >= 0.7]
    assert spot.spots([spot.score(video) for video in videos]) == events
    # a list is a batch of matches
    assert spot([videos[0], videos]) == [spot(videos[0]), events]
    for changed in ({"nms_type": "hard"}, {"nms_window_s": 8.0}, {"nms_window_s": [0.0, 8.0, 4.0]}):
        other = ActionSpotter.from_pretrained(model, device="cpu")
        other.use_settings(changed)
        assert spot(videos, **changed) == other(videos) != events
    with pytest.raises(InputError, match="tuple of paths"):
        spot([list(videos)])
    with pytest.raises(InputError, match="empty tuple"):
        spot(())
    with pytest.raises(InputError, match="nms_type"):
        spot(videos, nms_type="none")


def test_an_ensemble_is_the_mean_and_decodes_once_a_size(model, folder, videos, monkeypatch):
    other = save_model(folder / "other", seed=1, label_thresholds=[0.4, 0.4, 0.4])
    larger = save_model(folder / "larger", seed=2, image_size=[32, 24])
    expected = np.mean([ActionSpotter.from_pretrained(name).score(videos[0]) for name in (model, other)], axis=0)
    sizes = []
    monkeypatch.setattr(
        spotter, "iter_frames", lambda path, fps, size, **o: sizes.append(size) or iter_frames(path, fps, size, **o)
    )
    pair = ActionSpotter.from_pretrained(model, other)
    np.testing.assert_allclose(pair.score(videos[0]), expected, atol=1e-6)
    assert sizes == [(16, 16)]
    np.testing.assert_allclose(pair.config.label_thresholds, [0.3, 0.4, 0.5])
    trio = ActionSpotter.from_pretrained(model, larger, other)
    third = ActionSpotter.from_pretrained(larger).score(videos[0])
    sizes.clear()
    np.testing.assert_allclose(trio.score(videos[0]), (2 * expected + third) / 3, atol=1e-6)
    assert sizes == [(16, 16), (32, 24)]
    assert trio.config.label_thresholds is None


CALIBRATION = [[0.5, -1.0], [1.5, 0.5], [1.0, 0.0]]
CURVES = [[[0.3, 0.9, 0.2], [0.1, 0.6, 0.6]], [[0.8, 0.95, 0.4]], [[0.5, 0.5, 0.1]]]


@pytest.fixture(scope="module")
def calibrated(folder):
    """The model of `model`, calibrated; its thresholds are on probabilities."""
    fields = {"label_thresholds": [0.2, 0.6, 0.5], "label_calibration": CALIBRATION, "label_curves": CURVES}
    return save_model(folder / "calibrated", **fields)


def probability(found, labels):
    slope, bias = CALIBRATION[labels.index(found["label"])]
    return 1 / (1 + (found["score"] / (1 - found["score"])) ** -slope * np.exp(-bias))


def test_a_calibrated_model_reports_probabilities_and_gives_the_metric_raw_scores(model, calibrated, videos):
    spot = ActionSpotter.from_pretrained(calibrated)
    labels = spot.config.label_names
    candidates = spot(videos, keep_all=True)
    assert candidates == ActionSpotter.from_pretrained(model)(videos, keep_all=True)
    shown = [{**found, "score": pytest.approx(probability(found, labels))} for found in candidates]
    assert spot(videos, threshold=0.0) == shown
    limits = dict(zip(labels, (0.2, 0.6, 0.5)))
    events = [found for found in shown if found["score"].expected >= limits[found["label"]]]
    assert spot(videos) == events and 0 < len(events) < len(shown)
    assert spot(videos, threshold=0.7) == [found for found in shown if found["score"].expected >= 0.7]


def test_a_target_of_precision_takes_each_labels_threshold(calibrated, model, videos, monkeypatch):
    spot = ActionSpotter.from_pretrained(calibrated)
    everything = spot(videos, threshold=0.0)
    limits = dict(zip(spot.config.label_names, (0.3, 0.8, np.inf)))
    events = [found for found in everything if found["score"] >= limits[found["label"]]]
    assert spot(videos, threshold="precision=0.9") == events and {found["label"] for found in events} == {
        "LABEL_0",
        "LABEL_1",
    }
    # refused before the work
    monkeypatch.setattr(ActionSpotter, "score", lambda *args, **options: pytest.fail("scored"))
    for name, target in ((model, "precision=0.9"), (calibrated, "f1=0.9")):
        with pytest.raises(InputError, match="`threshold`"):
            ActionSpotter.from_pretrained(name)(videos, threshold=target)


def test_an_ensemble_of_calibrated_models(calibrated, model, folder):
    twin = save_model(folder / "twin", seed=1, label_thresholds=[0.4, 0.6, 0.7], label_calibration=[[1.5, 1.0]] * 3)
    config = ActionSpotter.from_pretrained(calibrated, twin).config
    np.testing.assert_allclose(config.label_calibration, [[1.0, 0.0], [1.5, 0.75], [1.25, 0.5]])
    np.testing.assert_allclose(config.label_thresholds, [0.3, 0.6, 0.6])
    assert config.label_curves is None
    # thresholds of two scales have no mean
    mixed = ActionSpotter.from_pretrained(calibrated, model).config
    assert mixed.label_calibration is None and mixed.label_thresholds is None
    assert ActionSpotter.from_pretrained(calibrated).config.label_curves == CURVES


def test_flip_is_the_mean_with_the_mirrored_video(model, folder, videos, tmp_path, monkeypatch):
    larger = save_model(folder / "flipped_larger", seed=2, image_size=[32, 24])
    plain = ActionSpotter.from_pretrained(model, larger)
    expected = plain.score(videos[0])
    flipped = ActionSpotter.from_pretrained(model, larger, flip=True)
    found = flipped.score(videos[0])
    assert flipped.fingerprint != plain.fingerprint

    def mirrored(*args, **options):
        return ((time_s, frame[:, ::-1].copy()) for time_s, frame in iter_frames(*args, **options))

    monkeypatch.setattr(spotter, "iter_frames", mirrored)
    mirror = plain.score(videos[0])
    assert np.abs(mirror - expected).max() > 1e-3
    np.testing.assert_allclose(found, (expected + mirror) / 2, atol=1e-6)


@pytest.mark.parametrize(
    "overrides", [{"num_labels": 2}, {"id2label": {0: "a", 1: "b", 2: "c"}}, {"fps": 4.0}, {"tubelet_size": 4}]
)
def test_models_that_do_not_fit_are_both_named(model, tmp_path, overrides):
    other = save_model(tmp_path / "other", **overrides)
    with pytest.raises(InputError) as error:
        ActionSpotter.from_pretrained(model, other)
    assert model in str(error.value) and other in str(error.value)


def break_model(path, how):
    if how == "missing":
        return path / "nothing"
    save_model(path)
    if how == "no config":
        (path / "config.json").unlink()
    elif how == "no weights":
        (path / "model.safetensors").unlink()
    elif how == "no processor":
        (path / "preprocessor_config.json").unlink(missing_ok=True)
        (path / "video_preprocessor_config.json").unlink(missing_ok=True)
    elif how == "torn weights":
        (path / "model.safetensors").write_bytes(b"torn")
    elif how == "torn config":
        (path / "config.json").write_text("{")
    elif how == "other type":
        config = json.loads((path / "config.json").read_text()) | {"model_type": "bert"}
        (path / "config.json").write_text(json.dumps(config))
    elif how == "impossible":
        config = json.loads((path / "config.json").read_text()) | {"num_frames": 7}
        (path / "config.json").write_text(json.dumps(config))
    elif how == "backbone":
        ComedianModel(tiny_config()).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    "how, reason",
    {
        "missing": "does not exist",
        "no config": "no config.json",
        "no weights": "no file named model.safetensors",
        "no processor": "video processor",
        "torn weights": "header",
        "torn config": "not valid JSON",
        "other type": "'bert'",
        "impossible": "`num_frames` 7",
        "backbone": "classifier",
    }.items(),
)
def test_a_bad_model_is_told_in_one_line(tmp_path, how, reason):
    path = break_model(tmp_path / "model", how)
    with pytest.raises(InputError) as error:
        ActionSpotter.from_pretrained(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message and "give" in message and reason in message


def test_a_name_that_is_nowhere():
    with pytest.raises(InputError, match="nobody/nothing-such"):
        ActionSpotter.from_pretrained("nobody/nothing-such")


def test_an_unusable_device(model):
    with pytest.raises(InputError, match="no-such-device"):
        ActionSpotter.from_pretrained(model, device="no-such-device")


def test_saved_scores_are_taken_again_until_model_or_video_changes(model, folder, videos, tmp_path, monkeypatch):
    spot = ActionSpotter.from_pretrained(model)
    matches = {"league/a": {1: videos[0]}, "league/b": {1: videos[1], 2: videos[0]}}
    expected = score_matches(spot, matches, tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == [
        "league/a/1.safetensors",
        "league/b/1.safetensors",
        "league/b/2.safetensors",
    ]
    scored = []
    score = ActionSpotter.score
    monkeypatch.setattr(
        ActionSpotter, "score", lambda self, video, **options: scored.append(video) or score(self, video, **options)
    )
    again = score_matches(ActionSpotter.from_pretrained(model), matches, tmp_path)
    assert scored == []
    assert all((again[match][half] == expected[match][half]).all() for match in matches for half in matches[match])
    score_path(tmp_path, "league/b", 1).write_bytes(b"torn")
    score_matches(spot, matches, tmp_path)
    assert scored == [videos[1]]
    copy = write_video(tmp_path / "copy.mkv", num_frames=20)
    score_matches(spot, {"league/a": {1: copy}}, tmp_path)
    assert scored == [videos[1], copy]
    # nothing but the weights differs
    save_model(tmp_path / "model", seed=3, label_thresholds=[0.2, 0.4, 0.6])
    score_matches(ActionSpotter.from_pretrained(tmp_path / "model"), {"league/b": {2: videos[0]}}, tmp_path)
    assert scored == [videos[1], copy, videos[0]]


def test_a_broken_video_is_told_before_the_work(model, videos, tmp_path, monkeypatch):
    bad = tmp_path / "bad.mkv"
    bad.write_bytes(b"no video")
    monkeypatch.setattr(ActionSpotter, "score", lambda *args, **options: pytest.fail("scored"))
    with pytest.raises(InputError, match="bad.mkv"):
        score_matches(ActionSpotter.from_pretrained(model), {"match": {1: videos[0], 2: bad}})


def test_folders_of_scores_are_an_ensemble(model, folder, videos, tmp_path):
    other = save_model(tmp_path / "model", seed=1, label_thresholds=[0.4, 0.4, 0.4])
    matches = {"match": dict(enumerate(videos, 1))}
    parts = [
        score_matches(ActionSpotter.from_pretrained(name), matches, tmp_path / f"scores{index}")
        for index, name in enumerate((model, other))
    ]
    scores, config = load_score_folders([tmp_path / "scores0", tmp_path / "scores1"])
    for half in (1, 2):
        np.testing.assert_allclose(scores["match"][half], (parts[0]["match"][half] + parts[1]["match"][half]) / 2)
    np.testing.assert_allclose(config.label_thresholds, [0.3, 0.4, 0.5])
    score_path(tmp_path / "scores1", "match", 2).unlink()
    with pytest.raises(InputError, match="same halves"):
        load_score_folders([tmp_path / "scores0", tmp_path / "scores1"])


def test_score_files_that_lead_out_of_their_place_are_refused(model, videos, tmp_path):
    spot = ActionSpotter.from_pretrained(model)
    scored = score_files.ScoredHalf("../out", 1, spot.score(videos[0]), spot.config, [], {})
    score_files.save_scores(tmp_path / "scores", scored)
    with pytest.raises(InputError, match="leads out"):
        load_scores(tmp_path / "out/1.safetensors")


def test_a_folder_without_scores(tmp_path):
    with pytest.raises(InputError, match="holds no scores"):
        load_score_folders([tmp_path])


def test_an_ensemble_has_one_rate_of_scores():
    with pytest.raises(InputError, match="`a` gives 1 scores a token, `b` 2"):
        merge_configs([tiny_config(), tiny_config(scores_per_token=2)], ["a", "b"])


LAST_NORM = "comedian.temporal_encoder.norm.bias"


def save_spoiled(path, spoil):
    """Write a model, and change its weights in the file."""
    save_model(path)
    weights = load_file(path / "model.safetensors")
    spoil(weights)
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    return str(path)


@pytest.mark.parametrize("command", ["spot", "spot --live", "ensemble", "average", "export", "publish", "finetune"])
def test_weights_that_are_not_finite_are_refused_by_every_command(command, model, videos, tmp_path, capsys):
    bad = save_spoiled(tmp_path / "bad", lambda weights: weights[LAST_NORM].fill_(torch.nan))
    output = tmp_path / "output"
    words = {
        "spot": ["spot", str(videos[0]), "--model", bad, "--output", f"{output}.json"],
        "spot --live": ["spot", str(videos[0]), "--live", "--model", bad],
        "ensemble": ["spot", str(videos[0]), "--model", model, bad, "--output", f"{output}.json"],
        "average": ["average", model, bad, "--output", str(output)],
        "export": ["export", bad, str(output), "--format", "torch-export"],
        "publish": ["publish", bad, "me/model", "--dry-run"],
        "finetune": ["finetune", "--config", str(tmp_path / "recipe.yaml")],
    }[command]
    sections = {"model": {"checkpoint": bad}, "data": {}, "training": {"output_dir": str(output)}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(sections))
    assert main(words) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"`{LAST_NORM.removeprefix('comedian.') if command == 'finetune' else LAST_NORM}` is not finite" in line
    assert not output.exists() and not (tmp_path / "output.json").exists()


def overflow(weights):
    """Every weight is finite, and the logits are not."""
    weights["classifier.weight"].fill_(3e38)
    weights["classifier.weight"][:, ::2] *= -1
    weights["comedian.temporal_encoder.norm.weight"].fill_(1e5)


def test_scores_that_are_not_finite_are_refused(model, videos, tmp_path, capsys):
    bad = save_spoiled(tmp_path / "bad", overflow)
    words = ["--threshold", "0.1", "--output", str(tmp_path / "spots.json")]
    for models in ([bad], [model, bad]):
        assert main(["spot", str(videos[0]), "--model", *models, *words]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert "scores that are not finite" in line and str(tmp_path / "bad") in line
    assert not (tmp_path / "spots.json").exists()
    frames = np.zeros((40, 16, 16, 3), np.uint8)
    streaming = StreamingSpotter.from_pretrained(bad, device="cpu")
    with pytest.raises(InputError, match="scores that are not finite"):
        streaming.push(frames), streaming.finish()
    spot = pipeline("action-spotting", model=bad, device="cpu")
    with pytest.raises(ValueError, match="scores that are not finite"):
        spot(frames)


def test_models_in_memory_are_looked_at_too(model):
    spoiled = ComedianForActionSpotting.from_pretrained(model)
    spoiled.classifier.bias.data.fill_(torch.inf)
    processor = ComedianVideoProcessor.from_pretrained(model)
    with pytest.raises(ValueError, match="`classifier.bias` is not finite"):
        ActionSpotter([TorchModel(spoiled, processor)])
    with pytest.raises(ValueError, match="`classifier.bias` is not finite"):
        average_models(ComedianForActionSpotting.from_pretrained(model), [("spoiled", spoiled)])

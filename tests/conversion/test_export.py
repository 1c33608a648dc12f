import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from comedian import ActionSpotter
from comedian.cli.main import main
from comedian.conversion import export
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from testing_utils import compute_in_float32, tiny_config
from video_factory import write_video

EXAMPLE = Path(__file__).parents[2] / "examples" / "spot_without_torch.py"
LABELS = ["Goal", "Ball out of play", "Yellow->red, card"]
WINDOW = 4
DINOV2 = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2}
DINOV2 |= {"image_size": 16, "patch_size": 4}
CONVNEXT = {"model_type": "convnext", "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
# ViSwin with windows that are shifted and padded, scores that move, and probabilities
MODELS = {
    "vivit": {"spatial_depths": [1], "temporal_depth": 1, "scores_per_token": 2, "merge": "mean"},
    "viswin": {
        "spatial_depths": [2, 1],
        "temporal_depth": 1,
        "offset_radius_s": 1.5,
        "edge_trim_s": 1.0,
        "window_stride_s": 1.0,
        "nms_window_s": [0.0, 2.0, 4.0],
        "label_thresholds": [0.1, 0.2, 0.3],
        "label_calibration": [[0.5, 0.1], [1.0, -1.0], [2.0, 0.0]],
    },
    "convolutional": {"temporal_depth": 1},
    # image models of transformers
    "dinov2": {"spatial_encoder": "backbone", "backbone_config": DINOV2, "temporal_depth": 1},
    "convnext": {"spatial_encoder": "backbone", "backbone_config": CONVNEXT, "temporal_depth": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    for name, fields in MODELS.items():
        torch.manual_seed(0)
        config = tiny_config(
            **{"spatial_encoder": name} | fields, initializer_range=0.5, id2label=dict(enumerate(LABELS))
        )
        ComedianForActionSpotting(config).save_pretrained(folder / name)
        size = {"height": 16, "width": 16}
        ComedianVideoProcessor(size=size, image_mean=[0.4, 0.5, 0.6]).save_pretrained(folder / name)
        for file_format in ("onnx", "torch-export") if name == "viswin" else ("onnx",):
            words = ["export", str(folder / name), str(folder / f"{name}-{file_format}"), "--format", file_format]
            assert main(words) == 0
    return folder


def load_graphs(folder, name, file_format):
    """Return the spatial and the temporal graph as functions of arrays to lists of arrays."""
    folder, suffix = folder / f"{name}-{file_format}", {"onnx": "onnx", "torch-export": "pt2"}[file_format]
    paths = [folder / f"{part}_encoder.{suffix}" for part in ("spatial", "temporal")]
    if file_format == "onnx":
        sessions = [onnxruntime.InferenceSession(path) for path in paths]
        # by name, as others will call them
        return [
            lambda array, session=session, word=word: session.run(None, {word: array})
            for session, word in zip(sessions, ("tubelets", "tokens"))
        ]
    modules = [torch.export.load(path).module() for path in paths]

    def run(module, array):
        with torch.no_grad():
            found = module(torch.from_numpy(array))
        return [tensor.numpy() for tensor in (found if isinstance(found, tuple) else (found,))]

    return [lambda array, module=module: run(module, array) for module in modules]


@pytest.mark.parametrize(
    "name, file_format",
    [("viswin", "torch-export"), *((name, "onnx") for name in MODELS)],
)
def test_graphs_equal_the_model(folder, name, file_format):
    model = ComedianForActionSpotting.from_pretrained(folder / name)
    spatial, temporal = load_graphs(folder, name, file_format)
    rng = np.random.default_rng(0)
    for count in (1, 3, 16):
        tubelets = rng.standard_normal((count, 2, 3, 16, 16), np.float32)
        with torch.no_grad():
            expected = model.encode_spatial(torch.from_numpy(tubelets).flatten(0, 1)[None])[0]
        [found] = spatial(tubelets)
        assert np.ptp(found) > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-4)
    for batch in (1, 3):
        for time in range(1, WINDOW + 1):
            tokens = rng.standard_normal((batch, time, model.config.hidden_size), np.float32)
            with torch.no_grad():
                temporal_tokens = model.encode_temporal(torch.from_numpy(tokens))
                expected = [model.classify(temporal_tokens).sigmoid(), model.predict_offsets_s(temporal_tokens)]
            found = temporal(tokens)
            assert len(found) == (2 if name == "viswin" else 1)
            assert found[0].shape == (batch, time * (2 if name == "vivit" else 1), 3)
            for one, other in zip(found, expected):
                np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_folder_has_all_that_spotting_needs(folder):
    names = sorted(path.name for path in (folder / "viswin-onnx").iterdir())
    assert names == ["postprocessing_comedian.py", "spatial_encoder.onnx", "spotting.json", "temporal_encoder.onnx"]
    settings = json.loads((folder / "viswin-onnx" / "spotting.json").read_text())
    assert settings["label_names"] == LABELS and settings["label_thresholds"] == [0.1, 0.2, 0.3]
    assert (settings["fps"], settings["tubelet_size"], settings["image_size"]) == (2.0, 2, [16, 16])
    assert (settings["image_mean"], settings["image_std"]) == ([0.4, 0.5, 0.6], [0.225] * 3)
    assert (settings["num_tokens"], settings["window_stride_tokens"], settings["edge_trim_tokens"]) == (4, 1, 1)
    assert (settings["merge"], settings["nms_type"], settings["nms_window_s"]) == ("max", "soft", [0.0, 2.0, 4.0])


# what is not there raises, as on a machine that has ONNX Runtime, NumPy and PyAV alone
WITHOUT_TORCH = """
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "comedian", "torchvision", "huggingface_hub"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("name, num_frames", [("vivit", 215), ("viswin", 215), ("viswin", 25)])
def test_spotting_without_torch(folder, tmp_path, monkeypatch, name, num_frames):
    compute_in_float32(monkeypatch)
    video = write_video(tmp_path / "1.mkv", num_frames=num_frames, fps=10, start_s=3.0)
    expected = ActionSpotter.from_pretrained(folder / name, device="cpu")(video)
    words = [sys.executable, "-c", WITHOUT_TORCH, str(EXAMPLE), str(folder / f"{name}-onnx"), str(video)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one == other | {"score": pytest.approx(other["score"], abs=1e-4)}


def test_what_cannot_be_exported(folder, tmp_path, capsys, monkeypatch):
    def refuse(*words):
        assert main(["export", *map(str, words)]) == 2
        return capsys.readouterr().err

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "new or empty folder" in refuse(folder / "vivit", tmp_path / "full")
    assert "no config.json" in refuse(tmp_path / "full", tmp_path / "new")
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    assert "pip install comedian[export]" in refuse(folder / "vivit", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_failure_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    def fail(*words):
        raise RuntimeError("torn")

    monkeypatch.setattr(export.shutil, "copy", fail)
    model = ComedianForActionSpotting.from_pretrained(folder / "vivit")
    processor = ComedianVideoProcessor.from_pretrained(folder / "vivit")
    with pytest.raises(RuntimeError, match="torn"):
        export.export_model(model, processor, tmp_path / "new", "torch-export")
    assert list(tmp_path.iterdir()) == []

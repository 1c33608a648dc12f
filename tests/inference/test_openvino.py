"""Folders of `comedian export --format openvino` against the models that they were exported from, on PyTorch."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from comedian import ActionSpotter, InputError, StreamingSpotter
from comedian.cli.main import main
from comedian.conversion import openvino_export
from comedian.features.bank import FeatureBank
from comedian.inference import openvino_model
from comedian.inference.inference_config import InferenceConfig
from comedian.inference.score_files import load_score_folders
from comedian.models import ComedianConfig, ComedianForActionSpotting, ComedianVideoProcessor
from comedian.models.sound_comedian import sound_of_tokens
from match_factory import LABELS, write_matches
from processes import ENVIRONMENT, launch, one_after_the_other
from testing_utils import compute_in_float32, tiny_config
from video_factory import write_video

DEMO = Path(__file__).parents[2] / "examples" / "demo" / "model"
NAMES = dict(enumerate((*LABELS, "Yellow->red, card")))
MODELS = {
    "vivit": {"scores_per_token": 2, "merge": "mean"},
    "viswin": {
        # where heads are as many as tokens, OpenVINO mistakes one for the other
        "spatial_num_heads": [2, 8],
        "offset_radius_s": 1.5,
        "edge_trim_s": 1.0,
        "window_stride_s": 1.0,
        "label_thresholds": [0.1, 0.2, 0.3],
        "label_calibration": [[0.5, 0.1], [1.0, -1.0], [2.0, 0.0]],
    },
    "sound": {"sound": True, "sound_hidden_size": 16},
}
# of scores in [0, 1]; bfloat16 has 8 bits
CAPABILITIES = openvino_model.import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
TOLERANCE = 0.03 if "BF16" in CAPABILITIES else 1e-4


@pytest.fixture(autouse=True)
def float32(monkeypatch, tmp_path):
    compute_in_float32(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Each model as PyTorch's folder, and its export with `-graphs` at the end."""
    folder = tmp_path_factory.mktemp("openvino")
    for name, overrides in MODELS.items():
        torch.manual_seed(0)
        encoder = {} if name == "sound" else {"spatial_encoder": name}
        model = ComedianForActionSpotting(tiny_config(**encoder, **overrides, initializer_range=0.5, id2label=NAMES))
        if name == "sound":
            # that of a new branch is 0
            torch.nn.init.normal_(model.sound_encoder.projection.weight, std=0.3)
        model.save_pretrained(folder / name)
        ComedianVideoProcessor(size={"height": 16, "width": 16}, image_mean=[0.4, 0.5, 0.6]).save_pretrained(
            folder / name
        )
    (folder / "demo").symlink_to(DEMO)
    for name in (*MODELS, "demo"):
        assert main(["export", str(folder / name), str(folder / f"{name}-graphs"), "--format", "openvino"]) == 0
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "1_224p.mkv", num_frames=215, fps=10, audio_s=20.0)


def both(folder, name):
    return [
        ActionSpotter.from_pretrained(folder / found, device="cpu").models[0] for found in (name, f"{name}-graphs")
    ]


@pytest.mark.parametrize("name", [*MODELS, "demo"])
def test_graphs_equal_the_model(folder, name):
    model, graphs = both(folder, name)
    config, rng = model.config, np.random.default_rng(0)
    # runs of several tubelets, and what they leave
    for count in (1, 5, 8):
        frames = rng.integers(0, 256, (count * config.tubelet_size, *config.image_size, 3), np.uint8)
        expected = model.encode(frames)
        assert np.ptp(expected) > 1
        np.testing.assert_allclose(graphs.encode(frames), expected, rtol=TOLERANCE, atol=10 * TOLERANCE)
    windows = rng.standard_normal((3, config.num_tokens, config.hidden_size), np.float32)
    np.testing.assert_allclose(
        graphs.encode_windows(windows), model.encode_windows(windows), rtol=TOLERANCE, atol=10 * TOLERANCE
    )
    for found, expected in zip(graphs.score(windows, None), model.score(windows, None), strict=True):
        assert (found is None) == (expected is None)
        if expected is not None:
            # displacements reach from -1.5 to 1.5 s, scores from 0 to 1
            np.testing.assert_allclose(found, expected, atol=TOLERANCE * (3 if expected.min() < 0 else 1))
    assert (graphs.score(windows, None)[1] is not None) == (name == "viswin")


def test_sound_is_an_input_that_may_be_missing(folder):
    model, graphs = both(folder, "sound")
    rng = np.random.default_rng(0)
    windows = rng.standard_normal((3, 4, 16), np.float32)
    sound = np.stack([sound_of_tokens(rng.random((300, 64)), 4, 1.0, start_s) for start_s in (0, 1, 2)])
    silent = model.score(windows, None)[0]
    np.testing.assert_allclose(graphs.score(windows, None)[0], silent, atol=TOLERANCE)
    # of three windows, the second has none
    sound[1, 2] = np.nan
    expected = model.score(windows, sound)[0]
    np.testing.assert_allclose(graphs.score(windows, sound)[0], expected, atol=TOLERANCE)
    np.testing.assert_allclose(expected[1], silent[1], atol=1e-6)
    assert np.abs(expected - silent)[[0, 2]].max() > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_a_video_has_the_same_scores_and_events(folder, video, name):
    expected, found = (ActionSpotter.from_pretrained(folder / each, device="cpu") for each in (name, f"{name}-graphs"))
    np.testing.assert_allclose(found.score(video), expected.score(video), atol=TOLERANCE)
    assert found.config.label_names == list(NAMES.values())
    # settings that differ merge the windows in another way
    for spotter in (expected, found):
        spotter.use_settings({"merge": "mean", "window_stride_s": 2.0, "edge_trim_s": 0.0})
    np.testing.assert_allclose(found.score(video), expected.score(video), atol=TOLERANCE)
    if TOLERANCE < 1e-3:
        for one, other in zip(found(video), expected(video), strict=True):
            assert one == other | {"score": pytest.approx(other["score"], abs=TOLERANCE)}


def test_streams_mirror_images_and_ensembles(folder, video):
    names = [folder / "vivit-graphs", folder / "vivit"]
    expected = ActionSpotter.from_pretrained(folder / "vivit", device="cpu", flip=True).score(video)
    mixed = ActionSpotter.from_pretrained(*names, device="cpu", flip=True)
    np.testing.assert_allclose(mixed.score(video), expected, atol=TOLERANCE)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (41, 16, 16, 3), np.uint8)
    lives = [StreamingSpotter.from_pretrained(name, device="cpu", threshold=0.0, look_ahead_s=2.0) for name in names]
    found, expected = ([*live.push(frames), *live.finish()] for live in lives)
    assert len(found) > 10
    if TOLERANCE < 1e-3:
        for one, other in zip(found, expected, strict=True):
            assert one == other | {"score": pytest.approx(other["score"], abs=TOLERANCE)}
    with pytest.raises(InputError, match="takes frames of 16 x 16 pixels, not 8 x 16"):
        lives[0].push(frames[:, :8])


def test_features_are_those_of_the_model(folder, video, tmp_path):
    (tmp_path / "root" / "league" / "match").mkdir(parents=True)
    shutil.copy(video, tmp_path / "root" / "league" / "match" / "1_224p.mkv")
    banks = []
    for name in ("vivit", "vivit-graphs"):
        words = ["--model", str(folder / name), "--dtype", "float32", "--device", "cpu"]
        assert main(["extract-features", str(tmp_path / "root"), str(tmp_path / name), *words]) == 0
        banks.append(FeatureBank(tmp_path / name))
    expected, found = (bank.open("league/match", 1).read(0, 21) for bank in banks)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=10 * TOLERANCE)


# raises where something asks for torch or transformers; says where a process is started, as OpenVINO's report of use would
WITHOUT_TORCH = """
import sys
from multiprocessing.process import BaseProcess
from comedian.cli.main import main

BaseProcess.start = lambda process: print("a process was started", file=sys.stderr)

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Refused())
code = main(sys.argv[1:])
assert not {"torch", "transformers"} & sys.modules.keys()
sys.exit(code)
"""


@pytest.mark.parametrize(
    "words", ["", "--live", "--save-scores SCORES --csv events.csv", "--save-scores SCORES --settings"]
)
def test_spotting_imports_no_torch(folder, video, tmp_path, words):
    words = words.split()
    if "--settings" in words:
        content = {"labels": list(NAMES.values()), "settings": {"merge": "max"}}
        content["weights"] = ActionSpotter.from_pretrained(folder / "sound", device="cpu").weights_fingerprint
        (tmp_path / "settings.json").write_text(json.dumps(content))
        words.append("settings.json")
    command = [
        sys.executable,
        "-c",
        WITHOUT_TORCH,
        "spot",
        str(video),
        "--model",
        str(folder / "sound-graphs"),
        *words,
    ]
    # OpenVINO reports nothing in CI
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    for _ in range(1 + ("--csv" in words)):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and "a process was started" not in done.stderr, done.stderr
    if "--live" in words:
        assert json.loads(done.stdout.splitlines()[0])["label"] in NAMES.values()
    else:
        assert (tmp_path / "events.json").stat().st_size > 100
    if "--csv" in words:
        scores, _ = load_score_folders([tmp_path / "SCORES"])
        expected = ActionSpotter.from_pretrained(folder / "sound", device="cpu").score(video)
        (of_match,) = scores.values()
        np.testing.assert_allclose(of_match[1], expected, atol=TOLERANCE)
    assert list((tmp_path / "cache").rglob("*.blob"))


def test_a_folder_holds_settings_record_and_no_code(folder):
    names = {path.name for path in (folder / "demo-graphs").iterdir()}
    graphs = {f"{name}_encoder.{suffix}" for name in ("spatial", "temporal") for suffix in ("xml", "bin")}
    assert names == graphs | {"config.json", "model_record.json"}
    config = json.loads((folder / "demo-graphs" / "config.json").read_text())
    assert config["openvino"]["precision"] == "bfloat16" and "auto_map" not in config
    record = (folder / "demo-graphs" / "model_record.json").read_bytes()
    assert record == (DEMO / "model_record.json").read_bytes()


def test_defaults_are_those_of_the_models_configuration():
    expected, found = ComedianConfig(), InferenceConfig()
    for field in fields(InferenceConfig):
        if field.name != "other_fields":
            assert getattr(found, field.name) == getattr(expected, field.name), field.name
    stored = ComedianConfig(num_labels=3, fps=4.0, nms_window_s=[1.0, 2.0, 3.0], backbone_frozen=True).to_dict()
    found = InferenceConfig.from_dict(json.loads(json.dumps(stored)))
    assert ComedianConfig.from_dict(found.to_dict()).to_dict() == stored
    for name, value in {
        "merge": "min",
        "fps": 0,
        "tubelet_size": 3,
        "label_thresholds": [0.1],
        "image_size": "x",
    }.items():
        with pytest.raises(StrictDataclassError, match=name):
            InferenceConfig.from_dict(stored | {name: value})
        with pytest.raises(StrictDataclassError, match=name):
            ComedianConfig.from_dict(stored | {name: value})


@pytest.fixture(scope="module")
def matches(tmp_path_factory):
    return write_matches(tmp_path_factory.mktemp("matches") / "root", size=(16, 16))


def test_int8_is_scored_before_and_after(folder, matches, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(openvino_export, "CALIBRATION_TUBELETS", 32)
    words = [
        str(tmp_path / "int8"),
        "--format",
        "openvino",
        "--int8",
        "--calibrate",
        str(matches),
        "--max-loss",
        "100",
    ]
    assert main(["export", str(folder / "vivit"), *words]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "validation" in line)
    content = json.loads((tmp_path / "int8" / "config.json").read_text())["openvino"]
    assert content["precision"] == "int8"
    before, after = (content["average_map_tight"][name] for name in ("before", "after"))
    assert f"{before:.2f} before int8, {after:.2f} after" in line
    # scored by the official metric on what the command itself finds
    for name, score in (("vivit-graphs", before), ("int8", after)):
        model = str((tmp_path if name == "int8" else folder) / name)
        zipped = tmp_path / f"{name}.zip"
        assert main(["spot", str(matches), "--split", "validation", "--model", model, "--output", str(zipped)]) == 0
        (tmp_path / "labels.txt").write_text("\n".join(NAMES.values()))
        words = [
            "--split",
            "validation",
            "--labels",
            str(tmp_path / "labels.txt"),
            "--output",
            str(tmp_path / "found.json"),
        ]
        assert main(["evaluate", str(matches), str(zipped), *words]) == 0
        assert 100 * json.loads((tmp_path / "found.json").read_text())["tight"]["a_mAP"] == pytest.approx(
            score, abs=0.01
        )
    size = {name: (path / "spatial_encoder.bin").stat().st_size for name, path in
            {"int8": tmp_path / "int8", "float32": folder / "vivit-graphs"}.items()}  # fmt: skip
    assert size["int8"] < 0.6 * size["float32"]


def test_int8_that_loses_too_much_is_refused(folder, matches, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(openvino_export, "CALIBRATION_TUBELETS", 8)
    monkeypatch.setattr(openvino_export, "_score_together", lambda *words: [69.5, 68.9])
    words = ["export", str(folder / "vivit"), str(tmp_path / "int8"), "--format", "openvino", "--int8", "--calibrate"]
    assert main([*words, str(matches)]) == 2
    assert "int8 loses 0.60 points" in capsys.readouterr().err and list(tmp_path.glob("int8*")) == []
    assert main([*words, str(matches), "--max-loss", "0.7"]) == 0


def test_launched_processes_score_int8_as_one(folder, matches, tmp_path):
    """Two of them; one writes, and the folder is the same byte for byte."""
    words = ["--format", "openvino", "--int8", "--calibrate", matches, "--max-loss", "100"]
    one, two = ([["export", folder / "vivit", tmp_path / name, *words]] for name in ("one", "two"))
    assert main([str(word) for word in one[0]]) == 0
    subprocess.run(launch(*one_after_the_other(two)), env=ENVIRONMENT, check=True, timeout=300)
    assert bytes_of(tmp_path / "two") == bytes_of(tmp_path / "one")
    assert {"config.json", "spatial_encoder.xml", "temporal_encoder.bin"} < bytes_of(tmp_path / "one").keys()


def bytes_of(folder):
    """The files, without the numbers that OpenVINO counts all nodes of a process with."""
    return {
        path.relative_to(folder).as_posix(): re.sub(rb'(name="(?:Model|\w+_))\d+"', rb'\1"', path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_graphs_that_compute_something_else_are_refused(tmp_path, capsys):
    config = tiny_config(spatial_encoder="viswin", initializer_range=0.5)
    ComedianForActionSpotting(config).save_pretrained(tmp_path / "model")
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "graphs"), "--format", "openvino"]) == 2
    assert "other tokens than PyTorch" in capsys.readouterr().err and not (tmp_path / "graphs").exists()


def test_what_cannot_be_run(folder, video, tmp_path, capsys, monkeypatch):
    def refuse(*words):
        assert main([*map(str, words)]) == 2
        return capsys.readouterr().err

    graphs = folder / "vivit-graphs"
    assert "run on the CPU" in refuse("spot", video, "--model", graphs, "--device", "cuda")
    assert "OpenVINO graphs" in refuse("export", graphs, tmp_path / "new")
    assert "--int8 needs frames" in refuse("export", graphs, tmp_path / "new", "--format", "openvino", "--int8")
    assert "--split requires --int8" in refuse("export", graphs, tmp_path / "new", "--split", "train")
    broken = shutil.copytree(graphs, tmp_path / "broken")
    (broken / "spatial_encoder.xml").write_text("<net/>")
    assert "export the model again" in refuse("spot", video, "--model", broken)
    (broken / "temporal_encoder.bin").unlink()
    assert "lacks temporal_encoder.bin" in refuse("spot", video, "--model", broken)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert 'pip install "comedian[openvino]"' in refuse("spot", video, "--model", graphs)
    monkeypatch.setattr(openvino_export.importlib.util, "find_spec", lambda name: None)
    assert 'pip install "comedian[openvino]"' in refuse(
        "export", folder / "vivit", tmp_path / "new", "--format", "openvino"
    )

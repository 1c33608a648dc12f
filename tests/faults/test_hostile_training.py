"""Training over damaged features, frames and sound: one line that names the file, and nothing written."""

import hostile_files as hostile
import numpy as np
import pytest
import yaml

from comedian.features.bank import features_path
from comedian.video.frame_store import TRAILER
from comedian.video.sound_files import sound_path
from match_factory import write_recipe, write_stage_data

FEATURE_DIM = 6
VIDEO_ID = "league/one"


@pytest.fixture
def data(tmp_path):
    return write_stage_data(tmp_path / "data", FEATURE_DIM)


def recipe_of(folder, data, overrides, **more):
    root, store, _ = data
    path = write_recipe(folder, root, store, num_train_epochs=1)
    content = yaml.safe_load(path.read_text())
    content["model"]["overrides"] = overrides
    content["data"] |= more
    path.write_text(yaml.safe_dump(content))
    return path


def test_features(run, data):
    heads = {"distillation_config": {"projector_sizes": [12, FEATURE_DIM], "queue_size": 21}}
    recipe = recipe_of(run.folder / "recipe", data, heads, features=str(data[2]))
    path = features_path(data[2], VIDEO_ID, 1)
    for name, content in hostile.bad_scores(path.read_bytes(), (24, FEATURE_DIM)).items():
        path.write_bytes(content)
        words = ["distill", "--config", recipe, "--training.output_dir", run.out / "run"]
        run(name, *words, says=f"{VIDEO_ID}/1.safetensors")


def test_frames(run, data):
    recipe = recipe_of(run.folder / "recipe", data, {})
    path = data[1] / VIDEO_ID / "1.frames"
    good = path.read_bytes()
    header_size, _ = TRAILER.unpack(good[-TRAILER.size :])
    index = slice(len(good) - TRAILER.size - header_size - 400, len(good) - TRAILER.size - header_size)
    contents = {
        "an index of zeros": good[: index.start] + bytes(400) + good[index.stop :],
        "empty": b"",
        "text": b"nothing",
        "cut off": good[: len(good) // 2],
        "without its end": good[:-10],
        "zeros": bytes(len(good)),
        "zeros in the middle": good[:200] + bytes(len(good) - 400) + good[-200:],
    }
    for name, content in contents.items():
        path.write_bytes(content)
        words = ["finetune", "--config", recipe, "--training.output_dir", run.out / "run"]
        run(name, *words, says=f"{VIDEO_ID}/1.frames")


def test_sound(run, data):
    recipe = recipe_of(run.folder / "recipe", data, {"sound": True})
    path = sound_path(data[1] / VIDEO_ID / "1.frames")
    words = ["finetune", "--config", recipe, "--training.output_dir", run.out / "run"]
    run("none", *words, says="--sound")
    for half in (1, 2):
        for video_id in (VIDEO_ID, "league/two"):
            np.save(sound_path(data[1] / video_id / f"{half}.frames"), np.zeros((600, 64), np.float16))
    good = path.read_bytes()
    for name, content in {"empty": b"", "text": b"nothing", "cut off": good[:-64]}.items():
        path.write_bytes(content)
        run(name, *words, says=f"{VIDEO_ID}/1.sound.npy")
    for name, array in {
        "other axes": np.zeros(64, np.float16),
        "whole numbers": np.zeros((600, 64), np.int16),
        "objects": np.array([{}, []], dtype=object),
        "other width": np.zeros((600, 63), np.float16),
    }.items():
        np.save(path, array)
        run(name, *words, says=f"{VIDEO_ID}/1.sound.npy")

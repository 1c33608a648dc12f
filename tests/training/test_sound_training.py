"""A data set whose pictures say nothing and whose beeps mark the events: who hears, spots; and all ways hear the same."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline

from comedian import ActionSpotter
from comedian.cli.main import main
from comedian.errors import InputError
from comedian.evaluation.spotting_evaluator import _frames, score_halves
from comedian.inference.scoring import encode_half, score_half
from comedian.inference.torch_model import TorchModel, load_model
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from comedian.models.sound_comedian import read_sound, sound_of_tokens
from comedian.soccernet.prepare import prepare
from comedian.training.finetune import finetune
from comedian.training.recipe import Recipe, load_recipe
from comedian.training.spotting_config import SpottingConfig
from comedian.training.spotting_trainer import SpottingTrainer
from comedian.training.stage import build_model, load_halves
from comedian.video.frame_store import StoreSettings
from match_factory import LABELS, write_beeps, write_recipe
from testing_utils import tiny_config
from video_factory import write_video

SOUND = ["--model.overrides.sound", "true", "--model.overrides.sound_hidden_size", "16"]
SCHEDULE = {
    "num_train_epochs": 20,
    "windows_per_half": 8,
    "per_device_train_batch_size": 8,
    "base_learning_rate": 0.15,
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    root = write_beeps(folder / "root")
    prepare(root, folder / "store", StoreSettings(fps=2, height=16), sound=True, workers=1, progress=False)
    return root, folder / "store"


@pytest.fixture(scope="module")
def visual(data, tmp_path_factory):
    """Folder and scores of a model that only sees."""
    folder = tmp_path_factory.mktemp("visual")
    scores = finetune(load_recipe(write_recipe(folder, *data, **SCHEDULE)))
    return folder / "output", scores


def hearing_recipe(folder: Path, data: tuple, start: Path, **training) -> Recipe:
    recipe = load_recipe(write_recipe(folder, *data, **(SCHEDULE | training)), SOUND)
    return replace(recipe, model=replace(recipe.model, config=None, checkpoint=str(start)))


@pytest.fixture(scope="module")
def hearing(data, visual, tmp_path_factory):
    """Folder and scores of a model that started from it and hears."""
    folder = tmp_path_factory.mktemp("hearing")
    scores = finetune(hearing_recipe(folder, data, visual[0]))
    return folder / "output", scores


def video_of(data: tuple, half: int) -> Path:
    return data[0] / "league" / "three" / f"{half}_224p.mkv"


def test_who_hears_spots(visual, hearing):
    seen, heard = (run[1]["tight"]["a_mAP"] for run in (visual, hearing))
    assert seen < 0.4 and heard > seen + 0.3, (seen, heard)


def test_before_training_scores_are_those_of_the_checkpoint(data, visual, tmp_path):
    recipe = hearing_recipe(tmp_path, data, visual[0])
    model = build_model(ComedianForActionSpotting, recipe.model, tmp_path, LABELS)
    assert model.config.sound
    processor = ComedianVideoProcessor.from_pretrained(visual[0])
    found = ActionSpotter([TorchModel(model, processor)]).score(video_of(data, 1))
    expected = ActionSpotter.from_pretrained(visual[0], device="cpu").score(video_of(data, 1))
    np.testing.assert_array_equal(found, expected)


def test_spotter_pipeline_and_evaluator_hear_the_same(data, hearing):
    spotter = ActionSpotter.from_pretrained(hearing[0], device="cpu")
    model = spotter.models[0]
    videos = [video_of(data, half) for half in (1, 2)]
    spots = spotter(tuple(videos), threshold=0.0)
    spot = pipeline("action-spotting", model=str(hearing[0]), device="cpu")
    assert spot(tuple(map(str, videos)), threshold=0) == spots

    recipe = load_recipe(hearing[0] / "recipe.yaml")
    (halves,) = load_halves(recipe.data, model.config, ["validation"])
    for index, scores in score_halves(model, halves, range(2), progress=False).items():
        tokens = encode_half(model, _frames(halves, index))
        np.testing.assert_array_equal(scores, score_half(model, tokens, read_sound(videos[index])))
        # the store's pictures are compressed once more, its sound is not
        np.testing.assert_allclose(scores, spotter.score(videos[index]), atol=0.05)
        assert np.abs(scores - score_half(model, tokens)).max() > 0.3


def test_scores_of_a_half_are_those_of_forward_on_each_window(data, hearing):
    """Windows written out: the tokens' pictures and sound side by side through `forward`."""
    model, processor = load_model(str(hearing[0]), "cpu")
    model.config.merge, model.config.edge_trim_s = "mean", 0.0
    model.config.window_stride_s = 4.0
    rng = np.random.default_rng(0)
    frames, sound = rng.integers(0, 255, (24, 16, 16, 3), np.uint8), read_sound(video_of(data, 1))
    scoring = TorchModel(model, processor)
    found = score_half(scoring, encode_half(scoring, frames), sound)
    pixels = processor(frames, return_tensors="pt")["pixel_values_videos"]
    for start in (0, 4, 8):
        heard = torch.from_numpy(sound_of_tokens(sound[50 * start :], 4, 1.0))[None]
        with torch.no_grad():
            expected = model(pixels[:, 2 * start : 2 * start + 8], sound=heard).logits[0].sigmoid()
        # bfloat16, where the CPU has it
        np.testing.assert_allclose(found[start : start + 4], expected, atol=0.02)


def test_a_video_without_a_track_is_seen_alone(hearing, visual, tmp_path):
    mute = write_video(tmp_path / "mute.mkv", 60)
    spotter = ActionSpotter.from_pretrained(hearing[0], device="cpu")
    scores = spotter.score(mute)
    deaf, _ = load_model(str(hearing[0]), "cpu")
    deaf.config.sound = False
    np.testing.assert_array_equal(scores, ActionSpotter([TorchModel(deaf, spotter.models[0].processor)]).score(mute))
    spots = spotter(mute, threshold=0.0)
    assert pipeline("action-spotting", model=str(hearing[0]), device="cpu")(str(mute), threshold=0) == spots != []


def test_ensembles_may_mix(data, visual, hearing):
    video = video_of(data, 1)
    both = ActionSpotter.from_pretrained(visual[0], hearing[0], device="cpu")
    single = [ActionSpotter.from_pretrained(folder[0], device="cpu") for folder in (visual, hearing)]
    expected = np.mean([spotter.score(video) for spotter in single], axis=0)
    np.testing.assert_allclose(both.score(video), expected, atol=1e-6)
    assert len({both.fingerprint, *(spotter.fingerprint for spotter in single)}) == 3


def test_a_run_that_broke_off_ends_bit_identical(data, visual, tmp_path):
    every_step = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 10}
    recipe = hearing_recipe(tmp_path, data, visual[0], mixup_alpha=0.5, **every_step)
    finetune(recipe)
    last = tmp_path / "output" / "checkpoint-8"
    whole = load_file(last / "model.safetensors")
    first = load_file(tmp_path / "output" / "checkpoint-1" / "model.safetensors")
    heard = [name for name in whole if name.startswith("sound_encoder.")]
    # in the first step the branch's end alone moves, as it is 0
    assert len(heard) == 12 and not any(torch.equal(whole[name], first[name]) for name in heard)
    for step in range(4, 9):
        shutil.rmtree(tmp_path / "output" / f"checkpoint-{step}")
    (tmp_path / "output" / "recipe.yaml").unlink()
    finetune(recipe)
    again = load_file(last / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_mixed_windows_mix_their_sound(tmp_path):
    args = SpottingConfig(
        output_dir=str(tmp_path), use_cpu=True, eval_strategy="no", load_best_model_at_end=False, mixup_alpha=0.5
    )
    model = ComedianForActionSpotting(tiny_config(sound=True))
    processor = ComedianVideoProcessor(size={"height": 16, "width": 16})
    trainer = SpottingTrainer(model, args, processing_class=processor)
    windows = {
        "frames": torch.zeros(4, 8, 16, 16, 3, dtype=torch.uint8),
        "labels": torch.rand(4, 4, 3),
        "sound": torch.rand(4, 4, 50, 64),
        "seed": torch.arange(4),
    }
    windows["sound"][3] = torch.nan
    inputs = trainer.augment_windows(windows)
    share = inputs["mixup_weights"]
    for index, partner in ((0, 1), (1, 0)):
        expected = share[index] * windows["sound"][index] + (1 - share[index]) * windows["sound"][partner]
        torch.testing.assert_close(inputs["sound"][index], expected)
    assert inputs["sound"][2:].isnan().all()
    assert torch.isfinite(model(**inputs).loss)
    trainer.args.mixup_alpha = 0.0
    assert torch.equal(trainer.augment_windows(windows)["sound"][:3], windows["sound"][:3])


def test_a_store_without_sound_is_told_at_once(data, tmp_path):
    deaf = tmp_path / "deaf"
    prepare(data[0], deaf, StoreSettings(fps=2, height=16), workers=1, progress=False)
    with pytest.raises(InputError, match="contains no sound"):
        finetune(load_recipe(write_recipe(tmp_path, data[0], deaf, **SCHEDULE), SOUND))


def test_live_says_that_it_is_deaf(data, hearing, capsys):
    assert main(["spot", str(video_of(data, 1)), "--live", "--model", str(hearing[0]), "--device", "cpu"]) == 0
    assert "--live reads no audio track" in capsys.readouterr().err


def test_graphs_are_deaf(hearing, tmp_path, capsys):
    assert main(["export", str(hearing[0]), str(tmp_path / "graphs")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the model has `sound`" in error and not (tmp_path / "graphs").exists()

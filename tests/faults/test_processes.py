"""Two processes: data that does not divide evenly counts as on one, and one that dies ends the run."""

import json
import os
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from kill_harness import processes_in
from safetensors.torch import load_file

from comedian.cli.main import main
from comedian.soccernet.prepare import prepare
from comedian.video.frame_store import StoreSettings
from match_factory import write_bank, write_matches, write_recipe
from processes import ENVIRONMENT, EXAMPLES, launch, one_after_the_other
from video_factory import write_video

# frames, at 4 a second, of further halves; the others have 48, a window 16
FURTHER_HALVES = {("league/one", 3): 144, ("league/one", 4): 30, ("league/two", 3): 10, ("league/three", 3): 144}
# optimizer steps of an epoch: the last has one micro-batch of 4, the others two
STEPS = {"pretrain": 11, "distill": 3, "finetune": 3}
OVERRIDES = {
    # every process compares with the keys of all
    "pretrain": {
        "contrastive_config": {
            "projector_sizes": [12, 6],
            "predictor_sizes": [10, 6],
            "queue_size": 21,
            "use_batch_keys": True,
        }
    },
    "distill": {"distillation_config": {"projector_sizes": [12, 6], "queue_size": 21}},
    "finetune": {"scores_per_token": 2, "offset_radius_s": 1.0},
}
LOGGED = {
    "pretrain": ("loss", "grad_norm", "positive_similarity", "negative_similarity", "embedding_std"),
    "distill": ("loss", "grad_norm", "positive_similarity", "negative_similarity", "embedding_std"),
    "finetune": ("loss", "grad_norm"),
}
EVALUATED = {"pretrain": ["eval_knn_accuracy"], "distill": [], "finetune": ["eval_average_map_loose"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Matches with seven halves to train on and three to score, of unlike length, their frames, and features."""
    folder = tmp_path_factory.mktemp("data")
    root = write_matches(folder / "root")
    for (video_id, half), num_frames in FURTHER_HALVES.items():
        write_video(root / video_id / f"{half}_224p.mkv", num_frames, 4.0, height=32, width=32)
        path = root / video_id / "Labels-v2.json"
        content = json.loads(path.read_text())
        last = num_frames // 4 * 1000 - 1000
        for position_ms, label in ((500, "red flash"), (last, "green flash")):
            event = content["annotations"][0] | {"label": label, "position": str(position_ms)}
            content["annotations"].append(event | {"gameTime": f"{half} - 00:{position_ms // 1000:02d}"})
        path.write_text(json.dumps(content))
    prepare(root, folder / "store", StoreSettings(fps=4, height=16), workers=1, progress=False)
    durations_s = {key: num_frames / 4 for key, num_frames in FURTHER_HALVES.items() if key[0] != "league/three"}
    write_bank(folder / "bank", durations_s)
    return root, folder / "store", folder / "bank"


def recipe_of(stage: str, folder: Path, data: tuple[Path, Path, Path], batch: int) -> Path:
    """Two epochs that log every step, in steps of two micro-batches."""
    root, store, bank = data
    settings = {"logging_strategy": "steps", "logging_steps": 1, "save_total_limit": 2}
    settings |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 2}
    if stage != "distill":
        settings["eval_strategy"] = "epoch"
    path = write_recipe(folder / stage, root, store, **settings)
    content = yaml.safe_load(path.read_text())
    content["model"]["overrides"] = OVERRIDES[stage]
    if stage == "distill":
        content["data"]["features"] = str(bank)
    if stage == "pretrain":
        del content["training"]["windows_per_half"]
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> dict[int, Path]:
    """All stages on one process, here, and on two: the folder of each."""
    folders = {processes: tmp_path_factory.mktemp(f"on_{processes}") for processes in (1, 2)}
    commands = {
        processes: [[stage, "--config", recipe_of(stage, folder, data, 4 // processes)] for stage in STEPS]
        for processes, folder in folders.items()
    }
    for words in commands[1]:
        assert main([str(word) for word in words]) == 0
    words = launch(*one_after_the_other(commands[2]))
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folders


def logged(output: Path, *names: str) -> list[list[float]]:
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [[entry[name] for name in names] for entry in history if names[0] in entry]


@pytest.mark.parametrize("stage", STEPS)
def test_what_does_not_divide_evenly_counts_as_on_one_process(stage, runs):
    """Losses, gradients, queue, momentum branch and weights: equal up to the order of sums."""
    one, two = (runs[processes] / stage / "output" for processes in (1, 2))
    steps = [logged(output, *LOGGED[stage]) for output in (one, two)]
    assert len(steps[0]) == 2 * STEPS[stage]
    np.testing.assert_allclose(steps[0], steps[1], atol=1e-4, rtol=1e-3)
    for name in EVALUATED[stage]:
        scores = [logged(output, name) for output in (one, two)]
        assert len(scores[0]) == 2
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    # the last checkpoint, not the best one: which epoch is best may hang on the last digit of a score
    for epoch in (1, 2):
        states = [load_state(output / f"checkpoint-{epoch * STEPS[stage]}") for output in (one, two)]
        assert states[0].keys() == states[1].keys()
        for name, tensor in states[0].items():
            torch.testing.assert_close(states[1][name], tensor, atol=5e-5, rtol=1e-3, msg=name)


def load_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Weights and buffers, and of each weight the running mean of its gradients."""
    optimizer = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    gradients = {f"gradient {index}": state["exp_avg"] for index, state in optimizer.items()}
    return load_file(checkpoint / "model.safetensors") | gradients


def test_every_half_is_scored_once(runs):
    """Though one process had two of them and the other one."""
    scored = []
    for processes in (1, 2):
        output = runs[processes] / "finetune" / "output"
        with zipfile.ZipFile(output / "predictions_validation.zip") as archive:
            results = json.loads(archive.read("league/three/results_spotting.json"))["predictions"]
        scored.append([(event["half"], event["label"], event["position"]) for event in results])
    assert {half for half, _, _ in scored[1]} == {"1", "2", "3"}
    assert len(set(scored[1])) == len(scored[1])
    assert set(scored[0]) == set(scored[1])


def test_a_process_that_dies_ends_the_run(data, tmp_path):
    recipe = write_recipe(tmp_path, *data[:2], per_device_train_batch_size=2, num_train_epochs=1000)
    recipe.write_text(
        recipe.read_text().replace("eval_strategy: 'no'", "eval_strategy: 'no'\n  load_best_model_at_end: false")
    )
    words = launch(EXAMPLES / "finetune.py", "--config", recipe)
    process = subprocess.Popen(words, env=ENVIRONMENT, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        end_s = time.monotonic() + 120
        while not list((tmp_path / "output").glob("checkpoint-*")) and time.monotonic() < end_s:
            assert process.poll() is None, process.stderr.read()[-3000:]
            time.sleep(0.2)
        workers = [pid for pid in processes_in(tmp_path) if pid != process.pid]
        os.kill(max(workers), signal.SIGKILL)
        _, errors = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode != 0
    assert "SIGKILL" in errors or "Signal 9" in errors
    end_s = time.monotonic() + 30
    while processes_in(tmp_path) and time.monotonic() < end_s:
        time.sleep(0.2)
    assert processes_in(tmp_path) == []

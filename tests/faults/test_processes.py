"""Two processes: data that does not divide evenly counts as on one, and one that dies ends the run."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from kill_harness import processes_in
from safetensors.torch import load_file

from comedian.data.frame_store import StoreSettings, prepare
from match_factory import write_matches, write_recipe
from video_factory import write_video

EXAMPLES = Path(__file__).parents[2] / "examples"
CPU_PROCESSES = EXAMPLES / "accelerate_configs" / "cpu_two_processes.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, Path]:
    """Matches with five halves to train on and three to score, of which one is three times as long, and their frames."""
    folder = tmp_path_factory.mktemp("data")
    root = write_matches(folder / "root")
    for video_id, num_frames in {"league/one": 30, "league/three": 144}.items():
        write_video(root / video_id / "3_224p.mkv", num_frames, 4.0, height=32, width=32)
        path = root / video_id / "Labels-v2.json"
        content = json.loads(path.read_text())
        last = num_frames // 4 * 1000 - 1000
        for position_ms, label in ((2000, "red flash"), (last, "green flash")):
            event = content["annotations"][0] | {"label": label, "position": str(position_ms)}
            content["annotations"].append(event | {"gameTime": f"3 - 00:{position_ms // 1000:02d}"})
        path.write_text(json.dumps(content))
    prepare(root, folder / "store", StoreSettings(fps=4, height=16), workers=1, progress=False)
    return root, folder / "store"


def launch(recipe: Path, processes: int) -> list[str]:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CPU_PROCESSES)]
    command += ["--num_processes", str(processes), "--main_process_port", str(28500 + os.getpid() % 1000)]
    return [*command, str(EXAMPLES / "finetune.py"), "--config", str(recipe)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def test_what_does_not_divide_evenly_counts_as_on_one_process(data, tmp_path):
    outputs = {}
    for processes in (1, 2):
        # 15 windows in batches of 4; the three that are left over are for another epoch
        recipe = write_recipe(tmp_path / str(processes), *data, per_device_train_batch_size=4 // processes)
        done = subprocess.run(
            launch(recipe, processes), env=environment(), capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        outputs[processes] = tmp_path / str(processes) / "output"
    one, two = (json.loads((outputs[processes] / "trainer_state.json").read_text()) for processes in (1, 2))
    assert one["global_step"] == two["global_step"] == 6
    # the last checkpoint, not the best one: which epoch is best may hang on the last digit of a score
    weights = [load_file(outputs[processes] / "checkpoint-6" / "model.safetensors") for processes in (1, 2)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=2e-5, rtol=1e-4)
    scored = [
        [entry["eval_average_map_loose"] for entry in state["log_history"] if "eval_average_map_loose" in entry]
        for state in (one, two)
    ]
    assert len(scored[0]) == 2 and scored[0] == pytest.approx(scored[1], abs=1e-6)
    with zipfile.ZipFile(outputs[2] / "predictions_validation.zip") as archive:
        results = json.loads(archive.read("league/three/results_spotting.json"))["predictions"]
    assert {event["half"] for event in results} == {"1", "2", "3"}
    # every candidate once, though one process had two halves and the other one
    assert len({(event["half"], event["label"], event["position"]) for event in results}) == len(results)


def test_a_process_that_dies_ends_the_run(data, tmp_path):
    recipe = write_recipe(tmp_path, *data, per_device_train_batch_size=2, num_train_epochs=1000)
    recipe.write_text(
        recipe.read_text().replace("eval_strategy: 'no'", "eval_strategy: 'no'\n  load_best_model_at_end: false")
    )
    process = subprocess.Popen(launch(recipe, 2), env=environment(), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
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

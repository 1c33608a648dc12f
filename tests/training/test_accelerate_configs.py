"""Each shipped config of accelerate launches stage 3 on CPU processes, in the precision that it names."""

import json
import math
import socket
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

from comedian.models import ComedianForActionSpotting
from comedian.models.encoders_comedian import is_bfloat16_fast
from comedian.training.finetune import finetune
from comedian.training.recipe import load_recipe
from match_factory import write_recipe, write_stage_data
from processes import CPU_PROCESSES, ENVIRONMENT, EXAMPLES, warm_programs

TESTS = Path(__file__).parents[1]
CONFIGS = EXAMPLES / "accelerate_configs"
# used as it is by every test of two processes; by the guide on several GPUs
RUN_ELSEWHERE = {CPU_PROCESSES.name, "multi_gpu.yaml"}
HERE = sorted(path.name for path in CONFIGS.glob("*.yaml") if path.name not in RUN_ELSEWHERE)
# what cannot be as shipped without these machines and their GPUs
OF_THE_MACHINE = {"use_cpu", "num_processes", "main_process_ip", "main_process_port"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_stage_data(folder)
    return folder


def recipe_of(folder: Path, data: Path, batch: int, **settings) -> Path:
    settings |= {"num_train_epochs": 1, "mixup_alpha": 0.5, "logging_strategy": "steps", "logging_steps": 1}
    return write_recipe(folder, data / "root", data / "store", per_device_train_batch_size=batch, **settings)


def on_this_machine(name: str, folder: Path) -> tuple[Path, int, int]:
    """A config of accelerate for CPU processes of this machine; the number of machines and of processes."""
    shipped = yaml.safe_load((CONFIGS / name).read_text())
    processes = min(shipped["num_processes"], 2)
    content = shipped | {"use_cpu": True, "num_processes": processes}
    if shipped["num_machines"] > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            content |= {"main_process_ip": "127.0.0.1", "main_process_port": free.getsockname()[1]}
    assert {field for field in content if content[field] != shipped.get(field)} <= OF_THE_MACHINE
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return path, shipped["num_machines"], processes


def losses_of(output: Path) -> list[float]:
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


@pytest.mark.parametrize("name", HERE)
def test_a_config_trains_as_shipped(name, data, tmp_path):
    config, machines, processes = on_this_machine(name, tmp_path)
    recipe = recipe_of(tmp_path, data, batch=4 // processes)
    script = [EXAMPLES / "finetune.py", "--config", recipe]
    if "fsdp_config" in yaml.safe_load(config.read_text()):
        script = [TESTS / "fsdp_on_cpu.py", json.dumps([[str(word) for word in script]])]
    launch = [warm_programs() / "python", "-m", "accelerate.commands.launch", "--config_file", config]
    running = [
        subprocess.Popen(
            [str(word) for word in (*launch, *(["--machine_rank", rank] if machines > 1 else []), *script)],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(machines)
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
    losses = losses_of(tmp_path / "output")
    # the same steps in this process, in the precision that the config names and in float32
    precision = yaml.safe_load(config.read_text())["mixed_precision"]
    expected = {}
    for asked in (precision, "no"):
        of_precision = {} if asked == "no" else {asked: True}
        finetune(load_recipe(recipe_of(tmp_path / asked, data, batch=4, **of_precision)))
        expected[asked] = losses_of(tmp_path / asked / "output")
    assert losses == pytest.approx(expected[precision], rel=5e-3)
    assert all(math.isfinite(loss) for loss in losses)
    # a CPU without bfloat16 instructions trains in float32
    rounded = precision != "no" and is_bfloat16_fast(torch.device("cpu"))
    assert (losses != pytest.approx(expected["no"], rel=1e-6)) == rounded
    ComedianForActionSpotting.from_pretrained(tmp_path / "output")


def test_every_config_is_run_somewhere():
    assert {path.name for path in CONFIGS.glob("*.yaml")} == {*HERE, *RUN_ELSEWHERE}

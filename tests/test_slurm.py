"""The scripts of `examples/slurm`, run by the shell with stand-ins for Slurm's commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from processes import ENVIRONMENT, EXAMPLES
from video_factory import write_video

SCRIPTS = EXAMPLES / "slurm"


@pytest.fixture
def programs(tmp_path) -> Path:
    """A folder for PATH: `comedian`, `srun` for two machines, and an `accelerate` that prints its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    commands = {
        "comedian": f'exec {sys.executable} -m comedian.cli.main "$@"',
        "scontrol": '[ "$*" = "show hostnames node[7-8]" ] && printf "node7\\nnode8\\n"',
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
        "accelerate": 'printf "%s\\n" "$@" end',
    }
    for name, command in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{command}\n")
        (folder / name).chmod(0o755)
    return folder


def run(script: str, words: list, programs: Path, **variables: str) -> str:
    environment = ENVIRONMENT | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"} | variables
    command = ["bash", SCRIPTS / script, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tasks_of_an_array_do_all_halves(tmp_path, programs):
    root, store = tmp_path / "root", tmp_path / "store"
    for half in (1, 2, 3):
        write_video(root / f"a match/{half}_224p.mkv", num_frames=20 * half)
    words = ["prepare", root, store, "--height", 16, "--workers", 1]
    for task, done in (("1", 1), ("2", 2)):
        printed = run("job_array.sh", words, programs, SLURM_ARRAY_TASK_ID=task, SHARES="2")
        assert f"halves: {done} done, 0 there already" in printed
    # the number of shares follows from the script, not from how many tasks were submitted
    assert "halves: 0 done, 0 there already" in run("job_array.sh", words, programs, SLURM_ARRAY_TASK_ID="16")


def test_the_number_of_tasks_is_the_number_of_shares():
    text = (SCRIPTS / "job_array.sh").read_text()
    assert "#SBATCH --array=1-16\n" in text and "SHARES=${SHARES:-16}" in text


def test_each_machine_launches_its_processes(programs):
    words = ["a recipe", "--data", "MATCHES", "--labels", "labels.txt", "--output", "RUN"]
    variables = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8"}
    launches = run("train.sh", words, programs, **variables).split("end\n")[:-1]
    assert len(launches) == 2
    for rank, printed in enumerate(launches):
        program, *given = printed.splitlines()
        assert program == "launch"
        launch = launch_command_parser().parse_args(given)
        assert (launch.num_machines, launch.num_processes, launch.machine_rank) == (2, 16, rank)
        assert launch.main_process_ip == "node7" and (EXAMPLES.parent / launch.config_file).is_file()
        assert launch.module and launch.training_script == "comedian.cli.main"
        assert launch.training_script_args == ["train", *words]

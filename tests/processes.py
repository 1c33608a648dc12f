"""Several processes that train together, and several commands in one process."""

import atexit
import contextlib
import functools
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "examples"
CPU_PROCESSES = EXAMPLES / "accelerate_configs" / "cpu_two_processes.yaml"
ENVIRONMENT = os.environ | {"TOKENIZERS_PARALLELISM": "false"}


@functools.cache
def warm_programs() -> Path:
    """A folder for PATH: `python`, `comedian` and `accelerate`, forked from a process that has imported everything.

    For programs whose results are tested, not their imports. The process ends with this one.
    """
    folder = Path(tempfile.mkdtemp(prefix="comedian-warm-"))
    script, address = TESTS / "warm_python.py", folder / "socket"
    python = f'exec {sys.executable} -S {script} {address} run "$0" "$@"'
    programs = {
        "python": python,
        "comedian": f'exec {folder}/python -m comedian.cli.main "$@"',
        "accelerate": f'exec {folder}/python -m accelerate.commands.accelerate_cli "$@"',
    }
    for name, command in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{command}\n")
        (folder / name).chmod(0o755)
    environment = ENVIRONMENT | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    server = subprocess.Popen([sys.executable, "-W", "ignore", script, address], env=environment)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.terminate)
    while not address.exists():
        assert server.poll() is None
        time.sleep(0.05)
    return folder


def launch(*words, config: Path = CPU_PROCESSES, python: str | Path | None = None) -> list[str]:
    """A command line that runs a script, or `-m` and a module, on two processes of `warm_programs` or of another Python."""
    python = python or warm_programs() / "python"
    command = [python, "-m", "accelerate.commands.launch", "--config_file", config]
    port = 28500 + os.getpid() % 1000
    return [str(word) for word in (*command, "--main_process_port", port, *words)]


def one_after_the_other(commands: list[list]) -> list[str]:
    """Words that run several `comedian` commands in one process and print a list of exit code and stderr of each.

    The process ends with the highest code.
    """
    return [__file__, json.dumps([[str(word) for word in words] for words in commands])]


def run_one(words: list[str]) -> tuple[int, str]:
    """Exit code, 70 for an error that the command did not expect, and what went to stdout and stderr."""
    from comedian.cli.main import main

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            code = main(words)
        except SystemExit as error:
            code = error.code
        except BaseException:
            code = 70
            traceback.print_exc()
    return code, errors.getvalue()


if __name__ == "__main__":
    results = [run_one(words) for words in json.loads(sys.argv[1])]
    print(json.dumps(results))
    sys.exit(max(code for code, _ in results))

"""Several processes that train together, and several commands in one process."""

import json
import os
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
CPU_PROCESSES = EXAMPLES / "accelerate_configs" / "cpu_two_processes.yaml"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def launch(*words, config: Path = CPU_PROCESSES) -> list[str]:
    """A command line that runs a script, or `-m` and a module, on two processes."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    port = 28500 + os.getpid() % 1000
    return [str(word) for word in (*command, "--main_process_port", port, *words)]


def one_after_the_other(commands: list[list]) -> list[str]:
    """Words that run several `comedian` commands in one process, which ends at the first that does not end with 0."""
    return [__file__, json.dumps([[str(word) for word in words] for words in commands])]


if __name__ == "__main__":
    from comedian.cli.main import main

    for command in json.loads(sys.argv[1]):
        if code := main(command):
            sys.exit(code)

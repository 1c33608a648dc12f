"""Several processes that train together, and several commands in one process."""

import contextlib
import io
import json
import os
import sys
import traceback
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
CPU_PROCESSES = EXAMPLES / "accelerate_configs" / "cpu_two_processes.yaml"
ENVIRONMENT = os.environ | {"TOKENIZERS_PARALLELISM": "false"}


def launch(*words, config: Path = CPU_PROCESSES) -> list[str]:
    """A command line that runs a script, or `-m` and a module, on two processes."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
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

"""Run commands that are killed at random points and go on, from processes that have imported everything already."""

import hashlib
import importlib
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from warm_python import MODULES


def run_command(
    words: list[str], folder: str, log: str | Connection, environment: dict[str, str], largest_file: int | None = None
) -> None:
    """What a forked process does: `comedian WORDS` in `folder`, its output at the end of `log` or into a pipe."""
    os.environ.update(environment)
    if "HF_TOKEN" in environment:
        # the client read its settings when it was imported
        constants = importlib.import_module("huggingface_hub.constants")
        constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE = False, os.path.join(folder, "hub-cache")
    # a group of its own: what a command starts is ended with it, and looked for
    os.setpgid(0, 0)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if isinstance(log, str) else log.fileno()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(folder)
    if largest_file is not None:
        # of a larger file the rest cannot be written, as on a disk that fills up
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    main = importlib.import_module("comedian.cli.main").main
    code = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Killer:
    """Runs one command again and again.

    Args:
        words: of the command line.
        folder: where it runs.
        seed: of the times of the kills.
        environment: what differs from this process's; with `HF_TOKEN` the Hub can be reached.

    Attributes:
        kills: how many runs were killed.
        unkilled_s: how long the first whole run took.
    """

    def __init__(self, words: list[str], folder: Path, seed: int, environment: dict[str, str] | None = None):
        self.words, self.folder, self.log = [str(word) for word in words], folder, folder / "log.txt"
        self.random, self.environment = Random(seed), environment or {}
        self.kills = 0
        self.unkilled_s = 0.0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(MODULES))
        # the first process waits for the imports, which are no part of a run
        first = self._context.Process(target=os.getpid)
        first.start()
        first.join()

    def start(self) -> multiprocessing.Process:
        """Start the command."""
        arguments = (self.words, str(self.folder), str(self.log), self.environment)
        process = self._context.Process(target=run_command, args=arguments)
        process.start()
        return process

    def run(self) -> None:
        """Run it to its end."""
        begin_s = time.perf_counter()
        process = self.start()
        process.join(120)
        assert process.exitcode == 0, (process.exitcode, self.log.read_text()[-3000:])
        self.unkilled_s = self.unkilled_s or time.perf_counter() - begin_s

    def run_short_of_room(self, largest_file: int) -> tuple[int, str]:
        """Run it so that it can write no more than so many bytes to a file; return its exit code and what it printed."""
        reader, writer = self._context.Pipe(duplex=False)
        arguments = (self.words, str(self.folder), writer, self.environment, largest_file)
        process = self._context.Process(target=run_command, args=arguments)
        process.start()
        writer.close()
        with open(os.dup(reader.fileno()), "rb") as pipe:
            printed = pipe.read().decode()
        process.join()
        return process.exitcode, printed

    def kill_once(self) -> bool:
        """Start it and kill it at a random time within that of a whole run; false where it had ended by itself."""
        process = self.start()
        process.join(self.random.uniform(0, self.unkilled_s))
        if process.exitcode is not None:
            assert process.exitcode == 0, (process.exitcode, self.log.read_text()[-3000:])
            return False
        process.kill()
        process.join()
        self.kills += 1
        return True

    def survivors(self, patience_s: float = 10) -> list[int]:
        """Processes of killed runs that are still there after some patience."""
        end_s = time.monotonic() + patience_s
        while (left := processes_in(self.folder)) and time.monotonic() < end_s:
            time.sleep(0.1)
        return left


def processes_in(folder: Path) -> list[int]:
    """Processes whose working directory is `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "cwd") == str(folder):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def contents(folder: Path, ignored: Callable[[str], bool] = lambda name: False) -> dict[str, str]:
    """Path -> hash of every file."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in sorted(_names(folder))
        if not ignored(name)
    }


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Path -> what changes when a file is written again."""
    found = {}
    for name in _names(folder):
        try:
            status = (folder / name).stat()
        except FileNotFoundError:  # a worker that outlives its command still tidies up
            continue
        found[name] = (status.st_ino, status.st_mtime_ns)
    return found


def _names(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

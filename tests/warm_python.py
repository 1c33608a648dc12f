"""Python from a process that has imported everything already: a fork a program, not seconds of imports.

`python warm_python.py SOCKET` serves. `python warm_python.py SOCKET run PYTHON WORDS...` runs Python there with these words,
in its own folder, with its own environment, standard streams, signals and exit code; what it starts as `sys.executable`,
such as the processes of `accelerate launch`, is run by PYTHON. It shares with other programs what was imported, and ends
after its exit functions, without the second in which Python takes down its modules.
"""

import atexit
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import warnings

FAILED = 1
# in the environment of a program: `comedian finetune --videos` trains two epochs of few windows; all else is as shipped
SHORT = "TRAIN_SHORT"
# how often the server looks whether the process that started it is there
LOOK_S = 2.0
FORWARDED = (signal.SIGINT, signal.SIGTERM)
# what commands import, at once or when they run, and what launches them
MODULES = (
    "accelerate.commands.accelerate_cli",
    "comedian.cli.main",
    "comedian.conversion.averaging",
    "comedian.conversion.export",
    "comedian.evaluation.soccernet_average_map.soccernet_average_map",
    "comedian.events.formats",
    "comedian.events.own_videos",
    "comedian.features.extraction",
    "comedian.features.reduction",
    "comedian.hub.model_publish",
    "comedian.inference.score_files",
    "comedian.models.pipeline_comedian",
    "comedian.soccernet.download",
    "comedian.training.finetune_videos",
    "comedian.training.train_all",
    "comedian.video.clips",
    "torch.distributed.fsdp",
    "torch.distributed.run",
)


def import_all() -> None:
    """Import what programs of tests import, and start no thread: threads are not forked."""
    from comedian.cli.main import COMMANDS

    commands = [f"comedian.cli.commands.{name.replace('-', '_')}" for name in COMMANDS]
    for name in (*commands, *MODULES):
        importlib.import_module(name)


def serve(address: str) -> dict:
    """Answer while the process that started this one is there; return in a forked process alone, with what it is to run."""
    owner = os.getppid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{address}.partial")
        listener.listen()
        listener.settimeout(LOOK_S)
        os.rename(f"{address}.partial", address)
        while os.getppid() == owner:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            message, streams, *_ = socket.recv_fds(connection, 1 << 20, 3)
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                program = os.fork()
                if program == 0:
                    connection.close()
                    return json.loads(message) | {"streams": streams}
                watch(program, connection)
            connection.close()
            for descriptor in streams:
                os.close(descriptor)
    os._exit(0)


def watch(program: int, connection: socket.socket) -> None:
    """Send signals to a program, kill it if nobody waits for it, and tell its exit code; does not return."""
    ended = os.pidfd_open(program)
    poll = select.poll()
    for descriptor in (ended, connection):
        poll.register(descriptor, select.POLLIN)
    while ended not in [descriptor for descriptor, _ in poll.poll()]:
        number = connection.recv(1)
        os.kill(program, number[0] if number else signal.SIGKILL)
        if not number:
            os._exit(FAILED)
    code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    connection.send(str(code).encode())
    os._exit(0)


def become(request: dict) -> None:
    """Take on folder, environment and streams of a program."""
    import datasets
    import huggingface_hub

    for number, stream in enumerate(request["streams"]):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(line_buffering=True)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.executable = request["executable"]
    # what was read once, when modules were imported
    offline = os.environ["HF_HUB_OFFLINE"] == "1"
    huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = offline
    if SHORT in os.environ:
        finetune_videos = sys.modules["comedian.training.finetune_videos"]
        finetune_videos.TRAINING["num_train_epochs"], finetune_videos.MIN_WINDOWS = 2, 4
    if os.environ.get("PYTHONWARNINGS") == "ignore":
        warnings.simplefilter("ignore")
    random.seed()


def run(words: list[str]) -> None:
    """Run a program as `python WORDS` would."""
    while words[0] in ("-u", "-W"):
        if words.pop(0) == "-W":
            warnings.simplefilter(words.pop(0))
    kind, *rest = words
    if kind == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        # it is imported already
        warnings.filterwarnings("ignore", module="runpy")
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(kind))
        runpy.run_path(kind, run_name="__main__")


def finish(words: list[str]) -> None:
    """Run a program and end as Python ends; does not return."""
    code = 0
    try:
        run(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else FAILED if end.code else 0
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = FAILED
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ask(address: str, executable: str, words: list[str]) -> int:
    """Have the server run a program; return its exit code, minus the number of a signal that ended it."""
    message = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ), "executable": executable}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(message).encode()], [0, 1, 2])
        for number in FORWARDED:
            signal.signal(number, lambda number, _: connection.send(bytes([number])))
        return int(connection.recv(16) or FAILED)


if __name__ == "__main__":
    if sys.argv[2:3] == ["run"]:
        code = ask(sys.argv[1], sys.argv[3], sys.argv[4:])
        if code < 0:
            if -code in FORWARDED:
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        sys.exit(code)
    import_all()
    gc.freeze()
    request = serve(sys.argv[1])
    become(request)
    finish(request["words"])

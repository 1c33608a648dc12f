"""The `comedian` command from a process that has imported everything already: a fork a command, not seconds of imports.

`comedian finetune --videos` trains two epochs of few windows here, as the pages' recipes do; all else is as shipped.
`python warm_comedian.py SOCKET` serves; `python warm_comedian.py SOCKET run WORDS...` runs one command there, with its own
folder, environment, standard streams and exit code.
"""

import importlib
import json
import os
import signal
import socket
import sys
import traceback

FAILED = 1
# after which the server ends, should nobody be left to end it
IDLE_S = 600


def serve(address: str) -> None:
    """Answer until killed, or not asked for long."""
    from comedian.cli.main import COMMANDS, main

    for name in COMMANDS:
        importlib.import_module(f"comedian.cli.commands.{name.replace('-', '_')}")
    for name in (
        "evaluation.soccernet_average_map.soccernet_average_map",
        "inference.score_files",
        "training.train_all",
        "training.finetune_videos",
    ):
        importlib.import_module(f"comedian.{name}")
    finetune_videos = sys.modules["comedian.training.finetune_videos"]
    finetune_videos.TRAINING["num_train_epochs"], finetune_videos.MIN_WINDOWS = 2, 4
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{address}.partial")
        listener.listen()
        listener.settimeout(IDLE_S)
        os.rename(f"{address}.partial", address)
        while True:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                return
            message, streams, *_ = socket.recv_fds(connection, 1 << 20, 3)
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                connection.send(bytes([answer(main, json.loads(message), streams)]))
                os._exit(0)
            for descriptor in (connection.detach(), *streams):
                os.close(descriptor)


def answer(main, message: dict, streams: list[int]) -> int:
    """Run one command in this process and return its exit code."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(message["folder"])
    os.environ.clear()
    os.environ.update(message["environment"])
    code = FAILED
    try:
        code = main(message["words"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else FAILED
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def ask(address: str, words: list[str]) -> int:
    """Have the server run a command; return its exit code."""
    message = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(message).encode()], [0, 1, 2])
        return (connection.recv(1) or bytes([FAILED]))[0]


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[3:]))

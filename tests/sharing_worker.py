"""A process that shares jobs with others: `python sharing_worker.py FOLDER COUNT SECONDS`.

Each job writes a line to its result; each start of a job is a line of `log.txt`. With a fourth word, the process stops in
its first job until it is killed.
"""

import os
import sys
import time
from pathlib import Path

from comedian.files import atomic_write_text
from comedian.sharing import SharedWork


def note(folder: Path, job: int) -> None:
    descriptor = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{job} {os.getpid()}\n".encode())
    os.close(descriptor)


def main(folder: Path, count: int, seconds: float, stops: bool) -> None:
    def result_of(job: int) -> Path:
        return folder / str(job % 3) / f"{job}.txt"

    with SharedWork(range(count), result_of, lambda job: result_of(job).is_file()) as work:
        for job in work:
            note(folder, job)
            time.sleep(3600 if stops else seconds)
            atomic_write_text(result_of(job), f"result {job}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), len(sys.argv) > 4)

"""One job a result file, shared by any number of processes on machines with one file system.

A process that works on a result holds a claim: a file `<result>.claim` beside it, made with `O_EXCL`, so that one process
alone can make it. Claims are taken one at a time, so a fast process takes more jobs than a slow one, and nothing has to be
agreed before. The owner changes the claim's time every few seconds. A claim whose owner has ended is taken over: at once by
a process of the same machine, by others when it has not changed for `STALE_S` on their own clock.

Jobs that never run at the same time, or cannot see each other's files, take a fixed share each instead: [`Shard`].
"""

import heapq
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Generic, TypeVar

import psutil

from comedian.errors import InputError

CLAIM_SUFFIX = ".claim"
# how often an owner changes its claim, and how long a claim may stay unchanged; NFS shows a time up to a minute late
HEARTBEAT_S, STALE_S = 10.0, 120.0
# time for the threads of gloo to finish
GLOO_THREADS_S = 0.5
# how often those that wait look again
POLL_S = 0.5
# the number of a process among those that were launched together, as accelerate reads it
_RANK_VARIABLES = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_SIZE_VARIABLES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_RANK_VARIABLES = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
_LOCAL_SIZE_VARIABLES = (
    "LOCAL_WORLD_SIZE",
    "MPI_LOCALNRANKS",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MV2_COMM_WORLD_LOCAL_SIZE",
)

Job = TypeVar("Job")


def leave_process_group() -> None:
    """Leave gloo's process group; what launched processes do last, with `atexit.register`. Not after an uncaught error.

    Threads of gloo release the tensors of the last exchange after it is over. One that needs Python's lock for it when
    Python is already shutting down aborts the process ("terminate called without an active exception"), and the launcher
    reports a failure of a run that is complete.
    """
    distributed = sys.modules.get("torch.distributed")
    if hasattr(sys, "last_value") or distributed is None or not distributed.is_available():
        return
    if distributed.is_initialized() and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()
        # releases the lock; there is no way to ask whether the threads have finished
        time.sleep(GLOO_THREADS_S)


def is_main_process() -> bool:
    """Whether this process prints and writes what there is once, of those that `accelerate launch` started together.

    The environment says so; processes that share work through files need no connection to each other.
    """
    return _of_environment(_RANK_VARIABLES, 0) == 0


def num_launched() -> int:
    """How many processes `accelerate launch` started together, on all machines; 1 without it."""
    return _of_environment(_SIZE_VARIABLES, 1)


def local_rank() -> int:
    """Number of this process among those that were launched together on this machine, from 0."""
    return _of_environment(_LOCAL_RANK_VARIABLES, 0)


def available_cores() -> int:
    """Cores of this machine that its processes may use: those of the job, on a cluster that limits them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_of_process() -> int:
    """Cores of this machine for this process, at least 1: those launched together on one machine divide them."""
    return max(1, available_cores() // max(1, _of_environment(_LOCAL_SIZE_VARIABLES, 1)))


def _of_environment(names: Sequence[str], default: int) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()), default)


@dataclass(frozen=True)
class Shard:
    """One fixed share of all jobs, of `count`.

    Attributes:
        index: which one, from 1.
        count: how many there are.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, word: str) -> "Shard":
        """Read `I/N`.

        Raises:
            InputError: it is something else, or `I` is not from 1 to `N`.
        """
        index, _, count = word.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise InputError(f"--shard {word}: give I/N with I from 1 to N, such as 3/8 for the third share of eight")
        return cls(int(index), int(count))

    def of(self, jobs: Sequence[Job], length_of: Callable[[Job], float]) -> list[Job]:
        """Return this share of the jobs, the longest first; all shares are of about the same length.

        It depends on the jobs and their lengths alone, not on what is done already.
        """
        share = balanced_shares([length_of(job) for job in jobs], self.count)[self.index - 1]
        return [jobs[index] for index in share]


def length_of_video(path: Path) -> int:
    """Return the bytes of a video: within a data set about in proportion to its duration, and no video is opened for them.

    A file that is not there has none; whoever opens it reports it.
    """
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def balanced_shares(lengths: Sequence[float], count: int) -> list[list[int]]:
    """Divide jobs into shares of about the same length: each job, the longest first, goes to the shortest share so far.

    Returns:
        Indices of the jobs in each of `count` shares, the longest first.
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [(0.0, 0, number) for number in range(count)]
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        load, held, number = heapq.heappop(loads)
        shares[number].append(index)
        heapq.heappush(loads, (load + lengths[index], held + 1, number))
    return shares


class SharedWork(Generic[Job]):
    """Jobs that this process and any others do together, each job once; a context that gives back all claims at its end.

    Iterating yields this process's jobs one by one, until none is left anywhere: at the end it waits for those of others,
    and takes over what they leave. For several at a time there are [`take`] and [`finish`].

    Args:
        jobs: in the order in which they are to be taken, the longest first.
        result_of: the file that a job makes last; its claim lies beside it.
        is_done: whether a job's results are there and complete.

    Attributes:
        there: jobs that were done already.
        pending: jobs that are neither done, as far as this process has seen, nor taken by it.
        elsewhere: jobs that other processes have done meanwhile.
    """

    def __init__(self, jobs: Sequence[Job], result_of: Callable[[Job], Path], is_done: Callable[[Job], bool]):
        self._result_of, self._is_done = result_of, is_done
        self._claims = Claims()
        self.there: list[Job] = []
        self.pending: list[Job] = []
        self.elsewhere: list[Job] = []
        for job in jobs:
            done = is_done(job)
            (self.there if done else self.pending).append(job)
            if done:
                self._claims.sweep(result_of(job))

    def __enter__(self) -> "SharedWork[Job]":
        return self

    def __exit__(self, *error: object) -> None:
        self._claims.close()

    def __iter__(self) -> Iterator[Job]:
        while True:
            if (job := self.take()) is not None:
                yield job
                self.finish(job)
            elif self.pending:
                time.sleep(POLL_S)
            else:
                return

    def take(self) -> Job | None:
        """Claim the first job that no other process holds; `None` where there is none at present."""
        index = 0
        while index < len(self.pending):
            job = self.pending[index]
            result = self._result_of(job)
            # what others have done in the meantime is passed over without a claim, which writes to the file system
            if result.exists() and self._is_done(job):
                self.elsewhere.append(self.pending.pop(index))
            elif not self._claims.acquire(result):
                index += 1
            # it may have been finished between the look and the claim
            elif self._is_done(job):
                self._claims.release(result)
                self.elsewhere.append(self.pending.pop(index))
            else:
                return self.pending.pop(index)
        return None

    def finish(self, job: Job) -> None:
        """Give back the claim of a job that [`take`] gave."""
        self._claims.release(self._result_of(job))


@contextmanager
def alone_at(result: Path) -> Iterator[None]:
    """Wait until no other process holds the claim of a file, and hold it: for files that several commands would write."""
    claims = Claims()
    try:
        while not claims.acquire(result):
            time.sleep(POLL_S)
        yield
    finally:
        claims.close()


class Claims:
    """The claims that this process holds, each a file beside a result.

    A claim that is taken over stays, and the new owner makes the next one, `<result>.claim.1`, `.claim.2`, ...: of several
    that find an owner gone, `O_EXCL` lets one alone make it, and no process deletes another's. The last one counts.
    """

    def __init__(self):
        self._held: dict[Path, int] = {}
        # claims of others: their time of change, and when it was first seen here
        self._seen: dict[Path, tuple[int, float]] = {}
        self._stop = Event()
        self._thread: Thread | None = None

    def acquire(self, result: Path) -> bool:
        """Claim a result; false where another process holds it."""
        generation, last, path = 0, None, _claim_path(result, 0)
        while path.exists():
            generation, last, path = generation + 1, path, _claim_path(result, generation + 1)
        if last is not None and not self._is_abandoned(last):
            return False
        try:
            result.parent.mkdir(parents=True, exist_ok=True)
            _make(path)
        except FileExistsError:
            return False
        except OSError as error:
            error.filename = str(result)
            raise
        if last is not None:
            # a new file for what the last owner may have begun
            result.with_name(f"{result.name}.partial").unlink(missing_ok=True)
        self._held[result] = generation
        if self._thread is None:
            self._thread = Thread(target=self._beat, daemon=True)
            self._thread.start()
        return True

    def release(self, result: Path) -> None:
        """Give back a claim; its own file last, so that another claim is never deleted for it."""
        for generation in range(self._held.pop(result) + 1):
            _claim_path(result, generation).unlink(missing_ok=True)

    def sweep(self, result: Path) -> None:
        """Delete what an owner that has ended left beside a result that is done."""
        if _claim_path(result, 0).exists() and self.acquire(result):
            self.release(result)

    def close(self) -> None:
        """Give back all claims."""
        self._stop.set()
        for result in list(self._held):
            self.release(result)

    def _is_abandoned(self, path: Path) -> bool:
        """Whether the owner of a claim has ended."""
        try:
            changed_ns = path.stat().st_mtime_ns
            owner = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except (OSError, ValueError):  # not written yet
            owner = {}
        if owner.get("machine") == _machine() and not _is_running(owner["process"], owner.get("started")):
            return True
        now_s = time.monotonic()
        # clocks of machines differ, so no time is compared with another machine's
        if self._seen.get(path, (None, 0.0))[0] != changed_ns:
            self._seen[path] = changed_ns, now_s
        return now_s - self._seen[path][1] > STALE_S

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            for result, generation in list(self._held.items()):
                with suppress(OSError):  # given back at this moment, or a file server that does not answer
                    os.utime(_claim_path(result, generation))
                if result in self._held and _claim_path(result, generation + 1).exists():
                    # Both would write the same files. This process was stopped for long, or cut off from the file system.
                    sys.stderr.write(
                        f"comedian: another process took over `{result}`, as this one did not respond for {STALE_S:g} s; "
                        "run the same command again to continue\n"
                    )
                    sys.stderr.flush()
                    os._exit(1)


def _claim_path(result: Path, generation: int) -> Path:
    return result.with_name(f"{result.name}{CLAIM_SUFFIX}{f'.{generation}' if generation else ''}")


def _make(path: Path) -> None:
    """Make a claim's file; `FileExistsError` where it is there."""
    owner = {"host": platform.node(), "process": os.getpid(), "machine": _machine(), "started": _started(os.getpid())}
    with path.open("x", encoding="utf-8") as file:
        try:
            json.dump(owner, file)
            file.flush()
        except BaseException:
            path.unlink()
            raise


def _machine() -> str:
    """What tells the machine whose process numbers these are, and the container on it, from all others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return platform.node()


def _started(number: int) -> float:
    """When a process started; two processes that had the same number differ in it.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    try:
        # in ticks since the machine started, which setting the clock does not change
        return float(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:  # not Linux, or it has ended
        return psutil.Process(number).create_time()


def _is_running(number: int, started: float | None) -> bool:
    """Whether a process is there that has this number and, where it is known, started at this time."""
    try:
        if started is not None and _started(number) != started:
            return False
        return psutil.Process(number).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True

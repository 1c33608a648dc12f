"""`comedian prepare`: decode every half of a data set once into a frame store."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

from tqdm import tqdm

from comedian.errors import InputError
from comedian.sharing import POLL_S, Shard, SharedWork, cores_of_process, is_main_process, length_of_video
from comedian.soccernet.layout import find_halves, find_matches
from comedian.video.decoding import iter_frames
from comedian.video.frame_store import (
    StoreSettings,
    check_settings,
    claim_store,
    half_path,
    open_half,
    same_source,
    source_of,
    write_half,
)
from comedian.video.sound_files import sound_path, write_sound


@dataclass
class PrepareReport:
    """Summary of [`prepare`]; halves are `(video_id, half)` pairs.

    Attributes:
        done: halves written by this process.
        skipped: halves that were in the store already.
        elsewhere: halves that other processes wrote meanwhile.
        bad: one line for each omitted video, with its name.
        damaged: one line for each video that is kept although a part of it is missing, with its name.
        silent: with `sound`, the halves of videos without an audio track.
        size_bytes: size of the halves in `done`, in bytes.
        footage_s: duration of the halves in `done`, in seconds.
        elapsed_s: elapsed time in seconds.
    """

    done: list[tuple[str, int]] = field(default_factory=list)
    skipped: list[tuple[str, int]] = field(default_factory=list)
    elsewhere: list[tuple[str, int]] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    silent: list[tuple[str, int]] = field(default_factory=list)
    size_bytes: int = 0
    footage_s: float = 0.0
    elapsed_s: float = 0.0

    @property
    def times_real_time(self) -> float:
        """Seconds of footage written per second."""
        return self.footage_s / self.elapsed_s if self.elapsed_s else 0.0


@dataclass(frozen=True)
class _Job:
    video_id: str
    half: int
    video_path: Path
    destination: Path
    settings: StoreSettings
    sound: bool

    @property
    def key(self) -> tuple[str, int]:
        return self.video_id, self.half


@dataclass(frozen=True)
class _Outcome:
    job: _Job
    footage_s: float = 0.0
    size_bytes: int = 0
    damage: tuple[str, ...] = ()
    error: str | None = None


def prepare(
    root: str | Path,
    store: str | Path,
    settings: StoreSettings,
    *,
    video_ids: Sequence[str] | None = None,
    shard: Shard | None = None,
    sound: bool = False,
    workers: int | None = None,
    skip_bad: bool = False,
    progress: bool = True,
) -> PrepareReport:
    """Decode every half under `root` once into a frame store.

    Halves in the store whose video has not changed (see [`same_source`]) are skipped, so that an interrupted run can be
    resumed. Any number of processes may prepare one store at the same time: they share the halves, the longest first, and
    each returns when all halves are done (see [`SharedWork`]). Workers are spawned: a script must call this under
    `if __name__ == "__main__"`.

    Args:
        root: the data set's folder, in SoccerNet's layout.
        store: the store's folder; created if missing.
        settings: rate, size and quality.
        video_ids: only these matches, see `matches_of_splits`; all by default.
        shard: only this fixed share of the halves, by the bytes of their videos.
        sound: also store the spectrograms of the audio tracks, for halves that are in the store already, too.
        workers: number of processes, each of which decodes one half at a time; None for one per core (processes that are
            launched together on one machine share its cores); 1 to decode in this process.
        skip_bad: omit videos that cannot be decoded and list them in the report, instead of raising.
        progress: show a progress bar.

    Returns:
        The summary.

    Raises:
        InputError: no videos under `root`; `store` was prepared with other settings; or, without `skip_bad`, a video
            cannot be decoded.
    """
    check_settings(settings)
    began_s = time.monotonic()
    root, store = Path(root), Path(store)
    jobs = [
        _Job(video_id, half, path, half_path(store, video_id, half), settings, sound)
        for video_id in (find_matches(root) if video_ids is None else video_ids)
        for half, path in find_halves(root / video_id).items()
    ]
    if not jobs:
        raise InputError(f"no videos under `{root}`; arrange them in SoccerNet's layout, such as `match/1_224p.mkv`")
    claim_store(store, settings)
    # share 1 of 1 is all halves; the longest come first
    jobs = (shard or Shard(1, 1)).of(jobs, lambda job: length_of_video(job.video_path))
    with SharedWork(jobs, lambda job: job.destination, _is_fresh) as work:
        report = PrepareReport(skipped=sorted(job.key for job in work.there))
        show = progress and is_main_process()
        with tqdm(total=len(jobs), initial=len(work.there), unit="half", disable=not show) as bar:
            for outcome in _run(work, min(workers or cores_of_process(), len(work.pending))):
                _add(report, outcome, skip_bad)
                report.elapsed_s = time.monotonic() - began_s
                bar.set_postfix_str(f"{report.times_real_time:.0f}x real time", refresh=False)
                bar.update(len(work.there) + len(work.elsewhere) + len(report.done) + len(report.bad) - bar.n)
        report.elsewhere = sorted(job.key for job in work.elsewhere)
    if sound:
        halves = report.done + report.skipped + report.elsewhere
        report.silent = [key for key in halves if open_half(half_path(store, *key)).sound() is None]
    return report


def _is_fresh(job: _Job) -> bool:
    return _has_frames(job) and (not job.sound or sound_path(job.destination).is_file())


def _has_frames(job: _Job) -> bool:
    try:
        return same_source(open_half(job.destination).source, source_of(job.video_path))
    except (FileNotFoundError, InputError):
        return False


def _run(work: SharedWork[_Job], workers: int) -> Iterator[_Outcome]:
    """Yield outcomes as they come."""
    if workers <= 1:
        yield from map(_prepare_half, work)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_end_with_parent)
    running: dict[Future[_Outcome], _Job] = {}
    try:
        while True:
            while len(running) < workers and (job := work.take()) is not None:
                running[pool.submit(_prepare_half, job)] = job
            if running:
                waits_for_others = work.pending and len(running) < workers
                done, _ = wait(running, POLL_S if waits_for_others else None, FIRST_COMPLETED)
                for future in done:
                    work.finish(running.pop(future))
                    yield future.result()
            elif work.pending:
                time.sleep(POLL_S)
            else:
                return
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End a worker at Ctrl-C without a traceback of its own, and when its parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Thread(target=_exit_after, args=(parent_process(),), daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    # otherwise the worker would write the same files as the next run
    parent.join()
    os._exit(1)


def _prepare_half(job: _Job) -> _Outcome:
    settings = job.settings
    damage: list[str] = []
    written: list[Path] = []
    if not _has_frames(job):
        # if this run ends early, the half of the former video must not be read
        job.destination.unlink(missing_ok=True)
        sound_path(job.destination).unlink(missing_ok=True)
        size = settings.height if settings.width is None else (settings.height, settings.width)
        frames = iter_frames(job.video_path, settings.fps, size, threads=1, on_damage=damage.append)
        source = source_of(job.video_path)
        try:
            write_half(job.destination, frames, fps=settings.fps, quality=settings.quality, source=source)
        except InputError as error:
            return _Outcome(job, error=str(error))
        written.append(job.destination)
    if job.sound:
        write_sound(sound_path(job.destination), job.video_path)
        written.append(sound_path(job.destination))
    size_bytes = sum(path.stat().st_size for path in written)
    return _Outcome(job, open_half(job.destination).duration_s, size_bytes, tuple(damage))


def _add(report: PrepareReport, outcome: _Outcome, skip_bad: bool) -> None:
    if outcome.error is not None:
        if not skip_bad:
            raise InputError(f"{outcome.error}; or omit it with `--skip-bad`")
        report.bad.append(outcome.error)
        return
    report.done.append(outcome.job.key)
    report.damaged.extend(outcome.damage)
    report.size_bytes += outcome.size_bytes
    report.footage_s += outcome.footage_s

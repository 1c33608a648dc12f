"""SoccerNet's labels, features and videos from the Hugging Face Hub into SoccerNet's folder layout.

    fetch(plan_download("data/SoccerNet", Selection(splits=("train",), labels="v2", videos="224p")))

Existing files with the size of the file on the Hub are not downloaded again. An interrupted download leaves
`<name>.partial` in the target folder; the next download resumes from it. Videos are gated: see `hub_errors`.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers
from tqdm import tqdm

from comedian.errors import InputError
from comedian.files import inside
from comedian.hub_errors import hub_errors, hub_url
from comedian.soccernet.layout import PUBLISHED
from comedian.soccernet.splits import SPLIT_NAMES, official_splits

LABELS = {"v2": "Labels-v2.json", "v1": "Labels.json"}
# kind of features -> branch of SoccerNet/SN-Features
FEATURES = {"baidu": "baidu-soccer-embeddings", "resnet": "resnet-tf2", "resnet-pca512": "resnet-tf2-pca512"}
VIDEOS = {
    "224p": ("1_224p.mkv", "2_224p.mkv"),
    "720p": ("1_720p.mkv", "2_720p.mkv"),
    "HQ": ("1_HQ.mkv", "2_HQ.mkv", "video.ini"),
}
NUM_WORKERS = 4


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What to download.

    Attributes:
        splits: `train`, `valid`, `test`, `challenge`; all splits on the Hub by default. Named splits need the lists of the
            `SoccerNet` package.
        labels: a key of `LABELS`, or None. Those of the challenge are not public.
        features: a key of `FEATURES`, or None.
        videos: a key of `VIDEOS`, or None.

    Raises:
        InputError: nothing is selected, or a value is unknown.
    """

    splits: tuple[str, ...] = ()
    labels: str | None = None
    features: str | None = None
    videos: str | None = None

    def __post_init__(self):
        known: dict[str, Collection[str]] = {"labels": LABELS, "features": FEATURES, "videos": VIDEOS}
        if all(getattr(self, kind) is None for kind in known):
            raise InputError("nothing to download; choose at least one of `labels`, `features` and `videos`")
        for kind, names in known.items():
            if (name := getattr(self, kind)) is not None and name not in names:
                raise InputError(f"unknown {kind} {name!r}; choose {', '.join(names)}")
        for split in self.splits:
            if split not in SPLIT_NAMES:
                raise InputError(f"unknown split {split!r}; choose train, valid, test or challenge")


@dataclass(frozen=True)
class HubFile:
    """One file to download.

    Attributes:
        repo_id: the dataset.
        commit: its commit.
        path: its path in the repository and in the output folder.
        size_bytes: its size.
        digest: SHA-256 of the content, or the Git hash for a file that is stored in Git itself.
        target: the local path.
    """

    repo_id: str
    commit: str
    path: str
    size_bytes: int
    digest: str
    target: Path

    @property
    def partial(self) -> Path:
        """Path of the incomplete file."""
        return self.target.with_name(f"{self.target.name}.partial")


@dataclass(frozen=True)
class DownloadPlan:
    """Plan of a download.

    Attributes:
        output: the folder of the matches.
        files: the files to download.
        present: number of existing files.
        differing: existing files with another size than on the Hub; they are unchanged.
        missing: paths in the official lists that are not on the Hub.
    """

    output: Path
    files: tuple[HubFile, ...]
    present: int
    differing: tuple[Path, ...]
    missing: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Total size of the files to download."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class _Source:
    """A branch of a dataset, the requested files, and their matches (None for all)."""

    repo_id: str
    branch: str
    names: tuple[str, ...]
    video_ids: frozenset[str] | None


def plan_download(output: str | Path, selection: Selection) -> DownloadPlan:
    """Look up which files on the Hub are missing in `output`; nothing is downloaded or written.

    Raises:
        InputError: the Hub cannot be reached or denies access, the official lists are needed and not available, or a
            path on the Hub leads out of `output`.
    """
    files, differing, missing, present = [], [], [], 0
    for source in _sources(selection):
        found = _list_files(Path(output), source)
        if source.video_ids is not None:
            wanted = {f"{video_id}/{name}" for video_id in source.video_ids for name in source.names}
            missing += sorted(wanted - {file.path for file in found})
        for file in found:
            if not file.target.exists():
                files.append(file)
            elif file.target.stat().st_size == file.size_bytes:
                present += 1
            else:
                differing.append(file.target)
    return DownloadPlan(Path(output), tuple(files), present, tuple(differing), tuple(missing))


def fetch(plan: DownloadPlan, *, progress: bool = True) -> None:
    """Download the files of a plan; each appears under its name only when it is complete and its digest is correct.

    Args:
        plan: from `plan_download`.
        progress: show a bar.

    Raises:
        InputError: the Hub cannot be reached or denies access, a file is damaged, or the disk is too small.
    """
    if not plan.files:
        return
    _check_space(plan)
    stop = threading.Event()
    with (
        tqdm(total=plan.size_bytes, unit="B", unit_scale=True, disable=not progress) as bar,
        ThreadPoolExecutor(NUM_WORKERS) as pool,
    ):
        futures = [pool.submit(_fetch, file, partial(_FileBar, bar, stop)) for file in plan.files]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:  # an interrupt must not wait for the running downloads either
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _sources(selection: Selection) -> list[_Source]:
    splits = {SPLIT_NAMES[split] for split in selection.splits}
    matches = official_splits("Labels-v2.json") if splits else {}

    def source(repo_id: str, branch: str, names: Iterable[str], of: set[str]) -> list[_Source]:
        video_ids = frozenset(video_id for video_id, split in matches.items() if split in splits & of)
        return (
            [_Source(repo_id, branch, tuple(names), video_ids if splits else None)] if video_ids or not splits else []
        )

    annotated, challenge = {"train", "validation", "test"}, {"challenge"}
    sources = []
    if selection.labels:
        sources += source("SoccerNet/SN-Labels", "main", [LABELS[selection.labels]], annotated)
    if selection.features:
        names = [f"{half}_{PUBLISHED[selection.features].suffix}" for half in (1, 2)]
        sources += source("SoccerNet/SN-Features", FEATURES[selection.features], names, annotated | challenge)
    if selection.videos:
        branch, names = f"videos-{selection.videos}", list(VIDEOS[selection.videos])
        sources += source("SoccerNet/SoccerNet_raw_HQ", branch, names, annotated)
        sources += source("SoccerNet/SoccerNet_raw_HQ_Challenge", branch, names, challenge)
    return sources


def _list_files(output: Path, source: _Source) -> list[HubFile]:
    api = HfApi(library_name="comedian")
    with hub_errors(source.repo_id):
        commit = api.repo_info(source.repo_id, repo_type="dataset", revision=source.branch).sha
        entries = list(api.list_repo_tree(source.repo_id, recursive=True, revision=commit, repo_type="dataset"))
    files = []
    for entry in entries:
        video_id, _, name = entry.path.rpartition("/")
        in_splits = bool(video_id) if source.video_ids is None else video_id in source.video_ids
        if isinstance(entry, RepoFile) and name in source.names and in_splits:
            digest = entry.lfs.sha256 if entry.lfs else entry.blob_id
            target = inside(output, entry.path)
            files.append(HubFile(source.repo_id, commit, entry.path, entry.size, digest, target))
    return files


def _check_space(plan: DownloadPlan) -> None:
    there = next(folder for folder in (plan.output.absolute(), *plan.output.absolute().parents) if folder.is_dir())
    fetched = sum(file.partial.stat().st_size for file in plan.files if file.partial.is_file())
    needed, free = plan.size_bytes - fetched, shutil.disk_usage(there).free
    if needed > free:
        raise InputError(
            f"`{plan.output}` needs {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free; free some space or "
            "choose another disk"
        )


def _fetch(file: HubFile, make_bar: Callable[..., "_FileBar"]) -> None:
    """Download one file; if its `.partial` belongs to another version, download it again once."""
    try:
        file.target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            with hub_errors(file.repo_id):
                _complete(file, make_bar)
            if _digest(file) == file.digest:
                os.replace(file.partial, file.target)
                return
            file.partial.unlink()
    except OSError as error:
        raise InputError(
            f"`{file.target}` cannot be downloaded: {error.strerror or error}; rerun the command"
        ) from error
    raise InputError(
        f"`{hub_url(file.repo_id)}`: `{file.path}` is damaged after the download; rerun the command later"
    )


def _complete(file: HubFile, make_bar: Callable[..., "_FileBar"]) -> None:
    """Download the missing part of `<name>.partial`."""
    url = hf_hub_url(file.repo_id, file.path, repo_type="dataset", revision=file.commit)
    # a compressed transfer could not be resumed
    headers = build_hf_headers(library_name="comedian") | {"Accept-Encoding": "identity"}
    with file.partial.open("ab") as partial_file:
        if partial_file.tell() > file.size_bytes:
            partial_file.truncate(0)
        resume_size = partial_file.seek(0, os.SEEK_END)
        http_get(
            url,
            partial_file,
            resume_size=resume_size,
            headers=headers,
            expected_size=file.size_bytes,
            tqdm_class=make_bar,
        )


def _digest(file: HubFile) -> str:
    """Hash the downloaded file like `file.digest`: SHA-256 (64 digits) or Git's hash (40 digits)."""
    if len(file.digest) == 64:
        with file.partial.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    return hashlib.sha1(b"blob %d\0" % file.size_bytes + file.partial.read_bytes(), usedforsecurity=False).hexdigest()


class _FileBar:
    """Progress bar of one file for the Hub's client: updates the total bar, and aborts the download on `stop`."""

    def __init__(self, bar: tqdm, stop: threading.Event, *, initial: int = 0, **_):
        self._bar, self._stop = bar, stop
        self.update(initial)

    def update(self, num_bytes: int) -> None:
        if self._stop.is_set():
            raise InterruptedError("stopped")
        self._bar.update(num_bytes)

    def __enter__(self) -> "_FileBar":
        return self

    def __exit__(self, *_) -> None:
        pass

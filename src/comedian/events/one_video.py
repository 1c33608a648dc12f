"""Formats whose files hold the events of one video: a file, or a folder with one file per video.

Such a file is named after its video: `friday.xml` or `friday.mp4.xml` belongs to `friday.mp4`, and in a folder
`cup/final/2.xml` belongs to the second part of `cup/final`. If the file contains the name of its video, that name is used.
"""

import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from comedian.errors import InputError
from comedian.events.events import EventSet, EventVideo, Problem, Reading, check_name, event_set, refuse
from comedian.events.soccernet_files import part_name, split_part_name
from comedian.files import inside, walk

# duration of an event in a format of intervals: long enough to be visible on a timeline
EVENT_MS = 1000
# result of reading a file: the video, with an empty name if the file has none, and the list of labels
ParseFile = Callable[[Path, Reading], tuple[EventVideo, Sequence[str]]]


def read_one_video_files(path: str | Path, suffix: str, parse: ParseFile, problem: Problem = refuse) -> EventSet:
    """Read a file, or all files with an extension in a folder.

    Args:
        path: the file or folder.
        suffix: the extension of the files in a folder, such as `.xml`.
        parse: reads a file.
        problem: called with a one-line description of each problem; raises by default.

    Raises:
        InputError: a file cannot be read, or the folder contains no such file.
    """
    path, videos = Path(path), []
    labels: dict[str, None] = {}
    unread: set[str] = set()
    files = sorted(files_under(path, suffix)) if path.is_dir() else [path]
    if not files:
        raise InputError(f"`{path}` has no file that ends in `{suffix}`; give another folder")
    for file in files:
        video, listed = parse(file, Reading(file, problem, unread))
        folder = file.relative_to(path).parent.as_posix() if path.is_dir() else "."
        try:
            name = check_name(posixpath.normpath(posixpath.join(folder, video.name or file.stem)))
        except ValueError as error:
            raise InputError(f"`{file}`: {error}") from None
        name, half = split_part_name(name)
        videos.append(replace(video, name=name, half=half))
        labels |= dict.fromkeys(listed)
    return event_set(videos, tuple(labels), unread, path)


def write_one_video_files(
    events: EventSet, path: str | Path, suffix: str, write: Callable[[EventVideo, Path, str], None]
) -> None:
    """Write a file, or a folder with one file per video if `path` does not end in `suffix`.

    Args:
        events: what to write.
        path: the file or folder.
        suffix: the extension of the files.
        write: writes the events of a video to a file; its last argument is the video's name, relative to the file.

    Raises:
        InputError: there are several videos for one file, or a name leads out of the folder.
    """
    path = Path(path)
    if path.suffix.lower() != suffix:
        path.parent.mkdir(parents=True, exist_ok=True)
        # a text that one file cannot store leaves none behind
        with TemporaryDirectory(prefix=f"{path.name}.", dir=path.parent) as scratch:
            for video in events.videos:
                file = inside(scratch, part_name(video) + suffix)
                write(video, file, file.name.removesuffix(suffix))
            for video in events.videos:
                file = inside(path, part_name(video) + suffix)
                file.parent.mkdir(parents=True, exist_ok=True)
                inside(scratch, part_name(video) + suffix).replace(file)
    elif len(events.videos) == 1:
        write(events.videos[0], path, part_name(events.videos[0]))
    else:
        raise InputError(
            f"`{path}` can contain the events of one video, but there are {len(events.videos)} videos or parts; give a "
            f"folder, a name that does not end in `{suffix}`"
        )


def rate_of(video: EventVideo) -> float:
    """Return the frames a second of a video.

    Raises:
        InputError: they are not known.
    """
    if video.fps is None:
        raise InputError(f"the rate of `{video.name}` is not known; say where the videos are: `--videos`")
    return video.fps


def media_name(address: str) -> str:
    """Return the name of a video for the path or URL in a file.

    A relative path that stays in its folder is kept; for others, only the last component is kept.
    """
    path = address.strip().replace("\\", "/")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|file:", path):  # other names may have colons
        path = unquote(urlsplit(path).path)
        path = path.removeprefix("/./") if path.startswith("/./") else PurePosixPath(path).name
    parts = PurePosixPath(path).parts
    return PurePosixPath(path).name if path.startswith("/") or ".." in parts or ":" in path[:2] else "/".join(parts)


def position_in_clip(start_ms: int, end_ms: int | None, lead_ms: int) -> int:
    """Return the time of an event that is given by a clip.

    Args:
        start_ms: of the clip.
        end_ms: of the clip; upper bound of the time of the event.
        lead_ms: from the clip's start to the event.

    Raises:
        ValueError: the clip ends before it begins.
    """
    if end_ms is not None and end_ms < start_ms:
        raise ValueError(f"it ends at {end_ms / 1000:g} s and begins at {start_ms / 1000:g} s; correct the times")
    return start_ms + lead_ms if end_ms is None else min(start_ms + lead_ms, max(end_ms, start_ms))


def note_ends(reading: Reading, clips: Sequence[tuple[int, int | None]]) -> None:
    """Record that ends of clips are not read, unless all of them have the duration that this package writes.

    Args:
        reading: the file being read.
        clips: start and end of each in milliseconds.
    """
    if any(end_ms is not None and end_ms - start_ms not in (0, EVENT_MS) for start_ms, end_ms in clips):
        reading.unread.add("ends of clips")


def files_under(folder: Path, suffix: str) -> list[Path]:
    """Return the files in a folder that have an extension and are not hidden."""
    return [
        found / name
        for found, names in walk(folder)
        for name in names
        if name.lower().endswith(suffix) and not name.startswith(".")
    ]

"""Formats whose files hold the events of one video: a file, or a folder with a file a video.

Such a file is called after its video: `friday.xml` or `friday.mp4.xml` is of `friday.mp4`, and in a folder
`cup/final/2.xml` is of the second part of `cup/final`. Where a file names its video inside, that counts.
"""

import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from comedian.errors import InputError
from comedian.events.events import EventSet, EventVideo, Problem, Reading, check_name, event_set, refuse
from comedian.events.soccernet_files import part_name, split_part_name
from comedian.files import inside, walk

# how long an event is in a format of intervals: long enough to be seen on a timeline
EVENT_MS = 1000
# of a file: the video, whose name is empty where the file has none, and the file's list of labels
ParseFile = Callable[[Path, Reading], tuple[EventVideo, Sequence[str]]]


def read_one_video_files(path: str | Path, suffix: str, parse: ParseFile, problem: Problem = refuse) -> EventSet:
    """Read a file, or all files with an ending under a folder.

    Args:
        path: the file or folder.
        suffix: the ending of the files in a folder, such as `.xml`.
        parse: reads a file.
        problem: told of everything that will not do; raises by default.

    Raises:
        InputError: a file cannot be read, or the folder has no such file.
    """
    path, videos, labels, unread = Path(path), [], {}, set()
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
    """Write a file, or a folder with a file a video, where `path` does not end in `suffix`.

    Args:
        events: what to write.
        path: the file or folder.
        suffix: the ending of the files.
        write: writes the events of a video to a file; its last argument is the video's name, relative to the file.

    Raises:
        InputError: there are several videos for one file, or a name leads out of the folder.
    """
    path = Path(path)
    if path.suffix.lower() != suffix:
        for video in events.videos:
            file = inside(path, part_name(video) + suffix)
            write(video, file, file.name.removesuffix(suffix))
    elif len(events.videos) == 1:
        write(events.videos[0], path, part_name(events.videos[0]))
    else:
        raise InputError(
            f"`{path}` can hold the events of one video, and there are {len(events.videos)} videos or parts; give a "
            f"folder, a name that does not end in `{suffix}`"
        )


def media_name(address: str) -> str:
    """Return the name of a video for what a file says of it: a path, relative or not, or an address (URL).

    A relative path that stays in its folder is kept; of others the last part alone.
    """
    path = address.strip().replace("\\", "/")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path):  # not a drive's single letter
        path = unquote(urlsplit(path).path)
        path = path.removeprefix("/./") if path.startswith("/./") else PurePosixPath(path).name
    parts = PurePosixPath(path).parts
    return PurePosixPath(path).name if path.startswith("/") or ".." in parts or ":" in path[:2] else "/".join(parts)


def position_in_clip(start_ms: int, end_ms: int | None, lead_ms: int) -> int:
    """Return when an event happens that is marked by a clip, which begins some time before it.

    Args:
        start_ms: of the clip.
        end_ms: of the clip; the event is not after it.
        lead_ms: from the clip's start to the event.

    Raises:
        ValueError: the clip ends before it begins.
    """
    if end_ms is not None and end_ms < start_ms:
        raise ValueError(f"it ends at {end_ms / 1000:g} s and begins at {start_ms / 1000:g} s; mend the times")
    return start_ms + lead_ms if end_ms is None else min(start_ms + lead_ms, max(end_ms, start_ms))


def note_ends(reading: Reading, clips: Sequence[tuple[int, int | None]]) -> None:
    """Note that ends of clips are left out, unless they are all those that this package writes.

    Args:
        reading: what is read.
        clips: start and end of each in milliseconds.
    """
    if any(end_ms is not None and end_ms - start_ms not in (0, EVENT_MS) for start_ms, end_ms in clips):
        reading.unread.add("ends of clips")


def files_under(folder: Path, suffix: str) -> list[Path]:
    """Return the files under a folder that have an ending and are not hidden."""
    return [
        found / name
        for found, names in walk(folder)
        for name in names
        if name.lower().endswith(suffix) and not name.startswith(".")
    ]

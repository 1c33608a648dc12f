"""Files of events in all formats: detect the format, read, write, list what a format cannot store.

`csv` and `json` are this package's own (`comedian.events.events`); the formats of other tools have one module each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from comedian.errors import InputError
from comedian.events.cvat import read_cvat, write_cvat
from comedian.events.e2e_spot import read_e2e_spot, write_e2e_spot
from comedian.events.edl import read_edl, write_edl
from comedian.events.elan import read_elan, write_elan
from comedian.events.events import (
    COLUMNS,
    EventSet,
    EventVideo,
    Problem,
    event_set,
    find_video,
    name_video,
    read_csv,
    read_event_json,
    refuse,
    write_csv,
    write_event_json,
)
from comedian.events.frames import START_TIMECODE, frame_of, position_ms_of_frame
from comedian.events.label_studio import read_label_studio, write_label_studio
from comedian.events.longomatch import CATEGORY, read_longomatch
from comedian.events.one_video import files_under
from comedian.events.opensportslab import read_osl, write_osl
from comedian.events.premiere import MARKER_COLUMNS, read_premiere, write_premiere
from comedian.events.soccernet_files import read_soccernet, write_soccernet
from comedian.events.sportscode import read_sportscode, write_sportscode
from comedian.events.tables import read_table
from comedian.events.via import read_via, write_via
from comedian.events.xml_files import read_xml
from comedian.events.youtube import CHAPTER, read_youtube, short_chapters, write_youtube
from comedian.files import existing, read_json
from comedian.soccernet.annotations import NO_TEAM, VISIBLE
from comedian.soccernet.layout import LABEL_FILE_NAMES, find_matches
from comedian.soccernet.splits import SPLIT_NAMES
from comedian.video.decoding import probe

BALL_FILE_NAME = LABEL_FILE_NAMES[1]

# format -> the fields that it can store
HOLDS = {
    "csv": {"half", "split", "team", "visibility", "score", "comment"},
    "json": {"half", "split", "team", "visibility", "score", "comment", "fps", "duration_s", "labels"},
    "soccernet": {"half", "split", "team", "visibility", "labels"},
    "soccernet-ball": {"half", "split", "team", "visibility", "labels"},
    "e2e-spot": {"half", "split", "team", "visibility", "score", "comment", "fps", "duration_s", "labels"},
    "osl": {"half", "split", "team", "visibility", "score", "comment", "fps", "labels"},
    "elan": {"half"},
    "sportscode": {"half", "team", "visibility", "score", "comment", "labels"},
    "via": {"half", "team", "visibility", "score", "comment", "labels"},
    "cvat": {"half", "duration_s", "labels"},
    "label-studio": {"half", "split", "score", "comment", "fps"},
    "edl": {"half", "comment"},
    "premiere": {"half", "comment"},
    "youtube": {"half"},
}
# formats that can be written
FORMATS = tuple(HOLDS)
READ_FORMATS = (*FORMATS, "longomatch")
# formats with one video per file -> file extension; several videos are a folder, where the file names contain the halves
ONE_VIDEO = {
    "elan": ".eaf",
    "sportscode": ".xml",
    "cvat": ".xml",
    "edl": ".edl",
    "premiere": ".csv",
    "youtube": ".txt",
}
# formats without a video name in the file
_WITHOUT_NAME = ("sportscode", "edl", "premiere", "youtube")
# formats that count frames
BY_FRAME = ("e2e-spot", "cvat", "label-studio", "edl", "premiere")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx")
_ROOT_ELEMENTS = {"file": "sportscode", "annotations": "cvat", "ANNOTATION_DOCUMENT": "elan"}
# lines of a text that are read to detect its format
_NUM_LINES, _NUM_BYTES = 50, 1 << 16


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading a file of events.

    Attributes:
        video: name of the video or match, for a file of a single one; None takes the name in the file, or the file name.
        lead_s: seconds from the start of a clip to its event, if events are clips (ELAN, Sportscode, LongoMatch, VIA,
            Label Studio).
        start_timecode: that of the video's first frame, where events have timecodes (EDL, Premiere).
    """

    video: str | None = None
    lead_s: float = 0.0
    start_timecode: str = START_TIMECODE


def detect_format(path: str | Path) -> str:
    """Detect the format of a file or folder from its content.

    Raises:
        InputError: it does not exist, or has none of the formats `READ_FORMATS`.
    """
    path = Path(path)
    if path.is_dir():
        return _format_of_folder(path)
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return "soccernet"
    if suffix in (".eaf", ".edl"):
        return next(name for name, ending in ONE_VIDEO.items() if ending == suffix)
    if suffix == ".xml":
        if name := _ROOT_ELEMENTS.get(read_xml(path).tag):
            return name
    elif suffix in TABLE_SUFFIXES:
        return _format_of_table(path)
    elif name := _format_of_json(read_json(path)):
        return name
    raise InputError(f"`{path}` has an unknown format; supported: {', '.join(READ_FORMATS)}")


def _format_of_folder(path: Path) -> str:
    splits = (path / f"{split}.json" for split in SPLIT_NAMES)
    # `comedian spot` may have written the events of a video `train.mp4`
    if any(isinstance(read_json(file), list) for file in splits if file.is_file()):
        return "e2e-spot"
    if not find_matches(path):
        files = sorted(file for suffix in {*ONE_VIDEO.values()} for file in files_under(path, suffix))
        found = (name for file in files if (name := detect_format(file)) in {*ONE_VIDEO, "longomatch", "csv"})
        return next(found, "soccernet")
    return "soccernet"


def _read_csvs(path: str | Path, problem: Problem) -> EventSet:
    """Read a table, or all `.csv` files in a folder, such as one per video from `comedian spot --csv`."""
    path = Path(path)
    if not path.is_dir():
        return read_csv(path, problem)
    files = sorted(files_under(path, ".csv"))
    if not files:
        raise InputError(f"`{path}` has no file that ends in `.csv`; give another folder")
    found = [read_csv(file, problem, file.relative_to(path).with_suffix("").as_posix()) for file in files]
    unread = {name for events in found for name in events.unread}
    return event_set([video for events in found for video in events.videos], unread=unread, source=path)


def _format_of_table(path: Path) -> str:
    """Distinguish a table from other text with the same extension: chapters, or LongoMatch's categories."""
    try:
        with path.open("rb") as file:
            lines = file.read(_NUM_BYTES).decode("utf-8-sig", errors="replace").splitlines()[:_NUM_LINES]
    except (OSError, ValueError):
        lines = []  # reported with more detail when the file is read
    written = [line.strip() for line in lines if line.strip()]
    if written and CATEGORY.fullmatch(written[0]):
        return "longomatch"
    if path.suffix.lower() == ".txt" and any(map(CHAPTER.fullmatch, written)):
        return "youtube"
    try:
        columns = read_table(path, (*COLUMNS, *MARKER_COLUMNS)).columns(MARKER_COLUMNS)
    except ValueError:
        return "csv"
    return "premiere" if set(MARKER_COLUMNS) <= columns.keys() else "csv"


def _format_of_json(content: object) -> str | None:
    if isinstance(content, list):
        is_tasks = content and all(isinstance(item, dict) and isinstance(item.get("data"), dict) for item in content)
        return "label-studio" if is_tasks else "e2e-spot"
    if not isinstance(content, dict):
        return None
    videos = content.get("videos")
    first = videos[0] if isinstance(videos, list) and videos and isinstance(videos[0], dict) else {}
    if "annotations" in content or "predictions" in content:
        return "soccernet"
    if {"attribute", "metadata", "view"} <= content.keys():
        return "via"
    if "data" in content or any(key.startswith("path") for key in first):
        return "osl"
    return "json" if "videos" in content else None


def read_events(
    path: str | Path,
    name: str | None = None,
    *,
    fps: float | None = None,
    options: ReadOptions | None = None,
    problem: Problem = refuse,
) -> EventSet:
    """Read a file or folder of events.

    Args:
        path: the file or folder.
        name: one of `READ_FORMATS`; None detects it from the content.
        fps: frames per second if events are given in frames; None takes the rate in the file.
        options: options for what the file does not contain.
        problem: called with a one-line description of each invalid entry, which is then skipped; raises by default.

    Raises:
        InputError: it cannot be read, or `options` names a video and the file has several.
    """
    options = options or ReadOptions()
    lead_s, start_timecode = options.lead_s, options.start_timecode
    readers: dict[str, Callable[..., EventSet]] = {
        "csv": _read_csvs,
        "json": read_event_json,
        "soccernet": read_soccernet,
        "soccernet-ball": partial(read_soccernet, file_name=BALL_FILE_NAME),
        "e2e-spot": partial(read_e2e_spot, fps=fps),
        "osl": read_osl,
        "elan": partial(read_elan, lead_s=lead_s),
        "sportscode": partial(read_sportscode, lead_s=lead_s),
        "longomatch": partial(read_longomatch, lead_s=lead_s),
        "via": partial(read_via, lead_s=lead_s),
        "cvat": partial(read_cvat, fps=fps),
        "label-studio": partial(read_label_studio, fps=fps, lead_s=lead_s),
        "edl": partial(read_edl, fps=fps, start_timecode=start_timecode),
        "premiere": partial(read_premiere, fps=fps, start_timecode=start_timecode),
        "youtube": read_youtube,
    }
    events = readers[name or detect_format(path)](path, problem=problem)
    if options.video is None:
        return events
    try:
        return name_video(events, options.video)
    except ValueError as error:
        raise InputError(f"`{path}`: {error}") from None


def write_events(
    events: EventSet,
    path: str | Path,
    name: str,
    videos: str | Path | None = None,
    start_timecode: str = START_TIMECODE,
) -> None:
    """Write events in a format, atomically.

    Args:
        events: what to write.
        path: the file; a folder for SoccerNet's formats, and for E2E-Spot's and those of `ONE_VIDEO` if it does not
            have the file extension of the format.
        name: one of `FORMATS`.
        videos: folder of the videos, to look up file names for OpenSportsLab, ELAN and CVAT.
        start_timecode: that of the videos' first frames, for EDL and Premiere.

    Raises:
        InputError: the format needs a value that is missing, cannot store a text, or a file is in the way.
    """
    writers: dict[str, Callable[[EventSet, str | Path], None]] = {
        "csv": write_csv,
        "json": write_event_json,
        "soccernet": write_soccernet,
        "soccernet-ball": partial(write_soccernet, file_name=BALL_FILE_NAME),
        "e2e-spot": write_e2e_spot,
        "osl": partial(write_osl, videos=videos),
        "elan": partial(write_elan, videos=videos),
        "sportscode": write_sportscode,
        "via": write_via,
        "cvat": partial(write_cvat, videos=videos),
        "label-studio": write_label_studio,
        "edl": partial(write_edl, start_timecode=start_timecode),
        "premiere": partial(write_premiere, start_timecode=start_timecode),
        "youtube": write_youtube,
    }
    writers[name](events, path)


def measure(events: EventSet, videos: str | Path | None = None, fps: float | None = None) -> EventSet:
    """Add frame rates and durations from the video files, and correct the names of videos that are half 1 of themselves.

    `comedian spot` writes such names for single videos.

    Args:
        events: the events to complete.
        videos: the videos' folder; videos that are not in it are unchanged.
        fps: a rate for all videos instead of their own.

    Raises:
        InputError: a video cannot be read.
    """
    measured = []
    for video in events.videos:
        if videos and (file := find_video(videos, video.name, video.half)):
            info = probe(file)
            video = replace(video, fps=info.fps, duration_s=info.duration_s)
            if video.half and not existing(videos, video.name).is_dir():
                video = replace(video, name=file.relative_to(videos).as_posix(), half=None)
        measured.append(replace(video, fps=fps or video.fps))
    return replace(events, videos=tuple(measured))


def lost_fields(events: EventSet, name: str, path: str | Path | None = None) -> list[str]:
    """Return descriptions of the fields of `events` that a format cannot store.

    Args:
        events: the events to write.
        name: one of `FORMATS`.
        path: the output; None is a folder. A file cannot store E2E-Spot's splits, or the halves of `ONE_VIDEO`.
    """
    used = {key for video in events.videos for key in ("half", "split", "fps", "duration_s") if getattr(video, key)}
    for event in (event for video in events.videos for event in video.events):
        told = {
            "team": event.team != NO_TEAM,
            "visibility": event.visibility != VISIBLE,
            "score": event.score is not None,
            "comment": event.comment,
        }
        used |= {key for key, is_told in told.items() if is_told}
    if list(events.labels) != sorted({event.label for video in events.videos for event in video.events}):
        used.add("labels")
    is_one_file = path is not None and name in {*ONE_VIDEO, "e2e-spot"} and is_file_of(name, path)
    lost = sorted(used - (HOLDS[name] - ({"split"} if name == "e2e-spot" and is_one_file else set())))
    if path is not None and name in _WITHOUT_NAME and is_one_file:
        lost += _lost_names(events.videos, Path(path))
    return sorted(events.unread) + lost + list(_lost_times(events, name))


def is_file_of(name: str, path: str | Path) -> bool:
    """Whether events in a format are written to one file of that name, rather than to a folder."""
    if name in ("soccernet", "soccernet-ball"):
        return False
    suffix = ONE_VIDEO.get(name, ".json" if name == "e2e-spot" else None)
    return suffix is None or Path(path).suffix.lower() == suffix


def _lost_names(videos: Sequence[EventVideo], path: Path) -> list[str]:
    """Return what is lost of the name of a video if only the file name stores it."""
    is_kept = all(video.half in (None, 1) and path.stem in (video.name, Path(video.name).stem) for video in videos)
    return [] if is_kept else ["the video's name"]


def _lost_times(events: EventSet, name: str) -> Sequence[str]:
    lost = []
    if name in BY_FRAME and any(map(_is_between_frames, events.videos)):
        lost.append("times between frames")
    if name == "youtube":
        if any(event.position_ms % 1000 for video in events.videos for event in video.events):
            lost.append("parts of a second")
        if any(map(short_chapters, events.videos)):
            lost.append("chapters on YouTube itself, which shows three or more of 10 s or longer")
    if name.startswith("soccernet") and any(video.half and not video.events for video in events.videos):
        lost.append("parts without events")
    return lost


def _is_between_frames(video: EventVideo) -> bool:
    starts = (
        position_ms_of_frame(frame_of(event.position_ms, video.fps), video.fps) for event in video.events if video.fps
    )
    return any(start != event.position_ms for start, event in zip(starts, video.events, strict=False))

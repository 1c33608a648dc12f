"""A folder of videos and a file of events -> a data set in SoccerNet's layout, for every later step.

The simplest file of events is a CSV (see `comedian.events.events` for all columns)::

    video,label,time_s
    friday.mp4,Goal,754.2
    cup/final.mkv,Corner,12:34

`video` is relative to the folder. Each video becomes a match of one half; a folder of parts becomes a match of several::

    OUTPUT/import.json                      where the data set comes from; marks a folder that may be updated
    OUTPUT/cup/final/1_final.mkv            a link to the video
    OUTPUT/cup/final/Labels-v2.json
    OUTPUT/labels.txt
    OUTPUT/splits.json                      written last
"""

import difflib
import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

from comedian.errors import InputError, printable
from comedian.events.events import Event, EventSet, EventVideo, find_video, keep_scores, score_note
from comedian.events.formats import ReadOptions, read_events
from comedian.events.soccernet_files import LABELS_FILE_NAME, by_match, label_file, match_of, to_json
from comedian.files import atomic_path, atomic_write_text, existing
from comedian.soccernet.annotations import Annotation
from comedian.soccernet.layout import LABEL_FILE_NAMES, VIDEO_SUFFIXES, find_halves, find_videos
from comedian.soccernet.splits import SPLITS_FILE_NAME
from comedian.video.decoding import VideoInfo, probe

IMPORT_FILE_NAME = "import.json"
# maximum number of omitted videos that are listed in a message
MAX_NAMED = 10


@dataclass(frozen=True)
class OwnVideos:
    """A data set created by `import_videos`.

    Attributes:
        root: its folder, in SoccerNet's layout.
        labels: in the order of `labels_path`.
        splits: `train`, `validation`, and other splits of the events -> their `video_id`s.
        events: `video_id` -> its events, by time.
        unlisted: omitted videos of the folder, which are not listed in the events.
        predictions: a note on events that are predictions; None without predictions.
    """

    root: Path
    labels: tuple[str, ...]
    splits: Mapping[str, Sequence[str]]
    events: Mapping[str, Sequence[Annotation]]
    unlisted: tuple[str, ...]
    predictions: str | None = None

    @property
    def labels_path(self) -> Path:
        """The file with one label per line."""
        return self.root / LABELS_FILE_NAME

    def count(self, split: str) -> Counter[str]:
        """Events of each label in a split."""
        return Counter(event.label for video_id in self.splits[split] for event in self.events[video_id])

    def table(self) -> list[str]:
        """Return lines to print: events of each label in each split, and the omitted videos."""
        counts = {split: self.count(split) for split in self.splits}
        lines = [f"{'events':<30}" + "".join(f"{split:>12}" for split in counts)]
        lines += [
            f"{label:<30}" + "".join(f"{count[label]:>12}" for count in counts.values()) for label in self.labels
        ]
        if self.unlisted:
            more = f" and {len(self.unlisted) - MAX_NAMED} more" if len(self.unlisted) > MAX_NAMED else ""
            named = printable(", ".join(self.unlisted[:MAX_NAMED]))
            lines.append(f"omitted, because the events do not list them: {named}{more}")
        return [*lines, self.predictions] if self.predictions else lines


@dataclass(frozen=True)
class Part:
    """A video, or one part of a match, with its events and file.

    Attributes:
        video: its events.
        file: the video's file.
        info: the properties from its header.
    """

    video: EventVideo
    file: Path
    info: VideoInfo


def import_videos(
    videos: str | Path,
    events_file: str | Path,
    output: str | Path,
    *,
    validation_share: float = 0.2,
    seed: int = 0,
    name: str | None = None,
    fps: float | None = None,
    validation: Collection[str] = (),
    options: ReadOptions | None = None,
    min_score: float | None = None,
) -> OwnVideos:
    """Arrange videos and their events in SoccerNet's layout; the videos are linked, not copied.

    Everything is read and checked before anything is written. Repeating the call changes nothing. After changes in the
    events it updates labels and splits; few videos change splits when others are added.

    Splits in the events are kept, and matches without a split are for training. If no match is for validation, whole
    matches are moved from training to validation, by hashes of the seed and their names.

    Args:
        videos: the folder of the videos, at any depth.
        events_file: their events, in any format of `comedian.events.formats`.
        output: the data set's folder; new, empty or created by an earlier call.
        validation_share: share of the matches for validation, at least one of them.
        seed: selects these matches.
        name: the format; None detects it from the content.
        fps: frames per second if events are given in frames and the file has no rate.
        validation: matches, by their `video_id`, for validation; no others are then moved there from training.
        options: options for what the file of events does not contain.
        min_score: predictions with a lower score are skipped; None keeps all. Required for a zip for the challenge
            server, which contains all candidates.

    Raises:
        InputError: an event, a video or a folder is invalid.
    """
    videos, events_file, output = Path(videos), Path(events_file), Path(output)
    if not videos.is_dir():
        raise InputError(f"`{videos}` is not a folder; give the folder that holds the videos")
    events = read_events(events_file, name, fps=fps, options=options)
    predictions = score_note(events, min_score)
    if predictions and min_score is None and events_file.suffix.lower() == ".zip":
        raise InputError(
            f"`{events_file}` contains all candidates, most of which are not events; set the minimum score with "
            "`--min-score` of `comedian data import` or `comedian data convert`"
        )
    if min_score is not None:
        events = keep_scores(events, min_score)
    parts = find_parts(videos, events, events_file)
    if not any(video.events for video in events.videos):
        raise InputError(f"`{events_file}` contains no events; write one per line, such as `friday.mp4,Goal,12:34`")
    try:
        matches = by_match(events)
        splits = _choose_splits(matches, validation_share, seed, validation)
    except InputError as error:
        raise InputError(f"`{events_file}`: {error}") from None
    targets = {part.file: output / match_of(part.video.name) / _target_name(part) for part in parts}
    _check_halves(targets.values())
    _claim(output, {"videos": str(videos.absolute()), "events": str(events_file.absolute()), "seed": seed})
    for file, target in targets.items():
        _link(file, target)
    for video_id, of_match in matches.items():
        atomic_write_text(output / video_id / LABEL_FILE_NAMES[0], label_file(video_id, of_match))
    atomic_write_text(output / LABELS_FILE_NAME, "".join(f"{label}\n" for label in events.labels))
    atomic_write_text(output / SPLITS_FILE_NAME, to_json(splits))
    used = {part.file.relative_to(videos).as_posix() for part in parts}
    by_id = {video_id: [_annotation(*of) for of in _events_of(of_match)] for video_id, of_match in matches.items()}
    unlisted = tuple(sorted(_video_names(videos, output) - used))
    return OwnVideos(output, events.labels, splits, by_id, unlisted, predictions)


def _target_name(part: Part) -> str:
    # The parts of a match already have valid names. `comedian spot` writes a single video as half 1 of itself.
    is_alone = part.video.half == 1 and part.file.stem == PurePosixPath(match_of(part.video.name)).name
    return part.file.name if part.video.half and not is_alone else f"1_{part.file.name}"


def _check_halves(targets: Iterable[Path]) -> None:
    """Reject a folder with another video of the same half from an earlier import: later commands would choose one of
    them."""
    for target in targets:
        half = "".join(takewhile(str.isdecimal, target.name))
        for other in target.parent.glob(f"{half}[!0-9]*"):
            if other.name != target.name and other.suffix.lower() in VIDEO_SUFFIXES:
                raise InputError(f"`{other}` is the video of an earlier import, now `{target.name}`; delete it")


def find_parts(videos: Path, events: EventSet, source: str | Path) -> list[Part]:
    """Find the files of videos, and check that each event is within its video and occurs once.

    Args:
        videos: the folder of the videos.
        events: the content of `source`.
        source: the file of events, for messages.

    Raises:
        InputError: a video or an event is invalid.
    """
    parts = []
    names: dict[Path, str] = {}
    for video in events.videos:
        try:
            file = find_file(videos, video)
            if (other := names.setdefault(file.resolve(), video.name)) != video.name:
                raise ValueError(f"`{video.name}` is the video of `{other}` under another name; use one of them")
            part = Part(video, file, probe(file))
        except ValueError as error:
            raise InputError(f"{place_of(source, video.events[:1])}: {error}{name_hint(video, source)}") from None
        for _, event, message in event_problems(part):
            raise InputError(f"{place_of(source, [event])}: {message}")
        parts.append(part)
    return parts


def event_problems(part: Part) -> Iterator[tuple[str, Event, str]]:
    """Yield the problems of the events of a video: the kind of problem, the event, and a message with the remedy."""
    first: dict[tuple[str, int, str], Event] = {}
    for event in part.video.events:
        what = f"{event.label!r} at {event.position_ms / 1000:g} s"
        other = first.setdefault((event.label, event.position_ms, event.team), event)
        if other is not event:
            where = f"is already in {other.source}" if other.source else "occurs twice"
            yield "duplicate event", event, f"{what} in `{part.video.name}` {where}; delete one"
        if event.position_ms >= 1000 * part.info.duration_s:
            long = f"`{part.video.name}`, which is {part.info.duration_s:.1f} s long"
            yield "event outside the video", event, f"{what} is after the end of {long}; correct the time"


def name_hint(video: EventVideo, source: str | Path) -> str:
    """Return the remedy if the video that a file of events is named after does not exist."""
    if video.name != Path(source).stem:
        return ""
    return (
        "; a file without a video name belongs to the video with the same file name: rename the file, or set `--video`"
    )


def place_of(source: str | Path, events: Sequence[Event] = ()) -> str:
    """Return the position of events in their file for a message, or only the file if it is unknown."""
    return ", ".join([f"`{source}`", *(event.source for event in events if event.source)])


def find_file(videos: Path, video: EventVideo) -> Path:
    """Return the file of a video or part.

    Raises:
        ValueError: there is no valid file; the message continues `place:`.
    """
    name = video.name
    file = find_video(videos, name, video.half)
    if file is None and existing(videos, name).is_dir():
        there = ", ".join(map(str, find_halves(existing(videos, name))))
        found = (
            f"its parts are {there}; give the part in `half`"
            if there
            else "it contains no part with a name such as `1.mp4`"
        )
        raise ValueError(f"`{name}` is a folder, and {found}")
    if file is None:
        if video.half not in (None, 1) and find_video(videos, name):
            raise ValueError(f"`{name}` is one video and has no half {video.half}; leave `half` empty")
        near = difflib.get_close_matches(name, _video_names(videos), n=1, cutoff=0.4)
        hint = f"did you mean `{near[0]}`?" if near else "give a name relative to that folder"
        raise ValueError(f"there is no video `{name}` in `{videos}`; {hint}")
    if file.suffix.lower() not in VIDEO_SUFFIXES:
        raise ValueError(
            f"`{name}` does not have the extension of a video ({', '.join(sorted(VIDEO_SUFFIXES))}); convert it"
        )
    if any(part.startswith(".") for part in file.relative_to(videos).parts):
        raise ValueError(f"`{name}` is hidden: its name or that of a folder begins with a dot; rename it")
    return file


def _events_of(parts: Sequence[EventVideo]) -> Iterator[tuple[Event, int]]:
    for part in parts:
        for event in part.events:
            yield event, part.half or 1


def _annotation(event: Event, half: int) -> Annotation:
    return Annotation(event.label, half, event.position_ms, event.team, event.visibility)


def _choose_splits(
    matches: Mapping[str, Sequence[EventVideo]], validation_share: float, seed: int, validation: Collection[str] = ()
) -> dict[str, list[str]]:
    """Choose by hashes of the names, so that adding a video moves few others."""
    if not 0 < validation_share < 1:
        raise InputError(f"`validation_share` is {validation_share}; give a share between 0 and 1")
    splits: dict[str, list[str]] = {"train": []}
    for video_id, parts in sorted(matches.items()):
        kept = "validation" if video_id in validation else None
        splits.setdefault(kept or parts[0].split or "train", []).append(video_id)
    train = splits["train"]
    if len(train) < (1 if "validation" in splits else 2):
        few = "one video" if len(train) == 1 else "no video"
        raise InputError(f"{few} is in training; training and validation need two or more")
    if "validation" not in splits:
        count = min(max(round(validation_share * len(train)), 1), len(train) - 1)
        shuffled = sorted(train, key=lambda video_id: hashlib.sha256(f"{seed}/{video_id}".encode()).digest())
        splits["train"], splits["validation"] = sorted(shuffled[count:]), sorted(shuffled[:count])
    return splits


def _claim(output: Path, origin: Mapping[str, str | int]) -> None:
    """Create `output`, or check that an existing one was created here: other data sets are not overwritten."""
    is_new = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not is_new and not (output / IMPORT_FILE_NAME).is_file():
        raise InputError(f"`{output}` contains other files; give a new folder")
    atomic_write_text(output / IMPORT_FILE_NAME, to_json(origin))


def _link(source: Path, target: Path) -> None:
    """Create a hard link, which stays valid if the video is moved, or a symbolic link if hard links are not possible."""
    source = source.resolve()
    with atomic_path(target) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(source, partial)
        except OSError:
            partial.symlink_to(source)


def _video_names(videos: Path, output: Path | None = None) -> set[str]:
    """Return all videos of the folder, without those of `output`, which may be inside it."""
    return {
        path.relative_to(videos).as_posix()
        for path in find_videos(videos)
        if output is None or not path.resolve().is_relative_to(output.resolve())
    }

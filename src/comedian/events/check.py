"""Checks of a data set: one finding per line, with the file and how to fix it."""

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from comedian.errors import InputError
from comedian.events.events import EventVideo, keep_scores, score_note
from comedian.events.formats import ReadOptions, detect_format, read_events
from comedian.events.own_videos import Part, event_problems, find_file, name_hint, place_of
from comedian.events.soccernet_files import LABELS_FILE_NAME, events_of_half
from comedian.files import comparable, read_json
from comedian.soccernet.annotations import Annotation, half_and_clock_ms, read_annotations
from comedian.soccernet.labels import read_label_list
from comedian.soccernet.layout import LABEL_FILE_NAMES, find_halves, find_label_file, find_matches, find_videos
from comedian.soccernet.splits import SPLITS_FILE_NAME
from comedian.video.decoding import iter_frames, probe

# A label's share of a split's events may differ from that of training by this factor, ...
MAX_SHARE_RATIO = 3.0
# ... and is compared only if at least this many events occur or are expected.
MIN_EVENTS = 10
# Tolerance between the duration in a file of events and that of the video.
LENGTH_TOLERANCE_S, LENGTH_TOLERANCE_SHARE = 1.0, 0.01
# `gameTime` has whole seconds, and some annotators round them.
POSITION_TOLERANCE_MS = 2000
# the shortest part of a match after which `gameTime` may continue counting
LEAST_HALF_MS = 5 * 60 * 1000
# frame rates in which a position may be given by mistake
FRAME_RATES = (25, 30, 50, 60, 24, 29.97, 59.94, 23.976, 2, 5, 10, 12, 12.5, 15, 20, 100, 120, 240)
# Splits whose labels are not published.
UNLABELLED_SPLITS = ("challenge",)


@dataclass(frozen=True)
class Finding:
    """A problem, or a possible problem.

    Attributes:
        kind: a few words, the same for all findings of a kind.
        message: one line: the file, what was found, how to fix it.
    """

    kind: str
    message: str


@dataclass(frozen=True)
class Checked:
    """Result of a check.

    Attributes:
        findings: grouped by kind, in the order of their discovery.
        num_videos: videos that can be read.
        num_events: their events.
        notes: what was omitted as requested.
    """

    findings: tuple[Finding, ...]
    num_videos: int
    num_events: int
    notes: tuple[str, ...] = ()


class _Check:
    """Collects findings, and the parts whose video can be read, each with the file of its events."""

    def __init__(self, progress: bool):
        self.progress = progress
        self.findings: list[Finding] = []
        self.parts: list[tuple[Part, Path]] = []
        self.label_files: list[Path] = []
        self.notes: list[str] = []

    def tell(self, kind: str, message: object) -> None:
        self.findings.append(Finding(kind, str(InputError(str(message)))))

    def bar(self, items: Sequence) -> Iterable:
        return tqdm(items, unit="video", disable=not self.progress)

    def add(self, video: EventVideo, file: Path, source: Path) -> Part | None:
        """Add a part if its header and a picture can be read, and check its events."""
        try:
            if not file.stat().st_size:
                raise InputError(f"`{file}` is empty, 0 bytes; copy it again")
            part = Part(video, file, probe(file))
            next(iter_frames(file, fps=1, size=32, threads=1, on_damage=lambda message: None))
        except InputError as error:
            self.tell("unreadable video", error)
            return None
        self.parts.append((part, source))
        for kind, event, message in event_problems(part):
            self.tell(kind, f"{place_of(source, [event])}: {message}")
        return part

    def done(self, labels: Sequence[str] | None, label_source: str | Path | None) -> Checked:
        """Check all parts together."""
        _check_names(self)
        _check_rates(self)
        _check_labels(self, labels, label_source)
        _check_splits(self, labels)
        _check_copies(self)
        order = {kind: index for index, kind in enumerate(dict.fromkeys(finding.kind for finding in self.findings))}
        found = sorted(self.findings, key=lambda finding: order[finding.kind])
        num_events = sum(len(part.video.events) for part, _ in self.parts)
        return Checked(tuple(found), len(self.parts), num_events, tuple(self.notes))


def check_layout(
    root: str | Path, *, labels: str | Path | None = None, splits: str = "auto", progress: bool = True
) -> Checked:
    """Check a data set in SoccerNet's layout.

    Args:
        root: its folder.
        labels: file of the allowed labels; `labels.txt` in `root` by default, if it exists.
        splits: where the splits come from, see `SoccerNetConfig.splits`.
        progress: show a bar.

    Raises:
        InputError: `root` is not a folder, or `labels` cannot be read.
    """
    from comedian.soccernet.splits import find_splits

    root, check = Path(root), _Check(progress)
    video_ids = find_matches(root)
    if labels is None and (root / LABELS_FILE_NAME).is_file():
        labels = root / LABELS_FILE_NAME
    if not video_ids:
        check.tell(
            "no match",
            f"`{root}` contains no folder with a label file or a video such as `1_224p.mkv`; give another folder",
        )
    split_of: dict[str, str] = {}
    try:
        found = find_splits(root, splits)
        if splits == "auto" and set(found) == {"train"} and not (root / SPLITS_FILE_NAME).is_file():
            if video_ids:
                example = '{"train": ["cup/one"], "validation": ["cup/two"]}'
                check.tell("no split", f"`{root}` has no splits; write `{SPLITS_FILE_NAME}`, such as `{example}`")
        else:
            split_of = {video_id: split for split, listed in found.items() for video_id in listed}
            for video_id in (video_id for video_id in video_ids if video_id not in split_of):
                check.tell("in no split", f"`{root / video_id}` is in no split and is omitted; add it to one")
    except InputError as error:
        check.tell("splits", error)
    for video_id in check.bar(video_ids):
        _check_match(check, root, video_id, split_of.get(video_id))
    return check.done(read_label_list(labels) if labels else None, labels)


def _check_match(check: _Check, root: Path, video_id: str, split: str | None) -> None:
    folder = root / video_id
    source, annotations = find_label_file(folder), []
    try:
        videos = find_halves(folder)
    except InputError as error:
        check.tell("several videos", error)
        return
    if source is None:
        if split not in UNLABELLED_SPLITS:
            check.tell(
                "missing labels", f"`{folder}` has no label file; write a `{LABEL_FILE_NAMES[0]}` or remove the folder"
            )
    else:
        check.label_files.append(source)
        try:
            annotations = read_annotations(source)
            _check_halves(check, source, annotations, videos)
            _check_positions(check, source)
        except InputError as error:
            check.tell("unreadable labels", error)
    for half, file in videos.items():
        video = EventVideo(video_id, half, split, events=events_of_half(annotations, half))
        check.add(video, file, source or folder)


def _check_names(check: _Check) -> None:
    """Report the label files whose name differs from the most common one."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for file in check.label_files:
        by_name[file.name].append(file)
    usual = max(by_name, key=lambda name: len(by_name[name]), default="")
    for name, files in by_name.items():
        if name != usual:
            check.tell(
                "label files of different names",
                f"`{files[0]}`{_and_more(files)}, where {len(by_name[usual])} matches have {usual}: they may contain "
                "other labels, and a task that reads one name ignores the others; rename them if they contain the "
                "same labels",
            )


def _check_positions(check: _Check, source: Path) -> None:
    """Find annotations whose `position` contradicts `gameTime`, with the likely reason."""
    found = []
    for index, item in enumerate(
        read_json(source).get("annotations", ())
    ):  # predictions have no second time to compare
        if "position" in item:
            half, clock_ms = half_and_clock_ms(item)
            position = float(item["position"])
            if abs(position - clock_ms) > POSITION_TOLERANCE_MS:
                found.append((index, item, half, position, clock_ms))
    if not found:
        return
    index, item, _, position, _ = found[0]
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    check.tell(
        "contradicting times",
        f"`{source}`, annotations[{index}]{more}: `position` is {item['position']} ms, `gameTime` {item['gameTime']!r}; "
        f"{_reason([(half, position, clock_ms) for _, _, half, position, clock_ms in found])}",
    )


def _reason(contradictions: Sequence[tuple[int, float, int]]) -> str:
    """Return the likely reason why positions contradict the clock, for `(half, position, clock_ms)`, and the remedy."""
    if all(abs(1000 * position - clock_ms) <= POSITION_TOLERANCE_MS for _, position, clock_ms in contradictions):
        return "the positions look like seconds; write milliseconds"
    errors_ms = {
        rate: max(abs(1000 * position / rate - clock_ms) for _, position, clock_ms in contradictions)
        for rate in FRAME_RATES
    }
    rate = min(FRAME_RATES, key=lambda rate: errors_ms[rate])
    if errors_ms[rate] <= POSITION_TOLERANCE_MS:
        return f"the positions look like frames at {rate:g} a second; write milliseconds"
    late_ms = defaultdict(list)
    for half, position, clock_ms in contradictions:
        late_ms[half].append(abs(position - clock_ms))
    if 1 not in late_ms and all(
        min(found) > LEAST_HALF_MS and max(found) - min(found) <= 2 * POSITION_TOLERANCE_MS
        for found in late_ms.values()
    ):
        return "one of them looks like the clock of the whole match; write the time in the video of the half"
    return "`position` is used; correct the wrong one"


def _check_halves(check: _Check, source: Path, annotations: Sequence[Annotation], videos: Mapping[int, Path]) -> None:
    """Find halves without a video, and videos without an event."""
    counts = Counter(annotation.half for annotation in annotations)
    for half in range(1, max([*counts, *videos], default=1) + 1):
        if half not in videos:
            events = f"{counts[half]} events of half {half}" if counts[half] else f"no half {half}"
            check.tell(
                "missing video", f"`{source}`: {events}, and no video such as `{half}_224p.mkv` beside it; add it"
            )
        elif not counts[half]:
            check.tell("no event", f"`{source}` has no event of half {half}; label it, unless there are none")


def check_events(
    videos: str | Path,
    events_file: str | Path,
    *,
    labels: str | Path | None = None,
    name: str | None = None,
    fps: float | None = None,
    options: ReadOptions | None = None,
    min_score: float | None = None,
    progress: bool = True,
) -> Checked:
    """Check a folder of videos and a file of their events.

    Args:
        videos: the folder of the videos.
        events_file: their events, in any format of `comedian.events.formats`.
        labels: file of the allowed labels; the list in the file of events by default, if it has one.
        name: the format; None detects it from the content.
        fps: frames per second if events are given in frames and the file has no rate.
        options: options for what the file of events does not contain.
        min_score: predictions with a lower score are skipped; None keeps all of them and adds a finding.
        progress: show a bar.

    Raises:
        InputError: `videos` is not a folder, or the file of events cannot be read.
    """
    videos, source, check = Path(videos), Path(events_file), _Check(progress)
    if not videos.is_dir():
        raise InputError(f"`{videos}` is not a folder; give the folder that holds the videos")
    events = read_events(
        source, name, fps=fps, options=options, problem=lambda message: check.tell("unreadable event", message)
    )
    is_zip = source.suffix.lower() == ".zip"
    if (
        (name or detect_format(source)).startswith("soccernet") and not is_zip and not check.findings
    ):  # all can be read
        folders = [] if source.is_file() else [source / video_id for video_id in find_matches(source)]
        check.label_files = [source] if source.is_file() else list(filter(None, map(find_label_file, folders)))
        for label_file in check.label_files:
            _check_positions(check, label_file)
    if predictions := score_note(events, min_score):
        if min_score is None:
            check.tell("predictions as labels", f"`{source}`: {predictions}")
        else:
            check.notes.append(predictions)
            events = keep_scores(events, min_score)
    if not any(video.events for video in events.videos):
        check.tell("no event", f"`{source}` contains no events; write one per line, such as `friday.mp4,Goal,12:34`")
    named = set()
    for video in check.bar(events.videos):
        try:
            file = find_file(videos, video)
        except ValueError as error:
            check.tell("missing video", f"{place_of(source, video.events[:1])}: {error}{name_hint(video, source)}")
            continue
        named.add(file)
        if part := check.add(video, file, source):
            _check_length(check, part, source)
        if not video.events:
            check.tell("no event", f"`{source}` has no event of `{video.name}`; label it, unless there are none")
    for file in find_videos(videos):
        if file not in named:
            check.tell("video without labels", f"`{file}` is not listed in `{source}` and is omitted; add it")
    if labels is None:
        return check.done(events.labels, source)
    return check.done(read_label_list(labels), labels)


def _check_length(check: _Check, part: Part, source: Path) -> None:
    """Compare the frame rate and duration in a file of events with those of the video."""
    told, info = part.video, part.info
    if told.duration_s is not None:
        tolerance_s = max(LENGTH_TOLERANCE_S, LENGTH_TOLERANCE_SHARE * info.duration_s)
        if abs(told.duration_s - info.duration_s) > tolerance_s:
            check.tell(
                "wrong rate",
                f"`{source}` states a duration of {told.duration_s:.1f} s for `{told.name}`, which is "
                f"{info.duration_s:.1f} s long: the frame rate of the events is wrong, or the video is truncated; "
                "correct `fps` or the video",
            )
    elif told.fps is not None and abs(told.fps - info.fps) > LENGTH_TOLERANCE_SHARE * info.fps:
        check.tell(
            "wrong rate",
            f"`{source}` states {told.fps:g} fps for `{told.name}`, which has {info.fps:g}; correct `fps`",
        )


def _check_rates(check: _Check) -> None:
    """Report the videos whose frame rate differs from the most common one."""
    by_rate: dict[float, list[Path]] = defaultdict(list)
    for part, _ in check.parts:
        by_rate[round(part.info.fps, 2)].append(part.file)
    usual = max(by_rate, key=lambda rate: len(by_rate[rate]), default=math.nan)
    for rate, files in sorted(by_rate.items()):
        if rate != usual:
            check.tell(
                "differing rate",
                f"`{files[0]}`{_and_more(files)}: {rate:g} fps, where {len(by_rate[usual])} videos have {usual:g}; "
                "times are in seconds, so this is no problem unless a conversion changed the speed",
            )


def _check_labels(check: _Check, labels: Sequence[str] | None, source: str | Path | None) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for part, file in check.parts:
        for event in part.video.events:
            places[event.label].append(place_of(file, [event]))
    for label, found in sorted(places.items()) if labels else ():
        if labels and label not in labels:
            check.tell(
                "unknown label",
                f"{found[0]}{_and_more(found)}: {label!r} is not in `{source}`; add it there, or its events are omitted",
            )
    for label in labels or ():
        if label not in places:
            check.tell("label without events", f"`{source}`: no event has the label {label!r}; delete it")
    spellings: dict[str, str] = {}
    for label in sorted(places, key=lambda label: -len(places[label])):
        usual = spellings.setdefault(re.sub(r"[\W_]", "", comparable(label)).casefold() or label, label)
        if usual != label:
            found = places[label]
            check.tell(
                "label in two spellings",
                f"{found[0]}{_and_more(found)}: {label!r}, elsewhere {usual!r}; use one spelling",
            )


def _check_splits(check: _Check, labels: Sequence[str] | None) -> None:
    """Compare the labels of validation and test with those of training."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for part, _ in check.parts:
        if part.video.split:
            events = (event.label for event in part.video.events if labels is None or event.label in labels)
            counts[part.video.split].update(events)
    if not counts:
        if len({part.video.name for part, _ in check.parts}) == 1:
            check.tell("no split", "there is only one video; training and validation need two or more")
        return
    train = counts["train"]
    for split in ("train", "validation"):
        if not counts[split]:
            check.tell("unbalanced splits", f"no event is in the split {split}; put matches with events in it")
    if not train:
        return
    for split, count in counts.items():
        if split == "train" or not count:
            continue
        for label in sorted(count.keys() | train.keys()):
            here, there = count[label], train[label]
            share, share_there = here / count.total(), there / train.total()
            if not there:
                check.tell(
                    "unbalanced splits", f"{label!r}: {here} events in {split}, none in train; it cannot be learned"
                )
            elif not here and split == "validation":
                check.tell(
                    "unbalanced splits",
                    f"{label!r}: {there} events in train, none in validation to choose a threshold with",
                )
            elif max(here, share_there * count.total()) >= MIN_EVENTS and not (
                1 / MAX_SHARE_RATIO <= share / share_there <= MAX_SHARE_RATIO
            ):
                check.tell(
                    "unbalanced splits",
                    f"{label!r} is {100 * share:.1f} % of the events of {split} and {100 * share_there:.1f} % of those of "
                    "train; move matches from one to the other",
                )


def _check_copies(check: _Check) -> None:
    """Find videos with the same content; across splits, this invalidates the evaluation."""
    by_size: dict[int, list[Part]] = defaultdict(list)
    for part, _ in check.parts:
        by_size[part.file.stat().st_size].append(part)
    for parts in by_size.values():
        first: dict[str, Part] = {}
        for part in parts if len(parts) > 1 else ():
            with part.file.open("rb") as file:
                other = first.setdefault(hashlib.file_digest(file, "sha256").hexdigest(), part)
            if other is part:
                continue
            splits = f" in the splits {other.video.split} and {part.video.split}"
            where = splits if other.video.split != part.video.split else ""
            kind = "overlap between splits" if where else "same video twice"
            check.tell(kind, f"`{other.file}` and `{part.file}` are the same video{where}; keep one")


def _and_more(items: Sequence) -> str:
    return f" and {len(items) - 1} more" if len(items) > 1 else ""

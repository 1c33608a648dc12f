"""Events in CVAT's XML 1.1 (https://docs.cvat.ai/docs/manual/advanced/xml_format), of one task or job that is a video.

An event is a tag or a shape of a frame ("CVAT for images": `<image id="93"><tag label="Goal"/></image>`), or a track, of
which the first frame counts that is not outside. Frames count from 0, and the file has no rate.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from comedian.errors import InputError
from comedian.events.events import (
    EVENT_FIELDS,
    Event,
    EventSet,
    EventVideo,
    Problem,
    Reading,
    find_video,
    parse_event,
    refuse,
)
from comedian.events.frames import frame_of, parse_frame, position_ms_of_frame
from comedian.events.one_video import media_name, read_one_video_files, write_one_video_files
from comedian.events.xml_files import Element, SubElement, child_text, read_xml, write_xml

SUFFIX = ".xml"


def read_cvat(path: str | Path, fps: float | None = None, problem: Problem = refuse) -> EventSet:
    """Read CVAT's XML, a file or a folder with a file a video.

    Args:
        path: the file or folder.
        fps: the video's frames a second, which the file does not tell.
        problem: told of everything that will not do; raises by default.

    Raises:
        InputError: a file cannot be read or has another form, or `fps` is None.
    """
    return read_one_video_files(path, SUFFIX, partial(_parse_file, fps=fps), problem)


def _parse_file(path: Path, reading: Reading, fps: float | None) -> tuple[EventVideo, Sequence[str]]:
    root = read_xml(path)
    if root.tag != "annotations":
        raise InputError(f"`{path}` is not in CVAT's format; it begins with `<{root.tag}>`, not `<annotations>`")
    if root.find("meta/project") is not None:
        raise InputError(f"`{path}` is of a project; export each task, which is one video")
    if fps is None:
        raise InputError(f"`{path}` counts frames and tells no rate; say `--fps`")
    task = next(
        (found for name in ("task", "job") if (found := root.find(f"meta/{name}")) is not None), Element("task")
    )
    # newer versions have it outside the task
    source = child_text(task, "source") or (root.findtext("meta/source") or "").strip()

    def event(found: tuple[str | None, Element, str | None], place: str) -> Event:
        label, element, number = found
        frame = parse_frame(int(number) if (number or "").isdecimal() else number)
        fields = {"label": label} | _attributes(element, reading)
        return parse_event(fields, position_ms_of_frame(frame, fps), place)

    tagged = [
        (f"image {image.get('id')}", (element.get("label"), element, image.get("id")))
        for image in root.findall("image")
        for element in image
    ]
    tracked = [
        (f"track {track.get('id')}", (track.get("label"), shape, shape.get("frame")))
        for track in root.findall("track")
        if (shape := _first_shape(track, reading)) is not None
    ]
    events = reading.collect([*tagged, *tracked], event)
    labels = [child_text(label, "name") for label in task.findall("labels/label")]
    size = child_text(task, "size")
    duration_s = int(size) / fps if size.isdecimal() and 0 < int(size) < 1e9 else None
    return EventVideo(media_name(source), None, None, fps, duration_s, tuple(events)), list(filter(None, labels))


def _first_shape(track: Element, reading: Reading) -> Element | None:
    """Return the shape with which a track is first seen; None for one that never is."""
    shown = [shape for shape in track if shape.get("outside") != "1"]
    if len(shown) > 1:
        reading.unread.add("tracks after their first frame")
    return min(shown, key=_frame_number, default=None)


def _frame_number(shape: Element) -> int:
    number = shape.get("frame") or ""
    return int(number) if number.isdecimal() else -1  # told when it is read


def _attributes(element: Element, reading: Reading) -> dict[str, str]:
    """Return the fields that the attributes of a tag or shape tell."""
    fields = {}
    for attribute in element.findall("attribute"):
        name, text = attribute.get("name", ""), (attribute.text or "").strip()
        if name in EVENT_FIELDS[1:]:
            fields[name] = text
        elif text:
            reading.unread.add(f"attribute {name!r}")
    return fields


def write_cvat(events: EventSet, path: str | Path, videos: str | Path | None = None) -> None:
    """Write CVAT's XML "for images" with a tag an event, which CVAT reads for tasks that are videos, too.

    The labels must be those of the task. Several videos are a folder with a file each.

    Args:
        events: what to write.
        path: the file or folder.
        videos: the videos' folder, where the names of their files are looked up.

    Raises:
        InputError: a rate is not known, there are several videos for one file, or a text has a character that XML cannot
            hold.
    """
    for video in events.videos:
        if video.fps is None:
            raise InputError(f"the rate of `{video.name}` is not known; say where the videos are: `--videos`")
    write_one_video_files(events, path, SUFFIX, partial(_write_file, labels=events.labels, videos=videos))


def _write_file(video: EventVideo, path: Path, name: str, labels: Sequence[str], videos: str | Path | None) -> None:
    file = videos and find_video(videos, video.name, video.half)
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    task = SubElement(SubElement(root, "meta"), "task")
    SubElement(task, "name").text = name
    if video.duration_s is not None:
        SubElement(task, "size").text = str(round(video.duration_s * video.fps))
    SubElement(task, "mode").text = "annotation"
    listed = SubElement(task, "labels")
    for label in labels:
        SubElement(SubElement(listed, "label"), "name").text = label
    SubElement(task, "source").text = Path(name).with_name(file.name).as_posix() if file else name
    images: dict[int, Element] = {}
    for event in video.events:
        frame = frame_of(event.position_ms, video.fps)
        if frame not in images:
            images[frame] = SubElement(root, "image", id=str(frame), name=f"frame_{frame:06d}")
        SubElement(images[frame], "tag", label=event.label, source="manual")
    write_xml(path, root)

"""Events in ELAN's annotation files, `.eaf` (https://archive.mpi.nl/tla/elan; its format EAF).

An annotation of a tier lies between two time slots in milliseconds. Its value is the event's label, or the tier's name where
the value is empty. Annotations of tiers that hang on others (`REF_ANNOTATION`) are not read.
"""

import mimetypes
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from comedian.errors import InputError
from comedian.events.events import (
    Event,
    EventSet,
    EventVideo,
    Problem,
    Reading,
    find_video,
    parse_event,
    parse_time_ms,
    refuse,
)
from comedian.events.one_video import (
    EVENT_MS,
    media_name,
    note_ends,
    position_in_clip,
    read_one_video_files,
    write_one_video_files,
)
from comedian.events.xml_files import Element, SubElement, read_xml, write_xml

SUFFIX = ".eaf"
_ROOT = "ANNOTATION_DOCUMENT"
_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
_TIER_TYPE = "event"


def read_elan(path: str | Path, lead_s: float = 0.0, problem: Problem = refuse) -> EventSet:
    """Read an `.eaf`, or a folder with one a video.

    Args:
        path: the file or folder.
        lead_s: seconds from an annotation's start to its event.
        problem: told of everything that will not do; raises by default.

    Raises:
        InputError: a file cannot be read or has another form.
    """
    return read_one_video_files(path, SUFFIX, partial(_parse_file, lead_ms=round(1000 * lead_s)), problem)


def _parse_file(path: Path, reading: Reading, lead_ms: int) -> tuple[EventVideo, Sequence[str]]:
    root = read_xml(path)
    if root.tag != _ROOT:
        raise InputError(f"`{path}` is not in ELAN's format; it begins with `<{root.tag}>`, not `<{_ROOT}>`")
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.findall("TIME_ORDER/TIME_SLOT")}
    clips: list[tuple[int, int | None]] = []

    def slot_ms(element: Element, key: str) -> int:
        name = element.get(key)
        if not (value := slots.get(name) or "").isdecimal():
            raise ValueError(f"the time slot {name!r} has no time; align the annotation in ELAN")
        return parse_time_ms(f"{value[:-3] or 0}.{value[-3:]:0>3}", name or key)

    def annotation(found: tuple[Element, Element], place: str) -> Event:
        tier, element = found
        clips.append((slot_ms(element, "TIME_SLOT_REF1"), slot_ms(element, "TIME_SLOT_REF2")))
        value = (element.findtext("ANNOTATION_VALUE") or "").strip()
        name = tier.get("TIER_ID") or ""
        if value and value != name and not name.startswith(f"{value}#"):
            reading.unread.add("names of tiers")
        fields = {"label": value or name}
        return parse_event(fields, position_in_clip(*clips[-1], lead_ms), place)

    aligned = [
        (f"annotation {element.get('ANNOTATION_ID')!r}", (tier, element))
        for tier in root.findall("TIER")
        for element in tier.findall("ANNOTATION/ALIGNABLE_ANNOTATION")
    ]
    if root.find("TIER/ANNOTATION/REF_ANNOTATION") is not None:
        reading.unread.add("annotations of dependent tiers")
    events = reading.collect(aligned, annotation)
    note_ends(reading, clips)
    return EventVideo(_media_of(root), events=tuple(events)), ()


def _media_of(root: Element) -> str:
    media = root.find("HEADER/MEDIA_DESCRIPTOR")
    return "" if media is None else media_name(media.get("RELATIVE_MEDIA_URL") or media.get("MEDIA_URL") or "")


def write_elan(events: EventSet, path: str | Path, videos: str | Path | None = None) -> None:
    """Write `.eaf`, a tier a label and an annotation of a second an event; several videos are a folder with a file each.

    Annotations of a tier may not overlap: an event soon after another of its label ends the other, and of events at one time
    the second lies in a tier of its own, `Goal#2`.

    Args:
        events: what to write.
        path: the file or folder.
        videos: the videos' folder, where the names of their files are looked up.

    Raises:
        InputError: there are several videos for one file, or a text has a character that XML cannot hold.
    """
    write_one_video_files(events, path, SUFFIX, partial(_write_file, videos=videos))


def _write_file(video: EventVideo, path: Path, name: str, videos: str | Path | None) -> None:
    root = Element(
        _ROOT,
        {
            "AUTHOR": "comedian",
            "DATE": "1970-01-01T00:00:00+00:00",  # equal events are equal files
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:noNamespaceSchemaLocation": _SCHEMA,
        },
    )
    header = SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    file = videos and find_video(videos, video.name, video.half)
    name = Path(name).with_name(file.name).as_posix() if file else name
    kind = mimetypes.guess_type(name)[0] or "video/mp4"
    SubElement(
        header, "MEDIA_DESCRIPTOR", MEDIA_URL=f"file:///./{name}", MIME_TYPE=kind, RELATIVE_MEDIA_URL=f"./{name}"
    )
    order, slots, count = SubElement(root, "TIME_ORDER"), [], 0
    for tier_name, tier_events in _tiers(video.events).items():
        tier = SubElement(root, "TIER", LINGUISTIC_TYPE_REF=_TIER_TYPE, TIER_ID=tier_name)
        following = [event.position_ms for event in tier_events[1:]]
        for event, next_ms in zip(tier_events, [*following, None]):
            count += 1
            end_ms = event.position_ms + EVENT_MS
            slots += [(event.position_ms, f"ts{2 * count - 1}"), (min(end_ms, next_ms or end_ms), f"ts{2 * count}")]
            annotation = SubElement(
                SubElement(tier, "ANNOTATION"),
                "ALIGNABLE_ANNOTATION",
                ANNOTATION_ID=f"a{count}",
                TIME_SLOT_REF1=f"ts{2 * count - 1}",
                TIME_SLOT_REF2=f"ts{2 * count}",
            )
            SubElement(annotation, "ANNOTATION_VALUE").text = event.label
    for time_ms, slot in sorted(slots):
        SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slot, TIME_VALUE=str(time_ms))
    SubElement(
        root, "LINGUISTIC_TYPE", GRAPHIC_REFERENCES="false", LINGUISTIC_TYPE_ID=_TIER_TYPE, TIME_ALIGNABLE="true"
    )
    write_xml(path, root)


def _tiers(events: Sequence[Event]) -> dict[str, list[Event]]:
    """Return the name of each tier -> its events by time, no two at one time."""
    tiers: dict[str, list[Event]] = {}
    for event in events:
        number, name = 1, event.label
        while name in tiers and tiers[name][-1].position_ms == event.position_ms:
            number += 1
            name = f"{event.label}#{number}"
        tiers.setdefault(name, []).append(event)
    return tiers

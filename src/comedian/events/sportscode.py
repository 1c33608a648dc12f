"""Events in the XML of Hudl Sportscode, which Nacsport, LongoMatch, Wyscout and others write and read, too.

An instance is a clip with a code; its labels have a group each::

    <file>
      <ALL_INSTANCES>
        <instance>
          <ID>1</ID> <start>754.2</start> <end>764.2</end> <code>Goal</code>
          <label> <group>Team</group> <text>home</text> </label>
        </instance>
      </ALL_INSTANCES>
      <ROWS> <row> <code>Goal</code> <R>65535</R> <G>0</G> <B>0</B> </row> </ROWS>
    </file>

The code is the event's label. Team, visibility, score and comment are labels of the groups `Team`, `Visibility`, `Score` and
`Comment`; `free_text` is a comment, too. Clips begin before the event by the lead time of the code's button.
"""

import colorsys
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
    fields_of,
    parse_event,
    parse_time_ms,
    refuse,
)
from comedian.events.one_video import (
    EVENT_MS,
    note_ends,
    position_in_clip,
    read_one_video_files,
    write_one_video_files,
)
from comedian.events.xml_files import Element, SubElement, child_text, read_xml, write_xml

SUFFIX = ".xml"
_KNOWN = ("ID", "start", "end", "code", "label", "free_text")
_GROUPS = {name: name for name in EVENT_FIELDS[1:]}


def read_sportscode(path: str | Path, lead_s: float = 0.0, problem: Problem = refuse) -> EventSet:
    """Read Sportscode's XML, a file or a folder with a file a video.

    Args:
        path: the file or folder.
        lead_s: seconds from a clip's start to its event.
        problem: told of everything that will not do; raises by default.

    Raises:
        InputError: a file cannot be read or has another form.
    """
    return read_one_video_files(path, SUFFIX, partial(_parse_file, lead_ms=round(1000 * lead_s)), problem)


def _parse_file(path: Path, reading: Reading, lead_ms: int) -> tuple[EventVideo, Sequence[str]]:
    root = read_xml(path)
    instances = root.find("ALL_INSTANCES")
    if root.tag != "file" or instances is None:
        raise InputError(f"`{path}` is not in Sportscode's format; it has no `<file><ALL_INSTANCES>`")
    clips: list[tuple[int, int | None]] = []

    def instance(element: Element, place: str) -> Event:
        start_ms = parse_time_ms(child_text(element, "start"), "start")
        end = child_text(element, "end")
        clips.append((start_ms, parse_time_ms(end, "end") if end else None))
        fields = {"label": child_text(element, "code")} | _labels(element, reading)
        reading.unread.update(child.tag for child in element if child.tag not in _KNOWN)
        return parse_event(fields, position_in_clip(*clips[-1], lead_ms), place)

    found = ((f"instance {number}", element) for number, element in enumerate(instances.findall("instance"), 1))
    events = reading.collect(found, instance)
    note_ends(reading, clips)
    rows = (child_text(row, "code") for row in root.findall("ROWS/row"))
    return EventVideo("", events=tuple(events)), [code for code in dict.fromkeys(rows) if code]


def _labels(element: Element, reading: Reading) -> dict[str, str]:
    """Return the fields of an instance that its labels and its free text tell."""
    fields = {}
    for label in element.findall("label"):
        group, text = child_text(label, "group"), child_text(label, "text") or (label.text or "").strip()
        field = _GROUPS.get(group.lower())
        if field and field not in fields:
            fields[field] = text
        elif text:
            reading.unread.add(f"labels of the group {group!r}" if group else "labels without a group")
    if text := child_text(element, "free_text"):
        if fields.setdefault("comment", text) != text:
            reading.unread.add("free_text")
    return fields


def write_sportscode(events: EventSet, path: str | Path) -> None:
    """Write Sportscode's XML, a clip of a second an event; several videos are a folder with a file each.

    Raises:
        InputError: there are several videos for one file, or a text has a character that XML cannot hold.
    """
    write_one_video_files(events, path, SUFFIX, partial(_write_file, labels=events.labels))


def _write_file(video: EventVideo, path: Path, name: str, labels: Sequence[str]) -> None:
    root = Element("file")
    instances = SubElement(root, "ALL_INSTANCES")
    for number, event in enumerate(video.events, 1):
        instance = SubElement(instances, "instance")
        times = {"start": event.position_ms / 1000, "end": (event.position_ms + EVENT_MS) / 1000}
        for tag, value in {"ID": number, **times, "code": event.label}.items():
            SubElement(instance, tag).text = str(value)
        for field, value in fields_of(event).items():
            if field != "label":
                label = SubElement(instance, "label")
                SubElement(label, "group").text = field.capitalize()
                SubElement(label, "text").text = str(value)
    rows = SubElement(root, "ROWS")
    for index, code in enumerate(labels):
        row = SubElement(rows, "row")
        SubElement(row, "code").text = code
        for channel, share in zip("RGB", colorsys.hsv_to_rgb(index / len(labels), 0.6, 0.9), strict=True):
            SubElement(row, channel).text = str(round(65535 * share))
    write_xml(path, root)

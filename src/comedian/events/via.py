"""Events in projects of the VGG Image Annotator's video annotator, VIA 3 (https://www.robots.ox.ac.uk/~vgg/software/via).

The metadata of a file are segments of time `z` in seconds, with attributes' values `av`::

    {"attribute": {"1": {"aname": "label", "anchor_id": "FILE1_Z2_XY0", "type": 4, "options": {"0": "Goal"}, ...}},
     "file": {"1": {"fid": "1", "fname": "friday.mp4", "type": 4, ...}},
     "view": {"1": {"fid_list": ["1"]}},
     "metadata": {"1_abc": {"vid": "1", "flg": 0, "z": [754.2, 755.2], "xy": [], "av": {"1": "0"}}}, ...}

The first attribute that is neither `team`, `visibility`, `score` nor `comment` is the event's label.
"""

from pathlib import Path
from typing import Any

from comedian.errors import InputError
from comedian.events.events import (
    EVENT_FIELDS,
    Event,
    EventSet,
    EventVideo,
    Problem,
    Reading,
    check_name,
    event_set,
    fields_of,
    parse_event,
    parse_text,
    parse_time_ms,
    refuse,
)
from comedian.events.one_video import EVENT_MS, media_name, note_ends, position_in_clip
from comedian.events.soccernet_files import part_name, split_part_name, to_json
from comedian.files import atomic_write_text, read_json

_TEXT, _SELECT, _VIDEO = 1, 4, 4
_SECTIONS = ("project", "config", "attribute", "file", "view", "metadata")


def read_via(path: str | Path, lead_s: float = 0.0, problem: Problem = refuse) -> EventSet:
    """Read a project of VIA 3.

    Args:
        path: the project's file.
        lead_s: seconds from a segment's start to its event.
        problem: told of everything that will not do; raises by default.

    Raises:
        InputError: the file cannot be read or has another form.
    """
    content, reading = read_json(path), Reading(path, problem)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in _SECTIONS[2:]):
        raise InputError(f"`{path}` is not a project of VIA 3; it has no `attribute`, `file`, `view` and `metadata`")
    attributes = {key: item for key, item in content["attribute"].items() if isinstance(item, dict)}
    names = {key: _field_of(item) for key, item in attributes.items()}
    label_key = next((key for key, field in names.items() if field == "label"), None)
    files = {fid: item for fid, item in content["file"].items() if isinstance(item, dict)}
    events: dict[str, list[Event]] = {fid: [] for fid in files}
    clips: list[tuple[int, int | None]] = []

    def segment(item: Any, place: str) -> None:
        if not isinstance(item, dict) or not isinstance(item.get("z"), list) or not isinstance(item.get("av"), dict):
            raise ValueError("expected an object with the lists `z` and the object `av`")
        if not item["z"]:
            reading.unread.add("metadata of whole files")
            return
        fields: dict[str, str] = {}
        for key, value in item["av"].items():
            field = names.get(key)
            if field in EVENT_FIELDS and (field != "label" or key == label_key):
                fields[field] = _displayed(attributes[key], value)
            elif value:
                reading.unread.add(f"attribute {parse_text(attributes.get(key, {}), 'aname') or key!r}")
        if item.get("xy"):
            reading.unread.add("regions of the picture")
        times = [parse_time_ms(value, "z") for value in item["z"][:2]]
        clips.append((times[0], times[1] if len(times) > 1 else None))
        position_ms = position_in_clip(*clips[-1], round(1000 * lead_s))
        events[_file_of(item, content, files)].append(parse_event(fields, position_ms, place))

    reading.collect(((f"metadata {key!r}", item) for key, item in content["metadata"].items()), segment)
    note_ends(reading, clips)
    videos = reading.collect(
        ((f"file {fid!r}", fid) for fid in files),
        lambda fid, _: EventVideo(*_name_of(files[fid]), events=tuple(events[fid])),
    )
    options = attributes[label_key].get("options") if label_key else None
    labels = [text for text in (options.values() if isinstance(options, dict) else ()) if isinstance(text, str)]
    used = {event.label for video in videos for event in video.events}
    # a segment's own group that was typed in is an option, too, and `Default` is one that nobody chose
    listed = [label for label in dict.fromkeys(labels) if label in used or label != "Default"]
    return event_set(videos, listed, reading.unread, path)


def _field_of(attribute: dict[str, Any]) -> str:
    """Return which of `EVENT_FIELDS` an attribute holds: the label, unless it is called after another."""
    name = str(attribute.get("aname", "")).strip().lower()
    return name if name in EVENT_FIELDS else "label"


def _displayed(attribute: dict[str, Any], value: Any) -> str:
    """Return the text of an attribute's value, which is an option's key where there are options."""
    options = attribute.get("options")
    text = options.get(value, value) if isinstance(options, dict) and isinstance(value, str) else value
    if not isinstance(text, str):
        raise ValueError(f"the value of `{attribute.get('aname')}` is {value!r}; expected text")
    return text


def _file_of(item: dict[str, Any], content: dict[str, Any], files: dict[str, Any]) -> str:
    view = content["view"].get(str(item.get("vid")))
    listed = view.get("fid_list") if isinstance(view, dict) else None
    fid = str(listed[0]) if isinstance(listed, list) and listed else ""
    if fid not in files:
        raise ValueError(f"`vid` is {item.get('vid')!r}, and there is no such view of a file")
    return fid


def _name_of(item: dict[str, Any]) -> tuple[str, int | None]:
    name = media_name(parse_text(item, "fname") or parse_text(item, "src"))
    if not name:
        raise ValueError("`fname` is empty; write the name of the video's file")
    return split_part_name(check_name(name))


def write_via(events: EventSet, path: str | Path) -> None:
    """Write a project of VIA 3: a segment of a second an event, the labels as options of an attribute."""
    fields = {key for video in events.videos for event in video.events for key in fields_of(event)}
    names = ["label", *(name for name in EVENT_FIELDS[1:] if name in fields)]
    keys = {name: str(number) for number, name in enumerate(names, 1)}
    options = {label: str(number) for number, label in enumerate(events.labels)}
    attributes = {
        keys[name]: {
            "aname": name,
            "anchor_id": "FILE1_Z2_XY0",  # a segment of time of one file
            "type": _SELECT if name == "label" else _TEXT,
            "desc": "",
            "options": {key: label for label, key in options.items()} if name == "label" else {},
            "default_option_id": "",
        }
        for name in names
    }
    files, views, metadata = {}, {}, {}
    for number, video in enumerate(events.videos, 1):
        fid = str(number)
        files[fid] = {"fid": fid, "fname": part_name(video), "type": _VIDEO, "loc": 1, "src": ""}
        views[fid] = {"fid_list": [fid]}
        for index, event in enumerate(video.events):
            values = {keys[name]: str(value) for name, value in fields_of(event).items()}
            values[keys["label"]] = options[event.label]
            span_s = [event.position_ms / 1000, (event.position_ms + EVENT_MS) / 1000]
            metadata[f"{fid}_{index}"] = {"vid": fid, "flg": 0, "z": span_s, "xy": [], "av": values}
    project = {
        "pid": "__VIA_PROJECT_ID__",
        "rev": "__VIA_PROJECT_REV_ID__",
        "rev_timestamp": "__VIA_PROJECT_REV_TIMESTAMP__",
        "pname": Path(path).stem,
        "creator": "comedian",
        "created": 0,
        "data_format_version": "3.1.1",
        "vid_list": list(views),
    }
    interface = {
        "file_content_align": "center",
        "file_metadata_editor_visible": False,
        "spatial_metadata_editor_visible": False,
        "temporal_segment_metadata_editor_visible": True,
        "spatial_region_label_attribute_id": "",
        "gtimeline_visible_row_count": "4",
    }
    config = {"file": {"loc_prefix": dict.fromkeys("1234", "")}, "ui": interface}
    sections = (project, config, attributes, files, views, metadata)
    atomic_write_text(path, to_json(dict(zip(_SECTIONS, sections, strict=True))))

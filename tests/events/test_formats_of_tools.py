"""Files of annotation and analysis tools, written by hand as their documentation has them, and what is read of them."""

import json
import re
from xml.etree import ElementTree

import pytest

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.events import xml_files
from comedian.events.events import Event, EventVideo, event_set
from comedian.events.formats import ReadOptions, detect_format, lost_fields, read_events, write_events
from comedian.events.frames import frame_of_timecode, position_ms_of_frame, timecode_of
from comedian.events.one_video import media_name
from video_factory import write_video

# as ELAN writes it: https://www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf
EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-03-02T13:56:00+01:00" FORMAT="3.0" VERSION="3.0"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/Users/me/friday%20cup.mp4" MIME_TYPE="video/mp4"
        RELATIVE_MEDIA_URL="./friday cup.mp4"/>
  </HEADER>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="7"/>
    <TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="12040"/>
    <TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="3754200"/>
    <TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="3756200"/>
  </TIME_ORDER>
  <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="actions">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4">
      <ANNOTATION_VALUE>Élan &amp; Goal</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="Corner">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE></ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER LINGUISTIC_TYPE_REF="note" PARENT_REF="Corner" TIER_ID="who">
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a3" ANNOTATION_REF="a2">
      <ANNOTATION_VALUE>nine</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
  </TIER>
</ANNOTATION_DOCUMENT>
"""
# as https://kloppy.pysport.org/user-guide/exporting-data/sportscode and exports of Nacsport and LongoMatch have it
SPORTSCODE = """<?xml version='1.0' encoding='utf-8'?>
<file>
  <ALL_INSTANCES>
    <instance>
      <ID>1</ID> <start>59.227999999999994</start> <end>69.228</end> <code>PASS</code>
      <label> <group>Team</group> <text>Henkie</text> </label>
      <label> <group>Receiver</group> <text>Klaas Nøme</text> </label>
      <label> <text>build-up</text> </label>
      <free_text>long ball</free_text>
    </instance>
    <instance> <ID>2</ID> <start>3.6</start> <end>5.6</end> <code>SHOT</code> </instance>
  </ALL_INSTANCES>
  <ROWS>
    <row> <code>SHOT</code> <R>65535</R> <G>0</G> <B>0</B> </row>
    <row> <code>FOUL</code> <R>0</R> <G>0</G> <B>0</B> </row>
  </ROWS>
</file>
"""
# https://docs.cvat.ai/docs/manual/advanced/xml_format
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>5</id> <name>some task</name> <size>3020</size> <mode>interpolation</mode>
      <labels> <label> <name>Goal</name> <attributes></attributes> </label> <label> <name>Foul</name> </label> </labels>
      <source>friday.mp4</source>
    </task>
  </meta>
  <track id="0" label="Foul" source="manual">
    <box frame="249" outside="1" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2" z_order="0"></box>
    <box frame="250" outside="0" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2" z_order="0">
      <attribute name="team">home</attribute> <attribute name="shirt">9</attribute>
    </box>
    <box frame="1000" outside="0" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="2" ybr="2" z_order="0"></box>
  </track>
  <image id="93" name="frame_000093" width="640" height="480"> <tag label="Goal" source="manual"></tag> </image>
</annotations>
"""
# https://labelstud.io/guide/task_format, https://labelstud.io/tags/timelinelabels, https://labelstud.io/tags/videorectangle
LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"video": "/data/upload/3/0a1b2c3d-friday.mp4"},
        "annotations": [
            {"was_cancelled": True, "result": [{"type": "choices", "value": {"choices": ["x"]}}]},
            {
                "result": [
                    {
                        "type": "videorectangle",
                        "value": {
                            "labels": ["Foul"],
                            "framesCount": 510,
                            "duration": 21.25,  # 24 a second
                            "sequence": [{"frame": 25, "time": 1.04, "enabled": True}, {"frame": 60, "time": 2.5}],
                        },
                    },
                    {
                        "type": "timelinelabels",
                        "value": {"ranges": [{"start": 1, "end": 61}], "timelinelabels": ["Goal"]},
                        "meta": {"text": ["header"]},
                    },
                    {"type": "choices", "value": {"choices": ["night"]}},
                ]
            },
        ],
        "predictions": [{"result": []}],
    },
    {
        "data": {"video": "/data/local-files/?d=cup/final.mkv"},
        "predictions": [
            {
                "model_version": "one",
                "result": [{"type": "labels", "score": 0.5, "value": {"start": 2.5, "end": 3, "labels": ["Goal"]}}],
            }
        ],
    },
]
# https://gitlab.com/vgg/via/-/blob/master/via-3.x.y/CodeDoc.md
VIA = {
    "project": {"pid": "__VIA_PROJECT_ID__", "data_format_version": "3.1.1", "vid_list": ["1", "2"]},
    "config": {"file": {"loc_prefix": {"1": ""}}},
    "attribute": {
        "1": {"aname": "TEMPORAL-SEGMENTS", "anchor_id": "FILE1_Z2_XY0", "type": 4, "options": {"default": "Default"}},
        "2": {"aname": "team", "anchor_id": "FILE1_Z2_XY0", "type": 4, "options": {"0": "home", "1": "away"}},
        "3": {"aname": "shirt", "anchor_id": "FILE1_Z2_XY0", "type": 1, "options": {}},
    },
    "file": {
        "1": {"fid": "1", "fname": "friday.mp4", "type": 4, "loc": 1, "src": ""},
        "2": {"fid": "2", "fname": "", "type": 4, "loc": 2, "src": "https://example.org/v/mon%20day.webm?x=1"},
    },
    "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}},
    "metadata": {
        "1_BXLfdQfa": {"vid": "1", "flg": 0, "z": [376.279, 381.54942], "xy": [], "av": {"1": "4CV_NP"}},
        "1_cbzrHITO": {"vid": "1", "flg": 0, "z": [354.04942, 359], "xy": [], "av": {"1": "x", "2": "1", "3": "9"}},
    },
}
# DaVinci Resolve: Timelines > Export > Timeline Markers to EDL
RESOLVE = """TITLE: Timeline 1
FCM: NON-DROP FRAME

001  001      V     C        01:00:18:06 01:00:18:07 01:00:18:06 01:00:18:07
header |C:ResolveColorYellow |M:Goal |D:1

002  001      V     C        01:01:00:00 01:01:02:00 01:01:00:00 01:01:02:00
 |C:ResolveColorGreen |M:Marker 2 |D:50
"""
# Premiere Pro: File > Export > Markers, 29.97 fps with drop-frame timecode
PREMIERE = (
    "Marker Name\tDescription\tIn\tOut\tDuration\tMarker Type\t\n"
    "Goal\tSome comment\t00;11;23;01\t00;11;24;25\t00;00;01;24\tChapter\t\n"
    "Foul\t\t00;01;00;02\t00;01;00;02\t00;00;00;00\tComment\t\n"
)
LONGOMATCH = (
    "CATEGORY: Goal\nGoal 1;0:12:34,200;0:12:44,200;LOCAL;1;0\n\nCATEGORY: Corner\nCorner 1;0:00,5;0:09;NONE\n\n"
    "CATEGORY: Foul\n\n"
)
YOUTUBE = "Cup final, full match\n\n0:00 Kick-off\n12:34 - Goal (1:0)\n1:02:03 Corner\nSubscribe!\n"


def write(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return path


def read_one(path, **settings):
    events = read_events(path, **settings)
    (video,) = events.videos
    return video, events


def test_elan(tmp_path):
    video, events = read_one(write(tmp_path / "any.eaf", EAF))
    assert video == EventVideo("friday cup.mp4", events=(Event("Corner", 7), Event("Élan & Goal", 3_754_200)))
    assert events.unread == {"annotations of dependent tiers", "names of tiers", "ends of clips"}
    # the event is not after the clip's end
    video, _ = read_one(tmp_path / "any.eaf", options=ReadOptions("cup/friday.mp4", lead_s=5))
    assert (video.name, [event.position_ms for event in video.events]) == ("cup/friday.mp4", [5007, 3_756_200])


def test_what_is_written_for_elan_is_what_its_schema_asks(tmp_path):
    listed = (Event("Goal", 1000), Event("Goal", 1000, "home"), Event("Goal", 1400), Event("Foul", 90))
    events = event_set([EventVideo("friday.mp4", events=listed)])
    write_events(events, tmp_path / "a.eaf", "elan")
    root = ElementTree.parse(tmp_path / "a.eaf").getroot()
    assert [child.tag for child in root] == ["HEADER", "TIME_ORDER", "TIER", "TIER", "TIER", "LINGUISTIC_TYPE"]
    slots = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")}
    assert list(slots.values()) == sorted(slots.values()) and len(slots) == 8
    types = {kind.get("LINGUISTIC_TYPE_ID") for kind in root.iter("LINGUISTIC_TYPE")}
    assert {tier.get("LINGUISTIC_TYPE_REF") for tier in root.iter("TIER")} == types
    for tier in root.iter("TIER"):  # no overlaps
        spans = [
            (slots[one.get("TIME_SLOT_REF1")], slots[one.get("TIME_SLOT_REF2")])
            for one in tier.iter("ALIGNABLE_ANNOTATION")
        ]
        assert all(start < end for start, end in spans)
        assert all(end <= later for (_, end), (later, _) in zip(spans, spans[1:]))
    assert [tier.get("TIER_ID") for tier in root.iter("TIER")] == ["Foul", "Goal", "Goal#2"]
    video, back = read_one(tmp_path / "a.eaf")
    assert [(event.label, event.position_ms) for event in video.events] == [
        ("Foul", 90),
        ("Goal", 1000),
        ("Goal", 1000),
        ("Goal", 1400),
    ]
    assert back.unread == {"ends of clips"}  # one of them ends when the next begins


def test_sportscode(tmp_path):
    video, events = read_one(write(tmp_path / "friday.xml", SPORTSCODE))
    shot, passed = Event("SHOT", 3600), Event("PASS", 59_228, "Henkie", comment="long ball")
    assert video == EventVideo("friday", events=(shot, passed))
    assert events.labels == ("SHOT", "FOUL", "PASS")
    assert events.unread == {"labels of the group 'Receiver'", "labels without a group", "ends of clips"}
    video, _ = read_one(tmp_path / "friday.xml", options=ReadOptions(lead_s=5.0))
    assert [event.position_ms for event in video.events] == [5600, 64_228]


def test_sportscode_with_clocks_and_a_clip_that_ends_before_it_begins(tmp_path):
    instance = "<instance><ID>1</ID><start>00:01:02.5</start><end>{}</end><code>a</code></instance>"
    text = f"<file><ALL_INSTANCES>{instance.format('00:01:04')}{instance.format('3')}</ALL_INSTANCES></file>"
    path, told = write(tmp_path / "a.xml", text), []
    video, _ = read_one(path, problem=told.append)
    assert video.events == (Event("a", 62_500),)
    assert told == [f"`{path}`, instance 2: it ends at 3 s and begins at 62.5 s; correct the times"]


def test_cvat(tmp_path):
    path = write(tmp_path / "annotations.xml", CVAT)
    with pytest.raises(InputError, match="counts frames and contains no frame rate; set `--fps`"):
        read_events(path)
    video, events = read_one(path, fps=25)
    goal, foul = Event("Goal", 3720), Event("Foul", 10_000, "home")
    assert video == EventVideo("friday.mp4", None, None, 25, 120.8, (goal, foul))
    assert events.labels == ("Goal", "Foul")
    assert events.unread == {"attribute 'shirt'", "tracks after their first frame"}


def test_what_is_written_for_cvat_has_the_frames_of_the_video(tmp_path):
    listed = (Event("Goal", 3720), Event("Foul", 3725))
    write_events(event_set([EventVideo("a.mp4", None, None, 25.0, events=listed)]), tmp_path / "a.xml", "cvat")
    (image,) = ElementTree.parse(tmp_path / "a.xml").getroot().findall("image")
    assert (image.attrib, [tag.get("label") for tag in image]) == (
        {"id": "93", "name": "frame_000093"},
        ["Goal", "Foul"],
    )


def test_label_studio(tmp_path):
    path = write(tmp_path / "a.json", json.dumps(LABEL_STUDIO))
    events = read_events(path)
    first, second = events.videos
    assert first == EventVideo("friday.mp4", fps=24, events=(Event("Goal", 0, comment="header"), Event("Foul", 1000)))
    assert second == EventVideo("cup/final.mkv", events=(Event("Goal", 2500, score=0.5),))
    assert events.unread == {"results of the type 'choices'", "predictions of annotated tasks", "ends of clips"}
    path = write(tmp_path / "b.json", json.dumps(LABEL_STUDIO).replace('"duration"', '"other"'))
    with pytest.raises(
        InputError, match=r"\[0\].annotations.result\[0\]: it counts frames, and the frame rate is unknown"
    ):
        read_events(path)
    assert read_events(path, fps=12).videos[0].events[1].position_ms == 2000


def test_events_with_scores_are_pre_annotations(tmp_path):
    scored, labelled = (Event("Goal", 3720, score=0.5),), (Event("Goal", 0, comment="header"),)
    videos = [EventVideo("a.mp4", fps=25, events=scored), EventVideo("b.mp4", fps=25, events=labelled)]
    write_events(event_set(videos), tmp_path / "a.json", "label-studio")
    first, second = json.loads((tmp_path / "a.json").read_text())
    assert first["data"] == {"video": "a.mp4", "fps": 25} and "annotations" not in first
    (result,) = first["predictions"][0]["result"]
    assert result == {
        "id": "event1",
        "type": "timelinelabels",
        "from_name": "events",
        "to_name": "video",
        "value": {"ranges": [{"start": 94, "end": 94}], "timelinelabels": ["Goal"]},
        "score": 0.5,
    }
    assert second["annotations"][0]["result"][0]["meta"] == {"text": ["header"]} and "predictions" not in second


def test_via(tmp_path):
    events = read_events(write(tmp_path / "a.json", json.dumps(VIA)))
    first, second = events.videos
    assert first.name == "friday.mp4" and second == EventVideo("mon day.webm")
    assert first.events == (Event("x", 354_049, "away"), Event("4CV_NP", 376_279))
    assert events.labels == ("4CV_NP", "x") and events.unread == {"attribute 'shirt'", "ends of clips"}


def test_edl_of_resolve(tmp_path):
    path = write(tmp_path / "friday.edl", RESOLVE)
    with pytest.raises(InputError, match="set `--fps`"):
        read_events(path)
    video, events = read_one(path, fps=25, options=ReadOptions(start_timecode="01:00:00:00"))
    goal, second = Event("Goal", 18_240, comment="header"), Event("Marker 2", 60_000)
    assert video == EventVideo("friday", fps=25, events=(goal, second))
    assert events.unread == {"durations of markers"}
    assert read_one(path, fps=25)[0].events[0].position_ms == 3_618_240
    with pytest.raises(InputError, match="line 5: the timecode 01:00:18:06 is before the start timecode 02:00:00:00"):
        read_events(path, fps=25, options=ReadOptions(start_timecode="02:00:00:00"))
    with pytest.raises(InputError, match="`--start-timecode`: 'noon' is not a timecode"):
        read_events(path, fps=25, options=ReadOptions(start_timecode="noon"))


def test_what_is_written_for_resolve(tmp_path):
    video = EventVideo("friday.mp4", fps=25, events=(Event("Goal", 18_240, comment="header"), Event("Foul", 60_000)))
    write_events(event_set([video]), tmp_path / "a.edl", "edl", start_timecode="01:00:00:00")
    lines = (tmp_path / "a.edl").read_text().splitlines()
    assert lines[3:5] == RESOLVE.splitlines()[3:4] + ["header |C:ResolveColorBlue |M:Goal |D:1"]
    for event in (Event("a|b", 0), Event("x", 0, comment="one\u2028two")):
        with pytest.raises(InputError, match=re.escape("has a `|`, several lines or control characters")):
            write_events(event_set([EventVideo("a", fps=25, events=(event,))]), tmp_path / "b.edl", "edl")


@pytest.mark.parametrize("name, suffix", [("edl", ".edl"), ("premiere", ".csv")])
def test_a_drop_frame_timeline_there_and_back(tmp_path, name, suffix):
    fps = 30_000 / 1001
    events = tuple(Event("Goal", position_ms_of_frame(frame, fps)) for frame in (0, 1799, 1800, 17_982, 107_892))
    video, path = EventVideo("friday", fps=fps, events=events), tmp_path / f"friday{suffix}"
    write_events(event_set([video]), path, name, start_timecode="01:00:00;00")
    text = path.read_text()
    # of the first minute 1800 numbers are counted, and the next begins with number 2
    assert all(timecode in text for timecode in ("01:00:00;00", "01:00:59;29", "01:01:00;02", "01:10:00;00"))
    assert ("FCM: DROP FRAME" in text) == (name == "edl")
    assert read_one(path, fps=fps, options=ReadOptions(start_timecode="01:00:00;00"))[0].events == events


def test_a_text_that_cannot_be_stored_leaves_no_file_of_the_others(tmp_path):
    videos = [
        EventVideo("a.mp4", events=(Event("x", 0),)),
        EventVideo("b.mp4", events=(Event("x", 0, comment="\x01"),)),
    ]
    with pytest.raises(InputError):
        write_events(event_set(videos), tmp_path / "out", "sportscode")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_premiere(tmp_path, encoding):
    path = write(tmp_path / "friday.csv", PREMIERE, encoding)
    assert detect_format(path) == "premiere"
    video, events = read_one(path, fps=30_000 / 1001)
    # 11:23:01 of drop-frame timecode: 683 * 30 + 1 frames, less 2 for each of 10 minutes
    assert [(event.label, event.position_ms) for event in video.events] == [
        ("Foul", round(1000 * 1800 * 1.001 / 30)),
        ("Goal", round(1000 * 20_471 * 1.001 / 30)),
    ]
    assert video.events[1].comment == "Some comment" and events.unread == {"durations of markers"}


def test_timecodes():
    """Against counting: of drop-frame timecode, each minute but every tenth has no frames 0 and 1."""
    number = 0
    for minute in range(21):
        for second in range(60):
            for frame in range(2 if second == 0 and minute % 10 else 0, 30):
                if frame in (0, 2, 29):
                    assert frame_of_timecode(f"00:{minute:02d}:{second:02d};{frame:02d}", 29.97) == number
                number += 1
    for fps in (23.976, 24, 25, 29.97002997, 50, 59.94, 100):
        for frame in (0, 1, 1499, 107_892, 1_000_000):
            assert frame_of_timecode(timecode_of(frame, fps), fps) == frame
    for fps in (29.97, 59.94):
        for frame in range(0, 120_000, 7):
            assert frame_of_timecode(timecode_of(frame, fps, drops=True), fps) == frame
    for text, fps in (("00:00:00:25", 25), ("00:01:00;01", 29.97), ("00:01:00;02", 25), ("0:0", 25)):
        with pytest.raises(ValueError):
            frame_of_timecode(text, fps)


def test_longomatch(tmp_path):
    path = write(tmp_path / "friday.csv", LONGOMATCH)
    video, events = read_one(path)
    goal, corner = Event("Goal", 754_200, "home", comment="Goal 1"), Event("Corner", 500, comment="Corner 1")
    assert video == EventVideo("friday", events=(corner, goal))
    assert events.labels == ("Goal", "Corner", "Foul") and events.unread == {"tags", "ends of clips"}


def test_youtube(tmp_path):
    video, events = read_one(write(tmp_path / "friday.txt", YOUTUBE))
    assert video == EventVideo("friday", events=(Event("Goal (1:0)", 754_000), Event("Corner", 3_723_000)))
    assert events.unread == {"the chapter at 0:00", "lines that are no chapters"}
    write_events(events, tmp_path / "out.txt", "youtube")
    assert (tmp_path / "out.txt").read_text() == "0:00 Start\n12:34 Goal (1:0)\n1:02:03 Corner\n"
    assert lost_fields(events, "youtube", tmp_path / "friday.txt") == [
        "lines that are no chapters",
        "the chapter at 0:00",
    ]
    near = event_set([EventVideo("a", events=(Event("x", 12_500), Event("x", 22_900)))])
    assert lost_fields(near, "youtube") == ["parts of a second"]
    write_events(near, tmp_path / "near.txt", "youtube")  # a chapter begins before its event
    assert (tmp_path / "near.txt").read_text() == "0:00 Start\n0:12 x\n0:22 x\n"
    near = event_set([EventVideo("a", events=(Event("x", 12_000), Event("x", 21_000)))])
    assert [what.split(",")[0] for what in lost_fields(near, "youtube")] == ["chapters on YouTube itself"]
    with pytest.raises(InputError, match="'x' is in the first second of `a`"):
        write_events(event_set([EventVideo("a", events=(Event("x", 900),))]), tmp_path / "b.txt", "youtube")


def test_one_file_is_of_one_video_and_a_folder_of_many(tmp_path, capsys):
    rows = "video,label,time_s,half\ncup/final,Goal,1.5,1\ncup/final,Goal,2.5,2\nfriday.mp4,Foul,3,\n"
    source = write(tmp_path / "a.csv", rows)
    assert main(["data", "convert", str(source), str(tmp_path / "a.xml"), "--to", "sportscode"]) == 2
    assert "the events of one video, but there are 3 videos or parts; give a folder" in capsys.readouterr().err
    assert main(["data", "convert", str(source), str(tmp_path / "out"), "--to", "sportscode"]) == 0
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.xml"))
    assert files == ["cup/final/1.xml", "cup/final/2.xml", "friday.mp4.xml"]
    assert main(["data", "convert", str(tmp_path / "out"), str(tmp_path / "b.csv")]) == 0
    assert sorted((tmp_path / "b.csv").read_text().splitlines()) == sorted((rows.replace(",3,", ",3.0,")).splitlines())
    assert "omitted" not in capsys.readouterr().err
    assert main(["data", "convert", str(tmp_path / "out"), str(tmp_path / "b.csv"), "--video", "x"]) == 2
    assert "it has events of 2 videos; remove `--video`" in capsys.readouterr().err
    # a name that the file's own name does not keep
    one = str(tmp_path / "out/friday.mp4.xml")
    assert main(["data", "convert", one, str(tmp_path / "monday.xml"), "--to", "sportscode"]) == 0
    assert "cannot store it: the video's name" in capsys.readouterr().err
    assert main(["data", "convert", one, str(tmp_path / "friday.xml"), "--to", "sportscode"]) == 0
    assert "omitted" not in capsys.readouterr().err


def test_the_commands_take_what_a_file_does_not_say(tmp_path, capsys):
    for name in ("friday.mp4", "monday.mp4"):
        write_video(tmp_path / "videos" / name, num_frames=100, fps=25, height=32, width=32)
    text = RESOLVE.replace("01:01:0", "01:00:0").replace("18:06", "02:06").replace("18:07", "02:07")
    source = write(tmp_path / "any.edl", text)
    words = ["--fps", "25", "--video", "friday.mp4", "--start-timecode", "01:00:00:00"]
    assert main(["data", "convert", str(source), str(tmp_path / "a.csv"), *words]) == 0
    assert (tmp_path / "a.csv").read_text().splitlines()[1:] == [
        "friday.mp4,Marker 2,0.0,",
        "friday.mp4,Goal,2.24,header",
    ]
    assert main(["data", "check", str(tmp_path / "videos"), "--events", str(source), *words[:2]]) == 1
    assert "there is no video `any` in" in (out := capsys.readouterr().out) and "or set `--video`" in out
    assert main(["data", "check", str(tmp_path / "videos"), "--events", str(source), *words]) == 1
    assert "missing video" not in capsys.readouterr().out
    out = tmp_path / "out.json"
    assert main(["data", "convert", str(source), str(out), "--to", "label-studio", *words]) == 0
    assert main(["data", "convert", str(source), str(tmp_path / "c.edl"), *words]) == 0
    assert "01:00:02:06" in (tmp_path / "c.edl").read_text()
    assert main(["data", "check", str(tmp_path / "videos"), "--lead", "5"]) == 2
    assert main(["data", "convert", str(source), str(out), "--to", "json", "--lead", "-1"]) == 2
    assert "`--lead` is -1; give seconds from 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "address, name",
    [
        ("./cup/friday.mp4", "cup/friday.mp4"),
        ("../cup/friday.mp4", "friday.mp4"),
        ("file:///C:/Users/me/fri%20day.mp4", "fri day.mp4"),
        ("file:///./friday.mp4", "friday.mp4"),
        ("C:\\videos\\friday.mp4", "friday.mp4"),
        ("/home/me/friday.mp4", "friday.mp4"),
        ("https://example.org/v/friday.mp4?token=1", "friday.mp4"),
        ("s3://bucket/cup/friday.mp4", "friday.mp4"),
        ("cup/final/1", "cup/final/1"),
        ("Final:2024.mp4", "Final:2024.mp4"),
        ("cup/Final:2024.mp4", "cup/Final:2024.mp4"),
        ("", ""),
    ],
)
def test_names_of_media(address, name):
    assert media_name(address) == name


ENTITIES = '<!DOCTYPE file [<!ENTITY a "{}">]><file><ALL_INSTANCES>&a;</ALL_INSTANCES></file>'


@pytest.mark.parametrize(
    "text, says",
    [
        (ENTITIES.format("x"), "has a document type"),
        (ENTITIES.replace('"{}"', 'SYSTEM "file:///etc/passwd"'), "has a document type"),
        ('<!DOCTYPE file SYSTEM "http://127.0.0.1:9/a.dtd"><file/>', "has a document type"),
        ("<file>" * 60 + "</file>" * 60, "is nested more than 50 deep"),
        ("<file><ALL_INSTANCES>", "is not valid XML: "),
        ("<file>&a;</file>", "is not valid XML: undefined entity"),
        ('<?xml version="1.0" encoding="nonsense"?><file/>', "is not valid XML: "),
        ("no XML", "is not valid XML: "),
        ("<file/>", "is not in Sportscode's format"),
        ("<other/>", "has an unknown format"),
    ],
)
def test_xml_is_read_and_nothing_that_it_may_define(tmp_path, text, says):
    path = write(tmp_path / "a.xml", text)
    with pytest.raises(InputError, match=re.escape(says)):
        read_events(path)


def test_xml_has_a_largest_size_and_comes_in_any_encoding(tmp_path, monkeypatch):
    for encoding in ("utf-16", "iso-8859-1"):
        text = SPORTSCODE.replace("utf-8", encoding)
        video, _ = read_one(write(tmp_path / "friday.xml", text, encoding))
        assert video.events[1].team == "Henkie"
    monkeypatch.setattr(xml_files, "MAX_XML_BYTES", 100)
    with pytest.raises(InputError, match="has more than 0 MiB; give a file of events"):
        read_events(tmp_path / "friday.xml")
    with pytest.raises(InputError, match=re.escape("has the character '\\x0c', which XML does not allow")):
        write_events(
            event_set([EventVideo("a", events=(Event("x", 0, comment="a\x0cb"),))]), tmp_path / "b.xml", "sportscode"
        )
    assert not (tmp_path / "b.xml").exists()


INSTANCE = "<file><ALL_INSTANCES><instance>{}</instance></ALL_INSTANCES></file>"
ALIGNED = (
    "<ANNOTATION_DOCUMENT><TIER TIER_ID='a'><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID='a1' TIME_SLOT_REF1='ts1' "
    "TIME_SLOT_REF2='ts2'/></ANNOTATION></TIER></ANNOTATION_DOCUMENT>"
)
EDIT = "001 001 V C 00:00:01:30 00:00:02:00 00:00:01:30 00:00:02:00\n |C:x |M:a |D:1\n"


def task(**value):
    return json.dumps([{"data": {"video": "a"}, "annotations": [{"result": [{"value": value}]}]}])


BAD = [
    ("a.eaf", ALIGNED, "annotation 'a1': the time slot 'ts1' has no time"),
    ("a.eaf", "<file/>", "is not in ELAN's format: it begins with `<file>`"),
    ("a.xml", INSTANCE.format("<start>1</start>"), "instance 1: `label` is empty"),
    ("a.xml", INSTANCE.format("<code>a</code>"), "instance 1: `start` is ''; write seconds"),
    (
        "a.xml",
        "<annotations><image id='x'><tag label='a'/></image></annotations>",
        "image x: `frame` is 'x'; expected",
    ),
    ("a.xml", "<annotations><image id='1'><tag/></image></annotations>", "image 1: `label` is empty"),
    ("a.xml", "<annotations><track id='3' label='a'><box/></track></annotations>", "track 3: `frame` is None"),
    ("a.xml", "<annotations><meta><project/></meta></annotations>", "is the export of a project; export each task"),
    ("a.edl", EDIT, "line 2: the timecode '00:00:01:30' has frame number 30"),
    ("a.csv", "Marker Name\tIn\nGoal\tsoon\n", "line 2: 'soon' is not a timecode"),
    ("a.csv", "CATEGORY: a\nb;c\n", "line 2: 'b;c' is not an event"),
    ("a.txt", "0:00 a\n25:00:01 b\n", "line 2: `time` is '25:00:01', a day or more"),
    ("a.json", '[{"data": {"text": "a"}}]', "[0]: `data` has no `video`, only text"),
    ("a.json", task(timelinelabels=["a", "b"]), "a region has the labels ['a', 'b']"),
    ("a.json", task(timelinelabels=["a"], ranges=[{"start": 0}]), "`frame` is 0; expected a whole number from 1"),
    ("a.json", task(timelinelabels=["a"], ranges=[]), "`ranges` or `sequence` is not a list with an object"),
    ("a.json", json.dumps(VIA | {"view": {}}), "`vid` is '1', and there is no such view"),
    ("a.json", json.dumps(VIA | {"metadata": {"b": {"vid": "1", "z": ["x"], "av": {}}}}), "metadata 'b': `z` is 'x'"),
]


@pytest.mark.parametrize("name, text, says", BAD)
def test_what_will_not_do_is_one_line(tmp_path, name, text, says):
    path = write(tmp_path / name, text)
    with pytest.raises(InputError) as caught:
        read_events(path, fps=25)
    told = str(caught.value)
    assert told.startswith(f"`{path}`") and told.count(str(path)) == 1 and says in told and "\n" not in told

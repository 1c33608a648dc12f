"""Tables as spreadsheets and people write them, against the events that they say."""

import datetime
import random

import openpyxl
import pytest

from comedian.errors import InputError
from comedian.events.events import COLUMNS, Event, EventSet, EventVideo
from comedian.events.formats import read_events

# two events, and a video without one
EVENTS = EventSet(
    (EventVideo("a.mp4", events=(Event("Tor; drin", 754_500), Event("Einwurf", 3_723_250))), EventVideo("ü.mp4")),
    ("Einwurf", "Tor; drin"),
)


def read(tmp_path, content, name="a.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(content.encode(encoding))
    return read_events(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "delimiter, decimal, first",
    [(",", ".", ""), (";", ",", ""), (";", ".", ""), ("\t", ",", ""), (";", ",", "sep=;\n"), ("|", ".", '"sep=|"\n')],
)
def test_delimiters_and_encodings(tmp_path, encoding, newline, delimiter, decimal, first):
    rows = [["a.mp4", '"Tor; drin"', "12:34.5"], ["a.mp4", "Einwurf", "3723.25"], ["ü.mp4", "", ""]]
    lines = [
        delimiter.join(row).replace("34.5", f"34{decimal}5").replace("3723.25", f"3723{decimal}25") for row in rows
    ]
    text = first + "\n".join([delimiter.join(COLUMNS), *lines, ""])
    assert read(tmp_path, text.replace("\n", newline), encoding=encoding) == EVENTS
    assert read(tmp_path, text.replace("\n", newline), "a.tsv", encoding) == EVENTS


@pytest.mark.parametrize(
    "header, cell",
    [
        ("Video,Label,Time_S", "61.5"),
        ("FILE,Event,Time", "1:01.5"),
        ("filename, Action ,Timestamp", "0:01:01.5"),
        ("File name,Class,Start time (s)", "61.5"),
        ("video,label,Time (ms)", "61500"),
        ("video,label,timestamp_ms", "61499.6"),
        ("video,label,Seconds", "61.5"),
        ("video,label,Minute,Second", "1,1.5"),
        ("video,label,Hours,min,sec", "0,1,1.5"),
    ],
)
def test_headers_by_other_names(tmp_path, header, cell):
    found = read(tmp_path, f"{header}\na.mp4,x,{cell}\n")
    assert found == EventSet((EventVideo("a.mp4", events=(Event("x", 61_500),)),), ("x",)) and not found.unread


def test_the_own_names_come_first_and_the_rest_is_told(tmp_path):
    found = read(tmp_path, "video,path,label,event,time_s,time\na.mp4,/x/a.mp4,x,7,1,14:05\n")
    assert found.videos == (EventVideo("a.mp4", events=(Event("x", 1000),)),)
    assert found.unread == {"path", "event", "time"}
    assert read(tmp_path, ",video,label,time_s\n0,a.mp4,x,1\n1,b.mp4,,\n").videos[1] == EventVideo("b.mp4")


BAD = [
    ("video,label,time_s\na.mp4,x,12,5\n", "line 2: '5' is beyond the last column, of which there are 3; put texts"),
    ("video,label,time_s,\na.mp4,x,12,5\n", "line 2: '5' is beyond the last column"),
    ("video;label;time_s\na.mp4;x;12;;5\n", "line 2: '5' is beyond the last column"),
    ("video,label,time_s,time_s\na.mp4,x,1,2\n", "line 1: the columns `time_s` and `time_s` may both be `time_s`"),
    ("video,Video,label,time_s\na.mp4,b.mp4,x,1\n", "line 1: the columns `video` and `Video` may both be `video`"),
    ("video,label,start,time\na.mp4,x,1,2\n", "line 1: the columns `start` and `time` may both be `time_s`; rename"),
    ("video,label,time_s,half,Half\na.mp4,x,1,2,1\n", "line 1: the columns `half` and `Half` may both be `half`"),
    ("video,label,position_ms,start_ms\na.mp4,x,1,2\n", "may both be `time_ms`"),
    ('video,label,time_s\na.mp4,x,"12,500"\n', "line 2: '12,500' has a comma that may separate decimals or thousands"),
    ("video;label;time_s\na.mp4;x;1.234,5\n", "line 2: '1.234,5' has a comma that may separate"),
    ('video,label,time_s\na.mp4,x,"1,2,5"\n', "line 2: `time_s` is '1,2,5'"),
    ("video,label,minute\na.mp4,x,1\n", "line 1: no column `time_s`; the first line must be `video,label,time_s`"),
    ("Datei;Ereignis;Zeit\na.mp4;x;1\n", "and is `Datei;Ereignis;Zeit`"),
    ("video,label,minute,second\na.mp4,x,12,75\n", "line 2: `minute` is '12' and `second` '75'"),
    ("video,label,minute,second\na.mp4,x,,\n", "line 2: `minute` is '' and `second` ''"),
    ("video,label,minute,second\na.mp4,x,12,\n", "line 2: `minute` is '12' and `second` ''"),
    ("video,label,time_ms\na.mp4,x,12:34\n", "line 2: `time_ms` is '12:34'; write milliseconds"),
    ("video,label,time_ms\na.mp4,x,86400000\n", "line 2: `time_ms` is '86400000'"),
    ('video,label,time_s,comment\na.mp4,x,1,"open\nb.mp4,x,2,\n', "line 2: a quotation mark is not closed"),
    ('sep=;\nvideo;label;time_s\na.mp4;x;soon\n', "line 3: `time_s` is 'soon'"),
]  # fmt: skip


@pytest.mark.parametrize("text, message", BAD)
def test_nothing_is_guessed(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_decimal_commas_of_comma_tables(tmp_path):
    found = read(tmp_path, 'video,label,time_s,score\na.mp4,x,"12,5","0,75"\na.mp4,x,"1:02,125",\n')
    assert found.videos[0].events == (Event("x", 12_500, score=0.75), Event("x", 62_125))


def test_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"video,label,time_s\na.mp4,\x81\x8d,1\n")
    with pytest.raises(InputError, match="a.csv` is not text in UTF-8, UTF-16 or Windows-1252"):
        read_events(tmp_path / "a.csv")


def workbook(path, *sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"sheet {number}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_workbooks(tmp_path):
    rng, rows, wanted = random.Random(0), [["File", "Label", "Time", "half"]], []
    for _ in range(20):
        ms = rng.randrange(3_600_000)
        rows.append(["cup", "x", ms / 1000, 2])
        wanted.append(ms)
    rows += [["cup", "x", datetime.time(0, 12, 34, 500_000), 2.0], ["cup", "x", "12:35,25", "2"], [None] * 4]
    path = workbook(tmp_path / "a.xlsx", [["notes"]], rows)
    events = read_events(path)
    assert [event.position_ms for event in events.videos[0].events] == sorted([*wanted, 754_500, 755_250])
    assert [(video.name, video.half) for video in events.videos] == [("cup", 2)]


@pytest.mark.parametrize(
    "number_format, wanted_ms", [("h:mm", 754_000), ("h:mm:ss", 45_240_000), ("[h]:mm:ss", 45_240_000)]
)
def test_times_of_workbooks_are_those_that_are_displayed(tmp_path, number_format, wanted_ms):
    path = workbook(tmp_path / "a.xlsx", [["video", "label", "time"], ["a.mp4", "x", datetime.time(12, 34)]])
    book = openpyxl.load_workbook(path)
    book.worksheets[0]["C2"].number_format = number_format
    book.save(path)
    assert read_events(path).videos[0].events[0].position_ms == wanted_ms


def test_workbooks_that_will_not_do(tmp_path):
    rows = [["video", "label", "time"], ["a.mp4", "x", 1]]
    with pytest.raises(InputError, match="events in the sheets sheet 0, sheet 1; keep one"):
        read_events(workbook(tmp_path / "two.xlsx", rows, rows))
    (tmp_path / "b.xlsx").write_bytes(b"PK no workbook")
    with pytest.raises(InputError, match="b.xlsx` cannot be read as an Excel workbook"):
        read_events(tmp_path / "b.xlsx")

"""Charts: where a point is drawn, read off against the numbers that stand at the axes."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from comedian.report.charts import Axes, Line, histogram, line_chart, ticks

HOSTILE = "</title><script>alert(1)</script>\"' &"


def read_points(path):
    return np.array([[float(number) for number in pair.split()] for pair in re.findall(r"[ML]([^ML]+)", path)])


def reader_of(picture):
    """What turns places in a picture into values, fitted to the numbers at its axes; it must fit all of them."""
    texts = [(float(text.get("x")), float(text.get("y")), text) for text in picture.iter("text")]
    across = [(x, float(text.text)) for x, _, text in texts if text.get("class") == "middle" and is_number(text.text)]
    up = [(y - 4, float(text.text)) for _, y, text in texts if text.get("class") == "end"]

    def read(places):
        values = []
        for column, pairs in enumerate((across, up)):
            at, numbers = np.array(pairs).T
            slope, offset = np.polyfit(at, numbers, 1)
            assert numbers == pytest.approx(slope * at + offset, abs=0.02 * np.ptp(numbers)) and len(numbers) >= 3
            values.append(slope * places[:, column] + offset)
        return np.stack(values, axis=1)

    return read


def is_number(text):
    return re.fullmatch(r"-?[\d.]+", text) is not None


def test_points_are_drawn_where_the_axes_say():
    points = [[(11.0, 50.0), (15.0, 63.0), (60.0, 100.0)], [(10.0, 40.0), (30.0, 41.5)], []]
    marks = [[(15.0, 63.0, "here")], [], []]
    lines = [Line(f"line {index}", *pair) for index, pair in enumerate(zip(points, marks))]
    picture = ElementTree.fromstring(line_chart(lines, Axes("x", "y", (10, 60), (40, 100)), "A title"))
    read = reader_of(picture)
    paths = list(picture.iter("path"))
    assert [path.get("class") for path in paths] == ["line series-0", "line series-1", "line series-2"]
    for path, expected in zip(paths, points):
        if expected:
            assert read(read_points(path.get("d"))) == pytest.approx(np.array(expected), abs=0.2)
    assert [path.get("d").count("M") for path in paths] == [1, 1, 0], "each is one line"
    size = [float(number) for number in picture.get("viewBox").split()[2:]]
    for path in paths[:2]:
        places = read_points(path.get("d"))
        assert (places >= 0).all() and (places <= size).all(), "inside the picture"
    (mark,) = picture.iter("circle")
    assert read(np.array([[float(mark.get("cx")), float(mark.get("cy"))]]))[0] == pytest.approx((15, 63), abs=0.2)
    assert mark.find("title").text == "line 0: here" and mark.get("class") == "mark series-0"
    assert (picture.get("role"), picture.get("aria-label")) == ("img", "A title")


def test_a_histogram_is_as_high_as_its_counts():
    centres, counts = [-1.0, -0.5, 0.0, 0.5, 1.0], [[0, 3, 8, 1, 0], [2, 2, 2, 2, 2]]
    picture = ElementTree.fromstring(histogram(centres, counts, "seconds", "hits", "A title"))
    read = reader_of(picture)
    for path, expected in zip(picture.iter("path"), counts, strict=True):
        outline = read(read_points(path.get("d")))
        assert outline[0] == pytest.approx((-1.25, 0), abs=0.05) and outline[-1] == pytest.approx((1.25, 0), abs=0.05)
        tops = outline[1:-1].reshape(5, 2, 2)
        assert tops[:, :, 1] == pytest.approx(np.repeat(np.array(expected)[:, np.newaxis], 2, axis=1), abs=0.05)
        assert tops[:, 0, 0] == pytest.approx(np.array(centres) - 0.25, abs=0.02)
        assert tops[:, 1, 0] == pytest.approx(np.array(centres) + 0.25, abs=0.02)


def test_a_histogram_counts_in_whole_numbers():
    picture = ElementTree.fromstring(histogram([0.0, 1.0], [[1, 0]], "seconds", "hits", ""))
    assert [text.text for text in picture.iter("text") if text.get("class") == "end"] == ["0", "1"]
    empty = ElementTree.fromstring(histogram([0.0, 1.0], [[0, 0]], "seconds", "hits", ""))
    assert "nan" not in ElementTree.tostring(empty, encoding="unicode")


def test_texts_stay_texts():
    line = Line(HOSTILE, [(0.0, 0.0)], [(0.0, 0.0, HOSTILE)])
    picture = ElementTree.fromstring(line_chart([line], Axes(HOSTILE, HOSTILE, (0, 1), (0, 1)), HOSTILE))
    assert {node.tag for node in picture.iter()} == {"svg", "text", "line", "path", "circle", "title"}
    assert picture.get("aria-label") == HOSTILE and next(picture.iter("title")).text == f"{HOSTILE}: {HOSTILE}"


@pytest.mark.parametrize(("low", "high"), [(0, 60), (0, 100), (-3, 3), (-30.5, 30.5), (0, 0.07), (0, 1234.5)])
def test_ticks_are_few_and_round(low, high):
    found = list(ticks(low, high))
    steps = np.diff(found)
    assert 3 <= len(found) <= 8 and found[0] >= low - 1e-9 and found[-1] <= high + 1e-9
    assert steps == pytest.approx(steps[0])
    assert found[0] - low < steps[0] and high - found[-1] < steps[0] * (1 + 1e-9)
    assert f"{steps[0]:e}"[0] in "125" and float(f"{steps[0]:.0e}") == pytest.approx(steps[0])

"""The page of the metric's Space, without a browser."""

import importlib.util
import json
import re
import zipfile
from pathlib import Path

import evaluate
import gradio as gr
import pytest

from comedian.evaluation.soccernet_average_map import soccernet_average_map
from comedian.evaluation.soccernet_average_map.soccernet_average_map import METRICS, average_map

FOLDER = Path(soccernet_average_map.__file__).parent
LABELS = ["Goal", "Corner"]
TRUTH = {
    "a/1": [
        {"gameTime": "1 - 00:10", "label": "Goal", "position": "10000", "visibility": "visible"},
        {"gameTime": "2 - 00:50", "label": "Corner", "position": "50000", "visibility": "not shown"},
    ],
    "a/2": [{"gameTime": "1 - 00:30", "label": "Corner", "position": "30000", "visibility": "visible"}],
}
FOUND = {
    "a/1": [
        {"label": "Goal", "half": "1", "position": "11200", "confidence": "0.9"},
        {"label": "Goal", "half": "2", "position": "9000", "confidence": "0.95"},
        {"label": "Corner", "half": "2", "position": "50600", "confidence": "0.4"},
    ],
    "a/2": [{"label": "Corner", "half": "1", "position": "90000", "confidence": "0.7"}],
    "a/3": [],
}


@pytest.fixture(scope="module")
def app():
    """`app.py` as the Space runs it: its folder comes first on the path, the package is not asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        spec = importlib.util.spec_from_file_location("metric_app", FOLDER / "app.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def zipped(path, file_name, key, matches):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for match, events in matches.items():
            archive.writestr(f"{match}/{file_name}", json.dumps({key: events}))
    return str(path)


def figures(table):
    """(label, column) -> percent."""
    columns = table["headers"][1:]
    return {(label, column): value for label, *row in table["data"] for column, value in zip(columns, row)}


def expected(scores):
    table = {}
    for metric, values in scores.items():
        for view in ("", "visible", "unshown"):
            ending, column = (f"_{view}", f"{metric} {view}") if view else ("", metric)
            table["All", column] = round(100 * values[f"a_mAP{ending}"], 2)
            for label, value in zip(LABELS, values[f"a_mAP_per_class{ending}"]):
                table[label, column] = round(100 * value, 2)
    return table


def test_one_match_has_the_metrics_figures(app, tmp_path):
    references = write(tmp_path / "mine.json", {"annotations": TRUTH["a/1"]})
    predictions = write(tmp_path / "theirs.json", {"predictions": FOUND["a/1"]})
    table = app.show(references, predictions, list(METRICS), "Goal\n\n Corner \n", 2)
    scores = average_map([TRUTH["a/1"]], [FOUND["a/1"]], LABELS, metrics=list(METRICS))
    assert 0 < scores["tight"]["a_mAP_per_class"][0] < 1 == scores["tight"]["a_mAP_per_class"][1]
    assert figures(table) == expected(scores)


def test_zips_of_matches_have_the_figures_of_the_loaded_folder(app, tmp_path):
    references = zipped(tmp_path / "labels.zip", "Labels-v2.json", "annotations", TRUTH)
    predictions = zipped(
        tmp_path / "results.zip", "results_spotting.json", "predictions", dict(reversed(FOUND.items()))
    )
    metric = evaluate.load(str(FOLDER), cache_dir=str(tmp_path))
    found = [FOUND[match] for match in TRUTH]
    scores = metric.compute(
        references=list(TRUTH.values()), predictions=found, labels=LABELS, framerate=25, metrics=["loose", "at1"]
    )
    assert scores == average_map(list(TRUTH.values()), found, LABELS, framerate=25, metrics=["loose", "at1"])
    assert figures(app.show(references, predictions, ["loose", "at1"], "Goal\nCorner", 25)) == expected(scores)


def assert_told(app, references, predictions, message):
    """A page with these files shows one line that begins so."""
    with pytest.raises(gr.Error) as error:
        app.show(references, predictions, ["tight"], "Goal", 2)
    text = error.value.message.replace("&#x27;", "'")
    assert re.match(message, text) and "\n" not in text and len(text) < 400, text


@pytest.mark.parametrize(
    ("references", "message"),
    [
        (None, "give a Labels-v2.json"),
        ("half a file", "`x` is not JSON: Expecting value"),
        ("[" * 100_000, "`x` is not JSON: maximum recursion"),
        ([], "`x` has no list `annotations`"),
        ({"predictions": []}, "`x` has no list `annotations`"),
        ({"annotations": {}}, "`x` has no list `annotations`"),
        ({"annotations": [TRUTH["a/1"][0], {"label": "<b>Goal</b>"}]}, r"`x`, annotations\[1\]: KeyError .*&lt;b&gt;"),
        ({"annotations": ["Goal"]}, r"`x`, annotations\[0\]: TypeError"),
    ],
)
def test_a_bad_file_is_told_in_one_line(app, tmp_path, references, message):
    references = None if references is None else write(tmp_path / "x", references)
    predictions = write(tmp_path / "y", {"predictions": []})
    assert_told(app, references, predictions, message)


def test_a_bad_zip_is_told_in_one_line(app, tmp_path, monkeypatch):
    references = zipped(tmp_path / "labels.zip", "Labels-v2.json", "annotations", TRUTH)
    one = zipped(tmp_path / "one.zip", "results_spotting.json", "predictions", {"a/1": []})
    assert_told(app, references, one, "`one.zip`, match `a/2` is missing")
    named_otherwise = zipped(tmp_path / "other.zip", "results.json", "predictions", FOUND)
    assert_told(app, references, named_otherwise, "`other.zip` holds no results_spotting.json")
    malformed = zipped(tmp_path / "bad.zip", "results_spotting.json", "predictions", {**FOUND, "a/2": [{"half": 1}]})
    assert_told(app, references, malformed, r"`bad.zip`, match `a/2`, predictions\[0\]: KeyError 'label'")

    content = bytearray(Path(one).read_bytes())
    content[content.index(b"spotting.json") + len("spotting.json") + 3] ^= 0xFF
    (tmp_path / "broken.zip").write_bytes(content)
    assert_told(app, references, str(tmp_path / "broken.zip"), "`broken.zip` cannot be unpacked")
    monkeypatch.setattr(app, "MAX_UNPACKED_BYTES", 10)
    assert_told(app, references, one, "`labels.zip` unpacks to more than")


@pytest.mark.parametrize(
    ("metrics", "labels", "framerate", "message"),
    [
        ([], "Goal", 2, "choose a metric"),
        (["tight"], " \n", 2, "write one label per line"),
        (["tight"], "Goal\nGoal", 2, "write one label per line"),
        (["tight"], "Goal", None, "the frame rate must be"),
        (["tight"], "Goal", 0, "the frame rate must be"),
        (["tight"], "Goal", float("nan"), "the frame rate must be"),
    ],
)
def test_a_bad_setting_is_told(app, metrics, labels, framerate, message):
    with pytest.raises(gr.Error, match=message):
        app.show(None, None, metrics, labels, framerate)


def test_the_page_can_be_built(app):
    fields = [block for block in app.build_app().blocks.values() if isinstance(block, gr.Textbox)]
    assert fields[0].value.splitlines() == list(soccernet_average_map.SOCCERNET_V2_LABELS)

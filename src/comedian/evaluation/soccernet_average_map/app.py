"""The page of the metric's Space: two files of a match, or two zips of many, and the figures of every label.

python app.py
"""

import html
import json
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import gradio as gr
from soccernet_average_map import METRICS, SOCCERNET_V2_LABELS, MalformedEventError, average_map

# name of a match's file in a zip, and of the list in it
REFERENCES = ("Labels-v2.json", "annotations")
PREDICTIONS = ("results_spotting.json", "predictions")
MAX_UNPACKED_BYTES = 500_000_000
MAX_FRAMERATE = 1000

INTRODUCTION = """# SoccerNet average-mAP
The official score of action spotting, in percent. Give the two files of a match, or two zips that hold them in the same
folders. *visible* and *unshown*: of events that the camera showed, or did not. The official scorer leaves out further parts
than two and what is after 120 minutes; here they are scored by the same definition.
"""


def score(
    references: str | None, predictions: str | None, metrics: Sequence[str], labels: str, framerate: float | None
) -> dict[str, list]:
    """Score files as `average_map` does.

    Args:
        references: a `Labels-v2.json` of any name, or a zip with one a folder.
        predictions: a `results_spotting.json` of any name, or a zip with one in each of those folders at least.
        metrics: names among `METRICS`.
        labels: one per line.
        framerate: frames per second of the grid on which times are compared.

    Returns:
        A table of `headers` and `data`: a row for all labels and one per label, with its average-mAP in percent over all,
        visible and unshown events for each metric.

    Raises:
        ValueError: one line on what is wrong with a file or a setting.
    """
    names = [line.strip() for line in labels.splitlines() if line.strip()]
    if not names or len(set(names)) < len(names):
        raise ValueError("write one label per line, at least one and none twice")
    if not metrics:
        raise ValueError("choose a metric")
    if framerate is None or not 0 < framerate <= MAX_FRAMERATE:
        raise ValueError(f"the frame rate must be above 0 and at most {MAX_FRAMERATE}")
    truth, found = _read(references, *REFERENCES), _read(predictions, *PREDICTIONS)
    for match in truth:
        if match not in found:
            raise ValueError(f"{_name(predictions, match)} is missing: no predictions for a match with labels")
    try:
        scores = average_map(
            list(truth.values()), [found[match] for match in truth], names, framerate=framerate, metrics=metrics
        )
    except MalformedEventError as error:
        path, key = (references, REFERENCES[1]) if error.kind == "references" else (predictions, PREDICTIONS[1])
        where = f"{_name(path, list(truth)[error.match])}, {key}[{error.event}]"
        raise ValueError(f"{where}: {error.reason[:200]}") from error
    headers, rows = ["Label"], [["All"], *([name] for name in names)]
    for metric in metrics:
        for view in ("", "visible", "unshown"):
            ending = view and f"_{view}"
            figures = [scores[metric][f"a_mAP{ending}"], *scores[metric][f"a_mAP_per_class{ending}"]]
            headers.append(f"{metric} {view}".strip())
            for row, figure in zip(rows, figures, strict=True):
                row.append(round(100 * figure, 2))
    return {"headers": headers, "data": rows}


def show(*settings) -> dict[str, list]:
    """Return what `score` does; its errors in a form that the page shows."""
    try:
        return score(*settings)
    except ValueError as error:
        raise gr.Error(html.escape(str(error)), duration=None, print_exception=False) from error


def build_app() -> gr.Blocks:
    """Return the page."""
    with gr.Blocks(title="SoccerNet average-mAP", delete_cache=(3600, 3600)) as app:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            references = gr.File(label=f"{REFERENCES[0]} or a zip", height=110, elem_id="references")
            predictions = gr.File(label=f"{PREDICTIONS[0]} or a zip", height=110, elem_id="predictions")
        metrics = gr.CheckboxGroup(list(METRICS), value=["tight", "loose"], label="Metrics")
        with gr.Accordion("Other labels or frame rate", open=False):
            labels = gr.Textbox("\n".join(SOCCERNET_V2_LABELS), lines=6, label="Labels, one per line")
            framerate = gr.Number(2, label="Frames per second: 2 for SoccerNet-v2, 25 for ball action spotting")
        button = gr.Button("Score", variant="primary")
        table = gr.Dataframe(label="average-mAP in %", interactive=False, elem_id="scores")
        button.click(show, [references, predictions, metrics, labels, framerate], table)
    return app


def _read(path: str | None, file_name: str, key: str) -> dict[str, list]:
    """Return match -> events; the match of a file that is no zip is ""."""
    if path is None:
        raise ValueError(f"give a {file_name}, or a zip with one per match")
    files = _unzip(path, file_name) if zipfile.is_zipfile(path) else {"": Path(path).read_bytes()}
    if not files:
        raise ValueError(f"{_name(path)} holds no {file_name}")
    return {match: _events(content, key, _name(path, match)) for match, content in files.items()}


def _unzip(path: str, file_name: str) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if PurePosixPath(member.filename).name == file_name]
            if sum(member.file_size for member in members) > MAX_UNPACKED_BYTES:
                raise ValueError(f"{_name(path)} unpacks to more than {MAX_UNPACKED_BYTES // 10**6} MB")
            # a zip of macOS writes letters with accents in another form
            folders = [unicodedata.normalize("NFC", str(PurePosixPath(member.filename).parent)) for member in members]
            return {folder: archive.read(member) for folder, member in zip(folders, members, strict=True)}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{_name(path)} cannot be unpacked: {error}") from error


def _events(content: bytes, key: str, name: str) -> list:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get(key), list):
        raise ValueError(f"{name} has no list `{key}`")
    return parsed[key]


def _name(path: str | None, match: str = "") -> str:
    return f"`{Path(path or '').name}`" + (match and f", match `{match}`")


if __name__ == "__main__":
    build_app().launch()

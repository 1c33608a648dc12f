"""A Space that finds the events of a video: a player, a timeline, a table; click an event to see it.

COMEDIAN_MODEL=folder-or-repository python examples/space/app.py
"""

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import gradio as gr
import numpy as np
from av.container import InputContainer
from av.stream import Stream

from comedian import ActionSpotter, InputError
from comedian.inference.outputs import write_csv
from comedian.report.page import clock
from comedian.soccernet.annotations import write_results
from comedian.soccernet.layout import RESULTS_FILE_NAME
from comedian.video.decoding import iter_frames, open_video, probe, timing_of

DEMO = Path(__file__).parents[1] / "demo"
MAX_ENCODED_HEIGHT = 480
# frames that H.264 may show later than it decodes them
MAX_REORDERED = 16
# files of visitors are deleted after a day
DELETE_CACHE_S = (3600, 86400)
TICKS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)

# `--at` is where the player is; it lies on the element, which outlives its content
ON_LOAD = """
const player = () => document.querySelector('#player video');
element.addEventListener('click', (event) => {
  const target = event.target.closest('[data-time]');
  if (target && player()) player().currentTime = Number(target.dataset.time);
});
document.addEventListener('timeupdate', (event) => {
  if (event.target === player())
    element.style.setProperty('--at', `${100 * event.target.currentTime / event.target.duration}%`);
}, true);
"""

CSS = """
--at: 0%;
.timeline { position: relative; padding: .25rem; }
.row { display: flex; align-items: center; height: 1.6rem; font-size: .85rem; }
.row > span { width: 8rem; flex: none; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.track { position: relative; flex: 1; height: 100%; border-top: 1px solid var(--border-color-primary); }
.track button { position: absolute; top: 50%; width: 1rem; height: 1rem; margin: -.5rem; border-radius: 50%;
  background: var(--color-accent); cursor: pointer; }
.track button:hover, .track button:focus-visible { transform: scale(1.4); opacity: 1 !important; }
.track span { position: absolute; transform: translateX(-50%); color: var(--body-text-color-subdued); }
.head { position: absolute; inset: .25rem .25rem 1.6rem 8.25rem; pointer-events: none; }
.head::after { content: ""; position: absolute; inset: 0 auto 0 var(--at); border-left: 2px solid var(--color-accent); }
.events { max-height: 21rem; overflow-y: auto; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; }
th { position: sticky; top: 0; background: var(--body-background-fill); }
th, td { text-align: left; padding: .3rem .5rem; border-bottom: 1px solid var(--border-color-primary); }
tbody tr { cursor: pointer; }
tbody tr:hover { background: var(--background-fill-secondary); }
td button { color: var(--link-text-color); font-variant-numeric: tabular-nums; cursor: pointer; }
meter { width: 5rem; vertical-align: middle; }
"""


@dataclass
class Run:
    """What a video's run leaves for its visitor.

    Attributes:
        scores: `(num_tokens, num_labels)`; any threshold is applied to them without the model.
        duration_s: length of the video.
        name: the video's file name.
        folder: holds the player's video and the downloads; deleted with the run.
    """

    scores: np.ndarray
    duration_s: float
    name: str
    folder: TemporaryDirectory


def build_app(spotter: ActionSpotter) -> gr.Blocks:
    """Return the page around a model."""

    def find(video: str | None, progress=gr.Progress(track_tqdm=True)):  # noqa: B008 - where Gradio looks for it
        """Run the model; the player's video and the run."""
        if video is None:
            raise gr.Error("Choose a video first.", print_exception=False)
        try:
            scores = spotter.score(video, progress=True)
            progress(None, desc="making the player's video")
            folder = TemporaryDirectory(prefix="comedian-space-")
            playable = write_playable(video, Path(folder.name) / "video.mp4")
            return str(playable), Run(scores, probe(playable).duration_s, Path(video).name, folder)
        except InputError as error:
            line = str(error).replace(video, Path(video).name)
            raise gr.Error(html.escape(line), duration=None, print_exception=False) from error

    def show(run: Run | None, own: bool, threshold: float, chosen: list[str]):
        """Find the events in the scores again: timeline, table and downloads."""
        if run is None:
            return "", "", None, None
        spots = spotter.spots([run.scores], threshold=None if own else threshold)
        spots = [spot for spot in spots if not chosen or spot["label"] in chosen]
        results, table = Path(run.folder.name) / RESULTS_FILE_NAME, Path(run.folder.name) / "events.csv"
        write_results(results, Path(run.name).stem, spots)
        write_csv(table, spots)
        return timeline(spots, run.duration_s), event_table(spots), str(results), str(table)

    with gr.Blocks(title="comedian", delete_cache=DELETE_CACHE_S) as app:
        gr.Markdown("# comedian: when does it happen?\nGive a video, find its events, click one to see it.")
        run = gr.State()
        with gr.Row():
            with gr.Column(scale=3):
                player = gr.Video(label="Video", interactive=False, height=360, elem_id="player")
                lines = gr.HTML(apply_default_css=False, css_template=CSS, js_on_load=ON_LOAD, elem_id="timeline")
            with gr.Column(scale=2):
                video = gr.File(label="Video, of any format", height=110, elem_id="upload")
                if examples := sorted((DEMO / "match").glob("*.mkv")):
                    gr.Examples([str(path) for path in examples], video, label="or one of these")
                button = gr.Button("Find events", variant="primary")
                with gr.Group():
                    has_own = spotter.config.label_thresholds is not None
                    own = gr.Checkbox(has_own, label="The model's own threshold for each label", interactive=has_own)
                    threshold = gr.Slider(0.05, 0.95, 0.4, step=0.01, label="One threshold for all", elem_id="limit")
                    labels = spotter.config.label_names
                    chosen = gr.Dropdown(labels, multiselect=True, label="Labels (none: all)", elem_id="labels")
                table = gr.HTML(apply_default_css=False, css_template=CSS, js_on_load=ON_LOAD, elem_id="table")
                with gr.Row():
                    json = gr.DownloadButton("Download JSON", size="sm", min_width=100)
                    csv = gr.DownloadButton("Download CSV", size="sm", min_width=100)

        views = [lines, table, json, csv]
        shown = {"fn": show, "inputs": [run, own, threshold, chosen], "outputs": views}
        # cleared first, so that no events of another video stand beside an error
        cleared = button.click(lambda: (None, None, "", "", None, None), None, [player, run, *views])
        cleared.then(find, video, [player, run]).success(**shown)
        threshold.input(lambda: False, None, own, show_progress="hidden")
        # of a slider in motion, the latest position is enough
        gr.on(
            [own.change, threshold.input, chosen.change], **shown, show_progress="hidden", trigger_mode="always_last"
        )
    return app


def write_playable(video: str | Path, path: Path) -> Path:
    """Write an MP4 that every browser plays and seeks in, whose time 0 is the first video frame.

    H.264 in Matroska or MP4 is copied with its AAC or MP3 sound; any other video is encoded, silent and at most
    `MAX_ENCODED_HEIGHT` high.
    """
    with open_video(video) as source:
        picture = source.streams.video[0]
        is_h264 = picture.codec.name == "h264" and picture.pix_fmt in ("yuv420p", "yuvj420p")
        if is_h264 and source.format.name.startswith(("matroska", "mov,mp4")):
            sound = [stream for stream in source.streams.audio if stream.codec.name in ("aac", "mp3")]
            timing = timing_of(video)
            try:
                if timing.can_seek:
                    return _copy(source, [picture, *sound[:1]], Fraction(timing.first_s), path)
            except av.error.FFmpegError:  # damaged: what can be decoded is encoded
                pass
    info = probe(video)
    height = min(info.height, MAX_ENCODED_HEIGHT) // 2 * 2
    rate = Fraction(info.fps).limit_denominator(1001)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        stream = None
        for _, frame in iter_frames(video, float(rate), height):
            if stream is None:
                stream = target.add_stream("libx264", rate, options={"preset": "veryfast"}, pix_fmt="yuv420p")
                stream.height, stream.width = frame.shape[:2]
            target.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        target.mux(stream.encode(None))
    return path


def _copy(source: InputContainer, streams: Sequence[Stream], start_s: Fraction, path: Path) -> Path:
    # Matroska keeps no decoding times, and of the first frames FFmpeg finds none: any before the first one's will do
    before = count(-MAX_REORDERED)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in streams}
        for packet in source.demux(streams):
            shift = round(start_s / packet.time_base)
            # what the first pictures refer to comes before them, and stays hidden
            if packet.pts is not None and (packet.pts >= shift or packet.stream is streams[0]):
                packet.pts -= shift
                packet.dts = next(before) if packet.dts is None else packet.dts - shift
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    return path


def timeline(spots: Sequence[dict], duration_s: float) -> str:
    """Return one line per label, with a button an event that is the fainter the lower its score."""
    step_s = next((step for step in TICKS_S if duration_s / step <= 10), TICKS_S[-1])
    rows = []
    for label in sorted({spot["label"] for spot in spots}):
        marks = "".join(
            f'<button data-time="{spot["timestamp_s"]:.2f}" '
            f'title="{html.escape(label)}, {clock(spot["timestamp_s"])}, score {spot["score"]:.2f}" '
            f'style="left: {100 * spot["timestamp_s"] / duration_s:.2f}%; opacity: {0.3 + 0.7 * spot["score"]:.2f}">'
            "</button>"
            for spot in spots
            if spot["label"] == label
        )
        rows.append(f'<div class="row"><span>{html.escape(label)}</span><div class="track">{marks}</div></div>')
    ticks = "".join(
        f'<span style="left: {100 * time_s / duration_s:.2f}%">{clock(time_s)[:-2]}</span>'
        for time_s in range(0, int(duration_s) + 1, step_s)
    )
    rows.append(f'<div class="row ticks"><span></span><div class="track">{ticks}</div></div>')
    return f'<div class="timeline">{"".join(rows)}<div class="head"></div></div>'


def event_table(spots: Sequence[dict]) -> str:
    """Return the events as a table, in order of time."""
    if not spots:
        return "<p>No event reaches the threshold.</p>"
    rows = "".join(
        f'<tr data-time="{spot["timestamp_s"]:.2f}"><td><button>{clock(spot["timestamp_s"])}</button></td>'
        f"<td>{html.escape(spot['label'])}</td>"
        f'<td><meter value="{spot["score"]:.3f}"></meter> {spot["score"]:.2f}</td></tr>'
        for spot in spots
    )
    head = "<tr><th>Time</th><th>Event</th><th>Score</th></tr>"
    return f'<div class="events"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def model_name() -> str:
    """Return what `COMEDIAN_MODEL` names, or the repository's demo model.

    Raises:
        InputError: there is neither.
    """
    if name := os.environ.get("COMEDIAN_MODEL"):
        return name
    if (DEMO / "model").is_dir():
        return str(DEMO / "model")
    raise InputError("the variable COMEDIAN_MODEL is not set; give it a folder or a Hub repository of a model")


if __name__ == "__main__":
    build_app(ActionSpotter.from_pretrained(model_name())).launch()

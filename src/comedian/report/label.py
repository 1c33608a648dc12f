"""`comedian label`: a page to label videos on, from nothing or from the events of a model."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av

from comedian.files import atomic_write_text
from comedian.inference.suggestions import Moment
from comedian.report.page import render_page
from comedian.report.spots import relative_url
from comedian.video.clips import write_copy
from comedian.video.decoding import open_video, probe, timing_of, video_stream
from comedian.video.frame_store import source_of

# containers and codecs that every current browser plays; Chromium plays H.264 in Matroska too
PLAYED_FORMATS = ("mov,mp4", "matroska,webm")
PLAYED_CODECS = ("h264", "vp8", "vp9", "av1")
PLAYED_PIXELS = ("yuv420p", "yuvj420p")
# of a video's name in that of its copy
MAX_STEM_LETTERS = 50


@dataclass(frozen=True)
class LabelEvent:
    """An event on the page.

    Attributes:
        video: index of its video.
        label: what happened.
        time_s: seconds after the video's first shown frame.
        score: of a model's event, else None.
        status: `confirmed`, or `proposed` for an event that is not reviewed.
        team: as in a file of events; empty for none.
        visibility: `visible` or `not shown`.
        comment: free text.
    """

    video: int
    label: str
    time_s: float
    score: float | None = None
    status: str = "confirmed"
    team: str = ""
    visibility: str = "visible"
    comment: str = ""


def write_label_page(
    path: str | Path,
    videos: dict[str, Path],
    labels: Sequence[str],
    events: Sequence[LabelEvent] = (),
    moments: Sequence[Moment] = (),
    progress: Callable[[str, float], Callable[[float], None]] = lambda name, duration_s: lambda time_s: None,
) -> list[Path]:
    """Write one self-contained page on which the events of videos are added, corrected and exported.

    Videos are not part of the page but named by their path from it. A video that browsers do not play gets a small copy in
    the folder `<page>_videos` beside the page, named after its content; a copy that is there already is kept.

    Args:
        path: the page, written atomically.
        videos: name of each video in exported files -> its file.
        labels: names to choose from; the page takes further ones.
        events: what is on the page at first.
        moments: where to look first.
        progress: called with a video's name and duration before it is copied; what it returns is called with the time
            reached, in seconds.

    Returns:
        The copies that were written.

    Raises:
        InputError: a video cannot be read or copied.
    """
    path = Path(path)
    copies: list[Path] = []
    described: list[dict[str, Any]] = []
    for name, video in videos.items():
        info, shown = probe(video), video
        if not is_playable(video):
            content = source_of(video)["blocks_sha256"]
            shown = path.with_name(f"{path.stem}_videos") / f"{video.stem[:MAX_STEM_LETTERS]}_{content[:12]}.mp4"
            if not shown.is_file():
                shown.parent.mkdir(parents=True, exist_ok=True)
                write_copy(shown, video, progress(name, info.duration_s))
                copies.append(shown)
        described.append(
            {
                "name": name,
                "src": relative_url(shown, path),
                "duration_s": info.duration_s,
                "fps": info.fps,
                "begin_s": timing_of(shown).player_offset_s,
            }
        )
    content = {
        "videos": described,
        "labels": list(labels),
        "events": [asdict(event) | {"time_s": round(event.time_s, 3)} for event in events],
        "moments": [asdict(moment) for moment in moments],
    }
    # work that is kept in the browser belongs to these videos and these first events
    sources = [source_of(video) for video in videos.values()]
    content["id"] = hashlib.sha256(json.dumps([content, sources], sort_keys=True).encode()).hexdigest()[:16]
    name = next(iter(videos)) if len(videos) == 1 else f"{len(videos)} videos"
    subtitle = f"{len(events)} events to begin with" if events else "no events yet"
    atomic_write_text(path, render_page("label.html", title=f"Label {name}", subtitle=subtitle, data=content))
    return copies


def is_playable(video: Path) -> bool:
    """Whether browsers play a video: by container, codec and pixel format.

    Raises:
        InputError: it is not a readable video.
    """
    with open_video(video) as container:
        codec: av.CodecContext = video_stream(container, video).codec_context
        return (
            container.format.name.startswith(PLAYED_FORMATS)
            and codec.codec.canonical_name in PLAYED_CODECS
            and codec.pix_fmt in PLAYED_PIXELS
        )

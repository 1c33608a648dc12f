"""`comedian spot --report`: the events of a match on a page, with player, timeline, score curves and export."""

import base64
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from comedian.errors import InputError, printable
from comedian.evaluation.exact_matching import match_spots
from comedian.files import atomic_write_text
from comedian.models.settings_comedian import ComedianSettings
from comedian.report.page import render_page
from comedian.report.pictures import jpeg_data_uri
from comedian.soccernet.annotations import Annotation, prediction_of
from comedian.video.decoding import frames_at, probe, timing_of

logger = logging.getLogger(__name__)

# what keeps the page of a long match with many candidates small: about 15 MB at the very most
MAX_SPOTS = 2000
MAX_PICTURES = 200
MAX_CURVE_POINTS = 4000
PICTURE_HEIGHT = 90
SOCCERNET_NAME = re.compile(r"(?P<date>\d{4}-\d{2}-\d{2}) - \d{2}-\d{2} (?P<teams>.+)")


def write_spots_report(
    path: str | Path,
    video_id: str,
    spots: Sequence[Mapping[str, Any]],
    scores: Mapping[int, np.ndarray],
    config: ComedianSettings,
    *,
    videos: Mapping[int, Path] | None = None,
    annotations: Sequence[Annotation] | None = None,
    tolerance_s: float = 5.0,
    progress: bool = False,
) -> None:
    """Write one self-contained page that shows the spots of a match.

    The `MAX_SPOTS` spots with the highest scores are shown, `MAX_PICTURES` of them with a picture, and up to `MAX_PICTURES`
    misses with a picture. Videos are linked by their path relative to the page, not copied. With annotations, the page
    shows hits, misses and false alarms as [`match_spots`] determines them; labels that the model does not have and halves
    without scores are not counted.

    Args:
        path: the page; it is written atomically.
        video_id: the match's name.
        spots: `label`, `timestamp_s`, `half` and `score`.
        scores: half -> stitched scores at the configuration's `score_rate`, float `(num_steps, num_labels)` in [0, 1].
        config: labels and time grid of the scores.
        videos: half -> its video, of as many halves as have one.
        annotations: the ground truth.
        tolerance_s: full width of the window in which a spot is a hit, in seconds.
        progress: show a bar while the pictures are made.
    """
    in_time = sorted(spots, key=lambda spot: (spot["half"], spot["timestamp_s"]))
    by_score = sorted(range(len(in_time)), key=lambda index: -in_time[index]["score"])
    shown = [in_time[index] for index in sorted(by_score[:MAX_SPOTS])]
    labels = {label: index for index, label in enumerate(config.label_names)}
    known = [found for found in annotations or () if found.label in labels and found.half in scores]
    pairs = match_spots(shown, known, tolerance_s)
    missed = [annotation for annotation, index in zip(known, pairs, strict=True) if index is None]
    instants = [(in_time[index]["half"], in_time[index]["timestamp_s"]) for index in by_score[:MAX_PICTURES]]
    instants += [(annotation.half, annotation.timestamp_s) for annotation in missed[:MAX_PICTURES]]
    pictures = _pictures(instants, videos or {}, progress)
    data = {
        "video_id": video_id,
        "labels": config.label_names,
        "halves": [_half(half, scores[half], config, (videos or {}).get(half), Path(path)) for half in sorted(scores)],
        "spots": [
            {
                "label": labels[spot["label"]],
                "half": spot["half"],
                "timestamp_s": spot["timestamp_s"],
                "score": float(spot["score"]),
                "prediction": prediction_of(spot),
                "picture": pictures.get((spot["half"], spot["timestamp_s"])),
            }
            for spot in shown
        ],
        "truths": None
        if annotations is None
        else [
            {
                "label": labels[annotation.label],
                "half": annotation.half,
                "timestamp_s": annotation.timestamp_s,
                "visibility": annotation.visibility,
                "spot": index,
                "picture": pictures.get((annotation.half, annotation.timestamp_s)),
            }
            for annotation, index in zip(known, pairs, strict=True)
        ],
        "tolerance_s": tolerance_s,
    }
    most = f"the {len(shown)} best of " if len(shown) < len(spots) else ""
    parts = f"{len(scores)} halves" if len(scores) > 1 else "one video"
    title, more = title_of(video_id)
    subtitle = " · ".join([*more, f"{most}{len(spots)} events in {parts}, found by comedian"])
    atomic_write_text(path, render_page("spots.html", title=title, subtitle=subtitle, data=data))


def _half(half: int, scores: np.ndarray, config: ComedianSettings, video: Path | None, page: Path) -> dict[str, Any]:
    """What the page needs of a half; a label's curve is bytes in base64, the highest score of each `curve_step_s`."""
    steps_per_point = max(1, -(-len(scores) // MAX_CURVE_POINTS))
    missing = -len(scores) % steps_per_point
    padded = np.pad(scores, ((0, missing), (0, 0)))
    points = padded.reshape(-1, steps_per_point, scores.shape[1]).max(axis=1)
    curves = np.rint(255 * points.clip(0, 1)).astype(np.uint8)
    return {
        "half": half,
        "duration_s": len(scores) / config.score_rate,
        "video": video
        and {"name": video.name, "src": relative_url(video, page), "offset_s": _offset_s(video), "fps": _fps(video)},
        # the mean of its steps' times; of steps shorter than a frame, the first is before the first frame
        "curve_begin_s": steps_per_point / 2 / config.score_rate - 0.5 / config.fps,
        "curve_step_s": steps_per_point / config.score_rate,
        "curves": [base64.b64encode(np.ascontiguousarray(curve).data).decode() for curve in curves.T],
    }


def title_of(video_id: str) -> tuple[str, list[str]]:
    """Return what to call a match, and what else its name says, such as league, season and date.

    SoccerNet's `england_epl/2014-2015/2015-02-21 - 18-00 Chelsea 1 - 1 Burnley` is `Chelsea 1 - 1 Burnley`; any other
    match is called as its folder or video.
    """
    *folders, name = video_id.split("/")
    if found := SOCCERNET_NAME.fullmatch(name):
        return found["teams"], [*(folder.replace("_", " ") for folder in folders), found["date"]]
    return name, folders


def _fps(video: Path) -> float:
    try:
        return probe(video).fps
    except InputError:
        # the page has a note in place of its pictures
        return 25.0


def _offset_s(video: Path) -> float:
    """When players show the first frame."""
    try:
        return timing_of(video).player_offset_s
    except InputError as error:
        logger.warning("the times of the player are those of the page: %s", error)
        return 0.0


def relative_url(video: Path, page: Path) -> str:
    """Address of a video as the page's own folder sees it."""
    try:
        relative = os.path.relpath(video.absolute(), page.absolute().parent)
    except ValueError:  # another drive of Windows
        return video.absolute().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def _pictures(
    instants: Sequence[tuple[int, float]], videos: Mapping[int, Path], progress: bool
) -> dict[tuple[int, float], str]:
    """Instant, `(half, timestamp_s)` -> its picture, as far as the videos can be decoded."""
    pictures = {}
    for half, video in videos.items():
        times_s = sorted({time_s for instant_half, time_s in instants if instant_half == half})
        frames = frames_at(video, times_s, PICTURE_HEIGHT)
        bar = tqdm(times_s, f"pictures of {printable(video.name)}", unit="picture", disable=not progress)
        try:
            for time_s, frame in zip(bar, frames):
                pictures[half, time_s] = jpeg_data_uri(frame)
        except InputError as error:
            logger.warning("pictures are missing: %s", error)
    return pictures

"""Spots as files that others read: CSV for tables, a zip for SoccerNet's challenge server."""

import csv
import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from comedian.files import atomic_path, atomic_write_text
from comedian.sharing import alone_at
from comedian.soccernet.annotations import (
    OFFICIAL_HALF_LENGTH_MS,
    OFFICIAL_HALVES,
    game_time,
    position_ms_of,
    write_results,
)
from comedian.soccernet.layout import RESULTS_FILE_NAME

CSV_COLUMNS = ("half", "label", "timestamp_s", "game_time", "score")


def write_csv(path: str | Path, spots: Iterable[Mapping[str, Any]]) -> None:
    """Write spots as CSV with the columns `CSV_COLUMNS`, one row a spot."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for spot in spots:
        clock = game_time(spot["half"], position_ms_of(spot["timestamp_s"]))
        # milliseconds: a sum of floats is not written as 10.600000000000001
        writer.writerow([spot["half"], spot["label"], round(spot["timestamp_s"], 3), clock, spot["score"]])
    atomic_write_text(path, text.getvalue())


def num_outside_official_limits(spots: Iterable[Mapping[str, Any]]) -> int:
    """Count the spots outside two halves of 120 minutes, which SoccerNet's own scorer cannot hold."""
    return sum(
        spot["half"] not in OFFICIAL_HALVES or position_ms_of(spot["timestamp_s"]) >= OFFICIAL_HALF_LENGTH_MS
        for spot in spots
    )


def write_results_zip(path: str | Path, matches: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Write the spots of matches as SoccerNet's challenge server takes them: `<video_id>/results_spotting.json` each."""
    with (
        # jobs that shared the work end together
        alone_at(Path(path)),
        atomic_path(path) as partial,
        TemporaryDirectory() as scratch,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for video_id, spots in matches.items():
            results = Path(scratch) / RESULTS_FILE_NAME
            write_results(results, video_id, spots)
            # without the time of day, so that equal spots are equal files
            entry = zipfile.ZipInfo(str(PurePosixPath(video_id) / RESULTS_FILE_NAME))
            archive.writestr(entry, results.read_bytes(), zipfile.ZIP_DEFLATED)

"""Several videos, each spotted on its own: one file of events a video in a folder, resumable.

`spot.json` in the folder holds the settings that the events were found with, and the video that each file is of. So a
repetition does only what is missing, and events of other settings are never mixed with them.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from comedian.errors import InputError, printable
from comedian.files import atomic_write_text, inside, read_json
from comedian.inference.score_files import check_owners, score_matches
from comedian.inference.spotter import ActionSpotter, spots_of_match
from comedian.models.settings_comedian import ComedianSettings
from comedian.soccernet.annotations import write_results
from comedian.video.decoding import probe
from comedian.video.frame_store import same_source, source_of

RECORD_FILE_NAME = "spot.json"
# fields of a configuration that decide which events are reported
REPORTING = ("nms_type", "nms_window_s", "label_thresholds", "label_calibration")
# what is named in one message
MAX_NAMED = 5


@dataclass(frozen=True)
class ManyVideos:
    """One `comedian spot` of several videos.

    Attributes:
        videos: name of each, as in its file of events -> the video; see [`name_videos`].
        folder: where the files of events go.
        keep_all: keep every candidate.
        threshold: smallest score of an event; see [`spots_of_match`] for both.
        save_scores: folder for raw scores.
        window_stride_s: save the scores of windows so many seconds apart, too.
    """

    videos: Mapping[str, Path]
    folder: Path
    keep_all: bool = False
    threshold: float | str | None = None
    save_scores: Path | None = None
    window_stride_s: float | None = None


@dataclass
class Spotted:
    """What became of several videos.

    Attributes:
        files: name of a video -> its file of events, those of an earlier run too.
        num_found: events that are in these files.
        num_kept: files that were there already.
        failed: name of a video -> why it has no events.
    """

    files: dict[str, Path] = field(default_factory=dict)
    num_found: int = 0
    num_kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def name_videos(paths: Sequence[Path], folder: Path | None = None) -> dict[str, Path]:
    """Return name -> video; the names are relative to the folder that holds all of them, as `--videos FOLDER` takes them.

    Args:
        paths: the videos.
        folder: what the names are relative to; by default the deepest folder that holds all videos.

    Raises:
        InputError: a video does not exist, or is given twice.
    """
    for path in paths:
        if not path.is_file():
            raise InputError(f"`{path}` does not exist or is not a file; give videos")
    folder = folder or Path(os.path.commonpath([path.absolute().parent for path in paths]))
    names = [Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix() for path in paths]
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"`{name}` is given twice; give each video once")
    return dict(zip(names, paths, strict=True))


def event_files(names: Sequence[str], folder: Path) -> dict[str, Path]:
    """Return name of a video -> its file: `friday.json`, or `friday.mp4.json` where `friday.json` has another meaning.

    Raises:
        InputError: a video without an ending has the name of the record.
    """
    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    taken = Counter(text.casefold() for text in (*stems.values(), *names, PurePosixPath(RECORD_FILE_NAME).stem))
    files = {}
    for name, stem in stems.items():
        # a name without an ending is its own stem
        is_own = taken[stem.casefold()] == 1 + (stem == name)
        files[name] = folder / f"{stem if is_own else name}.json"
        if files[name] == folder / RECORD_FILE_NAME:
            raise InputError(f"`{name}`: its events would replace the record `{files[name]}`; rename the video")
    return files


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but the events of an earlier run.

    Raises:
        InputError: it does, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`{folder}` is a file; several videos have their events in a folder, one file each")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD_FILE_NAME).is_file():
        raise InputError(f"`{folder}` holds other things; give a new folder for the events")


def spot_videos(
    run: ManyVideos,
    spotter: ActionSpotter,
    config: ComedianSettings,
    restart: bool = False,
) -> Spotted:
    """Spot each video on its own, but for those whose events an earlier run of the same settings has written.

    A video that cannot be decoded does not keep the others from being spotted.

    Args:
        run: the videos and how they are spotted.
        spotter: the models.
        config: suppression, thresholds and calibration.
        restart: spot all videos anew where an earlier run had other settings.

    Raises:
        InputError: the folder holds events of other settings and `restart` is not set, events of other videos under the
            same names, or other things.
    """
    check_folder(run.folder)
    matches = {name: {1: video} for name, video in run.videos.items()}
    if run.save_scores:
        check_owners(run.save_scores, matches)
    settings = _settings(run, spotter, config)
    record = _read_record(run.folder, settings, restart)
    spotted = Spotted(event_files(list(run.videos), run.folder))
    _check_owners(run, record, spotted.files)
    pending = []
    for name, video in run.videos.items():
        before = record["videos"].get(name, {})
        file = spotted.files[name]
        if (
            before.get("video") == source_of(video)
            and before.get("events") == _name_in(run.folder, file)
            and file.is_file()
        ):
            spotted.num_kept += 1
            spotted.num_found += before["num_events"]
        else:
            pending.append(name)
    durations_s = {name: _duration_s(run.videos[name]) for name in pending}
    bar = tqdm(
        total=round(sum(durations_s.values())), desc=f"{len(pending)} videos", unit="s of video", disable=not pending
    )
    with bar:
        for name in pending:
            # before it is read: a file that is still being written has other contents afterwards
            source = source_of(run.videos[name])
            try:
                scores = score_matches(
                    spotter, {name: matches[name]}, run.save_scores, progress=True, window_stride_s=run.window_stride_s
                )
            except InputError as error:
                spotted.failed[name] = str(error)
                del spotted.files[name]
                bar.update(round(durations_s[name]))
                continue
            events = spots_of_match(scores[name], config, keep_all=run.keep_all, threshold=run.threshold)
            file = spotted.files[name]
            _remove_events(run.folder, record["videos"].get(name, {}))
            write_results(file, name, events)
            place, path = _name_in(run.folder, file), str(run.videos[name].absolute())
            entry = {"video": source, "path": path, "events": place, "num_events": len(events)}
            _write_record(run.folder, record, name, entry)
            spotted.num_found += len(events)
            bar.update(round(durations_s[name]))
            tqdm.write(f"{file}: {len(events)} events in {printable(name)}")
    return spotted


def _check_owners(run: ManyVideos, record: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    """Raise `InputError` if a file holds the events of another video, with another path and content."""
    owners = {entry.get("events"): entry for entry in record["videos"].values()}
    for name, video in run.videos.items():
        owner = owners.get(_name_in(run.folder, files[name]))
        if owner is None or not files[name].is_file() or owner.get("path") == str(video.absolute()):
            continue
        if not same_source(owner.get("video", {}), source_of(video)):
            raise InputError(
                f"`{files[name]}` has the events of `{owner.get('path')}`, not of `{video}`; give another `--output`"
            )


def _write_record(folder: Path, record: dict[str, Any], name: str, entry: Mapping[str, Any]) -> None:
    """Record the events of a video, which may have had another name."""
    videos = record["videos"]
    others = {other: videos[other] for other in videos if videos[other].get("events") != entry["events"]}
    record["videos"] = others | {name: entry}
    atomic_write_text(folder / RECORD_FILE_NAME, json.dumps(record, indent=1) + "\n")


def _remove_events(folder: Path, recorded: Mapping[str, Any]) -> None:
    """Delete the file of a video's earlier events, which may have another name than now."""
    if recorded.get("events"):
        inside(folder, recorded["events"]).unlink(missing_ok=True)


def _name_in(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


def _duration_s(video: Path) -> float:
    try:
        return probe(video).duration_s
    except InputError:
        # told when its turn comes
        return 0.0


def _settings(run: ManyVideos, spotter: ActionSpotter, config: ComedianSettings) -> dict[str, Any]:
    """What the events depend on, beside the videos, as JSON holds it."""
    fields = config.to_dict()
    settings = {"models": spotter.fingerprint, "keep_all": run.keep_all, "threshold": run.threshold}
    settings |= {name: fields.get(name) for name in REPORTING}
    return json.loads(json.dumps(settings))


def _read_record(folder: Path, settings: Mapping[str, Any], restart: bool) -> dict[str, Any]:
    """The record of an earlier run of the same settings, or an empty one."""
    path = folder / RECORD_FILE_NAME
    empty = {"settings": dict(settings), "videos": {}}
    if not path.is_file():
        return empty
    record = read_json(path)
    if not isinstance(record, dict) or not all(isinstance(record.get(name), dict) for name in empty):
        raise InputError(f"`{path}` is not the record of spotted videos; give another folder")
    before = record["settings"]
    changed = [name for name in dict.fromkeys([*before, *settings]) if before.get(name) != settings.get(name)]
    if not changed:
        return record
    if restart:
        for recorded in record["videos"].values():
            _remove_events(folder, recorded)
        return empty
    raise InputError(
        f"`{folder}` holds events of other settings ({', '.join(changed)}); give another `--output`, or spot all videos "
        "anew with `--restart`"
    )

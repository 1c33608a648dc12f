"""`SoccerNet`: a folder of matches -> `datasets`, one row a half.

`datasets` no longer runs loading scripts, so the class is the script:

    builder = SoccerNet(data_dir="data/SoccerNet", config_name="action-spotting")
    builder.download_and_prepare()
    halves = builder.as_dataset()  # train, validation, test, challenge: what is on disk
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError

from comedian.data.annotations import (
    BALL_LABELS_2,
    BALL_LABELS_12,
    SOCCERNET_V2_LABELS,
    check_label_list,
    find_halves,
    find_label_file,
    find_matches,
    read_annotations,
)
from comedian.data.decoding import probe
from comedian.data.download import Selection, fetch, plan_download
from comedian.data.official_splits import SPLIT_NAMES, SPLITS_FILE_NAME, official_splits, split_name
from comedian.errors import InputError
from comedian.files import comparable, existing, read_json

logger = logging.getLogger(__name__)

SOCCERNET_LEAGUES = frozenset(
    (
        "england_efl",  # ball action spotting
        "england_epl",
        "europe_uefa-champions-league",
        "france_ligue-1",
        "germany_bundesliga",
        "italy_serie-a",
        "spain_laliga",
    )
)


@dataclass(frozen=True)
class Match:
    """One match on disk.

    Attributes:
        video_id: the match's folder relative to the data root.
        label_path: its label file, or None where labels are kept back.
        videos: half -> video.
    """

    video_id: str
    label_path: Path | None
    videos: dict[int, Path]


@dataclass
class SoccerNetConfig(datasets.BuilderConfig):
    """What to read from `data_dir`, the folder that holds the matches.

    Attributes:
        labels: the labels to keep; None keeps all.
        label_file: the label file's name in each match; None takes the first of `annotations.LABEL_FILE_NAMES` that is
            there.
        splits: a JSON file, split -> list of match folders; "auto" looks for `splits.json` in `data_dir`, then for split
            folders (`train`, `valid`, ...), then, where the leagues are SoccerNet's, in the lists of the `SoccerNet`
            package. Without any of them all matches are in `train`.
        quality: which video to take where a half has several, such as "720p"; None takes the smallest picture.
        download: what to fetch from the Hub into `data_dir` first, where it is missing; None fetches nothing. As the cache
            is named after the contents, it is fetched when the builder is made.
        contents: fingerprint of labels, videos and splits, filled in by the builder.
    """

    labels: Sequence[str] | None = None
    label_file: str | None = None
    splits: str = "auto"
    quality: str | None = None
    download: Selection | None = None
    contents: str = ""

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name the cache folder after everything that the rows depend on, so that a change on disk finds no cache."""
        if self.download is not None:
            fetch(plan_download(self.root, self.download))
        self.contents = self.fingerprint()
        return super().create_config_id({"contents": self.contents}, custom_features)

    @property
    def root(self) -> Path:
        """The data root, absolute.

        Raises:
            InputError: `data_dir` was not given.
        """
        if self.data_dir is None:
            raise InputError("`data_dir` is missing; give the folder that holds the matches")
        return Path(self.data_dir).absolute()

    def fingerprint(self) -> str:
        """Hash the labels asked for, the label files' text, and the videos' absolute path, size and time of change."""
        seen: list[Any] = [None if self.labels is None else list(self.labels)]
        for split, matches in self.matches().items():
            for match in matches:
                labels = match.label_path and hashlib.sha256(match.label_path.read_bytes()).hexdigest()
                seen.append([split, match.video_id, str(match.label_path), labels])
                for half, path in match.videos.items():
                    stat = path.stat()
                    seen.append([half, str(path), stat.st_size, stat.st_mtime_ns])
        return hashlib.sha256(json.dumps(seen).encode()).hexdigest()

    def matches(self) -> dict[str, list[Match]]:
        """Return split -> matches with a video on disk, both in a fixed order.

        Raises:
            InputError: there is no match, a listed one is missing, or a half's video cannot be chosen.
        """
        if self.labels is not None:
            check_label_list(self.labels, "`labels`")
        matches = {
            split: [match for match in map(self._match, video_ids) if match.videos]
            for split, video_ids in find_splits(self.root, self.splits, self.label_file).items()
        }
        matches = {split: found for split, found in matches.items() if found}
        if not matches:
            raise InputError(f"`{self.root}` holds no match with a video; videos are named such as `1_224p.mkv`")
        return matches

    def _match(self, video_id: str) -> Match:
        folder = self.root / video_id
        match = Match(video_id, find_label_file(folder, self.label_file), find_halves(folder, self.quality))
        if match.label_path is None and (other := find_label_file(folder)):
            _warn_once(f"`{folder}` has {other.name} and no {self.label_file}: its labels are not read")
        if not match.videos:
            _warn_once(f"`{folder}` holds no video: left out")
        return match


class SoccerNet(datasets.GeneratorBasedBuilder):
    """Builder of one row a half from a folder laid out as SoccerNet's.

    Without a `config_name` all labels are kept, or those in `labels`; see `SoccerNetConfig` for the arguments. Rows have
    `video_id`, `half`, `video_path` (absolute), `duration_s`, `fps` (the video's own), `annotated` (False where labels
    are kept back, as in the challenge) and `events` with `label`, `position_ms`, `team` and `visibility`.

    The cache is keyed by the contents of the folder: when a label file, a video or the splits change, a new builder
    builds anew.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = SoccerNetConfig
    BUILDER_CONFIGS = [
        SoccerNetConfig("action-spotting", VERSION, labels=SOCCERNET_V2_LABELS, label_file="Labels-v2.json"),
        SoccerNetConfig("ball-action-spotting-2", VERSION, labels=BALL_LABELS_2, label_file="Labels-ball.json"),
        SoccerNetConfig("ball-action-spotting-12", VERSION, labels=BALL_LABELS_12, label_file="Labels-ball.json"),
    ]

    def download_and_prepare(self, *args, **kwargs) -> None:
        """Write the rows to the cache, unless they are there; the arguments are those of `datasets`.

        Raises:
            InputError: a label file or a video cannot be read, or they changed since the builder was made.
        """
        if self.config.fingerprint() != self.config.contents:
            raise InputError(f"`{self.config.root}` changed since this builder was made; make a new one")
        try:
            super().download_and_prepare(*args, **kwargs)
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, InputError):
                raise error.__cause__ from None
            raise

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Halves of sports matches with their events, laid out as SoccerNet.",
            homepage="https://www.soccer-net.org",
            features=datasets.Features(
                {
                    "video_id": datasets.Value("string"),
                    "half": datasets.Value("int32"),
                    "video_path": datasets.Value("string"),
                    "duration_s": datasets.Value("float64"),
                    "fps": datasets.Value("float64"),
                    "annotated": datasets.Value("bool"),
                    "events": datasets.List(
                        {
                            "label": datasets.Value("string"),
                            "position_ms": datasets.Value("int64"),
                            "team": datasets.Value("string"),
                            "visibility": datasets.Value("string"),
                        }
                    ),
                }
            ),
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"matches": matches})
            for split, matches in self.config.matches().items()
        ]

    def _generate_examples(self, matches: list[Match]) -> Iterator[tuple[str, dict[str, Any]]]:
        for match in matches:
            annotations = read_annotations(match.label_path, self.config.labels) if match.label_path else []
            without_video = {annotation.half for annotation in annotations} - match.videos.keys()
            if without_video:
                logger.warning("`%s`: no video for annotated half %s", match.label_path, sorted(without_video))
            for half, path in match.videos.items():
                info = probe(path)
                yield (
                    f"{match.video_id}/{half}",
                    {
                        "video_id": match.video_id,
                        "half": half,
                        "video_path": str(path),
                        "duration_s": info.duration_s,
                        "fps": info.fps,
                        "annotated": match.label_path is not None,
                        "events": [
                            {
                                "label": annotation.label,
                                "position_ms": annotation.position_ms,
                                "team": annotation.team,
                                "visibility": annotation.visibility,
                            }
                            for annotation in annotations
                            if annotation.half == half
                        ],
                    },
                )


def find_splits(root: Path, splits: str = "auto", label_file: str | None = None) -> dict[str, list[str]]:
    """Return split -> match folders relative to `root`; `SoccerNetConfig.splits` tells where from.

    Raises:
        InputError: `root` is no folder, the split file is malformed or names a missing match, or SoccerNet's own lists are
            needed and cannot be had.
    """
    if splits != "auto":
        return _splits_of_file(root, Path(splits))
    if (root / SPLITS_FILE_NAME).is_file():
        return _splits_of_file(root, root / SPLITS_FILE_NAME)
    video_ids = find_matches(root)
    if any((root / folder).is_dir() for folder in SPLIT_NAMES):
        splits_of_folders = ((SPLIT_NAMES.get(video_id.split("/")[0]), video_id) for video_id in video_ids)
        return _group(splits_of_folders, root, "in no split folder")
    if any(video_id.split("/")[0] in SOCCERNET_LEAGUES for video_id in video_ids):
        official = official_splits(label_file)
        return _group(
            ((official.get(comparable(video_id)), video_id) for video_id in video_ids),
            root,
            "in none of SoccerNet's lists",
        )
    return {"train": video_ids}


def matches_of_splits(root: Path, names: Sequence[str] | None = None, splits: str = "auto") -> list[str]:
    """Return the match folders of the named splits, relative to `root`; all matches where none is named.

    `splits` tells where the splits come from, see `SoccerNetConfig.splits`.

    Raises:
        InputError: `root` is no folder, or has no such split.
    """
    if not names:
        return find_matches(root)
    found = find_splits(root, splits)
    names = [split_name(name) for name in names]
    for name in names:
        if name not in found:
            raise InputError(f"`{root}` has no split {name!r}; it has {', '.join(found)}")
    return [video_id for name in dict.fromkeys(names) for video_id in found[name]]


def _splits_of_file(root: Path, path: Path) -> dict[str, list[str]]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(names, list) for names in content.values()):
        raise InputError(f"`{path}` must hold one object, split -> list of match folders")
    splits: dict[str, list[str]] = {}
    listed = set()
    for name, folders in content.items():
        split = split_name(name)
        if not re.fullmatch(r"\w+", split):
            raise InputError(f"`{path}`: {name!r} is no name for a split; use train, validation, test or challenge")
        for folder in folders:
            match_dir = existing(root, str(folder))
            video_id = match_dir.relative_to(root).as_posix()
            if not match_dir.is_dir():
                raise InputError(f"`{path}` lists {folder!r} in {name}, and there is no folder `{match_dir}`")
            if video_id in listed:
                raise InputError(f"`{path}` lists {folder!r} more than once")
            listed.add(video_id)
            splits.setdefault(split, []).append(video_id)
    return splits


def _group(splits_of_matches: Iterable[tuple[str | None, str]], root: Path, where: str) -> dict[str, list[str]]:
    """Collect matches by split, in the usual order of splits; those without one are left out and named in the log."""
    splits: dict[str | None, list[str]] = {split: [] for split in SPLIT_NAMES.values()}
    for split, video_id in splits_of_matches:
        splits.setdefault(split, []).append(video_id)
    if left_out := splits.pop(None, []):
        _warn_once(f"`{root}`: {len(left_out)} matches left out, {where}, such as `{left_out[0]}`")
    return splits


@cache
def _warn_once(message: str) -> None:
    """Warn of what is seen again each time that the folder is read for one builder."""
    logger.warning(message)

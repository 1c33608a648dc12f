"""`SoccerNet`: a folder of matches -> `datasets`, one row per half.

`datasets` no longer runs loading scripts; use the class directly:

    builder = SoccerNet(data_dir="data/SoccerNet", config_name="action-spotting")
    builder.download_and_prepare()
    halves = builder.as_dataset()  # the splits on disk: train, validation, test, challenge
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError

from comedian.errors import InputError
from comedian.soccernet.annotations import read_annotations
from comedian.soccernet.download import Selection, fetch, plan_download
from comedian.soccernet.labels import BALL_LABELS_2, BALL_LABELS_12, SOCCERNET_V2_LABELS, check_label_list
from comedian.soccernet.layout import find_halves, find_label_file
from comedian.soccernet.splits import (
    find_splits,
    warn_once,
)
from comedian.video.decoding import probe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Match:
    """One match on disk.

    Attributes:
        video_id: the match's folder relative to the data root.
        label_path: its label file, or None if its labels are not public.
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
        label_file: the label file's name in each match; None takes the first of `annotations.LABEL_FILE_NAMES` that
            exists.
        splits: a JSON file, split -> list of match folders; "auto" looks for `splits.json` in `data_dir`, then for split
            folders (`train`, `valid`, ...), then, if the leagues are SoccerNet's, in the lists of the `SoccerNet`
            package. Without any of them all matches are in `train`.
        quality: which video to use if a half has several, such as "720p"; None takes the smallest picture size.
        download: what to download from the Hub into `data_dir` first, if it is missing; None downloads nothing. The
            download takes place when the builder is created, because the name of the cache depends on the contents.
        contents: fingerprint of labels, videos and splits, filled in by the builder.
    """

    labels: Sequence[str] | None = None
    label_file: str | None = None
    splits: str = "auto"
    quality: str | None = None
    download: Selection | None = None
    contents: str = ""

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Name the cache folder after everything that the rows depend on, so that a change on disk invalidates the
        cache."""
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
        """Hash the requested labels, the text of the label files, and the absolute path, size and modification time of
        the videos."""
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
            InputError: there is no match, a listed one is missing, or the video of a half is ambiguous.
        """
        if self.labels is not None:
            check_label_list(self.labels, "`labels`")
        matches = {
            split: [match for match in map(self._match, video_ids) if match.videos]
            for split, video_ids in find_splits(self.root, self.splits, self.label_file).items()
        }
        matches = {split: found for split, found in matches.items() if found}
        if not matches:
            raise InputError(f"`{self.root}` contains no match with a video; videos have names such as `1_224p.mkv`")
        return matches

    def _match(self, video_id: str) -> Match:
        folder = self.root / video_id
        match = Match(video_id, find_label_file(folder, self.label_file), find_halves(folder, self.quality))
        if match.label_path is None and (other := find_label_file(folder)):
            warn_once(f"`{folder}` has {other.name} but no {self.label_file}: its labels are not read")
        if not match.videos:
            warn_once(f"`{folder}` has no video and is omitted")
        return match


class SoccerNet(datasets.GeneratorBasedBuilder):
    """Dataset builder with one row per half, from a folder in SoccerNet's layout.

    Without a `config_name` all labels are kept, or those in `labels`; see `SoccerNetConfig` for the arguments. Rows have
    `video_id`, `half`, `video_path` (absolute), `duration_s`, `fps` (the video's own), `annotated` (False if the
    labels are not public, as in the challenge) and `events` with `label`, `position_ms`, `team` and `visibility`.

    The cache is keyed by the contents of the folder: when a label file, a video or the splits change, a new builder
        rebuilds the cache.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = SoccerNetConfig
    BUILDER_CONFIGS = [
        SoccerNetConfig("action-spotting", VERSION, labels=SOCCERNET_V2_LABELS, label_file="Labels-v2.json"),
        SoccerNetConfig("ball-action-spotting-2", VERSION, labels=BALL_LABELS_2, label_file="Labels-ball.json"),
        SoccerNetConfig("ball-action-spotting-12", VERSION, labels=BALL_LABELS_12, label_file="Labels-ball.json"),
    ]

    def download_and_prepare(self, *args, **kwargs) -> None:
        """Write the rows to the cache, unless they exist; the arguments are those of `datasets`.

        Raises:
            InputError: a label file or a video cannot be read, or they changed since the builder was created.
        """
        if self.config.fingerprint() != self.config.contents:
            raise InputError(f"`{self.config.root}` changed since this builder was created; create a new one")
        try:
            super().download_and_prepare(*args, **kwargs)
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, InputError):
                raise error.__cause__ from None
            raise

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Halves of sports matches with their events, in SoccerNet's layout.",
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

"""Push the annotations of a data set, and optionally features, to the Hugging Face Hub as Parquet, without the videos.

push_dataset(SoccerNet(data_dir="data/mine"), "me/my-matches", features="banks/mine")
datasets.load_dataset("me/my-matches")
"""

import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard, DatasetCardData, HfApi

from comedian.features.bank import FeatureBank
from comedian.hub.model_card import cell
from comedian.hub_errors import hub_errors, hub_url
from comedian.soccernet.builder import SoccerNet

# of a Parquet file in memory
MAX_SHARD_BYTES = 500_000_000


def push_dataset(
    builder: SoccerNet,
    repo_id: str,
    *,
    private: bool = True,
    features: str | Path | None = None,
    license: str = "other",
) -> str:
    """Push a data set in one commit; what the repository held under `data/` goes.

    Rows are the builder's, with the video's name in place of its path. With `features` they also have `features`
    `(num_features, dim)`, `feature_fps` and `feature_offset_s`: feature `i` stands for `feature_offset_s + i /
    feature_fps` seconds from the first video frame.

    Args:
        builder: what to push; it is prepared if need be.
        repo_id: `<user>/<name>`; created if it does not exist.
        private: who may see a repository that is made now; only its owner by default.
        features: a feature bank with every half of the data set.
        license: of annotations and features, as the Hub names it.

    Returns:
        The address of the data set.

    Raises:
        InputError: the data set or the bank cannot be read, a half is not in the bank, or the Hub denies access.
    """
    builder.download_and_prepare()
    bank = FeatureBank(features) if features is not None else None
    splits = {name: _published(rows, bank) for name, rows in builder.as_dataset().items()}
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in splits.items():
            _write_parquet(rows, Path(folder) / "data", name)
        _card(repo_id, splits, bank, license).save(Path(folder) / "README.md")
        _upload(Path(folder), repo_id, private)
    return hub_url(repo_id)


def _upload(folder: Path, repo_id: str, private: bool) -> None:
    api = HfApi(library_name="comedian")
    with hub_errors(repo_id):
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            delete_patterns="data/*",
            commit_message="Push with comedian",
        )


def _published(rows: datasets.Dataset, bank: FeatureBank | None) -> datasets.Dataset:
    """Put the video's name in place of its path, which is private, and add the features."""
    schema = {"video" if name == "video_path" else name: feature for name, feature in rows.features.items()}
    if bank is not None:
        schema["features"] = datasets.Array2D((None, bank.first.dim), bank.first.dtype)
        schema |= {name: datasets.Value("float64") for name in ("feature_fps", "feature_offset_s")}

    def publish(row: dict) -> dict:
        published: dict[str, Any] = {"video": Path(row["video_path"]).name}
        if bank is not None:
            half = bank.open(row["video_id"], row["half"])
            published["features"] = half.read(0, half.num_features).astype(half.dtype)
            published |= {"feature_fps": half.fps, "feature_offset_s": half.offset_s}
        return published

    return rows.map(
        publish,
        remove_columns="video_path",
        features=datasets.Features(schema),
        writer_batch_size=8,
        load_from_cache_file=False,  # a bank may have changed under its name
    )


def _write_parquet(rows: datasets.Dataset, folder: Path, split: str) -> None:
    folder.mkdir(exist_ok=True)
    num_shards = min(len(rows), math.ceil(rows.data.nbytes / MAX_SHARD_BYTES))
    for index in range(num_shards):
        shard = rows.shard(num_shards, index, contiguous=True)
        shard.to_parquet(folder / f"{split}-{index:05d}-of-{num_shards:05d}.parquet")


def _card(repo_id: str, splits: dict[str, datasets.Dataset], bank: FeatureBank | None, license: str) -> DatasetCard:
    data_files = [{"split": name, "path": f"data/{name}-*"} for name in splits]
    metadata = DatasetCardData(
        license=license,
        pretty_name=repo_id.split("/")[-1],
        task_categories=["video-classification"],
        tags=["action-spotting", "sports", "comedian"],
        configs=[{"config_name": "default", "data_files": data_files}],
    )
    info = datasets.DatasetInfo(
        features=next(iter(splits.values())).features,
        splits=[
            {"name": name, "num_bytes": rows.data.nbytes, "num_examples": len(rows)} for name, rows in splits.items()
        ],
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(metadata)
    return DatasetCard(f"---\n{metadata}\n---\n\n{_text(repo_id, splits, bank)}")


def _text(repo_id: str, splits: dict[str, datasets.Dataset], bank: FeatureBank | None) -> str:
    sizes = "\n".join(
        f"| {name} | {len(rows)} | {sum(rows['duration_s']) / 3600:.1f} | {sum(map(len, rows['events']))} |"
        for name, rows in splits.items()
    )
    labels = Counter(event["label"] for rows in splits.values() for events in rows["events"] for event in events)
    counts = "\n".join(f"| {cell(label)} | {count} |" for label, count in labels.most_common())
    features = (
        f"`features` `(num_features, {bank.first.dim})`, of {bank.first.source}: feature `i` stands for "
        "`feature_offset_s + i / feature_fps` seconds from the first video frame."
        if bank
        else "None."
    )
    return f"""\
# {repo_id.split("/")[-1]}

Events of sports matches for action spotting, one row per half. `position_ms` counts from the start of the half's video;
`annotated` is false where labels are kept back.

```python
import datasets

halves = datasets.load_dataset("{repo_id}")
```

| split | halves | hours | events |
|---|---|---|---|
{sizes}

| label | events |
|---|---|
{counts}

## Features

{features}

## What is not included, and licence

The videos are not included: they stay where their owners' licence keeps them; `video_id`, `half` and `video` name them.
SoccerNet's are at https://huggingface.co/SoccerNet, after signing its NDA. The licence above is for what is here; labels and
features derived from others' data stay under the conditions of those data.
"""

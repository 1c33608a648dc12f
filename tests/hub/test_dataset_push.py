"""A pushed data set comes back from the stand-in of the Hub as it was, without videos and paths."""

import re

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard, HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from comedian.errors import InputError
from comedian.features.bank import FeatureHeader, features_path, write_features
from comedian.hub import dataset_push
from comedian.hub.dataset_push import push_dataset
from comedian.hub.model_card import cell
from comedian.soccernet.builder import SoccerNet
from hub_stand_in import USER
from match_factory import write_matches

REPO = f"{USER}/matches"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_matches(tmp_path_factory.mktemp("root"), num_frames=24)


@pytest.fixture
def builder(root, tmp_path):
    return SoccerNet(data_dir=root, cache_dir=tmp_path / "cache")


@pytest.fixture
def bank(tmp_path, builder):
    """Return a bank of random features, and the features."""
    rng, truth = np.random.default_rng(0), {}
    builder.download_and_prepare()
    for row in datasets.concatenate_datasets(list(builder.as_dataset().values())):
        features = rng.standard_normal((row["half"] + 2, 5)).astype(np.float16)
        header = FeatureHeader(fps=2.0, offset_s=0.25, duration_s=row["duration_s"], source="a teacher", video={})
        write_features(features_path(tmp_path / "bank", row["video_id"], row["half"]), features, header)
        truth[row["video_id"], row["half"]] = features
    return tmp_path / "bank", truth


def test_annotations_come_back(hub, builder, root):
    assert push_dataset(builder, REPO) == f"{hub.url}/datasets/{REPO}"
    back = datasets.load_dataset(REPO)
    expected = builder.as_dataset()
    assert set(back) == set(expected) == {"train", "validation"}
    for split, rows in expected.items():
        rows = [row | {"video": f"{row['half']}_224p.mkv"} for row in rows]
        assert back[split].to_list() == [{k: v for k, v in row.items() if k != "video_path"} for row in rows]
    files = hub.repos["dataset", REPO].files()
    assert set(files) == {"README.md", *(f"data/{split}-00000-of-00001.parquet" for split in back)}
    assert not any(str(root).encode() in content for content in files.values())


def test_features_come_back(hub, builder, bank):
    path, truth = bank
    push_dataset(builder, REPO, features=path)
    back = datasets.load_dataset(REPO, split="train")
    assert len(back) == 4 and back.features["features"].dtype == "float16"
    for row in back.with_format("numpy"):
        np.testing.assert_array_equal(np.asarray(row["features"]), truth[row["video_id"], int(row["half"])])
        assert (row["feature_fps"], row["feature_offset_s"]) == (2.0, 0.25)


def test_a_half_without_features_is_named(hub, builder, bank):
    features_path(bank[0], "league/three", 2).unlink()
    with pytest.raises(InputError, match="no half 2 of `league/three`"):
        push_dataset(builder, REPO, features=bank[0])
    assert hub.asked == []


def test_the_card(hub, builder, bank):
    push_dataset(builder, REPO, features=bank[0], license="cc-by-4.0")
    card = DatasetCard.load(REPO)
    assert card.data.license == "cc-by-4.0" and "action-spotting" in card.data.tags
    info = card.data.to_dict()["dataset_info"]
    assert {split["name"]: split["num_examples"] for split in info["splits"]} == {"train": 4, "validation": 2}
    assert {"video_id", "events", "features"} <= {feature["name"] for feature in info["features"]}
    assert "| train | 4 | 0.0 | 8 |" in card.text and "| red flash | 6 |" in card.text
    assert "videos are not included" in card.text and "of a teacher" in card.text


def test_names_are_text_and_no_markup():
    name = "Goal | <img src=x onerror=alert(1)> [win](http://evil) ![t](http://track/p.png) `code` *b* _i_"
    shown = cell(name)
    assert "<" not in shown and all(f"\\{char}" in shown for char in "|[]`*_")
    assert re.sub(r"(?<!\\)[|\[\]`*_]", "", shown) == shown
    rows = datasets.Dataset.from_list([{"duration_s": 1.0, "events": [{"label": name}]}])
    assert f"| {shown} | 1 |" in dataset_push._text("user/name", {"train": rows}, None)


def test_pushed_again_in_shards_without_what_was_there(hub, builder, monkeypatch):
    push_dataset(builder, REPO)
    monkeypatch.setattr(dataset_push, "MAX_SHARD_BYTES", 100)
    push_dataset(builder, REPO)
    names = set(hub.repos["dataset", REPO].files())
    assert "data/train-00000-of-00001.parquet" not in names and "data/train-00000-of-00004.parquet" in names
    assert datasets.load_dataset(REPO, split="train")["half"][:] == [1, 2, 1, 2]


def test_private_unless_told_otherwise(hub, builder, monkeypatch):
    push_dataset(builder, REPO)
    push_dataset(builder, f"{USER}/open", private=False)
    monkeypatch.delenv("HF_TOKEN")
    assert HfApi().dataset_info(f"{USER}/open").private is False
    with pytest.raises(RepositoryNotFoundError):
        HfApi().dataset_info(REPO)


@pytest.mark.parametrize(
    ("repo_id", "token", "message"),
    [
        (REPO, "", "refuses this login .*`hf auth login`"),
        ("else/matches", None, "refuses this login .*namespace 'else'"),
        ("a/b/c", None, "'a/b/c'"),
    ],
)
def test_refusals(hub, builder, monkeypatch, repo_id, token, message):
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=message) as caught:
        push_dataset(builder, repo_id)
    assert "\n" not in str(caught.value)

"""SoccerNet from the stand-in of the Hub: what is fetched, what is not, and what is said when it cannot be."""

import json
import logging
import shutil
import sys

import pytest
from huggingface_hub import constants
from SoccerNet.utils import getListGames

from comedian.errors import InputError
from comedian.soccernet import download
from comedian.soccernet.builder import SoccerNet
from comedian.soccernet.download import Selection, fetch, plan_download
from hub_stand_in import TOKEN, USER
from video_factory import write_video

TRAIN, CHALLENGE = getListGames("train")[0], getListGames("challenge")[0]
VIDEO = bytes(range(256)) * 400
LABELS = json.dumps({"annotations": [{"gameTime": "1 - 00:00", "label": "Goal", "position": "40"}]}).encode()


@pytest.fixture
def soccernet(hub):
    """The published repositories with one train and one challenge match; somebody may see the videos."""
    hub.add("SoccerNet/SN-Labels", {f"{TRAIN}/Labels-v2.json": LABELS, f"{TRAIN}/Labels-v3.json": b"{}"})
    for repo, match in {"SoccerNet_raw_HQ": TRAIN, "SoccerNet_raw_HQ_Challenge": CHALLENGE}.items():
        videos = {f"{match}/{half}_224p.mkv": VIDEO + repo.encode() + bytes([half]) for half in (1, 2)}
        hub.add(f"SoccerNet/{repo}", videos, "videos-224p", gated=True, readers={USER})
    features = {f"{TRAIN}/{half}_baidu_soccer_embeddings.npy": b"\x93NUMPY\0%d" % half for half in (1, 2)}
    hub.add("SoccerNet/SN-Features", features, "baidu-soccer-embeddings")
    return hub


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def get(output, **selection):
    plan = plan_download(output, Selection(**selection))
    fetch(plan, progress=False)
    return plan


def test_everything_goes_to_soccernets_layout(soccernet, tmp_path):
    plan = get(tmp_path, labels="v2", features="baidu", videos="224p")
    assert files_below(tmp_path) == {
        f"{TRAIN}/Labels-v2.json",
        *(f"{TRAIN}/{half}_baidu_soccer_embeddings.npy" for half in (1, 2)),
        *(f"{match}/{half}_224p.mkv" for match in (TRAIN, CHALLENGE) for half in (1, 2)),
    }
    assert (tmp_path / TRAIN / "Labels-v2.json").read_bytes() == LABELS
    assert (tmp_path / CHALLENGE / "2_224p.mkv").read_bytes() == VIDEO + b"SoccerNet_raw_HQ_Challenge\2"
    assert plan.size_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert (plan.missing, plan.differing, plan.present) == ((), (), 0)


def test_only_what_is_missing_is_fetched(soccernet, tmp_path):
    get(tmp_path, videos="224p")
    (tmp_path / TRAIN / "1_224p.mkv").unlink()
    (tmp_path / TRAIN / "2_224p.mkv").write_bytes(b"my own cut")
    soccernet.fetched.clear()
    plan = get(tmp_path, videos="224p")
    assert soccernet.fetched == [f"{TRAIN}/1_224p.mkv"]
    assert (plan.present, plan.differing) == (2, (tmp_path / TRAIN / "2_224p.mkv",))
    assert (tmp_path / TRAIN / "2_224p.mkv").read_bytes() == b"my own cut"


def test_splits_are_the_official_ones(soccernet, tmp_path):
    plan = plan_download(tmp_path, Selection(splits=("challenge",), labels="v2", features="baidu", videos="224p"))
    assert {file.path for file in plan.files} == {f"{CHALLENGE}/{half}_224p.mkv" for half in (1, 2)}
    assert not any("SN-Labels" in asked.path for asked in soccernet.asked)  # its labels are kept back
    assert len(plan.missing) == 2 * (50 - 1) + 2 * 50  # 50 matches, features of none of them
    plan = plan_download(tmp_path, Selection(splits=("train", "valid"), labels="v2"))
    assert [file.path for file in plan.files] == [f"{TRAIN}/Labels-v2.json"] and len(plan.missing) == 399
    assert files_below(tmp_path) == set() and soccernet.fetched == []


def test_splits_without_the_lists(soccernet, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SoccerNet.utils", None)
    with pytest.raises(InputError, match="pip install SoccerNet"):
        plan_download(tmp_path, Selection(splits=("train",), labels="v2"))
    assert len(plan_download(tmp_path, Selection(labels="v2")).files) == 1


@pytest.mark.parametrize("half_fetched", [VIDEO[:5000], b"of an older version", VIDEO * 2, b""])
def test_an_interrupted_file_goes_on(soccernet, tmp_path, half_fetched):
    partial = tmp_path / TRAIN / "1_224p.mkv.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(half_fetched)
    get(tmp_path, splits=("train",), videos="224p")
    assert (tmp_path / TRAIN / "1_224p.mkv").read_bytes() == VIDEO + b"SoccerNet_raw_HQ\1" and not partial.exists()
    ranges = [
        a.range for a in soccernet.asked if a.path.startswith("/cdn/") and a.path.endswith(f"{TRAIN}/1_224p.mkv")
    ]
    wanted = {VIDEO[:5000]: ["bytes=5000-"], b"of an older version": ["bytes=19-", None]}
    assert ranges == wanted.get(half_fetched, [None])


def test_a_broken_connection_is_taken_up(soccernet, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    soccernet.cut[f"{TRAIN}/Labels-v2.json"] = 10
    soccernet.cut[f"{TRAIN}/1_224p.mkv"] = 50_000
    get(tmp_path, splits=("train",), labels="v2", videos="224p")
    assert "bytes=50000-" in [asked.range for asked in soccernet.asked]
    assert (tmp_path / TRAIN / "1_224p.mkv").read_bytes() == VIDEO + b"SoccerNet_raw_HQ\1"


def test_what_stops_one_file_stops_all_and_leaves_no_name(soccernet, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    complete = download._complete

    def interrupted(file, make_bar):
        if file.path.endswith("1_224p.mkv"):
            raise KeyboardInterrupt
        return complete(file, make_bar)

    monkeypatch.setattr(download, "_complete", interrupted)
    monkeypatch.setattr(download, "NUM_WORKERS", 1)
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, splits=("train",), videos="224p")
    assert all(name.endswith(".partial") for name in files_below(tmp_path))


def test_a_damaged_file_is_fetched_again(soccernet, tmp_path):
    paths = [f"{TRAIN}/1_224p.mkv", f"{TRAIN}/Labels-v2.json"]
    soccernet.damage.update(paths)
    get(tmp_path, splits=("train",), labels="v2", videos="224p")
    assert [soccernet.fetched.count(path) for path in paths] == [2, 2]
    assert (tmp_path / paths[0]).read_bytes() == VIDEO + b"SoccerNet_raw_HQ\1"
    assert (tmp_path / paths[1]).read_bytes() == LABELS


@pytest.mark.parametrize(
    "path", ["../outside/1_224p.mkv", "a/../../outside/1_224p.mkv", "/outside/1_224p.mkv", r"C:\x/1_224p.mkv"]
)
def test_no_file_leaves_the_folder(soccernet, tmp_path, path):
    soccernet.add("SoccerNet/SoccerNet_raw_HQ", {path: b"evil"}, "videos-224p")
    with pytest.raises(InputError, match="leads out of"):
        get(tmp_path / "output", videos="224p")
    assert files_below(tmp_path) == set() and soccernet.fetched == []


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hf_other", "SoccerNet/SoccerNet_raw_HQ` is gated .* that page, log in with `hf auth login`"),
        ("", "SoccerNet/SoccerNet_raw_HQ` is gated .* that page, log in with `hf auth login`"),
        ("hf_wrong", r"refuses this login at .* \(Invalid credentials in Authorization header\): .*HF_TOKEN"),
    ],
)
def test_without_access(soccernet, tmp_path, monkeypatch, token, message):
    soccernet.tokens["hf_other"] = "other"
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=message) as caught:
        get(tmp_path, splits=("train",), videos="224p")
    assert "\n" not in str(caught.value)
    assert {name for name in files_below(tmp_path) if not name.endswith(".partial")} == set()


def test_what_is_not_there(soccernet, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="SoccerNet_raw_HQ` has no branch or commit 'videos-720p'"):
        get(tmp_path, videos="720p")
    for private in (True, False):
        del soccernet.repos["dataset", "SoccerNet/SN-Labels"]
        if private:
            soccernet.add("SoccerNet/SN-Labels", private=True)
        with pytest.raises(InputError, match="datasets/SoccerNet/SN-Labels`, or it is private: .*`hf auth login`"):
            get(tmp_path, labels="v2")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="unset HF_HUB_OFFLINE"):
        get(tmp_path, labels="v2")


def test_without_network(soccernet, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="`http://127.0.0.1:9` cannot be reached"):
        get(tmp_path, labels="v2")


def test_a_full_disk(soccernet, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(InputError, match="needs 0.0 GB, but only 0.0 GB are free"):
        get(tmp_path, videos="224p")
    assert soccernet.fetched == []


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({}, "nothing to download"),
        ({"labels": "v9"}, "unknown labels 'v9'; choose v2"),
        ({"videos": "8K"}, "unknown videos '8K'"),
        ({"labels": "v2", "splits": ("trian",)}, "unknown split 'trian'"),
    ],
)
def test_a_selection_of_nothing_known(selection, message):
    with pytest.raises(InputError, match=message):
        Selection(**selection)


def test_the_token_is_told_to_nobody(soccernet, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    get(tmp_path, videos="224p")
    assert any(asked.authorized for asked in soccernet.asked)
    assert not any(asked.authorized for asked in soccernet.asked if asked.path.startswith("/cdn/"))
    printed = capfd.readouterr()
    assert TOKEN not in caplog.text + printed.out + printed.err
    assert not any(TOKEN.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_the_builder_fetches_what_it_needs(hub, tmp_path):
    video = write_video(tmp_path / "video.mkv", num_frames=10).read_bytes()
    hub.add("SoccerNet/SN-Labels", {f"{TRAIN}/Labels-v2.json": LABELS})
    hub.add("SoccerNet/SoccerNet_raw_HQ", {f"{TRAIN}/{half}_224p.mkv": video for half in (1, 2)}, "videos-224p")

    def build(selection):
        cache = tmp_path / "cache"
        builder = SoccerNet(
            data_dir=tmp_path / "root", cache_dir=cache, config_name="action-spotting", download=selection
        )
        builder.download_and_prepare()
        return builder.as_dataset()["train"].to_list()

    with pytest.raises(InputError, match="is not a folder"):
        build(None)
    first, second = build(Selection(splits=("train",), labels="v2", videos="224p"))
    assert (first["video_id"], first["half"], second["half"]) == (TRAIN, 1, 2)
    assert [event["label"] for event in first["events"]] == ["Goal"] and second["events"] == []
    hub.asked.clear()
    assert build(None) == [first, second] and hub.asked == []

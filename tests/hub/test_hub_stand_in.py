"""The stand-in of the Hub answers the real client as the Hub would."""

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download, whoami
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hub_stand_in import USER

FILES = {"config.json": b'{"a": 1}', "code/model.py": b"x = 1\n", "weights.bin": bytes(range(256)) * 100}
REPO = f"{USER}/repo"


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (path := tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "folder"


def contents(folder):
    paths = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_an_upload_comes_back(hub, folder, tmp_path, repo_type):
    api = HfApi()
    assert api.create_repo(REPO, repo_type=repo_type).repo_id == REPO
    commit = api.upload_folder(repo_id=REPO, repo_type=repo_type, folder_path=folder)
    assert sorted(api.list_repo_files(REPO, repo_type=repo_type)) == sorted(FILES)
    assert api.repo_info(REPO, repo_type=repo_type).sha == commit.oid
    assert [asked.path.split("/")[1] for asked in hub.asked if asked.method == "PUT"] == ["lfs"]
    snapshot_download(REPO, repo_type=repo_type, local_dir=tmp_path / "back")
    assert contents(tmp_path / "back") == FILES
    hub.fetched.clear()
    snapshot_download(REPO, repo_type=repo_type, local_dir=tmp_path / "back")
    assert hub.fetched == []


def test_unchanged_files_make_no_commit(hub, folder):
    api = HfApi()
    api.create_repo(REPO)
    first = api.upload_folder(repo_id=REPO, folder_path=folder)
    assert api.upload_folder(repo_id=REPO, folder_path=folder).oid == first.oid
    (folder / "config.json").write_text("{}")
    (folder / "code/model.py").unlink()
    api.upload_folder(repo_id=REPO, folder_path=folder, delete_patterns="*.py")
    assert set(hub.repos["model", REPO].files()) == {"config.json", "weights.bin"}


def test_creating_twice_is_a_conflict(hub):
    api = HfApi()
    api.create_repo(REPO, private=True)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(REPO)
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    assert api.repo_info(REPO).private
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("else/repo")
    api.delete_repo(REPO)
    assert not api.repo_exists(REPO)


def test_branches_and_pages(hub):
    hub.page_size = 3
    files = {f"a/{number}.txt": b"%d" % number for number in range(10)}
    hub.add(REPO, files, "side")
    api = HfApi()
    assert {ref.name for ref in api.list_repo_refs(REPO, repo_type="dataset").branches} == {"main", "side"}
    assert set(api.list_repo_files(REPO, repo_type="dataset", revision="side")) == set(files)
    assert api.list_repo_files(REPO, repo_type="dataset") == []
    api.create_branch(REPO, repo_type="dataset", branch="new/one", revision="side")
    assert len(api.list_repo_files(REPO, repo_type="dataset", revision="new/one")) == 10
    with pytest.raises(RevisionNotFoundError):
        api.list_repo_files(REPO, repo_type="dataset", revision="gone")
    infos = api.get_paths_info(REPO, ["a/1.txt", "a", "b"], repo_type="dataset", revision="side")
    assert [info.path for info in infos] == ["a/1.txt", "a"]


def test_who_may_read(hub, monkeypatch):
    hub.tokens["hf_other"] = "other"
    hub.add("team/private", {"a.txt": b"a"}, private=True, readers={"other"})
    hub.add("team/gated", {"a.txt": b"a"}, gated=True, readers={"other"})

    def get(name, token=None):
        return hf_hub_download(f"team/{name}", "a.txt", repo_type="dataset", token=token)

    for token in (None, False):  # somebody else, and nobody
        with pytest.raises(RepositoryNotFoundError):
            get("private", token)
        with pytest.raises(GatedRepoError, match="403" if token is None else "401"):
            get("gated", token)
    assert open(get("private", "hf_other"), "rb").read() == open(get("gated", "hf_other"), "rb").read() == b"a"
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        get("gone", "hf_wrong")
    with pytest.raises(RepositoryNotFoundError):
        get("gone")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("team/gated", "b.txt", repo_type="dataset", token="hf_other")
    assert whoami()["name"] == USER


def test_a_broken_connection_is_resumed_and_the_cdn_sees_no_token(hub, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    content = bytes(range(256)) * 1000
    hub.add(f"{USER}/data", {"video.mkv": content}, private=True)
    hub.cut["video.mkv"] = 100_000
    path = hf_hub_download(f"{USER}/data", "video.mkv", repo_type="dataset")
    assert open(path, "rb").read() == content
    on_cdn = [asked for asked in hub.asked if asked.path.startswith("/cdn/")]
    assert [asked.range for asked in on_cdn if asked.method == "GET"] == [None, "bytes=100000-"]
    assert not any(asked.authorized for asked in on_cdn)

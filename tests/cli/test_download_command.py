"""`comedian download`: what it prints and its exit codes."""

import pytest
from SoccerNet.utils import getListGames

from comedian.cli.main import main
from hub_stand_in import USER

MATCH = getListGames("train")[0]


@pytest.fixture
def soccernet(hub):
    hub.add("SoccerNet/SN-Labels", {f"{MATCH}/Labels-v2.json": b"{}"})
    videos = {f"{MATCH}/{half}_224p.mkv": bytes(1_500_000) for half in (1, 2)}
    hub.add("SoccerNet/SoccerNet_raw_HQ", videos, "videos-224p", gated=True, readers={USER})
    return hub


def run(output, *options):
    return main(["download", "--output", str(output), *options])


def test_a_dry_run_lists_and_fetches_nothing(soccernet, tmp_path, capsys):
    assert run(tmp_path / "data", "--split", "train", "--labels", "v2", "--videos", "224p", "--dry-run") == 0
    printed = capsys.readouterr()
    assert f"         1.5 MB  {MATCH}/1_224p.mkv\n" in printed.out
    assert "files: 3 to fetch (3.0 MB), 0 there already, 0 of another size, 897 not on the Hub\n" in printed.out
    assert "not on the Hub: 897 files, such as " in printed.err
    assert not (tmp_path / "data").exists() and soccernet.fetched == []


def test_download_and_again(soccernet, tmp_path, capsys):
    assert run(tmp_path, "--split", "train", "--labels", "v2", "--videos", "224p") == 0
    assert "files: 3 fetched (3.0 MB), 0 there already" in capsys.readouterr().out
    (tmp_path / MATCH / "Labels-v2.json").write_text("mine")
    soccernet.fetched.clear()
    assert run(tmp_path, "--split", "train", "--labels", "v2", "--videos", "224p") == 0
    printed = capsys.readouterr()
    assert "files: 0 fetched (0.0 MB), 2 there already, 1 of another size" in printed.out
    assert "kept, of another size than the Hub's: " in printed.err and "Labels-v2.json" in printed.err
    assert soccernet.fetched == []


def test_without_access_one_line_says_what_to_do(soccernet, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    assert run(tmp_path, "--split", "train", "--videos", "224p") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("comedian download: ")]
    assert len(lines) == 1
    assert f"{soccernet.url}/datasets/SoccerNet/SoccerNet_raw_HQ" in lines[0] and "`hf auth login`" in lines[0]


def test_nothing_asked_for(tmp_path, capsys):
    assert run(tmp_path) == 2
    assert "nothing to download" in capsys.readouterr().err

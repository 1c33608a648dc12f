"""Work that several processes share: each job once, nothing lost with a process that ends, shares of about equal length."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from comedian import sharing
from comedian.cli.main import main
from comedian.errors import InputError
from comedian.features.extraction import ComedianExtractor
from comedian.inference.torch_model import load_model
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from comedian.sharing import Claims, Shard, SharedWork, alone_at, balanced_shares
from processes import ENVIRONMENT, launch, one_after_the_other, warm_programs
from testing_utils import tiny_config
from video_factory import write_video

WORKER = Path(__file__).with_name("sharing_worker.py")
LENGTHS = {("one", 1): 40, ("one", 2): 90, ("two", 1): 60, ("two", 2): 30, ("three", 1): 20, ("three", 2): 80}


def start(folder: Path, count: int, seconds: float, *words: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, WORKER, folder, str(count), str(seconds), *words], stderr=subprocess.PIPE)


def log_of(folder: Path) -> list[tuple[int, int]]:
    """Job and process of each start of a job."""
    path = folder / "log.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(map(int, line.split())) for line in lines]


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "log.txt"
    }


def wait_until(condition, patience_s: float = 20) -> None:
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_three_processes_do_each_job_once(tmp_path):
    running = [start(tmp_path, 30, 0.05) for _ in range(3)]
    for process in running:
        assert process.wait(60) == 0, process.stderr.read()
    assert Counter(job for job, _ in log_of(tmp_path)) == dict.fromkeys(range(30), 1)
    # all results, and no claim or part of a file
    assert files_of(tmp_path) == {f"{job % 3}/{job}.txt": f"result {job}\n".encode() for job in range(30)}


def test_the_job_of_a_killed_process_is_taken_over_by_one_that_runs(tmp_path):
    killed = start(tmp_path, 4, 0, "stops")
    wait_until(lambda: log_of(tmp_path))
    other = start(tmp_path, 4, 0)
    # the other has done the rest and waits
    wait_until(lambda: len(files_of(tmp_path)) == 3 + 1)
    assert other.poll() is None
    killed.kill()
    killed.wait()
    assert other.wait(20) == 0, other.stderr.read()
    assert Counter(job for job, _ in log_of(tmp_path)) == {0: 2, 1: 1, 2: 1, 3: 1}
    assert sorted(files_of(tmp_path)) == ["0/0.txt", "0/3.txt", "1/1.txt", "2/2.txt"]


def claim_of_another_machine(result: Path) -> Path:
    path = result.with_name(f"{result.name}.claim")
    path.write_text(json.dumps({"host": "gone", "process": 1, "machine": "another one"}))
    return path


def test_a_claim_of_another_machine_is_taken_over_when_it_no_longer_changes(tmp_path, monkeypatch):
    claim = claim_of_another_machine(tmp_path / "result")
    (tmp_path / "result.partial").write_text("begun")
    monkeypatch.setattr(sharing, "STALE_S", 0.4)
    claims = Claims()
    end_s = time.monotonic() + 0.8
    while time.monotonic() < end_s:
        # times of the other machine's clock
        os.utime(claim, (0, time.monotonic()))
        assert not claims.acquire(tmp_path / "result")
        time.sleep(0.05)
    assert not claims.acquire(tmp_path / "result")
    time.sleep(0.5)
    assert claims.acquire(tmp_path / "result")
    assert not (tmp_path / "result.partial").exists()
    # nobody else gets it, and nothing is left
    assert not Claims().acquire(tmp_path / "result")
    claims.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change, is_taken", [({}, False), ({"started": 1.0}, True), ({"started": None}, False)])
def test_a_process_with_the_number_of_an_owner_that_is_gone_does_not_hold_its_claim(change, is_taken, tmp_path):
    """Numbers are given again. This process is the owner, or started at another time than the claim says."""
    owner = {"host": "here", "process": os.getpid(), "machine": sharing._machine()}
    owner |= {"started": sharing._started(os.getpid())} | change
    (tmp_path / "result.claim").write_text(json.dumps(owner))
    claims = Claims()
    assert claims.acquire(tmp_path / "result") == is_taken
    claims.close()


def test_of_many_that_find_an_owner_gone_one_takes_over(tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "STALE_S", -1.0)
    claim_of_another_machine(tmp_path / "result")
    # the claim of this process counts as running, whatever the time
    abandoned = Claims._is_abandoned
    monkeypatch.setattr(Claims, "_is_abandoned", lambda self, path: path.suffix == ".claim" and abandoned(self, path))
    barrier, won = threading.Barrier(16), []

    def take() -> None:
        claims = Claims()
        barrier.wait()
        if claims.acquire(tmp_path / "result"):
            won.append(claims)

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].close()


def test_a_process_that_was_stopped_ends_when_its_claim_was_taken_over(tmp_path):
    """It would write the same files as the new owner."""
    script = "import sys; from comedian import sharing; sharing.HEARTBEAT_S = 0.1; sys.argv[1:] = sys.argv[2:]"
    script = f"{script}; import runpy; runpy.run_path({str(WORKER)!r}, run_name='__main__')"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "-", tmp_path, "1", "0", "stops"], stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: log_of(tmp_path))
    process.send_signal(signal.SIGSTOP)
    (tmp_path / "0" / "0.txt.claim.1").write_text("{}")
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1 and "another process took over" in errors and "0/0.txt" in errors


def test_a_claim_shows_that_its_owner_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "HEARTBEAT_S", 0.05)
    claims = Claims()
    assert claims.acquire(tmp_path / "result")
    os.utime(tmp_path / "result.claim", (0, 0))
    wait_until(lambda: (tmp_path / "result.claim").stat().st_mtime > 1e9)
    claims.close()


def test_a_claim_that_was_left_beside_a_result_is_deleted(tmp_path):
    process = start(tmp_path, 1, 0, "stops")
    wait_until(lambda: log_of(tmp_path))
    process.kill()
    process.wait()
    (tmp_path / "0" / "0.txt").write_text("result 0\n")
    assert sorted(files_of(tmp_path)) == ["0/0.txt", "0/0.txt.claim"]
    SharedWork([0], lambda job: tmp_path / "0" / "0.txt", lambda job: True)
    assert sorted(files_of(tmp_path)) == ["0/0.txt"]


PROCESS_GROUP = """
import atexit, sys
atexit.register(lambda: print(torch.distributed.is_initialized()))
import torch
from comedian.sharing import leave_process_group
atexit.register(leave_process_group)
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
{end}
"""


@pytest.mark.parametrize("end, is_left", [("", "False"), ("sys.exit(2)", "False"), ("raise ValueError", "True")])
def test_a_process_leaves_its_group_when_it_ends(end, is_left):
    script = PROCESS_GROUP.format(end=end)
    words = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == is_left, done.stderr


def test_one_at_a_time_writes_a_file(tmp_path):
    order = []

    def write() -> None:
        with alone_at(tmp_path / "zip"):
            order.append("begin")
            time.sleep(0.1)
            order.append("end")

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == ["begin", "end"] * 3


def test_shares_are_disjoint_complete_and_balanced():
    draw = random.Random(0)
    lengths = [draw.uniform(2600, 3300) for _ in range(1001)]
    shares = balanced_shares(lengths, 7)
    assert sorted(index for share in shares for index in share) == list(range(1001))
    sums = [sum(lengths[index] for index in share) for share in shares]
    assert max(sums) - min(sums) < 100
    for share in shares:
        assert [lengths[index] for index in share] == sorted((lengths[index] for index in share), reverse=True)
    # of jobs without a length, and of fewer jobs than shares
    assert sorted(map(len, balanced_shares([0] * 8, 4))) == [2, 2, 2, 2]
    assert sorted(map(len, balanced_shares([5, 5], 3))) == [0, 1, 1]


@pytest.mark.parametrize("word", ["0/4", "5/4", "1", "1/", "/4", "a/b", "-1/4", "1/0", "1/2/3"])
def test_shares_that_do_not_exist(word):
    with pytest.raises(InputError, match="give I/N with I from 1 to N"):
        Shard.parse(word)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Halves of unlike length, a model, and what one process makes of them: frames, features, scores and zip."""
    folder = tmp_path_factory.mktemp("data")
    for (match, half), num_frames in LENGTHS.items():
        write_video(folder / f"root/{match}/{half}_224p.mkv", num_frames, fps=4, height=32, width=32)
    splits = {"train": ["one", "three"], "test": ["two"]}
    (folder / "root" / "splits.json").write_text(json.dumps(splits))
    ComedianForActionSpotting(tiny_config(initializer_range=0.5)).save_pretrained(folder / "model")
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "model")
    for words in commands_of(folder / "root", folder / "model", folder / "alone"):
        assert main(words) == 0
    return folder / "root", folder / "model", folder / "alone"


def commands_of(root: Path, model: Path, out: Path, *further: str) -> list[list[str]]:
    words = [
        ["prepare", root, out / "frames", "--height", 16, "--workers", 1],
        ["extract-features", root, out / "bank", "--model", model, "--device", "cpu"],
        ["spot", root, "--model", model, "--device", "cpu", "--save-scores", out / "scores"]
        + ["--output", out / "results.zip"],
    ]
    return [[str(word) for word in (*command, *further)] for command in words]


def test_launched_processes_make_the_bytes_of_one(data, tmp_path):
    root, model, alone = data
    words = launch(*one_after_the_other(commands_of(root, model, tmp_path)))
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert files_of(tmp_path) == files_of(alone)


def test_two_jobs_on_one_folder_share_the_halves(data, tmp_path):
    root, model, alone = data
    words = [warm_programs() / "comedian", *commands_of(root, model, tmp_path)[0]]
    jobs = [
        subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [job.communicate(timeout=60) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], printed
    done = [int(out.removeprefix("halves: ").split(" done")[0]) for out, _ in printed]
    assert sum(done) == len(LENGTHS), printed
    assert files_of(tmp_path / "frames") == files_of(alone / "frames")


def test_shares_of_a_job_array_and_the_command_that_ends_it(data, tmp_path, capsys):
    root, model, alone = data
    for command in commands_of(root, model, tmp_path):
        halves = Counter()
        for share in ("1/2", "2/2"):
            before = set(files_of(tmp_path))
            assert main([*command, "--shard", share]) == 0
            new = {name for name in set(files_of(tmp_path)) - before if name.endswith((".frames", ".safetensors"))}
            halves.update(new)
            assert len(new) == 3
        assert len(halves) == len(LENGTHS) and set(halves.values()) == {1}
        assert not (tmp_path / "results.zip").exists()
        stamps = {name: (tmp_path / name).stat().st_mtime_ns for name in halves}
        capsys.readouterr()
        assert main(command) == 0
        assert {name: (tmp_path / name).stat().st_mtime_ns for name in halves} == stamps
        if command[0] != "spot":
            assert "0 done, 6 there already" in capsys.readouterr().out
    assert files_of(tmp_path) == files_of(alone)


def test_more_shares_than_halves(data, tmp_path, capsys):
    root, model, _ = data
    for command in commands_of(root, model, tmp_path):
        assert main([*command, "--shard", "9/9"]) == 0, capsys.readouterr().err


def test_shares_where_there_is_nothing_to_share(data, tmp_path, capsys):
    root, model, _ = data
    videos = [shutil.copy(root / f"one/{half}_224p.mkv", tmp_path / f"part{half}.mkv") for half in (1, 2)]
    for command, message in (
        (["spot", root, "--model", model, "--shard", "1/2"], "--shard 1/2: requires a folder of matches"),
        (
            ["spot", root / "one/1_224p.mkv", "--model", model, "--save-scores", tmp_path, "--shard", "1/2"],
            "--shard 1/2",
        ),
        (["spot", *videos, "--model", model, "--shard", "1/2"], "the 2 videos are spotted one by one, by one process"),
        (["spot", videos[0], "--model", model, "--live", "--shard", "1/2"], "--shard cannot be combined with --live"),
        (
            ["extract-features", root, tmp_path / "bank", "--from", "baidu", "--shard", "1/2"],
            "--shard requires --model",
        ),
        (["prepare", root, tmp_path / "frames", "--shard", "3/2"], "--shard 3/2: give I/N"),
    ):
        assert main([str(word) for word in command]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_launched_processes_need_a_folder_to_share_scores(data, tmp_path, capsys, monkeypatch):
    root, model, _ = data
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.chdir(tmp_path)
    assert main(["spot", str(root), "--model", str(model), "--device", "cpu"]) == 2
    assert "add --save-scores FOLDER" in capsys.readouterr().err.splitlines()[-1]


def test_launched_processes_take_a_gpu_each(data, monkeypatch):
    _, model, _ = data
    devices = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    monkeypatch.setattr(PreTrainedModel, "to", lambda self, device: devices.append(str(device)) or self)
    for rank, device in ((0, "cuda:0"), (3, "cuda:3"), (5, "cuda:1")):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        devices.clear()
        # `comedian spot` and `comedian extract-features`
        load_model(str(model))
        ComedianExtractor.from_pretrained(str(model))
        assert devices == [device, device]


def test_prepare_of_a_split(data, tmp_path, capsys):
    root, _, _ = data
    words = commands_of(root, root, tmp_path)[0]
    assert main([*words, "--split", "test"]) == 0
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == ["store.json", "two"]
    assert main([*words, "--split", "tset"]) == 2
    assert "has no split 'tset'" in capsys.readouterr().err

"""Folders that may not be written: one line that names them, exit code 2, nothing half-written, old results intact.

Root may write everywhere, so the commands run in a process without the capabilities that let it.
"""

import ctypes
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kill_harness import contents
from transformers import ViTConfig, ViTModel

from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from hub_stand_in import TOKEN, USER
from match_factory import LABELS, write_recipe, write_stage_data
from processes import ENVIRONMENT, one_after_the_other, run_one
from testing_utils import tiny_config

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
OVERRIDES = {
    "pretrain": {"contrastive_config": {"projector_sizes": [8, 6], "predictor_sizes": [8, 6], "queue_size": 16}},
    "distill": {"distillation_config": {"projector_sizes": [8, 6], "queue_size": 16}},
    "finetune": {},
}


def words_of(made: Path, out: Path) -> dict[str, list]:
    """Commands that write to `out`, each somewhere else, from what is in `made`."""
    root, bank, model, video = made / "root", made / "bank", made / "model", made / "root/league/one/1_224p.mkv"
    own, labels, recipes = [made / "own", made / "events.csv"], root / "labels.txt", made / "recipes"
    spot = ["spot", video, "--device", "cpu", "--model", model, "--output"]
    train = ["--data", root, "--labels", labels, "--frames", made / "store", "--output", out / "run"]
    convert = ["data", "convert", made / "events.csv", "--videos", made / "own", "--to"]
    stages = {
        stage: [stage, "--config", recipes / stage / "recipe.yaml", "--training.output_dir", out / stage]
        for stage in OVERRIDES
    }
    return stages | {
        "prepare": ["prepare", root, out / "store", "--fps", 2, "--height", 16, "--sound", "--workers", 1],
        "extract-features": ["extract-features", root, out / "bank", "--model", model, "--device", "cpu"],
        "reduce-features": ["reduce-features", bank, out / "small", "--dim", 3, "--data", root, "--split", "train"],
        "train": ["train", recipes / "all", *train],
        "finetune --videos": ["finetune", "--videos", own[0], "--events", own[1], "--model", model]
        + ["--output", out / "own_run"],
        "spot": [*spot, out / "events.json"],
        "spot a folder": ["spot", root, "--model", model, "--device", "cpu", "--output", out / "results.zip"],
        "spot --csv": [*spot, made / "events.json", "--csv", out / "events.csv"],
        "spot --report": [*spot, made / "events.json", "--report", out / "spots.html"],
        "spot --save-scores": [*spot, made / "events.json", "--save-scores", out / "scores"],
        "spot --live": [*spot, out / "live.json", "--live"],
        "evaluate --output": [
            "evaluate",
            root,
            made / "results.zip",
            "--labels",
            labels,
            "--output",
            out / "map.json",
        ],
        "evaluate --report": [
            "evaluate",
            root,
            made / "results.zip",
            "--labels",
            labels,
            "--report",
            out / "map.html",
        ],
        "tune --output": ["tune", root, made / "scores", "--output", out / "settings.json"],
        "average": ["average", model, model, "--output", out / "mean"],
        "export": ["export", model, out / "graphs", "--format", "torch-export"],
        "convert": ["convert", made / "vit", out / "spatial"],
        "clips": ["clips", made / "events.json", video, "--output", out / "clips"],
        "clips --reel": ["clips", made / "events.json", video, "--output", made / "clips", "--reel", out / "reel.mp4"],
        "data convert to a file": [*convert, "json", "--from", "csv", "--fps", 4, out / "own.json"],
        "data convert to a folder": [*convert, "soccernet", out / "soccernet"],
        "data check": ["data", "check", root, "--output", out / "findings.json"],
        "data import": ["data", "import", *own, out / "imported"],
    }


NAMES = list(words_of(Path(), Path()))
# what finds nothing left to do; what never writes over anything; what consists of others
# a finished run and what is there already are left as they are
DONE, KEPT, WHOLE = (
    {"clips", "data convert to a folder", "finetune"},
    {"average", "export", "convert"},
    {"finetune --videos"},
)
AGAIN = [name for name in NAMES if name not in WHOLE]


def make(folder: Path) -> None:
    """Write all that the commands need."""
    root, store, bank = write_stage_data(folder)
    ComedianForActionSpotting(
        tiny_config(num_labels=2, id2label=dict(enumerate(LABELS)), initializer_range=0.5)
    ).save_pretrained(folder / "model")
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "model")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(folder / "vit")
    for stage, overrides in OVERRIDES.items():
        path = write_recipe(folder / "recipes" / stage, root, store, num_train_epochs=1)
        content = yaml.safe_load(path.read_text())
        content["model"]["overrides"] = overrides
        content["data"]["features"] = str(bank) if stage == "distill" else None
        if stage == "pretrain":
            del content["training"]["windows_per_half"]
        path.write_text(yaml.safe_dump(content))
    shutil.copytree(folder / "recipes" / "finetune", folder / "recipes" / "all")
    (folder / "recipes" / "all" / "recipe.yaml").rename(folder / "recipes" / "all" / "finetune.yaml")
    plan = {"frames": {"fps": 2, "height": 16}, "stages": ["finetune"]}
    (folder / "recipes" / "all" / "train.yaml").write_text(yaml.safe_dump(plan))
    (folder / "own").mkdir()
    for name in "abc":
        shutil.copy(root / "league/one/1_224p.mkv", folder / "own" / f"{name}.mkv")
    rows = [f"{name}.mkv,{label},{4 + 3 * number}" for name in "abc" for number, label in enumerate(LABELS)]
    (folder / "events.csv").write_text("\n".join(["video,label,time_s", *rows, ""]))
    words = ["--model", folder / "model", "--device", "cpu", "--output"]
    for command in (
        ["spot", root, *words, folder / "results.zip", "--save-scores", folder / "scores"],
        ["spot", root / "league/one/1_224p.mkv", *words, folder / "events.json"],
    ):
        assert run_one(list(map(str, command)))[0] == 0


def run_without_rights(commands: dict[str, list], **environment: str) -> dict[str, tuple[int, str]]:
    """Exit code and stderr of each command, in one process that permissions count for."""
    prctl = ctypes.CDLL(None).prctl

    def obey_permissions() -> None:
        # of a plain user there is nothing to take
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)

    words = [sys.executable, *one_after_the_other(list(commands.values()))]
    done = subprocess.run(
        words,
        env=ENVIRONMENT | environment,
        preexec_fn=obey_permissions,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout, done.stderr[-3000:]
    return dict(zip(commands, json.loads(done.stdout.splitlines()[-1]), strict=True))


def seal(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """What became of each command, in an empty folder and (`again`) where an earlier, broken run left its results."""
    made, empty, old = (tmp_path_factory.mktemp(name) for name in ("made", "empty", "old"))
    make(made)
    again = words_of(made, old)
    for name in AGAIN:
        code, errors = run_one(list(map(str, again[name])))
        assert code == 0, (name, errors[-3000:])
    for name in ("store/league/one/1.frames", *(f"{bank}/league/one/1.safetensors" for bank in ("bank", "small"))):
        (old / name).unlink()
    for name in ("pretrain", "distill", "run/finetune"):
        (old / name / "recipe.yaml").unlink()
        for checkpoint in (old / name).glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    seal(empty)
    seal(old)
    before = contents(old)
    commands = words_of(made, empty) | {f"{name} again": again[name] for name in AGAIN}
    commands["tune --model"] = ["tune", made / "root", made / "scores", "--model", old / "mean"]
    commands["publish --dry-run"] = ["publish", old / "mean", f"{USER}/model", "--dry-run"]
    found = run_without_rights(commands)
    assert list(empty.iterdir()) == []
    assert contents(old) == before
    return found | {"empty": (0, str(empty)), "old": (0, str(old))}


def assert_one_line(code: int, errors: str, folder: str) -> None:
    assert code == 2 and "Traceback" not in errors, errors[-3000:]
    lines = [line for line in errors.splitlines() if line.startswith("comedian ")]
    assert len(lines) == 1 and folder in lines[0] and ".partial" not in lines[0], errors[-3000:]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_may_not_be_written_is_one_line(name, outcome):
    code, errors = outcome[name]
    assert_one_line(code, errors, outcome["empty"][1])
    assert "Permission denied" in errors


@pytest.mark.parametrize("name", [*(f"{name} again" for name in AGAIN), "tune --model"])
def test_old_results_are_kept(name, outcome):
    if name.removesuffix(" again") in DONE:
        assert outcome[name][0] == 0
        return
    code, errors = outcome[name]
    assert_one_line(code, errors, outcome["old"][1])
    assert name.removesuffix(" again") in KEPT or "Permission denied" in errors


def test_what_only_reads_needs_no_rights(outcome):
    assert outcome["publish --dry-run"][0] == 0


def test_spotting_is_refused_before_the_work(outcome):
    names = ("spot", "spot a folder", "spot --csv", "spot --report", "spot --save-scores", "spot --live")
    assert [name for name in names if "Loading weights" in outcome[name][1]] == []


def test_the_hub(hub, tmp_path):
    """Nothing is fetched into a folder that may not be written; a model in one is published."""
    hub.add("SoccerNet/SN-Labels", {"league/match/Labels-v2.json": b"{}"})
    ComedianForActionSpotting(tiny_config()).save_pretrained(tmp_path / "model")
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    seal(tmp_path / "empty")
    seal(tmp_path / "model")
    commands = {
        "download": ["download", "--output", tmp_path / "empty" / "matches", "--labels", "v2"],
        "publish": ["publish", tmp_path / "model", f"{USER}/model"],
    }
    environment = {"HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path / "cache")}
    found = run_without_rights(commands, **environment)
    assert_one_line(*found["download"], str(tmp_path / "empty"))
    assert list((tmp_path / "empty").iterdir()) == []
    assert found["publish"][0] == 0, found["publish"][1]
    assert "model.safetensors" in hub.repos[("model", f"{USER}/model")].files()

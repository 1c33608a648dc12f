"""Killed at random points and run again, every command ends as if nothing had been.

`COMEDIAN_KILLS=20 pytest tests/faults/test_killed.py` kills each command more often than a run of all tests has time for.
"""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from kill_harness import Killer, contents, stamps
from SoccerNet.utils import getListGames

from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from comedian.soccernet.annotations import write_results
from hub_stand_in import TOKEN, USER
from match_factory import write_matches, write_recipe, write_stage_data
from testing_utils import tiny_config

KILLS = int(os.environ.get("COMEDIAN_KILLS", 3))
SEED = 2026
# what tells when and how long, and the settings with their absolute paths
TIMES = (
    "trainer_state.json",
    "model_record.json",
    "training_args.bin",
    "recipe.yaml",
    "README.md",
    "learning_curve.svg",
)
HEAD = {"projector_sizes": [8, 6], "queue_size": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Matches, their frame store and a bank of features."""
    return write_stage_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    ComedianForActionSpotting(tiny_config(initializer_range=0.5)).save_pretrained(folder)
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def is_result(name: str) -> bool:
    """Whether a file counts: no checkpoint, and nothing that tells the time."""
    return not name.startswith("checkpoint-") and "/checkpoint-" not in name and Path(name).name not in TIMES


def survive(words, tmp_path: Path, results=is_result, done_once=lambda name: False, **environment) -> None:
    """Kill a command that writes to `out` until it has been killed often enough; compare each end with a run left alone.

    Args:
        words: of the command; it runs in a folder of its own and writes to `out` there.
        tmp_path: where the folders are made.
        results: which files must be equal in the end.
        done_once: which files, once there, may not be written again.
        environment: of the command.
    """
    alone, folder = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    folder.mkdir()
    reference = Killer(words, alone, SEED, environment)
    reference.run()
    expected = contents(alone / "out", lambda name: not results(name))
    assert expected
    killer = Killer(words, folder, SEED, environment)
    killer.unkilled_s = reference.unkilled_s
    while killer.kills < KILLS:
        finished, written = False, {}
        while not finished and killer.kills < KILLS:
            finished = not killer.kill_once()
            now = stamps(folder / "out")
            again = [name for name in written if done_once(name) and now.get(name) != written[name]]
            assert not again, f"written again: {again}"
            written = now
        killer.run()
        assert contents(folder / "out", lambda name: not results(name)) == expected
        shutil.rmtree(folder / "out")
    assert killer.survivors() == []


@pytest.mark.parametrize("sound", [False, True])
def test_prepare(data, tmp_path, sound):
    root = write_matches(tmp_path / "root", audio_s=12.0) if sound else data[0]
    words = ["prepare", root, "out", "--fps", "2", "--height", "16", *["--sound", "--workers", "1"] * sound]
    survive(words, tmp_path, done_once=lambda name: name.endswith((".frames", ".npy")))


def test_extract_features(data, model, tmp_path):
    words = ["extract-features", data[0], "out", "--model", model, "--device", "cpu"]
    survive(words, tmp_path, done_once=lambda name: name.endswith(".safetensors"))


def test_reduce_features(data, tmp_path):
    words = ["reduce-features", data[2], "out", "--dim", "3", "--data", data[0], "--split", "train"]
    survive(words, tmp_path)


def test_spot(data, model, tmp_path):
    words = ["spot", data[0], "--model", model, "--output", "out/results.zip", "--save-scores", "out/scores"]
    survive([*words, "--device", "cpu"], tmp_path, done_once=lambda name: name.endswith(".safetensors"))


@pytest.mark.parametrize("stage", ["pretrain", "distill", "finetune"])
def test_training(data, tmp_path, stage):
    root, store, bank = data
    steps = {"save_strategy": "steps", "save_steps": 1, "logging_steps": 1}
    if stage == "finetune":
        steps |= {"eval_strategy": "steps", "eval_steps": 1}
    recipe = write_recipe(tmp_path / "recipe", root, store, num_train_epochs=1, output_dir="out", **steps)
    content = yaml.safe_load(recipe.read_text())
    if stage != "finetune":
        head = HEAD | {"predictor_sizes": [8, 6]} if stage == "pretrain" else HEAD
        name = "contrastive_config" if stage == "pretrain" else "distillation_config"
        content["model"]["overrides"] = {name: head}
    if stage == "pretrain":
        del content["training"]["windows_per_half"]
    if stage == "distill":
        content["data"]["features"] = str(bank)
    recipe.write_text(yaml.safe_dump(content))
    survive([stage, "--config", recipe], tmp_path)


def test_train(data, tmp_path):
    """All stages, of which a killed one goes on and a finished one is not done again."""
    recipes = tmp_path / "recipes"
    write_recipe(recipes, data[0], data[1]).unlink()
    training = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "base_learning_rate": 0.05, "seed": 3}
    training |= {"use_cpu": True, "disable_tqdm": True}
    heads = HEAD | {"predictor_sizes": [8, 6]}
    for name, overrides, settings in (
        ("pretrain", {"contrastive_config": heads}, training),
        ("finetune", {}, training | {"windows_per_half": 2}),
    ):
        content = {"model": {"overrides": overrides}, "training": settings}
        (recipes / f"{name}.yaml").write_text(yaml.safe_dump(content))
    plan = {"frames": {"fps": 2, "height": 16}, "stages": ["pretrain", "finetune"]}
    (recipes / "train.yaml").write_text(yaml.safe_dump(plan))
    words = ["train", recipes, "--data", data[0], "--labels", data[0] / "labels.txt", "--frames", data[1]]
    survive([*words, "--output", "out"], tmp_path, done_once=lambda name: name.endswith("pretrain/recipe.yaml"))


def test_download(hub, tmp_path):
    match = getListGames("train")[0]
    hub.add("SoccerNet/SN-Labels", {f"{match}/Labels-v2.json": b"{}"})
    videos = {f"{match}/{half}_224p.mkv": bytes(range(256)) * 40_000 for half in (1, 2)}
    hub.add("SoccerNet/SoccerNet_raw_HQ", videos, "videos-224p", gated=True, readers={USER})
    words = ["download", "--output", "out", "--split", "train", "--labels", "v2", "--videos", "224p"]
    survive(words, tmp_path, done_once=lambda name: name.endswith((".mkv", ".json")), HF_TOKEN=TOKEN)


@pytest.mark.parametrize("command", ["convert", "import"])
def test_events_and_videos_are_laid_out(command, data, tmp_path):
    (tmp_path / "videos").mkdir()
    names = [f"{number:02d}.mkv" for number in range(40)]
    for name in names:
        os.link(data[0] / "league/one/1_224p.mkv", tmp_path / "videos" / name)
    events = tmp_path / "events.csv"
    events.write_text(
        "video,label,time_s\n" + "".join(f"{name},Goal,{3 + number / 10}\n" for number, name in enumerate(names))
    )
    words = ["data", "import", tmp_path / "videos", events, "out"]
    if command == "convert":
        words = ["data", "convert", events, "out", "--to", "soccernet"]
    survive(words, tmp_path)


def test_clips(data, model, tmp_path):
    video = data[0] / "league/one/1_224p.mkv"
    events = [{"label": "Goal", "timestamp_s": 1.0 + second, "half": 1, "score": 0.5} for second in range(10)]
    write_results(tmp_path / "events.json", "match", events)
    survive(
        ["clips", tmp_path / "events.json", video, "--exact", "--output", "out", "--reel", "out/reel.mp4"], tmp_path
    )


def test_a_model_that_is_made_is_whole_or_not_there(model, tmp_path):
    """No such folder is written twice: whatever is there after a kill must be all of it."""
    killer = Killer(["average", model, model, "--output", "out"], tmp_path, SEED)
    killer.run()
    expected = contents(tmp_path / "out", lambda name: not is_result(name))
    while killer.kills < KILLS:
        shutil.rmtree(tmp_path / "out")
        killer.kill_once()
        if not (tmp_path / "out").exists():
            killer.run()
        assert contents(tmp_path / "out", lambda name: not is_result(name)) == expected
        assert not (tmp_path / "out.partial").exists()


def test_publish(hub, model, tmp_path):
    sent = set()
    for number in range(-(-KILLS // 5)):
        repo_id = f"{USER}/killed-{number}"
        folder = tmp_path / str(number)
        folder.mkdir()
        killer = Killer(["publish", model, repo_id], folder, SEED + number, {"HF_TOKEN": TOKEN})
        killer.unkilled_s = 1.0
        while killer.kills < 5 and killer.kill_once():
            files = hub.repos[("model", repo_id)].files() if ("model", repo_id) in hub.repos else {}
            # one commit: all of it or nothing but what a new repository has
            assert set(files) <= {".gitattributes"} or "model.safetensors" in files and "config.json" in files
        killer.run()
        files = hub.repos[("model", repo_id)].files()
        sent.add(tuple(sorted((name, hash(content)) for name, content in files.items() if name != "README.md")))
    assert len(sent) == 1

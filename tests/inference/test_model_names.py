"""Names of models: what is asked of the Hub, what is found, and which command helps."""

import os
import time
from pathlib import Path

import pytest

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.inference.model_names import find_model, find_models, is_hub_name, models_nearby
from comedian.models import ComedianForActionSpotting, ComedianModel, ComedianVideoProcessor
from comedian.training.run_facts import hash_start
from testing_utils import tiny_config

REPO = "juliendenize/COMEDIAN-ViViT-tiny"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").mkdir()
    return tmp_path


def save_model(folder, model_class=ComedianForActionSpotting):
    model_class(tiny_config()).save_pretrained(folder)
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "name, expected",
    {
        **dict.fromkeys(("me/model", "me/model/ensemble/1", "me/model/", "m-e/mo.del_1"), True),
        **dict.fromkeys(("model", "RUN/model", "RUN/deep/model", "./me/model", "../me/model", "/me/model"), False),
        **dict.fromkeys(
            ("~/model", "me/../x", "me//x", "me/model.pth", "me/x/seed.ckpt", "C:\\me\\x", "", "a b/c"), False
        ),
    }.items(),
)
def test_which_names_are_the_hubs(here, name, expected):
    assert is_hub_name(name) is expected


PATHS = ("nowhere", "RUN/finetune", "./me/model", "/nowhere/model", "~/model", "seed.pth", "RUN/seed.ckpt")


@pytest.mark.parametrize("name", PATHS)
def test_a_path_that_does_not_exist_is_not_asked_of_the_hub(hub, here, name, capsys):
    (here / "events.csv").write_text("video,label,time_s\n")
    for words in (
        ["spot", "a.mkv", "--model", name],
        ["extract-features", "RUN", "BANK", "--model", name],
        ["export", name, "OUT"],
        ["average", name, name, "--output", "OUT"],
        ["finetune", "--videos", "RUN", "--events", "events.csv", "--model", name, "--output", "OUT"],
        ["publish", name, "me/x", "--dry-run"],
        ["convert", name, "OUT"],
    ):
        assert main(words) == 2, words
        error = capsys.readouterr().err.strip()
        assert (f"`{name}`" in error or f"`{Path(name)}`" in error) and "\n" not in error, words
    assert not hub.asked


@pytest.mark.parametrize(
    "name, command",
    [
        ("files/seed.pth", "comedian convert files/seed.pth OUTPUT_DIR"),
        ("files/my seed.ckpt", "comedian convert 'files/my seed.ckpt' OUTPUT_DIR"),
        ("files", "comedian convert files OUTPUT_DIR"),
        (REPO, f"comedian convert {REPO} OUTPUT_DIR"),
        (f"{REPO}/seed.pth", f"comedian convert {REPO} OUTPUT_DIR --file seed.pth"),
    ],
)
def test_checkpoints_name_the_command_that_converts_them(hub, here, capsys, name, command):
    (here / "files").mkdir()
    for file in ("seed.pth", "my seed.ckpt"):
        (here / "files" / file).write_bytes(b"PK")
    hub.add(REPO, {"seed.pth": b"PK", "README.md": b"#"}, repo_type="model")
    (here / "events.csv").write_text("video,label,time_s\n")
    commands = [
        ["spot", "a.mkv", "--model", name],
        ["spot", "a.mkv", "--model", name, "--live"],
        ["extract-features", "RUN", "BANK", "--model", name],
        ["export", name, "OUT"],
        ["finetune", "--videos", "RUN", "--events", "events.csv", "--model", name, "--output", "OUT"],
    ]
    if name.startswith("files"):  # these take folders alone
        commands += [["average", name, name, "--output", "OUT"], ["publish", name, "me/x", "--dry-run"]]
    for words in commands:
        assert main(words) == 2, words
        error = capsys.readouterr().err.strip()
        assert f"`{command}`" in error and "\n" not in error, words


def test_an_ensemble_and_its_members(hub, here):
    model = save_model(here / "model")
    for index in (1, 2):
        save_model(model / "ensemble" / str(index))
    hub.add(
        "me/model",
        {path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()},
        repo_type="model",
    )
    for name in ("model", "me/model"):
        assert [found.name for found in find_models(name)] == [name, f"{name}/ensemble/1", f"{name}/ensemble/2"]
        assert find_model(f"{name}/ensemble/2").config["model_type"] == "comedian"
        with pytest.raises(InputError, match=f"ensemble of 3 models, .* `{name}/ensemble/1`"):
            find_model(name)


def test_a_cached_model_needs_no_hub(hub, here, monkeypatch):
    model = save_model(here / "model")
    hub.add("me/model", {path.name: path.read_bytes() for path in model.iterdir()}, repo_type="model")
    assert len(find_models("me/model")) == 1
    hub.asked.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert len(find_models("me/model")) == 1
    with pytest.raises(InputError, match="HF_HUB_OFFLINE") as caught:
        find_models("me/other")
    assert not hub.asked and "\n" not in str(caught.value)


def test_without_a_model_spot_says_which_there_are(here, capsys):
    for age, name in enumerate(("new/model", "old", "RUN/a/finetune")):
        folder = save_model(here / name)
        os.utime(folder / "model.safetensors", (time.time() - 100 * age,) * 2)
    save_model(here / "RUN" / "backbone", ComedianModel)
    save_model(here / "RUN" / "a" / "checkpoint-3")
    assert [path.as_posix() for path in models_nearby(here)] == ["new/model", "old", "RUN/a/finetune"]
    capsys.readouterr()
    assert main(["spot", "a.mkv"]) == 2
    error = capsys.readouterr().err.strip()
    assert "`new/model`, `old`, `RUN/a/finetune`" in error and "\n" not in error
    assert f"`comedian convert {REPO} COMEDIAN`" in error and "`examples/demo/model`" in error


def test_the_demos_model_is_found_from_any_folder_of_a_clone(here, monkeypatch):
    demo = find_model("demo")
    assert demo.config["architectures"] == ["ComedianForActionSpotting"] and Path(demo.source).is_dir()
    # weights that a run starts from are hashed for its record
    assert hash_start("demo") == hash_start(demo.source)
    save_model(here / "demo")
    assert find_model("demo").source == "demo"


def test_without_a_clone_the_demos_model_is_not_there(here, monkeypatch):
    monkeypatch.setattr("comedian.inference.model_names.DEMO_FOLDER", here / "examples" / "demo" / "model")
    with pytest.raises(InputError, match="`demo` is the model .* clone the repository"):
        find_model("demo")

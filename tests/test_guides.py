"""Every code block of the README and of the guides runs as it stands, and the reference is the source's."""

import argparse
import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.launch import launch_command_parser
from SoccerNet.utils import getListGames
from transformers import (
    VideoMAEConfig,
    VideoMAEImageProcessor,
    VideoMAEModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from comedian.training.recipe import load_recipe
from hub_stand_in import TOKEN
from match_factory import write_matches
from naive_model import random_checkpoint
from processes import warm_programs
from video_factory import write_video
from warm_python import SHORT

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "examples" / "guides"
REFERENCE = GUIDES / "reference"
PAGES = [ROOT / "README.md", *(path for path in sorted(GUIDES.rglob("*.md")) if REFERENCE not in path.parents)]

# languages of blocks that are not run
SHOWN = ("text", "bibtex", "xml")
# a word of a block's info string, which no page shows: the block cannot run here, and why
NOT_RUN = "not-run:"
# likewise, of what is printed: numbers may be others on another machine
NUMBERS_DIFFER = "numbers-differ"
# page -> blocks that are not run: no more of them without a look at this list
NOT_RUN_BLOCKS = {
    "README.md": 1,
    "examples/guides/how_to/gpus.md": 1,
    "examples/guides/how_to/lora.md": 2,
}
# commands of the installation, which the tests of the wheel do without a network
INSTALL = ("git clone", "cd", "pip install")

# addresses of files of the repository
REPOSITORY = re.compile(
    r"\]\(https://(?:github\.com|raw\.githubusercontent\.com)/comedian-spotting/comedian/(?:blob/)?main/"
)

# files that the pages name
MY_EVENTS = "video,label,time_s\nfirst_half.mkv,Goal,0:07\nsecond_half.mkv,Corner,7.5\n"
OTHER_TOOL = "match,half,seconds,label,confidence\nleague/four,1,1.0,red flash,0.9\nleague/four,2,2.1,red flash,0.4\n"

# of the programs of a page: the stand-in of the Hub is there for them too, and they are quiet
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "0",
    "HF_TOKEN": TOKEN,
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
    SHORT: "1",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: `info` is what follows the fence, `line` that of its first line of text."""

    info: str
    text: str
    line: int

    @property
    def language(self) -> str:
        return self.info.split()[0] if self.info else ""

    @property
    def is_run(self) -> bool:
        return self.language in ("python", "bash") and NOT_RUN not in self.info


def blocks_of(path: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    blocks, opened = [], None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if opened is None and line.startswith("```"):
            opened, info, lines = number, line.removeprefix("```").strip(), []
        elif opened is not None and line == "```":
            blocks.append(Block(info, "\n".join(lines) + "\n", opened + 1))
            opened = None
        elif opened is not None:
            lines.append(line)
        else:
            assert not line.lstrip().startswith(("```", "~~~")), f"{path}, line {number}: no block that is looked at"
    assert opened is None, f"{path}, line {opened}: the block is not closed"
    return blocks


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> list[Path]:
    """Folders for PATH: the warm programs, and a `make` that looks whether there is such a target."""
    folder = tmp_path_factory.mktemp("bin")
    commands = {
        "make": 'grep -q "^$1:" Makefile',
        # two tasks of a job array, one after the other; a script that starts its own processes is only parsed
        "sbatch": 'case $1 in *array*) export SHARES=2; SLURM_ARRAY_TASK_ID=1 bash "$@"; SLURM_ARRAY_TASK_ID=2 bash "$@";; '
        '*) bash -n "$1";; esac',
    }
    for name, command in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{command}\n")
        (folder / name).chmod(0o755)
    return [folder, warm_programs()]


# fields of `training` that say how much there is to do
SHORT = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "windows_per_half": 1}
SHORT |= {"eval_steps": 1, "save_steps": 1, "logging_steps": 1}


def shorten(recipe: Path) -> None:
    """Make a recipe one epoch of few windows; all else stays as it is shipped."""
    content = yaml.safe_load(recipe.read_text())
    # `train.yaml` and `card.yaml` have no such section
    if "training" in content:
        content["training"] |= {name: value for name, value in SHORT.items() if name in content["training"]}
        recipe.write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> list[tuple[tuple, dict]]:
    """A small copy of what the pages fetch, as arguments of the stand-in's `add`."""
    folder = tmp_path_factory.mktemp("published")
    match, files = getListGames("train")[0], {}
    for half in (1, 2):
        video = write_video(folder / f"{half}.mkv", num_frames=300, fps=0.5, height=32, width=32)
        files[f"{match}/{half}_224p.mkv"] = video.read_bytes()
        features = folder / f"{half}.npy"
        np.save(features, np.random.default_rng(half).normal(size=(600, 520)).astype(np.float32))
        files[f"{match}/{half}_baidu_soccer_embeddings.npy"] = features.read_bytes()
    annotations = [{"gameTime": "1 - 00:01", "label": "Goal", "position": "1000"}]
    labels = {f"{match}/Labels-v2.json": json.dumps({"annotations": annotations}).encode()}
    videos = {path: content for path, content in files.items() if path.endswith(".mkv")}

    teacher = folder / "teacher"
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    VideoMAEModel(VideoMAEConfig(image_size=16, patch_size=8, num_frames=16, **sizes)).save_pretrained(teacher)
    VideoMAEImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(teacher)

    image_model = folder / "image_model"
    ViTModel(ViTConfig(image_size=32, patch_size=8, **sizes)).save_pretrained(image_model)
    ViTImageProcessor().save_pretrained(image_model)

    size = {"width": 192, "depths": [12], "heads": [3], "image": (224, 224), "patch": 16, "tubelet": 2, "frames": 128}
    seeds = {}
    for seed in (42, 203):
        name = f"comedian_vivit_tiny_seed{seed}.pth"
        torch.save(random_checkpoint("vivit", **size), folder / name)
        seeds[name] = (folder / name).read_bytes()
    return [
        (("SoccerNet/SN-Labels", labels), {}),
        (("SoccerNet/SN-Features", files, "baidu-soccer-embeddings"), {}),
        (("SoccerNet/SoccerNet_raw_HQ", videos, "videos-224p"), {"gated": True, "readers": {"me"}}),
        (("MCG-NJU/videomae-base", read_folder(teacher)), {"repo_type": "model"}),
        (("google/vit-base-patch16-224", read_folder(image_model)), {"repo_type": "model"}),
        (("juliendenize/COMEDIAN-ViViT-tiny", seeds), {"repo_type": "model"}),
    ]


@pytest.fixture
def full_hub(hub, published):
    """The stand-in of the Hub with what the pages fetch; `me` is logged in and may see the videos."""
    hub.tokens = {TOKEN: "me"}
    for arguments, options in published:
        hub.add(*arguments, **options)
    return hub


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def workshop(tmp_path, monkeypatch) -> Path:
    """A folder to run a page in: the repository's files, and what the pages' placeholders stand for."""
    folder = tmp_path / "workshop"
    folder.mkdir()
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__", "space"))
    shutil.copytree(ROOT / "hub_configs", folder / "hub_configs")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "src").symlink_to(ROOT / "src")
    for recipe in (folder / "hub_configs").glob("*/*.yaml"):
        shorten(recipe)
    # a path comes before the name of a shipped recipe
    for recipes in (folder / "hub_configs").iterdir():
        (folder / recipes.name).symlink_to(recipes)
    matches = write_matches(folder / "MATCHES", audio_s=12.0)
    shutil.move(matches / "labels.txt", folder)
    shutil.copytree(matches / "league" / "three", matches / "league" / "four")
    (folder / "VIDEOS").mkdir()
    for half, name in enumerate(("first_half.mkv", "second_half.mkv"), 1):
        for link in (folder / name, folder / "VIDEOS" / name):
            link.symlink_to(matches / "league" / "one" / f"{half}_224p.mkv")
    splits = json.loads((matches / "splits.json").read_text()) | {"test": ["league/four"]}
    (matches / "splits.json").write_text(json.dumps(splits))
    for name in ("MODEL", "SEED_0", "SEED_1"):
        save_demo_model(folder / name)
    for name in ("my_events.csv", "EVENTS.csv"):
        (folder / name).write_text(MY_EVENTS)
    (folder / "other_tool.csv").write_text(OTHER_TOOL)
    # the launcher is the real one, its config the shipped one, for one process on a CPU
    launcher = folder / "examples" / "accelerate_configs" / "multi_gpu.yaml"
    on_a_cpu = yaml.safe_load(launcher.read_text()) | {"use_cpu": True, "num_processes": 1}
    launcher.write_text(yaml.safe_dump(on_a_cpu))
    monkeypatch.chdir(folder)
    return folder


def save_demo_model(folder: Path) -> None:
    """Save the demo's model as training does, with its code."""
    demo = ROOT / "examples" / "demo" / "model"
    ComedianForActionSpotting.from_pretrained(demo).save_pretrained(folder)
    ComedianVideoProcessor.from_pretrained(demo).save_pretrained(folder)


def run_bash(block: Block, programs: list[Path], where: str) -> str:
    """Run a block in a shell that stops at the first failure, and return what it printed."""
    folders = [*map(str, programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | ENVIRONMENT | {"PATH": os.pathsep.join(folders)}
    words = ["bash", "-euo", "pipefail", "-c", block.text]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(words, env=environment, text=True, timeout=900, **streams)
    assert done.returncode == 0, f"{where}: {done.stdout[-4000:]}"
    return done.stdout


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_block_of_a_page_runs(path, workshop, programs, full_hub, capfd):
    namespace, printed = {"__name__": "__main__"}, ""
    for block in blocks_of(path):
        where = f"{name_of(path)}, line {block.line}"
        if block.is_run and block.language == "bash":
            printed = run_bash(block, programs, where)
        elif block.is_run:
            capfd.readouterr()
            exec(compile("\n" * (block.line - 1) + block.text, str(path), "exec"), namespace)
            printed = capfd.readouterr().out
        elif block.language == "text":
            for line in block.text.splitlines():
                pattern = re.escape(line.strip())
                if NUMBERS_DIFFER in block.info:
                    pattern = re.sub(r"[\d.\\]*\d", r"[\\d.]+", pattern)
                assert re.search(pattern, printed), f"{where}: {line!r} was not printed, but {printed}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_blocks_are_of_known_languages_and_few_are_not_run(path):
    blocks = blocks_of(path)
    for block in blocks:
        assert block.language in ("python", "bash", *SHOWN), f"{name_of(path)}, line {block.line}: {block.info!r}"
    not_run = [block for block in blocks if NOT_RUN in block.info]
    assert len(not_run) == NOT_RUN_BLOCKS.get(name_of(path), 0)
    for block in not_run:
        assert block.info.partition(NOT_RUN)[2].strip(), f"line {block.line} does not say why it is not run"
        if block.language == "python":
            # `tests/training/test_adapters.py` runs those that need peft
            compile(block.text, str(path), "exec")
            continue
        for command in block.text.replace("\\\n", " ").splitlines():
            if not command.startswith(INSTALL):
                check_launch(shlex.split(command))


def check_launch(words: list[str]) -> None:
    """Check a command that is not run: options that `accelerate launch` knows, files that are there, a recipe's fields."""
    assert words[:2] == ["accelerate", "launch"], f"there is no check for `{words[0]}`"
    launch = launch_command_parser().parse_args(words[2:])
    script = argparse.ArgumentParser()
    script.add_argument("--config", required=True)
    arguments, overrides = script.parse_known_args(launch.training_script_args)
    for path in (launch.config_file, launch.training_script):
        assert (ROOT / path).is_file(), path
    load_recipe(ROOT / arguments.config, overrides)


@pytest.mark.parametrize("path", [*PAGES, *sorted(REFERENCE.glob("*.md"))], ids=name_of)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(), flags=re.DOTALL)
    # links and pictures of the README are absolute, as the package index shows it too
    text = REPOSITORY.sub(lambda found: f"]({os.path.relpath(ROOT, path.parent)}/", text)
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)", text):
        page = path.parent / target if target else path
        assert page.exists(), target
        if anchor:
            assert anchor in anchors_of(page), f"{target}#{anchor}"


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_reference_is_the_sources():
    spec = importlib.util.spec_from_file_location("make_reference", GUIDES / "make_reference.py")
    make_reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_reference)
    there = {path.name: path.read_text() for path in REFERENCE.iterdir()}
    stale = [name for name, text in make_reference.pages().items() if there.pop(name, None) != text]
    assert not stale and not there, (
        f"{', '.join([*stale, *there])} in {name_of(REFERENCE)} is not what the docstrings say: run "
        "`python examples/guides/make_reference.py` and commit the pages"
    )


def texts_of_the_source() -> str:
    """All texts in the source of the package, parts of one message joined."""
    texts = []
    for path in (ROOT / "src" / "comedian").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_package():
    page = (GUIDES / "how_to" / "troubleshooting.md").read_text()
    source = texts_of_the_source()
    # the first cell of a row; parts of a message that are computed stand between its quotes
    cells = re.findall(r"^\| (`.*?`) \|", page.partition("## Results that look wrong")[0], re.MULTILINE)
    assert len(cells) > 25
    for cell in cells:
        for message in re.findall(r"`(.*?)`(?= \.\.\. |$|, and| \(PyTorch)", cell):
            assert message in source, f"no message of the package contains {message!r}"

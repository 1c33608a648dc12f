"""Every recipe folder of hub_configs, all its stages, by the command that its `train.yaml` names, with its own settings.

What is made small is listed in `small_recipes.py`: sizes of the model, batches, steps and data. Each test holds that nothing
else differs from what is shipped.
"""

import json
import math
import shlex

import numpy as np
import pytest
import torch
import yaml

from comedian.cli.commands import prepare as prepare_command
from comedian.cli.main import main
from comedian.models import ComedianConfig, ComedianForActionSpotting, ComedianModel
from comedian.models.settings_comedian import CHOSEN_ON_VALIDATION
from comedian.training.recipe import load_recipe
from comedian.training.train_all import read_plan
from comedian.video.frame_store import FrameStore
from match_factory import write_matches
from small_recipes import CONFIG, FOLDERS, HEADS, TRAINING, copy_small, recipes_of, small_config, small_training

DURATION_S, SOURCE_FPS = 30, 5
HEAD_SIZES = {"projector_sizes", "predictor_sizes", "queue_size"}


def command_of(folder, root, output) -> list[str]:
    """The command in the first line of a folder's `train.yaml`, for a copy of the folder."""
    line = (folder / "train.yaml").read_text().splitlines()[0]
    words = shlex.split(line.removeprefix("# "))
    assert words[:2] == ["comedian", "train"] and words[2] == f"hub_configs/{folder.name}", line
    data = words[words.index("--data") + 1]
    stand_for = {data: str(root), words[2]: str(folder), "RUN": str(output)}
    return [stand_for.get(word, word.replace(f"{data}/", f"{root}/")) for word in words[1:]]


def write_published_features(root) -> None:
    """Features beside the videos, one a second, as SoccerNet has them."""
    rng = np.random.default_rng(0)
    for video in root.rglob("*_224p.mkv"):
        features = rng.standard_normal((DURATION_S, 12)).astype(np.float32)
        np.save(video.with_name(f"{video.name[0]}_baidu_soccer_embeddings.npy"), features)


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def trained(request, tmp_path_factory):
    """A shipped folder, the output of its small copy, and the types of the results of the products in training."""
    shipped = request.param
    folder = tmp_path_factory.mktemp("recipe")
    labels = list(ComedianConfig.from_pretrained(shipped).label_names)
    size = {"num_frames": DURATION_S * SOURCE_FPS, "fps": SOURCE_FPS, "size": (56, 100)}
    root = write_matches(folder / "root", labels=labels, with_test=True, **size)
    write_published_features(root)
    small = copy_small(shipped, folder / shipped.name)
    dtypes = set()

    def note(module, arguments, output):
        if isinstance(module, torch.nn.Linear) and torch.is_grad_enabled():
            dtypes.add(output.dtype)

    with pytest.MonkeyPatch.context() as patch, torch.nn.modules.module.register_module_forward_hook(note):
        # the shipped precision, also where a CPU emulates it
        patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
        assert main(command_of(small, root, folder / "run")) == 0
    return shipped, folder / "run", dtypes


def test_every_stage_ran_with_the_settings_that_are_shipped(trained):
    shipped, output, _ = trained
    for stage, path in recipes_of(shipped).items():
        content = yaml.safe_load(path.read_text())
        ran = yaml.safe_load((output / stage / "recipe.yaml").read_text())
        sizes = small_training(stage, content["training"])
        assert set(sizes) <= set(TRAINING)
        assert ran["training"] == content["training"] | sizes | {"output_dir": str(output / stage)}
        overrides = content["model"].get("overrides", {})
        if stage in HEADS:
            name, sizes = HEADS[stage]
            assert set(sizes) <= HEAD_SIZES
            overrides = overrides | {name: overrides.get(name, {}) | sizes}
        assert ran["model"]["overrides"] == overrides


def test_the_model_is_the_one_that_is_shipped_but_for_its_sizes(trained):
    shipped, output, _ = trained
    config = json.loads((shipped / "config.json").read_text())
    overrides = yaml.safe_load((shipped / "finetune.yaml").read_text())["model"].get("overrides", {})
    expected = ComedianConfig.from_dict(config | small_config(config) | overrides).to_dict()
    found = ComedianForActionSpotting.from_pretrained(output / "finetune").config.to_dict()
    for name in ("architectures", "auto_map", "custom_pipelines", "dtype", "transformers_version", "_name_or_path"):
        expected.pop(name, None), found.pop(name, None)
    differing = {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}
    assert differing <= set(CHOSEN_ON_VALIDATION)
    sizes = {"spatial_depths", "spatial_num_heads", "spatial_window_size", "image_size", "num_frames"}
    assert set(small_config(config)) <= {*CONFIG, *sizes}


def test_every_stage_learned_evaluated_and_saved(trained):
    shipped, output, dtypes = trained
    settings = {stage: yaml.safe_load(path.read_text())["training"] for stage, path in recipes_of(shipped).items()}
    for stage, training in settings.items():
        log = json.loads((output / stage / "trainer_state.json").read_text())["log_history"]
        losses = [entry["loss"] for entry in log if "loss" in entry]
        assert losses and all(math.isfinite(loss) for loss in losses), stage
        metric = {"pretrain": "eval_knn_accuracy", "distill": None}.get(stage, "eval_average_map_tight")
        evaluates = metric is not None and training.get("eval_strategy") != "no"
        assert any(metric in entry for entry in log) == evaluates, stage
        checkpoint = list((output / stage).glob("checkpoint-*"))
        assert checkpoint, stage
        model_class = ComedianModel if stage in HEADS else ComedianForActionSpotting
        weights = model_class.from_pretrained(output / stage).state_dict()
        assert all(torch.isfinite(weight).all() for weight in weights.values()), stage
    # nothing of a shipped precision was switched off
    assert (torch.bfloat16 in dtypes) == any(training.get("bf16", False) for training in settings.values())


def test_it_ends_with_scores_of_validation_and_test(trained):
    _, output, _ = trained
    scores = json.loads((output / "scores.json").read_text())
    assert list(scores) == ["validation", "test"]
    for split in scores:
        assert scores[split] == json.loads((output / "finetune" / f"{split}_scores.json").read_text())
        assert 0 <= scores[split]["tight"]["a_mAP"] <= scores[split]["loose"]["a_mAP"] <= 1
    assert (output / "curves.svg").is_file()


def test_the_frames_have_the_aspect_that_the_plan_asks_for(trained):
    shipped, output, _ = trained
    frames = yaml.safe_load((shipped / "train.yaml").read_text())["frames"]
    store = FrameStore(output / "frames")
    half = store.open(*store.halves[0])
    size = ComedianForActionSpotting.from_pretrained(output / "finetune").config.image_size
    assert store.fps == frames["fps"] and half.height == size[0]
    # the videos are 100 x 56 pixels
    assert half.width == (size[1] if "width" in frames else round(half.height * 100 / 56 / 2) * 2)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_commands_in_the_comments_are_right(folder):
    """`prepare` makes what the plan makes; a stage's command names a recipe and fields that are there."""
    import argparse

    plan = read_plan(folder / "train.yaml")
    commands = []
    for path in folder.glob("*.yaml"):
        comment = "\n".join(line[1:] for line in path.read_text().splitlines() if line.startswith("#"))
        lines = comment.replace("\\\n", " ").splitlines()
        commands += [shlex.split(line) for line in lines if line.strip().startswith("comedian ")]
    assert commands
    for _, command, *words in commands:
        if command == "prepare":
            parser = argparse.ArgumentParser()
            prepare_command.add_arguments(parser)
            args = parser.parse_args(words)
            assert (args.fps, args.height, args.width) == (plan.frames.fps, plan.frames.height, plan.frames.width)
            assert args.quality == plan.frames.quality and args.sound == plan.sound
        elif command in ("pretrain", "distill", "finetune"):
            option, path, *overrides = words
            assert option == "--config"
            load_recipe(folder.parents[1] / path, overrides)
        else:
            assert command == "train"

"""Copies of the shipped recipe folders that train in seconds: smaller models, batches and epochs, all else as shipped."""

import json
import shutil
from pathlib import Path

import yaml

from comedian.training.train_all import STAGES

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "hub_configs").glob("*/train.yaml"))
# fields of `training` that say how much there is to do; what they become where a recipe has them
TRAINING = {
    "per_device_train_batch_size": 2,
    "num_train_epochs": 1,
    "windows_per_half": 2,
    "eval_steps": 4,
    "save_steps": 4,
    "logging_steps": 1,
}
# clips of stage 1 are many and small
CLIPS = {"per_device_train_batch_size": 16}
CONFIG = {"spatial_hidden_size": 16, "temporal_depth": 1, "temporal_num_heads": 2}
FEATURE_DIM = 6
HEADS = {
    "pretrain": ("contrastive_config", {"projector_sizes": [12, 6], "predictor_sizes": [10, 6], "queue_size": 64}),
    "distill": ("distillation_config", {"projector_sizes": [12, FEATURE_DIM], "queue_size": 64}),
}


def small_config(config: dict) -> dict:
    """The sizes of the model that change, from its `config.json`."""
    sizes = dict(CONFIG)
    if config.get("window_stride_s") is None and config.get("edge_trim_s") is None:
        # they follow from the window's length
        sizes["num_frames"] = 16
    if config.get("spatial_encoder", "vivit") == "vivit":
        return sizes | {"spatial_depths": [2], "spatial_num_heads": [2], "image_size": [2 * config["patch_size"]] * 2}
    # the smallest grid whose windows are shifted, and merged to a single one
    sizes |= {"spatial_window_size": 2, "spatial_depths": [2, 1], "spatial_num_heads": [2, 4]}
    return sizes | {"image_size": [4 * config["patch_size"]] * 2}


def small_training(stage: str, training: dict) -> dict:
    """The fields of a recipe's `training` that change."""
    sizes = TRAINING | (CLIPS if stage == "pretrain" else {})
    return {name: value for name, value in sizes.items() if name in training}


def shrink_recipe(path: Path) -> None:
    """Make a recipe, or the plan of its folder, small."""
    content = yaml.safe_load(path.read_text())
    if path.stem == "train":
        config = json.loads((path.parent / "config.json").read_text())
        height, width = config["image_size"]
        # a width only where there is one
        content["frames"] |= {"height": height} | ({"width": width} if "width" in content["frames"] else {})
        content["features"]["dim"] = FEATURE_DIM
    else:
        content["training"] |= small_training(path.stem, content["training"])
        if path.stem in HEADS:
            name, sizes = HEADS[path.stem]
            overrides = content["model"].setdefault("overrides", {})
            overrides[name] = overrides.get(name, {}) | sizes
    # the comments above are part of the recipe
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    path.write_text("\n".join([*header, yaml.safe_dump(content, sort_keys=False)]))


def copy_small(folder: Path, destination: Path) -> Path:
    """Copy a recipe folder and make the copy small; return the copy."""
    shutil.copytree(folder, destination, ignore=shutil.ignore_patterns("results"))
    config = json.loads((folder / "config.json").read_text())
    (destination / "config.json").write_text(json.dumps(config | small_config(config)))
    for path in [destination / "train.yaml", *recipes_of(destination).values()]:
        shrink_recipe(path)
    return destination


def recipes_of(folder: Path) -> dict[str, Path]:
    """What `comedian train` runs of a folder: stage, or `teacher`, -> recipe."""
    plan = yaml.safe_load((folder / "train.yaml").read_text())
    recipes = {stage: folder / f"{stage}.yaml" for stage in STAGES if stage in plan["stages"]}
    teacher = plan["features"].get("teacher")
    return recipes | ({"teacher": folder / teacher} if teacher else {})

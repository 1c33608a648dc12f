"""A tiny data set in SoccerNet's layout: flashes of colour at known times, in train and validation matches."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from comedian.features.bank import FeatureHeader, features_path, write_features
from comedian.soccernet.prepare import prepare
from comedian.video.frame_store import StoreSettings
from video_factory import write_video

LABELS = ("red flash", "green flash")


def write_matches(
    root: Path,
    num_frames: int = 48,
    fps: float = 4.0,
    audio_s: float = 0.0,
    *,
    size: tuple[int, int] = (32, 32),
    labels: Sequence[str] = LABELS,
    with_test: bool = False,
) -> Path:
    """Write two train, one validation and maybe one test match of two halves, labels, `labels.txt` and `splits.json`."""
    splits = {"train": ["league/one", "league/two"], "validation": ["league/three"]}
    if with_test:
        splits["test"] = ["league/four"]
    for video_ids in splits.values():
        for video_id in video_ids:
            folder = root / video_id
            folder.mkdir(parents=True)
            annotations = []
            for half in (1, 2):
                height, width = size
                write_video(folder / f"{half}_224p.mkv", num_frames, fps, height=height, width=width, audio_s=audio_s)
                for number, position_ms in enumerate(range(1000 * half, int(num_frames / fps * 1000), 3000)):
                    annotations.append(
                        {
                            "gameTime": f"{half} - {position_ms // 60_000:02d}:{position_ms // 1000 % 60:02d}",
                            "label": labels[number % len(labels)],
                            "position": str(position_ms),
                            "team": "home",
                            "visibility": "visible",
                        }
                    )
            (folder / "Labels-v2.json").write_text(json.dumps({"annotations": annotations}))
    (root / "splits.json").write_text(json.dumps(splits))
    (root / "labels.txt").write_text("\n".join(labels) + "\n")
    return root


def write_recipe(folder: Path, root: Path, frames: Path, **training) -> Path:
    """Write a recipe and a config for a model of a few thousand weights; return the recipe's path."""
    config = {
        "model_type": "comedian",
        "spatial_hidden_size": 16,
        "spatial_depths": [1],
        "spatial_num_heads": [2],
        "temporal_depth": 1,
        "temporal_num_heads": 2,
        "image_size": [16, 16],
        "patch_size": 8,
        "num_frames": 8,
        "fps": 2.0,
        "drop_path_rate": 0.0,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    sections = {
        "model": {"config": "config.json"},
        "data": {"root": str(root), "frames": str(frames), "labels": str(root / "labels.txt")},
        "training": {
            "output_dir": str(folder / "output"),
            "per_device_train_batch_size": 4,
            "num_train_epochs": 2,
            "windows_per_half": 3,
            "base_learning_rate": 0.1,
            "use_cpu": True,
            "disable_tqdm": True,
            "seed": 3,
        }
        | training,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def write_stage_data(folder: Path, feature_dim: int = 6) -> tuple[Path, Path, Path]:
    """Write matches, their frame store and a bank of random features for the training split: `root`, `store`, `bank`."""
    root, store, bank = (folder / name for name in ("root", "store", "bank"))
    write_matches(root)
    prepare(root, store, StoreSettings(fps=4, height=16), workers=1, progress=False)
    write_bank(bank, {}, feature_dim)
    return root, store, bank


def write_bank(bank: Path, further_s: dict[tuple[str, int], float], feature_dim: int = 6) -> None:
    """Write random features, two a second, of the training halves of `write_matches` and of further ones of such length."""
    rng = np.random.default_rng(0)
    durations_s = {(video_id, half): 12.0 for video_id in ("league/one", "league/two") for half in (1, 2)}
    for (video_id, half), duration_s in (durations_s | further_s).items():
        features = rng.standard_normal((round(2 * duration_s), feature_dim)).astype(np.float32)
        header = FeatureHeader(fps=2.0, offset_s=0.25, source="noise", duration_s=duration_s, video={})
        write_features(features_path(bank, video_id, half), features, header)


def write_beeps(root: Path, duration_s: int = 48, fps: float = 2.0) -> Path:
    """Write four train and two validation halves whose pictures are all alike and whose beeps mark the events.

    Beside them `labels.txt` and `splits.json`.
    """
    rng = np.random.default_rng(0)
    splits = {"train": ["league/one", "league/two"], "validation": ["league/three"]}
    for video_id in splits["train"] + splits["validation"]:
        annotations = []
        for half in (1, 2):
            sound = 0.003 * rng.standard_normal(duration_s * 16_000)
            for second in range(2, duration_s - 4, 5):
                label, time_ms = int(rng.integers(2)), 1000 * second + int(rng.integers(3000))
                beep = 0.3 * np.sin(2 * np.pi * (600, 2400)[label] * np.arange(4800) / 16_000)
                sound[time_ms * 16 : time_ms * 16 + 4800] += beep
                annotations.append(
                    {
                        "gameTime": f"{half} - 00:{time_ms // 1000:02d}",
                        "label": LABELS[label],
                        "position": str(time_ms),
                        "team": "home",
                        "visibility": "visible",
                    }
                )
            write_video(
                root / video_id / f"{half}_224p.mkv",
                round(duration_s * fps),
                fps,
                height=32,
                width=32,
                draw=lambda number, height, width: np.full((height, width, 3), 128, np.uint8),
                sound=sound,
                sound_codec="aac",
            )
        (root / video_id / "Labels-v2.json").write_text(json.dumps({"annotations": annotations}))
    (root / "splits.json").write_text(json.dumps(splits))
    (root / "labels.txt").write_text("\n".join(LABELS) + "\n")
    return root

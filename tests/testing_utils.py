"""What several tests need."""

from pathlib import Path

import pytest
import torch

from comedian.conversion.lightning import read_checkpoint, save_converted
from comedian.models import ComedianConfig


def compute_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have models run as on a CPU without instructions for bfloat16."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)


def convert(checkpoint: Path, output_dir: Path, **given) -> Path:
    """Write the model of an authors' checkpoint to a folder, as `comedian convert` does."""
    return save_converted([read_checkpoint(checkpoint, **given)], output_dir)


def tiny_config(**overrides) -> ComedianConfig:
    """A model of 16 channels, 8 frames of 16 x 16 pixels, 4 tokens and 3 labels."""
    fields = {
        "spatial_hidden_size": 16,
        "spatial_depths": [2],
        "spatial_num_heads": [2],
        "temporal_depth": 2,
        "temporal_num_heads": 2,
        "image_size": [16, 16],
        "patch_size": 4,
        "num_frames": 8,
        "num_labels": 3,
    }
    if overrides.get("spatial_encoder") == "convolutional":
        fields |= {"spatial_depths": [2, 2], "temporal_convolutions": 1, "temporal_kernel_size": 3}
    if overrides.get("spatial_encoder") == "viswin":
        # 4 x 4 patches in windows of 2, so that windows are shifted
        fields |= {"spatial_depths": [2, 2], "spatial_num_heads": [2, 4], "spatial_window_size": 2}
    if "id2label" in overrides:
        del fields["num_labels"]
    return ComedianConfig(**(fields | overrides))

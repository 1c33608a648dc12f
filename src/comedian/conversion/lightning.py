"""Authors' Lightning checkpoints to folders that `from_pretrained` loads."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from comedian.data.annotations import SOCCERNET_V2_LABELS
from comedian.errors import InputError
from comedian.models import (
    ComedianConfig,
    ComedianForActionSpotting,
    ComedianModel,
    ComedianVideoProcessor,
)

# buffers of augmentation modules lie among the weights of the published files
AUGMENTATION_PREFIXES = ("train_transform.", "val_transform.", "test_transform.")
# recomputed from the configuration
DERIVED_SUFFIXES = (".relative_position_index", ".attn_mask")
# training-only parts of stages 1 and 2: the backbone is what is converted
PRETRAINING_PREFIXES = ("projector.", "predictor.", "momentum_trunk.", "momentum_projector.", "queue")

# published name -> ours, inside the trunk; the first match wins
RENAMINGS = (
    (r"^transformer\.", ""),
    (r"^(patch_embed|pos_embed|cls_token|spatial_cls_token)", r"spatial_encoder.\1"),
    (r"^(blocks|norm|layers)\.", r"spatial_encoder.\1."),
    (r"^spatial_transformer\.", "spatial_encoder."),
    (r"^temporal_transformer\.", "temporal_encoder."),
    (r"^temporal_mask_token$", "temporal_encoder.mask_token"),
    (r"^time_embed$", "temporal_encoder.time_embeddings"),
    (r"\.(spatial_)?cls_token$", ".class_token"),
    (r"\.pos_embed$", ".position_embeddings"),
    (r"\.patch_embed\.proj\.", ".embeddings.projection."),
    (r"\.patch_embed\.norm\.", ".embeddings.norm."),
    (r"spatial_encoder\.layers\.(\d+)\.blocks\.", r"spatial_encoder.stages.\1.layers."),
    (r"spatial_encoder\.layers\.(\d+)\.downsample\.", r"spatial_encoder.stages.\1.merging."),
    (r"\.blocks\.", ".layers."),
    (r"\.attn\.relative_position_bias_table$", ".attention.relative_position_bias"),
    (r"\.attn\.proj\.", ".attention.projection."),
    (r"\.attn\.", ".attention."),
)

"""Image models of transformers (ViT, DeiT, DINOv2, Swin) as the spatial encoder that training starts from."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from comedian.conversion.model_folder import check_output_dir, save_model
from comedian.errors import InputError
from comedian.hub.model_record import record_of_start
from comedian.inference.image_processors import read_normalisation
from comedian.inference.model_names import check_name
from comedian.models import ComedianConfig, ComedianModel, ComedianVideoProcessor

ENCODERS = {"vit": "vivit", "deit": "vivit", "dinov2": "vivit", "swin": "viswin"}
# channels of an attention head of the temporal encoder, as in every published size
HEAD_CHANNELS = 64

# name in the spatial encoder -> name in the image model, applied in this order
RENAMINGS = [
    (r"^class_token$", "embeddings.cls_token"),
    (r"^position_embeddings$", "embeddings.position_embeddings"),
    (r"^embeddings\.projection\.", "embeddings.patch_embeddings.projection."),
    (r"^stages\.(\d+)\.layers\.(\d+)\.", r"encoder.layers.\1.blocks.\2."),
    (r"^stages\.(\d+)\.merging\.", r"encoder.layers.\1.downsample."),
    (r"\.attention\.projection\.", ".attention.o_proj."),
    (r"\.relative_position_bias$", ".relative_position_bias.relative_position_bias_table"),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"^norm\.", "layernorm."),
]
DINOV2_RENAMINGS = [
    (r"^layers\.", "encoder.layer."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
]


@dataclass(frozen=True)
class ImageBackbone:
    """A backbone whose spatial encoder is an image model's; its temporal encoder is yet to be trained.

    Attributes:
        model: the backbone; only its spatial encoder counts.
        notes: what is not the image model's own, for people.
        name: the image model's folder or Hub repository.
    """

    model: ComedianModel
    notes: list[str]
    name: str


def read_image_backbone(
    name: str,
    *,
    tubelet_size: int = 2,
    num_frames: int = 128,
    fps: float = 2.0,
    image_size: Sequence[int] | None = None,
) -> ImageBackbone:
    """Turn an image model into a spatial encoder whose tokens of a still tubelet are those of the image model.

    The patch embedding is inflated: every frame of a tubelet gets an equal share of the weights (Arnab et al., ViViT,
    2021). The difference between the image model's normalisation and ours goes into its weights and bias, DINOv2's layer
    scales into the matrices before them.

    Args:
        name: folder or Hub repository of a ViT, DeiT, DINOv2 or Swin model of transformers.
        tubelet_size: frames of a tubelet.
        num_frames: frames of a window of the temporal encoder that is to be trained.
        fps: frames per second of the model's input.
        image_size: height and width in pixels; the image model's by default, else its position tables are resampled.

    Returns:
        The backbone and what is not the image model's own.

    Raises:
        InputError: no such model, or one that is built otherwise.
    """
    check_name(name)
    try:
        source_config = AutoConfig.from_pretrained(name)
        if source_config.model_type not in ENCODERS:
            raise InputError(
                f"`{name}` is a model of type {source_config.model_type!r}; known as spatial encoders: "
                f"{', '.join(ENCODERS)}"
            )
        _check_form(name, source_config)
        source, loading = _load(name)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise InputError(f"`{name}` cannot be loaded: {reason}; give a folder or a Hub repository") from error
    missing = [key for key in loading["missing_keys"] if not key.startswith("pooler.")]
    if missing:
        raise InputError(f"`{name}` has no weights for {sorted(missing)[0]}; give a trained image model")
    notes: list[str] = []
    try:
        config = _config(source_config, tubelet_size, num_frames, fps)
        model = ComedianModel(config)
        weights = _spatial_weights(model, source, _normalisation(name, notes))
        model.spatial_encoder.load_state_dict(weights)
        if image_size is not None and list(image_size) != config.image_size:
            notes.append(f"position tables: resampled from {' x '.join(map(str, config.image_size))} pixels")
            model.resize_position_tables(image_size=list(image_size), num_frames=num_frames)
    except StrictDataclassError as error:
        raise InputError(f"`{name}` cannot be converted: {str(error).splitlines()[-1].strip()}") from error
    if source_config.model_type == "deit":
        notes.append("DeiT's distillation token is omitted, so tokens differ a little from the image model's")
    notes.append("temporal encoder: to be trained")
    return ImageBackbone(model.eval(), notes, name)


def save_image_backbone(backbone: ImageBackbone, output_dir: str | Path) -> Path:
    """Write the spatial encoder, as stage 1 leaves it, to a new folder; a recipe's `model.checkpoint` starts from it.

    Raises:
        InputError: the folder holds files or cannot be written.
    """
    check_output_dir(output_dir)
    height, width = backbone.model.config.image_size
    processor = ComedianVideoProcessor(size={"height": height, "width": width})
    return save_model(
        backbone.model, processor, record_of_start(backbone.name), output_dir, parts=("spatial_encoder",)
    )


def _load(name: str) -> tuple[PreTrainedModel, dict]:
    verbosity = logging.get_verbosity()
    # transformers reports the missing pooler, which is not needed, as a table; other missing weights raise an error below
    logging.set_verbosity_error()
    try:
        return AutoModel.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    finally:
        logging.set_verbosity(verbosity)


def _check_form(name: str, config: PreTrainedConfig) -> None:
    """Reject variants that the encoders of this package do not support."""
    variants = {
        "qkv_bias": (getattr(config, "qkv_bias", True), True),
        "use_swiglu_ffn": (getattr(config, "use_swiglu_ffn", False), False),
        "use_absolute_embeddings": (getattr(config, "use_absolute_embeddings", False), False),
    }
    for field, (found, wanted) in variants.items():
        if found != wanted:
            raise InputError(f"`{name}` has `{field}` {found}; only models with {wanted} become a spatial encoder")


def _config(source: PreTrainedConfig, tubelet_size: int, num_frames: int, fps: float) -> ComedianConfig:
    swin = source.model_type == "swin"
    side = source.image_size
    width = source.embed_dim if swin else source.hidden_size
    hidden_size = width * 2 ** (len(source.depths) - 1) if swin else width
    mlp_ratio = source.intermediate_size / width if hasattr(source, "intermediate_size") else source.mlp_ratio
    return ComedianConfig(
        spatial_encoder=ENCODERS[source.model_type],
        spatial_hidden_size=width,
        spatial_depths=list(source.depths) if swin else source.num_hidden_layers,
        spatial_num_heads=list(source.num_heads) if swin else source.num_attention_heads,
        spatial_window_size=source.window_size if swin else ComedianConfig.spatial_window_size,
        temporal_num_heads=max(hidden_size // HEAD_CHANNELS, 1),
        image_size=list(side) if isinstance(side, list | tuple) else side,
        patch_size=source.patch_size,
        tubelet_size=tubelet_size,
        num_frames=num_frames,
        fps=fps,
        num_channels=source.num_channels,
        mlp_ratio=mlp_ratio,
        hidden_act=source.hidden_act,
        layer_norm_eps=source.layer_norm_eps,
    )


def _normalisation(name: str, notes: list[str]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the image model's pixels; ours, with a note, where none are to be found."""
    normalisation = read_normalisation(name)
    if normalisation is None:
        notes.append("normalisation: ours, as the image model names none (preprocessor_config.json)")
        normalisation = ComedianVideoProcessor.image_mean, ComedianVideoProcessor.image_std
    mean, std = map(torch.tensor, normalisation)
    return mean, std


def _spatial_weights(
    model: ComedianModel, source: PreTrainedModel, normalisation: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """Weights of the spatial encoder from those of the image model."""
    stored, dinov2 = source.state_dict(), source.config.model_type == "dinov2"
    weights = {}
    for name in model.spatial_encoder.state_dict():
        found = _source_name(name, dinov2)
        if ".attention.qkv." in name:
            parts = [stored[found.replace(".qkv.", f".{part}_proj.")] for part in "qkv"]
            weights[name] = torch.cat(parts)
        elif dinov2 and (scaled := re.search(r"\.(o_proj|fc2)\.(weight|bias)$", found)):
            scale = stored[_layer_scale(found, scaled[1])]
            weights[name] = stored[found] * (scale[:, None] if scaled[2] == "weight" else scale)
        else:
            weights[name] = stored[found]
    if source.config.model_type == "deit":
        # class, distillation, patches
        table = stored["embeddings.position_embeddings"]
        weights["position_embeddings"] = torch.cat([table[:, :1], table[:, 2:]], dim=1)
    weights |= _inflate(weights, model.config.tubelet_size, *normalisation)
    return weights


def _source_name(name: str, dinov2: bool) -> str:
    for pattern, replacement in RENAMINGS + (DINOV2_RENAMINGS if dinov2 else []):
        name = re.sub(pattern, replacement, name)
    return name


def _layer_scale(name: str, matrix: str) -> str:
    """Name of the factors that DINOv2 puts on the output of a layer's attention or MLP."""
    layer = ".".join(name.split(".")[:3])  # encoder.layer.N
    return f"{layer}.layer_scale{1 if matrix == 'o_proj' else 2}.lambda1"


def _inflate(weights: dict[str, Tensor], tubelet_size: int, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
    """Patch embedding of a tubelet in our normalisation from that of an image in the image model's."""
    kernel, bias = weights["embeddings.projection.weight"], weights["embeddings.projection.bias"]
    our_mean, our_std = (
        torch.tensor(values) for values in (ComedianVideoProcessor.image_mean, ComedianVideoProcessor.image_std)
    )
    shift = torch.einsum("dchw,c->d", kernel, (our_mean - mean) / std)
    kernel = kernel * (our_std / std)[:, None, None] / tubelet_size
    # a Conv3d kernel's order: channels, frames, rows, columns
    inflated = kernel[:, :, None].expand(-1, -1, tubelet_size, -1, -1).flatten(1)
    return {"embeddings.projection.weight": inflated, "embeddings.projection.bias": bias + shift}

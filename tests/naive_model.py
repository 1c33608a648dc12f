"""COMEDIAN written down slowly: one tubelet, one head and one window at a time, on tensors under their published names."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

Tensors = dict[str, Tensor]
TRUNK = "trunk.transformer."


def random_checkpoint(
    encoder: str,
    *,
    width: int,
    depths: list[int],
    heads: list[int],
    temporal_depth: int = 1,
    image: tuple[int, int],
    patch: int,
    tubelet: int,
    frames: int,
    classes: int = 17,
    window: int = 7,
    mlp_ratio: int = 4,
) -> Tensors:
    """A spotting checkpoint of any size, with no buffers."""
    tensors = {}

    def add(name: str, *shape: int):
        tensors[TRUNK + name] = torch.randn(shape) * (0.3 if "norm" not in name else 1.0)

    def add_linear(name: str, inputs: int, outputs: int):
        add(f"{name}.weight", outputs, inputs)
        add(f"{name}.bias", outputs)

    def add_norm(name: str, size: int):
        add(f"{name}.weight", size)
        add(f"{name}.bias", size)

    def add_block(name: str, size: int):
        add_norm(f"{name}.norm1", size)
        add_linear(f"{name}.attn.qkv", size, 3 * size)
        add_linear(f"{name}.attn.proj", size, size)
        add_norm(f"{name}.norm2", size)
        add_linear(f"{name}.mlp.fc1", size, mlp_ratio * size)
        add_linear(f"{name}.mlp.fc2", mlp_ratio * size, size)

    rows, columns = image[0] // patch, image[1] // patch
    add("patch_embed.proj.weight", width, 3, tubelet, patch, patch)
    add("patch_embed.proj.bias", width)
    if encoder == "vivit":
        add("spatial_cls_token", 1, 1, width)
        add("pos_embed", 1, 1 + rows * columns, width)
        for index in range(depths[0]):
            add_block(f"spatial_transformer.blocks.{index}", width)
    else:
        add_norm("patch_embed.norm", width)
        for stage, depth in enumerate(depths):
            name = f"spatial_transformer.layers.{stage}"
            side = min(window, rows, columns)
            for index in range(depth):
                add_block(f"{name}.blocks.{index}", width)
                table = f"{name}.blocks.{index}.attn.relative_position_bias_table"
                add(table, (2 * side - 1) ** 2, heads[stage])
            if stage < len(depths) - 1:
                add_norm(f"{name}.downsample.norm", 4 * width)
                add(f"{name}.downsample.reduction.weight", 2 * width, 4 * width)
                width, rows, columns = 2 * width, math.ceil(rows / 2), math.ceil(columns / 2)
    add_norm("spatial_transformer.norm", width)
    add("temporal_mask_token", 1, 1, width)
    add("time_embed", 1, frames // tubelet, width)
    for index in range(temporal_depth):
        add_block(f"temporal_transformer.blocks.{index}", width)
    add_norm("temporal_transformer.norm", width)
    tensors["head_class.layers.0.weight"] = torch.randn(classes, width)
    tensors["head_class.layers.0.bias"] = torch.randn(classes)
    return tensors


def linear(x: Tensor, t: Tensors, name: str) -> Tensor:
    return F.linear(x, t[f"{name}.weight"], t.get(f"{name}.bias"))


def norm(x: Tensor, t: Tensors, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], 1e-6)


def attention(x: Tensor, t: Tensors, name: str, heads: int, bias: Tensor | None = None) -> Tensor:
    """`(tokens, width)` to the same; `bias` is `(tokens, tokens, heads)`."""
    query, key, value = linear(x, t, f"{name}.qkv").chunk(3, dim=1)
    size = x.shape[1] // heads
    outputs = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / math.sqrt(size)
        if bias is not None:
            scores = scores + bias[:, :, head]
        outputs.append(scores.softmax(dim=1) @ value[:, part])
    return linear(torch.cat(outputs, dim=1), t, f"{name}.proj")


def block(x: Tensor, t: Tensors, name: str, attend) -> Tensor:
    x = x + attend(norm(x, t, f"{name}.norm1"))
    return x + linear(F.gelu(linear(norm(x, t, f"{name}.norm2"), t, f"{name}.mlp.fc1")), t, f"{name}.mlp.fc2")


def window_attention(x: Tensor, t: Tensors, name: str, heads: int, side: int, shift: int) -> Tensor:
    """Every patch of a grid attends to those of its window that lie on its side of the image's edge."""
    height, width, _ = x.shape
    padded = [math.ceil(size / side) * side for size in (height, width)]
    groups: dict[tuple, list[tuple[int, int]]] = {}
    for row in range(height):
        for column in range(width):
            window = ((row - shift) % padded[0] // side, (column - shift) % padded[1] // side)
            groups.setdefault((*window, row < shift, column < shift), []).append((row, column))
    output, table = torch.zeros_like(x), t[f"{name}.relative_position_bias_table"]
    for cells in groups.values():
        rows, columns = torch.tensor(cells).T
        bias = table[(rows[:, None] - rows + side - 1) * (2 * side - 1) + columns[:, None] - columns + side - 1]
        attended = attention(torch.stack([x[cell] for cell in cells]), t, name, heads, bias)
        for cell, vector in zip(cells, attended, strict=True):
            output[cell] = vector
    return output


def merge(x: Tensor, t: Tensors, name: str) -> Tensor:
    x = F.pad(x, (0, 0, 0, x.shape[1] % 2, 0, x.shape[0] % 2))
    x = torch.cat([x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]], dim=-1)
    return linear(norm(x, t, f"{name}.norm"), t, f"{name}.reduction")


def spatial_token(tubelet: Tensor, t: Tensors, depths: list[int], heads: list[int], window: int) -> Tensor:
    """`(channels, frames, height, width)` to `(hidden_size,)`."""
    kernel, name = t["patch_embed.proj.weight"], "spatial_transformer"
    x = F.conv3d(tubelet[None], kernel, t["patch_embed.proj.bias"], stride=kernel.shape[2:])[0, :, 0].permute(1, 2, 0)
    if "pos_embed" in t:
        x = torch.cat([t["spatial_cls_token"][0], x.flatten(0, 1)]) + t["pos_embed"][0]
        for index in range(depths[0]):
            attn = f"{name}.blocks.{index}.attn"
            x = block(x, t, f"{name}.blocks.{index}", lambda y, attn=attn: attention(y, t, attn, heads[0]))
        return norm(x, t, f"{name}.norm")[0]
    x = norm(x, t, "patch_embed.norm")
    for stage, depth in enumerate(depths):
        side = min(window, *x.shape[:2])
        for index in range(depth):
            shift = side // 2 if index % 2 and min(x.shape[:2]) > side else 0
            layer = f"{name}.layers.{stage}.blocks.{index}"
            settings = (t, f"{layer}.attn", heads[stage], side, shift)
            x = block(x, t, layer, lambda y, settings=settings: window_attention(y, *settings))
        if stage < len(depths) - 1:
            x = merge(x, t, f"{name}.layers.{stage}.downsample")
    return norm(x, t, f"{name}.norm").mean(dim=(0, 1))


def naive_forward(
    tensors: Tensors,
    pixel_values_videos: Tensor,
    depths: list[int],
    heads: list[int],
    temporal_heads: int,
    window: int = 7,
    kept_tubelets: Tensor | None = None,
) -> Tensor:
    """`(batch, frames, channels, height, width)` to logits `(batch, tokens, classes)`."""
    t = {name.removeprefix(TRUNK): tensor for name, tensor in tensors.items()}
    size = t["patch_embed.proj.weight"].shape[2]
    logits = []
    for index, video in enumerate(pixel_values_videos):
        tokens = []
        for number, tubelet in enumerate(video.split(size)):
            if kept_tubelets is not None and number not in kept_tubelets[index]:
                tokens.append(t["temporal_mask_token"][0, 0])
            else:
                tokens.append(spatial_token(tubelet.transpose(0, 1), t, depths, heads, window))
        x, name = torch.stack(tokens) + t["time_embed"][0, : len(tokens)], "temporal_transformer.blocks."
        for layer in range(sum(key.startswith(name) and key.endswith(".norm1.weight") for key in t)):
            attn = f"{name}{layer}.attn"
            x = block(x, t, f"{name}{layer}", lambda y, attn=attn: attention(y, t, attn, temporal_heads))
        logits.append(linear(norm(x, t, "temporal_transformer.norm"), t, "head_class.layers.0"))
    return torch.stack(logits)

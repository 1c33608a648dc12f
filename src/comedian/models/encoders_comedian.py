"""The encoders of COMEDIAN: ViViT and ViSwin over the patches of a tubelet, a transformer over a window's tokens;
sound."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_comedian import ComedianConfig
from .settings_comedian import as_list
from .sound_comedian import NUM_MELS

# of the first class token; that of the published system is about 0
CLASS_TOKEN_STD = 1e-6


@torch.no_grad()
def resample_grid(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resample a table of one vector a grid cell, `(rows * columns, width)`, by bicubic interpolation."""
    grid = table.float().unflatten(0, old).permute(2, 0, 1)[None]
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return grid[0].permute(1, 2, 0).flatten(0, 1).to(table.dtype)


class ComedianUniformLinear(nn.Linear):
    """A linear layer whose first weights are PyTorch's own, Kaiming uniform (its own class so that they can be)."""


@torch.no_grad()
def replace_table(module: nn.Module, name: str, resample: Callable[[Tensor], Tensor]) -> None:
    """Replace a learned table of a module by its resampled one, which accelerate may keep in memory or on disk for it."""
    offloaded = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
    table = resample(getattr(module, name) if offloaded is None else offloaded[name])
    if offloaded is not None:
        # values in memory come before those on disk
        offloaded.dataset.state_dict[offloaded.prefix + name] = table
        table = table.to("meta")
    setattr(module, name, nn.Parameter(table))


def on_tokens(layer: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    """Apply a linear layer to `(batch, ..., width)` as `(batch, tokens, width)`: quantised ones take no more
    dimensions."""
    return layer(states.flatten(1, -2)).unflatten(1, states.shape[1:-1])


def to_compute_dtype(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Round pixels to `dtype` or, under autocast, to its: as the first product would, but before they are copied."""
    device = pixels.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return pixels.to(dtype)


class ComedianTubeletEmbeddings(nn.Module):
    """Non-overlapping tubelets to patch vectors: the Conv3d of the paper, as one matrix product."""

    def __init__(self, config: ComedianConfig):
        super().__init__()
        self.tubelet_size = config.tubelet_size
        self.patch_size = config.patch_size
        volume = config.num_channels * config.tubelet_size * config.patch_size**2
        self.projection = ComedianUniformLinear(volume, config.spatial_hidden_size)
        self.norm = (
            nn.LayerNorm(config.spatial_hidden_size, eps=config.layer_norm_eps)
            if config.spatial_encoder == "viswin"
            else nn.Identity()
        )

    def forward(self, tubelets: Tensor) -> Tensor:
        """`(num_tubelets, tubelet_size, channels, height, width)` to `(num_tubelets, rows, columns, width)`."""
        count, frames, channels, height, width = tubelets.shape
        size = self.patch_size
        patches = tubelets.reshape(count, frames, channels, height // size, size, width // size, size)
        # (count, rows, columns, channels, frames, size, size): the order of a Conv3d kernel
        patches = patches.permute(0, 3, 5, 2, 1, 4, 6).flatten(3)
        return self.norm(on_tokens(self.projection, patches))


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """Attention with explicit weights; `(batch, heads, tokens, head_dim)` to `(batch, tokens, heads, head_dim)`."""
    weights = (query * scaling) @ key.transpose(2, 3)
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = F.dropout(weights.softmax(dim=-1), p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class ComedianAttention(nn.Module):
    """Parts of multi-head self-attention; subclasses choose which tokens attend to each other."""

    is_causal = False

    def __init__(self, config: ComedianConfig, hidden_size: int, num_heads: int):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.scaling = (hidden_size // num_heads) ** -0.5
        self.dropout_prob = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.projection = nn.Linear(hidden_size, hidden_size)

    def split_heads(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(batch, ..., tokens, width)` to query, key and value `(batch, ..., heads, tokens, head_dim)`."""
        qkv = on_tokens(self.qkv, hidden_states).unflatten(-1, (3, self.num_heads, -1))
        return qkv.movedim(-3, 0).transpose(-3, -2).unbind(0)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, output_attentions: bool
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, heads, tokens, head_dim)` to `(batch, tokens, heads, head_dim)` and the weights, if any."""
        # fused kernels never hold the weights, and flash kernels take no mask
        implementation = "eager" if output_attentions else self.config._attn_implementation
        if mask is not None and implementation != "eager":
            implementation = "sdpa"
        # in bfloat16, the CPU kernel's backward pass is slower than that of two matrix products; in float32 it is faster
        if (
            implementation == "sdpa"
            and query.device.type == "cpu"
            and query.dtype == torch.bfloat16
            and query.requires_grad
        ):
            implementation = "eager"
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        return attention(
            self,
            query,
            key,
            value,
            mask,
            is_causal=self.is_causal,
            scaling=self.scaling,
            dropout=self.dropout_prob if self.training else 0.0,
        )


class ComedianTokenAttention(ComedianAttention):
    """Attention among all tokens of a sequence."""

    def forward(
        self, hidden_states: Tensor, output_attentions: bool = False, num_outputs: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, tokens, width)` to the same, or to the first `num_outputs` tokens alone, and the weights, if any."""
        query, key, value = self.split_heads(hidden_states)
        output, weights = self.attend(query[:, :, :num_outputs], key, value, None, output_attentions)
        return self.projection(output.flatten(2)), weights


class ComedianSpatialAttention(ComedianTokenAttention):
    """Attention among the patches of one tubelet."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *mask_and_options) -> tuple[Tensor, Tensor | None]:
        """See [`ComedianAttention.attend`]; in float32 where CPUs are faster so."""
        if not attends_in_float32(query):
            return super().attend(query, key, value, *mask_and_options)
        dtype = query.dtype
        with torch.autocast("cpu", enabled=False):
            output, weights = super().attend(query.float(), key.float(), value.float(), *mask_and_options)
        return output.to(dtype), weights


def is_bfloat16_fast(device: torch.device) -> bool:
    """Whether a device computes in bfloat16: accelerators and CPUs with instructions for it. Others emulate it slowly."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def attends_in_float32(query: Tensor) -> bool:
    """Whether the fused kernel is to run in float32: without matrix units it is faster than in bfloat16, and more
    exact."""
    if query.device.type != "cpu":
        return False
    rounded = query.dtype == torch.bfloat16 and not torch.is_grad_enabled()
    return query.dtype == torch.float32 or rounded and not torch.cpu._is_amx_tile_supported()


class ComedianTemporalAttention(ComedianTokenAttention):
    """Attention among the tokens of one window."""


class ComedianWindowAttention(ComedianAttention):
    """Attention inside (shifted) windows of patches with a relative position bias (Swin, Liu et al. 2021)."""

    def __init__(self, config: ComedianConfig, hidden_size: int, num_heads: int, window: int, shift: int):
        super().__init__(config, hidden_size, num_heads)
        self.window = window
        self.shift = shift
        self.relative_position_bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))

    def resize_window(self, window: int, shift: int) -> None:
        """Change the window, resampling the bias table where its side changes."""
        if window != self.window:
            old, new = 2 * self.window - 1, 2 * window - 1
            replace_table(self, "relative_position_bias", lambda table: resample_grid(table, (old, old), (new, new)))
        self.window, self.shift = window, shift

    def position_bias(self) -> Tensor:
        """Bias of each pair of positions, `(heads, window**2, window**2)`."""
        side = torch.arange(self.window, device=self.relative_position_bias.device)
        difference = side[:, None] - side[None, :] + self.window - 1
        # (row, column, row, column): index of the row difference and of the column difference
        index = difference[:, None, :, None] * (2 * self.window - 1) + difference[None, :, None, :]
        return self.relative_position_bias[index.reshape(self.window**2, -1)].permute(2, 0, 1)

    def region_mask(self, height: int, width: int, padded: tuple[int, int], dtype: torch.dtype) -> Tensor | None:
        """0 where two patches of a window lie side by side in the image, very negative elsewhere.

        Returns:
            `(num_windows, window**2, window**2)`, or `None` where every window is whole.
        """
        if self.shift == 0 and (height, width) == padded:
            return None
        rows = self.axis_regions(height, padded[0])
        columns = self.axis_regions(width, padded[1])
        regions = (rows[:, None] * 4 + columns[None, :])[None, :, :, None]
        regions = to_windows(regions, self.window).flatten(1)
        # -100 as in Swin: float16-safe, and a fully masked row (padding) stays finite
        return (regions[:, :, None] != regions[:, None, :]).to(dtype) * -100.0

    def axis_regions(self, size: int, padded: int) -> Tensor:
        """Region of each position of one rolled axis: 0 image, 1 image up to the seam, 2 rolled around, 3 padding."""
        position = torch.arange(padded, device=self.relative_position_bias.device)
        source = (position + self.shift) % padded
        region = (position >= padded - self.window).long() + (position >= padded - self.shift).long()
        region = region if self.shift else torch.zeros_like(region)
        return torch.where(source < size, region, 3)

    def forward(
        self, hidden_states: Tensor, output_attentions: bool = False, num_outputs: None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, rows, columns, width)` to the same, and the weights, if any; always all patches."""
        batch, height, width, _ = hidden_states.shape
        padded = tuple(-(-side // self.window) * self.window for side in (height, width))
        hidden_states = F.pad(hidden_states, (0, 0, 0, padded[1] - width, 0, padded[0] - height))
        if self.shift:
            hidden_states = hidden_states.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = to_windows(hidden_states, self.window).flatten(1, 2).unflatten(0, (batch, -1))
        # windows stand in for heads, so that the bias is broadcast over the batch instead of copied
        query, key, value = (part.flatten(1, 2) for part in self.split_heads(windows))
        bias = self.position_bias()[None]
        mask = self.region_mask(height, width, padded, bias.dtype)
        bias = bias.expand(windows.shape[1], -1, -1, -1) if mask is None else bias + mask[:, None]
        bias = bias.flatten(0, 1)[None].to(query.dtype)
        output, weights = self.attend(query, key, value, bias, output_attentions)
        # (batch, window**2, num_windows * heads, head_dim) -> (batch * num_windows, window, window, width)
        output = output.unflatten(2, (-1, self.num_heads)).transpose(1, 2).flatten(3)
        output = on_tokens(self.projection, output).flatten(0, 1).unflatten(1, (self.window, self.window))
        output = from_windows(output, *padded)
        if self.shift:
            output = output.roll((self.shift, self.shift), dims=(1, 2))
        return output[:, :height, :width], weights


def to_windows(grid: Tensor, window: int) -> Tensor:
    """`(batch, rows, columns, width)` to `(batch * num_windows, window, window, width)`."""
    batch, height, width, channels = grid.shape
    grid = grid.reshape(batch, height // window, window, width // window, window, channels)
    return grid.transpose(2, 3).reshape(-1, window, window, channels)


def from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Inverse of [`to_windows`]."""
    size, channels = windows.shape[1], windows.shape[3]
    grid = windows.reshape(-1, height // size, width // size, size, size, channels)
    return grid.transpose(2, 3).reshape(-1, height, width, channels)


class ComedianDropPath(nn.Module):
    """Stochastic depth: drops a residual branch for whole samples in training (Huang et al., 2016)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Scale the kept samples so that the expectation stays."""
        if self.rate == 0.0 or not self.training:
            return hidden_states
        shape = (hidden_states.shape[0],) + (1,) * (hidden_states.ndim - 1)
        return hidden_states * hidden_states.new_empty(shape).bernoulli_(1 - self.rate).div_(1 - self.rate)


class ComedianMLP(nn.Module):
    """Two linear layers."""

    def __init__(self, config: ComedianConfig, hidden_size: int):
        super().__init__()
        inner = int(hidden_size * config.mlp_ratio)
        self.fc1 = nn.Linear(hidden_size, inner)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(inner, hidden_size)

    def forward(self, hidden_states: Tensor, recompute: bool = False) -> Tensor:
        """Token by token; with `recompute`, the backward pass computes the activation again instead of keeping it."""
        inner = self.fc1(hidden_states)
        if not recompute:
            return self.project(inner)
        # the backward pass stops as soon as it has the input of `fc2`: no matrix product is computed twice
        return checkpoint(self.project, inner, use_reentrant=False, preserve_rng_state=False)

    def project(self, inner: Tensor) -> Tensor:
        """Activation and second layer."""
        return self.fc2(self.activation(inner))


def can_recompute() -> bool:
    """Whether intermediate values may be computed again: gradients are taken, by neither a compiler nor `torch.func`."""
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


class ComedianLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer around a given attention."""

    def __init__(self, config: ComedianConfig, attention: ComedianAttention, hidden_size: int, drop_path_rate: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.mlp = ComedianMLP(config, hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = ComedianDropPath(drop_path_rate)

    def forward(
        self, hidden_states: Tensor, output_attentions: bool = False, num_outputs: int | None = None
    ) -> Tensor:
        """Same shape as the input, or the first `num_outputs` tokens alone."""
        attended, _ = self.attention(self.norm1(hidden_states), output_attentions, num_outputs)
        hidden_states = hidden_states[:, : attended.shape[1]] + self.drop_path(self.dropout(attended))
        # gradient checkpointing recomputes the whole layer
        recompute = can_recompute() and not self.gradient_checkpointing
        transformed = on_tokens(lambda tokens: self.mlp(tokens, recompute), self.norm2(hidden_states))
        return hidden_states + self.drop_path(self.dropout(transformed))


class ComedianSpatialLayer(ComedianLayer):
    """A layer of a spatial encoder."""


class ComedianTemporalLayer(ComedianLayer):
    """A layer of the temporal encoder."""


def drop_path_rates(config: ComedianConfig, depth: int) -> list[float]:
    """Stochastic depth rates growing linearly from 0 to `config.drop_path_rate`."""
    return [config.drop_path_rate * layer / max(depth - 1, 1) for layer in range(depth)]


class ComedianEncoder(nn.Module):
    """Base class of spatial and temporal encoders."""

    def layer_groups(self) -> list[list[nn.Parameter]] | None:
        """Parameters in the order of depth: embeddings, each layer, the closing norm; `None` without such an order."""
        return None

    def init_tables(self, std: float) -> None:
        """Start the learned tables; `std` is `config.initializer_range`. An encoder without any does nothing."""

    def resize_tables(self, old: ComedianConfig, new: ComedianConfig) -> None:
        """Resample the learned tables from the input sizes of `old` to those of `new`, as `init_tables`."""


def staged_layer_groups(encoder: nn.Module) -> list[list[nn.Parameter]]:
    """See [`ComedianEncoder.layer_groups`]; a merging belongs to the layer before it."""
    groups = [list(encoder.embeddings.parameters())]
    for stage in encoder.stages:
        groups.extend(list(layer.parameters()) for layer in stage["layers"])
        groups[-1].extend(stage["merging"].parameters())
    return [*groups, list(encoder.norm.parameters())]


class ComedianViTEncoder(ComedianEncoder):
    """Spatial transformer with a class token; the class token is the tubelet's spatial token."""

    def __init__(self, config: ComedianConfig):
        super().__init__()
        width = config.spatial_hidden_size
        (depth,), (heads,) = as_list(config.spatial_depths), as_list(config.spatial_num_heads)
        self.embeddings = ComedianTubeletEmbeddings(config)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        rows, columns = config.grid_size
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + rows * columns, width))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(
            ComedianSpatialLayer(config, ComedianSpatialAttention(config, width, heads), width, rate)
            for rate in drop_path_rates(config, depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """See [`ComedianEncoder.layer_groups`]."""
        embeddings = [self.class_token, self.position_embeddings, *self.embeddings.parameters()]
        return [embeddings, *(list(part.parameters()) for part in (*self.layers, self.norm))]

    def init_tables(self, std: float) -> None:
        """See [`ComedianEncoder.init_tables`]."""
        init.normal_(self.class_token, std=CLASS_TOKEN_STD)
        init.trunc_normal_(self.position_embeddings, std=std)

    def resize_tables(self, old: ComedianConfig, new: ComedianConfig) -> None:
        """Resample the patches' positions to another grid; the class token keeps its own."""

        def resample(table: Tensor) -> Tensor:
            return torch.cat([table[0, :1], resample_grid(table[0, 1:], old.grid_size, new.grid_size)])[None]

        if old.grid_size != new.grid_size:
            replace_table(self, "position_embeddings", resample)

    def forward(self, tubelets: Tensor, output_attentions: bool = False, *, every_patch: bool = False) -> Tensor:
        """`(num_tubelets, tubelet_size, channels, height, width)` to `(num_tubelets, hidden_size)`.

        The last layer computes only the class token, which is all that counts, unless `every_patch` is needed.
        """
        # a norm's weights are never quantised
        hidden_states = self.embeddings(to_compute_dtype(tubelets, self.norm.weight.dtype)).flatten(1, 2)
        class_token = self.class_token.expand(hidden_states.shape[0], -1, -1)
        hidden_states = torch.cat([class_token, hidden_states], dim=1) + self.position_embeddings
        hidden_states = self.dropout(hidden_states)
        for layer in self.layers[:-1]:
            hidden_states = layer(hidden_states, output_attentions)
        hidden_states = self.layers[-1](hidden_states, output_attentions, num_outputs=None if every_patch else 1)
        return self.norm(hidden_states[:, 0])


class ComedianPatchMerging(nn.Module):
    """Halve the grid and double the width between two ViSwin stages."""

    def __init__(self, config: ComedianConfig, hidden_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * hidden_size, eps=config.layer_norm_eps)
        self.reduction = nn.Linear(4 * hidden_size, 2 * hidden_size, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, rows, columns, width)` to `(batch, rows / 2, columns / 2, 2 * width)`, odd sides padded with 0."""
        hidden_states = F.pad(hidden_states, (0, 0, 0, hidden_states.shape[2] % 2, 0, hidden_states.shape[1] % 2))
        # top left, bottom left, top right, bottom right: the order of the published weights
        corners = [hidden_states[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return on_tokens(self.reduction, self.norm(torch.cat(corners, dim=-1)))


def stage_shifts(config: ComedianConfig) -> list[int]:
    """Shift of every second layer of each stage; a grid no larger than the window has nothing to shift."""
    return [
        window // 2 if min(grid) > window else 0
        for window, grid in zip(config.stage_windows(), config.stage_grids(), strict=True)
    ]


class ComedianSwinEncoder(ComedianEncoder):
    """Spatial Swin transformer; the mean over its last grid is the tubelet's spatial token."""

    def __init__(self, config: ComedianConfig):
        super().__init__()
        self.embeddings = ComedianTubeletEmbeddings(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        depths, num_heads = as_list(config.spatial_depths), as_list(config.spatial_num_heads)
        rates = iter(drop_path_rates(config, sum(depths)))
        last = len(depths) - 1
        self.stages = nn.ModuleList()
        for stage, (depth, heads, window, shift) in enumerate(
            zip(depths, num_heads, config.stage_windows(), stage_shifts(config), strict=True)
        ):
            width = config.spatial_hidden_size * 2**stage
            attentions = [
                ComedianWindowAttention(config, width, heads, window, shift * (layer % 2)) for layer in range(depth)
            ]
            layers = [ComedianSpatialLayer(config, attention, width, next(rates)) for attention in attentions]
            merging = ComedianPatchMerging(config, width) if stage < last else nn.Identity()
            self.stages.append(nn.ModuleDict({"layers": nn.ModuleList(layers), "merging": merging}))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """See [`ComedianEncoder.layer_groups`]."""
        return staged_layer_groups(self)

    def resize_tables(self, old: ComedianConfig, new: ComedianConfig) -> None:
        """Fit windows, shifts and relative position tables to the grids of `new`."""
        for stage, window, shift in zip(self.stages, new.stage_windows(), stage_shifts(new), strict=True):
            for index, layer in enumerate(stage["layers"]):
                layer.attention.resize_window(window, shift * (index % 2))

    def forward(self, tubelets: Tensor, output_attentions: bool = False, *, every_patch: bool = False) -> Tensor:
        """`(num_tubelets, tubelet_size, channels, height, width)` to `(num_tubelets, hidden_size)`; always all patches."""
        # a norm's weights are never quantised
        hidden_states = self.dropout(self.embeddings(to_compute_dtype(tubelets, self.norm.weight.dtype)))
        for stage in self.stages:
            for layer in stage["layers"]:
                hidden_states = layer(hidden_states, output_attentions)
            hidden_states = stage["merging"](hidden_states)
        return self.norm(hidden_states).mean(dim=(1, 2))


class ComedianTemporalConvolution(nn.Module):
    """Residual convolution over a window's tokens: it captures changes between neighbouring tokens before the
    attention."""

    def __init__(self, config: ComedianConfig):
        super().__init__()
        width = config.hidden_size
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.convolution = nn.Conv1d(
            width, width, config.temporal_kernel_size, padding=config.temporal_kernel_size // 2
        )
        self.activation = ACT2FN[config.hidden_act]
        self.projection = ComedianResidualProjection(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(batch, num_tokens, hidden_size)` to the same; beyond a window's ends there is 0."""
        neighbours = self.convolution(self.norm(tokens).transpose(1, 2)).transpose(1, 2)
        return tokens + self.projection(self.activation(neighbours))


class ComedianResidualProjection(nn.Linear):
    """Back to the tokens (its own class because it starts at 0: the layer begins as the identity)."""


class ComedianTemporalEncoder(ComedianEncoder):
    """Transformer over the spatial tokens of a window, after convolutions over neighbours where the model has them."""

    def __init__(self, config: ComedianConfig):
        super().__init__()
        width = config.hidden_size
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.time_embeddings = nn.Parameter(torch.zeros(1, config.num_tokens, width))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.convolutions = nn.ModuleList(
            ComedianTemporalConvolution(config) for _ in range(config.temporal_convolutions)
        )
        self.layers = nn.ModuleList(
            ComedianTemporalLayer(
                config, ComedianTemporalAttention(config, width, config.temporal_num_heads), width, rate
            )
            for rate in drop_path_rates(config, config.temporal_depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """See [`ComedianEncoder.layer_groups`]; convolutions belong to the embeddings."""
        embeddings = [self.mask_token, self.time_embeddings, *self.convolutions.parameters()]
        return [embeddings, *(list(part.parameters()) for part in (*self.layers, self.norm))]

    def init_tables(self, std: float) -> None:
        """See [`ComedianEncoder.init_tables`]."""
        init.zeros_(self.mask_token)
        init.trunc_normal_(self.time_embeddings, std=std)

    def resize_tables(self, old: ComedianConfig, new: ComedianConfig) -> None:
        """Resample the time embeddings to another number of tokens."""

        def resample(table: Tensor) -> Tensor:
            resampled = F.interpolate(table.float().mT, size=new.num_tokens, mode="linear", align_corners=False)
            return resampled.mT.to(table.dtype).contiguous()

        if new.num_tokens != self.time_embeddings.shape[1]:
            replace_table(self, "time_embeddings", resample)

    def restore(self, kept_tokens: Tensor, kept_tubelets: Tensor, num_tokens: int) -> Tensor:
        """Put the kept tokens at their places among mask tokens, `(batch, num_tokens, hidden_size)`."""
        batch, _, width = kept_tokens.shape
        masked = self.mask_token.to(kept_tokens.dtype).expand(batch, num_tokens, width)
        return masked.scatter(1, kept_tubelets[:, :, None].expand(-1, -1, width), kept_tokens)

    def forward(self, tokens: Tensor, output_attentions: bool = False) -> Tensor:
        """`(batch, num_tokens, hidden_size)` to the same; fewer tokens than a window take its first places."""
        if tokens.shape[1] > self.time_embeddings.shape[1]:
            raise ValueError(
                f"{tokens.shape[1]} tokens are more than the {self.time_embeddings.shape[1]} of a window: cut them into "
                "windows, or load the model with a larger `num_frames`"
            )
        for convolution in self.convolutions:
            tokens = convolution(tokens)
        tokens = self.dropout(tokens + self.time_embeddings[:, : tokens.shape[1]])
        for layer in self.layers:
            tokens = layer(tokens, output_attentions)
        return self.norm(tokens)


class ComedianSoundProjection(nn.Linear):
    """From sound to tokens (its own class because it starts at 0: a model that gains sound starts as it was)."""


class ComedianSoundEncoder(nn.Module):
    """Convolutions over the spectrogram of each token on its own, then over the tokens: cheering comes after a goal."""

    def __init__(self, config: ComedianConfig):
        super().__init__()
        width = config.sound_hidden_size
        self.frame_layers = nn.ModuleList(
            nn.Conv1d(inputs, width, kernel_size=5, stride=2, padding=2) for inputs in (NUM_MELS, width)
        )
        self.token_layers = nn.ModuleList(nn.Conv1d(width, width, kernel_size=5, padding=2) for _ in range(2))
        self.activation = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.projection = ComedianSoundProjection(width, config.hidden_size)

    def forward(self, sound: Tensor) -> Tensor:
        """`(batch, num_tokens, mel_frames, NUM_MELS)` to `(batch, num_tokens, hidden_size)`; 0 where a window is NaN."""
        is_nan = sound.isnan()
        missing = is_nan.flatten(1).any(dim=1)
        hidden_states = sound.masked_fill(is_nan, 0.0).flatten(0, 1).transpose(1, 2)
        for layer in self.frame_layers:
            hidden_states = self.activation(layer(hidden_states))
        # (batch, width, num_tokens)
        hidden_states = hidden_states.mean(dim=2).unflatten(0, sound.shape[:2]).transpose(1, 2)
        for layer in self.token_layers:
            hidden_states = hidden_states + self.activation(layer(hidden_states))
        tokens = self.projection(self.norm(hidden_states.transpose(1, 2)))
        return tokens.masked_fill(missing[:, None, None], 0.0)

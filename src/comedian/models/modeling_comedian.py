"""COMEDIAN: a spatial encoder on every tubelet, a temporal encoder over their tokens (Denize et al., WACVW 2024)."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_comedian import ComedianConfig
from .loss_comedian import mixup_spotting_loss, spotting_loss

# the fields of the configuration that learned position tables depend on and can follow
RESAMPLED_FIELDS = ("image_size", "num_frames")
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


@dataclass
class ComedianModelOutput(ModelOutput):
    """Output of [`ComedianModel`].

    Args:
        last_hidden_state (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`): temporal tokens.
        spatial_tokens (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`): what the temporal encoder was
            given, one token a tubelet; under temporal masking only the kept ones, `(batch_size, num_kept, hidden_size)`.
        hidden_states (`tuple[torch.Tensor]`, returned when `output_hidden_states=True`): temporal tokens before the
            first and after each temporal layer.
        attentions (`tuple[torch.Tensor]`, returned when `output_attentions=True`): temporal attention weights of shape
            `(batch_size, num_heads, num_tokens, num_tokens)`.
        spatial_hidden_states (`tuple[torch.Tensor]`, returned when `output_spatial_hidden_states=True`): patches after
            each spatial layer, `(batch_size * num_tubelets, 1 + num_patches, width)` with the class token first; ViSwin:
            `(batch_size * num_tubelets, rows, columns, width)`.
        spatial_attentions (`tuple[torch.Tensor]`, returned when `output_spatial_attentions=True`): spatial attention
            weights of shape `(batch_size * num_tubelets, num_heads, 1 + num_patches, 1 + num_patches)`; ViSwin:
            `(batch_size * num_tubelets, num_windows * num_heads, window**2, window**2)`.
    """

    last_hidden_state: Tensor | None = None
    spatial_tokens: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    spatial_hidden_states: tuple[Tensor, ...] | None = None
    spatial_attentions: tuple[Tensor, ...] | None = None


@dataclass
class ComedianSpottingOutput(ModelOutput):
    """Output of [`ComedianForActionSpotting`]; see [`ComedianModelOutput`] for the other fields.

    Args:
        loss (`torch.Tensor` of shape `()`, returned when `labels` are given): the spotting loss.
        logits (`torch.Tensor` of shape `(batch_size, num_tokens, num_labels)`): scores before the sigmoid.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    spatial_tokens: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    spatial_hidden_states: tuple[Tensor, ...] | None = None
    spatial_attentions: tuple[Tensor, ...] | None = None


class ComedianTubeletEmbeddings(nn.Module):
    """Non-overlapping tubelets to patch vectors: the Conv3d of the paper, as one matrix product."""

    def __init__(self, config: ComedianConfig):
        super().__init__()
        self.tubelet_size = config.tubelet_size
        self.patch_size = config.patch_size
        volume = config.num_channels * config.tubelet_size * config.patch_size**2
        self.projection = nn.Linear(volume, config.spatial_hidden_size)
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
        return self.norm(self.projection(patches.to(self.projection.weight.dtype)))


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
    weights = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = F.dropout(weights.softmax(dim=-1), p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class ComedianAttention(nn.Module):
    """Multi-head self-attention."""

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
        """`(..., tokens, width)` to query, key and value `(..., heads, tokens, head_dim)`."""
        qkv = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1))
        return qkv.movedim(-3, 0).transpose(-3, -2).unbind(0)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, output_attentions: bool
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, heads, tokens, head_dim)` to `(batch, tokens, heads, head_dim)` and the weights, if any."""
        # fused kernels never hold the weights, and flash kernels take no mask
        implementation = "eager" if output_attentions else self.config._attn_implementation
        if mask is not None and implementation != "eager":
            implementation = "sdpa"
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

    def forward(
        self, hidden_states: Tensor, output_attentions: bool = False, num_outputs: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """`(batch, tokens, width)` to the same, or to the first `num_outputs` tokens alone, and the weights, if any."""
        query, key, value = self.split_heads(hidden_states)
        output, weights = self.attend(query[:, :, :num_outputs], key, value, None, output_attentions)
        return self.projection(output.flatten(2)), weights


class ComedianSpatialAttention(ComedianAttention):
    """Attention among the patches of one tubelet."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *options) -> tuple[Tensor, Tensor | None]:
        """See [`ComedianAttention.attend`]."""
        dtype = query.dtype
        on_cpu = dtype == torch.bfloat16 and query.device.type == "cpu" and not torch.is_grad_enabled()
        if not on_cpu or torch.cpu._is_amx_tile_supported():
            return super().attend(query, key, value, *options)
        # without matrix units, the fused kernel is faster in float32 than in bfloat16, and more exact
        with torch.autocast("cpu", enabled=False):
            output, weights = super().attend(query.float(), key.float(), value.float(), *options)
        return output.to(dtype), weights


class ComedianTemporalAttention(ComedianAttention):
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
            self.relative_position_bias = nn.Parameter(
                resample_grid(self.relative_position_bias, (old, old), (new, new))
            )
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

    def forward(self, hidden_states: Tensor, output_attentions: bool = False) -> tuple[Tensor, Tensor | None]:
        """`(batch, rows, columns, width)` to the same, and the weights, if any."""
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
        output = self.projection(output).flatten(0, 1).unflatten(1, (self.window, self.window))
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

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Token by token."""
        return self.fc2(self.activation(self.fc1(hidden_states)))


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

    def forward(self, hidden_states: Tensor, output_attentions: bool = False, **narrowing) -> Tensor:
        """Same shape out as in, but for what `narrowing` has the attention leave out."""
        attended, _ = self.attention(self.norm1(hidden_states), output_attentions, **narrowing)
        hidden_states = hidden_states[:, : attended.shape[1]] + self.drop_path(self.dropout(attended))
        return hidden_states + self.drop_path(self.dropout(self.mlp(self.norm2(hidden_states))))


class ComedianSpatialLayer(ComedianLayer):
    """A layer of a spatial encoder."""


class ComedianTemporalLayer(ComedianLayer):
    """A layer of the temporal encoder."""


def drop_path_rates(config: ComedianConfig, depth: int) -> list[float]:
    """Stochastic depth rates growing linearly from 0 to `config.drop_path_rate`."""
    return [config.drop_path_rate * layer / max(depth - 1, 1) for layer in range(depth)]


class ComedianViTEncoder(nn.Module):
    """Spatial transformer with a class token; the class token is the tubelet's spatial token."""

    def __init__(self, config: ComedianConfig):
        super().__init__()
        width, (depth,), (heads,) = config.spatial_hidden_size, config.spatial_depths, config.spatial_num_heads
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

    def resize_position_table(self, old_grid: tuple[int, int], new_grid: tuple[int, int]) -> None:
        """Resample the patches' positions to another grid; the class token keeps its own."""
        if old_grid != new_grid:
            table = self.position_embeddings[0]
            resampled = torch.cat([table[:1], resample_grid(table[1:], old_grid, new_grid)])
            self.position_embeddings = nn.Parameter(resampled[None])

    def forward(self, tubelets: Tensor, output_attentions: bool = False, every_patch: bool = False) -> Tensor:
        """`(num_tubelets, tubelet_size, channels, height, width)` to `(num_tubelets, hidden_size)`.

        The last layer answers for the class token alone, which is all that counts, unless `every_patch` is looked at.
        """
        hidden_states = self.embeddings(tubelets).flatten(1, 2)
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
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


def stage_shifts(config: ComedianConfig) -> list[int]:
    """Shift of every second layer of each stage; a grid no larger than the window has nothing to shift."""
    return [
        window // 2 if min(grid) > window else 0
        for window, grid in zip(config.stage_windows(), config.stage_grids(), strict=True)
    ]


class ComedianSwinEncoder(nn.Module):
    """Spatial Swin transformer; the mean over its last grid is the tubelet's spatial token."""

    def __init__(self, config: ComedianConfig):
        super().__init__()
        self.embeddings = ComedianTubeletEmbeddings(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        rates = iter(drop_path_rates(config, sum(config.spatial_depths)))
        last = len(config.spatial_depths) - 1
        self.stages = nn.ModuleList()
        for stage, (depth, heads, window, shift) in enumerate(
            zip(
                config.spatial_depths,
                config.spatial_num_heads,
                config.stage_windows(),
                stage_shifts(config),
                strict=True,
            )
        ):
            width = config.spatial_hidden_size * 2**stage
            attentions = [
                ComedianWindowAttention(config, width, heads, window, shift * (layer % 2)) for layer in range(depth)
            ]
            layers = [ComedianSpatialLayer(config, attention, width, next(rates)) for attention in attentions]
            merging = ComedianPatchMerging(config, width) if stage < last else nn.Identity()
            self.stages.append(nn.ModuleDict({"layers": nn.ModuleList(layers), "merging": merging}))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def resize_position_tables(self, config: ComedianConfig) -> None:
        """Fit windows, shifts and relative position tables to the grids of `config`."""
        for stage, window, shift in zip(self.stages, config.stage_windows(), stage_shifts(config), strict=True):
            for index, layer in enumerate(stage["layers"]):
                layer.attention.resize_window(window, shift * (index % 2))

    def forward(self, tubelets: Tensor, output_attentions: bool = False, every_patch: bool = True) -> Tensor:
        """`(num_tubelets, tubelet_size, channels, height, width)` to `(num_tubelets, hidden_size)`; every patch counts."""
        hidden_states = self.dropout(self.embeddings(tubelets))
        for stage in self.stages:
            for layer in stage["layers"]:
                hidden_states = layer(hidden_states, output_attentions)
            hidden_states = stage["merging"](hidden_states)
        return self.norm(hidden_states).mean(dim=(1, 2))


SPATIAL_ENCODER_CLASSES = {"vivit": ComedianViTEncoder, "viswin": ComedianSwinEncoder}


class ComedianTemporalEncoder(nn.Module):
    """Transformer over the spatial tokens of a window."""

    def __init__(self, config: ComedianConfig):
        super().__init__()
        width = config.hidden_size
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.time_embeddings = nn.Parameter(torch.zeros(1, config.num_tokens, width))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(
            ComedianTemporalLayer(
                config, ComedianTemporalAttention(config, width, config.temporal_num_heads), width, rate
            )
            for rate in drop_path_rates(config, config.temporal_depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def resize_position_table(self, num_tokens: int) -> None:
        """Resample the time embeddings to another number of tokens."""
        if num_tokens != self.time_embeddings.shape[1]:
            table = self.time_embeddings.float().transpose(1, 2)
            table = F.interpolate(table, size=num_tokens, mode="linear", align_corners=False).transpose(1, 2)
            self.time_embeddings = nn.Parameter(table.to(self.time_embeddings.dtype).contiguous())

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
        tokens = self.dropout(tokens + self.time_embeddings[:, : tokens.shape[1]])
        for layer in self.layers:
            tokens = layer(tokens, output_attentions)
        return self.norm(tokens)


class ComedianClassifier(nn.Linear):
    """Logits of a token (its own class so that its bias can start at `config.classifier_prior`)."""


class ComedianPreTrainedModel(PreTrainedModel):
    """Weights, initialisation and loading shared by every COMEDIAN model."""

    config: ComedianConfig
    config_class = ComedianConfig
    base_model_prefix = "comedian"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    # mean losses: the Trainer must divide them over accumulated micro-batches
    accepts_loss_kwargs = False
    _no_split_modules = ["ComedianSpatialLayer", "ComedianTemporalLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {
        "hidden_states": ComedianTemporalLayer,
        "attentions": OutputRecorder(ComedianTemporalAttention, index=1),
        "spatial_hidden_states": ComedianSpatialLayer,
        "spatial_attentions": [
            OutputRecorder(ComedianSpatialAttention, index=1),
            OutputRecorder(ComedianWindowAttention, index=1),
        ],
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Truncated normal of `initializer_range` for weights and tables, zero for biases, one for norms."""
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=std)
            prior = self.config.classifier_prior
            if isinstance(module, ComedianClassifier) and prior is not None:
                init.constant_(module.bias, math.log(prior / (1 - prior)))
            elif module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, ComedianViTEncoder):
            init.trunc_normal_(module.class_token, std=std)
            init.trunc_normal_(module.position_embeddings, std=std)
        elif isinstance(module, ComedianWindowAttention):
            init.trunc_normal_(module.relative_position_bias, std=std)
        elif isinstance(module, ComedianTemporalEncoder):
            init.trunc_normal_(module.mask_token, std=std)
            init.trunc_normal_(module.time_embeddings, std=std)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """Load a checkpoint; position tables are resampled where `config` asks for other sizes than the stored ones.

        Args:
            pretrained_model_name_or_path (`str`): a folder or a Hub repository.
            config (`ComedianConfig`, *optional*): the stored one by default.
            kwargs: fields of the configuration that differ (`image_size=[112, 200]`, `num_frames=64`) and the arguments
                of [`transformers.PreTrainedModel.from_pretrained`].

        Returns:
            The model in eval mode.
        """
        hub_arguments = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        stored = cls.config_class.from_pretrained(pretrained_model_name_or_path, **hub_arguments)
        stored_sizes = {name: getattr(stored, name) for name in RESAMPLED_FIELDS}
        if config is None:
            wanted = {name: kwargs.pop(name, size) for name, size in stored_sizes.items()}
        else:
            wanted = {name: getattr(config, name) for name in RESAMPLED_FIELDS}
            config = copy.deepcopy(config)
            for name, size in stored_sizes.items():
                setattr(config, name, size)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.resize_position_tables(**wanted)
        return loaded

    @torch.no_grad()
    def resize_position_tables(self, image_size: int | list[int], num_frames: int) -> None:
        """Resample the learned position tables to other input sizes, in place, and note the sizes in the config.

        Args:
            image_size (`int` or `list[int]`): height and width in pixels.
            num_frames (`int`): frames of a window.

        Raises:
            StrictDataclassError: the sizes do not fit the model.
        """
        old_grid = self.config.grid_size
        # a fresh configuration validates the sizes together before anything is changed
        fields = self.config.to_dict() | {"image_size": image_size, "num_frames": num_frames}
        resized = self.config.__class__.from_dict(fields)
        self.config.update({name: getattr(resized, name) for name in RESAMPLED_FIELDS})
        for module in self.modules():
            if isinstance(module, ComedianViTEncoder):
                module.resize_position_table(old_grid, self.config.grid_size)
            elif isinstance(module, ComedianSwinEncoder):
                module.resize_position_tables(self.config)
            elif isinstance(module, ComedianTemporalEncoder):
                module.resize_position_table(self.config.num_tokens)


@torch.no_grad()
def resample_grid(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resample a table of one vector a grid cell, `(rows * columns, width)`, by bicubic interpolation."""
    grid = table.float().unflatten(0, old).permute(2, 0, 1)[None]
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return grid[0].permute(1, 2, 0).flatten(0, 1).to(table.dtype)


def keep_tubelets(noise: Tensor, mask_ratio: float) -> Tensor | None:
    """Choose the tubelets that temporal masking keeps: those of the largest noise.

    Args:
        noise (`torch.Tensor` of shape `(batch_size, num_tubelets)`): one random number a tubelet.
        mask_ratio (`float`): share of tubelets to mask, rounded down to whole ones.

    Returns:
        `torch.LongTensor` of shape `(batch_size, num_kept)`, ascending; `None` where all are kept.
    """
    num_masked = int(mask_ratio * noise.shape[1])
    if num_masked == 0:
        return None
    return noise.argsort(dim=1)[:, num_masked:].sort(dim=1).values


class ComedianModel(ComedianPreTrainedModel):
    """The COMEDIAN backbone: spatial and temporal encoder."""

    def __init__(self, config: ComedianConfig):
        super().__init__(config)
        self.spatial_encoder = SPATIAL_ENCODER_CLASSES[config.spatial_encoder](config)
        self.temporal_encoder = ComedianTemporalEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the tubelet embeddings."""
        return self.spatial_encoder.embeddings

    def split_tubelets(self, pixel_values_videos: Tensor) -> Tensor:
        """`(batch, frames, channels, height, width)` to `(batch, num_tubelets, tubelet_size, channels, height, width)`.

        Raises:
            ValueError: frames that do not fill tubelets, or images of another size than the model's.
        """
        if pixel_values_videos.ndim != 5:
            raise ValueError(
                "`pixel_values_videos` must be (batch, frames, channels, height, width); "
                f"got shape {tuple(pixel_values_videos.shape)}"
            )
        frames, channels, *size = pixel_values_videos.shape[1:]
        if channels != self.config.num_channels or size != list(self.config.image_size):
            raise ValueError(
                f"`pixel_values_videos` has {channels} channels of {size[0]} x {size[1]} pixels; the model takes "
                f"{self.config.num_channels} of {self.config.image_size[0]} x {self.config.image_size[1]}"
            )
        if frames == 0 or frames % self.config.tubelet_size:
            raise ValueError(
                f"`pixel_values_videos` has {frames} frames, which do not fill tubelets of {self.config.tubelet_size}"
            )
        return pixel_values_videos.unflatten(1, (-1, self.config.tubelet_size))

    def encode_spatial(self, pixel_values_videos: Tensor) -> Tensor:
        """Encode every tubelet on its own, so tokens can be computed once and reused in any window.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(batch_size, num_frames, channels, height, width)`): normalised
                pixels, any number of whole tubelets.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_frames / tubelet_size, hidden_size)`.
        """
        tubelets = self.split_tubelets(pixel_values_videos)
        return self.spatial_encoder(tubelets.flatten(0, 1)).unflatten(0, tubelets.shape[:2])

    def encode_temporal(self, spatial_tokens: Tensor) -> Tensor:
        """Relate the tokens of a window to each other.

        Args:
            spatial_tokens (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`): at most a window.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`.

        Raises:
            ValueError: more tokens than a window has.
        """
        return self.temporal_encoder(spatial_tokens)

    def draw_kept_tubelets(self, batch_size: int, num_tubelets: int, device: torch.device) -> Tensor | None:
        """Draw the tubelets that temporal masking keeps, `(batch_size, num_kept)` ascending; `None` for all."""
        if not self.training:
            return None
        noise = torch.rand(batch_size, num_tubelets, device=device)
        return keep_tubelets(noise, self.config.temporal_mask_ratio)

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values_videos: Tensor,
        kept_tubelets: Tensor | None = None,
        **kwargs,
    ) -> ComedianModelOutput:
        """Encode windows of video.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(batch_size, num_frames, channels, height, width)`): normalised
                pixels of at most one window.
            kept_tubelets (`torch.LongTensor` of shape `(batch_size, num_kept)`, *optional*): ascending indices of the
                tubelets to encode, the mask token standing in for the others. In training mode they are drawn at random
                when left out (`config.temporal_mask_ratio`).

        Returns:
            [`ComedianModelOutput`]
        """
        tubelets = self.split_tubelets(pixel_values_videos)
        batch_size, num_tubelets = tubelets.shape[:2]
        if kept_tubelets is None:
            kept_tubelets = self.draw_kept_tubelets(batch_size, num_tubelets, tubelets.device)
        if kept_tubelets is not None:
            tubelets = tubelets[torch.arange(batch_size, device=tubelets.device)[:, None], kept_tubelets]
        output_attentions = kwargs.get("output_spatial_attentions", False)
        every_patch = output_attentions or kwargs.get("output_spatial_hidden_states", False)
        spatial_tokens = self.spatial_encoder(tubelets.flatten(0, 1), output_attentions, every_patch)
        spatial_tokens = spatial_tokens.unflatten(0, tubelets.shape[:2])
        tokens = spatial_tokens
        if kept_tubelets is not None:
            tokens = self.temporal_encoder.restore(spatial_tokens, kept_tubelets, num_tubelets)
        temporal_tokens = self.temporal_encoder(tokens, kwargs.get("output_attentions", False))
        return ComedianModelOutput(last_hidden_state=temporal_tokens, spatial_tokens=spatial_tokens)


class ComedianForActionSpotting(ComedianPreTrainedModel):
    """COMEDIAN with a linear classifier on every temporal token."""

    def __init__(self, config: ComedianConfig):
        super().__init__(config)
        self.comedian = ComedianModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = ComedianClassifier(config.hidden_size, config.num_labels)
        self.post_init()

    def encode_spatial(self, pixel_values_videos: Tensor) -> Tensor:
        """See [`ComedianModel.encode_spatial`]."""
        return self.comedian.encode_spatial(pixel_values_videos)

    def encode_temporal(self, spatial_tokens: Tensor) -> Tensor:
        """See [`ComedianModel.encode_temporal`]."""
        return self.comedian.encode_temporal(spatial_tokens)

    def classify(self, temporal_tokens: Tensor) -> Tensor:
        """`(batch_size, num_tokens, hidden_size)` to logits `(batch_size, num_tokens, num_labels)`."""
        return self.classifier(self.dropout(temporal_tokens))

    def compute_spotting_loss(
        self,
        logits: Tensor,
        labels: Tensor,
        mixup_targets: Tensor | None = None,
        mixup_weights: Tensor | None = None,
    ) -> Tensor:
        """Loss of the configuration, see [`spotting_loss`] and [`mixup_spotting_loss`]."""
        settings = {
            "loss": self.config.spotting_loss,
            "focal_alpha": self.config.focal_alpha,
            "focal_gamma": self.config.focal_gamma,
        }
        if self.config.class_weights is not None:
            settings["class_weights"] = torch.tensor(self.config.class_weights, device=logits.device)
        if mixup_targets is None:
            return spotting_loss(logits, labels, **settings)
        return mixup_spotting_loss(logits, labels, mixup_targets, mixup_weights, **settings)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor,
        labels: Tensor | None = None,
        mixup_targets: Tensor | None = None,
        mixup_weights: Tensor | None = None,
        kept_tubelets: Tensor | None = None,
        **kwargs,
    ) -> ComedianSpottingOutput:
        """Score every token of windows of video.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(batch_size, num_frames, channels, height, width)`): normalised
                pixels of at most one window.
            labels (`torch.Tensor` of shape `(batch_size, num_tokens, num_labels)`, *optional*): targets in [0, 1]; -100
                leaves an entry out of the loss.
            mixup_targets (`torch.Tensor` of the shape of `labels`, *optional*): targets of the windows mixed in.
            mixup_weights (`torch.Tensor` of shape `(batch_size,)`, *optional*): share of each window's own pixels.
            kept_tubelets (`torch.LongTensor` of shape `(batch_size, num_kept)`, *optional*): see [`ComedianModel`].

        Returns:
            [`ComedianSpottingOutput`]
        """
        # `return_dict=False`, of the caller or of the configuration, is for what leaves this model
        outputs = self.comedian(pixel_values_videos, kept_tubelets=kept_tubelets, return_dict=True, **kwargs)
        logits = self.classify(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.compute_spotting_loss(logits, labels, mixup_targets, mixup_weights)
        return ComedianSpottingOutput(loss=loss, logits=logits, **outputs)


__all__ = ["ComedianPreTrainedModel", "ComedianModel", "ComedianForActionSpotting"]

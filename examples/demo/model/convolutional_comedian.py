"""A convolutional spatial encoder: it learns from a few matches what transformers need many for."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .configuration_comedian import ComedianConfig
from .encoders_comedian import ComedianDropPath, ComedianEncoder, drop_path_rates, staged_layer_groups
from .settings_comedian import as_list

EPSILON = 1e-5
# share of a batch's statistics in the running ones
MOMENTUM = 0.1


class ComedianConvolution(nn.Conv2d):
    """3 x 3 without bias, as a norm follows; `stride` 2 halves the grid, an odd side rounded up."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


class ComedianBatchNorm(nn.Module):
    """Batch norm (Ioffe and Szegedy, 2015): from scratch, it learns several times faster than norms of single tubelets.

    Training takes the batch's statistics; eval mode and frozen weights take the running ones, so that a token depends on no
    other.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, planes: Tensor) -> Tensor:
        """`(batch, channels, rows, columns)` to the same."""
        training = self.training and self.weight.requires_grad
        return F.batch_norm(planes, self.mean, self.variance, self.weight, self.bias, training, MOMENTUM, EPSILON)


class ComedianClosingNorm(ComedianBatchNorm):
    """The last one of a residual branch (its own class because it starts at 0: a layer begins as the identity)."""


def init_convolutional_weights(module: nn.Module) -> None:
    """Normal weights that keep the variance through a ReLU (He et al., 2015); ones and zeros for norms."""
    if isinstance(module, ComedianConvolution):
        init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    else:
        init.constant_(module.weight, 0.0 if isinstance(module, ComedianClosingNorm) else 1.0)
        init.zeros_(module.bias)
        init.zeros_(module.mean)
        init.ones_(module.variance)


class ComedianDownsampling(nn.Module):
    """A convolution that halves the grid, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolution = ComedianConvolution(inputs, outputs, stride=2)
        self.norm = ComedianBatchNorm(outputs)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, rows, columns, inputs)` to `(batch, rows / 2, columns / 2, outputs)`, odd sides rounded up."""
        # channels last in memory: what is permuted is never copied, and convolutions of a CPU run near its peak
        hidden_states = self.convolution(hidden_states.permute(0, 3, 1, 2))
        return F.relu(self.norm(hidden_states)).permute(0, 2, 3, 1)


class ComedianConvolutionalEmbeddings(nn.Module):
    """A tubelet's frames, side by side as channels, to the grid of patches, by halving (Xiao et al., 2021)."""

    def __init__(self, config: ComedianConfig):
        super().__init__()
        halvings = config.patch_size.bit_length() - 1
        widths = [config.spatial_hidden_size >> (halvings - 1 - step) for step in range(halvings)]
        inputs = [config.num_channels * config.tubelet_size, *widths[:-1]]
        self.layers = nn.ModuleList(map(ComedianDownsampling, inputs, widths))

    def forward(self, tubelets: Tensor) -> Tensor:
        """`(num_tubelets, tubelet_size, channels, height, width)` to `(num_tubelets, rows, columns, width)`."""
        hidden_states = tubelets.flatten(1, 2).permute(0, 2, 3, 1)
        hidden_states = hidden_states.contiguous().to(self.layers[0].convolution.weight.dtype)
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states


class ComedianConvolutionalLayer(nn.Module):
    """Residual block of two convolutions (He et al., 2016).

    Never checkpointed: computed again, a batch would count twice in the running statistics.
    """

    def __init__(self, channels: int, drop_path_rate: float):
        super().__init__()
        self.first_convolution = ComedianConvolution(channels, channels)
        self.first_norm = ComedianBatchNorm(channels)
        self.second_convolution = ComedianConvolution(channels, channels)
        self.second_norm = ComedianClosingNorm(channels)
        self.drop_path = ComedianDropPath(drop_path_rate)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch, rows, columns, channels)` to the same."""
        planes = hidden_states.permute(0, 3, 1, 2)
        branch = F.relu(self.first_norm(self.first_convolution(planes)))
        branch = self.second_norm(self.second_convolution(branch))
        return F.relu(planes + self.drop_path(branch)).permute(0, 2, 3, 1)


class ComedianConvolutionalEncoder(ComedianEncoder):
    """Residual network over the frames of a tubelet; the mean over its last grid is the tubelet's spatial token."""

    def __init__(self, config: ComedianConfig):
        super().__init__()
        self.embeddings = ComedianConvolutionalEmbeddings(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        depths = as_list(config.spatial_depths)
        rates = iter(drop_path_rates(config, sum(depths)))
        last = len(depths) - 1
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(depths):
            width = config.spatial_hidden_size * 2**stage
            layers = [ComedianConvolutionalLayer(width, next(rates)) for _ in range(depth)]
            merging = ComedianDownsampling(width, 2 * width) if stage < last else nn.Identity()
            self.stages.append(nn.ModuleDict({"layers": nn.ModuleList(layers), "merging": merging}))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """See [`ComedianEncoder.layer_groups`]."""
        return staged_layer_groups(self)

    def forward(self, tubelets: Tensor, output_attentions: bool = False, *, every_patch: bool = False) -> Tensor:
        """`(num_tubelets, tubelet_size, channels, height, width)` to `(num_tubelets, hidden_size)`.

        Always all patches; there are no attentions.
        """
        hidden_states = self.dropout(self.embeddings(tubelets))
        for stage in self.stages:
            for layer in stage["layers"]:
                hidden_states = layer(hidden_states)
            hidden_states = stage["merging"](hidden_states)
        return self.norm(hidden_states.mean(dim=(1, 2)))

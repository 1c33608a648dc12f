"""Any image model of transformers as the spatial encoder: applied to each frame of a tubelet and pooled to its token."""

import inspect

import torch
from torch import Tensor, nn
from transformers import AutoModel
from transformers.utils import logging

from .configuration_comedian import ComedianConfig
from .encoders_comedian import ComedianEncoder

logger = logging.get_logger(__name__)


class ComedianBackboneEncoder(ComedianEncoder):
    """Spatial encoder around an image model: the mean over patches and frames, projected, is the tubelet's spatial token.

    `config.backbone_config` is the image model's configuration. It may be a transformer, with a class token or
    without, or a convolutional network; of [timm](https://huggingface.co/docs/timm), through transformers'
    `TimmWrapperConfig`.
    """

    def __init__(self, config: ComedianConfig):
        super().__init__()
        self.frozen = config.backbone_frozen
        self.backbone = AutoModel.from_config(config.backbone_config)
        # models with learned positions resample them only on request
        parameters = inspect.signature(self.backbone.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in parameters else {}
        self.projection = nn.Linear(output_width(self.backbone), config.hidden_size)
        self.train()

    @property
    def embeddings(self) -> nn.Module:
        """What turns pixels into the image model's first features."""
        return next(self.backbone.children())

    def train(self, mode: bool = True):
        """Set the mode; with `config.backbone_frozen`, the image model stays in evaluation mode, without gradients.

        So do batch norms whose weights are frozen, as under an adapter, which is saved without their statistics.
        Loading replaces parameters by ones that require gradients, and ends with a call of this method.
        """
        super().train(mode)
        if self.frozen:
            self.backbone.eval().requires_grad_(False)
        for norm in self.backbone.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm.affine and not norm.weight.requires_grad:
                norm.eval()
        return self

    def load_pretrained(self, name: str) -> None:
        """Take the weights of an image model from a folder or a Hub repository.

        Raises:
            OSError: the model does not exist.
            ValueError: weights are missing there.
        """
        with torch.device("cpu"):
            loaded, loading = AutoModel.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
        # a pooling layer on top is not used here, and checkpoints often lack it
        missing = [key for key in loading["missing_keys"] if not key.startswith("pooler.")]
        if missing:
            raise ValueError(f"`{name}` has no weights for {sorted(missing)[0]}; give a trained image model")
        self.backbone.load_state_dict(loaded.state_dict())

    def forward(self, tubelets: Tensor, output_attentions: bool = False, *, every_patch: bool = False) -> Tensor:
        """`(num_tubelets, tubelet_size, channels, height, width)` to `(num_tubelets, hidden_size)`.

        Always all patches; attentions and hidden states of the image model are not recorded.
        """
        frames = tubelets.flatten(0, 1).to(self.backbone.dtype)
        features = self.backbone(pixel_values=frames, return_dict=True, **self.options).last_hidden_state
        features = self.pool(features)
        return self.projection(features.unflatten(0, tubelets.shape[:2]).mean(dim=1))

    def pool(self, features: Tensor) -> Tensor:
        """Mean over the patches of each frame.

        Args:
            features: `(frames, patches, width)` of transformers, `(frames, width, rows, columns)` of convolutional
                networks, or `(frames, rows, columns, width)` of those of timm that say so.

        Returns:
            `torch.Tensor` of shape `(frames, width)`.

        Raises:
            ValueError: the width is not where it is expected.
        """
        layout = getattr(getattr(self.backbone, "timm_model", None), "output_fmt", "NCHW")
        if features.ndim == 4 and str(layout).endswith("NCHW"):
            features = features.flatten(2).transpose(1, 2)
        if features.ndim not in (3, 4) or features.shape[-1] != self.projection.in_features:
            raise ValueError(
                f"the image model gives features of shape {tuple(features.shape)}; must be (frames, patches, width) or "
                f"(frames, width, rows, columns), with width {self.projection.in_features}"
            )
        return features.flatten(1, -2).mean(dim=1)


def output_width(backbone: nn.Module) -> int:
    """Width of an image model's last features.

    Raises:
        ValueError: its configuration does not say.
    """
    config = backbone.config
    if hasattr(backbone, "timm_model"):
        return backbone.timm_model.num_features
    widths = getattr(config, "hidden_sizes", None)
    width = widths[-1] if widths else getattr(config, "hidden_size", None)
    if width is None:
        raise ValueError(f"`backbone_config` of type {config.model_type!r} names no `hidden_size` or `hidden_sizes`")
    return width


__all__ = ["ComedianBackboneEncoder"]

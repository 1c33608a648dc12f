"""COMEDIAN: a spatial encoder on every tubelet, a temporal encoder over their tokens (Denize et al., WACVW 2024)."""

import copy
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, find_adapter_config_file, is_peft_available
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .backbone_comedian import ComedianBackboneEncoder
from .configuration_comedian import ComedianConfig
from .convolutional_comedian import (
    ComedianBatchNorm,
    ComedianConvolution,
    ComedianConvolutionalEncoder,
    ComedianConvolutionalLayer,
    init_convolutional_weights,
)
from .encoders_comedian import (
    ComedianEncoder,
    ComedianResidualProjection,
    ComedianSoundEncoder,
    ComedianSoundProjection,
    ComedianSpatialAttention,
    ComedianSpatialLayer,
    ComedianSwinEncoder,
    ComedianTemporalAttention,
    ComedianTemporalEncoder,
    ComedianTemporalLayer,
    ComedianUniformLinear,
    ComedianViTEncoder,
    ComedianWindowAttention,
)
from .loss_comedian import mixup_spotting_loss, offset_loss, spotting_loss
from .saved_code_comedian import custom_class_of
from .sound_comedian import NUM_MELS

SPATIAL_ENCODER_CLASSES: dict[str, type[ComedianEncoder]] = {
    "vivit": ComedianViTEncoder,
    "viswin": ComedianSwinEncoder,
    "convolutional": ComedianConvolutionalEncoder,
    "backbone": ComedianBackboneEncoder,
}
# the fields of the configuration that learned position tables depend on and can follow
RESAMPLED_FIELDS = ("image_size", "num_frames")
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class ComedianKwargs(TypedDict, total=False):
    """Options of a forward pass that select what it records; by default those of the configuration.

    Attributes:
        output_hidden_states (`bool` or `list[int]`): return `hidden_states`, of all layers or of those with these indices.
        output_attentions (`bool`): return `attentions`.
        output_spatial_hidden_states (`bool` or `list[int]`): return `spatial_hidden_states`.
        output_spatial_attentions (`bool`): return `spatial_attentions`.
    """

    output_hidden_states: bool | list[int]
    output_attentions: bool
    output_spatial_hidden_states: bool | list[int]
    output_spatial_attentions: bool


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
            each spatial layer, `(batch_size * num_tubelets, 1 + num_patches, width)` with the class token first;
            ViSwin and
            convolutional: `(batch_size * num_tubelets, rows, columns, width)`.
        spatial_attentions (`tuple[torch.Tensor]`, returned when `output_spatial_attentions=True`): spatial attention
            weights of shape `(batch_size * num_tubelets, num_heads, 1 + num_patches, 1 + num_patches)`; ViSwin:
            `(batch_size * num_tubelets, num_windows * num_heads, window**2, window**2)`; a convolutional encoder has none.
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
        logits (`torch.Tensor` of shape `(batch_size, num_tokens * logits_per_token, num_labels)`): scores before the
            sigmoid.
        offsets_s (`torch.Tensor` of shape `(batch_size, num_tokens, num_labels)`, returned with `config.offset_radius_s`):
            seconds from a token to the event that it found.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    offsets_s: Tensor | None = None
    last_hidden_state: Tensor | None = None
    spatial_tokens: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    spatial_hidden_states: tuple[Tensor, ...] | None = None
    spatial_attentions: tuple[Tensor, ...] | None = None


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
    _no_split_modules = {"ComedianSpatialLayer", "ComedianConvolutionalLayer", "ComedianTemporalLayer"}
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {
        "hidden_states": ComedianTemporalLayer,
        "attentions": OutputRecorder(ComedianTemporalAttention, index=1),
        "spatial_hidden_states": [ComedianSpatialLayer, ComedianConvolutionalLayer],
        "spatial_attentions": [
            OutputRecorder(ComedianSpatialAttention, index=1),
            OutputRecorder(ComedianWindowAttention, index=1),
        ],
    }

    def post_init(self) -> None:
        """See [`transformers.PreTrainedModel.post_init`]; FSDP refuses names of layers that a model does not have."""
        super().post_init()
        self._no_split_modules &= {type(module).__name__ for module in self.modules()}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Start weights as the published system does; what it lacks, sound, by its own rules.

        Truncated normal of `initializer_range` for weights and tables, zero for biases and the mask token, one for
        norms, a class token near 0; PyTorch's default for the patch embedding (a Conv3d) and the heads of stages 1 and
        2; normal of half the range for the classifier; that of He et al. (2015) for convolutions.
        """
        std = self.config.initializer_range
        if isinstance(module, ComedianSoundProjection | ComedianResidualProjection):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d):
            # over sound or tokens: too few layers for the small weights of a transformer
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            init.zeros_(module.bias)
        elif isinstance(module, ComedianClassifier):
            # 0.01, as published, where `initializer_range` is
            init.normal_(module.weight, std=std / 2)
            prior = self.config.classifier_prior
            init.constant_(module.bias, 0.0 if prior is None else math.log(prior / (1 - prior)))
        elif isinstance(module, ComedianUniformLinear):
            # as `reset_parameters` does, but loaded weights stay
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = module.in_features**-0.5
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, ComedianConvolution | ComedianBatchNorm):
            init_convolutional_weights(module)
        elif isinstance(module, ComedianWindowAttention):
            init.trunc_normal_(module.relative_position_bias, std=std)
        elif isinstance(module, ComedianEncoder):
            module.init_tables(std)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """Load a checkpoint; position tables are resampled where `config` asks for other sizes than the stored ones.

        Args:
            pretrained_model_name_or_path (`str`): a folder or a Hub repository; of an adapter of PEFT, too, which is
                loaded on its base model. `None` with `state_dict`.
            config (`ComedianConfig` or `str`, *optional*): the stored one by default; an object or where it is.
            kwargs: fields of the configuration that differ (`image_size=[112, 200]`, `num_frames=64`, other labels with
                `id2label` or `num_labels` and `ignore_mismatched_sizes=True`) and the arguments of
                [`transformers.PreTrainedModel.from_pretrained`].

        Returns:
            The model in eval mode.

        Raises:
            OSError: the configuration does not exist.
            ValueError: a weight is not finite, or the model is of a subclass.
        """
        hub_arguments = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        if isinstance(config, str | os.PathLike):
            config, kwargs = cls.config_class.from_pretrained(config, return_unused_kwargs=True, **kwargs)
            kwargs |= hub_arguments
        if pretrained_model_name_or_path is None:
            return super().from_pretrained(None, *model_args, config=config, **kwargs)
        adapter = find_adapter_config_file(pretrained_model_name_or_path, **hub_arguments)
        if adapter is not None:
            return cls._from_adapter(pretrained_model_name_or_path, adapter, *model_args, config=config, **kwargs)
        stored, _ = cls.config_class.get_config_dict(pretrained_model_name_or_path, **hub_arguments)
        if not stored:
            if config is None:
                raise OSError(f"`{pretrained_model_name_or_path}` has no config.json; give `config`")
            return super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        custom = custom_class_of(stored.get("auto_map"))
        if custom is not None and cls.__name__ == "ComedianForActionSpotting":
            raise ValueError(
                f"`{pretrained_model_name_or_path}` holds a model of the class `{custom}`; load it with that class, or "
                "`ActionSpotter.from_pretrained` with `trust_remote_code=True`"
            )
        stored = cls.config_class.from_dict(stored)
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
        model.require_finite_weights()
        return loaded

    def require_finite_weights(self) -> None:
        """Refuse weights that are not finite, as a training that diverged leaves them.

        Raises:
            ValueError: names the first weight with a NaN or an infinite value.
        """
        # not `state_dict`, which has bitsandbytes convert its weights; its tensors, and torchao's, have no `isfinite`
        for name, tensor in self._stored_tensors():
            plain = type(tensor) in (nn.Parameter, Tensor) and tensor.is_floating_point() and not tensor.is_meta
            if plain and not torch.isfinite(tensor).all():
                raise ValueError(
                    f"the weight `{name}` is not finite, as its training diverged; take an earlier checkpoint, or train "
                    "again with a lower learning rate"
                )

    def _stored_tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.named_parameters()
        for prefix, module in self.named_modules():
            for name, tensor in module.named_buffers(prefix, recurse=False):
                if name.rpartition(".")[2] not in module._non_persistent_buffers_set:
                    yield name, tensor

    @classmethod
    def _from_adapter(cls, folder: str, adapter_config: str, *model_args, config=None, **kwargs):
        """Load an adapter of PEFT on its base model; of configurations, the one beside the adapter comes first."""
        if not is_peft_available():
            raise ImportError(f"`{folder}` is an adapter of PEFT; `pip install peft` to load it")
        hub_arguments = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
        base = json.loads(Path(adapter_config).read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base:
            raise ValueError(f"`{adapter_config}` has no `base_model_name_or_path`; write there what was adapted")
        if config is None and cls.config_class.get_config_dict(folder, **hub_arguments)[0]:
            config, kwargs = cls.config_class.from_pretrained(
                folder, return_unused_kwargs=True, **hub_arguments, **kwargs
            )
        shared = {name: value for name, value in hub_arguments.items() if name not in ("revision", "subfolder")}
        loaded = cls.from_pretrained(base, *model_args, config=config, **shared, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.load_adapter(folder, adapter_kwargs=hub_arguments)
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
        old = copy.deepcopy(self.config)
        # a fresh configuration validates the sizes together before anything is changed
        fields = self.config.to_dict() | {"image_size": image_size, "num_frames": num_frames}
        resized = self.config.__class__.from_dict(fields)
        self.config.update({name: getattr(resized, name) for name in RESAMPLED_FIELDS})
        for module in self.modules():
            if isinstance(module, ComedianEncoder):
                module.resize_tables(old, self.config)


def averaged_tensors(module: nn.Module) -> list[Tensor]:
    """What a moving average of a module follows: its weights, and the running statistics of its batch norms."""
    return [*module.parameters(), *(buffer for buffer in module.buffers() if buffer.is_floating_point())]


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
        if config.use_pretrained_backbone:
            self.spatial_encoder.load_pretrained(config.backbone)
            config.use_pretrained_backbone = False

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
        if channels != self.config.num_channels or tuple(size) != self.config.frame_size:
            raise ValueError(
                f"`pixel_values_videos` has {channels} channels of {size[0]} x {size[1]} pixels; the model takes "
                f"{self.config.num_channels} of {self.config.frame_size[0]} x {self.config.frame_size[1]}"
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

    @capture_outputs(tie_last_hidden_states=False)
    def forward_spatial(self, clips: Tensor, **kwargs: Unpack[ComedianKwargs]) -> ComedianModelOutput:
        """Encode clips of one tubelet, without the temporal encoder, as stage 1 does.

        Args:
            clips (`torch.Tensor` of shape `(batch_size, tubelet_size, channels, height, width)`): normalised pixels.
            kwargs: `output_spatial_hidden_states` and `output_spatial_attentions`.

        Returns:
            [`ComedianModelOutput`] with `spatial_tokens` of shape `(batch_size, 1, hidden_size)` and what was asked for.
        """
        tubelets = self.split_tubelets(clips)
        return ComedianModelOutput(spatial_tokens=self._encode_tubelets(tubelets, **kwargs))

    def _encode_tubelets(self, tubelets: Tensor, **kwargs) -> Tensor:
        """`(batch, num_tubelets, tubelet_size, channels, height, width)` to `(batch, num_tubelets, hidden_size)`."""
        output_attentions = kwargs.get("output_spatial_attentions", False)
        every_patch = output_attentions or kwargs.get("output_spatial_hidden_states", False)
        tokens = self.spatial_encoder(tubelets.flatten(0, 1), output_attentions, every_patch=every_patch)
        return tokens.unflatten(0, tubelets.shape[:2])

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values_videos: Tensor,
        kept_tubelets: Tensor | None = None,
        **kwargs: Unpack[ComedianKwargs],
    ) -> ComedianModelOutput:
        """Encode windows of video.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(batch_size, num_frames, channels, height, width)`): normalised
                pixels of at most one window.
            kept_tubelets (`torch.LongTensor` of shape `(batch_size, num_kept)`, *optional*): ascending indices of the
                tubelets to encode, the mask token standing in for the others. In training mode they are drawn at random
                by default (`config.temporal_mask_ratio`).

        Returns:
            [`ComedianModelOutput`]
        """
        tubelets = self.split_tubelets(pixel_values_videos)
        batch_size, num_tubelets = tubelets.shape[:2]
        if kept_tubelets is None:
            kept_tubelets = self.draw_kept_tubelets(batch_size, num_tubelets, tubelets.device)
        if kept_tubelets is not None:
            tubelets = tubelets[torch.arange(batch_size, device=tubelets.device)[:, None], kept_tubelets]
        tokens = spatial_tokens = self._encode_tubelets(tubelets, **kwargs)
        if kept_tubelets is not None:
            tokens = self.temporal_encoder.restore(spatial_tokens, kept_tubelets, num_tubelets)
        temporal_tokens = self.temporal_encoder(tokens, kwargs.get("output_attentions", False))
        return ComedianModelOutput(last_hidden_state=temporal_tokens, spatial_tokens=spatial_tokens)


class ComedianForActionSpotting(ComedianPreTrainedModel):
    """COMEDIAN with a linear classifier on every temporal token; if asked for, a head for displacements, and sound."""

    def __init__(self, config: ComedianConfig):
        super().__init__(config)
        self.comedian = ComedianModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = ComedianClassifier(config.hidden_size, config.logits_per_token * config.num_labels)
        if config.offset_radius_s is not None:
            self.offset_head = nn.Linear(config.hidden_size, config.num_labels)
        if config.sound:
            self.sound_encoder = ComedianSoundEncoder(config)
        self.post_init()

    def encode_spatial(self, pixel_values_videos: Tensor) -> Tensor:
        """See [`ComedianModel.encode_spatial`]."""
        return self.comedian.encode_spatial(pixel_values_videos)

    def encode_temporal(self, spatial_tokens: Tensor) -> Tensor:
        """See [`ComedianModel.encode_temporal`]."""
        return self.comedian.encode_temporal(spatial_tokens)

    def fuse_sound(self, temporal_tokens: Tensor, sound: Tensor | None) -> Tensor:
        """Add the output of the audio branch to the tokens of windows, before [`classify`] and [`predict_offsets_s`].

        Args:
            temporal_tokens (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`): from [`encode_temporal`].
            sound (`torch.Tensor` of shape `(batch_size, num_tokens, mel_frames, NUM_MELS)`, *optional*): spectrogram
                of each token, see [`sound_of_tokens`]; a window with a NaN has none, which adds nothing.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`.

        Raises:
            ValueError: `sound` is of another shape, or given to a model without.
        """
        if sound is None:
            return temporal_tokens
        if not self.config.sound:
            raise ValueError("`sound` is given, but the model has no audio branch; remove it")
        if sound.ndim != 4 or sound.shape[:2] != temporal_tokens.shape[:2] or sound.shape[3] != NUM_MELS:
            raise ValueError(
                f"`sound` is {tuple(sound.shape)}; must be {(*temporal_tokens.shape[:2], 'mel_frames', NUM_MELS)}"
            )
        return temporal_tokens + self.sound_encoder(sound.to(temporal_tokens.dtype))

    def classify(self, temporal_tokens: Tensor) -> Tensor:
        """`(batch_size, num_tokens, hidden_size)` to logits `(batch_size, num_tokens * logits_per_token, num_labels)`."""
        logits = self.classifier(self.dropout(temporal_tokens))
        return logits.unflatten(-1, (self.config.logits_per_token, -1)).flatten(1, 2)

    def predict_offsets_s(self, temporal_tokens: Tensor) -> Tensor | None:
        """`(batch_size, num_tokens, hidden_size)` to displacements `(batch_size, num_tokens, num_labels)`, if any."""
        if self.config.offset_radius_s is None:
            return None
        return self.config.offset_radius_s * self.offset_head(self.dropout(temporal_tokens)).tanh()

    def score_windows(self, spatial_tokens: Tensor, sound: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Score windows of spatial tokens.

        Args:
            spatial_tokens (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`): at most a window.
            sound (`torch.Tensor` of shape `(batch_size, num_tokens, mel_frames, NUM_MELS)`, *optional*): see
                [`fuse_sound`].

        Returns:
            Scores of shape `(batch_size, num_tokens * logits_per_token, num_labels)`, in [0, 1], and displacements in
            seconds, `(batch_size, num_tokens, num_labels)`, or `None`; float32.
        """
        temporal_tokens = self.fuse_sound(self.encode_temporal(spatial_tokens), sound)
        offsets_s = self.predict_offsets_s(temporal_tokens)
        return self.classify(temporal_tokens).float().sigmoid(), None if offsets_s is None else offsets_s.float()

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
            "of_all_processes": self.training,
        }
        if self.config.class_weights is not None:
            settings["class_weights"] = torch.tensor(self.config.class_weights, device=logits.device)
        if mixup_targets is None:
            return spotting_loss(logits, labels, **settings)
        return mixup_spotting_loss(logits, labels, mixup_targets, mixup_weights, **settings)

    def compute_offset_loss(
        self,
        offsets_s: Tensor,
        targets_s: Tensor,
        mixup_targets_s: Tensor | None = None,
        mixup_weights: Tensor | None = None,
    ) -> Tensor:
        """Weighted loss of the displacements, see [`offset_loss`]; of mixed windows, each one's share of its own loss."""
        radius_s, weight = self.config.offset_radius_s, self.config.offset_loss_weight
        if radius_s is None:
            raise ValueError("`offset_targets_s` is given, but the model has no `offset_radius_s`; remove it")
        loss = offset_loss(offsets_s, targets_s, radius_s, mixup_weights, self.training)
        if mixup_targets_s is not None:
            if mixup_weights is None:
                raise ValueError("`mixup_offset_targets_s` is given without `mixup_weights`; give both or neither")
            loss = loss + offset_loss(offsets_s, mixup_targets_s, radius_s, 1 - mixup_weights, self.training)
        return weight * loss

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor,
        labels: Tensor | None = None,
        mixup_targets: Tensor | None = None,
        mixup_weights: Tensor | None = None,
        offset_targets_s: Tensor | None = None,
        mixup_offset_targets_s: Tensor | None = None,
        kept_tubelets: Tensor | None = None,
        sound: Tensor | None = None,
        **kwargs: Unpack[ComedianKwargs],
    ) -> ComedianSpottingOutput:
        """Score every token of windows of video.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(batch_size, num_frames, channels, height, width)`): normalised
                pixels of at most one window.
            labels (`torch.Tensor` of the logits' shape, *optional*): targets in [0, 1]; -100 leaves an entry out of the
                loss.
            mixup_targets (`torch.Tensor` of the shape of `labels`, *optional*): targets of the windows mixed in.
            mixup_weights (`torch.Tensor` of shape `(batch_size,)`, *optional*): share of each window's own pixels.
            offset_targets_s (`torch.Tensor` of shape `(batch_size, num_tokens, num_labels)`, *optional*): seconds from a
                token to the nearest event; NaN where none is within `config.offset_radius_s`.
            mixup_offset_targets_s (`torch.Tensor` of the same shape, *optional*): those of the windows mixed in.
            kept_tubelets (`torch.LongTensor` of shape `(batch_size, num_kept)`, *optional*): see [`ComedianModel`].
            sound (`torch.Tensor` of shape `(batch_size, num_tokens, mel_frames, NUM_MELS)`, *optional*): see
            [`fuse_sound`].

        Returns:
            [`ComedianSpottingOutput`]

        Raises:
            ValueError: a tensor of another shape, `offset_targets_s` without `labels` or for a model without offsets, or
                `mixup_offset_targets_s` without `mixup_weights`.
        """
        if offset_targets_s is not None and labels is None:
            raise ValueError("`offset_targets_s` is given without `labels`; give both or neither")
        # `return_dict=False`, of the caller or of the configuration, is for what leaves this model
        outputs = self.comedian(pixel_values_videos, kept_tubelets=kept_tubelets, return_dict=True, **kwargs)
        temporal_tokens = self.fuse_sound(outputs.last_hidden_state, sound)
        logits = self.classify(temporal_tokens)
        offsets_s = self.predict_offsets_s(temporal_tokens)
        loss = None
        if labels is not None:
            loss = self.compute_spotting_loss(logits, labels, mixup_targets, mixup_weights)
        if offset_targets_s is not None:
            loss = loss + self.compute_offset_loss(offsets_s, offset_targets_s, mixup_offset_targets_s, mixup_weights)
        return ComedianSpottingOutput(loss=loss, logits=logits, offsets_s=offsets_s, **outputs)


__all__ = ["ComedianPreTrainedModel", "ComedianModel", "ComedianForActionSpotting"]

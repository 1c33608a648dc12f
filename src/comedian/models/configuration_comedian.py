"""Configuration of the COMEDIAN models."""

import copy
import dataclasses
import difflib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoConfig
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME, logging

from .saved_code_comedian import SPOTTING_CLASS, SPOTTING_PIPELINES, auto_map_of, copy_code, custom_class_of
from .settings_comedian import CHOSEN_ON_VALIDATION, MAX_SIZES, MERGES, NMS_TYPES, ComedianSettings, as_list

logger = logging.get_logger(__name__)

SPATIAL_ENCODERS = ("vivit", "viswin", "convolutional", "backbone")
SPOTTING_LOSSES = ("bce", "focal")
MAX_LABELS = 100_000
# of transformers, for a configuration without labels
DEFAULT_NUM_LABELS = 2
# of a `config.json` that transformers writes and reads elsewhere
OTHER_FIELDS = ("auto_map", "custom_pipelines", "attn_implementation", "torch_dtype", "quantization_config")
NEGATIVES = ("window", "batch", "queue")
# fields whose values belong to the labels: of suppression windows, only a list, one per label
FIELDS_OF_LABELS = (*CHOSEN_ON_VALIDATION, "class_weights", "nms_window_s")

# width, spatial depths, spatial heads, temporal heads, patch: COMEDIAN (WACVW 2024), published sizes.
PUBLISHED_SIZES = {
    "vivit-tiny": ("vivit", 192, [12], [3], 3, 16),
    "vivit-small": ("vivit", 384, [12], [6], 6, 16),
    "vivit-base": ("vivit", 768, [12], [12], 12, 16),
    "viswin-tiny": ("viswin", 96, [2, 2, 6, 2], [3, 6, 12, 24], 3, 4),
    "viswin-small": ("viswin", 96, [2, 2, 18, 2], [3, 6, 12, 24], 6, 4),
    # the 12 temporal heads named for every B do not divide ViSwin-B's 1024: heads of 64 channels, as ViViT-B has
    "viswin-base": ("viswin", 128, [2, 2, 18, 2], [4, 8, 16, 32], 16, 4),
}


@strict
class ComedianContrastiveConfig(PreTrainedConfig):
    r"""
    Heads, queue and loss of stage 1; the defaults are the published ones.

    Args:
        projector_sizes (`list[int]`, defaults to `[1024, 1024, 256]`): Widths after the spatial token.
        predictor_sizes (`list[int]`, defaults to `[1024, 256]`): Widths after the projector, online branch only.
        queue_size (`int`, defaults to 65536): Keys of earlier steps to compare with.
        temperature (`float`, defaults to 0.1): Of the queries' scores.
        momentum_temperature (`float`, defaults to 0.07): Of the target's similarities.
        contrastive_weight (`float`, defaults to 1.0): Share of the positive in the target; 1 is InfoNCE.
        use_batch_keys (`bool`, defaults to `False`): Compare with the other clips of the step too.

    Raises:
        StrictDataclassError: a field has an invalid value.
    """

    model_type = "comedian_contrastive"
    base_config_key = "contrastive_config"

    projector_sizes: list[int] | tuple[int, ...] = (1024, 1024, 256)
    predictor_sizes: list[int] | tuple[int, ...] = (1024, 256)
    queue_size: int = 65536
    temperature: float | int = 0.1
    momentum_temperature: float | int = 0.07
    contrastive_weight: float | int = 1.0
    use_batch_keys: bool = False

    def __post_init__(self, **kwargs):
        self.projector_sizes, self.predictor_sizes = list(self.projector_sizes), list(self.predictor_sizes)
        _warn_of_unknown(self, kwargs)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Reject invalid sizes and temperatures."""
        _check_contrast(self, "projector_sizes", "predictor_sizes")
        if self.projector_sizes[-1] != self.predictor_sizes[-1]:
            raise ValueError(
                f"`projector_sizes` ends in {self.projector_sizes[-1]} and `predictor_sizes` in "
                f"{self.predictor_sizes[-1]}; queries and keys must have one width"
            )


@strict
class ComedianDistillationConfig(PreTrainedConfig):
    r"""
    Head, queue and loss of stage 2; the defaults are the published ones.

    Args:
        projector_sizes (`list[int]`, defaults to `[1024, 1024, 512]`): Widths after the temporal token; the last one
            is the feature bank's.
        queue_size (`int`, defaults to 65536): Features of earlier steps to compare with.
        temperature (`float`, defaults to 0.1): Of the tokens' scores.
        momentum_temperature (`float`, defaults to 0.05): Of the target's similarities.
        contrastive_weight (`float`, defaults to 0.5): Share of the positives in the target.
        negatives (`str`, defaults to `"window"`): What a token is compared with beside positives and queue: its own
            `"window"`, the whole `"batch"`, or the `"queue"` alone.
        positive_radius (`int`, defaults to 0): Features within so many tokens are positives.
        use_aligned (`bool`, defaults to `True`): Whether the feature of the token's own second counts.
        copy_spatial_layers (`bool`, *optional*): Whether the temporal layers and norm start as copies of the first spatial
            layers and the spatial norm of stage 1. By default they do where they fit, as published: in ViViT with at least
            as many spatial as temporal layers. ViSwin's temporal encoder starts afresh.

    Raises:
        StrictDataclassError: a field has an invalid value.
    """

    model_type = "comedian_distillation"
    base_config_key = "distillation_config"

    projector_sizes: list[int] | tuple[int, ...] = (1024, 1024, 512)
    queue_size: int = 65536
    temperature: float | int = 0.1
    momentum_temperature: float | int = 0.05
    contrastive_weight: float | int = 0.5
    negatives: str = "window"
    positive_radius: int = 0
    use_aligned: bool = True
    copy_spatial_layers: bool | None = None

    def __post_init__(self, **kwargs):
        self.projector_sizes = list(self.projector_sizes)
        _warn_of_unknown(self, kwargs)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Reject invalid sizes, temperatures and choices."""
        _check_contrast(self, "projector_sizes")
        if self.negatives not in NEGATIVES:
            raise ValueError(f"`negatives` is {self.negatives!r}; must be one of {', '.join(NEGATIVES)}")
        if self.positive_radius < 0:
            raise ValueError(f"`positive_radius` is {self.positive_radius}; must be 0 or more")
        if not self.use_aligned and self.positive_radius == 0:
            raise ValueError("`use_aligned` is false and `positive_radius` 0: a token would have no positive")


def _warn_of_unknown(config: PreTrainedConfig, fields: dict) -> None:
    """Warn once of fields that no configuration has, such as a mistyped one; they have no effect."""
    known = [field.name for field in dataclasses.fields(config)]
    for name in fields:
        # transformers' own are attributes of its class, or begin with `_`
        if not (name.startswith("_") or hasattr(type(config), name) or name in OTHER_FIELDS):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            logger.warning_once(f"the configuration has the unknown field {name!r}, which has no effect{hint}")


def _check_contrast(config: PreTrainedConfig, *sizes: str) -> None:
    """Refuse what stages 1 and 2 share: sizes, queue, temperatures, weight."""
    for field in sizes:
        if not getattr(config, field) or min(getattr(config, field)) < 1:
            raise ValueError(f"`{field}` is {getattr(config, field)}; every entry must be 1 or more")
    for field in ("queue_size", "temperature", "momentum_temperature"):
        if not 0 < getattr(config, field) < math.inf:
            raise ValueError(f"`{field}` is {getattr(config, field)}; must be greater than 0")
    if not 0 <= config.contrastive_weight <= 1:
        raise ValueError(f"`contrastive_weight` is {config.contrastive_weight}; must be between 0 and 1")


@strict
class ComedianConfig(ComedianSettings, PreTrainedConfig):
    r"""
    Architecture, time grid, labels and inference settings of a COMEDIAN model.

    The defaults are ViViT-T of the paper: 64 s windows of 128 frames at 2 fps, 224 x 224 pixels, one token a second.

    Args:
        *Input*

        image_size (`int` or `list[int]`, defaults to `[224, 224]`): Height and width in pixels.
        num_channels (`int`, defaults to 3): Colour channels.
        tubelet_size (`int`, defaults to 2): Frames of one tubelet, and so of one token.
        num_frames (`int`, defaults to 128): Frames of a window.
        fps (`float`, defaults to 2.0): Frames per second of the model's input.

        *Spatial encoder*

        spatial_encoder (`str`, defaults to `"vivit"`): `"vivit"` (class token), `"viswin"` (shifted windows, mean),
            `"convolutional"` (residual network, mean), which learns from fewer matches, or `"backbone"` (an image model of
            transformers on each frame), which `backbone` or `backbone_config` set.
        spatial_hidden_size (`int`, defaults to 192): Width of the spatial encoder (of its first stage but for ViViT; of a
            backbone, that which its features are projected to).
        spatial_depths (`int` or `list[int]`, defaults to `[12]`): Layers of each stage; ViViT has one stage.
        spatial_num_heads (`int` or `list[int]`, defaults to `[3]`): Attention heads of each stage; a convolutional encoder
            has none and takes no notice.
        spatial_window_size (`int`, defaults to 7): Side of ViSwin's attention windows, in patches.
        patch_size (`int`, defaults to 16): Side of a patch in pixels (ViSwin's published size is 4); a convolutional
            encoder halves its pictures until a patch is a cell of the grid, so there it is a power of 2.

        *Temporal encoder*

        temporal_depth (`int`, defaults to 6): Layers of the temporal encoder.
        temporal_num_heads (`int`, defaults to 3): Attention heads of the temporal encoder.
        temporal_convolutions (`int`, defaults to 0): Residual convolutions over a window's tokens before those layers.
        temporal_kernel_size (`int`, defaults to 5): Tokens that each of them sees, an odd number.

        *Layers of both encoders*

        mlp_ratio (`float`, defaults to 4.0): Width of the MLPs relative to the tokens.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the MLPs.
        layer_norm_eps (`float`, defaults to 1e-6): Epsilon of the layer norms.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights.

        *Regularisation*

        hidden_dropout_prob (`float`, defaults to 0.0): Dropout after attention and MLP.
        attention_probs_dropout_prob (`float`, defaults to 0.0): Dropout of the attention weights.
        drop_path_rate (`float`, defaults to 0.1): Stochastic depth of the last layer; grows linearly with depth.
        classifier_dropout_prob (`float`, defaults to 0.0): Dropout before the classifier.
        temporal_mask_ratio (`float`, defaults to 0.25): Share of tubelets replaced by the mask token in training.

        *Heads*

        classifier_prior (`float`, *optional*): Initial probability of every label, set as the classifier's bias, so that
            training does not begin by unlearning a half (Lin et al., 2017).
        scores_per_token (`int`, defaults to 1): Steps of the output in a token, so that it answers more often than a
            tubelet lasts. Without `offset_radius_s` every token has a logit for each step, and the number must divide
            `tubelet_size`; with it, it is only how finely the displaced scores are laid out.
        offset_radius_s (`float`, *optional*): Adds a head that predicts the displacement of an event from its token,
            in seconds, at most so many; scores move there (displacement, Soares et al., 2022).
        sound (`bool`, defaults to `False`): Adds an audio branch: the output of its layers for the spectrogram of the
            audio track is added to the temporal tokens before the heads.
        sound_hidden_size (`int`, defaults to 128): Channels of that branch.

        *Loss*

        spotting_loss (`str`, defaults to `"bce"`): `"bce"` or `"focal"`.
        focal_alpha (`float`, *optional*, defaults to 0.25): Weight of positives in the focal loss; `None` for none.
        focal_gamma (`float`, defaults to 2.0): Focusing exponent of the focal loss.
        class_weights (`list[list[float]]`, *optional*): Two rows of one weight per label: where the target is 0, where it
            is 1. Rows of a single weight hold for all labels.
        offset_loss_weight (`float`, defaults to 1.0): Weight of the displacement's loss beside the spotting loss.

        *Merging of windows and suppression*

        window_stride_s (`float`, *optional*): Hop between inference windows in seconds; half a window by default.
        edge_trim_s (`float`, *optional*): Seconds dropped at both ends of an inference window (not at the ends of the
            half); 12/64 of a window by default.
        merge (`str`, defaults to `"max"`): `"max"` or `"mean"` of the scores of overlapping windows.
        nms_type (`str`, defaults to `"soft"`): `"soft"` or `"hard"`.
        nms_window_s (`float` or `list[float]`, defaults to 10.0): Full width of the suppression window in seconds, for all
            labels or one value a label.
        nms_threshold (`float`, defaults to 0.001): Candidates below are dropped.
        nms_min_weight (`float`, defaults to 0.0): Soft-NMS factor at distance 0.

        *Chosen on validation*

        label_thresholds (`list[float]`, *optional*): Score from which an event is reported, one per label, chosen on
            validation; `None`: from 0.3 on, one threshold for all labels.
        label_calibration (`list[list[float]]`, *optional*): `[slope, bias]`, one pair a label: the probability that a spot
            is right has the logit `slope * logit(score) + bias`. With it, reported events show that probability, and
            thresholds are on it.
        label_curves (`list[list[list[float]]]`, *optional*): Points `[threshold, precision, recall]` measured on
            validation, one list per label, for `comedian spot --threshold precision=0.9`.
        label_num_events (`list[int]`, *optional*): Events of each label on validation, which indicate how far its
            threshold and its points can be trusted.

        *An image model as the spatial encoder*

        backbone (`str`, *optional*): Folder or Hub repository of an image model; its configuration becomes
            `backbone_config` if that is not given.
        backbone_config (`PreTrainedConfig` or `dict`, *optional*): Configuration of an image model (ViT, DINOv2, Swin,
            ConvNeXt, ResNet, ...) as the spatial encoder.
        use_pretrained_backbone (`bool`, defaults to `False`): Start from the weights of `backbone`; a model made so sets
            it to `False`, as its checkpoints have the weights.
        backbone_frozen (`bool`, defaults to `False`): Do not train the image model.

        *Configurations of stages 1 and 2*

        contrastive_config (`ComedianContrastiveConfig` or `dict`, *optional*): Heads and loss of stage 1; only
            [`ComedianForContrastivePretraining`] has them.
        distillation_config (`ComedianDistillationConfig` or `dict`, *optional*): Head and loss of stage 2; only
            [`ComedianForFeatureDistillation`] has them.

    Raises:
        StrictDataclassError: a field of the wrong type, or a combination that cannot be built.
    """

    keys_to_ignore_at_inference = [
        "last_hidden_state",
        "spatial_tokens",
        "hidden_states",
        "attentions",
        "spatial_hidden_states",
        "spatial_attentions",
        "positive_similarity",
        "negative_similarity",
        "embedding_std",
    ]
    sub_configs = {
        "contrastive_config": ComedianContrastiveConfig,
        "distillation_config": ComedianDistillationConfig,
        "backbone_config": AutoConfig,
    }

    # fields that inference reads are those of `ComedianSettings`

    # input
    num_channels: int = 3

    # spatial encoder
    spatial_encoder: str = "vivit"
    spatial_num_heads: int | list[int] | tuple[int, ...] = (3,)
    spatial_window_size: int = 7
    patch_size: int = 16

    # temporal encoder
    temporal_depth: int = 6
    temporal_num_heads: int = 3
    temporal_convolutions: int = 0
    temporal_kernel_size: int = 5

    # layers of both encoders
    mlp_ratio: float | int = 4.0
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    # regularisation
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.1
    classifier_dropout_prob: float | int = 0.0
    temporal_mask_ratio: float | int = 0.25

    # heads
    classifier_prior: float | None = None
    sound_hidden_size: int = 128

    # loss
    spotting_loss: str = "bce"
    focal_alpha: float | int | None = 0.25
    focal_gamma: float | int = 2.0
    offset_loss_weight: float | int = 1.0

    # an image model as the spatial encoder
    backbone: str | None = None
    backbone_config: dict | PreTrainedConfig | None = None
    use_pretrained_backbone: bool = False
    backbone_frozen: bool = False

    # configurations of stages 1 and 2
    contrastive_config: dict | ComedianContrastiveConfig | None = None
    distillation_config: dict | ComedianDistillationConfig | None = None

    def __post_init__(self, **kwargs):
        try:
            self._complete(**kwargs)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise StrictDataclassClassValidationError(validator="fields", cause=error) from error

    def _complete(self, **kwargs) -> None:
        """Bring fields into their one form; what is in none that is known raises something."""
        num_labels = kwargs.get("num_labels")
        if num_labels is not None and not 0 <= num_labels <= MAX_LABELS:
            raise ValueError(f"`num_labels` is {num_labels}; must be at most {MAX_LABELS}")
        self.spatial_depths = as_list(self.spatial_depths)
        self.spatial_num_heads = as_list(self.spatial_num_heads)
        self.image_size = as_list(self.image_size)
        if len(self.image_size) == 1:
            self.image_size = self.image_size * 2
        if self.backbone is not None and self.backbone_config is None:
            self.backbone_config = AutoConfig.from_pretrained(self.backbone)
        if self.backbone_config is not None:
            self.spatial_encoder = "backbone"
        for name, sub_config in self.sub_configs.items():
            if isinstance(getattr(self, name), dict):
                make = AutoConfig.for_model if sub_config is AutoConfig else sub_config
                setattr(self, name, make(**getattr(self, name)))
        if not __name__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}."):
            # the installed package is its own code; otherwise, pipeline() would require `trust_remote_code`
            custom = custom_class_of(kwargs.get("auto_map"))
            for name in ("auto_map", "custom_pipelines"):
                kwargs.pop(name, None)
            if custom is not None:
                kwargs["auto_map"] = {SPOTTING_CLASS: custom}
        _warn_of_unknown(self, kwargs)
        if self.id2label is None and kwargs.get("num_labels") is None:
            kwargs["num_labels"] = DEFAULT_NUM_LABELS
        super().__post_init__(**kwargs)
        if not isinstance(self.dtype, str | torch.dtype | None):
            raise ValueError(f"`dtype` is {self.dtype!r}; must be a name such as float32")
        if self.id2label is not None:
            self.label2id = {label: index for index, label in self.id2label.items()}

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        """Build from a dictionary; fields in `kwargs` replace its own before the combination is checked.

        Other labels (`id2label`, `num_labels`) take with them what belongs to the dictionary's: thresholds, calibration,
        curves, class weights, suppression windows.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        replaced = {name: kwargs.pop(name) for name in list(kwargs) if name in names}
        labels = _label_names(config_dict)
        if _label_names(replaced) not in (None, labels) or kwargs.get("num_labels") not in (None, len(labels or [])):
            gone = ("id2label", "label2id")
            config_dict = {k: v for k, v in config_dict.items() if k not in gone and not _is_of_labels(k, v)}
        return super().from_dict(dict(config_dict) | replaced, **kwargs)

    @property
    def num_labels(self) -> int:
        """Labels of the classifier; setting another number resets their names and what belongs to them."""
        return len(self.id2label or {})

    @num_labels.setter
    def num_labels(self, num_labels: int) -> None:
        if self.id2label is not None and self.num_labels == num_labels:
            return
        # while a configuration is being made, nothing is reset that was given with the labels
        if getattr(self, "_post_init_done", False):
            for field in dataclasses.fields(self):
                if _is_of_labels(field.name, getattr(self, field.name)):
                    setattr(self, field.name, field.default)
        self.id2label = {index: f"LABEL_{index}" for index in range(num_labels)}
        self.label2id = {label: index for index, label in self.id2label.items()}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Save `config.json` and, beside it, the code that it names.

        `auto_map` and `custom_pipelines` follow from `architectures` alone, so none of an earlier stage survives; a class
        of your own has an entry once it is registered with `register_for_auto_class`. A model's `save_pretrained` comes
        through here, and with it every checkpoint of a Trainer.

        Args:
            save_directory (`str` or `os.PathLike`): created if missing.
            kwargs: see [`transformers.PreTrainedConfig.save_pretrained`].
        """
        auto_map = auto_map_of(self.architectures or [], getattr(self, "auto_map", None) or {})
        pipelines = SPOTTING_PIPELINES if SPOTTING_CLASS in auto_map else {}
        modules = {task: pipeline["impl"].split(".")[0] for task, pipeline in pipelines.items()}
        folder = Path(save_directory)
        copy_code([*(name.split(".")[0] for name in auto_map.values()), *modules.values()], folder, self.name_or_path)
        exported = copy.deepcopy(self)
        exported.auto_map = auto_map
        exported.custom_pipelines = {
            task: pipeline for task, pipeline in pipelines.items() if (folder / f"{modules[task]}.py").is_file()
        }
        if not exported.custom_pipelines:
            del exported.custom_pipelines
        super(ComedianConfig, exported).save_pretrained(save_directory, **kwargs)

    @classmethod
    def published(cls, size: str, **overrides) -> "ComedianConfig":
        """Return the configuration of a published size.

        Args:
            size (`str`): one of `vivit-tiny`, `vivit-small`, `vivit-base`, `viswin-tiny`, `viswin-small`, `viswin-base`.
            overrides: fields that differ.

        Raises:
            ValueError: unknown size.
        """
        if size not in PUBLISHED_SIZES:
            raise ValueError(f"`size` is {size!r}; published sizes: {', '.join(PUBLISHED_SIZES)}")
        encoder, width, depths, heads, temporal_heads, patch = PUBLISHED_SIZES[size]
        fields = {
            "spatial_encoder": encoder,
            "spatial_hidden_size": width,
            "spatial_depths": depths,
            "spatial_num_heads": heads,
            "temporal_num_heads": temporal_heads,
            "patch_size": patch,
        }
        return cls(**(fields | overrides))

    @property
    def contrastive_settings(self) -> ComedianContrastiveConfig:
        """`contrastive_config`, or the published settings."""
        settings = self.contrastive_config or {}
        return ComedianContrastiveConfig(**settings) if isinstance(settings, dict) else settings

    @property
    def distillation_settings(self) -> ComedianDistillationConfig:
        """`distillation_config`, or the published settings."""
        settings = self.distillation_config or {}
        return ComedianDistillationConfig(**settings) if isinstance(settings, dict) else settings

    @property
    def copies_spatial_layers(self) -> bool:
        """Whether stage 2 starts the temporal layers as copies of the spatial ones."""
        wanted = self.distillation_settings.copy_spatial_layers
        return self._spatial_layers_fit if wanted is None else wanted

    @property
    def _spatial_layers_fit(self) -> bool:
        """Whether the temporal encoder has no more layers than the spatial one, of the same kind."""
        return self.spatial_encoder == "vivit" and self.temporal_depth <= as_list(self.spatial_depths)[0]

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches in height and width."""
        height, width = self.frame_size
        return height // self.patch_size, width // self.patch_size

    def stage_grids(self) -> list[tuple[int, int]]:
        """Patches in height and width at each spatial stage; an odd side is padded before it is halved."""
        grids = [self.grid_size]
        for _ in as_list(self.spatial_depths)[1:]:
            height, width = grids[-1]
            grids.append((math.ceil(height / 2), math.ceil(width / 2)))
        return grids

    def stage_windows(self) -> list[int]:
        """Side of the attention windows at each ViSwin stage: never larger than the grid (as in Swin)."""
        return [min(self.spatial_window_size, *grid) for grid in self.stage_grids()]

    def validate_architecture(self):
        """Refuse impossible combinations by name, in this order: later checks divide by what earlier ones let through."""
        self._check_numbers()
        self._check_choices()
        self._check_sizes()
        self._check_spatial_encoder()
        self._check_temporal_encoder()
        self._check_output()
        self._check_inference()
        self._check_labels()

    def _check_choices(self):
        """Refuse unknown names."""
        for field, known in (
            ("spatial_encoder", SPATIAL_ENCODERS),
            ("spotting_loss", SPOTTING_LOSSES),
            ("merge", MERGES),
            ("nms_type", NMS_TYPES),
            ("hidden_act", tuple(ACT2FN)),
        ):
            self._check_choice(field, known)

    def _check_sizes(self):
        """Refuse sizes that are not positive or out of their range."""
        self._check_positive(
            "spatial_hidden_size spatial_window_size temporal_num_heads temporal_kernel_size patch_size tubelet_size "
            "num_frames fps num_channels mlp_ratio layer_norm_eps scores_per_token sound_hidden_size"
        )
        for field in (
            "temporal_depth temporal_convolutions initializer_range focal_gamma nms_threshold offset_loss_weight"
        ).split():
            if not 0 <= getattr(self, field) < math.inf:
                raise ValueError(f"`{field}` is {getattr(self, field)}; must be 0 or more")
        for field in "focal_alpha nms_min_weight".split():
            if getattr(self, field) is not None and not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"`{field}` is {getattr(self, field)}; must be between 0 and 1")
        for field in ("spatial_depths", "spatial_num_heads", "image_size"):
            if not getattr(self, field) or min(getattr(self, field)) < 1:
                raise ValueError(f"`{field}` is {getattr(self, field)}; every entry must be 1 or more")
        for field in (
            "hidden_dropout_prob attention_probs_dropout_prob drop_path_rate classifier_dropout_prob temporal_mask_ratio"
        ).split():
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"`{field}` is {getattr(self, field)}; must be at least 0 and below 1")

        if self.classifier_prior is not None and not 0 < self.classifier_prior < 1:
            raise ValueError(f"`classifier_prior` is {self.classifier_prior}; must be between 0 and 1")
        self._check_largest(MAX_SIZES)

    def _check_spatial_encoder(self):
        """Refuse stages, heads and patches that do not fit each other."""
        depths, heads = as_list(self.spatial_depths), as_list(self.spatial_num_heads)
        if len(as_list(self.image_size)) != 2:
            raise ValueError(f"`image_size` is {self.image_size}; give one side, or height and width")
        if self.use_pretrained_backbone and self.backbone is None:
            raise ValueError("`use_pretrained_backbone` needs `backbone`, where the weights are")
        if self.spatial_encoder == "backbone":
            self._check_backbone()
            return
        if any(side % self.patch_size for side in self.frame_size):
            raise ValueError(f"`image_size` {self.image_size} is not a multiple of `patch_size` {self.patch_size}")
        if self.spatial_encoder == "vivit" and len(depths) != 1:
            raise ValueError(f"`spatial_depths` is {self.spatial_depths}; `vivit` has one stage")
        if self.spatial_encoder == "convolutional":
            self._check_convolutions()
            return
        if len(depths) != len(heads):
            raise ValueError(
                f"`spatial_depths` {self.spatial_depths} and `spatial_num_heads` {self.spatial_num_heads} must have "
                "one entry for each stage"
            )
        for stage, of_stage in enumerate(heads):
            width = self.spatial_hidden_size * 2**stage
            if width % of_stage:
                raise ValueError(f"`spatial_num_heads` {of_stage} does not divide the width {width} of stage {stage}")

    def _check_backbone(self):
        """Reject a missing image model, and sizes of ViViT and ViSwin that it does not use."""
        if self.backbone_config is None:
            raise ValueError("`spatial_encoder` is 'backbone'; give `backbone` or `backbone_config`")
        if len(as_list(self.spatial_depths)) != 1:
            raise ValueError(f"`spatial_depths` is {self.spatial_depths}; `backbone` has one stage")

    def _check_convolutions(self):
        """Reject patch sizes that are not reached by halving, and widths that cannot be halved as often."""
        if self.patch_size < 2 or self.patch_size & (self.patch_size - 1):
            raise ValueError(
                f"`patch_size` is {self.patch_size}; `convolutional` halves its pictures: give 2, 4, 8, ..."
            )
        if self.spatial_hidden_size % (self.patch_size // 2):
            raise ValueError(
                f"`spatial_hidden_size` is {self.spatial_hidden_size}; `convolutional` halves it with its pictures: "
                f"give a multiple of {self.patch_size // 2}"
            )

    def _check_temporal_encoder(self):
        """Refuse windows, heads and kernels that do not fit the tokens."""
        if self.temporal_kernel_size % 2 == 0:
            raise ValueError(f"`temporal_kernel_size` is {self.temporal_kernel_size}; must be odd")
        self._check_window()
        if self.hidden_size % self.temporal_num_heads:
            raise ValueError(
                f"`temporal_num_heads` {self.temporal_num_heads} does not divide the width {self.hidden_size}"
            )
        if self.copies_spatial_layers and not self._spatial_layers_fit:
            raise ValueError(
                "`distillation_config.copy_spatial_layers` is true, but only `vivit` with at least as many spatial as "
                f"temporal layers ({self.temporal_depth}) has layers to copy; remove it"
            )


def _is_of_labels(name: str, value: object) -> bool:
    """Whether a field's value holds for its labels alone."""
    return name in FIELDS_OF_LABELS and (name != "nms_window_s" or isinstance(value, list | tuple))


def _label_names(fields: Mapping[str, Any]) -> list[str] | None:
    """Labels in the order of the logits, if `id2label` is there."""
    id2label = fields.get("id2label")
    try:
        return id2label and [id2label[index] for index in sorted(id2label, key=int)]
    except (TypeError, ValueError):  # refused where the fields are checked
        return None


__all__ = ["ComedianConfig", "ComedianContrastiveConfig", "ComedianDistillationConfig"]

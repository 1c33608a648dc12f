"""Configuration of the COMEDIAN models."""

import copy
import dataclasses
import difflib
import math
import os
import re
from pathlib import Path

import torch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoConfig
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME, logging

from .saved_code_comedian import SPOTTING_CLASS, SPOTTING_PIPELINES, auto_map_of, copy_code, custom_class_of

logger = logging.get_logger(__name__)

SPATIAL_ENCODERS = ("vivit", "viswin", "convolutional", "backbone")
SPOTTING_LOSSES = ("bce", "focal")
MERGES = ("max", "mean")
NMS_TYPES = ("soft", "hard")
# what breaks a line or gives orders to a terminal; no label has it
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
MAX_LABELS = 100_000
MAX_NUMBER = 2**53
# far beyond any model, and what would take all memory or never end
MAX_SIZES = {
    "spatial_hidden_size": 2**16,
    "spatial_depths": 1000,
    "temporal_depth": 1000,
    "temporal_convolutions": 1000,
    "temporal_kernel_size": 10**4,
    "image_size": 2**14,
    "num_frames": 10**6,
    "fps": 1000,
    "mlp_ratio": 100,
    "num_channels": 1000,
    "scores_per_token": 10**4,
}
# of a `config.json` that transformers writes and reads elsewhere
OTHER_FIELDS = ("auto_map", "custom_pipelines", "attn_implementation", "torch_dtype", "quantization_config")
NEGATIVES = ("window", "batch", "queue")
# fields that hold for one set of weights, and for no other labels
CHOSEN_ON_VALIDATION = ("label_thresholds", "label_calibration", "label_curves", "label_num_events")
# fields whose values belong to the labels: of suppression windows, only a list, one a label
FIELDS_OF_LABELS = (*CHOSEN_ON_VALIDATION, "class_weights", "nms_window_s")
# score from which an event is reported by a model without `label_thresholds`
DEFAULT_THRESHOLD = 0.3

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
        StrictDataclassError: a field that cannot be.
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
        """Refuse sizes and temperatures that cannot be."""
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
        projector_sizes (`list[int]`, defaults to `[1024, 1024, 512]`): Widths after the temporal token; the last one is the
            feature bank's.
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
        StrictDataclassError: a field that cannot be.
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
        """Refuse sizes, temperatures and choices that cannot be."""
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
class ComedianConfig(PreTrainedConfig):
    r"""
    Architecture, time grid, labels and inference settings of a COMEDIAN model.

    The defaults are ViViT-T of the paper: 64 s windows of 128 frames at 2 fps, 224 x 224 pixels, one token a second.

    Args:
        spatial_encoder (`str`, defaults to `"vivit"`): `"vivit"` (class token), `"viswin"` (shifted windows, mean),
            `"convolutional"` (residual network, mean), which learns from fewer matches, or `"backbone"` (an image model of
            transformers on each frame), which `backbone` or `backbone_config` set.
        spatial_hidden_size (`int`, defaults to 192): Width of the spatial encoder (of its first stage but for ViViT; of a
            backbone, that which its features are projected to).
        spatial_depths (`int` or `list[int]`, defaults to `[12]`): Layers of each stage; ViViT has one stage.
        spatial_num_heads (`int` or `list[int]`, defaults to `[3]`): Attention heads of each stage; a convolutional encoder
            has none and takes no notice.
        spatial_window_size (`int`, defaults to 7): Side of ViSwin's attention windows, in patches.
        temporal_depth (`int`, defaults to 6): Layers of the temporal encoder.
        temporal_num_heads (`int`, defaults to 3): Attention heads of the temporal encoder.
        temporal_convolutions (`int`, defaults to 0): Residual convolutions over a window's tokens before those layers.
        temporal_kernel_size (`int`, defaults to 5): Tokens that each of them sees, an odd number.
        image_size (`int` or `list[int]`, defaults to `[224, 224]`): Height and width in pixels.
        patch_size (`int`, defaults to 16): Side of a patch in pixels (ViSwin's published size is 4); a convolutional encoder
            halves its pictures until a patch is a cell of the grid, so there it is a power of 2.
        tubelet_size (`int`, defaults to 2): Frames of one tubelet, and so of one token.
        num_frames (`int`, defaults to 128): Frames of a window.
        fps (`float`, defaults to 2.0): Frames per second of the model's input.
        num_channels (`int`, defaults to 3): Colour channels.
        mlp_ratio (`float`, defaults to 4.0): Width of the MLPs relative to the tokens.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the MLPs.
        layer_norm_eps (`float`, defaults to 1e-6): Epsilon of the layer norms.
        hidden_dropout_prob (`float`, defaults to 0.0): Dropout after attention and MLP.
        attention_probs_dropout_prob (`float`, defaults to 0.0): Dropout of the attention weights.
        drop_path_rate (`float`, defaults to 0.1): Stochastic depth of the last layer; grows linearly with depth.
        classifier_dropout_prob (`float`, defaults to 0.0): Dropout before the classifier.
        temporal_mask_ratio (`float`, defaults to 0.25): Share of tubelets replaced by the mask token in training.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights.
        classifier_prior (`float`, *optional*): Initial probability of every label, set as the classifier's bias, so that
            training does not begin by unlearning a half (Lin et al., 2017).
        scores_per_token (`int`, defaults to 1): Steps of the output in a token, so that it answers more often than a tubelet
            lasts. Without `offset_radius_s` every token has a logit for each step, and the number must divide
            `tubelet_size`; with it, it is only how finely the displaced scores are laid out.
        offset_radius_s (`float`, *optional*): Adds a head that tells how far an event lies from the token that found it, in
            seconds, at most so many; scores move there (displacement, Soares et al., 2022).
        offset_loss_weight (`float`, defaults to 1.0): Of the head's loss beside the spotting loss.
        sound (`bool`, defaults to `False`): Adds a branch that hears: what it makes of the audio track's spectrogram is
            added to the temporal tokens before the heads.
        sound_hidden_size (`int`, defaults to 128): Channels of that branch.
        spotting_loss (`str`, defaults to `"bce"`): `"bce"` or `"focal"`.
        focal_alpha (`float`, *optional*, defaults to 0.25): Weight of positives in the focal loss; `None` for none.
        focal_gamma (`float`, defaults to 2.0): Focusing exponent of the focal loss.
        class_weights (`list[list[float]]`, *optional*): Two rows of one weight a label: where the target is 0, where it
            is 1. Rows of a single weight hold for all labels.
        window_stride_s (`float`, *optional*): Hop between inference windows in seconds; half a window by default.
        edge_trim_s (`float`, *optional*): Seconds dropped at both ends of an inference window (not at the ends of the
            half); 12/64 of a window by default.
        merge (`str`, defaults to `"max"`): `"max"` or `"mean"` of the scores of overlapping windows.
        nms_type (`str`, defaults to `"soft"`): `"soft"` or `"hard"`.
        nms_window_s (`float` or `list[float]`, defaults to 10.0): Full width of the suppression window in seconds, for all
            labels or one value a label.
        nms_threshold (`float`, defaults to 0.001): Candidates below are dropped.
        nms_min_weight (`float`, defaults to 0.0): Soft-NMS factor at distance 0.
        label_thresholds (`list[float]`, *optional*): Score from which an event is reported, one a label, chosen on
            validation; `None`: from 0.3 on, one threshold for all labels.
        label_calibration (`list[list[float]]`, *optional*): `[slope, bias]`, one pair a label: the probability that a spot
            is right has the logit `slope * logit(score) + bias`. With it, reported events show that probability, and
            thresholds are on it.
        label_curves (`list[list[list[float]]]`, *optional*): Points `[threshold, precision, recall]` measured on
            validation, a list a label, for `comedian spot --threshold precision=0.9`.
        label_num_events (`list[int]`, *optional*): Events of each label on validation, which tell how far its threshold and
            its points can be trusted.
        backbone (`str`, *optional*): Folder or Hub repository of an image model; its configuration becomes
            `backbone_config` if that is not given.
        backbone_config (`PreTrainedConfig` or `dict`, *optional*): Configuration of an image model (ViT, DINOv2, Swin,
            ConvNeXt, ResNet, ...) as the spatial encoder.
        use_pretrained_backbone (`bool`, defaults to `False`): Start from the weights of `backbone`; a model made so sets
            it to `False`, as its checkpoints have the weights.
        backbone_frozen (`bool`, defaults to `False`): Do not train the image model.
        contrastive_config (`ComedianContrastiveConfig` or `dict`, *optional*): Heads and loss of stage 1; only
            [`ComedianForContrastivePretraining`] has them.
        distillation_config (`ComedianDistillationConfig` or `dict`, *optional*): Head and loss of stage 2; only
            [`ComedianForFeatureDistillation`] has them.

    Raises:
        StrictDataclassError: a field of the wrong type, or a combination that cannot be built.
    """

    model_type = "comedian"
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

    spatial_encoder: str = "vivit"
    spatial_hidden_size: int = 192
    spatial_depths: int | list[int] | tuple[int, ...] = (12,)
    spatial_num_heads: int | list[int] | tuple[int, ...] = (3,)
    spatial_window_size: int = 7
    temporal_depth: int = 6
    temporal_num_heads: int = 3
    temporal_convolutions: int = 0
    temporal_kernel_size: int = 5
    image_size: int | list[int] | tuple[int, ...] = (224, 224)
    patch_size: int = 16
    tubelet_size: int = 2
    num_frames: int = 128
    fps: float | int = 2.0
    num_channels: int = 3
    mlp_ratio: float | int = 4.0
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.1
    classifier_dropout_prob: float | int = 0.0
    temporal_mask_ratio: float | int = 0.25
    initializer_range: float = 0.02
    classifier_prior: float | None = None
    scores_per_token: int = 1
    offset_radius_s: float | int | None = None
    offset_loss_weight: float | int = 1.0
    sound: bool = False
    sound_hidden_size: int = 128
    spotting_loss: str = "bce"
    focal_alpha: float | int | None = 0.25
    focal_gamma: float | int = 2.0
    class_weights: list[list[float | int]] | None = None
    window_stride_s: float | int | None = None
    edge_trim_s: float | int | None = None
    merge: str = "max"
    nms_type: str = "soft"
    nms_window_s: float | int | list[float | int] = 10.0
    nms_threshold: float | int = 0.001
    nms_min_weight: float | int = 0.0
    label_thresholds: list[float | int] | None = None
    label_calibration: list[list[float | int]] | None = None
    label_curves: list[list[list[float | int]]] | None = None
    label_num_events: list[int] | None = None
    contrastive_config: dict | ComedianContrastiveConfig | None = None
    distillation_config: dict | ComedianDistillationConfig | None = None
    backbone: str | None = None
    backbone_config: dict | PreTrainedConfig | None = None
    use_pretrained_backbone: bool = False
    backbone_frozen: bool = False

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
        self.spatial_depths = _as_list(self.spatial_depths)
        self.spatial_num_heads = _as_list(self.spatial_num_heads)
        self.image_size = _as_list(self.image_size)
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
            # the installed package is its own code; left in, pipeline() would ask for `trust_remote_code`
            custom = custom_class_of(kwargs.get("auto_map"))
            for name in ("auto_map", "custom_pipelines"):
                kwargs.pop(name, None)
            if custom is not None:
                kwargs["auto_map"] = {SPOTTING_CLASS: custom}
        _warn_of_unknown(self, kwargs)
        super().__post_init__(**kwargs)
        if not isinstance(self.dtype, str | torch.dtype | None):
            raise ValueError(f"`dtype` is {self.dtype!r}; must be a name such as float32")
        if self.id2label is not None:
            self.label2id = {label: index for index, label in self.id2label.items()}

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
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
        return super().from_dict(config_dict | replaced, **kwargs)

    @property
    def num_labels(self) -> int | None:
        """Labels of the classifier; setting another number resets their names and what belongs to them."""
        return None if self.id2label is None else len(self.id2label)

    @num_labels.setter
    def num_labels(self, num_labels: int) -> None:
        if self.num_labels == num_labels:
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
            save_directory (`str` or `os.PathLike`): made if need be.
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
    def hidden_size(self) -> int:
        """Width of spatial and temporal tokens: ViSwin doubles its width from stage to stage."""
        return self.spatial_hidden_size * 2 ** (len(self.spatial_depths) - 1)

    @property
    def copies_spatial_layers(self) -> bool:
        """Whether stage 2 starts the temporal layers as copies of the spatial ones."""
        wanted = self.distillation_config.copy_spatial_layers if self.distillation_config else None
        return self._spatial_layers_fit if wanted is None else wanted

    @property
    def _spatial_layers_fit(self) -> bool:
        """Whether the temporal encoder has no more layers than the spatial one, of the same kind."""
        return self.spatial_encoder == "vivit" and self.temporal_depth <= self.spatial_depths[0]

    @property
    def num_tokens(self) -> int:
        """Tokens of one window."""
        return self.num_frames // self.tubelet_size

    @property
    def token_rate(self) -> float:
        """Tokens per second."""
        return self.fps / self.tubelet_size

    @property
    def score_rate(self) -> float:
        """Steps of the output per second."""
        return self.token_rate * self.scores_per_token

    @property
    def logits_per_token(self) -> int:
        """Logits of a token for each label: one a step, or one that the offset moves to its step."""
        return self.scores_per_token if self.offset_radius_s is None else 1

    @property
    def window_duration_s(self) -> float:
        """Length of one window in seconds."""
        return self.num_frames / self.fps

    @property
    def window_stride_tokens(self) -> int:
        """Hop between inference windows in tokens, at least 1."""
        if self.window_stride_s is None:
            return max(self.num_tokens // 2, 1)
        return max(round(self.window_stride_s * self.token_rate), 1)

    @property
    def edge_trim_tokens(self) -> int:
        """Tokens dropped at both ends of an inference window."""
        if self.edge_trim_s is None:
            return self.num_tokens * 12 // 64
        return round(self.edge_trim_s * self.token_rate)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches in height and width."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def label_names(self) -> list[str]:
        """The labels in the order of the logits."""
        return [self.id2label[index] for index in range(self.num_labels)]

    def stage_grids(self) -> list[tuple[int, int]]:
        """Patches in height and width at each spatial stage; an odd side is padded before it is halved."""
        grids = [self.grid_size]
        for _ in self.spatial_depths[1:]:
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

    def _check_numbers(self):
        """Refuse whole numbers that no float holds: JSON may have them of any length."""
        for field in dataclasses.fields(self):
            if any(
                isinstance(number, int) and abs(number) > MAX_NUMBER for number in _flat(getattr(self, field.name))
            ):
                raise ValueError(f"`{field.name}` has a number beyond {MAX_NUMBER}")

    def _check_choices(self):
        """Refuse unknown names."""
        for field, known in (
            ("spatial_encoder", SPATIAL_ENCODERS),
            ("spotting_loss", SPOTTING_LOSSES),
            ("merge", MERGES),
            ("nms_type", NMS_TYPES),
            ("hidden_act", tuple(ACT2FN)),
        ):
            if getattr(self, field) not in known:
                raise ValueError(f"`{field}` is {getattr(self, field)!r}; must be one of {', '.join(known)}")

    def _check_sizes(self):
        """Refuse sizes that are not positive or out of their range."""
        for field in (
            "spatial_hidden_size spatial_window_size temporal_num_heads temporal_kernel_size patch_size tubelet_size "
            "num_frames fps num_channels mlp_ratio layer_norm_eps scores_per_token sound_hidden_size"
        ).split():
            if not 0 < getattr(self, field) < math.inf:
                raise ValueError(f"`{field}` is {getattr(self, field)}; must be greater than 0")
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
        for field, largest in MAX_SIZES.items():
            value = getattr(self, field)
            if max(value if isinstance(value, list) else [value]) > largest:
                raise ValueError(f"`{field}` is {value}; must be at most {largest}")

    def _check_spatial_encoder(self):
        """Refuse stages, heads and patches that do not fit each other."""
        if len(self.image_size) != 2:
            raise ValueError(f"`image_size` is {self.image_size}; give one side, or height and width")
        if self.use_pretrained_backbone and self.backbone is None:
            raise ValueError("`use_pretrained_backbone` needs `backbone`, where the weights are")
        if self.spatial_encoder == "backbone":
            self._check_backbone()
            return
        if any(side % self.patch_size for side in self.image_size):
            raise ValueError(f"`image_size` {self.image_size} is not a multiple of `patch_size` {self.patch_size}")
        if self.spatial_encoder == "vivit" and len(self.spatial_depths) != 1:
            raise ValueError(f"`spatial_depths` is {self.spatial_depths}; `vivit` has one stage")
        if self.spatial_encoder == "convolutional":
            self._check_convolutions()
            return
        if len(self.spatial_depths) != len(self.spatial_num_heads):
            raise ValueError(
                f"`spatial_depths` {self.spatial_depths} and `spatial_num_heads` {self.spatial_num_heads} must have "
                "one entry for each stage"
            )
        for stage, heads in enumerate(self.spatial_num_heads):
            width = self.spatial_hidden_size * 2**stage
            if width % heads:
                raise ValueError(f"`spatial_num_heads` {heads} does not divide the width {width} of stage {stage}")

    def _check_backbone(self):
        """Refuse a missing image model, and sizes of ViViT and ViSwin that it would not follow."""
        if self.backbone_config is None:
            raise ValueError("`spatial_encoder` is 'backbone'; give `backbone` or `backbone_config`")
        if len(self.spatial_depths) != 1:
            raise ValueError(f"`spatial_depths` is {self.spatial_depths}; `backbone` has one stage")

    def _check_convolutions(self):
        """Refuse patches that halving does not lead to, and widths that cannot be halved as often."""
        if self.patch_size < 2 or self.patch_size & (self.patch_size - 1):
            raise ValueError(
                f"`patch_size` is {self.patch_size}; `convolutional` halves its pictures: give 2, 4, 8, ..."
            )
        if self.spatial_hidden_size % (self.patch_size // 2):
            raise ValueError(
                f"`spatial_hidden_size` is {self.spatial_hidden_size}; `convolutional` halves it with its pictures: give a "
                f"multiple of {self.patch_size // 2}"
            )

    def _check_temporal_encoder(self):
        """Refuse windows, heads and kernels that do not fit the tokens."""
        if self.temporal_kernel_size % 2 == 0:
            raise ValueError(f"`temporal_kernel_size` is {self.temporal_kernel_size}; must be odd")
        if self.num_frames % self.tubelet_size:
            raise ValueError(f"`num_frames` {self.num_frames} is not a multiple of `tubelet_size` {self.tubelet_size}")
        if self.hidden_size % self.temporal_num_heads:
            raise ValueError(
                f"`temporal_num_heads` {self.temporal_num_heads} does not divide the width {self.hidden_size}"
            )
        if self.copies_spatial_layers and not self._spatial_layers_fit:
            raise ValueError(
                "`distillation_config.copy_spatial_layers` is true, but only `vivit` with at least as many spatial as "
                f"temporal layers ({self.temporal_depth}) has layers to copy; leave it out"
            )

    def _check_output(self):
        """Refuse steps that share no frames out, and offsets of no length."""
        if self.offset_radius_s is not None and not 0 < self.offset_radius_s < math.inf:
            raise ValueError(f"`offset_radius_s` is {self.offset_radius_s}; must be greater than 0, or left out")
        if self.tubelet_size % self.logits_per_token:
            raise ValueError(
                f"`scores_per_token` {self.scores_per_token} does not divide `tubelet_size` {self.tubelet_size}; only with "
                "`offset_radius_s` it may be any number"
            )

    def _check_inference(self):
        """Refuse stitching settings that leave seconds uncovered, and windows that are no length of time."""
        if self.window_stride_s is not None and not 0 < self.window_stride_s < math.inf:
            raise ValueError(f"`window_stride_s` is {self.window_stride_s}; must be greater than 0")
        if self.edge_trim_s is not None and not 0 <= self.edge_trim_s < math.inf:
            raise ValueError(f"`edge_trim_s` is {self.edge_trim_s}; must be 0 or more")
        stride, kept = self.window_stride_tokens, self.num_tokens - 2 * self.edge_trim_tokens
        if kept < 1 or stride > kept:
            raise ValueError(
                f"`window_stride_s` {self.window_stride_s} and `edge_trim_s` {self.edge_trim_s} leave gaps: a window of "
                f"{self.num_tokens} tokens keeps {kept} of them and the next one starts {stride} later"
            )
        windows = self.nms_window_s if isinstance(self.nms_window_s, list) else [self.nms_window_s]
        if not all(0 <= window < math.inf for window in windows):
            raise ValueError(f"`nms_window_s` is {self.nms_window_s}; must be 0 or more")

    def _check_labels(self):
        """Refuse labels that are not one name an output, and per-label lists of another length."""
        if sorted(self.id2label) != list(range(max(len(self.id2label), 1))):
            raise ValueError(f"`id2label` has the indices {list(self.id2label)}; must be 0, 1, ... without gaps")
        for label in self.id2label.values():
            if not isinstance(label, str) or CONTROL.search(label):
                raise ValueError(f"`id2label` has the label {label!r}; must be a line of text")
        if len(set(self.id2label.values())) < len(self.id2label):
            raise ValueError("`id2label` has a label more than once")
        lists = {name: getattr(self, name) for name in CHOSEN_ON_VALIDATION}
        if isinstance(self.nms_window_s, list):
            lists["nms_window_s"] = self.nms_window_s
        rows = self.class_weights or []
        if any(len(weights) != 1 for weights in rows):
            lists |= {f"class_weights[{row}]": weights for row, weights in enumerate(rows)}
        if self.class_weights is not None and len(self.class_weights) != 2:
            raise ValueError(f"`class_weights` has {len(self.class_weights)} rows; must have 2 (target 0, target 1)")
        for name, values in lists.items():
            if values is not None and len(values) != self.num_labels:
                raise ValueError(f"`{name}` has {len(values)} entries for {self.num_labels} labels")
        for pair in self.label_calibration or []:
            if len(pair) != 2 or not 0 < pair[0] < math.inf or not math.isfinite(pair[1]):
                raise ValueError(f"`label_calibration` holds {pair}; must be a slope greater than 0 and a bias")
        if any(count < 0 for count in self.label_num_events or []):
            raise ValueError(f"`label_num_events` is {self.label_num_events}; must be numbers of events, 0 or more")
        for points in self.label_curves or []:
            if any(len(point) != 3 for point in points):
                raise ValueError("`label_curves` holds a point that is not threshold, precision and recall")


def _flat(value):
    """Yield what lies in lists of lists, or the value itself."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _is_of_labels(name: str, value: object) -> bool:
    """Whether a field's value holds for its labels alone."""
    return name in FIELDS_OF_LABELS and (name != "nms_window_s" or isinstance(value, list | tuple))


def _label_names(fields: dict) -> list[str] | None:
    """Labels in the order of the logits, if `id2label` is there."""
    id2label = fields.get("id2label")
    try:
        return id2label and [id2label[index] for index in sorted(id2label, key=int)]
    except (TypeError, ValueError):  # refused where the fields are checked
        return None


def _as_list(value: int | list[int] | tuple[int, ...]) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


__all__ = ["ComedianConfig", "ComedianContrastiveConfig", "ComedianDistillationConfig"]

"""Authors' checkpoints, flat state dicts or Lightning's, to folders that `from_pretrained` loads."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from comedian.conversion.model_folder import new_folder, write_model
from comedian.conversion.torch_files import read_state_dict
from comedian.errors import InputError
from comedian.hub.model_record import ModelRecord
from comedian.inference.model_names import ENSEMBLE_FOLDER
from comedian.models import (
    ComedianConfig,
    ComedianForActionSpotting,
    ComedianModel,
    ComedianPreTrainedModel,
    ComedianVideoProcessor,
)
from comedian.models.configuration_comedian import PUBLISHED_SIZES
from comedian.soccernet.labels import SOCCERNET_V2_LABELS

SPOTTING, STAGE_1, STAGE_2 = "spotting", "stage 1", "stage 2"

# what a wrapper, such as DistributedDataParallel or `torch.compile`, puts before every name
PREFIX = re.compile(r"((?:\w+\.)+?)trunk\.")
# buffers of augmentation modules lie among the weights of the published files
AUGMENTATION = re.compile(r"(train|val|test)_transform\.")
# recomputed from the configuration
DERIVED = re.compile(r".*\.(relative_position_index|attn_mask)$")
# parts of stages 1 and 2 that no later stage uses
PRETRAINING = re.compile(r"(projector|predictor|momentum_\w+)\.|queue$|queue_ptr$")

# our name -> published name inside the trunk, applied in this order
RENAMINGS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^comedian\.", ""),
        (r"^spatial_encoder\.class_token$", "spatial_cls_token"),
        (r"^spatial_encoder\.position_embeddings$", "pos_embed"),
        (r"^spatial_encoder\.embeddings\.projection\.", "patch_embed.proj."),
        (r"^spatial_encoder\.embeddings\.norm\.", "patch_embed.norm."),
        (r"^temporal_encoder\.mask_token$", "temporal_mask_token"),
        (r"^temporal_encoder\.time_embeddings$", "time_embed"),
        (r"^(spatial|temporal)_encoder\.layers\.", r"\1_transformer.blocks."),
        (r"^spatial_encoder\.stages\.(\d+)\.layers\.", r"spatial_transformer.layers.\1.blocks."),
        (r"^spatial_encoder\.stages\.(\d+)\.merging\.", r"spatial_transformer.layers.\1.downsample."),
        (r"^(spatial|temporal)_encoder\.", r"\1_transformer."),
        (r"\.attention\.relative_position_bias$", ".attn.relative_position_bias_table"),
        (r"\.attention\.projection\.", ".attn.proj."),
        (r"\.attention\.", ".attn."),
    )
]


@dataclass
class ConvertedCheckpoint:
    """A checkpoint in our form.

    Args:
        stage (`str`): `"spotting"`, `"stage 1"` or `"stage 2"`.
        model (`ComedianPreTrainedModel`): [`ComedianForActionSpotting`] for spotting, else [`ComedianModel`].
        assumed (`list[str]`): assumptions about sizes that the tensors do not determine and that were not given.
        skipped (`dict[str, int]`): groups of skipped tensors, and the number of each.
        checkpoint (`str`): name of the authors' file.
    """

    stage: str
    model: ComedianPreTrainedModel
    assumed: list[str]
    skipped: dict[str, int]
    checkpoint: str


def save_converted(converted: Sequence[ConvertedCheckpoint], output_dir: str | Path) -> Path:
    """Write a model, its configuration and its processor to a new folder; several as an ensemble, see `find_models`.

    Raises:
        InputError: the models make no ensemble, or the folder holds files or cannot be written.
    """
    first, *others = converted
    if others:
        _check_ensemble(converted)
    with new_folder(output_dir) as folder:
        _write(first, folder)
        for index, member in enumerate(others, 1):
            _write(member, folder / ENSEMBLE_FOLDER / str(index))
    return Path(output_dir)


def _write(converted: ConvertedCheckpoint, folder: Path) -> None:
    height, width = converted.model.config.image_size
    processor = ComedianVideoProcessor(size={"height": height, "width": width})
    record = ModelRecord(converted_from=converted.checkpoint)
    # as our stage 1 leaves it: stage 2 then knows that the temporal encoder is to be started
    parts = ("spatial_encoder",) if converted.stage == STAGE_1 else ("",)
    write_model(converted.model, processor, record, folder, parts)


def _check_ensemble(converted: Sequence[ConvertedCheckpoint]) -> None:
    """Refuse models whose scores have no mean."""
    first, *others = converted
    if any(member.stage != SPOTTING for member in converted):
        stages = ", ".join(f"`{member.checkpoint}` ({member.stage})" for member in converted)
        raise InputError(f"only spotting models make an ensemble, and these are {stages}; choose one with --file")
    for member in others:
        for field in ("label_names", "fps", "tubelet_size"):
            if getattr(member.model.config, field) != getattr(first.model.config, field):
                raise InputError(
                    f"`{first.checkpoint}` and `{member.checkpoint}` differ in `{field}` and make no ensemble; choose one "
                    "with --file"
                )


def read_checkpoint(
    checkpoint: str | Path,
    *,
    spatial_heads: Sequence[int] | None = None,
    temporal_heads: int | None = None,
    image_size: Sequence[int] | None = None,
    fps: float = 2.0,
    labels: Sequence[str] | None = None,
) -> ConvertedCheckpoint:
    """Load an authors' checkpoint (spotting, stage 1 or stage 2) into our model.

    Args:
        checkpoint: `.ckpt` or `.pth`, a flat state dict or Lightning's (read by `read_state_dict`, which runs no code of
            it), or a flat `.safetensors`.
        spatial_heads: attention heads of the spatial encoder; ViSwin's may be given for the first stage alone, they double
            from stage to stage. ViSwin's tensors tell them, ViViT's do not: the published ones by default.
        temporal_heads: attention heads of the temporal encoder; the published ones by default.
        image_size: height and width in pixels, needed where the tensors fit no square.
        fps: frames per second of the model's input.
        labels: names of the outputs; SoccerNet-v2's for 17 outputs by default.

    Returns:
        The model, what was assumed and what was omitted.

    Raises:
        InputError: no checkpoint, one that does not fit the arguments, or one with tensors missing or left over; these are
            listed.
    """
    tensors = load_tensors(checkpoint)
    stage = find_stage(tensors, checkpoint)
    shapes = _ShapeReader(tensors, stage, checkpoint)
    config = shapes.read_config(spatial_heads, temporal_heads, image_size, fps, labels)
    model_class = ComedianForActionSpotting if stage == SPOTTING else ComedianModel
    skipped = {name for name in tensors if _is_skipped(name, stage)}
    weights = {name: tensors[name] for name in tensors.keys() - skipped}
    # names and shapes first: a model of these sizes takes memory
    with torch.device("meta"):
        weights = _fitting_weights(model_class(config), weights, stage, checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if name in weights:
                weight.copy_(weights[name])
    groups = Counter(name.split(".")[-1 if DERIVED.match(name) else 0] for name in skipped)
    return ConvertedCheckpoint(
        stage, model.eval(), shapes.assumed, dict(sorted(groups.items())), Path(checkpoint).name
    )


def load_tensors(checkpoint: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint, running no code of it, under the authors' names.

    Raises:
        InputError: the file is missing, broken, or holds no state dict.
    """
    checkpoint = Path(checkpoint)
    if not checkpoint.is_file():
        raise InputError(f"`{checkpoint}` is not a file; give a .ckpt, .pth or .safetensors file")
    try:
        tensors = load_file(checkpoint) if checkpoint.suffix == ".safetensors" else read_state_dict(checkpoint)
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"`{checkpoint}` cannot be read as a checkpoint: {reason}") from error
    if tensors is None:
        raise InputError(f"`{checkpoint}` holds no state dict: neither `state_dict` nor names and tensors alone")
    return _without_prefix(tensors)


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefix that stands before `trunk.` in all names that have it."""
    found = {match[1] if (match := PREFIX.match(name)) else "" for name in tensors if "trunk." in name}
    if len(found) != 1:
        return tensors
    [prefix] = found
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def find_stage(tensors: dict[str, Tensor], checkpoint: str | Path) -> str:
    """Determine the training stage of a checkpoint from the names of its tensors."""
    if any(name.startswith("head_class.") for name in tensors):
        return SPOTTING
    if any(name.startswith("trunk.transformer.") for name in tensors):
        return STAGE_2
    if any(name.startswith("trunk.") for name in tensors):
        return STAGE_1
    raise InputError(
        f"`{checkpoint}` is not a COMEDIAN checkpoint: none of its {len(tensors)} tensors starts with `trunk.`"
    )


def published_name(name: str, stage: str) -> str:
    """Return the name in an authors' checkpoint of a tensor of ours."""
    if name.startswith("classifier."):
        return name.replace("classifier.", "head_class.layers.0.")
    for pattern, replacement in RENAMINGS:
        name = pattern.sub(replacement, name)
    if stage == STAGE_1:
        return "trunk." + name.removeprefix("spatial_transformer.").replace("spatial_cls_token", "cls_token")
    return f"trunk.transformer.{name}"


def _is_skipped(name: str, stage: str) -> bool:
    pretraining_part = stage != SPOTTING and PRETRAINING.match(name)
    return bool(AUGMENTATION.match(name) or DERIVED.match(name) or pretraining_part)


def _fitting_weights(
    model: ComedianPreTrainedModel, tensors: dict[str, Tensor], stage: str, checkpoint: str | Path
) -> dict[str, Tensor]:
    """Return `tensors` (published names) under our names; an `InputError` lists every one that does not fit `model`."""
    weights = {
        published_name(name, stage): (name, weight)
        for name, weight in model.state_dict().items()
        if not (stage == STAGE_1 and name.startswith("temporal_encoder."))
    }
    # a Conv3d kernel (width, channels, tubelet, patch, patch) is our matrix with its last axes flattened
    patch = published_name("spatial_encoder.embeddings.projection.weight", stage)
    tensors = tensors | {patch: tensors[patch].flatten(1)}
    misfits = [
        f"`{name}` has shape {tuple(tensors[name].shape)} where {tuple(weight.shape)} fits"
        for name, (_, weight) in weights.items()
        if name in tensors and tensors[name].shape != weight.shape
    ]
    problems = [
        f"{title}: {', '.join(names)}"
        for title, names in (
            ("missing tensors", sorted(weights.keys() - tensors.keys())),
            ("tensors left over", sorted(tensors.keys() - weights.keys())),
            ("tensors of another shape", misfits),
        )
        if names
    ]
    if problems:
        raise InputError(f"`{checkpoint}` ({stage}) does not fit a COMEDIAN model; {'; '.join(problems)}")
    return {name: tensors[published] for published, (name, _) in weights.items()}


class _ShapeReader:
    """Reads a configuration from the shapes of a checkpoint's tensors, and records in `assumed` the values that they
    do not determine."""

    def __init__(self, tensors: dict[str, Tensor], stage: str, checkpoint: str | Path):
        self.tensors = tensors
        self.stage = stage
        self.checkpoint = checkpoint
        self.assumed: list[str] = []
        self.trunk = "trunk." if stage == STAGE_1 else "trunk.transformer."
        spatial = self.trunk + ("" if stage == STAGE_1 else "spatial_transformer.")
        num_stages = self.count(f"{spatial}layers.")
        self.encoder = "viswin" if num_stages else "vivit"
        # what precedes the layers' indices in the names of each stage
        self.layers = [f"{spatial}layers.{index}.blocks." for index in range(num_stages)] or [f"{spatial}blocks."]

    def read_config(
        self,
        spatial_heads: Sequence[int] | None,
        temporal_heads: int | None,
        image_size: Sequence[int] | None,
        fps: float,
        labels: Sequence[str] | None,
    ) -> ComedianConfig:
        """Return the configuration that fits the tensors and the arguments of [`read_checkpoint`]."""
        width, channels, tubelet, patch, _ = self.shape(f"{self.trunk}patch_embed.proj.weight", 5)
        depths = [self.count(layers) for layers in self.layers]
        mlp_width, _ = self.shape(f"{self.layers[0]}0.mlp.fc1.weight", 2)
        published = next(
            (size for size in PUBLISHED_SIZES.values() if size[:3] == (self.encoder, width, depths)), None
        )
        usual_heads = width // 64 if self.encoder == "vivit" and width % 64 == 0 else 3
        if self.encoder == "viswin":
            spatial_heads = self.check_heads(spatial_heads)
        elif spatial_heads is None:
            spatial_heads = published[3] if published else [usual_heads]
            self.assumed.append(f"spatial heads: {spatial_heads[0]} (--spatial-heads)")
        if temporal_heads is None:
            temporal_heads = published[4] if published else usual_heads
            self.assumed.append(f"temporal heads: {temporal_heads} (--temporal-heads)")
        fields = {
            "spatial_encoder": self.encoder,
            "spatial_hidden_size": width,
            "spatial_depths": depths,
            "spatial_num_heads": list(spatial_heads),
            "spatial_window_size": self.window_side() if self.encoder == "viswin" else 7,
            "temporal_num_heads": temporal_heads,
            "image_size": list(image_size or self.square_image(patch)),
            "patch_size": patch,
            "tubelet_size": tubelet,
            "num_channels": channels,
            "mlp_ratio": mlp_width / width,
            "fps": fps,
            "id2label": dict(enumerate(self.label_names(labels))),
        }
        try:
            config = ComedianConfig(**fields, **self.temporal_fields(tubelet))
        except StrictDataclassError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[-1].strip()
            raise InputError(f"`{self.checkpoint}` with the sizes read, given and assumed: {reason}") from error
        self.check_grid(config)
        return config

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """Shape of a tensor that the configuration is read from."""
        if name not in self.tensors:
            raise InputError(
                f"`{self.checkpoint}` ({self.stage}) does not fit a COMEDIAN model; missing tensors: {name}"
            )
        shape = tuple(self.tensors[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise InputError(f"`{self.checkpoint}`: `{name}` has shape {shape}; must have {dimensions} dimensions")
        return shape

    def count(self, prefix: str) -> int:
        """Number of different indices that follow `prefix` in the names."""
        indices = (re.match(rf"{re.escape(prefix)}(\d+)\.", name) for name in self.tensors)
        return len({match[1] for match in indices if match})

    def check_heads(self, given: Sequence[int] | None) -> list[int]:
        """Heads of each ViSwin stage, read from the bias tables; `given` must agree."""
        heads = [self.shape(f"{layers}0.attn.relative_position_bias_table", 2)[1] for layers in self.layers]
        if given is not None and list(given) not in (heads, heads[:1]):
            raise InputError(
                f"--spatial-heads {' '.join(map(str, given))}: the bias tables of `{self.checkpoint}` have "
                f"{' '.join(map(str, heads))} heads"
            )
        return heads

    def window_side(self) -> int:
        """Side of ViSwin's windows: a bias table has `(2 * side - 1) ** 2` rows."""
        rows, _ = self.shape(f"{self.layers[0]}0.attn.relative_position_bias_table", 2)
        return (math.isqrt(rows) + 1) // 2

    def square_image(self, patch: int) -> tuple[int, int]:
        """Image size according to the position table (ViViT) or by the attention masks (ViSwin), where it is a square."""
        if self.encoder == "vivit":
            side = self.square_side(self.shape(f"{self.trunk}pos_embed", 3)[1] - 1, "patches") * patch
        elif f"{self.layers[0]}1.attn_mask" in self.tensors:
            windows = self.shape(f"{self.layers[0]}1.attn_mask", 3)[0]
            side = self.square_side(windows, "windows") * self.window_side() * patch
        elif f"{self.layers[0]}1.attn.relative_position_index" in self.tensors:
            # a layer that would be shifted, and is not: one window covers the grid
            side = self.window_side() * patch
        else:
            side = 224
            self.assumed.append("image size: 224 x 224 (--image-size)")
        return side, side

    def square_side(self, count: int, what: str) -> int:
        """Side of a square of `count` cells."""
        side = math.isqrt(count)
        if side**2 != count:
            raise InputError(f"`{self.checkpoint}` has {count} {what}, no square; give --image-size HEIGHT WIDTH")
        return side

    def check_grid(self, config: ComedianConfig) -> None:
        """Refuse an image size that the position table or an attention mask contradicts."""
        if self.encoder == "vivit":
            stored = self.shape(f"{self.trunk}pos_embed", 3)[1] - 1
            self.check_cells(config, math.prod(config.grid_size), stored, "patches")
            return
        for layers, grid, window in zip(self.layers, config.stage_grids(), config.stage_windows(), strict=True):
            mask = f"{layers}1.attn_mask"
            if mask in self.tensors:
                windows = math.prod(math.ceil(side / window) for side in grid)
                self.check_cells(config, windows, self.shape(mask, 3)[0], f"windows at `{layers}`")

    def check_cells(self, config: ComedianConfig, wanted: int, stored: int, what: str) -> None:
        """Refuse an image size with another number of cells than the checkpoint's."""
        if wanted != stored:
            height, width = config.image_size
            raise InputError(
                f"an image of {height} x {width} pixels has {wanted} {what}, `{self.checkpoint}` has {stored}; "
                "give the size it was trained with as --image-size HEIGHT WIDTH"
            )

    def temporal_fields(self, tubelet: int) -> dict[str, int]:
        """Depth and window of the temporal encoder; stage 1 has none yet and gets the published ones."""
        if self.stage != STAGE_1:
            return {
                "temporal_depth": self.count(f"{self.trunk}temporal_transformer.blocks."),
                "num_frames": self.shape(f"{self.trunk}time_embed", 3)[1] * tubelet,
            }
        fields = {"temporal_depth": 6, "num_frames": max(128 // tubelet, 1) * tubelet}
        self.assumed.append(
            f"temporal encoder: {fields['temporal_depth']} layers, {fields['num_frames']} frames a window, omitted "
            "and to be trained (stage 1 trains the spatial encoder alone)"
        )
        return fields

    def label_names(self, given: Sequence[str] | None) -> Sequence[str]:
        """Names of the outputs; stages 1 and 2 have none yet, so any number fits them."""
        count = None
        if self.stage == SPOTTING:
            count = self.shape("head_class.layers.0.weight", 2)[0]
        if given is not None:
            if count not in (None, len(given)):
                raise InputError(f"--labels: {len(given)} labels for the {count} outputs of `{self.checkpoint}`")
            return given
        if count in (None, len(SOCCERNET_V2_LABELS)):
            self.assumed.append(f"labels: SoccerNet-v2's {len(SOCCERNET_V2_LABELS)} (--labels)")
            return SOCCERNET_V2_LABELS
        self.assumed.append(f"labels: LABEL_0 to LABEL_{count - 1} (--labels)")
        return [f"LABEL_{index}" for index in range(count)]

"""Features of clips from any video or image model of transformers.

Frames are decoded in the size required by the processor of the model, and cropped and normalised here in torch, once
per frame. Only the settings of the processor are used: the processor itself would repeat the work for every clip that
shares a frame, and needs a complete torchvision.
"""

import json
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel
from transformers.image_processing_base import ImageProcessingMixin

from comedian.errors import InputError
from comedian.inference.image_processors import normalisation_of
from comedian.inference.loading import LOADING_ERRORS, describe, loading_error, to_device
from comedian.inference.torch_model import map_batches
from comedian.models.pipeline_comedian import autocast
from comedian.models.video_processing_comedian import normalize_frames
from comedian.models.windows_comedian import batches_of
from comedian.video.decoding import iter_frames, shown_size

DEFAULT_FPS = 2.0
_KNOWN_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_sample_frames"}

Item = TypeVar("Item")


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of frames.

    Attributes:
        size: `(height, width)` to resize to, the shorter edge alone, or None for the video's own.
        crop: `(height, width)` of the centre crop, or None.
        mean: subtracted from each channel, after scaling.
        std: divides each channel.
        scale: factor on the values 0 to 255.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    mean: list[float]
    std: list[float]
    scale: float

    def decoded_size(self, height: int, width: int) -> tuple[int, int]:
        """Return `(height, width)` in which to decode a video of that size."""
        if not isinstance(self.size, int):
            return self.size or (height, width)
        short = min(height, width)
        return int(self.size * height / short), int(self.size * width / short)

    def __call__(self, frames: Tensor) -> Tensor:
        """Crop and normalise uint8 `(..., height, width, 3)` to float32 `(..., 3, height, width)`."""
        if self.crop is not None:
            height, width = self.crop
            top, left = (frames.shape[-3] - height) // 2, (frames.shape[-2] - width) // 2
            frames = frames[..., top : top + height, left : left + width, :]
        return normalize_frames(frames.movedim(-1, -3), self.mean, self.std, self.scale)


class PretrainedExtractor:
    """Features of clips that are centred on every `hop_s`th second.

    A clip has `clip_s * fps` frames; beyond the edges of the video its first or last frame is repeated. A feature is the
    model's `pooler_output` where it has a trained one, else the mean of `last_hidden_state` over the tokens. An image
    model takes the frames one by one, and a clip's feature is their mean.

    Args:
        name: a folder or a Hub repository.
        clip_s: seconds of a clip.
        fps: frames per second; by default the rate at which a clip has the number of frames of the video model; 2 if
            it accepts any number, and for an image model.
        hop_s: seconds from one feature to the next; clips are centred to within half a frame.
        batch_size: clips, or frames of an image model, at once.
        device: device to run on; by default an accelerator if available.
        trust_remote_code: run the code that comes with the model.

    Raises:
        InputError: the model, its processor or the device is not available, or the clips do not match the model.
    """

    def __init__(
        self,
        name: str,
        *,
        clip_s: float = 4.0,
        fps: float | None = None,
        hop_s: float = 1.0,
        batch_size: int = 16,
        device: str | None = None,
        trust_remote_code: bool = False,
    ):
        try:
            model, loading = AutoModel.from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, trust_remote_code=trust_remote_code
            )
        except (*LOADING_ERRORS, KeyError) as error:
            raise loading_error(name, error) from error
        self.name, self.batch_size, self.hop_s = name, batch_size, hop_s
        self.use_pooler = _check_weights(name, loading["missing_keys"])
        model_frames = _frames_of_model(name, model)
        self.is_video_model = model_frames is not None
        self.clip_fps, self.num_frames = _clip_frames(name, model_frames or None, clip_s, fps, hop_s)
        self.preprocessing = _preprocessing(name, _processor_settings(name, self.is_video_model, trust_remote_code))
        self.model = to_device(model.eval(), device)

        self.fps = 1 / hop_s
        # the middle of an even number of frames is half a frame after the centre frame
        self.offset_s = 0.0 if self.num_frames % 2 else 0.5 / self.clip_fps
        described = describe(name, self.model, json.dumps(asdict(self.preprocessing)))
        self.source = f"{described}, clips of {self.num_frames} frames at {self.clip_fps:g} fps"

    def __call__(self, video: Path) -> np.ndarray:
        """Return the features of a video, float32 `(num_features, dim)`.

        Raises:
            InputError: the video cannot be decoded, or the model does not accept its frames.
        """
        size = self.preprocessing.decoded_size(*shown_size(video))
        if self.preprocessing.crop and (size[0] < self.preprocessing.crop[0] or size[1] < self.preprocessing.crop[1]):
            raise InputError(
                f"`{video}`: frames of {size} are too small for `{self.name}`, which crops them to "
                f"{self.preprocessing.crop}; use larger frames"
            )
        frames = (frame for _, frame in iter_frames(video, self.clip_fps, size))
        hop_frames = self.hop_s * self.clip_fps
        if self.is_video_model:
            clips = centred_clips(frames, self.num_frames, hop_frames)
            return np.concatenate(list(self._encode(np.stack(clip) for clip in clips)))
        encoded = (feature for batch in self._encode(frames) for feature in batch)
        return np.stack([np.mean(clip, axis=0) for clip in centred_clips(encoded, self.num_frames, hop_frames)])

    def _encode(self, inputs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield batches of features, float32 `(batch, dim)`, of clips or of frames."""
        return map_batches(self._encode_batch, batches_of(inputs, self.batch_size), self.model.device)

    @torch.inference_mode()
    def _encode_batch(self, batch: np.ndarray) -> np.ndarray:
        pixels = self.preprocessing(torch.from_numpy(batch).to(self.model.device))
        try:
            with autocast(self.model):
                outputs = self.model(**{self.model.main_input_name: pixels})
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"`{self.name}` does not accept pixels of shape {list(pixels.shape)}: {str(error).splitlines()[0]}"
            ) from error
        return self._pool(outputs).float().cpu().numpy()

    def _pool(self, outputs: Any) -> Tensor:
        pooled = outputs.get("pooler_output")
        if self.use_pooler and pooled is not None:
            return pooled.flatten(1)
        hidden = outputs.last_hidden_state
        # tokens (batch, tokens, dim), or the map (batch, dim, height, width) of a convolutional network
        return hidden.flatten(2).mean(dim=2) if hidden.ndim == 4 else hidden.mean(dim=1)


def centred_clips(frames: Iterable[Item], length: int, hop_frames: float) -> Iterator[list[Item]]:
    """Yield the clips of `length` frames that are centred on frame 0, `hop_frames`, `2 * hop_frames`, ...

    A centre between two frames is rounded to the nearest; a clip has one frame more after its centre than before where its
    length is even. The first and the last frame are repeated beyond the edges. Holds `length` frames at a time.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        return
    padded = chain(repeat(first, 1 + (length - 1) // 2), _with_last_repeated(frames, first, length // 2))
    held: deque[Item] = deque(maxlen=length)
    count = 0
    for index, frame in enumerate(padded):
        held.append(frame)
        if index - length + 1 == math.floor(count * hop_frames + 0.5):
            yield list(held)
            count += 1


def _with_last_repeated(items: Iterator[Item], last: Item, count: int) -> Iterator[Item]:
    for item in items:
        yield (last := item)
    yield from repeat(last, count)


def _check_weights(name: str, missing: Iterable[str]) -> bool:
    """Return whether the pooler has weights: many checkpoints lack them, and the pooler is then random."""
    others = sorted(key for key in missing if "pooler" not in key)
    if others:
        raise InputError(f"`{name}` has no weights for {others[0]}; give a trained model")
    return not list(missing)


def _frames_of_model(name: str, model: Any) -> int | None:
    """Return the number of frames per clip of a video model, 0 if it accepts any; None for an image model."""
    if model.main_input_name not in ("pixel_values", "pixel_values_videos"):
        raise InputError(
            f"`{name}` is a {type(model).__name__}, which has other inputs than images; give a vision model"
        )
    num_frames = getattr(model.config, "num_frames", None)  # TimeSformer's input is `pixel_values`
    return num_frames or (0 if "video" in model.input_modalities else None)


def _clip_frames(
    name: str, model_frames: int | None, clip_s: float, fps: float | None, hop_s: float
) -> tuple[float, int]:
    """Return frames per second and frames of a clip."""
    for option, value in (("clip_s", clip_s), ("fps", fps), ("hop_s", hop_s)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"`{option}` is {value}; give a number above 0")
    if fps is None:
        fps = model_frames / clip_s if model_frames else DEFAULT_FPS
    num_frames = max(round(clip_s * fps), 1)
    if model_frames and num_frames != model_frames:
        raise InputError(
            f"`{name}` takes clips of {model_frames} frames, but {clip_s:g} s at {fps:g} fps are {num_frames}; "
            f"give an fps of {model_frames / clip_s:g}"
        )
    if hop_s * fps < 1:
        raise InputError(
            f"a hop of {hop_s:g} s is less than a frame at {fps:g} fps; give a longer hop or a higher fps"
        )
    return fps, num_frames


def _processor_settings(name: str, is_video_model: bool, trust_remote_code: bool) -> dict[str, Any]:
    """Return the settings of a model's processor, completed with the defaults of its class if it can be created."""
    processors = [AutoImageProcessor]
    if is_video_model:
        try:  # transformers provides the class only if torchvision is installed
            from transformers import AutoVideoProcessor

            processors.insert(0, AutoVideoProcessor)
        except ImportError:
            pass
    for processor in processors:
        try:
            return processor.from_pretrained(name, trust_remote_code=trust_remote_code).to_dict()
        except (*LOADING_ERRORS, KeyError, AttributeError):
            continue
    try:
        return ImageProcessingMixin.get_image_processor_dict(name)[0]
    except LOADING_ERRORS as error:
        raise InputError(
            f"`{name}` contains no preprocessor_config.json; save the processor of the model in the same folder"
        ) from error


def _preprocessing(name: str, settings: dict[str, Any]) -> Preprocessing:
    """Read a processor's settings.

    Raises:
        InputError: it has a step that is not supported.
    """
    unknown = [step for step in settings if step.startswith("do_") and settings[step] and step not in _KNOWN_STEPS]
    do_crop = settings.get("do_center_crop", False)
    size = settings.get("size") if settings.get("do_resize", True) else None
    if isinstance(size, int) and not do_crop:
        size = {"height": size, "width": size}
    elif isinstance(size, dict) and set(size) == {"shortest_edge"}:
        size = size["shortest_edge"]
    crop = settings.get("crop_size", size) if do_crop else None
    if isinstance(crop, int):
        crop = {"height": crop, "width": crop}
    sides = [value for value in (size, crop) if isinstance(value, dict) and set(value) != {"height", "width"}]
    if unknown or sides:
        raise InputError(f"the processor of `{name}` uses {(unknown + sides)[0]!r}, which is not supported")
    mean, std, scale = normalisation_of(settings)
    return Preprocessing(
        size=(size["height"], size["width"]) if isinstance(size, dict) else size,
        crop=(crop["height"], crop["width"]) if crop else None,
        mean=mean,
        std=std,
        scale=scale,
    )

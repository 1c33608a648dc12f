"""Video processor of COMEDIAN: resize, crop and normalise, in plain torch."""

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.image_processing_utils import BatchFeature
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import convert_to_rgb

# of torch, by Pillow's names
INTERPOLATIONS = {"NEAREST": "nearest-exact", "BILINEAR": "bilinear", "BICUBIC": "bicubic"}


class ComedianVideoProcessor(BaseVideoProcessor):
    r"""
    Resize frames to the model's size and normalise them (mean 0.45, std 0.225 after division by 255).

    Takes `uint8` or float videos `(num_frames, height, width, 3)` or `(num_frames, 3, height, width)`, alone or in a list,
    and returns `pixel_values_videos` `(batch_size, num_frames, 3, height, width)`. No torchvision build is needed.

    `size` is `{"height": ..., "width": ...}`, or `{"shortest_edge": ...}` to keep the aspect ratio, optionally with
    `longest_edge` as a limit; `resample` is `NEAREST`, `BILINEAR` or `BICUBIC` of Pillow (the last two antialiased);
    `do_center_crop` cuts `crop_size` out of the middle, or adds black borders. Anything else raises a `ValueError`.
    """

    resample = PILImageResampling.BILINEAR
    size = {"height": 224, "width": 224}
    image_mean = [0.45, 0.45, 0.45]
    image_std = [0.225, 0.225, 0.225]
    do_resize = True
    do_center_crop = False
    do_rescale = True
    do_normalize = True
    do_convert_rgb = False
    do_sample_frames = False
    model_input_names = ["pixel_values_videos"]
    # `save_pretrained` leaves this file beside the processor's JSON, for those who have not installed the package
    _auto_class = "AutoVideoProcessor"

    def _preprocess(
        self,
        videos: list[Tensor],
        do_resize: bool,
        size: SizeDict,
        resample: PILImageResampling | int,
        do_center_crop: bool,
        crop_size: SizeDict,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: list[float],
        image_std: list[float],
        return_tensors=None,
        **kwargs,
    ) -> BatchFeature:
        scale = rescale_factor if do_rescale else 1.0
        processed = []
        for video in videos:
            if do_resize:
                video = resize_frames(video, resized_size(video.shape[-2:], size), interpolation_of(resample))
            if do_center_crop:
                video = center_crop(video, crop_size)
            if do_rescale or do_normalize:
                mean, std = (image_mean, image_std) if do_normalize else (0.0, 1.0)
                video = normalize_frames(video, mean, std, scale)
            processed.append(video)
        return BatchFeature(data={"pixel_values_videos": processed}, tensor_type=return_tensors)

    def fetch_videos(self, video_url_or_urls, sample_indices_fn=None):
        """Reject files and URLs, which transformers' `pipeline("video-classification")` passes on.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "the video processor takes decoded frames at the model's `fps`, not files or addresses; to find the "
            'events of a video, use `pipeline("action-spotting")` instead of `pipeline("video-classification")`'
        )

    def convert_to_rgb(self, video: Tensor) -> Tensor:
        """Repeat a single channel three times; blend transparency with white."""
        if video.shape[-3] == 1:
            return video.expand(*video.shape[:-3], 3, -1, -1)
        return convert_to_rgb(video, input_data_format=ChannelDimension.FIRST)


def interpolation_of(resample: PILImageResampling | int) -> str:
    """Torch's name of a way to resample, Pillow's or torchvision's."""
    name = getattr(resample, "name", None) or PILImageResampling(resample).name
    if name not in INTERPOLATIONS:
        raise ValueError(f"`resample` is {name}; the processor resizes with {', '.join(INTERPOLATIONS)}")
    return INTERPOLATIONS[name]


def resized_size(frame_size: tuple[int, int], size: SizeDict) -> tuple[int, int]:
    """Height and width that frames of height and width `frame_size` are resized to."""
    if size.height and size.width:
        return size.height, size.width
    if not size.shortest_edge:
        raise ValueError(f"`size` is {dict(size)}; give `height` and `width`, or `shortest_edge`")
    if size.longest_edge:
        return get_size_with_aspect_ratio(frame_size, size.shortest_edge, size.longest_edge)
    height, width = (int(size.shortest_edge * side / min(frame_size)) for side in frame_size)
    return height, width


def center_crop(frames: Tensor, size: SizeDict) -> Tensor:
    """Cut the middle out of `(num_frames, channels, height, width)`; black where the frames are smaller."""
    if not (size and size.height and size.width):
        raise ValueError(f"`crop_size` is {size and dict(size)}; `do_center_crop` needs `height` and `width`")
    for axis, wanted in ((-2, size.height), (-1, size.width)):
        missing = max(wanted - frames.shape[axis], 0)
        borders = [missing // 2, missing - missing // 2]
        frames = F.pad(frames, borders if axis == -1 else [0, 0, *borders])
        frames = frames.narrow(axis, (frames.shape[axis] - wanted) // 2, wanted)
    return frames


def resize_frames(frames: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Resize `(num_frames, channels, height, width)` to `size`, antialiased, keeping the dtype."""
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    smoothing = {} if mode == "nearest-exact" else {"antialias": True, "align_corners": False}
    resized = F.interpolate(frames.float(), size=size, mode=mode, **smoothing)
    if frames.dtype == torch.uint8:
        return resized.round_().clamp_(0, 255).to(torch.uint8)
    return resized.to(frames.dtype)


def normalize_frames(frames: Tensor, mean: list[float] | float, std: list[float] | float, scale: float) -> Tensor:
    """`(frames * scale - mean) / std` a channel, as one float32 multiply and add."""
    means = torch.as_tensor(mean, dtype=torch.float32, device=frames.device).reshape(-1, 1, 1)
    stds = torch.as_tensor(std, dtype=torch.float32, device=frames.device).reshape(-1, 1, 1)
    return torch.addcmul(-means / stds, frames.float(), scale / stds)


__all__ = ["ComedianVideoProcessor"]

"""Video processor of COMEDIAN: resize and normalise, in plain torch."""

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import PILImageResampling
from transformers.video_processing_utils import BaseVideoProcessor


class ComedianVideoProcessor(BaseVideoProcessor):
    r"""
    Resize frames to the model's size and normalise them (mean 0.45, std 0.225 after division by 255).

    Takes `uint8` or float videos `(num_frames, height, width, 3)` or `(num_frames, 3, height, width)`, alone or in a list,
    and returns `pixel_values_videos` `(batch_size, num_frames, 3, height, width)`. The resizing is torch's antialiased
    bilinear interpolation, so no torchvision build is needed.
    """

    resample = PILImageResampling.BILINEAR
    size = {"height": 224, "width": 224}
    image_mean = [0.45, 0.45, 0.45]
    image_std = [0.225, 0.225, 0.225]
    do_resize = True
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
        size,
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
                video = resize_frames(video, (size.height, size.width))
            if do_rescale or do_normalize:
                mean, std = (image_mean, image_std) if do_normalize else (0.0, 1.0)
                video = normalize_frames(video, mean, std, scale)
            processed.append(video)
        return BatchFeature(data={"pixel_values_videos": processed}, tensor_type=return_tensors)


def resize_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `(num_frames, channels, height, width)` to `size` by antialiased bilinear interpolation, keeping the dtype."""
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    resized = F.interpolate(frames.float(), size=size, mode="bilinear", antialias=True, align_corners=False)
    if frames.dtype == torch.uint8:
        return resized.round_().clamp_(0, 255).to(torch.uint8)
    return resized.to(frames.dtype)


def normalize_frames(frames: Tensor, mean: list[float] | float, std: list[float] | float, scale: float) -> Tensor:
    """`(frames * scale - mean) / std` a channel, as one float32 multiply and add."""
    mean = torch.as_tensor(mean, dtype=torch.float32, device=frames.device).reshape(-1, 1, 1)
    std = torch.as_tensor(std, dtype=torch.float32, device=frames.device).reshape(-1, 1, 1)
    return torch.addcmul(-mean / std, frames.float(), scale / std)


__all__ = ["ComedianVideoProcessor"]

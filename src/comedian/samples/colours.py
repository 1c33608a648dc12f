"""Frames as they are stored, 1.5 bytes a pixel, converted to RGB on the training device."""

from torch import Tensor

# luma at full resolution, blue and red difference at half of it: the fields of a window that is read so
YUV = ("y", "u", "v")
# ITU-R BT.601, limited range, as libswscale takes pictures that name no colour space
LUMA_GAIN = 255 / 219
CHROMA_GAINS = {"red": (0.0, 1.596027), "green": (-0.391762, -0.812968), "blue": (2.017232, 0.0)}
# of windows that are converted at a time: the values in between are floats
PIXELS_AT_ONCE = 2**23


def with_rgb_frames(windows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace `y`, `u` and `v` of a batch, if it has them, by `frames`, see [`rgb_of_yuv`], with the channels last."""
    if "y" not in windows:
        return windows
    others = {name: values for name, values in windows.items() if name not in YUV}
    # last in shape, not in memory, where training wants planes
    return others | {"frames": rgb_of_yuv(*(windows[name] for name in YUV)).movedim(2, -1)}


def rgb_of_yuv(y: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Convert 4:2:0 pictures to RGB, within 3 levels of libswscale.

    Args:
        y (`torch.Tensor` of shape `(batch_size, num_frames, height, width)`, uint8): luma.
        u, v (`torch.Tensor` of shape `(batch_size, num_frames, ceil(height / 2), ceil(width / 2))`, uint8): chroma.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`, uint8.
    """
    rgb = y.new_empty(*y.shape[:2], 3, *y.shape[2:])
    at_once = max(PIXELS_AT_ONCE // y[0].numel(), 1)
    for part, luma, blue, red in zip(*(planes.split(at_once) for planes in (rgb, y, u, v)), strict=True):
        _convert(part, luma, blue, red)
    return rgb


def _convert(rgb: Tensor, y: Tensor, u: Tensor, v: Tensor) -> None:
    height, width = y.shape[-2:]
    luma, u, v = (y.float() - 16) * LUMA_GAIN, u.float() - 128, v.float() - 128
    for channel, (of_u, of_v) in enumerate(CHROMA_GAINS.values()):
        chroma = (of_u * u + of_v * v).repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
        # truncated, as in libswscale
        rgb[:, :, channel] = (luma + chroma[..., :height, :width]).clamp_(0, 255)

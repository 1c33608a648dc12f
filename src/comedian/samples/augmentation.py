"""Augmentation of whole batches on the training device: consistent over a clip, random per sample.

Every sample draws its parameters from its own seed, so the result depends neither on the batch it is in nor on the number
of processes or workers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# luma of ITU-R BT.601
GREY_WEIGHTS = (0.299, 0.587, 0.114)
BLUR_SIGMA = (0.1, 2.0)
# radius of the blur in pixels: 23 taps, as published
BLUR_RADIUS = 11
SOLARIZE_THRESHOLD = 0.5
# width / height of a crop relative to the frame's: 1.33 to 2.21 of frames of 398 x 224 pixels, as published
CROP_ASPECTS = (1.33 * 224 / 398, 2.21 * 224 / 398)
# as in the usual random resized crop: after so many boxes that do not fit into the frame, the whole frame is taken
CROP_ATTEMPTS = 10
# The hue takes some thirty passes over its pixels: on a CPU they should stay in the cache, elsewhere few launches count.
HUE_PIXELS_AT_ONCE = {"cpu": 2**18}
DEFAULT_HUE_PIXELS_AT_ONCE = 2**23


@dataclass(frozen=True)
class AugmentationSettings:
    """Settings of the augmentation of training windows.

    Attributes:
        flip_prob: probability of a horizontal flip.
        jitter_prob: probability of colour jitter.
        brightness, contrast, saturation: factors are drawn from `[1 - x, 1 + x]`.
        hue: shifts are drawn from `[-x, x]` turns of the colour circle of HSV.
        grey_prob: probability of conversion to grey.
        blur_prob: probability of a Gaussian blur of 23 taps, sigma 0.1 to 2 pixels.
        solarize_prob: probability that the bright half of the pixel values is inverted.
        min_crop_scale: smallest share of the frame's area that a random crop keeps, 0.75 to 1.24 times as wide for its
            height as the frame; 1 for no crop.
        max_shift: largest translation, as a share of height and width; the border is repeated.
        mixup_alpha: mixing weights are drawn from Beta(alpha, alpha); 0 for no mixup.
    """

    flip_prob: float = 0.5
    jitter_prob: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0
    grey_prob: float = 0.0
    blur_prob: float = 0.5
    solarize_prob: float = 0.0
    min_crop_scale: float = 1.0
    max_shift: float = 0.0
    mixup_alpha: float = 0.0


def draw_parameters(seeds: Tensor, settings: AugmentationSettings, num_tubelets: int) -> dict[str, Tensor]:
    """Draw the parameters of each sample from its seed.

    Args:
        seeds (`torch.LongTensor` of shape `(batch_size,)`): one per sample.
        settings: probabilities and ranges.
        num_tubelets: columns of `mask_noise`.

    Returns:
        CPU tensors: `flip`, `solarize` bool, `brightness`, `contrast`, `saturation` (1 = unchanged), `hue` in turns,
        `sigma` (0 = no blur), `shift` `(batch_size, 2)` in [-1, 1], `crop` `(batch_size, 4)` (height, width, top, left as
        shares), `mixup_weights`, and `mask_noise` `(batch_size, num_tubelets)`, for temporal masking.
    """
    numbers = torch.stack([_draw_numbers(seed, settings.mixup_alpha, num_tubelets) for seed in seeds.tolist()])
    parts = numbers.split([3, 3, 1, 2, 1, num_tubelets, 2, 1, 2 * CROP_ATTEMPTS, 2], dim=1)
    chance, span, sigma, shift, weight, mask_noise, more_chance, turn, boxes, place = parts
    jitters = chance[:, 1] < settings.jitter_prob
    ranges = torch.tensor([settings.brightness, settings.contrast, settings.saturation])
    jitter = torch.where(jitters[:, None], 1 + (2 * span - 1) * ranges, 1.0)
    sigma = BLUR_SIGMA[0] + (BLUR_SIGMA[1] - BLUR_SIGMA[0]) * sigma[:, 0]
    return {
        "flip": chance[:, 0] < settings.flip_prob,
        "brightness": jitter[:, 0],
        "contrast": jitter[:, 1],
        "saturation": torch.where(more_chance[:, 0] < settings.grey_prob, 0.0, jitter[:, 2]),
        "hue": torch.where(jitters, settings.hue * (2 * turn[:, 0] - 1), 0.0),
        "solarize": more_chance[:, 1] < settings.solarize_prob,
        "crop": _crops(settings.min_crop_scale, boxes.unflatten(1, (CROP_ATTEMPTS, 2)), place),
        "sigma": torch.where(chance[:, 2] < settings.blur_prob, sigma, 0.0),
        "shift": 2 * shift - 1,
        "mixup_weights": weight[:, 0],
        "mask_noise": mask_noise,
    }


def _draw_numbers(seed: int, mixup_alpha: float, num_tubelets: int) -> Tensor:
    """All numbers that a sample's parameters are made of, in [0, 1]; its share in mixup is the tenth.

    Nothing else is done sample by sample: a batch may have a thousand of them.
    """
    generator = torch.Generator().manual_seed(seed)
    first, weight = torch.rand(9, generator=generator), torch.ones(1)
    if mixup_alpha > 0:
        weight = torch._sample_dirichlet(torch.full((2,), mixup_alpha), generator=generator)[:1]
    return torch.cat([first, weight, torch.rand(num_tubelets + 5 + 2 * CROP_ATTEMPTS, generator=generator)])


def _crops(min_scale: float, boxes: Tensor, place: Tensor) -> Tensor:
    """Height, width, top and left of crops as shares of the frame, `(batch_size, 4)`.

    Args:
        min_scale: the smallest share of the area.
        boxes: random numbers `(batch_size, CROP_ATTEMPTS, 2)`, which set area and shape of each attempt.
        place: random numbers `(batch_size, 2)`.
    """
    area = min_scale + (1 - min_scale) * boxes[..., 0]
    aspect = CROP_ASPECTS[0] * (CROP_ASPECTS[1] / CROP_ASPECTS[0]) ** boxes[..., 1]
    sides = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()], dim=2)
    fits = (sides <= 1).all(dim=2)
    first = sides[torch.arange(len(sides)), fits.int().argmax(dim=1)]
    sides = torch.where(fits.any(dim=1, keepdim=True), first, 1.0)
    return torch.cat([sides, (1 - sides) * place], dim=1)


def augment(
    frames: Tensor | Sequence[Tensor],
    parameters: dict[str, Tensor],
    settings: AugmentationSettings,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Crop, resize and flip a batch of windows; then shift, jitter, blur and solarize it.

    Args:
        frames (`torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`, uint8): pixels; or a list of windows
            `(num_frames, 3, height, width)` of frames of different sizes.
        parameters: from [`draw_parameters`], on the device of `frames`.
        settings: probabilities and ranges.
        size: height and width of the result; those of the first window by default.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_frames, 3, *size)`, float32 in [0, 1].
    """
    size = tuple(frames[0].shape[-2:]) if size is None else size
    pixels = crop_and_resize(
        frames,
        parameters["crop"] if settings.min_crop_scale < 1 else None,
        parameters["flip"] if settings.flip_prob > 0 else None,
        size,
    ).div_(255)
    if settings.max_shift > 0:
        pixels = shift(pixels, parameters["shift"] * settings.max_shift)
    if settings.jitter_prob > 0 or settings.grey_prob > 0:
        pixels = jitter_colours(pixels, parameters["brightness"], parameters["contrast"], parameters["saturation"])
    if settings.hue > 0 and settings.jitter_prob > 0:
        pixels = rotate_hue(pixels, parameters["hue"])
    if settings.blur_prob > 0:
        pixels = blur(pixels, parameters["sigma"])
    if settings.solarize_prob > 0:
        pixels = solarize(pixels, parameters["solarize"])
    return pixels


def crop_and_resize(
    frames: Tensor | Sequence[Tensor], crops: Tensor | None, mirrored: Tensor | None, size: tuple[int, int]
) -> Tensor:
    """Cut each window to whole pixels, resize the cut-out with antialiasing and mirror it.

    One window at a time: the frames as they are stored are never held as floats all at once. Resized pixels are rounded to
    whole values, as those that a model is evaluated on.

    Args:
        frames: windows uint8 `(num_frames, 3, height, width)`, as [`augment`] takes them.
        crops (`torch.Tensor` of shape `(batch_size, 4)`, *optional*): height, width, top and left as shares of the
            sides of a window's frames; whole frames by default.
        mirrored (`torch.BoolTensor` of shape `(batch_size,)`, *optional*): which windows are flipped left to right.
        size: height and width of the result.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_frames, 3, *size)`, float32 in [0, 255].
    """
    crops = [None] * len(frames) if crops is None else crops.tolist()
    mirrored = [False] * len(frames) if mirrored is None else mirrored.tolist()
    pixels = torch.empty(len(frames), *frames[0].shape[:2], *size, device=frames[0].device)
    for result, window, crop, mirror in zip(pixels, frames, crops, mirrored, strict=True):
        if crop is not None:
            rows, columns = crop_bounds(crop, *window.shape[-2:])
            window = window[..., rows, columns]
        if window.shape[-2:] != result.shape[-2:]:
            window = F.interpolate(window.float(), size=size, mode="bilinear", antialias=True).round_()
        result.copy_(window.flip(-1) if mirror else window)
    return pixels


def crop_bounds(crop: Sequence[float], height: int, width: int) -> Iterator[slice]:
    """Rows and columns of a crop, which is (height, width, top, left) as shares; at least one pixel of each."""
    for share, start, size in ((crop[0], crop[2], height), (crop[1], crop[3], width)):
        pixels = max(round(share * size), 1)
        first = min(round(start * size), size - pixels)
        yield slice(first, first + pixels)


def jitter_colours(frames: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Scale brightness, then contrast about the window's mean grey, then saturation, and clip once to [0, 1].

    All are linear in the pixel, so each window has one 3 x 3 colour matrix and one offset, applied in one pass.

    Args:
        frames (`torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`): pixels in [0, 1].
        brightness, contrast, saturation (`torch.Tensor` of shape `(batch_size,)`): factors; 1 changes nothing.
    """
    grey = torch.tensor(GREY_WEIGHTS, dtype=frames.dtype, device=frames.device)
    mean = (frames.mean(dim=(1, 3, 4)) @ grey) * brightness
    identity = torch.eye(3, dtype=frames.dtype, device=frames.device)
    saturate = torch.lerp(grey.expand(3, 3), identity, saturation[:, None, None])
    matrix = saturate * (contrast * brightness)[:, None, None]
    offset = (1 - contrast) * mean
    mixed = torch.matmul(matrix[:, None], frames.flatten(3)).view(frames.shape)
    return mixed.add_(_per_sample(offset)).clamp_(0, 1)


def rotate_hue(frames: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of each window in HSV, in place; value and saturation stay.

    Args:
        frames (`torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`): pixels in [0, 1].
        turns (`torch.Tensor` of shape `(batch_size,)`): shifts in turns of the colour circle; 0 changes nothing.
    """
    limit = HUE_PIXELS_AT_ONCE.get(frames.device.type, DEFAULT_HUE_PIXELS_AT_ONCE)
    windows_at_once = max(limit // frames[0, :, 0].numel(), 1)
    for windows, shifts in zip(frames.split(windows_at_once), turns.split(windows_at_once), strict=True):
        _rotate_hue(windows, shifts)
    return frames


def _rotate_hue(frames: Tensor, turns: Tensor) -> None:
    """As [`rotate_hue`], for some of the windows.

    With the hue `h` in turns, a channel is `value - chroma * clamp(2 - |k - 2|, 0, 1)`, where `k = (6 h + n) mod 6`
    and `n` is 5, 3 and 1 for red, green and blue.
    """
    red, green, blue = frames.unbind(2)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # the hue in turns, from the channel that is largest
    is_red, is_green = red == value, green == value
    hue = torch.where(is_red, green - blue, torch.where(is_green, blue - red, red - green))
    hue.div_(chroma.clamp(min=torch.finfo(chroma.dtype).tiny)).div_(6)
    hue.add_(torch.where(is_red, 0.0, torch.where(is_green, 1 / 3, 2 / 3)))
    hue.add_(turns[:, None, None, None])
    lowest = value.sub_(chroma, alpha=2)
    chroma.mul_(6)
    # clamp(2 - |k - 2|, 0, 1) is 2 - clamp(|k - 2|, 1, 2); |k - 2| / 6 is the distance of h + (n - 2) / 6 to a whole turn
    for channel, phase in enumerate((3 / 6, 1 / 6, -1 / 6)):
        distance = hue + phase
        distance.sub_(distance.round()).abs_().clamp_(1 / 6, 2 / 6)
        torch.addcmul(lowest, chroma, distance, out=frames[:, :, channel])


def solarize(frames: Tensor, chosen: Tensor) -> Tensor:
    """Invert the values from 0.5 of the windows for which `chosen`, bool `(batch_size,)`, is true."""
    return torch.where(_per_sample(chosen) & (frames >= SOLARIZE_THRESHOLD), 1 - frames, frames)


def shift(frames: Tensor, offsets: Tensor) -> Tensor:
    """Translate each window by whole pixels, repeating the border; `offsets` `(batch_size, 2)` in shares of the sides."""
    for axis, offset in ((-2, offsets[:, 0]), (-1, offsets[:, 1])):
        size = frames.shape[axis]
        position = torch.arange(size, device=frames.device) - (offset * size).round().long()[:, None]
        index = position.clamp(0, size - 1)[:, None, None]
        index = index[..., None] if axis == -2 else index[..., None, :]
        frames = frames.gather(axis, index.expand(frames.shape))
    return frames


def blur(frames: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each window with its own `sigma` in pixels, `(batch_size,)`; 0 leaves a window unchanged.

    Each axis is one matrix product: faster than a convolution whose kernel differs from window to window, and without the
    copies that one makes.
    """
    chosen = (sigma > 0).nonzero()[:, 0]
    if len(chosen) == 0:
        return frames
    images = frames[chosen]
    for size in frames.shape[-2:]:
        images = images.transpose(-2, -1)
        weights = blur_matrix(sigma[chosen], size).to(frames.dtype)
        images = (images.flatten(1, 3) @ weights.transpose(1, 2)).view(images.shape)
    return frames.index_copy(0, chosen, images)


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """Weights `(batch_size, size, size)` of the pixels of a line, border repeated, in each of its blurred pixels."""
    position = torch.arange(size, device=sigma.device)
    offset = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True))[:, None].expand(-1, size, -1)
    source = (position[:, None] + offset).clamp(0, size - 1).expand(kernel.shape)
    return kernel.new_zeros(len(sigma), size, size).scatter_add_(2, source, kernel)


def mix_neighbours(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each sample with its neighbour in the batch (mixup, Zhang et al., 2018).

    The batch is shuffled already, so the pairing is as random as a permutation, and it is the same for one process with a
    batch of `2n` and two with `n` each (for even `n`).

    Args:
        values (`torch.Tensor` of shape `(batch_size, ...)`): pixels, of any floating type.
        weights (`torch.Tensor` of shape `(batch_size,)`): share of each sample's own pixels.

    Returns:
        The mixed values, of the type of `values`, and the `(batch_size,)` index of each sample's partner; the last of
        an odd batch is its own.
    """
    partner = torch.arange(len(values), device=values.device) ^ 1
    partner = torch.where(partner < len(values), partner, partner ^ 1)
    own = weights.reshape(-1, *[1] * (values.ndim - 1))
    # the loss is weighted by the same shares: values are brought to their precision, not they to that of the values
    dtype = torch.promote_types(values.dtype, weights.dtype)
    mixed = torch.lerp(values[partner].to(dtype), values.to(dtype), own.to(dtype))
    return mixed.to(values.dtype), partner


def _per_sample(values: Tensor) -> Tensor:
    return values[:, None, None, None, None]

"""Augmentation of whole batches on the training device: consistent over a clip, random per sample.

Every sample draws its parameters from its own seed, so the result depends neither on the batch it is in nor on the number
of processes or workers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# luma of ITU-R BT.601
GREY_WEIGHTS = (0.299, 0.587, 0.114)
# RGB to the luma and chroma of NTSC: a hue shift turns the chroma plane
RGB_TO_YIQ = (GREY_WEIGHTS, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
BLUR_SIGMA = (0.1, 2.0)
SOLARIZE_THRESHOLD = 0.5
# width / height of a crop relative to the frame's: 1.33 to 2.21 of a 16:9 picture, as published
CROP_ASPECTS = (0.75, 1.24)


@dataclass(frozen=True)
class AugmentationSettings:
    """What is done to a training window, and how often.

    Attributes:
        flip_prob: probability of a horizontal flip.
        jitter_prob: probability of colour jitter.
        brightness, contrast, saturation: factors are drawn from `[1 - x, 1 + x]`.
        hue: shifts are drawn from `[-x, x]` turns of the colour circle.
        grey_prob: probability that the colours go.
        blur_prob: probability of a Gaussian blur of sigma 0.1 to 2 pixels.
        solarize_prob: probability that the bright half of the pixel values is inverted.
        min_crop_scale: smallest share of the area that a random crop keeps before it is resized back; 1 for no crop.
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
        seeds (`torch.LongTensor` of shape `(batch_size,)`): one a sample.
        settings: probabilities and ranges.
        num_tubelets: columns of `mask_noise`.

    Returns:
        CPU tensors: `flip`, `solarize` bool, `brightness`, `contrast`, `saturation` (1 = unchanged), `hue` in turns, `sigma`
        (0 = no blur), `shift` `(batch_size, 2)` in [-1, 1], `crop` `(batch_size, 4)` (height, width, top, left as shares),
        `mixup_weights`, and `mask_noise` `(batch_size, num_tubelets)`, for temporal masking.
    """
    samples = [_draw_sample(seed, settings, num_tubelets) for seed in seeds.tolist()]
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def _draw_sample(seed: int, settings: AugmentationSettings, num_tubelets: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(3, generator=generator)
    span = 2 * torch.rand(3, generator=generator) - 1
    jitter = 1 + span * torch.tensor([settings.brightness, settings.contrast, settings.saturation])
    jitter = torch.where(chance[1] < settings.jitter_prob, jitter, 1.0)
    sigma = BLUR_SIGMA[0] + (BLUR_SIGMA[1] - BLUR_SIGMA[0]) * torch.rand((), generator=generator)
    weight = torch.tensor(1.0)
    shift = 2 * torch.rand(2, generator=generator) - 1
    if settings.mixup_alpha > 0:
        concentration = torch.full((2,), settings.mixup_alpha)
        weight = torch._sample_dirichlet(concentration, generator=generator)[0]
    mask_noise = torch.rand(num_tubelets, generator=generator)
    more_chance = torch.rand(2, generator=generator)
    hue = settings.hue * (2 * torch.rand((), generator=generator) - 1)
    return {
        "flip": chance[0] < settings.flip_prob,
        "brightness": jitter[0],
        "contrast": jitter[1],
        "saturation": torch.where(more_chance[0] < settings.grey_prob, 0.0, jitter[2]),
        "hue": torch.where(chance[1] < settings.jitter_prob, hue, 0.0),
        "solarize": more_chance[1] < settings.solarize_prob,
        "crop": _draw_crop(settings.min_crop_scale, generator),
        "sigma": torch.where(chance[2] < settings.blur_prob, sigma, 0.0),
        "shift": shift,
        "mixup_weights": weight,
        "mask_noise": mask_noise,
    }


def _draw_crop(min_scale: float, generator: torch.Generator) -> Tensor:
    """Height, width, top and left of a crop as shares of the frame, `(4,)`."""
    draws = torch.rand(4, generator=generator)
    area = min_scale + (1 - min_scale) * draws[0]
    aspect = CROP_ASPECTS[0] * (CROP_ASPECTS[1] / CROP_ASPECTS[0]) ** draws[1]
    sides = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()]).clamp(max=1)
    return torch.cat([sides, (1 - sides) * draws[2:]])


def augment(frames: Tensor, parameters: dict[str, Tensor], settings: AugmentationSettings) -> Tensor:
    """Flip, shift, crop, jitter, solarize and blur a batch of windows.

    Args:
        frames (`torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`, uint8): pixels.
        parameters: from [`draw_parameters`], on the device of `frames`.
        settings: what is switched on.

    Returns:
        `torch.Tensor` of the same shape, float32 in [0, 1].
    """
    crops = settings.min_crop_scale < 1
    if settings.flip_prob > 0 and not crops:
        frames = flip(frames, parameters["flip"])
    if settings.max_shift > 0:
        frames = shift(frames, parameters["shift"] * settings.max_shift)
    frames = frames.float().div_(255)
    if crops:
        frames = crop_and_resize(frames, parameters["crop"], parameters["flip"])
    if settings.jitter_prob > 0 or settings.grey_prob > 0:
        hue = parameters["hue"] if settings.hue > 0 else None
        frames = jitter_colours(
            frames, parameters["brightness"], parameters["contrast"], parameters["saturation"], hue
        )
    if settings.solarize_prob > 0:
        frames = solarize(frames, parameters["solarize"])
    if settings.blur_prob > 0:
        frames = blur(frames, parameters["sigma"])
    return frames


def flip(frames: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the windows for which `chosen`, bool `(batch_size,)`, is true."""
    width = torch.arange(frames.shape[-1], device=frames.device)
    index = torch.where(chosen[:, None], width.flip(0), width)[:, None, None, None]
    return frames.gather(-1, index.expand(frames.shape))


def crop_and_resize(frames: Tensor, crops: Tensor, mirrored: Tensor) -> Tensor:
    """Cut each window to its crop, resize it back bilinearly and mirror it, in one pass.

    Args:
        frames (`torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`): float pixels.
        crops (`torch.Tensor` of shape `(batch_size, 4)`): height, width, top and left as shares of the sides.
        mirrored (`torch.BoolTensor` of shape `(batch_size,)`): which windows are flipped left to right.
    """
    sides, corner = crops[:, :2], crops[:, 2:]
    # grid_sample counts from -1 to 1, x first
    centre = 2 * corner + sides - 1
    theta = torch.cat([torch.diag_embed(sides.flip(1)), centre.flip(1)[:, :, None]], dim=2)
    theta[:, 0, 0] = torch.where(mirrored, -theta[:, 0, 0], theta[:, 0, 0])
    images = frames.flatten(1, 2)
    grid = F.affine_grid(theta.to(frames.dtype), list(images.shape), align_corners=False)
    cut = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cut.view(frames.shape)


def jitter_colours(
    frames: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor | None = None
) -> Tensor:
    """Scale brightness, then contrast about the window's mean grey, then saturation, turn the hue, and clip once to [0, 1].

    All are linear in the pixel, so each window has one 3 x 3 colour matrix and one offset, applied in one pass. The hue
    turns in the chroma plane of YIQ, which keeps the luma.

    Args:
        frames (`torch.Tensor` of shape `(batch_size, num_frames, 3, height, width)`): pixels in [0, 1].
        brightness, contrast, saturation (`torch.Tensor` of shape `(batch_size,)`): factors; 1 changes nothing.
        hue (`torch.Tensor` of shape `(batch_size,)`, *optional*): shifts in turns of the colour circle.
    """
    grey = torch.tensor(GREY_WEIGHTS, dtype=frames.dtype, device=frames.device)
    mean = (frames.mean(dim=(1, 3, 4)) @ grey) * brightness
    identity = torch.eye(3, dtype=frames.dtype, device=frames.device)
    saturate = torch.lerp(grey.expand(3, 3), identity, saturation[:, None, None])
    matrix = saturate * (contrast * brightness)[:, None, None]
    if hue is not None:
        matrix = hue_matrix(hue.to(frames.dtype)) @ matrix
    offset = (1 - contrast) * mean
    mixed = torch.matmul(matrix[:, None], frames.flatten(3)).view(frames.shape)
    return mixed.add_(_per_sample(offset)).clamp_(0, 1)


def hue_matrix(turns: Tensor) -> Tensor:
    """Colour matrices `(batch_size, 3, 3)` that turn the hue by `turns` `(batch_size,)` of the colour circle."""
    to_yiq = torch.tensor(RGB_TO_YIQ, dtype=turns.dtype, device=turns.device)
    sine, cosine = torch.sin(2 * torch.pi * turns), torch.cos(2 * torch.pi * turns)
    turn = torch.eye(3, dtype=turns.dtype, device=turns.device).repeat(len(turns), 1, 1)
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cosine, -sine, sine, cosine
    return torch.linalg.inv(to_yiq) @ turn @ to_yiq


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
    """Gaussian blur of each window with its own `sigma` in pixels, `(batch_size,)`; 0 leaves a window as it is.

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
    radius = int(3 * BLUR_SIGMA[1])
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True))[:, None].expand(-1, size, -1)
    source = (position[:, None] + offset).clamp(0, size - 1).expand(kernel.shape)
    return kernel.new_zeros(len(sigma), size, size).scatter_add_(2, source, kernel)


def mix_neighbours(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each sample with its neighbour in the batch (mixup, Zhang et al., 2018).

    The batch is shuffled already, so the pairing is as random as a permutation, and it is the same for one process with a
    batch of `2n` and two with `n` each (for even `n`).

    Args:
        values (`torch.Tensor` of shape `(batch_size, ...)`): pixels.
        weights (`torch.Tensor` of shape `(batch_size,)`): share of each sample's own pixels.

    Returns:
        The mixed values and the `(batch_size,)` index of each sample's partner; the last of an odd batch is its own.
    """
    partner = torch.arange(len(values), device=values.device) ^ 1
    partner = torch.where(partner < len(values), partner, partner ^ 1)
    own = weights.reshape(-1, *[1] * (values.ndim - 1))
    return torch.lerp(values[partner], values, own), partner


def _per_sample(values: Tensor) -> Tensor:
    return values[:, None, None, None, None]

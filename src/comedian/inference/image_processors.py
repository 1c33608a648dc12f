"""How the image processors of transformers scale and normalise pixels, in the form of our own processor."""

from collections.abc import Mapping
from typing import Any

from transformers.image_processing_base import ImageProcessingMixin

NUM_CHANNELS = 3


def normalisation_of(settings: Mapping[str, Any]) -> tuple[list[float], list[float], float]:
    """Mean, standard deviation and scale that a processor's settings stand for: `(values * scale - mean) / std`.

    Args:
        settings: of a `preprocessor_config.json`.

    Returns:
        One mean and one standard deviation a channel, and the factor on the values 0 to 255 before them.
    """
    do_normalize = settings.get("do_normalize", True)
    # ViViT's `offset` takes 1 from the scaled values
    shift = 1.0 if settings.get("offset", False) else 0.0
    mean = (settings.get("image_mean") if do_normalize else None) or [0.0] * NUM_CHANNELS
    std = (settings.get("image_std") if do_normalize else None) or [1.0] * NUM_CHANNELS
    scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    return [value + shift for value in mean], list(std), scale


def read_normalisation(name: str) -> tuple[list[float], list[float]] | None:
    """Read how an image model normalises its pixels, whatever the scale of its processor.

    Args:
        name: a folder or a Hub repository.

    Returns:
        Mean and standard deviation of each channel of pixels in [0, 1]; `None` if the model names none.
    """
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, ValueError):
        return None
    if settings.get("do_normalize", True) and not (settings.get("image_mean") and settings.get("image_std")):
        return None
    mean, std, scale = normalisation_of(settings)
    return [value / (255 * scale) for value in mean], [value / (255 * scale) for value in std]

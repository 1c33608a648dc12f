"""ComedianVideoProcessor: values, layouts, and a size that travels with the folder."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoVideoProcessor
from transformers.utils import is_torchvision_available

from comedian.models import ComedianVideoProcessor


@pytest.fixture
def processor():
    return ComedianVideoProcessor(size={"height": 16, "width": 24})


@pytest.fixture
def video():
    return np.random.default_rng(0).integers(0, 256, (4, 16, 24, 3), dtype=np.uint8)


def test_pixels_are_centred_and_scaled(processor, video):
    pixels = processor(video, return_tensors="pt")["pixel_values_videos"]
    assert pixels.shape == (1, 4, 3, 16, 24) and pixels.dtype == torch.float32
    expected = (video.astype(np.float64) / 255 - 0.45) / 0.225
    np.testing.assert_allclose(pixels[0].numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_layouts_and_containers_give_the_same(processor, video):
    expected = processor(video, return_tensors="pt")["pixel_values_videos"]
    channels_first = torch.from_numpy(video.transpose(0, 3, 1, 2).copy())
    for given in (torch.from_numpy(video), channels_first, [video], [channels_first]):
        torch.testing.assert_close(processor(given, return_tensors="pt")["pixel_values_videos"], expected)
    batch = processor([video, video], return_tensors="pt")["pixel_values_videos"]
    torch.testing.assert_close(batch, expected.repeat(2, 1, 1, 1, 1))


def test_frames_are_resized_as_pillow_does(processor):
    video = np.random.default_rng(0).integers(0, 256, (2, 45, 80, 3), dtype=np.uint8)
    pixels = processor(video, return_tensors="pt")["pixel_values_videos"][0]
    resized = [np.asarray(Image.fromarray(frame).resize((24, 16), Image.Resampling.BILINEAR)) for frame in video]
    expected = (np.stack(resized).transpose(0, 3, 1, 2) / 255 - 0.45) / 0.225
    # one step of uint8 rounding
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1.01 / 255 / 0.225)


def test_a_constant_image_stays_constant(processor):
    pixels = processor(np.full((2, 37, 91, 3), 200, np.uint8), return_tensors="pt")["pixel_values_videos"]
    torch.testing.assert_close(pixels, torch.full_like(pixels, (200 / 255 - 0.45) / 0.225))


def test_steps_can_be_left_out(processor, video):
    pixels = processor(video, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values_videos"]
    np.testing.assert_array_equal(pixels[0].numpy(), video.transpose(0, 3, 1, 2))


def test_save_and_load(processor, video, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = ComedianVideoProcessor.from_pretrained(tmp_path)
    expected = processor(video, return_tensors="pt")["pixel_values_videos"]
    torch.testing.assert_close(loaded(video, return_tensors="pt")["pixel_values_videos"], expected)
    assert dict(loaded.size)["width"] == 24


@pytest.mark.skipif(not is_torchvision_available(), reason="transformers needs torchvision for AutoVideoProcessor")
def test_auto_class(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    assert isinstance(AutoVideoProcessor.from_pretrained(tmp_path), ComedianVideoProcessor)

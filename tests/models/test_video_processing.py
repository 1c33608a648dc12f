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


RESAMPLINGS = [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC]


@pytest.mark.parametrize("resample", RESAMPLINGS)
def test_shortest_edge_and_resample_are_those_of_pillow(resample):
    video = np.random.default_rng(0).integers(0, 256, (2, 46, 82, 3), dtype=np.uint8)
    processor = ComedianVideoProcessor(
        size={"shortest_edge": 18}, resample=resample, do_rescale=False, do_normalize=False
    )
    frames = processor(video, return_tensors="pt")["pixel_values_videos"][0]
    expected = np.stack([np.asarray(Image.fromarray(frame).resize((32, 18), resample)) for frame in video])
    difference = np.abs(frames.numpy().astype(int) - expected.transpose(0, 3, 1, 2))
    # one step of uint8 rounding
    assert difference.max() <= 1 and difference.mean() < 0.2


def test_longest_edge_limits_the_size():
    processor = ComedianVideoProcessor(size={"shortest_edge": 20, "longest_edge": 24})
    frames = processor(np.zeros((2, 40, 80, 3), np.uint8), return_tensors="pt")["pixel_values_videos"]
    assert frames.shape[-2:] == (12, 24)


@pytest.mark.parametrize(("crop", "rows", "columns"), [((8, 10), (4, 12), (7, 17)), ((16, 24), (0, 16), (0, 24))])
def test_center_crop_is_the_middle(video, crop, rows, columns):
    crop_size = {"height": crop[0], "width": crop[1]}
    processor = ComedianVideoProcessor(
        do_resize=False, do_center_crop=True, crop_size=crop_size, do_rescale=False, do_normalize=False
    )
    frames = processor(video, return_tensors="pt")["pixel_values_videos"][0]
    expected = video[:, slice(*rows), slice(*columns)].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(frames, expected)


def test_a_crop_larger_than_the_frames_has_black_borders(video):
    processor = ComedianVideoProcessor(
        do_resize=False, do_center_crop=True, crop_size=20, do_rescale=False, do_normalize=False
    )
    frames = processor(video, return_tensors="pt")["pixel_values_videos"][0]
    expected = np.zeros((4, 20, 20, 3), np.uint8)
    expected[:, 2:18] = video[:, :, 2:22]
    np.testing.assert_array_equal(frames, expected.transpose(0, 3, 1, 2))


def test_one_channel_becomes_three_and_transparency_white():
    processor = ComedianVideoProcessor(do_resize=False, do_convert_rgb=True, do_rescale=False, do_normalize=False)
    grey = np.full((2, 8, 9, 1), 7, np.uint8)
    assert (processor(grey, return_tensors="pt")["pixel_values_videos"] == 7).all()
    clear = np.zeros((2, 8, 9, 4), np.uint8)
    frames = processor(clear, input_data_format="channels_last", return_tensors="pt")["pixel_values_videos"]
    assert frames.shape == (1, 2, 3, 8, 9) and (frames == 255).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": {"longest_edge": 20}}, "size"),
        ({"resample": Image.Resampling.LANCZOS}, "resample"),
        ({"do_center_crop": True}, "crop_size"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(video, options, named):
    with pytest.raises(ValueError, match=named):
        ComedianVideoProcessor(**options)(video, return_tensors="pt")

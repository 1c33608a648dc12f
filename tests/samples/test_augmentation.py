"""Batched augmentation against the naive way, sample by sample and pixel by pixel."""

import colorsys
import math

import pytest
import torch
from torch.nn import functional as F

from comedian.samples import augmentation
from comedian.samples.augmentation import (
    AugmentationSettings,
    augment,
    blur,
    crop_and_resize,
    draw_parameters,
    jitter_colours,
    mix_neighbours,
    rotate_hue,
    shift,
    solarize,
)


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randint(0, 256, (3, 2, 3, 9, 12), dtype=torch.uint8)


def test_parameters_depend_on_the_seed_of_the_sample_alone():
    settings = AugmentationSettings()
    together = draw_parameters(torch.tensor([5, 7, 11]), settings, 4)
    alone = draw_parameters(torch.tensor([7]), settings, 4)
    for name, values in together.items():
        assert torch.equal(values[1:2], alone[name]), name


def test_parameters_follow_their_probabilities_and_ranges():
    settings = AugmentationSettings(flip_prob=0.3, jitter_prob=0.6, brightness=0.2, blur_prob=0.25, mixup_alpha=0.1)
    drawn = draw_parameters(torch.arange(2000), settings, 2)
    assert abs(drawn["flip"].float().mean() - 0.3) < 0.04
    assert abs((drawn["brightness"] != 1).float().mean() - 0.6) < 0.04
    assert abs((drawn["sigma"] > 0).float().mean() - 0.25) < 0.04
    assert drawn["brightness"].min() >= 0.8 and drawn["brightness"].max() <= 1.2
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1))
    assert abs(drawn["mixup_weights"].mean() - 0.5) < 0.04
    assert abs(drawn["mixup_weights"].var() - 1 / (4 * 1.2)) < 0.02


def test_flip_mirrors_the_chosen_windows_only(frames):
    flipped = crop_and_resize(frames, None, torch.tensor([True, False, True]), (9, 12))
    for sample, chosen in enumerate([True, False, True]):
        for column in range(12):
            source = 11 - column if chosen else column
            assert torch.equal(flipped[sample, ..., column], frames[sample, ..., source])


def test_shift_moves_whole_pixels_and_repeats_the_border(frames):
    moved = shift(frames, torch.tensor([[2 / 9, -3 / 12], [0.0, 0.0], [-8 / 9, 0.0]]))
    for sample, (down, right) in enumerate([(2, -3), (0, 0), (-8, 0)]):
        for row in range(9):
            for column in range(12):
                source_row, source_column = min(max(row - down, 0), 8), min(max(column - right, 0), 11)
                expected = frames[sample, :, :, source_row, source_column]
                assert torch.equal(moved[sample, :, :, row, column], expected)


def test_colour_jitter_equals_brightness_contrast_saturation_one_after_the_other():
    # mid-range pixels, so that nothing is clipped on the way
    pixels = 0.4 + 0.2 * torch.rand(2, 3, 3, 4, 5, dtype=torch.float64)
    factors = torch.tensor([[1.1, 0.8, 1.3], [0.9, 1.2, 0.5]], dtype=torch.float64)
    jittered = jitter_colours(pixels, *factors.T)
    grey = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]
    for sample, (brightness, contrast, saturation) in enumerate(factors.tolist()):
        expected = pixels[sample] * brightness
        mean = (expected * grey).sum(1).mean()
        expected = contrast * expected + (1 - contrast) * mean
        luma = (expected * grey).sum(1, keepdim=True)
        expected = saturation * expected + (1 - saturation) * luma
        torch.testing.assert_close(jittered[sample], expected)


def resample_weights(size: int, wanted: int) -> list[list[float]]:
    """Share of each source pixel in each wanted one: a triangle as wide as the wanted pixel, or the source's if wider."""
    scale = size / wanted
    reach = max(scale, 1.0)
    rows = []
    for index in range(wanted):
        centre = (index + 0.5) * scale
        row = [max(0.0, 1 - abs(source + 0.5 - centre) / reach) for source in range(size)]
        rows.append([weight / sum(row) for weight in row])
    return rows


@pytest.mark.parametrize("size", [(5, 6), (9, 12), (20, 30)])
def test_a_crop_is_resized_from_the_stored_pixels_with_antialiasing(size):
    """Each pixel is the triangle-weighted mean of what lies under it, of the cut-out alone."""
    stored = torch.randint(0, 256, (3, 2, 3, 21, 33), dtype=torch.uint8)
    crops = torch.tensor([[12 / 21, 20 / 33, 4 / 21, 13 / 33], [1, 1, 0, 0], [9 / 21, 12 / 33, 12 / 21, 0.0]])
    cut = crop_and_resize(stored, crops, torch.tensor([True, False, False]), size)
    assert cut.dtype == torch.float32
    for sample, (top, bottom, left, right) in enumerate([(4, 16, 13, 33), (0, 21, 0, 33), (12, 21, 0, 12)]):
        part = stored[sample, :, :, top:bottom, left:right].double()
        rows = torch.tensor(resample_weights(bottom - top, size[0]), dtype=torch.float64)
        columns = torch.tensor(resample_weights(right - left, size[1]), dtype=torch.float64)
        expected = rows @ part @ columns.T
        expected = expected.flip(-1) if sample == 0 else expected
        # rounded to whole pixel values
        torch.testing.assert_close(cut[sample].double(), expected, atol=0.501, rtol=0)
        assert torch.equal(cut[sample], cut[sample].round())


def test_windows_of_frames_of_several_sizes_become_one_batch():
    stored = [torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8) for size in [(18, 32), (18, 24), (9, 12)]]
    settings = AugmentationSettings(min_crop_scale=0.3, hue=0.1)
    parameters = draw_parameters(torch.arange(3), settings, 1)
    together = augment(stored, parameters, settings, (9, 12))
    assert together.shape == (3, 2, 3, 9, 12)
    for index, window in enumerate(stored):
        own = {name: values[index : index + 1] for name, values in parameters.items()}
        torch.testing.assert_close(together[index : index + 1], augment(window[None], own, settings, (9, 12)))


def test_crops_are_those_of_the_published_system():
    """Of frames of 398 x 224 pixels: 0.2 to 1 of the area, width / height from 1.33 to 2.21, evenly on a log scale."""
    drawn = draw_parameters(torch.arange(4000), AugmentationSettings(min_crop_scale=0.2), 1)["crop"].double()
    height, width, top, left = drawn.T
    area, aspect = height * width, 398 * width / (224 * height)
    assert area.min() >= 0.2 - 1e-6 and area.min() < 0.21 and 0.97 < area.max() <= 1
    assert aspect.min() >= 1.33 - 1e-5 and aspect.max() <= 2.21 + 1e-5
    assert aspect.min() < 1.34 and aspect.max() > 2.20
    assert (top >= 0).all() and (top + height <= 1 + 1e-6).all() and (left + width <= 1 + 1e-6).all()
    # small crops fit whatever their shape: there nothing was drawn again
    small = area < 0.6
    middle = math.sqrt(1.33 * 2.21)
    assert abs((aspect[small] < middle).double().mean() - 0.5) < 0.03
    # where the crop lies is uniform over the room that it leaves
    assert abs((top / (1 - height)).mean() - 0.5) < 0.02 and abs((left / (1 - width)).mean() - 0.5) < 0.02


def test_the_hue_turns_in_hsv():
    """Against the standard library, pixel by pixel, greys and pixels with two equal channels among them."""
    pixels = torch.rand(4, 2, 3, 5, 6)
    pixels[:, :, :, 0] = torch.randint(0, 3, (4, 2, 3, 6)) / 2
    turns = torch.tensor([0.2, -0.35, 0.0, 1.0])
    turned = rotate_hue(pixels.clone(), turns)
    for sample, turn in enumerate(turns.tolist()):
        before = pixels[sample].movedim(1, -1).reshape(-1, 3).tolist()
        after = turned[sample].movedim(1, -1).reshape(-1, 3).tolist()
        for colour, found in zip(before, after, strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*colour)
            assert found == pytest.approx(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), abs=2e-6)


def test_the_hue_of_many_pixels_turns_in_parts(monkeypatch):
    pixels, turns = torch.rand(5, 2, 3, 4, 6), torch.linspace(-0.5, 0.5, 5)
    whole = rotate_hue(pixels.clone(), turns)
    # two windows, then one at a time
    for limit in (96, 1):
        monkeypatch.setattr(augmentation, "HUE_PIXELS_AT_ONCE", {"cpu": limit})
        assert torch.equal(rotate_hue(pixels.clone(), turns), whole)


def test_the_steps_follow_each_other_as_published(frames):
    """Crop, colours, hue, blur, solarize: with blur and solarize the other way round, other pixels come out."""
    settings = AugmentationSettings(hue=0.2, blur_prob=1.0, solarize_prob=1.0, jitter_prob=1.0, min_crop_scale=0.5)
    drawn = draw_parameters(torch.arange(3), settings, 1)
    expected = crop_and_resize(frames, drawn["crop"], drawn["flip"], (9, 12)) / 255
    expected = jitter_colours(expected, drawn["brightness"], drawn["contrast"], drawn["saturation"])
    blurred = blur(rotate_hue(expected, drawn["hue"]), drawn["sigma"])
    augmented = augment(frames, drawn, settings)
    torch.testing.assert_close(augmented, solarize(blurred, drawn["solarize"]))
    # a pixel of 0.5 or more is inverted after the blur: nothing bright is left
    assert augmented.max() <= 0.5


def test_grey_takes_all_colour_and_solarize_the_bright_half(frames):
    settings = AugmentationSettings(flip_prob=0, jitter_prob=0, blur_prob=0, grey_prob=1.0)
    grey = augment(frames, draw_parameters(torch.arange(3), settings, 1), settings)
    torch.testing.assert_close(grey, grey[:, :, :1].expand_as(grey))
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    torch.testing.assert_close(grey[:, :, 0], (frames / 255 * luma).sum(2))
    pixels = frames / 255
    inverted = solarize(pixels, torch.tensor([True, False, True]))
    assert torch.equal(inverted[1], pixels[1])
    for before, after in zip(pixels[0].flatten().tolist(), inverted[0].flatten().tolist(), strict=True):
        assert after == pytest.approx(1 - before if before >= 0.5 else before, abs=1e-6)


def test_blur_equals_a_convolution_per_window():
    pixels = torch.rand(3, 2, 3, 9, 12, dtype=torch.float64)
    sigma = torch.tensor([0.7, 0.0, 1.9], dtype=torch.float64)
    blurred = blur(pixels, sigma)
    assert torch.equal(blurred[1], pixels[1])
    for sample in (0, 2):
        # 23 taps
        weights = torch.tensor([math.exp(-0.5 * (x / float(sigma[sample])) ** 2) for x in range(-11, 12)])
        weights = (weights / weights.sum()).double()
        kernel = torch.outer(weights, weights)[None, None].expand(3, 1, -1, -1)
        padded = F.pad(pixels[sample], (11, 11, 11, 11), mode="replicate")
        torch.testing.assert_close(blurred[sample], F.conv2d(padded, kernel, groups=3), atol=1e-7, rtol=1e-6)


def test_a_blurred_point_reaches_eleven_pixels_far():
    pixels = torch.zeros(1, 1, 3, 1, 41, dtype=torch.float64)
    pixels[..., 20] = 1
    reached = blur(pixels, torch.tensor([2.0], dtype=torch.float64))[0, 0, 0, 0].nonzero()[:, 0]
    assert reached.tolist() == list(range(9, 32))


def test_nothing_switched_on_changes_nothing(frames):
    settings = AugmentationSettings(flip_prob=0, jitter_prob=0, blur_prob=0)
    parameters = draw_parameters(torch.arange(3), settings, 1)
    assert torch.equal(augment(frames, parameters, settings), frames.float() / 255)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_mixup_mixes_neighbours(size):
    values, weights = torch.rand(size, 2, 3), torch.rand(size)
    mixed, partner = mix_neighbours(values, weights)
    for sample in range(size):
        other = sample + 1 if sample % 2 == 0 else sample - 1
        other = sample if other == size else other
        assert partner[sample] == other
        expected = weights[sample] * values[sample] + (1 - weights[sample]) * values[other]
        torch.testing.assert_close(mixed[sample], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_pixels_of_any_precision_are_mixed_by_exact_weights(dtype):
    values, weights = torch.rand(4, 20, 30).to(dtype), torch.rand(4)
    mixed, partner = mix_neighbours(values, weights)
    assert mixed.dtype == dtype
    exact = weights[:, None, None] * values.float() + (1 - weights[:, None, None]) * values[partner].float()
    # rounded once, with weights that are not rounded: hardly a value is another
    tolerance = 1e-6 if dtype == torch.float32 else 0
    assert ((mixed - exact.to(dtype)).abs() > tolerance).float().mean() < 0.01


def test_mixup_pairs_alike_in_one_batch_and_in_two_halves():
    values, weights = torch.rand(8, 3), torch.rand(8)
    whole = mix_neighbours(values, weights)[0]
    halves = [mix_neighbours(values[part], weights[part])[0] for part in (slice(0, 4), slice(4, 8))]
    assert torch.equal(whole, torch.cat(halves))

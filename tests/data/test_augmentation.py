"""Batched augmentation against the naive way, sample by sample and pixel by pixel."""

import colorsys
import math

import pytest
import torch
from torch.nn import functional as F

from comedian.data.augmentation import (
    AugmentationSettings,
    augment,
    blur,
    crop_and_resize,
    draw_parameters,
    flip,
    hue_matrix,
    jitter_colours,
    mix_neighbours,
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
    flipped = flip(frames, torch.tensor([True, False, True]))
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


def test_crop_takes_the_named_part_of_the_frame_and_mirrors_it():
    """Against torch's own resizing of the cut-out pixels: crops on whole pixels, of whole multiples of the size."""
    pixels = torch.rand(3, 2, 3, 8, 12, dtype=torch.float64)
    crops = torch.tensor([[0.5, 0.5, 0.25, 0.5], [1.0, 1.0, 0.0, 0.0], [0.25, 0.75, 0.75, 0.25]], dtype=torch.float64)
    cut = crop_and_resize(pixels, crops, torch.tensor([True, False, False]))
    for sample, (top, bottom, left, right) in enumerate([(2, 6, 6, 12), (0, 8, 0, 12), (6, 8, 3, 12)]):
        part = pixels[sample, :, :, top:bottom, left:right]
        expected = F.interpolate(part, size=(8, 12), mode="bilinear", align_corners=False)
        expected = expected.flip(-1) if sample == 0 else expected
        # the last row and column of a crop blend with what lies outside it
        torch.testing.assert_close(cut[sample, ..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])
    torch.testing.assert_close(cut[1], pixels[1])


def test_crops_keep_their_share_of_the_area_and_stay_inside():
    drawn = draw_parameters(torch.arange(2000), AugmentationSettings(min_crop_scale=0.3), 1)["crop"]
    height, width, top, left = drawn.T
    area, aspect = height * width, width / height
    assert area.min() > 0.25 and area.max() <= 1
    inside = (height < 1) & (width < 1)
    assert area[inside].min() >= 0.3 - 1e-6
    assert aspect.min() >= 0.75 - 1e-6 and aspect.max() <= 1.24 + 1e-6
    assert (top >= 0).all() and (top + height <= 1 + 1e-6).all() and (left + width <= 1 + 1e-6).all()
    whole = draw_parameters(torch.arange(5), AugmentationSettings(min_crop_scale=1.0), 1)["crop"]
    assert (whole[:, :2] > 0.85).all()


def test_hue_turns_keep_the_luma_and_come_round():
    colours = torch.rand(3, 100, dtype=torch.float64)
    turns = torch.tensor([0.0, 0.25, 1 / 3, 1.0], dtype=torch.float64)
    turned = hue_matrix(turns) @ colours
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    torch.testing.assert_close(luma @ turned, (luma @ colours).expand(4, -1))
    torch.testing.assert_close(turned[0], colours)
    torch.testing.assert_close(turned[3], colours)
    torch.testing.assert_close(hue_matrix(turns[1:2]).matrix_power(4)[0], torch.eye(3, dtype=torch.float64))


def test_a_small_hue_turn_is_one_on_the_colour_circle():
    """The chroma plane of YIQ only approximates HSV, but red turns by about as much, towards magenta."""
    red = torch.tensor([0.6, 0.3, 0.3], dtype=torch.float64)
    turned = (hue_matrix(torch.tensor([0.08], dtype=torch.float64)) @ red)[0]
    hue = colorsys.rgb_to_hsv(*turned.tolist())[0]
    assert abs(hue - 0.92) < 0.04


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
        weights = torch.tensor([math.exp(-0.5 * (x / float(sigma[sample])) ** 2) for x in range(-6, 7)])
        weights = (weights / weights.sum()).double()
        kernel = torch.outer(weights, weights)[None, None].expand(3, 1, -1, -1)
        padded = F.pad(pixels[sample], (6, 6, 6, 6), mode="replicate")
        torch.testing.assert_close(blurred[sample], F.conv2d(padded, kernel, groups=3), atol=1e-6, rtol=1e-5)


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


def test_mixup_pairs_alike_in_one_batch_and_in_two_halves():
    values, weights = torch.rand(8, 3), torch.rand(8)
    whole = mix_neighbours(values, weights)[0]
    halves = [mix_neighbours(values[part], weights[part])[0] for part in (slice(0, 4), slice(4, 8))]
    assert torch.equal(whole, torch.cat(halves))

"""The spotting losses against loops, closed forms and torch's own."""

import math

import pytest
import torch
from torch.nn import functional as F

from comedian.models.loss_comedian import mixup_spotting_loss, offset_loss, spotting_loss

SHAPE = (3, 5, 4)


@pytest.fixture
def logits():
    return torch.randn(SHAPE) * 3


@pytest.fixture
def labels():
    """Targets 0 and 1, with some entries left out."""
    labels = (torch.rand(SHAPE) < 0.3).float()
    return labels.masked_fill(torch.rand(SHAPE) < 0.2, -100)


def loop_loss(logits, labels, weights, alpha, gamma):
    total, counted = 0.0, 0
    for sample in range(SHAPE[0]):
        for token in range(SHAPE[1]):
            for label in range(SHAPE[2]):
                target = labels[sample, token, label].item()
                if target == -100:
                    continue
                p = 1 / (1 + math.exp(-logits[sample, token, label].item()))
                p = p if target == 1 else 1 - p
                share = 1 if alpha is None else alpha if target == 1 else 1 - alpha
                total -= weights[int(target)][label].item() * share * (1 - p) ** gamma * math.log(p)
                counted += 1
    return total / max(counted, 1)


@pytest.mark.parametrize("alpha, gamma", [(None, 0.0), (0.25, 2.0), (None, 0.5), (0.9, 1.0)])
def test_focal_loss_equals_the_loop(alpha, gamma, logits, labels):
    weights = torch.rand(2, SHAPE[2])
    loss = spotting_loss(logits, labels, loss="focal", class_weights=weights, focal_alpha=alpha, focal_gamma=gamma)
    assert loss.item() == pytest.approx(loop_loss(logits, labels, weights, alpha, gamma), rel=1e-5)


def test_bce_equals_the_loop_and_focal_without_focus(logits, labels):
    weights = torch.rand(2, SHAPE[2])
    loss = spotting_loss(logits, labels, class_weights=weights)
    assert loss.item() == pytest.approx(loop_loss(logits, labels, weights, None, 0.0), rel=1e-5)
    plain = spotting_loss(logits, labels, loss="focal", class_weights=weights, focal_alpha=None, focal_gamma=0.0)
    torch.testing.assert_close(plain, loss)


def test_ignored_entries_have_neither_loss_nor_gradient(logits, labels):
    logits.requires_grad_()
    spotting_loss(logits, labels).backward()
    assert torch.equal(logits.grad == 0, labels == -100)


def test_nothing_to_count_is_zero(logits):
    loss = spotting_loss(logits.requires_grad_(), torch.full(SHAPE, -100))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros(SHAPE))


def test_integer_labels_are_taken(logits, labels):
    torch.testing.assert_close(spotting_loss(logits, labels.long()), spotting_loss(logits, labels))


@pytest.mark.parametrize("loss", ["bce", "focal"])
def test_mixup_equals_soft_targets(loss, logits):
    own, mixed_in = (torch.rand(2, *SHAPE) < 0.3).float()
    share = torch.rand(SHAPE[0])
    soft = share[:, None, None] * own + (1 - share[:, None, None]) * mixed_in
    mixed = mixup_spotting_loss(logits, own, mixed_in, share, loss=loss)
    torch.testing.assert_close(mixed, spotting_loss(logits, soft, loss=loss))
    if loss == "bce":
        torch.testing.assert_close(mixed, F.binary_cross_entropy_with_logits(logits, soft))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_gradients_stay_finite_where_the_sigmoid_saturates(gamma):
    logits = torch.tensor([[[-200.0, -30.0, 30.0, 200.0]]], requires_grad=True)
    for target in (0.0, 1.0):
        (gradient,) = torch.autograd.grad(
            spotting_loss(logits, torch.full((1, 1, 4), target), loss="focal", focal_gamma=gamma), logits
        )
        assert gradient.isfinite().all()


def test_gradients_are_those_of_finite_differences(labels):
    logits = torch.randn(SHAPE, dtype=torch.double, requires_grad=True)
    # the loss is float32 inside, so the differences are coarse
    assert torch.autograd.gradcheck(
        lambda x: spotting_loss(x, labels, loss="focal").double(), logits, eps=1e-2, atol=1e-3
    )


def test_half_precision_logits_give_a_float32_loss(logits, labels):
    half = logits.half()
    loss = spotting_loss(half, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, spotting_loss(half.float(), labels))


def test_labels_of_another_shape_are_refused(logits):
    with pytest.raises(ValueError, match=r"`labels` has shape \(3, 5, 1\)"):
        spotting_loss(logits, torch.zeros(3, 5, 1))


def test_offsets_are_compared_where_an_event_is_near():
    offsets_s = torch.tensor([[[0.5, -1.0], [3.0, 0.0]], [[0.0, 2.0], [1.0, 1.0]]])
    targets_s = torch.tensor([[[1.0, math.nan], [0.0, math.nan]], [[math.nan, math.nan], [math.nan, 0.0]]])
    # radius 2: differences of 0.25, 1.5 and 0.5 radii; quadratic below 1, then linear
    entries = [0.25**2 / 2, 1.5 - 0.5, 0.5**2 / 2]
    torch.testing.assert_close(offset_loss(offsets_s, targets_s, 2.0), torch.tensor(sum(entries) / 3))
    weighted = (0.3 * (entries[0] + entries[1]) + 0.9 * entries[2]) / 3
    torch.testing.assert_close(
        offset_loss(offsets_s, targets_s, 2.0, torch.tensor([0.3, 0.9])), torch.tensor(weighted)
    )
    offsets_s.requires_grad_()
    offset_loss(offsets_s, targets_s, 2.0).backward()
    assert torch.equal(offsets_s.grad != 0, ~targets_s.isnan())
    assert offset_loss(offsets_s, torch.full_like(targets_s, math.nan), 2.0) == 0
    with pytest.raises(ValueError, match="offset_targets_s"):
        offset_loss(offsets_s, targets_s[:1], 2.0)

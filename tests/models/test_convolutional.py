"""The convolutional spatial encoder and the convolutions over tokens, against sums written out."""

import numpy as np
import pytest
import torch

from comedian.models import ComedianForActionSpotting, ComedianForContrastivePretraining
from testing_utils import tiny_config


def random_model(**overrides) -> ComedianForActionSpotting:
    model = ComedianForActionSpotting(tiny_config(spatial_encoder="convolutional", **overrides)).eval()
    for tensor in (*model.parameters(), *model.buffers()):
        torch.nn.init.normal_(tensor, std=0.3)
    for name, statistics in model.named_buffers():
        if name.endswith("variance"):
            statistics.abs_().add_(0.5)
    return model


def convolve(planes, kernel, stride=1):
    """`(channels, rows, columns)` by `(outputs, channels, 3, 3)`, 0 beyond the border."""
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)))
    rows, columns = (range(0, side, stride) for side in planes.shape[1:])
    patches = np.array([[padded[:, row : row + 3, column : column + 3] for column in columns] for row in rows])
    return np.einsum("yxcij,ocij->oyx", patches, kernel)


def relu(planes):
    return np.maximum(planes, 0)


def token_of(weights, tubelet, depths, eps):
    """The spatial token of a tubelet `(frames, channels, height, width)`, all in float64."""

    def norm(planes, name):
        weight, bias, mean, variance = (
            weights[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "mean", "variance")
        )
        return (planes - mean) / np.sqrt(variance + 1e-5) * weight + bias

    def halve(planes, name):
        return relu(norm(convolve(planes, weights[f"{name}.convolution.weight"], stride=2), f"{name}.norm"))

    planes = tubelet.reshape(-1, *tubelet.shape[2:])
    for step in range(2):
        planes = halve(planes, f"embeddings.layers.{step}")
    for stage, depth in enumerate(depths):
        for layer in range(depth):
            name = f"stages.{stage}.layers.{layer}"
            branch = convolve(planes, weights[f"{name}.first_convolution.weight"])
            branch = convolve(relu(norm(branch, f"{name}.first_norm")), weights[f"{name}.second_convolution.weight"])
            planes = relu(planes + norm(branch, f"{name}.second_norm"))
        if stage < len(depths) - 1:
            planes = halve(planes, f"stages.{stage}.merging")
    token = planes.mean(axis=(1, 2))
    token = (token - token.mean()) / np.sqrt(token.var() + eps)
    return token * weights["norm.weight"] + weights["norm.bias"]


@pytest.mark.parametrize("size", [[16, 16], [20, 28]], ids=["even grids", "odd grids"])
def test_tokens_equal_sums_written_out(size):
    model = random_model(image_size=size)
    video = torch.randn(1, 4, 3, *size)
    with torch.no_grad():
        found = model.encode_spatial(video)[0].numpy()
    weights = {name: value.double().numpy() for name, value in model.comedian.spatial_encoder.state_dict().items()}
    for token, tubelet in zip(found, video[0].double().numpy().reshape(2, 2, 3, *size)):
        expected = token_of(weights, tubelet, [2, 2], model.config.layer_norm_eps)
        np.testing.assert_allclose(token, expected, atol=1e-4)


def test_a_token_depends_on_no_other_once_trained():
    model = random_model()
    video = torch.randn(3, 8, 3, 16, 16)
    with torch.no_grad():
        whole, alone = model.encode_spatial(video), model.encode_spatial(video[1:2, 4:6])
    torch.testing.assert_close(alone[0, 0], whole[1, 2])


def test_training_takes_the_statistics_of_the_batch_and_moves_the_running_ones():
    norm, planes = random_model().comedian.spatial_encoder.embeddings.layers[0].norm, torch.randn(5, 8, 3, 4) + 2
    mean, variance = planes.mean(dim=(0, 2, 3)), planes.var(dim=(0, 2, 3))
    before = norm.mean.clone(), norm.variance.clone()
    with torch.no_grad():
        found = norm.train()(planes)
    normed = (planes - mean[:, None, None]) / (planes.var(dim=(0, 2, 3), correction=0) + 1e-5).sqrt()[:, None, None]
    torch.testing.assert_close(found, normed * norm.weight[:, None, None] + norm.bias[:, None, None])
    torch.testing.assert_close(norm.mean, 0.9 * before[0] + 0.1 * mean)
    torch.testing.assert_close(norm.variance, 0.9 * before[1] + 0.1 * variance)


def test_frozen_weights_keep_their_statistics():
    model = random_model(drop_path_rate=0.0)
    video = torch.randn(1, 8, 3, 16, 16)
    with torch.no_grad():
        expected = model.encode_spatial(video)
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        model.train().comedian.requires_grad_(False)
        torch.testing.assert_close(model.encode_spatial(video), expected)
    assert before and all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_convolution_over_tokens_equals_its_sum(kernel):
    model = random_model(temporal_kernel_size=kernel)
    layer, tokens = model.comedian.temporal_encoder.convolutions[0], torch.randn(1, 4, 32)
    with torch.no_grad():
        found, normed = layer(tokens)[0], layer.norm(tokens)[0]
        for place in range(4):
            neighbours = layer.convolution.bias.clone()
            for tap in range(kernel):
                if 0 <= (source := place + tap - kernel // 2) < 4:
                    neighbours += layer.convolution.weight[:, :, tap] @ normed[source]
            expected = tokens[0, place] + layer.projection(torch.nn.functional.gelu(neighbours))
            torch.testing.assert_close(found[place], expected, atol=1e-4, rtol=1e-4)


def test_new_residual_branches_are_the_identity():
    torch.manual_seed(0)
    model = ComedianForActionSpotting(tiny_config(spatial_encoder="convolutional")).comedian
    planes, tokens = torch.rand(2, 4, 4, 16), torch.randn(1, 4, 32)
    with torch.no_grad():
        assert torch.equal(model.spatial_encoder.stages[0]["layers"][1](planes), planes)
        assert torch.equal(model.temporal_encoder.convolutions[0](tokens), tokens)
        # He's variance, 2 / (outputs * 9), keeps that of gradients
        weight = model.spatial_encoder.stages[1]["layers"][0].first_convolution.weight
        assert weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)


def test_the_momentum_branch_takes_the_statistics():
    model = ComedianForContrastivePretraining(tiny_config(spatial_encoder="convolutional"))
    online, momentum = model.comedian.spatial_encoder, model.momentum_encoder
    assert all(torch.equal(value, momentum.state_dict()[name]) for name, value in online.state_dict().items())
    views = torch.randn(2, 6, 2, 3, 16, 16) + 1
    before = {name: value.clone() for name, value in momentum.state_dict().items()}
    model(views[0], second_view=views[1])
    # keys are those of running statistics: nothing of the momentum branch has moved
    assert all(torch.equal(value, momentum.state_dict()[name]) for name, value in before.items())
    model.update_momentum_branch(0.75)
    name = "embeddings.layers.0.norm.mean"
    assert online.state_dict()[name].abs().min() > 0
    assert torch.equal(momentum.state_dict()[name], online.state_dict()[name])


def test_weights_and_statistics_are_loaded(tmp_path):
    model, pixels = random_model(), torch.randn(1, 8, 3, 16, 16)
    model.save_pretrained(tmp_path)
    loaded = ComedianForActionSpotting.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(pixels).logits, model(pixels).logits)


def test_pictures_of_another_size_need_no_other_weights(tmp_path):
    model = random_model()
    model.save_pretrained(tmp_path)
    larger = ComedianForActionSpotting.from_pretrained(tmp_path, image_size=[32, 48])
    for name, value in model.comedian.spatial_encoder.state_dict().items():
        assert torch.equal(larger.comedian.spatial_encoder.state_dict()[name], value)
    assert larger(torch.randn(1, 8, 3, 32, 48)).logits.isfinite().all()

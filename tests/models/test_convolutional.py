"""The convolutional spatial encoder and the convolutions over tokens, against sums written out."""

import numpy as np
import pytest
import torch

from comedian.models import ComedianForActionSpotting, ComedianForContrastivePretraining
from testing_utils import tiny_config


def random_model(**overrides) -> ComedianForActionSpotting:
    model = ComedianForActionSpotting(tiny_config(spatial_encoder="convolutional", **overrides)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def convolve(planes, kernel, stride=1):
    """`(channels, rows, columns)` by `(outputs, channels, 3, 3)`, 0 beyond the border."""
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)))
    rows, columns = (range(0, side, stride) for side in planes.shape[1:])
    patches = np.array([[padded[:, row : row + 3, column : column + 3] for column in columns] for row in rows])
    return np.einsum("yxcij,ocij->oyx", patches, kernel)


def normalize(planes, weight, bias, num_groups, eps):
    groups = planes.reshape(num_groups, -1)
    groups = (groups - groups.mean(1, keepdims=True)) / np.sqrt(groups.var(1, keepdims=True) + eps)
    return groups.reshape(planes.shape) * weight[:, None, None] + bias[:, None, None]


def relu(planes):
    return np.maximum(planes, 0)


def token_of(weights, tubelet, depths, num_groups, eps):
    """The spatial token of a tubelet `(frames, channels, height, width)`, all in float64."""

    def norm(planes, name):
        groups = num_groups(len(planes))
        return normalize(planes, weights[f"{name}.weight"], weights[f"{name}.bias"], groups, eps)

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
@pytest.mark.parametrize("width, groups", [(16, {8: 1, 16: 1, 32: 2}), (48, {24: 1, 48: 3, 96: 6})])
def test_tokens_equal_sums_written_out(size, width, groups):
    model = random_model(spatial_hidden_size=width, image_size=size, temporal_num_heads=1)
    video = torch.randn(1, 4, 3, *size)
    with torch.no_grad():
        found = model.encode_spatial(video)[0].numpy()
    weights = {name: value.double().numpy() for name, value in model.comedian.spatial_encoder.state_dict().items()}
    for token, tubelet in zip(found, video[0].double().numpy().reshape(2, 2, 3, *size)):
        expected = token_of(weights, tubelet, [2, 2], groups.__getitem__, model.config.layer_norm_eps)
        np.testing.assert_allclose(token, expected, atol=1e-4)


def test_a_token_depends_on_no_other_and_on_no_mode():
    model = random_model(drop_path_rate=0.0)
    video = torch.randn(3, 8, 3, 16, 16)
    with torch.no_grad():
        whole = model.encode_spatial(video)
        alone = model.encode_spatial(video[1:2, 4:6])
        trained = model.train().encode_spatial(video)
    torch.testing.assert_close(alone[0, 0], whole[1, 2])
    torch.testing.assert_close(trained, whole)


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


def test_the_momentum_branch_holds_all_that_the_encoder_knows():
    # statistics of batches, as batch norms keep, would be left behind
    model = ComedianForContrastivePretraining(tiny_config(spatial_encoder="convolutional"))
    assert not list(model.comedian.spatial_encoder.buffers())


def test_pictures_of_another_size_need_no_other_weights(tmp_path):
    model = random_model()
    model.save_pretrained(tmp_path)
    larger = ComedianForActionSpotting.from_pretrained(tmp_path, image_size=[32, 48])
    for name, value in model.comedian.spatial_encoder.state_dict().items():
        assert torch.equal(larger.comedian.spatial_encoder.state_dict()[name], value)
    assert larger(torch.randn(1, 8, 3, 32, 48)).logits.isfinite().all()

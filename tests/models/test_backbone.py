"""Image models of transformers as the spatial encoder."""

import pytest
import torch
from transformers import (
    AutoModel,
    ConvNextConfig,
    Dinov2Config,
    DINOv3ViTConfig,
    RegNetConfig,
    ResNetConfig,
    SwinConfig,
    TimmWrapperConfig,
    ViTConfig,
)

from comedian.models import (
    ComedianConfig,
    ComedianContrastiveConfig,
    ComedianDistillationConfig,
    ComedianForActionSpotting,
    ComedianForContrastivePretraining,
    ComedianForFeatureDistillation,
    ComedianModel,
)
from testing_utils import tiny_config

TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 4,
}
STAGES = {"hidden_sizes": [8, 12], "depths": [1, 1]}
BACKBONES = {
    "vit": ViTConfig(**TRANSFORMER),
    "dinov2": Dinov2Config(**{name: value for name, value in TRANSFORMER.items() if name != "intermediate_size"}),
    "dinov3": DINOv3ViTConfig(**TRANSFORMER),
    "swin": SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2], image_size=16, patch_size=2, window_size=2),
    "convnext": ConvNextConfig(**STAGES, num_stages=2, patch_size=2),
    "regnet": RegNetConfig(**STAGES, embedding_size=8, groups_width=4),
    "resnet": ResNetConfig(**STAGES, embedding_size=8, layer_type="basic"),
}
each_backbone = pytest.mark.parametrize("name", BACKBONES)


def config_with(name: str, **overrides) -> ComedianConfig:
    return tiny_config(backbone_config=BACKBONES[name].to_dict(), **overrides)


@pytest.fixture
def pixels():
    return torch.randn(2, 8, 3, 16, 16)


@each_backbone
def test_a_token_is_the_projected_mean_over_patches_and_frames(name, pixels):
    model = ComedianModel(config_with(name)).eval()
    encoder = model.spatial_encoder
    with torch.no_grad():
        tokens = model.encode_spatial(pixels)
        for tubelet in range(4):
            means = []
            for frame in pixels[:, 2 * tubelet : 2 * tubelet + 2].unbind(1):
                features = encoder.backbone(frame).last_hidden_state
                means.append(features.mean(1) if features.ndim == 3 else features.flatten(2).mean(2))
            expected = encoder.projection((means[0] + means[1]) / 2)
            torch.testing.assert_close(tokens[:, tubelet], expected)
    assert tokens[:, 0].std() > 0


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_transformers_of_timm_are_pooled_over_rows_and_columns(layout, pixels, monkeypatch):
    pytest.importorskip("timm")
    options = {"img_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    name = "swin_tiny_patch4_window7_224" if layout == "NHWC" else "resnet10t"
    backbone = TimmWrapperConfig(architecture=name, model_args=options if layout == "NHWC" else {})
    torch.manual_seed(0)
    model = ComedianModel(tiny_config(backbone_config=backbone.to_dict(), image_size=[32, 32])).eval()
    encoder, frames = model.spatial_encoder, torch.randn(1, 2, 3, 32, 32)
    with torch.no_grad():
        features = encoder.backbone.timm_model.forward_features(frames[0])
        width = encoder.backbone.timm_model.num_features
        means = torch.stack(
            [of.reshape(-1, width).mean(0) if layout == "NHWC" else of.mean((1, 2)) for of in features]
        )
        torch.testing.assert_close(model.encode_spatial(frames)[0, 0], encoder.projection(means.mean(0)))


def test_features_of_an_unknown_layout_are_refused(pixels):
    encoder = ComedianModel(config_with("resnet")).spatial_encoder
    for shape in ((2, 4, 4, 12), (2, 12), (2, 5, 7)):
        with pytest.raises(ValueError, match="features of shape"):
            encoder.pool(torch.zeros(shape))


@each_backbone
def test_three_stages_train_and_a_folder_keeps_the_outputs(name, pixels, tmp_path):
    heads = {"projector_sizes": [12, 8], "queue_size": 8}
    config = config_with(
        name,
        contrastive_config=ComedianContrastiveConfig(predictor_sizes=[8], **heads),
        distillation_config=ComedianDistillationConfig(**heads),
    )
    stages = [
        (ComedianForContrastivePretraining, {"pixel_values_videos": pixels[:, :2], "second_view": pixels[:, 2:4]}),
        (ComedianForFeatureDistillation, {"pixel_values_videos": pixels, "teacher_features": torch.randn(2, 4, 8)}),
        (ComedianForActionSpotting, {"pixel_values_videos": pixels, "labels": torch.ones(2, 4, 3)}),
    ]
    for model_class, inputs in stages:
        model = model_class(config).train()
        model(**inputs).loss.backward()
        trained = [weight.grad is not None for weight in model.comedian.spatial_encoder.projection.parameters()]
        assert all(trained) and any(
            weight.grad is not None and weight.grad.any()
            for weight in model.comedian.spatial_encoder.backbone.parameters()
        )
    model.eval().save_pretrained(tmp_path)
    loaded = ComedianForActionSpotting.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels).logits, model(pixels).logits, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_backbone_brings_its_weights_and_may_be_frozen(name, pixels, tmp_path):
    image_model = AutoModel.from_config(BACKBONES[name])
    image_model.save_pretrained(tmp_path / "image")
    pretrained = tiny_config(backbone=str(tmp_path / "image"), use_pretrained_backbone=True, backbone_frozen=True)
    model = ComedianForActionSpotting(pretrained).train()
    backbone = model.comedian.spatial_encoder.backbone
    for key, tensor in image_model.state_dict().items():
        assert torch.equal(backbone.state_dict()[key], tensor), key
    statistics = {key: tensor.clone() for key, tensor in backbone.named_buffers()}
    model(pixels, labels=torch.ones(2, 4, 3)).loss.backward()
    assert all(weight.grad is None for weight in backbone.parameters())
    assert all(torch.equal(tensor, statistics[key]) for key, tensor in backbone.named_buffers())
    assert model.classifier.weight.grad.any()
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "image").rename(tmp_path / "gone")
    loaded = ComedianForActionSpotting.from_pretrained(tmp_path / "model").train()
    assert not any(weight.requires_grad for weight in loaded.comedian.spatial_encoder.backbone.parameters())
    assert loaded.comedian.spatial_encoder.projection.weight.requires_grad


def test_frozen_batch_norms_keep_their_statistics(pixels):
    """As under an adapter, which is saved without them."""
    model = ComedianForActionSpotting(config_with("resnet"))
    backbone = model.comedian.spatial_encoder.backbone.requires_grad_(False)
    statistics = {key: tensor.clone() for key, tensor in backbone.named_buffers()}
    model.train()(pixels, labels=torch.ones(2, 4, 3)).loss.backward()
    assert statistics and all(torch.equal(tensor, statistics[key]) for key, tensor in backbone.named_buffers())
    model.requires_grad_(True).train()(pixels)
    assert not any(torch.equal(tensor, statistics[key]) for key, tensor in backbone.named_buffers())


def test_the_momentum_branch_follows_the_statistics_of_batch_norms(pixels):
    heads = {"projector_sizes": [12, 8], "queue_size": 8, "predictor_sizes": [8]}
    model = ComedianForContrastivePretraining(
        config_with("resnet", contrastive_config=ComedianContrastiveConfig(**heads))
    ).train()
    model(pixels[:, :2], second_view=pixels[:, 2:4])
    model.update_momentum_branch(0.9)
    online, momentum = model.comedian.spatial_encoder, model.momentum_encoder
    assert online.backbone.embedder.embedder.normalization.running_mean.any()
    for target, source in zip(momentum.buffers(), online.buffers(), strict=True):
        assert torch.equal(target, source)


@pytest.mark.parametrize("name", ["vit", "dinov2", "convnext"])
def test_other_image_sizes_need_no_new_weights(name, tmp_path):
    ComedianModel(config_with(name)).save_pretrained(tmp_path)
    model = ComedianModel.from_pretrained(tmp_path, image_size=[24, 32])
    assert model.encode_spatial(torch.randn(1, 2, 3, 24, 32)).shape == (1, 1, 16)


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"spatial_encoder": "backbone"}, "backbone_config"), ({"use_pretrained_backbone": True}, "backbone")],
)
def test_a_missing_image_model_is_refused_by_name(fields, named):
    with pytest.raises(Exception, match=named):
        tiny_config(**fields)

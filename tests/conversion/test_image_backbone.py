"""A still tubelet is seen as the image model sees its image, in each one's own normalisation."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    DeiTConfig,
    DeiTModel,
    Dinov2Config,
    Dinov2Model,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from comedian.cli.main import main
from comedian.conversion.image_backbone import read_image_backbone
from comedian.models import ComedianForActionSpotting, ComedianModel
from comedian.training.base_trainer import build_processor
from comedian.training.recipe import ModelSection
from comedian.training.stage import build_model
from testing_utils import tiny_config

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
MODELS = {
    "vit": (ViTModel, ViTConfig(**SMALL, intermediate_size=96, hidden_act="gelu")),
    "deit": (DeiTModel, DeiTConfig(**SMALL, intermediate_size=256)),
    "dinov2": (Dinov2Model, Dinov2Config(**SMALL, mlp_ratio=4)),
    "swin": (
        SwinModel,
        SwinConfig(
            embed_dim=32, depths=[2, 2], num_heads=[2, 4], image_size=32, patch_size=4, window_size=4, mlp_ratio=2.0
        ),
    ),
}


def write_image_model(folder, kind, with_processor=True):
    torch.manual_seed(0)
    model_class, config = MODELS[kind]
    model = model_class(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    if with_processor:
        settings = {"image_processor_type": "ViTImageProcessor", "image_mean": MEAN, "image_std": STD}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return model


def image_tokens(model, image):
    """What the image model makes of pixels in [0, 1]."""
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        outputs = model((image - mean) / std)
    return outputs.pooler_output if isinstance(model, SwinModel) else outputs.last_hidden_state[:, 0]


@pytest.mark.parametrize("tubelet_size", [1, 2, 3])
@pytest.mark.parametrize("kind", ["vit", "dinov2", "swin"])
def test_a_still_tubelet_is_seen_as_the_image(tmp_path, kind, tubelet_size):
    model = write_image_model(tmp_path, kind)
    backbone = read_image_backbone(str(tmp_path), tubelet_size=tubelet_size, num_frames=12).model
    image = torch.rand(2, 3, 32, 32)
    pixels = ((image - 0.45) / 0.225)[:, None].expand(-1, tubelet_size, -1, -1, -1)
    expected = image_tokens(model, image)
    assert expected.std() > 0.1
    with torch.no_grad():
        torch.testing.assert_close(backbone.encode_spatial(pixels)[:, 0], expected, atol=2e-5, rtol=1e-4)
        # frames share the embedding equally: their order does not matter, their mean does
        moving = torch.randn(1, tubelet_size, 3, 32, 32)
        still = moving.mean(dim=1, keepdim=True).expand_as(moving)
        torch.testing.assert_close(
            backbone.encode_spatial(moving), backbone.encode_spatial(still), atol=2e-5, rtol=1e-4
        )


PROCESSORS = {
    "no_normalisation": {"do_normalize": False},
    "no_scaling": {"do_rescale": False, "image_mean": [100.0, 110.0, 120.0], "image_std": [50.0, 60.0, 70.0]},
    "other_scale": {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.1, 1.2], "image_std": [0.5, 0.6, 0.7]},
}


def processed(settings, image):
    """What a processor with these settings makes of an image of values 0 to 255."""
    if settings.get("do_rescale", True):
        image = image * settings.get("rescale_factor", 1 / 255)
    if settings.get("do_normalize", True):
        mean, std = (torch.tensor(settings[name]).reshape(-1, 1, 1) for name in ("image_mean", "image_std"))
        image = (image - mean) / std
    return image


@pytest.mark.parametrize("settings", PROCESSORS.values(), ids=PROCESSORS)
def test_the_scale_and_normalisation_of_the_image_model_are_followed(settings, tmp_path):
    """By a spatial encoder made from it, and by the processor of a model with the image model itself."""
    model = write_image_model(tmp_path, "vit")
    content = {"image_processor_type": "ViTImageProcessor", "image_mean": MEAN, "image_std": STD} | settings
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(processed(content, image.float())).last_hidden_state[:, 0]
        pixels = ((image / 255 - 0.45) / 0.225)[:, None].expand(-1, 2, -1, -1, -1)
        found = read_image_backbone(str(tmp_path)).model.encode_spatial(pixels)[:, 0]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    processor = build_processor(tiny_config(backbone=str(tmp_path), image_size=[32, 32]))
    pixels = processor(image, return_tensors="pt")["pixel_values_videos"][0]
    torch.testing.assert_close(pixels, processed(content, image.float()), atol=1e-5, rtol=1e-4)


def test_deit_loses_its_distillation_token_alone(tmp_path):
    model = write_image_model(tmp_path, "deit")
    backbone = read_image_backbone(str(tmp_path))
    assert any("distillation" in note for note in backbone.notes)
    # a ViT with the same weights, which has no such token
    stored = model.state_dict()
    table = stored["embeddings.position_embeddings"]
    stored["embeddings.position_embeddings"] = torch.cat([table[:, :1], table[:, 2:]], dim=1)
    vit = ViTModel(ViTConfig(**SMALL, intermediate_size=256), add_pooling_layer=False).eval()
    left_over = vit.load_state_dict(stored, strict=False)
    assert left_over.missing_keys == []
    image = torch.rand(2, 3, 32, 32)
    pixels = ((image - 0.45) / 0.225)[:, None].expand(-1, 2, -1, -1, -1)
    with torch.no_grad():
        tokens = backbone.model.encode_spatial(pixels)[:, 0]
    torch.testing.assert_close(tokens, image_tokens(vit, image), atol=2e-5, rtol=1e-4)


def test_the_command_writes_what_a_recipe_starts_from(tmp_path, capsys):
    torch.manual_seed(0)
    # a classifier's folder holds the same backbone under another name
    ViTForImageClassification(MODELS["vit"][1]).save_pretrained(tmp_path / "image")
    assert main(["convert", str(tmp_path / "image"), str(tmp_path / "start"), "--image-size", "32", "64"]) == 0
    printed = capsys.readouterr().out
    assert (
        "spatial encoder from" in printed and "resampled from 32 x 32" in printed and "normalisation: ours" in printed
    )
    backbone = ComedianModel.from_pretrained(tmp_path / "start")
    assert (
        backbone.config.image_size == [32, 64] and backbone.spatial_encoder.position_embeddings.shape[1] == 1 + 4 * 8
    )
    assert all(name.startswith("spatial_encoder.") for name in load_file(tmp_path / "start" / "model.safetensors"))
    assert json.loads((tmp_path / "start" / "model_record.json").read_text())["started_from"] == "image"
    section = ModelSection(checkpoint=str(tmp_path / "start"), overrides={"num_frames": 16})
    model = build_model(ComedianForActionSpotting, section, tmp_path, ["a", "b"])
    for name, tensor in backbone.spatial_encoder.state_dict().items():
        assert torch.equal(model.comedian.spatial_encoder.state_dict()[name], tensor)
    assert model.config.num_frames == 16 and all(weight.isfinite().all() for weight in model.parameters())


def test_swin_tables_follow_another_size(tmp_path):
    write_image_model(tmp_path, "swin")
    larger = read_image_backbone(str(tmp_path), image_size=[64, 64]).model
    with torch.no_grad():
        assert larger.encode_spatial(torch.randn(1, 2, 3, 64, 64)).isfinite().all()


def test_what_cannot_be_is_one_line(tmp_path, capsys):
    ViTMAEModel(ViTMAEConfig(**SMALL)).save_pretrained(tmp_path / "mae")
    ViTModel(ViTConfig(**SMALL, qkv_bias=False)).save_pretrained(tmp_path / "no_bias")
    giant = Dinov2Config(**SMALL, use_swiglu_ffn=True)
    Dinov2Model(giant).save_pretrained(tmp_path / "giant")
    (tmp_path / "empty").mkdir()
    write_image_model(tmp_path / "vit", "vit")
    for words, reason in {
        ("mae",): "model of type 'vit_mae'; known as spatial encoders: vit, deit, dinov2, swin",
        ("no_bias",): "`qkv_bias` False",
        ("giant",): "`use_swiglu_ffn` True",
        ("empty",): "neither checkpoints",
        ("nowhere",): "does not exist",
        ("vit", "--spatial-heads", "3"): "--spatial-heads applies to the authors' checkpoints only",
        ("vit", "--tubelet-size", "0"): "--tubelet-size 0",
        ("vit", "--image-size", "33", "32"): "multiple of `patch_size`",
        ("vit", "--fps", "0"): "`fps` is 0",
    }.items():
        output = tmp_path / "output"
        assert main(["convert", str(tmp_path / words[0]), str(output), *words[1:]]) == 2, words
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert reason in error, error
        assert not output.exists()

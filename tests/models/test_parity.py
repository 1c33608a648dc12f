"""The model and its losses against the published system's own numbers (../shared/reference) and against naive code."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comedian.models import ComedianForActionSpotting, ComedianForContrastivePretraining, ComedianModel
from comedian.models.loss_comedian import (
    mixup_spotting_loss,
    soft_contrastive_loss,
    spotting_loss,
    token_contrastive_loss,
)
from naive_model import naive_forward, random_checkpoint
from testing_utils import convert

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
# a clone of the repository alone has no reference; where ../shared lies, a missing file fails
needs_reference = pytest.mark.skipif(
    not REFERENCE.parent.is_dir(), reason=f"{REFERENCE} is not part of the repository"
)


def assert_close(actual, expected, atol=1e-5):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


@pytest.fixture(scope="module")
def reference():
    return load_file(REFERENCE / "reference.safetensors")


@pytest.fixture(scope="module")
def sizes():
    return json.loads((REFERENCE / "reference.json").read_text())


@pytest.fixture(scope="module")
def published_model(tmp_path_factory, sizes):
    def convert_and_load(name: str, attention: str = "sdpa"):
        heads = sizes[name]["spatial_num_heads"]
        folder = convert(
            REFERENCE / f"{name}_spotting.ckpt",
            tmp_path_factory.mktemp(name) / "model",
            spatial_heads=heads if isinstance(heads, list) else [heads],
            temporal_heads=sizes[name]["temporal_num_heads"],
        )
        return ComedianForActionSpotting.from_pretrained(folder, attn_implementation=attention)

    return convert_and_load


@needs_reference
@pytest.mark.parametrize("name", ["vivit", "viswin"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_tokens_and_logits_are_the_published_ones(name, attention, published_model, reference):
    model = published_model(name, attention)
    pixels = reference[f"{name}.pixel_values_bcthw"].transpose(1, 2)
    with torch.no_grad():
        spatial_tokens = model.encode_spatial(pixels)
        temporal_tokens = model.encode_temporal(spatial_tokens)
        outputs = model(pixels)
    for tokens in (spatial_tokens, outputs.spatial_tokens):
        assert_close(tokens, reference[f"{name}.spatial_tokens"])
    for tokens in (temporal_tokens, outputs.last_hidden_state):
        assert_close(tokens, reference[f"{name}.temporal_tokens"])
    assert_close(outputs.logits, reference[f"{name}.logits"])


@needs_reference
def test_masked_training_pass_is_the_published_one(published_model, reference):
    model = published_model("vivit")
    kept_frames = reference["vivit.masked.kept_frames"]
    pixels = reference["vivit.pixel_values_bcthw"].transpose(1, 2)
    with torch.no_grad():
        outputs = model(pixels, kept_tubelets=kept_frames[:, ::2] // 2)
    assert_close(outputs.last_hidden_state, reference["vivit.masked.temporal_tokens"])


LOSSES = {
    "bce": {},
    "focal": {"loss": "focal"},
    "focal_noalpha": {"loss": "focal", "focal_alpha": None},
}


@needs_reference
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_spotting_losses_are_the_published_ones(name, weighted, reference):
    labels = reference["spot.targets"].masked_fill(reference["spot.ignore"].bool(), -100)
    weights = reference["spot.class_weights"] if weighted else None
    loss = spotting_loss(reference["spot.logits"], labels, class_weights=weights, **LOSSES[name])
    assert_close(loss, reference[f"spot.loss.{name}.{'w' if weighted else 'nw'}"])


@needs_reference
def test_mixup_loss_is_the_published_one(reference):
    """The published number is without class weights, the ignored entries permuted with their targets."""
    labels = reference["spot.targets"].masked_fill(reference["spot.ignore"].bool(), -100)
    mixed_in = labels[reference["spot.mixup.perm"]]
    loss = mixup_spotting_loss(reference["spot.logits"], labels, mixed_in, reference["spot.mixup.lam"])
    assert_close(loss, reference["spot.loss.bce.mixup"], atol=1e-6)


@pytest.fixture(scope="module")
def stage_1_model(tmp_path_factory, sizes):
    """The published stage-1 checkpoint: the trunks through the converter, heads and queue by name."""
    settings = sizes["ssl"]
    published = torch.load(REFERENCE / "vit_ssl.ckpt", weights_only=True)
    tensors = published["state_dict"]
    backbones = {}
    for trunk in ("trunk.", "momentum_trunk."):
        folder = tmp_path_factory.mktemp("ssl")
        part = {name: value for name, value in tensors.items() if not name.startswith(("trunk.", "momentum_trunk."))}
        part |= {"trunk." + name[len(trunk) :]: value for name, value in tensors.items() if name.startswith(trunk)}
        torch.save(published | {"state_dict": part}, folder / "ssl.ckpt")
        convert(folder / "ssl.ckpt", folder / "model", spatial_heads=[settings["num_heads"]])
        backbones[trunk] = ComedianModel.from_pretrained(folder / "model")
    config = backbones["trunk."].config
    config.contrastive_config = type(config).sub_configs["contrastive_config"](
        projector_sizes=settings["projector_dims"][1:],
        predictor_sizes=settings["predictor_dims"][1:],
        queue_size=tensors["queue"].shape[1],
    )
    model = ComedianForContrastivePretraining(config)
    model.comedian.load_state_dict(backbones["trunk."].state_dict())
    model.momentum_encoder.load_state_dict(backbones["momentum_trunk."].spatial_encoder.state_dict())
    for head in ("projector", "predictor", "momentum_projector"):
        weights = {name: value for name, value in tensors.items() if name.startswith(f"{head}.")}
        layers = getattr(model, head).layers
        for index, layer in enumerate(layers):
            layer.weight.data.copy_(weights[f"{head}.layers.{2 * index}.weight"])
            assert (layer.bias is not None) == (f"{head}.layers.{2 * index}.bias" in weights)
            if layer.bias is not None:
                layer.bias.data.copy_(weights[f"{head}.layers.{2 * index}.bias"])
    model.queue.copy_(tensors["queue"].T)
    return model.eval()


@needs_reference
def test_stage_1_embeddings_are_the_published_ones(stage_1_model, reference):
    for view in (0, 1):
        clips = reference[f"ssl.view{view}"].transpose(1, 2)
        with torch.no_grad():
            assert_close(stage_1_model.compute_queries(clips), reference[f"ssl.q{view}"])
            assert_close(stage_1_model.compute_keys(clips), reference[f"ssl.z{view}"])


STAGE_1_LOSSES = {
    "soccernet": {"contrastive_weight": 1.0, "temperature": 0.1, "momentum_temperature": 0.07},
    "half": {"contrastive_weight": 0.5, "temperature": 0.1, "momentum_temperature": 0.05},
}


@needs_reference
@pytest.mark.parametrize("name", STAGE_1_LOSSES)
@pytest.mark.parametrize("use_batch_keys", [False, True])
def test_stage_1_losses_are_the_published_ones(name, use_batch_keys, reference, stage_1_model):
    settings = STAGE_1_LOSSES[name] | {"use_batch_keys": use_batch_keys}
    expected = reference[f"ssl.loss{'_use_keys' if use_batch_keys else ''}.{name}"]
    queue = reference["ssl.queue_dxk"].T
    ways = [
        soft_contrastive_loss(reference[f"ssl.q{view}"], reference[f"ssl.z{1 - view}"], queue, **settings)
        for view in (0, 1)
    ]
    assert_close(torch.stack(ways).mean(), expected)
    # and the whole model, from pixels
    stage_1_model.queue.copy_(queue)
    for field, value in settings.items():
        setattr(stage_1_model.config.contrastive_config, field, value)
    views = [reference[f"ssl.view{view}"].transpose(1, 2) for view in (0, 1)]
    with torch.no_grad():
        assert_close(stage_1_model(views[0], second_view=views[1]).loss, expected, atol=2e-5)


DISTILLATION_LOSSES = [
    (keys, everything, radius, aligned, weight, temperature)
    for keys, everything, radius, aligned, weight in (
        (0, 0, 0, 1, 0.5),
        (0, 0, 1, 0, 0.5),
        (0, 1, 0, 1, 0.5),
        (0, 1, 1, 1, 0.7),
        (1, 0, 0, 1, 0.5),
        (1, 0, 2, 0, 0.3),
        (1, 0, 2, 1, 0.5),
    )
    for temperature in (0.05, 0.07)
]


@needs_reference
@pytest.mark.parametrize("keys, everything, radius, aligned, weight, temperature", DISTILLATION_LOSSES)
def test_stage_2_losses_are_the_published_ones(
    keys, everything, radius, aligned, weight, temperature, reference, sizes
):
    shape = (sizes["distill"]["batch"], sizes["distill"]["tokens"])
    loss = token_contrastive_loss(
        reference["distill.q"].unflatten(0, shape),
        reference["distill.k"].unflatten(0, shape),
        reference["distill.queue_dxk"].T,
        temperature=sizes["distill"]["temp"],
        momentum_temperature=temperature,
        contrastive_weight=weight,
        negatives="batch" if everything else "window" if keys else "queue",
        positive_radius=radius,
        use_aligned=bool(aligned),
    )
    name = f"keys{keys}.all{everything}.radius{radius}.aligned{aligned}.coeff{weight}.tempm{temperature}"
    assert_close(loss, reference[f"distill.loss.{name}"])


@needs_reference
def test_every_stage_2_number_is_compared(reference):
    assert sum(name.startswith("distill.loss.") for name in reference) == len(DISTILLATION_LOSSES)


OTHER_SIZES = {
    "vivit, wide image, tubelet 1": {
        **{"encoder": "vivit", "width": 24, "depths": [2], "heads": [4], "temporal_heads": 2, "classes": 5},
        **{"image": (16, 24), "patch": 8, "tubelet": 1, "frames": 5, "temporal_depth": 2},
    },
    "vivit, tall image, tubelet 4, narrow mlp": {
        **{"encoder": "vivit", "width": 12, "depths": [3], "heads": [1], "temporal_heads": 4},
        **{"image": (24, 8), "patch": 4, "tubelet": 4, "frames": 12, "mlp_ratio": 2},
    },
    "viswin, padded windows, odd merging": {
        **{"encoder": "viswin", "width": 8, "depths": [2, 2], "heads": [2, 4], "temporal_heads": 2},
        **{"image": (28, 20), "patch": 4, "tubelet": 2, "frames": 4, "window": 3},
    },
    "viswin, even window, wide image, tubelet 1": {
        **{"encoder": "viswin", "width": 6, "depths": [2, 1], "heads": [1, 3], "temporal_heads": 3, "classes": 2},
        **{"image": (16, 24), "patch": 2, "tubelet": 1, "frames": 2, "window": 4},
    },
    "viswin, grid smaller than the window": {
        **{"encoder": "viswin", "width": 8, "depths": [2, 2], "heads": [2, 2], "temporal_heads": 4},
        **{"image": (16, 20), "patch": 4, "tubelet": 4, "frames": 8, "window": 7},
    },
    "viswin, three stages, padding while shifted": {
        **{"encoder": "viswin", "width": 4, "depths": [2, 2, 2], "heads": [1, 2, 4], "temporal_heads": 1},
        **{"image": (22, 18), "patch": 2, "tubelet": 2, "frames": 2, "window": 5},
    },
}


@pytest.mark.parametrize("name", OTHER_SIZES)
def test_any_size_equals_the_naive_model(name, tmp_path):
    sizes = dict(OTHER_SIZES[name])
    temporal_heads = sizes.pop("temporal_heads")
    tensors = random_checkpoint(**sizes)
    save_file(tensors, tmp_path / "spotting.safetensors")
    folder = convert(
        tmp_path / "spotting.safetensors",
        tmp_path / "model",
        spatial_heads=sizes["heads"],
        temporal_heads=temporal_heads,
        image_size=sizes["image"],
    )
    model = ComedianForActionSpotting.from_pretrained(folder)
    pixels = torch.randn(2, sizes["frames"], 3, *sizes["image"])
    # fewer tubelets than a window, without the sample beside it
    part = pixels[1:, : sizes["tubelet"]]
    naive = (sizes["depths"], sizes["heads"], temporal_heads, sizes.get("window", 7))
    for videos in (pixels, part):
        expected = naive_forward(tensors, videos, *naive)
        for attention in ("eager", "sdpa"):
            model.set_attn_implementation(attention)
            with torch.no_grad():
                assert_close(model(videos).logits, expected, atol=2e-5)


@pytest.mark.parametrize("encoder", ["vivit", "viswin"])
def test_masked_pass_equals_the_naive_loop(encoder, tmp_path):
    sizes = {"width": 8, "depths": [1], "heads": [2], "image": (16, 8), "patch": 4, "tubelet": 2, "frames": 12}
    tensors = random_checkpoint(encoder, window=2, **sizes)
    save_file(tensors, tmp_path / "spotting.safetensors")
    folder = convert(
        tmp_path / "spotting.safetensors", tmp_path / "model", spatial_heads=[2], temporal_heads=2, image_size=(16, 8)
    )
    model = ComedianForActionSpotting.from_pretrained(folder)
    pixels = torch.randn(2, 12, 3, 16, 8)
    kept = torch.tensor([[0, 2, 3, 5], [1, 2, 4, 5]])
    with torch.no_grad():
        logits = model(pixels, kept_tubelets=kept).logits
    assert_close(logits, naive_forward(tensors, pixels, [1], [2], 2, 2, kept), atol=2e-5)

"""The model and its losses against the published system's own numbers (../shared/reference)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from comedian.conversion.lightning import convert_checkpoint
from comedian.models import ComedianForActionSpotting
from comedian.models.loss_comedian import mixup_spotting_loss, spotting_loss

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason="../shared/reference is not at hand")


@pytest.fixture(scope="module")
def reference():
    return load_file(REFERENCE / "reference.safetensors")


@pytest.fixture(scope="module")
def sizes():
    return json.loads((REFERENCE / "reference.json").read_text())


@pytest.fixture(scope="module")
def convert(tmp_path_factory, sizes):
    def convert_and_load(name: str):
        folder = tmp_path_factory.mktemp(name)
        heads = sizes[name]["spatial_num_heads"]
        convert_checkpoint(
            REFERENCE / f"{name}_spotting.ckpt",
            folder / "model",
            spatial_heads=heads if isinstance(heads, list) else [heads],
            temporal_heads=sizes[name]["temporal_num_heads"],
        )
        return ComedianForActionSpotting.from_pretrained(folder / "model").eval()

    return convert_and_load


@pytest.mark.parametrize("name", ["vivit", "viswin"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_tokens_and_logits_are_the_published_ones(name, attention, convert, reference):
    model = convert(name)
    model.set_attn_implementation(attention)
    pixels = reference[f"{name}.pixel_values_bcthw"].transpose(1, 2)
    with torch.no_grad():
        spatial = model.encode_spatial(pixels)
        temporal = model.encode_temporal(spatial)
        outputs = model(pixels)
    torch.testing.assert_close(spatial, reference[f"{name}.spatial_tokens"], atol=1e-5, rtol=0)
    torch.testing.assert_close(temporal, reference[f"{name}.temporal_tokens"], atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs.logits, reference[f"{name}.logits"], atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs.spatial_tokens, reference[f"{name}.spatial_tokens"], atol=1e-5, rtol=0)


def test_masked_training_pass_is_the_published_one(convert, reference):
    model = convert("vivit")
    kept_frames = reference["vivit.masked.kept_frames"]
    kept_tubelets = kept_frames[:, ::2] // 2
    pixels = reference["vivit.pixel_values_bcthw"].transpose(1, 2)
    with torch.no_grad():
        outputs = model(pixels, kept_tubelets=kept_tubelets)
    expected = reference["vivit.masked.temporal_tokens"]
    torch.testing.assert_close(outputs.last_hidden_state, expected, atol=1e-5, rtol=0)


LOSSES = {
    "bce": {},
    "focal": {"loss": "focal"},
    "focal_noalpha": {"loss": "focal", "focal_alpha": None},
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_spotting_losses_are_the_published_ones(name, weighted, reference):
    labels = reference["spot.targets"].masked_fill(reference["spot.ignore"].bool(), -100)
    weights = reference["spot.class_weights"] if weighted else None
    loss = spotting_loss(reference["spot.logits"], labels, class_weights=weights, **LOSSES[name])
    expected = reference[f"spot.loss.{name}.{'w' if weighted else 'nw'}"]
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_mixup_loss_variants(ignored, weighted, reference):
    """One of the variants is the published one; print which when none is."""
    labels = reference["spot.targets"]
    if ignored:
        labels = labels.masked_fill(reference["spot.ignore"].bool(), -100)
    weights = reference["spot.class_weights"] if weighted else None
    loss = mixup_spotting_loss(
        reference["spot.logits"],
        labels,
        labels[reference["spot.mixup.perm"]],
        reference["spot.mixup.lam"],
        class_weights=weights,
    )
    print(ignored, weighted, float(loss), float(reference["spot.loss.bce.mixup"]))

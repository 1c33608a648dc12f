"""Quantised models score and spot as in float32; `make test-adapters` installs the libraries."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BitsAndBytesConfig, QuantoConfig, TorchAoConfig, pipeline

from comedian import ActionSpotter
from comedian.inference.torch_model import TorchModel
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from testing_utils import compute_in_float32, tiny_config

pytestmark = pytest.mark.adapters
DEMO = Path(__file__).parents[2] / "examples" / "demo"


def torchao(settings_class):
    return TorchAoConfig(getattr(pytest.importorskip("torchao.quantization"), settings_class)())


def quanto():
    pytest.importorskip("optimum.quanto")
    return QuantoConfig(weights="int8")


def bitsandbytes(**options):
    pytest.importorskip("bitsandbytes")
    return BitsAndBytesConfig(**options)


# PyTorch's own needs no library, so `make test` runs it too
DYNAMIC = "quantize_dynamic"
EIGHT_BITS = {
    "torchao, weights": lambda: torchao("Int8WeightOnlyConfig"),
    "torchao, dynamic": lambda: torchao("Int8DynamicActivationInt8WeightConfig"),
    "quanto": quanto,
    "bitsandbytes": lambda: bitsandbytes(load_in_8bit=True),
}
FOUR_BITS = {
    "fp4": lambda: bitsandbytes(load_in_4bit=True),
    "nf4": lambda: bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "nf4, bfloat16": lambda: bitsandbytes(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    ),
}
each_encoder = pytest.mark.parametrize("encoder", ["vivit", "viswin", "convolutional"])


def quantise(folder, library):
    if library == DYNAMIC:
        model = ComedianForActionSpotting.from_pretrained(folder)
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    config = (EIGHT_BITS | FOUR_BITS)[library]()
    return ComedianForActionSpotting.from_pretrained(folder, quantization_config=config)


@pytest.fixture(scope="module")
def save_model(tmp_path_factory):
    """Save a model whose random weights are large enough for scores that differ, and return its folder."""

    def save(encoder):
        folder = tmp_path_factory.mktemp("model")
        torch.manual_seed(0)
        config = tiny_config(spatial_encoder=encoder, spatial_hidden_size=64, initializer_range=0.1)
        ComedianForActionSpotting(config).save_pretrained(folder)
        return folder

    return save


def correlation(one, other) -> float:
    """Of a label's scores, the lowest: that labels differ in their mean is none."""
    one, other = (np.asarray(scores).reshape(-1, np.shape(scores)[-1]) for scores in (one, other))
    return min(np.corrcoef(*pair)[0, 1] for pair in zip(one.T, other.T, strict=True))


@torch.no_grad()
def logits(model):
    torch.manual_seed(0)
    return model(torch.randn(4, 8, 3, 16, 16)).logits


@each_encoder
@pytest.mark.parametrize("library", [*EIGHT_BITS, DYNAMIC])
def test_eight_bits_hardly_change_the_scores(save_model, encoder, library):
    folder = save_model(encoder)
    model, quantised = ComedianForActionSpotting.from_pretrained(folder), quantise(folder, library)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    # some libraries leave out the last layer, or subclasses of Linear
    plain = [name for name in linear if type(quantised.get_submodule(name).weight) is nn.Parameter]
    assert len(plain) <= 2 < len(linear) / 2
    assert correlation(logits(quantised), logits(model)) > 0.99


@each_encoder
@pytest.mark.parametrize("library", ["fp4", "nf4"])
def test_four_bits_compute_with_the_weights_that_they_stand_for(save_model, encoder, library):
    """Four bits change the scores of random weights (correlation 0.77 to 0.98), as the same weights in float32 do."""
    folder = save_model(encoder)
    quantised, rounded = quantise(folder, library), ComedianForActionSpotting.from_pretrained(folder)
    functional = pytest.importorskip("bitsandbytes.functional")
    packed = {name: layer.weight for name, layer in quantised.named_modules() if hasattr(layer, "quant_state")}
    assert len(packed) > 5
    for name, weight in packed.items():
        rounded.get_submodule(name).weight.data = functional.dequantize_4bit(weight.data, weight.quant_state).float()
    # the library multiplies in bfloat16 where the CPU does, whose products are right to 1 in 256
    tolerance = 0.03 if torch.cpu._is_avx512_bf16_supported() else 1e-3
    torch.testing.assert_close(logits(quantised), logits(rounded), atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def expected():
    """Scores of the demo's video by its trained model in float32."""
    with pytest.MonkeyPatch.context() as patch:
        compute_in_float32(patch)
        return ActionSpotter.from_pretrained(DEMO / "model", device="cpu").score(DEMO / "match" / "1_224p.mkv")


@pytest.mark.parametrize("library", [*EIGHT_BITS, DYNAMIC, *FOUR_BITS])
def test_a_trained_model_is_spotted_with(library, expected, monkeypatch):
    # on a CPU where others are run in bfloat16
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    model, video = quantise(DEMO / "model", library), DEMO / "match" / "1_224p.mkv"
    processor = ComedianVideoProcessor.from_pretrained(DEMO / "model")
    device = {} if hasattr(model, "hf_device_map") else {"device": "cpu"}
    found = pipeline("action-spotting", model=model, video_processor=processor, **device)(str(video))
    assert len(found) > 2
    # a model that has been used is not changed by making a spotter of it
    spotter = ActionSpotter([TorchModel(model, processor)])
    scores = spotter.score(video)
    assert correlation(scores, expected) > 0.99
    for one, other in zip(found, spotter.spots([scores]), strict=True):
        assert one == other | {"score": pytest.approx(other["score"], abs=1e-3)}

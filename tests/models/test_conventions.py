"""What transformers and torch expect of every model: compilers, function transforms, the meta device, quantisation."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.integrations import flex_attention

from comedian.models import (
    ComedianContrastiveConfig,
    ComedianDistillationConfig,
    ComedianForActionSpotting,
    ComedianForContrastivePretraining,
    ComedianForFeatureDistillation,
)
from testing_utils import tiny_config

MODELS = [ComedianForActionSpotting, ComedianForContrastivePretraining, ComedianForFeatureDistillation]
each_model = pytest.mark.parametrize("model_class", MODELS)
both_encoders = pytest.mark.parametrize("encoder", ["vivit", "viswin"])


def model_and_inputs(model_class, encoder="vivit"):
    heads = {"projector_sizes": [12, 8], "queue_size": 8}
    config = tiny_config(
        spatial_encoder=encoder,
        initializer_range=0.2,
        contrastive_config=ComedianContrastiveConfig(predictor_sizes=[8], contrastive_weight=0.5, **heads),
        distillation_config=ComedianDistillationConfig(**heads),
    )
    pixels = torch.randn(2, 8, 3, 16, 16)
    inputs = {
        ComedianForActionSpotting: {"pixel_values_videos": pixels, "labels": torch.ones(2, 4, 3)},
        ComedianForContrastivePretraining: {"pixel_values_videos": pixels[:, :2], "second_view": pixels[:, 2:4]},
        ComedianForFeatureDistillation: {"pixel_values_videos": pixels, "teacher_features": torch.randn(2, 4, 8)},
    }
    return model_class(config), inputs[model_class]


@each_model
@both_encoders
def test_torch_func_has_the_gradients_of_autograd(model_class, encoder):
    model, inputs = model_and_inputs(model_class, encoder)
    model.eval()
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    gradients = torch.func.grad(lambda given: torch.func.functional_call(model, given, kwargs=inputs).loss)(weights)
    model(**inputs).loss.backward()
    for name, weight in weights.items():
        expected = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(gradients[name], expected, msg=name)


@each_model
def test_whole_models_compile_with_their_losses(model_class):
    model, inputs = model_and_inputs(model_class)
    model.eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")(**inputs)
    torch.testing.assert_close(compiled.loss, model(**inputs).loss)


@each_model
def test_the_meta_device_computes_shapes(model_class):
    model, inputs = model_and_inputs(model_class)
    expected = model(**inputs)
    model.to("meta").train()
    outputs = model(**{name: tensor.to("meta") for name, tensor in inputs.items()})
    outputs.loss.backward()
    assert {name: tensor.shape for name, tensor in outputs.items()} == {
        name: tensor.shape for name, tensor in expected.items() if name != "spatial_tokens"
    } | ({"spatial_tokens": outputs.spatial_tokens.shape} if "spatial_tokens" in outputs else {})


@both_encoders
def test_stages_1_and_2_return_hidden_states_and_attentions(encoder):
    asked = {"output_hidden_states": True, "output_attentions": True}
    model, inputs = model_and_inputs(ComedianForFeatureDistillation, encoder)
    outputs = model.eval()(**inputs, **asked)
    assert len(outputs.hidden_states) == 3 and len(outputs.attentions) == 2
    torch.testing.assert_close(
        model.comedian.temporal_encoder.norm(outputs.hidden_states[-1]), outputs.last_hidden_state
    )
    model, inputs = model_and_inputs(ComedianForContrastivePretraining, encoder)
    outputs = model.eval()(**inputs, **asked)
    clips = torch.cat([inputs["pixel_values_videos"], inputs["second_view"]])
    spatial = model.comedian(clips, output_spatial_hidden_states=True, output_spatial_attentions=True)
    assert len(outputs.hidden_states) == len(spatial.spatial_hidden_states) > 1
    for found, expected in zip(outputs.hidden_states, spatial.spatial_hidden_states, strict=True):
        torch.testing.assert_close(found, expected)
    for found, expected in zip(outputs.attentions, spatial.spatial_attentions, strict=True):
        torch.testing.assert_close(found, expected)
    assert "hidden_states" not in model(**inputs)


@both_encoders
def test_flex_attention_scores_as_sdpa_does(encoder, tmp_path, monkeypatch):
    # transformers compiles it, which takes minutes on a CPU
    monkeypatch.setattr(flex_attention, "WrappedFlexAttention", lambda training: lambda: flex_attention.flex_attention)
    model, inputs = model_and_inputs(ComedianForActionSpotting, encoder)
    model.save_pretrained(tmp_path)
    logits = {}
    for name in ("sdpa", "flex_attention"):
        loaded = ComedianForActionSpotting.from_pretrained(tmp_path, attn_implementation=name)
        with torch.no_grad():
            logits[name] = loaded(inputs["pixel_values_videos"]).logits
    assert logits["sdpa"].std() > 0.01
    torch.testing.assert_close(logits["flex_attention"], logits["sdpa"], atol=1e-6, rtol=1e-5)


class PackedLinear(nn.Module):
    """A quantised layer: integer weights, activations of at most 3 dimensions."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.scale = linear.weight.abs().amax() / 127
        self.weight = nn.Parameter((linear.weight / self.scale).round().to(torch.int8), requires_grad=False)
        self.bias = linear.bias

    def forward(self, states):
        assert states.ndim <= 3 and states.is_floating_point()
        return F.linear(states, self.weight.to(states.dtype) * self.scale.to(states.dtype), self.bias)


@both_encoders
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_of_integers_hardly_change_the_scores(encoder, dtype):
    config = tiny_config(spatial_encoder=encoder, initializer_range=0.2, sound=True, offset_radius_s=1.0)
    model = ComedianForActionSpotting(config).to(dtype).eval()
    nn.init.normal_(model.sound_encoder.projection.weight)
    inputs = {"pixel_values_videos": torch.randn(2, 8, 3, 16, 16), "sound": torch.rand(2, 4, 12, 64)}
    with torch.no_grad():
        expected = model(**inputs)
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear):
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, PackedLinear(module))
        outputs = model(**inputs)
    for name in ("logits", "offsets_s"):
        pair = torch.stack([expected[name].flatten(), outputs[name].flatten()]).float()
        assert torch.corrcoef(pair)[0, 1] > 0.98, name


def test_first_queues_are_the_same_however_a_model_is_made(tmp_path):
    first, _ = model_and_inputs(ComedianForContrastivePretraining)
    second, _ = model_and_inputs(ComedianForContrastivePretraining)
    first.comedian.save_pretrained(tmp_path)
    loaded = ComedianForContrastivePretraining.from_pretrained(tmp_path, config=first.config)
    assert torch.equal(first.queue, second.queue) and torch.equal(first.queue, loaded.queue)
    torch.testing.assert_close(first.queue.norm(dim=1), torch.ones(8))


@pytest.mark.parametrize("model_class", MODELS[1:])
def test_training_without_queue_updates_keeps_bounded_memory(model_class):
    model, inputs = model_and_inputs(model_class)
    model.train()
    for _ in range(20):
        model(**inputs)
    kept = sum(keys.shape[0] * keys.shape[1] for keys in model._waiting_keys)
    assert len(model.queue) <= kept < 2 * len(model.queue)


def test_displacements_without_labels_are_refused():
    model = ComedianForActionSpotting(tiny_config(offset_radius_s=1.0))
    with pytest.raises(ValueError, match="`offset_targets_s` is given without `labels`"):
        model(torch.randn(1, 8, 3, 16, 16), offset_targets_s=torch.zeros(1, 4, 3))

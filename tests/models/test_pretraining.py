"""Stages 1 and 2: queue, momentum branch, loading, and what is trained."""

import math

import pytest
import torch
from torch.nn import functional as F

from comedian.errors import InputError
from comedian.models import (
    ComedianForActionSpotting,
    ComedianForContrastivePretraining,
    ComedianForFeatureDistillation,
    ComedianModel,
)
from comedian.training.recipe import ModelSection
from comedian.training.stage import build_model
from testing_utils import tiny_config

CONTRASTIVE = {"projector_sizes": [12, 6], "predictor_sizes": [10, 6], "queue_size": 10}
DISTILLATION = {"projector_sizes": [12, 6], "queue_size": 10}


def contrastive_model(**overrides) -> ComedianForContrastivePretraining:
    return ComedianForContrastivePretraining(tiny_config(contrastive_config=dict(CONTRASTIVE), **overrides))


def distillation_model(**overrides) -> ComedianForFeatureDistillation:
    return ComedianForFeatureDistillation(tiny_config(distillation_config=dict(DISTILLATION), **overrides))


def views(batch_size: int = 3):
    return torch.randn(2, batch_size, 2, 3, 16, 16)


def same_weights(one, other) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


@pytest.mark.parametrize("encoder", ["vivit", "viswin", "convolutional"])
def test_every_online_weight_has_a_gradient_and_no_other(encoder):
    model = contrastive_model(spatial_encoder=encoder)
    first, second = views()
    model(first, second_view=second).loss.backward()
    online = ("comedian.spatial_encoder.", "projector.", "predictor.")
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == name.startswith(online), name
        assert (parameter.grad is not None) == name.startswith(online), name


@pytest.mark.parametrize("encoder", ["vivit", "viswin", "convolutional"])
def test_every_weight_of_stage_2_has_a_gradient(encoder):
    model = distillation_model(spatial_encoder=encoder)
    model(torch.randn(2, 8, 3, 16, 16), torch.randn(2, 4, 6)).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("encoder", ["vivit", "viswin"])
def test_hidden_states_of_chosen_layers(encoder):
    model, clips = contrastive_model(spatial_encoder=encoder).eval(), views()[0]
    every = model(clips, output_hidden_states=True).hidden_states
    chosen = model(clips, output_hidden_states=[-1]).hidden_states
    assert len(chosen) == len(every) > 1
    assert torch.equal(chosen[-1], every[-1]) and not any(states is not None for states in chosen[:-1])


def test_the_momentum_branch_starts_as_a_copy_and_follows():
    model = contrastive_model()
    assert same_weights(model.comedian.spatial_encoder.state_dict(), model.momentum_encoder.state_dict())
    before = {name: value.clone() for name, value in model.momentum_projector.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    started = {name: value.clone() for name, value in model.momentum_projector.state_dict().items()}
    model.update_momentum_branch(0.75)
    for name, online in model.projector.state_dict().items():
        torch.testing.assert_close(
            model.momentum_projector.state_dict()[name], 0.75 * started[name] + 0.25 * online, msg=name
        )
        assert not torch.equal(before[name], started[name])
    model.reset_momentum_branch()
    assert same_weights(model.projector.state_dict(), model.momentum_projector.state_dict())


def test_keys_are_deterministic_while_queries_drop_paths():
    model = contrastive_model(drop_path_rate=0.5, hidden_dropout_prob=0.3).train()
    clips = views()[0]
    assert torch.equal(model.compute_keys(clips), model.compute_keys(clips))
    assert not torch.equal(model.compute_queries(clips), model.compute_queries(clips))


def test_the_loss_is_symmetric_in_the_views():
    model = contrastive_model(drop_path_rate=0.0)
    first, second = views()
    torch.testing.assert_close(model(first, second_view=second).loss, model(second, second_view=first).loss)


def test_diagnostics_are_means_over_pairs():
    model = contrastive_model(drop_path_rate=0.0)
    first, second = views(5)
    outputs = model(first, second_view=second)
    queries, keys = outputs.query_embeddings, outputs.key_embeddings
    pairs = [F.cosine_similarity(queries[view], keys[1 - view]) for view in (0, 1)]
    assert outputs.positive_similarity.item() == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-6)
    similarities = queries.flatten(0, 1) @ model.queue.T
    assert outputs.negative_similarity.item() == pytest.approx(similarities.mean().item(), abs=1e-6)
    spread = queries.flatten(0, 1).std(dim=0, correction=0).mean().item() * math.sqrt(6)
    assert outputs.embedding_std.item() == pytest.approx(spread, abs=1e-6)


@pytest.mark.parametrize("batches", [[1], [3, 4, 5], [10], [10, 10], [7, 10, 4], [11], [23, 3]])
def test_the_queue_is_a_ring_for_any_batch(batches):
    model = contrastive_model()
    slots, pointer = list(model.queue.clone()), 0
    for size in batches:
        keys = torch.randn(1, size, 6)
        model.hold_keys(keys)
        model.update_queue()
        for key in keys[0]:
            slots[pointer] = key
            pointer = (pointer + 1) % 10
        assert torch.equal(model.queue, torch.stack(slots))
        assert model.queue_ptr.item() == pointer


def test_micro_batches_enter_the_queue_as_one_batch():
    whole, parts = contrastive_model(), contrastive_model()
    parts.load_state_dict(whole.state_dict())
    keys = torch.randn(2, 4, 6)
    whole.hold_keys(keys)
    whole.update_queue()
    before = parts.queue.clone()
    for part in keys.split(2, dim=1):
        parts.hold_keys(part)
        assert torch.equal(parts.queue, before)
    parts.update_queue()
    assert torch.equal(whole.queue, parts.queue)


def test_only_training_passes_hold_keys():
    model = contrastive_model()
    first, second = views()
    before = model.queue.clone()
    model.eval()(first, second_view=second)
    model.update_queue()
    assert torch.equal(model.queue, before) and model.queue_ptr.item() == 0
    outputs = model.train()(first, second_view=second)
    model.update_queue()
    assert torch.equal(model.queue[:6], outputs.key_embeddings.flatten(0, 1))
    assert model.queue_ptr.item() == 6


def test_features_enter_the_queue_normalised():
    model = distillation_model()
    features = torch.randn(2, 4, 6)
    model(torch.randn(2, 8, 3, 16, 16), features)
    model.update_queue()
    torch.testing.assert_close(model.queue[:8], F.normalize(features, dim=2).flatten(0, 1))


def test_saving_and_loading_keeps_momentum_queue_and_pointer(tmp_path):
    model = contrastive_model()
    first, second = views()
    model(first, second_view=second).loss.backward()
    with torch.no_grad():
        for parameter in model.comedian.parameters():
            parameter.add_(0.1)
    model.update_queue()
    model.save_pretrained(tmp_path)
    loaded = ComedianForContrastivePretraining.from_pretrained(tmp_path)
    assert same_weights(model.state_dict(), loaded.state_dict())
    assert not any(parameter.requires_grad for parameter in loaded.momentum_encoder.parameters())
    assert loaded.config.contrastive_config.queue_size == 10


def test_a_plain_backbone_resets_the_momentum_branch_and_nothing_is_uninitialised(tmp_path):
    backbone = ComedianModel(tiny_config())
    backbone.save_pretrained(tmp_path)
    loaded = ComedianForContrastivePretraining.from_pretrained(tmp_path, contrastive_config=dict(CONTRASTIVE))
    assert same_weights(backbone.state_dict(), loaded.comedian.state_dict())
    assert same_weights(backbone.spatial_encoder.state_dict(), loaded.momentum_encoder.state_dict())
    assert same_weights(loaded.projector.state_dict(), loaded.momentum_projector.state_dict())
    torch.testing.assert_close(loaded.queue.norm(dim=1), torch.ones(10))
    assert loaded.queue_ptr.tolist() == [0]
    assert not any(parameter.requires_grad for parameter in loaded.momentum_projector.parameters())
    distilled = ComedianForFeatureDistillation.from_pretrained(tmp_path, distillation_config=dict(DISTILLATION))
    assert same_weights(backbone.state_dict(), distilled.comedian.state_dict())
    torch.testing.assert_close(distilled.queue.norm(dim=1), torch.ones(10))
    assert distilled.queue_ptr.tolist() == [0]
    for model in (loaded, distilled):
        for name, tensor in model.state_dict().items():
            assert torch.isfinite(tensor).all() and tensor.abs().max() < 10, name


def test_spotting_takes_the_online_weights_of_a_checkpoint_in_mid_training(tmp_path):
    model = contrastive_model()
    model.save_pretrained(tmp_path)
    spotting = ComedianForActionSpotting.from_pretrained(tmp_path)
    assert same_weights(model.comedian.state_dict(), spotting.comedian.state_dict())


def test_resampled_position_tables_reach_the_momentum_branch(tmp_path):
    contrastive_model().save_pretrained(tmp_path)
    loaded = ComedianForContrastivePretraining.from_pretrained(tmp_path, image_size=[16, 24])
    first, second = torch.randn(2, 2, 2, 3, 16, 24)
    assert torch.isfinite(loaded(first, second_view=second).loss)


@pytest.mark.parametrize(
    "config, fields, message",
    [
        ("contrastive_config", {"predictor_sizes": [8, 4]}, "one width"),
        ("contrastive_config", {"queue_size": 0}, "`queue_size` is 0"),
        ("contrastive_config", {"temperature": -1.0}, "`temperature`"),
        ("contrastive_config", {"contrastive_weight": 1.5}, "`contrastive_weight`"),
        ("distillation_config", {"projector_sizes": []}, "`projector_sizes`"),
        ("distillation_config", {"negatives": "some"}, "`negatives`"),
        ("distillation_config", {"use_aligned": False}, "no positive"),
        ("distillation_config", {"queue_size": "many"}, "queue_size"),
    ],
)
def test_impossible_settings_are_refused_by_name(config, fields, message):
    with pytest.raises(Exception, match=message):
        tiny_config(**{config: fields})


def test_clips_and_features_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="one tubelet each"):
        contrastive_model()(torch.randn(2, 4, 3, 16, 16))
    with pytest.raises(ValueError, match=r"\(2, 4, 5\).*\(2, 4, 6\)"):
        distillation_model()(torch.randn(2, 8, 3, 16, 16), torch.randn(2, 4, 5))


def test_heads_start_as_pytorch_starts_linear_layers():
    heads = {"projector_sizes": [64, 32], "predictor_sizes": [64, 32], "queue_size": 10}
    model = ComedianForContrastivePretraining(tiny_config(contrastive_config=heads))
    for layer in [*model.projector.layers, *model.predictor.layers]:
        bound = layer.in_features**-0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        if layer.bias is not None:
            assert 0.5 * bound < layer.bias.abs().max() <= bound
    assert model.predictor.layers[-1].bias is None
    assert same_weights(model.projector.state_dict(), model.momentum_projector.state_dict())


def start_of_stage_2(folder, overrides=None):
    section = ModelSection(checkpoint=str(folder), overrides={"distillation_config": DISTILLATION | (overrides or {})})
    return build_model(ComedianForFeatureDistillation, section, folder)


def save_stage_1(folder, **config):
    model = ComedianModel(tiny_config(**config))
    weights = {name: value for name, value in model.state_dict().items() if name.startswith("spatial_encoder.")}
    model.save_pretrained(folder, state_dict=weights)
    return model


def test_stage_2_starts_its_temporal_layers_and_norm_as_the_spatial_ones(tmp_path):
    stage_1 = save_stage_1(tmp_path, spatial_depths=[3], temporal_depth=2)
    spatial = stage_1.spatial_encoder.state_dict()
    with torch.no_grad():
        stage_1.spatial_encoder.norm.weight.mul_(3)
    stage_1.save_pretrained(tmp_path, state_dict={f"spatial_encoder.{name}": spatial[name] for name in spatial})
    temporal = start_of_stage_2(tmp_path).comedian.temporal_encoder
    for index in range(2):
        assert same_weights(temporal.layers[index].state_dict(), stage_1.spatial_encoder.layers[index].state_dict())
    assert same_weights(temporal.norm.state_dict(), stage_1.spatial_encoder.norm.state_dict())
    assert not temporal.mask_token.any()
    # two encoders, not one twice
    assert temporal.layers[0].mlp.fc1.weight is not stage_1.spatial_encoder.layers[0].mlp.fc1.weight


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        ({}, {"copy_spatial_layers": False}),
        ({"spatial_encoder": "viswin"}, {}),
        ({"spatial_depths": [1]}, {}),
    ],
)
def test_a_temporal_encoder_that_is_not_copied_starts_afresh(config, overrides, tmp_path):
    stage_1 = save_stage_1(tmp_path, **config)
    temporal = start_of_stage_2(tmp_path, overrides).comedian.temporal_encoder
    weight = temporal.layers[0].mlp.fc1.weight
    assert 0.015 < weight.std() < 0.025
    if config.get("spatial_encoder") != "viswin":
        assert not torch.equal(weight, stage_1.spatial_encoder.layers[0].mlp.fc1.weight)


def test_a_trained_temporal_encoder_stays(tmp_path):
    backbone = ComedianModel(tiny_config())
    backbone.save_pretrained(tmp_path)
    assert same_weights(
        start_of_stage_2(tmp_path).comedian.temporal_encoder.state_dict(), backbone.temporal_encoder.state_dict()
    )


def test_a_copy_that_does_not_fit_is_refused(tmp_path):
    save_stage_1(tmp_path, spatial_encoder="viswin")
    with pytest.raises(InputError, match="copy_spatial_layers"):
        start_of_stage_2(tmp_path, {"copy_spatial_layers": True})

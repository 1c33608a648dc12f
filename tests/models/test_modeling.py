"""ComedianModel and ComedianForActionSpotting as transformers models."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from transformers import AttentionInterface, AutoModel, AutoModelForVideoClassification
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from comedian.models import ComedianForActionSpotting, ComedianModel
from comedian.models.encoders_comedian import ComedianMLP, ComedianTemporalAttention
from comedian.models.modeling_comedian import keep_tubelets
from testing_utils import tiny_config

ENCODERS = ["vivit", "viswin", "convolutional"]
both_encoders = pytest.mark.parametrize("encoder", ENCODERS)


def tiny_model(encoder: str, **overrides) -> ComedianForActionSpotting:
    """A model whose every weight matters: biases and norms are random too."""
    model = ComedianForActionSpotting(tiny_config(spatial_encoder=encoder, **overrides)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def nan_memory():
    """Uninitialised memory holds NaN, not what happened to be there."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def pixels():
    return torch.randn(2, 8, 3, 16, 16)


@both_encoders
def test_shapes(encoder, pixels):
    model = tiny_model(encoder)
    outputs = model(pixels, labels=torch.zeros(2, 4, 3))
    width = model.config.hidden_size
    assert outputs.logits.shape == (2, 4, 3)
    assert outputs.spatial_tokens.shape == outputs.last_hidden_state.shape == (2, 4, width)
    assert outputs.loss.shape == ()
    assert model.comedian(pixels).last_hidden_state.shape == (2, 4, width)


@pytest.mark.parametrize("prior", [0.01, 0.3])
def test_an_untrained_classifier_gives_every_label_its_prior(prior, pixels):
    model = ComedianForActionSpotting(tiny_config(classifier_prior=prior, scores_per_token=2)).eval()
    torch.nn.init.zeros_(model.classifier.weight)
    torch.testing.assert_close(model(pixels).logits.sigmoid(), torch.full((2, 8, 3), prior))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_weights_drop_out_in_training_alone(attention):
    config = tiny_config(attention_probs_dropout_prob=0.25)
    config._attn_implementation = attention
    layer = ComedianTemporalAttention(config, hidden_size=16, num_heads=2)
    # query and key 0: each of 4 tokens has weight 1/4; value 1; each weight kept is divided by 3/4
    for weights, bias in ((layer.qkv, [0.0, 0.0, 1.0]), (layer.projection, [0.0])):
        torch.nn.init.zeros_(weights.weight)
        weights.bias.data = torch.tensor(bias).repeat_interleave(16)
    torch.nn.init.eye_(layer.projection.weight)
    tokens = torch.randn(500, 4, 16)
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(tokens)[0], torch.ones(500, 4, 16))
        kept = 3 * layer.train()(tokens)[0]
    torch.testing.assert_close(kept, kept.round(), atol=1e-5, rtol=0)
    # of 4 weights, each kept with probability 3/4
    shares = torch.bincount(kept.round().long().flatten(), minlength=5) / kept.numel()
    expected = torch.tensor([math.comb(4, n) * 0.75**n * 0.25 ** (4 - n) for n in range(5)])
    torch.testing.assert_close(shares, expected, atol=0.03, rtol=0)


@both_encoders
def test_windows_reuse_tokens_encoded_once(encoder):
    model = tiny_model(encoder)
    video = torch.randn(1, 14, 3, 16, 16)
    with torch.no_grad():
        tokens = model.encode_spatial(video)
        for start in range(4):
            reused = model.classify(model.encode_temporal(tokens[:, start : start + 4]))
            whole = model(video[:, 2 * start : 2 * start + 8]).logits
            torch.testing.assert_close(reused, whole, atol=1e-5, rtol=0)


@both_encoders
@pytest.mark.parametrize("settings", [{}, {"spotting_loss": "focal", "class_weights": [[1.0] * 3, [2.0] * 3]}])
def test_every_parameter_is_trained(encoder, settings, pixels):
    # layers that are dropped have no gradient
    model = tiny_model(encoder, drop_path_rate=0.0, **settings).train()
    loss = model(pixels, labels=torch.randint(0, 2, (2, 4, 3)).float()).loss
    loss.backward()
    assert loss.isfinite()
    untrained = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert untrained == []


@both_encoders
def test_ignored_labels_and_mixup_reach_the_loss(encoder, pixels):
    model = tiny_model(encoder)
    labels = torch.randint(0, 2, (2, 4, 3)).float()
    ignored = labels.clone()
    ignored[:, 1:] = -100
    outputs = model(pixels, labels=ignored)
    expected = F.binary_cross_entropy_with_logits(outputs.logits[:, :1], labels[:, :1])
    torch.testing.assert_close(outputs.loss, expected)
    share = torch.tensor([0.3, 0.9])
    mixed = model(pixels, labels=labels, mixup_targets=labels.flip(0), mixup_weights=share).loss
    soft = share[:, None, None] * labels + (1 - share[:, None, None]) * labels.flip(0)
    torch.testing.assert_close(mixed, F.binary_cross_entropy_with_logits(outputs.logits, soft))


def test_one_class_weight_holds_for_all_labels(pixels):
    labels = torch.randint(0, 2, (2, 4, 3)).float()
    model = tiny_model("vivit", class_weights=[[1.0] * 3, [4.0] * 3])
    expected = model(pixels, labels=labels).loss
    model.config = tiny_config(class_weights=[[1], [4]])
    assert model(pixels, labels=labels).loss == expected


@both_encoders
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_computed_again_to_the_bit(encoder, dtype, pixels, monkeypatch):
    model = tiny_model(encoder, temporal_mask_ratio=0.0, drop_path_rate=0.0).train()
    usual, activated, gradients, kept = ComedianMLP.forward, [], [], []

    def memory_of(tensor):
        return StorageWeakRef(tensor.untyped_storage())

    for mlp in (module for module in model.modules() if isinstance(module, ComedianMLP)):
        mlp.activation.register_forward_hook(lambda _mlp, _inputs, output: activated.append(memory_of(output)))
    for forward in (usual, lambda mlp, states, _recompute: usual(mlp, states)):
        monkeypatch.setattr(ComedianMLP, "forward", forward)
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(pixels, labels=torch.ones(2, 4, 3)).loss
        kept.append([not memory.expired() for memory in activated])
        loss.backward()
        activated.clear()
        gradients.append([weight.grad for weight in model.parameters() if weight.grad is not None])
    assert not any(kept[0]) and all(kept[1])
    assert gradients[0] and all(map(torch.equal, *gradients))


@both_encoders
def test_gradient_checkpointing_changes_nothing(encoder, pixels):
    model = tiny_model(encoder, temporal_mask_ratio=0.0, drop_path_rate=0.0).train()
    labels = torch.ones(2, 4, 3)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        model.zero_grad()
        model(pixels, labels=labels).loss.backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    assert gradients[0]
    torch.testing.assert_close(gradients[0], gradients[1])


@both_encoders
def test_attention_implementations_agree(encoder, pixels):
    model = tiny_model(encoder)
    logits = {}
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        logits[attention] = model(pixels).logits
    torch.testing.assert_close(logits["eager"], logits["sdpa"], atol=1e-5, rtol=0)


@both_encoders
def test_attention_goes_through_the_interface_of_transformers(encoder, pixels):
    """Kernels without a mask (flash) serve every attention but ViSwin's windows, which have a bias."""
    masks = []

    def spy(module, query, key, value, attention_mask, **kwargs):
        masks.append(attention_mask)
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register("spy", spy)
    model = tiny_model(encoder)
    expected = model(pixels).logits
    model.set_attn_implementation("spy")
    torch.testing.assert_close(model(pixels).logits, expected)
    assert masks == [None] * (4 if encoder == "vivit" else 2)


@both_encoders
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_half_precision(encoder, dtype, attention, pixels):
    model = tiny_model(encoder, spatial_window_size=3)
    model.set_attn_implementation(attention)
    expected = model(pixels).logits
    logits = model.to(dtype)(pixels).logits
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), expected, atol=0.1, rtol=0.1)
    with torch.autocast("cpu", dtype):
        loss = model.float().train()(pixels, labels=torch.ones(2, 4, 3)).loss
    assert loss.isfinite() and loss.dtype == torch.float32


@both_encoders
def test_encoders_compile_without_graph_breaks(encoder, pixels):
    torch._dynamo.reset()
    # 4 x 4 patches in windows of 3: padding, shift and mask are all compiled
    model = tiny_model(encoder, spatial_window_size=3)
    with torch.no_grad():
        spatial = torch.compile(model.encode_spatial, fullgraph=True, backend="eager")(pixels)
        temporal = torch.compile(model.encode_temporal, fullgraph=True, backend="eager")(spatial)
        outputs = model(pixels)
    torch.testing.assert_close(spatial, outputs.spatial_tokens)
    torch.testing.assert_close(temporal, outputs.last_hidden_state)


@both_encoders
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_hidden_states_and_attentions_on_request(encoder, attention, pixels):
    model = tiny_model(encoder)
    model.set_attn_implementation(attention)
    flags = ("output_hidden_states", "output_attentions", "output_spatial_hidden_states", "output_spatial_attentions")
    assert not any(flag.removeprefix("output_") in model(pixels) for flag in flags)
    outputs = model(pixels, **dict.fromkeys(flags, True))
    width = model.config.hidden_size
    assert [state.shape for state in outputs.hidden_states] == [(2, 4, width)] * 3
    assert [weights.shape for weights in outputs.attentions] == [(2, 2, 4, 4)] * 2
    if encoder == "vivit":
        assert [state.shape for state in outputs.spatial_hidden_states] == [(8, 17, 16)] * 2
        assert [weights.shape for weights in outputs.spatial_attentions] == [(8, 2, 17, 17)] * 2
    else:
        states = [(8, 4, 4, 16)] * 2 + [(8, 2, 2, 32)] * 2
        assert [state.shape for state in outputs.spatial_hidden_states] == states
        # heads x windows: 2 x 4, then 4 x 1
        attentions = [] if encoder == "convolutional" else [(8, 8, 4, 4)] * 2 + [(8, 4, 4, 4)] * 2
        assert [weights.shape for weights in outputs.spatial_attentions] == attentions
    for weights in (*outputs.attentions, *outputs.spatial_attentions):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    last = model.comedian.temporal_encoder.norm(outputs.hidden_states[-1])
    torch.testing.assert_close(last, outputs.last_hidden_state)
    torch.testing.assert_close(outputs.logits, model(pixels).logits, atol=1e-5, rtol=0)


@both_encoders
def test_tuples_on_request(encoder, pixels):
    model = tiny_model(encoder)
    logits = model(pixels).logits
    torch.testing.assert_close(model(pixels, return_dict=False)[0], logits)
    model.config.return_dict = False
    torch.testing.assert_close(model(pixels)[0], logits)


def test_temporal_masking_draws_the_right_number_in_training_only():
    model = tiny_model("vivit", num_frames=40, temporal_mask_ratio=0.25).comedian
    assert model.draw_kept_tubelets(3, 20, torch.device("cpu")) is None
    kept = model.train().draw_kept_tubelets(50, 20, torch.device("cpu"))
    assert kept.shape == (50, 15)
    assert (kept.diff(dim=1) > 0).all() and kept.min() == 0 and kept.max() == 19
    counts = torch.bincount(kept.flatten(), minlength=20)
    assert counts.min() > 20 and len(set(map(tuple, kept.tolist()))) > 40


@both_encoders
def test_masked_places_hold_the_mask_token(encoder, pixels):
    model = tiny_model(encoder).comedian
    kept = torch.tensor([[0, 2, 3], [1, 2, 3]])
    with torch.no_grad():
        whole = model.encode_spatial(pixels)
        outputs = model(pixels, kept_tubelets=kept)
        masked = whole.clone()
        masked[0, 1] = masked[1, 0] = model.temporal_encoder.mask_token[0, 0]
        expected = model.encode_temporal(masked)
    assert outputs.spatial_tokens.shape[1] == 3
    torch.testing.assert_close(outputs.last_hidden_state, expected)


@both_encoders
def test_training_masks_and_evaluation_does_not(encoder, pixels):
    model = tiny_model(encoder, drop_path_rate=0.0)
    assert model.train()(pixels).spatial_tokens.shape[1] == 3
    outputs = model.eval()(pixels)
    assert outputs.spatial_tokens.shape[1] == 4
    torch.testing.assert_close(outputs.logits, model(pixels).logits)


def test_drop_path_keeps_the_expectation():
    model = tiny_model("vivit", drop_path_rate=0.5).comedian
    drop_path = model.spatial_encoder.layers[-1].drop_path.train()
    dropped = drop_path(torch.ones(4000, 3, 2))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.1)
    assert torch.equal(dropped, dropped[:, :1, :1].expand_as(dropped))
    assert [layer.drop_path.rate for layer in model.spatial_encoder.layers] == [0.0, 0.5]


# saving and loading


@both_encoders
def test_save_and_load(encoder, pixels, tmp_path):
    model = tiny_model(encoder, id2label={0: "goal", 1: "foul", 2: "corner"})
    model.save_pretrained(tmp_path)
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path)
    assert isinstance(loaded, ComedianForActionSpotting) and not loaded.training
    assert loaded.config.id2label == {0: "goal", 1: "foul", 2: "corner"}
    assert (tmp_path / "model.safetensors").is_file()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name
    torch.testing.assert_close(loaded(pixels).logits, model(pixels).logits)
    backbone = AutoModel.from_pretrained(tmp_path)
    assert isinstance(backbone, ComedianModel)
    torch.testing.assert_close(backbone(pixels).last_hidden_state, model(pixels).last_hidden_state)


@both_encoders
def test_a_backbone_gets_a_fresh_finite_classifier(encoder, nan_memory, pixels, tmp_path):
    backbone = tiny_model(encoder).comedian
    backbone.save_pretrained(tmp_path)
    model, info = ComedianForActionSpotting.from_pretrained(tmp_path, num_labels=5, output_loading_info=True)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.classifier.weight.shape[0] == 5
    assert 0.005 < model.classifier.weight.std() < 0.02
    assert not model.classifier.bias.any()
    torch.testing.assert_close(model(pixels).last_hidden_state, backbone(pixels).last_hidden_state)
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


@both_encoders
def test_a_checkpoint_without_a_tensor_initialises_it(encoder, nan_memory, tmp_path):
    model = tiny_model(encoder)
    absent = ("time_embeddings", "mask_token", "class_token", "relative_position_bias", "norm1.weight", "fc1.bias")
    weights = {name: weight for name, weight in model.state_dict().items() if not name.endswith(absent)}
    missing = model.state_dict().keys() - weights.keys()
    model.save_pretrained(tmp_path, state_dict=weights)
    loaded = ComedianForActionSpotting.from_pretrained(tmp_path).state_dict()
    for name in missing:
        if name.endswith("norm1.weight"):
            assert (loaded[name] == 1).all(), name
        elif name.endswith("fc1.bias"):
            assert (loaded[name] == 0).all(), name
        elif name.endswith("mask_token"):
            assert not loaded[name].any()
        else:
            assert loaded[name].any() and loaded[name].abs().max() < 0.2, name


@pytest.mark.parametrize("encoder", ["vivit", "viswin"])
def test_first_weights_are_drawn_as_the_published_ones(encoder):
    model = ComedianForActionSpotting(tiny_config(spatial_encoder=encoder, num_labels=400))
    spatial, temporal = model.comedian.spatial_encoder, model.comedian.temporal_encoder
    projection = spatial.embeddings.projection
    config = model.config
    conv = torch.nn.Conv3d(3, projection.out_features, (config.tubelet_size, config.patch_size, config.patch_size))
    assert projection.weight.abs().max() <= conv.weight.flatten(1).shape[1] ** -0.5
    assert projection.weight.std().item() == pytest.approx(conv.weight.std().item(), rel=0.1)
    assert 0 < projection.bias.abs().max() <= conv.weight.flatten(1).shape[1] ** -0.5
    assert not temporal.mask_token.any()
    assert 0.015 < temporal.time_embeddings.std() < 0.025
    if encoder == "vivit":
        assert 0 < spatial.class_token.abs().max() < 1e-5
    assert model.classifier.weight.std().item() == pytest.approx(0.01, rel=0.1) and not model.classifier.bias.any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(value, tmp_path):
    model = tiny_model("viswin")
    model.comedian.spatial_encoder.norm.bias.data[1] = value
    model.save_pretrained(tmp_path)
    for loader in (ComedianForActionSpotting, ComedianModel, AutoModel, AutoModelForVideoClassification):
        with pytest.raises(ValueError, match="`(comedian.)?spatial_encoder.norm.bias` is not finite"):
            loader.from_pretrained(tmp_path)


# resampling of the position tables


def bicubic(table, old, new):
    grid = table.reshape(*old, -1).permute(2, 0, 1)[None]
    return F.interpolate(grid, size=new, mode="bicubic", align_corners=False)[0].permute(1, 2, 0).flatten(0, 1)


@pytest.mark.parametrize("from_config", [False, True])
def test_vivit_tables_are_resampled(from_config, tmp_path):
    model = tiny_model("vivit")
    model.save_pretrained(tmp_path)
    sizes = {"image_size": [32, 12], "num_frames": 12}
    given = {"config": tiny_config(**sizes)} if from_config else sizes
    loaded = ComedianForActionSpotting.from_pretrained(tmp_path, **given)
    old, new = model.comedian.spatial_encoder.position_embeddings, loaded.comedian.spatial_encoder.position_embeddings
    assert new.shape == (1, 1 + 8 * 3, 16)
    torch.testing.assert_close(new[0, 0], old[0, 0])
    torch.testing.assert_close(new[0, 1:], bicubic(old[0, 1:], (4, 4), (8, 3)))
    times = F.interpolate(model.comedian.temporal_encoder.time_embeddings.mT, size=6, mode="linear").mT
    torch.testing.assert_close(loaded.comedian.temporal_encoder.time_embeddings.data, times)
    assert loaded(torch.randn(1, 12, 3, 32, 12)).logits.shape == (1, 6, 3)
    assert (loaded.config.image_size, loaded.config.num_frames) == ([32, 12], 12)
    loaded.save_pretrained(tmp_path / "resampled")
    again = ComedianForActionSpotting.from_pretrained(tmp_path / "resampled")
    assert torch.equal(again.comedian.spatial_encoder.position_embeddings, new)


def test_viswin_tables_follow_the_windows(tmp_path):
    model = tiny_model("viswin", spatial_window_size=4)
    model.save_pretrained(tmp_path)
    # grids (4, 4), (2, 2) with windows 4, 2 become (8, 6), (4, 3) with windows 4, 3
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path, image_size=[32, 24])
    stages, old_stages = loaded.comedian.spatial_encoder.stages, model.comedian.spatial_encoder.stages
    assert [[layer.attention.window for layer in stage["layers"]] for stage in stages] == [[4, 4], [3, 3]]
    assert [[layer.attention.shift for layer in stage["layers"]] for stage in stages] == [[0, 2], [0, 0]]
    same, grown = (stage["layers"][1].attention.relative_position_bias for stage in stages)
    torch.testing.assert_close(same, old_stages[0]["layers"][1].attention.relative_position_bias)
    old = old_stages[1]["layers"][1].attention.relative_position_bias
    torch.testing.assert_close(grown.data, bicubic(old, (3, 3), (5, 5)).detach())
    # the same as a model built at that size with these weights
    fresh = ComedianForActionSpotting(
        tiny_config(spatial_encoder="viswin", spatial_window_size=4, image_size=[32, 24])
    )
    fresh.load_state_dict(loaded.state_dict())
    pixels = torch.randn(1, 8, 3, 32, 24)
    torch.testing.assert_close(fresh.eval()(pixels).logits, loaded(pixels).logits)


@both_encoders
def test_the_same_size_is_left_alone(encoder, tmp_path):
    model = tiny_model(encoder)
    model.save_pretrained(tmp_path)
    loaded = ComedianForActionSpotting.from_pretrained(tmp_path, image_size=16, num_frames=8)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name


@both_encoders
@pytest.mark.parametrize("change", [{"patch_size": 8}, {"tubelet_size": 4}, {"num_labels": 5}])
def test_other_mismatches_raise(encoder, change, tmp_path):
    tiny_model(encoder).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        ComedianForActionSpotting.from_pretrained(tmp_path, **change)


@both_encoders
def test_a_size_that_cannot_be_raises_before_anything_changes(encoder, tmp_path):
    model = tiny_model(encoder)
    with pytest.raises(StrictDataclassError, match="`image_size`"):
        model.resize_position_tables([16, 18], 8)
    assert model.config.image_size == [16, 16]
    model.save_pretrained(tmp_path)
    with pytest.raises(StrictDataclassError, match="`num_frames`"):
        ComedianModel.from_pretrained(tmp_path, num_frames=7)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((8, 3, 16, 16), r"must be \(batch, frames, channels, height, width\)"),
        ((1, 7, 3, 16, 16), "7 frames, which do not fill tubelets of 2"),
        ((1, 0, 3, 16, 16), "0 frames"),
        ((1, 3, 8, 16, 16), "8 channels of 16 x 16 pixels; the model takes 3 of 16 x 16"),
        ((1, 8, 3, 16, 24), "16 x 24 pixels; the model takes 3 of 16 x 16"),
        ((1, 10, 3, 16, 16), "5 tokens are more than the 4 of a window"),
    ],
)
def test_wrong_shapes_are_named(shape, message):
    with pytest.raises(ValueError, match=message):
        tiny_model("vivit")(torch.zeros(shape))


def test_masking_keeps_the_right_number_in_order():
    kept = keep_tubelets(torch.rand(5, 8), 0.25)
    assert kept.shape == (5, 6)
    assert (kept.diff(dim=1) > 0).all()
    assert keep_tubelets(torch.rand(5, 3), 0.25) is None


def test_bfloat16_on_a_cpu_is_as_exact_in_inference_as_in_training(pixels):
    """Spatial attention takes another kernel where no gradient is asked for."""
    model = tiny_model("vivit")
    model.config.initializer_range = 0.3
    model.init_weights()
    exact = model.encode_spatial(pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = model.encode_spatial(pixels)
        with torch.no_grad():
            inferred = model.encode_spatial(pixels)
    errors = [(tokens.float() - exact).norm() / exact.norm() for tokens in (trained, inferred)]
    assert 0 < errors[1] < 0.03 and errors[1] < 1.5 * errors[0]
    # a model of bfloat16 weights stays in bfloat16
    with torch.no_grad():
        assert model.to(torch.bfloat16).encode_spatial(pixels.bfloat16()).dtype == torch.bfloat16


def test_every_step_of_a_token_has_its_own_logit(pixels):
    model = tiny_model("vivit", scores_per_token=2)
    outputs = model(pixels, labels=torch.zeros(2, 8, 3))
    rows = model.classifier.weight.unflatten(0, (2, 3)), model.classifier.bias.unflatten(0, (2, 3))
    for token in range(4):
        for step in range(2):
            expected = F.linear(outputs.last_hidden_state[:, token], rows[0][step], rows[1][step])
            torch.testing.assert_close(outputs.logits[:, 2 * token + step], expected)


@both_encoders
def test_displacements_are_bounded_and_trained(encoder, pixels):
    model = tiny_model(encoder, offset_radius_s=1.5, offset_loss_weight=0.5, scores_per_token=3).train()
    labels, targets_s = torch.zeros(2, 4, 3), torch.full((2, 4, 3), torch.nan)
    targets_s[0, 1] = 1.0
    kept = torch.arange(4).expand(2, -1)
    torch.manual_seed(0)
    outputs = model(pixels, labels=labels, offset_targets_s=targets_s, kept_tubelets=kept)
    assert outputs.logits.shape == outputs.offsets_s.shape == (2, 4, 3)
    assert outputs.offsets_s.abs().max() < 1.5
    torch.manual_seed(0)
    spotting = model(pixels, labels=labels, kept_tubelets=kept).loss
    expected = F.smooth_l1_loss(outputs.offsets_s[0, 1] / 1.5, targets_s[0, 1] / 1.5)
    torch.testing.assert_close(outputs.loss, spotting + 0.5 * expected)
    share = torch.tensor([0.3, 0.9])
    mixup = {"mixup_targets": labels, "mixup_weights": share, "mixup_offset_targets_s": targets_s.flip(0)}
    torch.manual_seed(0)
    mixed = model(pixels, labels=labels, offset_targets_s=targets_s, kept_tubelets=kept, **mixup).loss
    other = F.smooth_l1_loss(outputs.offsets_s[1, 1] / 1.5, targets_s[0, 1] / 1.5)
    torch.testing.assert_close(mixed, spotting + 0.5 * (0.3 * expected + 0.1 * other))
    outputs.loss.backward()
    assert model.offset_head.weight.grad.abs().sum() > 0


def test_without_a_radius_there_is_no_head(pixels):
    model = tiny_model("vivit")
    assert model(pixels).offsets_s is None and not any("offset" in name for name in model.state_dict())

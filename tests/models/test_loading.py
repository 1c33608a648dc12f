"""Every way in which transformers loads a model."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForVideoClassification

from comedian.models import ComedianConfig, ComedianForActionSpotting
from testing_utils import tiny_config

CHOSEN = {
    "label_thresholds": [0.1, 0.2, 0.3],
    "label_calibration": [[1.0, 0.0]] * 3,
    "label_curves": [[[0.1, 0.5, 0.5]]] * 3,
    "nms_window_s": [1.0, 2.0, 3.0],
    "class_weights": [[1.0] * 3, [2.0] * 3],
}


@pytest.fixture
def model():
    model = ComedianForActionSpotting(tiny_config(image_size=[16, 24], **CHOSEN)).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return model


@pytest.fixture
def pixels():
    return torch.randn(1, 8, 3, 16, 24)


@torch.no_grad()
def assert_same(loaded, model, pixels):
    assert loaded.config.image_size == model.config.image_size
    torch.testing.assert_close(loaded(pixels).logits, model(pixels).logits)


def test_from_a_state_dict(model, pixels):
    loaded = ComedianForActionSpotting.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    assert_same(loaded, model, pixels)


def test_a_configuration_may_be_a_path(model, pixels, tmp_path):
    model.save_pretrained(tmp_path / "model")
    model.config.save_pretrained(tmp_path / "config")
    for config in (tmp_path / "config", str(tmp_path / "config" / "config.json")):
        assert_same(ComedianForActionSpotting.from_pretrained(tmp_path / "model", config=config), model, pixels)
    resized = ComedianForActionSpotting.from_pretrained(
        tmp_path / "model", config=tmp_path / "config", image_size=[32, 24]
    )
    expected = ComedianForActionSpotting.from_pretrained(tmp_path / "model", image_size=[32, 24])
    assert_same(resized, expected, torch.randn(1, 8, 3, 32, 24))


def test_a_folder_of_weights_alone_needs_a_configuration(model, pixels, tmp_path):
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same(ComedianForActionSpotting.from_pretrained(tmp_path, config=model.config), model, pixels)
    with pytest.raises(OSError, match="config.json; give `config`"):
        ComedianForActionSpotting.from_pretrained(tmp_path)


def test_tables_are_resampled_under_offloading_to_disk(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    sizes = {"image_size": [32, 24], "num_frames": 12}
    expected = ComedianForActionSpotting.from_pretrained(tmp_path / "model", **sizes)
    device_map = {"comedian": "disk", "classifier": "cpu", "dropout": "cpu"}
    loaded = ComedianForActionSpotting.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offloaded", **sizes
    )
    assert_same(loaded, expected, torch.randn(1, 12, 3, 32, 24))


@pytest.mark.parametrize("labels", [{"num_labels": 2}, {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}])
def test_other_labels_take_what_belongs_to_the_stored_ones(model, labels, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path, ignore_mismatched_sizes=True, **labels)
    assert loaded.config.num_labels == loaded.classifier.out_features == 2
    assert loaded.config.label_names == (["a", "b"] if "id2label" in labels else ["LABEL_0", "LABEL_1"])
    for name in CHOSEN:
        assert getattr(loaded.config, name) == getattr(ComedianConfig(), name), name
    stored = load_file(tmp_path / "model.safetensors")
    assert torch.equal(loaded.comedian.temporal_encoder.norm.weight, stored["comedian.temporal_encoder.norm.weight"])
    assert loaded.classifier.weight.isfinite().all()


def test_the_same_labels_keep_what_belongs_to_them(model, tmp_path):
    model.save_pretrained(tmp_path)
    for labels in ({"num_labels": 3}, {"id2label": model.config.id2label}):
        config = ComedianConfig.from_pretrained(tmp_path, **labels)
        assert {name: getattr(config, name) for name in CHOSEN} == CHOSEN


def test_a_number_of_labels_that_was_set_can_be_saved(model, tmp_path):
    model.config.num_labels = 4
    model.config.save_pretrained(tmp_path)
    config = ComedianConfig.from_pretrained(tmp_path)
    assert config.label_names == [f"LABEL_{index}" for index in range(4)] and config.label_thresholds is None


@pytest.mark.adapters
def test_an_adapter_is_loaded_on_its_base_model(model, pixels, tmp_path):
    peft = pytest.importorskip("peft")
    model.save_pretrained(tmp_path / "base")
    base = ComedianForActionSpotting.from_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(target_modules=["qkv"], modules_to_save=["classifier"], init_lora_weights=False)
    adapted = peft.get_peft_model(base, settings).eval()
    torch.nn.init.ones_(adapted.base_model.model.classifier.modules_to_save.default.bias)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = ComedianForActionSpotting.from_pretrained(tmp_path / "adapter")
    assert_same(loaded, adapted.base_model.model, pixels)
    assert not torch.allclose(loaded(pixels).logits, model(pixels).logits)
    # settings chosen after training lie beside the adapter
    model.config.label_thresholds = [0.7, 0.8, 0.9]
    model.config.save_pretrained(tmp_path / "adapter")
    loaded = ComedianForActionSpotting.from_pretrained(tmp_path / "adapter")
    assert loaded.config.label_thresholds == [0.7, 0.8, 0.9]
    assert_same(loaded, adapted.base_model.model, pixels)
    assert_same(adapted.merge_and_unload(), loaded, pixels)


def test_an_adapter_without_peft_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("comedian.models.modeling_comedian.is_peft_available", lambda: False)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": os.fspath(tmp_path)}))
    with pytest.raises(ImportError, match="pip install peft"):
        ComedianForActionSpotting.from_pretrained(tmp_path)

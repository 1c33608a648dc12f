"""transformers' own `ModelTesterMixin` on the COMEDIAN models; `run.py` puts this file into its test suite."""

import copy
import unittest

import torch
from torch import nn

from comedian.models import (
    ComedianConfig,
    ComedianContrastiveConfig,
    ComedianDistillationConfig,
    ComedianForActionSpotting,
    ComedianForContrastivePretraining,
    ComedianForFeatureDistillation,
    ComedianModel,
)
from comedian.models.sound_comedian import NUM_MELS

from ... import test_modeling_common as common
from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin, floats_tensor

# what adding a model to the library adds to its tables of names
common.MODEL_MAPPING_NAMES = {**common.MODEL_MAPPING_NAMES, "comedian": "ComedianModel"}
common.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES = {
    **common.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES,
    "comedian": "ComedianForActionSpotting",
}


class ComedianModelTester:
    batch_size = 3
    num_frames = 8
    num_channels = 3
    image_size = 16
    num_labels = 3
    is_training = True

    def __init__(self, parent, model_class, encoder, overrides):
        self.parent = parent
        self.model_class = model_class
        self.encoder = encoder
        self.overrides = overrides
        self.num_hidden_layers = 2
        self.num_attention_heads = 2
        self.hidden_size = 16 if encoder == "vivit" else 32
        self.num_tokens = self.seq_length = self.num_frames // 2
        if model_class is ComedianForContrastivePretraining:
            # its hidden states are the spatial encoder's: 16 patches and a class token, or windows of 2 x 2 patches
            self.hidden_size = 16
            self.num_hidden_layers, self.num_attention_heads, self.seq_length = (
                (2, 2, 17) if encoder == "vivit" else (2, 4 * 2, 4)
            )
            # those after each layer alone
            self.expected_num_hidden_layers = self.num_hidden_layers

    def get_config(self):
        fields = {
            "spatial_encoder": self.encoder,
            "spatial_hidden_size": 16,
            "spatial_depths": [2],
            "spatial_num_heads": [2],
            "temporal_depth": 2,
            "temporal_num_heads": 2,
            "image_size": [16, 16],
            "patch_size": 4,
            "num_frames": self.num_frames,
            "num_labels": self.num_labels,
            "contrastive_config": ComedianContrastiveConfig(
                projector_sizes=[16, 8], predictor_sizes=[8, 8], queue_size=32
            ),
            "distillation_config": ComedianDistillationConfig(projector_sizes=[16, 8], queue_size=32),
        }
        if self.encoder == "viswin":
            # the suite wants at most 2 layers to be counted: those of stage 1 are the spatial ones
            depth = 1 if self.model_class is ComedianForContrastivePretraining else 2
            fields |= {"spatial_depths": [depth] * 2, "spatial_num_heads": [2, 4], "spatial_window_size": 2}
        return ComedianConfig(**(fields | self.overrides))

    def prepare_config_and_inputs_for_common(self):
        shape = [self.batch_size, self.num_frames, self.num_channels, self.image_size, self.image_size]
        inputs = {"pixel_values_videos": floats_tensor(shape)}
        if self.overrides.get("sound"):
            inputs["sound"] = floats_tensor([self.batch_size, self.num_tokens, 12, NUM_MELS])
        return self.get_config(), inputs


class ComedianTestMixin(ModelTesterMixin):
    test_resize_embeddings = False
    additional_model_inputs = ["sound"]

    def setUp(self):
        self.model_tester = ComedianModelTester(self, self.all_model_classes[0], self.encoder, self.overrides)
        self.config_tester = ConfigTester(
            self, config_class=ComedianConfig, has_text_modality=False, spatial_hidden_size=48
        )

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        pixels = inputs["pixel_values_videos"]
        tester = self.model_tester
        tokens = (len(pixels), tester.num_tokens)
        if model_class is ComedianForContrastivePretraining:
            inputs["pixel_values_videos"] = pixels[:, :2]
        if not return_labels:
            return inputs
        if model_class is ComedianForActionSpotting:
            inputs["labels"] = torch.zeros(*tokens, tester.num_labels)
            inputs["labels"][:, 1, 0] = 1
            if tester.overrides.get("offset_radius_s"):
                inputs["offset_targets_s"] = torch.full((*tokens, tester.num_labels), 0.3)
        elif model_class is ComedianForContrastivePretraining:
            inputs["second_view"] = pixels[:, 2:4]
        elif model_class is ComedianForFeatureDistillation:
            inputs["teacher_features"] = torch.linspace(-1, 1, tokens[0] * tokens[1] * 8).sin().reshape(*tokens, 8)
        return inputs

    def test_config(self):
        self.config_tester.run_common_tests()

    @unittest.skip(reason="the models take pixels, not `inputs_embeds`")
    def test_inputs_embeds(self):
        pass

    @unittest.skip(reason="no chunks of feed-forward layers, as in VJEPA2")
    def test_feed_forward_chunking(self):
        pass

    def test_model_get_set_embeddings(self):
        model = self.all_model_classes[0](self.model_tester.get_config())
        self.assertIsInstance(model.get_input_embeddings(), nn.Module)
        self.assertTrue(model.get_output_embeddings() is None or isinstance(model.get_output_embeddings(), nn.Linear))


def add_test(name, model_class, encoder, **overrides):
    attributes = {"all_model_classes": (model_class,), "encoder": encoder, "overrides": overrides}
    globals()[name] = type(name, (ComedianTestMixin, unittest.TestCase), attributes | {"__module__": __name__})


for _encoder in ("vivit", "viswin"):
    for _class in (
        ComedianModel,
        ComedianForActionSpotting,
        ComedianForContrastivePretraining,
        ComedianForFeatureDistillation,
    ):
        add_test(f"{_encoder.capitalize()}{_class.__name__}Test", _class, _encoder)
add_test("DisplacementTest", ComedianForActionSpotting, "viswin", offset_radius_s=1.0, scores_per_token=2)
add_test("SoundTest", ComedianForActionSpotting, "vivit", sound=True, sound_hidden_size=8)

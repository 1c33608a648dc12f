"""ComedianConfig: derived sizes, round trips, and refusals by name."""

import json
import logging

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from comedian.models import ComedianConfig, ComedianForActionSpotting
from comedian.models.configuration_comedian import PUBLISHED_SIZES
from testing_utils import tiny_config


def test_defaults_are_the_published_vivit_tiny():
    config = ComedianConfig()
    assert config.to_dict() == ComedianConfig.published("vivit-tiny").to_dict()
    assert (config.num_tokens, config.token_rate, config.window_duration_s) == (64, 1.0, 64.0)
    assert (config.window_stride_tokens, config.edge_trim_tokens) == (32, 12)
    assert config.grid_size == (14, 14)


def test_published_viswin_tiny_ends_at_a_grid_of_one_window():
    config = ComedianConfig.published("viswin-tiny")
    assert config.hidden_size == 768
    assert config.stage_grids() == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert config.stage_windows() == [7, 7, 7, 7]


@pytest.mark.parametrize("size", PUBLISHED_SIZES)
def test_published_sizes_are_valid(size):
    config = ComedianConfig.published(size, num_labels=2)
    assert config.hidden_size // config.temporal_num_heads >= 64


def test_unknown_published_size_lists_the_known_ones():
    with pytest.raises(ValueError, match="vivit-tiny, vivit-small"):
        ComedianConfig.published("vivit-huge")


def test_json_round_trip(tmp_path):
    config = tiny_config(
        spatial_encoder="viswin",
        fps=12.5,
        image_size=(16, 24),
        id2label={0: "pass", 1: "drive"},
        num_labels=2,
        class_weights=[[1.0, 1.0], [2.0, 3.0]],
        nms_window_s=[1.0, 2.5],
        label_thresholds=[0.1, 0.2],
        window_stride_s=0.16,
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, ComedianConfig)
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert loaded.label_names == ["pass", "drive"]
    assert loaded.label2id == {"pass": 0, "drive": 1}
    assert json.loads((tmp_path / "config.json").read_text())["image_size"] == [16, 24]


def test_a_number_stands_for_a_square_and_for_one_stage():
    config = ComedianConfig(image_size=112, spatial_depths=3, spatial_num_heads=6)
    assert (config.image_size, config.spatial_depths, config.spatial_num_heads) == ([112, 112], [3], [6])


def test_odd_grids_are_padded_before_they_are_halved():
    config = tiny_config(spatial_encoder="viswin", image_size=[28, 20], spatial_window_size=5)
    assert config.stage_grids() == [(7, 5), (4, 3)]
    assert config.stage_windows() == [5, 3]


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"spatial_encoder": "resnet"}, "`spatial_encoder` is 'resnet'"),
        ({"spotting_loss": "hinge"}, "`spotting_loss`"),
        ({"hidden_act": "step"}, "`hidden_act` is 'step'"),
        ({"merge": "sum"}, "`merge`"),
        ({"tubelet_size": 0}, "`tubelet_size` is 0"),
        ({"num_frames": 0}, "`num_frames` is 0"),
        ({"fps": 0}, "`fps` is 0"),
        ({"fps": float("nan")}, "`fps` is nan"),
        ({"image_size": [15, 16]}, "`image_size`.*`patch_size`"),
        ({"image_size": [16, 16, 16]}, "`image_size`"),
        ({"image_size": []}, "`image_size`"),
        ({"spatial_depths": [1, 1], "spatial_num_heads": [1, 1]}, "`spatial_depths`.*`vivit` has one stage"),
        ({"spatial_encoder": "viswin", "spatial_num_heads": [2]}, "`spatial_depths`.*`spatial_num_heads`"),
        ({"spatial_encoder": "convolutional", "patch_size": 1}, "`patch_size` is 1; `convolutional` halves"),
        (
            {"spatial_encoder": "convolutional", "patch_size": 12, "image_size": 24},
            "`patch_size` is 12; `convolutional`",
        ),
        (
            {"spatial_encoder": "convolutional", "spatial_hidden_size": 18, "patch_size": 8},
            "`spatial_hidden_size` is 18.*multiple of 4",
        ),
        ({"temporal_kernel_size": 4}, "`temporal_kernel_size` is 4; must be odd"),
        ({"temporal_convolutions": -1}, "`temporal_convolutions` is -1"),
        ({"spatial_num_heads": [3]}, "`spatial_num_heads` 3 does not divide"),
        ({"temporal_num_heads": 3}, "`temporal_num_heads` 3 does not divide"),
        ({"num_frames": 7}, "`num_frames` 7.*`tubelet_size` 2"),
        ({"temporal_mask_ratio": 1.0}, "`temporal_mask_ratio`"),
        ({"focal_gamma": -1}, "`focal_gamma`"),
        ({"focal_alpha": 1.5}, "`focal_alpha`"),
        ({"window_stride_s": 0}, "`window_stride_s`"),
        ({"window_stride_s": 3.0, "edge_trim_s": 1.0}, "`window_stride_s` 3.0 and `edge_trim_s` 1.0 leave gaps"),
        ({"edge_trim_s": 2.0}, "leave gaps"),
        ({"nms_window_s": float("nan")}, "`nms_window_s`"),
        ({"nms_window_s": [1.0]}, "`nms_window_s` has 1 entries for 3 labels"),
        ({"label_thresholds": [0.5]}, "`label_thresholds` has 1 entries for 3 labels"),
        ({"label_calibration": [[1.0, 0.0]]}, "`label_calibration` has 1 entries for 3 labels"),
        ({"label_calibration": [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]}, "`label_calibration` holds"),
        ({"label_calibration": [[1.0, 0.0], [1.0, 0.0], [1.0]]}, "`label_calibration` holds"),
        ({"label_calibration": [[1.0, 0.0], [1.0, 0.0], [1.0, float("nan")]]}, "`label_calibration` holds"),
        ({"label_curves": [[], []]}, "`label_curves` has 2 entries for 3 labels"),
        ({"label_curves": [[], [], [[0.5, 1.0]]]}, "`label_curves` holds a point"),
        ({"class_weights": [[1.0, 1.0, 1.0]]}, "`class_weights` has 1 rows"),
        ({"class_weights": [[1.0, 1.0, 1.0], [1.0]]}, r"`class_weights\[1\]` has 1 entries"),
        ({"num_labels": 2, "id2label": {0: "goal", 1: "goal"}}, "`id2label` has a label more than once"),
        ({"num_labels": 2, "id2label": {0: "goal", 2: "foul"}}, "`id2label` has the indices"),
        ({"num_frames": 8.0}, "num_frames"),
        ({"image_size": "16"}, "image_size"),
    ],
)
def test_impossible_combinations_are_refused_by_name(fields, named):
    with pytest.raises(StrictDataclassError, match=named):
        tiny_config(**fields)


def test_finer_outputs():
    assert (tiny_config().score_rate, tiny_config().logits_per_token) == (1.0, 1)
    fine = tiny_config(scores_per_token=2)
    assert (fine.token_rate, fine.score_rate, fine.logits_per_token) == (1.0, 2.0, 2)
    displaced = tiny_config(scores_per_token=10, offset_radius_s=1)
    assert (displaced.score_rate, displaced.logits_per_token) == (10.0, 1)
    for fields, name in (
        ({"scores_per_token": 3}, "scores_per_token"),
        ({"scores_per_token": 0}, "scores_per_token"),
        ({"offset_radius_s": 0.0}, "offset_radius_s"),
        ({"offset_radius_s": float("inf")}, "offset_radius_s"),
        ({"offset_loss_weight": -1}, "offset_loss_weight"),
    ):
        with pytest.raises(StrictDataclassError, match=name):
            tiny_config(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"window_stride_s": 10**400},
        {"edge_trim_s": 10**400},
        {"nms_window_s": 10**400},
        {"nms_window_s": [10**400]},
        {"nms_threshold": 10**400},
        {"focal_gamma": 10**400},
        {"label_thresholds": [-(10**400)]},
        {"label_calibration": [[1.0, 10**400]]},
        {"label_curves": [[[10**400, 0.5, 0.5]]]},
        {"class_weights": [[1], [10**400]]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_numbers_that_no_float_holds_are_refused(fields):
    """JSON may have them; each would end in an `OverflowError` where it is used."""
    with pytest.raises(StrictDataclassError, match="has a number beyond 9007199254740992"):
        tiny_config(id2label={0: "a"}, **fields)


@pytest.mark.parametrize("value", [7, True, [], ["float32"], {"a": 1}])
def test_a_type_that_is_no_name_is_refused(value):
    with pytest.raises(StrictDataclassError, match="`dtype` is .*such as float32"):
        ComedianConfig.from_dict(tiny_config().to_dict() | {"dtype": value})


def test_unknown_fields_of_a_file_are_told_once(tmp_path, caplog, monkeypatch):
    """In one line each, with what was probably meant; what transformers writes itself is known."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    config = tiny_config(contrastive_config={"projector_sizes": [8, 6], "predictor_sizes": [8, 6], "queue_size": 16})
    ComedianForActionSpotting(config).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    ComedianConfig.from_pretrained(path)
    assert not [record for record in caplog.records if "unknown field" in record.message]
    content |= {"spatial_hiden_size": 48, "\x1b[2J": 1}
    content["contrastive_config"]["queue_sise"] = 8
    path.write_text(json.dumps(content))
    for _ in range(2):
        assert ComedianConfig.from_pretrained(path).spatial_hidden_size == config.spatial_hidden_size
    told = [record.message for record in caplog.records if "unknown field" in record.message]
    assert told == [
        "the configuration has the unknown field 'queue_sise', which has no effect; did you mean `queue_size`?",
        "the configuration has the unknown field 'spatial_hiden_size', which has no effect; did you mean "
        "`spatial_hidden_size`?",
        "the configuration has the unknown field '\\x1b[2J', which has no effect",
    ]

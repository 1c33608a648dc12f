"""Every saved folder works for those who have not installed the package, and advertises what it holds and no more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForPreTraining
from transformers.utils import is_torchvision_available

import remote_code_process
from comedian import ActionSpotter
from comedian.models import (
    ComedianContrastiveConfig,
    ComedianDistillationConfig,
    ComedianForActionSpotting,
    ComedianForContrastivePretraining,
    ComedianForFeatureDistillation,
    ComedianModel,
    ComedianVideoProcessor,
)
from comedian.training.spotting_config import SpottingConfig
from comedian.training.spotting_trainer import SpottingTrainer
from remote_code_process import AUTO_CLASSES, outputs_of
from testing_utils import tiny_config
from video_factory import write_video

BACKBONE = {"AutoConfig": "configuration_comedian.ComedianConfig", "AutoModel": "modeling_comedian.ComedianModel"}
# an image model of transformers as the spatial encoder
VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
VIT |= {"image_size": 16, "patch_size": 4}
PRETRAINING = "modeling_comedian_pretraining"
AUTO_MAPS = {
    "spatial": BACKBONE,
    "backbone": BACKBONE,
    "contrastive": BACKBONE | {"AutoModelForPreTraining": f"{PRETRAINING}.ComedianForContrastivePretraining"},
    "distillation": BACKBONE | {"AutoModelForPreTraining": f"{PRETRAINING}.ComedianForFeatureDistillation"},
    "spotting": BACKBONE | {"AutoModelForVideoClassification": "modeling_comedian.ComedianForActionSpotting"},
}
BACKBONE_CODE = {
    f"{name}_comedian.py"
    for name in (
        "backbone configuration convolutional encoders frames loss modeling saved_code settings sound timeline"
    ).split()
}
PRETRAINING_CODE = BACKBONE_CODE | {f"{PRETRAINING}.py"}
SPOTTING_CODE = BACKBONE_CODE | {
    f"{name}_comedian.py" for name in ("pipeline", "postprocessing", "time_grid", "video_processing", "windows")
}


def make_models() -> dict[str, torch.nn.Module]:
    heads = {"projector_sizes": [12, 8], "queue_size": 8}
    config = tiny_config(initializer_range=0.5, label_thresholds=[0.2, 0.4, 0.6], sound=True)
    spotting = ComedianForActionSpotting(config)
    torch.nn.init.normal_(spotting.sound_encoder.projection.weight)
    contrastive = tiny_config(contrastive_config=ComedianContrastiveConfig(predictor_sizes=[8], **heads))
    return {
        "spatial": ComedianModel(tiny_config(spatial_encoder="convolutional")),
        "backbone": ComedianModel(tiny_config(backbone_config=VIT)),
        "contrastive": ComedianForContrastivePretraining(contrastive),
        "distillation": ComedianForFeatureDistillation(
            tiny_config(distillation_config=ComedianDistillationConfig(**heads))
        ),
        "spotting": spotting,
    }


def advertised(folder: Path) -> tuple[dict, set, set]:
    """`auto_map`, names of the custom pipelines and code files of a folder."""
    config = json.loads((folder / "config.json").read_text())
    code = {path.name for path in folder.glob("*.py")}
    return config["auto_map"], set(config.get("custom_pipelines", {})), code


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return make_models()


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory):
    """One folder a class and stage, with what a loader needs to show that it works."""
    root = tmp_path_factory.mktemp("folders")
    for name, model in models.items():
        weights = model.state_dict()
        if name == "spatial":
            weights = {key: tensor for key, tensor in weights.items() if key.startswith("spatial_encoder.")}
        model.save_pretrained(root / name, state_dict=weights)
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(root / "spotting")
    write_video(root / "video.mkv", num_frames=130, sound=0.1 * np.random.default_rng(1).standard_normal(13 * 16_000))
    write_video(root / "mute.mkv", num_frames=130)
    frames = np.random.default_rng(0).integers(0, 255, (4, 20, 24, 3), np.uint8)
    save_file(
        {"pixels": torch.randn(2, 8, 3, 16, 16), "frames": torch.from_numpy(frames)}, root / "inputs.safetensors"
    )
    return root


@pytest.fixture(scope="module")
def elsewhere(folders):
    """Report and outputs of an interpreter without the package."""
    environment = os.environ | {"HF_MODULES_CACHE": str(folders / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-I", remote_code_process.__file__, str(folders)],
        cwd=folders,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folders / "report.json").read_text()), load_file(folders / "outputs.safetensors")


@pytest.mark.parametrize("name", AUTO_MAPS)
def test_a_folder_advertises_what_it_holds_and_carries_the_code_for_it(folders, name):
    code = {"contrastive": PRETRAINING_CODE, "distillation": PRETRAINING_CODE, "spotting": SPOTTING_CODE}
    pipelines = {"action-spotting"} if name == "spotting" else set()
    assert advertised(folders / name) == (AUTO_MAPS[name], pipelines, code.get(name, BACKBONE_CODE))


@pytest.mark.parametrize(
    "name, auto_class", [(name, auto_class) for name, classes in AUTO_CLASSES.items() for auto_class in classes]
)
def test_outputs_are_the_same_without_the_package(models, folders, elsewhere, name, auto_class):
    report, outputs = elsewhere
    assert report["comedian"] == []
    model = models[name] if auto_class != "AutoModel" or name in ("spatial", "backbone") else models[name].comedian
    pixels = load_file(folders / "inputs.safetensors")["pixels"]
    expected = outputs_of(model, name, pixels)
    assert expected.std() > 0
    # the last bits depend on where weights lie in memory: loaded ones are not aligned
    torch.testing.assert_close(outputs[f"{name} {auto_class}"], expected, rtol=0, atol=1e-5)


def test_nothing_runs_without_trust(elsewhere):
    refusals = elsewhere[0]["refusals"]
    loaded = {f"{name} {loader}" for name, classes in AUTO_CLASSES.items() for loader in ["AutoConfig", *classes]}
    if is_torchvision_available():
        loaded.add("spotting AutoVideoProcessor")
    assert set(refusals) == loaded | {"pipeline"}
    for what, message in refusals.items():
        assert "trust_remote_code=True" in message, what


def test_the_pipeline_is_the_same_without_the_package(folders, elsewhere):
    expected = ActionSpotter.from_pretrained(folders / "spotting", device="cpu")(folders / "video.mkv")
    assert len(expected) > 3
    # it was heard
    assert ActionSpotter.from_pretrained(folders / "spotting", device="cpu")(folders / "mute.mkv") != expected
    for spots in elsewhere[0]["spots"].values():
        assert [{**spot, "score": pytest.approx(spot["score"], abs=1e-6)} for spot in spots] == expected


@pytest.mark.skipif(not is_torchvision_available(), reason="transformers needs torchvision for AutoVideoProcessor")
def test_the_processor_is_the_same_without_the_package(folders, elsewhere):
    frames = load_file(folders / "inputs.safetensors")["frames"].numpy()
    processor = ComedianVideoProcessor.from_pretrained(folders / "spotting")
    expected = processor(frames, return_tensors="pt")["pixel_values_videos"]
    torch.testing.assert_close(elsewhere[1]["processor"], expected)


def test_what_was_loaded_as_remote_code_is_saved_whole(folders, elsewhere):
    spotting = (AUTO_MAPS["spotting"], {"action-spotting"}, SPOTTING_CODE)
    for name in ("spotting_again", "pipeline_again"):
        assert advertised(folders / name) == spotting, name
        for file_name in SPOTTING_CODE:
            assert (folders / name / file_name).read_bytes() == (folders / "spotting" / file_name).read_bytes()
    assert (folders / "pipeline_again" / "video_preprocessor_config.json").is_file()
    assert advertised(folders / "backbone_again") == (BACKBONE, set(), BACKBONE_CODE)
    # where the pipeline is not at hand, none is advertised
    for name in ("finetuned_again", "orphan"):
        assert advertised(folders / name) == (AUTO_MAPS["spotting"], set(), BACKBONE_CODE), name


def test_nothing_of_an_earlier_stage_is_advertised(folders, tmp_path):
    model = ComedianForActionSpotting.from_pretrained(folders / "contrastive")
    model.save_pretrained(tmp_path)
    assert advertised(tmp_path) == (AUTO_MAPS["spotting"], {"action-spotting"}, SPOTTING_CODE)
    # and a backbone does not advertise the head that it was trained under
    model.comedian.save_pretrained(tmp_path / "backbone")
    assert advertised(tmp_path / "backbone") == (BACKBONE, set(), BACKBONE_CODE)


def test_with_the_package_a_folder_runs_no_code_of_its_own(folders):
    for name in ("contrastive", "distillation"):
        model = AutoModelForPreTraining.from_pretrained(folders / name, trust_remote_code=True)
        assert type(model) in (ComedianForContrastivePretraining, ComedianForFeatureDistillation)
        assert model.config.architectures == [type(model).__name__]
        assert not hasattr(model.config, "auto_map")


def test_a_checkpoint_is_complete_and_pushed_whole(models, tmp_path, monkeypatch):
    args = SpottingConfig(output_dir=str(tmp_path / "run"), use_cpu=True, hub_strategy="every_save")
    processor = ComedianVideoProcessor(size=16)
    trainer = SpottingTrainer(models["spotting"], args, eval_dataset=[], processing_class=processor)
    checkpoint = tmp_path / "run" / "checkpoint-1"
    trainer.save_model(str(checkpoint))
    assert advertised(checkpoint) == (AUTO_MAPS["spotting"], {"action-spotting"}, SPOTTING_CODE)
    assert "video_processing_comedian" in (checkpoint / "video_preprocessor_config.json").read_text()

    pushed = []

    class Hub:
        def upload_folder(self, folder_path, **options):
            pushed.append(Path(folder_path))

    monkeypatch.setattr("transformers.trainer.hf_api", Hub)
    monkeypatch.setattr("transformers.trainer.PushInProgress", lambda jobs: None)
    trainer.hub_model_id, trainer.push_in_progress, trainer.state.epoch = "nobody/model", None, 1.0
    trainer._push_from_checkpoint(str(checkpoint))
    assert pushed == [tmp_path / "run"]
    assert advertised(pushed[0]) == advertised(checkpoint)
    assert (pushed[0] / "video_preprocessor_config.json").is_file()

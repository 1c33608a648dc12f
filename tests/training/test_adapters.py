"""Adapters of PEFT: trained with our trainers, saved, loaded, spotted with, published and merged."""

import json

import pytest
import torch

from comedian import ActionSpotter, InputError
from comedian.cli.main import main
from comedian.hub.model_publish import check_weights, files_to_publish
from comedian.inference.torch_model import TorchModel
from comedian.models import ComedianConfig, ComedianForActionSpotting, ComedianVideoProcessor
from comedian.samples.datasets import HalfDataset, TargetSettings, WindowDataset, WindowShape
from comedian.soccernet.builder import SoccerNet
from comedian.soccernet.prepare import prepare
from comedian.training.spotting_config import SpottingConfig
from comedian.training.spotting_trainer import SpottingTrainer
from comedian.video.frame_store import FrameStore, StoreSettings
from match_factory import LABELS, write_matches
from testing_utils import tiny_config

peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_matches(tmp_path_factory.mktemp("data") / "root")


@pytest.fixture(scope="module")
def halves(root):
    prepare(root, root.parent / "store", StoreSettings(fps=4, height=16), workers=1, progress=False)
    store = FrameStore(root.parent / "store")
    builder = SoccerNet(data_dir=root, labels=list(LABELS), splits=root / "splits.json")
    builder.download_and_prepare()
    return {
        split: HalfDataset(list(builder.as_dataset(split)), store, LABELS, fps=2.0)
        for split in ("train", "validation")
    }


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = tiny_config(num_labels=2, id2label=dict(enumerate(LABELS)), patch_size=8, initializer_range=0.5)
    ComedianForActionSpotting(config).save_pretrained(folder)
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def lora():
    return peft.LoraConfig(r=4, target_modules=["qkv"], modules_to_save=["classifier"])


def adapted(base):
    return peft.get_peft_model(ComedianForActionSpotting.from_pretrained(base), lora())


def make_trainer(folder, model, halves, **settings):
    options = {"max_steps": 3, "per_device_train_batch_size": 2, "learning_rate": 0.01, "disable_tqdm": True}
    options |= {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    shape = WindowShape(num_frames=8, tubelet_size=2, windows_per_half=2, sampling="random")
    windows = WindowDataset(halves["train"], shape, TargetSettings())
    args = SpottingConfig(output_dir=str(folder), **(options | settings))
    return SpottingTrainer(model, args, train_dataset=windows, eval_dataset=halves["validation"])


@pytest.fixture(scope="module")
def trained(base, halves, tmp_path_factory):
    """The trainer, after `finish`, and its output folder."""
    folder = tmp_path_factory.mktemp("adapter")
    trainer = make_trainer(folder, adapted(base), halves)
    trainer.train()
    trainer.finish()
    return trainer, folder


def test_the_adapter_alone_is_trained_and_saved(trained, base):
    trainer, folder = trained
    original = ComedianForActionSpotting.from_pretrained(base).state_dict()
    for name, tensor in trainer.model.state_dict().items():
        plain = name.removeprefix("base_model.model.").replace("base_layer.", "").replace("original_module.", "")
        if plain in original:
            assert torch.equal(tensor, original[plain]), name
    lora_b = [tensor for name, tensor in trainer.model.state_dict().items() if "lora_B" in name]
    assert lora_b and all(tensor.abs().max() > 0 for tensor in lora_b)
    assert (folder / "adapter_model.safetensors").is_file() and not (folder / "model.safetensors").exists()


def test_the_folder_spots_as_the_trained_model_does(trained, root, tmp_path, monkeypatch):
    trainer, folder = trained
    spotter = ActionSpotter.from_pretrained(folder, device="cpu")
    thresholds = trainer.model.config.label_thresholds
    assert spotter.config.label_thresholds == thresholds is not None
    video = next(root.rglob("1_224p.mkv"))
    expected = ActionSpotter([TorchModel(trainer.model.get_base_model(), trainer.processing_class)])
    assert spotter(video, keep_all=True) == expected(video, keep_all=True) != []
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert spotter(video, keep_all=True) != ActionSpotter.from_pretrained(base, device="cpu")(video, keep_all=True)
    monkeypatch.chdir(tmp_path)
    assert main(["spot", str(video), "--model", str(folder), "--device", "cpu"]) == 0


def test_training_resumes(base, halves, tmp_path):
    settings = {"save_total_limit": 3, "load_best_model_at_end": False}
    whole = make_trainer(tmp_path / "whole", adapted(base), halves, **settings)
    whole.train()
    resumed = make_trainer(tmp_path / "resumed", adapted(base), halves, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


def test_an_adapter_without_configuration_spots(trained, tmp_path):
    trainer, folder = trained
    trainer.model.save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists()
    weights = ActionSpotter.from_pretrained(folder, device="cpu").weights_fingerprint
    spotter = ActionSpotter.from_pretrained(tmp_path, device="cpu")
    assert spotter.weights_fingerprint == weights and spotter.config.label_thresholds is None
    settings = tmp_path / "adapter_config.json"
    content = json.loads(settings.read_text())
    for base in (None, "/nowhere", 3):
        settings.write_text(json.dumps(content | {"base_model_name_or_path": base}))
        with pytest.raises(InputError, match="neither a folder nor a Hub repository"):
            ActionSpotter.from_pretrained(tmp_path, device="cpu")


def test_an_adapter_is_published_with_its_settings(trained, base, tmp_path, monkeypatch):
    _, folder = trained
    with pytest.raises(InputError, match="which nobody else has; merge it first"):
        check_weights(folder)
    files = files_to_publish(folder, "me/adapter")
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json", "modeling_comedian.py"} <= files.keys()
    assert "model.safetensors" not in files and "training_args.bin" not in files
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    published = ActionSpotter.from_pretrained(tmp_path, device="cpu")
    original = ActionSpotter.from_pretrained(folder, device="cpu")
    assert published.weights_fingerprint == original.weights_fingerprint
    assert published.config.label_thresholds == original.config.label_thresholds is not None


def test_an_adapter_is_merged(trained, tmp_path):
    _, folder = trained
    config = ComedianConfig.from_pretrained(folder)
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    model = ComedianForActionSpotting.from_pretrained(base, config=config)
    merged = peft.PeftModel.from_pretrained(model, folder).merge_and_unload()
    merged.save_pretrained(tmp_path)
    loaded, pixels = ComedianForActionSpotting.from_pretrained(tmp_path), torch.randn(1, 8, 3, 16, 16)
    expected = ComedianForActionSpotting.from_pretrained(folder)(pixels).logits
    torch.testing.assert_close(loaded(pixels).logits, expected)
    assert loaded.config.label_thresholds == config.label_thresholds is not None


def test_settings_that_would_freeze_the_adapter_are_refused(base, halves, tmp_path):
    with pytest.raises(InputError, match="`freeze_backbone`"):
        make_trainer(tmp_path, adapted(base), halves, freeze_backbone=True)
    added = ComedianForActionSpotting.from_pretrained(base)
    added.add_adapter(lora())
    with pytest.raises(InputError, match="get_peft_model"):
        make_trainer(tmp_path, added, halves)

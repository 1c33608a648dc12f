"""Adapters of PEFT: trained with our trainers, saved, loaded, spotted with, published and merged."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from comedian import ActionSpotter, InputError
from comedian.cli.main import main
from comedian.features.bank import FeatureBank
from comedian.hub.model_publish import check_weights, files_to_publish
from comedian.inference.torch_model import TorchModel
from comedian.models import (
    ComedianConfig,
    ComedianContrastiveConfig,
    ComedianDistillationConfig,
    ComedianForActionSpotting,
    ComedianForContrastivePretraining,
    ComedianForFeatureDistillation,
    ComedianVideoProcessor,
)
from comedian.samples.datasets import (
    ClipDataset,
    DistillationDataset,
    HalfDataset,
    TargetSettings,
    WindowDataset,
    WindowShape,
)
from comedian.soccernet.builder import SoccerNet
from comedian.training.contrastive_config import ContrastiveConfig
from comedian.training.contrastive_trainer import ContrastiveTrainer
from comedian.training.distillation_config import DistillationConfig
from comedian.training.distillation_trainer import DistillationTrainer
from comedian.training.spotting_config import SpottingConfig
from comedian.training.spotting_trainer import SpottingTrainer
from comedian.video.frame_store import FrameStore
from match_factory import LABELS, write_stage_data
from testing_utils import tiny_config

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.adapters

GUIDE = Path(__file__).parents[2] / "examples" / "guides" / "how_to" / "lora.md"
FEATURE_DIM = 6
PRETRAINING = {"pretrain": ComedianForContrastivePretraining, "distill": ComedianForFeatureDistillation}
each_pretraining = pytest.mark.parametrize("stage", PRETRAINING)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder of the matches; beside it `store` and, for stage 2, `bank`."""
    return write_stage_data(tmp_path_factory.mktemp("data"), FEATURE_DIM)[0]


@pytest.fixture(scope="module")
def halves(root):
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
    with pytest.raises(InputError, match="which is only on this machine; merge it first"):
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


def test_the_blocks_of_the_guide_run(base, halves, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, "BASE")
    train, merge = re.findall(r"```python not-run: needs peft\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    shape = WindowShape(num_frames=8, tubelet_size=2, windows_per_half=2, sampling="random")
    names = {
        "ComedianConfig": ComedianConfig,
        "ComedianForActionSpotting": ComedianForActionSpotting,
        "SpottingTrainer": SpottingTrainer,
        "args": SpottingConfig(output_dir="ADAPTER", max_steps=2, learning_rate=0.01, disable_tqdm=True),
        "windows": WindowDataset(halves["train"], shape, TargetSettings()),
        "halves": halves["validation"],
    }
    exec(train + merge, names)
    adapter, merged = (ComedianForActionSpotting.from_pretrained(name) for name in ("ADAPTER", "MERGED"))
    pixels = torch.randn(1, 8, 3, 16, 16)
    torch.testing.assert_close(merged(pixels).logits, adapter(pixels).logits)
    assert merged.config.label_thresholds == names["model"].config.label_thresholds is not None


@pytest.fixture(scope="module")
def pretraining_bases(tmp_path_factory):
    """A folder of a model of stage 1 and of one of stage 2."""
    heads = {"projector_sizes": [12, FEATURE_DIM], "queue_size": 21}
    config = tiny_config(
        patch_size=8,
        initializer_range=0.5,
        contrastive_config=ComedianContrastiveConfig(predictor_sizes=[10, FEATURE_DIM], **heads),
        distillation_config=ComedianDistillationConfig(**heads),
    )
    folders = {stage: tmp_path_factory.mktemp(stage) for stage in PRETRAINING}
    for stage, model_class in PRETRAINING.items():
        torch.manual_seed(0)
        model_class(config).save_pretrained(folders[stage])
    return folders


def adapted_for(stage, bases, target_modules=("qkv",)):
    torch.manual_seed(1)
    heads = ["projector", "predictor"] if stage == "pretrain" else ["projector"]
    settings = peft.LoraConfig(r=4, target_modules=target_modules, modules_to_save=heads)
    return peft.get_peft_model(PRETRAINING[stage].from_pretrained(bases[stage]), settings)


def make_pretraining_trainer(stage, folder, model, halves, root):
    options = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 0.05, "disable_tqdm": True}
    options |= {"output_dir": str(folder), "save_strategy": "steps", "save_steps": 2, "eval_strategy": "no"}
    options |= {"save_total_limit": 3}
    if stage == "pretrain":
        dataset = ClipDataset(halves["train"], tubelet_size=2)
        return ContrastiveTrainer(model, ContrastiveConfig(**options), train_dataset=dataset)
    shape = WindowShape(num_frames=8, tubelet_size=2, windows_per_half=2, sampling="random")
    dataset = DistillationDataset(halves["train"], shape, FeatureBank(root.parent / "bank"), FEATURE_DIM)
    return DistillationTrainer(model, DistillationConfig(**options), train_dataset=dataset)


@each_pretraining
def test_stages_before_spotting_train_an_adapter(stage, pretraining_bases, halves, root, tmp_path):
    """Trained, resumed with its queue, loaded, and merged into what the next stage starts from."""
    whole = adapted_for(stage, pretraining_bases)
    make_pretraining_trainer(stage, tmp_path / "whole", whole, halves, root).train()
    adapters = {name: weight for name, weight in whole.named_parameters() if "lora_B" in name}
    trained = {name for name in adapters if stage == "distill" or "temporal_encoder" not in name}
    assert trained == {name for name, weight in adapters.items() if weight.any()} != set()
    assert whole.queue_ptr.item() == 4 * 4 * (2 if stage == "pretrain" else 4) % 21

    resumed = adapted_for(stage, pretraining_bases)
    trainer = make_pretraining_trainer(stage, tmp_path / "resumed", resumed, halves, root)
    trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name

    folder = tmp_path / "whole" / "checkpoint-4"
    loaded = PRETRAINING[stage].from_pretrained(folder).comedian.eval()
    pixels = torch.randn(1, 8, 3, 16, 16)
    expected = whole.comedian.eval()(pixels).last_hidden_state
    torch.testing.assert_close(loaded(pixels).last_hidden_state, expected)
    peft_model = peft.PeftModel.from_pretrained(PRETRAINING[stage].from_pretrained(pretraining_bases[stage]), folder)
    peft_model.merge_and_unload().comedian.save_pretrained(tmp_path / "merged")
    spotting = ComedianForActionSpotting.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(spotting(pixels).last_hidden_state, expected)
    assert not torch.allclose(
        expected, PRETRAINING[stage].from_pretrained(pretraining_bases[stage]).comedian(pixels).last_hidden_state
    )


def test_both_branches_of_stage_1_start_with_one_adapter(pretraining_bases, halves, root, tmp_path):
    model = adapted_for("pretrain", pretraining_bases)
    make_pretraining_trainer("pretrain", tmp_path, model, halves, root)
    online, momentum = model.comedian.spatial_encoder.state_dict(), model.momentum_encoder.state_dict()
    assert online.keys() == momentum.keys() and any("lora_A" in name for name in online)
    assert all(torch.equal(online[name], momentum[name]) for name in online)
    other = adapted_for("pretrain", pretraining_bases, target_modules=r"comedian\..*qkv")
    with pytest.raises(InputError, match="`target_modules` that match both"):
        make_pretraining_trainer("pretrain", tmp_path, other, halves, root)

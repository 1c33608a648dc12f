"""What users of `transformers.Trainer` give and expect: it works here too, or is refused by name."""

import math
from copy import deepcopy

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from transformers import Trainer, TrainingArguments, set_seed

from comedian.errors import InputError
from comedian.models import (
    ComedianContrastiveConfig,
    ComedianDistillationConfig,
    ComedianForActionSpotting,
    ComedianForContrastivePretraining,
    ComedianForFeatureDistillation,
    ComedianVideoProcessor,
)
from comedian.samples.augmentation import AugmentationSettings
from comedian.samples.batches import BatchReader
from comedian.samples.datasets import (
    ClipDataset,
    HalfDataset,
    TargetSettings,
    WindowDataset,
    WindowShape,
    collate_windows,
)
from comedian.soccernet.builder import SoccerNet
from comedian.soccernet.prepare import prepare
from comedian.training.base_trainer import RunClock, StageTrainer
from comedian.training.contrastive_config import ContrastiveConfig
from comedian.training.contrastive_trainer import ContrastiveTrainer
from comedian.training.spotting_config import SpottingConfig
from comedian.training.spotting_trainer import SpottingTrainer
from comedian.video.frame_store import FrameStore, StoreSettings
from match_factory import LABELS, write_matches
from testing_utils import tiny_config


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Halves of each split."""
    folder = tmp_path_factory.mktemp("data")
    root = write_matches(folder / "root")
    prepare(root, folder / "store", StoreSettings(fps=4, height=16), workers=1, progress=False)
    store = FrameStore(folder / "store")
    builder = SoccerNet(data_dir=root, labels=list(LABELS), splits=root / "splits.json")
    builder.download_and_prepare()
    return {
        split: HalfDataset(list(builder.as_dataset(split)), store, LABELS, fps=2.0)
        for split in ("train", "validation")
    }


@pytest.fixture
def windows(halves):
    shape = WindowShape(num_frames=8, tubelet_size=2, windows_per_half=2, sampling="random")
    return WindowDataset(halves["train"], shape, TargetSettings())


def make_model(**overrides):
    id2label = dict(enumerate(LABELS))
    return ComedianForActionSpotting(tiny_config(num_labels=2, id2label=id2label, patch_size=8, **overrides))


def make_trainer(folder, model=None, settings=None, **options):
    base = {"max_steps": 2, "per_device_train_batch_size": 2, "save_strategy": "no", "eval_strategy": "no"}
    base |= {"load_best_model_at_end": False, "disable_tqdm": True}
    args = SpottingConfig(output_dir=str(folder), **(base | (settings or {})))
    return SpottingTrainer(make_model() if model is None and "model_init" not in options else model, args, **options)


def test_windows_have_numbers(windows, tmp_path):
    assert len(DataLoader(windows, batch_size=2)) == 4
    batches = list(DataLoader(windows, batch_size=2))
    seeds = [seed for batch in batches for seed in batch["seed"].tolist()]
    assert len(set(seeds)) == len(windows) == 8
    again = windows[3]
    assert all(torch.equal(again[name], batches[1][name][1]) for name in again)
    with pytest.raises(IndexError):
        windows[8]


class OwnWindows(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        frames = torch.full((8, 16, 16, 3), 10 * index, dtype=torch.uint8)
        return {"frames": frames, "seed": torch.tensor(index), "labels": torch.zeros(4, 2)}


@pytest.mark.parametrize("kind", ["subset", "own"])
def test_any_map_style_data_set_trains(windows, kind, tmp_path):
    dataset = Subset(windows, [0, 1, 2, 3]) if kind == "subset" else OwnWindows()
    trainer = make_trainer(tmp_path, train_dataset=dataset)
    before = trainer.model.classifier.weight.detach().clone()
    trainer.train()
    assert not torch.equal(trainer.model.classifier.weight, before)
    trainer.save_model()
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "settings", [{"dataloader_num_workers": 1}, {"accelerator_config": {"dispatch_batches": True}}]
)
def test_threads_read_what_processes_read(windows, settings, tmp_path):
    model = make_model()
    trained = [make_trainer(tmp_path, deepcopy(model), chosen, train_dataset=windows) for chosen in ({}, settings)]
    in_threads = [isinstance(trainer.get_train_dataloader().dataset, BatchReader) for trainer in trained]
    assert in_threads == [True, False]
    for trainer in trained:
        set_seed(0)
        trainer.train()
    one, other = (trainer.model.state_dict() for trainer in trained)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_training_device_converts_colours(windows, num_workers, tmp_path, monkeypatch):
    """Forced here: on a CPU, the readers do it."""

    class Recorder(SpottingTrainer):
        def augment_windows(self, windows):
            self.frames = windows["frames"]
            return super().augment_windows(windows)

    def train() -> Recorder:
        settings = {"max_steps": 2, "per_device_train_batch_size": 2, "dataloader_num_workers": num_workers}
        unused = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "disable_tqdm": True}
        args = SpottingConfig(output_dir=str(tmp_path), **settings, **unused)
        trainer = Recorder(make_model(), args, train_dataset=windows)
        trainer.train()
        return trainer

    by_reader = train()
    monkeypatch.setattr(StageTrainer, "converts_colours", True)
    by_device = train()
    assert (by_reader.frames.int() - by_device.frames.int()).abs().max() <= 3
    assert not torch.equal(by_reader.frames, by_device.frames)
    # nothing is left switched on
    assert "frames" in windows[0]
    own = make_trainer(tmp_path, train_dataset=windows, data_collator=lambda windows: collate_windows(windows))
    (batch,), _ = own.get_batch_samples(iter(own.get_train_dataloader()), 1, own.args.device)
    assert "frames" in batch


def test_predictions_metrics_and_several_sets(halves, tmp_path):
    def count(prediction):
        return {"spots": sum(map(len, prediction.predictions)), "events": sum(map(len, prediction.label_ids))}

    sets = {"a": halves["validation"], "b": halves["train"]}
    trainer = make_trainer(tmp_path, eval_dataset=sets, compute_metrics=count)
    output = trainer.predict(halves["validation"])
    assert len(output.predictions) == len(output.label_ids) == 2
    assert output.metrics["test_spots"] == sum(map(len, output.predictions)) > 0
    assert output.metrics["test_events"] == sum(len(row["events"]) for row in halves["validation"].rows)
    assert "test_average_map_tight" in output.metrics
    metrics = trainer.evaluate()
    for name, of_set in sets.items():
        assert metrics[f"eval_{name}_events"] == sum(len(row["events"]) for row in of_set.rows)
        assert f"eval_{name}_average_map_tight" in metrics
    with pytest.raises(InputError, match="one `eval_dataset`"):
        trainer.finish()


@pytest.mark.parametrize(
    "setting",
    [
        {"do_center_crop": True, "crop_size": {"height": 16, "width": 16}},
        {"resample": 3},
        {"do_resize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"do_normalize": False},
        {"size": {"shortest_edge": 16}},
        {"size": {"height": 32, "width": 16}},
    ],
)
def test_a_processor_that_training_does_not_follow_is_refused(setting, tmp_path):
    processor = ComedianVideoProcessor(**({"size": {"height": 16, "width": 16}} | setting))
    with pytest.raises(InputError, match=f"`processing_class` has {next(iter(setting))}="):
        make_trainer(tmp_path, processing_class=processor)


def test_mean_and_deviation_of_the_processor_are_followed(tmp_path):
    processor = ComedianVideoProcessor(size={"height": 16, "width": 16}, image_mean=[0.1] * 3, image_std=[0.5] * 3)
    trainer = make_trainer(tmp_path, processing_class=processor)
    planes, seeds = torch.full((8, 3, 16, 16), 51, dtype=torch.uint8), torch.tensor([0])
    pixels, _ = trainer.augment_planes([planes], seeds, AugmentationSettings(flip_prob=0, jitter_prob=0, blur_prob=0))
    expected = processor(planes, return_tensors="pt")["pixel_values_videos"]
    torch.testing.assert_close(pixels.float(), expected)


def test_without_a_processor_there_is_the_default_one(tmp_path):
    processor = make_trainer(tmp_path, model=make_model(image_size=[16, 24])).processing_class
    assert dict(processor.size) == {"height": 16, "width": 24}


def test_the_average_starts_anew_with_each_training(windows, tmp_path):
    """`model_init` makes another model each time, from the same seed."""
    trainer = make_trainer(
        tmp_path, settings={"average_decay": 0.9}, train_dataset=windows, model_init=lambda: make_model()
    )
    trained = []
    for _ in range(2):
        trainer.train()
        trained.append(deepcopy(trainer.model.state_dict()))
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_a_model_of_model_init_is_frozen_too(tmp_path):
    trainer = make_trainer(tmp_path, settings={"freeze_backbone": True}, model_init=lambda: make_model())
    trained = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert trained == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    "settings",
    [
        {"remove_unused_columns": True},
        {"label_smoothing_factor": 0.1},
        {"include_for_metrics": ["loss"]},
        {"per_device_eval_batch_size": 4},
        {"eval_accumulation_steps": 2},
        {"data_seed": 77},
        {"train_sampling_strategy": "group_by_length"},
        {"accelerator_config": {"split_batches": True}},
        {"resume_from_checkpoint": "nope"},
        {"save_only_model": True},
        {"use_liger_kernel": True},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_without_effect_are_refused_by_name(settings, tmp_path):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}.*remove it"):
        SpottingConfig(output_dir=str(tmp_path), **settings)


def test_a_card_needs_no_name_on_the_hub_and_takes_no_arguments(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.save_model()
    trainer.create_model_card()
    assert (tmp_path / "README.md").is_file()
    with pytest.raises(InputError, match="card.yaml"):
        trainer.create_model_card(language="en")


def test_the_clock_goes_on_when_callbacks_are_restored(windows, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    make_trainer(tmp_path, settings=settings, train_dataset=windows).train()
    settings |= {"max_steps": 2, "restore_callback_states_from_checkpoint": True}
    trainer = make_trainer(tmp_path, settings=settings, train_dataset=windows)
    trainer.train(resume_from_checkpoint=True)
    clocks = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, RunClock)]
    assert clocks == [trainer.clock]
    stored = trainer.state.stateful_callbacks["RunClock"]["attributes"]["elapsed_s"]
    assert math.isfinite(stored) and trainer.clock.read_s() >= stored > 0


def make_contrastive(**heads):
    heads = {"projector_sizes": [12, 8], "predictor_sizes": [8], "queue_size": 8} | heads
    return ComedianForContrastivePretraining(tiny_config(contrastive_config=ComedianContrastiveConfig(**heads)))


def test_stage_1_refuses_what_it_has_not(halves, tmp_path):
    args = ContrastiveConfig(output_dir=str(tmp_path), eval_strategy="no")
    clips = ClipDataset(halves["train"], tubelet_size=2)
    with pytest.raises(InputError, match="`compute_metrics`"):
        ContrastiveTrainer(make_contrastive(), args, train_dataset=clips, compute_metrics=len)
    with pytest.raises(InputError, match="nothing to predict"):
        ContrastiveTrainer(make_contrastive(), args, train_dataset=clips).predict(clips)


class Views(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        views = torch.randn(2, 2, 3, 16, 16, generator=generator)
        return {"pixel_values_videos": views[0], "second_view": views[1]}


def test_stage_1_under_the_stock_trainer_keeps_bounded_memory(tmp_path):
    args = TrainingArguments(
        str(tmp_path), max_steps=12, per_device_train_batch_size=2, save_strategy="no", report_to="none", use_cpu=True
    )
    model = make_contrastive()
    Trainer(model, args, train_dataset=Views()).train()
    kept = sum(keys.shape[0] * keys.shape[1] for keys in model._waiting_keys)
    assert kept <= 2 * len(model.queue)


class WindowsWithFeatures(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        pixels = torch.randn(8, 3, 16, 16, generator=generator)
        return {"pixel_values_videos": pixels, "teacher_features": torch.randn(4, 8, generator=generator)}


def test_stage_2_under_the_stock_trainer_keeps_bounded_memory(tmp_path):
    args = TrainingArguments(
        str(tmp_path), max_steps=12, per_device_train_batch_size=2, save_strategy="no", report_to="none", use_cpu=True
    )
    heads = ComedianDistillationConfig(projector_sizes=[12, 8], queue_size=8)
    model = ComedianForFeatureDistillation(tiny_config(distillation_config=heads))
    Trainer(model, args, train_dataset=WindowsWithFeatures()).train()
    kept = sum(keys.shape[0] * keys.shape[1] for keys in model._waiting_keys)
    assert 0 < kept <= 2 * len(model.queue)

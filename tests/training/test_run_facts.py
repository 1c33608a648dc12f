"""A command that is given again repeats the same run, resumes it, or is refused with the names of what differs."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import ResNetConfig, ResNetModel

from comedian.cli.main import main
from comedian.features.bank import FeatureHeader, features_path, open_features, write_features
from comedian.models import ComedianForActionSpotting
from comedian.soccernet.prepare import prepare
from comedian.training.recipe import DataSection
from comedian.training.run_facts import FREE_SETTINGS, STAGE_FILES, RunChanged, differences
from comedian.training.spotting_config import SpottingConfig
from comedian.training.stage import begin_run, load_halves
from comedian.video.frame_store import StoreSettings, source_of
from match_factory import LABELS, write_matches, write_recipe
from testing_utils import tiny_config
from video_factory import write_video

STORE = StoreSettings(fps=4, height=16)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with data, store, a model to start from, a recipe of four steps, and its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    write_matches(folder / "root")
    prepare(folder / "root", folder / "store", STORE, workers=1, progress=False)
    ComedianForActionSpotting(tiny_config(fps=2.0)).save_pretrained(folder / "start")
    path = write_recipe(folder, Path("root"), Path("store"), output_dir="output", max_steps=4)
    content = yaml.safe_load(path.read_text())
    content["training"] |= {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    content["training"]["save_total_limit"] = 9
    path.write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run() == 0
    return folder


@pytest.fixture
def folder(finished, tmp_path, monkeypatch) -> Path:
    """A copy in another place, which a test may spoil; the working directory."""
    copied = shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(copied)
    return copied


def run(*words) -> int:
    return main(["finetune", "--config", "recipe.yaml", *map(str, words)])


def state_of(output: Path) -> dict[str, bytes]:
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def swap_labels(folder):
    (folder / "root/labels.txt").write_text("\n".join(reversed(LABELS)) + "\n")


def change_config(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"temporal_depth": 2}))


def move_event(folder):
    path = folder / "root/league/one/Labels-v2.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["position"] = "1500"
    path.write_text(json.dumps(content))


def change_splits(folder):
    splits = {"train": ["league/one"], "validation": ["league/three"], "test": ["league/two"]}
    (folder / "root/splits.json").write_text(json.dumps(splits))


def replace_video(folder):
    write_video(folder / "root/league/two/2_224p.mkv", 48, 4.0, height=32, width=32, audio_s=12.0)
    prepare(folder / "root", folder / "store", STORE, workers=1, progress=False)


def make_other_store(folder):
    shutil.rmtree(folder / "store")
    prepare(folder / "root", folder / "store", StoreSettings(fps=4, height=16, quality=20), workers=1, progress=False)


CHANGES = {
    "labels swapped": (swap_labels, [], 'labels ["red flash", "green flash"] -> ["green flash", "red flash"]'),
    "config.json": (change_config, [], "model.temporal_depth 1 -> 2"),
    "an event moved": (move_event, [], "annotations of `league/one/1`"),
    "a match moved": (change_splits, [], "train now without `league/two`"),
    "a video replaced": (replace_video, [], "videos of `league/two/2`"),
    "another store": (make_other_store, [], "frames.quality 30 -> 20"),
    "learning rate": (None, ["--training.base_learning_rate", 0.2], "training.base_learning_rate 0.1 -> 0.2"),
    "radius": (None, ["--training.label_radius_s", 1.5], "training.label_radius_s 0.5 -> 1.5"),
    "steps": (None, ["--training.max_steps", 5], "training.max_steps 4 -> 5"),
    "batch": (None, ["--training.per_device_train_batch_size", 2], "batch 4 -> 2"),
    "best checkpoint": (None, ["--training.save_steps", 2], "training.save_steps 1 -> 2"),
    "override": (None, ["--model.overrides.class_weights", "[[1], [2]]"], "model.class_weights null -> [[1], [2]]"),
    "start": (None, ["--model.config", "null", "--model.checkpoint", "start"], "start weights null -> "),
}


@pytest.mark.parametrize(
    "change, finish", [*((change, True) for change in CHANGES), ("labels swapped", False), ("learning rate", False)]
)
def test_what_differs_is_named_and_nothing_is_touched(change, finish, folder, capsys):
    if not finish:
        (folder / "output/recipe.yaml").unlink()
        shutil.rmtree(folder / "output/checkpoint-4")
    spoil, words, message = CHANGES[change]
    if spoil is not None:
        spoil(folder)
    before = state_of(folder / "output")
    assert run(*words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "`output` holds a run with other inputs: " in error and "`--restart`" in error
    assert message in error, error
    assert state_of(folder / "output") == before


SCHEDULE = "--training.lr_scheduler_kwargs"
TRAINER = """\
from comedian.training.spotting_trainer import SpottingTrainer


class Trainer(SpottingTrainer):
    pass
"""
DATASET = """\
from comedian.samples.datasets import WindowDataset


class Dataset(WindowDataset):
    pass
"""


@pytest.mark.parametrize(
    "words, more, message",
    [
        (
            [SCHEDULE, "{min_lr_rate: 0.5}"],
            [SCHEDULE, "{min_lr_rate: 0.5, num_cycles: 1.5}"],
            "training.lr_scheduler_kwargs.num_cycles null -> 1.5",
        ),
        (
            [SCHEDULE, "{min_lr_rate: 0.5, num_cycles: 1.5}"],
            [SCHEDULE, "{min_lr_rate: 0.5}"],
            "training.lr_scheduler_kwargs.num_cycles 1.5 -> null",
        ),
        (
            ["--classes.trainer", "facts_trainer.Trainer"],
            ["--classes.dataset", "facts_dataset.Dataset"],
            "classes.dataset null -> facts_dataset.Dataset (",
        ),
        # as large together; the omitted and the last windows of an epoch are others
        (
            ["--training.per_device_train_batch_size", 8],
            ["--training.per_device_train_batch_size", 1, "--training.gradient_accumulation_steps", 8],
            "windows of an epoch 8 -> 12",
        ),
    ],
)
def test_what_only_one_side_has_is_a_difference(words, more, message, folder, capsys):
    Path("facts_trainer.py").write_text(TRAINER)
    Path("facts_dataset.py").write_text(DATASET)
    words = [*words, "--training.output_dir", "second", "--training.max_steps", 1]
    assert run(*words) == 0 and run(*words) == 0
    assert run(*words, *more) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def save_image_model(seed: int) -> None:
    torch.manual_seed(seed)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained("resnet")


def test_other_weights_of_an_image_model_are_noticed(folder, capsys):
    save_image_model(0)
    config = json.loads(Path("config.json").read_text())
    config = {name: value for name, value in config.items() if name not in ("spatial_depths", "spatial_num_heads")}
    config |= {"backbone": "resnet", "use_pretrained_backbone": True}
    Path("image.json").write_text(json.dumps(config))
    words = ["--model.config", "image.json", "--training.output_dir", "second", "--training.max_steps", 1]
    assert run(*words) == 0 and run(*words) == 0
    assert run(*words, "--model.overrides.use_pretrained_backbone", "false") == 2
    assert "image model weights " in capsys.readouterr().err.splitlines()[-1]
    save_image_model(1)
    assert run(*words) == 2
    assert "image model weights " in capsys.readouterr().err.splitlines()[-1]


def test_every_difference_is_named(folder, capsys):
    swap_labels(folder)
    assert run("--training.seed", 4, "--training.mixup_alpha", 0.5) == 2
    error = capsys.readouterr().err
    for part in (
        "training.seed 3 -> 4",
        "training.mixup_alpha 0.1 -> 0.5",
        'labels ["red flash", "green flash"] -> ["green',
    ):
        assert part in error


def test_other_weights_to_start_from_are_noticed(folder, capsys):
    words = ["--model.config", "null", "--model.checkpoint", "start", "--training.output_dir", "second"]
    words += ["--training.max_steps", 1]
    assert run(*words) == 0
    before = state_of(folder / "second")
    assert run(*words) == 0
    # the same model in another place
    shutil.move("start", "elsewhere")
    assert run(*[str(word).replace("start", "elsewhere") for word in words]) == 0
    assert state_of(folder / "second") == before
    weights = load_file("elsewhere/model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, "elsewhere/model.safetensors", {"format": "pt"})
    assert run(*[str(word).replace("start", "elsewhere") for word in words]) == 2
    assert "start " in capsys.readouterr().err.splitlines()[-1]


def test_a_finished_run_is_left_as_it_is_by_what_does_not_matter(folder, capsys):
    free = ["--training.dataloader_num_workers=1", "--training.logging_steps=1", "--training.report_to=none"]
    free += ["--training.disable_tqdm=false", "--training.hub_model_id=a/b"]
    free += ["--training.save_total_limit=2", "--training.per_device_train_batch_size=2"]
    free += ["--training.gradient_accumulation_steps=2"]
    # data, output and working directory lie elsewhere than when it was trained; times of change are none of content
    shutil.move("output", "moved")
    for video in Path("root").rglob("*.mkv"):
        video.touch()
    before = state_of(folder / "moved")
    scores = json.loads(before["validation_scores.json"])
    assert run(*free, "--training.output_dir", "moved") == 0
    printed = capsys.readouterr().out
    assert "`moved` holds this run, finished: nothing is trained" in printed
    assert f"validation average-mAP tight: {100 * scores['tight']['a_mAP']:.2f} %" in printed
    assert state_of(folder / "moved") == before


def test_free_settings_are_an_explicit_list():
    """A field of the settings counts unless it is listed; these decide what is trained."""
    for name in (
        "learning_rate",
        "seed",
        "weight_decay",
        "optim",
        "bf16",
        "max_steps",
        "num_train_epochs",
        "adam_beta1",
    ):
        assert name in SpottingConfig.__dataclass_fields__ and not name.startswith(FREE_SETTINGS)
    for name in (
        "label_radius_s",
        "mixup_alpha",
        "sampling",
        "windows_per_half",
        "eval_steps",
        "dataloader_drop_last",
    ):
        assert name in SpottingConfig.__dataclass_fields__ and not name.startswith(FREE_SETTINGS)


def test_a_run_stopped_after_its_last_step_trains_no_further(folder):
    """With `max_steps` an epoch is left over, of which transformers would train another step."""
    before = load_file("output/model.safetensors")
    steps = json.loads(Path("output/trainer_state.json").read_text())["global_step"]
    for name in ("recipe.yaml", "model.safetensors", "trainer_state.json", "validation_scores.json"):
        Path("output", name).unlink()
    assert run() == 0
    state = json.loads(Path("output/trainer_state.json").read_text())
    assert state["global_step"] == steps == 4 and not Path("output/checkpoint-5").exists()
    after = load_file("output/model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_best_checkpoint_of_a_moved_run_is_found(folder):
    """Its path is of the place where it was trained; without it the last checkpoint would end as the best one."""
    shutil.move("output", "moved")
    path = Path("moved/checkpoint-3/trainer_state.json")
    state = json.loads(path.read_text())
    weights = load_file("moved/checkpoint-1/model.safetensors")
    # no later score reaches it
    state |= {"best_metric": 2.0, "best_global_step": 1, "best_model_checkpoint": "output/checkpoint-1"}
    path.write_text(json.dumps(state))
    shutil.rmtree("moved/checkpoint-4")
    Path("moved/recipe.yaml").unlink()
    assert run("--training.output_dir", "moved") == 0
    found = load_file("moved/model.safetensors")
    assert all(torch.equal(weights[name], found[name]) for name in weights)


def test_restart_trains_anew_and_deletes_only_what_the_run_wrote(folder):
    Path("output/notes.txt").write_text("mine")
    Path("output/predictions_test.zip").write_bytes(b"of the model before")
    swap_labels(folder)
    assert run("--restart", "--training.max_steps", 2) == 0
    assert Path("output/notes.txt").read_text() == "mine" and not Path("output/predictions_test.zip").exists()
    assert sorted(path.name for path in Path("output").glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    model = ComedianForActionSpotting.from_pretrained("output")
    assert model.config.label_names == list(reversed(LABELS))
    assert yaml.safe_load(Path("output/recipe.yaml").read_text())["training"]["max_steps"] == 2
    record = json.loads(Path("output/model_record.json").read_text())
    assert record["stages"][-1]["settings"]["max_steps"] == 2
    assert run("--training.max_steps", 2) == 0


def test_what_no_run_wrote_is_neither_used_nor_deleted(folder, capsys):
    for name in ("checkpoint-2", "model.safetensors"):
        other = Path(f"of {name}")
        other.mkdir()
        (shutil.copytree if name == "checkpoint-2" else shutil.copy)(Path("output", name), other / name)
        before = state_of(other)
        for words in ([], ["--restart"]):
            assert run("--training.output_dir", other, *words) == 2
            assert f"holds `{name}` without the run.json" in capsys.readouterr().err
        assert state_of(other) == before


def test_a_run_does_not_start_from_its_own_output(folder, capsys):
    """`--restart` would delete what it starts from."""
    for start in ("output", "output/checkpoint-2"):
        before = state_of(folder / "output")
        assert run("--model.config", "null", "--model.checkpoint", start, "--restart") == 2
        assert f"`model.checkpoint` `{start}` lies in `training.output_dir`" in capsys.readouterr().err
        assert state_of(folder / "output") == before


def test_weights_that_changed_after_the_run_are_not_taken_for_its_own(folder, capsys):
    weights = load_file("output/model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, "output/model.safetensors", {"format": "pt"})
    assert run() == 2
    assert "the weights in `output` are not those that its run trained" in capsys.readouterr().err


def test_frames_of_other_videos_are_refused(folder, capsys):
    """A video in place of another one: the store is of the one before, whatever run there was."""
    write_video(folder / "root/league/two/2_224p.mkv", 48, 4.0, height=32, width=32, audio_s=12.0)
    assert run("--training.output_dir", "new") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "store/league/two/2.frames` holds frames of another `2_224p.mkv`" in error and "comedian prepare" in error
    assert not Path("new").exists()


@pytest.mark.parametrize("kind", ["video", "npy"])
def test_features_of_other_files_are_refused(kind, tmp_path):
    video, npy = tmp_path / "1_224p.mkv", tmp_path / "1_features.npy"
    for file in (video, npy):
        file.write_bytes(b"one" * 1000)
    source = source_of(video if kind == "video" else npy)
    header = FeatureHeader(fps=1.0, offset_s=0.5, duration_s=3.0, source="x", video=source)
    path = features_path(tmp_path / "bank", "match", 1)
    write_features(path, torch.zeros(3, 2).numpy(), header)
    features = open_features(path)
    features.check_source(video)
    (video if kind == "npy" else npy).write_bytes(b"two" * 1000)
    features.check_source(video)
    (video if kind == "video" else npy).write_bytes(b"two" * 1000)
    with pytest.raises(ValueError, match="contains features of another `1_"):
        features.check_source(video)
    npy.unlink()
    if kind == "npy":
        features.check_source(video)


@pytest.mark.parametrize(
    "settings, overrides, message",
    [
        ({"height": 16}, ["--model.overrides.image_size", 24], "16 x 16 pixels, and the model takes 24 x 24"),
        ({"height": 24, "width": 16}, ["--model.overrides.image_size", 24], "frames of 16 x 24 pixels, and the model"),
        ({"height": 24}, ["--model.overrides.image_size", "[16, 32]"], "24 x 24 pixels, and the model takes 32 x 16"),
        ({"fps": 3, "height": 16}, [], "holds 3 frames per second, which is not a multiple of the model's 2"),
    ],
)
def test_a_store_that_does_not_fit_the_model_is_refused(settings, overrides, message, folder, capsys):
    prepare("root", "other", StoreSettings(**{"fps": 4} | settings), workers=1, progress=False)
    assert run("--data.frames", "other", "--training.output_dir", "new", *overrides) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error and "comedian prepare" in error and not Path("new").exists()


def test_a_store_of_another_shape_is_told_unless_it_is_the_videos_own(folder, caplog):
    prepare("root", "wide", StoreSettings(fps=4, height=16, width=32), workers=1, progress=False)
    load_halves(DataSection("root", "wide", "root/labels.txt"), tiny_config(fps=2.0), ["train"])
    (told,) = [record.message for record in caplog.records if "stretched" in record.message]
    assert "`wide` holds frames of 32 x 16 pixels" in told and "16 x 16" in told and "comedian prepare" in told
    caplog.clear()
    # the videos are square: a model of wide pictures stretches them when it spots, too
    prepare("root", "square", StoreSettings(fps=4, height=32), workers=1, progress=False)
    config = tiny_config(fps=2.0, image_size=[16, 32])
    load_halves(DataSection("root", "square", "root/labels.txt"), config, ["train"])
    assert not [record for record in caplog.records if "stretched" in record.message]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--model.overrides.spatial_hiden_size", 48], "`spatial_hiden_size`; did you mean `spatial_hidden_size`?"),
        (["--model.overrides.contrastive_config.queue_sise", 4], "`queue_sise`; did you mean `queue_size`?"),
        (["--model.overrides.distillation_config", "{postive_radius: 1}"], "did you mean `positive_radius`?"),
        (["--model.overides.fps", 4], "`overides`; did you mean `overrides`?"),
        (["--data.rot", "x"], "`rot`; did you mean `root`?"),
        (["--training.lerning_rate", 1], "`lerning_rate`; did you mean `learning_rate`?"),
        (["--trainig.seed", 1], "unknown section `trainig`; did you mean `training`?"),
    ],
)
def test_mistyped_fields_are_refused_before_data_is_opened(words, message, folder, capsys):
    shutil.rmtree("root")
    assert run(*words, "--training.output_dir", "new") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not Path("new").exists()


def test_a_run_that_ended_before_its_first_checkpoint_binds_nobody(tmp_path, monkeypatch):
    """Such as one that ran out of memory in its first step: a smaller batch needs no `--restart`."""
    trainer = SimpleNamespace(args=SimpleNamespace(output_dir=str(tmp_path)), is_world_process_zero=lambda: True)
    recipe = SimpleNamespace(model=SimpleNamespace(checkpoint=None))
    for batch in (8, 4):
        monkeypatch.setattr("comedian.training.stage.facts_of_stage", lambda *args, batch=batch: {"batch": batch})
        assert not begin_run(trainer, recipe, resume=True)
        assert json.loads((tmp_path / "run.json").read_text()) == {"batch": batch}
    (tmp_path / "checkpoint-1").mkdir()
    monkeypatch.setattr("comedian.training.stage.facts_of_stage", lambda *args: {"batch": 2})
    with pytest.raises(RunChanged, match="batch 4 -> 2"):
        begin_run(trainer, recipe, resume=True)


def test_differences_are_short():
    before = {"videos": {f"m/{i}": "a" for i in range(20)}, "train": ["a", "b"], "training": {"x": 1, "gone": 2}}
    now = {"videos": {f"m/{i}": "b" for i in range(20)}, "train": ["b", "a"], "training": {"x": 1, "new": 2}}
    before["model"] = {"contrastive_config": {"projector_sizes": [[1], [2]], "queue_size": 4}}
    now["model"] = {"contrastive_config": {"projector_sizes": [[1], [3]], "queue_size": 4, "new": 1}}
    lines = differences(before, now)
    assert lines.pop() == "model.contrastive_config.projector_sizes [[1], [2]] -> [[1], [3]]"
    assert lines == [
        f"videos of {', '.join(f'`m/{i}`' for i in range(8))} and 12 more",
        'train ["a", "b"] -> ["b", "a"]',
    ]
    assert "recipe.yaml" == STAGE_FILES[0], "deleted first: what it says of the rest holds no more"

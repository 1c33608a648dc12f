"""Classes of your own in place of a stage's, and the comparison of runs."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import Trainer

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.hub.model_record import read_record
from comedian.inference.spotter import ActionSpotter
from comedian.models import ComedianForActionSpotting
from comedian.training.base_trainer import QueuedTrainer, StageTrainer
from comedian.training.contrastive_trainer import ContrastiveTrainer
from comedian.training.distillation_trainer import DistillationTrainer
from comedian.training.extension import load_class
from comedian.training.finetune import finetune
from comedian.training.recipe import load_recipe
from comedian.training.spotting_trainer import SpottingTrainer
from comedian.training.stage import build_model
from match_factory import LABELS, write_recipe, write_stage_data
from video_factory import write_video

MODULE = """
import torch
from comedian import ComedianForActionSpotting, SpottingTrainer
from comedian.samples.datasets import WindowDataset


class TwoLayerHead(ComedianForActionSpotting):
    def __init__(self, config):
        super().__init__(config)
        self.hidden = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.post_init()

    def classify(self, temporal_tokens):
        return super().classify(torch.relu(self.hidden(temporal_tokens)))


class SquaredErrorTrainer(SpottingTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels = inputs.pop("labels")
        inputs.pop("mixup_targets", None), inputs.pop("mixup_weights", None)
        outputs = model(**inputs)
        loss = (outputs.logits.sigmoid() - labels.clamp(min=0)).square().mean()
        return (loss, outputs) if return_outputs else loss


class CountedWindows(WindowDataset):
    drawn = 0

    def __getitem__(self, key):
        type(self).drawn += 1
        return super().__getitem__(key)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extension")
    root, store, _ = write_stage_data(folder / "data")
    path = write_recipe(folder / "recipe", root, store, num_train_epochs=1)
    (path.parent / "my_spotter.py").write_text(MODULE)
    content = yaml.safe_load(path.read_text())
    content["classes"] = {
        "model": "my_spotter.TwoLayerHead",
        "trainer": "my_spotter.SquaredErrorTrainer",
        "dataset": "my_spotter.CountedWindows",
    }
    path.write_text(yaml.safe_dump(content))
    assert main(["finetune", "--config", str(path)]) == 0
    return path.parent


def test_a_recipe_with_classes_of_its_own_trains_and_saves_them(folder):
    run = folder / "output"
    assert sys.modules["my_spotter"].CountedWindows.drawn > 0
    config = json.loads((run / "config.json").read_text())
    assert config["architectures"] == ["TwoLayerHead"]
    assert config["auto_map"]["AutoModelForVideoClassification"] == "my_spotter.TwoLayerHead"
    assert (run / "my_spotter.py").read_text() == MODULE
    assert read_record(run).stages
    facts = json.loads((run / "run.json").read_text())
    assert facts["classes"].keys() == {"model", "trainer", "dataset"}
    assert yaml.safe_load((run / "recipe.yaml").read_text())["classes"]["model"] == "my_spotter.TwoLayerHead"


def test_its_model_spots_where_its_code_is_trusted(folder, tmp_path, capsys):
    run, video = str(folder / "output"), write_video(tmp_path / "1_224p.mkv", num_frames=200)
    with pytest.raises(InputError, match="`my_spotter.TwoLayerHead`.*trust_remote_code"):
        ActionSpotter.from_pretrained(run)
    model = sys.modules["my_spotter"].TwoLayerHead.from_pretrained(run)
    trained = ActionSpotter.from_pretrained(run, device="cpu", trust_remote_code=True)
    assert torch.equal(trained.models[0].model.hidden.weight, model.hidden.weight)
    words = ["spot", str(video), "--model", run, "--output", str(tmp_path / "events.json"), "--trust-remote-code"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(words[:-1]) == 2
    assert "--trust-remote-code" in capsys.readouterr().err


def test_the_plain_class_does_not_load_its_weights_silently(folder):
    with pytest.raises(ValueError, match="TwoLayerHead"):
        ComedianForActionSpotting.from_pretrained(folder / "output")


def test_its_card_and_its_weights_can_be_published(folder):
    from comedian.hub.model_card import render_card
    from comedian.hub.model_publish import check_weights

    check_weights(folder / "output")
    # 16 x 16 + 16 weights more than the plain head's
    assert "action-spotting" in render_card(folder / "output", "user/mine")


def test_changed_code_is_another_run(folder, capsys):
    path = folder / "my_spotter.py"
    path.write_text(MODULE + "\n# changed\n")
    try:
        assert main(["finetune", "--config", str(folder / "recipe.yaml")]) == 2
    finally:
        path.write_text(MODULE)
    assert "classes.model my_spotter.TwoLayerHead" in capsys.readouterr().err


def test_classes_are_arguments_too(folder, tmp_path):
    spotter = load_class("my_spotter.TwoLayerHead", folder)
    words = ["--training.output_dir", str(tmp_path / "run"), "--classes.model", "null"]
    recipe = load_recipe(folder / "recipe.yaml", words)
    scores = finetune(recipe, model_class=spotter)
    assert "tight" in scores and (tmp_path / "run" / "my_spotter.py").is_file()
    with pytest.raises(InputError, match="not a subclass of `SpottingTrainer`"):
        finetune(recipe, trainer_class=torch.nn.Linear)


def test_overridden_private_methods_of_transformers_are_listed():
    """They may change with any release of transformers: whoever allows a new one finds them in one table."""
    trainers = (StageTrainer, QueuedTrainer, ContrastiveTrainer, DistillationTrainer, SpottingTrainer)
    inherited = {name for name, value in vars(Trainer).items() if re.match("_[a-z]", name) and callable(value)}
    overridden = {name for trainer in trainers for name in vars(trainer) if name in inherited}
    assert set(re.findall(r"\| `(_\w+)` \|", StageTrainer.__doc__)) == overridden


def test_a_bug_in_a_class_is_not_taken_for_a_bad_recipe(folder):
    class Broken(ComedianForActionSpotting):
        def __init__(self, config):
            super().__init__(config)
            self.misspelt()

    recipe = load_recipe(folder / "recipe.yaml")
    with pytest.raises(AttributeError, match="misspelt"):
        build_model(Broken, recipe.model, recipe.folder, LABELS)


@pytest.mark.parametrize(
    "name, message",
    [("nowhere.Class", "cannot be imported"), ("my_spotter.Nothing", "no class"), ("word", "imported")],
)
def test_classes_that_do_not_exist(folder, name, message):
    with pytest.raises(InputError, match=message):
        load_class(name, folder)


def write_run(folder: Path, seed: int, tight: float, minutes: float = 6.0, **training) -> Path:
    folder.mkdir(parents=True)
    training = {"output_dir": str(folder), "seed": seed, "learning_rate": 0.001} | training
    sections = {"model": {"config": "config.json"}, "data": {"root": str(folder)}, "training": training}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(sections))
    (folder / "validation_scores.json").write_text(json.dumps({"tight": {"a_mAP": tight}, "loose": {"a_mAP": 0.5}}))
    return folder


def test_runs_are_compared_by_what_differs(tmp_path, capsys):
    runs = [write_run(tmp_path / f"a{seed}", seed, score) for seed, score in ((0, 0.60), (1, 0.64))]
    runs.append(write_run(tmp_path / "b0", 0, 0.70, learning_rate=0.002))
    assert main(["compare", *map(str, runs)]) == 0
    head, _, first, second = capsys.readouterr().out.splitlines()
    assert head == "| run | seeds | training.learning_rate | validation tight | validation loose | minutes |"
    # the standard deviation of 60 and 64 is 2 sqrt(2)
    assert first == "| a0, a1 | 2 | 0.001 | 62.0 ± 2.8 | 50.0 ± 0.0 | 0 |"
    assert second == "| b0 | 1 | 0.002 | 70.0 | 50.0 | 0 |"
    assert main(["compare", str(tmp_path)]) == 2
    assert "holds no finished run" in capsys.readouterr().err


def test_runs_on_other_data_have_their_own_rows(tmp_path, capsys):
    """The paths of the data say nothing: the same data may lie elsewhere, and other data at the same place."""
    facts = {"train": ["one", "two"], "videos": {"one/1": "hash"}, "training": {}}
    others = (facts, facts | {"training": {"seed": 1}}, facts | {"videos": {"one/1": "another"}})
    runs = [write_run(tmp_path / f"r{seed}", seed, 0.5 + 0.1 * seed) for seed in range(3)]
    for run, of_run in zip(runs, others, strict=True):
        (run / "run.json").write_text(json.dumps(of_run))
    assert main(["compare", *map(str, runs)]) == 0
    head, _, first, second = capsys.readouterr().out.splitlines()
    assert head.startswith("| run | seeds | data | ")
    assert first.startswith("| r0, r1 | 2 | ") and second.startswith("| r2 | 1 | ")
    assert first.split(" | ")[2] != second.split(" | ")[2]

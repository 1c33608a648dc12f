"""Shipped recipes are found by name, from any folder."""

import math

import pytest
import yaml

import comedian
from comedian.cli.main import main
from comedian.errors import InputError
from comedian.models import ComedianConfig
from comedian.training.recipe import DataSection, load_recipe, make_recipe
from comedian.training.recipe_names import find_recipe, recipe_names
from comedian.training.train_all import Run, read_plan
from small_recipes import FOLDERS


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_overrides_are_applied_in_their_order_to_copies(tmp_path):
    content, overrides = {"model": {"config": "config.json"}}, {"fps": 2.0}
    pairs = [("model.overrides", overrides), ("model.overrides.fps", 4.0), ("training.learning_rate", math.inf)]
    recipe = make_recipe(content, tmp_path, pairs)
    assert recipe.model.overrides == {"fps": 4.0} and recipe.training == {"learning_rate": math.inf}
    assert overrides == {"fps": 2.0} and content == {"model": {"config": "config.json"}}


def test_every_folder_of_hub_configs_has_a_name():
    assert recipe_names() == [folder.name for folder in FOLDERS]
    for folder in FOLDERS:
        assert find_recipe(folder.name).resolve() == folder
        for file in folder.glob("*.yaml"):
            assert find_recipe(f"{folder.name}/{file.name}").read_bytes() == file.read_bytes()


def test_recipes_plans_and_configurations_are_loaded_by_name(tmp_path):
    shipped = next(folder for folder in FOLDERS if folder.name == "gfspot-conv-small")
    recipe = load_recipe("gfspot-conv-small/finetune.yaml", ["--training.seed", "3"])
    assert recipe.training == yaml.safe_load((shipped / "finetune.yaml").read_text())["training"] | {"seed": 3}
    assert (recipe.folder / recipe.model.config).is_file()
    run = Run("gfspot-viswin-nano", tmp_path, DataSection())
    assert read_plan(run.folder / "train.yaml").stages == ["pretrain", "distill", "finetune"]
    config = ComedianConfig.from_pretrained(comedian.find_recipe("gfspot-conv-small"))
    assert config.spatial_encoder == "convolutional"


def test_a_path_comes_before_a_name(tmp_path):
    (tmp_path / "gfspot-conv-small").mkdir()
    assert find_recipe("gfspot-conv-small") == find_recipe(tmp_path / "gfspot-conv-small").relative_to(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ["train", "gfspot-viswin-tiny", "--data", "x", "--output", "RUN"],
        ["finetune", "--config", "gfspot-conv/finetune.yaml"],
        ["pretrain", "--config", "recipe.yaml"],
        ["publish", "RUN", "me/x", "--card", "card.yaml"],
    ],
    ids=lambda words: words[0],
)
def test_an_unknown_name_lists_the_recipes_in_one_line(words, capsys):
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not exist" in line and all(folder.name in line for folder in FOLDERS)


def test_an_unknown_file_of_a_recipe_lists_its_files():
    with pytest.raises(
        InputError, match="`gfspot-conv-small` has no file `tune.yaml`; it has card.yaml, distill.yaml, "
    ):
        find_recipe("gfspot-conv-small/tune.yaml")


@pytest.mark.parametrize("name", ["../hub_configs", "gfspot-conv-small/../../errors.py"])
def test_a_name_does_not_lead_out_of_the_shipped_folder(name):
    with pytest.raises(InputError, match="does not exist"):
        find_recipe(name)

"""Recipes: one YAML file a stage, with overrides from the command line."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import PreTrainedConfig

from comedian.errors import InputError, suggest
from comedian.files import atomic_write_text, parse_yaml, read_yaml
from comedian.models import ComedianConfig
from comedian.training.recipe_names import find_recipe

OVERRIDE_PREFIX = "--"
# what a message calls the types that YAML has
TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    list: "a list of text",
    dict: "fields",
    Mapping: "fields",
    NoneType: "null",
}


@dataclass(frozen=True)
class ModelSection:
    """Where the model comes from.

    Attributes:
        config: a `config.json` to start from scratch with, relative to the recipe.
        checkpoint: a folder or Hub repository to start from; its classifier is kept where the labels are the same.
        overrides: fields of the configuration that differ.
    """

    config: str | None = None
    checkpoint: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSection:
    """What to train on.

    Attributes:
        root: folder of matches in SoccerNet's layout.
        frames: frame store made by `comedian prepare` from the same folder.
        labels: a file with one label per line; SoccerNet-v2's 17 labels by default.
        splits: where the splits come from, see `SoccerNetConfig.splits`.
        features: feature bank of the training split, for stage 2.
    """

    root: str | None = None
    frames: str | None = None
    labels: str | None = None
    splits: str = "auto"
    features: str | None = None


def folder_of(data: DataSection, name: str) -> str:
    """Return a folder of the data, `root` or `frames`.

    Raises:
        InputError: it is not given.
    """
    folder = getattr(data, name)
    if folder is None:
        raise InputError(f"`data.{name}` is missing; give it in the recipe or as `--data.{name} FOLDER`")
    return folder


def start_of(model: ModelSection) -> str:
    """Return the checkpoint that a model starts from.

    Raises:
        InputError: it starts from none.
    """
    if model.checkpoint is None:
        raise InputError("`model.checkpoint` is missing; give a folder or a Hub repository")
    return model.checkpoint


@dataclass(frozen=True)
class ClassesSection:
    """Classes of your own in place of the stage's, as `module.Class`.

    The module lies in the current folder or beside the recipe, or is installed.

    A recipe with this section runs that code.

    Attributes:
        model: a subclass of the stage's model, such as [`ComedianForActionSpotting`].
        trainer: a subclass of the stage's trainer, such as [`SpottingTrainer`].
        dataset: a subclass of the stage's training set, such as [`WindowDataset`].
    """

    model: str | None = None
    trainer: str | None = None
    dataset: str | None = None


@dataclass(frozen=True)
class Recipe:
    """One training stage.

    Attributes:
        model: where the model comes from.
        data: what to train on.
        training: fields of the stage's settings, such as `SpottingConfig`.
        folder: what relative paths in `model.config` start from.
        classes: classes in place of the stage's.
    """

    model: ModelSection
    data: DataSection
    training: Mapping[str, Any]
    folder: Path
    classes: ClassesSection = ClassesSection()

    def save(self, path: Path) -> None:
        """Write the effective recipe beside the model it made, without the token of the Hub."""
        training = {name: value for name, value in self.training.items() if name != "hub_token"}
        sections = {"model": _plain(self.model), "data": _plain(self.data), "training": training}
        if self.classes != ClassesSection():
            sections["classes"] = _plain(self.classes)
        atomic_write_text(path, yaml.safe_dump(sections, sort_keys=False))


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        path: the YAML file, with the sections `model`, `data` and `training`, or the name of a shipped one, such as
            `gfspot-conv-small/finetune.yaml`, see `find_recipe`.
        overrides: words such as `--training.num_train_epochs 3` or `--data.root=FOLDER`; values are YAML.

    Raises:
        InputError: no such file, no YAML, an unknown section or field, an override without a value.
    """
    path = find_recipe(path)
    return make_recipe(read_sections(path), path.parent, parse_overrides(overrides))


def make_recipe(content: dict[str, Any], folder: Path, overrides: Iterable[tuple[str, Any]] = ()) -> Recipe:
    """Make a recipe of its sections and apply overrides, as `load_recipe` does with a file.

    Args:
        content: the sections.
        folder: what relative paths in `model.config` start from.
        overrides: pairs of a dotted name, such as `training.seed`, and a value, in the order in which they are applied.

    Raises:
        InputError: an unknown section or field, or an override within a single value.
    """
    content = copy.deepcopy(content)
    for name, value in overrides:
        _set(content, name.split("."), copy.deepcopy(value), name)
    refuse_unknown(content, ("model", "data", "training", "classes"), "the recipe", "section")
    model = _section(ModelSection, content.get("model"), "model")
    if (model.config is None) == (model.checkpoint is None):
        raise InputError("the recipe's `model` needs either `config` (from scratch) or `checkpoint`, not both")
    return Recipe(
        model=model,
        data=_section(DataSection, content.get("data"), "data"),
        training=_fields(content.get("training"), "training"),
        folder=folder,
        classes=_section(ClassesSection, content.get("classes"), "classes"),
    )


def read_sections(path: Path) -> dict[str, Any]:
    """Read a YAML file of named sections.

    Raises:
        InputError: no such file, no YAML, no sections.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"`{path}` holds no sections, such as `model`, `data` and `training`; correct it")
    return content


def parse_overrides(words: Sequence[str]) -> list[tuple[str, Any]]:
    """Read `--a.b value` and `--a.b=value` as pairs of a dotted name and a YAML value.

    Raises:
        InputError: an argument is not such an option, or has no value.
    """
    pairs, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith(OVERRIDE_PREFIX) or "." not in word.split("=")[0]:
            raise InputError(
                f"`{word}` is not an override; write `--section.field value`, such as `--training.seed 1`"
            )
        name, separator, text = word[len(OVERRIDE_PREFIX) :].partition("=")
        if not separator:
            if not rest:
                raise InputError(f"`--{name}` has no value; write `--{name} VALUE`")
            text = rest.pop(0)
        try:
            pairs.append((name, parse_yaml(text)))
        except yaml.YAMLError:
            raise InputError(f"`--{name}` has the value `{text}`, which is not YAML; quote it") from None
    return pairs


def _set(content: dict, keys: list[str], value: Any, name: str) -> None:
    for key in keys[:-1]:
        content[key] = {} if content.get(key) is None else content[key]
        content = content[key]
        if not isinstance(content, dict):
            raise InputError(f"`--{name}`: `{key}` is a single value, not a section")
    content[keys[-1]] = value


def _section(section: type, values: Any, name: str):
    values = _fields(values, name)
    check_fields(values, section, f"the recipe's section `{name}`")
    if "overrides" in values:
        _check_overrides(_fields(values["overrides"], f"{name}.overrides"), ComedianConfig, f"{name}.overrides")
    return section(**values)


def check_fields(values: Mapping[str, Any], section: type, where: str) -> None:
    """Check the names and types of fields that were read from a file or the command line.

    A whole number is accepted where the annotation is `float`, and a string where it is an `Enum`, which has its own check.

    Args:
        values: name of a field -> value.
        section: the dataclass with the fields; its annotations are the types.
        where: beginning of the message, such as "the recipe's section `data`".

    Raises:
        InputError: there are no fields, a name is unknown, or a value is of another type.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where} is {values!r}; it must hold fields")
    refuse_unknown(values, [item.name for item in fields(section) if item.init], where)
    types = get_type_hints(section)
    for name, value in values.items():
        if not _is_of(types[name], value):
            raise InputError(f"{where}: `{name}` is {value!r}; it must be {_type_name(types[name])}")


def _is_of(kind: Any, value: Any) -> bool:
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(_is_of(part, value) for part in parts)
    if origin is Literal:
        return any(value is part for part in parts)
    if origin is list:
        return isinstance(value, list) and all(_is_of(parts[0], item) for item in value)
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, str if issubclass(origin or kind, Enum) else origin or kind)


def _type_name(kind: Any) -> str:
    """Describe a type as YAML writes it; only the alternatives that YAML has."""
    is_union = get_origin(kind) in (Union, UnionType)
    kinds = [get_origin(part) or part for part in (get_args(kind) if is_union else (kind,))]
    *others, last = dict.fromkeys(TYPE_NAMES[kind] for kind in kinds if kind in TYPE_NAMES)
    return f"{', '.join(others)} or {last}" if others else last


def refuse_unknown(given: Iterable[Any], known: Iterable[str], where: str, kind: str = "field") -> None:
    """Check that all names are known.

    Raises:
        InputError: a name is unknown; the message suggests a similar one.
    """
    known = set(known)
    for name in given:
        if name not in known:
            raise InputError(f"{where} has the unknown {kind} `{name}`; {suggest(str(name), known)}")


def _check_overrides(values: Mapping[str, Any], config: type[PreTrainedConfig], name: str) -> None:
    """Refuse overrides of fields that a configuration does not have: transformers ignores them silently."""
    of_every_config = {item.name for item in fields(PreTrainedConfig)}
    known = {item.name for item in fields(config)} - of_every_config if is_dataclass(config) else set()
    refuse_unknown(values, known, f"the recipe's section `{name}`")
    for key, sub_config in config.sub_configs.items():
        if isinstance(values.get(key), Mapping):
            _check_overrides(values[key], sub_config, f"{name}.{key}")


def _fields(values: Any, name: str) -> dict[str, Any]:
    values = {} if values is None else values
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"the recipe's section `{name}` is {values!r}; it must hold fields")
    return values


def _plain(section: Any) -> dict[str, Any]:
    return {item.name: getattr(section, item.name) for item in fields(section)}

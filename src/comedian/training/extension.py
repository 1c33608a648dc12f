"""Classes of your own in place of a stage's: from a recipe's section `classes`, or as arguments of the stage's function."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedModel

from comedian.errors import InputError
from comedian.models import ComedianForActionSpotting
from comedian.models.saved_code_comedian import SPOTTING_CLASS
from comedian.training.recipe import Recipe

Made = TypeVar("Made")


def chosen_class(recipe: Recipe, kind: str, given: type[Made] | None, own: type[Made]) -> type[Made]:
    """Return the class that is given or, after it, named by the recipe; the stage's own by default.

    A spotting model's class is registered with transformers' auto class, so that its file is saved beside the weights.

    Args:
        recipe: with the section `classes`.
        kind: `model`, `trainer` or `dataset`.
        given: argument of the stage's function.
        own: the stage's.

    Raises:
        InputError: a class that does not exist or is not a subclass of the stage's.
    """
    name = getattr(recipe.classes, kind)
    chosen = given or (own if name is None else load_class(name, recipe.folder))
    if not issubclass(chosen, own):
        raise InputError(
            f"`{chosen.__module__}.{chosen.__name__}` is not a subclass of `{own.__name__}`; give one as `classes.{kind}`"
        )
    if chosen is not own and issubclass(chosen, ComedianForActionSpotting):
        _register(chosen)
    return chosen


def _register(model_class: type[PreTrainedModel]) -> None:
    if model_class._auto_class is None:
        model_class.register_for_auto_class(SPOTTING_CLASS)


def load_class(name: str, folder: Path) -> type:
    """Import a class by name.

    Args:
        name: `module.Class`.
        folder: where the module may lie, as in the current folder or among what is installed.

    Raises:
        InputError: no such module or class.
    """
    module_name, _, class_name = name.rpartition(".")
    # they stay there for the processes that load data
    for place in (folder.resolve(), Path.cwd()):
        if str(place) not in sys.path:
            sys.path.insert(0, str(place))
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"the class `{name}` cannot be imported: {error}; write `module.Class`, with `module.py` in the current folder "
            f"or in `{folder}`"
        ) from error
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        raise InputError(f"`{module.__file__}` has no class `{class_name}`; write `module.Class`")
    return found

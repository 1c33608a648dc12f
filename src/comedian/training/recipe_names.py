"""Recipes that come with the package, by name: those of `hub_configs`."""

from pathlib import Path

from comedian.errors import InputError

# In the repository a link to `hub_configs`, in an installed package a folder.
SHIPPED = Path(__file__).parents[1] / "hub_configs"


def recipe_names() -> list[str]:
    """Names of the shipped recipe folders, in order."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/train.yaml"))


def find_recipe(name: str | Path) -> Path:
    """Find a recipe file or folder: a path, or the name of a shipped one. A path that exists comes first.

    Args:
        name: a path, a name such as `gfspot-conv-small`, or a file of such a folder, `gfspot-conv-small/finetune.yaml`.

    Returns:
        The path of the file or folder.

    Raises:
        InputError: neither exists.

    Example:
        >>> config = ComedianConfig.from_pretrained(find_recipe("gfspot-conv-small"))
    """
    path = Path(name)
    if path.exists():
        return path
    is_relative = not path.is_absolute() and ".." not in path.parts
    if is_relative and (SHIPPED / path).exists():
        return SHIPPED / path
    if is_relative and len(path.parts) == 2 and (folder := SHIPPED / path.parts[0]).is_dir():
        files = ", ".join(sorted(file.name for file in folder.glob("*.yaml")))
        raise InputError(f"the shipped recipe `{path.parts[0]}` has no file `{path.parts[1]}`; it has {files}")
    raise InputError(f"`{name}` does not exist; give a path, or a shipped recipe: {', '.join(recipe_names())}")

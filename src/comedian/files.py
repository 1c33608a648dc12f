"""Files: results appear whole or not at all, and broken input is named in one line."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from comedian.errors import InputError


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: `1e-3` is a number, which YAML 1.1 takes for a text, and `no` a text, which it takes for false."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield `<name>.partial` beside `path`; it takes `path`'s place when the block ends, and goes when the block raises.

    The folder is made if need be.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file.

    Raises:
        InputError: the file is missing, may not be read or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"`{path}` is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing, may not be read or is not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # an integer of 5,000 digits is a plain ValueError
        raise InputError(f"`{path}` is not valid JSON: {error}") from error


def parse_yaml(text: str) -> Any:
    """Parse YAML 1.2 scalars, lists and mappings; `yaml.YAMLError` where it is none."""
    return yaml.load(text, _Loader)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file.

    Raises:
        InputError: the file is missing, may not be read or is not YAML.
    """
    try:
        return parse_yaml(read_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"`{path}` is not YAML ({' '.join(str(error).split())}); mend it") from None


def inside(root: str | Path, relative: str) -> Path:
    """Return `root / relative`, for a `relative` that comes from a file and may not lead out of `root`.

    The check is on the name alone: a link that somebody placed in `root` is followed.

    Raises:
        InputError: `relative` is absolute or climbs with `..`.
    """
    name = PureWindowsPath(relative)  # knows both kinds of separator
    if name.anchor or ".." in name.parts or "\0" in relative:
        raise InputError(f"{relative!r} leads out of `{root}`; give a path relative to it, without `..`")
    return Path(root) / relative

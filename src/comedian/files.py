"""Files: results are written atomically, and errors in input files are reported in one line."""

import errno
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from comedian.errors import InputError

# No file of this package is nested deeper, and Python's recursion is limited.
MAX_DEPTH = 50
# maximum length of one part of a path on Linux, macOS and Windows
MAX_NAME_BYTES = 255
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class _Loader(yaml.SafeLoader):
    """Scalars of YAML 1.2: `1e-3` is a number and `no` is a string; in YAML 1.1 they are a string and false.

    Aliases are refused: with them, a short file can expand to any size.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(None, None, "an alias; write the value itself", self.peek_event().start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

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
    """Yield `<name>.partial` beside `path`; it replaces `path` when the block ends, and is deleted when the block raises.

    The folder is created if missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shortened = path.name.encode()[: MAX_NAME_BYTES - len(".partial")].decode(errors="ignore")
    partial = path.with_name(f"{shortened}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def make_folder(folder: str | Path) -> None:
    """Create a folder if it is missing, and check that files can be written to it.

    Raises:
        InputError: the folder cannot be created or written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(f"`{folder}` cannot be written: {error.strerror}; name another folder") from error


def check_outputs(outputs: Iterable[str | Path | None], inputs: Iterable[str | Path | None] = ()) -> None:
    """Check the files that a command is going to write, before any work, and create their folders.

    Args:
        outputs: the files; None is passed over, here and in `inputs`.
        inputs: files that the command reads.

    Raises:
        InputError: an output is a folder, an input or another output, or its folder cannot be created or written.
    """
    read, written = {os.path.realpath(path) for path in inputs if path is not None}, set()
    for path in outputs:
        if path is None:
            continue
        place = os.path.realpath(path)
        if os.path.isdir(place):
            raise InputError(f"`{path}` is a folder; give the name of a file")
        if place in read:
            raise InputError(f"`{path}` is an input, and would be overwritten; give another name for the output")
        if place in written:
            raise InputError(f"`{path}` is given for two outputs; give each its own name")
        written.add(place)
        make_folder(os.path.dirname(place))


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def atomic_write_tensors(path: str | Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write NumPy arrays as safetensors to `path` atomically; equal content gives equal bytes.

    The metadata is sorted, because the library orders it differently in every process.
    """
    from safetensors.numpy import save

    content = memoryview(save(dict(tensors), dict(metadata)))
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(bytes(content[8 : 8 + size])), sort_keys=True, separators=(",", ":")).encode()
    # the arrays begin at a multiple of 8
    header += b" " * (-len(header) % 8)
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        file.write(content[8 + size :])


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
    except ValueError as error:  # a zero byte in the name
        raise InputError(f"{str(path)!r} is not a valid file name: {error}") from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing, may not be read or is not JSON.
    """
    return parse_json(read_text(path), str(path))


def parse_json(text: str, name: str) -> Any:
    """Parse the JSON of a file called `name`.

    Raises:
        InputError: it is not JSON, is nested too deep, or contains half of a surrogate pair, which UTF-8 cannot encode.
    """
    try:
        content = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # an integer of 5,000 digits is a plain ValueError
        raise InputError(f"`{name}` is not valid JSON: {error}") from error
    if _is_deeper(content, MAX_DEPTH):
        raise InputError(
            f"`{name}` is nested more than {MAX_DEPTH} levels deep; files of this package are not: give another file"
        )
    return content


def _is_deeper(content: Any, depth: int) -> bool:
    """Whether lists and objects are nested more than `depth` levels deep."""
    if not isinstance(content, list | dict):
        return False
    return depth == 0 or any(
        _is_deeper(item, depth - 1) for item in (content.values() if isinstance(content, dict) else content)
    )


def parse_yaml(text: str) -> Any:
    """Parse YAML 1.2 scalars, lists and mappings without aliases; raises `yaml.YAMLError` for anything else."""
    try:
        return yaml.load(text, _Loader)
    except ValueError as error:  # such as the 31st of February, or an integer of 5,000 digits
        raise yaml.YAMLError(str(error)) from error


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file.

    Raises:
        InputError: the file is missing, may not be read or is not YAML.
    """
    try:
        return parse_yaml(read_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"`{path}` is not YAML ({' '.join(str(error).split())}); correct it") from None


def inside(root: str | Path, relative: str) -> Path:
    """Return `root / relative`, for a `relative` that comes from a file and may not lead out of `root`.

    Only the name is checked: links in `root` are followed.

    Raises:
        InputError: `relative` is absolute, contains `..`, or is not a valid file name.
    """
    name = PureWindowsPath(relative)  # knows both kinds of separator
    if name.anchor or ".." in name.parts or "\0" in relative:
        raise InputError(f"{relative!r} leads out of `{root}`; give a path relative to it, without `..`")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in name.parts):
        raise InputError(f"{relative[:40]!r}... is too long for a file name; give a shorter one")
    return Path(root) / relative


def comparable(name: str) -> str:
    """Return the Unicode NFC form of a name, to compare names. macOS and its zip files write accented letters as NFD."""
    return unicodedata.normalize("NFC", name)


def existing(root: str | Path, relative: str) -> Path:
    """Return `root / relative` as it is spelled on disk, regardless of Unicode normalisation.

    If there is no such file or folder, the path is returned as given.

    Raises:
        InputError: see [`inside`].
    """
    path = inside(root, relative)
    if path.exists() or comparable(relative).isascii():
        return path
    found = Path(root)
    for part in PureWindowsPath(relative).parts:
        try:
            names = os.listdir(found)
        except OSError:
            return path
        twins = [name for name in sorted(names) if comparable(name) == comparable(part)]
        if not twins:
            return path
        found = found / (part if part in twins else twins[0])
    return found


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folders under `root`, itself included, with the names of their files.

    Links are followed, but not to a folder that contains them; hidden folders are skipped.
    """
    for folder, subfolders, file_names in os.walk(root, followlinks=True):
        here = Path(folder)
        subfolders[:] = [
            name for name in subfolders if not name.startswith(".") and not _leads_back(here / name, root)
        ]
        yield here, file_names


def _leads_back(folder: Path, root: Path) -> bool:
    """Whether a folder is a link to one that was gone through on the way from `root` to it."""
    if not folder.is_symlink():
        return False
    target = folder.resolve()
    above = folder.parents[: len(folder.relative_to(root).parts)]
    return any(target == path.resolve() or path.resolve().is_relative_to(target) for path in above)

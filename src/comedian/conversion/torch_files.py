"""Tensors of a file that `torch.save` wrote, read without unpickling: no name in the file is ever looked up.

A pickle is a program for a small stack machine. `pickle.Unpickler` runs it by importing and calling what the file names,
and sets attributes on what comes out; restricting the imports still leaves the calls. Here the program is run by a machine
that has plain values, containers and two kinds of stand-ins, and that calls nothing: an object of any class becomes an
`Inert`, a tensor becomes a `StoredTensor`, the description of where its numbers lie in the file.
"""

import math
import pickletools
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch
from torch import Tensor

# the first value of a file of the form that torch had before its zip archives
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
STORAGES = {f"{module}.{name}": dtype for name, dtype in DTYPES.items() for module in ("torch", "torch.cuda")}


class UnreadableFileError(ValueError):
    """The file is broken, or of another form."""


@dataclass(frozen=True)
class Global:
    """The name of a class or function, which is not looked up."""

    name: str


class Inert:
    """Inert replacement of an object whose class is defined only by the file: no attributes, no behaviour."""


@dataclass(frozen=True)
class Storage:
    """Numbers in the file: `numel` of `dtype`, under `key`."""

    dtype: torch.dtype
    key: str
    numel: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in the file: a strided view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self):
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
            raise UnreadableFileError("a tensor has an invalid shape")
        reach = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides))
        numel = math.prod(self.shape)
        # as many numbers as there are in the file: a small file makes no large tensor
        if numel and (reach >= self.storage.numel or numel > self.storage.numel):
            raise UnreadableFileError("a tensor has more numbers than its storage")


def read_state_dict(path: str | Path) -> dict[str, Tensor] | None:
    """Read the tensors of a checkpoint: those of its `state_dict`, or of the file itself where it is flat.

    Both forms of `torch.save` are read, today's zip archive and the one before. What else the file holds, such as
    `hyper_parameters`, is passed over.

    Args:
        path: the file.

    Returns:
        Name -> tensor on the CPU, in the file's dtype; `None` where the file holds no names with tensors alone.

    Raises:
        UnreadableFileError: the file is broken, or of another form.
        OSError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return (_read_zip if file.read(4) == b"PK\x03\x04" else _read_legacy)(file)
    except (OSError, UnreadableFileError):
        raise
    except Exception as error:  # a broken file raises anything, from EOFError to IndexError
        raise UnreadableFileError(str(error).strip() or type(error).__name__) from error


def _read_zip(file: BinaryIO) -> dict[str, Tensor] | None:
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if PurePosixPath(name).name == "data.pkl"]
        if not pickles:
            raise UnreadableFileError("a zip archive without `data.pkl`")
        [pickle] = pickles
        folder = pickle.removesuffix("data.pkl")
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise UnreadableFileError("a compressed zip archive, which torch does not write")
        if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
            raise UnreadableFileError("written on a machine with another byte order")
        with archive.open(pickle) as stream:
            tensors = _tensors_of(run_pickle(stream.read()))

        def content(storage: Storage) -> bytes:
            return archive.read(f"{folder}data/{storage.key}")

        return _materialise(tensors, content)


def _read_legacy(file: BinaryIO) -> dict[str, Tensor] | None:
    """A magic number, a version, sizes of types, the object, the keys of the storages, and these: a length and the
    bytes."""
    file.seek(0)
    if run_pickle(file) != LEGACY_MAGIC:
        raise UnreadableFileError("not a file of `torch.save`")
    run_pickle(file)
    system = run_pickle(file)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise UnreadableFileError("written on a machine with another byte order")
    storages: dict[str, Storage] = {}
    tensors = _tensors_of(run_pickle(file, storages))
    places = {}
    for key in run_pickle(file):
        storage = storages[key]
        numel = int.from_bytes(file.read(8), "little")
        places[key] = file.tell(), numel * storage.dtype.itemsize
        file.seek(places[key][1], 1)

    def content(storage: Storage) -> bytes:
        start, length = places[storage.key]
        file.seek(start)
        return file.read(min(length, storage.numel * storage.dtype.itemsize))

    return _materialise(tensors, content)


def _tensors_of(content: Any) -> dict[str, StoredTensor] | None:
    found = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found:
        return None
    is_flat = all(isinstance(name, str) and isinstance(tensor, StoredTensor) for name, tensor in found.items())
    return found if is_flat else None


def _materialise(
    tensors: Mapping[str, StoredTensor] | None, content: Callable[[Storage], bytes]
) -> dict[str, Tensor] | None:
    if tensors is None:
        return None
    if sys.byteorder != "little":
        raise UnreadableFileError("this machine has another byte order than the file")
    read: dict[Storage, Tensor] = {}
    views = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        if storage not in read:
            data = bytearray(content(storage) if storage.numel else b"")
            if len(data) != storage.numel * storage.dtype.itemsize:
                raise UnreadableFileError(f"`{name}` is cut off")
            read[storage] = (
                torch.frombuffer(data, dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)
            )
        views[name] = read[storage].as_strided(tensor.shape, tensor.strides, tensor.offset)
    return views


def run_pickle(program: bytes | BinaryIO, storages: dict[str, Storage] | None = None) -> Any:
    """Run a pickle without importing or calling anything.

    Args:
        program: the bytes, or a file, which is then just behind the pickle.
        storages: gets the storages that the program names, by their keys.

    Returns:
        Plain values and containers, `StoredTensor`, `Storage`, `Global` and `Inert`.

    Raises:
        UnreadableFileError: an instruction that no checkpoint needs.
        Exception: of any kind, where the program is broken.
    """
    return _Machine({} if storages is None else storages).run(program)


class _Machine:
    """Python's pickle machine (PEP 3154) without classes."""

    def __init__(self, storages: dict[str, Storage]):
        self.storages = storages
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, program: bytes | BinaryIO) -> Any:
        for opcode, argument, _ in pickletools.genops(program):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _VALUES:
                self.stack.append(argument)
            elif name not in _IGNORED:
                step = _STEPS.get(name)
                if step is None:
                    raise UnreadableFileError(f"the pickle instruction {name}, which no checkpoint needs")
                step(self, argument)
        raise UnreadableFileError("the pickle does not end")

    def pop_mark(self) -> list[Any]:
        """What was pushed since the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self, _):
        self.marks.append(self.stack)
        self.stack = []

    def discard(self, _):
        # as pickle has it: with nothing above a mark, the mark goes
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def remember(self, index: int):
        self.memo[index] = self.stack[-1]

    def recall(self, index: int):
        self.stack.append(self.memo[index])

    def collect(self, make: Callable[[list[Any]], Any]):
        """Push what `make` makes of all since the last mark."""
        items = self.pop_mark()
        self.stack.append(make(items))

    def tuple_of(self, count: int):
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def extend(self, items: list[Any]):
        # a list of a class of its own is inert, and takes nothing in
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def update(self, items: list[Any]):
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_pairs(items))

    def name(self, argument: str):
        # "module name", as genops gives it
        self.stack.append(Global(argument.replace(" ", ".", 1)))

    def name_from_stack(self, _):
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(Global(f"{module}.{name}"))

    def inert(self, operands: int):
        """Take the operands of an instruction that makes an object, and push a placeholder."""
        for _ in range(operands):
            self.stack.pop()
        self.stack.append(Inert())

    def call(self, _):
        arguments, function = self.stack.pop(), self.stack.pop()
        made = _MADE.get(function.name) if isinstance(function, Global) else None
        self.stack.append(Inert() if made is None else made(*arguments))

    def set_state(self, _):
        # attributes, or the argument of `__setstate__`: nothing here has either
        self.stack.pop()

    def storage(self, _):
        """`("storage", type, key, device, numel)`, and in the older form what part of another storage it is."""
        kind, storage_type, key, _, numel, *view = self.stack.pop()
        dtype = STORAGES.get(storage_type.name) if isinstance(storage_type, Global) else None
        if kind != "storage" or dtype is None or not (type(numel) is int and 0 <= numel < 2**62):
            self.stack.append(Inert())
            return
        if view not in ([], [None]):
            raise UnreadableFileError("a storage that is a part of another; save it with a newer PyTorch")
        self.stack.append(self.storages.setdefault(key, Storage(dtype, str(key), numel)))


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _inert(*_: Any) -> Inert:
    return Inert()


def _ordered_dict(*_: Any) -> dict:
    return {}


def _tensor(storage: Any, offset: int, shape: tuple, strides: tuple, *_: Any) -> StoredTensor | Inert:
    return StoredTensor(storage, offset, shape, strides) if isinstance(storage, Storage) else Inert()


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


# names in a file -> what is made instead of calling them
_MADE: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_IGNORED = {"PROTO", "FRAME"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_VALUES |= {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_VALUES |= {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.discard,
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.remember),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.recall),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "LIST": lambda machine, _: machine.collect(list),
    "DICT": lambda machine, _: machine.collect(_pairs),
    "TUPLE": lambda machine, _: machine.collect(tuple),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.update([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.update(machine.pop_mark()),
    # sets: no state dict has any
    "EMPTY_SET": lambda machine, _: machine.inert(0),
    "ADDITEMS": lambda machine, _: machine.pop_mark(),
    "FROZENSET": lambda machine, _: machine.collect(_inert),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_from_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": lambda machine, _: machine.inert(2),
    "NEWOBJ_EX": lambda machine, _: machine.inert(3),
    **dict.fromkeys(("INST", "OBJ"), lambda machine, _: machine.collect(_inert)),
    "BUILD": _Machine.set_state,
    "BINPERSID": _Machine.storage,
}

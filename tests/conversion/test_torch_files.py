"""Files of `torch.save` are read without running anything of them."""

import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from comedian.conversion.torch_files import UnreadableFileError, read_state_dict

RAN = "ran"
both_forms = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])


def tensors() -> OrderedDict:
    base = torch.randn(4, 6)
    values = OrderedDict(
        {
            "matrix": base,
            "view": base[1:, ::2],
            "transposed": base.t(),
            "parameter": torch.nn.Parameter(torch.ones(2)),
            "scalar": torch.tensor(3.0),
            "empty": torch.empty(0, 3),
            "half": torch.randn(3).half(),
            "bfloat16": torch.randn(3).bfloat16(),
            "counter": torch.tensor([7]),
            "flag": torch.tensor([True, False]),
        }
    )
    values._metadata = {"": {"version": 1}}
    return values


def save(content, path: Path, is_zip: bool, protocol: int = 2) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol)
    return path


@both_forms
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("envelope", [False, True])
def test_tensors_are_those_of_torch(tmp_path, is_zip, protocol, envelope):
    content = {"epoch": 3, "state_dict": tensors(), "tags": {"a", ("b", 1)}} if envelope else tensors()
    path = save(content, tmp_path / "a.pth", is_zip, protocol)
    expected = torch.load(path, weights_only=False)
    expected, found = expected["state_dict"] if envelope else expected, read_state_dict(path)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name
        assert found[name].stride() == tensor.stride(), name


class Reduced:
    """What `pickle` calls a function with: `REDUCE`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def evil_module(name: str) -> types.ModuleType:
    """A module that leaves a file when it is imported anew, and whose class does in each way that pickle makes one."""
    module = types.ModuleType(name)
    source = f"""
import pathlib
class Evil:
    def __new__(cls, *args, **kwargs):
        pathlib.Path({RAN!r}).touch()
        return super().__new__(cls)
    def __init__(self, *args):
        pathlib.Path({RAN!r}).touch()
    def __setstate__(self, state):
        pathlib.Path({RAN!r}).touch()
    def append(self, item):
        pathlib.Path({RAN!r}).touch()
    extend = append
    def __setitem__(self, key, value):
        pathlib.Path({RAN!r}).touch()
    def __hash__(self):
        pathlib.Path({RAN!r}).touch()
        return 1
Evil.__module__ = {name!r}
"""
    exec(source, module.__dict__)
    return module


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """An instance of a class that acts whenever it is unpickled, as which it can be saved here."""
    monkeypatch.chdir(tmp_path)
    module = evil_module("evil_settings")
    monkeypatch.setitem(sys.modules, "evil_settings", module)
    instance = object.__new__(module.Evil)
    instance.content = {"nested": [1, 2]}
    return instance


def touch(how: str):
    """Pickles that run code, each in its way."""
    return {
        "os.system": Reduced(os.system, f"touch {RAN}"),
        "eval": Reduced(eval, f"open({RAN!r}, 'w')"),
        "exec": Reduced(exec, f"open({RAN!r}, 'w')"),
        "method": Reduced(Path.touch, Path(RAN)),
        "nested": {"a": [({"b": Reduced(os.system, f"touch {RAN}")},)]},
    }[how]


@both_forms
@pytest.mark.parametrize("how", ["os.system", "eval", "exec", "method", "nested"])
def test_code_beside_the_weights_is_inert(tmp_path, monkeypatch, how, is_zip):
    monkeypatch.chdir(tmp_path)
    expected = tensors()
    path = save({"hyper_parameters": touch(how), "state_dict": expected}, tmp_path / "a.ckpt", is_zip)
    assert not Path(RAN).exists()
    found = read_state_dict(path)
    assert not Path(RAN).exists() and torch.equal(found["matrix"], expected["matrix"])
    # the file would act: that is what the test is about
    torch.load(path, weights_only=False)
    assert Path(RAN).exists()


@both_forms
def test_objects_of_classes_of_the_file_are_inert(tmp_path, evil, is_zip):
    content = {"hyper_parameters": {"config": evil, "key": [evil]}, "state_dict": tensors()}
    path = save(content, tmp_path / "a.ckpt", is_zip)
    Path(RAN).unlink(missing_ok=True)
    assert read_state_dict(path).keys() == tensors().keys()
    assert not Path(RAN).exists()
    torch.load(path, weights_only=False)
    assert Path(RAN).exists()


@both_forms
@pytest.mark.parametrize("how", ["os.system", "eval", "nested"])
@pytest.mark.parametrize("place", ["value", "state_dict", "all"])
def test_code_among_the_weights_is_refused_and_inert(tmp_path, monkeypatch, how, place, is_zip):
    monkeypatch.chdir(tmp_path)
    content = {"value": {"state_dict": tensors() | {"x": touch(how)}}, "state_dict": {"state_dict": touch(how)}}
    path = save(content.get(place, touch(how)), tmp_path / "a.ckpt", is_zip)
    assert read_state_dict(path) is None
    assert not Path(RAN).exists()


def zip_of(program: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    return file.getvalue()


COMMAND = b"X" + struct.pack("<I", len(f"touch {RAN}")) + f"touch {RAN}".encode()
# each of pickle's ways to make or change an object; the last ones change what torch's own loader trusts
PROGRAMS = {
    "REDUCE": b"cposix\nsystem\n(" + COMMAND + b"tR.",
    "INST": b"(" + COMMAND + b"iposix\nsystem\n.",
    "OBJ": b"(cposix\nsystem\n" + COMMAND + b"o.",
    "NEWOBJ": b"\x80\x02cposix\nsystem\n(" + COMMAND + b"t\x81.",
    "NEWOBJ_EX": b"\x80\x04cposix\nsystem\n(" + COMMAND + b"t}\x92.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93(" + COMMAND + b"tR.",
    "BUILD on a function": b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x04\x00\x00\x00evil" + COMMAND + b"s\x86b.",
    "BUILD on a class": b"ccollections\nOrderedDict\n}X\x04\x00\x00\x00evil" + COMMAND + b"sb.",
    "item of a module": b"cos\nenviron\nX\x04\x00\x00\x00EVIL" + COMMAND + b"s.",
}


@pytest.mark.parametrize("how", PROGRAMS)
@pytest.mark.parametrize("wrap", [zip_of, bytes], ids=["zip", "bare"])
def test_every_way_to_make_an_object_is_inert(tmp_path, monkeypatch, how, wrap):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pth"
    path.write_bytes(wrap(PROGRAMS[how]))
    try:
        assert read_state_dict(path) is None
    except UnreadableFileError:
        assert wrap is bytes  # not a file of torch.save
    assert not Path(RAN).exists() and "EVIL" not in os.environ
    assert not hasattr(torch._utils._rebuild_tensor_v2, "evil") and not hasattr(OrderedDict, "evil")


@pytest.mark.parametrize("program", [b"\x82\x01.", b"\x80\x05\x97.", b"(", b"}", b"h\x00.", b"\x80\x02Q.", b"0."])
def test_broken_and_unknown_programs_are_refused(tmp_path, program):
    for content in (program, zip_of(program)):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(UnreadableFileError):
            read_state_dict(tmp_path / "a.pth")


def test_nothing_is_imported(tmp_path, monkeypatch):
    """A module on the path whose import would be seen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "side_effect.py").write_text(f"open({RAN!r}, 'w')\nclass Thing: pass\n")
    (tmp_path / "a.pth").write_bytes(zip_of(b"cside_effect\nThing\n)R."))
    assert read_state_dict(tmp_path / "a.pth") is None
    assert not Path(RAN).exists() and "side_effect" not in sys.modules


class Sized:
    """A tensor's description with numbers of one's own, written with torch's own storage."""

    def __init__(self, tensor, offset, size, stride):
        self.arguments = tensor.storage(), offset, size, stride, False, OrderedDict()

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


@both_forms
@pytest.mark.parametrize(
    "view",
    [
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2,), (1, 1)),
        (0, (10**6, 10**6), (0, 0)),
    ],
)
def test_views_that_leave_their_storage_are_refused(tmp_path, is_zip, view):
    path = save({"a": Sized(torch.arange(4.0), *view)}, tmp_path / "a.pth", is_zip)
    with pytest.raises(UnreadableFileError, match="shape|storage"):
        read_state_dict(path)


@both_forms
def test_a_file_cut_off_anywhere_is_refused(tmp_path, is_zip):
    whole = save({"state_dict": {"a": torch.arange(1000.0)}}, tmp_path / "whole.pth", is_zip).read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(UnreadableFileError):
            read_state_dict(tmp_path / "cut.pth")


def test_compressed_archives_and_other_zips_are_refused(tmp_path):
    path = save({"a": torch.zeros(10)}, tmp_path / "a.pth", True)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for name, compression in (("deflated.pth", zipfile.ZIP_DEFLATED), ("other.pth", zipfile.ZIP_STORED)):
        with zipfile.ZipFile(tmp_path / name, "w", compression) as archive:
            for entry, content in entries.items():
                if not (name == "other.pth" and entry.endswith("data.pkl")):
                    archive.writestr(entry, content)
        with pytest.raises(UnreadableFileError, match="compressed|data.pkl"):
            read_state_dict(tmp_path / name)


def test_other_pickles_are_no_checkpoints(tmp_path):
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UnreadableFileError, match=r"torch\.save"):
        read_state_dict(tmp_path / "a.pth")

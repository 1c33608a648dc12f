import numpy as np
import pytest
from safetensors import safe_open

from comedian.errors import InputError
from comedian.files import atomic_path, atomic_write_tensors, atomic_write_text, inside, read_json, read_yaml


def test_a_result_takes_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "result.json"
    with atomic_path(path) as partial:
        partial.write_text("whole")
        assert partial == tmp_path / "new" / "result.json.partial"
        assert not path.exists()
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]
    assert path.read_text() == "whole"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]
    assert path.read_text() == "old"


def test_text_is_written_as_utf_8_with_its_own_line_ends(tmp_path):
    atomic_write_text(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "cannot be read"),
        (b'{"a": ', "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"9" * 5000, "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_json_that_cannot_be_read_is_named_in_one_line(tmp_path, content, match):
    path = tmp_path / "labels.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=match) as error:
        read_json(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_json_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_inside_joins(tmp_path):
    assert inside(tmp_path, "league/2016..2017/a - b") == tmp_path / "league" / "2016..2017" / "a - b"


@pytest.mark.parametrize(
    "relative", ["/etc", "..", "a/../../b", "a/..", "\\etc", "a\\..\\..\\b", "C:\\a", "C:a", "a\0b"]
)
def test_inside_refuses_what_leads_out(tmp_path, relative):
    with pytest.raises(InputError, match="leads out"):
        inside(tmp_path, relative)


def test_yaml_has_no_aliases_by_which_a_short_file_holds_any_amount(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a [x, x]\nb: [*a, *a]\n")
    with pytest.raises(InputError, match="a.yaml` is not YAML .*alias"):
        read_yaml(tmp_path / "a.yaml")


def test_equal_tensors_are_equal_files(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {"b": rng.random((3, 5), dtype=np.float32), "a": np.arange(3), "c": np.zeros((0, 2), np.float16)}
    metadata = {f"word {number}": 'é\n"' * number for number in range(9)}
    contents = set()
    for number in range(8):
        # the library would have its own order in each
        atomic_write_tensors(
            tmp_path / str(number), tensors, dict(reversed(metadata.items())) if number % 2 else metadata
        )
        contents.add((tmp_path / str(number)).read_bytes())
    assert len(contents) == 1
    with safe_open(tmp_path / "0", "numpy") as file:
        assert file.metadata() == metadata
        for name, array in tensors.items():
            np.testing.assert_array_equal(file.get_tensor(name), array, strict=True)

"""The rules of CONTRIBUTING.md, read from the source."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from processes import warm_programs

PACKAGE = Path(__file__).parents[1] / "src" / "comedian"
FILES = sorted(PACKAGE.rglob("*.py"))
REMOTE_CODE = sorted(path for path in (PACKAGE / "models").glob("*.py") if path.name != "__init__.py")
METRIC = PACKAGE / "evaluation" / "soccernet_average_map" / "soccernet_average_map.py"

REMOTE_CODE_MAY_IMPORT = {"torch", "numpy", "transformers", "huggingface_hub", "torchvision"} | sys.stdlib_module_names
# only inside `try`: transformers takes every other import for a requirement
REMOTE_CODE_MAY_TRY = {"av"}
METRIC_MAY_IMPORT = {"numpy", "evaluate", "datasets"} | sys.stdlib_module_names
# the page of its Space, which has nothing but its folder
METRIC_APP_MAY_IMPORT = {"gradio", METRIC.stem} | sys.stdlib_module_names
# room -> the rooms it may import
ARROWS = {
    "models": set(),
    "video": set(),
    "soccernet": {"video"},
    "events": {"soccernet", "video"},
    "inference": {"events", "soccernet", "video", "models"},
    "features": {"inference", "soccernet", "video", "models"},
    "samples": {"features", "soccernet", "video", "models"},
    "evaluation": {"samples", "inference", "soccernet", "video", "models"},
    "hub": {"features", "inference", "events", "soccernet", "models"},
    "training": {"hub", "evaluation", "samples", "features", "inference", "events", "soccernet", "video", "models"},
    "conversion": {"hub", "evaluation", "inference", "soccernet", "video", "models"},
    "report": {"evaluation", "inference", "events", "soccernet", "video", "models"},
}
ARROWS["cli"] = set(ARROWS)
SHARED = {"errors", "files", "hub_errors", "memory", "sharing"}
# room -> the files of another room that it may import: decoding and audio features are defined in `models`, for the Hub too
LEAVES = {"video": {f"comedian.models.{name}_comedian" for name in ("frames", "sound", "timeline")}}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports_of(source: str) -> set[str]:
    """Modules that a file imports anywhere, absolute names only."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            # the names too: `from comedian import data` imports a room
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


class WithoutTry(ast.NodeTransformer):
    def visit_Try(self, node):
        return ast.Pass()


def required_imports_of(source: str) -> set[str]:
    """Modules that a file imports outside `try`, as transformers counts them."""
    return imports_of(ast.unparse(WithoutTry().visit(ast.parse(source))))


def relative_imports_of(source: str) -> list[ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.level]


class WithoutLeaves(ast.NodeTransformer):
    """Removes the imports from some files."""

    def __init__(self, leaves: set[str]):
        self.leaves = leaves

    def visit_ImportFrom(self, node):
        return ast.Pass() if node.module in self.leaves else node


def rooms_of(source: str, leaves: set[str] = frozenset()) -> set[str]:
    """Rooms of our own package that a file imports, except for `leaves`."""
    source = ast.unparse(WithoutLeaves(leaves).visit(ast.parse(source)))
    names = (name.split(".") for name in imports_of(source))
    return {parts[1] for parts in names if parts[0] == "comedian" and len(parts) > 1}


each_file = pytest.mark.parametrize("path", FILES, ids=name_of)
each_remote_file = pytest.mark.parametrize("path", REMOTE_CODE, ids=name_of)


@each_remote_file
def test_remote_code_imports_only_what_the_hub_has(path):
    source = path.read_text(encoding="utf-8")
    assert {name.split(".")[0] for name in required_imports_of(source)} <= REMOTE_CODE_MAY_IMPORT
    assert {name.split(".")[0] for name in imports_of(source)} <= REMOTE_CODE_MAY_IMPORT | REMOTE_CODE_MAY_TRY
    siblings = {sibling.stem for sibling in REMOTE_CODE}
    for node in relative_imports_of(source):
        assert node.level == 1 and node.module in siblings, ast.unparse(node)


@each_remote_file
def test_remote_code_texts_do_not_look_like_imports(path):
    """Transformers finds relative imports with a regular expression, in docstrings too."""
    source = path.read_text(encoding="utf-8")
    assert len(re.findall(r"(from|import)\s+\.", source)) == len(relative_imports_of(source))


@each_remote_file
def test_remote_code_does_not_ask_for_the_class_of_a_configuration(path):
    """From a local folder, `AutoConfig` and the modeling file have classes of one name that are not the same."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            assert "Config" not in ast.unparse(node.args[1]), ast.unparse(node)


@pytest.mark.parametrize("name", ["configuration", "settings"])
def test_configuration_fields_are_validated(name):
    """`@strict` skips annotations that are strings."""
    source = (PACKAGE / "models" / f"{name}_comedian.py").read_text(encoding="utf-8")
    assert not any(name.startswith("__future__") for name in imports_of(source))


@pytest.mark.parametrize(
    "path, allowed",
    [(METRIC, METRIC_MAY_IMPORT), (METRIC.with_name("app.py"), METRIC_APP_MAY_IMPORT)],
    ids=["script", "app"],
)
def test_the_metric_is_one_script(path, allowed):
    source = path.read_text(encoding="utf-8")
    assert {name.split(".")[0] for name in imports_of(source)} <= allowed
    assert not relative_imports_of(source)


@each_file
def test_arrows_point_one_way(path):
    source = path.read_text(encoding="utf-8")
    room = path.relative_to(PACKAGE).parts[0]
    if room in ARROWS:
        allowed = ARROWS[room] | {room} | (SHARED if room != "models" else set())
        assert rooms_of(source, LEAVES.get(room, set())) <= allowed
    elif room != "__init__.py":
        assert path.stem in SHARED and rooms_of(source) <= SHARED


def test_every_room_is_known():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms <= set(ARROWS)


@each_file
def test_files_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 800


@each_file
def test_checkpoints_run_no_code(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert "weights_only=True" in [ast.unparse(keyword) for keyword in node.keywords], ast.unparse(node)


def test_the_command_starts_without_torch():
    code = "import sys, comedian, comedian.cli.main; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_no_module_imports_openvino():
    # all that commands import is there before the program begins
    code = "import sys; sys.exit('openvino' in sys.modules or 'comedian.training.train_all' not in sys.modules)"
    assert subprocess.run([warm_programs() / "python", "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize(
    "source, found",
    [
        ("def f():\n    import comedian.samples.windows", {"samples"}),
        ("from comedian import training", {"training"}),
        ("from comedian.models.x import Y", {"models"}),
        ("import torch", set()),
    ],
)
def test_imports_are_seen(source, found):
    assert rooms_of(source) == found


@pytest.mark.parametrize(
    "source, found",
    [
        ("from comedian.models.sound_comedian import x", set()),
        ("def f():\n    from comedian.models.frames_comedian import x", set()),
        ("from comedian.models.settings_comedian import x", {"models"}),
        ("from comedian.models import x", {"models"}),
        ("import comedian.models.sound_comedian", {"models"}),
    ],
)
def test_only_leaves_are_imported_from_another_room(source, found):
    assert rooms_of(source, LEAVES["video"]) == found


@pytest.mark.parametrize("leaf", sorted(set().union(*LEAVES.values())))
def test_leaves_need_no_torch(leaf):
    code = f"import sys, {leaf}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

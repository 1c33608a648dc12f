"""What SECURITY.md says of the source, read from the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "examples").rglob("*.py")])
PACKAGE = [path for path in SOURCES if (ROOT / "src") in path.parents]
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
LOOKUPS = {"getattr", "setattr", "import_module", "load", "globals", "locals", "vars", "attrgetter", "methodcaller"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
# function -> the keyword that makes it safe, and its value
SAFE_ONLY_WITH = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def name_of(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute, else empty."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([*([node.id] if isinstance(node, ast.Name) else []), *reversed(parts)])


def faults_of(source: str) -> list[str]:
    """What SECURITY.md rules out, `line: what`."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        faults += [f"{node.lineno}: imports {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        if not isinstance(node, ast.Call):
            continue
        called, keywords = name_of(node.func), {word.arg: word.value for word in node.keywords}
        constants = {name: value.value for name, value in keywords.items() if isinstance(value, ast.Constant)}
        if isinstance(node.func, ast.Name) and called in FORBIDDEN_CALLS or called in SHELLS:
            faults.append(f"{node.lineno}: calls {called}")
        if constants.get("shell"):
            faults.append(f"{node.lineno}: starts a shell")
        if called in SAFE_ONLY_WITH and constants.get(SAFE_ONLY_WITH[called][0]) is not SAFE_ONLY_WITH[called][1]:
            faults.append(f"{node.lineno}: {called} without {SAFE_ONLY_WITH[called][0]}={SAFE_ONLY_WITH[called][1]}")
        if called == "yaml.load" and len(node.args) < 2:
            faults.append(f"{node.lineno}: yaml.load without a loader")
    return faults


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_runs_what_a_file_says(path):
    assert faults_of(path.read_text()) == []


def test_the_reader_of_checkpoints_looks_nothing_up():
    """It has the names that a file gives, and must have no way to what they name; it reads the steps of a pickle alone."""
    tree = ast.parse((ROOT / "src/comedian/conversion/torch_files.py").read_text())
    calls = {name_of(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not {call for call in calls if call.split(".")[-1] in LOOKUPS}
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert modules == {
        "math",
        "pickletools",
        "sys",
        "zipfile",
        "collections.abc",
        "dataclasses",
        "pathlib",
        "typing",
        "torch",
    }
    assert {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}.isdisjoint(
        {"modules", "__dict__"}
    )


def test_no_other_file_of_the_package_reads_pickles():
    for path in PACKAGE:
        is_reader = path.name == "torch_files.py"
        assert ("pickletools" in path.read_text() or "torch.load(" in path.read_text()) <= is_reader, path


def test_xml_is_read_in_one_place():
    """With what a document may define refused; `test_formats_of_tools.py` tries it."""
    for path in PACKAGE:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        reads_xml = {name for name in modules if name.split(".")[0] in ("xml", "lxml", "bs4")}
        assert not reads_xml or path.name == "xml_files.py", f"{path}: {reads_xml}"


def test_the_package_never_trusts_remote_code_by_itself():
    for path in PACKAGE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert not (isinstance(node.value, ast.Constant) and node.value.value), f"{path}: {node.lineno}"


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "import pickle",
        "from joblib import load",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
    ],
)
def test_each_fault_is_found(source):
    assert len(faults_of(source)) == 1

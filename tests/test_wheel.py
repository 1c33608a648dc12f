"""The wheel: complete, accepted by the package index, and at work in an environment that holds nothing else of ours."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src", "hub_configs")
DEMO = ROOT / "examples" / "demo"
# of a user: nothing of the checkout on the path, nobody's settings
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}


def run(*words: str | Path, folder: Path, code: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, cwd=folder, timeout=300, env=ENVIRONMENT
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of the sources, as building writes beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "sources" / name, symlinks=True, ignore=ignored)
        else:
            (folder / "sources").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / "sources")
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", folder)
    run(sys.executable, *build, folder / "sources", folder=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory) -> Path:
    """The programs of a fresh environment with the wheel; its dependencies are those of the environment of the tests."""
    folder = tmp_path_factory.mktemp("bare")
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    python = folder / "bin" / "python"
    offline = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *offline, wheel, folder=folder)
    (packages,) = folder.glob("lib/*/site-packages")
    # a path in a .pth file brings no .pth files of its own, so the checkout stays out
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def test_the_wheel_holds_every_module_and_recipe_and_no_results(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("comedian/")}
    package = ROOT / "src" / "comedian"
    modules = {f"comedian/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    recipes = [path.relative_to(ROOT) for name in ("*.yaml", "*.json") for path in ROOT.glob(f"hub_configs/*/{name}")]
    assert {name for name in names if "hub_configs" in name} == {f"comedian/{path.as_posix()}" for path in recipes}
    assert {"comedian/py.typed", "comedian/hub/model_card_template.md"} <= names


def test_the_package_index_takes_it(wheel):
    assert "PASSED" in run(sys.executable, "-m", "twine", "check", "--strict", wheel, folder=wheel.parent).stdout


def test_its_page_on_the_index_names_what_is_there(wheel):
    """Pictures and links are absolute, as the index has no other files of the repository."""
    metadata = next(name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    readme = text.partition("\n\n")[2]
    assert readme.strip() == (ROOT / "README.md").read_text().strip()
    targets = re.findall(r"\]\(([^)]*)\)|(?:src|href)=\"([^\"]*)\"", re.sub(r"```.*?```", "", readme, flags=re.DOTALL))
    for target in map("".join, targets):
        assert target.startswith(("https://", "#")), target


def test_the_installed_command_spots_the_demos_video_from_another_folder(bare, tmp_path):
    where = run(bare / "python", "-c", "import comedian; print(comedian.__file__)", folder=tmp_path).stdout
    assert where.startswith(str(bare.parent)), where
    video, output = DEMO / "match" / "2_224p.mkv", tmp_path / "events.json"
    run(bare / "comedian", "spot", video, "--model", DEMO / "model", "--output", output, folder=tmp_path)
    labels = json.loads((DEMO / "match" / "Labels-v2.json").read_text())["annotations"]
    truth = [(item["label"], int(item["position"])) for item in labels if item["gameTime"].startswith("2")]
    spots = [(item["label"], int(item["position"])) for item in json.loads(output.read_text())["predictions"]]
    hits = [any(label == true and abs(ms - true_ms) < 2500 for true, true_ms in truth) for label, ms in spots]
    # 5 of 9 where the weights were made
    assert sum(hits) >= 4, spots


def test_the_installed_command_finds_recipes_by_name_and_says_where_the_demos_model_is(bare, tmp_path):
    train = (bare / "comedian", "train", "gfspot-viswin-nano", "--data", "NOWHERE", "--output", "RUN")
    assert "NOWHERE" in run(*train, folder=tmp_path, code=2).stderr
    spot = (bare / "comedian", "spot", DEMO / "match" / "1_224p.mkv", "--model", "demo")
    assert "clone the repository" in run(*spot, folder=tmp_path, code=2).stderr

"""The benchmarks run at small sizes, agree with the straightforward way where they check it, and print a ratio."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "examples" / "benchmarks"
SMALL = {
    "augmentation": ["--batch", "3", "--height", "32", "--width", "40", "--rounds", "1"],
    "distillation_loss": ["--batch", "2", "--tokens", "4", "--queue", "32", "--dim", "8"],
    "official_score": ["--matches", "1", "--predictions", "3"],
    "suppression": ["--steps", "200", "--labels", "3", "--repeats", "1"],
    "training_step": ["--stages", "1", "--clips", "1", "--repeats", "1"],
}
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "common")


@pytest.fixture
def run(monkeypatch):
    """Run a benchmark's `main` with some words; modules and the number of threads are as before afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    threads, before = torch.get_num_threads(), set(sys.modules)

    def main(name: str, words: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        importlib.import_module(name).main()

    yield main
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before & {*NAMES, "common"}:
        del sys.modules[name]


@pytest.mark.parametrize("name", SMALL)
def test_it_runs_small(run, capsys, name):
    run(name, SMALL[name])
    assert re.search(r"\d+\.\d+|\d+ times", capsys.readouterr().out)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_help_that_names_its_command(run, capsys, name):
    with pytest.raises(SystemExit) as end:
        run(name, ["--help"])
    assert end.value.code == 0 and f"python examples/benchmarks/{name}.py" in capsys.readouterr().out


def test_every_benchmark_is_in_the_table():
    text = (FOLDER / "README.md").read_text()
    assert [name for name in NAMES if f"{name}.py" not in text] == []

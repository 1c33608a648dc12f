"""The benchmarks run at small sizes, agree with the straightforward way where they check it, and print a ratio."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from comedian.models import ComedianForActionSpotting
from testing_utils import tiny_config

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


def test_all_of_them_are_run_with_options_that_they_have(run, capsys, tmp_path):
    """`all.sh` as it stands, with a `python` that only notes its arguments."""
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$*" >> "$LOG"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
    subprocess.run(["bash", FOLDER / "all.sh", "GFSPOT", tmp_path / "work"], env=environment, check=True, timeout=60)
    commands = [line.split()[2:] for line in (tmp_path / "log").read_text().splitlines()]
    # computes, and measures nothing
    assert {Path(script).stem for script, *_ in commands} == set(NAMES) - {"cluster"}
    for script, *words in commands:
        with pytest.raises(SystemExit):
            run(Path(script).stem, ["--help"])
        printed = capsys.readouterr().out
        assert all(word in printed for word in words if word.startswith("--")), script


@pytest.mark.parametrize("fused_attention", [False, True])
def test_the_published_form_of_a_model_gives_the_same_scores(run, fused_attention):
    torch.manual_seed(0)
    model = ComedianForActionSpotting(tiny_config(initializer_range=0.3)).eval()
    pixels = torch.randn(2, model.config.num_frames, 3, *model.config.image_size)
    with torch.inference_mode():
        expected = model(pixels).logits
        published = importlib.import_module("common").in_published_form(model, fused_attention)
        assert published.comedian.spatial_encoder.layers[-1].attention.config._attn_implementation == (
            "sdpa" if fused_attention else "eager"
        )
        torch.testing.assert_close(published(pixels).logits, expected, atol=1e-5, rtol=1e-5)


def test_the_table_of_the_cluster_follows_from_the_measured_rates(run, capsys):
    run("cluster", [])
    page = (FOLDER.parent / "guides" / "how_to" / "cluster.md").read_text()
    assert capsys.readouterr().out in page, "run `cluster.py --page examples/guides/how_to/cluster.md`"


def test_hours_are_of_the_process_with_the_most_halves(run):
    run("cluster", [])
    make_table = sys.modules["cluster"].make_table
    rates = [
        "| a 45-minute half, ViViT-T, from file to events | 4x, 100x real time | 9 s, 30x real time | 147.1 s | **3.4** |",
        "| `comedian prepare` | 150x real time, 40 MB a half | **100x, 10 MB** | 168x, 98.4 MB | 1.7 |",
    ]
    row = next(line for line in make_table("\n".join(rates)).splitlines() if "season | 380 | 16" in line)
    # 760 halves on 16 processes: 48 on the busiest, 36 hours; 5 400 tokens of 17 labels a half
    assert row == "| a league's season | 380 | 16 | 0.36 | 1.2 | 7.6 GB | 140 MB |"


def test_every_benchmark_is_in_the_table():
    text = (FOLDER / "README.md").read_text()
    assert [name for name in NAMES if f"{name}.py" not in text] == []

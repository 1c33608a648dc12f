"""A disk that fills up: one line, exit code 2, what was there before stays whole; with room again, it goes on."""

from pathlib import Path

import pytest
from kill_harness import Killer, contents
from test_killed import is_result

from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from match_factory import write_recipe, write_stage_data
from testing_utils import tiny_config


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, Path, Path, Path]:
    """Matches, their frame store, a bank of features, and a model."""
    folder = tmp_path_factory.mktemp("data")
    root, store, bank = write_stage_data(folder)
    ComedianForActionSpotting(tiny_config(initializer_range=0.5)).save_pretrained(folder / "model")
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "model")
    return root, store, bank, folder / "model"


def words_of(command: str, data: tuple[Path, ...], tmp_path: Path) -> list:
    root, store, bank, model = data
    if command == "finetune":
        recipe = write_recipe(tmp_path / "recipe", root, store, num_train_epochs=1, output_dir="out")
        return ["finetune", "--config", recipe]
    return {
        "prepare": ["prepare", root, "out", "--fps", "2", "--height", "16"],
        "extract-features": ["extract-features", root, "out", "--model", model, "--device", "cpu"],
        "reduce-features": ["reduce-features", bank, "out", "--dim", "3", "--data", root, "--split", "train"],
        "spot": ["spot", root, "--model", model, "--output", "out/r.zip", "--save-scores", "out/s", "--device", "cpu"],
    }[command]


@pytest.mark.parametrize(
    ("command", "sizes"),
    [
        ("prepare", (0, 50, 900)),
        ("extract-features", (0, 300)),
        ("reduce-features", (0, 300)),
        ("spot", (0, 1500)),
        # nothing; code; weights; the optimizer's state
        ("finetune", (0, 10_000, 40_000, 60_000)),
    ],
)
def test_a_full_disk_is_one_line_and_costs_nothing(command, sizes, data, tmp_path):
    words = words_of(command, data, tmp_path)
    alone, folder = tmp_path / "alone", tmp_path / "full"
    alone.mkdir()
    folder.mkdir()
    reference, killer = Killer(words, alone, 0), Killer(words, folder, 0)
    reference.run()
    expected = contents(alone / "out", lambda name: not is_result(name))
    for size in sizes:
        before = contents(folder / "out") if (folder / "out").exists() else {}
        code, printed = killer.run_short_of_room(size)
        assert code == 2 and "Traceback" not in printed, printed[-2000:]
        lines = [line for line in printed.splitlines() if line.startswith(f"comedian {command}: ")]
        assert len(lines) == 1 and "free some disk space" in lines[0], printed[-2000:]
        now = contents(folder / "out") if (folder / "out").exists() else {}
        whole = {name: digest for name, digest in before.items() if is_result(name)}
        assert whole.items() <= now.items()
        assert not [name for name in now if name.endswith(".partial")]
    killer.run()
    assert contents(folder / "out", lambda name: not is_result(name)) == expected

"""`comedian convert`: flags, report and exit codes."""

import subprocess
import sys

import pytest
import torch

from comedian.cli.main import main
from comedian.models import ComedianForActionSpotting
from naive_model import random_checkpoint


@pytest.fixture
def checkpoint(tmp_path):
    tensors = random_checkpoint(
        "vivit", width=8, depths=[1], heads=[2], image=(8, 16), patch=4, tubelet=2, frames=4, classes=2
    )
    tensors["val_transform.0.mean"] = torch.ones(3)
    torch.save({"state_dict": tensors}, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


def test_every_flag_reaches_the_model(checkpoint, tmp_path, capsys):
    (tmp_path / "labels.txt").write_text("pass\ndrive\n")
    words = (
        f"convert {checkpoint} {tmp_path / 'out'} --spatial-heads 2 --temporal-heads 4 --image-size 8 16 --fps 12.5"
    )
    assert main([*words.split(), "--labels", str(tmp_path / "labels.txt")]) == 0
    printed = capsys.readouterr().out
    assert "ComedianForActionSpotting from a spotting checkpoint" in printed
    assert "4 frames of 8 x 16 at 12.5 fps" in printed
    assert "skipped  1 x val_transform" in printed
    assert "assumed" not in printed
    config = ComedianForActionSpotting.from_pretrained(tmp_path / "out").config
    assert (config.spatial_num_heads, config.temporal_num_heads) == ([2], 4)
    assert (config.image_size, config.fps, config.label_names) == ([8, 16], 12.5, ["pass", "drive"])


def test_assumptions_are_printed_with_their_flags(checkpoint, tmp_path, capsys):
    words = f"convert {checkpoint} {tmp_path / 'out'} --spatial-heads 2 --temporal-heads 2 --image-size 8 16"
    assert main(words.split()) == 0
    assert "assumed  labels: LABEL_0 to LABEL_1 (--labels)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, named",
    [
        ("", "--image-size"),
        ("--image-size 8 16", "spatial_num_heads"),
        ("--image-size 8 16 --spatial-heads 2 --temporal-heads 3", "temporal_num_heads"),
        ("--image-size 8 20 --spatial-heads 2 --temporal-heads 2", "10 patches"),
        ("--image-size 8 16 --spatial-heads 2 --temporal-heads 2 --fps 0", "`fps`"),
        ("--labels missing.txt", "missing.txt"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(flags, named, checkpoint, tmp_path, capsys):
    assert main(["convert", str(checkpoint), str(tmp_path / "out"), *flags.split()]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("comedian convert: ") and named in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_broken_file_has_no_traceback(tmp_path):
    (tmp_path / "broken.ckpt").write_bytes(b"nothing")
    command = [sys.executable, "-m", "comedian.cli.main", "convert", "broken.ckpt", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "broken.ckpt" in done.stderr and "Traceback" not in done.stderr


def test_help_says_every_flag(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["convert", "--help"])
    printed = capsys.readouterr().out
    for flag in ("--spatial-heads", "--temporal-heads", "--image-size", "--fps", "--labels"):
        assert flag in printed

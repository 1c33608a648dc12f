"""`comedian convert`: flags, report and exit codes."""

import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from comedian import ActionSpotter
from comedian.cli.main import main
from comedian.hub.model_publish import files_to_publish
from comedian.models import ComedianForActionSpotting
from naive_model import random_checkpoint
from processes import warm_programs
from video_factory import write_video

REPO = "juliendenize/COMEDIAN-ViViT-tiny"
SIZES = {"width": 8, "depths": [1], "heads": [2], "image": (8, 8), "patch": 4, "tubelet": 2, "frames": 4}
HEADS = ["--spatial-heads", "2", "--temporal-heads", "2"]
SEEDS = ("comedian_vivit_tiny_seed203.pth", "comedian_vivit_tiny_seed42.pth", "comedian_vivit_tiny_seed666.pth")


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
    command = [warm_programs() / "comedian", "convert", "broken.ckpt", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "broken.ckpt" in done.stderr and "Traceback" not in done.stderr


def test_help_says_every_flag(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["convert", "--help"])
    printed = capsys.readouterr().out
    for flag in ("--spatial-heads", "--temporal-heads", "--image-size", "--fps", "--labels"):
        assert flag in printed


# repositories and folders of the authors' files


def published_files() -> dict[str, bytes]:
    """What the authors' repository holds: flat state dicts with buffers among the weights, and texts."""
    files = {"README.md": b"# COMEDIAN", ".gitattributes": b"*.pth filter=lfs"}
    for name in SEEDS:
        file = io.BytesIO()
        torch.save(random_checkpoint("vivit", **SIZES) | {"test_transform.0.mean": torch.ones(3)}, file)
        files[name] = file.getvalue()
    return files


def folder_of(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("where", ["hub", "folder"])
def test_all_files_are_one_model(hub, tmp_path, capsys, where):
    files = published_files()
    source = str(folder_of(files, tmp_path / "files"))
    if where == "hub":
        hub.add(REPO, files, repo_type="model")
        source = REPO
    output = tmp_path / "out"
    assert main(["convert", source, str(output), *HEADS]) == 0
    printed = capsys.readouterr().out
    assert f"an ensemble of 3 x ComedianForActionSpotting from {', '.join(SEEDS)}" in printed
    assert f"comedian spot VIDEO --model {output}" in printed and "skipped  1 x test_transform" in printed
    for folder, name in zip((output, output / "ensemble" / "1", output / "ensemble" / "2"), SEEDS, strict=True):
        bias = torch.load(io.BytesIO(files[name]), weights_only=True)["head_class.layers.0.bias"]
        assert torch.equal(load_file(folder / "model.safetensors")["classifier.bias"], bias)
        assert json.loads((folder / "model_record.json").read_text())["converted_from"] == name
    assert not (output / "ensemble" / "3").exists()

    # one model: the mean of the three
    video = write_video(tmp_path / "a.mkv", num_frames=40, fps=4, height=16, width=16)
    singles = []
    for name in SEEDS:
        assert main(["convert", source, str(tmp_path / name), *HEADS, "--file", name]) == 0
        singles.append(ActionSpotter.from_pretrained(tmp_path / name, device="cpu").score(video))
    spotter = ActionSpotter.from_pretrained(output, device="cpu")
    assert len(spotter.models) == 3
    np.testing.assert_allclose(spotter.score(video), np.mean(singles, axis=0), atol=1e-6)
    assert main(["spot", str(video), "--model", str(output), "--output", str(tmp_path / "events.json")]) == 0
    # and is published as one
    sent = files_to_publish(output, "me/x")
    assert {name for name in sent if name.endswith(".safetensors")} == {
        *("model.safetensors", "ensemble/1/model.safetensors", "ensemble/2/model.safetensors")
    }
    assert "the mean of the scores of 3 models" in sent["README.md"].decode()
    hub.add("me/x", {name: file if isinstance(file, bytes) else file.read_bytes() for name, file in sent.items()},
            repo_type="model")  # fmt: skip
    again = ActionSpotter.from_pretrained("me/x", device="cpu")
    np.testing.assert_array_equal(again.score(video), spotter.score(video))


def test_one_file_of_a_repository_alone_is_fetched(hub, tmp_path):
    hub.add(REPO, published_files(), repo_type="model")
    assert main(["convert", REPO, str(tmp_path / "out"), *HEADS, "--file", SEEDS[1]]) == 0
    assert hub.fetched == [SEEDS[1]] and not (tmp_path / "out" / "ensemble").exists()


def test_commands_that_need_one_model_refuse_an_ensemble(tmp_path, capsys):
    source = folder_of(published_files(), tmp_path / "files")
    model = tmp_path / "out"
    assert main(["convert", str(source), str(model), *HEADS]) == 0
    capsys.readouterr()
    videos = tmp_path / "videos"
    videos.mkdir()
    (tmp_path / "events.csv").write_text("video,label,time_s\n")
    for words in (
        ["export", model, tmp_path / "graphs", "--format", "torch-export"],
        ["average", model, model, "--output", tmp_path / "mean"],
        [
            "finetune",
            "--videos",
            videos,
            "--events",
            tmp_path / "events.csv",
            "--model",
            model,
            "--output",
            tmp_path / "r",
        ],
    ):
        assert main([str(word) for word in words]) == 2, words
        error = capsys.readouterr().err.strip()
        assert "an ensemble of 3 models" in error and f"`{model}/ensemble/1`" in error and "\n" not in error


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"classes": 2}, "differ in `label_names`"),
        ({"tubelet": 1}, "differ in `tubelet_size`"),
        ({}, "broken.pth"),
    ],
)
def test_files_that_make_no_ensemble_leave_nothing(tmp_path, capsys, change, reason):
    files = {name: content for name, content in published_files().items() if name == SEEDS[0]}
    source = folder_of(files, tmp_path / "files")
    torch.save(random_checkpoint("vivit", **(SIZES | change)), source / "other.pth")
    if not change:
        (source / "broken.pth").write_bytes(b"broken")
    assert main(["convert", str(source), str(tmp_path / "out"), *HEADS]) == 2
    error = capsys.readouterr().err.strip()
    assert reason in error and "\n" not in error and not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    "words, reason",
    [
        ([REPO, "--file", "none.pth"], f"has no file `none.pth`; its checkpoints: {', '.join(SEEDS)}"),
        (["me/nothing"], "there is no repository"),
        (["me/texts"], "neither checkpoints"),
        (["RUN"], "`RUN` does not exist"),
        (["./me/x"], "`./me/x` does not exist"),
        (["seed.pth"], "`seed.pth` is not a file"),
        (["seed.pth", "--file", "b.pth"], "--file b.pth"),
    ],
)
def test_sources_that_are_none_are_one_line(hub, tmp_path, monkeypatch, capsys, words, reason):
    monkeypatch.chdir(tmp_path)
    hub.add(REPO, published_files(), repo_type="model")
    hub.add("me/texts", {"README.md": b"# nothing"}, repo_type="model")
    assert main(["convert", words[0], "out", *words[1:]]) == 2
    error = capsys.readouterr().err.strip()
    assert reason in error and "\n" not in error and not (tmp_path / "out").exists()

"""The mean of checkpoints: tensor by tensor, with record and code, and only of one run."""

import json

import pytest
import torch
from safetensors.torch import load_file

from comedian import ActionSpotter
from comedian.cli.main import main
from comedian.conversion.averaging import average_models
from comedian.hub.model_card import render_card
from comedian.hub.model_record import ModelRecord, hash_weights, read_record
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from testing_utils import tiny_config


def save_checkpoint(path, seed, record=None, **overrides):
    torch.manual_seed(seed)
    config = tiny_config(initializer_range=0.5, **overrides)
    ComedianForActionSpotting(config).save_pretrained(path)
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(path)
    if record:
        record.save(path)
    return path


def told(capsys):
    """The lines that are no progress bar."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("comedian average:")]


@pytest.fixture
def run(tmp_path):
    last = ModelRecord(started_from="somewhere/else")
    return [
        save_checkpoint(tmp_path / "checkpoint-1", 1, label_thresholds=[0.1, 0.2, 0.3]),
        save_checkpoint(tmp_path / "checkpoint-2", 2),
        save_checkpoint(tmp_path / "checkpoint-3", 3, record=last),
    ]


def test_every_weight_is_the_mean(run, tmp_path, capsys):
    assert main(["average", *map(str, run), "--output", str(tmp_path / "mean")]) == 0
    assert "3 checkpoints" in capsys.readouterr().out
    parts = [load_file(folder / "model.safetensors") for folder in run]
    mean = load_file(tmp_path / "mean" / "model.safetensors")
    assert mean.keys() == parts[0].keys() and not torch.equal(
        parts[0]["classifier.weight"], parts[1]["classifier.weight"]
    )
    for name, tensor in mean.items():
        expected = torch.stack([part[name].double() for part in parts]).mean(0)
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-7)


def test_the_folder_is_a_model_with_an_honest_record(run, tmp_path):
    main(["average", *map(str, run), "--output", str(tmp_path / "mean")])
    record = read_record(tmp_path / "mean")
    assert record.averaged_from == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    assert record.started_from == "somewhere/else"
    assert record.weights_sha256 == hash_weights(tmp_path / "mean") != hash_weights(run[-1])
    assert (tmp_path / "mean" / "modeling_comedian.py").is_file()
    assert ActionSpotter.from_pretrained(tmp_path / "mean").config.label_thresholds is None
    card = render_card(tmp_path / "mean", "me/mean")
    assert "mean of 3 checkpoints: `checkpoint-1`, `checkpoint-2`, `checkpoint-3`." in card
    assert "was not recorded" not in card


def test_sums_are_float32_and_the_dtype_stays():
    models = [ComedianForActionSpotting(tiny_config()).bfloat16() for _ in range(3)]
    values = [256.0, 1.0, 1.0]  # in bfloat16 256 + 1 is 256
    for model, value in zip(models, values):
        model.classifier.bias.data.fill_(value)
    average = average_models(models[0], [("b", models[1]), ("c", models[2])])
    assert average.classifier.bias.dtype == torch.bfloat16
    assert average.classifier.bias[0].item() == 86.0


@pytest.mark.parametrize(
    "change, reason", [({"nms_window_s": 4.0}, "nms_window_s"), ({"temporal_depth": 1}, "temporal_depth")]
)
def test_other_runs_are_refused(run, tmp_path, capsys, change, reason):
    other = save_checkpoint(tmp_path / "other", 4, **change)
    assert main(["average", str(run[0]), str(other), "--output", str(tmp_path / "mean")]) == 2
    [message] = told(capsys)
    assert "other" in message and reason in message
    assert not (tmp_path / "mean").exists() and not list(tmp_path.glob("*.partial"))


def test_one_checkpoint_is_no_average(run, tmp_path, capsys):
    assert main(["average", str(run[0]), "--output", str(tmp_path / "mean")]) == 2
    assert main(["average", str(run[0]), "nowhere", "--output", str(tmp_path / "mean")]) == 2
    assert main(["average", *map(str, run), "--output", str(run[0])]) == 2
    errors = told(capsys)
    assert "two or more" in errors[0] and "`nowhere` does not exist" in errors[1] and "exists already" in errors[2]
    assert json.loads((run[0] / "config.json").read_text())["label_thresholds"] == [0.1, 0.2, 0.3]

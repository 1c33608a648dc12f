import numpy as np
import pytest

from comedian.cli.commands.extract_features import SOURCES
from comedian.cli.main import main
from comedian.features.bank import FeatureBank
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from comedian.soccernet.layout import PUBLISHED
from match_factory import write_matches
from testing_utils import tiny_config


@pytest.fixture
def root(tmp_path):
    return write_matches(tmp_path / "root")


@pytest.fixture
def model(tmp_path):
    ComedianForActionSpotting(tiny_config(initializer_range=0.5)).save_pretrained(tmp_path / "model")
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def run(command, *words):
    return main([command, *map(str, words)])


def test_from_videos_to_a_reduced_bank(root, model, tmp_path, capsys):
    assert run("extract-features", root, tmp_path / "bank", "--model", model, "--dtype", "float32") == 0
    printed = capsys.readouterr().out
    assert "halves: 6 done, 0 there already; 16 values, 1 features a second, the first at 0.25 s" in printed
    assert FeatureBank(tmp_path / "bank").open("league/one", 1).dtype == "float32"
    fit = ("--dim", 3, "--data", root, "--split", "train")
    assert run("reduce-features", tmp_path / "bank", tmp_path / "reduced", *fit) == 0
    printed = capsys.readouterr().out
    assert (
        "halves: 6 done, 0 there already; " in printed and "PCA 16 -> 3, fitted on 48 features of 4 halves" in printed
    )
    assert "% of the variance kept" in printed
    half = FeatureBank(tmp_path / "reduced").open("league/three", 2)
    half.check(token_rate=1.0, duration_s=12.0, dim=3)
    assert run("reduce-features", tmp_path / "bank", tmp_path / "reduced", *fit) == 0
    assert "halves: 0 done, 6 there already" in capsys.readouterr().out
    assert run("reduce-features", tmp_path / "bank", tmp_path / "again", "--transform", tmp_path / "reduced") == 0
    assert FeatureBank(tmp_path / "again").first.reduction == half.reduction


def test_a_split(root, model, tmp_path, capsys):
    words = ("extract-features", root, tmp_path / "bank", "--model", model, "--batch-size", 2, "--device", "cpu")
    assert run(*words, "--split", "valid") == 0
    assert "halves: 2 done" in capsys.readouterr().out
    assert run(*words, "--split", "valid", "train") == 0
    assert "halves: 4 done, 2 there already" in capsys.readouterr().out
    assert run(*words, "--split", "test") == 2
    assert "has no split 'test'; it has train, validation" in capsys.readouterr().err


def test_published_features(root, tmp_path, capsys):
    np.save(root / "league/one/1_baidu_soccer_embeddings.npy", np.ones((12, 5), np.float32))
    assert run("extract-features", root, tmp_path / "bank", "--from", "baidu") == 0
    assert (
        "halves: 1 done, 0 there already; 5 values, 1 features a second, the first at 0.5 s" in capsys.readouterr().out
    )
    assert run("extract-features", root, tmp_path / "other", "--from", "resnet") == 2
    assert "comedian extract-features: no match under" in capsys.readouterr().err


def test_the_kinds_offered_are_those_known():
    assert SOURCES == tuple(PUBLISHED)


@pytest.mark.parametrize(
    "options, named",
    [(["--hop-s", 1], "hop-s"), (["--fps", 2], "fps"), (["--clip-s", 2], "clip-s"), (["--batch-size", 2], "batch-size"),
     (["--device", "cpu"], "device"), (["--trust-remote-code"], "trust-remote-code")],
)  # fmt: skip
def test_options_of_models_only(root, tmp_path, capsys, options, named):
    assert run("extract-features", root, tmp_path / "bank", "--from", "baidu", *options) == 2
    assert f"--{named} requires --model; remove it for --from" in capsys.readouterr().err


def test_options_of_other_models_only(root, model, tmp_path, capsys):
    assert run("extract-features", root, tmp_path / "bank", "--model", model, "--hop-s", 2) == 2
    assert "has its own windows" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--model", "a", "--from", "baidu"], ["--from", "c3d"]])
def test_one_source(root, tmp_path, words):
    with pytest.raises(SystemExit) as stop:
        run("extract-features", root, tmp_path / "bank", *words)
    assert stop.value.code == 2


@pytest.mark.parametrize(
    "words, message",
    [
        (["--dim", 3], "give --dim, --data and --split to fit, or --transform OTHER_BANK"),
        (["--transform", "x", "--dim", 3], "--transform does not fit a PCA; remove"),
        (["--transform", "x", "--split", "train"], "--transform does not fit a PCA; remove"),
        (["--transform", "x"], "is not a feature bank"),
    ],
)
def test_what_to_fit(tmp_path, capsys, words, message):
    assert run("reduce-features", tmp_path / "bank", tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["extract-features", "reduce-features"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        run(command, "--help")
    assert stop.value.code == 0 and f"usage: comedian {command}" in capsys.readouterr().out

"""`comedian tune`: from saved scores of windows to settings that spotting uses, in a file or in the model."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.hub.model_record import ModelRecord, hash_weights, read_record
from comedian.inference.score_files import load_score_folders, load_scores, merged_scores, save_scores
from comedian.inference.settings import MERGING, SETTINGS, write_settings_into
from comedian.inference.spotter import ActionSpotter
from comedian.inference.torch_model import TorchModel
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from testing_utils import tiny_config
from video_factory import write_video

LABELS = ["Goal", "Ball out of play", "Corner"]
MATCHES = [f"league/2024/{name}" for name in "abc"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A model, three matches with labels where it is sure, and the scores of windows a token apart."""
    folder = tmp_path_factory.mktemp("tune")
    torch.manual_seed(0)
    fields = {"window_stride_s": 2.0, "edge_trim_s": 1.0, "merge": "max", "label_thresholds": [0.3, 0.4, 0.5]}
    # too wide for the labels below, so that another is better on any machine
    fields["nms_window_s"] = 30.0
    config = tiny_config(num_frames=16, initializer_range=0.5, id2label=dict(enumerate(LABELS)), **fields)
    ComedianForActionSpotting(config).save_pretrained(folder / "model")
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "model")
    ModelRecord(started_from="here").save(folder / "model")
    for number, match in enumerate(MATCHES):
        for half in (1, 2):
            write_video(folder / f"root/{match}/{half}_224p.mkv", num_frames=260 + 30 * number + 20 * half, fps=10)
        (folder / f"root/{match}/Labels-v2.json").write_text('{"annotations": []}')
    words = ["--model", str(folder / "model"), "--save-scores", str(folder / "windows"), "--save-windows", "1"]
    assert main(["spot", str(folder / "root"), *words, "--output", str(folder / "all.zip")]) == 0
    rng = np.random.default_rng(0)
    for match, halves in load_score_folders([folder / "windows"])[0].items():
        events = []
        for half, scores in halves.items():
            for label in range(3):
                for step in np.argsort(-scores[:, label])[:12:2]:
                    position_ms = int(max(1000 * (step + rng.normal(0, 1)), 0))
                    clock = f"{half} - {position_ms // 60000:02d}:{position_ms // 1000 % 60:02d}"
                    events.append({"gameTime": clock, "label": LABELS[label], "position": str(position_ms)})
        (folder / f"root/{match}/Labels-v2.json").write_text(json.dumps({"annotations": events}))
    splits = {"train": MATCHES[:2], "validation": MATCHES[2:]}
    (folder / "root/splits.json").write_text(json.dumps(splits))
    return folder


@pytest.fixture
def comedian(shared, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, [line for line in err.splitlines() if line.startswith("comedian ")]

    return run


def predictions(path):
    return json.loads(path.read_text())["predictions"]


def test_windows_merge_as_the_model_does(shared):
    path = shared / "windows" / MATCHES[0] / "1.safetensors"
    scored = load_scores(path, with_windows=True)
    assert load_scores(path).windows is None
    assert scored.windows.scores.shape == (len(scored.scores) - 8 + 1, 8, 3)
    model, processor = ComedianForActionSpotting.from_pretrained(shared / "model"), ComedianVideoProcessor()
    processor = ComedianVideoProcessor.from_pretrained(shared / "model")
    video = shared / f"root/{MATCHES[0]}/1_224p.mkv"
    for merge, stride_s, trim_s in (("max", 2.0, 1.0), ("mean", 1.0, 2.0), ("max", 3.0, 0.0), ("mean", 4.0, 2.0)):
        settings = {"merge": merge, "window_stride_s": stride_s, "edge_trim_s": trim_s}
        for name, value in settings.items():
            setattr(model.config, name, value)
        expected = ActionSpotter([TorchModel(model, processor)]).score(video)
        np.testing.assert_allclose(merged_scores(path, settings), expected, atol=5e-3)
    assert np.array_equal(merged_scores(path, {}), scored.scores)


def test_scores_of_other_weights_are_not_taken_for_the_models(comedian, shared, tmp_path):
    """The same architecture and labels: trained again, a model's settings are not chosen on the scores before."""
    model = shutil.copytree(shared / "model", tmp_path / "model")
    torch.manual_seed(1)
    config = ComedianForActionSpotting.from_pretrained(model).config
    ComedianForActionSpotting(config).save_pretrained(model)
    before = (model / "config.json").read_bytes()
    code, _, (error,) = comedian("tune", shared / "root", shared / "windows", "--model", model)
    assert code == 2 and "holds scores of other weights than those of" in error
    assert (model / "config.json").read_bytes() == before
    # a folder of which a part was scored by the one and a part by the other
    mixed = shutil.copytree(shared / "windows", tmp_path / "mixed")
    videos = tmp_path / "root" / MATCHES[0]
    shutil.copytree(shared / "root" / MATCHES[0], videos)
    words = ["--model", model, "--save-scores", mixed, "--output", "mixed.zip", "--device", "cpu"]
    assert comedian("spot", tmp_path / "root", *words)[0] == 0
    code, _, (error,) = comedian("spot", "--scores", mixed, "--output", "again.zip")
    assert code == 2 and "hold scores of different models or settings" in error
    # nor are settings that were chosen on the scores of the one used with the other
    assert comedian("tune", shared / "root", shared / "windows", "--output", "settings.json")[0] == 0
    words = ["--model", model, "--settings", "settings.json", "--output", "b.json", "--device", "cpu"]
    code, _, told = comedian("spot", videos / "1_224p.mkv", *words)
    assert code == 2 and "chosen on scores of other weights" in told[-1] and not (tmp_path / "b.json").exists()


def test_settings_in_a_file(comedian, shared, tmp_path):
    code, out, _ = comedian(
        "tune", shared / "root", shared / "windows", "--output", "out/settings.json", "--min-events", 2
    )
    assert code == 0 and out.startswith("3 matches, average-mAP tight in percent")
    content = json.loads((tmp_path / "out/settings.json").read_text())
    assert content["labels"] == LABELS and set(content["settings"]) == set(SETTINGS)
    table = out.splitlines()
    assert [line.split("  ")[0] for line in table[-3:]] == LABELS
    videos = [shared / f"root/{MATCHES[0]}/{half}_224p.mkv" for half in (1, 2)]
    shutil.copytree(shared / "windows" / MATCHES[0], tmp_path / "one")
    settings = ["--settings", "out/settings.json"]
    assert comedian("spot", "--scores", "one", *settings, "--output", "a.json")[0] == 0
    assert comedian("spot", *videos, "--model", shared / "model", *settings, "--output", "b.json")[0] == 0
    first, second = predictions(tmp_path / "a.json"), predictions(tmp_path / "b.json")
    assert [event["position"] for event in first] == [event["position"] for event in second] and len(first) > 5
    for one, other in zip(first, second):
        assert float(one["confidence"]) == pytest.approx(float(other["confidence"]), abs=0.02)
    words = ["--model", shared / "model", "--live", "--output", "live.json"]
    assert comedian("spot", videos[0], *words, *settings)[0] == 0
    # in any order of events of one instant
    of_first_half = sorted((event["position"], event["label"]) for event in second if event["half"] == "1")
    live = sorted((event["position"], event["label"]) for event in predictions(tmp_path / "live.json"))
    assert live == of_first_half
    # other scores than without the settings, and the official score of what they give is the one that was told
    assert comedian("spot", "--scores", "one", "--output", "plain.json")[0] == 0
    assert predictions(tmp_path / "plain.json") != first
    assert comedian("spot", "--scores", shared / "windows", *settings, "--output", "all.zip")[0] == 0
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    words = ["--labels", "labels.txt", "--metric", "tight", "--output", "scores.json"]
    assert comedian("evaluate", shared / "root", "all.zip", *words)[0] == 0
    told = [float(line.split()[-2]) for line in table[-3:]]
    scores = json.loads((tmp_path / "scores.json").read_text())["tight"]
    assert [100 * score for score in scores["a_mAP_per_class"]] == pytest.approx(told, abs=0.01)


def test_settings_in_the_model(comedian, shared, tmp_path):
    shutil.copytree(shared / "model", tmp_path / "model")
    before = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/validation_scores.json").write_text("{}")
    words = ["tune", shared / "root", shared / "windows", "--min-events", 2]
    code, out, _ = comedian(*words, "--model", "model")
    assert code == 0
    comedian(*words, "--output", "settings.json")
    after = json.loads((tmp_path / "model/config.json").read_text())
    settings = json.loads((tmp_path / "settings.json").read_text())["settings"]
    assert {name: after[name] for name in settings} == settings
    assert {name: after[name] for name in before if name not in SETTINGS} == {
        name: before[name] for name in before if name not in SETTINGS
    }
    assert read_record(tmp_path / "model").weights_sha256 == hash_weights(tmp_path / "model")
    changed = any(settings[name] != before[name] for name in (*MERGING, "nms_type", "nms_window_s"))
    assert changed and not (tmp_path / "model/validation_scores.json").exists() and "validation_scores.json" in out
    video = shared / f"root/{MATCHES[0]}/1_224p.mkv"
    assert comedian("spot", video, "--model", "model", "--output", "a.json")[0] == 0
    words = ["--model", shared / "model", "--settings", "settings.json", "--output", "b.json"]
    assert comedian("spot", video, *words)[0] == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_files_of_what_the_model_reported_before_are_removed(comedian, shared, tmp_path):
    shutil.copytree(shared / "model", tmp_path / "model")
    words = ["tune", shared / "root", shared / "windows", "--model", "model"]
    of_candidates, of_reports = ("test_scores.json", "predictions_test.zip"), "validation_reported.json"
    # the second time only thresholds change; the third, the model has what the second chose and scores were saved before
    for options, changes in (
        (("--min-events", 2), True),
        (("--min-events", 3), False),
        (("--min-events", 1000), True),
    ):
        before = json.loads((tmp_path / "model/config.json").read_text())
        for name in (*of_candidates, of_reports):
            (tmp_path / "model" / name).write_text("{}")
        assert comedian(*words, *options)[0] == 0
        after = json.loads((tmp_path / "model/config.json").read_text())
        fields = (*MERGING, "nms_type", "nms_window_s")
        assert any(after[name] != before[name] for name in fields) == changes
        assert [(tmp_path / "model" / name).exists() for name in of_candidates] == [not changes] * 2
        assert not (tmp_path / "model" / of_reports).exists()


def test_settings_that_do_not_fit_leave_the_model_as_it_is(shared, tmp_path):
    shutil.copy(shared / "model/config.json", tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError, match="leave gaps"):
        write_settings_into(tmp_path, {"window_stride_s": 99.0})
    assert (tmp_path / "config.json").read_bytes() == before


def without_windows(source, target):
    """The same scores as an earlier version saved them."""
    for path in source.rglob("*.safetensors"):
        save_scores(target, load_scores(path))


def test_matches_are_found_under_a_top_folder_and_not_twice(comedian, shared, tmp_path):
    assert comedian("tune", shared / "root", shared / "windows", "--output", "whole.json")[0] == 0
    for path in (shared / "windows").rglob("*.safetensors"):
        scored = load_scores(path, with_windows=True)
        save_scores(tmp_path / "scores", replace(scored, video_id=scored.video_id.rpartition("/")[2]))
    assert comedian("tune", shared / "root", "scores", "--output", "a.json")[0] == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert comedian("tune", shared / "root", "scores", "--split", "val", "--output", "b.json")[0] == 0
    shutil.copytree(shared / "windows" / MATCHES[0], tmp_path / "scores" / MATCHES[0])
    code, _, told = comedian("tune", shared / "root", "scores", "--output", "c.json")
    assert code == 2 and f"`a` and `{MATCHES[0]}` are both of the match `{MATCHES[0]}`" in told[0]


def test_scores_without_windows_keep_their_merging(comedian, shared, tmp_path):
    without_windows(shared / "windows", tmp_path / "plain")
    assert comedian("tune", shared / "root", "plain", "--output", "settings.json")[0] == 0
    content = json.loads((tmp_path / "settings.json").read_text())
    settings = content["settings"]
    assert [settings[name] for name in MERGING] == ["max", 2.0, 1.0]
    assert comedian("spot", "--scores", "plain", "--settings", "settings.json", "--output", "a.zip")[0] == 0
    settings["edge_trim_s"] = 2.0
    (tmp_path / "other.json").write_text(json.dumps(content))
    code, _, told = comedian("spot", "--scores", "plain", "--settings", "other.json", "--output", "b.zip")
    assert code == 2 and "--save-windows" in told[0] and not (tmp_path / "b.zip").exists()


def test_of_one_match_no_gain_can_be_checked(comedian, shared, tmp_path):
    words = ["tune", shared / "root", shared / "windows", "--split", "validation", "--min-events", 1]
    code, out, _ = comedian(*words, "--output", "settings.json")
    assert code == 0 and "merging and suppression are unchanged" in out
    settings = json.loads((tmp_path / "settings.json").read_text())["settings"]
    assert [settings[name] for name in (*MERGING, "nms_type", "nms_window_s")] == ["max", 2.0, 1.0, "soft", 30.0]
    assert all(settings["label_curves"])


def test_an_ensemble_and_a_split(comedian, shared, tmp_path):
    words = ["tune", shared / "root", shared / "windows", shared / "windows"]
    assert comedian(*words, "--output", "both.json", "--split", "train")[0] == 0
    assert comedian("tune", shared / "root", shared / "windows", "--output", "one.json", "--split", "train")[0] == 0
    both, one = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("both", "one"))
    assert both == one | {"weights": 2 * one["weights"]}
    code, _, told = comedian(*words, "--model", shared / "model")
    assert code == 2 and "--output" in told[0]


def test_windows_saved_already_are_not_scored_again(comedian, shared, tmp_path, monkeypatch):
    video = shared / f"root/{MATCHES[0]}/1_224p.mkv"
    words = ["spot", video, "--model", shared / "model", "--save-scores", "kept", "--output", "a.json"]
    assert comedian(*words, "--save-windows", 2)[0] == 0
    monkeypatch.setattr(ActionSpotter, "score", lambda *args, **options: pytest.fail("scored"))
    monkeypatch.setattr(ActionSpotter, "score_windows", lambda *args, **options: pytest.fail("scored"))
    assert comedian(*words)[0] == 0 and comedian(*words, "--save-windows", 2)[0] == 0
    with pytest.raises(pytest.fail.Exception):
        comedian(*words, "--save-windows", 1)


@pytest.mark.parametrize(
    "words, remedy",
    [
        (["tune", "{root}", "nowhere", "--output", "s.json"], "holds no scores"),
        (["tune", "nowhere", "{windows}", "--output", "s.json"], "does not exist"),
        (["tune", "{root}", "{windows}", "--output", "s.json", "--split", "test"], "train, validation"),
        (["tune", "{root}", "{windows}", "--output", "s.json", "--tolerance", "0"], "--tolerance"),
        (["tune", "{root}", "{windows}", "--model", "{root}"], "config.json"),
        (["tune", "{few}", "{windows}", "--output", "s.json"], "has no labels"),
        (["tune", "{root}", "{half}", "--output", "s.json"], "half 2 of `league/2024/b`"),
        (["spot", "{video}", "--model", "{model}", "--save-windows", "1"], "--save-scores"),
        (["spot", "{video}", "--model", "{model}", "--save-scores", "x", "--save-windows", "3"], "every 3 s"),
        (
            ["spot", "{video}", "--model", "{model}", "{other}", "--save-scores", "x", "--save-windows", "1"],
            "one model",
        ),
        (["spot", "{video}", "--model", "{model}", "--settings", "empty.json"], "comedian tune"),
        (["spot", "{video}", "--model", "{model}", "--settings", "labels.json"], "other labels"),
        (["spot", "{video}", "--model", "{model}", "--settings", "unknown.json"], "`threshold`"),
        (["spot", "{video}", "--model", "{model}", "--settings", "wrong.json"], "leave gaps"),
    ],
)
def test_bad_input_is_one_line(comedian, shared, tmp_path, words, remedy):
    contents = {
        "empty": {},
        "labels": {"labels": ["Goal"], "settings": {}},
        "unknown": {"labels": LABELS, "settings": {"threshold": 1}},
        "wrong": {"labels": LABELS, "settings": {"window_stride_s": 99.0}},
    }
    weights = ActionSpotter.from_pretrained(shared / "model", device="cpu").weights_fingerprint
    contents = {name: content | {"weights": weights} for name, content in contents.items()}
    shutil.copytree(shared / "model", tmp_path / "other")
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    shutil.copytree(shared / "windows", tmp_path / "half")
    (tmp_path / "half" / MATCHES[1] / "2.safetensors").unlink()
    (tmp_path / "few" / MATCHES[0]).mkdir(parents=True)
    shutil.copy(shared / f"root/{MATCHES[0]}/Labels-v2.json", tmp_path / "few" / MATCHES[0])
    places = {name: shared / name for name in ("root", "windows", "model")}
    places |= {"video": shared / f"root/{MATCHES[0]}/1_224p.mkv", "half": tmp_path / "half", "few": tmp_path / "few"}
    places["other"] = tmp_path / "other"
    code, out, told = comedian(*(word.format(**places) for word in words))
    assert code == 2 and out == "" and len(told) == 1 and remedy in told[0], told
    assert not (tmp_path / "s.json").exists() and not (tmp_path / "events.json").exists()

import csv
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from comedian.cli.main import main
from comedian.evaluation.soccernet_average_map.soccernet_average_map import average_map
from comedian.inference import score_files, spotter
from comedian.inference.settings import write_settings
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from testing_utils import tiny_config
from video_factory import write_video

LABELS = ["Goal", "Ball out of play", "Yellow->red, card"]


def save_model(path, seed=0, **overrides):
    torch.manual_seed(seed)
    config = tiny_config(initializer_range=0.5, id2label=dict(enumerate(LABELS)), **overrides)
    ComedianForActionSpotting(config).save_pretrained(path)
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spot")
    save_model(folder / "model", label_thresholds=[0.3, 0.4, 0.5])
    for match, frames in (("a", 200), ("b", 150)):
        for half in (1, 2):
            write_video(folder / f"root/league/2024/{match}/{half}_224p.mkv", num_frames=frames + 20 * half, fps=10)
    (folder / "root/splits.json").write_text(json.dumps({"train": ["league/2024/a"], "test": ["league/2024/b"]}))
    return folder


@pytest.fixture
def videos(shared):
    return [str(shared / f"root/league/2024/a/{half}_224p.mkv") for half in (1, 2)]


@pytest.fixture
def spot(shared, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words, model=shared / "model"):
        code = main(["spot", *map(str, words), *(["--model", str(model)] if model else [])])
        return code, *capsys.readouterr()

    return run


def predictions(path):
    return json.loads(path.read_text())["predictions"]


def confidences(path):
    return [float(found["confidence"]) for found in predictions(path)]


def test_events_of_two_halves(spot, videos, tmp_path):
    code, out, err = spot(*videos, "--output", "out/e.json", "--csv", "e.csv")
    assert code == 0 and "x real time" in err
    content = json.loads((tmp_path / "out/e.json").read_text())
    assert content["UrlLocal"] == "a"
    thresholds = dict(zip(LABELS, (0.3, 0.4, 0.5)))
    assert {found["half"] for found in content["predictions"]} == {"1", "2"}
    for found in content["predictions"]:
        assert set(found) == {"gameTime", "label", "position", "half", "confidence"}
        assert all(isinstance(value, str) for value in found.values())
        assert float(found["confidence"]) >= thresholds[found["label"]]
        # the middle of a tubelet of two frames at 2 fps, and a millisecond, so that no float falls short of it
        assert int(found["position"]) % 1000 == 251
        seconds = int(found["position"]) // 1000
        assert found["gameTime"] == f"{found['half']} - 00:{seconds:02d}"
    with open(tmp_path / "e.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["half", "label", "timestamp_s", "game_time", "score"]
    table = out.splitlines()
    assert table[0].split() == ["Half", "Time", "Label", "Score"]
    assert len(rows) == len(content["predictions"]) == len(table) - 1
    for row, found, line in zip(rows, content["predictions"], table[1:]):
        assert (row["half"], row["label"], row["game_time"]) == (found["half"], found["label"], found["gameTime"])
        assert float(row["timestamp_s"]) == (int(found["position"]) - 1) / 1000
        assert row["score"] == found["confidence"]
        clock = found["gameTime"][4:]
        assert line.split() == [found["half"], clock, *found["label"].split(), f"{float(row['score']):.3f}"]


def test_default_output_all_and_threshold(spot, videos, tmp_path):
    assert spot(videos[0])[0] == 0
    events = confidences(tmp_path / "events.json")
    assert spot(videos[0], "--all")[0] == 0
    candidates = confidences(tmp_path / "events.json")
    assert spot(videos[0], "--threshold", "0.7")[0] == 0
    assert confidences(tmp_path / "events.json") == [score for score in candidates if score >= 0.7]
    assert len(events) < len(candidates)
    code, out, _ = spot(videos[0], "--threshold", "1")
    assert code == 0 and out == "no events above the thresholds; --keep-all lists every candidate\n"
    assert predictions(tmp_path / "events.json") == []


def test_a_model_without_thresholds_has_one_and_says_so(spot, shared, videos, tmp_path):
    model = shared / "model"
    config = json.loads((model / "config.json").read_text()) | {"label_thresholds": None}
    own = shutil.copytree(model, tmp_path / "own")
    (own / "config.json").write_text(json.dumps(config))
    output = tmp_path / "events.json"
    code, _, err = spot(videos[0], "--all", model=own)
    candidates = confidences(output)
    assert code == 0 and "no thresholds" not in err and min(candidates) < 0.3 < max(candidates)
    for words in ((), ("--live",)):
        code, _, err = spot(videos[0], *words, "--output", str(output), model=own)
        [line] = [line for line in err.splitlines() if "no thresholds" in line]
        assert code == 0 and "0.3" in line and "comedian tune" in line
        assert confidences(output) == pytest.approx([score for score in candidates if score >= 0.3], abs=1e-4)
    assert "no thresholds" not in spot(videos[0], "--threshold", "0.5", model=own)[2]
    # zips have every candidate
    assert spot(videos[0], "--output", str(tmp_path / "all.zip"), model=own)[0] == 0
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        [name] = archive.namelist()
        found = json.loads(archive.read(name))["predictions"]
    assert [float(event["confidence"]) for event in found] == candidates


def test_probabilities_and_targets_of_a_calibrated_model(spot, videos, tmp_path):
    curves = [[[0.3, 0.9, 0.2], [0.1, 0.6, 0.6]], [[0.4, 0.95, 0.4]], [[0.5, 0.5, 0.1]]]
    fields = {"label_thresholds": [0.3, 0.4, 0.5], "label_calibration": [[1.0, -0.5]] * 3, "label_curves": curves}
    model = save_model(tmp_path / "model", **fields)
    spotter_of = spotter.ActionSpotter.from_pretrained(model)
    code, out, err = spot(videos[0], "--threshold", "precision=0.9", "--save-scores", "scores", model=model)
    assert code == 0 and f"omitted, because precision=0.9 was not reached on validation: {LABELS[2]}\n" in err
    events = spotter_of(videos[0], threshold="precision=0.9")
    assert confidences(tmp_path / "events.json") == [event["score"] for event in events] and len(events) > 1
    assert [line.split()[-1] for line in out.splitlines()[1:]] == [f"{event['score']:.3f}" for event in events]
    code, _, err = spot("--scores", "scores", "--threshold", "precision=0.9", model=None)
    assert code == 0 and LABELS[2] in err
    assert confidences(tmp_path / "events.json") == [event["score"] for event in events]
    # the metric's candidates are raw
    assert spot("--scores", "scores", "--all", model=None)[0] == 0
    raw = [event["score"] for event in spotter_of(videos[0], keep_all=True)]
    assert confidences(tmp_path / "events.json") == raw != []
    code, _, err = spot(videos[0], "--threshold", "precision=0.9")
    assert code == 2 and "comedian tune" in err


def test_scores_are_used_again_without_inference(spot, videos, tmp_path, monkeypatch):
    assert spot(*videos, "--all", "--output", "a.json", "--save-scores", "scores")[0] == 0
    monkeypatch.setattr(spotter, "iter_frames", lambda *words, **named: pytest.fail("decoded"))
    monkeypatch.setattr(score_files, "iter_frames", lambda *words, **named: pytest.fail("decoded"))
    monkeypatch.setattr(spotter, "load_spotting_model", lambda *words: pytest.fail("loaded"))
    assert spot("--scores", "scores", "--all", "--output", "b.json", model=None)[0] == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert spot("--scores", "scores", "scores", "--all", "--output", "c.json", model=None)[0] == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "c.json").read_bytes()


def test_suppression_can_be_chosen(spot, videos, tmp_path):
    spot(videos[0], "--all", "--save-scores", "scores")
    tokens = 22  # 22 s, one token a second

    def counts(*words):
        code, _, err = spot("--scores", "scores", "--all", *words, model=None)
        assert code == 0, err
        found = [event["label"] for event in predictions(tmp_path / "events.json")]
        return [found.count(label) for label in LABELS]

    assert counts("--nms-window", "0") == [tokens, tokens, tokens]
    assert counts("--nms-type", "hard", "--nms-window", "100") == [1, 1, 1]
    default = counts("--nms-type", "hard")
    assert counts("--nms-type", "hard", "--nms-window", "Ball out of play=0", f"{LABELS[2]}=100") == [
        default[0],
        tokens,
        1,
    ]


def test_a_folder_becomes_a_zip_that_scores(spot, shared, tmp_path):
    root = shared / "root"
    code, _, err = spot(root)
    assert code == 0 and "x real time" in err
    with zipfile.ZipFile(tmp_path / "results.zip") as archive:
        results = {name: json.loads(archive.read(name)) for name in archive.namelist()}
    names = [f"league/2024/{match}/results_spotting.json" for match in "ab"]
    assert sorted(results) == names
    assert results[names[0]]["UrlLocal"] == "league/2024/a"
    spot(root / "league/2024/a/1_224p.mkv", root / "league/2024/a/2_224p.mkv", "--all")
    assert results[names[0]]["predictions"] == predictions(tmp_path / "events.json")

    # the zip scores as it is, and as its predictions do: close to all, as every candidate of the first match is true
    truths = [
        [{key: found[key] for key in ("gameTime", "label", "position")} for found in results[names[0]]["predictions"]],
        [],
    ]
    for match, annotations in zip("ab", truths):
        (tmp_path / f"labels/league/2024/{match}").mkdir(parents=True)
        content = json.dumps({"UrlLocal": "", "annotations": annotations})
        (tmp_path / f"labels/league/2024/{match}/Labels-v2.json").write_text(content)
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    words = [
        "evaluate",
        "labels",
        "results.zip",
        "--labels",
        "labels.txt",
        "--metric",
        "tight",
        "--output",
        "scores.json",
    ]
    assert main(words) == 0
    expected = average_map(truths, [results[name]["predictions"] for name in names], LABELS, metrics=["tight"])
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["tight"]["a_mAP"] == pytest.approx(expected["tight"]["a_mAP"]) and scores["tight"]["a_mAP"] > 0.3


def test_a_split_and_going_on(spot, shared, tmp_path, monkeypatch):
    words = (shared / "root", "--save-scores", "scores", "--output", "r.zip")
    assert spot(*words, "--split", "test")[0] == 0
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        assert archive.namelist() == ["league/2024/b/results_spotting.json"]
    decoded = []
    iter_frames = spotter.iter_frames
    monkeypatch.setattr(
        spotter, "iter_frames", lambda path, *w, **n: decoded.append(path) or iter_frames(path, *w, **n)
    )
    assert spot(*words)[0] == 0
    assert [path.parent.name for path in decoded] == ["a", "a"]
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        assert len(archive.namelist()) == 2
    assert spot("--scores", "scores", "--output", "again.zip", model=None)[0] == 0
    with zipfile.ZipFile(tmp_path / "r.zip") as first, zipfile.ZipFile(tmp_path / "again.zip") as again:
        assert all(first.read(name) == again.read(name) for name in first.namelist())
    code, _, err = spot("--scores", "scores", model=None)
    assert code == 2 and "2 matches" in err


def test_scores_of_matches_of_one_layout_are_kept_apart(spot, shared, tmp_path):
    for match in "ab":
        halves = [shared / f"root/league/2024/{match}/{half}_224p.mkv" for half in (2, 1)]
        # the names say which half it is, together or one by one
        for videos in [halves] if match == "a" else [[half] for half in halves]:
            assert spot(*videos, "--save-scores", "scores")[0] == 0
    saved = sorted(path.relative_to(tmp_path / "scores").as_posix() for path in (tmp_path / "scores").rglob("*.*"))
    assert saved == [f"{match}/{half}.safetensors" for match in "ab" for half in (1, 2)]
    assert spot(shared / "root", "--save-scores", "whole", "--output", "w.zip")[0] == 0
    assert spot("--scores", "scores", "--output", "r.zip", model=None)[0] == 0
    with zipfile.ZipFile(tmp_path / "r.zip") as one, zipfile.ZipFile(tmp_path / "w.zip") as whole:
        for match in "ab":
            found = json.loads(one.read(f"{match}/results_spotting.json"))["predictions"]
            wanted = json.loads(whole.read(f"league/2024/{match}/results_spotting.json"))["predictions"]
            assert found == wanted != []


def test_halves_of_a_later_folder_are_not_dropped(spot, shared, tmp_path):
    assert spot(shared / "root", "--save-scores", "both", "--output", "r.zip")[0] == 0
    assert spot(shared / "root", "--split", "test", "--save-scores", "one", "--output", "s.zip")[0] == 0
    for folders in (("one", "both"), ("both", "one")):
        code, _, err = spot("--scores", *folders, "--output", "e.zip", model=None)
        assert code == 2 and "do not hold the same halves" in err and not (tmp_path / "e.zip").exists()


def test_saved_scores_have_the_settings_that_they_were_asked_for_with(spot, shared, videos, tmp_path, monkeypatch):
    weights = spotter.ActionSpotter.from_pretrained(str(shared / "model"), device="cpu").weights_fingerprint
    write_settings(tmp_path / "s.json", {"nms_type": "hard", "nms_window_s": 20.0}, LABELS, weights)
    assert spot(videos[0], "--save-scores", "scores", "--keep-all")[0] == 0
    assert (
        spot(videos[1], "--settings", "s.json", "--save-scores", "other", "--keep-all", "--output", "o.json")[0] == 0
    )
    shutil.copytree(tmp_path / "other", tmp_path / "scores", dirs_exist_ok=True)
    code, _, err = spot("--scores", "scores", "--keep-all", model=None)
    assert code == 2 and "different models or settings" in err
    # nothing is scored again, and the settings hold
    saved = [path.read_bytes() for path in sorted((tmp_path / "scores").rglob("*.safetensors"))]
    words = (*videos, "--settings", "s.json", "--save-scores", "scores", "--keep-all", "--output", "direct.json")
    with monkeypatch.context() as patched:
        patched.setattr(spotter.ActionSpotter, "score", None)
        assert spot(*words)[0] == 0
    assert [path.read_bytes() for path in sorted((tmp_path / "scores").rglob("*.safetensors"))] != saved
    assert spot("--scores", "scores", "--keep-all", "--output", "again.json", model=None)[0] == 0
    assert predictions(tmp_path / "again.json") == predictions(tmp_path / "direct.json") != []


def test_scores_of_another_video_are_not_lost(spot, shared, videos, tmp_path):
    shutil.copytree(shared / "root/league/2024/b", tmp_path / "other/a")
    shutil.copy(videos[0], tmp_path / "video.mkv")
    shutil.copytree(shared / "root/league/2024/b", tmp_path / "root/league/2024/a")
    assert spot(*videos, "--save-scores", "scores")[0] == 0
    assert spot("video.mkv", "--save-scores", "scores")[0] == 0
    assert spot(shared / "root", "--save-scores", "whole", "--output", "r.zip")[0] == 0
    before = {path: path.read_bytes() for folder in ("scores", "whole") for path in (tmp_path / folder).rglob("*.*")}
    (tmp_path / "deeper").mkdir()
    shutil.copy(videos[1], tmp_path / "deeper/video.mkv")
    for words in (["other/a/1_224p.mkv"], ["deeper/video.mkv"], ["root", "--output", "r.zip"]):
        code, _, err = spot(*words, "--save-scores", "whole" if "root" in words else "scores")
        assert code == 2 and "save these scores in another folder" in err.splitlines()[-1], (words, err)
    # the same video at another place, and the same place with a changed video, are scored or taken
    assert before == {path: path.read_bytes() for path in before}
    os.utime(tmp_path / "video.mkv", (1, 1))
    assert spot("video.mkv", "--save-scores", "scores")[0] == 0
    code, _, err = spot(videos[0], Path(videos[0]).with_name("1_224p.mkv"))
    assert code == 2 and "are both half 1 of a match" in err


def test_candidates_outside_the_official_limits_are_counted(spot, shared, videos, tmp_path):
    third = shared / "root/league/2024/b/1_224p.mkv"
    code, _, err = spot(*videos, third, "--match", "--output", "r.zip")
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        (name,) = archive.namelist()
        halves = [found["half"] for found in json.loads(archive.read(name))["predictions"]]
    assert code == 0 and halves.count("3") > 0
    assert f"r.zip: {halves.count('3')} candidates are outside two halves of 120 minutes" in err
    assert "120 minutes" not in spot(*videos, "--output", "r.zip")[2]


def test_a_target_with_too_few_events_is_told(spot, videos, tmp_path):
    curves = [[[0.5, 1.0, 1.0]], [[0.5, 1.0, 0.5]], [[0.5, 0.4, 0.5]]]
    fields = {"label_calibration": [[1.0, 0.0]] * 3, "label_curves": curves, "label_num_events": [5, 60, 60]}
    model = save_model(tmp_path / "model", label_thresholds=[0.3, 0.4, 0.5], **fields)
    code, _, err = spot(videos[0], "--threshold", "precision=0.9", model=model)
    assert code == 0 and f"too few events to measure precision=0.9: {LABELS[0]}\n" in err
    assert f"precision=0.9 was not reached on validation: {LABELS[2]}\n" in err


def test_a_weak_model_says_so(spot, videos, tmp_path):
    """Of which labels most reported events were wrong on validation: at the label's own threshold, or from there on."""
    curves = [[[0.6, 1.0, 0.5], [0.3, 0.6, 0.8], [0.1, 0.2, 1.0]], [[0.6, 0.9, 0.2], [0.4, 0.3, 0.5]], []]
    fields = {"label_calibration": [[1.0, 0.0]] * 3, "label_curves": curves, "label_num_events": [60] * 3}
    model = save_model(tmp_path / "model", label_thresholds=[0.3, 0.4, 0.5], **fields)
    code, _, err = spot(videos[0], model=model)
    [line] = [line for line in err.splitlines() if "the model is weak" in line]
    assert code == 0 and f"correct for {LABELS[1]}, {LABELS[2]}; " in line
    for words in (["--threshold", "0.5"], ["--keep-all"]):
        assert "the model is weak" not in spot(videos[0], *words, model=model)[2]
    assert "the model is weak" not in spot(videos[0])[2]


@pytest.mark.parametrize(
    "words, remedy",
    [
        ([], "no video"),
        (["missing.mkv"], "missing.mkv"),
        (["https://example.org/match.mp4"], "download the video first, or add --live"),
        (["{good}", "bad.mkv", "--match"], "bad.mkv"),
        (["{good}", "bad.mkv", "--output", "e.json"], "add --match if they are the parts of one match"),
        (["{good}", "bad.mkv", "--csv", "e.csv"], "add --match"),
        (["{good}", "bad.mkv", "--output", "folder.json/other"], "holds other things"),
        (["{good}", "{good}", "bad.mkv"], "given twice"),
        (["{good}", "gone.mkv"], "gone.mkv` does not exist"),
        (["no*.mkv"], "no file matches the pattern `no*.mkv`"),
        (["{root}", "--match"], "list them in order"),
        (["{good}", "--restart"], "--restart applies only to several videos"),
        (["{root}", "{good}"], "only the folder, or only videos"),
        (["{good}", "--output", "e.txt"], ".json or .zip"),
        (["{good}", "--output", "folder.json"], "is a folder"),
        (["{good}", "--output", "bad.mkv/e.json"], "another folder"),
        (["{good}", "--csv", "e.csv", "--output", "e.zip"], "--csv"),
        (["{root}", "--output", "e.json"], ".zip"),
        (["{root}", "--split", "nope"], "train, test"),
        (["{good}", "--split", "test"], "only a folder"),
        (["empty"], "1_224p.mkv"),
        (["{good}", "--threshold", "2"], "0 to 1"),
        (["{good}", "--threshold", "f1=0.9"], "precision=0.9"),
        (["{good}", "--nms-window", "-1"], "0 or more"),
        (["{good}", "--nms-window", "nan"], "0 or more"),
        (["{good}", "--nms-window", "Goals=3"], "Goals"),
        (["{good}", "--nms-window", "Goal=x"], "LABEL=SECONDS"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(spot, shared, videos, tmp_path, words, remedy):
    (tmp_path / "bad.mkv").write_bytes(b"no video")
    (tmp_path / "folder.json" / "other").mkdir(parents=True)
    (tmp_path / "folder.json" / "other" / "mine.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    code, out, err = spot(*(word.format(good=videos[0], root=shared / "root") for word in words))
    lines = [line for line in err.splitlines() if line.startswith("comedian spot:")]
    assert code == 2 and len(lines) == 1 and remedy in lines[0], err
    assert out == "" and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_on_the_way_leaves_the_old_results(spot, shared, videos, tmp_path, monkeypatch):
    assert spot(shared / "root")[0] == 0
    old = (tmp_path / "results.zip").read_bytes()
    monkeypatch.setattr("comedian.inference.outputs.write_results", lambda *words: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        spot(shared / "root")
    assert (tmp_path / "results.zip").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["results.zip"]


def test_scores_that_are_none(spot, tmp_path):
    (tmp_path / "scores").mkdir()
    assert "holds no scores" in spot("--scores", "scores", model=None)[2]
    (tmp_path / "scores/1.safetensors").write_bytes(b"torn")
    code, _, err = spot("--scores", "scores", model=None)
    assert code == 2 and "is not a score file" in err


def page_data(path):
    return json.loads(path.read_text().split('<script type="application/json" id="data">')[1].split("</script>")[0])


def test_a_page_shows_the_events(spot, videos, tmp_path):
    found = {"label": LABELS[0], "gameTime": "1 - 00:03", "position": "3000"}
    (tmp_path / "labels.json").write_text(json.dumps({"annotations": [found]}))
    words = ("--report", "pages/out.html", "--report-labels", "labels.json", "--tolerance", "500")
    code, _, err = spot(*videos, "--output", "e.json", "--save-scores", "scores", *words)
    assert code == 0 and "open it in a browser" in err
    data = page_data(tmp_path / "pages/out.html")
    assert [event["prediction"] for event in data["spots"]] == predictions(tmp_path / "e.json")
    assert all(event["picture"] for event in data["spots"])
    assert data["tolerance_s"] == 500 and data["truths"][0]["spot"] is not None
    assert spot("--scores", "scores", "--report", "bare.html", model=None)[0] == 0
    bare = page_data(tmp_path / "bare.html")
    assert bare["truths"] is None and not any(half["video"] for half in bare["halves"])
    # the videos of scores that are there already
    words = ("--report-labels", "labels.json", "--tolerance", "500")
    assert spot(*videos, "--scores", "scores", "--report", "pages/again.html", *words, model=None)[0] == 0
    assert page_data(tmp_path / "pages/again.html") == data


@pytest.mark.parametrize(
    "words, message",
    [
        (["--report-labels", "labels.json"], "--report FILE"),
        (["--tolerance", "3"], "--report FILE"),
        (["--report", "a.html", "--tolerance", "0"], "--tolerance 0.0: give seconds"),
        (["--report", "a.html", "--report-labels", "none.json"], "none.json"),
        (["--report", "."], "is a folder"),
        (["--report", "a.html", "--output", "a.zip"], "one match"),
    ],
    ids=" ".join,
)
def test_bad_words_for_a_page(spot, videos, tmp_path, words, message):
    code, out, err = spot(videos[0], *words)
    assert (code, out) == (2, "") and message in err and "\n" not in err.strip()
    assert list(tmp_path.iterdir()) == []


def test_a_page_needs_the_video_of_each_half(spot, videos, tmp_path):
    assert spot(*videos, "--save-scores", "scores")[0] == 0
    (tmp_path / "events.json").unlink()
    code, _, err = spot(videos[0], "--scores", "scores", "--report", "out.html", model=None)
    assert code == 2 and "1 videos for 2 halves" in err
    assert [path.name for path in tmp_path.iterdir()] == ["scores"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--nms-window", "Gaol=3"], "unknown label 'Gaol'"),
        (["--csv", "VIDEO"], "is an input, and would be overwritten"),
        (["--output", "a.json", "--csv", "a.json"], "`a.json` is given for two outputs"),
        (["--save-scores", "s", "--save-windows", "inf"], "--save-windows inf: give seconds above 0"),
        (["--save-scores", "s", "--save-windows", "nan"], "--save-windows nan: give seconds above 0"),
    ],
    ids=" ".join,
)
def test_what_will_not_do_is_told_before_the_work(spot, videos, monkeypatch, words, message):
    def score(*words, **options):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("comedian.inference.score_files.score_matches", score)
    before = Path(videos[0]).read_bytes()
    code, out, err = spot(videos[0], *(str(videos[0]) if word == "VIDEO" else word for word in words))
    assert (code, out) == (2, "") and message in err.splitlines()[-1]
    assert Path(videos[0]).read_bytes() == before

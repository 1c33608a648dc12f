import json
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest

from comedian.cli.commands.evaluate import METRIC_NAMES
from comedian.cli.main import main
from comedian.evaluation.soccernet_average_map.soccernet_average_map import (
    METRICS,
    SOCCERNET_V2_LABELS,
    average_map,
)
from comedian.soccernet.splits import find_splits

MATCHES = ("england_epl/2014-2015/2015-02-21 - 18-00 Chelsea 1 - 1 Burnley", "spain_laliga/2016-2017/x", "cup/2020/y")


def make_events(seed):
    rng = np.random.default_rng(seed)
    references, predictions = [], []
    for position_ms in rng.integers(0, 2_700_000, 60):
        half, label = str(rng.integers(1, 3)), str(rng.choice(SOCCERNET_V2_LABELS[:5]))
        references.append(
            {
                "gameTime": f"{half} - {position_ms // 60000:02d}:{position_ms // 1000 % 60:02d}",
                "label": label,
                "position": str(position_ms),
                "team": "home",
                "visibility": "not shown" if rng.random() < 0.2 else "visible",
            }
        )
        for _ in range(2):
            at_ms = max(0, int(position_ms + rng.normal(0, 1500)))
            predictions.append({"position": at_ms, "label": label, "half": half, "confidence": float(rng.random())})
    return references, predictions


EVENTS = {match: make_events(seed) for seed, match in enumerate(MATCHES)}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def roots(tmp_path):
    """Folders `labels` and `predictions` of three matches."""
    for match, (references, predictions) in EVENTS.items():
        write(tmp_path / "labels" / match / "Labels-v2.json", {"annotations": references})
        write(tmp_path / "predictions" / match / "results_spotting.json", {"predictions": predictions})
    return tmp_path / "labels", tmp_path / "predictions"


def zipped(root, top=""):
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in root.rglob("*.json"):
            archive.write(file, Path(top, file.relative_to(root)))
            archive.writestr(f"__MACOSX/{file.relative_to(root).with_name('._' + file.name)}", b"\x00")
    return path


def evaluate(*words):
    return main(["evaluate", *map(str, words)])


def expected(matches=MATCHES, **options):
    references, predictions = zip(*(EVENTS[match] for match in matches))
    return average_map(references, predictions, SOCCERNET_V2_LABELS, **options)


def failure(capsys, *words):
    """Run a command that fails on its input and return the one line it prints."""
    assert evaluate(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_folders_give_scores_json_and_a_table(roots, tmp_path, capsys):
    output = tmp_path / "new" / "scores.json"
    assert evaluate(*roots, "--metric", "tight", "at2", "--output", output, "--framerate", "5") == 0
    scores = json.loads(output.read_text())
    assert scores == expected(metrics=["tight", "at2"], framerate=5)
    assert list(scores["at2"]) == [
        "a_mAP",
        "a_mAP_per_class",
        "a_mAP_visible",
        "a_mAP_per_class_visible",
        "a_mAP_unshown",
        "a_mAP_per_class_unshown",
    ]
    assert [path.name for path in output.parent.iterdir()] == ["scores.json"]
    table = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split()[-4:] for line in table.splitlines()}
    assert "3 matches" in table
    num_goals = sum(event["label"] == "Goal" for references, _ in EVENTS.values() for event in references)
    goal_percents = [f"{100 * scores[metric]['a_mAP_per_class'][2]:.2f}" for metric in ("tight", "at2")]
    assert rows["Goal"] == [str(num_goals), str(2 * num_goals), *goal_percents]
    assert rows["mean"] == ["180", "360", *(f"{100 * scores[metric]['a_mAP']:.2f}" for metric in ("tight", "at2"))]
    num_unshown = sum(event["visibility"] == "not shown" for references, _ in EVENTS.values() for event in references)
    unshown = [f"{100 * scores[metric]['a_mAP_unshown']:.2f}" for metric in ("tight", "at2")]
    assert rows["mean, unshown"][-3:] == [str(num_unshown), *unshown]


@pytest.mark.parametrize(
    ("labels_top", "predictions_top"), [("", ""), ("", "entry/mine"), ("SoccerNet", ""), ("a", "b")]
)
def test_zips_score_as_folders_do(roots, tmp_path, labels_top, predictions_top):
    labels, predictions = zipped(roots[0], labels_top), zipped(roots[1], predictions_top)
    if labels_top and predictions_top:  # two foreign top folders: the split tells where a match's path starts
        write(tmp_path / "splits.json", {"test": list(MATCHES)})
        assert (
            evaluate(
                labels,
                predictions,
                "--split",
                "test",
                "--splits",
                tmp_path / "splits.json",
                "--output",
                tmp_path / "s",
            )
            == 0
        )
    else:
        assert evaluate(labels, predictions, "--output", tmp_path / "s") == 0
    assert json.loads((tmp_path / "s").read_text()) == expected()


def test_a_single_match_lies_in_the_root(tmp_path):
    references, predictions = EVENTS[MATCHES[0]]
    write(tmp_path / "match" / "Labels-v2.json", {"annotations": references})
    write(tmp_path / "out" / "results_spotting.json", {"predictions": predictions})
    assert evaluate(tmp_path / "match", zipped(tmp_path / "out"), "--output", tmp_path / "s.json") == 0
    assert json.loads((tmp_path / "s.json").read_text()) == expected(MATCHES[:1])


def test_other_file_names_are_inferred(roots, tmp_path):
    for match in MATCHES:
        (roots[0] / match / "Labels-v2.json").rename(roots[0] / match / "Labels-mine.json")
        (roots[1] / match / "results_spotting.json").rename(roots[1] / match / "spots.json")
    assert evaluate(*roots, "--output", tmp_path / "s.json") == 0
    assert json.loads((tmp_path / "s.json").read_text()) == expected()


def test_labels_v2_is_preferred_and_predictions_may_lie_beside_it(roots, tmp_path):
    for match in MATCHES:
        write(roots[0] / match / "Labels-cameras.json", {"annotations": []})
        write(roots[0] / match / "results_spotting.json", {"predictions": EVENTS[match][1]})
    assert evaluate(roots[0], roots[0], "--output", tmp_path / "s.json") == 0
    assert json.loads((tmp_path / "s.json").read_text()) == expected()


@pytest.mark.parametrize("split", ["val", "valid", "validation"])
@pytest.mark.parametrize("key", ["val", "valid", "validation"])
def test_a_split_chooses_the_matches(roots, tmp_path, split, key):
    write(roots[0] / "splits.json", {"train": [MATCHES[0]], key: list(MATCHES[1:])})
    (roots[1] / MATCHES[0] / "results_spotting.json").unlink()
    assert evaluate(*roots, "--split", split, "--output", tmp_path / "s.json") == 0
    assert json.loads((tmp_path / "s.json").read_text()) == expected(MATCHES[1:])


def test_labels_of_different_names_are_all_scored(roots, tmp_path, capsys):
    for match, name in zip(MATCHES[1:], ("Labels.json", "Labels-mine.json")):
        (roots[0] / match / "Labels-v2.json").rename(roots[0] / match / name)
    write(roots[0] / MATCHES[0] / "Labels.json", {"annotations": []})  # version 1 beside version 2
    assert evaluate(*roots, "--output", tmp_path / "s.json") == 0
    assert json.loads((tmp_path / "s.json").read_text()) == expected()
    told = capsys.readouterr().err
    assert (
        "different names: 1 from Labels-mine.json, 1 from Labels-v2.json, 1 from Labels.json; all of them are scored"
        in told
    )


def test_matches_without_labels_are_named(roots, tmp_path, capsys):
    (roots[0] / MATCHES[1] / "Labels-v2.json").unlink()
    assert evaluate(*roots, "--output", tmp_path / "s.json") == 0
    assert json.loads((tmp_path / "s.json").read_text()) == expected([MATCHES[0], MATCHES[2]])
    assert f"has no labels for them: {MATCHES[1]}\n" in capsys.readouterr().err
    assert evaluate(*roots, "--output", tmp_path / "s.json") == 0


@pytest.mark.parametrize("labels, spots, listed", [(a, b, c) for a in "CD" for b in "CD" for c in "CD"])
def test_names_in_other_unicode_forms_are_one_match(tmp_path, labels, spots, listed):
    def name(form, number):
        return unicodedata.normalize(f"NF{form}", f"Bundesliga/Köln – Mönchengladbach {number}")

    for number, match in enumerate(MATCHES):
        references, predictions = EVENTS[match]
        write(tmp_path / "labels" / name(labels, number) / "Labels-v2.json", {"annotations": references})
        write(tmp_path / "spots" / name(spots, number) / "results_spotting.json", {"predictions": predictions})
    write(tmp_path / "labels" / "splits.json", {"test": [name(listed, number) for number in range(3)]})
    for root in (tmp_path / "spots", zipped(tmp_path / "spots", "top")):
        for words in ([], ["--split", "test"]):
            assert evaluate(tmp_path / "labels", root, *words, "--output", tmp_path / "s.json") == 0
            assert json.loads((tmp_path / "s.json").read_text()) == expected()
    assert find_splits(tmp_path / "labels") == {"test": [name(labels, number) for number in range(3)]}


@pytest.fixture
def overtime(tmp_path):
    """Perfect predictions of 12 parts, each with an event at 5, 105 and 125 minutes."""
    clocks = [(part, minutes) for part in range(1, 13) for minutes in (5, 105, 125)]
    references = [{"gameTime": f"{part} - {minutes:02d}:30", "label": "Goal"} for part, minutes in clocks]
    predictions = [
        {"label": "Goal", "half": str(part), "position": str(1000 * (60 * minutes + 30)), "confidence": "0.9"}
        for part, minutes in clocks
    ]
    write(tmp_path / "labels/m/Labels-v2.json", {"annotations": references})
    write(tmp_path / "spots/m/results_spotting.json", {"predictions": predictions})
    write(tmp_path / "labels.txt", "Goal\n")
    return tmp_path / "labels", tmp_path / "spots", "--labels", tmp_path / "labels.txt"


def test_parts_and_lengths_beyond_the_official_ones_count(overtime, tmp_path, capsys):
    assert evaluate(*overtime, "--output", tmp_path / "s.json", "--report", tmp_path / "r.html") == 0
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["tight"]["a_mAP"] == scores["loose"]["a_mAP"] == 1
    assert capsys.readouterr().out.splitlines()[4].split() == ["Goal", "36", "36", "100.00", "100.00"]
    path = overtime[1] / "m/results_spotting.json"
    spots = json.loads(path.read_text())["predictions"]
    for number, (part, position) in enumerate([("3", "330000"), ("10", "6330000"), ("12", "7530000")], 1):
        spots = [spot for spot in spots if (spot["half"], spot["position"]) != (part, position)]
        write(path, {"predictions": spots})
        assert evaluate(*overtime, "--output", tmp_path / "s.json") == 0
        assert len(spots) == 36 - number and json.loads((tmp_path / "s.json").read_text())["tight"]["a_mAP"] < 1


def test_official_limits_say_what_they_leave_out(overtime, tmp_path, capsys):
    assert evaluate(*overtime, "--official", "--output", tmp_path / "s.json") == 0
    out = capsys.readouterr().out
    # minute 105 of a `gameTime` without `position` is read as minute 5
    assert out.splitlines()[4].split()[:3] == ["Goal", "2", "4"]
    assert "two halves of 120 minutes: 34 of 36 events, 32 of 36 predictions" in out
    content = [
        json.loads(path.read_text())
        for path in (tmp_path / "labels/m/Labels-v2.json", tmp_path / "spots/m/results_spotting.json")
    ]
    official = average_map([content[0]["annotations"]], [content[1]["predictions"]], ["Goal"], official=True)
    assert json.loads((tmp_path / "s.json").read_text()) == official and official["tight"]["a_mAP"] < 1


def test_a_label_list_sets_classes_and_order(roots, tmp_path, capsys):
    write(tmp_path / "labels.txt", "Goal\n\nPenalty\n")
    assert evaluate(*roots, "--labels", tmp_path / "labels.txt", "--output", tmp_path / "s.json") == 0
    per_class = expected()["loose"]["a_mAP_per_class"]
    assert json.loads((tmp_path / "s.json").read_text())["loose"]["a_mAP_per_class"] == [per_class[2], per_class[0]]
    assert "skipped, not in the label list: Kick-off, Offside, Substitution" in capsys.readouterr().out


def test_a_match_without_predictions_is_named(roots, capsys):
    (roots[1] / MATCHES[1] / "results_spotting.json").unlink()
    line = failure(capsys, *roots)
    assert f"no predictions for match `{MATCHES[1]}`" in line
    assert "results_spotting.json" in line
    assert MATCHES[1] in failure(capsys, roots[0], zipped(roots[1]))


def test_a_match_of_the_split_without_labels_is_named(roots, tmp_path, capsys):
    write(tmp_path / "splits.json", {"test": ["cup/2021/z"]})
    assert "cup/2021/z" in failure(capsys, *roots, "--split", "test", "--splits", tmp_path / "splits.json")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{", "JSON"),
        ("[]", "no list `predictions`"),
        ('{"predictions": {}}', "no list `predictions`"),
        ('{"predictions": [{"label": "Goal", "half": "1", "confidence": 1}]}', "predictions[0]: `position` is None"),
        (
            '{"predictions": [{"label": "Goal", "half": "1", "position": "x", "confidence": 1}]}',
            "predictions[0]: `position` is 'x'",
        ),
    ],
)
def test_a_broken_prediction_file_is_named(roots, capsys, content, found):
    write(roots[1] / MATCHES[1] / "results_spotting.json", content)
    for predictions in (roots[1], zipped(roots[1])):
        line = failure(capsys, roots[0], predictions)
        assert f"{MATCHES[1]}/results_spotting.json" in line
        assert found in line


def test_roots_that_are_none(roots, tmp_path, capsys):
    write(tmp_path / "labels.tar", "no zip")
    (tmp_path / "empty").mkdir()
    assert "labels.tar` is neither a folder nor a zip" in failure(capsys, tmp_path / "labels.tar", roots[1])
    assert "gone` does not exist" in failure(capsys, roots[0], tmp_path / "gone")
    assert "holds no Labels-v2.json" in failure(capsys, tmp_path / "empty", roots[1])


def test_several_files_that_might_be_meant(roots, capsys):
    (roots[1] / MATCHES[0] / "results_spotting.json").rename(roots[1] / MATCHES[0] / "a.json")
    write(roots[1] / MATCHES[0] / "b.json", {})
    assert "holds a.json, b.json; name the predictions results_spotting.json" in failure(capsys, *roots)
    for match in MATCHES:
        (roots[0] / match / "Labels-v2.json").rename(roots[0] / match / "Labels-a.json")
    write(roots[0] / MATCHES[0] / "Labels-b.json", {})
    assert "holds Labels-a.json, Labels-b.json" in failure(capsys, *roots)


def test_folders_that_fit_several_matches(roots, tmp_path, capsys):
    for match in ("one/y", "two/y"):
        write(tmp_path / "twins" / match / "Labels-v2.json", {"annotations": []})
        write(tmp_path / "spots" / match / "results_spotting.json", {"predictions": []})
    write(tmp_path / "short" / "y" / "results_spotting.json", {"predictions": []})
    assert "`one/y` and `two/y`" in failure(capsys, tmp_path / "twins", tmp_path / "short")
    write(tmp_path / "single" / "y" / "Labels-v2.json", {"annotations": []})
    assert "one/y, two/y" in failure(capsys, tmp_path / "single", tmp_path / "spots")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--split", "test"], "holds no splits.json; give one with --splits"),
        (["--splits", "splits.json"], "choose one of its splits with --split"),
        (["--framerate", "0"], "--framerate 0"),
        (["--framerate", "100000000000"], "--framerate: 1e+11 frames per second are too many"),
    ],
)
def test_options_that_do_not_fit(roots, capsys, words, found):
    assert found in failure(capsys, *roots, *words)


def test_scores_beside_a_model_are_in_the_order_of_its_labels(roots, tmp_path, capsys):
    write(tmp_path / "labels.txt", "Goal\nCorner\n")
    for order, code in (({"0": "Corner", "1": "Goal"}, 2), ({"0": "Goal", "1": "Corner"}, 0)):
        write(tmp_path / "model/config.json", {"id2label": order})
        words = (*roots, "--labels", tmp_path / "labels.txt", "--output", tmp_path / "model/test_scores.json")
        assert evaluate(*words) == code
        assert ("has other labels, or in another order" in capsys.readouterr().err) == (code == 2)
        assert (tmp_path / "model/test_scores.json").exists() == (code == 0)


def test_a_split_that_is_not_there(roots, capsys):
    write(roots[0] / "splits.json", {"train": [MATCHES[0]], "test": []})
    assert "no matches for the split `dev`; it has train, test" in failure(capsys, *roots, "--split", "dev")
    assert "no matches for the split `test`" in failure(capsys, *roots, "--split", "test")
    write(roots[0] / "splits.json", list(MATCHES))
    assert "splits.json` is no splits file" in failure(capsys, *roots, "--split", "test")


def test_an_output_that_cannot_be_written(roots, tmp_path, capsys):
    write(tmp_path / "file", "")
    says = failure(capsys, *roots, "--output", tmp_path / "file" / "scores.json")
    assert f"`{tmp_path / 'file'}` cannot be written" in says
    says = failure(capsys, *roots, "--output", tmp_path / "labels")
    assert f"`{tmp_path / 'labels'}` is a folder; give the name of a file" in says
    assert not (tmp_path / "labels.partial").exists()


def test_help_knows_every_metric(capsys):
    assert METRIC_NAMES == tuple(METRICS)
    with pytest.raises(SystemExit):
        evaluate("--help")
    assert "official SoccerNet average-mAP" in capsys.readouterr().out


def test_several_sets_are_scored_one_after_the_other(roots, tmp_path, capsys):
    alone = []
    for root in roots[1], roots[0]:
        if root == roots[0]:  # a second set, beside the labels
            for match in MATCHES:
                write(root / match / "results_spotting.json", {"predictions": EVENTS[match][1][::2]})
        assert evaluate(roots[0], root, "--output", tmp_path / "s.json") == 0
        alone.append((capsys.readouterr().out.split("\n\n", 1)[1], json.loads((tmp_path / "s.json").read_text())))
    assert alone[0][1] == expected()
    assert evaluate(roots[0], roots[1], roots[0], "--names", "a b", "c", "--output", tmp_path / "s.json") == 0
    assert json.loads((tmp_path / "s.json").read_text()) == {"a b": alone[0][1], "c": alone[1][1]}
    printed = capsys.readouterr().out.split("\n\n", 1)[1]
    assert printed == f"a b\n\n{alone[0][0]}\nc\n\n{alone[1][0]}"


def test_sets_are_named_by_their_files_or_else_their_paths(roots, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        zipped(roots[1]).rename(tmp_path / folder / "results.zip")
    first, second = (tmp_path / folder / "results.zip" for folder in ("one", "two"))
    assert evaluate(roots[0], first, roots[1], "--output", tmp_path / "s.json") == 0
    assert list(json.loads((tmp_path / "s.json").read_text())) == ["results", "predictions"]
    assert evaluate(roots[0], first, second, "--output", tmp_path / "s.json") == 0
    assert list(json.loads((tmp_path / "s.json").read_text())) == [str(first), str(second)]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--names", "a"], "--names: 1 names for 2 PREDICTIONS"),
        (["--names", "a", "a"], "`a` names two of PREDICTIONS"),
        (["--videos", "root"], "--videos root: it applies to the report only"),
        (["--tolerance", "2"], "--tolerance 2.0: it applies to the report only"),
        (["--report", "r", "--tolerance", "0"], "--tolerance 0: give seconds above 0, at most 60"),
        (["--report", "r", "--tolerance", "61"], "--tolerance 61"),
        (["--report", "r", "--tolerance", "nan"], "--tolerance nan"),
        (["--report", "r", "--threshold", "1.5"], "--threshold 1.5: give a score from 0 to 1"),
        (["--report", "r", "--videos", "empty"], "`empty` has no video of any match"),
    ],
)
def test_options_of_the_report_that_do_not_fit(roots, capsys, tmp_path, monkeypatch, words, found):
    monkeypatch.chdir(tmp_path)
    for match in MATCHES:  # a second set, beside the labels
        write(roots[0] / match / "results_spotting.json", {"predictions": []})
    assert found in failure(capsys, *roots, roots[0], *words)
    assert not (tmp_path / "r").exists()


def test_a_broken_event_of_the_second_set_is_named(roots, tmp_path, capsys):
    # a number to all readers but the official scorer
    not_official = {"label": "Goal", "half": "1", "position": "1000.5", "confidence": 1}
    for match in MATCHES:
        write(tmp_path / "second" / match / "results_spotting.json", {"predictions": [not_official]})
    line = failure(capsys, roots[0], roots[1], tmp_path / "second", "--report", tmp_path / "r.html")
    assert f"{tmp_path / 'second'}/{min(MATCHES)}/results_spotting.json`, event 1: ValueError" in line
    assert not (tmp_path / "r.html").exists()

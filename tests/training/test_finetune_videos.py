"""`comedian finetune --videos`: from a folder of videos and a file of events to a model, in one command."""

import json
import re
import shutil

import pytest
import torch

from comedian.cli.main import main
from comedian.evaluation.reported_events import lines_of, read_reported
from comedian.models import ComedianForActionSpotting
from comedian.training.base_trainer import build_processor
from comedian.training.finetune_videos import TRAINING, VideoRun, finetune_videos
from comedian.training.recipe import ModelSection, load_recipe
from comedian.training.stage import build_model, load_config
from comedian.video.frame_store import open_half, source_of
from testing_utils import tiny_config
from video_factory import write_video

LENGTH_S = 20
ONE_BATCH = ["--training.num_train_epochs=1", "--training.windows_per_half=2", "--training.disable_tqdm=true"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Two videos, a match of three parts, a CSV of five events in each part, and a model to start from."""
    folder = tmp_path_factory.mktemp("own")
    rows = ["video,half,label,time_s"]
    parts = [("one.mp4", ""), ("two.mkv", ""), ("cup", 1), ("cup", 2), ("cup", 3)]
    for name, half in parts:
        file = folder / "videos" / (f"{name}/{half}.mkv" if half else name)
        write_video(file, num_frames=4 * LENGTH_S, fps=4, height=32, width=32)
        rows += [f"{name},{half},{('red', 'green')[second % 8 // 4]},0:{second:02d}" for second in range(1, 20, 4)]
    (folder / "events.csv").write_text("\n".join(rows) + "\n")
    model = ComedianForActionSpotting(tiny_config(fps=2.0))
    model.save_pretrained(folder / "start")
    build_processor(model.config).save_pretrained(folder / "start")
    return folder


def words_of(own, output, *more):
    words = ["--videos", own / "videos", "--events", own / "events.csv", "--model", own / "start", "--output", output]
    return ["finetune", *map(str, (*words, *more))]


def test_one_command_from_videos_to_a_model_and_on(own, tmp_path, capsys):
    output = tmp_path / "run"
    # one batch
    same = ["--training.num_train_epochs", 1, "--training.windows_per_half", 2]
    assert main(words_of(own, output, *same, "--training.disable_tqdm", "true")) == 0
    printed, told = capsys.readouterr()
    # one line an epoch, no dictionaries, and no report of a start whose heads are of other labels
    line = r"^epoch 1 of 1: loss \d\.\d{4}, average-mAP tight [\d.]+ %, loose [\d.]+ % \(\d+ s\)$"
    assert re.search(line, printed, re.MULTILINE)
    assert "{'" not in printed + told and "LOAD REPORT" not in told and "Loading weights" not in told
    splits = json.loads((output / "matches" / "splits.json").read_text())
    # by video: a match of three parts is in one split, whole
    assert sorted(splits["train"] + splits["validation"]) == ["cup", "one", "two"] and len(splits["validation"]) == 1
    num_parts = {"cup": 3, "one": 1, "two": 1}
    train, validation = (sum(num_parts[name] for name in splits[split]) for split in ("train", "validation"))
    # seconds 1, 9 and 17 of each part are red
    assert re.search(rf"^red +{3 * train} +{3 * validation}$", printed, re.MULTILINE)
    assert re.search(rf"^green +{2 * train} +{2 * validation}$", printed, re.MULTILINE)
    scores = json.loads((output / "model" / "validation_scores.json").read_text())
    assert f"validation average-mAP tight: {100 * scores['tight']['a_mAP']:.2f} %" in printed
    assert f"comedian spot VIDEO --model {output / 'model'} --output events.json" in printed
    assert f"--continue-from {output} --output NEW_RUN" in printed
    after, before = read_reported(output / "model")
    # the start's labels are others
    assert before == {} and "before" not in printed
    assert [after[label].there for label in ("green", "red")] == [2 * validation, 3 * validation]
    assert "\n".join(lines_of(after, before)) in printed
    assert "too few labelled events to tell, fewer than 10 on validation: green" in printed
    assert "learning_curve.svg" in printed and "use_cache" not in (output / "model/config.json").read_text()
    config = ComedianForActionSpotting.from_pretrained(output / "model").config
    assert config.label_names == ["green", "red"] and len(config.label_thresholds) == 2
    frames = [output / "frames" / name for name in ("one/1.frames", "cup/1.frames", "cup/2.frames", "cup/3.frames")]
    assert [open_half(path).num_frames for path in frames] == [2 * LENGTH_S] * 4
    prepared_ns = [path.stat().st_mtime_ns for path in frames]

    state = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert main(words_of(own, output, *same)) == 0
    assert "finished: nothing is trained" in capsys.readouterr().out

    # a run is repeated only with what it was begun with
    changed = tmp_path / "changed.csv"
    changed.write_text((own / "events.csv").read_text().replace("one.mp4,,red,0:01", "one.mp4,,red,0:02"))
    videos = shutil.copytree(own / "videos", tmp_path / "videos")
    write_video(videos / "two.mkv", num_frames=4 * LENGTH_S, fps=4, height=32, width=32, audio_s=LENGTH_S)
    start = shutil.copytree(own / "start", tmp_path / "start")
    ComedianForActionSpotting(tiny_config(fps=2.0, initializer_range=0.5)).save_pretrained(start)
    for words, message in (
        (["--seed", 1, *same], "seed 0 -> 1"),
        (["--validation-share", 0.5, *same], "validation_share 0.2 -> 0.5"),
        (["--events", changed, *same], "events of `one.mp4`"),
        (["--videos", videos, *same], "videos of `two.mkv`"),
        (["--model", start, *same], "start "),
        (["--model.overrides.image_size", 24, *same], "frames.height 16 -> 24"),
        ([*same, "--training.num_train_epochs", 2], "training.num_train_epochs 1 -> 2"),
        (["--model.overrides.temporal_depth", 1, *same], "model.temporal_depth 2 -> 1"),
    ):
        assert main(words_of(own, output, *words)) == 2
        error = capsys.readouterr().err
        assert message in error.splitlines()[-1] and "`--restart`" in error
        assert "model." in message or "training." in message or f"`--continue-from {output}`" in error
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == state

    words = ["--videos", videos, "--training.learning_rate=1e-3", "--training.disable_tqdm=true"]
    assert main(words_of(own, output, *words, *same, "--restart")) == 0
    assert [path.stat().st_mtime_ns for path in frames] == prepared_ns
    model = output / "model"
    assert (model / "model.safetensors").read_bytes() != state[model / "model.safetensors"]
    assert open_half(output / "frames/two/1.frames").source == source_of(videos / "two.mkv") | {"name": "1_two.mkv"}
    assert load_recipe(model / "recipe.yaml").training["learning_rate"] == 1e-3


def test_without_options_it_trains_with_the_settings_that_are_shipped(own, tmp_path, capsys):
    output = tmp_path / "run"
    assert main(words_of(own, output)) == 0
    assert "epoch 20 of 20: loss " in capsys.readouterr().out
    ran = load_recipe(output / "model" / "recipe.yaml").training
    num_halves = sum(len(list((output / "matches" / name).glob("*.m*"))) for name in matches_of(output, "train"))
    expected = TRAINING | {"windows_per_half": -(-24 // num_halves), "seed": 0}
    assert ran == expected | {"output_dir": str(output / "model")}


def matches_of(output, split):
    return json.loads((output / "matches" / "splits.json").read_text())[split]


@pytest.fixture(scope="module")
def former(own, tmp_path_factory):
    """A finished run."""
    output = tmp_path_factory.mktemp("former") / "run"
    assert main(words_of(own, output, *ONE_BATCH)) == 0
    return output


def added(own, folder):
    """The videos and events of `own`, and a video of a new label, which a new run would have for validation."""
    videos = shutil.copytree(own / "videos", folder / "videos")
    write_video(videos / "six.mp4", num_frames=4 * LENGTH_S, fps=4, height=32, width=32)
    events = folder / "more.csv"
    events.write_text((own / "events.csv").read_text() + "six.mp4,,blue,3\nsix.mp4,,red,9\n")
    return ["--videos", str(videos), "--events", str(events)]


def test_a_run_goes_on_with_added_labels(own, former, tmp_path, capsys):
    output = tmp_path / "on"
    words = ["finetune", *added(own, tmp_path), "--continue-from", str(former), "--output", str(output), *ONE_BATCH]
    assert main(words) == 0
    splits = [json.loads((run / "matches/splits.json").read_text()) for run in (former, output)]
    assert splits[1]["validation"] == splits[0]["validation"]
    assert splits[1]["train"] == sorted([*splits[0]["train"], "six"])
    # of the old videos, the frames are the former run's files
    for name in ("one/1.frames", "cup/3.frames"):
        assert (output / "frames" / name).samefile(former / "frames" / name)
    assert open_half(output / "frames/six/1.frames").num_frames == 2 * LENGTH_S
    assert (output / "matches/labels.txt").read_text() == "blue\ngreen\nred\n"
    # the former model, on the same videos, is what it is compared with
    before, (now, then) = read_reported(former / "model")[0], read_reported(output / "model")
    assert then == before and list(now) == ["blue", "green", "red"]
    assert "not a label of the start model" in capsys.readouterr().out
    assert main(words) == 0 and "finished: nothing is trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, message",
    [
        ({"--continue-from": "nowhere"}, "`nowhere` is not a finished run of `comedian finetune --videos`"),
        ({"--output": "{former}"}, "is the `--output` too"),
        ({"--events": "few.csv"}, "which was for validation in"),
        ({"--model": "start"}, "not allowed with argument"),
    ],
)
def test_what_a_run_cannot_go_on_from(own, former, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    [kept] = json.loads((former / "matches/splits.json").read_text())["validation"]
    lines = (own / "events.csv").read_text().splitlines(True)
    (tmp_path / "few.csv").write_text("".join(line for line in lines if not line.startswith(kept)))
    options = {"--videos": own / "videos", "--events": own / "events.csv", "--continue-from": former, "--output": "on"}
    options |= {name: value.format(former=former) for name, value in change.items()}
    try:
        code = main(["finetune", *(str(word) for pair in options.items() for word in pair)])
    except SystemExit as end:
        code = end.code
    assert code == 2 and message in capsys.readouterr().err and not (tmp_path / "on").exists()


@pytest.mark.parametrize("more", [{"offset_radius_s": 1.0}, {"scores_per_token": 2}])
def test_the_heads_of_known_labels_are_kept(tmp_path, more):
    """Scores of a label that start and model share are those of the start, to the bit."""
    names = {"id2label": {0: "red", 1: "green"}, "label2id": {"red": 0, "green": 1}}
    start = ComedianForActionSpotting(tiny_config(initializer_range=0.5, **names, **more)).eval()
    start.save_pretrained(tmp_path)
    section = ModelSection(checkpoint=str(tmp_path))
    model = build_model(ComedianForActionSpotting, section, tmp_path, ["blue", "red"]).eval()
    tokens = torch.randn(2, start.config.num_tokens, start.config.hidden_size)
    with torch.no_grad():
        assert torch.equal(model.classify(tokens)[..., 1], start.classify(tokens)[..., 0])
        assert not torch.equal(model.classify(tokens)[..., 0], start.classify(tokens)[..., 1])
        if start.config.offset_radius_s is not None:
            assert torch.equal(model.predict_offsets_s(tokens)[..., 1], start.predict_offsets_s(tokens)[..., 0])


def test_a_start_without_spatial_weights_is_warned_of(tmp_path, caplog):
    model = ComedianForActionSpotting(tiny_config())
    weights = {name: tensor for name, tensor in model.state_dict().items() if "spatial_encoder.layers.0" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    build_model(ComedianForActionSpotting, ModelSection(checkpoint=str(tmp_path)), tmp_path, ["blue"])
    assert "weights of the spatial encoder, such as `spatial_encoder.layers.0" in caplog.text
    assert "LOAD REPORT" not in caplog.text


def test_one_video_each_is_enough_and_splits_may_be_told(own, tmp_path, monkeypatch):
    """Any format of events will do; what is told of splits is kept, and windows follow the length of the videos."""
    videos = [
        {"video": name, "split": split, "events": [{"label": "red", "time_s": 9}]}
        for name, split in (("one", "train"), ("two.mkv", "valid"))
    ]
    events = tmp_path / "events.json"
    events.write_text(json.dumps({"labels": ["red", "blue"], "videos": videos}))
    monkeypatch.setattr("comedian.training.finetune_videos.finetune", lambda recipe, resume: {})
    run = VideoRun(own / "videos", events, str(own / "start"), tmp_path / "run")
    told = []
    recipe, _ = finetune_videos(run, ["--training.learning_rate=3e-3"], tell=told.append)
    assert "omitted, because the events do not list them: cup/1.mkv, cup/2.mkv, cup/3.mkv" in told[0]
    assert json.loads((run.matches / "splits.json").read_text()) == {"train": ["one"], "validation": ["two"]}
    assert (run.matches / "labels.txt").read_text() == "red\nblue\n"
    assert (recipe.training["learning_rate"], recipe.training["windows_per_half"]) == (3e-3, 24)
    # three hours
    hours = type("Info", (), {"duration_s": 3 * 3600.0})
    monkeypatch.setattr("comedian.training.finetune_videos.probe", lambda path: hours)
    config = load_config(str(own / "start"))
    recipe, _ = finetune_videos(run)
    assert recipe.training["windows_per_half"] == 3 * 3600 / (config.num_frames / config.fps)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"--events": "bad.csv"}, "line 3: there is no video `four.mp4`"),
        ({"--events": "none.csv"}, "none.csv` cannot be read"),
        ({"--videos": "none"}, "none` is not a folder"),
        ({"--model": "none"}, "`none` does not exist"),
        ({"--model": "other"}, "`other` is a bert model, not comedian"),
        ({"--validation-share": "1"}, "`validation_share` is 1.0; give a share between 0 and 1"),
        ({"--events": None}, "`--events` is missing; give --videos, --events, --model and --output, or --config"),
        ({"--config": "recipe.yaml"}, "`--videos` and `--config` are mutually exclusive"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(own, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "bad.csv").write_text("video,label,time_s\none.mp4,red,1\nfour.mp4,red,1\n")
    words = words_of(own, tmp_path / "out")
    options = dict(zip(words[1::2], words[2::2], strict=True)) | change
    assert main(["finetune", *(word for pair in options.items() if pair[1] for word in pair)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_seed_does_not_go_with_a_recipe(capsys):
    assert main(["finetune", "--config", "recipe.yaml", "--seed", "1"]) == 2
    assert "`--seed` and `--config` are mutually exclusive" in capsys.readouterr().err

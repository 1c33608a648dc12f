"""`comedian train`: all stages of a folder, in order, done ones skipped, and what comes out at the end."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.evaluation.reported_events import lines_of, read_reported
from comedian.features.bank import FeatureBank
from comedian.models import ComedianForActionSpotting
from comedian.training.curves import draw_curves, read_curve
from comedian.training.recipe import DataSection
from comedian.training.train_all import STAGES, Run, read_plan, train_all
from match_factory import write_matches, write_recipe
from processes import ENVIRONMENT, launch

HEAD = {"projector_sizes": [8, 6], "queue_size": 16}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A recipe folder with every stage, and a data set."""
    folder = tmp_path_factory.mktemp("pipeline")
    root = write_matches(folder / "root", with_test=True)
    recipes = folder / "recipes"
    training = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "base_learning_rate": 0.05}
    training |= {"use_cpu": True, "disable_tqdm": True, "seed": 3}
    windows = training | {"windows_per_half": 2}
    # for its config.json alone
    write_recipe(recipes, root, folder / "nowhere").unlink()
    teacher = {"num_frames": 6, "temporal_depth": 1, "edge_trim_s": 0.0, "window_stride_s": 1.0}
    sections = {
        "pretrain": ({"contrastive_config": HEAD | {"predictor_sizes": [8, 6]}}, training),
        "teacher": (teacher, windows),
        "distill": ({"distillation_config": HEAD}, windows),
        "finetune_head": ({}, windows | {"freeze_backbone": True}),
        "finetune": ({"class_weights": [[1, 1], [4, 4]]}, windows),
    }
    for name, (overrides, settings) in sections.items():
        content = {"model": {"overrides": overrides}, "training": settings}
        (recipes / f"{name}.yaml").write_text(yaml.safe_dump(content))
    plan = {
        "frames": {"fps": 2, "height": 16},
        "features": {"teacher": "teacher.yaml", "dim": 6},
        "stages": ["pretrain", "distill", "finetune_head", "finetune"],
    }
    (recipes / "train.yaml").write_text(yaml.safe_dump(plan))
    return recipes, root


def command(folders, output, *words) -> list[str]:
    recipes, root = map(str, folders)
    return ["train", recipes, "--data", root, "--labels", f"{root}/labels.txt", "--output", str(output), *words]


def files_of(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    assert main(command(folders, output)) == 0
    return output


def test_every_stage_starts_from_the_one_before(trained):
    before = None
    for stage in ("pretrain", "distill", "finetune_head", "finetune"):
        recipe = yaml.safe_load((trained / stage / "recipe.yaml").read_text())
        assert recipe["model"]["checkpoint"] == (None if before is None else str(trained / before))
        before = stage
    assert yaml.safe_load((trained / "teacher" / "recipe.yaml").read_text())["model"]["config"] == "config.json"


def test_the_teacher_may_start_from_stage_1(folders, trained, tmp_path, capsys):
    recipes = shutil.copytree(folders[0], tmp_path / "recipes")
    plan = yaml.safe_load((recipes / "train.yaml").read_text())
    plan["features"]["teacher_start"] = "pretrain"
    (recipes / "train.yaml").write_text(yaml.safe_dump(plan))
    words = ["--frames", str(trained / "frames"), "--stages"]
    assert main(command((recipes, folders[1]), tmp_path / "out", *words, "distill", "finetune")) == 2
    assert "the teacher starts from `pretrain`, which is not among the stages before" in capsys.readouterr().err
    assert main(command((recipes, folders[1]), tmp_path / "run", *words, "pretrain", "distill", "finetune")) == 0
    printed, told = capsys.readouterr()
    run = tmp_path / "run"
    steps = [f"== stage 1 of 3: pretrain, spatial encoder without labels -> {run / 'pretrain'}"]
    steps += [
        "epoch 1 of 1: loss ",
        f"== stage 2 of 3: distill, backbone on a teacher's features -> {run / 'distill'}",
    ]
    steps += [f"-- the teacher of `distill`, a model of short windows -> {run / 'teacher'}", "epoch 1 of 1: loss "]
    steps += [f"-- features for `distill` -> {run / 'features'}", "epoch 1 of 1: loss "]
    steps += [f"== stage 3 of 3: finetune, whole model on the labels -> {run / 'finetune'}", "epoch 1 of 1: loss "]
    found = [line for line in printed.splitlines() if line.startswith(("==", "--", "epoch"))]
    assert len(found) == len(steps) and all(line.startswith(step) for line, step in zip(found, steps, strict=True))
    assert "embedding std 0." in found[1] and "average-mAP tight" in found[-1]
    assert "{'" not in printed and "LOAD REPORT" not in told
    assert "\n".join(lines_of(*read_reported(run / "finetune"))) in printed
    teacher = yaml.safe_load((tmp_path / "run" / "teacher" / "recipe.yaml").read_text())["model"]
    assert teacher["checkpoint"] == str(tmp_path / "run" / "pretrain") and teacher["config"] is None
    assert ComedianForActionSpotting.from_pretrained(tmp_path / "run" / "teacher").config.num_frames == 6


def test_the_teacher_saw_the_training_split_alone_and_so_did_the_bank(trained):
    videos = {video_id for video_id, _ in FeatureBank(trained / "features").halves}
    assert videos == {"league/one", "league/two"}
    assert FeatureBank(trained / "features_reduced").first.dim == 6


def test_it_ends_with_scores_and_curves(trained, capsys):
    scores = json.loads((trained / "scores.json").read_text())
    # the model's labels and thresholds are the fine-tuned ones
    assert scores == {
        split: json.loads((trained / "finetune" / f"{split}_scores.json").read_text())
        for split in ("validation", "test")
    }
    picture = ElementTree.fromstring((trained / "curves.svg").read_text())
    assert "pretrain + distill" in "".join(picture.itertext())
    model = ComedianForActionSpotting.from_pretrained(trained / "finetune")
    assert model.config.class_weights == [[1, 1], [4, 4]]


def test_what_is_done_is_not_done_again(folders, trained, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(trained, copied)
    weights = {path: path.stat().st_mtime_ns for path in copied.rglob("model.safetensors")}
    # the last stage broke off before it was done
    (copied / "finetune" / "recipe.yaml").unlink()
    assert main(command(folders, copied)) == 0
    changed = {path.parent.name for path, time in weights.items() if path.stat().st_mtime_ns != time}
    assert changed == {"finetune"}
    assert json.loads((copied / "scores.json").read_text()) == json.loads((trained / "scores.json").read_text())


def test_two_processes_run_the_stages_as_one(folders, trained, tmp_path):
    """Half the batch each: the same scores, and every file written once. They share decoding, features and both scorings."""
    halved = [f"--{stage}.training.per_device_train_batch_size=2" for stage in ("teacher", *STAGES)]
    words = command(folders, tmp_path / "run", *halved)
    # with imports of their own, and the end of Python, as for users
    words = launch("-m", "comedian.cli.main", *words, python=sys.executable)
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("the model is in") == 1
    one, two = (json.loads((output / "scores.json").read_text()) for output in (trained, tmp_path / "run"))
    for split in ("validation", "test"):
        for metric in ("tight", "loose"):
            assert one[split][metric]["a_mAP"] == pytest.approx(two[split][metric]["a_mAP"], abs=1e-3)
    for folder in ("frames", "features_reduced"):
        one, two = (files_of(output / folder) for output in (trained, tmp_path / "run"))
        assert one.keys() == two.keys()
        # features are those of the teacher, whose weights are equal up to the order of sums
        assert folder != "frames" or one == two


def test_some_stages_and_fields_of_their_own(folders, trained, tmp_path):
    words = ["--stages", "finetune", "--frames", str(trained / "frames"), "--seed", "7"]
    assert main(command(folders, tmp_path, *words, "--finetune.training.windows_per_half", "3")) == 0
    recipe = yaml.safe_load((tmp_path / "finetune" / "recipe.yaml").read_text())
    assert recipe["training"]["seed"] == 7 and recipe["training"]["windows_per_half"] == 3
    assert recipe["model"]["checkpoint"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.svg", "finetune", "scores.json"]


@pytest.fixture(scope="module")
def own_data(folders, tmp_path_factory):
    """A recipe folder whose last stage names its labels and splits itself, and its run, without `--labels`."""
    folder = tmp_path_factory.mktemp("own_data")
    recipes, root = shutil.copytree(folders[0], folder / "recipes"), folders[1]
    splits = {"train": ["league/one"], "validation": ["league/two"], "test": ["league/four"]}
    (folder / "splits.json").write_text(json.dumps(splits))
    path = recipes / "finetune.yaml"
    data = {"labels": str(root / "labels.txt"), "splits": str(folder / "splits.json")}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"data": data}))
    words = ["train", str(recipes), "--data", str(root), "--stages", "finetune", "--output", str(folder / "run")]
    assert main(words) == 0
    return folder, words


def test_labels_and_splits_of_a_stages_recipe_hold(own_data):
    """They are what it is trained on, and what its model is scored with."""
    output = own_data[0] / "run"
    facts = json.loads((output / "finetune/run.json").read_text())
    assert (facts["train"], facts["validation"]) == (["league/one"], ["league/two"])
    scores = json.loads((output / "scores.json").read_text())
    assert {split: len(of_split["tight"]["a_mAP_per_class"]) for split, of_split in scores.items()} == {
        "validation": 2,
        "test": 2,
    }


def test_no_test_score_stands_beside_a_model_unless_it_is_of_this_run(own_data, capsys):
    folder, words = own_data
    output, splits = folder / "run", folder / "splits.json"
    model, before = output / "finetune", splits.read_text()
    # without its frames the split cannot be scored
    frames = output / "frames/league/four"
    frames.rename(folder / "four")
    # an existing store, which is not completed
    assert main([*words, "--frames", str(output / "frames")]) == 2
    assert "league/four" in capsys.readouterr().err and not (model / "test_scores.json").exists()
    (folder / "four").rename(frames)
    assert main(words) == 0 and (model / "test_scores.json").exists()
    splits.write_text(json.dumps({name: found for name, found in json.loads(before).items() if name != "test"}))
    capsys.readouterr()
    assert main(words) == 0
    assert "no annotated halves in the split `test`: no score on it" in capsys.readouterr().out
    assert not (model / "test_scores.json").exists() and not (model / "predictions_test.zip").exists()
    assert json.loads((output / "scores.json").read_text()).keys() == {"validation"}
    splits.write_text(before)


def test_after_a_change_stages_are_refused_or_trained_anew(folders, trained, tmp_path, capsys):
    """Whatever the change is: the first stage that it concerns is named, and none that it does not concern is trained."""
    recipes, root = (shutil.copytree(folder, tmp_path / folder.name) for folder in folders)
    output = shutil.copytree(trained, tmp_path / "run")
    names = ["teacher", "pretrain", "distill", "finetune_head", "finetune"]
    before = {name: (output / name / "model.safetensors").read_bytes() for name in names}
    features = {path: path.stat().st_mtime_ns for path in output.glob("features*/**/*.safetensors")}
    files = {root / "labels.txt": None, root / "splits.json": None, recipes / "config.json": None}
    files = {path: path.read_text() for path in files}
    changes = {
        root / "labels.txt": ("".join(reversed(files[root / "labels.txt"].splitlines(True))), "pretrain", "labels "),
        root / "splits.json": (
            json.dumps({"train": ["league/one"], "test": ["league/two"], "validation": ["league/three"]}),
            "pretrain",
            "train now without `league/two`",
        ),
        recipes / "config.json": (
            files[recipes / "config.json"].replace('"drop_path_rate": 0.0', '"drop_path_rate": 0.5'),
            "pretrain",
            "model.drop_path_rate 0.0 -> 0.5",
        ),
    }
    for path, (text, stage, message) in changes.items():
        path.write_text(text)
        assert main(command((recipes, root), output)) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert f"`{output}/{stage}` holds a run with other inputs: " in error and message in error, error
        assert "`--restart`" in error
        path.write_text(files[path])
    assert main(command((recipes, root), output, "--pretrain.training.seed", "9")) == 2
    assert f"`{output}/pretrain` holds a run with other inputs: training.seed 3 -> 9" in capsys.readouterr().err
    # as the message before said: the stage is deleted and trained again, and what follows from it is not taken for done
    shutil.rmtree(output / "pretrain")
    assert main(command((recipes, root), output, "--pretrain.training.seed", "9")) == 2
    assert f"`{output}/distill` holds a run with other inputs: start " in capsys.readouterr().err
    assert {name: (output / name / "model.safetensors").read_bytes() for name in names[2:]} == {
        name: before[name] for name in names[2:]
    }
    assert main(command((recipes, root), output, "--pretrain.training.seed", "9", "--restart")) == 0
    changed = {name for name in names if (output / name / "model.safetensors").read_bytes() != before[name]}
    assert changed == {"pretrain", "distill", "finetune_head", "finetune"}
    assert {path: path.stat().st_mtime_ns for path in features} == features
    # another dimension: the bank is made anew, and what follows; nothing else
    plan = recipes / "train.yaml"
    plan.write_text(plan.read_text().replace("dim: 6", "dim: 5"))
    assert main(command((recipes, root), output, "--pretrain.training.seed", "9")) == 2
    assert f"`{output}/features` holds a run with other inputs: source.dim 6 -> 5" in capsys.readouterr().err


def write_published(root: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for video in root.rglob("*_224p.mkv"):
        features = rng.standard_normal((13, 8)).astype(np.float32)
        np.save(video.with_name(f"{video.name[0]}_baidu_soccer_embeddings.npy"), features)


@pytest.mark.parametrize("kind", ["model", "published"])
def test_features_of_other_inputs_are_made_anew(kind, folders, trained, tmp_path, capsys):
    recipes, root = (shutil.copytree(folder, tmp_path / folder.name) for folder in folders)
    model, output = shutil.copytree(trained / "teacher", tmp_path / "model"), tmp_path / "run"
    words = ["--frames", str(trained / "frames"), "--stages", "distill", "finetune"]
    plan = recipes / "train.yaml"
    content = yaml.safe_load(plan.read_text())

    def plan_features(name: str) -> None:
        plan.write_text(yaml.safe_dump(content | {"features": {kind: name, "dim": 6}}))

    # a mistake before any feature is made does not bind the folder
    plan_features("mistake")
    assert main(command((recipes, root), output, *words)) == 2
    assert "`mistake`" in capsys.readouterr().err
    write_published(root, 0)
    plan_features(str(model) if kind == "model" else "baidu")
    assert main(command((recipes, root), output, *words)) == 0
    # other content at the same paths
    write_published(root, 1)
    weights = load_file(model / "model.safetensors")
    weights["comedian.temporal_encoder.norm.bias"] += 1
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    capsys.readouterr()
    assert main(command((recipes, root), output, *words)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"`{output}/features` holds a run with other inputs: " in error and "`--restart`" in error, error
    assert main(command((recipes, root), output, *words, "--restart")) == 0
    assert main(command((recipes, root), output, *words)) == 0


@pytest.mark.parametrize(
    "plan, message",
    [
        ("frames: {fps: 2, heigth: 16}", "section `frames` has the unknown field `heigth`; did you mean `height`?"),
        ("frames: {fps: 2, height: 16}\nfeatures: {taecher: x}", "`taecher`; did you mean `teacher`?"),
        (
            "frames: {fps: 2, height: 16}\nstages: [pretrain, finetun]",
            "unknown stage `finetun`; did you mean `finetune`?",
        ),
        ("frames: {fps: 2, height: 16}\nstage: [finetune]", "unknown field `stage`; did you mean `stages`?"),
        ("frames: {fps: 2, height: 16}\nsound: no", "`sound` 'no'; give a list, and true or false"),
    ],
)
def test_mistyped_plans_are_refused(plan, message, tmp_path):
    (tmp_path / "train.yaml").write_text(plan)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_plan(tmp_path / "train.yaml")


def test_bad_input_is_one_line(folders, trained, tmp_path, capsys):
    recipes, root = folders
    without_plan = tmp_path / "without"
    shutil.copytree(recipes, without_plan)
    (without_plan / "train.yaml").write_text("frames: {fps: 2, height: 16}\nfeatures: {taecher: x}\n")
    frames = ["--frames", str(trained / "frames")]
    for folder, words, message in (
        (tmp_path, [], "train.yaml"),
        (without_plan, [], "taecher"),
        (recipes, ["--stages", "nonsense"], "no stage `nonsense`"),
        (recipes, ["--stages", "pretrain"], "`finetune` is not among"),
        (recipes, ["--tune.training.seed", "1"], "does not begin with a stage; did you mean `finetune`?"),
        (recipes, ["--stages", "finetune", *frames, "--finetune.training.sed", "1"], "unknown field `sed`"),
        (recipes, ["--finetune.training.mixup_alpa", "1"], "`mixup_alpa`; did you mean `mixup_alpha`?"),
        (recipes, ["--finetune.training.flip_prob", "7"], "`flip_prob` is 7; must be between 0 and 1"),
        (recipes, ["--teacher.model.overrides.num_frame", "1"], "`num_frame`; did you mean `num_frames`?"),
        (recipes, ["--stages", "finetune", *frames, "--pretrain.training.hue", "1"], "`pretrain` is not run"),
    ):
        assert main(command((folder, root), tmp_path / "out", *words)) == 2
        printed = capsys.readouterr().err
        assert message in printed.splitlines()[-1] and "Traceback" not in printed, printed
        assert not (tmp_path / "out").exists()
    words = ["--stages", "finetune", *frames]
    assert main(command(folders, trained, *words)) == 2
    assert f"`{trained}/finetune` holds a run with other inputs: start " in capsys.readouterr().err


def test_a_run_without_matches_is_refused(tmp_path):
    with pytest.raises(InputError, match="`data.root` is missing"):
        train_all(Run(Path("gfspot-viswin-nano"), tmp_path, DataSection()))


def test_curves_are_drawn_to_scale_and_escaped(tmp_path):
    state = {"log_history": [{"epoch": 1, "loss": 2}, {"epoch": 2, "eval_average_map_tight": 0.25}]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert read_curve(tmp_path / "state.json") == [(2, 0.25)]
    curves = {"<scratch>": [(0, 0.0), (10, 0.5)], "both": [(5, 0.2), (10, 0.27)]}
    picture = ElementTree.fromstring(draw_curves(curves, {"both": [0.1, 0.0]}))
    lines = [item for item in picture if item.tag.endswith("polyline")]
    first = [tuple(map(float, point.split(","))) for point in lines[0].get("points").split()]
    second = [tuple(map(float, point.split(","))) for point in lines[1].get("points").split()]
    # half the epochs lie half way between the axis and the end
    assert second[0][0] == pytest.approx((first[0][0] + first[1][0]) / 2, abs=0.1)
    # 20 % of 50 %: two fifths of the way up
    rise = (first[0][1] - second[0][1]) / (first[0][1] - first[1][1])
    assert rise == pytest.approx(0.4, abs=0.01)
    # the point of 50 % lies on the grid line of 50 %
    numbers = {item.text: float(item.get("y")) for item in picture if item.get("text-anchor") == "end"}
    assert numbers["50"] - 4 == pytest.approx(first[1][1], abs=0.1)
    assert numbers["0"] - 4 == pytest.approx(first[0][1], abs=0.1)
    band = next(item for item in picture if item.tag.endswith("polygon")).get("points").split()
    assert band[1] == band[2] and band[0] != band[3]
    assert "<scratch>" in "".join(picture.itertext())

"""A trained model goes to the stand-in of the Hub and comes back; its card tells what the run recorded and nothing else."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import HfApi, ModelCard, constants, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import ViTConfig

from comedian import ActionSpotter
from comedian.cli.main import main
from comedian.errors import InputError
from comedian.hub import model_publish
from comedian.hub.model_card import CardFacts, read_facts, render_card
from comedian.hub.model_publish import files_to_publish, publish
from comedian.hub.model_record import ModelRecord, read_record
from comedian.models import ComedianForActionSpotting, ComedianModel, ComedianVideoProcessor
from comedian.models.configuration_comedian import SPATIAL_ENCODERS
from comedian.samples.datasets import TargetSettings, WindowDataset, WindowShape
from comedian.training.base_trainer import build_processor
from comedian.training.finetune import finetune
from comedian.training.pretrain import pretrain
from comedian.training.recipe import load_recipe
from comedian.training.spotting_config import SpottingConfig
from comedian.training.spotting_trainer import SpottingTrainer
from comedian.training.stage import build_model, load_halves, read_settings
from hub_stand_in import TOKEN, USER
from match_factory import LABELS, write_matches, write_recipe
from testing_utils import tiny_config
from video_factory import write_video

REPO = f"{USER}/spotter"
HUB_CONFIGS = sorted(path.parent for path in (Path(__file__).parents[2] / "hub_configs").glob("*/config.json"))
CODE = {
    f"{name}_comedian.py"
    for name in (
        "backbone",
        "configuration",
        "convolutional",
        "encoders",
        "loss",
        "modeling",
        "pipeline",
        "postprocessing",
    )
}
CODE |= {"video_processing_comedian.py", "sound_comedian.py", "timeline_comedian.py"}
CODE |= {"saved_code_comedian.py", "settings_comedian.py", "time_grid_comedian.py"}
CODE |= {"frames_comedian.py", "windows_comedian.py"}
SENT = CODE | {"README.md", "config.json", "model.safetensors", "model_record.json", "video_preprocessor_config.json"}
SENT |= {"recipe.yaml", "validation_scores.json", "predictions_validation.zip", "learning_curve.svg"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secret-place")
    write_matches(folder / "root")
    assert main(["prepare", str(folder / "root"), str(folder / "frames"), "--fps", "2", "--height", "16"]) == 0
    write_recipe(folder / "recipes", folder / "root", folder / "frames")
    return folder


@pytest.fixture(scope="module")
def stages(data):
    """Folders of stage 1, and of stage 3 that started from it."""
    path = data / "recipes" / "recipe.yaml"
    heads = {"contrastive_config": {"projector_sizes": [8, 6], "predictor_sizes": [8, 6], "queue_size": 9}}
    content = yaml.safe_load(path.read_text())
    content["model"]["overrides"] = heads
    del content["training"]["windows_per_half"]
    content["training"] |= {"num_train_epochs": 1, "eval_strategy": "no", "output_dir": str(data / "stage_1")}
    (data / "recipes" / "pretrain.yaml").write_text(yaml.safe_dump(content))
    pretrain(load_recipe(data / "recipes" / "pretrain.yaml"))
    words = [
        "--model.config=null",
        f"--model.checkpoint={data / 'stage_1'}",
        f"--training.output_dir={data / 'spotter'}",
    ]
    finetune(load_recipe(path, words))
    return data / "stage_1", data / "spotter"


@pytest.fixture
def folder(stages, tmp_path):
    """A copy of the trained model that a test may spoil."""
    return Path(shutil.copytree(stages[1], tmp_path / "spotter", ignore=shutil.ignore_patterns("checkpoint-*")))


def published(hub, repo_id=REPO) -> dict[str, bytes]:
    return hub.repos["model", repo_id].files()


# the record


def test_the_record_is_what_happened(stages, data):
    record = read_record(stages[1])
    assert [stage.title.split(":")[0] for stage in record.stages] == ["Stage 1", "Stage 3"]
    first, last = record.stages
    # 4 events in each half 1, at 1, 4, 7 and 10 seconds, and 4 in each half 2, at 2, 5, 8 and 11
    assert last.data["train"] == {"matches": 2, "halves": 4, "hours": round(4 * 12 / 3600, 3), "events": 16}
    assert last.data["validation"] == {"matches": 1, "halves": 2, "hours": round(2 * 12 / 3600, 3), "events": 8}
    given = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "windows_per_half": 3, "base_learning_rate": 0.1}
    assert last.settings == given | {"seed": 3, "learning_rate": 0.1 * 4 / 256}
    assert (first.epochs, last.epochs, last.planned_epochs, last.batch_size) == (1, 2, 2, 4)
    assert first.train_time_s > 0 and last.train_time_s > 0 and " cores of " in last.hardware
    assert last.versions["torch"] == torch.__version__.split("+")[0] or last.versions["torch"] == torch.__version__
    weights = (stages[1] / "model.safetensors").read_bytes()
    assert record.weights_sha256 == hashlib.sha256(b"model.safetensors" + hashlib.sha256(weights).digest()).hexdigest()
    assert record.started_from is None and record.converted_from is None


def test_a_start_of_other_hands_is_named_without_its_place(data, tmp_path):
    ComedianForActionSpotting(tiny_config(fps=2.0)).save_pretrained(tmp_path / "others")
    words = ["--model.config=null", f"--model.checkpoint={tmp_path / 'others'}", "--training.num_train_epochs=1"]
    finetune(load_recipe(data / "recipes" / "recipe.yaml", [*words, f"--training.output_dir={tmp_path / 'out'}"]))
    record = read_record(tmp_path / "out")
    assert record.started_from == "others" and len(record.stages) == 1


def test_time_of_training_counts_over_a_break(data, tmp_path, monkeypatch):
    """The clock of the run that continues starts where the checkpoint's stood."""
    from comedian.training.run_record import RunClock

    recipe = load_recipe(data / "recipes" / "recipe.yaml", [f"--training.output_dir={tmp_path / 'out'}"])
    finetune(recipe)
    (last,) = (tmp_path / "out").glob("checkpoint-6")
    for path in (tmp_path / "out").glob("checkpoint-*"):
        state = json.loads((path / "trainer_state.json").read_text())
        state["stateful_callbacks"]["RunClock"]["attributes"]["elapsed_s"] = 1000.0
        (path / "trainer_state.json").write_text(json.dumps(state))
    shutil.rmtree(last)
    (tmp_path / "out" / "recipe.yaml").unlink()
    finetune(recipe)
    assert 1000 < read_record(tmp_path / "out").stages[-1].train_time_s < 1100
    assert RunClock().read_s() == 0


# the round trip


def test_a_model_goes_and_comes_back(hub, stages, data, tmp_path):
    commit = publish(stages[1], REPO)
    assert commit.repo_url.url == f"{hub.url}/{REPO}"
    files = published(hub)
    assert set(files) == SENT
    assert not HfApi().repo_info(REPO).private
    # nothing tells where things lie on this machine, nor the token
    for name, content in files.items():
        assert b"secret-place" not in content and TOKEN.encode() not in content, name
    snapshot_download(REPO, local_dir=tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (stages[1] / "model.safetensors").read_bytes()
    video = data / "root" / "league" / "three" / "1_224p.mkv"
    assert ActionSpotter.from_pretrained(REPO)(video, keep_all=True) == (
        ActionSpotter.from_pretrained(stages[1])(video, keep_all=True)
    )


def test_those_without_the_package_spot_with_it(hub, stages, tmp_path):
    publish(stages[1], REPO)
    write_video(tmp_path / "video.mkv", num_frames=48)
    code = f"""
import sys
sys.modules["comedian"] = None
from transformers import pipeline
spots = pipeline("action-spotting", model="{REPO}", trust_remote_code=True)("video.mkv", threshold=0.0)
print([sorted(spot) for spot in spots[:1]], len(spots))
"""
    places = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN, "HF_ENDPOINT": hub.url}
    places |= {f"HF_{name}_CACHE": str(tmp_path / name) for name in ("HUB", "MODULES", "DATASETS")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | places,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    spots = ActionSpotter.from_pretrained(stages[1])(tmp_path / "video.mkv", keep_all=True)
    assert done.stdout.strip() == f"[['half', 'label', 'score', 'timestamp_s']] {len(spots)}"


def test_published_again_only_what_changed_moves(hub, folder):
    first = publish(folder, REPO)
    hub.asked.clear()
    assert publish(folder, REPO).oid == first.oid
    assert not [asked for asked in hub.asked if asked.method == "PUT"]
    # by other hands, which stay; and by us, which go
    repo = hub.repos["model", REPO]
    repo.commit(
        repo.files() | {"notes.md": b"mine", "old_comedian.py": b"", "test_scores.json": b"{}", "x/app.py": b""}
    )
    (folder / "learning_curve.svg").unlink()
    publish(folder, REPO)
    assert set(published(hub)) == (SENT | {"notes.md", "x/app.py"}) - {"learning_curve.svg"}


def test_private_and_without_a_user(hub, stages, monkeypatch):
    commit = publish(stages[1], "spotter", private=True)
    assert commit.repo_url.repo_id == REPO and f"--model {REPO}" in published(hub)["README.md"].decode()
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(RepositoryNotFoundError):
        HfApi().repo_info(REPO)


@pytest.mark.parametrize(
    ("repo_id", "token", "message"),
    [
        (REPO, "", "refuses this login .*`hf auth login`"),
        (REPO, "hf_wrong", "refuses this login .*Invalid credentials"),
        ("else/spotter", None, "refuses this login .*namespace 'else'"),
        ("a/b/c", None, "'a/b/c'"),
    ],
)
def test_refusals_are_one_line(hub, stages, monkeypatch, repo_id, token, message):
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=message) as caught:
        publish(stages[1], repo_id)
    assert "\n" not in str(caught.value) and not hub.repos


def test_offline_is_one_line(hub, stages, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["publish", str(stages[1]), REPO]) == 2
    assert "unset HF_HUB_OFFLINE" in capsys.readouterr().err


def test_somebody_else_was_faster(hub, stages, monkeypatch):
    def meanwhile(self, *args, _info=HfApi.repo_info, **kwargs):
        info = _info(self, *args, **kwargs)
        hub.repos["model", REPO].commit({"README.md": b"theirs"})
        return info

    monkeypatch.setattr(HfApi, "repo_info", meanwhile)
    with pytest.raises(InputError, match="changed by somebody else"):
        publish(stages[1], REPO)
    assert published(hub) == {"README.md": b"theirs"}


@pytest.mark.parametrize(
    ("access", "message"),
    [("private", "or it is private: log in"), ("gated", "accept its conditions")],
)
def test_a_model_that_may_not_be_seen_is_one_line(hub, stages, capsys, access, message):
    publish(stages[1], REPO)
    setattr(hub.repos["model", REPO], access, True)
    hub.tokens = {TOKEN: "other"}
    assert main(["spot", "video.mkv", "--model", REPO, "--output", "x.json"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(f"comedian spot: .*{REPO}.*{message}", line)
    # one who has access may
    hub.repos["model", REPO].readers.add("other")
    assert ActionSpotter.from_pretrained(REPO).config.label_names == list(LABELS)


# what is refused


def spoil_missing(folder):
    (folder / "model.safetensors").unlink()


def spoil_truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def spoil_tensor(change):
    def spoil(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def spoil_class(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["Nonsense"]}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_missing, "holds no model.safetensors"),
        (spoil_truncated, "do not load"),
        (spoil_tensor(lambda tensors: tensors.pop("classifier.weight")), "lack `classifier.weight`"),
        (spoil_tensor(lambda tensors: tensors.update({"extra": torch.ones(2)})), "hold more than the model: `extra`"),
        (spoil_tensor(lambda tensors: tensors["classifier.bias"].fill_(torch.nan)), "`classifier.bias` .* not finite"),
        (spoil_tensor(lambda tensors: tensors.update({"classifier.bias": torch.ones(5)})), "do not load"),
        (spoil_tensor(lambda tensors: tensors["classifier.bias"].add_(1)), "not those that its model_record.json"),
        (spoil_class, "names the class `Nonsense`"),
        (lambda folder: (folder / "model_record.json").unlink(), "nothing|no model_record.json"),
        (lambda folder: (folder / "model_record.json").write_text("[]"), "is not a record of a model"),
        (lambda folder: (folder / "validation_scores.json").write_text('{"tight": 1}'), "holds no scores"),
        (
            lambda folder: (folder / "test_scores.json").write_text('{"tight": {"a_mAP": 1, "a_mAP_per_class": [1]}}'),
            "other labels",
        ),
        (lambda folder: (folder / "recipe.yaml").write_text("- 1"), "is not a recipe"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "vit"}'), "not the configuration"),
    ],
)
def test_a_folder_that_does_not_hold_is_refused(hub, folder, spoil, message):
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        publish(folder, REPO)
    assert "\n" not in str(caught.value) and not hub.asked


# the card


def test_the_card_tells_what_was_measured(folder):
    scores = json.loads((folder / "validation_scores.json").read_text())
    facts = CardFacts(dataset="Flashes", license="cc-by-4.0")
    card = ModelCard(render_card(folder, REPO, facts))
    measured = {
        (result.dataset_split, result.metric_config): (result.dataset_name, result.metric_value)
        for result in card.data.eval_results
    }
    assert measured == {
        ("validation", metric): ("Flashes", round(100 * scores[metric]["a_mAP"], 2)) for metric in ("tight", "loose")
    }
    assert card.data.license == "cc-by-4.0" and card.data.pipeline_tag == "action-spotting"
    assert "task:\n      type: action-spotting" in str(card)
    row = f"| validation | {100 * scores['tight']['a_mAP']:.1f} | {100 * scores['loose']['a_mAP']:.1f} |"
    assert row in card.text
    for index, label in enumerate(LABELS):
        cells = [f"{100 * scores[metric]['a_mAP_per_class'][index]:.1f}" for metric in ("tight", "loose")]
        assert f"| {label} | {' | '.join(cells)} |" in card.text
    for text in (
        "windows_per_half: 3",
        "![Validation average-mAP",
        "amateur",
        "denize2024comedian",
        "trust_remote_code",
    ):
        assert text in card.text
    assert "weight_decay" not in card.text and "### Stage 1" in card.text and "not finished" not in card.text
    # a split that was scored later appears beside it
    (folder / "test_scores.json").write_text(json.dumps(scores))
    assert "| test | " in render_card(folder, REPO)


def test_a_model_without_scores_has_none(tmp_path):
    ComedianForActionSpotting(tiny_config()).save_pretrained(tmp_path)
    card = ModelCard(render_card(tmp_path, REPO))
    assert card.data.eval_results is None and "None was measured" in card.text and "not recorded" in card.text
    assert "average-mAP" not in card.text


def test_names_from_files_bring_no_markup(tmp_path):
    names = {0: "<script>x</script>", 1: "a | b", 2: "c d"}
    ComedianForActionSpotting(tiny_config(id2label=names)).save_pretrained(tmp_path)
    text = render_card(tmp_path, REPO)
    assert "<script>" not in text and "&lt;script&gt;" in text and "a \\| b, c d" in text


def test_published_scores_are_named_so_and_count_for_converted_weights_alone(tmp_path):
    facts = read_facts(HUB_CONFIGS[-1] / "card.yaml")
    ComedianForActionSpotting(tiny_config()).save_pretrained(tmp_path)
    card = ModelCard(render_card(tmp_path, REPO, facts))
    assert card.data.eval_results is None and "of other weights than these" in card.text
    ModelRecord(converted_from="authors.ckpt").save(tmp_path)
    card = ModelCard(render_card(tmp_path, REPO, facts))
    (tight, loose) = card.data.eval_results
    assert (tight.metric_value, loose.metric_value, tight.dataset_split) == (70.7, 76.1, "test")
    assert tight.source_name == facts.quoted_scores["source"] and tight.source_url.startswith("https://")
    assert (
        "not measured again here" in card.text and "`authors.ckpt`" in card.text and "check the licence" in card.text
    )


def test_stage_1_publishes_as_a_start_for_others(hub, stages):
    publish(stages[0], f"{USER}/start")
    card = ModelCard.load(f"{USER}/start")
    assert "does not predict events yet" in card.text and "## Scores" not in card.text
    names = {name for name in published(hub, f"{USER}/start") if name.endswith(".py")}
    assert "pipeline_comedian.py" not in names and "modeling_comedian.py" in names
    assert type(ComedianModel.from_pretrained(f"{USER}/start")) is ComedianModel


@pytest.mark.parametrize("folder", HUB_CONFIGS, ids=lambda folder: folder.name)
def test_every_hub_config_has_its_card(hub, folder, capsys):
    card = render_card(folder, f"USER/{folder.name}", read_facts(folder / "card.yaml"))
    assert (folder / "README.md").read_text() == card, f"write {folder}/README.md again with `render_card`"
    words = ["publish", str(folder), REPO, "--card", str(folder / "card.yaml"), "--dry-run"]
    # it shows what would be sent, and says that weights are missing
    assert main(words) == 2
    printed = capsys.readouterr()
    assert "config.json" in printed.out and "## Limits" in printed.out and "holds no model.safetensors" in printed.err
    assert not hub.asked


@pytest.mark.parametrize("encoder", SPATIAL_ENCODERS)
def test_the_card_of_each_spatial_encoder(tmp_path, encoder):
    image_model = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4
    )
    kind = {"backbone_config": image_model} if encoder == "backbone" else {"spatial_encoder": encoder}
    model = ComedianForActionSpotting(tiny_config(**kind))
    model.save_pretrained(tmp_path)
    text = render_card(tmp_path, REPO)
    description = text.split("## Model description")[1].strip()
    begin = {
        "vivit": "A COMEDIAN ViViT with ",
        "viswin": "A COMEDIAN ViSwin with ",
        "convolutional": "A convolutional COMEDIAN with ",
        "backbone": "A COMEDIAN whose spatial encoder is an image model, with ",
    }[encoder]
    assert description.startswith(f"{begin}{model.num_parameters() / 1e6:.1f} million weights. ")
    assert ("model_type: vit" in text) == (encoder == "backbone")


def test_bad_facts_are_one_line(tmp_path):
    for text, message in (
        ("titel: x", "unknown field `titel`; did you mean `title`?"),
        ("a: [", "not YAML"),
        ("- 1", "does not fit"),
        ("quoted_scores: {rows: [{tight: 1}]}", "loose"),
        ("quoted_scores: {rows: [{tight: much, loose: 1}]}", "much"),
    ):
        (tmp_path / "card.yaml").write_text(text)
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            read_facts(tmp_path / "card.yaml")
        assert "\n" not in str(caught.value)


# ensembles


def test_an_ensemble_loads_from_one_repository(hub, folder, stages, tmp_path, data):
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    spoil_tensor(lambda tensors: tensors["classifier.weight"].mul_(-1))(other)
    named = f"{USER}/third"
    publish(stages[1], named)
    (folder / "ensemble_test_scores.json").write_bytes((folder / "validation_scores.json").read_bytes())
    publish(folder, REPO, ensemble_of=[other, named])
    files = published(hub)
    member = {"config.json", "model.safetensors", "video_preprocessor_config.json"}
    assert {name for name in files if "/" in name} == {f"ensemble/1/{name}" for name in member}
    card = files["README.md"].decode()
    assert f"--model {REPO} {named} " in card and "the scores of 3 models" in card
    assert "The ensemble:" in card and "| test |" in card
    assert {result.dataset_split for result in ModelCard(card).data.eval_results} == {"validation"}
    video = data / "root" / "league" / "three" / "1_224p.mkv"
    expected = ActionSpotter.from_pretrained(folder, other, stages[1]).score(video)
    # the repository stands for both of its models, and either may be named beside it
    for names in ((REPO, named), (REPO, f"{REPO}/ensemble/1", named)):
        assert (ActionSpotter.from_pretrained(*names).score(video) == expected).all()
    # the code at the top serves the members too
    from transformers import AutoModelForVideoClassification

    loaded = AutoModelForVideoClassification.from_pretrained(REPO, subfolder="ensemble/1", trust_remote_code=True)
    torch.testing.assert_close(
        loaded.state_dict()["classifier.weight"], load_file(other / "model.safetensors")["classifier.weight"]
    )


def test_members_must_fit(hub, folder, tmp_path):
    ComedianForActionSpotting(tiny_config()).save_pretrained(tmp_path / "other")
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="different labels"):
        publish(folder, REPO, ensemble_of=[tmp_path / "other"])
    assert not hub.asked


# the command and the trainer


def test_the_command(hub, stages, capsys):
    assert main(["publish", str(stages[1]), REPO, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert not hub.asked and all(name in printed for name in SENT) and "# spotter" in printed
    assert main(["publish", str(stages[1]), REPO, "--private"]) == 0
    assert capsys.readouterr().out == f"published: {hub.url}/{REPO}\n" and HfApi().repo_info(REPO).private
    for words, message in ((["nowhere"], "does not exist"), ([str(stages[1]), "--card", "no.yaml"], "no.yaml")):
        assert main(["publish", words[0], REPO, *words[1:]]) == 2
        assert message in capsys.readouterr().err


def test_the_recipe_that_is_sent_can_be_run_elsewhere(stages, data):
    recipe = yaml.safe_load(files_to_publish(stages[1], REPO)["recipe.yaml"])
    assert recipe["data"] == {} and recipe["model"]["checkpoint"] is None
    assert recipe["training"]["windows_per_half"] == 3 and "output_dir" not in recipe["training"]


def test_the_recipe_that_is_sent_names_no_folder_of_this_machine(folder):
    path = folder / "recipe.yaml"
    content = yaml.safe_load(path.read_text())
    content["model"] |= {"config": "/secret/project/config.json", "checkpoint": None}
    content["model"]["overrides"] = {"backbone": "/secret/project/resnet"}
    path.write_text(yaml.safe_dump(content))
    sent = files_to_publish(folder, REPO)["recipe.yaml"].decode()
    assert "secret" not in sent and yaml.safe_load(sent)["model"]["config"] == "config.json"


def test_a_trainer_pushes_each_save_and_the_end(hub, data, tmp_path, monkeypatch):
    """What is pushed in mid-training loads, and says that it is not finished."""
    pushes = []

    def remember(self, *args, _push=SpottingTrainer._push_from_checkpoint):
        _push(self, *args)
        self._finish_current_push()
        pushes.append(dict(published(hub)))

    monkeypatch.setattr(SpottingTrainer, "_push_from_checkpoint", remember)
    words = {"output_dir": tmp_path / "out", "push_to_hub": True, "hub_model_id": REPO, "hub_strategy": "every_save"}
    words |= {"hub_token": TOKEN, "hub_private_repo": True, "num_train_epochs": 3}
    monkeypatch.setenv("HF_TOKEN", "")
    finetune(
        load_recipe(data / "recipes" / "recipe.yaml", [f"--training.{name}={value}" for name, value in words.items()])
    )
    assert len(pushes) == 3
    for epoch, files in enumerate(pushes, 1):
        folder = tmp_path / f"push-{epoch}"
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            assert TOKEN.encode() not in content, name
        assert CODE <= set(files)
        ActionSpotter.from_pretrained(folder)
        unfinished = f"**Training is not finished**: epoch {epoch} of 3" in files["README.md"].decode()
        assert unfinished == (epoch < 3)
        model_publish.check_weights(folder)
        assert read_record(folder).stages[-1].epochs == epoch
    assert set(published(hub)) == SENT
    assert TOKEN not in (tmp_path / "out" / "recipe.yaml").read_text()
    assert hub.repos["model", REPO].private
    final = json.loads(published(hub)["validation_scores.json"])
    assert ModelCard(published(hub)["README.md"].decode()).data.eval_results[0].metric_value == round(
        100 * final["tight"]["a_mAP"], 2
    )


def test_stage_1_publishes_the_backbone_that_it_leaves(hub, stages, data, tmp_path):
    """Not its last checkpoint, with heads, momentum branch and queue."""
    words = {"output_dir": tmp_path / "out", "push_to_hub": True, "hub_model_id": REPO, "hub_token": TOKEN}
    words = [f"--training.{name}={value}" for name, value in words.items()]
    pretrain(load_recipe(data / "recipes" / "pretrain.yaml", words))
    files = published(hub)
    assert files["model.safetensors"] == (tmp_path / "out" / "model.safetensors").read_bytes()
    assert json.loads(files["config.json"])["architectures"] == ["ComedianModel"]
    assert "recipe.yaml" in files


def test_a_trainer_of_ones_own_publishes_with_scores(hub, data, tmp_path):
    """Without a recipe: what is pushed is finished first, and as private as was said."""
    recipe = load_recipe(data / "recipes" / "recipe.yaml", [f"--training.output_dir={tmp_path / 'mine'}"])
    args = read_settings(dict(recipe.training) | {"num_train_epochs": 1}, SpottingConfig)
    model = build_model(ComedianForActionSpotting, recipe.model, recipe.folder, LABELS)
    config = model.config
    train_halves, validation_halves = load_halves(recipe.data, config, ["train", "validation"])
    trainer = SpottingTrainer(
        model,
        args,
        train_dataset=WindowDataset(train_halves, WindowShape(config.num_frames, 2, 3, "random"), TargetSettings()),
        eval_dataset=validation_halves,
        processing_class=build_processor(config),
    )
    trainer.train()
    assert trainer.push_to_hub(private=True).repo_url.repo_id == f"{USER}/mine"
    assert hub.repos["model", f"{USER}/mine"].private
    assert set(published(hub, f"{USER}/mine")) == SENT - {"recipe.yaml"}


def test_scores_of_an_earlier_model_go(folder, data, monkeypatch):
    """A test score that lies in the folder is not that of a model that is trained there anew."""
    (folder / "test_scores.json").write_text("{}")
    (folder / "predictions_test.zip").write_bytes(b"")
    (folder / "recipe.yaml").unlink()
    recipe = load_recipe(data / "recipes" / "recipe.yaml", [f"--training.output_dir={folder}"])
    finetune(replace(recipe, folder=data / "recipes"), resume=False)
    assert not (folder / "test_scores.json").exists() and not (folder / "predictions_test.zip").exists()

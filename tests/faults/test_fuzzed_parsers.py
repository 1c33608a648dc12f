"""Every parser, given any bytes, any JSON, or a good file with a piece of it changed: an object or `InputError`."""

import copy
import csv
import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub.errors import StrictDataclassError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from comedian.conversion.lightning import load_tensors
from comedian.errors import InputError
from comedian.evaluation.match_files import find_label_files, find_prediction_files
from comedian.events.formats import FORMATS, measure, read_events, write_events
from comedian.features.bank import FeatureBank, FeatureHeader, open_features, write_features
from comedian.features.published import _open_array
from comedian.features.reduction import load_reduction
from comedian.files import inside, read_json, read_yaml
from comedian.hub.model_card import read_config, read_facts, read_scores
from comedian.hub.model_record import read_record
from comedian.inference.score_files import ScoredHalf, load_scores, save_scores, score_path
from comedian.inference.settings import read_settings
from comedian.models import ComedianConfig
from comedian.soccernet.annotations import read_annotations, read_results
from comedian.soccernet.labels import read_label_list
from comedian.soccernet.splits import find_splits
from comedian.training.recipe import load_recipe, parse_overrides
from comedian.training.train_all import read_plan
from comedian.video.frame_store import FrameStore, open_half, source_of, write_half
from testing_utils import tiny_config
from video_factory import draw_frame

FUZZED = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=5000,
    suppress_health_check=list(HealthCheck),
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 100)
    | st.sampled_from([10**30, -(10**400), 10**400, float("nan"), float("inf"), -0.5, 1e308, 2**63, 2**31])
    | st.sampled_from(
        ["", "1 - 12:34", "../../x", "/etc/passwd", "\ud800", "\0", "\x1b[2J", "9" * 400, "1e999", "a\nb"]
    )
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def places(tree, above=()):
    """Every path into a tree of lists and dicts, the empty one included."""
    yield above
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        yield from places(value, (*above, key))


@st.composite
def mutations(draw, tree):
    """The tree with one piece replaced, left out or doubled; sometimes two."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 2))):
        *above, last = draw(st.sampled_from([place for place in places(tree) if place] or [("",)]))
        if last == "":
            return draw(VALUES)
        node = tree
        for key in above:
            node = node[key]
        action = draw(st.sampled_from(["replace", "replace", "replace", "drop", "double"]))
        if action == "replace":
            node[last] = draw(VALUES)
        elif action == "drop":
            del node[last]
        elif isinstance(node, list):
            node.append(copy.deepcopy(node[last]))
        else:
            node[f"{last} "] = node[last]
    return tree


@st.composite
def damaged(draw, content: bytes):
    """The bytes with a few of them changed, cut off or put in; most often near one of the ends."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)) | st.integers(0, min(300, len(content))))
        place = place if draw(st.booleans()) else len(content) - place
        match draw(st.sampled_from(["flip", "cut", "insert", "flip"])):
            case "flip":
                content[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case "cut":
                del content[place:]
            case "insert":
                content[place:place] = draw(st.binary(max_size=8))
    return bytes(content)


@dataclass(frozen=True)
class Parser:
    """A parser, the name of its file, and good content: a tree that `encode` makes bytes of, or bytes."""

    read: Callable[[Path], object]
    name: str
    good: object
    encode: Callable[[object], bytes] = lambda tree: json.dumps(tree).encode()

    def inputs(self):
        if isinstance(self.good, bytes):
            return damaged(self.good) | damaged(self.good) | st.binary(max_size=200)
        trees = mutations(self.good) | mutations(self.good) | VALUES
        return trees.map(self.encode) | damaged(self.encode(self.good)) | st.binary(max_size=50)


def xml_bytes(tree) -> bytes:
    """Nested lists, `[name, attributes, text or child, ...]`, as XML; any other content as JSON."""
    if not isinstance(tree, list) or len(tree) < 2 or not isinstance(tree[1], dict):
        return json.dumps(tree).encode()
    attributes = "".join(f' {key}="{value}"' for key, value in tree[1].items())
    inside = b"".join(
        xml_bytes(child) if isinstance(child, list) else str(child).encode("utf-8", "replace") for child in tree[2:]
    )
    return f"<{tree[0]}{attributes}>".encode("utf-8", "replace") + inside + f"</{tree[0]}>".encode("utf-8", "replace")


def events_written(path: Path, name: str) -> None:
    """Read events, and write them in every format: what was read must be possible to write."""
    events = measure(read_events(path, name, fps=2.0), None, 25.0)
    for to in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                write_events(events, Path(folder) / "out" / ("x.json" if to == "e2e-spot" else "x"), to)
            except InputError:
                continue
            finally:
                assert {path.name for path in Path(folder).iterdir()} <= {"out"}


def of_zip(read):
    """A reader of a zip of one match, of the bytes of its file."""

    def read_zip(path: Path) -> None:
        with zipfile.ZipFile(path.with_name("a.zip"), "w") as archive:
            archive.write(path, f"match/{path.name}")
        read(path.with_name("a.zip"))

    return read_zip


def labels_of(path: Path) -> None:
    for file in find_label_files(path).values():
        file.read_events("annotations")


def predictions_of(path: Path) -> None:
    for file in find_prediction_files(path, ["match"]):
        file.read_events("predictions")


def frames_read(path: Path) -> None:
    half = open_half(path)
    half.read(0, half.num_frames)


def store_read(path: Path) -> None:
    FrameStore(path.parent)


def features_read(path: Path) -> None:
    opened = open_features(path)
    opened.read(0, opened.num_features)
    opened.check(1.0, 4.0)
    opened.at(np.array([0.0, 1.0]))


def splits_read(path: Path) -> None:
    find_splits(path.parent)


def config_made(path: Path) -> None:
    tree = json.loads(path.read_bytes())
    if isinstance(tree, dict):
        config = ComedianConfig.from_dict(tree)
        json.dumps(config.to_dict())


def csv_bytes(rows) -> bytes:
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        return json.dumps(rows).encode()
    text = io.StringIO()
    csv.writer(text).writerows([[str(cell) for cell in row] for row in rows])
    return text.getvalue().encode("utf-8", "surrogatepass")


def yaml_bytes(tree) -> bytes:
    return yaml.safe_dump(tree).encode("utf-8", "surrogatepass")


EVENT = {"label": "Goal", "team": "home", "visibility": "visible", "score": 0.5, "comment": "x"}
ANNOTATION = {"gameTime": "1 - 00:05", "label": "Goal", "position": "5000", "team": "home", "visibility": "visible"}
ANNOTATIONS = {"UrlLocal": "league/match/", "annotations": [ANNOTATION, ANNOTATION | {"gameTime": "2 - 00:05"}]}
PREDICTION = {"gameTime": "1 - 00:05", "label": "Goal", "position": "5000", "half": "1", "confidence": "0.5"}
RESULTS = {"UrlLocal": "match", "predictions": [PREDICTION]}
OUR_VIDEO = {
    "video": "a.mp4",
    "half": 1,
    "split": "train",
    "fps": 25.0,
    "duration_s": 9,
    "events": [EVENT | {"time_s": 1}],
}
OUR_JSON = {"labels": ["Goal"], "videos": [OUR_VIDEO]}
E2E = [{"video": "a/1", "num_frames": 50, "num_events": 1, "fps": 25.0, "events": [EVENT | {"frame": 25}]}]
OSL_1 = {"version": 1, "labels": ["Goal"], "videos": [{"path": "a/1_224p.mkv", "annotations": [ANNOTATION]}]}
OSL_2 = {
    "version": "2.0",
    "metadata": {"split": "train"},
    "labels": {"action": {"type": "single_label", "labels": ["Goal"]}},
    "data": [
        {
            "id": "a",
            "inputs": [{"type": "video", "path": "a/1_224p.mkv", "fps": 25.0}],
            "events": [EVENT | {"head": "action", "position_ms": 5000, "confidence": 0.5}],
            "metadata": {"video": "a", "half": 1, "split": "train"},
        }
    ],
}
STAGE = {"title": "t", "settings": {"a": 1}, "data": {"train": {"matches": 1}}, "features": None, "batch_size": 1}
STAGE |= {"epochs": 1, "planned_epochs": 1, "train_time_s": 1, "hardware": "cpu", "versions": {"a": "1"}, "date": "d"}
RECORD = {"stages": [STAGE], "started_from": None, "averaged_from": ["a"], "weights_sha256": "x"}
RECIPE = {
    "model": {"config": "config.json", "overrides": {"fps": 2.0}},
    "data": {"root": "a", "frames": "b", "labels": "c", "splits": "auto"},
    "training": {"output_dir": "x", "seed": 1},
}
PLAN = {"frames": {"fps": 2, "height": 32}, "features": {"model": "a", "dim": 3}, "stages": ["finetune"]}
FACTS = {"title": "a", "license": "mit", "quoted_scores": {"rows": [{"name": "a", "tight": 1, "loose": 2}]}}
SCORES = {"tight": {"a_mAP": 0.5, "a_mAP_per_class": [0.5, 0.5, 0.5]}}
SETTINGS = {"labels": ["Goal"], "weights": ["0"], "settings": {"nms_type": "soft", "label_thresholds": [0.5]}}
STORE = {"format": "comedian-frame-store", "version": 1, "settings": {"fps": 2.0, "height": 16, "width": None}}
STORE["settings"]["quality"] = 30


def written(write, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def write_frames(path: Path) -> None:
    source = path.with_name("video")
    source.write_bytes(b"")
    frames = [(k / 2, draw_frame(k, 16, 16)) for k in range(5)]
    write_half(path, frames, fps=2.0, quality=30, source=source_of(source))


def write_bank(path: Path) -> None:
    header = FeatureHeader(fps=1.0, offset_s=0.0, source="x", duration_s=4.0, video={"name": "x"})
    write_features(path, np.ones((4, 3), np.float32), header)


def write_scores(path: Path) -> None:
    scores = np.full((8, 3), 0.5, np.float32)
    save_scores(path.parent, ScoredHalf("m", 1, scores, tiny_config(), ["a"], {"video": {}}))
    score_path(path.parent, "m", 1).rename(path)


def safetensors_bytes(tensors, metadata: str):
    """Encodes a tree as the JSON in the metadata of a file of tensors; no tree leaves the metadata out."""

    def encode(tree) -> bytes:
        if not isinstance(tree, dict):
            return save(tensors)
        return save(tensors, {str(key): json.dumps(value) for key, value in tree.items()} | {"format": metadata})

    return encode


FEATURE_FIELDS = {
    "fps": 1.0,
    "offset_s": 0.0,
    "duration_s": 4.0,
    "source": "x",
    "video": {"name": "x"},
    "reduction": "",
}
REDUCTION = {name: np.ones(3, np.float32) for name in ("mean", "scale", "explained_variance")}
REDUCTION["components"] = np.ones((3, 3), np.float32)


def scores_bytes(tree) -> bytes:
    """A score file whose configuration is the tree."""
    words = {"format": "comedian-scores-1", "video_id": "m", "half": "1", "models": "[]", "fingerprint": "{}"}
    return save({"scores": np.full((8, 3), 0.5, np.float32)}, words | {"config": json.dumps(tree)})


CONFIG = json.loads(tiny_config(architectures=["ComedianForActionSpotting"]).to_json_string(use_diff=False))

SPORTSCODE = ["file", {}]
SPORTSCODE += [["ALL_INSTANCES", {}, ["instance", {}, ["start", {}, 3.5], ["end", {}, 9], ["code", {}, "Goal"]]]]
SPORTSCODE += [["ROWS", {}, ["row", {}, ["code", {}, "Goal"]]]]
CVAT = [
    "annotations",
    {},
    ["meta", {}, ["task", {}, ["size", {}, 50], ["labels", {}, ["label", {}, ["name", {}, "Goal"]]]]],
]
CVAT += [["image", {"id": 3}, ["tag", {"label": "Goal"}]], ["track", {"label": "Foul"}, ["box", {"frame": 4}]]]
SLOTS = ["TIME_ORDER", {}, *(["TIME_SLOT", {"TIME_SLOT_ID": f"ts{i}", "TIME_VALUE": 1000 * i}] for i in (1, 2))]
ALIGNED = [
    "ALIGNABLE_ANNOTATION",
    {"TIME_SLOT_REF1": "ts1", "TIME_SLOT_REF2": "ts2"},
    ["ANNOTATION_VALUE", {}, "Goal"],
]
MEDIA = ["HEADER", {}, ["MEDIA_DESCRIPTOR", {"RELATIVE_MEDIA_URL": "./a.mp4"}]]
ELAN = ["ANNOTATION_DOCUMENT", {}, MEDIA, SLOTS, ["TIER", {"TIER_ID": "Goal"}, ["ANNOTATION", {}, ALIGNED]]]
VIA = {
    "attribute": {"1": {"aname": "label", "options": {"0": "Goal"}}, "2": {"aname": "team"}},
    "file": {"1": {"fname": "a.mp4"}},
    "view": {"1": {"fid_list": ["1"]}},
    "metadata": {"a": {"vid": "1", "z": [3.5, 4.5], "xy": [], "av": {"1": "0", "2": "home"}}},
}
RANGES = {"type": "timelinelabels", "value": {"ranges": [{"start": 1, "end": 2}], "timelinelabels": ["Goal"]}}
SECONDS = {"type": "labels", "value": {"start": 1.5, "end": 2, "labels": ["Foul"]}, "meta": {"text": ["a"]}}
LABEL_STUDIO = [{"data": {"video": "a.mp4", "fps": 25.0}, "annotations": [{"result": [RANGES, SECONDS]}]}]
EDL = b"""TITLE: a\nFCM: NON-DROP FRAME\n
001  001      V     C        00:00:18:01 00:00:18:01 00:00:18:01 00:00:18:01
header |C:ResolveColorYellow |M:Goal |D:1\n"""
PREMIERE = b"Marker Name\tDescription\tIn\tOut\tDuration\tMarker Type\nGoal\ta\t00:01:00:01\t\t\tComment\n"
LONGOMATCH = b"CATEGORY: Goal\nGoal 1;0:12:34,200;0:12:44,200;LOCAL;1;0\n\n"

PARSERS = {
    "json": Parser(read_json, "a.json", ANNOTATIONS),
    "yaml": Parser(read_yaml, "a.yaml", RECIPE, yaml_bytes),
    "label list": Parser(read_label_list, "labels.txt", b"Goal\nCorner\n"),
    "annotations": Parser(read_annotations, "Labels-v2.json", ANNOTATIONS),
    "results": Parser(read_results, "results_spotting.json", RESULTS),
    "csv": Parser(
        lambda path: events_written(path, "csv"),
        "a.csv",
        [["video", "label", "time_s", "half", "score", "split"], ["a.mp4", "Goal", 12, 1, 0.5, "train"]],
        csv_bytes,
    ),
    "our json": Parser(lambda path: events_written(path, "json"), "a.json", OUR_JSON),
    "soccernet": Parser(lambda path: events_written(path, "soccernet"), "Labels-v2.json", ANNOTATIONS),
    "e2e-spot": Parser(lambda path: events_written(path, "e2e-spot"), "a.json", E2E),
    "osl 1": Parser(lambda path: events_written(path, "osl"), "a.json", OSL_1),
    "osl 2": Parser(lambda path: events_written(path, "osl"), "a.json", OSL_2),
    "elan": Parser(lambda path: events_written(path, "elan"), "a.eaf", ELAN, xml_bytes),
    "sportscode": Parser(lambda path: events_written(path, "sportscode"), "a.xml", SPORTSCODE, xml_bytes),
    "cvat": Parser(lambda path: events_written(path, "cvat"), "a.xml", CVAT, xml_bytes),
    "via": Parser(lambda path: events_written(path, "via"), "a.json", VIA),
    "label studio": Parser(lambda path: events_written(path, "label-studio"), "a.json", LABEL_STUDIO),
    "edl": Parser(lambda path: events_written(path, "edl"), "a.edl", EDL),
    "premiere": Parser(lambda path: events_written(path, "premiere"), "a.csv", PREMIERE),
    "longomatch": Parser(lambda path: events_written(path, "longomatch"), "a.csv", LONGOMATCH),
    "youtube": Parser(lambda path: events_written(path, "youtube"), "a.txt", b"0:00 Start\n12:34 Goal\n15:00:00 x\n"),
    "any XML": Parser(lambda path: events_written(path, None), "a.xml", SPORTSCODE, xml_bytes),
    "any table": Parser(lambda path: events_written(path, None), "a.txt", LONGOMATCH),
    "any format": Parser(lambda path: events_written(path, None), "a.json", OSL_2),
    "splits": Parser(splits_read, "splits.json", {"train": ["."], "validation": []}),
    "labels in a zip": Parser(of_zip(labels_of), "Labels-v2.json", ANNOTATIONS),
    "predictions in a zip": Parser(of_zip(predictions_of), "results_spotting.json", RESULTS),
    "a zip": Parser(predictions_of, "a.zip", b""),
    "scores": Parser(load_scores, "1.safetensors", b""),
    "scores, configuration": Parser(load_scores, "1.safetensors", CONFIG, scores_bytes),
    "features": Parser(features_read, "1.safetensors", b""),
    "features, header": Parser(
        features_read,
        "1.safetensors",
        FEATURE_FIELDS | {"dim": 3},
        safetensors_bytes({"features": np.ones((4, 3), np.float32)}, "comedian-feature-bank-1"),
    ),
    "feature bank": Parser(lambda path: FeatureBank(path.parent).first, "1.safetensors", b""),
    "reduction": Parser(
        load_reduction,
        "reduction.safetensors",
        {"source": "a", "fitted_on": "b", "fit": "c"},
        safetensors_bytes(REDUCTION, "comedian-feature-reduction-1"),
    ),
    "published features": Parser(_open_array, "a.npy", b""),
    "frame store": Parser(store_read, "store.json", STORE),
    "frames": Parser(frames_read, "1.frames", b""),
    "model record": Parser(lambda path: read_record(path.parent), "model_record.json", RECORD),
    "model scores": Parser(lambda path: read_scores(path.parent, ["a", "b", "c"]), "test_scores.json", SCORES),
    "card facts": Parser(read_facts, "card.yaml", FACTS, yaml_bytes),
    "settings": Parser(lambda path: read_settings(path, ["Goal"], ["0"]), "settings.json", SETTINGS),
    "recipe": Parser(load_recipe, "recipe.yaml", RECIPE, yaml_bytes),
    "plan": Parser(read_plan, "train.yaml", PLAN, yaml_bytes),
    "model folder": Parser(lambda path: read_config(path.parent), "config.json", CONFIG),
    "checkpoint": Parser(load_tensors, "a.safetensors", save({"trunk.a": np.ones(3, np.float32)})),
}


def zip_bytes() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("match/results_spotting.json", json.dumps(RESULTS))
    return content.getvalue()


def npy_bytes() -> bytes:
    content = io.BytesIO()
    np.save(content, np.ones((4, 3), np.float32))
    return content.getvalue()


# made when they are needed, as some take a codec
GOOD_BYTES = {
    "a zip": zip_bytes,
    "scores": lambda: written(write_scores, "1.safetensors"),
    "features": lambda: written(write_bank, "1.safetensors"),
    "feature bank": lambda: written(write_bank, "1.safetensors"),
    "frames": lambda: written(write_frames, "1.frames"),
    "published features": npy_bytes,
}


def parser_of(name: str) -> Parser:
    parser = PARSERS[name]
    return Parser(parser.read, parser.name, GOOD_BYTES[name]()) if name in GOOD_BYTES else parser


@pytest.mark.parametrize("name", PARSERS)
def test_any_content_is_read_or_refused_in_one_line(name):
    parser = parser_of(name)
    refused = 0

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, parser.name)

        @FUZZED
        @given(parser.inputs())
        def read(content):
            nonlocal refused
            path.write_bytes(content)
            try:
                parser.read(path)
            except InputError as error:
                refused += 1
                assert len(str(error).splitlines()) == 1, error

        read()
        assert refused, "no input was bad enough"
        path.write_bytes(parser.good if isinstance(parser.good, bytes) else parser.encode(parser.good))
        parser.read(path)


PIECES = ["..", ".", "a", "/", "\\", "C:", "\0", " ", "x" * 300]


@FUZZED
@given(mutations(CONFIG) | VALUES.filter(lambda tree: isinstance(tree, dict)))
def test_any_configuration_is_built_or_refused(tree):
    try:
        config = ComedianConfig.from_dict(copy.deepcopy(tree))
    except StrictDataclassError:
        return
    assert config.num_tokens >= 1 and config.token_rate > 0 and config.label_names


@FUZZED
@given(
    st.text(max_size=12)
    | st.lists(st.sampled_from(["..", ".", "a", "/", "\\", "C:", "\0", " "]), max_size=6).map("".join)
)
def test_a_name_stays_inside_or_is_refused(name):
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = inside(folder, name)
        except InputError:
            return
        assert path.resolve().is_relative_to(Path(folder).resolve())


@FUZZED
@given(
    st.lists(st.text(max_size=8) | st.sampled_from(["--training.seed", "--a.b=[", "--a.b=&x [*x]", "1"]), max_size=3)
)
def test_any_override_is_read_or_refused(words):
    try:
        parse_overrides(words)
    except InputError:
        return

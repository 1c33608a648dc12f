"""Every command over the corpus of `hostile_files`: one line, exit code 2, nothing half-written, nothing run."""

import json
import os
import shutil
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import hostile_files as hostile
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from comedian.cli.main import main
from comedian.features.bank import FeatureHeader, features_path, write_features
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor, frames_comedian
from comedian.models.sound_comedian import read_sound
from comedian.soccernet.annotations import read_results
from comedian.video.decoding import iter_frames
from comedian.video.frame_store import FrameStore
from testing_utils import tiny_config
from video_factory import write_video

SEED = 7
LABELS = ["Goal", "Corner", "Foul"]
ANNOTATION = {"gameTime": "1 - 00:01", "label": "Goal", "position": "1000", "team": "home", "visibility": "visible"}
LABEL_FILE = {"UrlLocal": "match/", "annotations": [ANNOTATION]}
RESULTS = {
    "UrlLocal": "match",
    "predictions": [{"gameTime": "1 - 00:01", "label": "Goal", "position": "1000", "half": "1", "confidence": "0.5"}],
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A model, a match with video and labels, its scores and features: all good."""
    folder = tmp_path_factory.mktemp("good")
    torch.manual_seed(0)
    config = tiny_config(initializer_range=0.5, id2label=dict(enumerate(LABELS)), label_thresholds=[0.3] * 3)
    ComedianForActionSpotting(config).save_pretrained(folder / "model")
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "model")
    write_video(folder / "root/match/1_224p.mkv", 60)
    (folder / "root/match/Labels-v2.json").write_text(json.dumps(LABEL_FILE))
    (folder / "labels.txt").write_text("\n".join(LABELS))
    (folder / "results.json").write_text(json.dumps(RESULTS))
    words = ["--save-scores", str(folder / "scores"), "--output", str(folder / "results.zip")]
    assert main(["spot", str(folder / "root"), "--model", str(folder / "model"), *words]) == 0
    header = FeatureHeader(fps=1.0, offset_s=0.0, source="x", duration_s=6.0, video={})
    write_features(features_path(folder / "bank", "match", 1), np.ones((6, 4), np.float32), header)
    return folder


def test_what_is_no_video(run, good, tmp_path_factory):
    model, out = good / "model", run.out
    for name, content in hostile.bad_videos(tmp_path_factory.mktemp("made"), SEED).items():
        video = run.write("root/match/1_224p.mkv", content)
        run(name, "spot", video, "--model", model, "--output", out / "e.json", says="1_224p.mkv")
        run(name, "spot", run.folder / "root", "--model", model, "--output", out / "r.zip", says="1_224p.mkv")
        words = ["--scores", good / "scores", "--output", out / "e.json", "--report", out / "p.html"]
        # the scores are there; the page does without pictures
        run(name, "spot", video, *words, code=0)
        run(name, "spot", "--live", video, "--model", model, "--output", out / "e.json", says="1_224p.mkv")
        run(name, "clips", good / "results.json", video, "--output", out / "clips", says="1_224p.mkv")
        run(name, "clips", good / "results.json", video, "--exact", "--output", out / "clips", says="1_224p.mkv")
        prepare = ["prepare", run.folder / "root", out / "store", "--workers", 1, "--height", 16]
        run(name, *prepare, says="1_224p.mkv")
        run(name, *prepare, "--skip-bad", code=1)
        run(name, "extract-features", run.folder / "root", out / "bank", "--model", model, says="1_224p.mkv")
        run(name, "data", "check", run.folder / "root", code=1)
        events = run.write("events.csv", b"video,label,time_s\nmatch/1_224p.mkv,Goal,1\n")
        run(name, "data", "import", run.folder / "root", events, out / "data", says="1_224p.mkv")


def times_of(video: Path) -> list[float]:
    """When the frames of a video that can be decoded are shown, in seconds after the first of them."""
    times_s = []
    with av.open(str(video)) as container, suppress(av.error.FFmpegError):
        for packet in container.demux(video=0):
            with suppress(av.error.FFmpegError):
                times_s += [frame.time for frame in packet.decode() if frame.time is not None]
    return [time_s - times_s[0] for time_s in times_s]


def test_damaged_videos_give_what_is_there_or_one_line(run, good, tmp_path_factory):
    """What can be decoded is used, by all commands or by none; its events lie in it."""
    ended, out = set(), run.out

    def spots_lie_inside() -> bool:
        spots = read_results(out / "e.json")
        return bool(spots) and all(0 <= spot["timestamp_s"] <= max(times_of(video)) + 1 for spot in spots)

    def frames_are_kept() -> bool:
        return FrameStore(out / "store").open("match", 1).num_frames > 0

    def nothing_is_kept() -> bool:
        return not list((out / "store").rglob("*.frames"))

    def a_clip_plays() -> bool:
        return all(times_of(clip) for clip in (out / "clips").glob("*.mp4"))

    for name, content in hostile.damaged_videos(tmp_path_factory.mktemp("made"), SEED).items():
        video = run.write(f"match/1.{name.split()[-1]}", content)
        words = ["--model", good / "model", "--all", "--output", out / "e.json"]
        code = run(name, "spot", video, *words, code=None, says="1.", holds=spots_lie_inside)
        ended.add(code)
        prepare = ["prepare", run.folder, out / "store", "--workers", 1, "--height", 16, "--skip-bad"]
        run(
            name,
            *prepare,
            **{0: {"code": 0, "holds": frames_are_kept}, 2: {"code": 1, "holds": nothing_is_kept}}[code],
        )
        # a clip takes places that can be sought
        clips = [good / "results.json", video, "--output", out / "clips"]
        run(name, "clips", *clips, code=2 if code == 2 else None, says="1.", holds=a_clip_plays)
        video.unlink()
    assert ended == {0, 2}


def test_odd_videos_are_good_ones(run, good, tmp_path_factory):
    for name, made in hostile.odd_videos(tmp_path_factory.mktemp("made")).items():
        video = run.write(f"match/1{made.suffix}", made.read_bytes())
        words = [video, "--model", good / "model", "--all", "--output", run.out / "e.json"]
        run(name, "spot", *words, "--report", run.out / "p.html", code=0)
        run(name, "prepare", run.folder, run.out / "store", "--workers", 1, "--height", 16, code=0)
        run(name, "spot", "--live", *words, code=0)
        video.unlink()


class Hits(BaseHTTPRequestHandler):
    """A server that has the same video everywhere, and remembers what was asked for."""

    content: bytes
    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *words):
        pass


@pytest.fixture
def server(tmp_path_factory):
    """A server of a good video, and that video: handler, address, file."""
    other = write_video(tmp_path_factory.mktemp("other") / "secret.ts", 30)
    handler = type("Handler", (Hits,), {"content": other.read_bytes(), "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}/secret.ts", other
    server.shutdown()
    server.server_close()


def test_a_list_of_other_files_opens_none_of_them(run, good, server):
    handler, address, other = server
    assert iter_frames(address, 2) and next(iter_frames(address, 2)) and handler.asked.pop() == "/secret.ts"
    handler.asked.clear()
    for ending in ("mkv", "m3u8"):
        shutil.copy(other, run.folder / other.name)
        for name, content in hostile.lists(other, address).items():
            video = run.write(f"1.{ending}", content)
            words = ["--model", good / "model", "--output", run.out / "e.json"]
            run(name, "spot", video, *words, says=f"1.{ending}")
            run(name, "spot", "--live", video, *words, says=f"1.{ending}")
            # the folder of a model on the Hub reads videos by itself
            for read in (lambda path: next(frames_comedian.iter_frames(path, 2, on_damage=print)), read_sound):
                with pytest.raises(frames_comedian.VideoError):
                    read(str(video))
    assert handler.asked == []


@pytest.mark.parametrize("name", ["concat:secret.ts", "subfile,,start,0,end,99999,,:secret.ts", "file:secret.ts"])
def test_the_name_of_a_file_is_no_protocol(run, good, server, name):
    shutil.copy(server[2], run.folder / "secret.ts")
    run.write(name, b"no video")
    run(name, "spot", name, "--model", good / "model", "--output", run.out / "e.json", says="cannot be opened")
    with pytest.raises(ValueError, match="cannot be opened"):
        next(iter_frames(name, 2, (16, 16)))


def test_times_that_cannot_be(run, good):
    """Five frames with a year between two of them are not filled up with pictures, nor with silence."""
    video = write_video(run.folder / "match/1.mkv", times_s=[0, 0.5, 1.0, 3e7, 3e7 + 0.5])
    run("spot", "spot", video, "--model", good / "model", "--output", run.out / "e.json", code=0)
    prepare = ["prepare", run.folder, run.out / "store", "--workers", 1, "--height", 16, "--fps", 2]
    run("prepare", *prepare, code=0, holds=lambda: FrameStore(run.out / "store").open("match", 1).num_frames == 3)
    assert len(list(iter_frames(video, 2, (16, 16)))) == 3
    run("clips", "clips", good / "results.json", video, "--output", run.out / "clips", says="the maximum is a day")
    samples = np.ones(1600, np.float32)
    late = write_video(run.folder / "late.mkv", 20, sound=samples, sound_start_s=3e7)
    assert read_sound(str(late)) is None


def test_labels_and_predictions_that_make_no_sense(run, good):
    for name, content in hostile.bad_json(LABEL_FILE, "annotations", ("label", "position", "gameTime")).items():
        label_file = run.write("labels/match/Labels-v2.json", content)
        # `gameTime` then tells the time, as it does to the official scorer
        code = 0 if name == "position missing" else 2
        report = ["--scores", good / "scores", "--output", run.out / "e.json", "--report", run.out / "p.html"]
        says = {"code": code, "says": "Labels-v2.json"}
        run(name, "spot", *report, "--report-labels", label_file, **says)
        run(name, "data", "convert", run.folder / "labels", run.out / "x.csv", **says)
        run(name, "data", "check", run.folder / "labels", code=1)
        predictions = run.write("predictions/match/results_spotting.json", json.dumps(RESULTS).encode()).parents[1]
        words = ["evaluate", run.folder / "labels", predictions, "--report", run.out / "p.html"]
        run(name, *words, "--output", run.out / "s.json", **says)
        run(name, "tune", run.folder / "labels", good / "scores", "--output", run.out / "s.json", **says)
        shutil.rmtree(run.folder / "labels")
    for name, content in hostile.bad_json(RESULTS, "predictions", ("label", "position", "half", "confidence")).items():
        file = run.write("predictions/match/results_spotting.json", content)
        words = [file, good / "root/match/1_224p.mkv", "--output", run.out / "clips"]
        run(name, "clips", *words, says="results_spotting.json")
        run(name, "evaluate", good / "root", run.folder / "predictions", says="results_spotting.json")


def test_events_in_tables(run, good):
    write_video(run.folder / "videos/a.mp4", 20)
    write_video(run.folder / "videos/c.mp4", 20)
    run.write("secret.mp4", b"")
    run.write("videos/\x1b[2J.mp4", b"")
    good_events = run.write("good.csv", b"video,label,time_s\na.mp4,Goal,1\nc.mp4,Goal,1\n")
    run("a file", "data", "import", run.folder / "videos", good_events, run.out / "data", code=0)
    for name, content in hostile.bad_csvs().items():
        events = run.write("events.csv", content)
        run(name, "data", "import", run.folder / "videos", events, run.out / "data", says="events.csv")
        no_tables = ("empty", "UTF-16", "no encoding", "other columns", "binary", "long field")
        is_no_table = name in (*no_tables, "doubled column", "open quote")
        code = 2 if is_no_table else 1
        run(name, "data", "check", run.folder / "videos", "--events", events, code=code, says="events.csv")
        # what is wrong only beside the videos, or where a name becomes a folder, is no matter of the format
        is_bad_name = name in ("leads out", "root", "long name")
        is_fine = name in ("no such video", "after the end", "twice", "no event")
        for to in ("soccernet", "osl", "json"):
            code = 0 if is_fine or (is_bad_name and to != "soccernet") else 2
            run(name, "data", "convert", events, run.out / "x", "--to", to, code=code)
        start = ["--videos", run.folder / "videos", "--events", events, "--model", good / "model"]
        run(name, "finetune", *start, "--output", run.out / "run", says="events.csv")


def test_events_of_every_format(run):
    """A file in the format that `--from` names, and any other file said to be in it."""
    for name, (source, ending, content) in hostile.bad_events().items():
        events = run.write(f"events.{ending}", content)
        run(name, "data", "convert", events, run.out / "x", "--from", source, "--to", "osl", says=f"events.{ending}")


def test_zips_of_predictions(run, good):
    for name, content in hostile.bad_zips("match", "results_spotting.json", json.dumps(RESULTS).encode()).items():
        predictions = run.write("predictions.zip", content)
        run(name, "evaluate", good / "root", predictions, "--output", run.out / "s.json", says="predictions.zip")
    for name, content in hostile.bad_zips("match", "Labels-v2.json", json.dumps(LABEL_FILE).encode()).items():
        labels = run.write("labels.zip", content)
        run(name, "evaluate", labels, good / "root", "--output", run.out / "s.json")
        run(name, "tune", labels, good / "scores", "--output", run.out / "s.json")


def test_models(run, good, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    video, copies = good / "root/match/1_224p.mkv", hostile.bad_models(good / "model", folder, run.canary)
    for name, model in copies.items():
        run(name, "spot", video, "--model", model, "--output", run.out / "e.json", says=name)
        run(name, "spot", "--live", video, "--model", model, "--output", run.out / "e.json", says=name)
        run(name, "average", good / "model", model, "--output", run.out / "mean", says=name)
        run(name, "export", model, run.out / "graphs", "--format", "torch-export", says=name)
        run(name, "extract-features", good / "root", run.out / "bank", "--model", model, says=name)
        if "weight" not in name:
            run(name, "publish", model, "me/model", "--dry-run", says=name)
            words = ["tune", good / "root", good / "scores", "--model", model]
            run(name, *words, says=name)


def test_checkpoints_of_others(run):
    for name, content in hostile.pickles(run.canary).items():
        for ending in ("ckpt", "pth"):
            run(name, "convert", run.write(f"a.{ending}", content), run.out / "model", says=f"a.{ending}")
    for name in ("empty", "text"):
        content = hostile.pickles(run.canary)[name]
        run(name, "convert", run.write("a.safetensors", content), run.out / "model", says="a.safetensors")


def test_scores_and_features(run, good):
    [path] = (good / "scores").rglob("*.safetensors")
    shape = load_file(path)["scores"].shape
    for name, content in hostile.bad_scores(path.read_bytes(), shape).items():
        run.write("scores/match/1.safetensors", content)
        scores = run.folder / "scores"
        run(name, "spot", "--scores", scores, "--output", run.out / "e.json", says="1.safetensors")
        run(name, "tune", good / "root", scores, "--output", run.out / "s.json", says="1.safetensors")
    for name, content in hostile.bad_scores(features_path(good / "bank", "match", 1).read_bytes(), (6, 4)).items():
        bank = run.write("bank/match/1.safetensors", content).parents[1]
        fit = ["--dim", 2, "--data", good / "root", "--split", "train"]
        run(name, "reduce-features", bank, run.out / "reduced", *fit, says="1.safetensors")
        run(name, "reduce-features", good / "bank", run.out / "reduced", "--transform", bank)


def test_recipes(run, good):
    (run.folder / "config.json").write_text(json.dumps({"model_type": "comedian"}))
    for name, content in hostile.bad_yamls().items():
        recipe = run.write("recipe.yaml", content)
        for stage in ("pretrain", "distill", "finetune"):
            run(name, stage, "--config", recipe, "--training.output_dir", run.out / "run")
        run.write("recipes/train.yaml", content)
        run(name, "train", run.folder / "recipes", "--data", good / "root", "--output", run.out, says="train.yaml")
        run(name, "publish", good / "model", "me/model", "--dry-run", "--card", recipe, says="recipe.yaml")


def test_links_of_a_data_root_end(run, good):
    root = run.folder / "root"
    shutil.copytree(good / "root", root)
    for name in ("back", "again"):
        (root / name).symlink_to(root)
        (root / "match" / name).symlink_to(root / "match")
    (root / "elsewhere").symlink_to(good / "root")
    run("links", "prepare", root, run.out / "store", "--workers", 1, "--height", 16, code=0)
    run("links", "evaluate", root, root, says="Labels-v2.json` has no list `predictions`")
    run("links", "data", "check", root, code=1)


def test_a_store_is_inside_its_folder(good, tmp_path):
    assert main(["prepare", str(good / "root"), str(tmp_path / "store"), "--workers", "1", "--height", "16"]) == 0
    assert FrameStore(tmp_path / "store").halves == [("match", 1)]


def test_a_half_that_is_there_twice(run, good):
    """Of several qualities the smallest picture is taken; what are ambiguous is refused, and `data check` tells."""
    video = (good / "root/match/1_224p.mkv").read_bytes()
    root, model = run.folder / "root", good / "model"
    shutil.copytree(good / "root", root)
    run.write("root/match/1_720p.mkv", b"no video: not the one that is taken")
    commands = {
        "spot": ["spot", root, "--model", model, "--output", run.out / "r.zip"],
        "prepare": ["prepare", root, run.out / "store", "--workers", 1, "--height", 16],
        "extract": ["extract-features", root, run.out / "bank", "--model", model],
    }
    for words in commands.values():
        run("two qualities", *words, code=0)
    run("two qualities", "data", "check", root, code=1)
    run.write("root/match/1_224p.mp4", video)
    for words in commands.values():
        run("two endings", *words, says="1_224p.mkv, 1_224p.mp4")
    run("two endings", "data", "check", root, code=1)


@pytest.mark.parametrize("other", ["./a.mp4", "a", "m/../a.mp4", "b/a", "link.mp4"])
def test_a_video_under_two_names(run, other):
    """Else it would be in training and in validation."""
    videos = run.folder / "videos"
    write_video(videos / "a.mp4", 20)
    write_video(videos / "b/a/1_224p.mkv", 20)
    (videos / "link.mp4").symlink_to(videos / "a.mp4")
    name = "b/a/1_224p.mkv" if other == "b/a" else "a.mp4"
    rows = f"video,label,time_s,split\n{name},Goal,1,train\n{other},Goal,1,validation\n"
    events = run.write("events.csv", rows.encode())
    run(other, "data", "import", videos, events, run.out / "data", says="events.csv")
    run(other, "data", "check", videos, "--events", events, code=1)


@pytest.mark.parametrize("match", ["<script>alert(1)<script>", "ma\ntch", "\x1b[2J", "match"])
def test_names_of_files(run, good, match):
    """What breaks a line or orders a terminal is refused; what a page would take for HTML is shown as it is."""
    root, model, out = run.folder / "root", good / "model", run.out
    video = run.write(f"root/{match}/1_224p.mkv", (good / "root/match/1_224p.mkv").read_bytes()[:-3000])
    if match == "match":
        video = video.rename(video.with_name("1_\x1b[2J.mkv"))
    run.write(f"root/{match}/Labels-v2.json", json.dumps(LABEL_FILE).encode())
    results = run.write(f"root/{match}/results_spotting.json", json.dumps(RESULTS).encode())
    code = 0 if match.isprintable() and video.name.isprintable() else 2

    def page_is_safe() -> bool:
        return "<script>alert" not in (out / "p.html").read_text()

    report = ["--output", out / "e.json", "--report", out / "p.html"]
    run(match, "spot", video, "--model", model, *report, code=code, holds=page_is_safe)
    run(match, "spot", video, "--scores", good / "scores", *report, code=0, holds=page_is_safe)
    run(match, "spot", root, "--model", model, "--output", out / "r.zip", code=code)
    run(match, "prepare", root, out / "store", "--workers", 1, "--height", 16, code=code)
    run(match, "extract-features", root, out / "bank", "--model", model, code=code)
    run(match, "clips", results, video, "--output", out / "clips", code=code)
    # what does not name the file may do
    listed = 0 if match.isprintable() else 2
    run(match, "data", "check", root, code=listed or 1)
    run(match, "data", "convert", root, out / "x.csv", code=listed)
    pictures = ["--videos", root] if code == 0 else []
    run(match, "evaluate", root, root, "--report", out / "p.html", *pictures, code=0, holds=page_is_safe)
    results.write_bytes(b"nothing")
    run(match, "evaluate", root, root)


def test_files_that_are_no_files(run, good):
    """Links that lead nowhere or in a circle, folders, pipes and devices with a video's name are passed over."""
    root = run.folder / "root"
    shutil.copytree(good / "root", root)
    made = root / "match"
    (made / "2_224p.mkv").symlink_to(made / "nowhere.mkv")
    (made / "3_224p.mkv").symlink_to(made / "3_224p.mkv")
    (made / "4_224p.mkv").mkdir()
    os.mkfifo(made / "5_224p.mkv")
    (made / "6_224p.mkv").symlink_to("/dev/zero")
    (root / "other").mkdir()
    os.mkfifo(root / "other/Labels-v2.json")
    run("no files", "prepare", root, run.out / "store", "--workers", 1, "--height", 16, code=0)
    run("no files", "spot", root, "--model", good / "model", "--output", run.out / "r.zip", code=0)
    run("no files", "data", "check", root, code=1)
    (made / "1_224p.mkv").unlink()
    (made / "1_224p.mkv").symlink_to("/etc/passwd")
    run("a link out", "prepare", root, run.out / "store", "--workers", 1, "--height", 16, says="1_224p.mkv")

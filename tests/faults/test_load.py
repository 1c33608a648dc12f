"""Much of everything: memory stays bounded."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from comedian.evaluation.soccernet_average_map.soccernet_average_map import average_map
from comedian.features.bank import FeatureHeader, features_path, write_features
from video_factory import write_video

NUM_LABELS = 100
LABELS = [f"label {index}" for index in range(NUM_LABELS)]


def growth_mb(program: str, *arguments: object) -> float:
    """Run a program of two parts, divided by `# ---`, in a process of its own; how far memory grew in the second one."""
    setup, work = program.split("# ---\n")
    script = (
        "import sys, re\n"
        "def peak_mb(name): return int(re.search(name + r':\\s+(\\d+) kB', open('/proc/self/status').read())[1]) / 1024\n"
        f"{setup}\nbefore = peak_mb('VmRSS')\n{work}\nprint(peak_mb('VmHWM') - before)"
    )
    words = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return float(done.stdout.splitlines()[-1])


def test_a_bank_of_50_gb_is_read_where_it_is_asked(tmp_path):
    header = FeatureHeader(fps=2.0, offset_s=0.25, duration_s=1e6, source="zeros", video={})
    for half in range(1, 11):
        path = features_path(tmp_path, "long", half)
        write_features(path, np.zeros((1, 2048), np.float16), header)
        # the same file with many more features, none of which takes room on the disk
        size = int.from_bytes(path.read_bytes()[:8], "little")
        content = json.loads(path.read_bytes()[8 : 8 + size])
        count = 5 * 2**30 // (2 * 2048)
        content["features"] |= {"shape": [count, 2048], "data_offsets": [0, 2 * 2048 * count]}
        text = json.dumps(content).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        with open(path, "r+b") as file:
            file.truncate(8 + len(text) + 2 * 2048 * count)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) > 50 * 2**30
    grown_mb = growth_mb(
        """
import numpy as np
from comedian.features.bank import FeatureBank
bank = FeatureBank(sys.argv[1])
# ---
rng = np.random.default_rng(0)
for half in range(1, 11):
    features = bank.open("long", half)
    for start_s in rng.uniform(0, features.last_s - 70, 20):
        assert features.at(start_s + np.arange(64)).shape == (64, 2048)
""",
        tmp_path,
    )
    assert grown_mb < 200


def write_labels(folder: Path, num_events: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    positions_ms = np.sort(rng.integers(0, 2_700_000, num_events))
    annotations = [
        {
            "gameTime": f"1 - {position // 60000:02d}:{position // 1000 % 60:02d}",
            "label": LABELS[label],
            "position": str(position),
            "team": "home",
            "visibility": "visible",
        }
        for position, label in zip(positions_ms.tolist(), rng.integers(NUM_LABELS, size=num_events).tolist())
    ]
    (folder / "Labels-v2.json").write_text(json.dumps({"annotations": annotations}))


def test_a_thousand_halves_and_ten_thousand_events_in_one(tmp_path):
    video = write_video(tmp_path / "half.mkv", num_frames=4, fps=4, height=16, width=16)
    root = tmp_path / "root"
    for match in range(500):
        folder = root / "train" / f"match {match:03d}"
        folder.mkdir(parents=True)
        for half in (1, 2):
            (folder / f"{half}_224p.mkv").hardlink_to(video)
        write_labels(folder, 10_000 if match == 0 else 50, match)
    grown_mb = growth_mb(
        """
from comedian.soccernet.builder import SoccerNet
# ---
builder = SoccerNet(data_dir=sys.argv[1], labels=[f"label {index}" for index in range(100)], cache_dir=sys.argv[2])
builder.download_and_prepare()
halves = builder.as_dataset(split="train")
assert len(halves) == 1000 and len(halves[0]["events"]) == 10_000
""",
        root,
        tmp_path / "cache",
    )
    assert grown_mb < 400


def test_a_hundred_labels_and_ten_thousand_events_are_scored(tmp_path):
    write_labels(tmp_path, 10_000, 0)
    annotations = json.loads((tmp_path / "Labels-v2.json").read_text())["annotations"]
    predictions = [
        {
            "gameTime": event["gameTime"],
            "label": event["label"],
            "position": event["position"],
            "half": "1",
            "confidence": "0.9",
        }
        for event in annotations
    ]
    scores = average_map([annotations], [predictions], LABELS)
    # two events of one label in one frame are one to the metric, so all that is there is found
    assert scores["loose"]["a_mAP"] == 1.0 and len(scores["loose"]["a_mAP_per_class"]) == NUM_LABELS


def test_three_hours_of_a_hundred_labels_become_spots_in_bounded_memory():
    grown_mb = growth_mb(
        """
import numpy as np
from comedian.models.postprocessing_comedian import spots_from_scores
from comedian.models import ComedianConfig
scores = np.random.default_rng(0).random((10_800, 100), dtype=np.float32)
# ---
spots = spots_from_scores(scores, np.arange(10_800.0), [str(i) for i in range(100)], 1, score_rate=1.0, nms_threshold=0.5)
assert len(spots) > 10_000
"""
    )
    assert grown_mb < 400

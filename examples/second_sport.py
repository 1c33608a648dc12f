"""Check the settings of `comedian finetune --videos` on another sport than the one that they were chosen on.

    python examples/second_sport.py WORK

Draws ten minutes of a game of two paddles and a ball, fine-tunes the demo's model on six of them with each set of settings,
and prints average-mAP on the last two minutes, which no run has seen: mean ± standard deviation over seeds.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from comedian.training.comparison import mean_and_spread

HEIGHT, WIDTH, FPS = 128, 224, 10
SPLITS = {"train": 3, "validation": 1, "test": 1}
VIDEO_S = 120
PAUSE_S, SPEED = 1.5, 75.0
PADDLE, RADIUS, MARGIN = 16, 3, 14
METRICS = ("tight", "loose", "at1")
# settings of `gfspot-conv-small` that `finetune --videos` does not have
RECIPE = {"label_radius_s": 0.2, "average_decay": 0.99, "max_shift": 0.04, "blur_prob": 0.0}
ARMS: dict[str, dict[str, object]] = {"as shipped": {}, "as the recipe `gfspot-conv-small`": RECIPE}


@dataclass
class Game:
    """State of a game; places in pixels, `(row, column)`."""

    rng: np.random.Generator
    ball: np.ndarray = field(default_factory=lambda: np.array([HEIGHT / 2, WIDTH / 2]))
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    paddles: np.ndarray = field(default_factory=lambda: np.full(2, HEIGHT / 2))
    aims: np.ndarray = field(default_factory=lambda: np.zeros(2))
    pause_s: float = PAUSE_S

    def step(self) -> str | None:
        """Move on by a frame; return what happened."""
        if self.pause_s > 0:
            self.pause_s -= 1 / FPS
            return self.serve() if self.pause_s <= 0 else None
        self.ball = self.ball + self.velocity / FPS
        if not RADIUS < self.ball[0] < HEIGHT - RADIUS:
            self.velocity[0] *= -1
            self.ball[0] = np.clip(self.ball[0], RADIUS, HEIGHT - RADIUS)
        side = int(self.velocity[1] > 0)
        self.paddles[side] += np.clip(self.ball[0] + self.aims[side] - self.paddles[side], -6, 6)
        beyond = self.ball[1] < MARGIN if side == 0 else self.ball[1] > WIDTH - MARGIN
        if not beyond:
            return None
        if abs(self.ball[0] - self.paddles[side]) <= PADDLE:
            return self.hit()
        if not 0 < self.ball[1] < WIDTH:
            self.ball, self.pause_s = np.array([HEIGHT / 2, WIDTH / 2]), PAUSE_S + self.rng.uniform(0, 2)
            return "Point"
        return None

    def serve(self) -> str:
        """Send the ball to a random side."""
        self.velocity = SPEED * np.array([self.rng.uniform(-0.6, 0.6), self.rng.choice([-1.0, 1.0])])
        return self.aim("Serve")

    def hit(self) -> str:
        """Send the ball back at another angle."""
        self.velocity = SPEED * np.array(
            [self.rng.uniform(-0.7, 0.7), -np.sign(self.velocity[1]) * self.rng.uniform(0.8, 1.5)]
        )
        return self.aim("Hit")

    def aim(self, event: str) -> str:
        """Choose by how far each paddle will miss the middle of the ball."""
        self.aims = self.rng.normal(0, 15, 2)
        return event


def play(rng: np.random.Generator) -> Iterator[tuple[np.ndarray, str | None]]:
    """Yield the frames of a video, uint8 RGB `(HEIGHT, WIDTH, 3)`, and what happens in each."""
    game = Game(rng)
    court, lines, ball, *teams = rng.integers([(0, 60, 0), (180,) * 3, (200,) * 3, (100, 0, 0), (0, 0, 100)], 255)
    court = court // 3
    for _ in range(VIDEO_S * FPS):
        event = game.step()
        frame = np.tile(court, (HEIGHT, WIDTH, 1)).astype(float)
        frame[:, WIDTH // 2 - 1 : WIDTH // 2 + 1] = lines
        for side, column in enumerate((MARGIN - 6, WIDTH - MARGIN + 2)):
            top = int(game.paddles[side]) - PADDLE
            frame[max(top, 0) : top + 2 * PADDLE, column : column + 4] = teams[side]
        row, column = game.ball.astype(int)
        frame[max(row - RADIUS, 0) : row + RADIUS, max(column - RADIUS, 0) : column + RADIUS] = ball
        frame = np.roll(frame, rng.integers(-2, 3, 2), axis=(0, 1)) + rng.normal(0, 6, frame.shape)
        yield frame.clip(0, 255).astype(np.uint8), event


def film(path: Path, seed: int) -> list[tuple[str, float]]:
    """Write a video; return its events: label and seconds from the first frame."""
    events = []
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number, (frame, event) in enumerate(play(np.random.default_rng(seed))):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            if event:
                events.append((event, number / FPS))
        container.mux(stream.encode())
    return events


def film_all(folder: Path) -> None:
    """Write the videos of all splits, and `events.csv` beside them."""
    folder.mkdir(parents=True)
    names = [(split, f"{split}{number}.mp4") for split, count in SPLITS.items() for number in range(count)]
    rows = [
        (name, split, label, time_s)
        for seed, (split, name) in enumerate(names)
        for label, time_s in film(folder / name, seed)
    ]
    # last: it says that all videos are there
    with (folder.parent / "events.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video", "split", "label", "time_s"), *rows])


def comedian(*words: object) -> None:
    """Run a command."""
    subprocess.run(
        [sys.executable, "-m", "comedian.cli.main", *map(str, words)], check=True, stdout=subprocess.DEVNULL
    )


def train_and_score(work: Path, run: Path, settings: dict[str, object], seed: int) -> dict[str, float]:
    """Fine-tune, spot the test video, return average-mAP in percent."""
    scores, spots, matches = run / "test.json", run / "test.zip", run / "matches"
    if not scores.is_file():
        words = [word for name, value in settings.items() for word in (f"--training.{name}", value)]
        videos = ("--videos", work / "videos", "--events", work / "events.csv")
        comedian("finetune", *videos, "--model", "demo", "--output", run, "--seed", seed, *words)
        comedian("spot", matches, "--split", "test", "--model", run / "model", "--output", spots)
        labels = ("--labels", matches / "labels.txt", "--split", "test")
        comedian("evaluate", matches, spots, *labels, "--metric", *METRICS, "--output", scores)
    found = json.loads(scores.read_text())
    return {metric: 100 * found[metric]["a_mAP"] for metric in METRICS}


def main() -> None:
    """Draw, train each arm with each seed, print the table; what is there already is not made again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of videos and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    if not (args.work / "events.csv").is_file():
        shutil.rmtree(args.work / "videos", ignore_errors=True)
        film_all(args.work / "videos")
    print("| settings | tight | loose | ±0.5 s |\n|---|---|---|---|")
    for number, (arm, settings) in enumerate(ARMS.items()):
        runs = [train_and_score(args.work, args.work / f"arm{number}_{seed}", settings, seed) for seed in args.seeds]
        cells = [mean_and_spread([run[metric] for run in runs]) for metric in METRICS]
        print(f"| {arm} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""Measure what `comedian label --suggest` is worth: label suggested minutes of a pool, or random ones, and train on them.

python examples/suggestion_evidence.py GFSPOT FRAMES WORK --output suggestions.json

Of GF-Spot's training split, four halves, 20 minutes, are labelled at first; the minutes of all others are the pool. A model
is trained on what is labelled. Then 20 minutes of the pool are labelled, those with the moments that the model is least
certain of, or random ones, and each model goes on from the first with all 40 minutes. The test split is scored, for each
seed. What is done already is not done again.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from comedian.evaluation.spotting_evaluator import average_map_of, score_halves, spots_of_halves
from comedian.files import atomic_write_text
from comedian.inference.suggestions import uncertain_moments
from comedian.inference.torch_model import TorchModel, load_model
from comedian.models import ComedianConfig
from comedian.samples.datasets import HalfDataset, WindowDataset
from comedian.training.comparison import mean_and_spread
from comedian.training.finetune import finetune
from comedian.training.recipe import Recipe, load_recipe
from comedian.training.stage import load_halves

MINUTE_S = 60
FIRST_HALVES, NEW_MINUTES = 4, 20
WINDOWS_PER_MINUTE, FIRST_EPOCHS, MORE_EPOCHS = 2, 20, 8
BATCH_SIZE = 4
METRICS = ("tight", "loose", "at1")

Minute = tuple[int, int]
"""Index of a half and of one of its minutes."""


class LabelledMinutes(WindowDataset):
    """Windows that lie within labelled minutes."""

    minutes: frozenset[Minute]

    def __len__(self) -> int:
        return len(self.minutes) * WINDOWS_PER_MINUTE

    def draw_starts(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """First frames of an epoch's windows of one half."""
        minute_frames = round(MINUTE_S * self.halves[index].fps)
        room = minute_frames - self.shape.num_frames * self.halves.frame_step
        minutes = sorted(minute for half, minute in self.minutes if half == index)
        firsts = np.repeat(np.array(minutes, dtype=np.int64) * minute_frames, WINDOWS_PER_MINUTE)
        return firsts + rng.integers(room, size=len(firsts), endpoint=True)


def main() -> None:
    """Run all seeds, write the scores and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gfspot", type=Path, help="the data set")
    parser.add_argument("frames", type=Path, help="its frame store, prepared with --fps 5 --height 64 --width 112")
    parser.add_argument("work", type=Path, help="where models go")
    parser.add_argument(
        "--start", metavar="MODEL", help="start from this backbone, such as stage 1's; default: from scratch"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="scores of each seed, JSON")
    args = parser.parse_args()
    scores = {str(seed): run_seed(args, seed) for seed in args.seeds}
    atomic_write_text(args.output, json.dumps(scores, indent=1) + "\n")
    print(f"| labelled | {' | '.join(METRICS)} |\n|{'---|' * (1 + len(METRICS))}")
    for arm in ("first", "random", "suggested"):
        cells = [mean_and_spread([100 * of_seed[arm][metric] for of_seed in scores.values()]) for metric in METRICS]
        print(f"| {arm} | {' | '.join(cells)} |")


def run_seed(args: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    """Test scores of the first model and of those that were trained on more minutes."""
    recipe = recipe_of(args, seed, "first", args.start, FIRST_EPOCHS)
    (halves,) = load_halves(recipe.data, ComedianConfig.from_pretrained(recipe.folder), ["train"])
    rng = np.random.default_rng(seed)
    first = set(rng.choice(len(halves), FIRST_HALVES, replace=False).tolist())
    minutes = [(half, minute) for half in range(len(halves)) for minute in range(minutes_of(halves, half))]
    labelled = [minute for minute in minutes if minute[0] in first]
    pool = [minute for minute in minutes if minute[0] not in first]
    scores = {"first": train_and_score(recipe, labelled)}
    start = recipe.training["output_dir"]
    random = [pool[number] for number in rng.choice(len(pool), NEW_MINUTES, replace=False)]
    for arm in ("random", "suggested"):
        new = random if arm == "random" else suggested_minutes(start, halves, pool)
        more = recipe_of(args, seed, arm, start, MORE_EPOCHS)
        scores[arm] = train_and_score(more, labelled + new)
    return scores


def recipe_of(args: argparse.Namespace, seed: int, arm: str, start: str | None, epochs: int) -> Recipe:
    """Stage 3 of `gfspot-conv-small` on a part of the data, scored on validation at its end alone."""
    minutes = FIRST_HALVES * 5 + (0 if arm == "first" else NEW_MINUTES)
    steps = epochs * minutes * WINDOWS_PER_MINUTE // BATCH_SIZE
    values = {
        "data.root": args.gfspot,
        "data.frames": args.frames,
        "data.labels": args.gfspot / "labels.txt",
        "training.output_dir": args.work / f"{arm}{seed}",
        "training.seed": seed,
        "training.num_train_epochs": epochs,
        "training.eval_steps": steps,
        "training.save_steps": steps,
    }
    if start is not None:
        values |= {"model.config": "null", "model.checkpoint": start}
    if arm != "first":
        # the first model was trained with a higher rate
        values["training.learning_rate"] = 5e-4
    return load_recipe("gfspot-conv-small/finetune.yaml", [f"--{name}={value}" for name, value in values.items()])


def minutes_of(halves: HalfDataset, half: int) -> int:
    """Whole minutes of a half."""
    return int(halves.num_frames(half) / halves.fps // MINUTE_S)


def suggested_minutes(start: str, halves: HalfDataset, pool: list[Minute]) -> list[Minute]:
    """The minutes that hold the moments which `comedian label --suggest` puts first."""
    model = TorchModel(*load_model(start))
    of_pool = sorted({half for half, _ in pool})
    spots = spots_of_halves(score_halves(model, halves, of_pool), halves, model.config)
    moments = uncertain_moments([spots[half] for half in of_pool], model.config, len(pool))
    minutes = [(of_pool[moment.video], int(moment.time_s // MINUTE_S)) for moment in moments]
    in_order = [minute for minute in dict.fromkeys(minutes) if minute in set(pool)]
    return in_order[:NEW_MINUTES]


def train_and_score(recipe: Recipe, minutes: list[Minute]) -> dict[str, float]:
    """Train on minutes of the training split; return average-mAP on test."""
    output = Path(recipe.training["output_dir"])
    path = output / "test.json"
    if path.is_file():
        return json.loads(path.read_text())["scores"]
    LabelledMinutes.minutes = frozenset(minutes)
    finetune(recipe, dataset_class=LabelledMinutes)
    model = TorchModel(*load_model(str(output)))
    (halves,) = load_halves(recipe.data, model.config, ["test"])
    spots = spots_of_halves(score_halves(model, halves, range(len(halves))), halves, model.config)
    found = average_map_of(spots, halves, METRICS)
    scores = {metric: float(found[metric]["a_mAP"]) for metric in METRICS}
    atomic_write_text(path, json.dumps({"scores": scores, "minutes": sorted(minutes)}) + "\n")
    return scores


if __name__ == "__main__":
    main()

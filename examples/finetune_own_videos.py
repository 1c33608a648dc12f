"""From a folder of videos and a CSV of their events to a spotting model of your own.

    python examples/finetune_own_videos.py VIDEOS EVENTS.csv OUTPUT

The CSV has the columns `video,label,time_s`: a video's name in the folder, what happened, and when, in seconds from the
video's start, `mm:ss` or `hh:mm:ss`. Broken off and run again, it goes on where it was. Beside OUTPUT/model it leaves
OUTPUT/matches, the data set in SoccerNet's layout, OUTPUT/frames, its decoded frames, and OUTPUT/run.json, what it was begun
with.
"""

import argparse
import json
import sys
from pathlib import Path

from comedian.data.frame_store import StoreSettings, prepare
from comedian.data.own_videos import import_videos
from comedian.errors import InputError
from comedian.files import atomic_write_text, read_text
from comedian.training.finetune import finetune
from comedian.training.recipe import DataSection, ModelSection, Recipe
from comedian.training.stage import load_config

DEMO_MODEL = Path(__file__).parent / "demo" / "model"


def main() -> None:
    """Lay out the data set, decode it once, fine-tune, say where the model is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, metavar="VIDEOS", help="folder of videos")
    parser.add_argument("events", type=Path, metavar="EVENTS.csv", help="their events: video,label,time_s")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder to write")
    parser.add_argument(
        "--model", default=str(DEMO_MODEL), help="folder or Hub repository to start from (default: the demo's)"
    )
    parser.add_argument("--epochs", type=float, default=20, help="default: 20")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="default: 2e-4")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the training (default: 0)")
    args = parser.parse_args()

    config = load_config(args.model)
    if config.model_type != "comedian":
        raise InputError(f"--model {args.model}: it is a {config.model_type} model, not comedian")
    # a run goes on only with what it was begun with
    run = {"events": read_text(args.events), "model": args.model, "seed": args.seed}
    begun = args.output / "run.json"
    if begun.is_file() and json.loads(read_text(begun)) != run:
        raise InputError(f"`{args.output}` was begun with other events, model or seed; give a new folder")

    data = import_videos(args.videos, args.events, args.output / "matches", seed=args.seed)
    atomic_write_text(begun, json.dumps(run))
    train, validation = data.count("train"), data.count("validation")
    print(f"{'events':<30}{'train':>8}{'validation':>12}")
    for label in data.labels:
        print(f"{label:<30}{train[label]:>8}{validation[label]:>12}")
    if data.unlisted:
        print(f"left out, as the CSV does not name them: {', '.join(data.unlisted)}")

    height, width = config.image_size
    prepare(data.root, args.output / "frames", StoreSettings(config.fps, height, width, quality=24))

    recipe = Recipe(
        model=ModelSection(checkpoint=args.model),
        data=DataSection(str(data.root), str(args.output / "frames"), labels=str(data.labels_path)),
        training={
            "output_dir": str(args.output / "model"),
            "num_train_epochs": args.epochs,
            "per_device_train_batch_size": 4,
            "windows_per_half": 12,
            "sampling": "random",
            "base_learning_rate": None,
            "learning_rate": args.learning_rate,
            "seed": args.seed,
        },
        folder=Path.cwd(),
    )
    scores = finetune(recipe)
    for metric, values in scores.items():
        print(f"validation average-mAP {metric}: {100 * values['a_mAP']:.1f} %")
    print(f"the model is in {args.output / 'model'}; try it:  comedian spot VIDEO --model {args.output / 'model'}")
    print(f"publish it:  comedian publish {args.output / 'model'} me/my-model")


# the workers of `prepare` import this file
if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"finetune_own_videos: {error}", file=sys.stderr)
        sys.exit(2)

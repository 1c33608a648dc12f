"""Fine-tune a spotting model in Python, step by step, without a recipe.

    comedian prepare MATCHES FRAMES --fps 5 --height 64 --width 112 --quality 24
    python examples/train_in_python.py MATCHES FRAMES RUN --epochs 24

MATCHES is a folder in SoccerNet's layout with splits and `labels.txt`. The trainer is a `transformers.Trainer`: callbacks,
optimizers and arguments are given as there.
"""

import argparse
from pathlib import Path

from comedian import ActionSpotter, ComedianConfig, ComedianForActionSpotting, SpottingTrainer
from comedian.samples.datasets import HalfDataset, TargetSettings, WindowDataset, WindowShape
from comedian.soccernet.builder import SoccerNet
from comedian.soccernet.labels import read_label_list
from comedian.training.spotting_config import SpottingConfig
from comedian.video.frame_store import FrameStore

CONFIG = Path(__file__).parents[1] / "hub_configs" / "gfspot-conv-small" / "config.json"


def main() -> None:
    """Train, score validation, and load the result as a user of it would."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matches", type=Path, help="folder of matches")
    parser.add_argument("frames", type=Path, help="their frames, from `comedian prepare`")
    parser.add_argument("output", type=Path, help="folder of the run")
    parser.add_argument("--epochs", type=int, default=24, help="passes over the training split (default: 24)")
    args = parser.parse_args()

    # 1. Data: `SoccerNet` is a builder of `datasets`, whose rows are halves; their frames come from the store.
    labels = read_label_list(args.matches / "labels.txt")
    builder = SoccerNet(data_dir=str(args.matches), labels=list(labels))
    builder.download_and_prepare()
    rows = builder.as_dataset()

    # 2. Model: a configuration with random weights; `from_pretrained` takes those of an earlier stage or of the Hub.
    names = dict(enumerate(labels))
    numbers = {name: number for number, name in names.items()}
    # rare events: their tokens count five times
    config = ComedianConfig.from_pretrained(CONFIG, id2label=names, label2id=numbers, class_weights=[[1.0], [5.0]])
    model = ComedianForActionSpotting(config)

    # 3. Windows with targets: what the model takes, where windows start, how near to an event a token has its label.
    store = FrameStore(args.frames)
    train_halves = HalfDataset(list(rows["train"]), store, labels, config.fps)
    validation_halves = HalfDataset(list(rows["validation"]), store, labels, config.fps)
    shape = WindowShape(config.num_frames, config.tubelet_size, windows_per_half=8, sampling="edges")
    windows = WindowDataset(train_halves, shape, TargetSettings(label_radius_s=0.2))

    # 4. Settings: those of `transformers.TrainingArguments`, and augmentation, of which the recipe beside CONFIG has more.
    settings = SpottingConfig(
        output_dir=str(args.output),
        num_train_epochs=args.epochs,
        per_device_train_batch_size=4,
        base_learning_rate=None,
        learning_rate=1e-3,
        average_decay=0.99,
        eval_strategy="epoch",
        save_strategy="epoch",
        mixup_alpha=0.0,
        seed=0,
    )

    # 5. Train; `finish` keeps the best epoch, chooses its thresholds on validation, and writes record and card.
    trainer = SpottingTrainer(model, settings, train_dataset=windows, eval_dataset=validation_halves)
    trainer.train()
    scores = trainer.finish()
    print({metric: round(100 * values["a_mAP"], 2) for metric, values in scores.items()})

    # 6. Use it.
    spotter = ActionSpotter.from_pretrained(args.output)
    for spot in spotter(validation_halves.rows[0]["video_path"])[:5]:
        print(f"{spot['timestamp_s']:7.1f} s  {spot['label']}  {spot['score']:.2f}")


if __name__ == "__main__":
    main()

"""Train a model to spot actions, from a folder of videos and a file of their events, or from a YAML recipe.

--videos and --events: the command arranges and decodes the videos, keeps some for validation, trains, and chooses a
threshold for each label. The model is in RUN/model. The CSV has the columns video,label,time_s; for other formats see
`comedian data convert --help`. To add labels later, use --continue-from RUN with all events, the former ones and the added
ones: training starts from the model of RUN, with the same matches for validation, and only new videos are decoded.

--config: any field of the recipe can be overridden, in its sections `model`, `data` and `training`:
`--training.num_train_epochs 3 --model.overrides.fps 5`. The overrides also apply to --videos.

When rerun, the same command resumes an interrupted run from its last checkpoint; a finished run is unchanged. With other
settings or data, it needs --restart. Several processes: `accelerate launch -m comedian.cli.main finetune ...`.
"""

import argparse
from pathlib import Path

from comedian.cli import recipe_arguments

EXAMPLE = """\
comedian finetune --videos VIDEOS --events EVENTS.csv --model START --output RUN
comedian finetune --videos VIDEOS --events MORE.csv --continue-from RUN --output RUN_2
comedian finetune --config recipe.yaml --data.root MATCHES --data.frames FRAMES"""
NEEDED_OF_VIDEOS = ("videos", "events", "model", "output")
OPTIONS_OF_VIDEOS = ("validation_share", "seed", "continue_from")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    recipe_arguments.add_arguments(parser, required=False)
    videos = parser.add_argument_group("videos and events, instead of a recipe")
    videos.add_argument("--videos", metavar="DIR", type=Path, help="folder of videos")
    videos.add_argument("--events", metavar="FILE", type=Path, help="file of their events")
    start = videos.add_mutually_exclusive_group()
    start.add_argument("--model", metavar="START", help="folder or Hub repository of the model to start from")
    start.add_argument(
        "--continue-from",
        metavar="RUN",
        type=Path,
        help="output of an earlier `finetune --videos`: start from its model, with the same matches for validation",
    )
    videos.add_argument("--output", metavar="RUN", type=Path, help="output folder: frames, model and scores")
    videos.add_argument(
        "--validation-share",
        metavar="SHARE",
        type=float,
        help="share of the videos for validation, 0 to 1, if FILE has no splits; default: 0.2",
    )
    videos.add_argument(
        "--seed", metavar="N", type=int, help="random seed of the validation share and of training; default: 0"
    )


def run(args: argparse.Namespace) -> None:
    """Train and print the validation scores."""
    from comedian.errors import InputError

    given = {
        name: value for name in NEEDED_OF_VIDEOS + OPTIONS_OF_VIDEOS if (value := getattr(args, name)) is not None
    }
    if args.config and given:
        option = next(iter(given)).replace("_", "-")
        raise InputError(
            f"`--{option}` and `--config` are mutually exclusive; give a recipe, or videos and their events"
        )
    if args.continue_from and not args.config:
        given["model"] = str(args.continue_from / "model")
    if not args.config and (missing := [name for name in NEEDED_OF_VIDEOS if name not in given]):
        raise InputError(
            f"`--{missing[0]}` is missing; give --videos, --events, --model and --output, or --config RECIPE"
        )

    from accelerate import PartialState

    from comedian.evaluation.reported_events import lines_of, read_reported
    from comedian.hub.model_card import CURVE_FILE_NAME

    recipe_arguments.hide_short_bars()
    if args.config:
        from comedian.training.finetune import finetune
        from comedian.training.recipe import load_recipe

        recipe = load_recipe(args.config, args.overrides)
        scores = finetune(recipe, resume=not args.restart)
    else:
        from comedian.training.finetune_videos import VideoRun, finetune_videos

        recipe, scores = finetune_videos(VideoRun(**given), args.overrides, not args.restart, tell=print)
    tell = PartialState().print
    for metric, values in scores.items():
        tell(f"validation average-mAP {metric}: {100 * values['a_mAP']:.2f} %")
    model = recipe.training["output_dir"]
    if counted := read_reported(Path(model)):
        tell("\n" + "\n".join(lines_of(*counted)) + "\n")
    tell(f"the learning curve is in {Path(model) / CURVE_FILE_NAME}")
    tell(f"the model is in {model}; try it:  comedian spot VIDEO --model {model} --output events.json")
    if args.videos:
        tell(f"correct what it finds:  comedian label VIDEO --model {model} --suggest 20 --output label.html")
        words = f"--videos {args.videos} --events EVENTS --continue-from {args.output} --output NEW_RUN"
        tell(f"and train on that too:  comedian finetune {words}")

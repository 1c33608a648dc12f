"""Compute the features of the videos of a data set once into a feature bank, or import published features.

BANK contains one file per half, with the frame rate and the times of its features. NAME_OR_DIR is a model of this package
(one feature per token, from the window in which the token is most central), or a video or image model of transformers (one
feature every --hop-s seconds, from the clip around it). Rerun the same command after an interruption. Several processes with
the same command, on one machine or many with a shared file system, share the work; `accelerate launch` starts them.
"""

import argparse
from pathlib import Path

from comedian.errors import InputError

EXAMPLE = "comedian extract-features data/SoccerNet features --model facebook/dinov2-small --hop-s 0.5"
SOURCES = ("baidu", "resnet-pca512", "resnet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "root", metavar="ROOT", help="folder of the data set: one folder per match, one video per half"
    )
    parser.add_argument("bank", metavar="BANK", help="folder of the feature bank; created if missing")
    features = parser.add_argument_group("source of the features, one of the two")
    source = features.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", metavar="NAME_OR_DIR", help="folder or Hub repository of the model")
    source.add_argument(
        "--from", dest="published", choices=SOURCES, help="import SoccerNet's .npy files from the match folders"
    )
    selection = parser.add_argument_group("selection and output")
    selection.add_argument(
        "--split", nargs="+", metavar="NAME", help="only the matches of these splits; default: all matches"
    )
    selection.add_argument(
        "--dtype", choices=("float16", "float32"), default="float16", help="data type on disk; default: float16"
    )
    clips = parser.add_argument_group("clips, for a model of transformers")
    clips.add_argument("--clip-s", type=float, metavar="SECONDS", help="length of a clip in seconds; default: 4")
    clips.add_argument(
        "--fps",
        type=float,
        metavar="FPS",
        help="frames per second; default: the rate at which a clip has the frames of a video model, or 2",
    )
    clips.add_argument(
        "--hop-s", type=float, metavar="SECONDS", help="time from one feature to the next in seconds; default: 1"
    )
    hardware = parser.add_argument_group("hardware and model code, with --model")
    hardware.add_argument("--device", help="such as cpu or cuda:1; default: an accelerator, if there is one")
    hardware.add_argument("--batch-size", metavar="N", type=int, help="clips or windows per batch; default: 16")
    hardware.add_argument(
        "--shard",
        metavar="I/N",
        help="only share I of N of the halves, such as 1/4, for jobs that run separately; default: all halves",
    )
    hardware.add_argument(
        "--trust-remote-code", action="store_true", help="run the code in the model's folder or repository"
    )


def run(args: argparse.Namespace) -> None:
    """Fill the bank and print a summary."""
    from comedian.sharing import Shard, is_main_process
    from comedian.soccernet.splits import matches_of_splits

    shard = Shard.parse(args.shard) if args.shard else None
    video_ids = matches_of_splits(Path(args.root), args.split)
    if args.published:
        report = _import(args, video_ids)
    else:
        from comedian.features.extraction import extract_features, load_extractor

        extractor = load_extractor(
            args.model,
            clip_s=args.clip_s,
            fps=args.fps,
            hop_s=args.hop_s,
            batch_size=16 if args.batch_size is None else args.batch_size,
            device=args.device,
            trust_remote_code=args.trust_remote_code,
        )
        report = extract_features(args.root, args.bank, extractor, video_ids=video_ids, shard=shard, dtype=args.dtype)
    if not is_main_process():
        return

    from comedian.features.bank import FeatureBank

    elsewhere = f"{len(report.elsewhere)} done by other processes, " if report.elsewhere else ""
    if not (report.done or report.skipped or report.elsewhere):
        print(f"--shard {args.shard}: there are fewer halves than shares, and this share has none")
        return
    first = FeatureBank(args.bank).first
    print(
        f"halves: {len(report.done)} done, {elsewhere}{len(report.skipped)} there already; "
        f"{first.dim} values, {first.fps:g} features a second, the first at {first.offset_s:g} s"
    )


def _import(args: argparse.Namespace, video_ids: list[str]):
    from comedian.features.published import import_features

    names = ("clip_s", "fps", "hop_s", "batch_size", "device", "shard")
    given = [name for name in names if getattr(args, name) is not None] + [
        "trust_remote_code"
    ] * args.trust_remote_code
    if given:
        raise InputError(f"--{given[0].replace('_', '-')} requires --model; remove it for --from")
    return import_features(args.root, args.bank, args.published, video_ids=video_ids, dtype=args.dtype)

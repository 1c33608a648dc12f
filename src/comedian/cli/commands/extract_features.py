"""Compute the features of a data set's videos once into a feature bank, or import published ones.

BANK holds one file a half, with the rate and the time of its features. NAME_OR_DIR is one of our own models (a feature a
token, from the window in which the token is most central), or any video or image model of transformers (a feature every
--hop-s seconds, from the clip around it). Run it again to resume after an interruption. Several processes with the same
command, on one machine or many with a shared file system, share the work; `accelerate launch` starts them.
"""

import argparse
from pathlib import Path

from comedian.errors import InputError

SOURCES = ("baidu", "resnet-pca512", "resnet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("root", metavar="ROOT", help="the data set's folder: one folder a match, one video a half")
    parser.add_argument("bank", metavar="BANK", help="the feature bank's folder; made when missing")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", metavar="NAME_OR_DIR", help="folder or Hub repository of the model")
    source.add_argument(
        "--from", dest="published", choices=SOURCES, help="import SoccerNet's .npy files from the match folders"
    )
    parser.add_argument("--clip-s", type=float, metavar="SECONDS", help="length of a clip (default: 4)")
    parser.add_argument("--fps", type=float, help="frames a second (default: what fills a video model's clip, else 2)")
    parser.add_argument("--hop-s", type=float, metavar="SECONDS", help="from one feature to the next (default: 1)")
    parser.add_argument("--split", nargs="+", metavar="NAME", help="only the matches of these splits")
    parser.add_argument(
        "--shard", metavar="I/N", help="with --model: only share I of N, such as 1/4; for jobs that run separately"
    )
    parser.add_argument("--batch-size", type=int, help="clips or windows at once (default: 16)")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="default: float16")
    parser.add_argument("--device", help="such as cpu or cuda:1; default: an accelerator where there is one")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with the model")


def run(args: argparse.Namespace) -> None:
    """Fill the bank and print what was done."""
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
        raise InputError(f"--{given[0].replace('_', '-')} is for --model; leave it out with --from")
    return import_features(args.root, args.bank, args.published, video_ids=video_ids, dtype=args.dtype)

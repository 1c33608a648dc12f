"""Download SoccerNet's labels, features and videos from the Hugging Face Hub into SoccerNet's folder layout.

Only missing files are downloaded: rerun the same command after an interruption. The videos are gated. Request access at
https://huggingface.co/datasets/SoccerNet/SoccerNet_raw_HQ (videos of the challenge: SoccerNet/SoccerNet_raw_HQ_Challenge),
then log in with `hf auth login` or set HF_TOKEN. `--split` needs SoccerNet's lists: `pip install SoccerNet`.
"""

import argparse
import sys

EXAMPLE = "comedian download --output data/SoccerNet --labels v2 --videos 224p --split train valid test"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    files = parser.add_argument_group("files to download")
    files.add_argument(
        "--split",
        nargs="+",
        default=(),
        metavar="NAME",
        help="splits to download: train, valid, test, challenge; default: all files on the Hub",
    )
    files.add_argument("--labels", choices=("v2", "v1"), help="label files: v2 has 17 labels, v1 has 3; default: none")
    files.add_argument(
        "--features", choices=("baidu", "resnet", "resnet-pca512"), help="published features; default: none"
    )
    files.add_argument(
        "--videos", choices=("224p", "720p", "HQ"), help="videos with this height in pixels, or HQ; default: none"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--output", required=True, metavar="DIR", help="folder of the data set; created if missing")
    output.add_argument(
        "--dry-run", action="store_true", help="list the files to download and their total size, download nothing"
    )


def run(args: argparse.Namespace) -> None:
    """Download the missing files and print a summary."""
    from comedian.soccernet.download import Selection, fetch, plan_download

    selection = Selection(splits=tuple(args.split), labels=args.labels, features=args.features, videos=args.videos)
    plan = plan_download(args.output, selection)
    for path in plan.differing:
        print(f"kept, of another size than the Hub's: {path}; delete it to fetch it again", file=sys.stderr)
    if plan.missing:
        print(f"not on the Hub: {len(plan.missing)} files, such as {plan.missing[0]}", file=sys.stderr)
    if args.dry_run:
        for file in plan.files:
            print(f"{file.size_bytes / 1e6:12.1f} MB  {file.path}")
    else:
        fetch(plan)
    done = "to fetch" if args.dry_run else "fetched"
    print(
        f"files: {len(plan.files)} {done} ({plan.size_bytes / 1e6:.1f} MB), {plan.present} there already, "
        f"{len(plan.differing)} of another size, {len(plan.missing)} not on the Hub"
    )

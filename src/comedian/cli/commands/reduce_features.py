"""Standardise the features of a bank and reduce them with a PCA.

The PCA is fitted on the matches of --split only and written into OUTPUT with the reduced features of all matches.
--transform OTHER_BANK applies the PCA of OTHER_BANK to a further bank, without fitting. Rerun the same command after an
interruption.
"""

import argparse

from comedian.errors import InputError

EXAMPLE = "comedian reduce-features features features-512 --dim 512 --data data/SoccerNet --split train"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bank", metavar="BANK", help="the feature bank to reduce")
    parser.add_argument("output", metavar="OUTPUT", help="folder of the reduced bank; created if missing")
    fitting = parser.add_argument_group("fitting a PCA")
    fitting.add_argument("--dim", type=int, metavar="N", help="dimensions of the reduced features, such as 512")
    fitting.add_argument("--data", metavar="ROOT", help="folder of the data set, to look up its splits")
    fitting.add_argument(
        "--split", nargs="+", metavar="NAME", help="splits whose matches the PCA is fitted on, such as train"
    )
    parser.add_argument_group("instead of fitting").add_argument(
        "--transform", metavar="OTHER_BANK", help="apply the PCA of this reduced bank; nothing is fitted"
    )
    parser.add_argument_group("output").add_argument(
        "--dtype", choices=("float16", "float32"), default="float16", help="data type on disk; default: float16"
    )


def run(args: argparse.Namespace) -> None:
    """Reduce the bank and print a summary."""
    to_fit = (args.dim, args.data, args.split)
    if args.transform is not None and any(value is not None for value in to_fit):
        raise InputError("--transform does not fit a PCA; remove --dim, --data and --split")
    if args.transform is None and None in to_fit:
        raise InputError("give --dim, --data and --split to fit, or --transform OTHER_BANK")

    from pathlib import Path

    from comedian.features.reduction import FILE_NAME, apply_reduction, load_reduction, reduce_features
    from comedian.soccernet.splits import matches_of_splits

    if args.transform is not None:
        report = apply_reduction(args.bank, args.output, args.transform, dtype=args.dtype)
    else:
        video_ids = matches_of_splits(Path(args.data), args.split)
        report = reduce_features(args.bank, args.output, args.dim, video_ids, dtype=args.dtype)
    reduction = load_reduction(Path(args.output) / FILE_NAME)
    print(
        f"halves: {len(report.done)} done, {len(report.skipped)} there already; {reduction.description}; "
        f"{100 * reduction.explained_variance.sum() / len(reduction.mean):.1f} % of the variance kept"
    )

"""Entry point of the `comedian` command: finds the sub-command and imports nothing else."""

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from comedian.errors import STORAGE_ERRORS, InputError

# name -> one-line help. `comedian.cli.commands.<name with _>` holds `add_arguments(parser)` and `run(args)`.
COMMANDS = {
    "download": "fetch SoccerNet's labels, features and videos from the Hugging Face Hub",
    "data": "check a data set, convert files of events, import own videos",
    "prepare": "decode the videos of a data set once into a frame store",
    "extract-features": "compute or import the features of a data set into a feature bank",
    "reduce-features": "standardise a feature bank and reduce it with a PCA",
    "pretrain": "train a spatial encoder without labels (stage 1)",
    "distill": "train a backbone on the features of a teacher (stage 2)",
    "finetune": "train a model to spot actions (stage 3)",
    "train": "all stages of a recipe folder, one after the other",
    "spot": "find the events of one or more videos",
    "label": "make a page to label videos on, or to correct a model's events",
    "clips": "cut clips around events, and a reel",
    "evaluate": "score predictions with the official SoccerNet average-mAP",
    "compare": "print a table of finished runs: settings that differ, scores, spread over seeds",
    "average": "make one model of several checkpoints of a run: the mean of their weights",
    "tune": "choose merging, suppression, thresholds and probabilities on saved scores",
    "publish": "send a model to the Hugging Face Hub, with code, scores and model card",
    "export": "write a model as ONNX or torch.export graphs, to run without this package",
    "convert": "turn an authors' Lightning checkpoint into a folder that from_pretrained loads",
}

INTERRUPTED_EXIT_CODE = 130
BAD_INPUT_EXIT_CODE = 2
# as a shell has it for a process that `| head` ends
CLOSED_OUTPUT_EXIT_CODE = 141


def build_parser() -> argparse.ArgumentParser:
    """Return the top-level parser; it knows the sub-commands by name only, so `--help` stays fast."""
    parser = argparse.ArgumentParser(
        prog="comedian",
        description="Action spotting in long sports videos.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n"
        + "\n".join(f"  {name:<18}{text}" for name, text in COMMANDS.items())
        + "\n\n`comedian COMMAND --help` tells more.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Args:
        argv: the words after `comedian`; the process's own when left out.

    Returns:
        The exit code: 0 done, 2 bad input, 130 interrupted, 141 nobody reads what is printed.
    """
    # torchvision's CPU-only fallback warns of its image codecs, which nothing here uses, at every start
    warnings.filterwarnings("ignore", module="torchvision.io.image")
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.version:
        from importlib.metadata import version

        print(version("comedian"))
        return 0
    if options.command is None:
        parser.print_help()
        return BAD_INPUT_EXIT_CODE
    if options.command not in COMMANDS:
        print(f"comedian: `{options.command}` is no command; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return BAD_INPUT_EXIT_CODE
    module = importlib.import_module(f"comedian.cli.commands.{options.command.replace('-', '_')}")
    command_parser = argparse.ArgumentParser(
        prog=f"comedian {options.command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(command_parser)
    arguments, rest = command_parser.parse_known_args(options.arguments)
    # a command that takes overrides of a recipe declares `overrides` as a default
    if "overrides" in arguments:
        arguments.overrides = rest
    elif rest:
        command_parser.error(f"unknown argument {rest[0]}")
    try:
        code = module.run(arguments) or 0
        # here, not at the interpreter's exit, a reader that has gone can be told from an error
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_OUTPUT_EXIT_CODE
    except InputError as error:
        print(f"comedian {options.command}: {error}", file=sys.stderr)
        return BAD_INPUT_EXIT_CODE
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        # results are written beside their place, under a name that nobody gave
        where = f"`{str(error.filename).removesuffix('.partial')}`: " if error.filename else ""
        print(
            f"comedian {options.command}: {where}{error.strerror}; make room, or name a folder that can be written, and run "
            "the same command again",
            file=sys.stderr,
        )
        return BAD_INPUT_EXIT_CODE
    except KeyboardInterrupt:
        print(f"comedian {options.command}: interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())

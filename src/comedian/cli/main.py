"""Entry point of the `comedian` command: finds the sub-command and imports only that one."""

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from comedian.cli.examples import example_epilog
from comedian.errors import NAME_ERRORS, STORAGE_ERRORS, InputError

# name -> one-line help. `comedian.cli.commands.<name with _>` holds `EXAMPLE`, the end of its `--help`,
# `add_arguments(parser)` and `run(args)`.
COMMANDS = {
    "download": "download SoccerNet's labels, features and videos from the Hugging Face Hub",
    "data": "check a data set, convert files of events, import your videos",
    "prepare": "decode the videos of a data set once into a frame store",
    "extract-features": "compute or import the features of a data set into a feature bank",
    "reduce-features": "standardise a feature bank and reduce it with a PCA",
    "pretrain": "train a spatial encoder without labels (stage 1)",
    "distill": "train a backbone on the features of a teacher (stage 2)",
    "finetune": "train a model to spot actions (stage 3)",
    "train": "run all stages of a recipe folder, one after the other",
    "spot": "find the events of one or more videos",
    "label": "create a page to label videos, or to correct a model's events",
    "clips": "cut clips around events, or a highlight reel",
    "evaluate": "score predictions with the official SoccerNet average-mAP",
    "compare": "print a table of finished runs: settings that differ, scores, spread over seeds",
    "average": "average the weights of several checkpoints of a run",
    "tune": "choose merging, suppression, thresholds and calibration on saved scores",
    "publish": "upload a model to the Hugging Face Hub, with code, scores and model card",
    "export": "export a model as ONNX, torch.export or OpenVINO graphs",
    "convert": "convert the authors' checkpoints, or an image model, into a folder for from_pretrained",
}

INTERRUPTED_EXIT_CODE = 130
BAD_INPUT_EXIT_CODE = 2
# exit code of a process that is ended by SIGPIPE, as with `| head`
CLOSED_OUTPUT_EXIT_CODE = 141


def build_parser() -> argparse.ArgumentParser:
    """Return the top-level parser. It contains only the names of the sub-commands, so that `--help` stays fast."""
    parser = argparse.ArgumentParser(
        prog="comedian",
        description="Action spotting in long sports videos.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n"
        + "\n".join(f"  {name:<18}{text}" for name, text in COMMANDS.items())
        + "\n\nSee `comedian COMMAND --help` for the arguments of a command.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def command_module(command: str) -> ModuleType:
    """Import the module of a sub-command, one of `COMMANDS`."""
    return importlib.import_module(f"comedian.cli.commands.{command.replace('-', '_')}")


def build_command_parser(command: str) -> argparse.ArgumentParser:
    """Return the parser of a sub-command, one of `COMMANDS`."""
    module = command_module(command)
    parser = argparse.ArgumentParser(
        prog=f"comedian {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=example_epilog(module.EXAMPLE),
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Args:
        argv: command-line arguments after `comedian`; `sys.argv[1:]` by default.

    Returns:
        The exit code: 0 done, 2 bad input, 130 interrupted, 141 output closed by its reader.
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
        print(f"comedian: unknown command `{options.command}`; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return BAD_INPUT_EXIT_CODE
    module = command_module(options.command)
    command_parser = build_command_parser(options.command)
    arguments, rest = command_parser.parse_known_args(options.arguments)
    # commands that accept overrides of a recipe set a default for `overrides`
    if "overrides" in arguments:
        arguments.overrides = rest
    elif rest:
        command_parser.error(f"unknown argument {rest[0]}")
    try:
        code = module.run(arguments) or 0
        # flush here: at the interpreter's exit a closed pipe could not be distinguished from an error
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_OUTPUT_EXIT_CODE
    except InputError as error:
        print(f"comedian {options.command}: {error}", file=sys.stderr)
        return BAD_INPUT_EXIT_CODE
    except OSError as error:
        if error.errno not in STORAGE_ERRORS | NAME_ERRORS:
            raise
        advice = "free some disk space, or choose a writable folder, and rerun the same command"
        if error.errno in NAME_ERRORS:
            advice = "give another name"
        # files are written under a temporary name, which the user does not know
        where = f"`{str(error.filename).removesuffix('.partial')}`: " if error.filename else ""
        print(f"comedian {options.command}: {where}{error.strerror}; {advice}", file=sys.stderr)
        return BAD_INPUT_EXIT_CODE
    except KeyboardInterrupt:
        print(f"comedian {options.command}: interrupted; rerun the same command to continue", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())

"""Export a model as graphs that run without PyTorch and transformers.

OUTPUT_DIR gets `spatial_encoder` (tubelets to tokens) and `temporal_encoder` (windows of tokens to scores). The formats onnx
and torch-export are for your own programs: `spotting.json` contains all settings, and `postprocessing_comedian.py` turns
scores into events with NumPy alone. The format openvino is for CPUs: OUTPUT_DIR is a model for `comedian spot --model` and
`comedian extract-features --model`.

With --int8, the spatial encoder is quantised with frames of MATCHES, and scored on their validation split before and after.
"""

import argparse
from pathlib import Path

from comedian.errors import InputError
from comedian.sharing import is_main_process

EXAMPLE = """\
comedian export MODEL model-onnx
comedian export MODEL model-openvino --format openvino --int8 --calibrate data/SoccerNet"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `comedian export`."""
    parser.add_argument("model", metavar="MODEL", help="folder or Hub repository of the model")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="new or empty folder")
    parser.add_argument_group("format").add_argument(
        "--format",
        choices=("onnx", "torch-export", "openvino"),
        default="onnx",
        help="onnx for ONNX Runtime (needs `pip install comedian[export]`), torch-export for `torch.export.load`, openvino "
        "for `comedian spot` on CPUs (needs `pip install comedian[openvino]`); default: onnx",
    )
    quantization = parser.add_argument_group("int8, for the format openvino")
    quantization.add_argument("--int8", action="store_true", help="quantise the spatial encoder, see --calibrate")
    quantization.add_argument(
        "--calibrate",
        metavar="MATCHES",
        type=Path,
        help="with --int8, required: folder of matches in SoccerNet's layout, with videos, labels and splits",
    )
    quantization.add_argument(
        "--split", metavar="NAME", help="split of MATCHES whose frames set the ranges of int8; default: train"
    )
    quantization.add_argument(
        "--max-loss",
        metavar="POINTS",
        type=float,
        help="maximum loss of tight average-mAP on validation, in points; with a larger loss nothing is written; "
        "default: 0.5",
    )


def run(args: argparse.Namespace) -> None:
    """Export the model and print what was written."""
    _check(args)
    if args.format == "openvino":
        # under `accelerate launch`, all processes score int8
        _export_openvino(args)
    elif is_main_process():
        from comedian.conversion.export import export_model
        from comedian.conversion.model_folder import check_output_dir
        from comedian.inference.torch_model import load_model

        check_output_dir(args.output_dir)
        export_model(*load_model(args.model, "cpu"), args.output_dir, args.format)
    if is_main_process():
        for path in sorted(args.output_dir.iterdir()):
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def _check(args: argparse.Namespace) -> None:
    """Raise `InputError` for options that contradict each other."""
    if args.int8 and args.format != "openvino":
        raise InputError("--int8 requires --format openvino; add it, or remove --int8")
    if args.int8 and args.calibrate is None:
        raise InputError("--int8 needs frames for calibration: give a folder of matches with --calibrate MATCHES")
    given = {"calibrate": args.calibrate, "split": args.split, "max-loss": args.max_loss}
    for name in (name for name, value in given.items() if value is not None and not args.int8):
        raise InputError(f"--{name} requires --int8; add it, or remove --{name}")
    if args.max_loss is not None and not 0 <= args.max_loss <= 100:
        raise InputError(f"--max-loss {args.max_loss:g}: must be points of average-mAP, 0 to 100")


def _export_openvino(args: argparse.Namespace) -> None:
    """Export for OpenVINO, and print the scores before and after quantisation."""
    from comedian.conversion.openvino_export import MAX_LOSS, Quantization, export_openvino

    quantization = None
    if args.int8:
        max_loss = MAX_LOSS if args.max_loss is None else args.max_loss
        quantization = Quantization(args.calibrate, args.split or "train", max_loss)
    scores = export_openvino(args.model, args.output_dir, quantization)
    if scores and is_main_process():
        print(f"validation, tight average-mAP: {scores['before']:.2f} before int8, {scores['after']:.2f} after")

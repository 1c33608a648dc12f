"""Write a model as graphs that run without Python or transformers.

OUTPUT_DIR gets `spatial_encoder` (tubelets to tokens) and `temporal_encoder` (windows of tokens to scores), `spotting.json`
with all settings, and `postprocessing_comedian.py`, which makes spots of scores with NumPy alone.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words of `comedian export`."""
    parser.add_argument("model", metavar="MODEL", help="folder or Hub repository")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="new or empty folder")
    parser.add_argument(
        "--format",
        choices=("onnx", "torch-export"),
        default="onnx",
        help="onnx for ONNX Runtime (needs `pip install comedian[export]`), torch-export for `torch.export.load`; "
        "default: onnx",
    )


def run(args: argparse.Namespace) -> None:
    """Export, and say what was written."""
    from comedian.conversion.export import export_model
    from comedian.conversion.model_folder import check_output_dir
    from comedian.inference.spotter import load_model

    check_output_dir(args.output_dir)
    export_model(*load_model(args.model, "cpu"), args.output_dir, args.format)
    for path in sorted(args.output_dir.iterdir()):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")

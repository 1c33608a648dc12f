"""Turn an authors' Lightning checkpoint into a folder that `from_pretrained` loads.

CHECKPOINT is a `.ckpt` or `.pth` of stage 1, stage 2 or spotting, or its state dict as `.safetensors`. Sizes are read
from the tensors; what they do not tell is printed, with the flag that changes it.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words of `comedian convert`."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="the authors' file")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="new or empty folder")
    parser.add_argument(
        "--spatial-heads",
        metavar="N",
        nargs="+",
        type=int,
        help="attention heads of the spatial encoder; default: the published ones (ViSwin: told by the tensors)",
    )
    parser.add_argument(
        "--temporal-heads",
        metavar="N",
        type=int,
        help="attention heads of the temporal encoder; default: the published ones",
    )
    parser.add_argument(
        "--image-size",
        metavar=("HEIGHT", "WIDTH"),
        nargs=2,
        type=int,
        help="pixels; default: the square that fits, or 224 224 where every square does",
    )
    parser.add_argument("--fps", type=float, default=2.0, help="frames per second of the model's input; default: 2")
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help="one label a line; default: SoccerNet-v2's for 17 outputs"
    )


def run(args: argparse.Namespace) -> None:
    """Convert and print what was read, assumed and left out."""
    from comedian.conversion.lightning import read_checkpoint, save_converted
    from comedian.conversion.model_folder import check_output_dir
    from comedian.data.annotations import read_label_list

    check_output_dir(args.output_dir)
    converted = read_checkpoint(
        args.checkpoint,
        spatial_heads=args.spatial_heads,
        temporal_heads=args.temporal_heads,
        image_size=args.image_size,
        fps=args.fps,
        labels=read_label_list(args.labels) if args.labels else None,
    )
    save_converted(converted, args.output_dir)
    config = converted.model.config
    print(f"{args.output_dir}: {type(converted.model).__name__} from a {converted.stage} checkpoint")
    print(
        f"  read     {config.spatial_encoder}, width {config.spatial_hidden_size}, spatial depths "
        f"{config.spatial_depths} and heads {config.spatial_num_heads}, temporal depth {config.temporal_depth} and heads "
        f"{config.temporal_num_heads}, patch {config.patch_size}, tubelet {config.tubelet_size}, "
        f"{config.num_frames} frames of {config.image_size[0]} x {config.image_size[1]} at {config.fps:g} fps, "
        f"{config.num_labels} labels"
    )
    for assumption in converted.assumed:
        print(f"  assumed  {assumption}")
    for group, count in converted.skipped.items():
        print(f"  skipped  {count} x {group}")

"""Turn an authors' Lightning checkpoint, or an image model, into a folder that `from_pretrained` loads.

CHECKPOINT is a `.ckpt` or `.pth` of stage 1, stage 2 or spotting, or its state dict as `.safetensors`. Sizes are read
from the tensors; what they do not tell is printed, with the flag that changes it. Or it is a folder or Hub repository of a
ViT, DeiT, DINOv2 or Swin model of transformers, whose weights become the spatial encoder that training starts from.
"""

import argparse
from pathlib import Path

from comedian.errors import InputError

AUTHORS_SUFFIXES = (".ckpt", ".pth", ".pt", ".safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words of `comedian convert`."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the authors' file, or an image model")
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
    parser.add_argument(
        "--tubelet-size", metavar="N", type=int, help="frames of a tubelet of an image model; default: 2"
    )


def run(args: argparse.Namespace) -> None:
    """Convert and print what was read, assumed and left out."""
    if Path(args.checkpoint).is_file() or args.checkpoint.endswith(AUTHORS_SUFFIXES):
        _convert_authors_file(args)
    else:
        _convert_image_model(args)


def _convert_image_model(args: argparse.Namespace) -> None:
    from comedian.conversion.image_backbone import read_image_backbone, save_image_backbone
    from comedian.conversion.model_folder import check_output_dir

    for name in ("spatial_heads", "temporal_heads", "labels"):
        if getattr(args, name):
            raise InputError(f"--{name.replace('_', '-')} is for the authors' files; leave it out for an image model")
    tubelet_size = 2 if args.tubelet_size is None else args.tubelet_size
    if tubelet_size < 1:
        raise InputError(f"--tubelet-size {tubelet_size}: give 1 frame or more")
    check_output_dir(args.output_dir)
    backbone = read_image_backbone(
        args.checkpoint,
        tubelet_size=tubelet_size,
        num_frames=max(128 // tubelet_size, 1) * tubelet_size,
        fps=args.fps,
        image_size=args.image_size,
    )
    save_image_backbone(backbone, args.output_dir)
    print(f"{args.output_dir}: spatial encoder from `{args.checkpoint}`")
    print(f"  read     {_sizes(backbone.model.config)}")
    for note in backbone.notes:
        print(f"  note     {note}")


def _convert_authors_file(args: argparse.Namespace) -> None:
    from comedian.conversion.lightning import read_checkpoint, save_converted
    from comedian.conversion.model_folder import check_output_dir
    from comedian.data.annotations import read_label_list

    if args.tubelet_size is not None:
        raise InputError("--tubelet-size is for image models; an authors' file tells its own")
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
    print(f"  read     {_sizes(config)}, {config.num_labels} labels")
    for assumption in converted.assumed:
        print(f"  assumed  {assumption}")
    for group, count in converted.skipped.items():
        print(f"  skipped  {count} x {group}")


def _sizes(config) -> str:
    return (
        f"{config.spatial_encoder}, width {config.spatial_hidden_size}, spatial depths {config.spatial_depths} and heads "
        f"{config.spatial_num_heads}, temporal depth {config.temporal_depth} and heads {config.temporal_num_heads}, patch "
        f"{config.patch_size}, tubelet {config.tubelet_size}, {config.num_frames} frames of {config.image_size[0]} x "
        f"{config.image_size[1]} at {config.fps:g} fps"
    )

"""Convert the authors' checkpoints, or an image model, into a folder that `comedian spot` and `from_pretrained` load.

SOURCE is a Hub repository or a folder with the authors' files, all of which become one ensemble (--file NAME takes one), or
one such file: a `.ckpt` or `.pth` of stage 1, stage 2 or spotting, flat or Lightning's, or its state dict as `.safetensors`.
Sizes are read from the tensors. Sizes that the tensors do not determine are printed with the option that sets them. No code
of a file is executed.

Or SOURCE is a folder or Hub repository of a ViT, DeiT, DINOv2 or Swin model of transformers, whose weights become the
spatial encoder that training starts from.
"""

import argparse
from pathlib import Path

from comedian.errors import InputError

EXAMPLE = "comedian convert juliendenize/COMEDIAN-ViViT-tiny OUTPUT_DIR"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `comedian convert`."""
    parser.add_argument(
        "source", metavar="SOURCE", help="Hub repository, folder or file of checkpoints, or an image model"
    )
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="new or empty folder")
    checkpoints = parser.add_argument_group("checkpoints of the authors")
    checkpoints.add_argument(
        "--file",
        metavar="NAME",
        help="convert this checkpoint of a repository or folder; default: all, as an ensemble",
    )
    checkpoints.add_argument(
        "--spatial-heads",
        metavar="N",
        nargs="+",
        type=int,
        help="attention heads of the spatial encoder; default: the published ones (ViSwin: read from the tensors)",
    )
    checkpoints.add_argument(
        "--temporal-heads",
        metavar="N",
        type=int,
        help="attention heads of the temporal encoder; default: the published ones",
    )
    sizes = parser.add_argument_group("input of the model")
    sizes.add_argument(
        "--image-size",
        metavar=("HEIGHT", "WIDTH"),
        nargs=2,
        type=int,
        help="frame size in pixels; default: the square that fits the tensors, or 224 224 if they fit any size",
    )
    sizes.add_argument("--fps", type=float, default=2.0, help="frames per second of the model's input; default: 2")
    checkpoints.add_argument(
        "--labels",
        metavar="FILE",
        type=Path,
        help="label list, one label per line; default: the 17 labels of SoccerNet-v2 for 17 outputs",
    )
    sizes.add_argument(
        "--tubelet-size", metavar="N", type=int, help="frames per tubelet, for an image model; default: 2"
    )


def run(args: argparse.Namespace) -> None:
    """Convert and print what was read, assumed and skipped."""
    from comedian.conversion.model_folder import check_output_dir

    check_output_dir(args.output_dir)
    if checkpoints := _checkpoints(args.source, args.file):
        _convert_checkpoints(args, checkpoints)
    else:
        _convert_image_model(args)


def _checkpoints(source: str, file_name: str | None) -> list[Path]:
    """Return the local paths of the authors' checkpoints in SOURCE; empty for an image model."""
    from comedian.inference.model_names import CHECKPOINT_SUFFIXES, checkpoints_of, has_config, local_checkpoint

    if Path(source).is_file() or source.endswith((*CHECKPOINT_SUFFIXES, ".safetensors")):
        if file_name:
            raise InputError(f"--file {file_name}: `{source}` is a file; give its folder, or remove --file")
        return [Path(source)]
    if file_name:
        return [local_checkpoint(source, file_name)]
    if has_config(source):
        return []
    names = checkpoints_of(source)
    if not names:
        raise InputError(
            f"`{source}` holds neither checkpoints ({', '.join(CHECKPOINT_SUFFIXES)}) nor a model of transformers; give a "
            "folder or Hub repository that does"
        )
    return [local_checkpoint(source, name) for name in names]


def _convert_image_model(args: argparse.Namespace) -> None:
    from comedian.conversion.image_backbone import read_image_backbone, save_image_backbone

    for name in ("spatial_heads", "temporal_heads", "labels"):
        if getattr(args, name):
            raise InputError(
                f"--{name.replace('_', '-')} applies to the authors' checkpoints only; remove it for an image model"
            )
    tubelet_size = 2 if args.tubelet_size is None else args.tubelet_size
    if tubelet_size < 1:
        raise InputError(f"--tubelet-size {tubelet_size}: give 1 frame or more")
    backbone = read_image_backbone(
        args.source,
        tubelet_size=tubelet_size,
        num_frames=max(128 // tubelet_size, 1) * tubelet_size,
        fps=args.fps,
        image_size=args.image_size,
    )
    save_image_backbone(backbone, args.output_dir)
    print(f"{args.output_dir}: spatial encoder from `{args.source}`")
    print(f"  read     {_sizes(backbone.model.config)}")
    for note in backbone.notes:
        print(f"  note     {note}")


def _convert_checkpoints(args: argparse.Namespace, checkpoints: list[Path]) -> None:
    from comedian.conversion.lightning import read_checkpoint, save_converted
    from comedian.soccernet.labels import read_label_list

    if args.tubelet_size is not None:
        raise InputError(
            "--tubelet-size applies to image models only; it is read from the authors' checkpoints; remove it"
        )
    converted = [
        read_checkpoint(
            checkpoint,
            spatial_heads=args.spatial_heads,
            temporal_heads=args.temporal_heads,
            image_size=args.image_size,
            fps=args.fps,
            labels=read_label_list(args.labels) if args.labels else None,
        )
        for checkpoint in checkpoints
    ]
    save_converted(converted, args.output_dir)
    first = converted[0]
    model_class = type(first.model).__name__
    if len(converted) == 1:
        print(f"{args.output_dir}: {model_class} from a {first.stage} checkpoint")
    else:
        names = ", ".join(path.name for path in checkpoints)
        print(f"{args.output_dir}: an ensemble of {len(converted)} x {model_class} from {names}")
    print(f"  read     {_sizes(first.model.config)}, {first.model.config.num_labels} labels")
    for assumption in first.assumed:
        print(f"  assumed  {assumption}")
    for group, count in first.skipped.items():
        print(f"  skipped  {count} x {group}")
    if first.stage == "spotting":
        print(f"try it:  comedian spot VIDEO --model {args.output_dir}")


def _sizes(config) -> str:
    return (
        f"{config.spatial_encoder}, width {config.spatial_hidden_size}, spatial depths {config.spatial_depths} and heads "
        f"{config.spatial_num_heads}, temporal depth {config.temporal_depth} and heads {config.temporal_num_heads}, patch "
        f"{config.patch_size}, tubelet {config.tubelet_size}, {config.num_frames} frames of {config.image_size[0]} x "
        f"{config.image_size[1]} at {config.fps:g} fps"
    )

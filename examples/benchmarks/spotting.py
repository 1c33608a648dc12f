"""Spotting a long video with ViViT-T, from file to events, against overlapping windows each encoded whole in float32.

python examples/benchmarks/spotting.py /work/shared/gfspot /tmp/bench --minutes 45 180

Videos of 398 x 224 pixels at 25 fps are made of GF-Spot's (see `common.make_video`); the weights are random, which costs the
same. Each run is a process of its own, imports included. The straightforward way is what the published implementation does:
windows of 64 s every 32 s, each put through spatial and temporal encoder whole, with attention as two matrix products around
a softmax, a Conv3d for the patches and the last spatial layer for every patch; `--fused-attention` gives it our attention.
`--openvino` adds the exported graphs, and `--int8` those with an int8 spatial encoder, calibrated on frames of the video.
Limits: the decoder alone, and the operations of the spatial encoder at the measured rate of a large matrix product.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from common import default_device, in_published_form, machine, make_video, matmul_rate, repeat_video, run_measured
from torch.utils.flop_counter import FlopCounterMode

from comedian.conversion.openvino_export import calibration_frames, export_openvino, quantize
from comedian.inference.scoring import encode_half, score_half
from comedian.inference.torch_model import TorchModel
from comedian.models import ComedianConfig, ComedianForActionSpotting, ComedianVideoProcessor
from comedian.models.pipeline_comedian import autocast
from comedian.soccernet.labels import SOCCERNET_V2_LABELS
from comedian.video.decoding import iter_frames

HALF_MIN = 45
MODELS = ("vivit-tiny", "viswin-tiny")


@torch.inference_mode()
def whole_windows(video: Path, folder: Path, device: str, fused_attention: bool = False) -> np.ndarray:
    """Score a video window by window, float32 `(num_windows, num_tokens, num_labels)`."""
    model = in_published_form(ComedianForActionSpotting.from_pretrained(folder), fused_attention).to(device)
    processor = ComedianVideoProcessor.from_pretrained(folder)
    window, stride = model.config.num_frames, model.config.num_frames // 2
    held, scores = [], []
    for _, frame in iter_frames(video, model.config.fps, tuple(model.config.image_size)):
        held.append(frame)
        if len(held) == window:
            pixels = processor(np.stack(held), return_tensors="pt", device=device)["pixel_values_videos"]
            scores.append(model(pixels).logits[0].sigmoid())
            held = held[stride:]
    return torch.stack(scores).cpu().numpy()


def decode(video: Path, folder: Path) -> None:
    """Decode what spotting needs, and nothing else."""
    config = ComedianConfig.from_pretrained(folder)
    for _ in iter_frames(video, config.fps, tuple(config.image_size), threads=0):
        pass


def score_frames(video: Path, folder: Path, device: str) -> float:
    """Seconds from the frames of a whole video, decoded before and held in memory, to its scores."""
    processor = ComedianVideoProcessor.from_pretrained(folder)
    model = TorchModel(ComedianForActionSpotting.from_pretrained(folder).to(device), processor)
    frames = [frame for _, frame in iter_frames(video, model.config.fps, tuple(model.config.image_size))]

    def score(some: list[np.ndarray]) -> np.ndarray:
        return score_half(model, encode_half(model, some))

    score(frames[: model.config.num_frames])
    start_s = time.perf_counter()
    score(frames)
    return time.perf_counter() - start_s


def make_model(size: str, folder: Path) -> ComedianForActionSpotting:
    """A published size with random weights, saved."""
    config = ComedianConfig.published(size, id2label=dict(enumerate(SOCCERNET_V2_LABELS)))
    model = ComedianForActionSpotting(config).eval()
    model.save_pretrained(folder)
    ComedianVideoProcessor().save_pretrained(folder)
    return model


def make_graphs(folder: Path, video: Path, int8: bool) -> dict[str, Path]:
    """Export a model for OpenVINO; return the folder of each way."""
    graphs = {"OpenVINO": folder.with_name(f"{folder.name}-openvino")}
    shutil.rmtree(graphs["OpenVINO"], ignore_errors=True)
    export_openvino(str(folder), graphs["OpenVINO"])
    if int8:
        graphs["OpenVINO, int8"] = folder.with_name(f"{folder.name}-int8")
        shutil.copytree(graphs["OpenVINO"], graphs["OpenVINO, int8"], dirs_exist_ok=True)
        config = ComedianConfig.from_pretrained(folder)
        quantize(graphs["OpenVINO, int8"], config, calibration_frames([video], config))
    return graphs


def operations_a_second_of_video(model: ComedianForActionSpotting) -> float:
    """Of the spatial encoder, two for each multiply and add."""
    config = model.config
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        model.encode_spatial(torch.zeros(1, config.tubelet_size, 3, *config.image_size, device=model.device))
    return counter.get_total_flops() * config.token_rate


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gfspot", type=Path)
    parser.add_argument("work", type=Path, help="folder for videos, model and outputs")
    parser.add_argument("--minutes", type=float, nargs="+", default=[HALF_MIN], help="beyond 45, copies of a half")
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-straightforward", action="store_true", help="which takes minutes")
    parser.add_argument(
        "--openvino", action="store_true", help="the graphs of `comedian export --format openvino` too"
    )
    parser.add_argument("--int8", action="store_true", help="with --openvino: in int8 too")
    parser.add_argument("--device", default=default_device(), help="for the model, of all ways")
    parser.add_argument("--fused-attention", action="store_true", help="in the straightforward way too")
    parser.add_argument("--way", choices=("whole_windows", "decode"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.work / args.model
    videos = {minutes: args.work / f"{minutes:g}min.mkv" for minutes in args.minutes}
    if args.way:
        video = videos[args.minutes[0]]
        if args.way == "decode":
            decode(video, folder)
        else:
            whole_windows(video, folder, args.device, args.fused_attention)
        return
    model = make_model(args.model, folder).to(args.device)
    decoder_threads = TorchModel(model, ComedianVideoProcessor()).decoder_threads
    comedian = str(Path(sys.executable).with_name("comedian"))
    dtype = torch.bfloat16 if autocast(model)._enabled else torch.float32
    rate = matmul_rate(dtype, args.device, 2048 if args.device == "cpu" else 8192)
    print("| minutes | way | wall s | x real time | CPU s | peak MB |\n|---|---|---|---|---|---|")
    for minutes, path in videos.items():
        if minutes > HALF_MIN:
            half = make_video(args.gfspot, args.work / f"{HALF_MIN}min.mkv", 60 * HALF_MIN)
            repeat_video(half, path, round(minutes / HALF_MIN))
        else:
            make_video(args.gfspot, path, 60 * minutes)
        me = [sys.executable, *sys.argv, "--minutes", str(minutes), "--way"]
        spot = [comedian, "spot", str(path), "--model", str(folder), "--device", args.device]
        ways = {
            "ours": [*spot, "--output", str(args.work / "events.json")],
            "decoding alone": [*me, "decode"],
            "whole windows, float32": [*me, "whole_windows"],
        }
        if args.skip_straightforward:
            del ways["whole windows, float32"]
        for name, graphs in (make_graphs(folder, path, args.int8) if args.openvino else {}).items():
            ways[name] = [
                comedian,
                "spot",
                str(path),
                "--model",
                str(graphs),
                "--output",
                str(args.work / "graphs.json"),
            ]
            # compiled once, as for a user from the second video on
            run_measured(ways[name])
        runs = {name: [] for name in ways}
        for _ in range(args.repeats):
            for name, words in ways.items():
                runs[name].append(run_measured(words))
        walls = {}
        for name, of_way in runs.items():
            walls[name], cpu_s, peak = (median(column) for column in zip(*of_way))
            speed = 60 * minutes / walls[name]
            print(f"| {minutes:g} | {name} | {walls[name]:.1f} | {speed:.0f} | {cpu_s:.0f} | {peak / 1e6:.0f} |")
        alone_s = median(score_frames(path, folder, args.device) for _ in range(args.repeats))
        print(f"| {minutes:g} | frames in memory to scores | {alone_s:.2f} | {60 * minutes / alone_s:.0f} | | |")
        ideal_s = 60 * minutes * operations_a_second_of_video(model) / rate
        used = f"{ideal_s:.1f} s at {rate / 1e9:.0f} billion a second in {dtype}; that is "
        used += f"{100 * ideal_s / walls['ours']:.0f} % of ours, {100 * ideal_s / alone_s:.0f} % from frames in memory"
        print(f"\nspatial encoder's operations: {used}; decoder threads {decoder_threads}\n")
    print(machine(args.device))


if __name__ == "__main__":
    main()

"""CPU time of reading training windows and clips: a frame store, by processes and by threads, against JPEG files.

python examples/benchmarks/window_loading.py /work/shared/gfspot

Some halves of GF-Spot, 2 frames a second, 398 x 224 pixels as the published recipes store them. The folder of JPEG files is
what is usual in the field: one file of quality 95 a frame, opened by Pillow and stacked. All read the same random 64-s
windows, or every clip of two frames once, into batches of tensors in the process that trains; augmentation is no part. "yuv"
hands over frames as they are stored, which a GPU converts to RGB. CPU time is that of the process and its workers.

The last table says what share of an epoch of the published recipes an H100 would wait for batches, if cores read as fast as
here, and on an assumption: it computes without a break at a share of its peak, beside reading. Operations are counted in a
step of ViViT-T; what the GPU does to pixels and weights is not among them.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import interleaved, machine
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from training_step import Step

from comedian.samples.batches import BatchReader, finished
from comedian.samples.datasets import (
    ClipDataset,
    FrameWindows,
    HalfDataset,
    WindowKey,
    WindowSampler,
    WindowShape,
    collate_windows,
)
from comedian.video.decoding import iter_frames
from comedian.video.frame_store import FrameStore, StoreSettings, claim_store, half_path, source_of, write_half

FPS, HEIGHT, NUM_FRAMES, TUBELET_SIZE = 2, 224, 128, 2
WINDOWS_PER_BATCH, CLIPS_PER_BATCH = 4, 256
H100_OPERATIONS_PER_S = 989e12  # bfloat16, dense
# halves of SoccerNet's training split, and samples of a half in an epoch of each stage
NUM_HALVES, SAMPLES_PER_HALF = 600, {1: 45 * 60 * FPS // TUBELET_SIZE, 2: 38, 3: 25}


def cpu_s() -> float:
    """CPU seconds of this process and of the children that have ended."""
    return sum(os.times()[:4])


class JpegWindows(FrameWindows):
    """Windows of folders of JPEG files."""

    def read(self, key: WindowKey) -> dict[str, torch.Tensor]:
        """Open each frame's file."""
        folder = jpeg_folder(self.halves[key.half_index].path)
        files = [folder / f"{number:06d}.jpg" for number in range(key.start, key.start + self.shape.num_frames)]
        return {"frames": torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files]))}


class JpegClips(JpegWindows, ClipDataset):
    """Clips of folders of JPEG files."""


def jpeg_folder(half: Path) -> Path:
    """Where the frames of a `.frames` file lie as JPEG files."""
    return half.with_suffix(".jpeg")


def make_halves(videos: list[Path], store: Path, width: int) -> HalfDataset:
    """Write the videos' frames into a store, and into JPEG files beside it."""
    settings = StoreSettings(FPS, HEIGHT, width)
    claim_store(store, settings)
    for number, video in enumerate(videos):
        frames = iter_frames(video, FPS, (HEIGHT, width))
        path = half_path(store, str(number), 1)
        write_half(path, frames, fps=FPS, quality=settings.quality, source=source_of(video))
    halves = [{"video_id": str(number), "half": 1, "events": []} for number in range(len(videos))]
    dataset = HalfDataset(halves, FrameStore(store), (), FPS)
    for half in dataset.halves:
        jpeg_folder(half.path).mkdir()
        for number in range(half.num_frames):
            file = jpeg_folder(half.path) / f"{number:06d}.jpg"
            Image.fromarray(half.read(number, 1)[0]).save(file, quality=95)
    return dataset


def go_through(dataset: FrameWindows, batch_size: int, num_workers: int = 0, yuv: bool = False) -> None:
    """Read an epoch, by worker processes or by two threads; one batch is held while the next one is read."""
    dataset.yuv = yuv
    sampler = WindowSampler(dataset, seed=0)
    if num_workers:
        loader = DataLoader(dataset, batch_size, sampler=sampler, num_workers=num_workers, collate_fn=collate_windows)
    else:
        reader = BatchReader(dataset, collate_windows, num_threads=2)
        loader = DataLoader(reader, batch_size, sampler=sampler, collate_fn=reader.collate_fn)
    waiting, count = None, 0
    for batch in loader:
        count += len(finished(waiting)["seed"]) if waiting is not None else 0
        waiting = batch
    assert count + len(finished(waiting)["seed"]) == len(dataset)


def compare(what: str, ways: dict, num_samples: int, repeats: int) -> dict[str, float]:
    """Print CPU milliseconds a sample and ratios to the first way; return CPU seconds a sample."""
    times_s = interleaved(ways, repeats, clock_s=cpu_s)
    folder_s = next(iter(times_s.values()))
    print(f"| {what} | CPU ms each | times as fast as JPEG files |\n|---|---|---|")
    for name, time_s in times_s.items():
        print(f"| {name} | {1000 * time_s / num_samples:.2f} | {folder_s / time_s:.2f} |")
    print()
    return {name: time_s / num_samples for name, time_s in times_s.items()}


def operations(stage: int) -> float:
    """Operations of a sample's training step, forward and backward, two for each multiply and add."""
    step = Step(stage, batch=2, straightforward=False)
    # attention in products that are counted
    step.model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        {1: step.clips, 2: step.tokens, 3: step.labelled}[stage]().backward()
    return sum(counter.get_flop_counts()[type(step.model).__name__].values()) / 2


def print_waiting(sample_s: dict[int, float], cores: int, gpu_share: float) -> None:
    """Print what share of an epoch of each stage a GPU waits for batches, from the CPU seconds of a sample."""
    print("| stage | samples | operations each | GPU computes, s | cores read, s | waits |\n|---|---|---|---|---|---|")
    for stage, per_half in SAMPLES_PER_HALF.items():
        num_samples, each = NUM_HALVES * per_half, operations(stage)
        gpu_s = num_samples * each / (gpu_share * H100_OPERATIONS_PER_S)
        cores_s = num_samples * sample_s[stage] / cores
        waits = max(0.0, 1 - gpu_s / cores_s)
        print(f"| {stage} | {num_samples} | {each / 1e9:.1f} G | {gpu_s:.0f} | {cores_s:.0f} | {waits:.0%} |")
    print(f"\n{cores} cores; the GPU assumed at {gpu_share:.0%} of {H100_OPERATIONS_PER_S / 1e12:.0f} TFLOP/s")


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gfspot", type=Path)
    parser.add_argument("--halves", type=int, default=4)
    parser.add_argument("--windows-per-half", type=int, default=8)
    parser.add_argument("--width", type=int, default=398)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cores", type=int, default=16, help="of the machine with the GPU")
    parser.add_argument("--gpu-share", type=float, default=0.4, help="of its peak that the GPU is assumed to reach")
    args = parser.parse_args()
    videos = sorted(args.gfspot.glob("*/*/*/[12]_224p.mkv"))[: args.halves]
    with tempfile.TemporaryDirectory() as scratch:
        halves = make_halves(videos, Path(scratch), args.width)
        shape = WindowShape(NUM_FRAMES, TUBELET_SIZE, args.windows_per_half, "random")
        windows, size = FrameWindows(halves, shape), WINDOWS_PER_BATCH
        of_windows = compare(
            "64-s window",
            {
                "JPEG files, two processes": lambda: go_through(JpegWindows(halves, shape), size, 2),
                "frame store, two processes": lambda: go_through(windows, size, 2),
                "frame store, two processes, yuv": lambda: go_through(windows, size, 2, yuv=True),
                "frame store, threads": lambda: go_through(windows, size),
                "frame store, threads, yuv": lambda: go_through(windows, size, yuv=True),
            },
            len(windows),
            args.repeats,
        )
        clips, size = ClipDataset(halves, TUBELET_SIZE), CLIPS_PER_BATCH
        of_clips = compare(
            "clip of two frames",
            {
                "JPEG files, two processes": lambda: go_through(JpegClips(halves, TUBELET_SIZE), size, 2),
                "frame store, two processes": lambda: go_through(clips, size, 2),
                "frame store, threads": lambda: go_through(clips, size),
                "frame store, threads, yuv": lambda: go_through(clips, size, yuv=True),
            },
            len(clips),
            args.repeats,
        )
    window_s, clip_s = of_windows["frame store, threads, yuv"], of_clips["frame store, threads, yuv"]
    print_waiting({1: clip_s, 2: window_s, 3: window_s}, args.cores, args.gpu_share)
    print(machine())


if __name__ == "__main__":
    main()

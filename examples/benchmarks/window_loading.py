"""Random 64-s windows: out of a frame store, against a folder of JPEG frames, each through a DataLoader with two workers.

python examples/benchmarks/window_loading.py /work/shared/gfspot

Both hold the same frames of some halves of GF-Spot, 2 a second, 224 x 224 pixels as the published models take them; the
folder is what is usual in the field: one JPEG of quality 95 a frame, opened by Pillow and stacked. Both draw the same
windows; augmentation is no part.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import interleaved, machine
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from comedian.video.decoding import iter_frames
from comedian.video.frame_store import StoreSettings, open_half, source_of, write_half

FPS, HEIGHT, WIDTH, NUM_FRAMES = 2, 224, 224, 128


class Windows(Dataset):
    """Windows of a frame store or of folders of JPEG files."""

    def __init__(self, halves: list, starts: list[tuple[int, int]]):
        self.halves = halves
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> torch.Tensor:
        half, start = self.starts[index]
        source = self.halves[half]
        if isinstance(source, Path):
            files = [source / f"{number:06d}.jpg" for number in range(start, start + NUM_FRAMES)]
            return torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files]))
        return torch.from_numpy(source.read(start, NUM_FRAMES))


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gfspot", type=Path)
    parser.add_argument("--halves", type=int, default=6)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    videos = sorted(args.gfspot.glob("*/*/*/[12]_224p.mkv"))[: args.halves]
    with tempfile.TemporaryDirectory() as scratch:
        stores, folders = [], []
        for index, video in enumerate(videos):
            path = Path(scratch) / "store" / f"{index}.frames"
            quality = StoreSettings(FPS, HEIGHT).quality
            frames = iter_frames(video, FPS, (HEIGHT, WIDTH))
            write_half(path, frames, fps=FPS, quality=quality, source=source_of(video))
            half = open_half(path)
            folder = Path(scratch) / "jpeg" / str(index)
            folder.mkdir(parents=True)
            for number, frame in enumerate(half.read(0, half.num_frames)):
                Image.fromarray(frame).save(folder / f"{number:06d}.jpg", quality=95)
            stores.append(half)
            folders.append(folder)
        rng = np.random.default_rng(0)
        starts = [
            (int(half), int(rng.integers(stores[half].num_frames - NUM_FRAMES + 1)))
            for half in rng.integers(len(videos), size=args.windows)
        ]

        def go_through(halves: list) -> None:
            loader = DataLoader(Windows(halves, starts), batch_size=2, num_workers=2)
            assert sum(len(batch) for batch in loader) == args.windows

        times_s = interleaved(
            {"folder of JPEG files": lambda: go_through(folders), "frame store": lambda: go_through(stores)},
            args.repeats,
        )
    print("| | windows per second |\n|---|---|")
    for name, time_s in times_s.items():
        print(f"| {name} | {args.windows / time_s:.1f} |")
    print(f"\nratio {times_s['folder of JPEG files'] / times_s['frame store']:.1f}; {machine()}")


if __name__ == "__main__":
    main()

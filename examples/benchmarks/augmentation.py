"""Stage 1's augmentation: whole batches on the training device, against sample by sample as data-loading workers do it.

python examples/benchmarks/augmentation.py --batch 64 --height 64 --width 112
python examples/benchmarks/augmentation.py --batch 64 --stored-width 398

Both draw the same parameters from the same seeds; one by one, windows are blurred by convolutions. The results are compared
too. Times are medians of interleaved runs on one thread.
"""

import argparse

import torch
from common import augment_one_by_one, interleaved
from torch import Tensor

from comedian.samples.augmentation import augment, draw_parameters
from comedian.training.contrastive_config import ContrastiveConfig


def main() -> None:
    """Print milliseconds a clip and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--height", type=int, default=224)
    parser.add_argument("--width", type=int, default=224)
    parser.add_argument("--stored-height", type=int, help="of the frames in the store (default: as the model's)")
    parser.add_argument("--stored-width", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = ContrastiveConfig(output_dir="unused", use_cpu=True).augmentation
    size = (args.height, args.width)
    stored = (args.stored_height or args.height, args.stored_width or args.width)
    frames = torch.randint(0, 256, (args.batch, args.frames, 3, *stored), dtype=torch.uint8)
    seeds = torch.arange(args.batch)

    def batched() -> Tensor:
        return augment(frames, draw_parameters(seeds, settings, 1), settings, size)

    def one_by_one() -> Tensor:
        return augment_one_by_one(frames, seeds, settings, 1, size)

    torch.testing.assert_close(batched(), one_by_one(), atol=1e-4, rtol=0)
    times_s = interleaved({"one by one": one_by_one, "batched": batched}, args.rounds)
    for name, seconds in times_s.items():
        print(f"{name:<12} {1000 * seconds / args.batch:7.3f} ms a clip")
    print(f"batched: {times_s['one by one'] / times_s['batched']:.2f} times as fast")


if __name__ == "__main__":
    main()

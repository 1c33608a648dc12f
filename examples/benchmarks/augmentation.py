"""Stage 1's augmentation: whole batches on the training device, against sample by sample as data-loading workers do it.

python examples/benchmarks/augmentation.py --batch 64 --height 64 --width 112

Both draw the same parameters from the same seeds and use the same functions, so the ratio is that of batching alone; the
results are compared too. Times are medians of interleaved runs on one thread.
"""

import argparse
import time
from statistics import median

import torch
from torch import Tensor

from comedian.data.augmentation import augment, draw_parameters
from comedian.training.contrastive_config import ContrastiveConfig


def main() -> None:
    """Print milliseconds a clip and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--height", type=int, default=224)
    parser.add_argument("--width", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = ContrastiveConfig(output_dir="unused", use_cpu=True).augmentation
    frames = torch.randint(0, 256, (args.batch, args.frames, 3, args.height, args.width), dtype=torch.uint8)
    seeds = torch.arange(args.batch)

    def batched() -> Tensor:
        return augment(frames, draw_parameters(seeds, settings, 1), settings)

    def one_by_one() -> Tensor:
        clips = zip(frames.split(1), seeds.split(1), strict=True)
        return torch.cat([augment(clip, draw_parameters(seed, settings, 1), settings) for clip, seed in clips])

    times: dict[str, list[float]] = {"one by one": [], "batched": []}
    for _ in range(args.rounds):
        results = {}
        for name, way in (("one by one", one_by_one), ("batched", batched)):
            start_s = time.perf_counter()
            results[name] = way()
            times[name].append(time.perf_counter() - start_s)
        torch.testing.assert_close(results["batched"], results["one by one"], atol=1e-4, rtol=0)
    for name, seconds in times.items():
        print(f"{name:<12} {1000 * median(seconds) / args.batch:7.3f} ms a clip")
    print(f"batched: {median(times['one by one']) / median(times['batched']):.2f} times as fast")


if __name__ == "__main__":
    main()

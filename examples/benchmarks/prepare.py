"""`comedian prepare` on a match of two 45-minute halves, against the usual extraction of frames to a folder of JPEG files.

python examples/benchmarks/prepare.py /work/shared/gfspot /tmp/bench

Halves of 398 x 224 pixels at 25 fps, made of GF-Spot's (see `common.make_video`); 2 frames a second are kept. The usual
way runs as many processes too, one a half: PyAV decodes every frame, Pillow writes those that are wanted at quality 95.
"""

import argparse
import shutil
import sys
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import av
from common import machine, make_video, run_measured

HALF_S, SOURCE_FPS, FPS = 2700, 25, 2


def extract(video: str, folder: str) -> None:
    """Decode all, write every frame that is first after a grid point."""
    Path(folder).mkdir(parents=True)
    with av.open(video) as container:
        stream, number = container.streams.video[0], 0
        stream.thread_type, stream.codec_context.thread_count = "AUTO", 1
        for frame in container.decode(stream):
            if frame.time * FPS >= number - 1e-6:
                frame.to_image().save(f"{folder}/{number:06d}.jpg", quality=95)
                number += 1


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gfspot", type=Path)
    parser.add_argument("work", type=Path, help="folder for the videos, which stay, and the outputs, which go")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--extract", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    root, store, folders = args.work / "match", args.work / "store", args.work / "jpeg"
    if args.extract:
        with get_context("spawn").Pool(2) as pool:
            pool.starmap(extract, [(str(root / f"{half}_224p.mkv"), str(folders / str(half))) for half in (1, 2)])
        return
    video = make_video(args.gfspot, args.work / "half.mkv", HALF_S, SOURCE_FPS)
    root.mkdir(exist_ok=True)
    for half in (1, 2):
        if not (root / f"{half}_224p.mkv").exists():
            (root / f"{half}_224p.mkv").hardlink_to(video)
    settings = ["--fps", str(FPS), "--height", "224", "--width", "398"]
    comedian = str(Path(sys.executable).with_name("comedian"))
    ways = {
        "folder of JPEG files": ([sys.executable, *sys.argv, "--extract"], folders),
        "comedian prepare": ([comedian, "prepare", str(root), str(store), *settings], store),
    }
    times_s, sizes = {name: [] for name in ways}, {}
    for _ in range(args.repeats):
        for name, (words, output) in ways.items():
            shutil.rmtree(output, ignore_errors=True)
            times_s[name].append(run_measured(words)[0])
            sizes[name] = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
            shutil.rmtree(output)
    print("| | s | x real time | MB a half |\n|---|---|---|---|")
    for name in ways:
        time_s = median(times_s[name])
        print(f"| {name} | {time_s:.1f} | {2 * HALF_S / time_s:.0f} | {sizes[name] / 2e6:.1f} |")
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()

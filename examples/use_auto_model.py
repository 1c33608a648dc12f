"""Use a model with nothing but transformers (and PyAV, to read videos): this package need not be installed.

    python examples/use_auto_model.py                                       # the demo's model and half
    python examples/use_auto_model.py MODEL_FOLDER_OR_HUB_REPOSITORY MY_VIDEO.mp4

The code comes with the weights, so transformers asks for `trust_remote_code=True`: look at a repository's code before you
trust it, and name a `revision` to be sure that it stays what you looked at.
"""

import argparse
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, pipeline

DEMO = Path(__file__).parent / "demo"
# the demo's folder holds weights alone; what `save_pretrained` writes, as publishing does, holds their code too
EXPORT = """
import sys
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
for part in (ComedianForActionSpotting, ComedianVideoProcessor):
    part.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])
"""


def main() -> None:
    """Export the demo's model where none is named, and use it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="folder or Hub repository of a spotting model (default: the demo's)")
    parser.add_argument("video", nargs="?", default=str(DEMO / "match" / "2_224p.mkv"), help="any video")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.model is None:
            subprocess.run([sys.executable, "-W", "ignore", "-c", EXPORT, str(DEMO / "model"), folder], check=True)
        use(args.model or folder, args.video)


def use(name: str, video: str) -> None:
    """Load a model in every way there is, and print what comes out."""
    config = AutoConfig.from_pretrained(name, trust_remote_code=True)
    window_s = config.num_frames / config.fps
    print(
        f"{config.model_type}: {config.num_labels} labels, windows of {window_s:g} s at {config.fps:g} frames per second"
    )

    # from a video to events: everything in one call, on any length of video
    spotter = pipeline("action-spotting", model=name, trust_remote_code=True)
    # where torchvision is installed, `AutoVideoProcessor.from_pretrained(name, trust_remote_code=True)` is the same
    processor = spotter.video_processor

    # from a window's frames to tokens and to scores, for work of your own
    frames = first_frames(video, config.num_frames, config.fps)
    pixels = processor(frames, return_tensors="pt")["pixel_values_videos"]
    backbone = AutoModel.from_pretrained(name, trust_remote_code=True).eval()
    model = AutoModelForVideoClassification.from_pretrained(name, trust_remote_code=True).eval()
    with torch.inference_mode():
        tokens = backbone(pixels).last_hidden_state
        scores = model(pixels).logits.sigmoid()
    print(f"pixels {tuple(pixels.shape)} -> tokens {tuple(tokens.shape)} -> scores {tuple(scores.shape)}")

    for spot in spotter(video):
        print(f"{spot['timestamp_s']:7.1f} s  {spot['label']}  {spot['score']:.2f}")


def first_frames(video: str, count: int, fps: float) -> np.ndarray:
    """Every n-th frame from the beginning on, about `fps` a second, uint8 RGB `(count, height, width, 3)`."""
    with av.open(video) as container:
        step = max(round(container.streams.video[0].average_rate / fps), 1)
        frames = islice(container.decode(video=0), 0, count * step, step)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


if __name__ == "__main__":
    main()

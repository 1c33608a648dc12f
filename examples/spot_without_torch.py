"""Spot a video with an exported model: ONNX Runtime, NumPy and PyAV, and neither torch nor transformers nor comedian.

comedian export MODEL EXPORT --format onnx
python examples/spot_without_torch.py EXPORT VIDEO > events.json
"""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import onnxruntime

TUBELETS_PER_BATCH = 16


def main() -> None:
    """Print the events as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, help="folder that `comedian export` wrote")
    parser.add_argument("video")
    parser.add_argument("--threshold", type=float, help="smallest score of an event; default: the model's thresholds")
    args = parser.parse_args()
    print(json.dumps(spot(args.export, args.video, args.threshold), indent=2))


def spot(export: Path, video: str, threshold: float | None = None) -> list[dict]:
    """Return the events of a video: `{"label", "timestamp_s", "half", "score"}`."""
    # lies in the export's folder, and needs NumPy alone
    sys.path.insert(0, str(export))
    from postprocessing_comedian import spots_from_scores, step_timestamps_s, stitch_half

    config = SimpleNamespace(**json.loads((export / "spotting.json").read_text(encoding="utf-8")))
    spatial, temporal = (
        onnxruntime.InferenceSession(export / config.files[name]) for name in ("spatial_encoder", "temporal_encoder")
    )

    # each tubelet to a token
    tokens, batches = [], iter(frames_of(video, config.fps, config.image_size))
    while batch := list(islice(batches, TUBELETS_PER_BATCH * config.tubelet_size)):
        batch += batch[-1:] * (-len(batch) % config.tubelet_size)
        pixels = np.stack(batch).astype(np.float32) * np.float32(config.rescale_factor)
        pixels = (pixels - np.float32(config.image_mean)) / np.float32(config.image_std)
        tubelets = pixels.transpose(0, 3, 1, 2).reshape(-1, config.tubelet_size, 3, *config.image_size)
        tokens.append(spatial.run(None, {"tubelets": tubelets})[0])
    tokens = np.concatenate(tokens)

    # overlapping windows of tokens, the last one flush with the end, to scores
    length, window = len(tokens), config.num_tokens
    if length < window:
        tokens = np.concatenate([tokens, np.repeat(tokens[-1:], window - length, axis=0)])
    last = max(length - window, 0)
    starts = np.append(np.arange(0, last, config.window_stride_tokens), last)
    outputs = [temporal.run(None, {"tokens": tokens[None, start : start + window]}) for start in starts]
    scores, *offsets_s = (np.concatenate(values) for values in zip(*outputs))
    scores = stitch_half(scores, offsets_s[0] if offsets_s else None, starts, length, config)

    thresholds = config.label_thresholds or 0.3
    return spots_from_scores(
        scores,
        step_timestamps_s(len(scores), config.score_rate, config.fps),
        config.label_names,
        half=1,
        score_rate=config.score_rate,
        nms_type=config.nms_type,
        nms_window_s=config.nms_window_s,
        nms_threshold=config.nms_threshold,
        nms_min_weight=config.nms_min_weight,
        thresholds=thresholds if threshold is None else threshold,
        calibration=config.label_calibration,
    )


def frames_of(video: str, fps: float, size: list[int]) -> Iterator[np.ndarray]:
    """Yield the frame on screen at 0, 1 / fps, 2 / fps, ... s after the first one: uint8 `(height, width, 3)`."""
    height, width = size
    with av.open(video) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        # tolerance for containers that round timestamps to ticks
        tolerance_s = min(0.51 * float(stream.time_base), 1e-3)
        shown, start_s, index = None, None, 0
        for frame in container.decode(stream):
            time_s = float(frame.pts * stream.time_base)
            start_s = time_s if shown is None else start_s
            while shown is not None and index / fps < time_s - start_s - tolerance_s:
                yield to_array(shown, width, height)
                index += 1
            shown = frame
        if shown is None:
            raise SystemExit(f"{video} holds no frame")
        end_s = time_s - start_s + (float(shown.duration * stream.time_base) or 1 / float(stream.average_rate))
        while index / fps < end_s - tolerance_s:
            yield to_array(shown, width, height)
            index += 1


def to_array(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """Scale a frame as the model's training did."""
    return frame.reformat(width, height, "rgb24", interpolation="BILINEAR").to_ndarray()


if __name__ == "__main__":
    main()

"""What the benchmarks share: timing, memory, the machine, the published form of a model, long videos of GF-Spot's halves."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median

import av
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from comedian.models.encoders_comedian import ComedianMLP, ComedianTubeletEmbeddings, ComedianViTEncoder
from comedian.samples.augmentation import BLUR_RADIUS, AugmentationSettings, augment, draw_parameters, solarize
from comedian.training.run_record import describe_hardware


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    repeats: int = 5,
    warm_up: int = 1,
    clock_s: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each way, of wall time by default, until the accelerator is done, if there is one.

    The ways take turns, so that a busy machine slows all of them alike.
    """
    times_s: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm_up + repeats):
        for name, way in ways.items():
            start_s = clock_s()
            way()
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            if turn >= warm_up:
                times_s[name].append(clock_s() - start_s)
    return {name: median(of_way) for name, of_way in times_s.items()}


def run_measured(words: Sequence[str]) -> tuple[float, float, float]:
    """Run a command in a process of its own; return its wall seconds, CPU seconds and peak memory in bytes (Linux)."""
    start_s = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    peak_kb = 0
    # `ru_maxrss` would begin at the memory of the process that asks
    while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        peak_kb = max(peak_kb, int(found[1]) if found else 0)
        time.sleep(0.02)
    _, code, usage = ended
    if code:
        raise SystemExit(f"{' '.join(words)} failed")
    return time.perf_counter() - start_s, usage.ru_utime + usage.ru_stime, 1024 * peak_kb


def peak_bytes(work: Callable[[], object], device: str = "cpu") -> int:
    """Most memory that PyTorch holds at once on a device during `work`, beyond what it held before."""
    if device != "cpu":
        before = torch.accelerator.memory_allocated()
        torch.accelerator.reset_peak_memory_stats()
        work()
        return torch.accelerator.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def matmul_rate(dtype: torch.dtype, device: str = "cpu", size: int = 2048) -> float:
    """Measured operations a second of a large matrix product, two for each multiply and add."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / interleaved({"matmul": lambda: a @ b}, repeats=7, warm_up=2)["matmul"]


def default_device() -> str:
    """An accelerator, where there is one."""
    return (torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")).type


def machine(device: str = "cpu") -> str:
    """Processor or accelerator and versions, for the line under a table."""
    return f"{describe_hardware(torch.device(device), 1)}, torch {torch.__version__}, av {av.__version__}"


def in_published_form(model: nn.Module, fused_attention: bool = False) -> nn.Module:
    """Have a model compute as the published implementation does, to the same results.

    Patches embedded by a Conv3d, the last spatial layer computed for every patch, activations kept for the backward pass;
    attention as two matrix products around a softmax, which is what the layers of timm 0.6.13 do, or by the fused kernel.
    """
    for module in model.modules():
        if isinstance(module, ComedianTubeletEmbeddings):
            module.forward = partial(_embed_by_convolution, module)
        if isinstance(module, ComedianViTEncoder):
            module.forward = partial(_encode_every_patch, module)
        if isinstance(module, ComedianMLP):
            module.forward = partial(_keep_activations, module)
    model.set_attn_implementation("sdpa" if fused_attention else "eager")
    return model


def _embed_by_convolution(embeddings: ComedianTubeletEmbeddings, tubelets: Tensor) -> Tensor:
    kernel = (embeddings.tubelet_size, embeddings.patch_size, embeddings.patch_size)
    weight = embeddings.projection.weight.unflatten(1, (tubelets.shape[2], *kernel))
    patches = F.conv3d(tubelets.transpose(1, 2), weight, embeddings.projection.bias, stride=kernel)
    return embeddings.norm(patches[:, :, 0].movedim(1, -1))


def _encode_every_patch(
    encoder: ComedianViTEncoder, tubelets: Tensor, output_attentions: bool = False, *, every_patch: bool = False
) -> Tensor:
    return type(encoder).forward(encoder, tubelets, output_attentions, every_patch=True)


def _keep_activations(mlp: ComedianMLP, hidden_states: Tensor, _recompute: bool = False) -> Tensor:
    return type(mlp).forward(mlp, hidden_states)


def augment_one_by_one(
    frames: Tensor,
    seeds: Tensor,
    settings: AugmentationSettings,
    num_tubelets: int,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """What `augment` gives, each window by itself and blurred by convolutions, as data-loading workers do it."""
    pixels = []
    for window, seed in zip(frames.split(1), seeds.split(1), strict=True):
        parameters = draw_parameters(seed, settings, num_tubelets)
        parameters = {name: values.to(frames.device) for name, values in parameters.items()}
        sharp = augment(window, parameters, replace(settings, blur_prob=0, solarize_prob=0), size)
        blurred = _blur_by_convolution(sharp[0], parameters["sigma"].item())[None]
        pixels.append(solarize(blurred, parameters["solarize"]) if settings.solarize_prob > 0 else blurred)
    return torch.cat(pixels)


def _blur_by_convolution(frames: Tensor, sigma: float) -> Tensor:
    if sigma == 0:
        return frames
    kernel = torch.exp(-0.5 * (torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(frames.device).expand(3, 1, -1)
    rows, columns = (0, 0, BLUR_RADIUS, BLUR_RADIUS), (BLUR_RADIUS, BLUR_RADIUS, 0, 0)
    frames = F.conv2d(F.pad(frames, rows, mode="replicate"), kernel[..., None], groups=3)
    return F.conv2d(F.pad(frames, columns, mode="replicate"), kernel[:, :, None], groups=3)


def repeat_video(video: Path, path: Path, times: int) -> Path:
    """Put copies of a video one after the other, without encoding again; keep one that is there."""
    if path.is_file():
        return path
    partial = path.with_suffix(".partial.mkv")
    with av.open(str(partial), "w") as output:
        stream, count = None, 0
        for turn in range(times):
            with av.open(str(video)) as source:
                template = source.streams.video[0]
                stream = stream or output.add_stream_from_template(template)
                tick = round(1 / (template.average_rate * template.time_base))
                shift = turn * round(source.duration / av.time_base / template.time_base)
                for packet in source.demux(template):
                    if packet.pts is not None:
                        # Matroska keeps no decoding times: one frame after the other, before any is shown
                        packet.pts, packet.dts, count = packet.pts + shift, (count - 16) * tick, count + 1
                        packet.stream = stream
                        output.mux(packet)
    partial.rename(path)
    return path


def make_video(gfspot: Path, path: Path, duration_s: float, fps: int = 25) -> Path:
    """Make one long H.264 video of 398 x 224 pixels out of GF-Spot's halves; keep one that is there.

    Every frame is a new one, shown at `fps` in place of GF-Spot's 10, so motion is two and a half times as fast as real:
    harder to decode than a broadcast. Encoded as x264 does by default (B-frames, key frames about every 10 s), at crf 26.
    """
    if path.is_file():
        return path
    wanted = round(duration_s * fps)
    partial = path.with_suffix(".partial.mkv")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(partial), "w") as output:
        stream = output.add_stream("libx264", rate=fps, options={"crf": "26"})
        stream.width, stream.height, stream.pix_fmt = 398, 224, "yuv420p"
        count = 0
        while count < wanted:
            for half in sorted(gfspot.glob("*/*/*/[12]_224p.mkv")):
                with av.open(str(half)) as source:
                    for frame in source.decode(video=0):
                        if count < wanted:
                            frame.pts, frame.time_base, count = count, Fraction(1, fps), count + 1
                            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    partial.rename(path)
    return path

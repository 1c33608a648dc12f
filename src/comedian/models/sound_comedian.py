"""The sound of a video as a log-mel spectrogram: NumPy and PyAV only; memory is bounded except for the result.

Frame `j` is centred `j / MEL_RATE` seconds after the first *video* frame that is shown, whenever the audio stream begins,
and if the container's clock restarts, audio and video stay in sync. Mono (mean of the channels) at 16 kHz; Hann
windows of 40 ms, one every 20 ms; the energy `|DFT|**2 / sum(window**2)` (white noise of variance 1 has 1 in each bin)
through triangles of height 1, evenly spaced on the HTK mel scale from 50 Hz to 7.6 kHz; `(log10(energy + 1e-6) + 6) /
8`. Silence is 0; a tone at full scale has an energy of about 107 and is at 1.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from itertools import chain, groupby
from typing import Any

import numpy as np

from .frames_comedian import MAX_LENGTH_S, open_video, video_stream
from .timeline_comedian import Timeline, first_shown_s

try:
    import av
except ImportError:  # a spectrogram that lies on disk needs no decoder
    av = None

SAMPLE_RATE = 16_000
WINDOW_SAMPLES = 640
HOP_SAMPLES = 320
MEL_RATE = SAMPLE_RATE / HOP_SAMPLES
NUM_MELS = 64
MIN_HZ, MAX_HZ = 50, 7600
ENERGY_FLOOR = 1e-6
# from the floor to a tone at full scale
DECADES = 8
# samples that are transformed at once
BLOCK_SAMPLES = 10 * SAMPLE_RATE
# timestamps that stray by less are jitter; by more, a gap
GAP_S = WINDOW_SAMPLES / SAMPLE_RATE
# full scale is 1; floats that are NaN, infinite or far beyond it are broken data
MAX_AMPLITUDE = 100


def read_sound(path: str) -> np.ndarray | None:
    """Read the sound of a video; data that is broken, and gaps between timestamps, are silence.

    Args:
        path: a video whose pictures can be decoded.

    Returns:
        `np.ndarray` of shape `(num_mel_frames, NUM_MELS)`, float16, to the end of the audio stream: what is cut off or
        missing against the pictures is the reader's to fill (see [`sound_of_tokens`]). `None` without an audio stream that
        FFmpeg decodes.
    """
    with open_video(path) as container:
        stream = container.streams.best("audio")
        # of a codec that FFmpeg does not know
        if stream is None or stream.codec_context is None:
            return None
        timeline = Timeline(container, video_stream(container, path))
        chunks = _chunks(_frames(timeline, stream), _first_picture_s(path))
        mels = list(log_mels(_contiguous(chunks)))
    return np.concatenate(mels) if mels else None


def sound_of_tokens(sound: np.ndarray | None, num_tokens: int, token_rate: float, start_s: float = 0.0) -> np.ndarray:
    """Cut a spectrogram into the frames of each token: those from `round((start_s + k / token_rate) * MEL_RATE)` on.

    Args:
        sound (`np.ndarray` of shape `(num_mel_frames, NUM_MELS)`, *optional*): of the half; silence after its end.
        num_tokens (`int`): tokens.
        token_rate (`float`): tokens per second.
        start_s (`float`): when the first token begins, in seconds from the first video frame.

    Returns:
        `np.ndarray` of shape `(num_tokens, ceil(MEL_RATE / token_rate), NUM_MELS)`, float32; NaN throughout without
        `sound`, which the model treats as missing audio. Silence is different: it can be informative.
    """
    count = math.ceil(MEL_RATE / token_rate - 1e-6)
    if sound is None:
        return np.full((num_tokens, count, NUM_MELS), np.nan, np.float32)
    times_s = start_s + np.arange(num_tokens) / token_rate
    index = np.floor(times_s * MEL_RATE + 0.5).astype(np.int64)[:, None] + np.arange(count)
    tokens = np.zeros((num_tokens, count, NUM_MELS), np.float32)
    inside = index < len(sound)
    tokens[inside] = sound[index[inside]]
    return tokens


def log_mels(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Transform sound as it comes.

    Args:
        blocks: float32 `(num_samples,)` in [-1, 1] at `SAMPLE_RATE`, end to end; the first sample is `HOP_SAMPLES` before
            the centre of the first frame.

    Yields:
        float16 `(num_mel_frames, NUM_MELS)`, end to end; the last frame is the last one with a sample in its window.
    """
    held, num_held = [], 0
    for block in blocks:
        held.append(block)
        num_held += len(block)
        if num_held >= BLOCK_SAMPLES:
            count = (num_held - WINDOW_SAMPLES) // HOP_SAMPLES + 1
            samples = np.concatenate(held)
            yield _transform(samples, count)
            held = [samples[count * HOP_SAMPLES :]]
            num_held = len(held[0])
    if num_held:
        yield _transform(np.concatenate([*held, np.zeros(WINDOW_SAMPLES, np.float32)]), -(-num_held // HOP_SAMPLES))


def _transform(samples: np.ndarray, count: int) -> np.ndarray:
    """The first `count` frames of some samples."""
    window = np.hanning(WINDOW_SAMPLES + 1)[:-1].astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW_SAMPLES)[::HOP_SAMPLES][:count]
    spectrum = np.fft.rfft(windows * window, axis=1)
    energy = (spectrum.real**2 + spectrum.imag**2) @ mel_filters() / np.sum(window**2)
    return (np.log10(energy / ENERGY_FLOOR + 1) / DECADES).astype(np.float16)


@cache
def mel_filters() -> np.ndarray:
    """Weight of each DFT bin in each band, float32 `(WINDOW_SAMPLES // 2 + 1, NUM_MELS)`."""
    lowest, highest = (2595 * math.log10(1 + hz / 700) for hz in (MIN_HZ, MAX_HZ))
    edges_hz = 700 * (10 ** (np.linspace(lowest, highest, NUM_MELS + 2) / 2595) - 1)
    bins_hz = np.arange(WINDOW_SAMPLES // 2 + 1)[:, None] * (SAMPLE_RATE / WINDOW_SAMPLES)
    rising = (bins_hz - edges_hz[:-2]) / np.diff(edges_hz)[:-1]
    falling = (edges_hz[2:] - bins_hz) / np.diff(edges_hz)[1:]
    return np.maximum(np.minimum(rising, falling), 0).astype(np.float32)


def _contiguous(chunks: Iterable[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
    """Chunks at their places, from `HOP_SAMPLES` before sample 0 on: gaps become 0, what is there twice counts once."""
    end = -HOP_SAMPLES
    for start, samples in chunks:
        if start >= MAX_LENGTH_S * SAMPLE_RATE:
            continue
        while end < start:
            silence = np.zeros(min(start - end, BLOCK_SAMPLES), np.float32)
            end += len(silence)
            yield silence
        fresh = samples[end - start :]
        end += len(fresh)
        yield fresh


def _chunks(frames: Iterable[Any], start_s: float) -> Iterator[tuple[int, np.ndarray]]:
    """Resample audio frames; yield the place of each piece, in samples since `start_s`, and float32 `(num_samples,)`."""
    for (place, *_), run in groupby(frames, _run_of(start_s)):
        resampler = av.AudioResampler("fltp", rate=SAMPLE_RATE)
        for frame in chain(run, [None]):
            for resampled in resampler.resample(frame):
                samples = resampled.to_ndarray().mean(axis=0)
                samples[~(np.abs(samples) < MAX_AMPLITUDE)] = 0
                yield place, samples
                place += len(samples)


def _run_of(start_s: float) -> Callable[[Any], tuple]:
    """Return the key of a run of audio frames: the position of its first sample, and its format.

    Frames without a gap continue after the previous one; after a gap, the timestamp gives the position.
    """
    run, end_s = None, 0.0

    def run_of(frame: Any) -> tuple:
        nonlocal run, end_s
        begin_s = end_s if frame.time is None else frame.time - start_s
        format_ = (frame.format.name, frame.layout.name, frame.sample_rate)
        if run is None or run[1:] != format_ or abs(begin_s - end_s) > GAP_S:
            run, end_s = (round(begin_s * SAMPLE_RATE), *format_), begin_s
        end_s += frame.samples / frame.sample_rate
        return run

    return run_of


def _frames(timeline: Timeline, stream: Any) -> Iterator[Any]:
    """Yield the audio frames that decode, as far as the file can be read."""
    with suppress(av.error.FFmpegError):
        for packet in chain(timeline.packets(stream), [None]):
            if packet is None or packet.stream.index == stream.index:
                with suppress(av.error.FFmpegError):
                    yield from stream.decode(packet)
                if packet is None:
                    stream.codec_context.flush_buffers()


def _first_picture_s(path: str) -> float:
    """Time of the first frame that is shown, on the container's clock."""
    with open_video(path) as container:
        return first_shown_s(Timeline(container, video_stream(container, path)), av.error.FFmpegError) or 0.0


__all__ = ["log_mels", "mel_filters", "read_sound", "sound_of_tokens"]

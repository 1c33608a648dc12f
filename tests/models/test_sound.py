"""The spectrogram against sums written out, on any clock of the file; the branch that hears, in the model."""

import math
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch.nn import functional as F

from comedian.models import ComedianForActionSpotting
from comedian.models.sound_comedian import (
    BLOCK_SAMPLES,
    NUM_MELS,
    _chunks,
    _contiguous,
    log_mels,
    mel_filters,
    read_sound,
    sound_of_tokens,
)
from testing_utils import tiny_config
from video_factory import corrupt, write_video


def tone(hz: float, duration_s: float, rate: int = 16_000, amplitude: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(duration_s * rate)) / rate)


def band_of(hz: float) -> int:
    """The band whose middle is nearest: 64 middles evenly between 50 and 7600 Hz on the HTK scale."""
    mel = lambda f: 2595 * math.log10(1 + f / 700)  # noqa: E731
    return round((mel(hz) - mel(50)) / (mel(7600) - mel(50)) * 65) - 1


def naive_frame(samples: np.ndarray, index: int) -> list[float]:
    """One frame by its definition: 640 samples around `320 * index`, a DFT, triangles on the mel scale."""
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / 640) for n in range(640)]
    cut = np.array([samples[n] if 0 <= n < len(samples) else 0.0 for n in range(320 * index - 320, 320 * index + 320)])
    energy = []
    for k in range(321):
        bin_ = np.sum(cut * window * np.exp(-2j * np.pi * k * np.arange(640) / 640))
        energy.append(abs(bin_) ** 2 / sum(weight**2 for weight in window))
    mels = np.linspace(2595 * math.log10(1 + 50 / 700), 2595 * math.log10(1 + 7600 / 700), 66)
    edges = [700 * (10 ** (mel / 2595) - 1) for mel in mels]
    values = []
    for low, middle, high in zip(edges, edges[1:], edges[2:]):
        total = 0.0
        for k in range(321):
            hz = 25 * k
            if low < hz <= middle:
                total += energy[k] * (hz - low) / (middle - low)
            elif middle < hz < high:
                total += energy[k] * (high - hz) / (high - middle)
        values.append((math.log10(total + 1e-6) + 6) / 8)
    return values


@pytest.fixture(scope="module")
def noise():
    """Two seconds that grow louder, as 16-bit samples have them."""
    rng = np.random.default_rng(0)
    return np.round(rng.standard_normal(32_100) * np.linspace(0, 0.2, 32_100) * 32768).clip(-32768, 32767) / 32768


def test_every_frame_is_its_definition(tmp_path, noise):
    found = read_sound(write_video(tmp_path / "a.mkv", 20, sound=noise))
    assert found.shape == (102, NUM_MELS) and found.dtype == np.float16
    for index in (0, 1, 2, 50, 99, 100, 101):
        np.testing.assert_allclose(found[index], naive_frame(noise, index), atol=1e-3)


def test_every_frame_is_that_of_stft(noise):
    samples = torch.from_numpy(np.concatenate([np.zeros(320), noise, np.zeros(640)]))
    window = torch.hann_window(640, dtype=torch.float64)
    spectrum = torch.stft(samples, 640, 320, window=window, center=False, return_complex=True)
    energy = (spectrum.abs() ** 2 / (window**2).sum()).T.numpy() @ mel_filters()
    expected = (np.log10(energy + 1e-6) + 6) / 8
    found = np.concatenate(list(log_mels([np.concatenate([np.zeros(320), noise]).astype(np.float32)])))
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-3)
    # left out is only what holds no sample
    assert np.abs(expected[len(found) :]).max(initial=0) < 1e-3 and len(found) == 102


def test_silence_is_0_and_a_tone_at_full_scale_1():
    silent = np.concatenate(list(log_mels([np.zeros(16_000, np.float32)])))
    assert (silent == 0).all()
    loud = np.concatenate(list(log_mels([tone(1000, 1.0, amplitude=1.0).astype(np.float32)])))
    assert loud[25].max() == pytest.approx(1, abs=0.03)
    assert (mel_filters().max(axis=0) > 0.5).all()


def test_sound_is_transformed_as_it_comes():
    rng = np.random.default_rng(1)
    samples = (0.1 * rng.standard_normal(2 * BLOCK_SAMPLES + 777)).astype(np.float32)
    whole = np.concatenate(list(log_mels([samples])))
    drawn = []
    blocks = (drawn.append(len(block)) or block for block in np.array_split(samples, 311))
    pieces = log_mels(blocks)
    first = next(pieces)
    assert sum(drawn) < 1.02 * BLOCK_SAMPLES
    np.testing.assert_array_equal(np.concatenate([first, *pieces]), whole)
    assert list(log_mels([])) == []


@pytest.mark.parametrize(
    "ending, codec, rate", [("mkv", "pcm_s16le", 44_100), ("mp4", "aac", 48_000), ("mkv", "aac", 16_000)]
)
@pytest.mark.parametrize("video_start_s, sound_start_s", [(0.0, 0.0), (0.0, 0.7), (1.7, 0.0), (1.7, 2.4)])
def test_a_tone_is_where_it_is_heard(tmp_path, ending, codec, rate, video_start_s, sound_start_s):
    """2000 Hz from 2.0 to 2.5 s after the first picture, wherever either stream begins."""
    before = np.zeros(round((video_start_s + 2 - sound_start_s) * rate))
    heard = np.concatenate([before, tone(2000, 0.5, rate), np.zeros(rate)])
    path = write_video(
        tmp_path / f"a.{ending}",
        40,
        start_s=video_start_s,
        sound=np.stack([heard, heard]),
        sound_rate=rate,
        sound_start_s=sound_start_s,
        sound_codec=codec,
    )
    found = read_sound(path).astype(np.float32)
    loud = np.flatnonzero(found.max(axis=1) > 0.7)
    # the windows of frames 99 to 125 reach into the tone
    assert loud[0] in (99, 100, 101) and loud[-1] in (124, 125, 126) and len(loud) == loud[-1] - loud[0] + 1
    assert set(found[102:124].argmax(axis=1)) == {band_of(2000)}
    assert found[:96].max() < 0.1 and found[130:].max() < 0.1
    # two channels that say the same are as loud as one: energy 0.25 * 107
    assert found[112].max() == pytest.approx((math.log10(0.25 * 107) + 6) / 8, abs=0.02)


def audio_frames(samples: np.ndarray, start_s: float, rate: int = 48_000, layout: str = "mono") -> list[av.AudioFrame]:
    """Frames of 1024 samples; every second one has no timestamp."""
    channels = np.atleast_2d(samples).astype(np.float32).repeat(2 if layout == "stereo" else 1, axis=0)
    frames = []
    for index, start in enumerate(range(0, channels.shape[1], 1024)):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels[:, start : start + 1024]), "fltp", layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = None if index % 2 else round(start_s * rate) + start
        frames.append(frame)
    return frames


def test_gaps_are_silent_and_streams_may_change():
    frames = [
        *audio_frames(tone(500, 0.5, 48_000), 10.0),
        *audio_frames(tone(1000, 0.5, 48_000), 11.0),
        *audio_frames(tone(2000, 0.5, 44_100), 11.5, 44_100, "stereo"),
        # what was heard already is not heard again
        *audio_frames(tone(4000, 1.0, 16_000), 11.5, 16_000),
    ]
    samples = np.concatenate(list(_contiguous(_chunks(frames, 9.5))))
    assert len(samples) == pytest.approx(320 + 3 * 16_000, abs=2)
    found = np.concatenate(list(log_mels([samples]))).astype(np.float32)
    truth = {(0, 24): None, (26, 49): 500, (51, 74): None, (76, 99): 1000, (101, 124): 2000, (126, 149): 4000}
    for (first, last), hz in truth.items():
        if hz is None:
            assert found[first : last - 1].max() < 0.2, (first, hz)
        else:
            assert set(found[first + 1 : last - 1].argmax(axis=1)) == {band_of(hz)}


def test_jitter_of_timestamps_leaves_no_holes():
    frames = audio_frames(tone(1000, 2.0, 48_000), 0.0)
    for index, frame in enumerate(frames[::2]):
        frame.pts += (-1) ** index * 900
    samples = np.concatenate([samples for _, samples in _chunks(frames, 0.0)])
    straight = np.concatenate([samples for _, samples in _chunks(audio_frames(tone(1000, 2.0, 48_000), 0.0), 0.0)])
    np.testing.assert_array_equal(samples, straight)


def test_a_clock_that_jumps_takes_no_memory():
    """By less than a day, silence comes block by block; what comes later is omitted, for videos last less."""
    pieces = _contiguous([(0, np.ones(10, np.float32)), (86_399 * 16_000, np.ones(10, np.float32))])
    assert max(len(next(pieces)) for _ in range(50)) <= BLOCK_SAMPLES
    late = [(0, np.ones(10, np.float32)), (86_400 * 16_000, np.ones(10, np.float32)), (10, np.ones(5, np.float32))]
    assert sum(map(len, _contiguous(late))) == 320 + 15


def test_what_has_no_sound(tmp_path):
    assert read_sound(write_video(tmp_path / "mute.mkv")) is None


def test_broken_sound_is_silent_and_what_follows_is_where_it_was(tmp_path):
    noise = 0.1 * np.random.default_rng(3).standard_normal(8 * 16_000)
    grey = {"draw": lambda number, height, width: np.full((height, width, 3), 128, np.uint8)}
    # little else than sound, so that half of a second of it is broken
    path = write_video(tmp_path / "a.mp4", 80, sound=noise, sound_codec="aac", height=32, width=32, **grey)
    whole = read_sound(path)
    found = read_sound(corrupt(path, 0.4, 0.5))
    assert len(found) == len(whole)
    differ = np.flatnonzero((found != whole).any(axis=1))
    assert 10 < len(differ) < 80 and 140 < differ[0] and differ[-1] < 240


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
def test_samples_that_are_no_sound_are_silent(tmp_path, value):
    heard = np.repeat([0.5, value, 0.5], 8000).astype(np.float32)
    silent = np.repeat([0.5, 0, 0.5], 8000).astype(np.float32)
    found, expected = (
        read_sound(write_video(tmp_path / f"{k}.mkv", 15, sound=sound, sound_codec="pcm_f32le"))
        for k, sound in enumerate((heard, silent))
    )
    np.testing.assert_array_equal(found, expected)
    assert found.max() > 0


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_every_sample_is_heard_to_the_last(rate):
    samples = [samples for _, samples in _chunks(audio_frames(tone(500, 1.0, rate), 0.0, rate), 0.0)]
    assert len(np.concatenate(samples)) == pytest.approx(16_000, abs=2)


@pytest.mark.parametrize(
    "token_rate, start_s", [(1.0, 0.0), (1.25, 0.4), (2.5, 1.1), (12.5, 0.0), (30.0, 0.5), (100.0, 0.0)]
)
def test_frames_of_tokens(token_rate, start_s):
    sound = np.random.default_rng(2).random((130, NUM_MELS)).astype(np.float16)
    found = sound_of_tokens(sound, 7, token_rate, start_s)
    count = {1.0: 50, 1.25: 40, 2.5: 20, 12.5: 4, 30.0: 2, 100.0: 1}[token_rate]
    assert found.shape == (7, count, NUM_MELS) and found.dtype == np.float32
    for token in range(7):
        first = math.floor((start_s + token / token_rate) * 50 + 0.5)
        for frame in range(count):
            expected = sound[first + frame] if first + frame < 130 else np.zeros(NUM_MELS)
            np.testing.assert_array_equal(found[token, frame], expected)
    nothing = sound_of_tokens(None, 7, token_rate)
    assert nothing.shape == found.shape and np.isnan(nothing).all()


@pytest.fixture
def model():
    """A tiny model whose branch for sound says something."""
    model = ComedianForActionSpotting(tiny_config(initializer_range=0.5, sound=True, sound_hidden_size=8)).eval()
    torch.nn.init.normal_(model.sound_encoder.projection.weight)
    torch.nn.init.normal_(model.sound_encoder.projection.bias)
    return model


def naive_sound_tokens(model: ComedianForActionSpotting, sound: torch.Tensor) -> torch.Tensor:
    """One token after the other, each convolution as a sum over the frames it sees."""
    weights = dict(model.sound_encoder.named_parameters())

    def convolve(frames: list, name: str, stride: int) -> list:
        outputs = []
        for centre in range(0, len(frames), stride):
            total = weights[f"{name}.bias"]
            for offset in range(-2, 3):
                if 0 <= centre + offset < len(frames):
                    total = total + weights[f"{name}.weight"][:, :, offset + 2] @ frames[centre + offset]
            outputs.append(F.gelu(total))
        return outputs

    tokens = []
    for frames in sound:
        frames = convolve(list(frames), "frame_layers.0", 2)
        tokens.append(torch.stack(convolve(frames, "frame_layers.1", 2)).mean(0))
    for layer in range(2):
        tokens = [token + more for token, more in zip(tokens, convolve(tokens, f"token_layers.{layer}", 1))]
    normed = F.layer_norm(torch.stack(tokens), (8,), weights["norm.weight"], weights["norm.bias"], 1e-6)
    return normed @ weights["projection.weight"].T + weights["projection.bias"]


@torch.no_grad()
def test_sound_is_added_to_the_tokens_before_the_heads(model):
    pixels, sound = torch.randn(2, 8, 3, 16, 16), torch.rand(2, 4, 50, NUM_MELS)
    tokens = model.comedian(pixels).last_hidden_state
    expected = tokens + torch.stack([naive_sound_tokens(model, window) for window in sound])
    outputs = model(pixels, sound=sound)
    torch.testing.assert_close(outputs.logits, model.classify(expected), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs.last_hidden_state, tokens)
    torch.testing.assert_close(model.fuse_sound(tokens, sound), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_window_without_sound_is_one_of_pictures_alone(model):
    pixels, sound = torch.randn(3, 8, 3, 16, 16), torch.rand(3, 4, 50, NUM_MELS)
    heard, alone = model(pixels, sound=sound).logits, model(pixels).logits
    sound[1] = torch.nan
    mixed = model(pixels, sound=sound).logits
    torch.testing.assert_close(mixed[1], alone[1], rtol=0, atol=0)
    torch.testing.assert_close(mixed[[0, 2]], heard[[0, 2]])
    # silence is not nothing
    assert not torch.allclose(model(pixels, sound=torch.zeros_like(sound)).logits, alone, atol=1e-2)


def test_a_window_without_sound_leaves_gradients_whole(model):
    sound = torch.rand(2, 4, 50, NUM_MELS)
    sound[1] = torch.nan
    model(torch.randn(2, 8, 3, 16, 16), sound=sound).logits.sum().backward()
    gradients = [parameter.grad for parameter in model.sound_encoder.parameters()]
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


@torch.no_grad()
def test_displacements_hear_too():
    model = ComedianForActionSpotting(tiny_config(initializer_range=0.5, sound=True, offset_radius_s=1.0)).eval()
    torch.nn.init.normal_(model.sound_encoder.projection.weight)
    pixels, sound = torch.randn(1, 8, 3, 16, 16), torch.rand(1, 4, 50, NUM_MELS)
    assert not torch.allclose(model(pixels, sound=sound).offsets_s, model(pixels).offsets_s, atol=1e-2)


@torch.no_grad()
def test_a_model_that_gains_sound_starts_as_itself(tmp_path):
    visual = ComedianForActionSpotting(tiny_config(initializer_range=0.5)).eval()
    visual.save_pretrained(tmp_path)
    model = ComedianForActionSpotting.from_pretrained(tmp_path, sound=True, sound_hidden_size=16)
    pixels, sound = torch.randn(2, 8, 3, 16, 16), torch.rand(2, 4, 50, NUM_MELS)
    torch.testing.assert_close(model(pixels, sound=sound).logits, visual(pixels).logits, rtol=0, atol=0)
    # the rest of the branch is no zero, or it would never learn
    assert all(
        layer.weight.std() > 0.01 for layer in [*model.sound_encoder.frame_layers, *model.sound_encoder.token_layers]
    )


def test_sound_that_does_not_fit_is_refused(model):
    tokens = torch.zeros(2, 4, 16)
    for shape in [(2, 3, 50, 64), (2, 4, 50, 32), (2, 4, 64)]:
        with pytest.raises(ValueError, match="`sound` is"):
            model.fuse_sound(tokens, torch.zeros(shape))
    with pytest.raises(ValueError, match="remove it"):
        ComedianForActionSpotting(tiny_config()).fuse_sound(tokens, torch.zeros(2, 4, 50, 64))
    with pytest.raises(StrictDataclassError, match="sound_hidden_size"):
        tiny_config(sound=True, sound_hidden_size=0)

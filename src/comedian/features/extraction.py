"""Videos -> a feature bank, with one of our own models or any Hugging Face video or image model."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from comedian.errors import InputError
from comedian.features.bank import FeatureHeader, FeatureJob, FillReport, fill_bank
from comedian.inference.loading import LOADING_ERRORS, describe, loading_error, name_with_hash, to_device
from comedian.inference.model_names import find_model
from comedian.inference.openvino_model import load_openvino_model
from comedian.inference.scoring import WINDOWS_PER_BATCH, FrameEncoder, encode_half
from comedian.inference.torch_model import TorchEncoder
from comedian.models import ComedianConfig, ComedianModel, ComedianVideoProcessor
from comedian.models.time_grid_comedian import token_timestamps_s
from comedian.models.windows_comedian import fill, windows_of
from comedian.sharing import Shard, length_of_video
from comedian.soccernet.layout import find_halves, find_matches
from comedian.video.decoding import iter_frames, probe
from comedian.video.frame_store import source_of


class Extractor(Protocol):
    """Makes the features of a video.

    Attributes:
        source: what makes them, in words that change whenever the features would.
        fps: features a second.
        offset_s: time of the first feature, in seconds from the first video frame.
    """

    source: str
    fps: float
    offset_s: float

    def __call__(self, video: Path) -> np.ndarray:
        """Return the features of a video, float32 `(num_features, dim)`."""


class ComedianExtractor:
    """The temporal tokens of one of our own models, each from the window in which it is most central.

    Args:
        model: encodes frames.
        source: what makes the features, see [`Extractor`].
        batch_size: windows at once.
    """

    def __init__(self, model: FrameEncoder, source: str, batch_size: int = WINDOWS_PER_BATCH):
        self.model, self.batch_size = model, batch_size
        config = model.config
        self.fps = config.token_rate
        self.offset_s = float(token_timestamps_s(1, config.fps, config.tubelet_size)[0])
        self.source = f"{source}, windows of {config.num_tokens} tokens"

    @classmethod
    def from_pretrained(
        cls, name: str, device: str | None = None, batch_size: int = WINDOWS_PER_BATCH
    ) -> "ComedianExtractor":
        """Load the backbone of a model of ours, whatever it was trained for, or graphs of OpenVINO.

        Raises:
            InputError: the model or the device cannot be had, or weights are missing.
        """
        place = find_model(name)
        if place.is_graphs:
            graphs = load_openvino_model(place, device)
            digest = hashlib.sha256((graphs.fingerprint() + graphs.hash_weights()).encode())
            return cls(graphs, name_with_hash(name, digest.hexdigest()), batch_size)
        source, subfolder = place.source, place.subfolder
        try:
            model, loading = ComedianModel.from_pretrained(
                source, subfolder=subfolder, dtype=torch.float32, output_loading_info=True, use_safetensors=True
            )
            height, width = model.config.image_size
            size = {"height": height, "width": width}
            processor = ComedianVideoProcessor.from_pretrained(source, subfolder=subfolder, size=size)
        except LOADING_ERRORS as error:
            raise loading_error(name, error) from error
        if loading["missing_keys"]:
            raise InputError(f"`{name}` has no weights for {sorted(loading['missing_keys'])[0]}; give a trained model")
        encoder = TorchEncoder(to_device(model, device), processor)
        return cls(encoder, describe(name, model, processor.to_json_string()), batch_size)

    def __call__(self, video: Path) -> np.ndarray:
        """Return the features of a video, float32 `(num_tokens, hidden_size)`."""
        config = self.model.config
        frames = (frame for _, frame in iter_frames(video, config.fps, config.frame_size))
        return central_features(self.model, encode_half(self.model, frames), self.batch_size)


def central_features(model: FrameEncoder, tokens: np.ndarray, batch_size: int = WINDOWS_PER_BATCH) -> np.ndarray:
    """Relate each token of a half to those around it: token `k` of the window that starts at `k - num_tokens // 2`.

    Near the edges of the half it is the first or the last window. A half shorter than a window repeats its last token.

    Args:
        model: relates the tokens of a window.
        tokens (`np.ndarray` of shape `(num_tokens, hidden_size)`): spatial tokens, from `scoring.encode_half`.
        batch_size: windows at once.

    Returns:
        `np.ndarray` of shape `(num_tokens, hidden_size)`, float32.
    """
    length, window = len(tokens), model.config.num_tokens
    tokens = fill(tokens, window)
    starts = np.arange(len(tokens) - window + 1)
    centre = window // 2
    features = []
    for first in range(0, len(starts), batch_size):
        encoded = model.encode_windows(windows_of(tokens, starts[first : first + batch_size], window))
        if first == 0:
            features.append(encoded[0, :centre])
        features.append(encoded[:, centre])
    features.append(encoded[-1, centre + 1 :])
    return np.concatenate(features)[:length]


def load_extractor(
    name: str,
    *,
    clip_s: float | None = None,
    fps: float | None = None,
    hop_s: float | None = None,
    batch_size: int = WINDOWS_PER_BATCH,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> Extractor:
    """Load a model to extract features with: one of ours, or any video or image model of transformers.

    Args:
        name: a folder or a Hub repository.
        clip_s: seconds of a clip, by default 4; for models that are not ours.
        fps: frames a second of a clip, see `PretrainedExtractor`; likewise.
        hop_s: seconds from one feature to the next, by default 1; likewise.
        batch_size: windows or clips at once.
        device: where to run; an accelerator by default, where there is one.
        trust_remote_code: run the code that comes with the model.

    Raises:
        InputError: the model or the device cannot be had, or the clips are not what the model takes.
    """
    if batch_size < 1:
        raise InputError(f"`batch_size` is {batch_size}; give 1 or more")
    if find_model(name).config.get("model_type") == ComedianConfig.model_type:
        if any(value is not None for value in (clip_s, fps, hop_s)):
            raise InputError(f"`{name}` has its own windows and a feature a token; leave out clip length, fps and hop")
        return ComedianExtractor.from_pretrained(name, device, batch_size)

    from comedian.features.pretrained import PretrainedExtractor

    return PretrainedExtractor(
        name,
        clip_s=4.0 if clip_s is None else clip_s,
        fps=fps,
        hop_s=1.0 if hop_s is None else hop_s,
        batch_size=batch_size,
        device=device,
        trust_remote_code=trust_remote_code,
    )


def extract_features(
    root: str | Path,
    bank: str | Path,
    extractor: Extractor,
    *,
    video_ids: Sequence[str] | None = None,
    shard: Shard | None = None,
    dtype: str = "float16",
    progress: bool = True,
) -> FillReport:
    """Extract the features of every half under `root`, shared by all processes that do; see [`fill_bank`].

    Args:
        root: the data set's folder, in SoccerNet's layout.
        bank: the bank's folder; made when missing.
        extractor: see `load_extractor`.
        video_ids: only these matches, see `matches_of_splits`; all by default.
        shard: only this fixed share of the halves, by the bytes of their videos.
        dtype: `float16` or `float32`.
        progress: show a bar.

    Raises:
        InputError: there are no videos, one cannot be decoded, or the bank holds features of another kind.
    """
    root = Path(root)
    halves = [
        (video_id, half, video)
        for video_id in (find_matches(root) if video_ids is None else video_ids)
        for half, video in find_halves(root / video_id).items()
    ]
    if not halves:
        raise InputError(f"no videos under `{root}`; they lie in SoccerNet's layout, such as `match/1_224p.mkv`")
    if shard is not None:
        halves = shard.of(halves, lambda found: length_of_video(found[2]))
    jobs = [
        FeatureJob(video_id, half, _header(extractor, video), partial(extractor, video))
        for video_id, half, video in halves
    ]
    return fill_bank(bank, jobs, dtype, progress=progress)


def _header(extractor: Extractor, video: Path) -> FeatureHeader:
    return FeatureHeader(
        fps=extractor.fps,
        offset_s=extractor.offset_s,
        duration_s=probe(video).duration_s,
        source=extractor.source,
        video=source_of(video),
    )

"""Models on PyTorch as `scoring` takes them, and loading them from folders and the Hub."""

import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from huggingface_hub.errors import HfHubHTTPError, StrictDataclassError
from safetensors import SafetensorError
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from comedian.errors import InputError
from comedian.hub_errors import hub_errors
from comedian.inference.loading import reason_of, to_device
from comedian.inference.model_names import REMEDY, FoundModel, find_model
from comedian.inference.scoring import MAX_WORKERS, Result, map_in_threads
from comedian.models import ComedianConfig, ComedianForActionSpotting, ComedianModel, ComedianVideoProcessor
from comedian.models.pipeline_comedian import autocast, score_arrays
from comedian.models.saved_code_comedian import custom_class_of

# tubelets encoded at once: enough to fill the matrix units, small enough for the caches of a CPU
TUBELETS_PER_BATCH = 16
TUBELETS_PER_ACCELERATOR_BATCH = 128


def map_batches(
    work: Callable[[np.ndarray], Result], batches: Iterable[np.ndarray], device: torch.device
) -> Iterator[Result]:
    """Yield `work(batch)` in order, worked on in threads while the caller's own thread makes the next batches.

    Each core of a CPU takes a batch of its own (of many cores, a few share one), so that none waits for another, nor
    for the one that is decoding; an accelerator takes one after the other. The threads begin without
    `torch.inference_mode` and autocast.
    """
    num_threads = torch.get_num_threads()
    workers = min(num_threads, MAX_WORKERS) if device.type == "cpu" else 1
    try:
        threads_each = (max(num_threads // workers, 1),)
        yield from map_in_threads(work, batches, workers, torch.set_num_threads, threads_each)
    finally:
        # threads that are created later use the number that was set last
        torch.set_num_threads(num_threads)


class TorchEncoder:
    """A backbone on PyTorch, see [`FrameEncoder`].

    Args:
        model: put in eval mode.
        processor: resizes and normalises.
    """

    def __init__(self, model: ComedianModel | ComedianForActionSpotting, processor: ComedianVideoProcessor):
        self.model, self.processor = model.eval(), processor

    @property
    def config(self) -> ComedianConfig:
        """The model's."""
        return self.model.config

    @property
    def tubelets_per_batch(self) -> int:
        """Tubelets to encode at once where the model is."""
        return TUBELETS_PER_BATCH if self.model.device.type == "cpu" else TUBELETS_PER_ACCELERATOR_BATCH

    @property
    def decoder_threads(self) -> int:
        """All cores (0) for the decoder, or a few where the model needs them too."""
        return 0 if self.model.device.type != "cpu" else max(1, torch.get_num_threads() // 4)

    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> np.ndarray:
        """See [`FrameEncoder`]."""
        pixels = self.processor(frames, return_tensors="pt", device=self.model.device)["pixel_values_videos"]
        with autocast(self.model):
            return self.model.encode_spatial(pixels)[0].float().cpu().numpy()

    @torch.inference_mode()
    def encode_windows(self, windows: np.ndarray) -> np.ndarray:
        """See [`FrameEncoder`]."""
        tokens = torch.from_numpy(windows).to(self.model.device, self.model.dtype)
        with autocast(self.model):
            return self.model.encode_temporal(tokens).float().cpu().numpy()

    def map(self, work: Callable[[np.ndarray], Result], batches: Iterable[np.ndarray]) -> Iterator[Result]:
        """See [`FrameEncoder`]."""
        return map_batches(work, batches, self.model.device)


class TorchModel(TorchEncoder):
    """A spotting model on PyTorch, see [`SpottingModel`].

    Args:
        model: put in eval mode.
        processor: resizes and normalises.

    Raises:
        InputError: a weight is not finite.
    """

    def __init__(self, model: ComedianForActionSpotting, processor: ComedianVideoProcessor):
        super().__init__(model, processor)
        try:
            model.require_finite_weights()
        except ValueError as error:
            raise InputError(f"`{self.name}`: {error}") from None

    @property
    def name(self) -> str:
        """Folder or repository that the model was loaded from."""
        return self.model.name_or_path or "model"

    @torch.inference_mode()
    def score(self, windows: np.ndarray, sound: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """See [`SpottingModel`]."""
        return score_arrays(self.model, windows, sound)

    def hash_weights(self) -> str:
        """See [`SpottingModel`]."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """See [`SpottingModel`]."""
        return self.config.to_json_string() + self.processor.to_json_string()


def load_model(
    name: str, device: str | torch.device | None = None
) -> tuple[ComedianForActionSpotting, ComedianVideoProcessor]:
    """Load a spotting model, in float32, and its processor.

    Args:
        name: a folder or a Hub repository, or a folder in one (`user/repository/folder`).
        device: where to put the model; an accelerator by default, where there is one.

    Raises:
        InputError: `name` contains no spotting model of this package, or an ensemble, or the device cannot be used.
    """
    return load_found_model(find_model(name), device)


def class_of(found: FoundModel, trust_remote_code: bool = False) -> type[ComedianForActionSpotting]:
    """Return the class of a model, which may be a subclass in a file of its folder.

    Raises:
        InputError: the folder names a class of its own, and `trust_remote_code` is not set or the class cannot be
            imported.
    """
    named = custom_class_of(found.config.get("auto_map"))
    if named is None:
        return ComedianForActionSpotting
    if not trust_remote_code:
        raise InputError(
            f"`{found.name}` is a model of the class `{named}`, whose code is in its folder; review that code, then "
            "allow it with `trust_remote_code=True` or `--trust-remote-code`"
        )
    try:
        return get_class_from_dynamic_module(named, found.source)
    except (OSError, ImportError, AttributeError) as error:
        raise InputError(f"the class `{named}` of `{found.name}` cannot be imported: {error}") from error


def load_found_model(
    found: FoundModel, device: str | torch.device | None = None, trust_remote_code: bool = False
) -> tuple[ComedianForActionSpotting, ComedianVideoProcessor]:
    """Load a spotting model that `find_models` found; see [`load_model`]."""
    name, source, subfolder = found.name, found.source, found.subfolder
    if found.config.get("model_type") != ComedianConfig.model_type:
        raise InputError(
            f"`{name}` holds a model of type {found.config.get('model_type')!r}, not 'comedian'; {REMEDY}"
        )
    if found.is_graphs:
        raise InputError(
            f"`{name}` holds OpenVINO graphs, which only `comedian spot` and `comedian extract-features` run; give the "
            "model that they were exported from"
        )
    try:
        model, loading = class_of(found, trust_remote_code).from_pretrained(
            source, subfolder=subfolder, dtype=torch.float32, output_loading_info=True, use_safetensors=True
        )
        height, width = model.config.image_size
        size = {"height": height, "width": width}
        place = {"subfolder": subfolder} if found.base is None else {}
        processor = ComedianVideoProcessor.from_pretrained(found.base or source, size=size, **place)
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            with hub_errors(source, "model"):
                raise error.__cause__ from None
        raise InputError(f"`{name}` cannot be loaded: {reason_of(error)}; {REMEDY}") from error
    if loading["missing_keys"]:
        raise InputError(
            f"`{name}` has no weights for {sorted(loading['missing_keys'])[0]}; give a model that was trained to spot"
        )
    return to_device(model, device), processor

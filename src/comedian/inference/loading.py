"""Loading of models: which errors mean an unusable folder, the device, what distinguishes weights from others."""

import hashlib
import json
import os
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from comedian.errors import InputError
from comedian.sharing import local_rank

LOADING_ERRORS = (OSError, ValueError, RuntimeError, ImportError, SafetensorError, StrictDataclassError)
_NOT_HASHED = ("_name_or_path", "transformers_version")


def describe(name: str, model: PreTrainedModel, preprocessing: str) -> str:
    """Return a model's name and a hash of its configuration, its weights and its preprocessing, independent of its
    location."""
    config = {key: value for key, value in model.config.to_dict().items() if key not in _NOT_HASHED}
    digest = hashlib.sha256((json.dumps(config, sort_keys=True, default=str) + preprocessing).encode())
    hash_tensors(digest, model)
    return name_with_hash(name, digest.hexdigest())


def hash_tensors(digest: "hashlib._Hash", module: nn.Module) -> None:
    """Add a module's weights and buffers, with their names, to a hash."""
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.cpu().reshape(-1).contiguous().view(torch.uint8).numpy())


def name_with_hash(name: str, digest: str) -> str:
    """Return the name of a folder (without its parents) or repository, and the beginning of a hash."""
    return f"{Path(name).resolve().name if os.path.isdir(name) else name} ({digest[:12]})"


def to_device(model: PreTrainedModel, device: str | torch.device | None) -> PreTrainedModel:
    """Move a model to a device; by default to an accelerator, where there is one.

    Processes that were launched together on one machine each take another of its accelerators.

    Raises:
        InputError: the device cannot be used.
    """
    try:
        return model.to(device or _default_device())
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device `{device}` cannot be used: {reason_of(error)}; try `cpu`") from error


def _default_device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return torch.device("cpu")
    return torch.device(accelerator.type, local_rank() % torch.accelerator.device_count())


def loading_error(name: str, error: Exception) -> InputError:
    """Return a one-line reason why a model cannot be loaded."""
    return InputError(f"`{name}` cannot be loaded: {reason_of(error)}; give a model's folder or Hub repository")


def reason_of(error: Exception) -> str:
    """Return the line of an error's message that names the reason, without its full stop."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    # a configuration's error names the validator first and the reason last
    return lines[-1 if isinstance(error, StrictDataclassError) else 0].strip().rstrip(".")

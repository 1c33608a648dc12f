"""One model from several checkpoints of a run: the mean of their weights."""

from collections.abc import Iterable

import torch

from comedian.errors import InputError
from comedian.models import ComedianConfig, ComedianForActionSpotting
from comedian.models.settings_comedian import CHOSEN_ON_VALIDATION

# of no weight: where a model was saved, and by which version
INCIDENTAL = ("_name_or_path", "transformers_version", "dtype", *CHOSEN_ON_VALIDATION)


def average_models(
    first: ComedianForActionSpotting, others: Iterable[tuple[str, ComedianForActionSpotting]]
) -> ComedianForActionSpotting:
    """Average the weights of models of one run, summed up in float32, one model in memory beside the sum.

    The settings are the first model's, without what was chosen on validation for its weights alone.

    Args:
        first: becomes the average.
        others: what to call a model in messages, and the model; drawn one after the other.

    Returns:
        `first`, with the mean of all weights in its own dtypes. Buffers that are no floats stay.

    Raises:
        InputError: no other model, or one of another configuration.
        ValueError: a weight of one of them is not finite.
    """
    expected = _shared_settings(first.config)
    total, count = {name: tensor.float() for name, tensor in _floats(first).items()}, 1
    for name, model in others:
        found = _shared_settings(model.config)
        for field, value in expected.items():
            if found[field] != value:
                raise InputError(
                    f"`{name}` has `{field}` {found[field]}, the first checkpoint {value}; only checkpoints of one run can "
                    "be averaged"
                )
        total = {key: total[key] + tensor.float() for key, tensor in _floats(model).items()}
        count += 1
    if count == 1:
        raise InputError("an average is of several checkpoints; name two or more")
    for name, tensor in _floats(first).items():
        tensor.copy_(total[name] / count)
    # a NaN of any of them is one of the mean
    first.require_finite_weights()
    for field in CHOSEN_ON_VALIDATION:
        setattr(first.config, field, None)
    return first


def _floats(model: ComedianForActionSpotting) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def _shared_settings(config: ComedianConfig) -> dict:
    return {name: value for name, value in config.to_dict().items() if name not in INCIDENTAL}

"""Losses of COMEDIAN: pure functions of tensors."""

from torch import Tensor
from torch.nn import functional as F

IGNORE_INDEX = -100


def spotting_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    loss: str = "bce",
    class_weights: Tensor | None = None,
    focal_alpha: float | None = 0.25,
    focal_gamma: float = 2.0,
    sample_weights: Tensor | None = None,
) -> Tensor:
    """Multi-label loss of every token and label (COMEDIAN, stage 3).

    Both losses are linear in the target, `y * positive(x) + (1 - y) * negative(x)`, so soft targets are exact mixtures.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_tokens, num_labels)`): scores before the sigmoid.
        labels (`torch.Tensor` of the same shape): targets in [0, 1]; -100 leaves an entry out.
        loss (`str`): `"bce"` or `"focal"` (Lin et al., 2017).
        class_weights (`torch.Tensor` of shape `(2, num_labels)`, *optional*): row 0 weighs targets 0, row 1 targets 1.
        focal_alpha (`float`, *optional*): weight of positives (negatives get `1 - focal_alpha`); `None` for none.
        focal_gamma (`float`): focusing exponent.
        sample_weights (`torch.Tensor` of shape `(batch_size,)`, *optional*): factor of each sample, as mixup needs.

    Returns:
        `torch.Tensor` of shape `()`: the sum over all entries / the number of entries that count (at least 1), float32.

    Raises:
        ValueError: `labels` of another shape than `logits`.
    """
    if labels.shape != logits.shape:
        raise ValueError(f"`labels` has shape {tuple(labels.shape)}; the logits have {tuple(logits.shape)}")
    logits = logits.float()
    counted = labels != IGNORE_INDEX
    targets = labels.to(logits.dtype).masked_fill(~counted, 0.0)
    positive, negative = F.softplus(-logits), F.softplus(logits)
    if loss == "focal":
        # (1 - p)**gamma is exp(-gamma * softplus(x)), whose gradient stays finite where p rounds to 0 or 1
        positive, negative = positive * (-focal_gamma * negative).exp(), negative * (-focal_gamma * positive).exp()
        if focal_alpha is not None:
            positive, negative = focal_alpha * positive, (1 - focal_alpha) * negative
    if class_weights is not None:
        negative, positive = class_weights[0] * negative, class_weights[1] * positive
    entries = targets * positive + (1 - targets) * negative
    if sample_weights is not None:
        entries = entries * sample_weights[:, None, None]
    return (entries * counted).sum() / counted.sum().clamp(min=1)


def mixup_spotting_loss(
    logits: Tensor, labels: Tensor, mixup_targets: Tensor, mixup_weights: Tensor, **kwargs
) -> Tensor:
    """Loss of inputs mixed two by two (COMEDIAN, stage 3b).

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_tokens, num_labels)`): of the mixed inputs.
        labels (`torch.Tensor` of the same shape): each sample's own targets.
        mixup_targets (`torch.Tensor` of the same shape): the targets of what was mixed in.
        mixup_weights (`torch.Tensor` of shape `(batch_size,)`): share of the sample's own input.
        kwargs: see [`spotting_loss`].

    Returns:
        `torch.Tensor` of shape `()`.
    """
    own = spotting_loss(logits, labels, sample_weights=mixup_weights, **kwargs)
    return own + spotting_loss(logits, mixup_targets, sample_weights=1 - mixup_weights, **kwargs)

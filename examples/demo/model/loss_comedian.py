"""Losses of COMEDIAN: pure functions of tensors."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

IGNORE_INDEX = -100
# queries of one clip each that are compared with the queue at once
QUERIES_PER_CHUNK = 256


def spotting_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    loss: str = "bce",
    class_weights: Tensor | None = None,
    focal_alpha: float | None = 0.25,
    focal_gamma: float = 2.0,
    sample_weights: Tensor | None = None,
    of_all_processes: bool = False,
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
        of_all_processes (`bool`): see [`mean_of_counted`].

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
    return mean_of_counted(entries, counted, of_all_processes)


def mean_of_counted(entries: Tensor, counted: Tensor, of_all_processes: bool = False) -> Tensor:
    """Mean of the entries that count; 0 where none does.

    Args:
        entries (`torch.Tensor`): losses.
        counted (`torch.Tensor` of the same shape): bool, which of them count.
        of_all_processes (`bool`): divide by the number that counts on a process on average: the mean over the processes, of
            losses and of gradients, is then that over all their entries. All processes must call it.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    number, processes = counted.sum(), 1
    if of_all_processes and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(number)
        processes = torch.distributed.get_world_size()
    return (entries * counted).sum() * processes / number.clamp(min=1)


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


def offset_loss(
    offsets_s: Tensor,
    targets_s: Tensor,
    radius_s: float,
    sample_weights: Tensor | None = None,
    of_all_processes: bool = False,
) -> Tensor:
    """Smooth L1 of the displacements, in units of their radius, where there is an event to point at.

    Args:
        offsets_s (`torch.Tensor` of shape `(batch_size, num_tokens, num_labels)`): seconds from token to event.
        targets_s (`torch.Tensor` of the same shape): the same, of the nearest event; NaN where none is within the radius.
        radius_s (`float`): the largest displacement.
        sample_weights (`torch.Tensor` of shape `(batch_size,)`, *optional*): factor of each sample, as mixup needs.
        of_all_processes (`bool`): see [`mean_of_counted`].

    Returns:
        `torch.Tensor` of shape `()`: the mean over the entries that count, float32; 0 where none does.

    Raises:
        ValueError: `targets_s` of another shape than `offsets_s`.
    """
    if targets_s.shape != offsets_s.shape:
        raise ValueError(
            f"`offset_targets_s` has shape {tuple(targets_s.shape)}; offsets have {tuple(offsets_s.shape)}"
        )
    counted = ~targets_s.isnan()
    targets = targets_s.float().nan_to_num() / radius_s
    entries = F.smooth_l1_loss(offsets_s.float() / radius_s, targets, reduction="none")
    if sample_weights is not None:
        entries = entries * sample_weights[:, None, None]
    return mean_of_counted(entries, counted, of_all_processes)


class _Chunk(NamedTuple):
    """Some queries and the keys that they alone are compared with, beside the queue.

    Attributes:
        rows: which queries, `n` of them.
        keys: `(num_keys, dim)`.
        positive: bool `(n, num_keys)`, the keys that a query should be close to.
        allowed: bool `(n, num_keys)`, the keys that a query is compared with.
    """

    rows: slice
    keys: Tensor
    positive: Tensor
    allowed: Tensor


@torch.no_grad()
def _soft_contrastive_entropy(
    queries: Tensor,
    teachers: Tensor,
    queue: Tensor,
    chunks: Iterable[_Chunk],
    temperature: float,
    momentum_temperature: float,
    contrastive_weight: float,
    zeroed: bool,
) -> tuple[Tensor, Tensor]:
    """Sum over queries of the cross-entropy between soft targets `w` and scores `p` over local keys and queue.

    The gradient with respect to the queries is `(p - w) @ keys / temperature`. It is computed from the scores of each
    chunk, which are not kept: memory is that of one chunk, in the forward and in the backward pass.

    Of query `i` and key `j`, over all keys that `i` is compared with, and with `e` the contrastive weight (0 for a query
    without positives):

    - `p_ij = softmax_j(query_i . key_j / temperature)`
    - `s_ij = softmax_j(teacher_i . key_j / momentum_temperature)`, where a positive has the similarity 0 with `zeroed`,
      and is left out without
    - `w_ij = e * positive_ij / num_positives_i + (1 - e) * s_ij`

    Returns:
        The sum, and its gradient `(n, dim)`.
    """
    total = queries.new_zeros(())
    gradient = torch.empty_like(queries)
    lowest = torch.finfo(queries.dtype).min
    scores = similar = queries.new_empty((0, 0))
    # every pass over a chunk counts: all is done in place, in two buffers for all chunks
    for rows, keys, positive, allowed in chunks:
        num_keys = len(keys)
        shape = (len(positive), num_keys + len(queue))
        if scores.shape != shape:
            scores, similar = queries.new_empty(shape), queries.new_empty(shape)
        # (n, num_keys)
        own = positive.to(queries.dtype)
        own /= own.sum(dim=1, keepdim=True).clamp(min=1)
        # (n, num_keys + len(queue)), as `similar` and `residual`
        _compare(queries[rows] / temperature, keys, queue, scores)
        scores[:, :num_keys].masked_fill_(~allowed, lowest)
        if contrastive_weight < 1:
            # a query without positives aims at the similar keys alone
            # (n, 1)
            share = contrastive_weight * own.sum(dim=1, keepdim=True)
            own *= contrastive_weight
            _compare(teachers[rows] / momentum_temperature, keys, queue, similar)
            similar[:, :num_keys].masked_fill_(positive, 0.0 if zeroed else lowest).masked_fill_(~allowed, lowest)
            similar.sub_(similar.amax(dim=1, keepdim=True)).exp_()
            # (n, 1); the weights `(1 - e) * s` are `rest * similar`
            rest = (1 - share) / similar.sum(dim=1, keepdim=True)
            total -= (rest * torch.bmm(similar[:, None], scores[:, :, None])[:, 0]).sum()
        total -= (own * scores[:, :num_keys]).sum()
        # (n, 1): minus the logarithm of `p` is `highest + log(sums) - scores`
        highest = scores.amax(dim=1, keepdim=True)
        sums = scores.sub_(highest).exp_().sum(dim=1, keepdim=True)
        total += (highest + sums.log()).sum()
        # p - w
        residual = scores.div_(sums)
        residual[:, :num_keys] -= own
        if contrastive_weight < 1:
            residual.addcmul_(similar, rest, value=-1)
        # (n, dim)
        gradient[rows] = residual[:, :num_keys] @ keys + residual[:, num_keys:] @ queue
    return total, gradient.div_(temperature)


class _WithGradient(torch.autograd.Function):
    """A number and its known gradient with respect to some queries."""

    @staticmethod
    def forward(queries: Tensor, total: Tensor, gradient: Tensor) -> Tensor:
        """Return the number."""
        return total.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keep the gradient."""
        ctx.save_for_backward(inputs[2])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        """The queries alone have a gradient."""
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None


def _compare(rows: Tensor, keys: Tensor, queue: Tensor, out: Tensor) -> None:
    """Write the products of `rows` `(n, dim)` with keys and queue side by side into `out` `(n, num_keys + queue_size)`."""
    for columns, others in ((out[:, : len(keys)], keys), (out[:, len(keys) :], queue)):
        # compilers write to no part of a tensor
        if torch.compiler.is_compiling():
            columns.copy_(rows @ others.T)
        else:
            torch.mm(rows, others.T, out=columns)


def _soft_contrastive_mean(
    queries: Tensor, teachers: Tensor, queue: Tensor, chunks: Iterable[_Chunk], *settings: float | bool
) -> Tensor:
    """Mean of [`_soft_contrastive_entropy`] over `queries` `(n, dim)`, in float32 or better whatever autocast says."""
    dtype = torch.promote_types(queries.dtype, torch.float32)
    device = queries.device.type
    # some devices, meta for one, have no autocast to switch off
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        queries, teachers, queue = queries.to(dtype), teachers.to(dtype), queue.to(dtype)
        total, gradient = _soft_contrastive_entropy(queries.detach(), teachers, queue, chunks, *settings)
        return _WithGradient.apply(queries, total, gradient) / len(queries)


def soft_contrastive_loss(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    *,
    temperature: float = 0.1,
    momentum_temperature: float = 0.07,
    contrastive_weight: float = 1.0,
    use_batch_keys: bool = False,
    first_key: int = 0,
) -> Tensor:
    """Soft contrastive loss of clips (COMEDIAN, stage 1; SCE, Denize et al., 2023).

    Args:
        queries (`torch.Tensor` of shape `(batch_size, dim)`): predictions for one view, L2-normalised.
        keys (`torch.Tensor` of shape `(num_keys, dim)`): momentum embeddings of the other view, L2-normalised; those of all
            processes where there are several.
        queue (`torch.Tensor` of shape `(queue_size, dim)`): embeddings of earlier clips.
        temperature (`float`): of the queries' scores.
        momentum_temperature (`float`): of the target's similarities.
        contrastive_weight (`float`): share of the positive in the target; 1 is InfoNCE.
        use_batch_keys (`bool`): compare with the other clips' keys too. Otherwise the positive's own slot counts as
            similarity 0 in the target, as published.
        first_key (`int`): index in `keys` of the first query's positive.

    Returns:
        `torch.Tensor` of shape `()`: the mean over the queries.
    """
    teachers = keys[first_key : first_key + len(queries)]
    dtype = torch.promote_types(queries.dtype, torch.float32)

    def chunks() -> Iterator[_Chunk]:
        for start in range(0, len(queries), QUERIES_PER_CHUNK):
            rows = slice(start, min(start + QUERIES_PER_CHUNK, len(queries)))
            positions = torch.arange(rows.start, rows.stop, device=keys.device)
            if use_batch_keys:
                positive = positions[:, None] + first_key == torch.arange(len(keys), device=keys.device)
                yield _Chunk(rows, keys.to(dtype), positive, torch.ones_like(positive))
            else:
                positive = positions[:, None] == positions
                yield _Chunk(rows, teachers[rows].to(dtype), positive, positive)

    settings = (temperature, momentum_temperature, contrastive_weight, not use_batch_keys)
    return _soft_contrastive_mean(queries, teachers, queue, chunks(), *settings)


def token_contrastive_loss(
    queries: Tensor,
    features: Tensor,
    queue: Tensor,
    *,
    temperature: float = 0.1,
    momentum_temperature: float = 0.05,
    contrastive_weight: float = 0.5,
    negatives: str = "window",
    positive_radius: int = 0,
    use_aligned: bool = True,
    all_features: Tensor | None = None,
    first_window: int = 0,
) -> Tensor:
    """Soft contrastive loss of tokens against a teacher's features of the same seconds (COMEDIAN, stage 2).

    A few windows at a time: memory grows with the queue, not with the batch.

    Args:
        queries (`torch.Tensor` of shape `(batch_size, num_tokens, dim)`): projected temporal tokens, L2-normalised.
        features (`torch.Tensor` of the same shape): the teacher's, L2-normalised.
        queue (`torch.Tensor` of shape `(queue_size, dim)`): features of earlier windows.
        temperature (`float`): of the queries' scores.
        momentum_temperature (`float`): of the target's similarities.
        contrastive_weight (`float`): share of the positives in the target.
        negatives (`str`): what a token is compared with beside its positives and the queue: `"window"`: the features of its
            own window; `"batch"`: those of all windows; `"queue"`: nothing.
        positive_radius (`int`): features of the same window within so many tokens are positives.
        use_aligned (`bool`): whether the feature of the token's own second counts at all.
        all_features (`torch.Tensor` of shape `(num_windows, num_tokens, dim)`, *optional*): for `"batch"`, the features of
            all processes; `features` by default.
        first_window (`int`): index in `all_features` of the first window.

    Returns:
        `torch.Tensor` of shape `()`: the mean over the tokens.
    """
    batch_size, num_tokens, _ = queries.shape
    dtype = torch.promote_types(queries.dtype, torch.float32)
    positions = torch.arange(num_tokens, device=queries.device)
    distance = (positions[:, None] - positions).abs()
    counted = torch.ones_like(distance, dtype=torch.bool) if use_aligned else distance > 0
    positive = (distance <= positive_radius) & counted
    allowed = positive if negatives == "queue" else counted
    others = (features if all_features is None else all_features).flatten(0, 1).to(dtype)

    def chunks() -> Iterator[_Chunk]:
        # several windows at once: the queue is read from memory once for all of them
        step = max(QUERIES_PER_CHUNK // num_tokens, 1)
        for start in range(0, batch_size, step):
            windows = slice(start, min(start + step, batch_size))
            count = windows.stop - windows.start
            rows = slice(windows.start * num_tokens, windows.stop * num_tokens)
            own_positive, own_allowed = (torch.block_diag(*[mask] * count) for mask in (positive, allowed))
            if negatives != "batch":
                yield _Chunk(rows, features[windows].flatten(0, 1).to(dtype), own_positive, own_allowed)
                continue
            own = slice(rows.start + first_window * num_tokens, rows.stop + first_window * num_tokens)
            whole_positive = positive.new_zeros(len(own_positive), len(others))
            whole_positive[:, own] = own_positive
            # all but what is kept out of a window's own
            whole_allowed = torch.ones_like(whole_positive)
            whole_allowed[:, own] = ~torch.block_diag(*[~allowed] * count)
            yield _Chunk(rows, others, whole_positive, whole_allowed)

    settings = (temperature, momentum_temperature, contrastive_weight, False)
    return _soft_contrastive_mean(queries.flatten(0, 1), features.flatten(0, 1), queue, chunks(), *settings)

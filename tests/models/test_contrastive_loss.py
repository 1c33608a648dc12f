"""The losses of stages 1 and 2 against loops over single queries, closed forms, and finite differences."""

import math

import pytest
import torch
from torch.nn import functional as F

from comedian.models import loss_comedian
from comedian.models.loss_comedian import QUERIES_PER_CHUNK, soft_contrastive_loss, token_contrastive_loss


def unit(*shape, dtype=torch.float64):
    return F.normalize(torch.randn(*shape, dtype=dtype), dim=-1)


def query_loss(query, teacher, candidates, positives, zeroed, temperature, momentum_temperature, weight):
    """Loss of one query over a list of keys; `positives` are indices, `zeroed` counts them as similarity 0, not none."""
    scores = [math.exp(float(query @ key) / temperature) for key in candidates]
    similar = []
    for index, key in enumerate(candidates):
        if index in positives:
            similar.append(1.0 if zeroed else 0.0)
        else:
            similar.append(math.exp(float(teacher @ key) / momentum_temperature))
    targets = [(1 - weight) * value / sum(similar) for value in similar]
    for index in positives:
        targets[index] += weight / len(positives)
    targets = [value / sum(targets) for value in targets]
    return -sum(w * math.log(score / sum(scores)) for w, score in zip(targets, scores, strict=True))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("use_batch_keys", [False, True])
@pytest.mark.parametrize("chunk", [2, 256])
def test_clip_loss_equals_the_loop(batch_size, weight, use_batch_keys, chunk, monkeypatch):
    monkeypatch.setattr(loss_comedian, "QUERIES_PER_CHUNK", chunk)
    # keys of another process lie before and after
    queries, keys, queue = unit(batch_size, 6), unit(batch_size + 3, 6), unit(7, 6)
    expected = 0.0
    for index, query in enumerate(queries):
        teacher = keys[index + 1]
        if use_batch_keys:
            candidates, positives = [*keys, *queue], [index + 1]
        else:
            candidates, positives = [teacher, *queue], [0]
        expected += query_loss(query, teacher, candidates, positives, not use_batch_keys, 0.2, 0.1, weight)
    loss = soft_contrastive_loss(
        queries,
        keys,
        queue,
        temperature=0.2,
        momentum_temperature=0.1,
        contrastive_weight=weight,
        use_batch_keys=use_batch_keys,
        first_key=1,
    )
    assert loss.item() == pytest.approx(expected / batch_size, rel=1e-9)


def token_loss_by_loop(queries, features, queue, negatives, radius, aligned, weight):
    windows, tokens, _ = queries.shape
    total = 0.0
    for window in range(windows):
        for token in range(tokens):
            candidates, positives = [], []
            for other in range(windows):
                for place in range(tokens):
                    same = other == window
                    if same and place == token and not aligned:
                        continue
                    positive = same and abs(place - token) <= radius
                    if not positive and not (negatives == "batch" or (negatives == "window" and same)):
                        continue
                    if positive:
                        positives.append(len(candidates))
                    candidates.append(features[other, place])
            candidates += list(queue)
            total += query_loss(
                queries[window, token], features[window, token], candidates, positives, False, 0.1, 0.05, weight
            )
    return total / (windows * tokens)


@pytest.mark.parametrize("negatives", ["window", "batch", "queue"])
@pytest.mark.parametrize("radius, aligned", [(0, True), (1, True), (1, False), (2, False)])
def test_token_loss_equals_the_loop(negatives, radius, aligned):
    queries, features, queue = unit(2, 5, 6), unit(2, 5, 6), unit(3, 6)
    loss = token_contrastive_loss(
        queries,
        features,
        queue,
        contrastive_weight=0.4,
        negatives=negatives,
        positive_radius=radius,
        use_aligned=aligned,
    )
    expected = token_loss_by_loop(queries, features, queue, negatives, radius, aligned, 0.4)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_windows_of_other_processes_are_negatives_of_the_batch():
    queries, features, queue = unit(4, 3, 6), unit(4, 3, 6), unit(3, 6)
    whole = token_contrastive_loss(queries, features, queue, negatives="batch")
    parts = [
        token_contrastive_loss(
            queries[first : first + 2],
            features[first : first + 2],
            queue,
            negatives="batch",
            all_features=features,
            first_window=first,
        )
        for first in (0, 2)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


@pytest.mark.parametrize("negatives", ["window", "batch", "queue"])
def test_gradient_of_the_token_loss(negatives):
    queries, features, queue = unit(2, 3, 4).requires_grad_(), unit(2, 3, 4), unit(5, 4)

    def loss(queries):
        return token_contrastive_loss(queries, features, queue, negatives=negatives, positive_radius=1)

    assert torch.autograd.gradcheck(loss, (queries,))


@pytest.mark.parametrize("use_batch_keys", [False, True])
def test_gradient_of_the_clip_loss(use_batch_keys):
    queries, keys, queue = unit(3, 4).requires_grad_(), unit(3, 4), unit(5, 4)

    def loss(queries):
        return soft_contrastive_loss(queries, keys, queue, contrastive_weight=0.3, use_batch_keys=use_batch_keys)

    assert torch.autograd.gradcheck(loss, (queries,))


def test_gradient_flows_through_a_scaled_loss():
    queries, keys, queue = unit(3, 4), unit(3, 4), unit(5, 4)
    gradients = []
    for factor in (1.0, 2.5):
        leaf = queries.clone().requires_grad_()
        (factor * soft_contrastive_loss(leaf, keys, queue)).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(2.5 * gradients[0], gradients[1])


def test_identical_directions_cost_the_logarithm_of_their_number():
    """All keys equal: the scores are uniform over the positive and K keys of the queue."""
    same = unit(1, 8)
    loss = soft_contrastive_loss(same.expand(4, -1), same.expand(4, -1), same.expand(9, -1))
    assert loss.item() == pytest.approx(math.log(10), rel=1e-9)
    loss = token_contrastive_loss(same.expand(2, 3, -1), same.expand(2, 3, -1), same.expand(9, -1))
    assert loss.item() == pytest.approx(math.log(12), rel=1e-9)


def test_infonce_is_torch_cross_entropy():
    queries, keys, queue = unit(6, 8), unit(6, 8), unit(20, 8)
    scores = torch.cat([queries @ keys.T, queries @ queue.T], dim=1) / 0.1
    expected = F.cross_entropy(scores, torch.arange(6))
    torch.testing.assert_close(soft_contrastive_loss(queries, keys, queue, use_batch_keys=True), expected)


def test_half_precision_is_computed_in_float32():
    queries, features, queue = (unit(*shape, dtype=torch.float32) for shape in ((2, 4, 8), (2, 4, 8), (16, 8)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = token_contrastive_loss(queries, features.half(), queue)
    outside = token_contrastive_loss(queries, features.half().float(), queue)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_memory_does_not_grow_with_the_batch():
    """What one chunk needs is all that lives at once: the scores of the batch would be 32 times that."""
    tokens, queue_size, dim = 16, 4096, 8
    limit, chunk = 0, QUERIES_PER_CHUNK // tokens
    for windows in (chunk, 32 * chunk):
        queries = unit(windows, tokens, dim, dtype=torch.float32).requires_grad_()
        features, queue = unit(windows, tokens, dim, dtype=torch.float32), unit(queue_size, dim, dtype=torch.float32)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            token_contrastive_loss(queries, features, queue).backward()
        held, peak = 0, 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                held += event.nbytes()
                peak = max(peak, held)
        scores_bytes = QUERIES_PER_CHUNK * (QUERIES_PER_CHUNK + queue_size) * 4
        limit = max(limit, peak / scores_bytes)
    assert limit < 3, limit


@pytest.mark.parametrize("negatives", ["window", "batch", "queue"])
@pytest.mark.parametrize("use_aligned", [True, False])
def test_windows_that_share_a_chunk_do_not_see_each_other(monkeypatch, negatives, use_aligned):
    queries, everything, queue = unit(5, 4, 3), unit(9, 4, 3), unit(7, 3)
    settings = {"negatives": negatives, "use_aligned": use_aligned, "positive_radius": 1}
    settings |= {"all_features": everything, "first_window": 2}
    results = []
    for size in (1, 8, 100):
        monkeypatch.setattr(loss_comedian, "QUERIES_PER_CHUNK", size)
        leaf = queries.clone().requires_grad_()
        loss = token_contrastive_loss(leaf, everything[2:7], queue, **settings)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])

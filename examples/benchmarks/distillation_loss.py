"""Stage 2's loss: one window at a time with its gradient in closed form, against the batch's whole score matrices.

python examples/benchmarks/distillation_loss.py --batch 32 --tokens 64 --queue 65536

The straightforward way is the published one in its vectorised form: every token of the batch against every other and the
queue, what belongs to other windows masked out, autograd for the gradient. Times are medians of interleaved runs; memory is
the peak that a profiler sees beyond the inputs.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from common import default_device, interleaved, machine, peak_bytes
from torch import Tensor
from torch.nn import functional as F

from comedian.models.loss_comedian import token_contrastive_loss

TEMPERATURE, MOMENTUM_TEMPERATURE, WEIGHT = 0.1, 0.05, 0.5


def straightforward_loss(queries: Tensor, features: Tensor, queue: Tensor) -> Tensor:
    """Published formulation: `(batch * tokens, batch * tokens + queue)` scores, `(batch, tokens, dim)` inputs."""
    batch, tokens, _ = queries.shape
    queries, features = queries.flatten(0, 1), features.flatten(0, 1)
    keys = torch.cat([features, queue])
    window = torch.arange(batch, device=keys.device).repeat_interleave(tokens)
    shut = F.pad(window[:, None] != window, (0, len(queue)))
    own = F.pad(torch.eye(batch * tokens, dtype=torch.bool, device=keys.device), (0, len(queue)))
    scores = (queries @ keys.T / TEMPERATURE).masked_fill(shut, -torch.inf)
    similar = (features @ keys.T / MOMENTUM_TEMPERATURE).masked_fill(shut | own, -torch.inf)
    targets = WEIGHT * own + (1 - WEIGHT) * similar.softmax(dim=1)
    return -(targets * scores.log_softmax(dim=1).masked_fill(shut, 0.0)).sum(dim=1).mean()


def gradient(loss: Callable[..., Tensor], queries: Tensor, *others: Tensor) -> Tensor:
    """The gradient of a forward and backward pass."""
    leaf = queries.clone().requires_grad_()
    loss(leaf, *others).backward()
    return leaf.grad


def main() -> None:
    """Print times, memory and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--queue", type=int, default=65536)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default=default_device())
    args = parser.parse_args()
    torch.manual_seed(0)
    shape = (args.batch, args.tokens, args.dim)
    queries, features = (F.normalize(torch.randn(shape, device=args.device), dim=2) for _ in range(2))
    queue = F.normalize(torch.randn(args.queue, args.dim, device=args.device), dim=1)
    losses = {"straightforward": straightforward_loss, "ours": token_contrastive_loss}
    ways = {name: partial(gradient, loss, queries, features, queue) for name, loss in losses.items()}
    torch.testing.assert_close(ways["ours"](), ways["straightforward"](), atol=1e-6, rtol=1e-3)
    times_s = interleaved(ways, args.rounds, warm_up=0)
    memory = {name: peak_bytes(way, args.device) for name, way in ways.items()}
    for name in ways:
        print(f"{name:<16} {times_s[name]:9.4f} s {memory[name] / 2**20:9.0f} MiB")
    speed = times_s["straightforward"] / times_s["ours"]
    print(machine(args.device))
    print(f"ours: {speed:.1f} times as fast, {memory['ours'] / memory['straightforward']:.3f} of the memory")


if __name__ == "__main__":
    main()

"""Nearest-neighbour probe of the spatial encoder: do clips with the same label have similar tokens? No training."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from comedian.models import ComedianModel, ComedianVideoProcessor
from comedian.models.pipeline_comedian import autocast
from comedian.samples.datasets import HalfDataset
from comedian.samples.windows import token_targets

CLIPS_PER_BATCH = 64
NUM_NEIGHBOURS = 20
# of the neighbours' votes, as in the usual weighted k-NN (Wu et al., 2018)
VOTE_TEMPERATURE = 0.07


def nearest_neighbour_probe(
    model: ComedianModel,
    processor: ComedianVideoProcessor,
    known: HalfDataset,
    asked: HalfDataset,
) -> float:
    """Classify clips by their nearest neighbours (weighted k-NN on spatial tokens).

    A clip is the tubelet at an event; as many clips between events, spread evenly, stand for "nothing". A clip at
    events of several labels counts for the first.

    Args:
        model: in eval mode.
        processor: resizes and normalises.
        known: annotated halves whose clips vote.
        asked: annotated halves whose clips are classified.

    Returns:
        Mean over labels of the share of correctly classified clips.
    """
    bank, labels = labelled_tokens(model, processor, known)
    queries, truths = labelled_tokens(model, processor, asked)
    similarities, neighbours = (queries @ bank.T).topk(min(NUM_NEIGHBOURS, len(bank)), dim=1)
    votes = torch.zeros(len(queries), len(known.labels) + 1)
    votes.scatter_add_(1, labels[neighbours], (similarities / VOTE_TEMPERATURE).exp())
    right = votes.argmax(dim=1) == truths
    return torch.stack([right[truths == label].float().mean() for label in truths.unique()]).mean().item()


@torch.inference_mode()
def labelled_tokens(
    model: ComedianModel, processor: ComedianVideoProcessor, halves: HalfDataset
) -> tuple[Tensor, Tensor]:
    """Spatial tokens, L2-normalised float32 `(num_clips, hidden_size)`, and labels int64 `(num_clips,)`, of chosen
    clips."""
    size = model.config.tubelet_size
    clips = [(index, *clip) for index in range(len(halves)) for clip in choose_clips(halves, index, size)]
    tokens = []
    for first in range(0, len(clips), CLIPS_PER_BATCH):
        # the frames of one half may be of another size than those of the next
        frames = [
            halves[index].read(tubelet * size * halves.frame_step, size, halves.frame_step)
            for index, tubelet, _ in clips[first : first + CLIPS_PER_BATCH]
        ]
        pixels = processor(frames, return_tensors="pt", device=model.device)["pixel_values_videos"]
        with autocast(model):
            tokens.append(model.encode_spatial(pixels)[:, 0].float().cpu())
    return F.normalize(torch.cat(tokens), dim=1), torch.tensor([label for _, _, label in clips])


def choose_clips(halves: HalfDataset, index: int, tubelet_size: int) -> list[tuple[int, int]]:
    """Tubelets of one half with an event, and as many without: `(tubelet, label)`; `len(halves.labels)` is "nothing"."""
    num_tubelets = halves.num_frames(index) // tubelet_size
    targets = token_targets(
        *halves.events(index), num_tubelets, len(halves.labels), halves.fps, tubelet_size, radius_s=0.5
    )
    busy, free = np.flatnonzero(targets.any(axis=1)), np.flatnonzero(~targets.any(axis=1))
    spread = free[np.linspace(0, len(free) - 1, min(len(busy), len(free))).astype(int)] if len(free) else free
    nothing = len(halves.labels)
    return [(int(t), int(targets[t].argmax())) for t in busy] + [(int(t), nothing) for t in spread]

"""The nearest-neighbour probe against a loop, and on clips that any encoder tells apart."""

import math

import numpy as np
import pytest
import torch

from comedian.evaluation import nearest_neighbours
from comedian.evaluation.nearest_neighbours import choose_clips, labelled_tokens, nearest_neighbour_probe
from comedian.models import ComedianModel, ComedianVideoProcessor
from comedian.samples.datasets import HalfDataset
from comedian.soccernet.builder import SoccerNet
from comedian.soccernet.prepare import prepare
from comedian.video.frame_store import FrameStore, StoreSettings
from match_factory import LABELS, write_matches
from testing_utils import tiny_config


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Training and validation halves."""
    folder = tmp_path_factory.mktemp("probe")
    root = write_matches(folder / "root")
    prepare(root, folder / "store", StoreSettings(fps=4, height=16), workers=1, progress=False)
    builder = SoccerNet(data_dir=str(root), labels=list(LABELS), cache_dir=str(folder / "cache"))
    builder.download_and_prepare()
    store = FrameStore(folder / "store")
    splits = ("train", "validation")
    return [HalfDataset(list(builder.as_dataset(split=split)), store, LABELS, fps=2) for split in splits]


@pytest.fixture(scope="module")
def model():
    return ComedianModel(tiny_config()).eval()


@pytest.fixture(scope="module")
def processor():
    return ComedianVideoProcessor(size={"height": 16, "width": 16})


def test_clips_are_those_at_events_and_as_many_between(halves):
    for index in range(len(halves[0])):
        times_s, labels = halves[0].events(index)
        chosen = choose_clips(halves[0], index, tubelet_size=2)
        for tubelet, label in chosen:
            # frames at tubelet and tubelet + 0.5 seconds
            near = [int(of) for at, of in zip(times_s, labels, strict=True) if -0.5 <= at - tubelet <= 1.0]
            assert label == (min(near) if near else len(LABELS))
        with_event = sum(label < len(LABELS) for _, label in chosen)
        assert with_event > 0
        assert len(chosen) - with_event == min(with_event, 12 - with_event)


def test_the_probe_is_the_weighted_vote_of_the_nearest(halves, model, processor, monkeypatch):
    monkeypatch.setattr(nearest_neighbours, "NUM_NEIGHBOURS", 3)
    bank, known = labelled_tokens(model, processor, halves[0])
    queries, truths = labelled_tokens(model, processor, halves[1])
    right: dict[int, list[bool]] = {}
    for query, truth in zip(queries, truths.tolist(), strict=True):
        similarities = [float(query @ other) for other in bank]
        votes = [0.0] * 3
        for neighbour in sorted(range(len(bank)), key=lambda other: -similarities[other])[:3]:
            votes[int(known[neighbour])] += math.exp(similarities[neighbour] / 0.07)
        right.setdefault(truth, []).append(int(np.argmax(votes)) == truth)
    expected = np.mean([np.mean(values) for values in right.values()])
    assert nearest_neighbour_probe(model, processor, *halves) == pytest.approx(expected, abs=1e-6)


def test_every_label_counts_alike(halves, monkeypatch):
    """Two clips of label 0, of which one is told right, and one each of labels 1 and 2."""
    known = (torch.eye(4), torch.tensor([0, 1, 2, 2]))
    asked = (torch.eye(4)[[0, 1, 1, 3]], torch.tensor([0, 0, 1, 2]))
    tokens = {id(halves[0]): known, id(halves[1]): asked}
    monkeypatch.setattr(nearest_neighbours, "labelled_tokens", lambda model, processor, given: tokens[id(given)])
    assert nearest_neighbour_probe(None, None, *halves) == pytest.approx((1 / 2 + 1 + 1) / 3)

import numpy as np
import pytest

from comedian.evaluation.calibration import Judged
from comedian.evaluation.reported_events import (
    ReportedEvents,
    add_up,
    count_reported,
    lines_of,
    read_reported,
    write_reported,
)
from testing_utils import tiny_config


def judged(scores, right, num_events):
    return Judged(np.array(scores, float), np.array(right, bool), num_events)


def test_counts_are_of_what_passes_the_thresholds():
    labels = {"id2label": {0: "Goal", 1: "Corner"}}
    of_labels = [judged([0.9, 0.6, 0.4, 0.1], [1, 0, 1, 1], 4), judged([0.8, 0.2], [1, 0], 1)]
    config = tiny_config(**labels, label_thresholds=[0.4, 0.9])
    assert count_reported(of_labels, config) == {"Goal": ReportedEvents(4, 3, 2), "Corner": ReportedEvents(1, 0, 0)}
    # without thresholds, from 0.3 on
    assert count_reported(of_labels, tiny_config(**labels))["Corner"] == ReportedEvents(1, 1, 1)
    # thresholds are on calibrated scores: sigmoid(logit(0.4) + 2) is 0.83, of 0.1 it is 0.45
    calibrated = tiny_config(**labels, label_thresholds=[0.5, 0.5], label_calibration=[[1.0, 2.0], [1.0, 0.0]])
    assert count_reported(of_labels, calibrated)["Goal"] == ReportedEvents(4, 3, 2)
    assert add_up(count_reported(of_labels, config).values()) == ReportedEvents(5, 3, 2)


def test_words():
    after = {"Goal": ReportedEvents(20, 16, 15), "Corner kick": ReportedEvents(9, 0, 0)}
    lines = lines_of(after, {"Goal": ReportedEvents(20, 10, 5)})
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "label found of those there right of those reported before: found before: right",
        "Goal 15 of 20 (75 %) 15 of 16 (94 %) 5 of 20 (25 %) 5 of 10 (50 %)",
        "Corner kick 0 of 9 (0 %) none not a label of the start model",
        "all labels 15 of 29 (52 %) 15 of 16 (94 %)",
        "too few labelled events to tell, fewer than 10 on validation: Corner kick (9)",
    ]
    # the columns stand under their heads
    assert len({line.index("15 of 16") for line in lines if "15 of 16" in line} | {lines[1].index("right of")}) == 1
    assert not any("before" in line for line in lines_of(after))
    # all labels together only where the start model has all of them
    both = {"Goal": ReportedEvents(20, 10, 5), "Corner kick": ReportedEvents(9, 2, 1)}
    assert " ".join(lines_of(after, both)[4].split()).endswith("6 of 29 (21 %) 6 of 12 (50 %)")


def test_a_weak_model_says_so():
    weak = {"Goal": ReportedEvents(20, 30, 4), "Corner": ReportedEvents(12, 10, 9)}
    assert lines_of(weak)[-1] == (
        "the model is weak: it misses 19 of 32 events, and 27 of 40 that it reports are wrong; label more events, above all "
        "of Goal"
    )
    strong = {"Goal": ReportedEvents(20, 20, 15)}
    assert not any("weak" in line for line in lines_of(strong))
    # one label needs no sum
    assert sum("20" in line for line in lines_of(strong)) == 1
    assert "misses 0 of 0" in lines_of({"Goal": ReportedEvents(0, 0, 0)})[-1]


@pytest.mark.parametrize("before", [None, {}, {"Goal": ReportedEvents(1, 2, 1)}])
def test_counts_are_kept_beside_the_model(tmp_path, before):
    assert read_reported(tmp_path) is None
    after = {"Goal": ReportedEvents(3, 2, 1)}
    write_reported(tmp_path, after, before)
    assert read_reported(tmp_path) == (after, before)

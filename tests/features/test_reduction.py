import os
from dataclasses import replace

import numpy as np
import pytest

from comedian.errors import InputError
from comedian.features import reduction as feature_reduction
from comedian.features.bank import FeatureBank, FeatureHeader, features_path, write_features
from comedian.features.reduction import (
    FILE_NAME,
    apply_reduction,
    fit_reduction,
    load_reduction,
    mean_and_covariance,
    reduce_features,
)

WIDTH = 7
LENGTHS = {("one", 1): 40, ("one", 2): 33, ("two", 1): 1, ("three", 1): 25}
TRAIN = ["one", "two"]


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch):
    monkeypatch.setattr(feature_reduction, "ROWS_AT_ONCE", 16)


def header_of(number, **changes):
    video = {"name": f"{number}.mkv", "size_bytes": number, "mtime_ns": number}
    header = FeatureHeader(fps=2.0, offset_s=0.25, duration_s=9.0, source="teacher", video=video)
    return replace(header, **changes)


def write_bank(path, seed=0, width=WIDTH, **changes):
    """Correlated features far from 0, of unlike spreads; the matches differ in their means. Column 3 is constant."""
    rng = np.random.default_rng(seed)
    mix, mean = rng.normal(size=(width, width)) * 10.0 ** np.arange(-2, width - 2), rng.normal(100, 50, width)
    for number, ((video_id, half), length) in enumerate(LENGTHS.items()):
        features = rng.normal(size=(length, width)) @ mix + mean * (1 + number)
        features[:, 3] = 0.1
        write_features(features_path(path, video_id, half), features.astype(np.float32), header_of(number, **changes))
    return path


def read_all(bank, video_ids):
    bank = FeatureBank(bank)
    halves = [bank.open(*key) for key in bank.halves if key[0] in video_ids]
    return np.concatenate([half.read(0, half.num_features) for half in halves]).astype(np.float64)


def svd_reduction(features, dim):
    """The independent truth: the right singular vectors of the whole standardised matrix."""
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[3] = 1
    _, singular, vectors = np.linalg.svd((features - mean) / scale, full_matrices=False)
    return mean, scale, vectors[:dim], singular[:dim] ** 2 / len(features)


@pytest.mark.parametrize("dim", [1, 4, 6])
def test_the_pca_is_that_of_the_whole_matrix(tmp_path, dim):
    bank = write_bank(tmp_path / "bank")
    reduce_features(bank, tmp_path / "reduced", dim, TRAIN, dtype="float32", progress=False)
    found = load_reduction(tmp_path / "reduced" / FILE_NAME)
    mean, scale, components, variance = svd_reduction(read_all(bank, TRAIN), dim)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.scale, scale, rtol=1e-9)
    np.testing.assert_allclose(found.explained_variance, variance, rtol=1e-8)
    signs = np.sign((found.components * components).sum(axis=1))
    np.testing.assert_allclose(found.components, signs[:, None] * components, atol=1e-7)
    reduced = read_all(tmp_path / "reduced", ["one", "two", "three"])
    expected = (read_all(bank, ["one", "two", "three"]) - mean) / scale @ (signs[:, None] * components).T
    np.testing.assert_allclose(reduced, expected, rtol=1e-4, atol=1e-4)


def test_the_reduced_bank_says_what_it_is(tmp_path):
    bank = write_bank(tmp_path / "bank")
    report = reduce_features(bank, tmp_path / "reduced", 4, TRAIN, progress=False)
    assert report.done == sorted(LENGTHS)
    reduction = load_reduction(tmp_path / "reduced" / FILE_NAME)
    reduced = FeatureBank(tmp_path / "reduced")
    for (video_id, half), length in LENGTHS.items():
        opened = reduced.open(video_id, half)
        original = FeatureBank(bank).open(video_id, half)
        assert (opened.num_features, opened.dim, opened.dtype) == (length, 4, "float16")
        assert opened.header == replace(original.header, reduction=reduction.description)
    digits, _, words = reduction.description.partition(": ")
    assert len(digits) == 12 and words == "standardise + PCA 7 -> 4, fitted on 74 features of 3 halves"


def test_signs_do_not_depend_on_the_solver(tmp_path, monkeypatch):
    bank = FeatureBank(write_bank(tmp_path / "bank"))
    halves = [bank.open(*key) for key in bank.halves]
    expected = fit_reduction(halves, 6, progress=False)
    assert (np.abs(expected.components).max(axis=1) == expected.components.max(axis=1)).all()
    eigh = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: (eigh(matrix)[0], -eigh(matrix)[1]))
    assert fit_reduction(halves, 6, progress=False).description == expected.description


def test_a_constant_column_keeps_scale_one(tmp_path):
    bank = FeatureBank(write_bank(tmp_path / "bank"))
    reduction = fit_reduction([bank.open(*key) for key in bank.halves], 6, progress=False)
    assert reduction.scale[3] == 1 and (reduction.scale[[0, 1, 2, 4, 5, 6]] != 1).all()
    np.testing.assert_allclose(reduction.components[:, 3], 0, atol=1e-9)


def test_a_mean_far_from_zero_costs_no_digits():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000, 3)) + 1e8
    mean, covariance = mean_and_covariance(np.array_split(rows, [1, 7, 400, 401]), 3)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(rows.T, bias=True), rtol=1e-6, atol=1e-9)


def test_reducing_goes_on_where_it_stopped(tmp_path, monkeypatch):
    bank, reduced = write_bank(tmp_path / "bank"), tmp_path / "reduced"
    reduce_features(bank, reduced, 4, TRAIN, progress=False)
    paths = [features_path(reduced, *key) for key in sorted(LENGTHS)]
    before = {path: os.stat(path).st_mtime_ns for path in [*paths, reduced / FILE_NAME]}
    features = read_all(reduced, ["one", "two", "three"])
    paths[1].unlink()
    monkeypatch.setattr(feature_reduction, "fit_reduction", None)  # not fitted again
    report = reduce_features(bank, reduced, 4, TRAIN, progress=False)
    assert report.done == [sorted(LENGTHS)[1]] and len(report.skipped) == 3
    assert [path for path, mtime in before.items() if os.stat(path).st_mtime_ns != mtime] == [paths[1]]
    np.testing.assert_array_equal(read_all(reduced, ["one", "two", "three"]), features)


@pytest.mark.parametrize("dim, video_ids", [(3, TRAIN), (4, ["one"])])
def test_another_fit_needs_another_folder(tmp_path, dim, video_ids):
    bank = write_bank(tmp_path / "bank")
    reduce_features(bank, tmp_path / "reduced", 4, TRAIN, progress=False)
    with pytest.raises(InputError, match="has another reduction .* give another folder"):
        reduce_features(bank, tmp_path / "reduced", dim, video_ids, progress=False)


def test_a_further_bank_is_reduced_alike(tmp_path):
    reduce_features(write_bank(tmp_path / "bank"), tmp_path / "reduced", 4, TRAIN, dtype="float32", progress=False)
    further = write_bank(tmp_path / "further", seed=1)
    report = apply_reduction(further, tmp_path / "out", tmp_path / "reduced", dtype="float32", progress=False)
    assert report.done == sorted(LENGTHS)
    reduction = load_reduction(tmp_path / "reduced" / FILE_NAME)
    everything = ["one", "two", "three"]
    expected = (read_all(further, everything) - reduction.mean) / reduction.scale @ reduction.components.T
    np.testing.assert_allclose(read_all(tmp_path / "out", everything), expected, rtol=1e-3, atol=1e-3)
    assert FeatureBank(tmp_path / "out").first.reduction == FeatureBank(tmp_path / "reduced").first.reduction
    assert apply_reduction(further, tmp_path / "out", tmp_path / "out", dtype="float32", progress=False).done == []


def test_a_reduction_of_other_features(tmp_path):
    bank = write_bank(tmp_path / "bank")
    reduce_features(bank, tmp_path / "reduced", 4, TRAIN, progress=False)
    other = write_bank(tmp_path / "other", source="another")
    wider = write_bank(tmp_path / "wider", width=8)
    for further, found in ((other, "7 values of another"), (wider, "8 values of teacher")):
        with pytest.raises(InputError, match=f"reduces 7 values of teacher; .* holds {found}"):
            apply_reduction(further, tmp_path / "out", tmp_path / "reduced", progress=False)
    reduce_features(bank, tmp_path / "three", 3, TRAIN, progress=False)
    with pytest.raises(InputError, match="has another reduction"):
        apply_reduction(bank, tmp_path / "three", tmp_path / "reduced", progress=False)
    with pytest.raises(InputError, match="is already reduced"):
        apply_reduction(tmp_path / "reduced", tmp_path / "out", tmp_path / "reduced", progress=False)
    with pytest.raises(InputError, match="is not a reduction"):
        apply_reduction(bank, tmp_path / "out", bank, progress=False)
    (tmp_path / "reduced" / FILE_NAME).write_bytes(b"cut")
    with pytest.raises(InputError, match="is not a reduction"):
        apply_reduction(bank, tmp_path / "out", tmp_path / "reduced", progress=False)


@pytest.mark.parametrize("dim, largest", [(0, 7), (8, 7), (-1, 7)])
def test_more_components_than_values(tmp_path, dim, largest):
    with pytest.raises(InputError, match=f"a PCA of {dim} values cannot be fitted on 74 .* from 1 to {largest}"):
        reduce_features(write_bank(tmp_path / "bank"), tmp_path / "reduced", dim, TRAIN, progress=False)
    assert not (tmp_path / "reduced").exists()


def test_more_components_than_features(tmp_path):
    with pytest.raises(InputError, match="a PCA of 2 values cannot be fitted on 1 features"):
        reduce_features(write_bank(tmp_path / "bank"), tmp_path / "reduced", 2, ["two"], progress=False)


def test_matches_that_the_bank_lacks(tmp_path, caplog):
    bank = write_bank(tmp_path / "bank")
    with pytest.raises(InputError, match="contains none of the 2 matches to fit on"):
        reduce_features(bank, tmp_path / "reduced", 2, ["four", "five"], progress=False)
    reduce_features(bank, tmp_path / "reduced", 2, ["one", "four"], progress=False)
    assert "lacks 1 matches to fit on, such as `four`" in caplog.text


def test_no_bank_is_overwritten(tmp_path):
    bank = write_bank(tmp_path / "bank")
    with pytest.raises(InputError, match="is the bank to reduce"):
        reduce_features(bank, tmp_path / "x/../bank", 2, TRAIN, progress=False)

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from comedian.errors import InputError
from comedian.features.bank import (
    FeatureBank,
    FeatureHeader,
    FeatureJob,
    features_path,
    fill_bank,
    open_features,
    write_features,
)
from comedian.features.published import import_features
from comedian.soccernet.layout import PUBLISHED
from match_factory import write_matches
from video_factory import truncate, write_video

HEADER = FeatureHeader(
    fps=2.0,
    offset_s=0.25,
    duration_s=10.0,
    source="teacher (0123), clips of 16 frames at 4 fps",
    video={"name": "1_224p.mkv", "size_bytes": 7, "mtime_ns": 8},
)


def numbered(count, dim=3, dtype=np.float32):
    """Features that say which one they are."""
    return (np.arange(count)[:, None] + np.arange(dim) / 8).astype(dtype)


def next_key(changes):
    return next(iter(changes))


def write(path, count=20, dim=3, dtype=np.float32, **changes):
    write_features(path, numbered(count, dim, dtype), replace(HEADER, **changes))
    return open_features(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_was_written_is_read(tmp_path, dtype):
    half = write(tmp_path / "league/match/1.safetensors", dtype=dtype, reduction="ab12: words — ünïcode")
    assert half.header == replace(HEADER, reduction="ab12: words — ünïcode")
    assert (half.num_features, half.dim, half.dtype) == (20, 3, np.dtype(dtype).name)
    assert load_file(half.path)["features"].dtype == dtype
    for start, count in [(0, 20), (4, 3), (19, 1), (5, 0)]:
        rows = half.read(start, count)
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, numbered(20)[start : start + count])
    assert [path.name for path in half.path.parent.iterdir()] == ["1.safetensors"]


@pytest.mark.parametrize("start, count", [(-1, 2), (19, 2), (20, 1)])
def test_rows_out_of_range(tmp_path, start, count):
    half = write(tmp_path / "1.safetensors")
    with pytest.raises(IndexError, match="of 20"):
        half.read(start, count)


@pytest.mark.parametrize("fps, offset_s", [(2.0, 0.25), (2.0, 0.0), (1.0, 0.5), (1 / 3, 0.125), (25 / 3, 0.0)])
def test_the_feature_nearest_in_time(tmp_path, fps, offset_s):
    half = write(tmp_path / "1.safetensors", count=30, fps=fps, offset_s=offset_s)
    rng = np.random.default_rng(0)
    times_s = rng.uniform(offset_s - half.reach_s, half.last_s + half.reach_s, 200)
    expected = []
    for time_s in times_s:
        distances = [abs(offset_s + index / fps - time_s) for index in range(30)]
        expected.append(distances.index(min(distances)))
    found = half.at(times_s)
    assert found.shape == (200, 3) and found.dtype == np.float32
    np.testing.assert_array_equal(found, numbered(30)[expected])


@pytest.mark.parametrize("fps, offset_s", [(1.0, 0.75), (2.0, 0.0), (1.0, 0.1 + 0.2 - 0.05 - 0.5)])
def test_of_two_equally_near_features_the_earlier(tmp_path, fps, offset_s):
    """Whatever the rounding of the times, so that no two tokens share a feature."""
    half = write(tmp_path / "1.safetensors", count=50, fps=fps, offset_s=offset_s)
    tokens_s = np.arange(2, 20) + 0.25
    exact = (tokens_s - offset_s) * fps
    np.testing.assert_allclose(exact % 1, 0.5)
    found = half.at(tokens_s)[:, 0]
    np.testing.assert_array_equal(found, np.round(exact - 0.5))
    assert len(set(found)) == len(found)


def test_a_bank_of_two_a_second_serves_tokens_of_one_a_second(tmp_path):
    """The published trap: index `frame // 2` in a bank of 2 a second gives each token the feature of half its time."""
    half = write(tmp_path / "1.safetensors", count=5400, offset_s=0.0)
    half.check(token_rate=1.0, duration_s=2700.0, dim=3)
    tokens_s = 1000 + np.arange(64) + 0.25
    feature_times_s = half.at(tokens_s)[:, 0] / 2
    np.testing.assert_array_equal(feature_times_s, 1000 + np.arange(64))


def test_no_times_no_features(tmp_path):
    assert write(tmp_path / "1.safetensors").at(np.empty(0)).shape == (0, 3)


@pytest.mark.parametrize(
    "fps, inside_s, outside_s",
    [(2.0, [-0.75, 10.75], [-0.76, 10.76]), (0.5, [-1.75, 40.25], [-1.76, 40.26]), (2.0, [5.0], [np.nan])],
)
def test_times_that_the_bank_does_not_cover(tmp_path, fps, inside_s, outside_s):
    half = write(tmp_path / "1.safetensors", fps=fps)
    assert half.at(np.array(inside_s)).shape == (len(inside_s), 3)
    for time_s in outside_s:
        with pytest.raises(InputError) as error:
            half.at(np.array([3.0, time_s]))
        message = f"`{half.path}` has no feature near {time_s:.2f} s; it covers 0.25 s to {half.last_s:.2f} s"
        assert message in str(error.value)


@pytest.mark.parametrize(
    "changes, arguments, message",
    [
        ({}, {"dim": 4}, "has features with 3 dimensions, required are 4"),
        ({}, {"token_rate": 2.5}, "has 2 features per second for 2.5 tokens per second"),
        ({}, {"duration_s": 10.8}, "covers 0.25 s to 9.75 s of a half of 10.80 s"),
        ({"offset_s": 1.1}, {}, "covers 1.10 s to 10.60 s of a half of 10.00 s"),
        ({"fps": 0.5}, {"token_rate": 0.5, "duration_s": 40.3}, "covers 0.25 s to 38.25 s of a half of 40.30 s"),
    ],
)
def test_banks_that_do_not_fit(tmp_path, changes, arguments, message):
    half = write(tmp_path / "1.safetensors", **changes)
    with pytest.raises(InputError) as error:
        half.check(**({"token_rate": 0.5 if changes else 1.0, "duration_s": 10.0} | arguments))
    assert message in str(error.value) and str(half.path) in str(error.value)


@pytest.mark.parametrize(
    "fps, token_rate, duration_s", [(2.0, 2.0, 10.7), (2.0, 0.5, 3.0), (0.5, 0.5, 40.2), (1 / 3, 1 / 2.9999999, 60.0)]
)
def test_banks_that_fit_serve_every_time_of_the_half(tmp_path, fps, token_rate, duration_s):
    half = write(tmp_path / "1.safetensors", fps=fps)
    half.check(token_rate, duration_s)
    half.at(np.array([0.0, duration_s]))


def test_a_bank_lists_and_opens_its_halves(tmp_path):
    for video_id, half in [("b/match", 2), ("a/match", 10), ("a/match", 1)]:
        write(features_path(tmp_path, video_id, half))
    save_file({"mean": np.zeros(3)}, tmp_path / "reduction.safetensors")
    bank = FeatureBank(tmp_path)
    assert bank.halves == [("a/match", 1), ("a/match", 10), ("b/match", 2)]
    assert bank.open("b/match", 2).path == tmp_path / "b/match/2.safetensors"
    with pytest.raises(InputError, match="has no half 3 of `b/match`"):
        bank.open("b/match", 3)


def test_no_bank(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="is not a feature bank"):
            FeatureBank(path)


@pytest.mark.parametrize(
    "changes", [{"dim": 4}, {"fps": 1.0}, {"source": "another"}, {"reduction": "ab"}], ids=next_key
)
def test_halves_of_two_kinds(tmp_path, changes):
    write(features_path(tmp_path, "match", 1))
    odd = write(features_path(tmp_path, "match", 2), **changes)
    bank, name = FeatureBank(tmp_path), next_key(changes)
    bank.open("match", 1)
    with pytest.raises(InputError) as error:
        bank.open("match", 2)
    assert f"`{odd.path}` has {name} {changes[name]!r}, `{bank.first.path}` has" in str(error.value)


def edit_metadata(path, **changes):
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata = header["__metadata__"] | changes
    save_file(load_file(path), path, {key: value for key, value in metadata.items() if value is not None})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: truncate(path, 0.8),
        lambda path: path.write_bytes(b""),
        lambda path: save_file({"features": numbered(4)}, path),
        lambda path: save_file({"scores": numbered(4)}, path, {"format": "comedian-scores-1"}),
        lambda path: edit_metadata(path, format="comedian-feature-bank-9"),
        lambda path: edit_metadata(path, fps="NaN"),
        lambda path: edit_metadata(path, fps="0"),
        lambda path: edit_metadata(path, fps="[1]"),
        lambda path: edit_metadata(path, dim="5"),
        lambda path: edit_metadata(path, offset_s=None),
    ],
)
def test_damaged_files(tmp_path, damage):
    path = write(tmp_path / "1.safetensors").path
    damage(path)
    with pytest.raises(InputError, match="is not a file of features, or damaged") as error:
        open_features(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_went_away(tmp_path):
    half = write(tmp_path / "1.safetensors")
    half.path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        half.read(0, 1)


@pytest.mark.parametrize(
    "features, message",
    [
        (np.array([[1.0, np.nan]], np.float32), "NaN or infinite"),
        (np.array([[1.0, np.inf]], np.float16), "NaN or infinite"),
        (np.empty((0, 4), np.float32), "no feature"),
    ],
)
def test_features_that_are_none(tmp_path, features, message):
    with pytest.raises(InputError, match=message):
        write_features(tmp_path / "1.safetensors", features, HEADER)
    assert not list(tmp_path.iterdir())


def test_writing_that_fails_keeps_what_was_there(tmp_path, monkeypatch):
    def run_full(source, target):
        raise OSError("no space left")

    half = write(tmp_path / "1.safetensors")
    monkeypatch.setattr("comedian.files.os.replace", run_full)
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path / "1.safetensors", count=5)
    assert open_features(half.path) == half and list(tmp_path.iterdir()) == [half.path]


def test_only_floats_with_two_axes(tmp_path):
    for features in (np.zeros((2, 3)), np.zeros(3, np.float32), np.zeros((2, 3), np.int16)):
        with pytest.raises(ValueError, match="expected two axes"):
            write_features(tmp_path / "1.safetensors", features, HEADER)


def jobs_of(headers, computed):
    def compute(half):
        computed.append(half)
        return numbered(20) + half

    return [
        FeatureJob("match", half, header, lambda half=half: compute(half)) for half, header in enumerate(headers, 1)
    ]


def test_filling_goes_on_where_it_stopped(tmp_path):
    computed = []
    jobs = jobs_of([HEADER] * 3, computed)
    report = fill_bank(tmp_path, jobs, "float16", progress=False)
    assert report.done == [("match", 1), ("match", 2), ("match", 3)] and report.skipped == []
    bank = FeatureBank(tmp_path)
    before = {half: os.stat(features_path(tmp_path, "match", half)).st_mtime_ns for half in (1, 2, 3)}
    features_path(tmp_path, "match", 2).unlink()
    truncate(features_path(tmp_path, "match", 3), 0.5)
    report = fill_bank(tmp_path, jobs, "float16", progress=False)
    assert report.done == [("match", 2), ("match", 3)] and report.skipped == [("match", 1)]
    assert computed == [1, 2, 3, 2, 3]
    assert os.stat(features_path(tmp_path, "match", 1)).st_mtime_ns == before[1]
    np.testing.assert_array_equal(bank.open("match", 3).read(0, 20), (numbered(20) + 3).astype(np.float16))


def test_filling_makes_changed_halves_again(tmp_path):
    computed = []
    fill_bank(tmp_path, jobs_of([HEADER] * 2, computed), "float16", progress=False)
    changed = replace(HEADER, video=HEADER.video | {"size_bytes": 9})
    fill_bank(tmp_path, jobs_of([HEADER, changed], computed), "float16", progress=False)
    assert computed == [1, 2, 2]
    fill_bank(tmp_path, jobs_of([HEADER, changed], computed), "float32", progress=False)
    assert computed == [1, 2, 2, 1, 2]


def test_an_interrupted_half_leaves_nothing(tmp_path):
    def stop():
        raise KeyboardInterrupt

    write(features_path(tmp_path, "match", 1), duration_s=9.0)
    with pytest.raises(KeyboardInterrupt):
        fill_bank(tmp_path, [FeatureJob("match", 1, HEADER, stop)], "float16", progress=False)
    assert not list((tmp_path / "match").iterdir())


@pytest.mark.parametrize("changes", [{"source": "another"}, {"fps": 4.0}, {"reduction": "ab12: words"}])
def test_filling_refuses_a_bank_of_another_kind(tmp_path, changes):
    computed = []
    fill_bank(tmp_path, jobs_of([HEADER] * 2, computed), "float16", progress=False)
    truncate(features_path(tmp_path, "match", 1), 0.5)  # the next one tells
    with pytest.raises(InputError, match=f"contains features with {next_key(changes)} .*; give another folder"):
        fill_bank(tmp_path, jobs_of([replace(HEADER, **changes)], computed), "float16", progress=False)
    assert computed == [1, 2]


def test_values_beyond_float16(tmp_path):
    jobs = [FeatureJob("match", 1, HEADER, lambda: np.full((2, 2), 1e5, np.float32))]
    with pytest.raises(InputError, match="float16 is limited to 65504, try float32"):
        fill_bank(tmp_path, jobs, "float16", progress=False)
    fill_bank(tmp_path, jobs, "float32", progress=False)
    with pytest.raises(InputError, match="`dtype` is 'int8'"):
        fill_bank(tmp_path, jobs, "int8", progress=False)


@pytest.fixture
def published(tmp_path):
    root = write_matches(tmp_path / "root")
    for video_id in ("league/one", "league/three"):
        for half in (1, 2):
            np.save(root / video_id / f"{half}_baidu_soccer_embeddings.npy", numbered(12, 6) + 100 * half)
            np.save(root / video_id / f"{half}_ResNET_TF2_PCA512.npy", numbered(24, 5))
            np.save(root / video_id / f"{half}_ResNET_TF2.npy", numbered(24, 4))
    return root


@pytest.mark.parametrize(
    "kind, fps, offset_s, dim", [("baidu", 1, 0.5, 6), ("resnet-pca512", 2, 0, 5), ("resnet", 2, 0, 4)]
)
def test_published_features(published, tmp_path, kind, fps, offset_s, dim, caplog):  # fmt: skip
    report = import_features(published, tmp_path / "bank", kind, progress=False)
    bank = FeatureBank(tmp_path / "bank")
    assert bank.halves == report.done == [(f"league/{name}", half) for name in ("one", "three") for half in (1, 2)]
    assert "league/two" in caplog.text and "skipped" in caplog.text
    half = bank.open("league/three", 2)
    assert (half.fps, half.offset_s, half.dim, half.duration_s, half.dtype) == (fps, offset_s, dim, 12, "float16")
    assert half.video["name"] == f"2_{PUBLISHED[kind].suffix}"
    # feature i of Baidu's stands for second [i, i + 1), ResNET's frame i is at i / 2 s
    for time_s, index in [(3.1, 3 if fps == 1 else 6), (3.9, 3 if fps == 1 else 8)]:
        assert half.at(np.array([time_s]))[0, 0] == index + (200 if kind == "baidu" else 0)
    assert import_features(published, tmp_path / "bank", kind, progress=False).skipped == report.done


def test_files_of_other_names_are_no_published_features(published, tmp_path):
    for name in ("1st_ResNET_TF2.npy", "123_ResNET_TF2.npy"):
        np.save(published / "league/one" / name, np.zeros((3, 4), np.float32))
    report = import_features(published, tmp_path / "bank", "resnet", progress=False)
    assert [half for video_id, half in report.done if video_id == "league/one"] == [1, 2]


def test_published_features_of_a_split_and_without_a_video(published, tmp_path):
    (published / "league/three/1_224p.mkv").unlink()
    write_video(published / "league/three/2_224p.mkv", num_frames=20, fps=4, height=32, width=32)
    report = import_features(
        published, tmp_path / "bank", "resnet", video_ids=["league/three"], dtype="float32", progress=False
    )
    assert report.done == [("league/three", 1), ("league/three", 2)]
    halves = [FeatureBank(tmp_path / "bank").open("league/three", half) for half in (1, 2)]
    assert [half.duration_s for half in halves] == [12.0, 5.0] and halves[0].dtype == "float32"


@pytest.mark.parametrize(
    "content, message",
    [
        (np.where(np.arange(24)[:, None] == 7, np.nan, numbered(24)), "NaN or infinite values in feature 7"),
        (np.where(np.arange(24)[:, None] == 9, -np.inf, numbered(24)), "NaN or infinite values in feature 9"),
        (np.zeros((3, 4, 5)), r"float64 of shape \(3, 4, 5\)"),
        (np.zeros((3, 4), np.int64), "contains int64"),
        (np.zeros((0, 4)), r"shape \(0, 4\)"),
        (np.array([{}], object), "cannot be read as a NumPy array"),
        (b"not an array", "cannot be read as a NumPy array"),
        (b"", "cannot be read as a NumPy array"),
    ],
)
def test_published_features_that_are_broken(published, tmp_path, content, message):
    path = published / "league/one/2_ResNET_TF2.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(InputError, match=message) as error:
        import_features(published, tmp_path / "bank", "resnet", progress=False)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not features_path(tmp_path / "bank", "league/one", 2).exists()


def test_no_published_features(published, tmp_path):
    for path in published.rglob("*.npy"):
        path.unlink()
    with pytest.raises(InputError, match="no match under .* has a file such as `1_ResNET_TF2.npy`"):
        import_features(published, tmp_path / "bank", "resnet", progress=False)

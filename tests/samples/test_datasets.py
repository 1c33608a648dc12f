"""Windows from a frame store against the whole half read at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from comedian.errors import InputError
from comedian.features.bank import FeatureBank, FeatureHeader, features_path, write_features
from comedian.samples.datasets import (
    ClipDataset,
    DistillationDataset,
    HalfDataset,
    TargetSettings,
    WindowDataset,
    WindowKey,
    WindowSampler,
    WindowShape,
    collate_windows,
)
from comedian.soccernet.builder import SoccerNet
from comedian.soccernet.prepare import prepare
from comedian.training.base_trainer import planes_of
from comedian.video.frame_store import FrameStore, StoreSettings, source_of
from match_factory import LABELS, write_matches
from video_factory import write_video


@pytest.fixture(scope="module")
def rows_and_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    root = write_matches(folder / "root")
    prepare(root, folder / "store", StoreSettings(fps=4, height=16), workers=1, progress=False)
    builder = SoccerNet(data_dir=str(root), labels=list(LABELS), cache_dir=str(folder / "cache"))
    builder.download_and_prepare()
    return list(builder.as_dataset(split="train")), FrameStore(folder / "store")


def make(rows_and_store, num_frames=8, sampling="disjoint", windows=3) -> WindowDataset:
    halves = HalfDataset(*rows_and_store, LABELS, fps=2)
    return WindowDataset(halves, WindowShape(num_frames, 2, windows, sampling), TargetSettings())


def test_a_window_holds_every_second_frame_and_the_labels_near_them(rows_and_store):
    dataset = make(rows_and_store)
    item = dataset[WindowKey(1, 5, 42)]
    whole = dataset.halves[1].read(0, dataset.halves[1].num_frames)
    assert np.array_equal(item["frames"].numpy(), whole[5 : 5 + 16 : 2])
    expected = np.zeros((4, 2))
    for event in rows_and_store[0][1]["events"]:
        for frame in range(8):
            if abs((5 + 2 * frame) / 4 - event["position_ms"] / 1000) <= 0.5 + 1e-9:
                expected[frame // 2, LABELS.index(event["label"])] = 1
    assert np.array_equal(item["labels"].numpy(), expected)
    assert expected.any()
    assert item["seed"] == 42


def test_a_half_shorter_than_the_window_is_padded_and_ignored_there(rows_and_store):
    dataset = make(rows_and_store, num_frames=32)
    item = dataset[WindowKey(0, 0, 0)]
    assert item["frames"].shape[0] == 32
    assert torch.equal(item["frames"][24:], item["frames"][23:24].expand(8, -1, -1, -1))
    assert (item["labels"][:12] >= 0).all()
    assert (item["labels"][12:] == -100).all()


@pytest.mark.parametrize("sampling", ["disjoint", "parts", "random"])
@pytest.mark.parametrize("windows", [2, 7])
def test_the_sampler_draws_every_half_equally_and_stays_inside(rows_and_store, sampling, windows):
    dataset = make(rows_and_store, sampling=sampling, windows=windows)
    keys = list(WindowSampler(dataset, seed=0))
    assert len(keys) == len(dataset) == 4 * windows
    for index in range(4):
        starts = [key.start for key in keys if key.half_index == index]
        assert len(starts) == windows
        assert min(starts) >= 0 and max(starts) <= 48 - 16
    assert len({key.seed for key in keys}) == len(keys)


def test_the_sampler_repeats_an_epoch_and_changes_between_epochs(rows_and_store):
    sampler = WindowSampler(make(rows_and_store), seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) == first != second


def test_a_rate_the_store_cannot_give_is_refused(rows_and_store):
    with pytest.raises(InputError, match="4 frames per second.*comedian prepare --fps 3"):
        HalfDataset(*rows_and_store, LABELS, fps=3)


def test_references_hold_the_events_of_both_halves(rows_and_store):
    references = HalfDataset(*rows_and_store, LABELS, fps=2).references()
    assert sorted(references) == ["league/one", "league/two"]
    events = references["league/one"]
    assert {event["gameTime"][0] for event in events} == {"1", "2"}
    assert [event["position"] for event in events if event["gameTime"][0] == "2"] == ["2000", "5000", "8000", "11000"]


@pytest.mark.parametrize("tubelet_size", [1, 2, 3, 5])
def test_clips_tile_every_half_from_a_new_start_each_epoch(rows_and_store, tubelet_size):
    halves = HalfDataset(*rows_and_store, LABELS, fps=2)
    dataset = ClipDataset(halves, tubelet_size)
    sampler = WindowSampler(dataset, seed=0)
    firsts = set()
    for epoch in range(6):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert len(keys) == len(dataset) == len(set(keys))
        for index in range(len(halves)):
            starts = sorted(key.start for key in keys if key.half_index == index)
            firsts.add(starts[0])
            # 48 frames at the store's rate, twice the model's: no overlap, at most one clip left out
            assert np.all(np.diff(starts) == 2 * tubelet_size)
            assert starts[-1] + 2 * tubelet_size <= 48
            assert len(starts) >= 48 // (2 * tubelet_size) - 1
    assert len(firsts) > 1
    item = dataset[WindowKey(0, 3, 9)]
    whole = halves[0].read(0, 48)
    assert np.array_equal(item["frames"].numpy(), whole[3 : 3 + 2 * tubelet_size : 2])


@pytest.fixture
def bank(rows_and_store, tmp_path):
    """Features that are their own time and half, three a second, the first at 0.1 s."""
    for number, row in enumerate(rows_and_store[0]):
        times_s = 0.1 + np.arange(36) / 3
        features = np.stack([times_s, np.full(36, number)], axis=1).astype(np.float32)
        header = FeatureHeader(fps=3.0, offset_s=0.1, duration_s=12.0, source="clock", video={})
        write_features(features_path(tmp_path, row["video_id"], row["half"]), features, header)
    return FeatureBank(tmp_path)


@pytest.mark.parametrize("start", [0, 5, 32])
def test_features_are_those_of_each_tokens_time(rows_and_store, bank, start):
    halves = HalfDataset(*rows_and_store, LABELS, fps=2)
    dataset = DistillationDataset(halves, WindowShape(8, 2, 3, "random"), bank, feature_dim=2)
    features = dataset[WindowKey(2, start, 0)]["teacher_features"].numpy()
    assert features.shape == (4, 2) and (features[:, 1] == 2).all()
    for token, time_s in enumerate(features[:, 0]):
        # the mean of the token's two frames, half a second apart, in a store of four frames a second
        token_s = start / 4 + token + 0.25
        assert abs(time_s - token_s) <= 1 / 6 + 1e-6


def test_a_half_shorter_than_the_window_repeats_its_last_feature(rows_and_store, bank):
    halves = HalfDataset(*rows_and_store, LABELS, fps=2)
    dataset = DistillationDataset(halves, WindowShape(32, 2, 3, "random"), bank, feature_dim=2)
    features = dataset[WindowKey(0, 0, 0)]["teacher_features"]
    assert torch.equal(features[12:], features[11:12].expand(4, -1))
    assert len(features[:12].unique(dim=0)) == 12


def test_a_bank_that_does_not_fit_is_refused(rows_and_store, bank):
    halves = HalfDataset(*rows_and_store, LABELS, fps=2)
    with pytest.raises(InputError, match="7"):
        DistillationDataset(halves, WindowShape(8, 2, 3, "random"), bank, feature_dim=7)
    fast = HalfDataset(*rows_and_store, LABELS, fps=4)
    with pytest.raises(InputError, match="features per second"):
        DistillationDataset(fast, WindowShape(8, 1, 3, "random"), bank, feature_dim=2)


def test_finer_targets_are_those_of_shorter_tubelets(rows_and_store):
    coarse = make(rows_and_store, num_frames=32)
    fine = WindowDataset(coarse.halves, coarse.shape, TargetSettings(steps_per_token=2, label_radius_s=0.3))
    single = WindowDataset(coarse.halves, replace(coarse.shape, tubelet_size=1), TargetSettings(label_radius_s=0.3))
    key = WindowKey(1, 3, 0)
    targets = fine[key]["labels"].numpy()
    assert targets.shape == (32, 2) and (targets == 1).any() and (targets == -100).any()
    np.testing.assert_array_equal(targets, single[key]["labels"].numpy())


def test_windows_with_offsets_point_at_the_events_of_their_half(rows_and_store):
    halves = make(rows_and_store).halves
    dataset = WindowDataset(halves, WindowShape(32, 2, 3, "random"), TargetSettings(offset_radius_s=1.0))
    item = dataset[WindowKey(1, 5, 0)]
    offsets_s = item["offset_targets_s"].numpy()
    assert offsets_s.shape == (16, 2) and item["labels"].shape == (16, 2)
    times_s, labels = halves.events(1)
    pointing = ~np.isnan(offsets_s)
    assert pointing.any() and not pointing[-(-halves.num_frames(1) // 2) :].any()
    for token, label in zip(*np.nonzero(pointing)):
        event_s = 5 / 4 + (2 * token + 0.5) / 2 + offsets_s[token, label]
        assert np.abs(times_s[labels == label] - event_s).min() < 1e-5
    # twelve seconds with an event every three: whatever is left out is far from all of them
    for token, label in zip(*np.nonzero(~pointing[:9])):
        assert np.abs(times_s[labels == label] - 5 / 4 - (2 * token + 0.5) / 2).min(initial=np.inf) > 1


def test_windows_of_different_aspects_are_padded_and_come_apart_again():
    frames = [torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8) for size in [(6, 8), (6, 10), (4, 9)]]
    windows = [{"frames": window, "seed": torch.tensor(number)} for number, window in enumerate(frames)]
    batch = collate_windows(windows)
    assert batch["frames"].shape == (3, 2, 6, 10, 3) and batch["seed"].tolist() == [0, 1, 2]
    assert batch["frame_sizes"].tolist() == [[6, 8], [6, 10], [4, 9]]
    for window, planes in zip(frames, planes_of(batch), strict=True):
        assert torch.equal(planes.movedim(1, -1), window)
    alike = collate_windows(windows[:1] * 2)
    assert set(alike) == {"frames", "seed"}
    assert torch.equal(torch.stack(planes_of(alike)).movedim(2, -1), torch.stack(frames[:1] * 2))


@pytest.mark.parametrize("num_features, fits", [(4, True), (3, False)])
def test_a_half_of_no_whole_seconds_needs_no_feature_after_its_last_frame(num_features, fits, tmp_path):
    """4.1 s at one frame a second are five frames, the last at 4 s: not five seconds."""
    video = tmp_path / "root/match/1_224p.mkv"
    write_video(video, 41, 10.0, height=32, width=32)
    prepare(tmp_path / "root", tmp_path / "store", StoreSettings(fps=1, height=16), workers=1, progress=False)
    row = {"video_id": "match", "half": 1, "video_path": str(video), "events": []}
    halves = HalfDataset([row], FrameStore(tmp_path / "store"), LABELS, fps=1)
    header = FeatureHeader(fps=1.0, offset_s=0.5, duration_s=4.1, source="x", video=source_of(video))
    # feature i is of the second from i on
    features = np.arange(num_features, dtype=np.float32)[:, None]
    write_features(features_path(tmp_path / "bank", "match", 1), features, header)
    bank = FeatureBank(tmp_path / "bank")
    if not fits:
        with pytest.raises(InputError, match="covers 0.50 s to 2.50 s of a half of 4.00 s"):
            DistillationDataset(halves, WindowShape(6, 2, 1, "random"), bank, feature_dim=1)
        return
    dataset = DistillationDataset(halves, WindowShape(6, 2, 1, "random"), bank, feature_dim=1)
    # tokens at 0.5, 2.5 and, of the last frame and its repetition, 4 s
    assert dataset.token_times_s(WindowKey(0, 0, 0)).tolist() == [0.5, 2.5, 4.0]
    assert dataset[WindowKey(0, 0, 0)]["teacher_features"].flatten().tolist() == [0, 2, 3]
    # the features of another video of the same name
    write_video(video, 41, 10.0, height=32, width=32, audio_s=4.0)
    with pytest.raises(InputError, match="contains features of another `1_224p.mkv`"):
        DistillationDataset(halves, WindowShape(6, 2, 1, "random"), bank, feature_dim=1)

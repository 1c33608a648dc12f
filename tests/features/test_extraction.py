import json
import math
import os
from fractions import Fraction

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    VideoMAEConfig,
    VideoMAEImageProcessor,
    VideoMAEModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from comedian.errors import InputError
from comedian.features import pretrained as pretrained_extractor
from comedian.features.bank import FeatureBank, features_path
from comedian.features.extraction import central_features, extract_features, load_extractor
from comedian.features.pretrained import Preprocessing, centred_clips
from comedian.inference import torch_model
from comedian.models import ComedianForActionSpotting, ComedianModel, ComedianVideoProcessor
from comedian.video.decoding import iter_frames
from match_factory import write_matches
from testing_utils import compute_in_float32, tiny_config
from video_factory import note_turn, write_video

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
VIT = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
CROPPED = {"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": {"height": 16, "width": 16}} | IMAGENET
SMALL = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "initializer_range": 0.5,
}


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    compute_in_float32(monkeypatch)


def save(model, folder, **processor):
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


def save_ours(folder, model_class=ComedianForActionSpotting, **overrides):
    model = model_class(tiny_config(initializer_range=0.5, **overrides)).eval()
    model.save_pretrained(folder)
    ComedianVideoProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return model


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "half.mp4", num_frames=50, fps=10, height=32, width=48)


def frames_of(video, fps, size):
    return np.stack([frame for _, frame in iter_frames(video, fps, size)])


def normalised(frames, mean, std):
    pixels = (frames / 255 - np.array(mean)) / np.array(std)
    return torch.tensor(pixels, dtype=torch.float32).movedim(-1, -3)


# our own models


@pytest.mark.parametrize("length", [1, 3, 4, 5, 6, 21])
@pytest.mark.parametrize("num_frames, batch_size", [(8, 16), (10, 3), (2, 4)])
def test_a_token_comes_from_the_window_in_which_it_is_most_central(length, num_frames, batch_size):
    model = ComedianModel(tiny_config(initializer_range=0.5, num_frames=num_frames)).eval()
    window = model.config.num_tokens
    tokens = torch.randn(length, 16)
    padded = torch.cat([tokens, tokens[-1:].repeat(window, 1)])[: max(length, window)]
    encoder = torch_model.TorchEncoder(model, ComedianVideoProcessor())
    found = torch.from_numpy(central_features(encoder, tokens.numpy(), batch_size))
    assert found.shape == (length, 16) and found.dtype == torch.float32
    for k in range(length):
        start = min(max(k - window // 2, 0), len(padded) - window)
        with torch.no_grad():
            expected = model.encode_temporal(padded[None, start : start + window])[0, k - start]
        torch.testing.assert_close(found[k], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_class", [ComedianForActionSpotting, ComedianModel])
def test_features_of_our_own_models_are_those_of_whole_windows(tmp_path, video, model_class):
    model = save_ours(tmp_path / "model", model_class)
    extractor = load_extractor(str(tmp_path / "model"))
    found = extractor(video)
    # a token is two frames at 2 fps: 5 s are 10 frames, 5 tokens; windows of 4 start at token 0 and 1
    pixels = normalised(frames_of(video, 2.0, (16, 16)), [0.45] * 3, [0.225] * 3)
    backbone = model if model_class is ComedianModel else model.comedian
    with torch.no_grad():
        outputs = [backbone(pixels[None, 2 * start : 2 * start + 8]).last_hidden_state[0] for start in (0, 1)]
    expected = torch.stack([outputs[0][0], outputs[0][1], outputs[0][2], outputs[1][2], outputs[1][3]])
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert found.dtype == np.float32
    assert (extractor.fps, extractor.offset_s) == (1.0, 0.25)


def test_a_bank_of_our_own_model_serves_its_tokens(tmp_path):
    save_ours(tmp_path / "model", fps=4.0)
    root = write_matches(tmp_path / "root")
    extractor = load_extractor(str(tmp_path / "model"))
    extract_features(root, tmp_path / "bank", extractor, dtype="float32", progress=False)
    half = FeatureBank(tmp_path / "bank").open("league/two", 2)
    assert (half.fps, half.offset_s, half.num_features, half.duration_s) == (2.0, 0.125, 24, 12.0)
    half.check(token_rate=2.0, duration_s=12.0, dim=16)
    expected = extractor(root / "league/two/2_224p.mkv")
    np.testing.assert_array_equal(half.at(np.arange(24) / 2 + 0.125), expected)


# other models


@pytest.mark.parametrize("num_frames", [1, 2, 9, 20])
@pytest.mark.parametrize("length", [1, 2, 5, 8])
@pytest.mark.parametrize("hop", [1.0, 2.0, 2.5, 8 / 3, 7.0])
def test_clips_are_centred(num_frames, length, hop):
    expected, count = [], 0
    while (centre := math.floor(count * hop + 0.5)) < num_frames:
        wanted = [centre + step for step in range(-((length - 1) // 2), length // 2 + 1)]
        expected.append([min(max(index, 0), num_frames - 1) for index in wanted])
        count += 1
    assert list(centred_clips(range(num_frames), length, hop)) == expected
    assert all(len(clip) == length for clip in expected)


def test_no_frames_no_clips():
    assert list(centred_clips([], 4, 1.0)) == []


def naive_clips(frames, length, hop_frames):
    """Clips by index, for whole hops: `hop_frames` is an int."""
    for centre in range(0, len(frames), hop_frames):
        wanted = range(centre - (length - 1) // 2, centre + length // 2 + 1)
        yield np.stack([frames[min(max(index, 0), len(frames) - 1)] for index in wanted])


def test_a_video_model(tmp_path, video):
    model = VideoMAEModel(VideoMAEConfig(num_frames=4, tubelet_size=2, **SMALL)).eval()
    name = save(model, tmp_path / "videomae", **CROPPED)
    extractor = load_extractor(name, clip_s=2.0, hop_s=1.0, batch_size=2)
    found = extractor(video)
    # 4 frames in 2 s are 2 fps: a clip's middle is a quarter of a second after the frame in its centre
    assert (extractor.fps, extractor.offset_s) == (1.0, 0.25)
    assert extractor.source.startswith("videomae (") and extractor.source.endswith(", clips of 4 frames at 2 fps")
    frames = frames_of(video, 2.0, (20, 30))[:, 2:18, 7:23]
    with torch.no_grad():
        expected = [
            model(normalised(clip, *IMAGENET.values())[None]).last_hidden_state[0].mean(dim=0)
            for clip in naive_clips(frames, 4, 2)
        ]
    np.testing.assert_allclose(found, torch.stack(expected).numpy(), rtol=1e-4, atol=1e-5)
    assert found.shape == (5, 16) and found.dtype == np.float32


@pytest.mark.parametrize("batch_size", [3, 16])
@pytest.mark.parametrize(
    "clip_s, fps, hop_s, length, hop, offset_s", [(1.0, None, 0.5, 2, 1, 0.25), (0.6, 5, 1, 3, 5, 0.0)]
)
def test_an_image_model_with_a_pooler(tmp_path, video, clip_s, fps, hop_s, length, hop, offset_s, batch_size):  # fmt: skip
    model = ViTModel(ViTConfig(**SMALL)).eval()
    name = save(model, tmp_path / "vit", **VIT)
    extractor = load_extractor(name, clip_s=clip_s, fps=fps, hop_s=hop_s, batch_size=batch_size)
    assert (extractor.fps, extractor.offset_s) == (1 / hop_s, offset_s)
    frames = frames_of(video, fps or 2.0, (16, 16))
    with torch.no_grad():
        expected = [
            np.mean(
                [model(normalised(frame, [0.5] * 3, [0.5] * 3)[None]).pooler_output[0].numpy() for frame in clip], 0
            )
            for clip in naive_clips(frames, length, hop)
        ]
    np.testing.assert_allclose(extractor(video), expected, rtol=1e-4, atol=1e-5)


def test_an_image_model_without_a_trained_pooler(tmp_path, video):
    """A classifier's checkpoint has no pooler, and transformers would make a random one."""
    model = ViTForImageClassification(ViTConfig(**SMALL)).eval()
    extractor = load_extractor(save(model, tmp_path / "vit", **VIT), clip_s=0.5)
    frames = normalised(frames_of(video, 2.0, (16, 16))[::2], [0.5] * 3, [0.5] * 3)
    with torch.no_grad():
        expected = model.vit(frames).last_hidden_state.mean(dim=1)
    np.testing.assert_allclose(extractor(video), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_dinov2_crops_the_centre(tmp_path, video):
    config = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    model = Dinov2Model(Dinov2Config(**config)).eval()
    name = save(model, tmp_path / "dino", image_processor_type="BitImageProcessor", do_convert_rgb=True, **CROPPED)
    frames = normalised(frames_of(video, 2.0, (20, 30))[::2, 2:18, 7:23], *IMAGENET.values())
    with torch.no_grad():
        expected = model(frames).pooler_output
    np.testing.assert_allclose(load_extractor(name, clip_s=0.5)(video), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_frames_of_a_telephone_and_of_wide_pixels_keep_their_shape(tmp_path, monkeypatch):
    model = ViTModel(ViTConfig(**SMALL), add_pooling_layer=False)
    name = save(model, tmp_path / "vit", image_processor_type="CLIPImageProcessor", **CROPPED)
    upright = note_turn(write_video(tmp_path / "upright.mp4", 20, height=32, width=64), 1)
    wide = write_video(tmp_path / "wide.mp4", 20, height=64, width=64, pixel_aspect=Fraction(2, 1))
    asked = []
    frames_of_size = pretrained_extractor.iter_frames
    monkeypatch.setattr(
        pretrained_extractor, "iter_frames", lambda *words: asked.append(words[2:]) or frames_of_size(*words)
    )
    for video in (upright, wide):
        load_extractor(name, clip_s=0.5)(video)
    assert asked == [((40, 20),), ((20, 40),)]


def test_a_convolutional_network(tmp_path, video):
    model = ConvNextModel(ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2)).eval()
    extractor = load_extractor(save(model, tmp_path / "convnext", image_processor_type="ViTImageProcessor", **VIT))
    assert extractor(video).shape == (5, 8)
    extractor.use_pooler = False
    assert extractor(video).shape == (5, 8)


@pytest.mark.parametrize("make", [ViTImageProcessor, VideoMAEImageProcessor])
def test_frames_are_prepared_as_by_the_processor(tmp_path, make):
    """Frames of the size that is resized to, so that resizing changes nothing."""
    settings, size = (VIT, (16, 16)) if make is ViTImageProcessor else (CROPPED, (20, 32))
    processor = make(**settings)
    processor.save_pretrained(tmp_path)
    frames = np.random.default_rng(0).integers(256, size=(4, *size, 3), dtype=np.uint8)
    expected = processor(list(frames), return_tensors="pt")["pixel_values"].reshape(4, 3, 16, 16)
    found = pretrained_extractor._preprocessing(
        "x", pretrained_extractor._processor_settings(str(tmp_path), False, False)
    )
    assert found.decoded_size(40, 64) == size
    torch.testing.assert_close(found(torch.from_numpy(frames)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, Preprocessing(None, None, [0.0] * 3, [1.0] * 3, 1 / 255)),
        ({"size": 8}, Preprocessing((8, 8), None, [0.0] * 3, [1.0] * 3, 1 / 255)),
        (
            {"size": 8, "do_center_crop": True, "crop_size": 6} | IMAGENET,
            Preprocessing(8, (6, 6), *IMAGENET.values(), 1 / 255),
        ),
        (
            {"size": {"height": 8, "width": 9}, "do_normalize": False, "do_rescale": False},
            Preprocessing((8, 9), None, [0.0] * 3, [1.0] * 3, 1.0),
        ),
        # ViViT scales to [-1, 1] and then normalises
        (VIT | {"offset": True, "rescale_factor": 1 / 127.5, "do_resize": False},
         Preprocessing(None, None, [1.5] * 3, [0.5] * 3, 1 / 127.5)),
    ],
)  # fmt: skip
def test_settings_of_processors(settings, expected):
    assert pretrained_extractor._preprocessing("x", settings) == expected


@pytest.mark.parametrize(
    "settings, found",
    [({"do_pad": True}, "'do_pad'"), ({"size": {"longest_edge": 8}}, "longest_edge"),
     ({"do_center_crop": True, "crop_size": {"shortest_edge": 8}}, "shortest_edge")],
)  # fmt: skip
def test_processors_that_do_more(settings, found):
    with pytest.raises(InputError, match=f"the processor of `x` uses .*{found}.*not supported"):
        pretrained_extractor._preprocessing("x", settings)


def test_settings_are_read_from_the_file_where_no_processor_can_be_made(tmp_path):
    name = save(ViTModel(ViTConfig(**SMALL)), tmp_path / "vit", image_processor_type="NoSuchProcessor", **VIT)
    assert load_extractor(name).preprocessing == Preprocessing((16, 16), None, [0.5] * 3, [0.5] * 3, 1 / 255)


# what cannot be


@pytest.fixture
def videomae(tmp_path):
    return save(VideoMAEModel(VideoMAEConfig(num_frames=4, tubelet_size=2, **SMALL)), tmp_path / "videomae", **CROPPED)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fps": 4.0}, "takes clips of 4 frames, but 4 s at 4 fps are 16; give an fps of 1"),
        ({"clip_s": 0.0}, "`clip_s` is 0.0; give a number above 0"),
        ({"hop_s": math.nan}, "`hop_s` is nan; give a number above 0"),
        ({"fps": -1.0}, "`fps` is -1.0; give a number above 0"),
        ({"hop_s": 0.5}, "a hop of 0.5 s is less than a frame at 1 fps"),
        ({"batch_size": 0}, "`batch_size` is 0; give 1 or more"),
        ({"device": "cuda:99"}, "device `cuda:99` cannot be used"),
        ({"device": "toaster"}, "device `toaster` cannot be used"),
    ],
)
def test_options_that_do_not_fit(videomae, options, message):
    with pytest.raises(InputError, match=message) as error:
        load_extractor(videomae, **options)
    assert "\n" not in str(error.value)


def test_our_own_models_have_their_own_windows(tmp_path):
    save_ours(tmp_path / "model")
    for options in ({"clip_s": 4.0}, {"fps": 2.0}, {"hop_s": 1.0}):
        with pytest.raises(InputError, match="has its own windows"):
            load_extractor(str(tmp_path / "model"), **options)


def test_models_that_cannot_be_had(tmp_path, videomae):
    with pytest.raises(InputError, match="does not exist"):
        load_extractor(str(tmp_path / "none"))
    (tmp_path / "videomae/model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_extractor(videomae)
    save_ours(tmp_path / "ours")
    (tmp_path / "ours/model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_extractor(str(tmp_path / "ours"))
    text = BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16))
    with pytest.raises(InputError, match="is a BertModel, which has other inputs than images"):
        load_extractor(save(text, tmp_path / "bert"))


def test_code_of_a_model_is_not_run(tmp_path):
    config = {"model_type": "foreign", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_extractor(str(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("drop", ["encoder.layer", "temporal_encoder"])
def test_weights_that_are_missing(tmp_path, drop):
    from safetensors.torch import load_file, save_file

    if drop == "temporal_encoder":
        save_ours(tmp_path / "model")
    else:
        save(VideoMAEModel(VideoMAEConfig(num_frames=4, **SMALL)), tmp_path / "model", **CROPPED)
    path = tmp_path / "model/model.safetensors"
    save_file({key: value for key, value in load_file(path).items() if drop not in key}, path, {"format": "pt"})
    with pytest.raises(InputError, match=f"has no weights for .*{drop}"):
        load_extractor(str(tmp_path / "model"))


def test_a_model_without_a_processor(tmp_path):
    ViTModel(ViTConfig(**SMALL)).save_pretrained(tmp_path / "vit")
    with pytest.raises(InputError, match="contains no preprocessor_config.json"):
        load_extractor(str(tmp_path / "vit"))


def test_frames_that_the_model_does_not_take(tmp_path, video):
    name = save(ViTModel(ViTConfig(**SMALL)), tmp_path / "vit", **(VIT | {"size": {"height": 24, "width": 24}}))
    with pytest.raises(InputError, match=r"does not accept pixels of shape \[10, 3, 24, 24\]: Input image size"):
        load_extractor(name)(video)
    cropped = VIT | {"do_resize": False, "do_center_crop": True, "crop_size": {"height": 64, "width": 16}}
    name = save(VideoMAEModel(VideoMAEConfig(num_frames=4, **SMALL)), tmp_path / "mae", **cropped)
    with pytest.raises(InputError, match=r"frames of \(32, 48\) are too small for .* crops them to \(64, 16\)"):
        load_extractor(name)(video)


# the driver


def test_extraction_goes_on_where_it_stopped(tmp_path, monkeypatch):
    save_ours(tmp_path / "model")
    root, bank = write_matches(tmp_path / "root"), tmp_path / "bank"
    report = extract_features(root, bank, load_extractor(str(tmp_path / "model")), progress=False)
    assert len(report.done) == 6 and FeatureBank(bank).halves == report.done
    gone = features_path(bank, "league/one", 2)
    before = {path: os.stat(path).st_mtime_ns for path in bank.rglob("*.safetensors")}
    gone.unlink()
    os.rename(tmp_path / "model", tmp_path / "elsewhere")
    os.mkdir(tmp_path / "x")
    os.rename(tmp_path / "elsewhere", tmp_path / "x/model")  # the same model in another place
    report = extract_features(root, bank, load_extractor(str(tmp_path / "x/model")), progress=False)
    assert report.done == [("league/one", 2)] and len(report.skipped) == 5
    assert [path for path, mtime in before.items() if os.stat(path).st_mtime_ns != mtime] == [gone]
    write_video(root / "league/three/1_224p.mkv", num_frames=20, fps=4, height=32, width=32)
    report = extract_features(root, bank, load_extractor(str(tmp_path / "x/model")), progress=False)
    assert report.done == [("league/three", 1)]


def test_other_weights_need_another_bank(tmp_path):
    save_ours(tmp_path / "model")
    root = write_matches(tmp_path / "root")
    extractor = load_extractor(str(tmp_path / "model"))
    extract_features(root, tmp_path / "bank", extractor, video_ids=["league/three"], progress=False)
    assert FeatureBank(tmp_path / "bank").halves == [("league/three", 1), ("league/three", 2)]
    torch.manual_seed(1)
    save_ours(tmp_path / "model")
    extractor = load_extractor(str(tmp_path / "model"))
    with pytest.raises(InputError, match="contains features with source .*; give another folder"):
        extract_features(root, tmp_path / "bank", extractor, video_ids=["league/one"], progress=False)


def test_no_videos(tmp_path):
    save_ours(tmp_path / "model")
    (tmp_path / "root").mkdir()
    with pytest.raises(InputError, match="no videos under"):
        extract_features(tmp_path / "root", tmp_path / "bank", load_extractor(str(tmp_path / "model")), progress=False)

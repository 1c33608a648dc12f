"""Conversion of authors' checkpoints: what is read, what is refused."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comedian.conversion.lightning import published_name, read_checkpoint
from comedian.conversion.model_folder import check_output_dir
from comedian.errors import InputError
from comedian.models import ComedianConfig, ComedianForActionSpotting, ComedianModel, ComedianVideoProcessor
from comedian.soccernet.labels import SOCCERNET_V2_LABELS
from naive_model import naive_forward, random_checkpoint
from testing_utils import convert

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="../shared/reference is not at hand")

SIZES = {
    "vivit": {"encoder": "vivit", "width": 8, "depths": [2], "heads": [2], "image": (16, 16), "patch": 4},
    "viswin": {
        **{"encoder": "viswin", "width": 8, "depths": [2, 2], "heads": [2, 4]},
        **{"image": (16, 16), "patch": 2, "window": 4},
    },
}
HEADS = {"vivit": {"spatial_heads": [2], "temporal_heads": 2}, "viswin": {"temporal_heads": 2}}
both_encoders = pytest.mark.parametrize("encoder", ["vivit", "viswin"])
LAST_BIAS = "trunk.transformer.temporal_transformer.blocks.0.mlp.fc2.bias"


def checkpoint(encoder: str, **overrides) -> dict:
    tensors = random_checkpoint(**(SIZES[encoder] | {"tubelet": 2, "frames": 8} | overrides))
    if encoder == "viswin":
        # stage 0 has 8 x 8 patches in 4 windows; its derived buffers lie in the file
        block = "trunk.transformer.spatial_transformer.layers.0.blocks.1"
        tensors[f"{block}.attn_mask"] = torch.zeros(4, 16, 16)
        tensors[f"{block}.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
    return tensors


def stage_1_checkpoint(encoder: str) -> dict:
    """The spatial encoder under its stage-1 names, with a projector, momentum copies and a queue."""
    tensors = {}
    for name, tensor in checkpoint(encoder).items():
        name = name.removeprefix("trunk.transformer.").removeprefix("spatial_transformer.")
        if not name.startswith(("temporal_", "time_embed", "head_class")):
            tensors["trunk." + name.replace("spatial_cls_token", "cls_token")] = tensor
    momentum = {f"momentum_{name}": tensor.clone() for name, tensor in tensors.items()}
    return tensors | momentum | pretraining_parts()


def pretraining_parts() -> dict:
    names = ("projector.layers.0.weight", "predictor.layers.0.weight", "momentum_projector.layers.0.weight", "queue")
    return {name: torch.randn(4, 8) for name in names} | {"queue_ptr": torch.zeros(1, dtype=torch.int64)}


def save(tensors: dict, path: Path, **more) -> Path:
    torch.save({"state_dict": tensors, "epoch": 1, "hyper_parameters": {}} | more, path)
    return path


@both_encoders
@pytest.mark.parametrize("suffix", [".ckpt", ".pth", ".safetensors", "flat.pth"])
def test_spotting(encoder, suffix, tmp_path):
    tensors = checkpoint(encoder)
    buffers = {"train_transform.0.mean": torch.ones(3), "test_transform.1.std": torch.ones(3)}
    path = tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        save_file(tensors | buffers, path)
    elif suffix == "flat.pth":
        torch.save(tensors | buffers, path)
    else:
        save(tensors | buffers, path)
    folder = convert(path, tmp_path / "deep" / "out", **HEADS[encoder], fps=25.0)
    assert folder == tmp_path / "deep" / "out"
    files = {"config.json", "model.safetensors", "model_record.json", "video_preprocessor_config.json"}
    assert {file.name for file in folder.iterdir() if file.suffix != ".py"} == files
    assert not list(folder.parent.glob("*.partial"))
    model, info = ComedianForActionSpotting.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    config = model.config
    assert (config.spatial_encoder, config.image_size, config.num_frames, config.fps) == (encoder, [16, 16], 8, 25.0)
    assert config.label_names == list(SOCCERNET_V2_LABELS)
    assert dict(ComedianVideoProcessor.from_pretrained(folder).size) == {"height": 16, "width": 16}
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["ComedianForActionSpotting"]
    sizes, pixels = SIZES[encoder], torch.randn(1, 2, 3, 16, 16)
    expected = naive_forward(tensors, pixels, sizes["depths"], sizes["heads"], 2, sizes.get("window", 7))
    with torch.no_grad():
        torch.testing.assert_close(model(pixels).logits, expected, atol=2e-5, rtol=0)


@both_encoders
def test_stage_2(encoder, tmp_path):
    tensors = {name: tensor for name, tensor in checkpoint(encoder).items() if not name.startswith("head")}
    path = save(tensors | pretraining_parts(), tmp_path / "stage2.ckpt")
    converted = read_checkpoint(path, **HEADS[encoder])
    assert converted.stage == "stage 2" and type(converted.model) is ComedianModel
    groups = {"momentum_projector": 1, "predictor": 1, "projector": 1, "queue": 1, "queue_ptr": 1}
    derived = {"attn_mask": 1, "relative_position_index": 1} if encoder == "viswin" else {}
    assert converted.skipped == groups | derived
    folder = convert(path, tmp_path / "out", **HEADS[encoder])
    model = ComedianModel.from_pretrained(folder)
    for name, weight in model.state_dict().items():
        stored = tensors[published_name(name, "stage 2")]
        assert torch.equal(weight, stored.flatten(1) if stored.ndim == 5 else stored), name


@both_encoders
def test_stage_1_is_the_spatial_encoder_alone(encoder, tmp_path):
    tensors = stage_1_checkpoint(encoder)
    path = save(tensors, tmp_path / "stage1.ckpt")
    converted = read_checkpoint(path, **HEADS[encoder])
    config = converted.model.config
    assert (converted.stage, config.num_frames, config.temporal_depth) == ("stage 1", 128, 6)
    assert any("omitted and to be trained" in line for line in converted.assumed)
    convert(path, tmp_path / "out", **HEADS[encoder])
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written and all(name.startswith("spatial_encoder.") for name in written)
    for name, weight in written.items():
        stored = tensors[published_name(name, "stage 1")]
        assert torch.equal(weight, stored.flatten(1) if stored.ndim == 5 else stored), name
    model, loading = ComedianModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert all(name.startswith("temporal_encoder.") for name in loading["missing_keys"])
    assert 0.01 < model.temporal_encoder.layers[0].attention.qkv.weight.std() < 0.03


@needs_reference
@pytest.mark.parametrize("name", ["vivit_spotting", "viswin_spotting", "vit_ssl"])
def test_published_files(name):
    converted = read_checkpoint(REFERENCE / f"{name}.ckpt")
    assert converted.stage == ("stage 1" if name == "vit_ssl" else "spotting")
    assert converted.model.config.image_size == ([56, 56] if name == "viswin_spotting" else [32, 32])


@needs_reference
def test_weights_of_the_published_stage_1_file():
    stored = torch.load(REFERENCE / "vit_ssl.ckpt", weights_only=True)["state_dict"]
    model = read_checkpoint(REFERENCE / "vit_ssl.ckpt").model
    assert torch.equal(model.spatial_encoder.class_token, stored["trunk.cls_token"])
    assert torch.equal(model.spatial_encoder.layers[1].mlp.fc1.weight, stored["trunk.blocks.1.mlp.fc1.weight"])


@pytest.mark.parametrize(
    "width, depths, heads",
    [(192, [12], ([3], 3)), (384, [1], ([6], 6)), (768, [1], ([12], 12)), (48, [1], ([3], 3))],
)
def test_default_heads_of_vivit(width, depths, heads, tmp_path):
    tensors = checkpoint("vivit", width=width, depths=depths, image=(4, 4), mlp_ratio=1)
    converted = read_checkpoint(save(tensors, tmp_path / "a.ckpt"))
    assert (converted.model.config.spatial_num_heads, converted.model.config.temporal_num_heads) == heads
    assert any("--spatial-heads" in line for line in converted.assumed)
    assert any("--temporal-heads" in line for line in converted.assumed)


@pytest.mark.parametrize("depths, heads", [([2, 2, 6, 2], 3), ([2, 2, 18, 2], 6)])
def test_default_temporal_heads_of_viswin_tell_small_from_tiny(depths, heads, tmp_path):
    # 1 x 1 patches and no temporal layer keep the widths published and the file small
    sizes = {"width": 96, "depths": depths, "heads": [3, 6, 12, 24], "window": 1, "image": (4, 4), "patch": 4}
    tensors = random_checkpoint("viswin", **sizes, tubelet=1, frames=4, temporal_depth=0, mlp_ratio=1)
    config = read_checkpoint(save(tensors, tmp_path / "a.ckpt"), image_size=(4, 4)).model.config
    assert (config.temporal_num_heads, config.spatial_num_heads, config.mlp_ratio) == (heads, [3, 6, 12, 24], 1)


def test_heads_that_do_not_divide_ask_for_the_flag(tmp_path):
    path = save(checkpoint("vivit"), tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="`spatial_num_heads` 3 does not divide the width 8"):
        read_checkpoint(path)


def test_viswin_heads_are_read_and_the_flag_must_agree(tmp_path):
    path = save(checkpoint("viswin"), tmp_path / "a.ckpt")
    for given in (None, [2], [2, 4]):
        assert read_checkpoint(path, spatial_heads=given, temporal_heads=2).model.config.spatial_num_heads == [2, 4]
    with pytest.raises(InputError, match="--spatial-heads 4: the bias tables of .* have 2 4 heads"):
        read_checkpoint(path, spatial_heads=[4], temporal_heads=2)


def test_vivit_image_size(tmp_path):
    square = save(checkpoint("vivit"), tmp_path / "square.ckpt")
    assert read_checkpoint(square, **HEADS["vivit"], image_size=(8, 32)).model.config.grid_size == (2, 8)
    with pytest.raises(InputError, match="16 x 20 pixels has 20 patches, .* has 16"):
        read_checkpoint(square, **HEADS["vivit"], image_size=(16, 20))
    with pytest.raises(InputError, match="`image_size`"):
        read_checkpoint(square, **HEADS["vivit"], image_size=(15, 16))
    wide = save(checkpoint("vivit", image=(16, 24)), tmp_path / "wide.ckpt")
    with pytest.raises(InputError, match="24 patches, no square; give --image-size HEIGHT WIDTH"):
        read_checkpoint(wide, **HEADS["vivit"])
    assert read_checkpoint(wide, **HEADS["vivit"], image_size=(16, 24)).model.config.image_size == [16, 24]


def test_viswin_image_size(tmp_path):
    tensors = checkpoint("viswin")
    mask = "trunk.transformer.spatial_transformer.layers.0.blocks.1.attn_mask"
    path = save(tensors, tmp_path / "masked.ckpt")
    assert read_checkpoint(path, temporal_heads=2).model.config.image_size == [16, 16]
    with pytest.raises(InputError, match="16 x 32 pixels has 8 windows"):
        read_checkpoint(path, temporal_heads=2, image_size=(16, 32))
    path = save(tensors | {mask: torch.zeros(6, 16, 16)}, tmp_path / "wide.ckpt")
    with pytest.raises(InputError, match="6 windows, no square; give --image-size"):
        read_checkpoint(path, temporal_heads=2)
    assert read_checkpoint(path, temporal_heads=2, image_size=(16, 24)).model.config.image_size == [16, 24]
    # buffers, but no mask: the grid is one window
    del tensors[mask]
    small = checkpoint("viswin", image=(8, 8), depths=[2], heads=[2])
    del small[mask]
    path = save(small, tmp_path / "small.ckpt")
    assert read_checkpoint(path, temporal_heads=2).model.config.image_size == [8, 8]
    # no buffers: the published size, said aloud
    bare = {name: tensor for name, tensor in tensors.items() if not name.endswith("relative_position_index")}
    converted = read_checkpoint(save(bare, tmp_path / "bare.ckpt"), temporal_heads=2)
    assert converted.model.config.image_size == [224, 224]
    assert "image size: 224 x 224 (--image-size)" in converted.assumed


def test_viswin_tables_of_smaller_windows_must_fit_the_image(tmp_path):
    # stage 1 has a 2 x 2 grid and so windows of 2; at 32 x 32 they would be 4
    tensors = random_checkpoint(**(SIZES["viswin"] | {"image": (8, 8)}), tubelet=2, frames=8)
    path = save(tensors, tmp_path / "a.ckpt")
    assert read_checkpoint(path, temporal_heads=2, image_size=(8, 8)).model.config.stage_windows() == [4, 2]
    table = r"layers\.1\.blocks\.0\.attn\.relative_position_bias_table` has shape \(9, 4\) where \(49, 4\) fits"
    with pytest.raises(InputError, match=table):
        read_checkpoint(path, temporal_heads=2, image_size=(32, 32))


def test_labels(tmp_path):
    path = save(checkpoint("vivit", classes=2), tmp_path / "a.ckpt")
    converted = read_checkpoint(path, **HEADS["vivit"], labels=["pass", "drive"])
    assert converted.model.config.label_names == ["pass", "drive"]
    assert not any("labels" in line for line in converted.assumed)
    with pytest.raises(InputError, match="3 labels for the 2 outputs"):
        read_checkpoint(path, **HEADS["vivit"], labels=["a", "b", "c"])
    assert read_checkpoint(path, **HEADS["vivit"]).model.config.label_names == ["LABEL_0", "LABEL_1"]


def test_half_precision_weights_become_float32(tmp_path):
    halves = {name: tensor.half() for name, tensor in checkpoint("vivit").items()}
    model = read_checkpoint(save(halves, tmp_path / "a.ckpt"), **HEADS["vivit"]).model
    assert model.dtype == torch.float32


# refusals


@both_encoders
@pytest.mark.parametrize(
    "extra",
    [
        "trunk.transformer.temporal_cls_token",
        "trunk.transformer.cls_token",
        "trunk.transformer.blocks.0.norm1.weight",
        "trunk.transformer.spatial_transformer.blocks.7.extra.weight",
        "head_class.layers.1.weight",
        "projector.layers.0.weight",
        "queue",
        "my_train_transform.mean",
        "ema_decay",
    ],
)
def test_left_over_tensors_are_listed(encoder, extra, tmp_path):
    path = save(checkpoint(encoder) | {extra: torch.zeros(2)}, tmp_path / "a.ckpt")
    with pytest.raises(InputError) as caught:
        read_checkpoint(path, **HEADS[encoder])
    assert "left over" in str(caught.value) and extra in str(caught.value)
    assert "\n" not in str(caught.value)


@both_encoders
def test_every_missing_tensor_is_listed(encoder, tmp_path):
    tensors = checkpoint(encoder)
    derived = ("attn_mask", "relative_position_index")
    for name in [name for name in tensors if not name.endswith(derived)]:
        rest = {other: tensor for other, tensor in tensors.items() if other != name}
        if name.startswith("head_class"):
            rest["head_class.layers.0.unknown"] = torch.zeros(1)
        with pytest.raises(InputError) as caught:
            read_checkpoint(save(rest, tmp_path / "a.ckpt"), **HEADS[encoder])
        assert "missing tensors" in str(caught.value) and name in str(caught.value)


def test_several_problems_are_listed_together(tmp_path):
    tensors = checkpoint("vivit") | {
        "surprise": torch.zeros(1),
        "trunk.transformer.temporal_mask_token": torch.zeros(1),
    }
    del tensors[LAST_BIAS]
    with pytest.raises(InputError) as caught:
        read_checkpoint(save(tensors, tmp_path / "a.ckpt"), **HEADS["vivit"])
    for part in (f"missing tensors: {LAST_BIAS}", "left over: surprise", "temporal_mask_token` has shape (1,)"):
        assert part in str(caught.value)


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("owned"),)


def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch):
    """Beside the weights it is passed over, among them it is refused; see test_torch_files.py for each kind."""
    monkeypatch.chdir(tmp_path)
    path = save(checkpoint("vivit"), tmp_path / "a.ckpt", hyper_parameters=Malicious())
    assert read_checkpoint(path, **HEADS["vivit"]).stage == "spotting"
    path = save(checkpoint("vivit") | {"queue": Malicious()}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="a.ckpt"):
        read_checkpoint(path, **HEADS["vivit"])
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("with_buffers", [False, True])
def test_names_may_have_a_prefix(tmp_path, prefix, with_buffers):
    tensors = checkpoint("vivit")
    prefixed = {prefix + name: tensor for name, tensor in tensors.items()}
    if with_buffers:  # of the wrapper itself, and of what it wraps
        prefixed |= {f"{prefix}train_transform.mean": torch.ones(3), "val_transform.mean": torch.ones(3)}
    torch.save(prefixed, tmp_path / "a.pth")
    expected = read_checkpoint(save(tensors, tmp_path / "b.ckpt"), **HEADS["vivit"]).model.state_dict()
    found = read_checkpoint(tmp_path / "a.pth", **HEADS["vivit"]).model.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_a_file_that_names_huge_sizes_takes_no_memory(tmp_path, monkeypatch):
    """A model is made once all its tensors are known to be there."""
    tensors = checkpoint("vivit")
    block = "trunk.transformer.temporal_transformer.blocks"
    tensors |= {f"{block}.{index}.norm1.bias": torch.zeros(8) for index in range(100)}
    made = []
    monkeypatch.setattr(
        ComedianForActionSpotting,
        "post_init",
        lambda self: made.append(next(self.parameters()).device.type),
    )
    with pytest.raises(InputError, match="missing tensors"):
        read_checkpoint(save(tensors, tmp_path / "a.ckpt"), **HEADS["vivit"])
    assert made == ["meta"]


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 100, b"not a checkpoint", b"PK\x03\x04 broken zip", pickle.dumps([1, 2])],
    ids=["empty", "zeros", "text", "zip", "pickle"],
)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_other_files_are_one_line(content, suffix, tmp_path):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="broken") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [[1, 2], {"state_dict": 3}, {"a": "text"}, {"state_dict": {}}, {"a": torch.ones(1)}]
)
def test_other_contents_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(InputError):
        read_checkpoint(tmp_path / "a.ckpt")


def test_a_truncated_file_is_refused(tmp_path):
    path = save(checkpoint("vivit"), tmp_path / "a.ckpt")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="a.ckpt"):
        read_checkpoint(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "missing.ckpt", tmp_path):
        with pytest.raises(InputError, match="is not a file"):
            read_checkpoint(path)


def test_output_folder(tmp_path, monkeypatch):
    path = save(checkpoint("vivit"), tmp_path / "a.ckpt")
    used = tmp_path / "used"
    used.mkdir()
    check_output_dir(used)
    (used / "file").write_text("mine")
    for folder in (used, used / "file", used / "file" / "deeper"):
        with pytest.raises(InputError, match="exists already|cannot be written"):
            convert(path, folder, **HEADS["vivit"])
    assert (used / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    convert(path, tmp_path / "empty", **HEADS["vivit"])
    assert load_file(tmp_path / "empty" / "model.safetensors")

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(ComedianVideoProcessor, "save_pretrained", fail)
    with pytest.raises(KeyboardInterrupt):
        convert(path, tmp_path / "stopped", **HEADS["vivit"])
    assert not list(tmp_path.glob("stopped*"))


@pytest.mark.parametrize("size", ["vivit-tiny", "viswin-tiny"])
def test_published_names_are_told_apart(size):
    """No two of our tensors have the same published name."""
    with torch.device("meta"):
        names = list(ComedianForActionSpotting(ComedianConfig.published(size)).state_dict())
    for stage in ("spotting", "stage 1"):
        assert len({published_name(name, stage) for name in names}) == len(names)

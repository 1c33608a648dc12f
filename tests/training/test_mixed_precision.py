"""Mixed precision in every stage, with mixup, masking, displacements and sound: close to float32, and really used."""

import json
from functools import cache

import pytest
import torch
import yaml
from safetensors.torch import load_file

from comedian.soccernet.prepare import prepare
from comedian.training.distill import distill
from comedian.training.finetune import finetune
from comedian.training.pretrain import pretrain
from comedian.training.recipe import load_recipe
from comedian.video.frame_store import StoreSettings
from match_factory import write_bank, write_matches, write_recipe

HEAD = {"projector_sizes": [12, 6], "queue_size": 21}
# stage -> what runs it, fields of the model, settings
STAGES = {
    "pretrain": (pretrain, {"contrastive_config": HEAD | {"predictor_sizes": [10, 6]}}, {}),
    "distill": (distill, {"distillation_config": HEAD}, {}),
    "finetune_head": (finetune, {"class_weights": [[1], [4]]}, {"freeze_backbone": True, "mixup_alpha": 0.5}),
    "finetune": (
        finetune,
        {"offset_radius_s": 1.5, "scores_per_token": 2, "sound": True, "spotting_loss": "focal"},
        {"mixup_alpha": 0.5, "label_falloff_s": 1.0},
    ),
    "finetune_viswin": (
        finetune,
        {
            "spatial_encoder": "viswin",
            "patch_size": 4,
            "spatial_depths": [1, 1],
            "spatial_num_heads": [2, 4],
            "spatial_window_size": 2,
        },
        {"mixup_alpha": 0.5, "gradient_checkpointing": True},
    ),
}
# what a product's result is in; accelerate has float16 for accelerators alone
ON_CPU = not torch.accelerator.is_available()
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float32 if ON_CPU else torch.float16}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_matches(folder / "root", audio_s=12.0)
    prepare(folder / "root", folder / "store", StoreSettings(fps=4, height=16), sound=True, workers=1, progress=False)
    write_bank(folder / "bank", {})
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A stage and a precision -> losses of its two steps, weights that it left, types of the results of its products."""

    @cache
    def run_stage(stage: str, precision: str | None = None):
        function, overrides, settings = STAGES[stage]
        folder = tmp_path_factory.mktemp(stage)
        settings = settings | {"max_steps": 2, "warmup_steps": 0, "logging_strategy": "steps", "logging_steps": 1}
        settings |= {"save_strategy": "no", "eval_strategy": "no"} | ({precision: True} if precision else {})
        if function is finetune:
            settings["load_best_model_at_end"] = False
        path = write_recipe(folder, data / "root", data / "store", use_cpu=ON_CPU, base_learning_rate=0.01, **settings)
        content = yaml.safe_load(path.read_text())
        content["model"]["overrides"] = overrides
        if stage == "distill":
            content["data"]["features"] = str(data / "bank")
        if stage == "pretrain":
            del content["training"]["windows_per_half"]
        path.write_text(yaml.safe_dump(content))
        dtypes = set()

        def note(module, arguments, output):
            if isinstance(module, torch.nn.Linear) and torch.is_grad_enabled():
                dtypes.add(output.dtype)

        with pytest.MonkeyPatch.context() as patch, torch.nn.modules.module.register_module_forward_hook(note):
            # bfloat16 also where a CPU emulates it
            patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
            function(load_recipe(path))
        log = json.loads((folder / "output" / "trainer_state.json").read_text())["log_history"]
        losses = [entry["loss"] for entry in log if "loss" in entry]
        return losses, load_file(folder / "output" / "model.safetensors"), dtypes

    return run_stage


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_trains_in_mixed_precision_as_in_float32(stage, precision, run, caplog):
    expected_losses, expected, whole = run(stage)
    losses, weights, dtypes = run(stage, precision)
    assert whole == {torch.float32} and DTYPES[precision] in dtypes
    # of rounded pixels and products, 8 bits: up to a percent; without rounding not even the last digit
    assert losses == pytest.approx(expected_losses, rel=1e-2)
    rounded = DTYPES[precision] != torch.float32
    assert (losses != expected_losses) == rounded
    # two steps of Adam of at most 4 / 256 of 0.01: a weight whose gradient is about 0 may go the other way
    for name, weight in weights.items():
        assert weight.dtype == expected[name].dtype == torch.float32
        torch.testing.assert_close(weight, expected[name], atol=4 * 0.01 * 4 / 256 if rounded else 0, rtol=0)


@pytest.mark.skipif(not ON_CPU, reason="where float16 is there, it is used")
@pytest.mark.parametrize("asked_by", ["recipe", "accelerate"])
def test_float16_on_a_cpu_is_float32_and_says_so(asked_by, tmp_path, caplog, monkeypatch):
    from comedian.training.spotting_config import SpottingConfig

    if asked_by == "accelerate":
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    settings = SpottingConfig(output_dir=str(tmp_path), fp16=asked_by == "recipe")
    assert (settings.fp16, settings.mixed_precision) == (False, "no")
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("comedian")]
    assert "`fp16` has no effect on a CPU" in line and "\n" not in line


@pytest.mark.skipif(not ON_CPU, reason="accelerators have bfloat16")
@pytest.mark.parametrize("has_instructions", [False, True])
@pytest.mark.parametrize("asked_by", ["recipe", "accelerate"])
def test_bfloat16_on_a_cpu_that_emulates_it_is_float32_and_says_so(
    asked_by, has_instructions, tmp_path, caplog, monkeypatch
):
    from comedian.training.spotting_config import SpottingConfig

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    if asked_by == "accelerate":
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    settings = SpottingConfig(output_dir=str(tmp_path), bf16=asked_by == "recipe")
    assert settings.mixed_precision == ("bf16" if has_instructions else "no")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("comedian")]
    assert [("no bfloat16 instructions" in line, "float32" in line) for line in lines] == [(True, True)] * (
        not has_instructions
    )

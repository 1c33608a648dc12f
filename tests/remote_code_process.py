"""A user without the package: loads the folders of `tests/models/test_remote_code.py` and says what came of it.

Run as a script in a fresh interpreter that cannot import `comedian`: `python -I remote_code_process.py FOLDER`.
"""

import json
import shutil
import sys
from pathlib import Path

import torch

AUTO_CLASSES = {
    "spatial": ["AutoModel"],
    "backbone": ["AutoModel"],
    "contrastive": ["AutoModelForPreTraining", "AutoModel"],
    "distillation": ["AutoModelForPreTraining", "AutoModel"],
    "spotting": ["AutoModelForVideoClassification", "AutoModel"],
}


class Absent:
    """Import hook for which `comedian` is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "comedian":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@torch.no_grad()
def outputs_of(model, name: str, pixels: torch.Tensor) -> torch.Tensor:
    """What a model of the folder `name` makes of windows; of stages without a temporal encoder, its spatial part."""
    model.eval()
    if hasattr(model, "encode_clips"):
        embedded = model(pixels[:, :2])
        return torch.cat([embedded.query_embeddings, embedded.key_embeddings, model.queue[None, :2]])
    if name in ("spatial", "contrastive"):
        return model.encode_spatial(pixels)
    options = {"sound": pixels.new_ones(len(pixels), 4, 50, 64)} if name == "spotting" and model.config.sound else {}
    outputs = model(pixels, **options)
    return next(outputs[key] for key in ("logits", "token_embeddings", "last_hidden_state") if key in outputs)


def refusal(load, *arguments, **options) -> str:
    """Return the first words of the error that loading without trust ends in."""
    try:
        load(*arguments, **options)
    except ValueError as error:
        return " ".join(str(error).split())
    return "loaded"


def load_everything(root: Path) -> dict:
    """Load every folder by every auto class, save again what was loaded, and report."""
    import transformers
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, pipeline
    from transformers.utils import is_torchvision_available

    pixels = load_file(root / "inputs.safetensors")["pixels"]
    outputs, report, trusted = {}, {"refusals": {}, "spots": {}}, {"trust_remote_code": True}
    for name, auto_classes in AUTO_CLASSES.items():
        folder = root / name
        AutoConfig.from_pretrained(folder, **trusted)
        report["refusals"][f"{name} AutoConfig"] = refusal(AutoConfig.from_pretrained, folder, trust_remote_code=False)
        for auto_class in auto_classes:
            load = getattr(transformers, auto_class).from_pretrained
            report["refusals"][f"{name} {auto_class}"] = refusal(load, folder, trust_remote_code=False)
            outputs[f"{name} {auto_class}"] = outputs_of(load(folder, **trusted), name, pixels).contiguous()

    spotting, video = root / "spotting", str(root / "video.mkv")
    if is_torchvision_available():  # transformers has no AutoVideoProcessor without
        load = transformers.AutoVideoProcessor.from_pretrained
        report["refusals"]["spotting AutoVideoProcessor"] = refusal(load, spotting, trust_remote_code=False)
        frames = load_file(root / "inputs.safetensors")["frames"]
        outputs["processor"] = load(spotting, **trusted)(frames.numpy(), return_tensors="pt")["pixel_values_videos"]
    report["refusals"]["pipeline"] = refusal(pipeline, "action-spotting", model=str(spotting), trust_remote_code=False)
    spotter = pipeline("action-spotting", model=str(spotting), device="cpu", **trusted)
    report["spots"]["spotting"] = spotter(video)
    spotter.save_pretrained(root / "pipeline_again")

    model = AutoModelForVideoClassification.from_pretrained(spotting, **trusted)
    model.save_pretrained(root / "spotting_again")
    spotter.video_processor.save_pretrained(root / "spotting_again")
    again = pipeline("action-spotting", model=str(root / "spotting_again"), device="cpu", **trusted)
    report["spots"]["spotting_again"] = again(video)
    AutoModel.from_pretrained(spotting, **trusted).save_pretrained(root / "backbone_again")
    type(model).from_pretrained(root / "contrastive").save_pretrained(root / "finetuned_again")

    # where the code came from is gone: saving goes on without the files that were never loaded
    shutil.copytree(spotting, root / "fleeting")
    fleeting = AutoModelForVideoClassification.from_pretrained(root / "fleeting", **trusted)
    shutil.rmtree(root / "fleeting")
    fleeting.save_pretrained(root / "orphan")

    save_file(outputs, root / "outputs.safetensors")
    report["comedian"] = [name for name in sys.modules if name.split(".")[0] == "comedian"]
    return report


if __name__ == "__main__":
    sys.meta_path.insert(0, Absent())
    try:
        import comedian  # noqa: F401
    except ModuleNotFoundError:
        pass
    else:
        sys.exit("`comedian` can be imported")
    folder = Path(sys.argv[1])
    (folder / "report.json").write_text(json.dumps(load_everything(folder)))

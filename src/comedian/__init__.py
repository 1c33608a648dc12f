"""COMEDIAN: action spotting in long sports videos, on transformers, datasets and accelerate."""

import importlib

# public name -> module; imported on first use, so that `import comedian` stays fast.
_EXPORTS = {
    "ActionSpotter": "comedian.inference.spotter",
    "ActionSpottingPipeline": "comedian.models",
    "ComedianConfig": "comedian.models",
    "ComedianForActionSpotting": "comedian.models",
    "ComedianForContrastivePretraining": "comedian.models",
    "ComedianForFeatureDistillation": "comedian.models",
    "ComedianModel": "comedian.models",
    "ComedianPreTrainedModel": "comedian.models",
    "ComedianVideoProcessor": "comedian.models",
    "ContrastiveConfig": "comedian.training.contrastive_config",
    "ContrastiveTrainer": "comedian.training.contrastive_trainer",
    "DistillationConfig": "comedian.training.distillation_config",
    "DistillationTrainer": "comedian.training.distillation_trainer",
    "FeatureBank": "comedian.features.bank",
    "FrameStore": "comedian.video.frame_store",
    "InputError": "comedian.errors",
    "SoccerNet": "comedian.soccernet.builder",
    "SpottingConfig": "comedian.training.spotting_config",
    "SpottingTrainer": "comedian.training.spotting_trainer",
    "StreamingSpotter": "comedian.inference.streaming",
    "find_recipe": "comedian.training.recipe_names",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    if name == "__version__":
        from importlib.metadata import version

        return version("comedian")
    if name not in _EXPORTS:
        raise AttributeError(f"module 'comedian' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

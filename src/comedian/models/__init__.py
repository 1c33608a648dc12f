"""Models, registered with transformers' Auto classes and pipelines; every other file of this folder is remote code.

The classes are imported when one of them is first asked for, so that inference without torch can import the files here that
need none: `settings_comedian`, `postprocessing_comedian`, `frames_comedian`, `sound_comedian`, `timeline_comedian`,
`time_grid_comedian`, `windows_comedian`.
"""

import importlib

# public name -> file
_CLASSES = {
    "ActionSpottingPipeline": "pipeline_comedian",
    "ComedianConfig": "configuration_comedian",
    "ComedianContrastiveConfig": "configuration_comedian",
    "ComedianDistillationConfig": "configuration_comedian",
    "ComedianForActionSpotting": "modeling_comedian",
    "ComedianForContrastivePretraining": "modeling_comedian_pretraining",
    "ComedianForFeatureDistillation": "modeling_comedian_pretraining",
    "ComedianModel": "modeling_comedian",
    "ComedianPreTrainedModel": "modeling_comedian",
    "ComedianVideoProcessor": "video_processing_comedian",
}

__all__ = sorted(_CLASSES)


def _register() -> None:
    """Import all classes, and register them with transformers."""
    from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForVideoClassification
    from transformers.pipelines import PIPELINE_REGISTRY
    from transformers.utils import is_torchvision_available

    found = {name: getattr(importlib.import_module(f"{__name__}.{module}"), name) for name, module in _CLASSES.items()}
    globals().update(found)
    config, spotting = found["ComedianConfig"], found["ComedianForActionSpotting"]
    AutoConfig.register("comedian", config)
    AutoModel.register(config, found["ComedianModel"])
    AutoModelForVideoClassification.register(config, spotting)
    # of two, transformers takes the one that the checkpoint's `architectures` names
    of_stages = found["ComedianForContrastivePretraining"], found["ComedianForFeatureDistillation"]
    AutoModelForPreTraining.register(config, of_stages)
    pipeline = found["ActionSpottingPipeline"]
    PIPELINE_REGISTRY.register_pipeline("action-spotting", pipeline, AutoModelForVideoClassification)
    # transformers offers its AutoVideoProcessor only where torchvision is installed; ComedianVideoProcessor needs none
    if is_torchvision_available():
        from transformers import AutoVideoProcessor

        AutoVideoProcessor.register(config, found["ComedianVideoProcessor"])


def __getattr__(name: str):
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _register()
    return globals()[name]


def __dir__() -> list[str]:
    return __all__

"""Models, registered with transformers' Auto classes and pipelines; every other file of this folder is remote code."""

from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForVideoClassification
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import is_torchvision_available

from .configuration_comedian import ComedianConfig, ComedianContrastiveConfig, ComedianDistillationConfig
from .modeling_comedian import ComedianForActionSpotting, ComedianModel, ComedianPreTrainedModel
from .modeling_comedian_pretraining import ComedianForContrastivePretraining, ComedianForFeatureDistillation
from .pipeline_comedian import ActionSpottingPipeline
from .video_processing_comedian import ComedianVideoProcessor

AutoConfig.register("comedian", ComedianConfig)
AutoModel.register(ComedianConfig, ComedianModel)
AutoModelForVideoClassification.register(ComedianConfig, ComedianForActionSpotting)
# of two, transformers takes the one that the checkpoint's `architectures` names
AutoModelForPreTraining.register(ComedianConfig, (ComedianForContrastivePretraining, ComedianForFeatureDistillation))
PIPELINE_REGISTRY.register_pipeline("action-spotting", ActionSpottingPipeline, AutoModelForVideoClassification)
# transformers offers its AutoVideoProcessor only where torchvision is installed; ComedianVideoProcessor needs none
if is_torchvision_available():
    from transformers import AutoVideoProcessor

    AutoVideoProcessor.register(ComedianConfig, ComedianVideoProcessor)

__all__ = [
    "ActionSpottingPipeline",
    "ComedianConfig",
    "ComedianContrastiveConfig",
    "ComedianDistillationConfig",
    "ComedianForActionSpotting",
    "ComedianForContrastivePretraining",
    "ComedianForFeatureDistillation",
    "ComedianModel",
    "ComedianPreTrainedModel",
    "ComedianVideoProcessor",
]

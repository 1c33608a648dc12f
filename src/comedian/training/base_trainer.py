"""What the trainers of all stages share: windows drawn by seed and epoch, augmentation on the device, decay, diagnostics."""

import re
import shutil
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import Sampler
from transformers import PreTrainedModel, Trainer, TrainerCallback

from comedian.data.augmentation import AugmentationSettings, augment, draw_parameters
from comedian.data.window_dataset import FrameWindows, WindowSampler
from comedian.models.video_processing_comedian import normalize_frames, resize_frames

# learned tables and tokens, which weight decay would pull to a meaningless 0
UNDECAYED = re.compile(r"(position_embeddings|time_embeddings|class_token|mask_token|relative_position_bias)$")
# fields of a model's output that are averaged over the steps between two logs
DIAGNOSTICS = ("positive_similarity", "negative_similarity", "embedding_std")


class StageTrainer(Trainer):
    """A [`transformers.Trainer`] on windows of a frame store; `augment_windows` says what a stage's model is given."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_callback(EpochOfSampler(self))

    def _get_train_sampler(self, train_dataset: FrameWindows | None = None) -> Sampler:
        self.window_sampler = WindowSampler(train_dataset or self.train_dataset, self.args.seed)
        return self.window_sampler

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weight matrices alone decay: no biases, norms, position tables, class or mask tokens."""
        return [name for name in super().get_decay_parameter_names(model) if not UNDECAYED.search(name)]

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *args, **kwargs) -> Tensor:
        """Augment the windows on the device, then step as usual."""
        return super().training_step(model, self.augment_windows(self._prepare_inputs(inputs)), *args, **kwargs)

    def whole_model(self) -> PreTrainedModel:
        """The model or, where FSDP shares its weights out, a copy with all of them; called on every process.

        FSDP gathers weights for `forward` alone, and on all processes at once: elsewhere it takes the whole model.
        """
        if not self.is_fsdp_enabled:
            return self.model
        weights = {
            name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            for name, tensor in self.model.state_dict().items()
        }
        # FSDP 2's classes make models of the class that they stand for
        model = type(self.model)(self.model.config)
        model.load_state_dict(weights)
        return model.to(self.args.device)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push the code too: transformers takes weights and `config.json`, which names it, from the checkpoint."""
        if self.is_world_process_zero():
            for path in Path(checkpoint_folder).glob("*.py"):
                shutil.copy(path, self.args.output_dir)
        super()._push_from_checkpoint(checkpoint_folder)

    def augment_windows(self, windows: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch of the data set to the arguments of the model's `forward`."""
        raise NotImplementedError

    def planes_of(self, frames: Tensor) -> Tensor:
        """Frames uint8 `(batch, num_frames, height, width, 3)` to planes `(batch, num_frames, 3, ...)`, resized."""
        # contiguous planes: every later pass over the pixels is several times faster than on interleaved ones
        planes = frames.movedim(-1, 2).contiguous()
        size = tuple(self.model.config.image_size)
        return resize_frames(planes.flatten(0, 1), size).unflatten(0, planes.shape[:2])

    def augment_planes(
        self, planes: Tensor, seeds: Tensor, settings: AugmentationSettings
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Augment and normalise planes uint8 `(batch, num_frames, 3, height, width)`; return the drawn parameters too."""
        num_tubelets = planes.shape[1] // self.model.config.tubelet_size
        parameters = draw_parameters(seeds, settings, num_tubelets)
        parameters = {name: values.to(planes.device) for name, values in parameters.items()}
        processor = self.processing_class
        pixels = augment(planes, parameters, settings)
        return normalize_frames(pixels, processor.image_mean, processor.image_std, 1.0), parameters


class QueuedTrainer(StageTrainer):
    """Stages 1 and 2: the queue moves once an optimizer step, and collapse shows in the logs."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_callback(AfterOptimizerStep(self))
        self._diagnostics: dict[str, list[Tensor]] = defaultdict(list)

    def after_optimizer_step(self) -> None:
        """Update what follows the weights: here the queue."""
        self.model.update_queue()

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **kwargs):
        """Keep the diagnostics of the outputs; the loss is the model's."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        for name in DIAGNOSTICS:
            self._diagnostics[name].append(outputs[name].detach())
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Add the diagnostics' means over steps and processes to the logs of a loss."""
        if "loss" in logs and self._diagnostics:
            for name, values in self._diagnostics.items():
                logs[name] = self.accelerator.reduce(torch.stack(values).mean(), "mean").item()
            self._diagnostics.clear()
        super().log(logs, *args, **kwargs)


class EpochOfSampler(TrainerCallback):
    """Tells the window sampler the epoch, which accelerate's wrappers do not pass on in every resumed run."""

    def __init__(self, trainer: StageTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Set the epoch before the epoch's first window is drawn."""
        self.trainer.window_sampler.set_epoch(int(state.epoch))


class AfterOptimizerStep(TrainerCallback):
    """Once an update of the weights, not once a micro-batch."""

    def __init__(self, trainer: QueuedTrainer):
        self.trainer = trainer

    def on_optimizer_step(self, args, state, control, **kwargs):
        """Right after the optimizer's step."""
        self.trainer.after_optimizer_step()

"""What the trainers of all stages share: windows drawn by seed and epoch, augmentation on the device, decay, diagnostics."""

import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub import CommitInfo, HfApi
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import Sampler
from transformers import PreTrainedModel, Trainer, TrainerCallback

from comedian.data.augmentation import AugmentationSettings, augment, draw_parameters
from comedian.data.window_dataset import FrameWindows, HalfDataset, WindowSampler
from comedian.errors import InputError
from comedian.hub.model_card import CARD_FILE_NAME, write_card
from comedian.hub.model_publish import publish
from comedian.hub.model_record import RECORD_FILE_NAME, ModelRecord, record_of_start
from comedian.models.convolutional_comedian import ComedianBatchNorm
from comedian.models.video_processing_comedian import normalize_frames, resize_frames
from comedian.training.run_record import RunClock, record_stage

# learned tables and tokens, which weight decay would pull to a meaningless 0
UNDECAYED = re.compile(r"(position_embeddings|time_embeddings|class_token|mask_token|relative_position_bias)$")
# of safetensors; of torch.save
STORAGE_ERROR = re.compile(r"I/O error|inline_container|PytorchStreamWriter")
PIXEL_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# fields of a model's output that are averaged over the steps between two logs
DIAGNOSTICS = ("positive_similarity", "negative_similarity", "embedding_std")


class StageTrainer(Trainer):
    """A [`transformers.Trainer`] on windows of a frame store; `augment_windows` says what a stage's model is given.

    Every folder it saves has a record of what made the model, from which the card is written.

    Attributes:
        title: the stage's, for records and cards.
    """

    title: str

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_callback(EpochOfSampler(self))
        self.clock = RunClock()
        self.add_callback(self.clock)
        self._start = record_of_start(self.model.config.name_or_path)

    def record(self) -> ModelRecord:
        """What made the model as it stands now: the stages before, and this one."""
        stage = record_stage(self, self.title, self.recorded_halves(), self.clock.read_s(), self.recorded_features())
        # weights that were a mean are no longer, once trained
        return replace(self._start, stages=[*self._start.stages, stage], averaged_from=[])

    def recorded_halves(self) -> dict[str, HalfDataset]:
        """Halves of each split that the stage uses."""
        halves = {"train": self.train_dataset and self.train_dataset.halves, "validation": self.eval_dataset}
        return {split: of_split for split, of_split in halves.items() if of_split}

    def recorded_features(self) -> str | None:
        """What made the features that the stage learns from."""
        return None

    def _save_checkpoint(self, *args, **kwargs) -> None:
        with storage_errors(self.args.output_dir):
            super()._save_checkpoint(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        with storage_errors(self.args.output_dir):
            super()._save(output_dir, state_dict)
        if self.args.should_save:
            self.record().save(output_dir or self.args.output_dir)

    def _get_train_sampler(self, train_dataset: FrameWindows | None = None) -> Sampler:
        self.window_sampler = WindowSampler(train_dataset or self.train_dataset, self.args.seed)
        return self.window_sampler

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weight matrices alone decay: no biases, norms, position tables, class or mask tokens."""
        return [name for name in super().get_decay_parameter_names(model) if not UNDECAYED.search(name)]

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *args, **kwargs) -> Tensor:
        """Augment the windows on the device, then step as usual; processes share the statistics of batch norms."""
        loss = super().training_step(model, self.augment_windows(self._prepare_inputs(inputs)), *args, **kwargs)
        if self.args.world_size > 1:
            for norm in self.model.modules():
                if isinstance(norm, ComedianBatchNorm):
                    for statistics in norm.buffers():
                        statistics.copy_(self.accelerator.reduce(statistics, "mean"))
        return loss

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait for the others: a checkpoint with the Trainer's state, which the first process writes next, is whole."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

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

    def push_to_hub(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **settings,
    ) -> CommitInfo | None:
        """Save and publish the model; see [`comedian.hub.model_publish.publish`] for what is sent and what is refused.

        Args:
            commit_message: of the commit.
            blocking: return when all is sent; otherwise a future.
            token: instead of `args.hub_token`.
            revision: branch, instead of `args.hub_revision`.
            private: of a repository that is made now; `args.hub_private_repo` by default.
            settings: further arguments of `publish`.

        Returns:
            The commit, on the main process.

        Raises:
            InputError: the Hub refuses.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self._finish_current_push()
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        arguments = {
            "commit_message": commit_message,
            "token": token or self.args.hub_token,
            "revision": revision or self.args.hub_revision,
            "private": bool(self.args.hub_private_repo if private is None else private),
        }
        repo_id = self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).resolve().name
        if blocking:
            return publish(self.args.output_dir, repo_id, **arguments, **settings)
        return HfApi().run_as_future(publish, self.args.output_dir, repo_id, **arguments, **settings)

    def create_model_card(self, *args, **kwargs) -> None:
        """Write the card of the model in `args.output_dir`; it needs no more than what the folder holds."""
        if self.is_world_process_zero():
            write_card(self.args.output_dir, self.hub_model_id)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push code, record and card too: transformers takes weights and `config.json` alone from the checkpoint."""
        if self.is_world_process_zero():
            folder = Path(checkpoint_folder)
            write_card(folder, self.hub_model_id)
            for path in [*folder.glob("*.py"), folder / RECORD_FILE_NAME, folder / CARD_FILE_NAME]:
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
        """Augment and normalise planes uint8 `(batch, num_frames, 3, height, width)`; return the drawn parameters too.

        The pixels are in the precision of the model's first product, which autocast would round them to anyway.
        """
        num_tubelets = planes.shape[1] // self.model.config.tubelet_size
        parameters = draw_parameters(seeds, settings, num_tubelets)
        parameters = {name: values.to(planes.device) for name, values in parameters.items()}
        processor = self.processing_class
        pixels = augment(planes, parameters, settings)
        pixels = normalize_frames(pixels, processor.image_mean, processor.image_std, 1.0)
        return pixels.to(PIXEL_DTYPES.get(self.accelerator.mixed_precision, torch.float32)), parameters


@contextmanager
def storage_errors(folder: str) -> Iterator[None]:
    """Say in one line what torch and safetensors raise, each in its own way, where a file cannot be written."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if not STORAGE_ERROR.search(str(error)):
            raise
        raise InputError(
            f"a checkpoint cannot be written to `{folder}` ({error}); make room and run the same command again: it goes on "
            "from the last whole one"
        ) from error


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

    def __init__(self, trainer: StageTrainer):
        self.trainer = trainer

    def on_optimizer_step(self, args, state, control, **kwargs):
        """Right after the optimizer's step."""
        self.trainer.after_optimizer_step()

"""What the trainers of all stages share: windows drawn by seed and epoch, augmentation, schedule, decay, diagnostics."""

import atexit
import math
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo, HfApi
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.image_utils import PILImageResampling
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerControl

from comedian.errors import InputError
from comedian.features.bank import HalfFeatures
from comedian.hub.model_card import CARD_FILE_NAME, write_card
from comedian.hub.model_publish import publish
from comedian.hub.model_record import RECORD_FILE_NAME, ModelRecord, record_of_start
from comedian.hub_errors import hub_errors
from comedian.inference.image_processors import read_normalisation
from comedian.inference.model_names import ADAPTER_FILE_NAME
from comedian.memory import keep_freed_memory
from comedian.models import ComedianConfig, ComedianVideoProcessor
from comedian.models.convolutional_comedian import ComedianBatchNorm
from comedian.models.video_processing_comedian import normalize_frames
from comedian.samples.augmentation import AugmentationSettings, augment, draw_parameters, mix_neighbours
from comedian.samples.batches import BatchReader, finished
from comedian.samples.colours import with_rgb_frames
from comedian.samples.datasets import FrameWindows, HalfDataset, WindowSampler, can_read_yuv, collate_windows
from comedian.sharing import cores_of_process, leave_process_group
from comedian.training.base_config import COSINE, OPTIMIZER_SETTINGS, StageConfig, setting_errors
from comedian.training.epoch_lines import EpochLines, StepBar
from comedian.training.run_record import RunClock, record_stage

# learned tables and tokens, which weight decay would pull to a meaningless 0
UNDECAYED = re.compile(r"(position_embeddings|time_embeddings|class_token|mask_token)$")
# decays in the published system, though transformers takes its name for a bias's
DECAYED_TABLE = "relative_position_bias"
# of safetensors; of torch.save
STORAGE_ERROR = re.compile(r"I/O error|inline_container|PytorchStreamWriter")
PIXEL_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# of the queue, which PEFT does not save with an adapter
QUEUE_FILE_NAME = "queue.safetensors"
QUEUE_BUFFERS = ("queue", "queue_ptr")
# fields of a model's output that are averaged over the steps between two logs
DIAGNOSTICS = ("positive_similarity", "negative_similarity", "embedding_std")


def build_processor(config: ComedianConfig) -> ComedianVideoProcessor:
    """Processor for the model's image size; with the mean and standard deviation of its image model, if it has one."""
    height, width = config.image_size
    settings: dict[str, Any] = {"size": {"height": height, "width": width}}
    if config.backbone is not None and (normalisation := read_normalisation(config.backbone)) is not None:
        settings["image_mean"], settings["image_std"] = normalisation
    return ComedianVideoProcessor(**settings)


def check_processor(processor: ComedianVideoProcessor, config: ComedianConfig) -> None:
    """Reject a processor whose preprocessing differs from that of training, which augments image planes itself.

    Raises:
        InputError: a setting other than resizing to the model's size (bilinear), scaling to [0, 1] and normalising.
    """
    height, width = config.image_size
    wanted: dict[str, Any] = {"do_center_crop": False, "do_resize": True, "do_rescale": True, "do_normalize": True}
    wanted |= {"resample": PILImageResampling.BILINEAR, "rescale_factor": 1 / 255}
    found = {name: getattr(processor, name, None) for name in wanted}
    wanted["size"], found["size"] = {"height": height, "width": width}, dict(processor.size)
    for name, value in wanted.items():
        if found[name] != value:
            raise InputError(
                f"`processing_class` has {name}={found[name]!r}, but training uses {value!r}, and the model would be "
                "given other pixels than it was trained on; set it so"
            )


class StageTrainer(Trainer):
    """A [`transformers.Trainer`] on windows of a frame store; `augment_windows` returns the inputs of a stage's model.

    Every folder it saves has a record of what made the model, from which the card is written.

    A loss or a gradient that is not finite ends the run with an `InputError` before the optimizer's step, so that the last
    checkpoint is a good one.

    Private methods of `Trainer` that are overridden, to be compared with those of a new release of transformers:

    | method | why |
    |---|---|
    | `_save_checkpoint` | a full disk ends the run with a line |
    | `_save` | writes the record; beside an adapter, its configuration and the queue; in stage 3, averaged weights |
    | `_load_from_checkpoint` | reads that queue, and the weights beside the average |
    | `_init_training_state` | a finished run with `max_steps` trains no further step |
    | `_get_train_sampler` | windows are drawn anew in each epoch, from `(seed, epoch)` |
    | `_get_grad_norm` | ends the run before a step with a gradient or a loss that is not finite |
    | `_save_rng_state` | all processes have written their part of a checkpoint before the first one completes it |
    | `_push_from_checkpoint` | pushes code, record and card too |

    Attributes:
        title: the stage's, for records and cards.
        metrics: names of the metrics that [`evaluate`] returns, which `metric_for_best_model` may be.
        schedule_steps: optimizer steps that the schedules are laid out over; set when the schedule is made.
    """

    title: str
    metrics: tuple[str, ...] = ()
    # of transformers' Trainer, which may replace them
    processing_class: ComedianVideoProcessor
    optimizer: torch.optim.Optimizer | None
    lr_scheduler: LRScheduler | None
    control: TrainerControl
    # of a data set of windows; others have the sampler of transformers
    window_sampler: WindowSampler | None = None

    def __init__(self, *args, **kwargs):
        for name in ("preprocess_logits_for_metrics", "compute_loss_func"):
            if kwargs.get(name) is not None:
                raise InputError(f"`{name}` is given, which {type(self).__name__} does not use; remove it")
        with setting_errors():
            super().__init__(*args, **{"data_collator": collate_windows} | kwargs)
        if getattr(self.model, "_hf_peft_config_loaded", False):
            raise InputError(
                "the model has an adapter that transformers added, which its Trainer does not load from checkpoints; "
                "train `peft.get_peft_model(model, config)`, or "
                "`PeftModel.from_pretrained(base, folder, is_trainable=True)`"
            )
        if self.processing_class is None:
            self.processing_class = build_processor(self.model.config)
        check_processor(self.processing_class, self.model.config)
        # transformers sets a field that only text generation has, which each later loading would warn of
        vars(self.model.config).pop("use_cache", None)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(StepBar())
        self.remove_callback(PrinterCallback)
        self.add_callback(EpochLines())
        self.add_callback(EpochOfSampler(self))
        self.add_callback(RunClock())
        if self.args.device.type == "cpu":
            keep_freed_memory()
        if self.args.world_size > 1:
            atexit.register(leave_process_group)
        self._start = record_of_start(self.model.config.name_or_path)
        # of the micro-batches since the last optimizer step
        self._step_losses: list[Tensor] = []

    @property
    def clock(self) -> RunClock:
        """What measures the time of training; a checkpoint's may take the place of the first one."""
        return next(callback for callback in self.callback_handler.callbacks if isinstance(callback, RunClock))

    def record(self) -> ModelRecord:
        """What made the model as it stands now: the stages before, and this one."""
        stage = record_stage(self, self.title, self.recorded_halves(), self.clock.read_s(), self.recorded_features())
        # after training, the weights are no longer an average of checkpoints
        return replace(self._start, stages=[*self._start.stages, stage], averaged_from=[])

    def recorded_halves(self) -> dict[str, HalfDataset]:
        """Halves of each split that the stage uses."""
        validation = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"validation": self.eval_dataset}
        halves = {"train": getattr(self.train_dataset, "halves", None)} | validation
        return {split: of_split for split, of_split in halves.items() if of_split}

    def recorded_features(self) -> str | None:
        """What made the features that the stage learns from."""
        features = self.recorded_feature_files()
        return features[0].source if features else None

    def recorded_feature_files(self) -> Sequence[HalfFeatures]:
        """The features that the stage learns from, one file a training half; none by default."""
        return []

    def _save_checkpoint(self, *args, **kwargs) -> None:
        with storage_errors(self.args.output_dir):
            super()._save_checkpoint(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        folder = output_dir or self.args.output_dir
        with storage_errors(self.args.output_dir):
            super()._save(output_dir, state_dict)
        if self.args.should_save:
            if (Path(folder) / ADAPTER_FILE_NAME).is_file():
                # PEFT saves only weights; labels and thresholds are in the configuration
                self.model.config.save_pretrained(folder)
            self.record().save(folder)

    def _init_training_state(self, max_steps, num_update_steps_per_epoch, num_train_epochs, *args):
        """Train no further step where the checkpoint is of the last one: with `max_steps` an epoch may be left over."""
        progress = super()._init_training_state(max_steps, num_update_steps_per_epoch, num_train_epochs, *args)
        return (num_train_epochs, 0) if self.state.global_step >= max_steps else progress

    def _get_train_sampler(self, train_dataset: FrameWindows | None = None) -> Sampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not isinstance(dataset, FrameWindows):
            return super()._get_train_sampler(dataset)
        self.window_sampler = WindowSampler(dataset, self.args.seed)
        return self.window_sampler

    @property
    def converts_colours(self) -> bool:
        """Whether the training device converts frames to RGB, rather than the CPU that reads them."""
        return self.args.device.type != "cpu"

    def get_train_dataloader(self) -> DataLoader:
        """Without worker processes, threads on all cores read the next batch while the model trains on one.

        Where the training device is not a CPU, it converts the colours.
        """
        args, dataset = self.args, self.train_dataset
        if not isinstance(dataset, FrameWindows):
            return super().get_train_dataloader()
        # others may use the RGB frames
        if self.converts_colours and self.data_collator is collate_windows and can_read_yuv(dataset):
            dataset = copy(dataset)
            dataset.yuv = True
        # the process that dispatches batches to the others would have to send futures
        if args.dataloader_num_workers or self.accelerator.dispatch_batches:
            sampler = self._get_train_sampler
            return self._get_dataloader(dataset, "Training", self._train_batch_size, sampler, is_training=True)
        pin_memory = args.dataloader_pin_memory and args.device.type == "cuda"
        reader = BatchReader(dataset, self.data_collator, cores_of_process(), pin_memory)
        loader = DataLoader(
            reader,
            batch_size=self._train_batch_size,
            sampler=self._get_train_sampler(dataset),
            drop_last=args.dataloader_drop_last,
            collate_fn=reader.collate_fn,
        )
        return self.accelerator.prepare(loader)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple:
        """Wait for the batches that threads read."""
        return super().get_batch_samples(map(finished, epoch_iterator), num_batches, device)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weight matrices and ViSwin's bias tables decay: no biases, norms, position tables, class or mask tokens."""
        decayed = {name for name in super().get_decay_parameter_names(model) if not UNDECAYED.search(name)}
        names = (name for name, _ in model.named_parameters())
        return [name for name in names if name in decayed or name.endswith(DECAYED_TABLE)]

    def set_initial_training_values(self, args: StageConfig, dataloader: DataLoader) -> tuple:
        """Keep the number of optimizer steps in an epoch, which `schedule_epochs` is multiplied by."""
        values = super().set_initial_training_values(args, dataloader)
        self.steps_per_epoch = values[1]
        return values

    @setting_errors(OPTIMIZER_SETTINGS)
    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer.

        Raises:
            InputError: its package is not installed, or `optim_args` does not fit.
        """
        return super().create_optimizer(model)

    @setting_errors("`lr_scheduler_type` or `lr_scheduler_kwargs`")
    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Create the schedule of the learning rate, over `schedule_epochs` where they are given."""
        args, steps = self.args, num_training_steps
        if args.schedule_epochs is not None:
            steps = math.ceil(args.schedule_epochs * self.steps_per_epoch)
        self.schedule_steps = steps
        if self.lr_scheduler is None and args.lr_scheduler_type == COSINE:
            share = partial(
                learning_rate_share,
                warmup_steps=args.get_warmup_steps(steps),
                total_steps=steps,
                **args.cosine_settings(),
            )
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, share)
            self._created_lr_scheduler = True
        return super().create_scheduler(steps, optimizer)

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *args, **kwargs) -> Tensor:
        """Augment the windows on the device, then step as usual; processes share the statistics of batch norms."""
        windows = with_rgb_frames(self._prepare_inputs(inputs))
        loss = super().training_step(model, self.augment_windows(windows), *args, **kwargs)
        self._step_losses.append(loss)
        if self.args.world_size > 1:
            for norm in self.model.modules():
                if isinstance(norm, ComedianBatchNorm | nn.BatchNorm2d):
                    for statistics in filter(torch.is_floating_point, norm.buffers()):
                        statistics.copy_(self.accelerator.reduce(statistics, "mean"))
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float:
        grad_norm = super()._get_grad_norm(model, grad_norm)
        losses, self._step_losses = torch.stack(self._step_losses), []
        # with FSDP, every process has its share of the norm
        norm = grad_norm.full_tensor() if isinstance(grad_norm, DTensor) else grad_norm
        # DeepSpeed returns no gradient norm in the first steps
        self.refuse_non_finite(losses, torch.as_tensor(0.0 if norm is None else norm, device=losses.device))
        return grad_norm

    def refuse_non_finite(self, losses: Tensor, grad_norm: Tensor) -> None:
        """Stop before an optimizer step that would ruin the weights; on every process where it happens on one.

        Args:
            losses (`torch.Tensor` of shape `(num_micro_batches,)`): of the step.
            grad_norm (`torch.Tensor` of shape `()`): norm of its gradients before clipping.

        Raises:
            InputError: one of them is not finite, except for a float16 gradient that overflowed because the loss is scaled
                up: `GradScaler` skips such a step and lowers the scale.
        """
        finite = torch.stack([losses.isfinite().all(), grad_norm.isfinite()]).float()
        if self.args.world_size > 1:
            finite = self.accelerator.reduce(finite, "mean")
        loss_is_finite, gradient_is_finite = (finite == 1).tolist()
        scaler = self.accelerator.scaler
        if loss_is_finite and (gradient_is_finite or (scaler is not None and scaler.get_scale() > 1)):
            return
        what = "gradient" if loss_is_finite else "loss"
        checkpoints = sorted(Path(self.args.output_dir).glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
        kept = f"the last good checkpoint is `{checkpoints[-1]}`" if checkpoints else "there is no checkpoint yet"
        field = "learning_rate" if self.args.base_learning_rate is None else "base_learning_rate"
        precision = ", or train with `bf16` instead of `fp16`" if scaler is not None else ""
        raise InputError(
            f"the {what} is not finite in step {self.state.global_step + 1} of {self.state.max_steps}, so training "
            f"stopped; {kept}. Lower `training.{field}` (now {getattr(self.args, field):g}) or lengthen "
            f"`training.warmup_steps`{precision}, and train again with `--restart`"
        )

    def _save_rng_state(self, output_dir: str) -> None:
        """Wait for the others: a checkpoint with the Trainer's state, which the first process writes next, is complete."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def whole_model(self) -> PreTrainedModel:
        """The model or, if FSDP shards its weights, a copy with all of them; called on every process.

        FSDP gathers weights for `forward` alone, and on all processes at once: otherwise the whole model is needed.
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

    def push_to_hub(self, *args, **kwargs) -> CommitInfo | None:
        """Save the model and publish it; arguments as of [`publish_output`]."""
        self._finish_current_push()
        self.save_model(_internal_call=True)
        return self.publish_output(*args, **kwargs)

    def publish_output(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **settings,
    ) -> CommitInfo | None:
        """Publish what the output folder holds; see [`comedian.hub.model_publish.publish`] for what is sent and refused.

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
            InputError: the Hub denies access.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if not self.is_world_process_zero():
            return None
        arguments: dict[str, Any] = {
            "commit_message": commit_message,
            "token": token or self.args.hub_token,
            "revision": revision or self.args.hub_revision,
            "private": bool(self.args.hub_private_repo if private is None else private),
        }
        repo_id = self._repo_id()
        if blocking:
            return publish(self.args.output_dir, repo_id, **arguments, **settings)
        return HfApi().run_as_future(publish, self.args.output_dir, repo_id, **arguments, **settings)

    def init_hf_repo(self, *args, **kwargs) -> None:
        """Create the repository that `push_to_hub` names.

        Raises:
            InputError: the Hub denies access, or cannot be reached.
        """
        with hub_errors(self._repo_id(), "model"):
            super().init_hf_repo(*args, **kwargs)

    def _repo_id(self) -> str:
        """Name on the Hub: the one that is set, or else the output folder's."""
        return self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).resolve().name

    def create_model_card(self, *args, **kwargs) -> None:
        """Write the card of the model in `args.output_dir`, from what the folder holds.

        Raises:
            InputError: arguments are given; those of transformers have their place in `card.yaml`.
        """
        if args or kwargs:
            raise InputError(
                "`create_model_card` takes no arguments here; write a `card.yaml` into `output_dir` instead"
            )
        if self.is_world_process_zero():
            write_card(self.args.output_dir, self._repo_id())

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

    def augment_planes(
        self, planes: list[Tensor], seeds: Tensor, settings: AugmentationSettings
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Augment, resize to the model's size, normalise and, where asked, mix the windows of a batch.

        Args:
            planes: the windows' frames, from [`planes_of`].
            seeds (`torch.LongTensor` of shape `(batch_size,)`): one per window.
            settings: what is switched on.

        Returns:
            Pixels `(batch_size, num_frames, 3, height, width)`, in the precision of the model's first product, which
            autocast would round them to anyway, and the drawn parameters; with mixup, `partner` `(batch_size,)` among
            them.
        """
        model, processor = self.model.config, self.processing_class
        parameters = draw_parameters(seeds, settings, len(planes[0]) // model.tubelet_size)
        parameters = {name: values.to(seeds.device) for name, values in parameters.items()}
        pixels = augment(planes, parameters, settings, tuple(model.image_size))
        pixels = normalize_frames(pixels, processor.image_mean, processor.image_std, 1.0)
        if settings.mixup_alpha > 0:
            # before the pixels are rounded to a lower precision
            pixels, parameters["partner"] = mix_neighbours(pixels, parameters["mixup_weights"])
        return pixels.to(PIXEL_DTYPES.get(self.accelerator.mixed_precision, torch.float32)), parameters


def planes_of(windows: dict[str, Tensor]) -> list[Tensor]:
    """Each window of a batch as planes uint8 `(num_frames, 3, height, width)`, without the padding of smaller frames."""
    # contiguous planes: every later pass over the pixels is several times faster than on interleaved ones
    planes = list(windows["frames"].movedim(-1, 2).contiguous())
    if "frame_sizes" not in windows:
        return planes
    sizes = windows["frame_sizes"].tolist()
    return [window[..., :height, :width] for window, (height, width) in zip(planes, sizes, strict=True)]


def learning_rate_share(
    step: int, *, warmup_steps: int, total_steps: int, start: float, floor: float, num_cycles: float = 0.5
) -> float:
    """Share of the peak learning rate in an optimizer step: linear warm-up, then a cosine down to the floor.

    Args:
        step: counted from 0.
        warmup_steps: the last one of them has the peak, and so has the step after it.
        total_steps: after these, the floor stays.
        start: share in step 0.
        floor: share that the cosine ends at.
        num_cycles: of the cosine; 0.5 falls once.
    """
    if step < warmup_steps:
        return start + (1 - start) * (step / (warmup_steps - 1) if warmup_steps > 1 else 1.0)
    progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    return floor + (1 - floor) * (1 + math.cos(2 * math.pi * num_cycles * progress)) / 2


@contextmanager
def storage_errors(folder: str) -> Iterator[None]:
    """Return a one-line reason for the errors of torch and safetensors if a file cannot be written."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if not STORAGE_ERROR.search(str(error)):
            raise
        raise InputError(
            f"a checkpoint cannot be written to `{folder}` ({error}); free some disk space and rerun the same "
            "command: it resumes from the last complete checkpoint"
        ) from error


class QueuedTrainer(StageTrainer):
    """Stages 1 and 2: the queue moves once an optimizer step, and collapse shows in the logs."""

    def __init__(self, *args, **kwargs):
        if kwargs.get("compute_metrics") is not None:
            raise InputError(f"`compute_metrics` is given, which {type(self).__name__} does not use; remove it")
        super().__init__(*args, **kwargs)
        self.add_callback(AfterOptimizerStep(self))
        self._diagnostics: dict[str, list[Tensor]] = defaultdict(list)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save the model and, beside an adapter, the queue, which a resumed run continues with."""
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)
        if self.args.should_save and (folder / ADAPTER_FILE_NAME).is_file():
            with storage_errors(self.args.output_dir):
                save_file({name: getattr(self.model, name) for name in QUEUE_BUFFERS}, folder / QUEUE_FILE_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the model and, beside an adapter, the queue."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        path = Path(resume_from_checkpoint) / QUEUE_FILE_NAME
        if path.is_file():
            for name, stored in load_file(path).items():
                getattr(self.model, name).copy_(stored)

    def predict(self, *args, **kwargs):
        """Refused: a stage before spotting predicts nothing.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{type(self).__name__} has nothing to predict; extract features with `comedian extract-features`"
        )

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
    """Sets the epoch of the window sampler, which accelerate's wrappers do not pass on in every resumed run."""

    def __init__(self, trainer: StageTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Set the epoch before the epoch's first window is drawn."""
        if self.trainer.window_sampler is not None:
            self.trainer.window_sampler.set_epoch(int(state.epoch))


class AfterOptimizerStep(TrainerCallback):
    """Once an update of the weights, not once a micro-batch."""

    def __init__(self, trainer: StageTrainer):
        self.trainer = trainer

    def on_optimizer_step(self, args, state, control, **kwargs):
        """Right after the optimizer's step."""
        self.trainer.after_optimizer_step()

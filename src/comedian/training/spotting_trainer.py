"""Trainer of stage 3: windows from a frame store, augmentation on the device, average-mAP on whole halves."""

import copy
import json
import time
from pathlib import Path

import torch
from huggingface_hub import CommitInfo
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import EvalPrediction
from transformers.trainer_utils import PredictionOutput, TrainOutput

from comedian.errors import InputError
from comedian.evaluation.calibration import reporting_settings
from comedian.evaluation.reported_events import count_reported, write_reported
from comedian.evaluation.spotting_evaluator import (
    average_map_of,
    flatten_scores,
    judge_spots_of_halves,
    score_halves_together,
    spots_of_halves,
)
from comedian.files import atomic_write_text
from comedian.hub.model_card import CURVE_FILE_NAME, SCORES_SUFFIX
from comedian.inference.outputs import write_results_zip
from comedian.inference.torch_model import TorchModel
from comedian.models import ComedianForActionSpotting, ComedianVideoProcessor
from comedian.models.encoders_comedian import ComedianEncoder
from comedian.models.modeling_comedian import averaged_tensors, keep_tubelets
from comedian.samples.augmentation import mix_neighbours
from comedian.samples.datasets import HalfDataset, WindowDataset
from comedian.training.base_config import OPTIMIZER_SETTINGS, setting_errors
from comedian.training.base_trainer import AfterOptimizerStep, StageTrainer, planes_of, storage_errors
from comedian.training.curves import draw_curves, read_curve
from comedian.training.spotting_config import SpottingConfig

# in a checkpoint, beside their average: the weights that training continues from
TRAINED_WEIGHTS = "trained_weights.safetensors"


class SpottingTrainer(StageTrainer):
    """Fine-tune [`ComedianForActionSpotting`].

    With `average_decay`, what is scored and saved is a moving average of the weights.

    Args:
        model: the model.
        args: the settings.
        train_dataset: windows.
        eval_dataset: whole halves, scored by average-mAP at each evaluation.
        processing_class: the model's processor; saved with every checkpoint.
        kwargs: as [`transformers.Trainer`].
    """

    title = "Stage 3: fine-tuning to spotting"
    metrics = ("average_map_tight", "average_map_loose", "runtime")

    def __init__(
        self,
        model: ComedianForActionSpotting | None = None,
        args: SpottingConfig | None = None,
        train_dataset: WindowDataset | None = None,
        eval_dataset: HalfDataset | dict[str, HalfDataset] | None = None,
        processing_class: ComedianVideoProcessor | None = None,
        **kwargs,
    ):
        args = args or SpottingConfig()
        if args.freeze_backbone and model is not None:
            freeze_backbone(model)
        super().__init__(
            model,
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        self._finished_at_step: int | None = None
        self._average: ComedianForActionSpotting | None = None
        if args.average_decay is not None:
            if self.is_fsdp_enabled:
                raise InputError(
                    "`training.average_decay` needs whole weights, which FSDP shares out; leave one of them out"
                )
            self.add_callback(AverageUpdates(self))

    def start_average(self) -> None:
        """Start the average from the weights, unless a checkpoint has one."""
        if self._average is None:
            self._average = copy.deepcopy(self.model).requires_grad_(False)

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        """Move the average towards the weights; at first it forgets faster, so that random weights do not linger."""
        step = self.state.global_step + 1
        decay = min(self.args.average_decay, step / (step + 9))
        torch._foreach_lerp_(averaged_tensors(self._average), averaged_tensors(self.model), 1 - decay)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save the average as the model, and the weights that training continues from beside it."""
        if self._average is None:
            return super()._save(output_dir, state_dict)
        super()._save(output_dir, self._average.state_dict())
        with storage_errors(self.args.output_dir):
            save_file(self.model.state_dict(), Path(output_dir or self.args.output_dir) / TRAINED_WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the average, and the weights that training continues from."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.args.average_decay is not None:
            self.start_average()
            self.model.load_state_dict(load_file(Path(resume_from_checkpoint) / TRAINED_WEIGHTS))

    def train(self, *args, **kwargs) -> TrainOutput:
        """Train; at the end the model is the best average, or the last one where none is chosen."""
        # of a run that broke off
        self._average = None
        output = super().train(*args, **kwargs)
        if self._average is not None:
            if not (self.args.load_best_model_at_end and self.state.best_model_checkpoint):
                self.model.load_state_dict(self._average.state_dict())
            self._average = None
        return output

    def call_model_init(self, trial=None) -> ComedianForActionSpotting:
        """Make a model with `model_init`; `freeze_backbone` holds for it too."""
        model = super().call_model_init(trial)
        if self.args.freeze_backbone:
            freeze_backbone(model)
        return model

    @setting_errors(OPTIMIZER_SETTINGS)
    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer; with `layer_decay`, every layer gets its own learning rate."""
        if self.optimizer is None and self.args.layer_decay is not None:
            model = self.model if model is None else model
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(self.layer_groups(model), **settings)
        return super().create_optimizer(model)

    def layer_groups(self, model: nn.Module) -> list[dict]:
        """Parameter groups of one layer each, the learning rate falling by `layer_decay` from the classifier down."""
        depths = layer_depths(model)
        deepest = max(depths.values())
        decayed = set(self.get_decay_parameter_names(model))
        groups: dict[tuple[int, bool], dict] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            key = (depths[name], name in decayed)
            group = groups.setdefault(
                key,
                {
                    "params": [],
                    "lr": self.args.learning_rate * self.args.layer_decay ** (deepest - depths[name]),
                    "weight_decay": self.args.weight_decay if name in decayed else 0.0,
                },
            )
            group["params"].append(parameter)
        return list(groups.values())

    def augment_windows(self, windows: dict[str, Tensor]) -> dict[str, Tensor]:
        """`frames`, `labels` and `seed` of a batch to the arguments of the model's `forward`."""
        settings, labels = self.args.augmentation, windows["labels"]
        pixels, parameters = self.augment_planes(planes_of(windows), windows["seed"], settings)
        inputs = {"pixel_values_videos": pixels, "labels": labels}
        if "offset_targets_s" in windows:
            inputs["offset_targets_s"] = windows["offset_targets_s"]
        if "sound" in windows:
            inputs["sound"] = windows["sound"]
        if settings.mixup_alpha > 0:
            partner = parameters["partner"]
            inputs["mixup_targets"] = labels[partner]
            inputs["mixup_weights"] = parameters["mixup_weights"]
            if "offset_targets_s" in windows:
                inputs["mixup_offset_targets_s"] = windows["offset_targets_s"][partner]
            if "sound" in windows:
                # a window without sound leaves its partner without: pictures alone are what they share
                inputs["sound"], _ = mix_neighbours(windows["sound"], parameters["mixup_weights"])
        kept = keep_tubelets(parameters["mask_noise"], self.model.config.temporal_mask_ratio)
        if kept is not None and not self.args.freeze_backbone:
            inputs["kept_tubelets"] = kept
        return inputs

    def compute_loss(self, model: nn.Module, *args, **kwargs):
        """Compute the loss; a frozen backbone takes part as in inference, without masking and stochastic depth."""
        if self.args.freeze_backbone:
            # `training_step` has put the whole model into training mode
            self.model.comedian.eval()
        return super().compute_loss(model, *args, **kwargs)

    @torch.no_grad()
    def evaluate(
        self,
        eval_dataset: HalfDataset | dict[str, HalfDataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Score whole halves, divided among the processes; of several sets, each under its name.

        Returns:
            `{prefix}_average_map_tight`, `{prefix}_average_map_loose` (fractions), `{prefix}_runtime` in seconds, and what
            `compute_metrics` adds; it is given what [`predict`] returns.
        """
        halves = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(halves, dict):
            metrics: dict[str, float] = {}
            for name, of_set in halves.items():
                metrics |= self.evaluate(of_set, ignore_keys, f"{metric_key_prefix}_{name}")
            return metrics
        metrics = self.predict(halves, ignore_keys, metric_key_prefix).metrics
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def predict(
        self,
        test_dataset: HalfDataset,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "test",
    ) -> PredictionOutput:
        """Spot whole halves, divided among the processes.

        Returns:
            `predictions`: a list of spots a half, in their order; `label_ids`: its events, as `(label, position_ms)`;
            `metrics`: see [`evaluate`].
        """
        start_s = time.perf_counter()
        spots = self.spot_halves(test_dataset)
        predictions = [spots[index] for index in range(len(test_dataset))]
        events = [[(event["label"], event["position_ms"]) for event in row["events"]] for row in test_dataset.rows]
        metrics = flatten_scores(average_map_of(spots, test_dataset), f"{metric_key_prefix}_")
        if self.compute_metrics is not None:
            own = self.compute_metrics(EvalPrediction(predictions=predictions, label_ids=events))
            metrics |= {f"{metric_key_prefix}_{name}": value for name, value in own.items()}
        metrics[f"{metric_key_prefix}_runtime"] = round(time.perf_counter() - start_s, 3)
        return PredictionOutput(predictions=predictions, label_ids=events, metrics=metrics)

    def finish(self) -> dict[str, dict]:
        """Calibrate and choose thresholds on the validation halves, save the model and, beside it, what it does there.

        Written are the model, `validation_scores.json`, `validation_reported.json`, `predictions_validation.zip` and
        `learning_curve.svg`; scores of an earlier model in the folder go.

        Returns:
            Official scores on validation (`tight`, `loose`, fractions).
        """
        halves, config, output = self.eval_dataset, self.model.config, Path(self.args.output_dir)
        if not isinstance(halves, HalfDataset):
            raise InputError("thresholds are chosen on one evaluation set; give one `eval_dataset`")
        spots = self.spot_halves(halves)
        judged = judge_spots_of_halves(spots, halves, config.label_names)
        for name, value in reporting_settings(judged).items():
            setattr(config, name, value)
        scores = average_map_of(spots, halves)
        self.save_model(_internal_call=True)
        self.save_state()
        if self.is_world_process_zero():
            for path in (*output.glob(f"*{SCORES_SUFFIX}"), *output.glob("predictions_*.zip")):
                path.unlink()
            write_scores(output, "validation", scores, spots, halves)
            write_reported(output, count_reported(judged, config))
            curve = read_curve(output / "trainer_state.json")
            atomic_write_text(output / CURVE_FILE_NAME, draw_curves({"validation": curve}))
        self._finished_at_step = self.state.global_step
        return scores

    def push_to_hub(self, *args, **kwargs) -> CommitInfo | None:
        """Finish, unless that is done, and publish; see [`StageTrainer.push_to_hub`]."""
        if self.eval_dataset is not None and self._finished_at_step != self.state.global_step:
            self.finish()
        return super().push_to_hub(*args, **kwargs)

    def spot_halves(self, halves: HalfDataset) -> dict[int, list[dict]]:
        """Every candidate of every half, on every process."""
        model = self._average or self.whole_model()
        training = model.training
        model.eval()
        torch_model = TorchModel(model, self.processing_class)
        scores = score_halves_together(torch_model, halves, not self.args.disable_tqdm)
        model.train(training)
        return spots_of_halves(scores, halves, self.model.config)


class AverageUpdates(AfterOptimizerStep):
    """Starts the average of the weights with the training, when the model is that of `model_init` or of the checkpoint."""

    def on_train_begin(self, args, state, control, **kwargs):
        """Before the first step."""
        self.trainer.start_average()


def freeze_backbone(model: ComedianForActionSpotting) -> None:
    """Train the heads alone.

    Raises:
        InputError: the backbone holds an adapter of PEFT, which would be frozen too.
    """
    if any("lora_" in name for name, _ in model.comedian.named_parameters()):
        raise InputError(
            "`freeze_backbone` would freeze the backbone's adapter too, and PEFT freezes the rest; remove it"
        )
    model.comedian.requires_grad_(False)


def write_scores(
    folder: Path, split: str, scores: dict[str, dict], spots: dict[int, list[dict]], halves: HalfDataset
) -> None:
    """Leave a split's scores and the predictions that were scored beside a model."""
    matches: dict[str, list[dict]] = {row["video_id"]: [] for row in halves.rows}
    for index, found in spots.items():
        matches[halves.rows[index]["video_id"]].extend(found)
    write_results_zip(folder / f"predictions_{split}.zip", matches)
    atomic_write_text(folder / f"{split}{SCORES_SUFFIX}", json.dumps(scores, indent=1) + "\n")


def layer_depths(model: ComedianForActionSpotting) -> dict[str, int]:
    """Depth of each parameter for layer-wise decay: embeddings 0, then spatial layers, temporal layers, heads.

    What lies between the encoders counts with the last spatial layer, the temporal encoder's norm with the heads.

    Raises:
        InputError: the spatial encoder has no order of layers, or a parameter of an encoder is in no layer.
    """
    encoders = model.comedian.spatial_encoder, model.comedian.temporal_encoder
    spatial, temporal = (
        encoder.layer_groups() if isinstance(encoder, ComedianEncoder) else None for encoder in encoders
    )
    if spatial is None or temporal is None:
        raise InputError(
            f"`layer_decay` is not supported with `spatial_encoder: {model.config.spatial_encoder}`, which has no order of "
            "layers; remove `layer_decay` from the recipe"
        )
    groups = [*spatial[:-2], spatial[-2] + spatial[-1] + temporal[0], *temporal[1:]]
    depths = {id(parameter): depth for depth, group in enumerate(groups) for parameter in group}
    for encoder in encoders:
        if left_out := [name for name, parameter in encoder.named_parameters() if id(parameter) not in depths]:
            raise InputError(
                f"`layer_decay` has no depth for `{left_out[0]}`: `{type(encoder).__name__}.layer_groups` leaves it out"
            )
    return {name: depths.get(id(parameter), len(groups) - 1) for name, parameter in model.named_parameters()}

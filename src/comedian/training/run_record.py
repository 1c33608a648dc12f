"""What a run of a trainer really was, for the model card."""

import platform
import time
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState

from comedian.hub.model_record import StageRecord
from comedian.samples.datasets import HalfDataset
from comedian.sharing import available_cores

PACKAGES = ("comedian", "torch", "transformers", "datasets", "accelerate")
# beginnings of the names of settings that concern the machine or what is written, not the model
MACHINE_SETTINGS = (
    *("output_", "logging_", "log_", "save_", "hub_", "push_", "report_", "run_", "disable_", "resume_"),
    "project",
    "trackio_",
    "dataloader_num_",
    "dataloader_p",
    "use_cpu",
    "local_",
    "ddp_",
    "restore_",
    "accelerator_",
    "debug",
)
# of no record: these, and those that only repeat others
UNTOLD = (*MACHINE_SETTINGS, "do_", "activation_checkpointing", "gradient_checkpointing")


class RunClock(TrainerCallback, ExportableState):
    """Seconds of training, which checkpoints carry over to the run that continues."""

    def __init__(self):
        self.elapsed_s = 0.0
        self._since_s = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Continue from the time of the checkpoint, if the run resumes one."""
        stored = state.stateful_callbacks.get(type(self).__name__, {})
        self.elapsed_s = stored.get("attributes", {}).get("elapsed_s", 0.0)
        self._since_s = time.perf_counter()

    def on_train_end(self, args, state, control, **kwargs):
        """Stop."""
        self.elapsed_s, self._since_s = self.read_s(), None

    def read_s(self) -> float:
        """Return the seconds until now."""
        return self.elapsed_s + (0.0 if self._since_s is None else time.perf_counter() - self._since_s)

    def state(self) -> dict:
        """What `trainer_state.json` keeps."""
        return {"args": {}, "attributes": {"elapsed_s": self.read_s()}}


def record_stage(
    trainer: Trainer, title: str, halves: dict[str, HalfDataset], train_time_s: float, features: str | None = None
) -> StageRecord:
    """Describe a stage as it stands now.

    Args:
        trainer: its settings and state count.
        title: the stage's.
        halves: split -> halves that were used.
        train_time_s: seconds so far.
        features: what made a teacher's features.
    """
    args, state = trainer.args, trainer.state
    return StageRecord(
        title=title,
        settings=changed_settings(args),
        data={split: _summary(of_split) for split, of_split in halves.items()},
        features=features and Path(features).name,
        batch_size=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        epochs=round(state.epoch or 0.0, 2),
        planned_epochs=float(args.num_train_epochs if args.max_steps <= 0 else round(state.num_train_epochs, 2)),
        train_time_s=round(train_time_s, 1),
        hardware=describe_hardware(args.device, args.world_size),
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        date=datetime.now(UTC).date().isoformat(),
    )


def changed_settings(args: TrainingArguments) -> dict[str, Any]:
    """Settings that differ from their defaults and bear on the model, as JSON values."""
    # not from settings made for comparison: transformers resets the state of all processes when it makes some
    values, changed = args.to_dict(), {}
    for item in fields(args):
        default = item.default if item.default_factory is MISSING else item.default_factory()
        default = default.value if isinstance(default, Enum) else default
        if item.init and not item.name.startswith(UNTOLD) and values[item.name] != default:
            changed[item.name] = values[item.name]
    return changed


def describe_hardware(device: torch.device, world_size: int) -> str:
    """Name the device of the run, and how many processes had one each."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{available_cores()} cores of {_cpu()}"
    return name if world_size == 1 else f"{world_size} processes, each on {name}"


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _summary(halves: HalfDataset) -> dict[str, float]:
    return {
        "matches": len({row["video_id"] for row in halves.rows}),
        "halves": len(halves),
        "hours": round(sum(map(halves.num_frames, range(len(halves)))) / halves.fps / 3600, 3),
        "events": sum(len(halves.events(index)[0]) for index in range(len(halves))),
    }

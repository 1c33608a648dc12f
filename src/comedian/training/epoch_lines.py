"""What a run prints: a bar of steps, and one line an epoch. All that is logged stays in `trainer_state.json`."""

import time

from tqdm import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

# of a share's name, what takes its place in a line
SHARES = {"average_map_tight": "average-mAP tight", "average_map_loose": "loose", "knn_accuracy": "nearest neighbours"}
# logged with the loss of stages 1 and 2, which collapse shows in
COLLAPSE = ("negative_similarity", "embedding_std")
# logged beside the measures
UNMEASURED = ("runtime", "samples_per_second", "steps_per_second")


class StepBar(ProgressCallback):
    """The bar of steps of transformers, without a dictionary for each log."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Print nothing; see [`EpochLines`]."""


class EpochLines(TrainerCallback):
    """Prints one line an epoch: its number, the mean of the logged losses, what was measured, and how long it took."""

    def __init__(self):
        self._losses: list[float] = []
        # name -> value, of the last log that had it
        self._measured: dict[str, float] = {}
        self._epoch, self._begin_s = 0, time.perf_counter()

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Print the epoch before: what is measured at an epoch's end is there only now."""
        self._print(args, state)
        self._epoch, self._begin_s = int(state.epoch or 0) + 1, time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Keep what is logged."""
        logs = logs or {}
        if "loss" in logs:
            self._losses.append(float(logs["loss"]))
        self._measured |= {name: logs[name] for name in COLLAPSE if name in logs}
        self._measured |= {
            name.removeprefix("eval_"): value
            for name, value in logs.items()
            if name.startswith("eval_") and isinstance(value, float) and not name.endswith(UNMEASURED)
        }

    def on_train_end(self, args, state, control, **kwargs):
        """Print the last epoch."""
        self._print(args, state)
        self._epoch = 0

    def _print(self, args, state) -> None:
        parts = [f"loss {sum(self._losses) / len(self._losses):.4f}"] if self._losses else []
        for name, value in self._measured.items():
            text = f"{100 * value:.1f} %" if name in SHARES else f"{value:.4g}"
            parts.append(f"{SHARES.get(name, name.replace('_', ' '))} {text}")
        if self._epoch and parts and state.is_world_process_zero:
            seconds = time.perf_counter() - self._begin_s
            line = f"epoch {self._epoch} of {args.num_train_epochs:g}: {', '.join(parts)} ({seconds:.0f} s)"
            # above the bar of steps, where there is one
            tqdm.write(line)
        self._losses, self._measured = [], {}

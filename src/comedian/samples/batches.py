"""Batches read by threads in the background, for a `DataLoader` without worker processes."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor
from torch.utils.data import Dataset

from comedian.samples.datasets import FrameWindows, WindowKey

Batch = dict[str, Tensor]


class BatchReader(Dataset):
    """A data set of windows whose batches are futures, which threads fulfil in the background.

    Decoders release Python's lock, so threads use all cores, and no batch is copied from another process, which takes about
    as long as decoding it. Give a `DataLoader` the method `collate_fn`, and no workers.

    Args:
        dataset: the windows; its methods are called by several threads at once.
        collate: makes a batch of windows.
        num_threads: threads that read windows.
        pin_memory: copy batches to page-locked memory, from which they are sent to a GPU faster.
    """

    def __init__(
        self,
        dataset: FrameWindows,
        collate: Callable[[list[Batch]], Batch],
        num_threads: int,
        pin_memory: bool = False,
    ):
        self.dataset = dataset
        self.collate = collate
        self.pin_memory = pin_memory
        self._readers = ThreadPoolExecutor(num_threads)
        self._collator = ThreadPoolExecutor(1)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: Sequence[WindowKey]) -> Future[Batch]:
        """Begin to read a batch, and return at once."""
        runs = [self._readers.submit(self.dataset.__getitems__, run) for run in self.dataset.runs(keys)]
        return self._collator.submit(self._make_batch, runs)

    def _make_batch(self, runs: list[Future[list[Batch]]]) -> Batch:
        batch = self.collate([window for run in runs for window in run.result()])
        if self.pin_memory:
            batch = {name: value.pin_memory() if isinstance(value, Tensor) else value for name, value in batch.items()}
        return batch

    @staticmethod
    def collate_fn(batch: Future[Batch]) -> Future[Batch]:
        """Return the future of [`BatchReader.__getitems__`] as it is."""
        return batch


def finished(batch: Batch | Future[Batch]) -> Batch:
    """Wait for the batch of a future; return another batch as it is."""
    return batch.result() if isinstance(batch, Future) else batch

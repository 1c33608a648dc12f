"""Batches read by threads in the background, for a `DataLoader` without worker processes."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import ceil

from torch import Tensor
from torch.utils.data import Dataset

from comedian.samples.datasets import FrameWindows, WindowKey

Batch = dict[str, Tensor]
# of a batch, so that all threads end at about the same time
PARTS_PER_THREAD = 4


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
        self._num_threads = num_threads
        self._readers = ThreadPoolExecutor(num_threads)
        self._collator = ThreadPoolExecutor(1)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: Sequence[WindowKey]) -> Future[Batch]:
        """Begin to read a batch, and return at once."""
        keys = self.dataset.with_places(keys)
        # handing over a clip costs as much as reading it
        size = ceil(len(keys) / (PARTS_PER_THREAD * self._num_threads))
        parts = [keys[first : first + size] for first in range(0, len(keys), size)]
        reading = [self._readers.submit(self.dataset.__getitems__, part) for part in parts]
        return self._collator.submit(self._make_batch, reading)

    def _make_batch(self, parts: list[Future[list[Batch]]]) -> Batch:
        batch = self.collate([window for part in parts for window in part.result()])
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

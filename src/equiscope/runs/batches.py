"""Training batches as a map-style data set over steps: item s is ``task.training_batch(s)``."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from equiscope.errors import InputError
from equiscope.tasks.task import Task

Batch = dict[str, Tensor]


class Steps(Dataset[Batch]):
    """Item s is the batch of step s, or this process's share of it: every ``processes``-th sample.

    Equal shares make the mean of the processes' gradients the gradient of the whole batch.

    Raises:
        InputError: on access, if the batch does not divide evenly among the processes.
    """

    def __init__(self, task: Task, max_steps: int, process: int = 0, processes: int = 1) -> None:
        self._task, self._max_steps = task, max_steps
        self._process, self._processes = process, processes

    def __len__(self) -> int:
        return self._max_steps

    def __getitem__(self, step: int) -> Batch:
        batch = self._task.training_batch(step)
        if self._processes == 1:
            return batch
        for name, tensor in batch.items():
            if len(tensor) % self._processes:
                raise InputError(
                    f"batch field {name!r} has {len(tensor)} samples, which {self._processes} processes cannot "
                    "share evenly: choose a batch_size that is a multiple of the number of processes"
                )
        return {name: tensor[self._process :: self._processes] for name, tensor in batch.items()}


class Remaining(Sampler[int]):
    """The steps from ``start`` on; its length is that of the whole run, as Lightning counts the steps done."""

    def __init__(self, start: int, max_steps: int) -> None:
        self._start, self._max_steps = start, max_steps

    def __len__(self) -> int:
        return self._max_steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._start, self._max_steps))


def loader(steps: Steps, start: int, workers: int = 0) -> DataLoader[Batch]:
    """The loader of a run that has ``start`` steps behind it."""
    return DataLoader(
        steps, batch_size=None, sampler=Remaining(start, len(steps)), num_workers=workers, pin_memory=False
    )

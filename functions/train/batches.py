"""The batches of a pass: which examples, in which order, on the device that trains.

On a GPU, the next batch is copied there while the current one is being worked on. It knows no model. Whether examples
lie in memory or are read anew in each pass is the same to who asks: an order that is drawn, then batches from any
number on.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

import torch

from functions.train.data import Dataset
from functions.train.profile import Moments, Profile

Batch = tuple[torch.Tensor, torch.Tensor]  # inputs and targets


class Passes(Protocol):
    """A training set that does not fit in memory: each pass reads it anew. See `stream`."""

    @property
    def profile(self) -> Profile:
        """What a model is told of the set."""

    def __len__(self) -> int:
        """How many examples a pass gives."""

    def scaled(self, unit: Moments) -> "Passes":
        """The same with answers, which are numbers, of mean 0 and variance 1."""

    def order(self) -> torch.Tensor:
        """What decides the order of a pass, drawn from torch's random numbers."""

    def batches(self, order: torch.Tensor, sizes: Sequence[int], start: int) -> Iterator[Batch]:
        """Batches of these sizes from example number `start` on: the same ones for the same order, whenever asked."""


def size(options: int | Literal["full"], examples: int) -> int:
    """The examples in a batch, the last one of a pass aside."""
    return examples if options == "full" else options


def shuffled(examples: int, batch_size: int) -> torch.Tensor:
    """The order of a pass, drawn from torch's random numbers; as it is when one batch holds all."""
    return torch.randperm(examples) if batch_size < examples else torch.arange(examples)


def order(data: Dataset, batch_size: int) -> torch.Tensor:
    """What decides the order of a pass, drawn from torch's random numbers."""
    return shuffled(len(data), batch_size) if data.passes is None else data.passes.order()


def stream(
    data: Dataset, order: torch.Tensor, batch_size: int, device: torch.device, start: int = 0
) -> Iterator[Batch]:
    """The batches from number `start` on."""
    passes = data.passes
    if passes is None:
        chosen = picked(data, order, batch_size, start)
    else:
        chosen = passes.batches(order, sizes(len(data), batch_size)[start:], start * batch_size)
    return ahead(chosen, device) if device.type == "cuda" else chosen


def sizes(examples: int, batch_size: int) -> list[int]:
    """The examples in each batch of a pass."""
    return [min(batch_size, examples - first) for first in range(0, examples, batch_size)]


def picked(data: Dataset, order: torch.Tensor, batch_size: int, start: int) -> Iterator[Batch]:
    """The batches from number `start` on, of examples in memory."""
    inputs, targets = torch.from_numpy(data.inputs), torch.from_numpy(data.targets)
    return ((inputs[some], targets[some]) for some in itertools.islice(torch.split(order, batch_size), start, None))


def ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Copy each batch to the GPU before the one before it is given out.

    From pinned memory the copy runs beside the kernels that are queued, on a stream of its own; `wait_stream` has the
    kernels wait for it, not the program, and `record_stream` keeps the memory until they are done with it.
    """
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    waiting: Batch | None = None
    for inputs, targets in batches:
        with torch.cuda.stream(copying):
            copied = (moved(inputs, device), moved(targets, device))
        if waiting is not None:
            yield waiting
        torch.cuda.current_stream(device).wait_stream(copying)
        for tensor in copied:
            tensor.record_stream(torch.cuda.current_stream(device))
        waiting = copied
    if waiting is not None:
        yield waiting


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the GPU, without waiting until it is there."""
    return tensor.pin_memory().to(device, non_blocking=True)

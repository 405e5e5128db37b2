"""The batches of a pass: which examples, in which order, on the device that trains.

On a GPU, the next batch is copied there while the current one is being worked on. It knows no model.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Literal

import torch

from functions.train.world import ALONE, World

if TYPE_CHECKING:  # the benchmark runs where there is no pydantic
    from collections.abc import Iterable, Iterator, Sequence

    from functions.train.data import Dataset

Batch = tuple[torch.Tensor, torch.Tensor]  # inputs and targets


def size(options: int | Literal["full"], examples: int) -> int:
    """The examples in a batch, the last one of a pass aside."""
    return examples if options == "full" else options


def shuffled(examples: int, batch_size: int) -> torch.Tensor:
    """The order of a pass, drawn from torch's random numbers; as it is when one batch holds all."""
    return torch.randperm(examples) if batch_size < examples else torch.arange(examples)


def cut(order: torch.Tensor, batch_size: int) -> Sequence[torch.Tensor]:
    """The batches of a pass. One example that is left over joins the last one: alone it has no variance."""
    parts = torch.split(order, batch_size)
    if len(parts) > 1 and len(parts[-1]) == 1:
        return *parts[:-2], torch.cat(parts[-2:])
    return parts


def count(examples: int, batch_size: int) -> int:
    """How many batches `cut` makes of these examples."""
    return max(1, math.ceil((examples - 1) / batch_size))


def stream(
    data: Dataset,
    parts: Sequence[torch.Tensor],
    device: torch.device,
    start: int = 0,
    world: World = ALONE,
) -> Iterator[Batch]:
    """The batches from number `start` on, of each this process's share."""
    inputs, targets = torch.from_numpy(data.inputs), torch.from_numpy(data.targets)
    shares = map(world.share, itertools.islice(parts, start, None))
    chosen = ((inputs[some], targets[some]) for some in shares)
    return ahead(chosen, device) if device.type == "cuda" else chosen


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

"""The batches of a pass: which examples, in which order, on the training device.

On a GPU, the next batch is copied while the current one is used. Examples in memory and examples that are read anew in
each pass have the same interface: an order that is drawn, then batches from any number on.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch

from functions.train.data.dataset import Dataset
from functions.train.data.passes import MiniBatch
from functions.train.data.pixels import Pixels, read_ahead
from functions.train.distributed.process_group import SINGLE_PROCESS, ProcessGroup


def resolve_batch_size(requested: int | Literal["full"], examples: int) -> int:
    """Resolve the number of examples in a batch; the last one of a pass may differ."""
    return examples if requested == "full" else requested


def draw_permutation(examples: int, batch_size: int) -> torch.Tensor:
    """Draw the order of a pass from torch's random numbers; one batch of all examples keeps their order."""
    return torch.randperm(examples) if batch_size < examples else torch.arange(examples)


def draw_order(data: Dataset, batch_size: int) -> torch.Tensor:
    """Draw what determines the order of a pass from torch's random numbers."""
    return draw_permutation(len(data), batch_size) if data.passes is None else data.passes.draw_order()


def load_batches(
    data: Dataset,
    order: torch.Tensor,
    batch_size: int,
    device: torch.device,
    start: int = 0,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Iterator[MiniBatch]:
    """Load the batches from number `start` on, of each the share of this process."""
    batch_sizes = compute_batch_sizes(len(data), batch_size)
    if data.passes is None:
        selected = iterate_in_memory(data, torch.split(order, list(batch_sizes))[start:], process_group)
    else:
        selected = share_batches(
            data.passes.iterate_batches(order, batch_sizes[start:], sum(batch_sizes[:start])), process_group
        )
    return prefetch_to_device(selected, device) if device.type == "cuda" else selected


def compute_batch_sizes(examples: int, batch_size: int) -> Sequence[int]:
    """Compute how many examples each batch of a pass has; a single one left over joins the last: it has no variance."""
    whole, rest = divmod(examples, batch_size)
    if rest == 1 and whole:
        return [*[batch_size] * (whole - 1), batch_size + 1]
    return [*[batch_size] * whole, *[rest] * (rest > 0)]


def iterate_in_memory(data: Dataset, parts: Iterable[torch.Tensor], process_group: ProcessGroup) -> Iterator[MiniBatch]:
    """Iterate over batches of examples that are read by index, of each the share of this process."""
    targets, chosen = torch.from_numpy(data.targets), map(process_group.shard_batch, parts)
    if isinstance(data.inputs, Pixels):
        read = read_ahead(data.inputs, (some.numpy() for some in chosen))
        return ((torch.from_numpy(images), targets[torch.from_numpy(some)]) for some, images in read)
    inputs = torch.from_numpy(data.inputs)
    return ((inputs[some], targets[some]) for some in chosen)


def share_batches(batches: Iterable[MiniBatch], process_group: ProcessGroup) -> Iterator[MiniBatch]:
    """Take the share of this process of each batch."""
    return ((process_group.shard_batch(inputs), process_group.shard_batch(targets)) for inputs, targets in batches)


def prefetch_to_device(batches: Iterable[MiniBatch], device: torch.device) -> Iterator[MiniBatch]:
    """Copy each batch to the GPU before the previous one is yielded.

    The copy from pinned memory runs on its own stream, in parallel with the queued kernels; with `wait_stream` the
    kernels wait for it, not the program, and `record_stream` keeps the memory until they have finished.
    """
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    pending: MiniBatch | None = None
    for inputs, targets in batches:
        with torch.cuda.stream(copying):
            copied = (copy_to_device(inputs, device), copy_to_device(targets, device))
        if pending is not None:
            yield pending
        torch.cuda.current_stream(device).wait_stream(copying)
        for tensor in copied:
            tensor.record_stream(torch.cuda.current_stream(device))
        pending = copied
    if pending is not None:
        yield pending


def copy_to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Start to copy the tensor to the GPU, without waiting for it."""
    return tensor.pin_memory().to(device, non_blocking=True)

"""The processes that train one model together, each on its share of every batch: `torchrun` starts them.

    RANK, WORLD_SIZE   which of how many, over all machines
    LOCAL_RANK         which on this machine, and so which of its GPUs
    MASTER_ADDR, _PORT where they meet

A process that was started without these is a world of its own, in which all of this costs nothing. What concerns the
weights goes over NCCL from GPU to GPU; what the processes tell each other goes over gloo, so that it waits for no GPU.
It knows neither recipe nor model.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from functions.train.errors import LostProcessError

Tensors = dict[str, torch.Tensor]
PRIME = 1_000_003  # keeps the seeds of neighbouring steps and ranks apart
LOST = ("Connection", "Socket", "NCCL", "Timed out", "gloo")  # words in torch's errors that mean a lost process


@dataclass(frozen=True)
class World:
    """The place of this process among those that train together."""

    rank: int = 0
    size: int = 1
    local: int = 0  # rank on this machine

    @property
    def lead(self) -> bool:
        """Whether this process is the one that writes, publishes and speaks."""
        return self.rank == 0

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """Its part of a batch, (n, ...): as even as can be; of a batch too small to share, all of it."""
        if self.size == 1 or len(batch) < self.size:
            return batch
        return batch.tensor_split(self.size)[self.rank]

    def reseed(self, seed: int, step: int) -> None:
        """Have all but the lead draw from numbers of their own in step `step`, or they would all drop the same."""
        if self.rank:
            torch.manual_seed(((seed * PRIME + step) * PRIME + self.rank) % 2**63)

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, on the device that it is on; no GPU is waited for."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def agree(self, wish: int) -> int:
        """The greatest of all processes' wishes."""
        if self.size == 1:
            return wish
        wishes = torch.tensor(int(wish))
        distributed.all_reduce(wishes, distributed.ReduceOp.MAX)
        return int(wishes)

    def told(self, value: torch.Tensor) -> torch.Tensor:
        """The lead's value, on the CPU; the others give one of the same shape and type."""
        if self.size > 1:
            distributed.broadcast(value, src=0)
        return value

    def tell(self, said: bytes) -> bytes:
        """What the lead says."""
        if self.size == 1:
            return said
        length = int(self.told(torch.tensor(len(said))))
        heard = (
            torch.frombuffer(bytearray(said), dtype=torch.uint8)
            if self.lead and said
            else torch.empty(length, dtype=torch.uint8)
        )
        return self.told(heard).numpy().tobytes() if length else b""

    def spread(self, tensors: Tensors) -> Tensors:
        """The lead's tensors, on the CPU. One after the other: they may be many gigabytes."""
        if self.size == 1:
            return tensors
        kinds = {name: (str(value.dtype).removeprefix("torch."), tuple(value.shape)) for name, value in tensors.items()}
        heard = json.loads(self.tell(json.dumps(kinds).encode()))
        given = (
            tensors
            if self.lead
            else {name: torch.empty(shape, dtype=getattr(torch, kind)) for name, (kind, shape) in heard.items()}
        )
        return {name: self.told(value.contiguous()) for name, value in given.items()}


ALONE = World()


def place(environment: Mapping[str, str]) -> World:
    """The place that `torchrun` gave this process; `ALONE` where it did not."""
    if "RANK" not in environment:
        return ALONE
    return World(*(int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


@contextmanager
def joined(environment: Mapping[str, str] = os.environ) -> Iterator[World]:
    """Meet the other processes inside; `LostProcessError` when one of them goes before its time."""
    world = place(environment)
    if torch.cuda.is_available():
        torch.cuda.set_device(world.local % torch.cuda.device_count())
    if world.size == 1:
        yield world
        return
    try:
        meet()
        yield world
    except RuntimeError as exc:
        if not (distributed.is_initialized() and any(word in str(exc) for word in LOST)):
            raise
        raise LostProcessError(
            f"Process {world.rank} of {world.size} lost one of the others; what that one said is above. "
            "Start the same run again, and it goes on from its last checkpoint."
        ) from exc
    finally:
        part()


def meet() -> None:
    """Wait for the other processes."""
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def part() -> None:
    """Leave the other processes: from here on, each is by itself."""
    if distributed.is_initialized():
        distributed.destroy_process_group()

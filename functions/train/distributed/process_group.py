"""The processes that train one model together, each on its share of every batch: `torchrun` starts them.

    RANK, WORLD_SIZE   which of how many, over all machines
    LOCAL_RANK         which on this machine, and so which of its GPUs
    MASTER_ADDR, _PORT the address of the rendezvous

A process that was started without these is the only one, and all of this costs nothing. Weights and gradients are
exchanged by NCCL from GPU to GPU, everything else by gloo, so that it waits for no GPU.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from functions.train.errors import DeviceFaultError, DeviceMemoryError, LostProcessError
from functions.train.fault_recovery import is_device_fault

Tensors = dict[str, torch.Tensor]
SEED_PRIME = 1_000_003  # keeps the seeds of neighbouring steps and ranks apart
# Words in torch's errors that mean a lost process.
LOST_PROCESS_WORDS = ("Connection", "Socket", "NCCL", "Timed out", "timed out", "gloo", "Broken pipe")


@dataclass(frozen=True)
class ProcessGroup:
    """The place of this process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # rank on this machine

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes, publishes and reports."""
        return self.rank == 0

    def shard_batch(self, batch: torch.Tensor) -> torch.Tensor:
        """Take this process's part of a batch, (n, ...), split evenly; of a batch too small to split, all of it."""
        if self.size == 1 or len(batch) < self.size:
            return batch
        return batch.tensor_split(self.size)[self.rank]

    def seed_by_rank(self, seed: int, step: int) -> None:
        """Seed all processes but the main one differently in step `step`, or all would drop the same units."""
        if self.rank:
            torch.manual_seed(((seed * SEED_PRIME + step) * SEED_PRIME + self.rank) % 2**63)

    def sum_over_ranks(self, value: torch.Tensor) -> torch.Tensor:
        """Sum over all processes, on the tensor's device; this does not wait for a GPU."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def concatenate_over_ranks(self, rows: torch.Tensor) -> torch.Tensor:
        """Concatenate the rows (n, ...) of all processes, on the CPU; n may differ."""
        if self.size == 1:
            return rows
        counts = [torch.tensor(0) for _ in range(self.size)]
        distributed.all_gather(counts, torch.tensor(len(rows)))
        most = max(map(int, counts))
        padded = torch.zeros(most, *rows.shape[1:], dtype=rows.dtype)
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(gathered, padded)
        return torch.cat([part[: int(count)] for part, count in zip(gathered, counts, strict=True)])

    def max_over_ranks(self, value: int) -> int:
        """Return the largest value over all processes."""
        if self.size == 1:
            return value
        values = torch.tensor(int(value))
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return int(values)

    def broadcast(self, value: torch.Tensor) -> torch.Tensor:
        """Broadcast the main process's tensor, on the CPU; the others pass one of the same shape and type."""
        if self.size > 1:
            distributed.broadcast(value, src=0)
        return value

    def broadcast_bytes(self, message: bytes) -> bytes:
        """Broadcast the main process's bytes."""
        if self.size == 1:
            return message
        length = int(self.broadcast(torch.tensor(len(message))))
        received = (
            torch.frombuffer(bytearray(message), dtype=torch.uint8)
            if self.is_main and message
            else torch.empty(length, dtype=torch.uint8)
        )
        return self.broadcast(received).numpy().tobytes() if length else b""

    def broadcast_tensors(self, tensors: Tensors) -> Tensors:
        """Broadcast the main process's tensors, on the CPU, one after the other: they may be many gigabytes."""
        if self.size == 1:
            return tensors
        specs = {name: (str(value.dtype).removeprefix("torch."), tuple(value.shape)) for name, value in tensors.items()}
        received_specs = json.loads(self.broadcast_bytes(json.dumps(specs).encode()))
        buffers = (
            tensors
            if self.is_main
            else {
                name: torch.empty(shape, dtype=getattr(torch, kind)) for name, (kind, shape) in received_specs.items()
            }
        )
        return {name: self.broadcast(value.contiguous()) for name, value in buffers.items()}


SINGLE_PROCESS = ProcessGroup()


def read_process_group(environment: Mapping[str, str]) -> ProcessGroup:
    """Read the rank that `torchrun` gave this process; `SINGLE_PROCESS` where it gave none."""
    if "RANK" not in environment:
        return SINGLE_PROCESS
    return ProcessGroup(*(int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))


@contextmanager
def join_process_group(environment: Mapping[str, str] = os.environ) -> Iterator[ProcessGroup]:
    """Join the other processes inside; `LostProcessError` when one of them ends early."""
    process_group = read_process_group(environment)
    if torch.cuda.is_available():
        torch.cuda.set_device(process_group.local_rank % torch.cuda.device_count())
    with translate_faults(process_group):
        if process_group.size == 1:
            yield process_group
            return
        try:
            init_process_group()
            yield process_group
        finally:
            leave_process_group()


@contextmanager
def translate_faults(process_group: ProcessGroup) -> Iterator[None]:
    """Turn torch's errors of lost processes, failing GPUs and full ones into errors with one sentence."""
    together = process_group.size > 1 and distributed.is_initialized()
    again = "Start the same run again, and it goes on from its last checkpoint."
    try:
        yield
    except torch.OutOfMemoryError as exc:
        raise DeviceMemoryError(
            f"The GPU has too little memory: {get_first_line(exc)} Set a smaller batch_size, or a larger accumulation "
            "for the same batches in parts."
        ) from exc
    except RuntimeError as exc:
        if is_device_fault(exc):
            raise DeviceFaultError(
                f"The GPU of process {process_group.rank} failed: {get_first_line(exc)} {again}"
            ) from exc
        together = together or (process_group.size > 1 and distributed.is_initialized())
        if not (together and any(word in str(exc) for word in LOST_PROCESS_WORDS)):
            raise
        raise LostProcessError(
            f"Process {process_group.rank} of {process_group.size} lost one of the others; what that one said is "
            f"above. {again}"
        ) from exc


def get_first_line(error: BaseException) -> str:
    """Return the first line of an error as a sentence; torch's other lines are advice on how to debug it."""
    return str(error).strip().split("\n", 1)[0].rstrip(".") + "."


def init_process_group() -> None:
    """Wait for the other processes."""
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def leave_process_group() -> None:
    """Leave the other processes; from here on, each runs separately."""
    if distributed.is_initialized():
        distributed.destroy_process_group()

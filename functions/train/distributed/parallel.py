"""One model in several processes: a copy in each (DDP), or a slice of every weight in each (FSDP2).

Both compute the gradient of the whole batch, and batch normalisation uses the whole batch, so that a recipe means the
same in any number of processes.
"""

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from functions.train.distributed.process_group import ProcessGroup
from functions.train.distributed.sync_batch_norm import convert_sync_batch_norm

Strategy = Literal["ddp", "fsdp"]
BYTES_PER_WEIGHT = 16  # itself, its gradient and Adam's two moments, fp32 each
MAX_MEMORY_SHARE = 0.5  # of a GPU's memory, for these; the rest is for activations


def choose_strategy(setting: Literal["auto", "ddp", "fsdp"], model: nn.Module, device: torch.device) -> Strategy:
    """Choose a strategy: `auto` shards a model whose weights would fill more than half of a GPU."""
    if setting != "auto":
        return setting
    if device.type != "cuda":
        return "ddp"
    needed = BYTES_PER_WEIGHT * sum(weight.numel() for weight in model.parameters())
    return "fsdp" if needed > MAX_MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory else "ddp"


def place_model(model: nn.Module, strategy: Strategy, process_group: ProcessGroup, device: torch.device) -> nn.Module:
    """Place the model for training: itself in a single process, and otherwise a copy that is kept in sync."""
    if process_group.size == 1:
        return model.to(device)
    mine = convert_sync_batch_norm(copy.deepcopy(model))
    if strategy == "ddp":
        return mine.to(device)
    return shard_model(mine, device)


def shard_model(model: nn.Module, device: torch.device) -> nn.Module:
    """Shard every weight evenly over the processes; a block is gathered when it is needed."""
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for block in find_shardable_blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model.to(device)  # the buffers


def find_shardable_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Find the blocks that are gathered separately: items of a list or a sequence that have weights."""
    for part in model.modules():
        if isinstance(part, nn.Sequential | nn.ModuleList):
            yield from (
                block
                for block in part.children()
                if not isinstance(block, nn.Sequential | nn.ModuleList) and any(True for _ in block.parameters())
            )


def wrap_model(model: nn.Module, strategy: Strategy, process_group: ProcessGroup, device: torch.device) -> nn.Module:
    """Wrap the model for the call in a step; its backward pass sums the gradients of all processes."""
    if process_group.size == 1 or strategy == "fsdp":
        return model
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view")  # of a convolution over one channel
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.index is not None else None,
        gradient_as_bucket_view=True,
        **get_buffer_options(DistributedDataParallel),  # all have the same buffers: see `sync_batch_norm`
    )


def get_buffer_options(wrapper: Callable[..., object]) -> dict[str, Any]:
    """Return the option that keeps a DDP from sending buffers in each pass: torch 2.13 gave it another name.

    The former one warns there. It also leaves buffers out when the processes start, where ours are alike anyway.
    """
    known = inspect.signature(wrapper).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}


def accumulate_gradients(module: nn.Module, *, is_last: bool) -> AbstractContextManager[object]:
    """Process a part of a batch inside; the processes exchange gradients only with the last one."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(is_last)
    if isinstance(module, DistributedDataParallel) and not is_last:
        return module.no_sync()
    return nullcontext()


def gather_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Gather a whole tensor that may be sharded; every process must call this at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def copy_full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a whole tensor; a sharded one to the CPU, for a GPU may not have room for it."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor.clone()


def shard_like(pattern: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Shard a whole tensor that every process has, as `pattern` is."""
    if not isinstance(pattern, DTensor) or isinstance(tensor, DTensor) or tensor.shape != pattern.shape:
        return tensor
    there = tensor.to(pattern.device)
    return distribute_tensor(there, pattern.device_mesh, pattern.placements, src_data_rank=None)

"""The precision of a training step: weights, sums and the optimiser are always fp32.

With bf16, matrix products and convolutions inside the forward pass take operands of 8 significant bits (torch's
autocast), and so do their gradients. bf16 has fp32's range, so that no loss scaling is needed. Evaluation and export
stay in fp32.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

TrainingPrecision = Literal["fp32", "bf16"]
BF16_MIN_CAPABILITY = (8, 0)  # NVIDIA Ampere is the first with bf16 units; a T4 (7.5) emulates it, slower than fp32


def resolve_precision(requested: Literal["auto", "fp32", "bf16"], device: torch.device) -> TrainingPrecision:
    """Resolve a recipe's precision on a device: `auto` is bf16 on a GPU that has bf16 units."""
    if requested != "auto":
        return requested
    supported = device.type == "cuda" and torch.cuda.get_device_capability(device) >= BF16_MIN_CAPABILITY
    return "bf16" if supported else "fp32"


def build_autocast(precision: TrainingPrecision, device: torch.device) -> AbstractContextManager[object]:
    """Compute a forward pass in this precision inside."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()

"""The devices that a training runs on."""

import torch
from torch import nn


def get_model_device(model: nn.Module) -> torch.device:
    """Return the device of the model's weights."""
    return next(model.parameters()).device


def get_process_device() -> torch.device:
    """Return the GPU of this process, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")

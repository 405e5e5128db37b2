"""A training between two steps: its position, and every tensor that the next step depends on.

`trainer` captures and restores states, `checkpoint` stores them.
"""

from dataclasses import dataclass

import torch
from msgspec import Struct

from functions.train.training.training_history import EpochMetrics

Tensors = dict[str, torch.Tensor]


class TrainingPosition(Struct, frozen=True, kw_only=True):
    """The position of a training: everything of its state that is not a tensor."""

    step: int  # taken since the start of the training
    batches: int  # of them in the running epoch
    seconds: float  # that the running epoch has taken
    epochs: tuple[EpochMetrics, ...]  # that are over


@dataclass(frozen=True, eq=False)
class TrainerState:
    """A training between two steps, complete: one that is restored from it ends with the same weights."""

    position: TrainingPosition
    tensors: Tensors  # on the CPU, by path: `model/...`, `optimiser/...`


def get_rng_states(device: torch.device) -> Tensors:
    """Return the states of the random generators that a training on this device uses."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_rng_states(states: Tensors, device: torch.device) -> None:
    """Set the states of the random generators."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:  # a run may resume on another kind of machine, if not bit for bit
        torch.cuda.set_rng_state(states["cuda"], device)


def select_part(part: str, tensors: Tensors) -> Tensors:
    """Select the tensors of one part, by their names in it."""
    return {name.removeprefix(f"{part}/"): value for name, value in tensors.items() if name.startswith(f"{part}/")}

"""One gradient step: forward, backward, clip, move, average. Nothing in it waits for a GPU.

Where several processes train together, each takes the same step on its share of the batch, and what the step says of
itself is of the whole batch. It knows a model and how the recipe moves its weights, not which batch comes next or when
to stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from functions.train.distributed import parallel
from functions.train.distributed.process_group import ALONE, World
from functions.train.training import loss as losses
from functions.train.training import optimiser as optimisers
from functions.train.training import precision
from functions.train.training.average import Average
from functions.train.training.compiler import compiled
from functions.train.training.mfu import Meter

if TYPE_CHECKING:  # the benchmark runs where there is no pydantic
    from functions.train.data.dataset import Dataset
    from pilotlight.recipes.schema import Recipe


@dataclass(frozen=True, eq=False)
class Taken:
    """What a step says of itself, as scalars on the model's device: reading one would wait for it."""

    loss: torch.Tensor
    hits: torch.Tensor  # what adds up to the metric: see `loss.Loss.hits`
    norm: torch.Tensor  # of the gradient, before it was clipped


class Stepper:
    """Moves a model's weights as a recipe says: the model's own where this process is alone, a copy's otherwise."""

    def __init__(self, model: nn.Module, train: Dataset, recipe: Recipe, world: World = ALONE) -> None:
        self.device = device_of(model) if world.size == 1 else device()
        strategy = parallel.resolve(recipe.distributed.strategy, model, self.device)
        self.model = parallel.place(model, strategy, world, self.device)
        self._recipe, self._world = recipe, world
        self.optimiser = optimisers.build(recipe.optimiser, self.model.parameters())
        self.average = self._averaging(model, strategy, recipe.ema) if recipe.ema is not None else None
        self._loss = losses.build(recipe.loss, train, self.device)
        self._precision = precision.resolve(recipe.precision, self.device)
        self._module = parallel.wrapped(self.model, strategy, world, self.device)
        self._compiled = compiled(self._answer) if recipe.compile else None  # shares the weights
        self._shape: torch.Size | None = None  # the only shape that it is compiled for
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        self.meter = Meter(model, lambda: torch.from_numpy(train.inputs[:1]), gpu, self._precision, world.size)

    @property
    def judged(self) -> nn.Module:
        """The model that is evaluated and published: the average, where there is one. Never the compiled one."""
        return self.average.model if self.average else self.model

    def take(
        self, batch: torch.Tensor, truth: torch.Tensor, rate: float, number: int, examples: int | None = None
    ) -> Taken:
        """Take step `number`, from 1, at this learning rate, on this process's share of a batch of `examples`."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        loss, hits = self._accumulate(batch, truth, examples or len(truth))
        norm = self._clip()
        self.optimiser.step()
        if self.average:
            self.average.update(number)
        return Taken(loss, hits, norm)

    def _accumulate(self, batch: torch.Tensor, truth: torch.Tensor, examples: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Add up the gradients of the batch's parts, each by its share of the mean, so that they are the batch's.

        The processes' gradients are averaged, and so each counts as many times as there are processes.
        """
        processes = self._world.size
        count = parts(self._recipe.accumulation, examples, processes)
        whole = self._mass(truth)
        loss, hits = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        divided = zip(batch.tensor_split(count), truth.tensor_split(count), strict=True)
        for number, (part, target) in enumerate(divided, 1):
            with parallel.alone(self._module, last=number == count):
                mean, hit = self._ask(part, target)
                mean = mean * (self._loss.mass(target) / whole)
                (mean * processes if processes > 1 else mean).backward()  # type: ignore[no-untyped-call]  # torch's omission
            loss += mean.detach()
            hits += hit
        if examples < processes:  # a batch too small to share goes to every process whole
            hits = hits / processes
        return self._total(loss, hits)

    def _total(self, loss: torch.Tensor, hits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What all processes together say of a step."""
        if self._world.size == 1:
            return loss, hits
        loss, hits = self._world.total(torch.stack([loss, hits]))
        return loss, hits

    def _mass(self, truth: torch.Tensor) -> torch.Tensor | float:
        """What the mean over the whole batch divides by."""
        mass = self._loss.mass(truth)
        if self._world.size == 1:
            return mass
        return self._world.total(torch.as_tensor(mass, dtype=torch.float32, device=self.device))

    def _ask(self, part: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and hits of a part; compiled for the first shape alone, for a last batch of another is not worth it."""
        self._shape = self._shape or part.shape
        ask = self._compiled if self._compiled is not None and part.shape == self._shape else self._answer
        return ask(part, target)

    def _answer(self, part: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and hits together, so that the compiler need not keep the outputs in fp32 for either."""
        with precision.casting(self._precision, self.device):
            outputs = self._module(part)
        return self._loss.mean(outputs.float(), target), self._loss.hits(outputs.detach(), target)

    def _clip(self) -> torch.Tensor:
        """The length of the whole gradient, which is then no longer than the recipe allows.

        g *= min(1, c / |g|). Pascanu, Mikolov and Bengio, On the Difficulty of Training Recurrent Networks, 2013.
        """
        moved = [weight for weight in self.model.parameters() if weight.grad is not None]
        norm = nn.utils.get_total_norm([weight.grad for weight in moved if weight.grad is not None])
        if self._recipe.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(moved, self._recipe.clip_norm, norm)
        return parallel.whole(norm)

    def _averaging(self, model: nn.Module, strategy: parallel.Strategy, decay: float) -> Average:
        """The average of the weights; those that are sliced cannot be copied, but sliced once more."""
        sliced = isinstance(self.model, FSDPModule)
        return Average(self.model, decay, parallel.place(model, strategy, self._world, self.device) if sliced else None)


def parts(accumulation: int, examples: int, processes: int) -> int:
    """How many parts each process works its share through in: the same in all, each of two examples at least.

    A normalisation needs two.
    """
    return min(accumulation, max(1, max(examples // processes, 1) // 2))


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


def device() -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")

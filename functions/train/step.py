"""One gradient step: forward, backward, clip, move, average. Nothing in it waits for a GPU.

It knows a model and how the recipe moves its weights, not which batch comes next or when to stop.
"""

from dataclasses import dataclass

import torch
from torch import nn

from functions.train import loss as losses
from functions.train import optimiser as optimisers
from functions.train import precision
from functions.train.average import Average
from functions.train.data import Dataset
from functions.train.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Taken:
    """What a step says of itself, as scalars on the model's device: reading one would wait for it."""

    loss: torch.Tensor
    hits: torch.Tensor  # what adds up to the metric: see `loss.Loss.hits`
    norm: torch.Tensor  # of the gradient, before it was clipped


class Stepper:
    """Moves a model's weights as a recipe says."""

    def __init__(self, model: nn.Module, train: Dataset, recipe: Recipe) -> None:
        self.model, self._recipe = model, recipe
        self.device = device_of(model)
        self.optimiser = optimisers.build(recipe.optimiser, model.parameters())
        self.average = Average(model, recipe.ema) if recipe.ema is not None else None
        self._loss = losses.build(recipe.loss, train, self.device)
        self._precision = precision.resolve(recipe.precision, self.device)
        self._forward = torch.compile(model) if recipe.compile else model  # shares the weights

    @property
    def judged(self) -> nn.Module:
        """The model that is evaluated and published: the average, where there is one. Never the compiled one."""
        return self.average.model if self.average else self.model

    def take(self, batch: torch.Tensor, truth: torch.Tensor, rate: float, number: int) -> Taken:
        """Take step `number`, from 1, at this learning rate."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        loss, hits = self._accumulate(batch, truth)
        norm = self._clip()
        self.optimiser.step()
        if self.average:
            self.average.update(number)
        return Taken(loss, hits, norm)

    def _accumulate(self, batch: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add up the gradients of the batch's parts, each by its share of the mean, so that they are the batch's."""
        count = min(self._recipe.accumulation, max(1, len(truth) // 2))  # a normalisation needs two examples
        whole = self._loss.mass(truth)
        loss, hits = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for part, target in zip(batch.tensor_split(count), truth.tensor_split(count), strict=True):
            with precision.casting(self._precision, self.device):
                outputs = self._forward(part)
            mean = self._loss.mean(outputs.float(), target) * (self._loss.mass(target) / whole)
            mean.backward()  # type: ignore[no-untyped-call]  # torch leaves backward unannotated
            loss += mean.detach()
            hits += self._loss.hits(outputs.detach(), target)
        return loss, hits

    def _clip(self) -> torch.Tensor:
        """The length of the whole gradient, which is then no longer than the recipe allows.

        g *= min(1, c / |g|). Pascanu, Mikolov and Bengio, On the Difficulty of Training Recurrent Networks, 2013.
        """
        moved = [weight for weight in self.model.parameters() if weight.grad is not None]
        norm = nn.utils.get_total_norm([weight.grad for weight in moved if weight.grad is not None])
        if self._recipe.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(moved, self._recipe.clip_norm, norm)
        return norm


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device

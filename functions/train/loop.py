"""The loop: mini-batches, gradient steps, early stopping.

It knows a model, arrays and a recipe; it writes nothing, but hands each epoch to whoever watches. On a CPU, the same
recipe gives the same weights bit for bit.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from functions.train import optimiser as optimisers
from functions.train import schedule
from functions.train.data import Array, Dataset, Splits
from functions.train.errors import DivergedError
from functions.train.evaluate import score
from functions.train.recipe import Recipe, StoppingOptions


@dataclass(frozen=True)
class Epoch:
    """One pass over the training set. The training figures are means over the pass, taken with dropout on.

    Accuracy is the share of right classes; for a number it is what `metric` says, R2.
    """

    number: int  # from 1
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float  # of the last step
    seconds: float
    metric: str = "accuracy"  # the name of what stands under accuracy


@dataclass(frozen=True)
class History:
    """Every epoch of a run, and the one whose weights the model has kept."""

    epochs: tuple[Epoch, ...]
    best: Epoch


class EarlyStopping:
    """Remembers the weights of the best epoch so far, and says when none has been better for too long."""

    def __init__(self, options: StoppingOptions) -> None:
        self.options = options
        self.best: Epoch | None = None
        self._weights: dict[str, torch.Tensor] = {}

    def exhausted(self, epoch: Epoch, model: nn.Module) -> bool:
        """Take note of an epoch; whether `patience` epochs have now passed since the best one."""
        if self.best is None or epoch.validation_loss < self.best.validation_loss - self.options.min_delta:
            self.best = epoch
            self._weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        return epoch.number - self.best.number >= self.options.patience

    def restore(self, model: nn.Module) -> Epoch:
        """Give the model the best epoch's weights back."""
        if self.best is None:
            raise ValueError("There is no epoch yet.")
        model.load_state_dict(self._weights)
        return self.best


def train(model: nn.Module, splits: Splits, recipe: Recipe, watch: Callable[[Epoch], None]) -> History:
    """Train the model in place, until the epochs are over or the validation loss has stopped falling.

    `DivergedError` as soon as a loss is not finite.
    """
    optimiser = optimisers.build(recipe.optimiser, model.parameters())
    stopping, epochs = EarlyStopping(recipe.early_stopping), list[Epoch]()
    with seeded(recipe.seed), threads(recipe.threads):
        for number in range(1, recipe.epochs + 1):
            started = time.perf_counter()
            rates = learning_rates(recipe, len(splits.train), number)
            loss, accuracy = train_epoch(model, optimiser, splits.train, rates, recipe.batch_size)
            judged = score(predict(model, splits.validation.inputs), splits.validation.targets, splits.train.classes)
            seconds = time.perf_counter() - started
            metric, value = judged.headline
            epochs.append(Epoch(number, loss, accuracy, judged.loss, value, rates[-1], seconds, metric))
            watch(epochs[-1])
            check(epochs[-1])
            if stopping.exhausted(epochs[-1], model):
                break
    return History(tuple(epochs), stopping.restore(model))


def learning_rates(recipe: Recipe, examples: int, epoch: int) -> Sequence[float]:
    """The learning rate of each step of an epoch."""
    steps = math.ceil(examples / recipe.batch_size)
    first, total, base = (epoch - 1) * steps, recipe.epochs * steps, recipe.optimiser.learning_rate
    return [base * schedule.factor(recipe.schedule, step, total) for step in range(first, first + steps)]


def train_epoch(
    model: nn.Module, optimiser: torch.optim.Optimizer, data: Dataset, rates: Sequence[float], batch_size: int
) -> tuple[float, float]:
    """One pass in random order, one step for each rate: the mean loss and accuracy over the pass."""
    model.train()
    device = device_of(model)
    images, labels = (torch.from_numpy(array).to(device) for array in (data.inputs, data.targets))
    loss, right = torch.zeros((), device=device), torch.zeros((), device=device)
    for indices, rate in zip(torch.split(torch.randperm(len(data)), batch_size), rates, strict=True):
        batch, truth = images[indices.to(device)], labels[indices.to(device)]
        outputs = model(batch)
        mean = take_step(optimiser, loss_of(outputs, truth), rate)
        loss += mean * len(truth)  # the sums stay on the device: reading one would wait for it at every step
        right += hits(outputs, truth)
    return float(loss) / len(data), float(right) / len(data)


def loss_of(outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross-entropy for classes (N,), the mean squared error for numbers (N, 1)."""
    return mse_loss(outputs, truth) if truth.is_floating_point() else cross_entropy(outputs, truth)


def hits(outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """How many classes are right; for numbers of variance 1 what adds up to R2: one less the squared error each."""
    if truth.is_floating_point():
        return (1 - (outputs.detach() - truth) ** 2).sum()
    return (outputs.argmax(dim=1) == truth).sum()


def take_step(optimiser: torch.optim.Optimizer, loss: torch.Tensor, rate: float) -> torch.Tensor:
    """One gradient step at this learning rate; gives the loss back, without its graph."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward unannotated
    optimiser.step()
    return loss.detach()


def predict(model: nn.Module, images: Array, batch_size: int = 1024) -> Array:
    """The model's logits (N, classes) for raw images (N, C, H, W), in evaluation mode."""
    model.eval()
    device = device_of(model)
    with torch.inference_mode():
        batches = [model(batch.to(device)).cpu() for batch in torch.split(torch.from_numpy(images), batch_size)]
    return np.concatenate([batch.numpy() for batch in batches])


def check(epoch: Epoch) -> None:
    """Refuse to go on with losses that are not numbers."""
    if not math.isfinite(epoch.train_loss + epoch.validation_loss):
        raise DivergedError(
            f"Training diverged in epoch {epoch.number}: training loss {epoch.train_loss}, validation loss "
            f"{epoch.validation_loss}; try a smaller optimiser.learning_rate than the {epoch.learning_rate:.3g} there."
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from `seed` inside, and leave the caller's own sequence untouched."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use this many CPU threads inside.

    One is the recipes' default: torch's threads wait for each other by spinning, so that two on a machine with one CPU
    to spare took ten times as long as one, and even on two idle CPUs they saved a fifth on a model of digits' size.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device

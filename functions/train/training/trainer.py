"""The loop: passes over batches, and gradient steps.

It knows a model, arrays and a recipe; it writes nothing, but hands each epoch to whoever watches, and at each step
boundary itself to whoever keeps. On a CPU, the same recipe gives the same weights bit for bit, also when the training
was taken apart into snapshots and put together again.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np
import torch
from torch import nn

from functions.train.data import augmentation, loader
from functions.train.data.dataset import Array, Splits
from functions.train.distributed import parallel
from functions.train.distributed.process_group import ALONE, World
from functions.train.errors import DivergedError
from functions.train.evaluation.metrics import judge
from functions.train.training import optimiser, schedule
from functions.train.training.epoch import EarlyStopping, Epoch, History
from functions.train.training.state import Position, Snapshot, Tensors, below, get_random, set_random
from functions.train.training.step import Stepper, Taken, device_of
from pilotlight.recipes.schema import Recipe

EVALUATED = 1024  # answers that are computed at once


@dataclass
class Tally:
    """The running epoch so far. The sums stay on the model's device: reading one would wait for it at every step."""

    device: torch.device
    batches: int = 0
    seconds: float = 0.0
    sums: Tensors = field(init=False)

    def __post_init__(self) -> None:
        self.sums = {name: torch.zeros((), device=self.device) for name in ("loss", "hits", "norm")}

    def add(self, taken: Taken, answers: int) -> None:
        """Count a step over this many answers, one for each example or token."""
        self.batches += 1
        self.sums["loss"] += taken.loss * answers
        self.sums["hits"] += taken.hits
        self.sums["norm"] += taken.norm


class Trainer:
    """A training between its first step and its last."""

    def __init__(self, model: nn.Module, splits: Splits, recipe: Recipe, world: World = ALONE) -> None:
        self.stepper = Stepper(model, splits.train, recipe, world)
        self.stopping = EarlyStopping(recipe.early_stopping)
        self.epochs: list[Epoch] = []
        self.steps = 0  # taken since the start
        self.tally = Tally(self.stepper.device)
        self._splits, self._recipe, self._world = splits, recipe, world
        self.examples = len(splits.train)
        self.batch_size = loader.size(recipe.batch_size, self.examples)
        self.sizes = loader.sizes(self.examples, self.batch_size)  # of the batches of an epoch
        self.each = splits.train.answers // self.examples  # answers per example: one, or a window's tokens
        self._augmentation = augmentation.build(recipe.augmentation, splits.train.inputs.shape[1:])
        self._drawn_from = torch.get_rng_state()  # what the order of the running epoch was drawn from
        self._settled = False

    @property
    def over(self) -> bool:
        """Whether no epoch is left, or none is worth it."""
        return bool(self.epochs) and (len(self.epochs) >= self._recipe.epochs or self.stopping.over(self.epochs[-1]))

    def epoch(self, boundary: Callable[["Trainer"], None]) -> Epoch:
        """Run the next epoch, or what is left of the one that a snapshot was taken in."""
        started = time.perf_counter() - self.tally.seconds
        rates = learning_rates(self._recipe, len(self._splits.train), len(self.epochs) + 1)
        self.run(rates, started, boundary)
        return self._finish(rates[-1], started)

    def run(self, rates: Sequence[float], started: float, boundary: Callable[["Trainer"], None]) -> None:
        """One pass over the training set, a step for each rate."""
        train, first, order = self._splits.train, self.tally.batches, self._order()
        self.stepper.model.train()
        stream = loader.stream(train, order, self.batch_size, self.stepper.device, first, self._world)
        for examples, (inputs, targets) in zip(self.sizes[first:], stream, strict=True):
            self.steps += 1
            self._world.reseed(self._recipe.seed, self.steps)
            seen = inputs if self._augmentation is None else self._augmentation(inputs)
            taken = self.stepper.take(seen, targets, rates[self.tally.batches], self.steps, examples)
            self.tally.add(taken, examples * self.each)
            self.tally.seconds = time.perf_counter() - started
            self._settle()
            boundary(self)

    def snapshot(self) -> Snapshot:
        """Everything that the next step depends on; `DivergedError` when that is no longer worth keeping."""
        self.check()
        position = Position(
            step=self.steps, batches=self.tally.batches, seconds=self.tally.seconds, epochs=tuple(self.epochs)
        )
        kept = {f"{part}/{name}": value for part, known in self._parts().items() for name, value in known.items()}
        tensors = {name: parallel.whole(value.detach()).to("cpu", copy=True) for name, value in kept.items()}
        return Snapshot(position, tensors)

    def check(self) -> None:
        """`DivergedError` when the running epoch's loss is no longer a number; waits for the device."""
        if not math.isfinite(float(self.tally.sums["loss"])):
            raise self._diverged(len(self.epochs) + 1, f"training loss {float(self.tally.sums['loss'])}")

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.stepper.optimiser.param_groups[0]["lr"])

    def resume(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot, as if nothing had happened."""
        position = snapshot.position
        self.steps, self.epochs = position.step, list(position.epochs)
        self.tally.batches, self.tally.seconds = position.batches, position.seconds
        for part, known in self._parts().items():
            if part in ("model", "average", "sums"):
                for name, value in known.items():
                    value.copy_(parallel.like(value, snapshot.tensors[f"{part}/{name}"]))
        optimiser.restore(self.stepper.optimiser, below("optimiser", snapshot.tensors))
        if self.epochs:
            self.stopping.replay(self.epochs)
        self.stopping.weights = below("best", snapshot.tensors)
        self._drawn_from = snapshot.tensors["random/order"]
        set_random(below("random", snapshot.tensors), self.stepper.device)

    def judge(self, epoch: Epoch) -> None:
        """Remember the weights if they are the best; refuse to go on with losses that are not numbers."""
        if not math.isfinite(epoch.train_loss + epoch.validation_loss):
            losses = f"training loss {epoch.train_loss}, validation loss {epoch.validation_loss}"
            raise self._diverged(epoch.number, losses)
        self.stopping.exhausted(epoch, self.stepper.judged)

    def _diverged(self, number: int, losses: str) -> DivergedError:
        return DivergedError(
            f"Training diverged in epoch {number}: {losses} after step {self.steps}; "
            f"try a smaller optimiser.learning_rate than the {self.rate:.3g} there, or clip_norm."
        )

    def _order(self) -> torch.Tensor:
        """The order of the running epoch, drawn now or, when it had begun before a snapshot, once more."""
        begun = bool(self.tally.batches)
        if not begun:
            self._drawn_from = self._world.told(torch.get_rng_state())
        if not begun and self._world.lead:
            return loader.order(self._splits.train, self.batch_size)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._drawn_from)
            return loader.order(self._splits.train, self.batch_size)

    def _settle(self) -> None:
        """After the first step all that lives on is there: spare the garbage collector looking through it again."""
        if not self._settled:
            gc.collect()
            gc.freeze()
            self._settled = True

    def _finish(self, rate: float, started: float) -> Epoch:
        """Evaluate, take note, and be ready for the next epoch."""
        tally, train, validation = self.tally, self._splits.train, self._splits.validation
        loss, hits, norm = (float(tally.sums[name]) for name in ("loss", "hits", "norm"))  # waits for the device
        passed, answers = time.perf_counter() - started, train.answers
        judged = judge(predict(self.stepper.judged, validation.inputs), validation)
        metric, value = judged.headline
        epoch = self._agreed(
            Epoch(
                number=len(self.epochs) + 1,
                train_loss=loss / answers,
                train_accuracy=hits / answers,
                validation_loss=judged.loss,
                validation_accuracy=value,
                learning_rate=rate,
                seconds=time.perf_counter() - started,
                metric=metric,
                gradient_norm=norm / tally.batches,
                examples_per_s=self.examples / passed,
                tokens_per_s=answers / passed if train.text else 0.0,
                mfu=self.stepper.meter.utilisation(self.examples / passed),
            )
        )
        self.epochs.append(epoch)
        self.tally = Tally(self.stepper.device)
        return epoch

    def _agreed(self, epoch: Epoch) -> Epoch:
        """The lead's epoch: clocks differ, and so may the last bit of a sum, and all must stop after the same one."""
        if self._world.size == 1:
            return epoch
        return msgspec.msgpack.decode(self._world.tell(msgspec.msgpack.encode(epoch)), type=Epoch)

    def _parts(self) -> dict[str, Tensors]:
        """The tensors that the next step depends on, live."""
        average = self.stepper.average
        return {
            "model": self.stepper.model.state_dict(),
            "optimiser": optimiser.tensors(self.stepper.optimiser),
            "average": average.model.state_dict() if average else {},
            "best": self.stopping.weights,
            "sums": self.tally.sums,
            "random": get_random(self.stepper.device) | {"order": self._drawn_from},
        }


class Keeper(Protocol):
    """Who keeps a training's snapshots: see `keeper`."""

    def newest(self) -> Snapshot | None:
        """Where to go on from; None to start at the beginning."""

    def boundary(self, trainer: Trainer) -> None:
        """Look at a training between two steps; may end it by raising."""

    def save(self, trainer: Trainer) -> None:
        """Save now."""


class NoKeeper:
    """Keeps nothing."""

    def newest(self) -> None:
        """Nothing to go on from."""

    def boundary(self, trainer: Trainer) -> None:
        """Go on."""

    def save(self, trainer: Trainer) -> None:
        """Keep nothing."""


def train(
    model: nn.Module,
    splits: Splits,
    recipe: Recipe,
    watch: Callable[[Epoch], None],
    keeper: Keeper | None = None,
    world: World = ALONE,
) -> History:
    """Train the model in place, until the epochs are over or the validation loss has stopped falling.

    `DivergedError` as soon as a loss is not finite.
    """
    keeper = keeper or NoKeeper()
    with seeded(recipe.seed), threads(recipe.threads), unfrozen():
        trainer = Trainer(model, splits, recipe, world)
        if snapshot := keeper.newest():
            trainer.resume(snapshot)
        while not trainer.over:
            epoch = trainer.epoch(keeper.boundary)
            watch(epoch)
            trainer.judge(epoch)
        keeper.save(trainer)
    return History(tuple(trainer.epochs), trainer.stopping.restore(model))


def learning_rates(recipe: Recipe, examples: int, epoch: int) -> Sequence[float]:
    """The learning rate of each step of an epoch."""
    steps = len(loader.sizes(examples, loader.size(recipe.batch_size, examples)))
    first, total, base = (epoch - 1) * steps, recipe.epochs * steps, recipe.optimiser.learning_rate
    return [base * schedule.factor(recipe.schedule, step, total) for step in range(first, first + steps)]


def predict(model: nn.Module, inputs: Array, batch_size: int | None = None) -> Array:
    """The model's outputs, (N, classes) or (N, T, tokens), for raw inputs like those of a `Dataset`, not in training.

    Unless a batch size is given, so many at once as have 1,024 answers, or tokens one window.
    """
    model.eval()
    device, answers = device_of(model), inputs.shape[1] if inputs.dtype == np.int64 else 1
    size = batch_size or max(1, EVALUATED // answers)
    with torch.inference_mode():
        batches = [model(batch.to(device)).cpu() for batch in torch.split(torch.from_numpy(inputs), size)]
    return np.concatenate([batch.numpy() for batch in batches])


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


@contextmanager
def unfrozen() -> Iterator[None]:
    """Give what is frozen inside back to the garbage collector."""
    try:
        yield
    finally:
        gc.unfreeze()

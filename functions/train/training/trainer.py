"""The training loop: passes over batches, and gradient steps.

It writes nothing: callbacks receive each epoch, and the trainer itself at each step boundary. On a CPU, the same recipe
gives the same weights bit for bit, also when the training was saved and restored in between.
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

from functions.train.data import Array, augmentation, loader
from functions.train.data.pixels import VALUES_AT_ONCE, VALUES_ON_GPU, Inputs, Pixels, iterate_chunks
from functions.train.data.split import Splits
from functions.train.distributed import parallel
from functions.train.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from functions.train.errors import DivergedError
from functions.train.evaluation.metrics import evaluate_outputs
from functions.train.training import optimiser, schedule
from functions.train.training.state import (
    Tensors,
    TrainerState,
    TrainingPosition,
    get_rng_states,
    select_part,
    set_rng_states,
)
from functions.train.training.step import StepResult, TrainStep, get_model_device
from functions.train.training.training_history import EarlyStopping, EpochMetrics, TrainingHistory
from pilotlight.recipes.schema import Recipe

MAX_TARGETS_AT_ONCE = 1024  # answers that are computed at once


@dataclass
class EpochTotals:
    """The totals of the running epoch. They stay on the model's device: reading one would wait for it at every step."""

    device: torch.device
    batch_count: int = 0
    seconds: float = 0.0
    sums: Tensors = field(init=False)

    def __post_init__(self) -> None:
        self.sums = {name: torch.zeros((), device=self.device) for name in ("loss", "hits", "norm")}

    def add_step(self, result: StepResult, target_count: int) -> None:
        """Add a step over this many targets, one for each example or token."""
        self.batch_count += 1
        self.sums["loss"] += result.loss * target_count
        self.sums["hits"] += result.hits
        self.sums["norm"] += result.gradient_norm


class Trainer:
    """A training between its first step and its last."""

    def __init__(
        self, model: nn.Module, splits: Splits, recipe: Recipe, process_group: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.train_step = TrainStep(model, splits.train, recipe, process_group)
        self.early_stopping = EarlyStopping(recipe.early_stopping)
        self.epochs: list[EpochMetrics] = []
        self.step_count = 0  # taken since the start
        self.totals = EpochTotals(self.train_step.device)
        self._splits, self._recipe, self._process_group = splits, recipe, process_group
        self.example_count = len(splits.train)
        self.batch_size = loader.resolve_batch_size(recipe.batch_size, self.example_count)
        self.batch_sizes = loader.compute_batch_sizes(self.example_count, self.batch_size)  # of the batches of an epoch
        self.targets_per_example = (
            splits.train.target_count // self.example_count
        )  # answers per example: one, or a window's tokens
        self._augmentation = augmentation.build_augmentation(recipe.augmentation, splits.train.inputs.shape[1:])
        self._order_rng_state = torch.get_rng_state()  # what the order of the running epoch was drawn from
        self._gc_frozen = False

    @property
    def is_finished(self) -> bool:
        """Whether no epoch is left, or training stops early."""
        return bool(self.epochs) and (
            len(self.epochs) >= self._recipe.epochs or self.early_stopping.should_stop(self.epochs[-1])
        )

    def run_epoch(self, on_step_end: Callable[["Trainer"], None]) -> EpochMetrics:
        """Run the next epoch, or the rest of one that was restored."""
        started = time.perf_counter() - self.totals.seconds
        rates = compute_learning_rates(self._recipe, len(self._splits.train), len(self.epochs) + 1)
        self.run_steps(rates, started, on_step_end)
        return self._finish_epoch(rates[-1], started)

    def run_steps(self, rates: Sequence[float], started: float, on_step_end: Callable[["Trainer"], None]) -> None:
        """Run one pass over the training set, a step for each rate."""
        train, first, order = self._splits.train, self.totals.batch_count, self._draw_order()
        self.train_step.model.train()
        stream = loader.load_batches(train, order, self.batch_size, self.train_step.device, first, self._process_group)
        for examples, (inputs, targets) in zip(self.batch_sizes[first:], stream, strict=True):
            self.step_count += 1
            self._process_group.seed_by_rank(self._recipe.seed, self.step_count)
            seen = inputs if self._augmentation is None else self._augmentation(inputs)
            result = self.train_step.take_step(seen, targets, rates[self.totals.batch_count], self.step_count, examples)
            self.totals.add_step(result, examples * self.targets_per_example)
            self.totals.seconds = time.perf_counter() - started
            self._freeze_garbage_collector()
            on_step_end(self)

    def capture_state(self) -> TrainerState:
        """Capture all state that the next step depends on; `DivergedError` when the loss is not finite."""
        self.check_loss()
        position = TrainingPosition(
            step=self.step_count,
            batches=self.totals.batch_count,
            seconds=self.totals.seconds,
            epochs=tuple(self.epochs),
        )
        kept = {
            f"{part}/{name}": value for part, known in self._collect_tensors().items() for name, value in known.items()
        }
        tensors = {name: parallel.gather_tensor(value.detach()).to("cpu", copy=True) for name, value in kept.items()}
        return TrainerState(position, tensors)

    def check_loss(self) -> None:
        """Raise `DivergedError` when the running epoch's loss is not finite; waits for the device."""
        if not math.isfinite(float(self.totals.sums["loss"])):
            raise self._build_divergence_error(len(self.epochs) + 1, f"training loss {float(self.totals.sums['loss'])}")

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.train_step.optimiser.param_groups[0]["lr"])

    def restore_state(self, state: TrainerState) -> None:
        """Restore a state, so that training continues exactly as if it had not stopped."""
        position = state.position
        self.step_count, self.epochs = position.step, list(position.epochs)
        self.totals.batch_count, self.totals.seconds = position.batches, position.seconds
        for part, known in self._collect_tensors().items():
            if part in ("model", "average", "sums"):
                for name, value in known.items():
                    value.copy_(parallel.shard_like(value, state.tensors[f"{part}/{name}"]))
        optimiser.restore_optimiser_state(self.train_step.optimiser, select_part("optimiser", state.tensors))
        if self.epochs:
            self.early_stopping.replay_epochs(self.epochs)
        self.early_stopping.best_weights = select_part("best", state.tensors)
        self._order_rng_state = state.tensors["random/order"]
        set_rng_states(select_part("random", state.tensors), self.train_step.device)

    def record_epoch(self, epoch: EpochMetrics) -> None:
        """Record an epoch, and keep its weights if they are the best; `DivergedError` when a loss is not finite."""
        if not math.isfinite(epoch.train_loss + epoch.validation_loss):
            losses = f"training loss {epoch.train_loss}, validation loss {epoch.validation_loss}"
            raise self._build_divergence_error(epoch.number, losses)
        self.early_stopping.record_epoch(epoch, self.train_step.evaluated_model)

    def _build_divergence_error(self, number: int, losses: str) -> DivergedError:
        return DivergedError(
            f"Training diverged in epoch {number}: {losses} after step {self.step_count}; "
            f"try a smaller optimiser.learning_rate than the {self.learning_rate:.3g} there, or clip_norm."
        )

    def _draw_order(self) -> torch.Tensor:
        """Draw the order of the running epoch; when it was restored, draw the same one again."""
        begun = bool(self.totals.batch_count)
        if not begun:
            self._order_rng_state = self._process_group.broadcast(torch.get_rng_state())
        if not begun and self._process_group.is_main:
            return loader.draw_order(self._splits.train, self.batch_size)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._order_rng_state)
            return loader.draw_order(self._splits.train, self.batch_size)

    def _freeze_garbage_collector(self) -> None:
        """Exclude all objects that exist after the first step from garbage collection: they live until the end."""
        if not self._gc_frozen:
            gc.collect()
            gc.freeze()
            self._gc_frozen = True

    def _finish_epoch(self, rate: float, started: float) -> EpochMetrics:
        """Evaluate, record the epoch, and prepare the next one."""
        tally, train, validation = self.totals, self._splits.train, self._splits.validation
        loss, hits, norm = (float(tally.sums[name]) for name in ("loss", "hits", "norm"))  # waits for the device
        training_seconds, target_count = time.perf_counter() - started, train.target_count
        score = evaluate_outputs(predict_outputs(self.train_step.evaluated_model, validation.inputs), validation)
        metric, value = score.main_metric
        epoch = self._broadcast_epoch(
            EpochMetrics(
                number=len(self.epochs) + 1,
                train_loss=loss / target_count,
                train_accuracy=hits / target_count,
                validation_loss=score.loss,
                validation_accuracy=value,
                learning_rate=rate,
                seconds=time.perf_counter() - started,
                metric=metric,
                gradient_norm=norm / tally.batch_count,
                examples_per_s=self.example_count / training_seconds,
                tokens_per_s=target_count / training_seconds if train.text else 0.0,
                mfu=self.train_step.mfu_meter.compute_mfu(self.example_count / training_seconds),
            )
        )
        self.epochs.append(epoch)
        self.totals = EpochTotals(self.train_step.device)
        return epoch

    def _broadcast_epoch(self, epoch: EpochMetrics) -> EpochMetrics:
        """Broadcast the main process's epoch: clocks and rounding differ, and all must stop after the same one."""
        if self._process_group.size == 1:
            return epoch
        return msgspec.msgpack.decode(
            self._process_group.broadcast_bytes(msgspec.msgpack.encode(epoch)), type=EpochMetrics
        )

    def _collect_tensors(self) -> dict[str, Tensors]:
        """Collect the tensors that the next step depends on, live."""
        average = self.train_step.average
        return {
            "model": self.train_step.model.state_dict(),
            "optimiser": optimiser.collect_state_tensors(self.train_step.optimiser),
            "average": average.model.state_dict() if average else {},
            "best": self.early_stopping.best_weights,
            "sums": self.totals.sums,
            "random": get_rng_states(self.train_step.device) | {"order": self._order_rng_state},
        }


class Checkpointer(Protocol):
    """Loads and saves a training's states: see `checkpoint_policy`."""

    def load_newest(self) -> TrainerState | None:
        """Load the state to resume from; None to start at the beginning."""

    def on_step_end(self, trainer: Trainer) -> None:
        """Act between two steps; may end the training by raising."""

    def save(self, trainer: Trainer) -> None:
        """Save now."""


class NoCheckpointer:
    """Saves nothing."""

    def load_newest(self) -> None:
        """Return None: there is nothing to resume from."""

    def on_step_end(self, trainer: Trainer) -> None:
        """Do nothing."""

    def save(self, trainer: Trainer) -> None:
        """Do nothing."""


def train_model(
    model: nn.Module,
    splits: Splits,
    recipe: Recipe,
    on_epoch: Callable[[EpochMetrics], None],
    checkpointer: Checkpointer | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> TrainingHistory:
    """Train the model in place, until the epochs are over or the validation loss has stopped falling.

    `DivergedError` as soon as a loss is not finite.
    """
    checkpointer = checkpointer or NoCheckpointer()
    with seed_torch(recipe.seed), limit_torch_threads(recipe.threads), unfreeze_gc_on_exit():
        trainer = Trainer(model, splits, recipe, process_group)
        if state := checkpointer.load_newest():
            trainer.restore_state(state)
        while not trainer.is_finished:
            epoch = trainer.run_epoch(checkpointer.on_step_end)
            on_epoch(epoch)
            trainer.record_epoch(epoch)
        checkpointer.save(trainer)
    return TrainingHistory(tuple(trainer.epochs), trainer.early_stopping.restore_best_weights(model))


def compute_learning_rates(recipe: Recipe, examples: int, epoch: int) -> Sequence[float]:
    """Compute the learning rate of each step of an epoch."""
    steps = len(loader.compute_batch_sizes(examples, loader.resolve_batch_size(recipe.batch_size, examples)))
    first, total, base = (epoch - 1) * steps, recipe.epochs * steps, recipe.optimiser.learning_rate
    return [base * schedule.compute_rate_factor(recipe.schedule, step, total) for step in range(first, first + steps)]


def predict_outputs(model: nn.Module, inputs: Inputs, batch_size: int | None = None) -> Array:
    """Predict outputs, (N, classes) or (N, T, tokens), for raw inputs like those of a `Dataset`, in evaluation mode.

    Unless a batch size is given, a batch has 1,024 targets, or one window of tokens.
    """
    model.eval()
    device, targets_per_example = get_model_device(model), inputs.shape[1] if inputs.dtype == np.int64 else 1
    size = batch_size or max(1, MAX_TARGETS_AT_ONCE // targets_per_example)
    with torch.inference_mode():
        batches = [model(batch.to(device)).cpu() for batch in split_inputs(inputs, size, device)]
    return np.concatenate([batch.numpy() for batch in batches])


def split_inputs(inputs: Inputs, batch_size: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Split raw inputs into batches, images into parts that fit in memory."""
    if isinstance(inputs, Pixels):
        values = VALUES_AT_ONCE if device.type == "cpu" else VALUES_ON_GPU
        return map(torch.from_numpy, iterate_chunks(inputs, values))
    return iter(torch.split(torch.from_numpy(inputs), batch_size))


@contextmanager
def seed_torch(seed: int) -> Iterator[None]:
    """Seed torch's random numbers inside, and leave the caller's own sequence untouched."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextmanager
def limit_torch_threads(count: int) -> Iterator[None]:
    """Limit torch to this many CPU threads inside.

    One is the recipes' default: torch's threads wait for each other by spinning, so that two on a machine with one CPU
    to spare took ten times as long as one, and even on two idle CPUs they saved a fifth on a model of digits' size.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def unfreeze_gc_on_exit() -> Iterator[None]:
    """Give what is frozen inside back to the garbage collector."""
    try:
        yield
    finally:
        gc.unfreeze()

"""One gradient step: forward, backward, clip, move, average. Nothing in it waits for a GPU.

Where several processes train together, each takes the same step on its share of the batch, and the results are those of
the whole batch.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.modules.batchnorm import _BatchNorm

from functions.train.data.dataset import Dataset
from functions.train.distributed import parallel
from functions.train.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from functions.train.training import loss as losses
from functions.train.training import optimiser as optimisers
from functions.train.training import precision
from functions.train.training.compiler import compile_function
from functions.train.training.device import get_model_device, get_process_device
from functions.train.training.mfu import MfuMeter
from pilotlight.recipes.schema import Recipe


@dataclass(frozen=True, eq=False)
class StepResult:
    """The results of a step, as scalars on the model's device: reading one waits for it."""

    loss: torch.Tensor
    hits: torch.Tensor  # what adds up to the metric: see `LossFunction.count_hits`
    gradient_norm: torch.Tensor  # of the gradient, before it was clipped


class ExponentialMovingAverage:
    """a = d a + (1 - d) w after each step t = 1, 2, ..., from a = w before the first.

    d = min(decay, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage, so that a short training is not
    dominated by its random start. Running statistics of a normalisation are averaged like weights; counters are copied.
    Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992.
    """

    def __init__(self, model: nn.Module, decay: float, model_copy: nn.Module | None = None) -> None:
        self.model = (model_copy or copy.deepcopy(model)).eval().requires_grad_(requires_grad=False)
        self._source, self._decay = model, decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after step `step`, from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        source = self._source.state_dict()
        for name, averaged in self.model.state_dict().items():
            if averaged.is_floating_point():
                averaged.lerp_(source[name], 1 - decay)
            else:
                averaged.copy_(source[name])


class TrainStep:
    """Moves a model's weights by a recipe: the model's own in a single process, a copy's otherwise."""

    def __init__(
        self, model: nn.Module, train: Dataset, recipe: Recipe, process_group: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.device = get_model_device(model) if process_group.size == 1 else get_process_device()
        strategy = parallel.choose_strategy(recipe.distributed.strategy, model, self.device)
        self.model = parallel.place_model(model, strategy, process_group, self.device)
        self._recipe, self._process_group = recipe, process_group
        self.optimiser = optimisers.build_optimiser(recipe.optimiser, self.model.parameters())
        self.average = self._build_average(model, strategy, recipe.ema) if recipe.ema is not None else None
        self._loss = losses.build_loss(recipe.loss, train, self.device)
        self._precision = precision.resolve_precision(recipe.precision, self.device)
        self._module = parallel.wrap_model(self.model, strategy, process_group, self.device)
        self._compiled_forward = (
            compile_function(self._forward_loss_and_hits) if recipe.compile else None
        )  # shares the weights
        self._compiled_shape: torch.Size | None = None  # the only shape that it is compiled for
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        self.mfu_meter = MfuMeter(
            model, lambda: torch.from_numpy(train.inputs[:1]), gpu, self._precision, process_group.size
        )

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is evaluated and published: the average, where there is one. Never the compiled one."""
        return self.average.model if self.average else self.model

    def take_step(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        learning_rate: float,
        step_number: int,
        examples: int | None = None,
    ) -> StepResult:
        """Take step `step_number`, from 1, at this learning rate, on this process's share of a batch of `examples`."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.zero_grad()
        loss, hits = self._accumulate_gradients(inputs, targets, examples or len(targets))
        norm = self._clip_gradients()
        self.optimiser.step()
        if self.average:
            self.average.update(step_number)
        return StepResult(loss, hits, norm)

    def _accumulate_gradients(
        self, inputs: torch.Tensor, targets: torch.Tensor, examples: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add up the gradients of the batch's parts, each by its share of the mean, so that they are the batch's.

        Batch normalisation alone sees a part and not the batch: see `describe_accumulation`.

        The processes' gradients are averaged, so each is multiplied by the number of processes.
        """
        processes = self._process_group.size
        count = count_accumulation_parts(self._recipe.accumulation, examples, processes)
        whole = self._total_weight(targets)
        loss, hits = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        divided = zip(inputs.tensor_split(count), targets.tensor_split(count), strict=True)
        for number, (part, target) in enumerate(divided, 1):
            with parallel.accumulate_gradients(self._module, is_last=number == count):
                mean, hit = self._compute_loss_and_hits(part, target)
                mean = mean * (self._loss.total_weight(target) / whole)
                (mean * processes if processes > 1 else mean).backward()  # type: ignore[no-untyped-call]  # torch's omission
            loss += mean.detach()
            hits += hit
        if examples < processes:  # a batch too small to share goes to every process whole
            hits = hits / processes
        return self._sum_over_processes(loss, hits)

    def _sum_over_processes(self, loss: torch.Tensor, hits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum loss and hits over all processes."""
        if self._process_group.size == 1:
            return loss, hits
        loss, hits = self._process_group.sum_over_ranks(torch.stack([loss, hits]))
        return loss, hits

    def _total_weight(self, targets: torch.Tensor) -> torch.Tensor | float:
        """Compute what the mean over the whole batch divides by."""
        weight = self._loss.total_weight(targets)
        if self._process_group.size == 1:
            return weight
        return self._process_group.sum_over_ranks(torch.as_tensor(weight, dtype=torch.float32, device=self.device))

    def _compute_loss_and_hits(self, part: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute loss and hits of a part, compiled for the first shape alone: for a last batch it does not pay."""
        self._compiled_shape = self._compiled_shape or part.shape
        forward = (
            self._compiled_forward
            if self._compiled_forward is not None and part.shape == self._compiled_shape
            else self._forward_loss_and_hits
        )
        return forward(part, target)

    def _forward_loss_and_hits(self, part: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute loss and hits together, so that the compiler need not keep the outputs in fp32 for either."""
        with precision.build_autocast(self._precision, self.device):
            outputs = self._module(part)
        return self._loss.compute_mean(outputs.float(), target), self._loss.count_hits(outputs.detach(), target)

    def _clip_gradients(self) -> torch.Tensor:
        """Clip the gradient to the length that the recipe allows, and return its length before.

        g *= min(1, c / |g|). Pascanu, Mikolov and Bengio, On the Difficulty of Training Recurrent Networks, 2013.
        """
        weights = [weight for weight in self.model.parameters() if weight.grad is not None]
        norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        if self._recipe.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(weights, self._recipe.clip_norm, norm)
        return parallel.gather_tensor(norm)

    def _build_average(self, model: nn.Module, strategy: parallel.Strategy, decay: float) -> ExponentialMovingAverage:
        """Build the average of the weights; sharded ones cannot be copied, and are sharded once more."""
        sliced = isinstance(self.model, FSDPModule)
        return ExponentialMovingAverage(
            self.model,
            decay,
            parallel.place_model(model, strategy, self._process_group, self.device) if sliced else None,
        )


def count_accumulation_parts(accumulation: int, examples: int, processes: int) -> int:
    """Count the parts in which each process works through its share: the same in all, each of two examples at least.

    A normalisation needs two.
    """
    return min(accumulation, max(1, max(examples // processes, 1) // 2))


def describe_accumulation(accumulation: int, model: nn.Module) -> str:
    """Describe where an accumulated step is not that of the whole batch; empty where it is."""
    if accumulation == 1 or not any(isinstance(part, _BatchNorm) for part in model.modules()):
        return ""
    return (
        f"accumulation={accumulation} with batch normalisation: each part of a batch is normalised by its own mean and "
        "variance, so that the steps differ from those of accumulation=1; all other layers give the same step"
    )

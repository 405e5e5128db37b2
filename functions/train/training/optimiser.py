"""The optimisers by their names in a recipe, each with its formula: w a weight, g its gradient, r the learning rate.

Weight decay d shrinks matrices and kernels, not biases and gains, which cannot overfit. In `adamw` it is decoupled: w
-= r d w, beside the step (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019). In all others it is
coupled, the gradient of a penalty d/2 |w|^2: g + d w takes the place of g. Where the step does not divide by the
gradient's own size (`gd`, `sgd`, `momentum`) that is L2 regularisation; where it does, weights with large gradients are
decayed less, so choose `adamw` when decay is what you want.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from functions.train.distributed import parallel
from pilotlight.recipes.schema import (
    AdagradOptions,
    AdamOptions,
    AdamwOptions,
    DescentOptions,
    MomentumOptions,
    OptimiserOptions,
    RmspropOptions,
)

ParameterGroups = list[dict[str, Any]]  # parameters with their weight decay, as torch's optimisers take them
EPSILON = 1e-8  # avoids division by zero; added to the root, as in the papers and in torch


class Momentum(torch.optim.Optimizer):
    """v = b v + (1 - b) g from v = 0; w -= r v: an average of gradients, so that b does not change the step's length.

    The exponentially weighted average of Kingma and Ba's first moment without its correction; Polyak, Some Methods of
    Speeding up the Convergence of Iteration Methods, 1964, has g for (1 - b) g. Not `torch.optim.SGD` with dampening b:
    that starts at v = g, and so takes a first step 1 / (1 - b) times as long.
    """

    def __init__(self, parameters: ParameterGroups, learning_rate: float, beta: float) -> None:
        super().__init__(parameters, {"lr": learning_rate, "beta": beta, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # torch's may call a closure; here none is passed
        """Take one step for every parameter that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update_weight(weight, weight.grad, group)

    def _update_weight(self, weight: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        if group["weight_decay"]:
            gradient = gradient.add(weight, alpha=group["weight_decay"])
        state = self.state[weight]
        if not state:
            state["velocity"] = torch.zeros_like(weight)
        state["velocity"].lerp_(gradient, 1 - group["beta"])  # v + (1 - b) (g - v)
        weight.sub_(state["velocity"], alpha=group["lr"])


def build_sgd(options: DescentOptions, parameters: ParameterGroups) -> torch.optim.Optimizer:
    """Step by w -= r g: gradient descent over the whole training set (`gd`), or over one batch of it (`sgd`).

    Cauchy, 1847; Robbins and Monro, A Stochastic Approximation Method, 1951.
    """
    return torch.optim.SGD(parameters, lr=options.learning_rate, fused=choose_fused(parameters))


def build_momentum(options: MomentumOptions, parameters: ParameterGroups) -> torch.optim.Optimizer:
    """Step along an average of gradients that starts at zero; see `Momentum`."""
    return Momentum(parameters, options.learning_rate, options.beta)


def build_adagrad(options: AdagradOptions, parameters: ParameterGroups) -> torch.optim.Optimizer:
    """Step by s += g^2; w -= r g / (sqrt(s) + 1e-8).

    Duchi, Hazan and Singer, Adaptive Subgradient Methods for Online Learning and Stochastic Optimization, 2011.
    """
    return torch.optim.Adagrad(parameters, lr=options.learning_rate, eps=EPSILON, fused=choose_fused(parameters))


def build_rmsprop(options: RmspropOptions, parameters: ParameterGroups) -> torch.optim.Optimizer:
    """Step by v = p v + (1 - p) g^2; w -= r g / (sqrt(v) + 1e-8).

    Tieleman and Hinton, Neural Networks for Machine Learning, lecture 6.5, 2012. torch has no fused one.
    """
    return torch.optim.RMSprop(parameters, lr=options.learning_rate, alpha=options.rho, eps=EPSILON)


def build_adam(options: AdamOptions, parameters: ParameterGroups) -> torch.optim.Optimizer:
    """Step by m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w -= r m' / (sqrt(v') + 1e-8).

    The dashes mean corrected for the start at zero: m' = m / (1 - b1^t), v' = v / (1 - b2^t) at step t from 1. Kingma
    and Ba, Adam: A Method for Stochastic Optimization, 2015, algorithm 1.
    """
    return torch.optim.Adam(
        parameters, lr=options.learning_rate, betas=options.betas, eps=EPSILON, fused=choose_fused(parameters)
    )


def build_adamw(options: AdamwOptions, parameters: ParameterGroups) -> torch.optim.Optimizer:
    """Step by Adam after w -= r d w. Loshchilov and Hutter, 2019, algorithm 2, with the schedule inside r."""
    return torch.optim.AdamW(
        parameters, lr=options.learning_rate, betas=options.betas, eps=EPSILON, fused=choose_fused(parameters)
    )


# Each takes the options of its own name, by which the recipe discriminates them.
OPTIMISERS: Mapping[str, Callable[[Any, ParameterGroups], torch.optim.Optimizer]] = {
    "gd": build_sgd,
    "sgd": build_sgd,
    "momentum": build_momentum,
    "adagrad": build_adagrad,
    "rmsprop": build_rmsprop,
    "adam": build_adam,
    "adamw": build_adamw,
}


def build_optimiser(options: OptimiserOptions, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimiser of a recipe over these parameters."""
    return OPTIMISERS[options.name](options, group_parameters(parameters, options.weight_decay))


def group_parameters(parameters: Iterable[nn.Parameter], decay: float) -> ParameterGroups:
    """Group the parameters into those that decay, and those that do not."""
    weights = list(parameters)
    decayed, rest = ([weight for weight in weights if (weight.ndim > 1) is matrix] for matrix in (True, False))
    shares: ParameterGroups = [{"params": decayed, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return [share for share in shares if share["params"]]


def choose_fused(parameters: ParameterGroups) -> bool | None:
    """Choose whether to step all weights in one kernel: on a GPU. None leaves the choice to torch, as on a CPU."""
    return all(weight.is_cuda for group in parameters for weight in group["params"]) or None


def collect_state_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Collect the state of an optimiser, live, as `number of the parameter/name`. All of it is tensors."""
    states = optimiser.state_dict()["state"].items()
    return {
        f"{number}/{name}": value
        for number, state in states
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def restore_optimiser_state(optimiser: torch.optim.Optimizer, state_tensors: Mapping[str, torch.Tensor]) -> None:
    """Restore the state of an optimiser over the same parameters from what `collect_state_tensors` returned."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    for path, value in state_tensors.items():
        number, name = path.split("/")
        state.setdefault(int(number), {})[name] = parallel.shard_like(weights[int(number)], value)
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})

"""Batch normalisation over a batch that several processes share.

torch's SyncBatchNorm runs on GPUs only; this one is short, the same on every device, and tested without a GPU. Mean and
variance are those of the whole batch, and so is the gradient through them: the model is the one that a single process
would have trained. It costs two small sums over all processes in each layer and direction.
"""

from typing import Any

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class AllReduceSum(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's context has no type
        """Sum the values."""
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        """Sum the gradients: every process's loss depends on every process's value."""
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


class SyncBatchNorm(_BatchNorm):
    """BatchNorm1d, 2d or 3d with the statistics of all processes in training; in evaluation it is theirs."""

    def _check_input_dim(self, values: torch.Tensor) -> None:
        """Accept any number of dimensions."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Normalise (n, C, ...) to the same shape; n may differ between processes."""
        if not self.training:
            return super().forward(values)
        axes, shape = [0, *range(2, values.ndim)], (1, -1, *[1] * (values.ndim - 2))
        exact = values.float()
        here = torch.full((1,), values.numel() / values.shape[1], device=values.device)
        sums = all_reduce_sum(torch.cat([exact.sum(axes), here]))
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = exact - mean.view(shape)
        variance = all_reduce_sum((centred * centred).sum(axes)) / count
        self._update_running_statistics(mean.detach(), variance.detach(), count)
        scaled = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(values.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: torch.Tensor, variance: torch.Tensor, count: torch.Tensor) -> None:
        """Update the running statistics as torch does: the variance over n - 1."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean += share * (mean - self.running_mean)
        self.running_var += share * (variance * count / (count - 1) - self.running_var)


def all_reduce_sum(value: torch.Tensor) -> torch.Tensor:
    """Sum over all processes, with its gradient."""
    result: torch.Tensor = AllReduceSum.apply(value)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return result


def convert_sync_batch_norm(model: nn.Module) -> nn.Module:
    """Replace the model's batch normalisations by ones over all processes, with the same weights and names."""
    for name, part in list(model.named_modules()):
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, to_sync_batch_norm(part))
    return model


def to_sync_batch_norm(layer: _BatchNorm) -> SyncBatchNorm:
    """Build a `SyncBatchNorm` with a layer's own parameters and statistics."""
    new = SyncBatchNorm(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    new._parameters, new._buffers = layer._parameters, layer._buffers  # shares the tensors, does not copy them
    return new.train(layer.training)

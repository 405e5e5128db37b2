"""The interface of a training set that does not fit in memory, and is read anew in each pass."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from functions.train.data.statistics import DatasetStatistics, Moments

if TYPE_CHECKING:  # takes seconds
    import torch

MiniBatch: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"  # inputs and targets


class Passes(Protocol):
    """A training set that does not fit in memory: each pass reads it anew. `StreamedDataset` implements it."""

    @property
    def statistics(self) -> DatasetStatistics:
        """The statistics of the set that a model needs."""

    def __len__(self) -> int:
        """Return how many examples a pass has."""

    def scale_targets(self, target_moments: Moments) -> "Passes":
        """Scale targets that are numbers to mean 0 and variance 1."""

    def draw_order(self) -> "torch.Tensor":
        """Draw what determines the order of a pass from torch's random numbers."""

    def iterate_batches(self, order: "torch.Tensor", sizes: Sequence[int], start: int) -> Iterator[MiniBatch]:
        """Iterate over batches of these sizes from example number `start` on: the same ones for the same order."""

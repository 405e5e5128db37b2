"""A training set that does not fit in memory: shards that every pass reads anew, the next one in the background.

The first pass, before the training, computes the means, deviations and classes, and holds the examples of validation,
test and calibration. The set of an example depends on a hash of the seed and of its number in the whole data set, with
the files in the order of their names: the same files give the same sets. In a pass the shards are in random order, and
`buffer` examples at a time are shuffled among each other. The position in a pass is the number of an example, so that a
killed run resumes at the exact batch, and reads only the buffer at that position again.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from functions.train.data import Array
from functions.train.data.passes import MiniBatch
from functions.train.data.shards import Shard, TargetEncoding, assign_splits, load_shard
from functions.train.data.statistics import DatasetStatistics, Moments
from pilotlight.recipes.data_schema import UserDataOptions

ExampleBlock = tuple[Array, Array]  # inputs and answers, of the same length


@dataclass(frozen=True, eq=False)
class StreamedDataset:
    """The training examples of a sequence of shards."""

    shards: tuple[Shard, ...]
    options: UserDataOptions
    kept_columns: Array  # the indices of those that are kept
    target_encoding: TargetEncoding
    statistics: DatasetStatistics
    target_moments: Moments | None = None  # that numbers are scaled by

    def __len__(self) -> int:
        return sum(shard.training_count for shard in self.shards)

    def scale_targets(self, target_moments: Moments) -> "StreamedDataset":
        """Scale targets that are numbers to mean 0 and variance 1."""
        return replace(self, target_moments=target_moments)

    def draw_order(self) -> torch.Tensor:
        """Draw a seed for the buffer, then the order of the shards, from torch's random numbers."""
        return torch.cat([torch.randint(2**62, (1,)), torch.randperm(len(self.shards))])

    def iterate_batches(self, order: torch.Tensor, sizes: Iterable[int], start: int) -> Iterator[MiniBatch]:
        """Iterate over batches of these sizes, from example number `start` of the pass on."""
        seed, *turn = order.tolist()
        begun, inside = divmod(start, self.options.buffer)
        rows = self._read_training_blocks([self.shards[number] for number in turn], begun * self.options.buffer)
        blocks = enumerate(rechunk_rows(rows, itertools.repeat(self.options.buffer)), begun)
        mixed = (shuffle_block(block, seed, number) for number, block in blocks)
        for inputs, targets in rechunk_rows(skip_first_rows(mixed, inside), sizes):
            yield torch.from_numpy(inputs), torch.from_numpy(self._convert_targets(targets))

    def _read_training_blocks(self, shards: Sequence[Shard], skip_count: int) -> Iterator[ExampleBlock]:
        """Read the training examples but the first `skip_count`; a shard that is skipped whole is not read."""
        left = list(shards)
        while left and skip_count >= left[0].training_count:
            skip_count -= left.pop(0).training_count
        for inputs, answers in prefetch_shards(left, self.options):
            yield inputs[skip_count:, self.kept_columns], self.target_encoding.encode_targets(answers[skip_count:])
            skip_count = 0

    def _convert_targets(self, targets: Array) -> Array:
        if self.target_encoding.classes:
            return targets.astype(np.int64)
        numbers = targets.astype(np.float32)[:, None]
        return (
            numbers
            if self.target_moments is None
            else ((numbers - self.target_moments.mean) / self.target_moments.deviation).astype(np.float32)
        )


def prefetch_shards(shards: Sequence[Shard], options: UserDataOptions) -> Iterator[ExampleBlock]:
    """Read the training examples of each shard, while the next one is being read in the background."""
    with ThreadPoolExecutor(1, thread_name_prefix="pilotlight-shard") as pool:
        waiting = pool.submit(read_training_block, shards[0], options) if shards else None
        for following in [*shards[1:], None]:
            if waiting is None:
                return
            rows = waiting.result()
            waiting = None if following is None else pool.submit(read_training_block, following, options)
            yield rows
            del rows  # otherwise two shards and the next one would be in memory at the same time


def read_training_block(shard: Shard, options: UserDataOptions) -> ExampleBlock:
    """Read the training examples of a shard."""
    read = load_shard(shard, options)
    chosen = (assign_splits(shard.first_example, read.row_count, options)[read.kept_rows] == 0).nonzero()[0]
    return read.inputs[chosen], read.targets[chosen]


def shuffle_block(block: ExampleBlock, seed: int, block_number: int) -> ExampleBlock:
    """Shuffle the rows of a block in an order that depends on the seed and its number alone."""
    permutation = np.random.default_rng([seed, block_number]).permutation(len(block[1]))
    return block[0][permutation], block[1][permutation]


def skip_first_rows(blocks: Iterable[ExampleBlock], skip_count: int) -> Iterator[ExampleBlock]:
    """Skip the first rows of the first block."""
    for inputs, answers in blocks:
        yield inputs[skip_count:], answers[skip_count:]
        skip_count = 0


def rechunk_rows(blocks: Iterable[ExampleBlock], sizes: Iterable[int]) -> Iterator[ExampleBlock]:
    """Cut the rows into chunks of these sizes, whatever the blocks' sizes are; the remainder is the last chunk."""
    held, count, wanted = list[ExampleBlock](), 0, iter(sizes)
    size = next(wanted, None)
    for part in blocks:
        held.append(part)
        count += len(part[1])
        if size is None or count < size:
            continue
        (inputs, answers), begin = join_blocks(held), 0
        while size is not None and count >= size:
            yield inputs[begin : begin + size], answers[begin : begin + size]
            begin, count, size = begin + size, count - size, next(wanted, None)
        held = [(inputs[begin:].copy(), answers[begin:].copy())]
        del inputs, answers
    if count:
        yield join_blocks(held)


def join_blocks(blocks: Sequence[ExampleBlock]) -> ExampleBlock:
    """Concatenate the rows of the blocks."""
    inputs, answers = zip(*blocks, strict=True)
    return (inputs[0], answers[0]) if len(blocks) == 1 else (np.concatenate(inputs), np.concatenate(answers))

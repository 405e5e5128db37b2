"""A training set that does not fit in memory: shards that every pass reads anew, the next one while this one is used.

The first pass, before the training, takes the means, deviations and classes, and holds validation, test and calibration
examples. Which set an example is in hangs on a hash of the seed and of its number in the whole data set, the files in
the order of their names: the same files give the same sets. In a pass the shards come in a drawn order, and `buffer`
examples at a time are shuffled among each other. Where a pass stands is its example's number, so that a killed run goes
on at the exact batch, and reads again what is in the buffer there, no more.

It knows files and arrays, no model and no step.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from functions.train.data.loader import Batch
from functions.train.data.shards import Answers, Shard, load, parts
from functions.train.data.statistics import Moments, Profile
from pilotlight.recipes.options.data import OwnOptions

Array = np.ndarray[Any, Any]
Rows = tuple[Array, Array]  # inputs and answers, of the same length


@dataclass(frozen=True, eq=False)
class Stream:
    """The training examples of a row of shards: what `batches.Passes` asks for."""

    shards: tuple[Shard, ...]
    options: OwnOptions
    columns: Array  # the indices of those that are kept
    answers: Answers
    profile: Profile
    unit: Moments | None = None  # that numbers are scaled by

    def __len__(self) -> int:
        return sum(shard.training for shard in self.shards)

    def scaled(self, unit: Moments) -> "Stream":
        """The same with answers, which are numbers, of mean 0 and variance 1."""
        return replace(self, unit=unit)

    def order(self) -> torch.Tensor:
        """A seed for the buffer, then the order of the shards, drawn from torch's random numbers."""
        return torch.cat([torch.randint(2**62, (1,)), torch.randperm(len(self.shards))])

    def batches(self, order: torch.Tensor, sizes: Iterable[int], start: int) -> Iterator[Batch]:
        """Batches of these sizes, from example number `start` of the pass on."""
        seed, *turn = order.tolist()
        begun, inside = divmod(start, self.options.buffer)
        rows = self._rows([self.shards[number] for number in turn], begun * self.options.buffer)
        blocks = enumerate(cut(rows, itertools.repeat(self.options.buffer)), begun)
        mixed = (shuffled(block, seed, number) for number, block in blocks)
        for inputs, answers in cut(without(mixed, inside), sizes):
            yield torch.from_numpy(inputs), torch.from_numpy(self._targets(answers))

    def _rows(self, shards: Sequence[Shard], skipped: int) -> Iterator[Rows]:
        """The training examples of the shards, but for the first ones, whose shards are not read at all."""
        left = list(shards)
        while left and skipped >= left[0].training:
            skipped -= left.pop(0).training
        for inputs, answers in ahead(left, self.options):
            yield inputs[skipped:, self.columns], self.answers.understood(answers[skipped:])
            skipped = 0

    def _targets(self, answers: Array) -> Array:
        if self.answers.classes:
            return answers.astype(np.int64)
        numbers = answers.astype(np.float32)[:, None]
        return numbers if self.unit is None else ((numbers - self.unit.mean) / self.unit.deviation).astype(np.float32)


def ahead(shards: Sequence[Shard], options: OwnOptions) -> Iterator[Rows]:
    """The training examples of each shard, while the next one is being read in the background."""
    with ThreadPoolExecutor(1, thread_name_prefix="pilotlight-shard") as pool:
        waiting = pool.submit(training, shards[0], options) if shards else None
        for following in [*shards[1:], None]:
            if waiting is None:
                return
            rows = waiting.result()
            waiting = None if following is None else pool.submit(training, following, options)
            yield rows
            del rows  # otherwise two shards and the next one would be in memory at the same time


def training(shard: Shard, options: OwnOptions) -> Rows:
    """The training examples of a shard."""
    read = load(shard, options)
    chosen = (parts(shard.first, read.rows, options)[read.kept] == 0).nonzero()[0]
    return read.inputs[chosen], read.answers[chosen]


def shuffled(block: Rows, seed: int, number: int) -> Rows:
    """The rows of a block in an order that hangs on the seed and its number alone."""
    turn = np.random.default_rng([seed, number]).permutation(len(block[1]))
    return block[0][turn], block[1][turn]


def without(blocks: Iterable[Rows], skipped: int) -> Iterator[Rows]:
    """The blocks, but for the first rows of the first one."""
    for inputs, answers in blocks:
        yield inputs[skipped:], answers[skipped:]
        skipped = 0


def cut(rows: Iterable[Rows], sizes: Iterable[int]) -> Iterator[Rows]:
    """The rows in pieces of these sizes, however many came at once; what is left at the end is the last piece."""
    held, count, wanted = list[Rows](), 0, iter(sizes)
    size = next(wanted, None)
    for part in rows:
        held.append(part)
        count += len(part[1])
        if size is None or count < size:
            continue
        (inputs, answers), begin = joined(held), 0
        while size is not None and count >= size:
            yield inputs[begin : begin + size], answers[begin : begin + size]
            begin, count, size = begin + size, count - size, next(wanted, None)
        held = [(inputs[begin:].copy(), answers[begin:].copy())]
        del inputs, answers
    if count:
        yield joined(held)


def joined(held: Sequence[Rows]) -> Rows:
    """The rows in one piece."""
    inputs, answers = zip(*held, strict=True)
    return (inputs[0], answers[0]) if len(held) == 1 else (np.concatenate(inputs), np.concatenate(answers))

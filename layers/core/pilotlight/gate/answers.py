"""What the gate keeps of a model's answers to a test set: a few numbers for each example, whatever it answers.

The probe reduces each batch of outputs to these, so that the gate's memory does not grow with the number of classes or
tokens. Plain numpy, because torch and scikit-learn are not installed where the gate runs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from pilotlight.contracts.metric import TOP_COUNTS
from pilotlight.runtime.datatypes import Array

MAX_ODDS = 1 << 22  # log-odds that are kept for the area under the curve, 16 MB
CHUNK_VALUES = 1 << 20  # outputs that are converted to float64 at once, 8 MB


def create_empty() -> Array:
    """Create the array of what the outputs are not."""
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class AnswerStatistics:
    """The reduced answers. Arrays of what the outputs are not, classes or numbers, are empty."""

    finite: Array  # bool (N,): whether all of an example's outputs are finite
    shape: Array  # of one example's output
    predicted: Array = field(default_factory=create_empty)  # int32 like the targets: the most probable class
    losses: Array = field(
        default_factory=create_empty
    )  # float64 (N,): the mean of log(sum(exp(z))) - z[target], in nats
    top_shares: Array = field(
        default_factory=create_empty
    )  # float64 (N, 3): the share of targets among the 3, 5 and 10 most probable
    odds: Array = field(
        default_factory=create_empty
    )  # float32 (N, classes): log-odds of each class; of some examples where there are many
    numbers: Array = field(default_factory=create_empty)  # float64 (N,): the one number of each example

    def save(self, path: Path) -> None:
        """Write the arrays into an npz file."""
        with path.open("wb") as target:
            np.savez(target, allow_pickle=False, **{each.name: getattr(self, each.name) for each in fields(self)})


def load_statistics(path: Path) -> AnswerStatistics:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as held:
        return AnswerStatistics(**{each.name: held[each.name] for each in fields(AnswerStatistics)})


@dataclass(frozen=True, eq=False)
class EvaluationOutputs:
    """A model's answers to a test set, and the targets; the first dimension is the example."""

    outputs: Array  # logits (N, C) or (N, T, C), or numbers (N, 1); empty where only a part was kept
    targets: Array  # int (N,) or (N, T), or float (N, 1)
    kept: AnswerStatistics | None = None

    @cached_property
    def statistics(self) -> AnswerStatistics:
        """The reduced answers."""
        return reduce_answers([self.outputs], self.targets) if self.kept is None else self.kept

    @property
    def correct_share(self) -> Array:
        """The share of right answers in each example, (N,)."""
        return share_of_each(self.statistics.predicted == self.targets)


def reduce_answers(batches: Iterable[Array], targets: Array | None) -> AnswerStatistics:
    """Reduce batches of outputs, in the order of the targets; without targets only whether they are finite is kept."""
    parts, start = list[AnswerStatistics](), 0
    total = 0 if targets is None else len(targets)
    for outputs in batches:
        targets = targets if targets is not None and has_scores_of(outputs, targets) else None
        right = None if targets is None else targets[start : start + len(outputs)]
        parts.append(reduce_batch(outputs, right, choose_odds_rows(start, len(outputs), total, outputs.shape[1:])))
        start += len(outputs)
    return AnswerStatistics(
        **{
            each.name: parts[0].shape if each.name == "shape" else join_arrays(getattr(p, each.name) for p in parts)
            for each in fields(AnswerStatistics)
        }
    )


def has_scores_of(outputs: Array, targets: Array) -> bool:
    """Return whether the outputs have a score for each class of the targets; True where these are no classes."""
    is_class = outputs.ndim == targets.ndim + 1 and np.issubdtype(targets.dtype, np.integer)
    return not is_class or int(targets.max(initial=0)) < outputs.shape[-1]


def join_arrays(arrays: Iterable[Array]) -> Array:
    """Join the arrays of all batches."""
    return np.concatenate(list(arrays))


def choose_odds_rows(start: int, count: int, total: int, shape: tuple[int, ...]) -> Array:
    """Choose the rows of a batch whose log-odds are kept."""
    step = compute_odds_step(total, shape[-1] if shape else 1)
    return np.arange(-start % step, count, step)


def compute_odds_step(examples: int, classes: int) -> int:
    """Compute every how manieth example's log-odds are kept, so that there are MAX_ODDS at most."""
    return max(1, -(-examples * classes // MAX_ODDS))


def reduce_batch(outputs: Array, targets: Array | None, odds_rows: Array) -> AnswerStatistics:
    """Reduce one batch."""
    numeric = np.issubdtype(outputs.dtype, np.number)
    finite = np.asarray(np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)) if numeric else find_all(outputs)
    shape = np.array(outputs.shape[1:], np.int64)
    if targets is None or not numeric:
        return AnswerStatistics(finite, shape)
    if outputs.ndim == targets.ndim + 1 and np.issubdtype(targets.dtype, np.integer):
        losses, shares = measure_classes(outputs, targets)
        predicted = outputs.argmax(axis=-1).astype(np.int32)
        odds = compute_log_odds(outputs[odds_rows]) if outputs.ndim == 2 else create_empty()
        return AnswerStatistics(finite, shape, predicted, losses, shares, odds)
    if outputs.size == len(outputs):
        return AnswerStatistics(finite, shape, numbers=outputs.reshape(len(outputs)).astype(np.float64))
    return AnswerStatistics(finite, shape)


def find_all(outputs: Array) -> Array:
    """Return that each example is finite: its outputs are texts."""
    return np.ones(len(outputs), bool)


def measure_classes(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Measure each example's loss (N,), and its shares of targets among the most probable classes (N, 3)."""
    rows, labels = outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1)
    step = max(1, CHUNK_VALUES // max(1, rows.shape[1]))
    losses, ranks = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
    for start in range(0, len(rows), step):
        some = slice(start, start + step)
        shifted = rows[some].astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        chosen = np.take_along_axis(shifted, labels[some, None], axis=1)
        ranks[some] = count_ahead(shifted, chosen, labels[some])
        losses[some] = np.log(np.exp(shifted).sum(axis=1)) - chosen[:, 0]
    inside = [share_of_each((ranks < count).reshape(targets.shape)) for count in TOP_COUNTS]
    return losses.reshape(len(targets), -1).mean(axis=1), np.stack(inside, axis=1)


def count_ahead(rows: Array, chosen: Array, labels: Array) -> Array:
    """Count the classes that come before the right one, (n,): of equal scores the first comes first, and NaN last."""
    ahead = ~(rows < chosen)
    ahead &= (rows != chosen) | (np.arange(rows.shape[1]) < labels[:, None])
    return np.asarray(ahead.sum(axis=1))


def compute_log_odds(rows: Array) -> Array:
    """Compute log(p / (1 - p)) of each class from logits (n, classes), float32."""
    shifted = rows.astype(np.float64) - rows.max(axis=1, keepdims=True)
    shares = np.exp(shifted)
    largest = shares.argmax(axis=1)[:, None]
    others = shares.sum(axis=1, keepdims=True) - shares
    np.put_along_axis(shares, largest, 0, axis=1)
    np.put_along_axis(others, largest, shares.sum(axis=1, keepdims=True), axis=1)  # exact where it is nearly sure
    odds = shifted - np.log(np.maximum(others, np.finfo(np.float64).tiny))
    return np.asarray(odds, np.float32)


def share_of_each(hits: Array) -> Array:
    """Return the share of true values in each example, (N,)."""
    return np.asarray(hits.reshape(len(hits), -1).mean(axis=1))

"""The n-gram model that a language model has to beat: Kneser-Ney, interpolated, with three discounts per order.

Chen and Goodman, An Empirical Study of Smoothing Techniques for Language Modeling, 1999, section 4.1.6 ("modified
Kneser-Ney"), the strongest of the classical ones. Everything in it, its discounts too, comes from the training tokens;
nothing is tuned on what it is scored on.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.split import Splits

ORDER = 5  # longer ones gain less than 0.003 nats per token on Python's help
Gram = tuple[int, ...]


class Guessed(Struct, frozen=True):
    """How well a set was guessed."""

    loss: float  # nats per token
    bits_per_byte: float


class Baseline(Struct, frozen=True):
    """What a language model has to beat: the n-gram model on the same tokens."""

    name: str
    validation: Guessed
    test: Guessed

    def __str__(self) -> str:
        return f"{self.name}: loss {self.validation.loss:.4f} in validation, {self.test.loss:.4f} in test"


def baseline(splits: Splits, order: int = ORDER) -> Baseline | None:
    """An n-gram model of the training text, on the other two; None where there is no text."""
    if splits.train.text is None:
        return None
    model = KneserNey(splits.train.text.tokens, splits.train.output_size, order)
    return Baseline(str(model), guessed(model, splits.validation), guessed(model, splits.test))


def guessed(model: "KneserNey", data: Dataset) -> Guessed:
    """How well a model guesses the tokens that a language model is asked for; it may look back as far as it can."""
    if data.text is None:
        raise ValueError("There is no text to guess.")
    losses = model.losses(data.text.tokens)[: data.targets.size]
    return Guessed(
        float(losses.mean()), float(losses.sum() / np.log(2) / data.text.tokenizer.byte_lengths[data.targets].sum())
    )


@dataclass(frozen=True)
class Level:
    """The n-grams of one length: what is left of each count after its discount, and what its context gives away."""

    kept: Mapping[Gram, float]  # (c(h w) - D) / c(h), by h w
    given: Mapping[Gram, float]  # the weight of the shorter context after h, by h

    @classmethod
    def of(cls, counts: Mapping[Gram, int]) -> "Level":
        """From the counts of n-grams of one length."""
        discount, totals, given = discounts(counts.values()), Counter[Gram](), defaultdict[Gram, float](float)
        for gram, count in counts.items():
            totals[gram[:-1]] += count
            given[gram[:-1]] += discount[min(count, 3)]
        kept = {gram: (count - discount[min(count, 3)]) / totals[gram[:-1]] for gram, count in counts.items()}
        return cls(kept, {context: mass / totals[context] for context, mass in given.items()})


class KneserNey:
    """An n-gram model of a stream of tokens."""

    def __init__(self, tokens: Array, vocabulary: int, order: int) -> None:
        self.order, self._vocabulary = order, vocabulary
        self._levels = [Level.of(counts) for counts in counted(tokens.tolist(), order)]

    def __str__(self) -> str:
        return f"interpolated modified Kneser-Ney of order {self.order}"

    def losses(self, tokens: Array) -> Array:
        """-ln p of each token but the first, (len(tokens) - 1,) float64, given all that stands before it."""
        stream = tokens.tolist()
        starts = (max(0, end - self.order) for end in range(2, len(stream) + 1))
        grams = (tuple(stream[start:end]) for end, start in enumerate(starts, 2))
        return -np.log([self.probability(gram) for gram in grams])

    def probability(self, gram: Gram) -> float:
        """p(last token | those before it): from evenly, over each longer context that is known, to the longest."""
        chance = 1 / self._vocabulary
        for length, level in enumerate(self._levels[: len(gram)], 1):
            end = gram[len(gram) - length :]
            chance = level.kept.get(end, 0.0) + level.given.get(end[:-1], 1.0) * chance
        return chance


def counted(stream: list[int], order: int) -> list[Mapping[Gram, int]]:
    """For each length up to `order`, how often an n-gram occurs; below the longest, after how many different tokens."""
    every = [Counter(zip(*(stream[start:] for start in range(length)), strict=False)) for length in range(1, order + 1)]
    return [*(Counter(gram[1:] for gram in longer) for longer in every[1:]), every[-1]]


def discounts(counts: Iterable[int]) -> tuple[float, float, float, float]:
    """What is taken from a count of 0, 1, 2, and 3 or more: D_k = k - (k + 1) Y n_(k+1) / n_k, Y = n_1 / (n_1 + 2 n_2).

    n_k counts the n-grams that occur k times, one at least, so that a short text has discounts too.
    """
    many = Counter(counts)
    n1, n2, n3, n4 = (max(1, many[times]) for times in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    one, two, three = (min(max(value, 0.1), times) for times, value in enumerate(found, 1))
    return 0.0, one, two, three

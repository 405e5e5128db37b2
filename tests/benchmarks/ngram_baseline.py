"""The n-gram model that a language model has to beat: `python -m tests.benchmarks.ngram_baseline`.

Kneser-Ney, interpolated, with three discounts per order. Its score is recorded beside the built-in recipe `topics-lm`,
as `topics-lm.baseline.json`, and the report of a version shows it.

Chen and Goodman, An Empirical Study of Smoothing Techniques for Language Modeling, 1999, section 4.1.6 ("modified
Kneser-Ney"), the strongest of the classical ones. Everything in it, its discounts too, comes from the training tokens;
nothing is tuned on what it is scored on.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from functions.train.data import Array
from functions.train.data.dataset import Dataset
from functions.train.data.load import load_splits
from functions.train.data.split import Splits
from functions.train.evaluation.quantization_report import Baseline, BaselineScore
from pilotlight.recipes.schema import load_recipe

ORDER = 5  # longer ones gain less than 0.003 nats per token on Python's help
Gram = tuple[int, ...]


def main() -> None:
    """Print the baseline of the language model recipe as JSON, to be recorded beside the recipe."""
    baseline = measure_baseline(load_splits(load_recipe("topics-lm").data))
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(baseline), indent=2).decode() + "\n")


def measure_baseline(splits: Splits, order: int = ORDER) -> Baseline:
    """Learn an n-gram model from the training text, and score it on the other two sets."""
    if splits.train.text is None:
        raise ValueError("The data set is no text.")
    model = KneserNey(splits.train.text.tokens, splits.train.output_size, order)
    return Baseline(str(model), score_ngram_model(model, splits.validation), score_ngram_model(model, splits.test))


def score_ngram_model(model: "KneserNey", data: Dataset) -> BaselineScore:
    """Score the tokens that a language model predicts; the context may begin before a window does."""
    if data.text is None:
        raise ValueError("The data set is no text.")
    losses = model.compute_losses(data.text.tokens)[: data.targets.size]
    text_bytes = data.text.tokenizer.byte_lengths[data.targets].sum()
    return BaselineScore(float(losses.mean()), float(losses.sum() / np.log(2) / text_bytes))


@dataclass(frozen=True)
class NgramLevel:
    """The n-grams of one length: what is left of each count after its discount, and what its context gives away."""

    kept: Mapping[Gram, float]  # (c(h w) - D) / c(h), by h w
    given: Mapping[Gram, float]  # the weight of the shorter context after h, by h

    @classmethod
    def from_counts(cls, counts: Mapping[Gram, int]) -> "NgramLevel":
        """Build a level from the counts of n-grams of one length."""
        discount, totals, given = compute_discounts(counts.values()), Counter[Gram](), defaultdict[Gram, float](float)
        for gram, count in counts.items():
            totals[gram[:-1]] += count
            given[gram[:-1]] += discount[min(count, 3)]
        kept = {gram: (count - discount[min(count, 3)]) / totals[gram[:-1]] for gram, count in counts.items()}
        return cls(kept, {context: mass / totals[context] for context, mass in given.items()})


class KneserNey:
    """An n-gram model of a stream of tokens."""

    def __init__(self, tokens: Array, vocabulary: int, order: int) -> None:
        self.order, self._vocabulary = order, vocabulary
        self._levels = [NgramLevel.from_counts(counts) for counts in count_ngrams(tokens.tolist(), order)]

    def __str__(self) -> str:
        return f"interpolated modified Kneser-Ney of order {self.order}"

    def compute_losses(self, tokens: Array) -> Array:
        """Compute -ln p of each token but the first, (len(tokens) - 1,) float64, given all tokens before it."""
        stream = tokens.tolist()
        starts = (max(0, end - self.order) for end in range(2, len(stream) + 1))
        grams = (tuple(stream[start:end]) for end, start in enumerate(starts, 2))
        return -np.log([self.compute_probability(gram) for gram in grams])

    def compute_probability(self, gram: Gram) -> float:
        """Interpolate p(last token | those before it) from the uniform distribution up to the longest known context."""
        chance = 1 / self._vocabulary
        for length, level in enumerate(self._levels[: len(gram)], 1):
            end = gram[len(gram) - length :]
            chance = level.kept.get(end, 0.0) + level.given.get(end[:-1], 1.0) * chance
        return chance


def count_ngrams(stream: list[int], order: int) -> list[Mapping[Gram, int]]:
    """Count the n-grams of each length up to `order`; below the longest, the different tokens that each follows."""
    every = [Counter(zip(*(stream[start:] for start in range(length)), strict=False)) for length in range(1, order + 1)]
    return [*(Counter(gram[1:] for gram in longer) for longer in every[1:]), every[-1]]


def compute_discounts(counts: Iterable[int]) -> tuple[float, float, float, float]:
    """Compute the discounts of counts of 0, 1, 2, and 3 or more.

    D_k = k - (k + 1) Y n_(k+1) / n_k, with Y = n_1 / (n_1 + 2 n_2).
    n_k counts the n-grams that occur k times, one at least, so that a short text has discounts too.
    """
    many = Counter(counts)
    n1, n2, n3, n4 = (max(1, many[times]) for times in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    one, two, three = (min(max(value, 0.1), times) for times, value in enumerate(found, 1))
    return 0.0, one, two, three


if __name__ == "__main__":
    main()

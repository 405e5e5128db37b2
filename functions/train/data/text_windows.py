"""A text as examples: windows of tokens, and for each token the one that follows.

The tokenizer is learned from the training documents alone. It knows documents and tokens, no model.
"""

from dataclasses import dataclass

import numpy as np

from functions.train.data import corpus
from functions.train.data.cleaning import Cleaning
from functions.train.data.corpus import SETS
from functions.train.data.dataset import Array, Dataset, Splits
from functions.train.data.tokenizer import Tokenizer
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.options.data import DataOptions


@dataclass(frozen=True, eq=False)
class Text:
    """What windows are cut from."""

    stream: Array  # tokens, int64
    tokenizer: Tokenizer


def splits(options: DataOptions) -> Splits:
    """Documents shared out, made into tokens, and cut into windows."""
    if options.text is None:
        raise ValueError(f"{options.name!r} is no text.")
    documents, cleaning = corpus.load(options.name)
    parts = corpus.share(documents, options.fractions, options.seed)
    tokenizer = Tokenizer.learned(parts["train"].values(), options.text.vocabulary)
    window, steps = options.text.window, {"train": options.text.step}
    train, validation, test = (
        windows(
            Text(tokenizer.stream(parts[word].values()), tokenizer), word, window, steps.get(word, window), cleaning
        )
        for word in SETS
    )
    return Splits(train, validation, test, calibration(train, options), corpus.sha256(documents))


def windows(text: Text, word: str, window: int, step: int, cleaning: Cleaning) -> Dataset:
    """A window every `step` tokens, as long as whole ones are left: fewer than that many tokens at the end are not."""
    if len(text.stream) <= window:
        raise InvalidInputError(
            f"data.text.window is {window}; it must be less than the {len(text.stream):,} tokens of the {word} set."
        )
    views = np.lib.stride_tricks.sliding_window_view(text.stream, window + 1)[::step]
    inputs, targets = views[:, :-1].copy(), views[:, 1:].copy()
    return Dataset(inputs, targets, text.tokenizer.tokens, metric="loss", cleaning=cleaning, text=text)


def calibration(train: Dataset, options: DataOptions) -> Dataset:
    """The training windows that the quantizer sees."""
    if options.calibration > len(train):
        raise InvalidInputError(
            f"data.calibration is {options.calibration}; there are {len(train)} training windows to take it from."
        )
    drawn = np.random.default_rng(options.seed).permutation(len(train))
    return train.take(np.sort(drawn[: options.calibration]))

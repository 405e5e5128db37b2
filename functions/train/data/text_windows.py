"""A text as examples: windows of tokens, and for each token the one that follows.

The tokenizer is trained on the training documents alone.
"""

import numpy as np

from functions.train.data import corpus
from functions.train.data.cleaning import CleaningReport
from functions.train.data.corpus import SETS
from functions.train.data.dataset import Dataset
from functions.train.data.split import Splits
from functions.train.data.tokenizer import TokenizedText, Tokenizer
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import BuiltinDataOptions


def load_text_splits(options: BuiltinDataOptions) -> Splits:
    """Split the documents, tokenize them, and cut them into windows."""
    if options.text is None:
        raise ValueError(f"{options.name!r} is no text.")
    documents, cleaning = corpus.load_documents(options.name)
    parts = corpus.split_documents(documents, options.fractions, options.seed)
    tokenizer = Tokenizer.train_from_texts(parts["train"].values(), options.text.vocabulary)
    window, steps = options.text.window, {"train": options.text.effective_stride}
    train, validation, test = (
        cut_windows(
            TokenizedText(tokenizer.encode_documents(parts[word].values()), tokenizer),
            word,
            window,
            steps.get(word, window),
            cleaning,
        )
        for word in SETS
    )
    return Splits(train, validation, test, select_calibration_windows(train, options), corpus.hash_documents(documents))


def cut_windows(text: TokenizedText, set_name: str, window: int, step: int, cleaning: CleaningReport) -> Dataset:
    """Cut a window every `step` tokens; a remainder shorter than a window is left out."""
    if len(text.tokens) <= window:
        raise InvalidInputError(
            f"data.text.window is {window}; it must be less than the {len(text.tokens):,} tokens of the {set_name} set."
        )
    views = np.lib.stride_tricks.sliding_window_view(text.tokens, window + 1)[::step]
    inputs, targets = views[:, :-1].copy(), views[:, 1:].copy()
    return Dataset(inputs, targets, text.tokenizer.tokens, metric="loss", cleaning=cleaning, text=text)


def select_calibration_windows(train: Dataset, options: BuiltinDataOptions) -> Dataset:
    """Select the training windows that calibrate the quantizer."""
    if options.calibration > len(train):
        raise InvalidInputError(
            f"data.calibration is {options.calibration}; there are {len(train)} training windows to take it from."
        )
    drawn = np.random.default_rng(options.seed).permutation(len(train))
    return train.select(np.sort(drawn[: options.calibration]))

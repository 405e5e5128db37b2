"""A data set as plain arrays.

The values stay raw: scaling them is a part of the model.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from functions.train.data import Array
from functions.train.data.cleaning import CleaningReport
from functions.train.data.encoding import compute_fill_values, encode_table
from functions.train.data.passes import Passes
from functions.train.data.statistics import DatasetStatistics, compute_moments

if TYPE_CHECKING:  # imports tokenizers
    from functions.train.data.tokenizer import TokenizedText


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples as a caller of the served model sends them, and their targets: a class each, or a number.

    In a text, an example is a window of tokens, and the target of each token is a class: the token that follows it.
    """

    inputs: Array  # float32, images (N, channels, height, width) or a table (N, columns); int64 (N, T), tokens
    targets: Array  # int64 (N,) or (N, T), an index into classes; without classes float32 (N, 1), in its own unit
    classes: tuple[str, ...]
    features: tuple[str, ...] = ()  # the names of the channels or columns
    metric: str = "accuracy"  # the metric by which a model of this data is judged
    cleaning: CleaningReport | None = None  # what was left out of a table, or of a text
    categories: tuple[tuple[str, ...], ...] = ()  # of each column; one of numbers has none
    missing: Literal["drop", "mean", "median"] = "drop"  # NaN among the inputs: there is none, or how it is filled
    passes: Passes | None = None  # where the set does not fit in memory; the arrays are then a sample of it
    text: "TokenizedText | None" = None  # what the windows are cut from

    def __len__(self) -> int:
        return len(self.targets) if self.passes is None else len(self.passes)

    def select(self, indices: Array) -> "Dataset":
        """Select the examples at `indices`, in that order."""
        return replace(self, inputs=self.inputs[indices], targets=self.targets[indices])

    @cached_property
    def statistics(self) -> DatasetStatistics:
        """The statistics of this set that a model needs when it is trained on it."""
        if self.passes is not None:
            return self.passes.statistics
        fill = None if self.missing == "drop" else compute_fill_values(self.inputs, self.categories, self.missing)
        entering = compute_moments(encode_table(self.inputs, self.categories, fill))
        if self.classes:
            return DatasetStatistics(
                entering, entering, np.bincount(self.targets.ravel(), minlength=len(self.classes)), fill
            )
        return DatasetStatistics(entering, compute_moments(self.targets), np.zeros(0, np.int64), fill)

    @property
    def target_count(self) -> int:
        """How many targets there are: one for each example, or for each token of a text's windows."""
        return self.targets.size if self.text else len(self)

    @property
    def output_size(self) -> int:
        """How many values the model outputs for an example: a logit per class, or the one number."""
        return len(self.classes) or 1

    @property
    def sha256(self) -> str:
        """The hash in hex of the inputs' bytes and then the targets': little-endian, row by row, in the types above."""
        digest = hashlib.sha256(np.ascontiguousarray(self.inputs, "<i8" if self.text else "<f4").tobytes())
        digest.update(np.ascontiguousarray(self.targets, "<i8" if self.classes else "<f4").tobytes())
        return digest.hexdigest()

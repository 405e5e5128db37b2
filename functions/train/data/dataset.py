"""A data set as plain arrays.

The values stay raw: scaling them is a part of the model.
"""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from functions.train.data import Array
from functions.train.data.cleaning import CleaningReport
from functions.train.data.encoding import compute_fill_values, encode_table
from functions.train.data.passes import Passes
from functions.train.data.pixels import Pixels, iterate_chunks
from functions.train.data.split_keys import SplitKeys
from functions.train.data.statistics import DatasetStatistics, Moments, compute_moments
from pilotlight.contracts.processing import ImagePreprocessing

if TYPE_CHECKING:  # imports tokenizers
    from functions.train.data.tokenizer import TokenizedText


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples as a caller of the served model sends them, and their targets: a class each, or a number.

    In a text, an example is a window of tokens, and the target of each token is a class: the token that follows it.
    """

    # `Inputs`: float32, images (N, channels, height, width) or a table (N, columns); int64 (N, T), tokens. What is read
    # whole is an array; images from files are `Pixels`, of which some are read at a time.
    inputs: Any
    targets: Array  # int64 (N,) or (N, T), an index into classes; without classes float32 (N, 1), in its own unit
    classes: tuple[str, ...]
    features: tuple[str, ...] = ()  # the names of the channels or columns
    metric: str = "accuracy"  # the metric by which a model of this data is judged
    cleaning: CleaningReport | None = None  # what was left out of a table, or of a text
    categories: tuple[tuple[str, ...], ...] = ()  # of each column; one of numbers has none
    missing: Literal["drop", "mean", "median"] = "drop"  # NaN among the inputs: there is none, or how it is filled
    passes: Passes | None = None  # where the set does not fit in memory; the arrays are then a sample of it
    text: "TokenizedText | None" = None  # what the windows are cut from
    keys: SplitKeys = field(default_factory=SplitKeys)  # what determines the sets of the examples, besides chance
    notes: tuple[str, ...] = ()  # what was decided without being asked, a sentence each
    image_steps: ImagePreprocessing | None = None  # from a photo to an example, where the examples were files

    def __len__(self) -> int:
        return len(self.targets) if self.passes is None else len(self.passes)

    def select(self, indices: Array) -> "Dataset":
        """Select the examples at `indices`, in that order."""
        inputs = self.inputs.select(indices) if isinstance(self.inputs, Pixels) else self.inputs[indices]
        return replace(self, inputs=inputs, targets=self.targets[indices], keys=self.keys.select(indices))

    @cached_property
    def statistics(self) -> DatasetStatistics:
        """The statistics of this set that a model needs when it is trained on it."""
        if self.passes is not None:
            return self.passes.statistics
        fill, entering = self._compute_input_statistics()
        if self.classes:
            return DatasetStatistics(
                entering, entering, np.bincount(self.targets.ravel(), minlength=len(self.classes)), fill
            )
        return DatasetStatistics(entering, compute_moments(self.targets), np.zeros(0, np.int64), fill)

    def _compute_input_statistics(self) -> tuple[Array | None, Moments]:
        """Compute what fills gaps, and the moments of what enters the network."""
        if isinstance(self.inputs, Pixels):
            return None, self.inputs.compute_moments()
        fill = None if self.missing == "drop" else compute_fill_values(self.inputs, self.categories, self.missing)
        return fill, compute_moments(encode_table(self.inputs, self.categories, fill))

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
        digest = hashlib.sha256()
        for chunk in iterate_chunks(self.inputs):
            digest.update(np.ascontiguousarray(chunk, "<i8" if self.text else "<f4").data)
        digest.update(np.ascontiguousarray(self.targets, "<i8" if self.classes else "<f4").tobytes())
        return digest.hexdigest()

"""Data sets and their split, as plain arrays.

It knows what the examples are, not what is done with them: values stay raw, since scaling belongs to the model.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import sklearn.datasets

from functions.train.data.cleaning import CleaningReport, clean_table
from functions.train.data.encoding import compute_fill_values, encode_table
from functions.train.data.files import DataRoot
from functions.train.data.statistics import DatasetStatistics, compute_moments
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import BuiltinDataOptions, SplitFractions, UserDataOptions

if TYPE_CHECKING:
    from functions.train.data.loader import Passes
    from functions.train.data.text_windows import TokenizedText

Array = np.ndarray[Any, Any]
DEFAULT_CALIBRATION_EXAMPLES = 256  # examples, where a recipe leaves it open and there are so many
QUANTILE_STRATA = 5  # parts of equal size that a number's range is cut into, for the split to share out each alike


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples as somebody who calls the served model sends them, and the answers: a class each, or a number.

    Of a text, an example is a window of tokens, and each of them is answered by a class, the token that follows it.
    """

    inputs: Array  # float32, images (N, channels, height, width) or a table (N, columns); int64 (N, T), tokens
    targets: Array  # int64 (N,) or (N, T), an index into classes; without classes float32 (N, 1), in its own unit
    classes: tuple[str, ...]
    features: tuple[str, ...] = ()  # the names of the channels or columns
    metric: str = "accuracy"  # what a model of this data is judged by, one of evaluate's
    cleaning: CleaningReport | None = None  # what was left out of a table, or of a text
    categories: tuple[tuple[str, ...], ...] = ()  # of each column; one of numbers has none
    missing: Literal["drop", "mean", "median"] = "drop"  # NaN among the inputs: there is none, or how it is filled
    passes: "Passes | None" = None  # where the set does not fit in memory; the arrays are then a sample of it
    text: "TokenizedText | None" = None  # what the windows are cut from

    def __len__(self) -> int:
        return len(self.targets) if self.passes is None else len(self.passes)

    def select(self, indices: Array) -> "Dataset":
        """The examples at `indices`, in that order."""
        return replace(self, inputs=self.inputs[indices], targets=self.targets[indices])

    @cached_property
    def statistics(self) -> DatasetStatistics:
        """What a model is told of this as its training set."""
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
        """How many answers there are: one for each example, or for each token of a text's windows."""
        return self.targets.size if self.text else len(self)

    @property
    def output_size(self) -> int:
        """How many values answer an example: a logit per class, or the one number."""
        return len(self.classes) or 1

    @property
    def sha256(self) -> str:
        """In hex, of the inputs' bytes and then the targets': little-endian, row by row, in the types above."""
        digest = hashlib.sha256(np.ascontiguousarray(self.inputs, "<i8" if self.text else "<f4").tobytes())
        digest.update(np.ascontiguousarray(self.targets, "<i8" if self.classes else "<f4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Splits:
    """Three sets without a common example, and the part of the training set that the quantizer calibrates on."""

    train: Dataset
    validation: Dataset
    test: Dataset
    calibration: Dataset
    sha256: str  # of the whole data set, before it was split


def load_digits() -> Dataset:
    """scikit-learn's 1,797 scans of handwritten digits, float32 (1797, 1, 8, 8), pixels 0 to 16 as they come."""
    scans = sklearn.datasets.load_digits()
    images = scans.images.astype(np.float32)[:, None]
    return Dataset(images, scans.target.astype(np.int64), tuple(map(str, scans.target_names)), ("ink",))


def load_breast_cancer() -> Dataset:
    """569 tumours, malignant (212) or benign, by 30 measures of their cell nuclei (Wisconsin; UCI, 1995)."""
    return replace(convert_bunch(sklearn.datasets.load_breast_cancer()), metric="balanced_accuracy")


def load_wine() -> Dataset:
    """178 wines of three growers from one region of Italy, by 13 chemical measures (UCI, 1991)."""
    return convert_bunch(sklearn.datasets.load_wine())


def load_diabetes() -> Dataset:
    """442 patients, 10 measures each in their own units, and how far the disease was a year later: 25 to 346.

    Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, 2004; `scaled=False` is what they measured.
    """
    return replace(convert_bunch(sklearn.datasets.load_diabetes(scaled=False)), metric="r2")


def convert_bunch(bunch: Any) -> Dataset:  # noqa: ANN401 - scikit-learn ships no types
    """A table of scikit-learn's, cleaned; its answers are numbers when it names no classes."""
    names = tuple(str(name).replace(" ", "_") for name in bunch.feature_names)
    rows, targets_column, kept, cleaning = clean_table(bunch.data, bunch.target, names)
    classes = tuple(map(str, bunch.get("target_names", ())))
    targets = targets_column.astype(np.int64) if classes else targets_column.astype(np.float32)[:, None]
    return Dataset(rows.astype(np.float32), targets, classes, kept, cleaning=cleaning)


BUILTIN_DATASETS: Mapping[str, Callable[[], Dataset]] = {
    "digits": load_digits,
    "breast-cancer": load_breast_cancer,
    "wine": load_wine,
    "diabetes": load_diabetes,
}


def load_dataset(options: BuiltinDataOptions | UserDataOptions, data_root: DataRoot | None = None) -> Dataset:
    """The data set of a recipe, whole, whose paths begin at `data_root`; a text is none, as its tokens are learned."""
    if isinstance(options, BuiltinDataOptions):
        if options.text:
            raise InvalidInputError(
                f"folds must be null for the text {options.name!r}: its tokenizer would know every fold."
            )
        return BUILTIN_DATASETS[options.name]()
    from functions.train.data import (
        readers,  # it brings pyarrow and Pillow, which the other data sets need not wait for
    )

    return readers.read_dataset(options, data_root or DataRoot())


def load_splits(options: BuiltinDataOptions | UserDataOptions, data_root: DataRoot | None = None) -> Splits:
    """The data set of a recipe, shared out, of a text its documents; what does not fit in memory is streamed."""
    if isinstance(options, BuiltinDataOptions) and options.text:
        from functions.train.data import text_windows  # it brings tokenizers

        return text_windows.load_text_splits(options)
    if isinstance(options, BuiltinDataOptions) or not options.streaming:
        return split_dataset(load_dataset(options, data_root), options)
    from functions.train.data import stream_scan  # it brings what `reading` brings

    return stream_scan.scan_splits(options, data_root or DataRoot())


def split_dataset(dataset: Dataset, options: BuiltinDataOptions | UserDataOptions) -> Splits:
    """Share the examples out by the recipe's seed, every class (or fifth of a number's range) alike."""
    rng = np.random.default_rng(options.seed)
    train, validation, test = split_by_stratum(assign_strata(dataset), options.fractions, rng)
    check_split(dataset, {"train": train, "validation": validation, "test": test})
    size = min(DEFAULT_CALIBRATION_EXAMPLES, len(train)) if options.calibration is None else options.calibration
    if size > len(train):
        raise InvalidInputError(
            f"data.calibration is {size}; there are {len(train)} training examples to take it from."
        )
    calibration = np.sort(rng.permutation(train)[:size])
    take = dataset.select
    return Splits(take(train), take(validation), take(test), take(calibration), dataset.sha256)


def assign_strata(dataset: Dataset) -> Array:
    """What the split keeps in proportion, (N,): the class, or which part of the range a number lies in."""
    if dataset.classes:
        return dataset.targets
    values = dataset.targets[:, 0]
    return np.digitize(values, np.quantile(values, np.linspace(0, 1, QUANTILE_STRATA + 1)[1:-1]))


def split_by_stratum(strata: Array, fractions: SplitFractions, rng: np.random.Generator) -> Sequence[Array]:
    """Indices of the three sets, in ascending order; each class is cut by itself, right to one example."""
    shares = np.cumsum([fractions.train, fractions.validation])
    parts = []
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        parts.append(np.split(members, np.rint(shares * len(members)).astype(int)))
    return [np.sort(np.concatenate(part)) for part in zip(*parts, strict=True)]


def check_split(dataset: Dataset, indices_by_set: Mapping[str, Array]) -> None:
    """Refuse a split that leaves one of its sets empty, or a class out of one."""
    for name, indices in indices_by_set.items():
        if dataset.classes:
            check_classes_present(dataset, name, dataset.targets[indices])
        if not len(indices):
            raise InvalidInputError(f"data.fractions.{name} is too small: that set has no example left.")


def check_classes_present(dataset: Dataset, set_name: str, targets: Array) -> None:
    """Refuse a split that leaves a class out of the set `set_name`, whose answers these are."""
    for rare in np.flatnonzero(np.bincount(targets, minlength=len(dataset.classes)) == 0)[:1]:
        refuse_missing_class(set_name, dataset.classes[rare], int((dataset.targets == rare).sum()))


def refuse_missing_class(set_name: str, class_name: str, count: int) -> NoReturn:
    """Refuse a split for a class of `count` examples in all, of which the set `set_name` has none."""
    message = f"data.fractions.{set_name} is too small: the class {class_name!r} has no example left in that set"
    raise InvalidInputError(f"{message}, of {count:,} in all.")


def scale_targets(splits: Splits) -> Splits:
    """The splits as the loop learns from them: numbers to be answered with mean 0 and variance 1 in training.

    So a learning rate means the same for every unit. `build.restore_scale` puts the unit back.
    """
    if splits.train.classes:
        return splits
    moments = splits.train.statistics.target_moments

    def scale(part: Dataset) -> Dataset:
        passes = None if part.passes is None else part.passes.scale_targets(moments)
        return replace(part, targets=(part.targets - moments.mean) / moments.deviation, passes=passes)

    train, validation, test, calibration = map(
        scale, (splits.train, splits.validation, splits.test, splits.calibration)
    )
    return Splits(train, validation, test, calibration, splits.sha256)

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

from functions.train.data.cleaning import Cleaning, clean
from functions.train.data.encoding import filling, prepared
from functions.train.data.files import Place
from functions.train.data.statistics import Profile, moments
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.options.data import DataOptions, Fractions, OwnOptions

if TYPE_CHECKING:
    from functions.train.data.loader import Passes
    from functions.train.data.text_windows import Text

Array = np.ndarray[Any, Any]
CALIBRATION = 256  # examples, where a recipe leaves it open and there are so many
STRATA = 5  # parts of equal size that a number's range is cut into, for the split to share out each alike


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
    cleaning: Cleaning | None = None  # what was left out of a table, or of a text
    categories: tuple[tuple[str, ...], ...] = ()  # of each column; one of numbers has none
    missing: Literal["drop", "mean", "median"] = "drop"  # NaN among the inputs: there is none, or how it is filled
    passes: "Passes | None" = None  # where the set does not fit in memory; the arrays are then a sample of it
    text: "Text | None" = None  # what the windows are cut from

    def __len__(self) -> int:
        return len(self.targets) if self.passes is None else len(self.passes)

    def take(self, indices: Array) -> "Dataset":
        """The examples at `indices`, in that order."""
        return replace(self, inputs=self.inputs[indices], targets=self.targets[indices])

    @cached_property
    def profile(self) -> Profile:
        """What a model is told of this as its training set."""
        if self.passes is not None:
            return self.passes.profile
        fill = None if self.missing == "drop" else filling(self.inputs, self.categories, self.missing)
        entering = moments(prepared(self.inputs, self.categories, fill))
        if self.classes:
            return Profile(entering, entering, np.bincount(self.targets.ravel(), minlength=len(self.classes)), fill)
        return Profile(entering, moments(self.targets), np.zeros(0, np.int64), fill)

    @property
    def answers(self) -> int:
        """How many answers there are: one for each example, or for each token of a text's windows."""
        return self.targets.size if self.text else len(self)

    @property
    def outputs(self) -> int:
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


def digits() -> Dataset:
    """scikit-learn's 1,797 scans of handwritten digits, float32 (1797, 1, 8, 8), pixels 0 to 16 as they come."""
    scans = sklearn.datasets.load_digits()
    images = scans.images.astype(np.float32)[:, None]
    return Dataset(images, scans.target.astype(np.int64), tuple(map(str, scans.target_names)), ("ink",))


def breast_cancer() -> Dataset:
    """569 tumours, malignant (212) or benign, by 30 measures of their cell nuclei (Wisconsin; UCI, 1995)."""
    return replace(table(sklearn.datasets.load_breast_cancer()), metric="balanced_accuracy")


def wine() -> Dataset:
    """178 wines of three growers from one region of Italy, by 13 chemical measures (UCI, 1991)."""
    return table(sklearn.datasets.load_wine())


def diabetes() -> Dataset:
    """442 patients, 10 measures each in their own units, and how far the disease was a year later: 25 to 346.

    Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, 2004; `scaled=False` is what they measured.
    """
    return replace(table(sklearn.datasets.load_diabetes(scaled=False)), metric="r2")


def table(bunch: Any) -> Dataset:  # noqa: ANN401 - scikit-learn ships no types
    """A table of scikit-learn's, cleaned; its answers are numbers when it names no classes."""
    names = tuple(str(name).replace(" ", "_") for name in bunch.feature_names)
    rows, answers, kept, cleaning = clean(bunch.data, bunch.target, names)
    classes = tuple(map(str, bunch.get("target_names", ())))
    targets = answers.astype(np.int64) if classes else answers.astype(np.float32)[:, None]
    return Dataset(rows.astype(np.float32), targets, classes, kept, cleaning=cleaning)


DATASETS: Mapping[str, Callable[[], Dataset]] = {
    "digits": digits,
    "breast-cancer": breast_cancer,
    "wine": wine,
    "diabetes": diabetes,
}


def load(options: DataOptions | OwnOptions, place: Place | None = None) -> Dataset:
    """The data set of a recipe, whole, whose paths begin at `place`; a text is none, as its tokens are learned."""
    if isinstance(options, DataOptions):
        if options.text:
            raise InvalidInputError(
                f"folds must be null for the text {options.name!r}: its tokenizer would know every fold."
            )
        return DATASETS[options.name]()
    from functions.train.data import (
        readers,  # it brings pyarrow and Pillow, which the other data sets need not wait for
    )

    return readers.read(options, place or Place())


def shared(options: DataOptions | OwnOptions, place: Place | None = None) -> Splits:
    """The data set of a recipe, shared out, of a text its documents; what does not fit in memory is streamed."""
    if isinstance(options, DataOptions) and options.text:
        from functions.train.data import text_windows  # it brings tokenizers

        return text_windows.splits(options)
    if isinstance(options, DataOptions) or not options.streaming:
        return split(load(options, place), options)
    from functions.train.data import stream_scan  # it brings what `reading` brings

    return stream_scan.splits(options, place or Place())


def split(dataset: Dataset, options: DataOptions | OwnOptions) -> Splits:
    """Share the examples out by the recipe's seed, every class (or fifth of a number's range) alike."""
    random = np.random.default_rng(options.seed)
    train, validation, test = stratify(strata(dataset), options.fractions, random)
    check(dataset, {"train": train, "validation": validation, "test": test})
    size = min(CALIBRATION, len(train)) if options.calibration is None else options.calibration
    if size > len(train):
        raise InvalidInputError(
            f"data.calibration is {size}; there are {len(train)} training examples to take it from."
        )
    calibration = np.sort(random.permutation(train)[:size])
    take = dataset.take
    return Splits(take(train), take(validation), take(test), take(calibration), dataset.sha256)


def strata(dataset: Dataset) -> Array:
    """What the split keeps in proportion, (N,): the class, or which part of the range a number lies in."""
    if dataset.classes:
        return dataset.targets
    values = dataset.targets[:, 0]
    return np.digitize(values, np.quantile(values, np.linspace(0, 1, STRATA + 1)[1:-1]))


def stratify(labels: Array, fractions: Fractions, random: np.random.Generator) -> Sequence[Array]:
    """Indices of the three sets, in ascending order; each class is cut by itself, right to one example."""
    shares = np.cumsum([fractions.train, fractions.validation])
    parts = []
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        parts.append(np.split(members, np.rint(shares * len(members)).astype(int)))
    return [np.sort(np.concatenate(part)) for part in zip(*parts, strict=True)]


def check(dataset: Dataset, sets: Mapping[str, Array]) -> None:
    """Refuse a split that leaves one of its sets empty, or a class out of one."""
    for name, indices in sets.items():
        if dataset.classes:
            check_classes(dataset, name, dataset.targets[indices])
        if not len(indices):
            raise InvalidInputError(f"data.fractions.{name} is too small: that set has no example left.")


def check_classes(dataset: Dataset, name: str, targets: Array) -> None:
    """Refuse a split that leaves a class out of the set `name`, whose answers these are."""
    for rare in np.flatnonzero(np.bincount(targets, minlength=len(dataset.classes)) == 0)[:1]:
        left_out(name, dataset.classes[rare], int((dataset.targets == rare).sum()))


def left_out(name: str, word: str, count: int) -> NoReturn:
    """Refuse a split for a class of `count` examples in all, of which the set `name` has none."""
    said = f"data.fractions.{name} is too small: the class {word!r} has no example left in that set"
    raise InvalidInputError(f"{said}, of {count:,} in all.")


def scaled(splits: Splits) -> Splits:
    """The splits as the loop learns from them: numbers to be answered with mean 0 and variance 1 in training.

    So a learning rate means the same for every unit. `model.unscaled` puts the unit back.
    """
    if splits.train.classes:
        return splits
    unit = splits.train.profile.targets

    def scale(part: Dataset) -> Dataset:
        passes = None if part.passes is None else part.passes.scaled(unit)
        return replace(part, targets=(part.targets - unit.mean) / unit.deviation, passes=passes)

    train, validation, test, calibration = map(
        scale, (splits.train, splits.validation, splits.test, splits.calibration)
    )
    return Splits(train, validation, test, calibration, splits.sha256)

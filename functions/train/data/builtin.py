"""The data sets that come with scikit-learn, by the names that recipes use."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import sklearn.datasets

from functions.train.data.cleaning import clean_table
from functions.train.data.dataset import Dataset


def load_digits() -> Dataset:
    """Load scikit-learn's 1,797 scans of handwritten digits, float32 (1797, 1, 8, 8), with pixels from 0 to 16."""
    scans = sklearn.datasets.load_digits()
    images = scans.images.astype(np.float32)[:, None]
    return Dataset(images, scans.target.astype(np.int64), tuple(map(str, scans.target_names)), ("ink",))


def load_breast_cancer() -> Dataset:
    """Load 569 tumours, malignant (212) or benign, with 30 measures of their cell nuclei (Wisconsin; UCI, 1995)."""
    return replace(convert_bunch(sklearn.datasets.load_breast_cancer()), metric="balanced_accuracy")


def load_wine() -> Dataset:
    """Load 178 wines of three growers from one region of Italy, with 13 chemical measures (UCI, 1991)."""
    return convert_bunch(sklearn.datasets.load_wine())


def load_diabetes() -> Dataset:
    """Load 442 patients, with 10 measures in their own units and the disease's progress after a year, from 25 to 346.

    Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, 2004; `scaled=False` is what they measured.
    """
    return replace(convert_bunch(sklearn.datasets.load_diabetes(scaled=False)), metric="r2")


def convert_bunch(bunch: Any) -> Dataset:  # noqa: ANN401 - scikit-learn ships no types
    """Convert a table of scikit-learn's and clean it; the targets are numbers when it names no classes."""
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

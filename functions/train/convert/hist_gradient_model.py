"""Read scikit-learn's histogram gradient boosting as trees.

skl2onnx 1.20 leaves out its categories and its exponential losses. The trees lie in private attributes of the
estimator: every graph is compared with the estimator's own answers, so that another layout of them is noticed.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.utils.validation import check_is_fitted

from functions.train.convert.tree_ensemble import Branch, Leaf, Link, Tree, TreeEnsemble, append_membership
from functions.train.data import Array

ESTIMATORS = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
EXPONENTIAL_LOSSES = {"poisson", "gamma"}
Categories = Mapping[int, list[Any]]  # what an encoder has learnt, without gaps, by column


def read_estimator(estimator: Any) -> TreeEnsemble:  # noqa: ANN401 - scikit-learn ships no types
    """Read a fitted estimator; `NotFittedError` if it is not."""
    check_is_fitted(estimator)
    names = getattr(estimator, "feature_names_in_", None)
    features = tuple(map(str, names)) if names is not None else tuple(f"x{i}" for i in range(estimator.n_features_in_))
    columns, categories = order_columns(estimator), collect_categories(estimator)
    return TreeEnsemble(
        trees=[
            read_tree(predictor, target, columns, categories)
            for iteration in estimator._predictors
            for target, predictor in enumerate(iteration)
        ],
        features=features,
        base=tuple(np.ravel(estimator._baseline_prediction).astype(float).tolist()),
        link=choose_link(estimator),
        is_classifier=isinstance(estimator, HistGradientBoostingClassifier),
        takes_double=True,
        categories={
            features[place]: tuple(map(str, words)) for place, words in categories.items() if not is_numeric(words)
        },
    )


def choose_link(estimator: Any) -> Link:  # noqa: ANN401 - scikit-learn ships no types
    """Choose what makes answers of the margins."""
    if isinstance(estimator, HistGradientBoostingClassifier):
        return "sigmoid" if estimator.n_trees_per_iteration_ == 1 else "softmax"
    return "exp" if estimator.loss in EXPONENTIAL_LOSSES else "identity"


def order_columns(estimator: Any) -> list[int]:  # noqa: ANN401 - scikit-learn ships no types
    """Return the columns as the trees count them: those with categories first."""
    marked = estimator.is_categorical_
    if marked is None:
        return list(range(estimator.n_features_in_))
    return [*np.flatnonzero(marked).tolist(), *np.flatnonzero(~np.asarray(marked)).tolist()]


def collect_categories(estimator: Any) -> dict[int, list[Any]]:  # noqa: ANN401 - scikit-learn ships no types
    """Collect the values of columns with categories, by column; their places are the codes in the trees."""
    if estimator.is_categorical_ is None:
        return {}
    encoder = estimator._preprocessor.named_transformers_["encoder"]
    places = np.flatnonzero(estimator.is_categorical_).tolist()
    return {
        place: [value for value in values.tolist() if value is not None and value == value]
        for place, values in zip(places, encoder.categories_, strict=True)
    }


def is_numeric(values: list[Any]) -> bool:
    """Return whether categories are numbers, which rows hold as they are."""
    return all(isinstance(value, int | float) for value in values)


def read_tree(predictor: Any, target: int, columns: list[int], categories: Categories) -> Tree:  # noqa: ANN401
    """Read one tree, which adds to the margin of `target`."""
    nodes: list[Branch | Leaf] = [Leaf({target: float(node["value"])}) for node in predictor.nodes]
    for place, node in enumerate(predictor.nodes):
        if node["is_leaf"]:
            continue
        column, left, right = columns[int(node["feature_idx"])], int(node["left"]), int(node["right"])
        missing_left = bool(node["missing_go_to_left"])
        if node["is_categorical"]:
            bits = predictor.raw_left_cat_bitsets[int(node["bitset_idx"])]
            write_categories(nodes, place, column, categories[column], bits, left, right, missing_left=missing_left)
        else:
            limit = float(np.clip(node["num_threshold"], -1.7e308, 1.7e308))
            nodes[place] = Branch(column, "BRANCH_LEQ", limit, left, right, missing_left)
    return nodes


def write_categories(
    nodes: list[Branch | Leaf],
    place: int,
    column: int,
    values: list[Any],
    bits: Array,
    left: int,
    right: int,
    *,
    missing_left: bool,
) -> None:
    """Write a split by categories: those that are unknown go where gaps go."""
    goes_left = [bool(int(bits[code >> 5]) >> (code & 31) & 1) for code in range(len(values))]
    keys = values if is_numeric(values) else list(range(len(values)))
    members = [float(key) for key, is_left in zip(keys, goes_left, strict=True) if is_left != missing_left]
    inside, outside = (right, left) if missing_left else (left, right)
    if members:
        append_membership(nodes, place, column, members, inside, outside, missing_inside=False)
    else:
        nodes[place] = Branch(column, "BRANCH_LEQ", 0.0, outside, outside, missing_yes=True)


def build_table(estimator: Any, ensemble: TreeEnsemble, rows: Array) -> Any:  # noqa: ANN401 - an array or a DataFrame
    """Build the rows as the estimator takes them: words for the codes of `ensemble`."""
    if not ensemble.categories and not hasattr(estimator, "feature_names_in_"):
        return rows
    import pandas  # the estimator was fitted on its table

    table = pandas.DataFrame(rows, columns=list(ensemble.features))
    for name, words in ensemble.categories.items():
        known = dict(enumerate(words))
        codes = table[name].tolist()
        table[name] = pandas.Series(
            [None if code != code else known.get(int(code), "unheard") for code in codes], dtype=object
        )
    return table

"""Detect the columns of a fitted scikit-learn estimator, and which of them contain text: it has no attribute for that.

A column contains text if an encoder of it has learnt texts as its categories. The module knows estimators, not graphs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from functions.train.data import Array
from pilotlight.errors import InvalidInputError

TEXT_COLUMN = "text"  # of an estimator that takes a list of texts
MAX_TEXT_WORDS = 8  # of a made-up text
MAX_STOP_WORDS = 20  # of which made-up texts have some
SEPARATORS = (" ", " ", ", ", "-")


@dataclass(frozen=True)
class TextGap:
    """A part of an estimator that knows missing texts: its parameter, as the graph's empty texts need it."""

    part: Any
    parameter: str
    converted: object
    columns: Mapping[str, Any]  # what stands for a missing text, by column


@dataclass(frozen=True)
class EstimatorColumns:
    """The columns in their order, and for some of them the values that an encoder has learnt."""

    names: tuple[str, ...]
    categories: Mapping[str, Array]
    fitted_on_frame: bool  # fitted on a table with named columns
    selects_by_name: bool  # and selects them by name
    vocabularies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of columns with whole texts
    takes_texts: bool = False  # the estimator takes a list of texts, and no table
    gaps: Mapping[str, Any] = field(default_factory=dict)  # what stands for no text, in columns where it is filled in
    takes_double: bool = False  # the graph computes in float64, and not in float32

    @property
    def text_columns(self) -> list[str]:
        """The columns that contain text."""
        words = [name for name, values in self.categories.items() if values.dtype.kind in "OSU"]
        return [*words, *self.vocabularies]

    @property
    def has_separate_inputs(self) -> bool:
        """Whether each column must be its own input: text and numbers do not share a tensor."""
        return self.selects_by_name or bool(self.text_columns)

    def draw_random_values(self, rows: int) -> dict[str, Array]:
        """Draw random values for the estimator, [rows, 1] by column: known ones, else normal numbers in float32."""
        random = np.random.default_rng(0)
        normal = random.standard_normal((rows, len(self.names))).astype(np.float32)
        samples = {name: normal[:, place : place + 1] for place, name in enumerate(self.names)}
        for name, values in self.categories.items():
            usable = [value for value in values.tolist() if not is_missing(value)]
            unknown = "" if name in self.text_columns else np.nan  # of a column that was empty in training
            chosen = random.choice(np.array(usable or [unknown], object), (rows, 1))
            if name in self.gaps:
                chosen[random.random(rows) < 0.2] = ""
            samples[name] = chosen if name in self.text_columns else chosen.astype(np.float32)
        for name, words in self.vocabularies.items():
            texts = [draw_text(random, [*words, "unheard"]) for _ in range(rows)]
            samples[name] = np.array(texts, object).reshape(rows, 1)
        dtype = np.float64 if self.takes_double else np.float32
        return {name: values if values.dtype == object else values.astype(dtype) for name, values in samples.items()}


def draw_text(random: np.random.Generator, words: Sequence[str]) -> str:
    """Draw a text of known words, as people write: some with a capital, or a comma behind them."""
    chosen = [str(word) for word in random.choice(np.array(words, object), random.integers(1, MAX_TEXT_WORDS))]
    marks = [SEPARATORS[place] for place in random.integers(0, len(SEPARATORS), len(chosen))]
    capitals = random.random(len(chosen)) < 0.2
    parts = (word.capitalize() if large else word for word, large in zip(chosen, capitals, strict=True))
    return "".join(f"{part}{mark}" for part, mark in zip(parts, marks, strict=True)).strip(" ,-")


def detect_columns(estimator: Any, source_name: str) -> EstimatorColumns:  # noqa: ANN401 - scikit-learn ships no types
    """Detect the estimator's columns; `InvalidInputError` if it is not fitted, or does not know their number."""
    try:
        check_is_fitted(estimator)
    except NotFittedError as exc:
        raise InvalidInputError(f"{source_name} is not fitted; call fit before it is published.") from exc
    if is_text_vectorizer(get_first_part(estimator)):
        words = get_vocabulary(get_first_part(estimator), source_name)
        return EstimatorColumns(
            (TEXT_COLUMN,), {}, fitted_on_frame=False, selects_by_name=False, vocabularies={TEXT_COLUMN: words},
            takes_texts=True,
        )  # fmt: skip
    width = getattr(estimator, "n_features_in_", None)
    if width is None:
        raise InvalidInputError(
            f"{source_name} does not tell how many columns it was fitted with (n_features_in_); fit it on a table."
        )
    feature_names = getattr(estimator, "feature_names_in_", None)
    names = (
        tuple(map(str, feature_names)) if feature_names is not None else tuple(f"x{place}" for place in range(width))
    )
    fitted_on_frame = feature_names is not None
    return EstimatorColumns(
        names,
        collect_categories(estimator, names),
        fitted_on_frame=fitted_on_frame,
        selects_by_name=fitted_on_frame and has_column_transformer(estimator),
        vocabularies=collect_vocabularies(estimator, names, source_name),
        gaps={name: value for place in find_text_gaps(estimator, names) for name, value in place.columns.items()},
    )


def is_dropped(part: object) -> bool:
    """Return whether a ColumnTransformer's part drops its columns."""
    return isinstance(part, str) and part == "drop"


def find_text_gaps(estimator: Any, names: Sequence[str]) -> list[TextGap]:  # noqa: ANN401
    """Find the imputers and encoders that are the first to see texts, and know missing ones."""
    first = get_first_part(estimator)
    if isinstance(first, ColumnTransformer):
        return [
            found
            for _, part, which in first.transformers_
            if not is_dropped(part)
            for found in find_text_gaps(part, resolve_columns(which, names))
        ]
    if isinstance(first, SimpleImputer) and np.asarray(first.statistics_).dtype.kind in "OSU":
        return [TextGap(first, "missing_values", "", dict.fromkeys(names, first.missing_values))]
    categories = getattr(first, "categories_", [])
    if len(categories) != len(names) or not all(values.dtype.kind in "OSU" for values in categories):
        return []
    gaps = {
        name: value
        for name, values in zip(names, categories, strict=True)
        for value in values.tolist()
        if is_missing(value)
    }
    filled = [np.array(["" if is_missing(each) else each for each in values], object) for values in categories]
    return [TextGap(first, "categories_", filled, gaps)] if gaps else []


def is_missing(value: Any) -> bool:  # noqa: ANN401 - a category
    """Return whether a category is that of a missing text; NaN differs from itself."""
    return value is None or value != value


def is_text_vectorizer(part: object) -> bool:
    """Return whether a part of an estimator splits whole texts into words."""
    return hasattr(part, "build_analyzer")


def get_first_part(estimator: Any) -> Any:  # noqa: ANN401
    """Return the part of a pipeline that sees the rows first."""
    return get_first_part(estimator.steps[0][1]) if isinstance(estimator, Pipeline) and estimator.steps else estimator


def list_text_vectorizers(estimator: Any) -> list[Any]:  # noqa: ANN401
    """List the parts that split whole texts into words."""
    if is_text_vectorizer(estimator):
        return [estimator]
    return [found for part in get_sub_estimators(estimator) for found in list_text_vectorizers(part)]


def get_vocabulary(vectorizer: Any, source_name: str) -> tuple[str, ...]:  # noqa: ANN401
    """Return what made-up texts consist of: learnt words, those that are left out, and pairs with one in between."""
    words = getattr(vectorizer, "vocabulary_", None)
    if not words:
        raise InvalidInputError(
            f"{source_name} holds a {type(vectorizer).__name__}, which has no vocabulary; a TfidfVectorizer or a "
            "CountVectorizer can be published."
        )
    stop_words = sorted(vectorizer.get_stop_words() or ())[:MAX_STOP_WORDS]
    pairs = [word.replace(" ", f" {stop} ") for stop in stop_words[:1] for word in words if " " in word]
    return (*sorted(words), *stop_words, *pairs)


def collect_vocabularies(
    estimator: Any,  # noqa: ANN401
    names: Sequence[str],
    source_name: str,
) -> dict[str, tuple[str, ...]]:
    """Collect the words that vectorizers have learnt, by column."""
    if isinstance(estimator, Pipeline):
        return collect_vocabularies(estimator.steps[0][1], names, source_name) if estimator.steps else {}
    if not isinstance(estimator, ColumnTransformer):
        return {}
    return {
        name: get_vocabulary(get_first_part(part), source_name)
        for _, part, which in estimator.transformers_
        if is_text_vectorizer(get_first_part(part))
        for name in resolve_columns(which, names)
    }


def remove_idle_steps(estimator: Any) -> Any:  # noqa: ANN401
    """Return a pipeline without the steps that do nothing, which skl2onnx does not take; any other estimator itself."""
    if not isinstance(estimator, Pipeline):
        return estimator
    kept = [(name, step) for name, step in estimator.steps if step is not None and not isinstance(step, str)]
    return Pipeline(kept) if 0 < len(kept) < len(estimator.steps) else estimator


def get_sub_estimators(estimator: Any) -> list[Any]:  # noqa: ANN401
    """Return the estimators that a composite estimator consists of."""
    if isinstance(estimator, Pipeline):
        return [step for _, step in estimator.steps]
    return [part for _, part, _ in estimator.transformers_] if isinstance(estimator, ColumnTransformer) else []


def collect_categories(estimator: Any, names: Sequence[str]) -> dict[str, Array]:  # noqa: ANN401
    """Collect the categories that encoders have learnt, by column."""
    if isinstance(estimator, Pipeline):  # a step before an encoder, such as an imputer, keeps the columns
        found = (collect_categories(step, names) for _, step in estimator.steps)
        return next((categories for categories in found if categories), {})
    if isinstance(estimator, ColumnTransformer):
        parts = [collect_categories(part, resolve_columns(which, names)) for _, part, which in estimator.transformers_]
        return {name: values for part in parts for name, values in part.items()}
    categories = getattr(estimator, "categories_", [])
    return dict(zip(names, categories, strict=True)) if len(categories) == len(names) else {}


def has_column_transformer(estimator: Any) -> bool:  # noqa: ANN401
    """Return whether the estimator treats its columns differently."""
    if isinstance(estimator, Pipeline):
        return any(has_column_transformer(step) for _, step in estimator.steps)
    return isinstance(estimator, ColumnTransformer)


def resolve_columns(selection: Any, names: Sequence[str]) -> list[str]:  # noqa: ANN401 - whatever ColumnTransformer takes
    """Resolve the columns of a ColumnTransformer's selection: names, indices, a slice of indices or a mask."""
    if isinstance(selection, slice) and isinstance(selection.start or selection.stop, str):
        raise InvalidInputError(f"skl2onnx reads no slice of names; give the ColumnTransformer a list for {selection}.")
    if isinstance(selection, str):
        return [selection]
    chosen = selection if isinstance(selection, slice | int) or len(selection) else slice(0)
    if not isinstance(chosen, slice | int) and isinstance(chosen[0], str):
        return list(chosen)
    return [str(name) for name in np.atleast_1d(np.array(names, object)[chosen])]

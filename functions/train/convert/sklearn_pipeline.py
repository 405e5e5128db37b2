"""Convert a fitted scikit-learn estimator or pipeline over a table of numbers and text, using skl2onnx."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import sklearn.base
from skl2onnx import _supported_operators, to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.preprocessing import KBinsDiscretizer

from functions.train.convert import sklearn_boosters
from functions.train.convert.converted_model import ConvertedModel, measure_parity
from functions.train.convert.sklearn_columns import (
    EstimatorColumns,
    detect_columns,
    find_text_gaps,
    get_sub_estimators,
    list_text_vectorizers,
    remove_idle_steps,
)
from functions.train.data import Array
from functions.train.errors import ParityError
from functions.train.export.graph_metadata import strip_metadata
from pilotlight.contracts.manifest import ExportParity
from pilotlight.contracts.processing import (
    ClassificationPostprocessing,
    Postprocessing,
    RegressionPostprocessing,
    TableColumn,
    TablePreprocessing,
)
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.runtime import classifier_graph
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.golden_recorder import Feeds
from pilotlight.runtime.session import open_session

# The default of scikit-learn's vectorizers, and the same for RE2, whose \\w is ASCII alone.
DEFAULT_TOKENS, UNICODE_TOKENS = r"(?u)\b\w\w+\b", r"[\pL\pN_][\pL\pN_]+"
PARITY_ROWS = 64  # random rows, on which graph and estimator must agree
MAX_MESSAGE_LENGTH = 400  # characters of skl2onnx's message, which may contain every number of a forest
OPSET = {"": 20, "ai.onnx.ml": 3}
INPUT_NAME, SCORES_NAME, NUMBERS_NAME = "features", "probabilities_of_classes", "numbers"


def convert_estimator(estimator: Any, source_name: str, target: Path) -> ConvertedModel:  # noqa: ANN401 - scikit-learn ships no types
    """Convert the estimator: a classifier's graph outputs the probabilities of its classes, any other its numbers.

    What comes before boosted trees is computed in float64 if that can be converted: their thresholds are values of the
    training, which another rounding takes to the other side.
    """
    estimator = remove_idle_steps(get_best_estimator(estimator))
    input_columns = detect_columns(estimator, source_name)
    if sklearn_boosters.holds_booster(estimator):
        with suppress(InvalidInputError, ParityError):
            return convert_columns(estimator, replace(input_columns, takes_double=True), source_name, target)
    return convert_columns(estimator, input_columns, source_name, target)


def get_best_estimator(estimator: Any) -> Any:  # noqa: ANN401 - scikit-learn ships no types
    """Return what a search over parameters has fitted in the end, which answers for it; any other as it is."""
    return getattr(estimator, "best_estimator_", estimator)


def convert_columns(
    estimator: Any,  # noqa: ANN401 - scikit-learn ships no types
    input_columns: EstimatorColumns,
    source_name: str,
    target: Path,
) -> ConvertedModel:
    """Convert the estimator over columns of float32 or float64."""
    is_classifier = sklearn.base.is_classifier(estimator)
    if is_classifier and not hasattr(estimator, "predict_proba"):
        raise InvalidInputError(
            f"{source_name} has no predict_proba; a classifier is served with its probabilities: fit it within a "
            "CalibratedClassifierCV."
        )
    rows = build_random_feed(input_columns, PARITY_ROWS)
    if is_classifier:
        check_single_target(estimator, input_columns, rows, source_name)
    onnx.save(
        strip_metadata(convert_to_onnx(estimator, input_columns, source_name, is_classifier=is_classifier)), target
    )
    parity = measure_estimator_parity(
        target,
        lambda feed: compute_expected_answers(estimator, input_columns, feed, is_classifier=is_classifier),
        rows,
        source_name,
        has_texts=bool(input_columns.vocabularies),
    )
    output = open_session(str(target)).outputs[0].name
    postprocess: Postprocessing = (
        ClassificationPostprocessing(output=output, activation="none")
        if is_classifier
        else RegressionPostprocessing(output=output)
    )
    return ConvertedModel(
        graph=target,
        description=f"The scikit-learn {type(estimator).__name__} of `{source_name}`",
        feeds=tuple({name: values[:size] for name, values in rows.items()} for size in (1, 3)),
        parity=parity,
        task="tensor" if input_columns.has_separate_inputs else "tabular",
        preprocess=None if input_columns.has_separate_inputs else build_table_steps(input_columns),
        postprocess=postprocess,
        labels=tuple(map(str, estimator.classes_)) if is_classifier else (),
    )


def measure_estimator_parity(
    graph: Path,
    compute_answers: Callable[[Feeds], dict[str, Array]],
    rows: Feeds,
    source_name: str,
    *,
    has_texts: bool = False,
) -> ExportParity:
    """Measure how far the graph is from the estimator; the errors name the estimator's source."""
    try:
        return measure_parity(graph, compute_answers, (rows,))
    except ParityError as exc:
        reason = (
            "splits texts otherwise than scikit-learn"
            if has_texts
            else "computes in float32 where scikit-learn takes float64, or leaves out a setting of it"
        )
        raise ParityError(f"{source_name}: {exc} skl2onnx {reason}.") from exc
    except ModelRefusedError as exc:
        raise InvalidInputError(f"{source_name} becomes a graph that cannot be served: {exc}") from exc


def build_table_steps(input_columns: EstimatorColumns) -> TablePreprocessing:
    """Build the step that makes one tensor of a row's columns."""
    return TablePreprocessing(input=INPUT_NAME, columns=tuple(TableColumn(name=name) for name in input_columns.names))


def build_random_feed(input_columns: EstimatorColumns, rows: int) -> Feeds:
    """Build random rows as the graph takes them: a tensor for each column, or one for all."""
    samples = input_columns.draw_random_values(rows)
    return (
        samples
        if input_columns.has_separate_inputs
        else {INPUT_NAME: np.concatenate([samples[name] for name in input_columns.names], axis=1)}
    )


def convert_to_onnx(
    estimator: Any,  # noqa: ANN401 - scikit-learn ships no types
    input_columns: EstimatorColumns,
    source_name: str,
    *,
    is_classifier: bool,
) -> onnx.ModelProto:
    """Convert with skl2onnx and keep one output: without the labels, which are in the manifest."""
    options: dict[int, dict[str, object]] = {id(estimator): {"zipmap": False}} if is_classifier else {}
    for vectorizer in list_text_vectorizers(estimator):
        options[id(vectorizer)] = choose_text_options(vectorizer)
    sklearn_boosters.register_boosters()
    if unknown := find_unsupported(estimator):
        raise InvalidInputError(
            f"{source_name} holds a {unknown}, for which skl2onnx has no converter; use one of scikit-learn's own "
            "estimators in its place, or publish a torch module that computes the same."
        )
    try:
        with set_convertible_parameters(estimator, input_columns.names):
            graph = to_onnx(
                estimator,
                initial_types=get_input_types(input_columns),
                target_opset=OPSET,
                options=options or None,
                naming="",
            )
    except Exception as exc:
        raise InvalidInputError(
            f"{source_name}, a {describe_estimator(estimator)}, cannot be converted by skl2onnx: "
            f"{shorten_message(exc)}."
        ) from exc
    onnx_graph = graph.graph
    output_name = onnx_graph.output[-1 if is_classifier else 0].name
    for output in [one for one in onnx_graph.output if one.name != output_name]:
        onnx_graph.output.remove(output)
    input_names = (
        name for name, _ in get_input_types(input_columns)
    )  # skl2onnx renames those that are not identifiers in python
    inputs = zip((one.name for one in onnx_graph.input), input_names, strict=True)
    rename_tensors(
        onnx_graph, {output_name: choose_output_name(input_columns, is_classifier=is_classifier), **dict(inputs)}
    )
    model: onnx.ModelProto = graph
    return model


def choose_text_options(vectorizer: Any) -> dict[str, object]:  # noqa: ANN401 - scikit-learn ships no types
    """Choose the words of a text as scikit-learn finds them, in all alphabets, and a locale that is installed."""
    options: dict[str, object] = {"locale": classifier_graph.LOCALE}
    if vectorizer.token_pattern == DEFAULT_TOKENS and vectorizer.analyzer == "word":
        options["tokenexp"] = UNICODE_TOKENS
    return options


def find_unsupported(estimator: Any) -> str:  # noqa: ANN401 - scikit-learn ships no types
    """Find the name of the first part that skl2onnx does not know; empty if there is none."""
    parts = get_sub_estimators(estimator)
    if not parts and isinstance(estimator, sklearn.base.BaseEstimator):
        return "" if type(estimator) in _supported_operators.sklearn_operator_name_map else type(estimator).__name__
    return next(filter(None, map(find_unsupported, parts)), "")


def describe_estimator(estimator: Any) -> str:  # noqa: ANN401 - scikit-learn ships no types
    """Name an estimator, and the parts of one that has some."""
    parts = [type(part).__name__ for part in get_sub_estimators(estimator) if not isinstance(part, str)]
    return type(estimator).__name__ + (f" of {', '.join(parts)}" if parts else "")


def choose_output_name(input_columns: EstimatorColumns, *, is_classifier: bool) -> str:
    """Choose a name for the graph's output that no column has."""
    name = SCORES_NAME if is_classifier else NUMBERS_NAME
    while name in input_columns.names:
        name += "_"
    return name


@contextmanager
def set_convertible_parameters(estimator: Any, names: Sequence[str]) -> Iterator[None]:  # noqa: ANN401 - no types
    """Set parameters as skl2onnx wants them, for a while; what the graph answers does not depend on them."""
    changes = list(list_convertible_parameters(estimator, names))
    before = [(part, name, getattr(part, name)) for part, name, _ in changes]
    for part, name, value in changes:
        setattr(part, name, value)
    try:
        yield
    finally:
        for part, name, value in before:
            setattr(part, name, value)


def list_convertible_parameters(estimator: Any, names: Sequence[str]) -> Iterator[tuple[Any, str, object]]:  # noqa: ANN401
    """List parts of an estimator with a parameter and its value for skl2onnx, which knows no sparse output.

    A missing text is an empty one for the graph.
    """
    for place in find_text_gaps(estimator, names):
        yield place.part, place.parameter, place.converted
    for part in list_parts(estimator):
        if hasattr(part, "flatten_transform"):
            yield part, "flatten_transform", False
        if isinstance(part, KBinsDiscretizer) and part.encode == "onehot":
            yield part, "encode", "onehot-dense"


def list_parts(estimator: Any) -> list[Any]:  # noqa: ANN401 - scikit-learn ships no types
    """List an estimator and all that it consists of."""
    return [estimator, *(inner for part in get_sub_estimators(estimator) for inner in list_parts(part))]


def get_input_types(input_columns: EstimatorColumns) -> list[tuple[str, Any]]:
    """Return the graph's input types for skl2onnx, [None, 1] by column or [None, width]."""
    numbers = DoubleTensorType if input_columns.takes_double else FloatTensorType
    if not input_columns.has_separate_inputs:
        return [(INPUT_NAME, numbers([None, len(input_columns.names)]))]
    texts = set(input_columns.text_columns)
    return [(name, (StringTensorType if name in texts else numbers)([None, 1])) for name in input_columns.names]


def shorten_message(error: Exception) -> str:
    """Shorten a library's message to its beginning and end, without the tables in it."""
    message = " ".join(str(error).split()).rstrip(".")
    return (
        message
        if len(message) <= MAX_MESSAGE_LENGTH
        else f"{message[: MAX_MESSAGE_LENGTH // 2]} ... {message[-MAX_MESSAGE_LENGTH // 2 :]}"
    )


def rename_tensors(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Rename tensors wherever they are used."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)


def check_single_target(estimator: Any, input_columns: EstimatorColumns, feed: Feeds, source_name: str) -> None:  # noqa: ANN401
    """Refuse a classifier with several targets, whose answers have several shapes and are not scores of classes."""
    answers = call_estimator(estimator.predict, input_columns, feed)
    if answers.ndim > 1 and answers.shape[1] > 1:
        raise InvalidInputError(
            f"{source_name} answers {answers.shape[1]} targets at once; fit an estimator for each, and publish them "
            "apart."
        )


def compute_expected_answers(
    estimator: Any,  # noqa: ANN401 - scikit-learn ships no types
    input_columns: EstimatorColumns,
    feed: Feeds,
    *,
    is_classifier: bool,
) -> dict[str, Array]:
    """Compute scikit-learn's own answer, in the shape of the graph's."""
    name = choose_output_name(input_columns, is_classifier=is_classifier)
    if is_classifier:
        return {name: call_estimator(estimator.predict_proba, input_columns, feed).astype(np.float32)}
    numbers = call_estimator(
        estimator.predict if hasattr(estimator, "predict") else estimator.transform, input_columns, feed
    )
    shape = (-1,) if sklearn.base.is_clusterer(estimator) else (len(numbers), -1)  # a cluster's number, or columns
    return {name: numbers.astype(NUMPY_DTYPES["FP32"]).reshape(shape)}


def call_estimator(method: Callable[[Any], Any], input_columns: EstimatorColumns, feed: Feeds) -> Array:
    """Call a method of the estimator on rows."""
    try:
        answers = method(build_rows(input_columns, feed))
        return np.asarray(answers.toarray() if hasattr(answers, "toarray") else answers)
    except InvalidInputError:
        raise
    except Exception as exc:  # whatever a publisher's own estimator raises
        raise InvalidInputError(
            f"The estimator refuses rows of {list(input_columns.names)} that were made up to compare it with its "
            "graph: "
            f"{shorten_message(exc)}."
        ) from exc


def restore_gaps(values: Array, gaps: Mapping[str, Any], name: str) -> Array:
    """Put into a column, in place of empty texts, what its imputer takes for a missing one."""
    if name not in gaps:
        return values
    return np.array([gaps[name] if value == "" else value for value in values], object)


def build_rows(input_columns: EstimatorColumns, feed: Feeds) -> Any:  # noqa: ANN401 - a DataFrame where columns have names
    """Build the rows as the estimator was fitted on them: numbers in float64, as most are."""
    if input_columns.takes_texts:
        return feed[input_columns.names[0]].ravel()
    columns = (
        [restore_gaps(feed[name].ravel(), input_columns.gaps, name) for name in input_columns.names]
        if input_columns.has_separate_inputs
        else list(feed[INPUT_NAME].astype(np.float64).T)
    )
    if not input_columns.fitted_on_frame:
        return np.stack(
            [column.astype(object) for column in columns] if input_columns.has_separate_inputs else columns, axis=1
        )
    try:
        import pandas  # only needed if fitted on a DataFrame
    except ImportError as exc:
        raise InvalidInputError(
            f"The estimator was fitted on a DataFrame with the columns {list(input_columns.names)}, and is compared "
            "with its graph on such a table; run pip install pandas."
        ) from exc

    pairs = zip(input_columns.names, columns, strict=True)
    return pandas.DataFrame({name: pandas.Series(values, dtype=values.dtype) for name, values in pairs})

"""A fitted scikit-learn estimator or pipeline, over a table of numbers and texts, as a graph by skl2onnx."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import sklearn.base
from skl2onnx import to_onnx
from skl2onnx.common import tree_ensemble
from skl2onnx.common.data_types import FloatTensorType, StringTensorType

from functions.train.convert.converted_model import Model, agreed
from functions.train.convert.sklearn_columns import Columns, columns
from functions.train.data.dataset import Array
from functions.train.errors import ParityError
from functions.train.export.onnx_export import strip
from pilotlight.contracts.processing import Classification, Column, Finish, Regression, Table
from pilotlight.errors import InvalidInputError, ModelRefusedError
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.golden_recorder import Feeds
from pilotlight.runtime.session import open_session

ROWS = 64  # random ones, on which graph and estimator must agree
MOST_WORDS = 400  # letters of what skl2onnx says, which may print every number of a forest
OPSET = {"": 20, "ai.onnx.ml": 3}
INPUT, SCORES, NUMBERS = "features", "probabilities_of_classes", "numbers"


def read(estimator: Any, word: str, target: Path) -> Model:  # noqa: ANN401 - scikit-learn ships no types
    """The estimator as a graph: a classifier gives the probabilities of its classes, anything else its numbers."""
    taken = columns(estimator, word)
    classes = sklearn.base.is_classifier(estimator)
    if classes and not hasattr(estimator, "predict_proba"):
        raise InvalidInputError(f"{word} has no predict_proba; a classifier is served with its probabilities.")
    rows = feeds(taken, ROWS)
    if classes:
        check_target(estimator, taken, rows, word)
    onnx.save(strip(converted(estimator, taken, word, classes=classes)), target)
    try:
        parity = agreed(target, lambda feed: expected(estimator, taken, feed, classes=classes), (rows,))
    except ParityError as exc:
        raise ParityError(f"{word}: {exc} skl2onnx computes in float32 where scikit-learn takes float64.") from exc
    except ModelRefusedError as exc:
        raise InvalidInputError(f"{word} becomes a graph that cannot be served: {exc}") from exc
    output = open_session(str(target)).outputs[0].name
    finish: Finish = Classification(output=output, activation="none") if classes else Regression(output=output)
    return Model(
        graph=target,
        what=f"The scikit-learn {type(estimator).__name__} of `{word}`",
        feeds=tuple({name: values[:size] for name, values in rows.items()} for size in (1, 3)),
        parity=parity,
        task="tensor" if taken.apart else "tabular",
        prepare=None if taken.apart else Table(input=INPUT, columns=tuple(Column(name=name) for name in taken.names)),
        finish=finish,
        labels=tuple(map(str, estimator.classes_)) if classes else (),
    )


def feeds(taken: Columns, rows: int) -> Feeds:
    """Random rows as the graph takes them: a tensor of each column, or one of all."""
    drawn = taken.drawn(rows)
    return drawn if taken.apart else {INPUT: np.concatenate([drawn[name] for name in taken.names], axis=1)}


def converted(estimator: Any, taken: Columns, word: str, *, classes: bool) -> onnx.ModelProto:  # noqa: ANN401
    """skl2onnx's graph with one output: without the labels, which the manifest has."""
    options = {id(estimator): {"zipmap": False}} if classes else None
    try:
        with whole_numbers():
            graph = to_onnx(estimator, initial_types=types(taken), target_opset=OPSET, options=options, naming="")
    except Exception as exc:
        raise InvalidInputError(f"{word} cannot be converted by skl2onnx: {shortened(exc)}.") from exc
    onnx_graph = graph.graph
    keep = onnx_graph.output[-1 if classes else 0].name
    for output in [one for one in onnx_graph.output if one.name != keep]:
        onnx_graph.output.remove(output)
    given = (name for name, _ in types(taken))  # which skl2onnx calls otherwise where they are no words of python
    inputs = zip((one.name for one in onnx_graph.input), given, strict=True)
    renamed(onnx_graph, {keep: answer(taken, classes=classes), **dict(inputs)})
    model: onnx.ModelProto = graph
    return model


def answer(taken: Columns, *, classes: bool) -> str:
    """What the graph's output is called: as no column is."""
    name = SCORES if classes else NUMBERS
    while name in taken.names:
        name += "_"
    return name


@contextmanager
def whole_numbers() -> Iterator[None]:
    """Within, trees of histogram gradient boosting convert: skl2onnx 1.20.0 gives onnx a bool, and it takes numbers."""
    original = tree_ensemble.add_node

    def add_node(*words: Any, nodes_missing_value_tracks_true: object = 0, **more: Any) -> None:  # noqa: ANN401
        original(*words, nodes_missing_value_tracks_true=int(bool(nodes_missing_value_tracks_true)), **more)

    tree_ensemble.add_node = add_node
    try:
        yield
    finally:
        tree_ensemble.add_node = original


def types(taken: Columns) -> list[tuple[str, Any]]:
    """The graph's inputs as skl2onnx is told of them, [None, 1] by column or [None, width]."""
    if not taken.apart:
        return [(INPUT, FloatTensorType([None, len(taken.names)]))]
    texts = set(taken.texts)
    return [(name, (StringTensorType if name in texts else FloatTensorType)([None, 1])) for name in taken.names]


def shortened(error: Exception) -> str:
    """What a library says, without the tables that it prints: the first words and the last."""
    said = " ".join(str(error).split()).rstrip(".")
    return said if len(said) <= MOST_WORDS else f"{said[: MOST_WORDS // 2]} ... {said[-MOST_WORDS // 2 :]}"


def renamed(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Other names for tensors, wherever they are used."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)


def check_target(estimator: Any, taken: Columns, feed: Feeds, word: str) -> None:  # noqa: ANN401
    """Refuse a classifier of several targets, whose answers have several shapes, none of them scores of classes."""
    answers = asked(estimator.predict, taken, feed)
    if answers.ndim > 1:
        raise InvalidInputError(
            f"{word} answers {answers.shape[1]} targets at once; fit an estimator for each, and publish them apart."
        )


def expected(estimator: Any, taken: Columns, feed: Feeds, *, classes: bool) -> dict[str, Array]:  # noqa: ANN401
    """scikit-learn's own answer, in the shape of the graph's."""
    name = answer(taken, classes=classes)
    if classes:
        return {name: asked(estimator.predict_proba, taken, feed).astype(np.float32)}
    numbers = asked(estimator.predict if hasattr(estimator, "predict") else estimator.transform, taken, feed)
    shape = (-1,) if sklearn.base.is_clusterer(estimator) else (len(numbers), -1)  # a cluster's number, or columns
    return {name: numbers.astype(NUMPY_DTYPES["FP32"]).reshape(shape)}


def asked(method: Callable[[Any], Any], taken: Columns, feed: Feeds) -> Array:
    """What a method of the estimator answers to rows."""
    try:
        return np.asarray(method(table(taken, feed)))
    except (ValueError, TypeError) as exc:
        raise InvalidInputError(
            f"The estimator refuses rows of {list(taken.names)} that were made up to compare it with its graph: "
            f"{shortened(exc)}."
        ) from exc


def table(taken: Columns, feed: Feeds) -> Any:  # noqa: ANN401 - a DataFrame where columns have names
    """The rows as the estimator was fitted on them: numbers in float64, as most are."""
    columns = [feed[name].ravel() for name in taken.names] if taken.apart else list(feed[INPUT].astype(np.float64).T)
    if not taken.framed:
        return np.stack([column.astype(object) for column in columns] if taken.apart else columns, axis=1)
    import pandas  # only what was fitted on a DataFrame needs it, and then it is there

    return pandas.DataFrame(dict(zip(taken.names, columns, strict=True)))

"""A fitted scikit-learn estimator or pipeline, over a table of numbers, as a graph by skl2onnx."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import sklearn.base
from skl2onnx import to_onnx
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from functions.train.data import Array
from functions.train.errors import ParityError
from functions.train.export import strip
from functions.train.intake.model import Feeds, Model, agreed
from pilotlight.errors import InvalidInputError
from pilotlight.runtime.datatypes import NUMPY_DTYPES
from pilotlight.runtime.session import open_session
from pilotlight.steps import Classification, Column, Finish, Regression, Table

ROWS = 64  # random ones, on which graph and estimator must agree
OPSET = {"": 20, "ai.onnx.ml": 3}
INPUT, SCORES, NUMBERS = "features", "probabilities_of_classes", "numbers"


def read(estimator: Any, word: str, target: Path) -> Model:  # noqa: ANN401 - scikit-learn ships no types
    """The estimator as a graph: a classifier gives the probabilities of its classes, anything else its numbers."""
    width, names = columns(estimator, word)
    classes = sklearn.base.is_classifier(estimator)
    if classes and not hasattr(estimator, "predict_proba"):
        raise InvalidInputError(f"{word} has no predict_proba; a classifier is served with its probabilities.")
    random = np.random.default_rng(0).standard_normal((ROWS, width)).astype(np.float32)
    graph = converted(estimator, random, word, classes=classes)
    onnx.save(strip(graph), target)
    rows = {INPUT: random}
    try:
        parity = agreed(target, lambda feed: expected(estimator, feed, classes=classes), (rows,))
    except ParityError as exc:
        raise ParityError(f"{word}: {exc} skl2onnx computes in float32 where scikit-learn takes float64.") from exc
    feeds = ({INPUT: random[:1]}, {INPUT: random[:3]})
    output = open_session(str(target)).outputs[0].name
    finish: Finish = Classification(output=output, activation="none") if classes else Regression(output=output)
    return Model(
        graph=target,
        what=f"The scikit-learn {type(estimator).__name__} of `{word}`",
        feeds=feeds,
        parity=parity,
        task="tabular",
        prepare=Table(input=INPUT, columns=tuple(Column(name=name) for name in names)),
        finish=finish,
        labels=tuple(map(str, estimator.classes_)) if classes else (),
    )


def columns(estimator: Any, word: str) -> tuple[int, list[str]]:  # noqa: ANN401 - scikit-learn ships no types
    """How many columns it takes, and their names if it was fitted with some."""
    try:
        check_is_fitted(estimator)
    except NotFittedError as exc:
        raise InvalidInputError(f"{word} is not fitted; call fit before it is published.") from exc
    width = getattr(estimator, "n_features_in_", None)
    if width is None:
        raise InvalidInputError(f"{word} does not tell how many columns it was fitted with (n_features_in_).")
    return width, list(getattr(estimator, "feature_names_in_", [f"x{place}" for place in range(width)]))


def converted(estimator: Any, rows: Array, word: str, *, classes: bool) -> onnx.ModelProto:  # noqa: ANN401
    """skl2onnx's graph with one output: without the labels, which the manifest has."""
    options = {"zipmap": False} if classes else None
    try:
        graph = to_onnx(
            estimator, rows[:1], target_opset=OPSET, options={id(estimator): options} if options else None, naming=""
        )
    except Exception as exc:
        said = " ".join(str(exc).split())[:300].rstrip(".")
        raise InvalidInputError(f"{word} cannot be converted by skl2onnx: {said}.") from exc
    onnx_graph = graph.graph
    keep = onnx_graph.output[-1 if classes else 0].name
    for output in [one for one in onnx_graph.output if one.name != keep]:
        onnx_graph.output.remove(output)
    renamed(onnx_graph, {onnx_graph.input[0].name: INPUT, keep: SCORES if classes else NUMBERS})
    model: onnx.ModelProto = graph
    return model


def renamed(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Other names for tensors, wherever they are used."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)


def expected(estimator: Any, feed: Feeds, *, classes: bool) -> dict[str, Array]:  # noqa: ANN401
    """scikit-learn's own answer, in the shape of the graph's."""
    rows = feed[INPUT]
    if classes:
        return {SCORES: np.asarray(estimator.predict_proba(rows), np.float32)}
    numbers = estimator.predict(rows) if hasattr(estimator, "predict") else estimator.transform(rows)
    return {NUMBERS: np.asarray(numbers, NUMPY_DTYPES["FP32"]).reshape(len(rows), -1)}

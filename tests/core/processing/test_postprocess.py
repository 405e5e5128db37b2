"""Answers in the caller's words: labels and probabilities, numbers in their own unit, one vector for each text."""

import json
from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
import pytest

from pilotlight import processing
from pilotlight.api import mlflow
from pilotlight.contracts.manifest import TensorSpec
from pilotlight.contracts.processing import (
    ClassificationPostprocessing,
    EmbeddingPostprocessing,
    Postprocessing,
    RegressionPostprocessing,
)
from pilotlight.errors import InvalidInputError
from pilotlight.processing.classification import build_label_outputs
from pilotlight.processing.signature import list_signatures
from pilotlight.runtime.datatypes import Array
from tests import fakes

Pooling: TypeAlias = Literal["mean", "cls", "max"]
SCORES = np.array([[1.0, 3.0, 2.0], [0.0, -1000.0, 1000.0]], np.float32)
TOKENS = np.array([[[1, 2], [3, 6], [100, 100]], [[5, 0], [7, 2], [9, 4]]], np.float32)
MASK = np.array([[1, 1, 0], [1, 1, 1]], np.int64)


def finished(
    postprocess: Postprocessing, answer: Array, *wanted: str, labels: tuple[str, ...] = (), **feeds: Array
) -> Mapping[str, Array]:
    shape = ("batch", *answer.shape[1:])
    manifest = fakes.stepped(None, postprocess, (fakes.ROW[0], (TensorSpec("y", "FP32", shape),)), labels)
    names = wanted or postprocess.output_names
    assert processing.select_graph_outputs(manifest, names) == ["y"]
    return processing.postprocess_outputs(manifest, {"y": answer}, feeds, names)


def test_the_best_class_and_its_probability() -> None:
    found = finished(ClassificationPostprocessing(output="y"), SCORES, labels=("a", "b", "c"))
    assert found["label"].tolist() == ["b", "c"]
    np.testing.assert_allclose(found["probability"], [np.exp(3) / np.exp([1, 2, 3]).sum(), 1], rtol=1e-6)
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, rtol=1e-6)
    assert found["probabilities"].dtype == found["probability"].dtype == np.float32


def test_the_best_few_in_order() -> None:
    found = finished(ClassificationPostprocessing(output="y", top=2), SCORES, labels=("a", "b", "c"))
    assert found["label"].tolist() == [["b", "c"], ["c", "a"]]
    assert (np.diff(found["probability"], axis=1) <= 0).all()
    assert finished(ClassificationPostprocessing(output="y", top=9), SCORES)["label"].shape == (2, 3)


def test_several_labels_reach_a_threshold_or_none_does() -> None:
    scores = np.array([[2.0, -2.0, 3.0], [-9.0, -9.0, -9.0], [-9.0, 0.0, -9.0]], np.float32)
    steps = ClassificationPostprocessing(output="y", activation="sigmoid", threshold=0.5)
    found = finished(steps, scores, labels=("a", "b", "c"))
    assert found["label"].tolist() == [["c", "a"], ["", ""], ["b", ""]]
    np.testing.assert_allclose(found["probability"], [[0.952574, 0.880797], [0.0, 0.0], [0.5, 0.0]], rtol=1e-5)
    assert (found["count"].tolist(), found["count"].dtype) == ([2, 0, 1], np.int32)
    assert finished(steps, scores[1:2])["label"].shape == (1, 0)


def test_several_labels_are_described_and_listed_by_example() -> None:
    steps = ClassificationPostprocessing(output="y", activation="none", threshold=0.5)
    of = (fakes.ROW[0], (TensorSpec("y", "FP32", ("batch", 3)),))
    manifest = fakes.stepped(None, steps, of, ("a", "b", "c"))
    outputs = list_signatures(manifest)[0].outputs
    assert [(spec.name, spec.v2_shape) for spec in outputs] == [
        ("label", [-1, -1]),
        ("probability", [-1, -1]),
        ("count", [-1]),
    ]
    scores = np.array([[0.75, 0.1, 0.5], [0, 0, 0]], np.float32)
    found = processing.postprocess_outputs(manifest, {"y": scores}, {}, [spec.name for spec in outputs])
    answer = mlflow.encode_response(manifest, {spec.name: found[spec.name] for spec in outputs}).body
    assert json.loads(answer)["predictions"] == [
        [{"label": "a", "probability": 0.75}, {"label": "c", "probability": 0.5}],
        [],
    ]


def test_classes_without_labels_are_called_by_their_index() -> None:
    assert finished(ClassificationPostprocessing(output="y"), SCORES)["label"].tolist() == ["1", "2"]


def test_sigmoid_takes_each_class_by_itself() -> None:
    found = finished(ClassificationPostprocessing(output="y", activation="sigmoid"), SCORES)["probabilities"]
    np.testing.assert_allclose(found[0], 1 / (1 + np.exp(-SCORES[0])), rtol=1e-6)
    assert found[1].tolist() == [0.5, 0, 1]  # and does not overflow


def test_one_score_for_two_labels_is_the_seconds() -> None:
    score = np.array([[2.0], [-2.0]], np.float32)
    found = finished(ClassificationPostprocessing(output="y", activation="sigmoid"), score, labels=("no", "yes"))
    assert found["label"].tolist() == ["yes", "no"]
    assert found["probabilities"].shape == (2, 2)


def test_probabilities_of_the_graph_stay() -> None:
    found = finished(ClassificationPostprocessing(output="y", activation="none"), np.array([[0.25, 0.75]], np.float32))
    assert found["probability"].tolist() == [0.75]


def test_numbers_in_their_own_unit() -> None:
    found = finished(
        RegressionPostprocessing(output="y", mean=(10.0,), deviation=(2.0,)), np.array([[1.5], [-1]], np.float32)
    )
    assert found["prediction"].tolist() == [13, 8]
    several = finished(
        RegressionPostprocessing(output="y", mean=(1.0, 2.0), deviation=(1.0, 10.0)), np.ones((1, 2), np.float32)
    )
    assert several["prediction"].tolist() == [[2, 12]]


@pytest.mark.parametrize(
    ("pooling", "wanted"), [("mean", [[2, 4], [7, 2]]), ("max", [[3, 6], [9, 4]]), ("cls", [[1, 2], [5, 0]])]
)
def test_tokens_are_pooled_under_the_mask(pooling: Pooling, wanted: list[list[float]]) -> None:
    steps = EmbeddingPostprocessing(output="y", pooling=pooling, normalise=False)
    assert finished(steps, TOKENS, attention_mask=MASK)["embedding"].tolist() == wanted


def test_padding_in_front_is_passed_over() -> None:
    steps = EmbeddingPostprocessing(output="y", pooling="cls", normalise=False)
    assert finished(steps, TOKENS, attention_mask=MASK[:, ::-1])["embedding"].tolist() == [[3, 6], [5, 0]]


def test_vectors_get_length_one() -> None:
    found = finished(EmbeddingPostprocessing(output="y"), TOKENS, attention_mask=MASK)["embedding"]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    assert finished(EmbeddingPostprocessing(output="y"), np.zeros((1, 2), np.float32))["embedding"].tolist() == [[0, 0]]


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_without_any_token_the_vector_is_zero(pooling: Pooling) -> None:
    found = finished(EmbeddingPostprocessing(output="y", pooling=pooling), TOKENS, attention_mask=np.zeros_like(MASK))
    assert found["embedding"].tolist() == [[0, 0], [0, 0]]


def test_the_graphs_own_output_is_not_finished() -> None:
    assert set(finished(ClassificationPostprocessing(output="y"), SCORES, "y")) == {"y"}


def test_a_finish_must_fit_the_graph() -> None:
    with pytest.raises(InvalidInputError, match=r"finishes the output 'logits', but the graph has \['y'\]"):
        fakes.stepped(None, ClassificationPostprocessing(output="logits"))
    with pytest.raises(InvalidInputError, match=r"gives outputs \['y'\], some named as the graph's"):
        fakes.stepped(None, RegressionPostprocessing(output="y", name="y"))
    with pytest.raises(InvalidInputError, match="has 2 labels, but the graph's 'y' has 3 classes"):
        fakes.stepped(None, ClassificationPostprocessing(output="y"), labels=("a", "b"))


def test_logarithms_of_probabilities_become_probabilities() -> None:
    steps = ClassificationPostprocessing(output="y", activation="exp")
    found = build_label_outputs(steps, ("a", "b"), np.log(np.array([[0.25, 0.75]])))
    assert found["label"].tolist() == ["b"]
    assert found["probabilities"].round(6).tolist() == [[0.25, 0.75]]

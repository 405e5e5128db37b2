"""A request as features: the same whichever way it was sent, and as the training job describes its data."""

from typing import Any

import msgspec
import numpy as np
import pytest

from pilotlight import processing
from pilotlight.capture.features import Feature, extract_answer_features, extract_request_features, is_batched
from pilotlight.contracts.manifest import ManifestDraft, TensorSpec
from pilotlight.contracts.processing import (
    AudioPreprocessing,
    ClassificationPostprocessing,
    EmbeddingPostprocessing,
    ImagePreprocessing,
    RegressionPostprocessing,
    StateInput,
    TableColumn,
    TablePreprocessing,
    TextPreprocessing,
)
from tests import fakes

TABLE = TablePreprocessing(
    input="x",
    columns=(
        TableColumn(name="age", mean=40, deviation=10, missing=40.0),
        TableColumn(name="colour", categories=("red", "blue")),
    ),
)
WIDE = (TensorSpec("x", "FP32", ("batch", 3)),), (TensorSpec("y", "FP32", ("batch", 3)),)


def values(found: list[Feature]) -> dict[str, list[Any]]:
    return {feature.name: feature.values.tolist() for feature in found}


def test_a_table_is_its_columns_with_what_is_missing() -> None:
    manifest = fakes.stepped(TABLE, of=WIDE)
    tensors = {"age": np.array([33.0, np.nan]), "colour": np.array(["red", "blue"], object)}
    found = values(extract_request_features(manifest, tensors, processing.preprocess_inputs(manifest, tensors)))
    assert found["age"] == pytest.approx([33.0, np.nan], nan_ok=True)
    assert found["colour"] == ["red", "blue"]


def test_the_graphs_own_rows_are_told_as_the_columns_they_are_made_of() -> None:
    manifest = fakes.stepped(TABLE, of=WIDE)
    tensors = {"age": np.array([33.0, 51.0]), "colour": np.array(["red", "blue"], object)}
    feeds = processing.preprocess_inputs(manifest, tensors)
    raw = values(extract_request_features(manifest, feeds, feeds))
    assert raw["age"] == pytest.approx([33, 51], abs=1e-5)
    assert raw["colour"] == ["red", "blue"]
    table = {"table": np.array([[33.0, "red"], [51.0, "blue"]], object)}
    assert values(extract_request_features(manifest, table, processing.preprocess_inputs(manifest, table))) == {
        "age": [33.0, 51.0],
        "colour": ["red", "blue"],
    }


def test_an_index_that_is_no_categorys_is_missing() -> None:
    steps = TablePreprocessing(input="x", columns=(TableColumn(name="c", categories=("a", "b"), encoding="index"),))
    manifest = fakes.stepped(steps, of=((TensorSpec("x", "FP32", ("batch", 1)),), WIDE[1]))
    feeds = {"x": np.array([[0], [1], [7], [-1], [np.nan]], np.float32)}
    assert values(extract_request_features(manifest, feeds, feeds)) == {"c": ["a", "b", None, None, None]}


def test_few_numbers_are_told_one_by_one_and_many_in_summary() -> None:
    feeds = {"x": np.array([[1, 2, 3]], np.float32)}
    assert values(extract_request_features(fakes.draft(), {}, feeds)) == {"x[0]": [1.0], "x[1]": [2.0], "x[2]": [3.0]}
    wide = (TensorSpec("x", "FP32", ("batch", 100)),)
    row = np.arange(100, dtype=np.float32)[None]
    found = values(extract_request_features(fakes.draft(inputs=wide), {}, {"x": row}))
    assert found == {
        "x mean": [row.mean()],
        "x spread": [pytest.approx(row.std())],
        "x least": [0.0],
        "x most": [99.0],
        "x roughness": [1.0],
    }


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (2, 3, 4, 5)), ("NHWC", (2, 4, 5, 3))])
def test_images_are_told_by_channel_in_either_layout(layout: Any, shape: tuple[int, ...]) -> None:  # noqa: ANN401
    spec = TensorSpec("x", "FP32", ("batch", *shape[1:]))
    manifest = fakes.stepped(ImagePreprocessing(input="x", layout=layout), of=((spec,), WIDE[1]))
    images = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    found = values(extract_request_features(manifest, {}, {"x": images}))
    first = images[:, 0] if layout == "NCHW" else images[..., 0]
    assert found["x mean[0]"] == pytest.approx(first.reshape(2, -1).mean(axis=1).tolist())
    assert len(found) == 5 + 2 * 3
    across = np.abs(np.diff(images, axis=-1 if layout == "NCHW" else 2)).reshape(2, -1).mean(axis=1)
    assert found["x roughness"] == pytest.approx(across.tolist(), rel=1e-5)


def test_texts_are_told_by_their_tokens_without_padding() -> None:
    ids = tuple(TensorSpec(name, "INT64", ("batch", "tokens")) for name in ("input_ids", "attention_mask"))
    feeds = {"input_ids": np.array([[5, 5, 9, 0]]), "attention_mask": np.array([[1, 1, 1, 0]])}
    manifest = fakes.stepped(TextPreprocessing(), of=(ids, WIDE[1]))
    found = extract_request_features(manifest, {}, feeds)
    assert {feature.name: feature.values[0] for feature in found} == pytest.approx(
        {"rarity of tokens": np.log([6, 6, 10]).mean(), "tokens": 3, "different tokens": 2 / 3}
    )
    assert all("text" in feature.field_names for feature in found)
    language_model = fakes.draft(inputs=ids[:1])
    assert [
        feature.name for feature in extract_request_features(language_model, {}, {"input_ids": np.array([[5]])})
    ] == ["rarity of tokens"]


def test_a_model_with_a_state_is_told_as_one_example() -> None:
    samples, state = TensorSpec("x", "FP32", ("batch", "time")), TensorSpec("state", "FP32", ("batch", 2))
    output = TensorSpec("next", "FP32", ("batch", 2))
    steps = AudioPreprocessing(input="x", rate=8000, window=50, states=(StateInput(input="state", output="next"),))
    manifest = fakes.stepped(steps, of=((samples, state), (output,)))
    feeds = {"x": np.ones((7, 50), np.float32), "state": np.zeros((1, 2), np.float32)}
    found = extract_request_features(manifest, {}, feeds)
    assert {len(feature.values) for feature in found} == {1}


def test_bytes_are_never_told() -> None:
    spec = TensorSpec("x", "BYTES", ("batch",))
    assert extract_request_features(fakes.draft(inputs=(spec,)), {}, {"x": np.array([b"secret"], object)}) == []


def test_answers_are_classes_with_scores() -> None:
    postprocess = ClassificationPostprocessing(output="y")
    manifest = fakes.stepped(None, postprocess, labels=("a", "b", "c"))
    logits = {"y": np.array([[0, 2, 1], [9, 0, 0]], np.float32)}
    found = values(extract_answer_features(manifest, logits))
    assert found["class"] == ["b", "a"]
    assert found["probability"] == pytest.approx([np.exp(2) / np.exp([0, 2, 1]).sum(), 1.0], abs=1e-3)
    plain = fakes.stepped(None, labels=("a", "b", "c"))
    assert values(extract_answer_features(plain, logits)) == {"class": ["b", "a"], "score": [2.0, 9.0]}


def test_answers_are_numbers_in_their_own_unit() -> None:
    one = (WIDE[0], (TensorSpec("y", "FP32", ("batch", 1)),))
    manifest = fakes.stepped(None, RegressionPostprocessing(output="y", mean=(100.0,), deviation=(10.0,)), of=one)
    assert values(extract_answer_features(manifest, {"y": np.array([[1.0], [-1]], np.float32)})) == {
        "prediction": [110.0, 90.0]
    }
    assert values(extract_answer_features(fakes.draft(), {"y": np.array([[1, 2, 3]], np.float32)})) == {
        "y[0]": [1.0],
        "y[1]": [2.0],
        "y[2]": [3.0],
    }


def test_answers_that_are_vectors_are_told_by_length_mean_and_spread() -> None:
    long = (WIDE[0], (TensorSpec("y", "FP32", ("batch", 32)),))
    manifest = fakes.stepped(None, EmbeddingPostprocessing(output="y"), of=long)
    found = values(extract_answer_features(manifest, {"y": np.full((1, 32), 2, np.float32)}))
    assert found == {"y length": [pytest.approx(2 * 32**0.5)], "y mean": [2.0], "y spread": [0.0]}


def test_an_answer_that_was_not_computed_is_not_told() -> None:
    assert extract_answer_features(fakes.draft(), {}) == []


def test_a_graph_without_a_batch_has_one_example() -> None:
    fixed: ManifestDraft = msgspec.structs.replace(fakes.draft(), inputs=(TensorSpec("x", "FP32", (3,)),))
    assert not is_batched(fixed)
    assert values(extract_request_features(fixed, {}, {"x": np.array([1, 2, 3], np.float32)})) == {
        "x[0]": [1.0],
        "x[1]": [2.0],
        "x[2]": [3.0],
    }


def test_bf16_is_told_as_the_numbers_that_its_bits_are() -> None:
    ends = tuple((TensorSpec(name, "BF16", ("batch", 2)),) for name in "xy")
    bits = (np.array([[1.5, -2]], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    draft = fakes.draft(inputs=ends[0], outputs=ends[1])
    assert values(extract_request_features(draft, {}, {"x": bits})) == {"x[0]": [1.5], "x[1]": [-2.0]}
    assert values(extract_answer_features(draft, {"y": bits})) == {"y[0]": [1.5], "y[1]": [-2.0]}

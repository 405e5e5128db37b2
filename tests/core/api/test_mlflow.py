"""Every form of MLflow's scoring protocol, as mlflow/pyfunc/scoring_server reads them."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from msgspec.structs import replace

from pilotlight.api import compression, mlflow
from pilotlight.contracts.manifest import Manifest, ManifestFile, Standardization, TensorSpec
from pilotlight.contracts.processing import TableColumn, TablePreprocessing
from pilotlight.errors import InvalidInputError, PilotlightError, UnsupportedTypeError
from pilotlight.registry.registry import build_manifest
from pilotlight.runtime.datatypes import Array
from tests import fakes

JSON = {"content-type": "application/json; charset=utf-8"}
CSV = {"content-type": "text/csv"}


def manifest(*inputs: TensorSpec, features: tuple[str, ...] = ()) -> Manifest:
    scaling = Standardization(features, (0.0,) * len(features), (1.0,) * len(features)) if features else None
    draft = replace(fakes.draft(inputs=inputs), input_standardization=scaling)
    return build_manifest(draft, (ManifestFile("model.onnx", 1, "0" * 64),))


TABLE = manifest(TensorSpec("x", "FP32", ("batch", 3)), features=("a", "b", "c"))
IMAGE = manifest(TensorSpec("image", "FP32", ("batch", 1, 2, 2)))
PAIR = manifest(TensorSpec("left", "INT64", ("batch",)), TensorSpec("right", "BYTES", ("batch", 1)))


def decode(body: object, model: Manifest = TABLE) -> dict[str, list[Any]]:
    read = mlflow.decode_request(json.dumps(body).encode(), JSON, model)
    return {name: array.tolist() for name, array in read.items()}


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, 3], [4, 5, 6]]}},
        {"dataframe_split": {"index": [7, 8], "columns": ["c", "a", "b"], "data": [[3, 1, 2], [6, 4, 5]]}},
        {"dataframe_split": {"data": [[1, 2, 3], [4, 5, 6]]}},
        {"dataframe_split": {"columns": [0, 1, 2], "data": [[1, 2, 3], [4, 5, 6]]}},
        {"dataframe_split": {"columns": ["x"], "data": [[[1, 2, 3]], [[4, 5, 6]]]}},
        {"dataframe_records": [{"a": 1, "b": 2, "c": 3}, {"b": 5, "a": 4, "c": 6}]},
        {"dataframe_records": [{"x": [1, 2, 3]}, {"x": [4, 5, 6]}]},
        {"instances": [[1, 2, 3], [4, 5, 6]]},
        {"instances": [{"x": [1, 2, 3]}, {"x": [4, 5, 6]}]},
        {"inputs": [[1, 2, 3], [4, 5, 6]], "params": {"temperature": 1}},
        {"inputs": {"x": [[1, 2, 3], [4, 5, 6]]}},
        {"inputs": [{"a": 1, "b": 2, "c": 3}, {"a": 4, "b": 5, "c": 6}]},
        {"inputs": {"c": [3, 6], "b": [2, 5], "a": [1, 4]}},
    ],
)
def test_every_form_of_a_table_means_the_same(body: object) -> None:
    assert decode(body) == {"x": [[1, 2, 3], [4, 5, 6]]}


def test_csv_names_its_columns() -> None:
    text = '\ufeff"c",a,b\r\n3,1,2\r\n6e0,,5\r\n'.encode()
    found = mlflow.decode_request(text, CSV, TABLE)["x"]
    np.testing.assert_array_equal(found, np.array([[1, 2, 3], [np.nan, 5, 6]], np.float32))


@pytest.mark.parametrize("word", ["", " ", "NaN", "nan", "NA", "N/A", "null", "NULL", "None", "<NA>", " NaN "])
def test_cells_of_numbers_read_as_by_pandas(word: str) -> None:
    found = mlflow.decode_request(f"a,b,c\n1,{word}, 3\n".encode(), CSV, TABLE)["x"]
    np.testing.assert_array_equal(found, np.array([[1, np.nan, 3]], np.float32))


def test_a_nan_is_an_empty_cell() -> None:
    """As json.dumps of mlflow's own client writes the data frame of a user."""
    split = json.dumps({"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, math.nan, 3]]}})
    found = mlflow.decode_request(split.encode(), JSON, TABLE)["x"]
    np.testing.assert_array_equal(found, np.array([[1, np.nan, 3]], np.float32))
    with pytest.raises(InvalidInputError, match="no Infinity"):
        mlflow.decode_request(b'{"inputs": [[NaN, Infinity, 1]]}', JSON, TABLE)
    with pytest.raises(InvalidInputError, match="not an object with one of"):
        mlflow.decode_request(b"[NaN]", JSON, TABLE)
    with pytest.raises(InvalidInputError, match=r"Expected `int`, got `null`"):
        mlflow.decode_request(b'{"inputs": {"left": [NaN], "right": [["one"]]}}', JSON, PAIR)


def test_a_text_may_be_missing_where_the_model_takes_that() -> None:
    columns = (TableColumn(name="age", missing=0.0), TableColumn(name="port", categories=("a", "b"), missing="a"))
    records = fakes.stepped(
        TablePreprocessing(input="x", columns=columns), of=((TensorSpec("x", "FP32", ("batch", 2)),), fakes.ROW[1])
    )
    expected = {"age": [None, 2.0], "port": ["b", None]}
    rows = b'{"dataframe_records": [{"age": NaN, "port": "b"}, {"age": 2, "port": NaN}]}'
    for body, headers in ((rows, JSON), (b"age,port\nNaN,b\n2,\n", CSV)):
        found = mlflow.decode_request(body, headers, records)
        assert {name: [None if v != v else v for v in array.tolist()] for name, array in found.items()} == expected


def test_an_empty_text_is_a_text() -> None:
    words = manifest(TensorSpec("text", "BYTES", ("batch",)))
    assert mlflow.decode_request(b'text,\n"",\nNaN,\n', CSV, manifest(TensorSpec("x", "BYTES", ("n", 2))))[
        "x"
    ].tolist() == [
        ["", ""],
        ["NaN", ""],
    ]
    assert mlflow.decode_request(b'text\n""\nnull\n', CSV, words)["text"].tolist() == ["", "null"]


def test_truth_values_are_numbers_where_the_column_is_one() -> None:
    """As they were in training, where a CSV's true and a DataFrame's True became 1."""
    model = manifest(TensorSpec("flag", "FP32", ("batch",)), TensorSpec("word", "BYTES", ("batch",)))
    expected = {"flag": [1, 0, 1], "word": ["true", "x", "y"]}
    assert decode({"inputs": {"flag": [True, False, 1], "word": ["true", "x", "y"]}}, model) == expected
    found = mlflow.decode_request(b"flag,word\nTrue,true\nFALSE,x\n1,y\n", CSV, model)
    assert {name: array.tolist() for name, array in found.items()} == expected
    with pytest.raises(InvalidInputError, match="'flag' is not FP32"):
        decode({"inputs": {"flag": ["true"], "word": ["x"]}}, model)
    with pytest.raises(InvalidInputError, match="'flag' is not FP32"):
        mlflow.decode_request(b"flag,word\nyes,x\n", CSV, model)


def test_several_inputs_are_columns() -> None:
    expected = {"left": [1, 2], "right": [["one"], ["two"]]}
    assert decode({"inputs": {"left": [1, 2], "right": [["one"], ["two"]]}}, PAIR) == expected
    assert decode({"dataframe_records": [{"left": 1, "right": "one"}, {"left": 2, "right": "two"}]}, PAIR) == expected
    read = mlflow.decode_request(b"left,right\n1,one\n2,two\n", CSV, PAIR)
    assert {name: array.tolist() for name, array in read.items()} == expected


@pytest.mark.parametrize(
    "body",
    [{"instances": [[1, 2, 3, 4]]}, {"inputs": [[[[1, 2], [3, 4]]]]}, {"dataframe_split": {"data": [[1, 2, 3, 4]]}}],
)
def test_flat_rows_take_the_models_dimensions(body: object) -> None:
    assert decode(body, IMAGE) == {"image": [[[[1, 2], [3, 4]]]]}


def test_null_is_a_missing_number() -> None:
    assert np.isnan(decode({"instances": [[1, None, 3]]})["x"][0][1])


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({}, "exactly one of dataframe_split, dataframe_records, instances, inputs; it has nothing"),
        ({"columns": [], "data": []}, r"it has \['columns', 'data'\]"),
        ({"inputs": [], "instances": []}, "it has instances and inputs"),
        ({"messages": [], "model": "x"}, "language models answer under /v1"),
        ([], "not an object"),
        ({"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2]]}}, "Row 0 has 2 values, but there are 3"),
        ({"dataframe_split": {"columns": ["a", "b", "a"], "data": [[1, 2, 3]]}}, "name one twice"),
        ({"dataframe_split": {"columns": ["a", "b", "q"], "data": [[1, 2, 3]]}}, r"missing \['c'\], not known \['q'\]"),
        ({"dataframe_split": []}, "'dataframe_split' does not read"),
        ({"dataframe_records": [{"a": 1, "b": 2, "c": 3}, {"a": 1, "d": 4}]}, r"missing \[\], not known \['d'\]"),
        ({"dataframe_records": []}, r"has the inputs \['x'\]; the body has \[\]"),
        ({"instances": []}, "'instances' does not read"),
        ({"instances": [{"x": 1}, 2]}, "Row 1 is 2"),
        ({"inputs": {"x": [[1, 2, 3]], "y": [1]}}, r"has the inputs \['x'\]; the body has \['x', 'y'\]"),
        ({"inputs": {"a": [1], "b": [2], "c": [3, 4]}}, "columns differ in length: {'a': 1, 'b': 1, 'c': 2}"),
        ({"inputs": [[1, "two", 3]]}, "'x' is not FP32"),
        ({"inputs": [[1, 2, 3], [1]]}, "ragged"),
        ({"inputs": [[1, 2, 1e39]]}, "Expected `float` <= 3.4"),
        ({"inputs": None}, "'inputs' does not read"),
    ],
)
def test_what_is_wrong_is_said(body: object, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        decode(body)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({"instances": [[1, 2]]}, r"has the inputs \['left', 'right'\]; give values by those names"),
        ({"inputs": {"left": [1]}}, r"the body has \['left'\]"),
        ({"inputs": {"left": [1.5], "right": [["a"]]}}, "'left' is not INT64"),
        ({"inputs": {"left": [None], "right": [["a"]]}}, "'left' is not INT64"),
        ({"inputs": {"left": [2**63], "right": [["a"]]}}, "'left' is not INT64"),
    ],
)
def test_what_is_wrong_with_several_inputs_is_said(body: object, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        decode(body, PAIR)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-7"])
def test_other_types_are_refused(kind: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=r"use application/json or text/csv|use utf-8"):
        mlflow.decode_request(b'{"inputs": [[1, 2, 3]]}', {"content-type": kind}, TABLE)


@pytest.mark.parametrize("form", mlflow.BODY_FORMATS)
@pytest.mark.parametrize("value", [b'["\xff"]', b'{"\xff": 1}', b'[["\xc3"]]', b"[" * 100_000 + b"]" * 100_000])
def test_what_no_text_or_no_depth_can_be_is_refused(form: str, value: bytes) -> None:
    for model in (TABLE, PAIR):
        with pytest.raises(InvalidInputError):
            mlflow.decode_request(b'{"%s": %s}' % (form.encode(), value), JSON, model)


@pytest.mark.parametrize("body", [b"", b"a,b,c", b'"a', b"\xff", b"a,b,c\n1,2\n", b"a,b,c\n1,2,x\n"])
def test_bad_csv_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInputError):
        mlflow.decode_request(body, CSV, PAIR)


def test_half_precision_reads_and_bfloat16_does_not() -> None:
    half, brain = (manifest(TensorSpec("x", kind, ("n",))) for kind in ("FP16", "BF16"))
    assert decode({"inputs": [0.5]}, half) == {"x": [0.5]}
    with pytest.raises(InvalidInputError, match="only V2's binary tensors carry"):
        decode({"inputs": [0.5]}, brain)


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(allow_infinity=False)))
def test_every_number_round_trips(array: Array) -> None:
    model = manifest(TensorSpec("x", "FP64", ("batch", 3)))
    rows = [[None if np.isnan(value) else value for value in row] for row in array.tolist()]
    for body in ({"inputs": rows}, {"instances": rows}, {"dataframe_split": {"data": rows}}):
        found = mlflow.decode_request(json.dumps(body).encode(), JSON, model)["x"]
        np.testing.assert_array_equal(found, array)
    answer = mlflow.encode_response(model, {"y": array})
    assert json.loads(answer.body)["predictions"] == rows


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "a", "data", "columns"]), inner),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from([*mlflow.BODY_FORMATS, "params"]), JSON_VALUES, max_size=2),
    st.sampled_from([TABLE, PAIR]),
)
def test_any_json_is_decoded_or_refused_in_our_words(body: dict[str, Any], model: Manifest) -> None:
    try:
        mlflow.decode_request(json.dumps(body).encode(), JSON, model)
    except PilotlightError:
        return


@given(st.text(max_size=60), st.sampled_from([TABLE, PAIR]))
def test_any_text_is_decoded_or_refused_in_our_words(text: str, model: Manifest) -> None:
    try:
        mlflow.decode_request(text.encode(errors="surrogatepass"), CSV, model)
    except PilotlightError:
        return


def test_deep_nesting_is_refused() -> None:
    for body in (b'{"inputs":' + b"[" * 100_000, b'{"inputs":' + b"[" * 900 + b"1" + b"]" * 900 + b"}"):
        with pytest.raises(InvalidInputError):
            mlflow.decode_request(body, JSON, TABLE)


def test_one_output_is_its_rows_and_several_are_named() -> None:
    two = replace(TABLE, outputs=(TensorSpec("p", "FP32", ("n",)), TensorSpec("label", "BYTES", ("n",))))
    results: dict[str, Array] = {"p": np.array([0.5, np.nan], np.float32), "label": np.array(["a", b"b"], object)}
    assert json.loads(mlflow.encode_response(two, results).body) == {
        "predictions": {"p": [0.5, None], "label": ["a", "b"]}
    }
    assert json.loads(mlflow.encode_response(two, {"p": results["p"]}).body) == {"predictions": [0.5, None]}


def test_bfloat16_answers_are_numbers() -> None:
    brain = replace(TABLE, outputs=(TensorSpec("y", "BF16", ("n",)),))
    assert json.loads(mlflow.encode_response(brain, {"y": np.array([0x3F80, 0x4000], np.uint16)}).body)[
        "predictions"
    ] == [1, 2]


def test_bodies_may_be_compressed() -> None:
    squeezed, encoding = compression.compress_body(b'{"inputs": [[1, 2, 3]]}' + b" " * 2000, "gzip")
    found = mlflow.decode_request(squeezed, {**JSON, "content-encoding": encoding or ""}, TABLE)
    assert found["x"].tolist() == [[1, 2, 3]]
    answer = mlflow.encode_response(TABLE, {"y": np.zeros((500, 3), np.float32)}, "gzip")
    assert (answer.binary, answer.headers["content-encoding"]) == (True, "gzip")
    assert len(json.loads(compression.decompress_body(answer.body, "gzip"))["predictions"]) == 500

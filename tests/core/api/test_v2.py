"""The V2 protocol: what round-trips, in JSON and in binary form, and what is refused in which words."""

import json
import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pilotlight.api import v2, v2_json, v2_metadata, v2_tensors
from pilotlight.contracts.manifest import Datatype, Manifest, ManifestFile, TensorSpec
from pilotlight.errors import InvalidInputError, PilotlightError, UnsupportedError
from pilotlight.registry.registry import build_manifest
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array
from tests import fakes

IN_JSON: list[Datatype] = [name for name in get_args(Datatype) if name not in v2_tensors.BINARY_ONLY_DATATYPES]
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, max_side=4)


def manifest(datatype: Datatype, dimensions: int = 2) -> Manifest:
    shape = tuple(f"free_{number}" for number in range(dimensions))
    inputs, outputs = (TensorSpec("x", datatype, shape),), (TensorSpec("y", datatype, shape),)
    return build_manifest(fakes.draft(inputs=inputs, outputs=outputs), (ManifestFile("model.onnx", 1, "0" * 64),))


FP32 = manifest("FP32")


def body(data: object, shape: object, datatype: str = "FP32", **more: Any) -> bytes:  # noqa: ANN401 - any JSON
    given = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    return json.dumps({"inputs": [given], **more}).encode()


def decode(raw: bytes, model: Manifest = FP32) -> Array:
    return v2.decode_infer_request(raw, {}, model).tensors["x"]


def answer(model: Manifest, request: v2.InferenceRequest, result: Array) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(v2.encode_infer_response(model, request, {"y": result}).body)
    return found


@st.composite
def tensors(draw: st.DrawFn) -> tuple[Datatype, Array]:
    datatype = draw(st.sampled_from(IN_JSON))
    shape = draw(SHAPES)
    if datatype == "BYTES":
        size = math.prod(shape)
        texts = draw(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=size, max_size=size))
        return datatype, np.array(texts, object).reshape(shape)
    dtype = NUMPY_DTYPES[datatype]
    elements = arrays.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    return datatype, draw(arrays.arrays(dtype, shape, elements=elements))


@given(tensors(), st.booleans())
def test_every_datatype_round_trips_nested_and_flat(tensor: tuple[Datatype, Array], flat: bool) -> None:
    datatype, array = tensor
    model = manifest(datatype, array.ndim)
    sent = body(array.ravel().tolist() if flat else array.tolist(), array.shape, datatype)
    request = v2.decode_infer_request(sent, {}, model)
    assert request.tensors["x"].dtype == array.dtype
    assert request.tensors["x"].tolist() == array.tolist()
    (output,) = answer(model, request, request.tensors["x"])["outputs"]
    assert output["shape"] == list(array.shape)
    assert output["data"] == array.ravel().tolist()


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_our_words(raw: bytes) -> None:
    with pytest.raises(PilotlightError):
        decode(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(data=json_values, shape=st.lists(st.integers(-2, 5), max_size=4), datatype=st.sampled_from(IN_JSON))
def test_any_data_decodes_to_its_shape_or_is_refused(data: object, shape: list[int], datatype: Datatype) -> None:
    try:
        array = decode(body(data, shape, datatype), manifest(datatype, len(shape)))
    except PilotlightError:
        return
    assert list(array.shape) == shape


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        (b"", "not JSON: it is empty"),
        (b"image=1", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b"{}", "missing required field `inputs`"),
        (b'{"inputs":{}}', r"Expected `array`, got `object` - at `\$\.inputs`"),
        (b'{"inputs":[{"name":"x"}]}', r"missing required field `shape` - at `\$\.inputs\[0\]`"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}', "has no data"),
        (body([1], [-1]), r"Expected `int` >= 0 - at `\$\.inputs\[0\]\.shape\[0\]`"),
        (body([1], "1"), r"Expected `array`, got `str`"),
        (body([1, 2], [1, 2], "FP64"), "'x' is 'FP64', expected FP32"),
        (body([1, 2], [1, 2], "FLOAT"), "'x' is 'FLOAT', expected FP32"),
        (body([1, 2, 3], [1, 2]), r"has 3 values, but shape \[1, 2\] takes 2"),
        (body([], [1, 2]), r"has 0 values, but shape \[1, 2\] takes 2"),
        (body([[1, 2], [3]], [2, 2]), "ragged"),
        (body([[1, 2], 3], [2, 2]), r"data is not FP32: Expected `array`, got `int` - at `\$\[1\]`"),
        (body([[1, 2]], [2, 1]), r"nests as \[1, 2\], but its shape is \[2, 1\]"),
        (body([[[1]]], [1, 1]), "nests 3 deep"),
        (body(["1", "2"], [1, 2]), r"Expected `float`, got `str` - at `\$\[0\]`"),
        (body([1, None], [1, 2]), r"Expected `float`, got `null` - at `\$\[1\]`"),
        (body([1, True], [1, 2]), r"Expected `float`, got `bool` - at `\$\[1\]`"),
        (body([1, 1e39], [1, 2]), "Expected `float` <= 3.40"),
        (body([1, float("inf")], [1, 2]), r"not JSON: .*no Infinity, binary tensors do\)"),
        (body([float("nan"), float("-inf")], [1, 2]), "not JSON: .*no Infinity"),
        (body([1, float("nan")], [float("nan"), 2]), r"not an infer request: .*`\$\.inputs\[0\]\.shape\[0\]`"),
        (body({"0": 1}, [1, 2]), "Expected `array`, got `object`"),
        (body(1, [1, 1]), "Expected `array`, got `int`"),
        (body([1], [2**62, 2**62]), "more than 128,000,000 values"),
        (b'{"inputs":' + b"[" * 100_000, "got `array`"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + b"[" * 100_000, "not JSON"),
        (body([1], [1]).replace(b"[1]}", b"[" * 900 + b"1" + b"]" * 900 + b"}"), "nests 900 deep"),
        (body([1, 2], [1, 2]).replace(b'"x"', b'"z"'), r"'z' is not an input of double; its inputs are \['x'\]"),
        (body([1, 2], [1, 2], outputs=[{"name": "q"}]), r"'q' is not an output of double; its outputs are \['y'\]"),
    ],
)
def test_what_is_wrong_is_said_with_what_was_expected(raw: bytes, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        decode(raw)


def test_an_input_that_comes_twice_is_refused() -> None:
    twice = json.loads(body([1, 2], [1, 2]))
    twice["inputs"] *= 2
    with pytest.raises(InvalidInputError, match="'x' is there twice"):
        decode(json.dumps(twice).encode())


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("UINT8", [256]),
        ("UINT8", [-1]),
        ("INT8", [128]),
        ("UINT64", [2**64]),
        ("INT64", [2**63]),
        ("INT32", [1.5]),
        ("BOOL", [2]),
        ("BOOL", [0.5]),
        ("BOOL", ["true"]),
        ("INT64", ["3"]),
        ("INT64", [9.3e18]),
        ("UINT8", [1e30]),
        ("BYTES", [1]),
        ("FP64", ["1e400"]),
    ],
)
def test_values_beyond_their_type_are_refused(datatype: Datatype, data: list[object]) -> None:
    with pytest.raises(InvalidInputError, match=datatype):
        decode(body(data, [1, 1], datatype), manifest(datatype))


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("data", [[1, math.nan, None, -0.0], [[math.nan, 1], [None, 0]]])
def test_nan_as_tritonclient_writes_it_is_nan(datatype: Datatype, data: list[Any]) -> None:
    found = decode(body(data, [2, 2], datatype), manifest(datatype))
    wanted = np.array(data, NUMPY_DTYPES[datatype]).reshape(2, 2)
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == wanted.dtype


@pytest.mark.parametrize(("datatype", "data"), [("INT64", [1]), ("BOOL", [True]), ("BYTES", ["a"])])
def test_only_floats_have_a_nan(datatype: Datatype, data: list[Any]) -> None:
    with pytest.raises(InvalidInputError, match="got `null`"):
        decode(body([*data, math.nan], [1, 2], datatype), manifest(datatype))


@given(st.lists(st.text(max_size=8) | st.floats() | st.just(math.nan), max_size=8), st.booleans())
def test_no_text_is_touched_for_a_nan(values: list[Any], ascii_only: bool) -> None:
    values = [value for value in values if isinstance(value, str) or not math.isinf(value)]
    text = json.dumps({"NaN": [*values, '\\"NaN', "NaN"]}, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    mended = v2_json.replace_nan_with_null(text)
    read = json.loads(mended or text)
    expected = [None if value != value else value for value in values]  # NaN alone differs from itself
    assert read == {"NaN": [*expected, '\\"NaN', "NaN"]}
    assert (mended is None) == all(value == value for value in values)


@pytest.mark.parametrize("text", [b'"' * 200_000, b'"\\"' * 100_000, b'"' + b"\\" * 200_001, b"NaN" * 100_000])
def test_an_open_text_is_searched_once(text: bytes) -> None:
    """A search that begins anew at each quote would take hours here."""
    v2_json.replace_nan_with_null(b"NaN " + text + b" NaN")


def test_null_says_as_much_as_nothing() -> None:
    given = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": None, "data": [1, 2]}
    outputs = [{"name": "y", "parameters": None}]
    for more in (
        {"outputs": None},
        {"outputs": outputs},
        {"outputs": [{**outputs[0], "parameters": {"binary_data": None}}]},
    ):
        raw = json.dumps({"id": None, "parameters": None, "inputs": [given], **more}).encode()
        asked = v2.decode_infer_request(raw, {}, FP32)
        assert (asked.id, asked.tensors["x"].tolist(), asked.outputs) == (None, [[1, 2]], [v2.RequestedOutput("y")])
    with pytest.raises(InvalidInputError, match="'x' has no data"):
        decode(body(None, [1, 2]))


@pytest.mark.parametrize("value", ["false", "true", 0, 1, [], {}])
def test_true_and_false_are_no_texts(value: object) -> None:
    for more in (
        {"parameters": {"binary_data_output": value}},
        {"outputs": [{"name": "y", "parameters": {"binary_data": value}}]},
    ):
        with pytest.raises(InvalidInputError, match=r"binary_data(_output)? is .*, expected true or false"):
            decode(body([1, 2], [1, 2], **more))


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_needs_the_binary_form(datatype: Datatype) -> None:
    with pytest.raises(InvalidInputError, match="binary form only"):
        decode(body([1], [1, 1], datatype), manifest(datatype))
    with pytest.raises(InvalidInputError, match="binary form only"):
        v2_tensors.encode_json_tensor(np.zeros(1), "y", datatype)


@pytest.mark.parametrize("parameters", [{"sequence_id": 3}, {"sequence_id": "a"}, {"sequence_start": True}])
def test_sequences_are_refused_not_ignored(parameters: dict[str, object]) -> None:
    with pytest.raises(UnsupportedError, match="no state between requests"):
        decode(body([1, 2], [1, 2], parameters=parameters))


def test_shared_memory_is_refused_not_ignored() -> None:
    parameters = {"shared_memory_region": "mine", "shared_memory_byte_size": 8}
    given = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": parameters}
    for raw in (
        json.dumps({"inputs": [given]}).encode(),
        body([1, 2], [1, 2], outputs=[{"name": "y", "parameters": parameters}]),
    ):
        with pytest.raises(UnsupportedError, match=r"'(x|y)' is in shared memory, which is not served"):
            decode(raw)


def test_no_sequence_is_no_sequence() -> None:
    decode(body([1, 2], [1, 2], parameters={"sequence_id": 0, "sequence_start": False, "sequence_end": False}))


def test_unknown_and_reserved_parameters_pass() -> None:
    parameters = {
        "priority": 1,
        "timeout": 1000,
        "binary_data_output": False,
        "triton_x": 1,
        "mine": [{}],
        "headers": {},
    }
    assert decode(body([1, 2], [1, 2], parameters=parameters)).tolist() == [[1, 2]]


def test_config_says_string_for_bytes_and_minus_one_for_free() -> None:
    (described,) = v2_metadata.build_model_config(manifest("BYTES"))["input"]
    assert (described["data_type"], described["dims"][0]) == ("TYPE_STRING", -1)


def test_what_an_answer_would_repeat_is_bounded() -> None:
    with pytest.raises(InvalidInputError, match=r"length <= 10000 - at `\$\.id`"):
        decode(body([1], [1, 1], id="x" * 10_001))
    with pytest.raises(InvalidInputError, match="Output 'y' is requested twice; request it once"):
        decode(body([1], [1, 1], outputs=[{"name": "y"}] * 60_000))


def test_the_id_comes_back_only_if_it_was_sent() -> None:
    with_id, without = (v2.decode_infer_request(body([1, 2], [1, 2], **more), {}, FP32) for more in ({"id": "7"}, {}))
    assert answer(FP32, with_id, np.zeros((1, 2)))["id"] == "7"
    assert "id" not in answer(FP32, without, np.zeros((1, 2)))

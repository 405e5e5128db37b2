"""Binary tensors, content encodings and classification, byte by byte (Triton's binary tensor data extension)."""

import gzip
import json
import struct
import zlib
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from msgspec.structs import replace

from pilotlight.api import compression, v2, v2_binary
from pilotlight.contracts.manifest import Datatype, Manifest, ManifestFile, TensorSpec
from pilotlight.errors import InvalidInputError, PilotlightError, TooLargeError, UnsupportedTypeError
from pilotlight.registry.registry import build_manifest
from pilotlight.runtime.datatypes import NUMPY_DTYPES, Array
from tests import fakes

DATATYPES: list[Datatype] = [name for name in get_args(Datatype) if name in NUMPY_DTYPES]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def manifest(*inputs: TensorSpec, labels: tuple[str, ...] = ()) -> Manifest:
    outputs = tuple(TensorSpec(f"y{number}", spec.datatype, spec.shape) for number, spec in enumerate(inputs))
    draft = fakes.draft(inputs=inputs, outputs=outputs)
    return build_manifest(replace(draft, labels=labels), (ManifestFile("model.onnx", 1, "0" * 64),))


def of(datatype: Datatype, *shape: int | str) -> Manifest:
    return manifest(TensorSpec("x", datatype, shape or ("rows", "columns")))


def request(head: dict[str, Any], *tails: bytes) -> tuple[bytes, dict[str, str]]:
    text = json.dumps(head).encode()
    return b"".join((text, *tails)), {v2.JSON_LENGTH_HEADER: str(len(text))}


def entry(name: str, shape: list[int], datatype: str, size: int | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    parameters = {} if size is None else {"parameters": {"binary_data_size": size}}
    return {"name": name, "shape": shape, "datatype": datatype, **parameters, **more}


def cut(body: bytes, headers: Any) -> tuple[dict[str, Any], bytes]:  # noqa: ANN401 - a mapping of headers
    length = int(headers[v2.JSON_LENGTH_HEADER])
    return json.loads(body[:length]), body[length:]


@st.composite
def tensors(draw: st.DrawFn) -> tuple[Datatype, Array]:
    datatype, shape = draw(st.sampled_from(DATATYPES)), draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=4))
    if datatype == "BYTES":
        count = int(np.prod(shape))
        return datatype, np.array(draw(st.lists(TEXT, min_size=count, max_size=count)), object).reshape(shape)
    return datatype, draw(arrays.arrays(NUMPY_DTYPES[datatype], shape))


@given(tensors())
def test_every_datatype_round_trips(tensor: tuple[Datatype, Array]) -> None:
    datatype, array = tensor
    data = v2_binary.encode_binary_tensor(array)
    head = {"inputs": [entry("x", list(array.shape), datatype, len(data))], "parameters": {"binary_data_output": True}}
    asked = v2.decode_infer_request(*request(head, data), of(datatype))
    np.testing.assert_array_equal(asked.tensors["x"], array)
    response = v2.encode_infer_response(of(datatype), asked, {"y0": asked.tensors["x"]})
    answer, tail = cut(response.body, response.headers)
    assert (answer["outputs"][0]["parameters"]["binary_data_size"], tail) == (len(data), data)
    assert "data" not in answer["outputs"][0]
    assert response.binary


def test_the_bytes_of_the_protocol() -> None:
    head = b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}}],'
    head += b'"parameters":{"binary_data_output":true}}'
    assert len(head) == 132
    body = head + bytes.fromhex("0000803f00000040")
    asked = v2.decode_infer_request(body, {v2.JSON_LENGTH_HEADER: "132"}, of("FP32", "n"))
    assert asked.tensors["x"].tolist() == [1, 2]
    assert asked.outputs == [v2.RequestedOutput("y0", binary=True)]


def test_bytes_elements_stand_behind_their_lengths() -> None:
    assert v2_binary.encode_binary_tensor(np.array(["", "hé"], object)) == b"\0\0\0\0" + b"\3\0\0\0" + "hé".encode()
    assert v2_binary.encode_binary_tensor(np.array([b"\xff"], object)) == b"\1\0\0\0\xff"


def test_json_and_binary_inputs_mix_in_any_order() -> None:
    pair = manifest(TensorSpec("a", "FP32", ("n",)), TensorSpec("b", "INT64", ("n",)), TensorSpec("c", "BOOL", ("n",)))
    inputs = [entry("c", [1], "BOOL", 1), entry("b", [1], "INT64", data=[7]), entry("a", [1], "FP32", 4)]
    asked = v2.decode_infer_request(*request({"inputs": inputs}, b"\1", struct.pack("<f", 0.5)), pair)
    assert {name: array.tolist() for name, array in asked.tensors.items()} == {"a": [0.5], "b": [7], "c": [True]}


def test_each_output_decides_for_itself() -> None:
    pair = manifest(TensorSpec("a", "FP32", ("n",)), TensorSpec("b", "FP32", ("n",)))
    outputs = [{"name": "y1", "parameters": {"binary_data": False}}, {"name": "y0"}]
    inputs = [entry(name, [1], "FP32", data=[1]) for name in "ab"]
    head = {"inputs": inputs, "outputs": outputs, "parameters": {"binary_data_output": True}}
    asked = v2.decode_infer_request(json.dumps(head).encode(), {}, pair)
    response = v2.encode_infer_response(pair, asked, {"y0": np.ones(1, np.float32), "y1": np.zeros(1, np.float32)})
    answer, tail = cut(response.body, response.headers)
    assert [output.get("data") for output in answer["outputs"]] == [[0.0], None]
    assert tail == struct.pack("<f", 1)


def test_empty_tensors_have_empty_tails() -> None:
    asked = v2.decode_infer_request(*request({"inputs": [entry("x", [2, 0], "FP32", 0)]}), of("FP32"))
    assert asked.tensors["x"].shape == (2, 0)


@pytest.mark.parametrize("offset", range(8))
def test_arrays_are_aligned_wherever_their_bytes_lie(offset: int) -> None:
    data = memoryview(bytes(offset) + np.arange(4, dtype="<f8").tobytes())[offset:]
    array = v2_binary.decode_binary_tensor(data, "x", "FP64", [4])
    assert array.flags.aligned
    assert array.tolist() == [0, 1, 2, 3]


FLOATS = bytes(8)


@pytest.mark.parametrize(
    ("head", "tail", "hint"),
    [
        (entry("x", [1, 2], "FP32", 8), FLOATS[:7], "'x' says 8 binary bytes, but 7 are left"),
        (entry("x", [1, 2], "FP32", 8), FLOATS + b"\0", "1 bytes are left over"),
        (entry("x", [1, 3], "FP32", 8), FLOATS, r"has 8 bytes, but shape \[1, 3\] of FP32 takes 12"),
        (entry("x", [2**62, 2**62], "FP32", 8), FLOATS, "more than 128,000,000 values"),
        (entry("x", [1, 2], "FP32", -8), FLOATS, "a binary_data_size of 0 or more"),
        (entry("x", [1, 2], "FP32", 8.5), FLOATS, "a binary_data_size of 0 or more"),  # type: ignore[arg-type]  # on purpose
        (entry("x", [1, 2], "FP32", True), FLOATS, "a binary_data_size of 0 or more"),
        (entry("x", [1, 2], "FP32", 8, data=[1, 2]), FLOATS, "either data or a binary_data_size"),
        (entry("x", [1, 2], "INT8", 2), b"\0\0", "'INT8', expected FP32"),
    ],
)
def test_lengths_that_lie_are_refused(head: dict[str, Any], tail: bytes, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        v2.decode_infer_request(*request({"inputs": [head]}, tail), of("FP32"))


@pytest.mark.parametrize(
    ("data", "shape", "hint"),
    [
        (b"\1\0\0\0a", [2], "too few for 2 elements"),
        (b"\1\0\0\0a\1\0\0", [2], "too few|element 1 ends before its length does"),
        (b"\5\0\0\0abc", [1], "element 0 says 5 bytes, but 3 follow"),
        (b"\xff\xff\xff\xffabcd", [2], "element 0 says 4294967295 bytes, but 4 follow"),
        (b"\1\0\0\0ab", [1], "1 bytes left over after 1 elements"),
        (b"\1\0\0\0\xff", [1], "element 0 is not UTF-8"),
        (b"", [10**12], "too few for 1000000000000 elements"),
    ],
)
def test_bytes_elements_that_lie_are_refused(data: bytes, shape: list[int], hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        v2_binary.decode_binary_tensor(memoryview(data), "x", "BYTES", shape)


@pytest.mark.parametrize("length", ["-1", "1e3", "999", "", "0x1"])
def test_a_header_that_lies_is_refused(length: str) -> None:
    with pytest.raises(InvalidInputError, match="Inference-Header-Content-Length is"):
        v2.decode_infer_request(b"{}", {v2.JSON_LENGTH_HEADER: length}, of("FP32"))


@given(st.binary(max_size=200), st.integers(0, 220), st.sampled_from(["", "gzip", "deflate"]))
def test_any_bytes_are_decoded_or_refused_in_our_words(raw: bytes, length: int, encoding: str) -> None:
    headers = {v2.JSON_LENGTH_HEADER: str(length), "content-encoding": encoding}
    try:
        asked = v2.decode_infer_request(raw, headers, of("UINT8", "n"))
    except PilotlightError:
        return
    assert asked.tensors["x"].nbytes == len(raw)  # a raw request, whose bytes may be any


@pytest.mark.parametrize(
    ("shape", "size", "found"),
    [
        (("batch", 1, 8, 8), 256, [1, 1, 8, 8]),
        (("batch", 1, 8, 8), 512, [2, 1, 8, 8]),
        (("batch", "width"), 12, [1, 3]),
        ((2, 3), 24, [2, 3]),
        (("n",), 12, [3]),
    ],
)
def test_a_raw_request_is_one_tensor(shape: tuple[int | str, ...], size: int, found: list[int]) -> None:
    asked = v2.decode_infer_request(bytes(size), {v2.JSON_LENGTH_HEADER: "0"}, of("FP32", *shape))
    assert list(asked.tensors["x"].shape) == found
    assert asked.outputs == [v2.RequestedOutput("y0", binary=True)]


def test_a_raw_request_for_text_is_one_element() -> None:
    asked = v2.decode_infer_request("hé".encode(), {v2.JSON_LENGTH_HEADER: "0"}, of("BYTES", "n"))
    assert asked.tensors["x"].tolist() == ["hé"]


@pytest.mark.parametrize(
    ("model", "size", "hint"),
    [
        (manifest(TensorSpec("a", "FP32", (1,)), TensorSpec("b", "FP32", (1,))), 4, r"double takes \['a', 'b'\]"),
        (of("FP32", "a", "b", "c"), 4, "cannot tell its shape"),
        (of("FP32", "n", 2), 12, r"has 12 bytes, but shape \[1, 2\] of FP32 takes 8"),
    ],
)
def test_a_raw_request_that_cannot_be_told_is_refused(model: Manifest, size: int, hint: str) -> None:
    with pytest.raises(InvalidInputError, match=hint):
        v2.decode_infer_request(bytes(size), {v2.JSON_LENGTH_HEADER: "0"}, model)


@pytest.mark.parametrize(("encoding", "squeeze"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_the_whole_body_is_compressed(encoding: str, squeeze: Any) -> None:  # noqa: ANN401 - a function of bytes
    body, headers = request({"inputs": [entry("x", [1, 2], "FP32", 8)]}, np.array([1, 2], "<f4").tobytes())
    asked = v2.decode_infer_request(squeeze(body), headers | {"content-encoding": encoding.upper()}, of("FP32"))
    assert asked.tensors["x"].tolist() == [[1, 2]]


ZIPPED = gzip.compress(b"{}", mtime=0)  # the time would be part of a test's name, and another one in each process


@pytest.mark.parametrize(
    ("body", "encoding", "kind", "hint"),
    [
        (b"{}", "gzip", InvalidInputError, "The body is not gzip"),
        (ZIPPED[:-9], "gzip", InvalidInputError, "ends in the middle"),
        (b"{}", "br", UnsupportedTypeError, "'br' is not served; use gzip, deflate"),
        (ZIPPED, "gzip, zstd", UnsupportedTypeError, "'gzip, zstd' is not served"),
        (gzip.compress(ZIPPED, mtime=0), "gzip, x-gzip", UnsupportedTypeError, "'gzip, gzip' is not served"),
        (
            gzip.compress(bytes(compression.MAX_DECOMPRESSED_BYTES + 1), mtime=0),
            "gzip",
            TooLargeError,
            "more than 64,000,000 bytes",
        ),
        (
            gzip.compress(bytes(compression.MAX_DECOMPRESSED_BYTES)) + gzip.compress(b"0"),
            "gzip",
            TooLargeError,
            "more than 64,000,000",
        ),
        pytest.param(
            ZIPPED * 10_001, "gzip", InvalidInputError, "more than 10,000 members of gzip; send it as one", id="members"
        ),
        (
            gzip.compress(b"{}", mtime=0) + b"more",
            "gzip",
            InvalidInputError,
            "behind the end of its gzip, with what is none",
        ),
        (
            gzip.compress(b"{}", mtime=0) * 2 + gzip.compress(b"{}", mtime=0)[:-1],
            "gzip",
            InvalidInputError,
            "behind the end of its gzip",
        ),
        (zlib.compress(b"{}") * 2, "deflate", InvalidInputError, "goes on behind the end of its deflate"),
    ],
)
def test_bodies_that_do_not_decompress(body: bytes, encoding: str, kind: type[Exception], hint: str) -> None:
    with pytest.raises(kind, match=hint):
        compression.decompress_body(body, encoding)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " GZip", "identity, gzip", "gzip,", "gzip, Identity"])
def test_a_gzip_may_have_several_members(encoding: str) -> None:
    body = b'{"inputs": []}'
    assert compression.decompress_body(b"".join(gzip.compress(body[at : at + 1]) for at in range(14)), encoding) == body
    assert compression.decompress_body(gzip.compress(b"") * 9_000 + gzip.compress(body), encoding) == body


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("deflate, gzip", "deflate"),
        ("br, gzip;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip; q=0.000", None),
        ("", None),
    ],
)
def test_answers_are_compressed_when_asked_for(accepted: str, encoding: str | None) -> None:
    body, found = compression.compress_body(bytes(5000), accepted)
    assert found == encoding
    assert compression.decompress_body(body, found or "") == bytes(5000)


def test_small_answers_are_not() -> None:
    assert compression.compress_body(b"{}", "gzip") == (b"{}", None)


@pytest.mark.parametrize("binary", [False, True])
def test_classification(binary: bool) -> None:
    model = manifest(TensorSpec("x", "FP32", ("n", 3)), labels=("cat", "dog", "bird"))
    outputs = [{"name": "y0", "parameters": {"classification": 2, "binary_data": binary}}]
    head = {"inputs": [entry("x", [1, 3], "FP32", data=[0, 0, 0])], "outputs": outputs}
    asked = v2.decode_infer_request(json.dumps(head).encode(), {}, model)
    response = v2.encode_infer_response(model, asked, {"y0": np.array([[0.5, -1, 2]], np.float32)})
    expected = ["2.0:2:bird", "0.5:0:cat"]
    if binary:
        answer, tail = cut(response.body, response.headers)
        assert tail == v2_binary.encode_binary_tensor(np.array(expected, object))
    else:
        answer = json.loads(response.body)
        assert answer["outputs"][0]["data"] == expected
    assert (answer["outputs"][0]["datatype"], answer["outputs"][0]["shape"]) == ("BYTES", [1, 2])


@pytest.mark.parametrize("classes", [-1, 1.5, "two", True])
def test_classification_takes_a_count(classes: object) -> None:
    head = {
        "inputs": [entry("x", [1, 1], "FP32", data=[0])],
        "outputs": [{"name": "y0", "parameters": {"classification": classes}}],
    }
    with pytest.raises(InvalidInputError, match="expected 1 or more classes"):
        v2.decode_infer_request(json.dumps(head).encode(), {}, of("FP32"))


def test_text_has_no_classes() -> None:
    with pytest.raises(InvalidInputError, match="has no classes"):
        v2.classify_output(np.array(["a"], object), v2.RequestedOutput("y0", classes=1), ())

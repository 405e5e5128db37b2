"""What a caller may send to do harm: each gets a clear error, and the environment answers the next request."""

import json
import struct
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from functions.predict.handler import build_predict_handler
from pilotlight.api import v2
from pilotlight.contracts.manifest import Datatype, TensorSpec, Variant
from pilotlight.contracts.processing import TextPreprocessing
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.core.processing.test_text import tokenizer_with

NUMBERS = [0.0] * 63
NOT_FINITE = (float("nan"), float("inf"), -float("inf"))


class Server:
    """The predict function over a store."""

    def __init__(self, store_url: str) -> None:
        self._handle = build_predict_handler(Settings(store=store_url))

    def __call__(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """The status and the text of the answer."""
        event = fakes.event(self._handle._routes, "POST", path, body, headers)
        answer = self._handle(event, None)
        return answer["statusCode"], answer["body"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """The digits model in int8, echoes of floats that say to be int8, and a text model whose tokenizer panics."""
    url = str(tmp_path_factory.mktemp("store"))
    registry = Registry(open_store(url))
    fakes.publish_digits(registry)
    publish_text(registry, "texts", tokenizer_with("(a+)+$"))
    for datatype in ("FP16", "BF16", "FP32", "FP64"):
        publish_small_echo(registry, datatype)
    return Server(url)


def publish_text(registry: Registry, name: str, tokenizer: bytes) -> None:
    """Publish the graph that gives its tokens back, with a tokenizer."""
    ids = tuple(
        TensorSpec(each, "INT64", ("batch", "tokens")) for each in ("input_ids", "attention_mask", "token_type_ids")
    )
    outputs = (
        TensorSpec("last_hidden_state", "FP32", ("batch", "tokens", 2)),
        TensorSpec("mask", "INT64", ("batch", "tokens")),
    )
    draft = msgspec.structs.replace(
        fakes.draft(name, ids, outputs), task="text", preprocess=TextPreprocessing(max_length=128)
    )
    registry.publish_version(draft, {"model.onnx": fakes.graph("tokens"), "tokenizer.json": tokenizer})


def publish_small_echo(registry: Registry, datatype: Datatype) -> None:
    """Publish an echo as if it were served in int8."""
    name, shape = f"echo-{datatype.lower()}", ("rows", "columns")
    draft = fakes.draft(name, (TensorSpec("x", datatype, shape),), (TensorSpec("y", datatype, shape),))
    draft = msgspec.structs.replace(draft, variants={"int8": Variant("model.onnx")}, serve="int8")
    registry.publish_version(draft, {"model.onnx": fakes.graph(name)})


def image_body(number: float) -> bytes:
    """A request of two images, of which the second has a pixel of this value."""
    data = [*NUMBERS, 0.0, number, *NUMBERS]
    tensor = {"name": "image", "shape": [2, 1, 8, 8], "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


def binary_body(name: str, datatype: str, shape: list[int], data: bytes) -> tuple[bytes, dict[str, str]]:
    """A request whose tensor is in binary form."""
    tensor = {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + data, {v2.JSON_LENGTH_HEADER: str(len(head))}


def test_nan_in_json_is_not_answered_with_a_class(server: Server) -> None:
    status, text = server("/v2/models/digits/infer", image_body(float("nan")))
    assert status == 400
    assert "Input 'image' has nan in row 1 (at [1, 0, 0, 0]), and 1 such values; digits:1 is served in int8" in text
    assert server("/v2/models/digits/infer", image_body(1.0))[0] == 200


@pytest.mark.parametrize("number", NOT_FINITE)
def test_raw_bytes_that_are_no_number_are_refused(server: Server, number: float) -> None:
    images = np.zeros((3, 1, 8, 8), np.float32)
    images[2, 0, 4, 4] = number
    status, text = server("/v2/models/digits/infer", *binary_body("image", "FP32", [3, 1, 8, 8], images.tobytes()))
    assert status == 400
    assert f"has {number} in row 2 (at [2, 0, 4, 4])" in text
    status, text = server("/v2/models/digits/infer", images[2].tobytes(), {v2.JSON_LENGTH_HEADER: "0"})
    assert (status, "in row 0" in text) == (400, True)


def test_a_range_that_no_scale_holds_is_refused(server: Server) -> None:
    """Each number is finite; their difference is not, by which dynamic quantization divides."""
    images = np.full((1, 1, 8, 8), 3e38, np.float32)
    images[0, 0, 0, 0] = -3e38
    status, text = server("/v2/models/digits/infer", *binary_body("image", "FP32", [1, 1, 8, 8], images.tobytes()))
    assert (status, "values from -3e+38 to 3e+38, a range beyond FP32's" in text) == (400, True)


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[[[None] + [0.0] * 7] + [[0.0] * 8] * 7]]},
        {"inputs": {"image": [[[[None] + [0.0] * 7] + [[0.0] * 8] * 7]]}},
    ],
)
def test_a_missing_number_in_mlflows_form_is_refused(server: Server, body: dict[str, Any]) -> None:
    status, text = server("/invocations", json.dumps(body).encode(), {"x-pilotlight-model": "digits"})
    assert (status, "has nan in row 0" in text) == (400, True), text


@pytest.mark.parametrize(
    ("datatype", "bits"),
    [
        ("FP16", struct.pack("<4e", 1, -2, 65504, float("nan"))),
        ("FP16", struct.pack("<4e", 1, -2, -float("inf"), 0)),
        ("BF16", struct.pack("<4H", 0x3F80, 0xBF80, 0x7F7F, 0xFFC0)),
        ("BF16", struct.pack("<4H", 0x3F80, 0, 0xFF80, 0)),
        ("FP32", struct.pack("<4f", 1, 2, 3, float("nan"))),
        ("FP64", struct.pack("<4d", 1, 2, 3, float("inf"))),
    ],
)
def test_every_type_of_floats_is_checked(server: Server, datatype: str, bits: bytes) -> None:
    path, name = f"/v2/models/echo-{datatype.lower()}/infer", "x"
    status, text = server(path, *binary_body(name, datatype, [2, 2], bits))
    assert (status, "in row " in text and "is served in int8" in text) == (400, True), text
    size = len(bits) // 4
    finite = bits[: 2 * size] * 2
    body, headers = binary_body(name, datatype, [2, 2], finite)
    asked = body.replace(b'{"inputs"', b'{"outputs": [{"name": "y", "parameters": {"binary_data": true}}], "inputs"')
    headers = {v2.JSON_LENGTH_HEADER: str(len(asked) - len(finite))}
    assert server(path, asked, headers)[0] == 200


def test_a_text_that_makes_the_tokenizer_panic_is_refused_and_the_next_one_answered(server: Server) -> None:
    def text_body(text: str) -> bytes:
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
        return json.dumps({"inputs": [tensor]}).encode()

    status, text = server("/v2/models/texts/infer", text_body("a" * 105 + "!"))
    assert (status, "The tokenizer refused the texts: tokenizers panicked" in text) == (400, True), text
    assert server("/v2/models/texts/infer", text_body("fine"))[0] == 200


NUMBER_BODIES = {
    "100,000 digits": "9" * 100_000,
    "5,000,000 digits": "9" * 5_000_000,
    "a large exponent": "1e400",
    "an exponent of 100,000 digits": "1e" + "9" * 100_000,
    "infinity": "Infinity",
    "a number nested 100,000 deep": "[" * 100_000 + "]" * 100_000,
    "a number nested 960 deep": "[" * 960 + "1" + "]" * 960,
    "an object nested 100,000 deep": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "a text of 100,000 digits": '"' + "9" * 100_000 + '"',
}


@pytest.mark.parametrize("number", NUMBER_BODIES.values(), ids=NUMBER_BODIES)
@pytest.mark.parametrize("form", ["v2", "instances", "inputs", "records", "csv"])
def test_numbers_and_nests_of_any_size_are_refused(server: Server, form: str, number: str) -> None:
    row = f"[{number}, 0]"
    headers = {"x-pilotlight-model": "echo-fp32"}
    path, body = {
        "v2": (
            "/v2/models/echo-fp32/infer",
            f'{{"inputs":[{{"name":"x","shape":[1,2],"datatype":"FP32","data":{row}}}]}}',
        ),
        "instances": ("/invocations", f'{{"instances":[{row}]}}'),
        "inputs": ("/invocations", f'{{"inputs":{{"x":[{row}]}}}}'),
        "records": ("/invocations", f'{{"dataframe_records":[{{"a":{number},"b":1}}]}}'),
        "csv": ("/invocations", f"a,b\n{number},0\n"),
    }[form]
    if form == "csv":
        headers["content-type"] = "text/csv"
    status, text = server(path, body.encode(), headers)
    assert 400 <= status < 500, text
    assert len(text) < 2_000


def test_the_fixture_is_no_refusal_of_everything(server: Server) -> None:
    body = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1.5,2]}]}'
    assert server("/v2/models/echo-fp32/infer", body)[0] == 200
    assert (
        server("/invocations", b"a,b\n1.5,0\n", {"x-pilotlight-model": "echo-fp32", "content-type": "text/csv"})[0]
        == 200
    )

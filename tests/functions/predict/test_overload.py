"""Requests that mean harm, or ask for more than there is: refused in one sentence, before memory is spent on them."""

import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from functions.predict.handler import build_predict_handler
from pilotlight.api import compression
from pilotlight.api.router import Router
from pilotlight.errors import DeadlineError
from pilotlight.registry.registry import Registry
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.session import open_session
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.functions.predict.test_handler import ROW, event, infer

INFER = "/v2/models/double/infer"
MB = 1_000_000


class Context:
    """What Lambda says of the time that is left."""

    def __init__(self, seconds: float) -> None:
        self._milliseconds = int(seconds * 1000)

    def get_remaining_time_in_millis(self) -> int:
        return self._milliseconds


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(open_store(str(tmp_path)))
    fakes.publish(registry)
    fakes.publish(registry, of="square")
    return registry


@pytest.fixture
def handle(registry: Registry) -> Router:
    handle = build_predict_handler(Settings(store=registry.store.url))
    assert ask(handle, json.dumps(infer(ROW)).encode())[0] == 200
    return handle


def ask(handle: Router, body: bytes, context: object = None, path: str = INFER, **headers: str) -> tuple[int, str]:
    asked = event("POST", path, body)
    asked["headers"] = asked["headers"] | {name.replace("_", "-"): value for name, value in headers.items()}
    answer = handle(asked, context)
    return answer["statusCode"], answer["body"]


def declared(shape: str, **more: str) -> bytes:
    """A request of an input that says it has that shape, in JSON's words."""
    rest = "".join(f', "{name}": {value}' for name, value in more.items())
    return f'{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": {shape}{rest}}}]}}'.encode()


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("body", "status", "hint"),
    [
        (declared("[4294967296, 4294967296]", data="[1]"), 413, "more than 128,000,000 values"),
        (declared("[9223372036854775807, 3]", data="[1]"), 413, "[1e18, 3]"),
        (declared("[9223372036854775808, 2]", data="[1]"), 413, "more than"),
        (declared("[0, 4611686018427387904]", data="[]"), 413, "more than"),
        (declared("[1" + "0" * 400 + ", 3]", data="[1]"), 413, "[1e400, 3]"),
        (declared("[1" + "0" * 5000 + ", 3]", data="[1]"), 400, "The body is not"),
        (declared("[1000000000, 3]", data="[1, 2, 3]"), 413, "more than"),
        (declared("[40000000, 3]", data="[1, 2, 3]"), 400, "has 3 values"),
        (declared("[40000000, 3]", parameters='{"binary_data_size": 480000000}'), 400, "says 480000000 binary bytes"),
        (declared("[1, 3]", parameters='{"binary_data_size": 1180591620717411303424}'), 400, "binary"),
        (declared("[1, 3]", parameters='{"binary_data_size": -12}'), 400, "binary_data_size of 0 or more"),
        (declared("[-1, 3]", data="[1, 2, 3]"), 400, "shape[0]"),
        (declared(f"[{', '.join(['1'] * 100)}]", data=nested(100)), 400, "has 100 dimensions"),
        (declared("[1, 3]", data=nested(100)), 400, "nests 100 deep"),
        (declared("[1, 3]", data=nested(100_000)), 400, "The body is not JSON"),
        (nested(200_000).encode(), 400, "The body is not"),
        (b'{"a":' * 100_000, 400, "The body is not JSON"),
        (declared("[1, 3]", data="[1, 2, 3]", parameters='{"a":' * 100_000 + "1" + "}" * 100_000), 400, "not JSON"),
    ],
)
def test_bombs_are_refused(handle: Router, body: bytes, status: int, hint: str) -> None:
    tracemalloc.start()
    found, text = ask(handle, body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found, hint in text) == (status, True), text[:300]
    assert len(text) < 1000
    assert peak < 16 * MB


@pytest.mark.parametrize("place", ["inputs", "name", "data"])
def test_texts_that_are_not_utf8_are_refused(handle: Router, place: str) -> None:
    asked = {"inputs": [{"name": "name", "shape": [1, 3], "datatype": "FP32", "data": ["data"]}]}
    body = json.dumps(asked).encode().replace(b'"%s"' % place.encode(), b'"\xe5\x52"').replace(b'"name"', b'"x"', 2)
    assert ask(handle, body)[0] == 400


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_body_that_swells_is_stopped(
    handle: Router, monkeypatch: pytest.MonkeyPatch, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(compression, "MAX_DECOMPRESSED_BYTES", 4 * MB)
    body = pack(bytes(64 * MB))
    tracemalloc.start()
    status, text = ask(handle, body, Content_Encoding=encoding)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (status, "more than 4,000,000 bytes once decompressed" in text) == (413, True)
    assert peak < 16 * MB


def test_a_swollen_body_is_not_swollen_twice(handle: Router) -> None:
    status, text = ask(handle, gzip.compress(gzip.compress(bytes(MB))), Content_Encoding="gzip, gzip")
    assert (status, "is not served" in text) == (415, True)


@pytest.mark.parametrize("length", ["-1", "1e3", "99999999", "9" * 5000, "٣", "²", "0x10", "12 ", ""])
def test_lengths_that_lie_are_refused(handle: Router, length: str) -> None:
    status, text = ask(handle, json.dumps(infer(ROW)).encode(), Inference_Header_Content_Length=length)
    assert (status, "error" in json.loads(text)) == (400, True)


@pytest.mark.parametrize("body", ["é", "YQ", "%", "YQ==YQ=="])
def test_a_body_that_is_not_its_base64_is_refused(handle: Router, body: str) -> None:
    answer = handle(event("POST", INFER, b"") | {"body": body, "isBase64Encoded": True}, None)
    assert (answer["statusCode"], "base64" in answer["body"]) == (400, True)


def test_no_load_is_begun_that_the_request_cannot_await(handle: Router) -> None:
    asked = event("POST", "/v2/models/double/versions/2/infer", json.dumps(infer(ROW)).encode())
    assert handle(event("GET", "/v2/models/double/versions/2", None), None)["statusCode"] == 200  # it is known
    answer = handle(asked, Context(0.3))
    assert answer["statusCode"] == 503
    assert answer["headers"]["retry-after"] == "1"
    assert "double:2 takes about 0.1 s to open, and this request has 0.0 s left; try again" in answer["body"]
    assert handle(asked, Context(28))["statusCode"] == 200


def test_the_gateways_clock_counts_too(handle: Router) -> None:
    asked = event("POST", "/v2/models/double/versions/2/infer", json.dumps(infer(ROW)).encode())
    asked["requestContext"] = asked["requestContext"] | {"requestTimeEpoch": int(time.time() * 1000) - 28_600}
    answer = handle(asked, Context(28))
    assert (answer["statusCode"], answer["headers"]["retry-after"]) == (503, "1")
    assert "queue;dur=28" in answer["headers"]["server-timing"]


def test_an_inference_ends_when_its_time_is_over() -> None:
    session, watch = open_session(str(fakes.MODELS / "endless.onnx")), DeadlineRunner()
    with pytest.raises(DeadlineError, match="still computing when the time of this request was over"):
        watch.run(session, {"x": np.ones((1, 3), np.float32)}, ["y"], time.monotonic() + 0.1)
    (answer,) = watch.run(
        open_session(str(fakes.MODELS / "double.onnx")), {"x": np.ones((1, 3), np.float32)}, ["y"], time.monotonic() + 5
    ).values()
    assert answer.tolist() == [[2, 2, 2]]

"""Requests that are short and cost much: answered, in parts if need be, or refused with what would fit."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from functions.predict.handler import build_predict_handler
from pilotlight.api.router import Router
from pilotlight.registry.registry import Registry
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.session import open_session
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.functions.predict.test_handler import event

DIGITS = "/v2/models/digits/infer"
GZIP = {"content-encoding": "gzip"}


@pytest.fixture
def handle(tmp_path: Path) -> Router:
    registry = Registry(open_store(str(tmp_path)))
    fakes.publish_digits(registry)
    fakes.publish(registry)
    return build_predict_handler(Settings(store=registry.store.url, call_seconds=-1))


def ask(handle: Router, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
    asked = event("POST", path, body)
    answer = handle(asked | {"headers": asked["headers"] | dict(headers)}, None)
    return answer["statusCode"], answer["body"]


def images(values: Array) -> tuple[bytes, dict[str, str]]:
    """A body of images in binary form, compressed, and its headers."""
    sizes = {"binary_data_size": values.nbytes}
    image = {"name": "image", "shape": values.shape, "datatype": "FP32", "parameters": sizes}
    head = msgspec.json.encode({"inputs": [image]})
    return gzip.compress(head + values.tobytes(), 1), GZIP | {"inference-header-content-length": str(len(head))}


@pytest.mark.parametrize("rows", [60_000, 100_000, 200_000])
@pytest.mark.parametrize("form", ["binary", "json"])
def test_gzip_of_many_images_is_refused_with_what_would_fit(handle: Router, rows: int, form: str) -> None:
    body, headers = images(np.zeros((rows, 1, 8, 8), np.float32))
    if form == "json":
        data = b"0," * (64 * rows - 1) + b"0"
        text = b'{"inputs":[{"name":"image","shape":[%d,1,8,8],"datatype":"FP32","data":[%s]}]}' % (rows, data)
        body, headers = gzip.compress(text, 1), GZIP
    status, answer = ask(handle, DIGITS, body, headers | {"accept-encoding": "identity"})
    # Each answer would be larger than what Lambda sends, so none is 200, however fast the machine is.
    assert status == 413
    words = (f"{rows:,} rows of digits:1", "more than Lambda sends", f"have {64 * rows + 6:,} values")
    assert any(each in answer for each in words), answer
    assert any(each in answer for each in ("enough for", "more than Lambda sends")), answer


def test_parts_have_the_answers_of_the_whole(handle: Router) -> None:
    held, _ = fakes.digits()
    values = np.tile(held, (15, 1, 1, 1)).astype(np.float32)
    head = {
        "name": "image",
        "shape": values.shape,
        "datatype": "FP32",
        "parameters": {"binary_data_size": values.nbytes},
    }
    text = msgspec.json.encode({"inputs": [head]})
    body, length = text + values.tobytes(), {"inference-header-content-length": str(len(text))}
    status, answer = ask(handle, DIGITS, body, length)
    assert status == 200
    expected = open_session(str(fakes.MODELS / "digits" / "model.int8.onnx")).run({"image": values})["logits"]
    found = np.array(json.loads(answer)["outputs"][0]["data"], np.float32).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("unit", "count", "headers", "status"),
    [
        (b"[[[[[0]]]]]", 5_000_000, {}, 413),
        (b"{}", 6_000_000, {}, 413),
        (b"NaN", 8_000_000, {}, 413),
        (b"0", 20_000_000, {"content-type": "text/csv"}, 413),
        (b"[1,2,3]", 5_000, {}, 200),
    ],
)
def test_invocations_are_weighed_too(
    handle: Router, unit: bytes, count: int, headers: dict[str, str], status: int
) -> None:
    many = unit + (b"\n" if headers else b",")
    text = b"x\n" + many * count if headers else b'{"instances":[%s%s]}' % (many * count, unit)
    headers = {"content-type": "application/json", "x-pilotlight-model": "double"} | GZIP | headers
    found, answer = ask(handle, "/invocations", gzip.compress(text, 1), headers)
    assert (found, "would take about" in answer) == (status, status == 413), answer[:300]


def test_predictions_that_lambda_does_not_send_are_refused(handle: Router) -> None:
    text = b'{"instances":[%s[1,2,3]]}' % (b"[0.123456789,2,3]," * 330_000)
    headers = {"content-type": "application/json", "x-pilotlight-model": "double", "accept-encoding": "identity"}
    status, answer = ask(handle, "/invocations", text, headers)
    assert (status, "more than Lambda sends; ask for fewer rows" in answer) == (413, True), answer[:300]


def test_an_allocation_that_fails_is_no_fault_of_the_server(handle: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    one = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}).encode()

    def exhaust(*arguments: object) -> None:
        raise MemoryError

    for target in ("pilotlight.api.v2.decode_infer_body", "pilotlight.api.http.decode_event_body"):
        with monkeypatch.context() as patch:
            patch.setattr(target, exhaust if "infer" in target else lambda body, is_base64: exhaust())
            status, answer = ask(handle, "/v2/models/double/infer", one, {})
        assert (status, "The request takes more memory than" in answer) == (413, True), answer
    assert ask(handle, "/v2/models/double/infer", one, {})[0] == 200

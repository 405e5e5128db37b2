"""The unmodified tritonclient[http]: JSON and binary tensors, every datatype, compressed and not."""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from pilotlight.runtime.session import Array
from tests import fakes

Client: TypeAlias = triton.InferenceServerClient
Result: TypeAlias = triton.InferResult
IMAGES, LABELS = fakes.digits()


@pytest.fixture(params=["", "/prod"])
def client(url: str, request: pytest.FixtureRequest) -> Iterator[Client]:
    with triton.InferenceServerClient(url.removeprefix("http://") + request.param) as connected:
        yield connected


def infer(client: Client, images: Array, version: str = "", **more: object) -> Result:
    tensor = triton.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=False)
    wanted = triton.InferRequestedOutput("logits", binary_data=False)
    return client.infer("digits", [tensor], outputs=[wanted], model_version=version, **more)


def test_health(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "2")
    assert client.is_model_ready("digits", "champion")
    assert not client.is_model_ready("nothing")
    assert not client.is_model_ready("digits", "9")


def test_metadata(client: Client) -> None:
    assert client.get_server_metadata()["name"] == "pilotlight"
    assert client.get_model_metadata("digits") == {
        "name": "digits",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
    }


def test_a_hundred_digits_one_by_one_and_at_once(client: Client) -> None:
    singles = np.concatenate([infer(client, IMAGES[i : i + 1]).as_numpy("logits") for i in range(100)])
    batch = infer(client, IMAGES[:100]).as_numpy("logits")
    assert batch.shape == (100, 10)
    np.testing.assert_allclose(singles, batch, rtol=0, atol=1e-4)
    right = (singles.argmax(axis=1) == LABELS[:100]).mean()
    assert right >= 0.97


@pytest.mark.parametrize(("version", "answered"), [("", "1"), ("2", "2"), ("champion", "1"), ("candidate", "2")])
def test_versions_and_aliases(client: Client, version: str, answered: str) -> None:
    response = infer(client, IMAGES[:1], version, request_id="seven").get_response()
    assert (response["model_version"], response["id"]) == (answered, "seven")


def test_async_infer(client: Client) -> None:
    tensor = triton.InferInput("image", [1, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(IMAGES[:1], binary_data=False)
    wanted = triton.InferRequestedOutput("logits", binary_data=False)
    pending = client.async_infer("digits", [tensor], outputs=[wanted])
    assert pending.get_result().as_numpy("logits").argmax() == infer(client, IMAGES[:1]).as_numpy("logits").argmax()


@pytest.mark.parametrize(
    ("images", "version", "status", "hint"),
    [
        (IMAGES[:1, :, :, :7], "", "400", r"has shape \[1, 1, 8, 7\], expected \[batch, 1, 8, 8\]"),
        (IMAGES[:1], "9", "404", "has no version 9"),
        (IMAGES[:1], "staging", "404", "no version or alias 'staging'"),
    ],
)
def test_errors_are_shown(client: Client, images: Array, version: str, status: str, hint: str) -> None:
    with pytest.raises(InferenceServerException, match=hint) as raised:
        infer(client, images, version)
    assert raised.value.status() == status


ARRAYS: dict[str, Array] = {
    "FP16": np.array([[1, -2.5], [0, 3]], np.float16),
    "FP32": np.array([[1, -2.5], [0, 3e38]], np.float32),
    "FP64": np.array([[1, -2.5], [0, 3e300]]),
    "BOOL": np.array([[True, False], [False, True]]),
    "INT8": np.array([[1, -128], [127, 0]], np.int8),
    "INT16": np.array([[1, -(2**15)], [2**15 - 1, 0]], np.int16),
    "INT32": np.array([[1, -(2**31)], [2**31 - 1, 0]], np.int32),
    "INT64": np.array([[1, -(2**63)], [2**63 - 1, 0]]),
    "UINT8": np.array([[1, 255], [127, 0]], np.uint8),
    "UINT16": np.array([[1, 2**16 - 1], [127, 0]], np.uint16),
    "UINT32": np.array([[1, 2**32 - 1], [127, 0]], np.uint32),
    "UINT64": np.array([[1, 2**64 - 1], [127, 0]], np.uint64),
    "BYTES": np.array([["one", ""], ["žluť", "四"]], object),
}
OUTPUTS = {"default": None, "json": False, "binary": True}


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("datatype", ARRAYS)
def test_every_mix_round_trips(url: str, datatype: str, binary: bool, output: str, compression: str | None) -> None:
    array = ARRAYS[datatype]
    if datatype == "FP16" and (not binary or output == "json"):
        return  # FP16 has no JSON form: test_half_precision_as_json_is_refused
    tensor = triton.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    outputs = None if OUTPUTS[output] is None else [triton.InferRequestedOutput("y", binary_data=OUTPUTS[output])]
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        found = client.infer(
            f"echo-{datatype.lower()}",
            [tensor],
            outputs=outputs,
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        ).as_numpy("y")
    if found.dtype == object:
        found = np.vectorize(lambda value: value.decode() if isinstance(value, bytes) else value)(found)
    np.testing.assert_array_equal(found, array)


def test_large_answers_come_compressed(url: str) -> None:
    array = np.zeros((1000, 100), np.float32)
    tensor = triton.InferInput("x", [1000, 100], "FP32")
    tensor.set_data_from_numpy(array)
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        result = client.infer("echo-fp32", [tensor], response_compression_algorithm="gzip")
    assert result.as_numpy("y").shape == (1000, 100)


def test_classes(client: Client) -> None:
    tensor = triton.InferInput("image", [2, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(IMAGES[:2])
    wanted = triton.InferRequestedOutput("logits", class_count=3)
    best = client.infer("digits", [tensor], outputs=[wanted]).as_numpy("logits")
    assert best.shape == (2, 3)
    value, index, label = best[0, 0].decode().split(":")
    assert (int(index), label) == (LABELS[0], str(LABELS[0]))
    assert float(value) > 0


def test_half_precision_as_json_is_refused(url: str) -> None:
    tensor = triton.InferInput("x", [2, 2], "FP16")
    tensor.set_data_from_numpy(ARRAYS["FP16"])
    wanted = triton.InferRequestedOutput("y", binary_data=False)
    with (
        triton.InferenceServerClient(url.removeprefix("http://")) as client,
        pytest.raises(InferenceServerException, match="binary form only") as raised,
    ):
        client.infer("echo-fp16", [tensor], outputs=[wanted])
    assert raised.value.status() == "400"


def test_errors_of_the_gateway_are_shown_too(client: Client) -> None:
    big = triton.InferInput("image", [30_000, 1, 8, 8], "FP32")
    big.set_data_from_numpy(np.full((30_000, 1, 8, 8), 0.123456, np.float32), binary_data=False)
    with pytest.raises(InferenceServerException, match="Too Long") as raised:
        client.infer("digits", [big])
    assert raised.value.status() == "413"

"""The unmodified tritonclient[http], with JSON tensors both ways."""

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


def test_binary_tensors_say_that_they_are_not_served_yet(client: Client) -> None:
    tensor = triton.InferInput("image", [1, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(IMAGES[:1])
    with pytest.raises(InferenceServerException, match="binary_data=False") as raised:
        client.infer("digits", [tensor])
    assert raised.value.status() == "501"


def test_errors_of_the_gateway_are_shown_too(client: Client) -> None:
    big = triton.InferInput("image", [30_000, 1, 8, 8], "FP32")
    big.set_data_from_numpy(np.full((30_000, 1, 8, 8), 0.123456, np.float32), binary_data=False)
    with pytest.raises(InferenceServerException, match="Too Long") as raised:
        client.infer("digits", [big])
    assert raised.value.status() == "413"

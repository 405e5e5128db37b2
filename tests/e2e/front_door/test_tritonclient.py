"""The unmodified tritonclient on each server, with a plugin of its own kind that sends the key.

What tests/conformance shows of the local gateway without keys is shown here of every server.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

from tests import fakes
from tests.conformance.test_tritonclient import (  # noqa: F401 - pytest finds the tests among them here
    ARRAYS,
    OUTPUTS,
    Client,
    test_async_infer,
    test_classes,
    test_errors_are_shown,
    test_errors_of_the_gateway_are_shown_too,
    test_extensions_are_those_that_work,
    test_health,
    test_metadata,
    test_model_config,
    test_nan_in_json_as_this_client_writes_it,
    test_nan_is_null_in_json_and_itself_in_binary,
    test_repository_index,
    test_requested_outputs_come_in_their_order,
    test_reserved_and_own_parameters_pass,
    test_shared_memory_is_refused,
    test_statistics,
    test_versions_and_aliases,
    test_what_cannot_be_done_is_said,
)
from tests.e2e.front_door.differences import expect_difference
from tests.e2e.front_door.server import ECHOES, TIMEOUT_S, Server


class SendHeaders(triton.InferenceServerClientPlugin):  # type: ignore[misc] # of a library without types
    """Adds headers to each request, as tritonclient's own plugin for passwords does."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    def __call__(self, request: Any) -> None:  # noqa: ANN401 - tritonclient's own
        request.headers.update(self._headers)


def list_headers(server: Server) -> dict[str, str]:
    """The key and, for the SAM CLI, `Accept`, which this client never sends: see `differences.py`."""
    return {**server.headers, **({"accept": "*/*"} if server.kind == "sam" else {})}


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    address = server.url.removeprefix("http://")
    with triton.InferenceServerClient(address, network_timeout=TIMEOUT_S, connection_timeout=TIMEOUT_S) as connected:
        connected.register_plugin(SendHeaders(list_headers(server)))
        yield connected


@pytest.fixture(autouse=True)
def difference(request: pytest.FixtureRequest, server: Server) -> None:
    expect_difference(request, server.kind)


def ask_echo(client: Client, datatype: str, binary: bool, **more: Any) -> Any:  # noqa: ANN401 - numpy's
    tensor = triton.InferInput("x", list(ARRAYS[datatype].shape), datatype)
    tensor.set_data_from_numpy(ARRAYS[datatype], binary_data=binary)
    return client.infer(f"echo-{datatype.lower()}", [tensor], **more).as_numpy("y")


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("datatype", ECHOES)
def test_every_mix_round_trips(
    client: Client, datatype: str, binary: bool, output: str, compression: str | None
) -> None:
    """JSON and binary tensors there and back, compressed both ways and not."""
    if datatype in ("FP16", "BF16") and (not binary or output == "json"):
        return  # they have no JSON form
    outputs = None if OUTPUTS[output] is None else [triton.InferRequestedOutput("y", binary_data=OUTPUTS[output])]
    squeezed = {"request_compression_algorithm": compression, "response_compression_algorithm": compression}
    found = ask_echo(client, datatype, binary, outputs=outputs, **squeezed)
    texts = [value.decode() if isinstance(value, bytes) else value for value in found.ravel()]
    np.testing.assert_array_equal(np.array(texts, ARRAYS[datatype].dtype).reshape(found.shape), ARRAYS[datatype])


def test_a_binary_answer_needs_no_accept(server: Server, client: Client) -> None:
    client.unregister_plugin()
    client.register_plugin(SendHeaders(server.headers))
    np.testing.assert_array_equal(ask_echo(client, "INT64", binary=True), ARRAYS["INT64"])


def test_the_asyncio_client(server: Server) -> None:
    async def once() -> None:
        async with triton_aio.InferenceServerClient(server.url.removeprefix("http://")) as connected:
            connected.register_plugin(SendHeaders(list_headers(server)))
            assert await connected.is_server_live()
            assert not await connected.is_model_ready("nothing")
            tensor = triton.InferInput("x", [2, 2], "INT64")
            tensor.set_data_from_numpy(ARRAYS["INT64"])
            answers = await asyncio.gather(*(connected.infer("echo-int64", [tensor]) for _ in range(3)))
            for answer in answers:
                np.testing.assert_array_equal(answer.as_numpy("y"), ARRAYS["INT64"])

    asyncio.run(once())


def test_an_answer_that_is_too_large_lies_in_the_store(server: Server, client: Client) -> None:
    """With LargeAnswers=on; compressed it still fits, and is sent."""
    tensor = triton.InferInput("x", [1, 2_000_000], "FP32")
    tensor.set_data_from_numpy(np.full((1, 2_000_000), 7, np.float32))
    packed = {"request_compression_algorithm": "gzip"}
    (output,) = client.infer("echo-fp32", [tensor], **packed).get_response()["outputs"]
    assert output["parameters"]["bytes"] == 8_000_000
    assert output["parameters"]["s3_uri"].startswith(f"{server.registry.store.url}/answers/")
    stored = server.registry.store.get(output["parameters"]["s3_uri"].removeprefix(f"{server.registry.store.url}/"))
    assert np.frombuffer(stored.data, "<f4").tolist() == [7] * 2_000_000
    assert client.infer("echo-fp32", [tensor], **packed, response_compression_algorithm="gzip").as_numpy("y").sum() == (
        14_000_000
    )


def test_what_is_unloaded_is_listed_so_until_it_is_loaded(client: Client) -> None:
    """At once; the environments hear of it within the seconds that they believe an alias."""

    def get_state() -> str:
        (row,) = [row for row in client.get_model_repository_index() if row["name"] == "spare"]
        return str(row["state"])

    client.unload_model("spare")
    assert get_state() == "UNAVAILABLE"
    client.load_model("spare")
    assert get_state() == "READY"


def test_many_digits_at_once(client: Client) -> None:
    images, labels = fakes.digits()
    tensor = triton.InferInput("image", [100, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(images[:100])
    found = client.infer("digits", [tensor]).as_numpy("logits").argmax(axis=1)
    assert (found == labels[:100]).mean() >= 0.97

"""The real SAM CLI's `start-api`, in its containers, over the same calls as everywhere else."""

import asyncio
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from pilotlight.cli.doctor import check_server
from pilotlight.client.client import Client, Tensor
from pilotlight.errors import NotFoundError
from tests import fakes
from tests.conformance.test_tritonclient import ARRAYS
from tests.e2e.conftest import ECHOES, ROOT, sam

IMAGES, LABELS = fakes.digits()
START_S = 120  # the first start builds an image with the layers in it


@pytest.fixture(scope="module")
def url(environment_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "start-api.log"
    command = sam("start-api", "--port", str(port), "--warm-containers", "EAGER", environment=environment_file)
    with log.open("w") as output, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as process:
        address = f"http://127.0.0.1:{port}"
        try:
            await_ready(address, log)
            yield address
        finally:
            process.terminate()


def await_ready(address: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    with Client(address) as client:
        while not client.is_ready():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)


def test_start_api_answers_curl(url: str) -> None:
    pixels = [int(value) for value in IMAGES[0].ravel()]
    body = {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": pixels}]}
    command = ["curl", "-sS", "--fail-with-body", f"{url}/v2/models/digits/infer", "-d", json.dumps(body)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert np.argmax(json.loads(printed)["outputs"][0]["data"]) == LABELS[0]


def test_the_doctor_finds_fault_with_the_clis_own_errors_alone(url: str) -> None:
    found = {one.check: one for one in check_server(url, "s3://models", deep=False)}
    assert {name for name, one in found.items() if one.state == "fails"} == {"gateway's errors"}, found
    assert found["golden requests"].said == "11 requests of 1 champions are answered as recorded."


def test_start_api_answers_our_client(url: str) -> None:
    with Client(url) as client:
        assert client.list_models() == ["digits", *sorted(f"echo-{datatype.lower()}" for datatype in ECHOES)]
        answer = client.infer("digits", [Tensor("image", "FP32", [20, 1, 8, 8], IMAGES[:20].ravel().tolist())])
        logits = np.reshape(answer.get_output("logits").data, (20, 10))
        assert (logits.argmax(axis=1) == LABELS[:20]).mean() >= 0.95
        with pytest.raises(NotFoundError, match="There is no model 'nothing'"):
            client.get_metadata("nothing")


def test_start_api_answers_tritonclient(url: str) -> None:
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        assert client.is_model_ready("digits", "candidate")
        tensor = triton.InferInput("image", [1, 1, 8, 8], "FP32")
        tensor.set_data_from_numpy(IMAGES[:1], binary_data=False)
        wanted = triton.InferRequestedOutput("logits", binary_data=False)
        assert client.infer("digits", [tensor], outputs=[wanted]).as_numpy("logits").argmax() == LABELS[0]


def accept() -> dict[str, str]:
    """SAM CLI decodes a base64 answer only when the request has an Accept header; tritonclient sends none.

    A new one each time, since tritonclient writes its own headers into it.
    """
    return {"Accept": "*/*"}


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(url.removeprefix("http://"), network_timeout=60) as connected:
        yield connected


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("output", [None, False, True])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("datatype", ECHOES)
def test_every_mix_round_trips(
    client: triton.InferenceServerClient, datatype: str, binary: bool, output: bool | None, compression: str | None
) -> None:
    array = ARRAYS[datatype]
    if datatype in ("FP16", "BF16") and not (binary and output in (None, True)):
        return  # they have no JSON form
    tensor = triton.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    outputs = None if output is None else [triton.InferRequestedOutput("y", binary_data=output)]
    found = client.infer(
        f"echo-{datatype.lower()}",
        [tensor],
        outputs=outputs,
        headers=accept(),
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    ).as_numpy("y")
    texts = [value.decode() if isinstance(value, bytes) else value for value in found.ravel()]
    np.testing.assert_array_equal(np.array(texts, array.dtype).reshape(found.shape), array)


def test_the_rest_of_the_protocol(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert not client.is_model_ready("nothing")
    assert "statistics" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("digits")["versions"] == ["1"]
    assert client.get_model_config("digits", "candidate")["input"][0]["dims"] == [-1, 1, 8, 8]
    tensor = triton.InferInput("image", [3, 1, 8, 8], "FP32")
    tensor.set_data_from_numpy(IMAGES[:3])
    wanted = triton.InferRequestedOutput("logits", class_count=2)
    result = client.infer(
        "digits", [tensor], model_version="champion", request_id="7", outputs=[wanted], headers=accept()
    )
    assert (result.get_response()["id"], result.as_numpy("logits").shape) == ("7", (3, 2))
    pending = [client.async_infer("digits", [tensor], headers=accept()) for _ in range(3)]
    assert {request.get_result().as_numpy("logits").shape for request in pending} == {(3, 10)}
    (entry,) = client.get_inference_statistics("digits", "1")["model_stats"]
    assert entry["inference_count"] >= 3
    with pytest.raises(InferenceServerException, match="keep no state") as raised:
        client.infer("digits", [tensor], sequence_id=1, headers=accept())
    assert raised.value.status() == "501"
    with pytest.raises(InferenceServerException, match="has no version 9") as raised:
        client.infer("digits", [tensor], model_version="9", headers=accept())
    assert raised.value.status() == "404"


def test_unload_and_load(client: triton.InferenceServerClient) -> None:
    client.unload_model("echo-uint8")
    states = {row["name"]: row["state"] for row in client.get_model_repository_index()}
    assert (states["echo-uint8"], states["digits"]) == ("UNAVAILABLE", "READY")
    fakes.eventually(lambda: not client.is_model_ready("echo-uint8"))
    client.load_model("echo-uint8")
    fakes.eventually(lambda: bool(client.is_model_ready("echo-uint8")))


def test_the_asyncio_client(url: str) -> None:
    async def once() -> None:
        async with triton_aio.InferenceServerClient(url.removeprefix("http://")) as client:
            tensor = triton.InferInput("x", [2, 2], "INT64")
            tensor.set_data_from_numpy(ARRAYS["INT64"])
            result = await client.infer("echo-int64", [tensor], headers=accept())
            np.testing.assert_array_equal(result.as_numpy("y"), ARRAYS["INT64"])

    asyncio.run(once())


def test_mlflow(url: str) -> None:
    body = json.dumps({"instances": IMAGES[:5].tolist()})
    headers = {"content-type": "application/json", "x-pilotlight-model": "digits"}
    answer = httpx2.post(f"{url}/invocations", content=body, headers=headers, timeout=60)
    assert np.argmax(answer.json()["predictions"], axis=1).tolist() == LABELS[:5]
    assert httpx2.get(f"{url}/ping", timeout=60).status_code == 200

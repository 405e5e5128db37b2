"""The real SAM CLI, in its containers, over the same events and calls as everywhere else."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton

from pilotlight.client import Client, Tensor
from pilotlight.errors import NotFoundError
from tests import fakes
from tests.e2e.conftest import ROOT

IMAGES, LABELS = fakes.digits()
START_S = 120  # the first start builds an image with the layers in it


def sam(*words: str, environment: Path) -> list[str]:
    return ["sam", "local", *words, "--skip-pull-image", "--env-vars", str(environment)]


def test_invoke_answers_the_recorded_event(environment_file: Path) -> None:
    event = "tests/events/predict-digits.json"
    command = sam("invoke", "PredictFunction", "-e", event, environment=environment_file)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[0])
    assert answer["statusCode"] == 200, answer
    body = json.loads(answer["body"])
    assert (body["model_name"], body["model_version"], body["id"]) == ("digits", "1", "one")
    assert np.argmax(body["outputs"][0]["data"]) == 7


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
        while not client.ready():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)


def test_start_api_answers_curl(url: str) -> None:
    pixels = [int(value) for value in IMAGES[0].ravel()]
    body = {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": pixels}]}
    command = ["curl", "-sS", "--fail-with-body", f"{url}/v2/models/digits/infer", "-d", json.dumps(body)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert np.argmax(json.loads(printed)["outputs"][0]["data"]) == LABELS[0]


def test_start_api_answers_our_client(url: str) -> None:
    with Client(url) as client:
        assert client.models() == ["digits"]
        answer = client.infer("digits", [Tensor("image", "FP32", [20, 1, 8, 8], IMAGES[:20].ravel().tolist())])
        logits = np.reshape(answer.output("logits").data, (20, 10))
        assert (logits.argmax(axis=1) == LABELS[:20]).mean() >= 0.95
        with pytest.raises(NotFoundError, match="There is no model 'nothing'"):
            client.metadata("nothing")


def test_start_api_answers_tritonclient(url: str) -> None:
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        assert client.is_model_ready("digits", "candidate")
        tensor = triton.InferInput("image", [1, 1, 8, 8], "FP32")
        tensor.set_data_from_numpy(IMAGES[:1], binary_data=False)
        wanted = triton.InferRequestedOutput("logits", binary_data=False)
        assert client.infer("digits", [tensor], outputs=[wanted]).as_numpy("logits").argmax() == LABELS[0]

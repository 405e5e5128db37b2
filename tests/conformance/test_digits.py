"""What the golden requests and the whole test set get over HTTP, through our client and through curl."""

import json
import subprocess

import numpy as np

from pilotlight.client.client import Client, Tensor
from tests import fakes

IMAGES, LABELS = fakes.digits()
GOLDEN = json.loads((fakes.MODELS / "digits" / "golden.json").read_text())


def test_golden_requests_are_answered_as_recorded(url: str) -> None:
    recorded = []
    for exchange in GOLDEN["exchanges"]:
        (expected,) = exchange["response"]["outputs"]
        recorded += expected["data"]
    allowed = GOLDEN["tolerance"] * max(map(abs, recorded))
    with Client(url) as client:
        for exchange in GOLDEN["exchanges"]:
            answer = json.loads(client.infer_json("digits", json.dumps(exchange["request"]).encode()))
            (actual,), (expected,) = answer["outputs"], exchange["response"]["outputs"]
            assert actual["shape"] == expected["shape"]
            np.testing.assert_allclose(actual["data"], expected["data"], rtol=0, atol=allowed)


def test_the_whole_test_set_over_http(url: str) -> None:
    with Client(url) as client:
        answers = [
            client.infer("digits", [Tensor("image", "FP32", [1, 1, 8, 8], image.ravel().tolist())]).get_output("logits")
            for image in IMAGES
        ]
    right = np.mean([int(np.argmax(answer.data)) == label for answer, label in zip(answers, LABELS, strict=True)])
    assert right >= 0.97


def test_curl(url: str) -> None:
    pixels = [int(value) for value in IMAGES[0].ravel()]
    body = {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": pixels}]}
    for base in (url, f"{url}/prod"):
        command = ["curl", "-sS", "--fail-with-body", f"{base}/v2/models/digits/infer", "-d", json.dumps(body)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert int(np.argmax(json.loads(printed)["outputs"][0]["data"])) == LABELS[0]

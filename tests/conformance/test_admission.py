"""A real environment of 512 MB under requests that would end it: each is answered or refused, and it goes on."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from msgspec.structs import replace

from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import ManifestDraft
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes

ROOT = Path(__file__).parents[2]
FOLDER = fakes.MODELS / "digits"


@pytest.fixture(scope="module")
def small_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway with the digits model, as published today (`digits`) and before costs were measured (`old`)."""
    store = str(tmp_path_factory.mktemp("admission") / "store")
    registry = Registry(open_store(store))
    fakes.publish_digits(registry)
    draft = decode_document((FOLDER / "draft.json").read_bytes(), ManifestDraft, "draft.json")
    files = {path.name: path for path in FOLDER.iterdir() if path.name != "draft.json"}
    registry.publish_version(replace(draft, name="old", request_cost=None), files)
    variables = {"PILOTLIGHT_STORE": store}
    gateway = Gateway(
        ROOT / "template.yaml", port=0, workers=1, environment=variables, parameters={"ModelMemory": "512"}
    )
    with gateway.serve_in_background() as address:
        yield address


def count_failures(url: str, model: str) -> int:
    """How many requests of the model have failed in the environment that answers."""
    (found,) = requests.get(f"{url}/v2/models/{model}/stats", timeout=60).json()["model_stats"]
    return int(found["inference_stats"]["fail"]["count"])


@pytest.mark.parametrize("model", ["digits", "old"])
def test_an_environment_outlives_requests_that_are_too_large_for_it(small_url: str, model: str) -> None:
    target = f"{small_url}/v2/models/{model}/infer"
    for rows in (60_000, 100_000, 200_000):
        image = {"name": "image", "shape": [rows, 1, 8, 8], "datatype": "FP32"}
        head = json.dumps({"inputs": [image | {"parameters": {"binary_data_size": 256 * rows}}]}).encode()
        body = gzip.compress(head + bytes(256 * rows), 1)
        headers = {"content-encoding": "gzip", "inference-header-content-length": str(len(head))}
        answer = requests.post(target, body, headers=headers | {"accept-encoding": "identity"}, timeout=60)
        assert answer.status_code == 413, answer.text
        assert re.search(f"{rows:,} rows of {model}:1 .* enough for [0-9,]+", answer.text), answer.text
    one = json.dumps({"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0] * 64}]})
    assert requests.post(target, data=one, timeout=60).status_code == 200
    assert count_failures(small_url, model) == 3  # in this environment: none was ended

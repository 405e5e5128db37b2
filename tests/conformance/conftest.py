"""A server to point real clients at: the local gateway over the real template, with the digits model."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.contracts.manifest import TensorSpec
from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.runtime.datatypes import ORT_DATATYPES
from pilotlight.storage.object_store import open_store
from tests import fakes

ROOT = Path(__file__).parents[2]


def publish_pair(registry: Registry) -> None:
    """Publish the model with two inputs and two outputs: total = left + right, same = left."""
    left, right, total, same = (TensorSpec(name, "FP32", ("batch", 2)) for name in ("left", "right", "total", "same"))
    registry.publish_version(fakes.draft("pair", (left, right), (total, same)), {"model.onnx": fakes.graph("pair")})


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's URL: PILOTLIGHT_TEST_URL if set, which must serve the same models, else a gateway of our own."""
    if "PILOTLIGHT_TEST_URL" in os.environ:
        yield os.environ["PILOTLIGHT_TEST_URL"]
        return
    store = str(tmp_path_factory.mktemp("conformance") / "store")
    registry = Registry(open_store(store))
    for _ in range(2):
        fakes.publish_digits(registry)
    fakes.publish(registry, "logarithm", of="logarithm")
    publish_pair(registry)
    for datatype in ORT_DATATYPES.values():
        fakes.publish_echo(registry, datatype)
    variables = {"PILOTLIGHT_STORE": store, "PILOTLIGHT_ALIAS_SECONDS": "0.2"}
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment=variables)
    with gateway.serve_in_background() as address:
        yield address

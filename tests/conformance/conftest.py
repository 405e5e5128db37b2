"""A server to point real clients at: the local gateway over the real template, with the digits model."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.contracts import Datatype, TensorSpec
from pilotlight.local.gateway import Gateway
from pilotlight.registry import Registry
from pilotlight.runtime.datatypes import ORT_DATATYPES
from pilotlight.storage import open_store
from tests import fakes

ROOT = Path(__file__).parents[2]


def publish_echo(registry: Registry, datatype: Datatype) -> None:
    """Publish the model that gives its input back, of one datatype."""
    name, shape = f"echo-{datatype.lower()}", ("rows", "columns")
    draft = fakes.draft(name, (TensorSpec("x", datatype, shape),), (TensorSpec("y", datatype, shape),))
    registry.publish(draft, {"model.onnx": fakes.graph(name)})


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
    for datatype in ORT_DATATYPES.values():
        publish_echo(registry, datatype)
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment={"PILOTLIGHT_STORE": store})
    with gateway.background() as address:
        yield address

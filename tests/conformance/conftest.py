"""A server to point real clients at: the local gateway over the real template, with the digits model."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.local.gateway import Gateway
from pilotlight.registry import Registry
from pilotlight.storage import open_store
from tests import fakes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's URL: PILOTLIGHT_TEST_URL when it is set, which must serve digits, else a gateway of our own."""
    if "PILOTLIGHT_TEST_URL" in os.environ:
        yield os.environ["PILOTLIGHT_TEST_URL"]
        return
    store = str(tmp_path_factory.mktemp("conformance") / "store")
    for _ in range(2):
        fakes.publish_digits(Registry(open_store(store)))
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment={"PILOTLIGHT_STORE": store})
    with gateway.background() as address:
        yield address

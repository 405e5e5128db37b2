"""A healthy gateway over the real template, and the store behind it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests import fakes

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of the gateway, and of its store."""
    store = str(tmp_path_factory.mktemp("doctor") / "store")
    registry = Registry(open_store(store))
    fakes.publish_digits(registry)
    fakes.publish(registry)
    variables = {"PILOTLIGHT_STORE": store}
    with Gateway(ROOT / "template.yaml", port=0, workers=1, environment=variables).serve_in_background() as url:
        yield url, store

"""The stack that the front door's tests ask, by the unmodified template with LargeAnswers on."""

from collections.abc import Callable

import pytest

from tests.e2e.deploy.conftest import DeployedStack
from tests.e2e.front_door.server import Server, publish_models

CONTAINERS_NAME = "host.docker.internal"  # of this machine, in the containers whose functions presign URLs


@pytest.fixture(scope="session")
def server(deploy: Callable[..., DeployedStack]) -> Server:
    """The deployed API, with a key of every scope and one that may infer."""
    stack = deploy("pilotlight-front-door", LargeAnswers="on")
    keys = stack.key, stack.create_key("app", "infer")
    server = Server("deployed", stack.url, stack.store_url, *keys, ((CONTAINERS_NAME, "127.0.0.1"),))
    publish_models(server.registry)
    return server

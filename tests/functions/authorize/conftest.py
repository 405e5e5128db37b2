"""One issuer for all tests of the authorizer: its keys take a while to make."""

import socket

import pytest

from functions.authorize.issuer import Issuer
from functions.authorize.jwks import JwksCache
from tests.issuer import AUDIENCE, NAME, FakeIssuer


@pytest.fixture(scope="session")
def fake() -> FakeIssuer:
    return FakeIssuer()


@pytest.fixture(scope="session")
def keys(fake: FakeIssuer) -> JwksCache:
    return JwksCache(fake.jwks)


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer(NAME, frozenset({AUDIENCE}), "https://issuer.example.com/keys")


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])

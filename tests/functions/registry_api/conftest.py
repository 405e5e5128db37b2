"""The registry function as Lambda calls it, over stores that take uploads."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from functions.registry_api.handler import build_registry_api
from pilotlight.contracts.signed_upload import PresignedUpload, UploadGrant
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import open_store
from tests import fakes
from tests.checked_s3 import Checksums
from tests.conftest import Serial, aws_variables, moto_server, new_bucket
from tests.core.local.http_client import ask

KEY = "a key of the local gateway"
ANN = {"authorizer": {"principalId": "plk_1", "key": "ann"}, "identity": {"sourceIp": "192.0.2.7"}}


class Server:
    """The registry function over a store, and who takes its uploads."""

    def __init__(self, store_url: str) -> None:
        self.store = open_store(store_url)
        self.registry = Registry(self.store)
        is_disk = not store_url.startswith(("s3:", "memory:"))
        self.handle = build_registry_api(Settings(store=store_url, upload_key=KEY if is_disk else ""))
        self.context: dict[str, Any] = ANN

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and body."""
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        event = fakes.event(self.handle._routes, method, path, sent)
        event["requestContext"] = self.context
        answer = self.handle(event, None)
        return answer["statusCode"], json.loads(answer["body"])

    def upload(self, signed: dict[str, Any], data: bytes) -> int:
        """Do what a presigned request says; gives the status, for a disk that of the gateway."""
        request = PresignedUpload(**signed)
        origin, slash, target = request.url.partition("://")[2].partition("/")
        if "signed-uploads" not in request.url:
            return ask(f"http://{origin}", request.method, slash + target, data, request.headers).status
        path, _, query = (slash + target).partition("?")
        self.store.create(UploadGrant.parse_target(path, query, KEY, 0).path, data)
        return 200

    def visible(self) -> list[int]:
        """What readers see."""
        return self.registry.list_versions("double")


@pytest.fixture(scope="session")
def checked_moto_url() -> Iterator[str]:
    """moto's S3 with the checks of hashes that S3 makes."""
    with moto_server(lambda application: Checksums(Serial(application))) as url:
        yield url


@pytest.fixture(params=["bucket", "bucket without hashes", "disk"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The function over each kind of store that takes uploads."""
    if request.param == "disk":
        return Server((tmp_path / "a store").as_uri())
    kind = "checked_moto_url" if request.param == "bucket" else "moto_url"
    url = request.getfixturevalue(kind)
    for name, value in aws_variables(url).items():
        monkeypatch.setenv(name, value)
    return Server(new_bucket(url))


@pytest.fixture
def bucket(checked_moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The function over a bucket that checks hashes."""
    for name, value in aws_variables(checked_moto_url).items():
        monkeypatch.setenv(name, value)
    return Server(new_bucket(checked_moto_url))

"""The batches function over a store in memory, and the batch function that it tells, when it is asked to."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from functions.batch_api.handler import build_batch_api
from functions.batch_worker.handler import build_batch_worker as build_batch
from pilotlight.aws.eventbridge import EventBus
from pilotlight.errors import UnavailableError
from pilotlight.registry.registry import Registry
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes

BOUNDARY = "a-boundary"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


class Word(EventBus):
    """Tells nobody, and remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str]] = []
        self.away = False

    def publish(self, source: str, job: str) -> None:
        if self.away:
            raise UnavailableError("EventBridge is away.")
        self.told.append((source, job))


class Place:
    """Both functions over one store."""

    def __init__(self, store: ObjectStore, url: str = "") -> None:
        self.store = store
        self.word = Word()
        fakes.publish(Registry(store))
        settings = Settings(store=url or store.url)
        self.handle = build_batch_api(settings, store, self.word)
        self.batch = build_batch(settings, store)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status and body, which is JSON unless it is bytes."""
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        answer = self.handle(fakes.event(self.handle._routes, method, path, sent, headers, query), None)
        if answer["isBase64Encoded"] or answer["statusCode"] == 302:
            return answer["statusCode"], answer
        return answer["statusCode"], json.loads(answer["body"])

    def path(self, uri: str) -> str:
        """The path of an address in the store."""
        assert uri.startswith(f"{self.store.url}/")
        return uri.removeprefix(f"{self.store.url}/")

    def upload(self, data: bytes, **headers: str) -> str:
        """A file's id."""
        status, said = self.ask("POST", "/v1/files", form(data), FORM | headers)
        assert status == 200, said
        return str(said["id"])

    def order(self, data: bytes) -> dict[str, Any]:
        """A batch that nobody has begun to answer."""
        return self.batch_of(self.upload(data))

    def batch_of(self, file: str, headers: Mapping[str, str] | None = None, **more: object) -> dict[str, Any]:
        """A batch of a file that is there."""
        body = {"input_file_id": file, "endpoint": "/v2/models/double/infer", "completion_window": "24h", **more}
        status, said = self.ask("POST", "/v1/batches", body, headers)
        assert status == 200, said
        return dict(said)

    def work(self) -> str:
        """Let the batch function hear what it was told last."""
        _, job = self.word.told[-1]
        event = {"detail-type": "Pilotlight Inference", "detail": {"batch": job}}
        return str(self.batch(event, None)["done"][0])

    def show(self, batch: str) -> dict[str, Any]:
        """A batch as it is now."""
        return dict(self.ask("GET", f"/v1/batches/{batch}")[1])


def form(data: bytes, name: str = "file", **fields: str) -> bytes:
    """A multipart form as browsers and httpx write it."""
    head = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in ({"purpose": "batch"} | fields).items()
    ]
    disposition = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a.jsonl"\r\n'
    return "".join((*head, disposition, "\r\n")).encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def calls(count: int, **more: object) -> bytes:
    """So many requests to double."""
    return b"".join(
        json.dumps(
            {
                "custom_id": f"n{number}",
                "method": "POST",
                "url": "/v2/models/double/infer",
                "body": {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [number, 0, 1]}]},
                **more,
            }
        ).encode()
        + b"\n"
        for number in range(count)
    )


CALLERS = ("", "acme", "Acme", "auth0|acme/@x")  # tenants; the first is none


class Caller:
    """Somebody of a tenant at a place."""

    def __init__(self, place: Place, tenant: str) -> None:
        self.place = place
        self.tenant = tenant

    def ask(self, method: str, path: str, body: bytes | None = None, **more: Any) -> tuple[int, str]:  # noqa: ANN401
        """Status, and all that the answer says."""
        event = fakes.event(self.place.handle._routes, method, path, body, **more)
        authorizer = {"tenant": self.tenant, "principalId": f"one of {self.tenant}"} if self.tenant else {}
        event["requestContext"] = {**event["requestContext"], "authorizer": authorizer}
        answer = self.place.handle(event, None)
        headers = {name: value for name, value in answer["headers"].items() if name in ("location", "content-type")}
        text = base64.b64decode(answer["body"]).decode() if answer["isBase64Encoded"] else answer["body"]
        return answer["statusCode"], json.dumps(headers) + text

    def make(self, path: str, body: bytes, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        """What was made."""
        status, said = self.ask("POST", path, body, **more)
        assert status == 200, said
        return dict(json.loads(said[said.index("}") + 1 :]))


def announce(name: str, size: int) -> bytes:
    return json.dumps({"filename": name, "bytes": size, "purpose": "batch"}).encode()


def order(file: str, **more: object) -> bytes:
    return json.dumps({"input_file_id": file, "endpoint": "/v2/models/double/infer", **more}).encode()


BY_ID = [
    ("GET", "/v1/files/{}"), ("GET", "/v1/files/{}/content"), ("DELETE", "/v1/files/{}"),
    ("POST", "/v1/uploads/{}/parts"), ("POST", "/v1/uploads/{}/complete"), ("POST", "/v1/uploads/{}/cancel"),
    ("GET", "/v1/batches/{}"), ("POST", "/v1/batches/{}/cancel"), ("POST", "/v1/batches"),
    ("GET", "/v1/files?after={}"), ("GET", "/v1/batches?after={}"),
]  # fmt: skip


@pytest.fixture
def place() -> Place:
    """Both functions over a store in memory."""
    return Place(open_store("memory://"))

"""The uploads that the gateway takes for a store on disk, over HTTP."""

import hashlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pilotlight.contracts.signed_upload import UploadGrant
from pilotlight.errors import InvalidInputError
from pilotlight.local.connections import ConnectionLimits
from pilotlight.local.gateway import Gateway
from pilotlight.storage.object_store import DiskStore, ObjectStore, open_store
from tests.core.local.conftest import LIMITS, STACK
from tests.core.local.http_client import Reply, ask
from tests.fakes import eventually

KEY = "0" * 64
PATH = "models/digits/versions/1/model.onnx"
DATA = b"weights" * 1000
LATER = int(time.time()) + 3600


@dataclass(frozen=True)
class Place:
    """A gateway that takes uploads, and its store."""

    url: str
    store: ObjectStore

    def put(self, target: str, data: bytes, **headers: str) -> Reply:
        return ask(self.url, "PUT", target, data, {name.replace("_", "-"): value for name, value in headers.items()})


def grant(data: bytes = DATA, path: str = PATH, expires_at: int = LATER) -> UploadGrant:
    return UploadGrant(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), expires_at=expires_at)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Only what other requests may have at most is smaller here."""
    monkeypatch.setattr("pilotlight.local.gateway.secrets.token_hex", lambda size: KEY)
    store = open_store(str(tmp_path / "store"))
    assert isinstance(store, DiskStore)
    limits = ConnectionLimits(unread_bytes=1 << 20, held_bytes=2 << 20)
    gateway = Gateway(STACK, port=0, workers=1, limits=LIMITS, uploads=store, connections=limits, secret="s" * 16)
    with gateway.serve_in_background() as url:
        yield Place(url, store)


def test_what_was_signed_is_stored_once(place: Place) -> None:
    target = grant().build_target(KEY)
    assert place.put(target, DATA).status == 200
    assert place.store.get(PATH).data == DATA
    again = place.put(target, DATA)
    assert (again.status, "stays as it is" in again.error) == (412, True)


def test_a_file_may_be_larger_than_what_other_requests_bring(place: Place) -> None:
    """It goes to the disk as it arrives."""
    large = bytes(range(256)) * (40 << 12)  # 40 MiB
    assert place.put(grant(large).build_target(KEY), large).status == 200
    assert place.store.get(PATH).data == large


def test_an_empty_file_is_one(place: Place) -> None:
    assert place.put(grant(b"").build_target(KEY), b"").status == 200
    assert place.store.get(PATH).data == b""


@pytest.mark.parametrize(
    ("data", "status"), [(DATA[:-1] + b"!", 400), (DATA + b"x", 403), (DATA[:-1], 403), (b"", 403)]
)
def test_other_bytes_are_refused_and_nothing_is_stored(place: Place, data: bytes, status: int) -> None:
    reply = place.put(grant().build_target(KEY), data)
    assert (reply.status, f"{len(DATA):,}" in reply.error) == (status, True)
    assert list(place.store.list_paths("")) == []
    assert place.put(grant().build_target(KEY), DATA).status == 200


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (grant().build_target("another key"), "not one that the registry signed"),
        (grant().build_target(KEY).replace("versions/1", "versions/2"), "not one that the registry signed"),
        (grant().build_target(KEY).replace("bytes=7000", "bytes=7001"), "not one that the registry signed"),
        (grant().build_target(KEY).partition("&signature")[0], "not one that the registry signed"),
        (grant().build_target(KEY).partition("?")[0], "not one that the registry signed"),
        (grant(expires_at=1).build_target(KEY), "has expired"),
        ("/signed-uploads/../../etc/passwd?bytes=7000", "not one that the registry signed"),
    ],
)
def test_only_what_the_registry_has_signed_is_taken(place: Place, target: str, why: str) -> None:
    reply = place.put(target, DATA)
    assert (reply.status, why in reply.error) == (403, True)
    assert list(place.store.list_paths("")) == []


def test_an_upload_that_dies_leaves_nothing(place: Place) -> None:
    parts, target = urlsplit(place.url), grant().build_target(KEY)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        head = f"PUT {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(DATA)}\r\n\r\n"
        connection.sendall(head.encode() + DATA[:1000])
    eventually(lambda: place.put(target, DATA).status in (200, 412))
    assert place.store.get(PATH).data == DATA
    assert list(place.store.list_paths("")) == [PATH]


def test_a_refused_upload_is_not_read_for_ever(place: Place) -> None:
    """After its answer, it is a request like any other, of which so many bytes are read at most."""
    parts = urlsplit(place.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        head = f"PUT /signed-uploads/x HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 100000000\r\n\r\n"
        connection.sendall(head.encode())
        assert b" 403 " in connection.recv(1000)
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe, as the kernel has it
            connection.sendall(bytes(100_000_000))


def test_without_a_store_on_disk_there_is_no_such_route(url: str) -> None:
    assert ask(url, "PUT", grant().build_target(KEY), DATA).json == {"error": "no such route"}


def test_a_grant_is_what_was_signed() -> None:
    odd = grant(path="models/a b&c=d?e/ü/1")
    path, _, query = odd.build_target(KEY).partition("?")
    assert UploadGrant.parse_target(path, query, KEY, LATER) == odd
    with pytest.raises(InvalidInputError, match="has expired"):
        UploadGrant.parse_target(path, query, KEY, LATER + 1)
    with pytest.raises(InvalidInputError, match="not one that the registry signed"):
        UploadGrant.parse_target(path, query.replace("signature=", "signature=ü"), KEY, LATER)

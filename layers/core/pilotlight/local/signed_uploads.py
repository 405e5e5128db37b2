"""Uploads by signed URLs into a store on disk, in the place of S3, which takes presigned ones for a bucket.

    PUT /signed-uploads/models/digits/versions/3/model.onnx?bytes=...&sha256=...&expires=...&signature=...

The registry function signs them with a key that only it and this gateway know, so that a URL needs no other
credentials, as on S3. Nothing appears in the store before all bytes are there and have the hash that was signed. Bytes
go to a file as they arrive: an upload may be larger than what the gateway takes of other requests.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Protocol

from pilotlight.contracts.signed_upload import UPLOADS_PATH, UploadGrant
from pilotlight.errors import AlreadyExistsError, InvalidInputError, StoreError
from pilotlight.local.gateway_errors import (
    ALREADY_EXISTS,
    CLIENT_GONE,
    DENIED,
    INVALID_REQUEST,
    STORE_FAILED,
    GatewayError,
)
from pilotlight.local.invoke_api import Receive, Scope
from pilotlight.local.proxy_events import HttpResponse

Clock = Callable[[], float]  # Unix seconds


class UploadStore(Protocol):
    """A store that takes files, each once."""

    def create_from_file(self, path: str, source: Path) -> None:
        """Write a file's bytes as an object only if there is none; raise `AlreadyExistsError` otherwise."""


class SignedUploads:
    """Takes uploads for one store."""

    def __init__(self, store: UploadStore, key: str, clock: Clock = time.time) -> None:
        self._store = store
        self._key = key
        self._clock = clock

    def can_handle(self, scope: Scope) -> bool:
        """Return whether a request is an upload."""
        return scope["method"] == "PUT" and is_upload_target(scope["raw_path"])

    async def handle_request(self, scope: Scope, receive: Receive) -> HttpResponse:
        """Store the file that a request brings, if its URL allows that."""
        grant = self._read_grant(scope)
        with NamedTemporaryFile(prefix="pilotlight-upload-") as file:
            await receive_file(receive, file, grant)
            await asyncio.to_thread(self._store_file, grant, Path(file.name))
        return HttpResponse(200, [(b"content-length", b"0")], b"")

    def _read_grant(self, scope: Scope) -> UploadGrant:
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        try:
            grant = UploadGrant.parse_target(path, query, self._key, self._clock())
        except InvalidInputError as exc:
            raise GatewayError(DENIED, str(exc)) from exc
        announced = dict(scope["headers"]).get(b"content-length")
        if announced != b"%d" % grant.bytes:
            raise GatewayError(
                DENIED, f"The URL is for {grant.bytes:,} bytes, and the content-length is {announced!r}."
            )
        return grant

    def _store_file(self, grant: UploadGrant, source: Path) -> None:
        try:
            self._store.create_from_file(grant.path, source)
        except AlreadyExistsError as exc:
            raise GatewayError(ALREADY_EXISTS, f"{exc} What was uploaded stays as it is.") from exc
        except StoreError as exc:
            raise GatewayError(STORE_FAILED, str(exc)) from exc


def is_upload_target(target: bytes) -> bool:
    """Return whether a request's path, or its path and query, is that of an upload."""
    return target.startswith(UPLOADS_PATH.encode())


async def receive_file(receive: Receive, file: IO[bytes], grant: UploadGrant) -> None:
    """Write a body into a file as it arrives, and check its size and hash."""
    digest, size = hashlib.sha256(), 0
    async for chunk in iterate_chunks(receive):
        size += len(chunk)
        await asyncio.to_thread(write_hashed, file, digest.update, chunk)
    file.flush()
    if (size, digest.hexdigest()) != (grant.bytes, grant.sha256):
        raise GatewayError(
            INVALID_REQUEST,
            f"What arrived has {size:,} bytes and the sha256 {digest.hexdigest()}; {grant.bytes:,} and {grant.sha256} "
            "were announced.",
        )


def write_hashed(file: IO[bytes], hash_chunk: Callable[[bytes], None], chunk: bytes) -> None:
    """Hash a chunk and write it."""
    hash_chunk(chunk)
    file.write(chunk)


async def iterate_chunks(receive: Receive) -> AsyncIterator[bytes]:
    """Iterate over a body as it arrives; the client must not go away before its end."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GatewayError(CLIENT_GONE, "The client went away before it had sent the file.")
        more = message["more_body"]
        yield message["body"]

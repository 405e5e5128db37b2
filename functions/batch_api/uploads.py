"""What the routes of uploads answer: a file that is too large for a request comes in parts, or straight to the bucket.

POST /v1/uploads                      announces it; `presigned` says where its bytes may be put, where there is a bucket
POST /v1/uploads/{upload}/parts       a part of at most 4 MB, in any order and at the same time
POST /v1/uploads/{upload}/complete    the parts in their order become the file
"""

import hashlib
import secrets
import time
from collections.abc import Iterator, Sequence

from msgspec import json

from functions.batch_api.file_store import Shelf
from functions.batch_api.files import INLINE
from functions.batch_api.idempotency import Once
from functions.batch_api.openai_http import read, sent
from functions.batch_api.presigned_urls import SECONDS, Presigner
from pilotlight.api.http import Request, Response
from pilotlight.api.router import Routes
from pilotlight.api.schemas.openai import Complete, FileObject, NewUpload, UploadObject, UploadPart
from pilotlight.contracts import upload
from pilotlight.contracts.manifest import decode, encode
from pilotlight.contracts.upload import Upload
from pilotlight.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError, TooLargeError


class Uploads:
    """Uploads onto a shelf."""

    def __init__(self, shelf: Shelf, once: Once, presigner: Presigner | None) -> None:
        self._shelf = shelf
        self._store = shelf.store
        self._once = once
        self._presigner = presigner

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml."""
        return {
            "/v1/uploads": {"POST": self.create},
            "/v1/uploads/{upload}/parts": {"POST": self.part},
            "/v1/uploads/{upload}/complete": {"POST": self.complete},
            "/v1/uploads/{upload}/cancel": {"POST": self.cancel},
        }

    def create(self, request: Request) -> Response:
        """Announce a file."""
        asked = read(request, NewUpload)
        name = self._once.id(request, json.encode(asked))
        told = Upload(
            id=name,
            filename=asked.filename,
            purpose=asked.purpose,
            bytes=asked.bytes,
            created_at=int(time.time()),
            by=request.caller,
        )
        try:
            self._store.create(f"{upload.FOLDER}/{name}/upload.json", encode(told))
        except AlreadyExistsError:
            told = self._told(f"upload_{name}")
        return Response.json(self._shown(told))

    def part(self, request: Request) -> Response:
        """Take a part."""
        told, data = self._told(request.parameters["upload"]), sent(request, "data").data
        self._check_open(told)
        if len(data) > INLINE:
            raise TooLargeError(f"The part has {len(data):,} bytes; at most {INLINE:,} are taken, send it in several.")
        name = secrets.token_hex(16)
        self._store.put(f"{upload.FOLDER}/{told.id}/parts/{name}", data)
        return Response.json(UploadPart(id=f"part_{name}", created_at=int(time.time()), upload_id=f"upload_{told.id}"))

    def complete(self, request: Request) -> Response:
        """Make the file; `InvalidInputError` when it is not what was announced, and then nothing is.

        A client that has not heard the answer asks again: what is a file already is shown as one.
        """
        told, asked = self._told(request.parameters["upload"]), read(request, Complete)
        if (made := self._made(told)) is not None:
            return Response.json(self._shown(told, made))
        folder = f"{upload.FOLDER}/{told.id}"
        if asked.part_ids:
            self._store.write(f"{folder}/content", self._joined(folder, asked.part_ids))
        self._check(f"{folder}/content", told, asked.md5)
        file = self._shelf.whole(told)
        for path in list(self._store.paths(f"{folder}/parts")):
            self._store.delete(path)
        return Response.json(self._shown(told, file))

    def cancel(self, request: Request) -> Response:
        """Forget an upload and what came of it."""
        told = self._told(request.parameters["upload"])
        self._check_open(told)
        folder = f"{upload.FOLDER}/{told.id}"
        for path in (f"{folder}/upload.json", f"{folder}/content", *list(self._store.paths(f"{folder}/parts"))):
            self._store.delete(path)
        shown = self._shown(told)
        shown.status, shown.presigned = "cancelled", None
        return Response.json(shown)

    def _joined(self, folder: str, parts: Sequence[str]) -> Iterator[bytes]:
        for part in parts:
            try:
                yield self._store.get(f"{folder}/parts/{part.removeprefix('part_')}").data
            except NotFoundError as exc:
                raise InvalidInputError(f"There is no part {part!r} of this upload.") from exc

    def _check(self, path: str, told: Upload, md5: str) -> None:
        try:
            size, e_tag = self._store.stamp(path)
        except NotFoundError as exc:
            raise InvalidInputError("Nothing was uploaded; name its part_ids, or put it where presigned says.") from exc
        if size != told.bytes:
            raise InvalidInputError(f"The upload has {size:,} bytes, but {told.bytes:,} were announced.")
        if not md5:
            return
        digest = hashlib.md5(usedforsecurity=False)
        for block in self._store.blocks(path, 0, size, e_tag):
            digest.update(block)
        if digest.hexdigest() != md5.lower():
            raise InvalidInputError(f"The upload's md5 is {digest.hexdigest()}, not {md5!r}.")

    def _made(self, told: Upload) -> FileObject | None:
        """The file that an upload has become."""
        try:
            return self._shelf.find(f"file-{told.id}").shown
        except NotFoundError:
            return None

    def _check_open(self, told: Upload) -> None:
        """`ConflictError` for an upload that is a file already, which nothing changes any more."""
        if self._made(told) is not None:
            raise ConflictError(f"upload_{told.id} is completed already; its file is file-{told.id}.")

    def _told(self, name: str) -> Upload:
        path = f"{upload.folder(name)}/upload.json"
        try:
            return decode(self._store.get(path).data, Upload, path)
        except NotFoundError as exc:
            raise NotFoundError(f"There is no upload {name!r}; POST /v1/uploads begins one.") from exc

    def _shown(self, told: Upload, file: FileObject | None = None) -> UploadObject:
        path = f"{upload.FOLDER}/{told.id}/content"
        open_ = file is None and self._presigner is not None
        return UploadObject(
            id=f"upload_{told.id}",
            bytes=told.bytes,
            created_at=told.created_at,
            expires_at=told.created_at + SECONDS,
            filename=told.filename,
            purpose=told.purpose,
            status="completed" if file is not None else "pending",
            file=file,
            presigned=self._presigner.put(path, told.bytes) if open_ and self._presigner is not None else None,
            s3_uri=f"{self._store.url}/{path}",
        )

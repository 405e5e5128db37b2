"""Routes of uploads: a file that is too large for a request is sent in parts, or directly to the bucket.

POST /v1/uploads                      announces it; `presigned` is the URL for its bytes, if the store is a bucket
POST /v1/uploads/{upload}/parts       a part of at most 4 MB, in any order and at the same time
POST /v1/uploads/{upload}/complete    the parts in their order become the file
"""

import hashlib
import secrets
import time
from collections.abc import Iterator, Sequence

from msgspec import json

from functions.batch_api.file_store import FileStore
from functions.batch_api.files import MAX_INLINE_BYTES
from functions.batch_api.idempotency import IdempotencyKeys
from functions.batch_api.openai_http import parse_multipart_form
from functions.batch_api.presigned_urls import EXPIRY_S, Presigner
from pilotlight.api.http import Request, Response
from pilotlight.api.powertools_router import TypedRoutes
from pilotlight.api.schemas.openai import CompleteUploadBody, CreateUploadBody, FileObject, UploadObject, UploadPart
from pilotlight.contracts.upload import UPLOADS_FOLDER, Upload, upload_folder
from pilotlight.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError, TooLargeError
from pilotlight.storage.documents import Document


class UploadEndpoints:
    """The routes of uploads over a file store."""

    def __init__(self, file_store: FileStore, idempotency_keys: IdempotencyKeys, presigner: Presigner | None) -> None:
        self._file_store = file_store
        self._store = file_store.store
        self._idempotency_keys = idempotency_keys
        self._presigner = presigner

    def routes(self) -> TypedRoutes:
        """Return the endpoints by route and verb."""
        return {
            "/v1/uploads": {"POST": self.create},
            "/v1/uploads/{upload}/parts": {"POST": self.add_part},
            "/v1/uploads/{upload}/complete": {"POST": self.complete},
            "/v1/uploads/{upload}/cancel": {"POST": self.cancel},
        }

    def create(self, request: Request, body: CreateUploadBody) -> Response:
        """Announce a file."""
        name = self._idempotency_keys.reserve_id(request, json.encode(body))
        upload_record = Upload(
            id=name,
            filename=body.filename,
            purpose=body.purpose,
            bytes=body.bytes,
            created_at=int(time.time()),
            by=request.caller,
        )
        try:
            self._open_upload(f"upload_{name}").create(upload_record)
        except AlreadyExistsError:
            upload_record = self._read_upload(f"upload_{name}")
        return Response.json(self._to_upload_object(upload_record))

    def add_part(self, request: Request, upload: str) -> Response:
        """Store a part."""
        upload_record, data = self._read_upload(upload), parse_multipart_form(request, "data").data
        self._check_open(upload_record)
        if len(data) > MAX_INLINE_BYTES:
            raise TooLargeError(
                f"The part has {len(data):,} bytes; at most {MAX_INLINE_BYTES:,} are taken, send it in several."
            )
        name = secrets.token_hex(16)
        self._store.put(f"{UPLOADS_FOLDER}/{upload_record.id}/parts/{name}", data)
        return Response.json(
            UploadPart(id=f"part_{name}", created_at=int(time.time()), upload_id=f"upload_{upload_record.id}")
        )

    def complete(self, upload: str, body: CompleteUploadBody) -> Response:
        """Create the file; raise `InvalidInputError`, without a file, when it is not what was announced.

        A client that lost the response may repeat the request: a completed upload is returned with its file.
        """
        upload_record = self._read_upload(upload)
        if (existing := self._find_file(upload_record)) is not None:
            return Response.json(self._to_upload_object(upload_record, existing))
        folder = f"{UPLOADS_FOLDER}/{upload_record.id}"
        if body.part_ids:
            self._store.put_chunks(f"{folder}/content", self._iterate_parts(folder, body.part_ids))
        self._check_content(f"{folder}/content", upload_record, body.md5)
        file = self._file_store.mark_complete(upload_record)
        for path in list(self._store.list_paths(f"{folder}/parts")):
            self._store.delete(path)
        return Response.json(self._to_upload_object(upload_record, file))

    def cancel(self, upload: str) -> Response:
        """Delete an upload and its parts."""
        upload_record = self._read_upload(upload)
        self._check_open(upload_record)
        folder = f"{UPLOADS_FOLDER}/{upload_record.id}"
        for path in (f"{folder}/upload.json", f"{folder}/content", *list(self._store.list_paths(f"{folder}/parts"))):
            self._store.delete(path)
        upload_object = self._to_upload_object(upload_record)
        upload_object.status, upload_object.presigned = "cancelled", None
        return Response.json(upload_object)

    def _iterate_parts(self, folder: str, parts: Sequence[str]) -> Iterator[bytes]:
        for part in parts:
            try:
                yield self._store.get(f"{folder}/parts/{part.removeprefix('part_')}").data
            except NotFoundError as exc:
                raise InvalidInputError(f"There is no part {part!r} of this upload.") from exc

    def _check_content(self, path: str, upload_record: Upload, md5: str) -> None:
        try:
            size, e_tag = self._store.get_size_and_e_tag(path)
        except NotFoundError as exc:
            raise InvalidInputError("Nothing was uploaded; name its part_ids, or put it where presigned says.") from exc
        if size != upload_record.bytes:
            raise InvalidInputError(f"The upload has {size:,} bytes, but {upload_record.bytes:,} were announced.")
        if not md5:
            return
        digest = hashlib.md5(usedforsecurity=False)
        for block in self._store.iterate_blocks(path, 0, size, e_tag):
            digest.update(block)
        if digest.hexdigest() != md5.lower():
            raise InvalidInputError(f"The upload's md5 is {digest.hexdigest()}, not {md5!r}.")

    def _find_file(self, upload_record: Upload) -> FileObject | None:
        """Find the file of a completed upload."""
        try:
            return self._file_store.find_file(f"file-{upload_record.id}").file_object
        except NotFoundError:
            return None

    def _check_open(self, upload_record: Upload) -> None:
        """Raise `ConflictError` for a completed upload, which does not change any more."""
        if self._find_file(upload_record) is not None:
            raise ConflictError(f"upload_{upload_record.id} is completed already; its file is file-{upload_record.id}.")

    def _read_upload(self, upload_id: str) -> Upload:
        upload_record = self._open_upload(upload_id).read_or_none()
        if upload_record is None:
            raise NotFoundError(f"There is no upload {upload_id!r}; POST /v1/uploads begins one.")
        return upload_record

    def _open_upload(self, upload_id: str) -> Document[Upload]:
        folder = upload_folder(upload_id)
        return Document(self._store, f"{folder}/upload.json", Upload, id=folder.rpartition("/")[2])

    def _to_upload_object(self, upload_record: Upload, file: FileObject | None = None) -> UploadObject:
        path = f"{UPLOADS_FOLDER}/{upload_record.id}/content"
        is_open = file is None and self._presigner is not None
        return UploadObject(
            id=f"upload_{upload_record.id}",
            bytes=upload_record.bytes,
            created_at=upload_record.created_at,
            expires_at=upload_record.created_at + EXPIRY_S,
            filename=upload_record.filename,
            purpose=upload_record.purpose,
            status="completed" if file is not None else "pending",
            file=file,
            presigned=self._presigner.presign_upload(path, upload_record.bytes)
            if is_open and self._presigner is not None
            else None,
            s3_uri=f"{self._store.url}/{path}",
        )

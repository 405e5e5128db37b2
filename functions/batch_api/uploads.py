"""Routes of uploads: a file that is too large for a request is sent in parts, or directly to the bucket.

POST /v1/uploads                      announces it; `presigned` is the URL for its bytes, if the store is a bucket
POST /v1/uploads/{upload}/parts       a part of at most 4 MB, in any order and at the same time
POST /v1/uploads/{upload}/complete    the parts in their order become the file
POST /v1/uploads/{upload}/cancel      deletes the parts; the upload never becomes a file

Two requests that would end an upload race for `file.json`, which is created once: one of them counts, and the other is
told so. An attempt to join parts writes an object of its own, so that a later one does not change a file that is
complete.
"""

import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from msgspec import json, structs

from functions.batch_api.file_store import FileStore
from functions.batch_api.files import MAX_INLINE_BYTES
from functions.batch_api.idempotency import IdempotencyKeys
from functions.batch_api.openai_http import parse_multipart_form
from pilotlight.api.http import Request, Response
from pilotlight.api.powertools_router import TypedRoutes
from pilotlight.api.schemas.openai import (
    MAX_UPLOAD_PARTS,
    CompleteUploadBody,
    CreateUploadBody,
    UploadObject,
    UploadPart,
)
from pilotlight.aws.presigned_urls import Presigner
from pilotlight.contracts.signed_upload import EXPIRY_S
from pilotlight.contracts.upload import CONTENT, UPLOAD_ID_PATTERN, Upload, content_path, upload_folder
from pilotlight.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError, TooLargeError
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore


class UploadEndpoints:
    """The routes of uploads over a store; a caller's uploads are those of his tenant."""

    def __init__(self, store: ObjectStore, idempotency_keys: IdempotencyKeys, presigner: Presigner | None) -> None:
        self._store = store
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
            tenant=request.tenant,
        )
        try:
            self._open_upload(upload_record).create(upload_record)
        except AlreadyExistsError:
            upload_record = self._read_upload(request, f"upload_{name}")
        return Response.json(self._to_upload_object(upload_record, self._read_end(upload_record)))

    def add_part(self, request: Request, upload: str) -> Response:
        """Store a part."""
        upload_record, data = self._read_upload(request, upload), parse_multipart_form(request, "data").data
        if (end := self._read_end(upload_record)) is not None:
            raise refuse_ended_upload(end)
        if len(data) > MAX_INLINE_BYTES:
            raise TooLargeError(
                f"The part has {len(data):,} bytes; at most {MAX_INLINE_BYTES:,} are taken, send it in several."
            )
        name = secrets.token_hex(16)
        self._store.put(f"{get_folder(upload_record)}/parts/{name}", data)
        return Response.json(
            UploadPart(id=f"part_{name}", created_at=int(time.time()), upload_id=f"upload_{upload_record.id}")
        )

    def complete(self, request: Request, upload: str, body: CompleteUploadBody) -> Response:
        """Create the file; raise `InvalidInputError`, without a file, when it is not what was announced.

        A client that lost the response may repeat the request: a completed upload is returned with its file.
        """
        upload_record = self._read_upload(request, upload)
        end = self._read_end(upload_record) or self._complete_or_find(upload_record, body)
        if end.cancelled:
            raise refuse_ended_upload(end)
        self._delete_all_but(end)
        return Response.json(self._to_upload_object(upload_record, end))

    def cancel(self, request: Request, upload: str) -> Response:
        """Delete an upload and its parts."""
        upload_record = self._read_upload(request, upload)
        end = self._open_files(upload_record).end_upload(structs.replace(upload_record, cancelled=True))
        if not end.cancelled:
            raise refuse_ended_upload(end)
        self._store.delete(f"{get_folder(upload_record)}/upload.json")
        self._delete_all_but(end)
        return Response.json(self._to_upload_object(upload_record, end))

    def _complete_or_find(self, upload_record: Upload, body: CompleteUploadBody) -> Upload:
        """Complete an upload; one that another request has ended, whose parts are gone then, is ended already."""
        try:
            return self._complete(upload_record, body)
        except InvalidInputError:
            if (end := self._read_end(upload_record)) is None:
                raise
            return end

    def _complete(self, upload_record: Upload, body: CompleteUploadBody) -> Upload:
        """Check the bytes and record that they are the file; return how the upload has ended."""
        content = self._join_parts(upload_record, body.part_ids) if body.part_ids else CONTENT
        path = content_path(f"file-{upload_record.id}", upload_record.tenant, content)
        try:
            e_tag = self._check_content(path, upload_record, body.md5)
        except InvalidInputError:
            if body.part_ids:
                self._store.delete(path)
            raise
        end = self._open_files(upload_record).end_upload(structs.replace(upload_record, content=content, e_tag=e_tag))
        if not end.cancelled and self._open_upload(upload_record).read_or_none() is None:
            self._store.delete(f"{get_folder(upload_record)}/file.json")  # it was deleted meanwhile
            raise NotFoundError(f"There is no upload 'upload_{upload_record.id}'; POST /v1/uploads begins one.")
        return end

    def _join_parts(self, upload_record: Upload, part_ids: Sequence[str]) -> str:
        """Join the parts to an object of their own, and return its name."""
        folder = f"{get_folder(upload_record)}/parts"
        check_parts(part_ids, self._list_parts(folder), upload_record.bytes)
        content = f"{CONTENT}-{secrets.token_hex(8)}"
        path = content_path(f"file-{upload_record.id}", upload_record.tenant, content)
        self._store.put_chunks(path, self._iterate_parts(folder, part_ids))
        return content

    def _list_parts(self, folder: str) -> Mapping[str, int]:
        """List the parts of an upload with their sizes in bytes; raise `TooLargeError` for more than it may have."""
        found = dict(islice(self._store.list_sizes(folder), MAX_UPLOAD_PARTS + 1))
        if len(found) > MAX_UPLOAD_PARTS:
            raise TooLargeError(f"The upload has more than {MAX_UPLOAD_PARTS:,} parts; begin another, in larger ones.")
        return {f"part_{path.rpartition('/')[2]}": size for path, size in found.items()}

    def _iterate_parts(self, folder: str, part_ids: Sequence[str]) -> Iterator[bytes]:
        for part_id in part_ids:
            try:
                yield self._store.get(f"{folder}/{part_id.removeprefix('part_')}").data
            except NotFoundError as exc:  # deleted since they were listed
                raise InvalidInputError(f"There is no part {part_id!r} of this upload.") from exc

    def _check_content(self, path: str, upload_record: Upload, md5: str) -> str:
        """Check the bytes in their present state, and return the e_tag of that state."""
        try:
            size, e_tag = self._store.get_size_and_e_tag(path)
        except NotFoundError as exc:
            raise InvalidInputError("Nothing was uploaded; name its part_ids, or put it where presigned says.") from exc
        if size != upload_record.bytes:
            raise InvalidInputError(f"The upload has {size:,} bytes, but {upload_record.bytes:,} were announced.")
        if md5:
            digest = hashlib.md5(usedforsecurity=False)
            for block in self._store.iterate_blocks(path, 0, size, e_tag):
                digest.update(block)
            if digest.hexdigest() != md5.lower():
                raise InvalidInputError(f"The upload's md5 is {digest.hexdigest()}, not {md5!r}.")
        return e_tag

    def _delete_all_but(self, end: Upload) -> None:
        """Delete what an upload that has ended no longer needs: parts, and bytes that did not become the file."""
        folder = get_folder(end)
        kept = {f"{folder}/upload.json", f"{folder}/file.json"}
        if not end.cancelled:
            kept.add(f"{folder}/{end.content}")
        for path in set(self._store.list_paths(folder)) - kept:
            self._store.delete(path)

    def _read_end(self, upload_record: Upload) -> Upload | None:
        """Read how an upload has ended; return None while it is open."""
        return self._open_files(upload_record).read_upload_end(f"file-{upload_record.id}")

    def _read_upload(self, request: Request, upload_id: str) -> Upload:
        missing = NotFoundError(f"There is no upload {upload_id!r}; POST /v1/uploads begins one.")
        if UPLOAD_ID_PATTERN.fullmatch(upload_id) is None:
            raise missing
        document = Document(self._store, f"{upload_folder(upload_id, request.tenant)}/upload.json", Upload)
        upload_record = document.read_or_none()
        if upload_record is None or not FileStore(self._store, request.tenant).has_own(upload_record, document.path):
            raise missing
        return upload_record

    def _open_upload(self, upload_record: Upload) -> Document[Upload]:
        return Document(self._store, f"{get_folder(upload_record)}/upload.json", Upload)

    def _open_files(self, upload_record: Upload) -> FileStore:
        return FileStore(self._store, upload_record.tenant)

    def _to_upload_object(self, upload_record: Upload, end: Upload | None = None) -> UploadObject:
        file_id = f"file-{upload_record.id}"
        path = content_path(file_id, upload_record.tenant, CONTENT if end is None else end.content)
        is_complete = end is not None and not end.cancelled
        return UploadObject(
            id=f"upload_{upload_record.id}",
            bytes=upload_record.bytes,
            created_at=upload_record.created_at,
            expires_at=upload_record.created_at + EXPIRY_S,
            filename=upload_record.filename,
            purpose=upload_record.purpose,
            status="pending" if end is None else "completed" if is_complete else "cancelled",
            file=self._open_files(upload_record).to_file_object(end) if end is not None and is_complete else None,
            presigned=self._presigner.presign_upload(path, upload_record.bytes)
            if end is None and self._presigner is not None
            else None,
            s3_uri=f"{self._store.url}/{path}",
        )


def get_folder(upload_record: Upload) -> str:
    """Return the folder of an upload."""
    return upload_folder(f"upload_{upload_record.id}", upload_record.tenant)


def check_parts(part_ids: Sequence[str], sizes: Mapping[str, int], announced_bytes: int) -> None:
    """Check the parts of a file by their sizes, before any of them is read; raise `InvalidInputError`."""
    if len(set(part_ids)) < len(part_ids):
        repeated = next(part_id for place, part_id in enumerate(part_ids) if part_id in part_ids[:place])
        raise InvalidInputError(f"The part {repeated!r} is named twice; upload its bytes again as another part.")
    unknown = [part_id for part_id in part_ids if part_id not in sizes]
    if unknown:
        raise InvalidInputError(f"There is no part {unknown[0]!r} of this upload; {len(unknown):,} are not there.")
    size = sum(sizes[part_id] for part_id in part_ids)
    if size != announced_bytes:
        raise InvalidInputError(f"The parts have {size:,} bytes, but {announced_bytes:,} were announced.")


def refuse_ended_upload(end: Upload) -> ConflictError:
    """Build the error for an upload that does not change any more."""
    if end.cancelled:
        return ConflictError(f"upload_{end.id} is cancelled; POST /v1/uploads begins another.")
    return ConflictError(f"upload_{end.id} is completed already; its file is file-{end.id}.")

"""Files of one tenant as OpenAI's API knows them: uploads, and the output and error files of batches.

What belongs to somebody else is not there: every path begins with the folder of the tenant who asks, and a document is
believed only where it says the same tenant and id. The bytes of a file never change: what is written is written once,
and `file.json` names the object that counts.
"""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from msgspec import structs

from pilotlight.api.schemas.openai import FileObject
from pilotlight.contracts import upload
from pilotlight.contracts.batch import (
    BATCHES_FOLDER,
    BatchCancellation,
    BatchManifest,
    BatchRequest,
    FileProgress,
    batch_document_path,
    results_folder,
    to_unix_seconds,
)
from pilotlight.contracts.tenant import tenant_folder
from pilotlight.contracts.upload import Upload
from pilotlight.errors import AlreadyExistsError, ConflictError, NotFoundError
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore

Shown = TypeVar("Shown", FileObject, BatchRequest)
OUTPUT_ID = re.compile(rf"file-({upload.ID_PATTERN})-(0|[1-9][0-9]{{0,5}})")
ID = re.compile(upload.ID_PATTERN)
RESULT_ID = re.compile(rf"file-({upload.ID_PATTERN})-(output|errors)")


@dataclass(frozen=True)
class StoredFile:
    """A file, the key of its bytes, and the record of its upload unless it is an answer."""

    file_object: FileObject
    path: str
    upload_record: Upload | None = None


class FileStore:
    """The files of a tenant in a store; those of the stack's own callers without a tenant."""

    def __init__(self, store: ObjectStore, tenant: str = "") -> None:
        self.store = store
        self.tenant = tenant

    def save_file(self, upload_record: Upload, data: bytes) -> FileObject:
        """Write a whole file; a repeated request, which has the same bytes, changes nothing."""
        path = upload.content_path(f"file-{upload_record.id}", self.tenant)
        with suppress(AlreadyExistsError):
            self.store.create(path, data)
        _, e_tag = self.store.get_size_and_e_tag(path)
        return self.to_file_object(self.end_upload(structs.replace(upload_record, e_tag=e_tag)))

    def end_upload(self, upload_record: Upload) -> Upload:
        """Record that an upload is complete or cancelled, for good; return what was recorded first."""
        path = f"{upload.upload_folder(f'file-{upload_record.id}', self.tenant)}/file.json"
        return Document(self.store, path, Upload).create_or_read(upload_record)

    def find_file(self, file_id: str) -> StoredFile:
        """Find a file by its id; raise `NotFoundError` when there is none, or it is not complete."""
        result = RESULT_ID.fullmatch(file_id)
        if result is not None:
            return self._find_batch_result(file_id, result[1], result[2])
        answer = OUTPUT_ID.fullmatch(file_id)
        if answer is not None:
            return self._find_stored_output(file_id, answer[1], int(answer[2]))
        upload_record = self.read_upload_end(file_id)
        if upload_record is None or upload_record.cancelled:
            raise NotFoundError(f"There is no file {file_id!r}; GET /v1/files lists them.")
        path = upload.content_path(file_id, self.tenant, upload_record.content)
        return StoredFile(self.to_file_object(upload_record), path, upload_record)

    def read_upload_end(self, file_id: str) -> Upload | None:
        """Read the record of a file's completion or cancellation; return None while there is neither."""
        path = f"{upload.upload_folder(file_id, self.tenant)}/file.json"
        upload_record = Document(self.store, path, Upload).read_or_none()
        return upload_record if upload_record is not None and self.has_own(upload_record, path) else None

    def has_own(self, document: Upload | BatchRequest, path: str) -> bool:
        """Return whether a document is the tenant's, and about the object at whose path it lies."""
        number = document.id.removeprefix("batch_")
        return document.tenant == self.tenant and path.split("/")[-2] == number

    def iterate_files(self, *, oldest_first: bool = False) -> Iterator[FileObject]:
        """Iterate over the uploaded files, the newest first or last."""
        names = self._list_ids(upload.UPLOADS_FOLDER)
        for name in names if oldest_first else reversed(names):
            try:
                yield self.find_file(f"file-{name}").file_object
            except NotFoundError:
                continue  # not complete yet, or written by another program

    def delete_file(self, file_id: str) -> None:
        """Delete an uploaded file; raise `ConflictError` for the results of a batch.

        The announcement goes first, since a `complete` at the same time looks for it last.
        """
        if self.find_file(file_id).upload_record is None:
            raise ConflictError(f"{file_id} is an answer, and stays as long as the bucket keeps those.")
        folder = upload.upload_folder(file_id, self.tenant)
        for path in (f"{folder}/upload.json", f"{folder}/file.json", *list(self.store.list_paths(folder))):
            self.store.delete(path)

    def read_progress(self, batch_request: BatchRequest) -> tuple[FileProgress | None, BatchManifest | None]:
        """Read a batch's progress and its manifest, None for what is not there yet."""
        progress = Document(self.store, f"{batch_request.results_folder}/progress.json", FileProgress)
        return progress.read_or_none(), self.read_manifest(batch_request.id)

    def read_manifest(self, batch_id: str) -> BatchManifest | None:
        """Read the manifest of a batch's results; return None while there is none."""
        path = f"{results_folder(batch_id, self.tenant)}/manifest.json"
        return Document(self.store, path, BatchManifest).read_or_none()

    def iterate_batch_requests(self) -> Iterator[BatchRequest]:
        """Iterate over the requests of batches, the newest first."""
        for name in reversed(self._list_ids(BATCHES_FOLDER)):
            try:
                yield self.read_batch_request(f"batch_{name}")
            except NotFoundError:
                continue  # removed meanwhile

    def read_batch_request(self, batch_id: str) -> BatchRequest:
        """Read a batch's request; raise `NotFoundError` when there is none of that id."""
        document = self.open_batch_request(batch_id)
        batch_request = document.read_or_none()
        if batch_request is None or not self.has_own(batch_request, document.path):
            raise NotFoundError(f"There is no batch {batch_id!r}; GET /v1/batches lists them.")
        return batch_request

    def open_batch_request(self, batch_id: str) -> Document[BatchRequest]:
        """Open the document of a batch's request; raise `NotFoundError` for an id that is not a batch's."""
        return Document(self.store, batch_document_path(batch_id, "order", self.tenant), BatchRequest, id=batch_id)

    def open_cancellation(self, batch_id: str) -> Document[BatchCancellation]:
        """Open the document that stops a batch."""
        return Document(self.store, batch_document_path(batch_id, "cancel", self.tenant), BatchCancellation)

    def _list_ids(self, folder: str) -> list[str]:
        """List the ids of the tenant's objects in a top-level folder, the oldest first."""
        return list(filter(ID.fullmatch, self.store.list_folders(tenant_folder(folder, self.tenant))))

    def _find_batch_result(self, file_id: str, batch: str, what: str) -> StoredFile:
        manifest = self.read_manifest(f"batch_{batch}")
        path = f"{results_folder(batch, self.tenant)}/{what}.jsonl"
        if manifest is None or not (manifest.result if what == "output" else manifest.refusals):
            raise NotFoundError(
                f"There is no file {file_id!r}; GET /v1/batches/batch_{batch} says how far the batch is."
            )
        file_object = FileObject(
            id=file_id,
            bytes=self.store.get_size(path),
            created_at=to_unix_seconds(manifest.ended) or int(time.time()),
            filename=f"batch_{batch}_{what}.jsonl",
            purpose="batch_output",
            s3_uri=f"{self.store.url}/{path}",
        )
        return StoredFile(file_object, path)

    def _find_stored_output(self, file_id: str, answer: str, place: int) -> StoredFile:
        """Find an output that was too large for a response."""
        path = upload.output_path(answer, place, self.tenant)
        try:
            size = self.store.get_size(path)
        except NotFoundError as exc:
            raise NotFoundError(f"There is no file {file_id!r}; GET /v1/files lists them.") from exc
        created_at = int(file_id[5:17], 16) // 1000  # ms since 1970, the prefix of the id
        uri = f"{self.store.url}/{path}"
        file_object = FileObject(
            id=file_id, bytes=size, created_at=created_at, filename=file_id, purpose="user_data", s3_uri=uri
        )
        return StoredFile(file_object, path)

    def to_file_object(self, upload_record: Upload) -> FileObject:
        """Build the response for an uploaded file."""
        file_id = f"file-{upload_record.id}"
        path = upload.content_path(file_id, self.tenant, upload_record.content)
        return FileObject(
            id=file_id,
            bytes=upload_record.bytes,
            created_at=upload_record.created_at,
            filename=upload_record.filename,
            purpose=upload_record.purpose,
            s3_uri=f"{self.store.url}/{path}",
        )


def skip_past(items: Iterable[Shown], last_id: str) -> Iterator[Shown]:
    """Skip the items up to the one with the id `last_id`; without an id, none."""
    passed = not last_id
    for each in items:
        if passed:
            yield each
        passed = passed or each.id == last_id

"""Files of the store as OpenAI's API knows them: uploads, and the output and error files of batches."""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from pilotlight.api.schemas.openai import BatchObject, FileObject
from pilotlight.contracts import upload
from pilotlight.contracts.batch import (
    BatchManifest,
    BatchRequest,
    FileProgress,
    batch_document_path,
    results_folder,
    to_unix_seconds,
)
from pilotlight.contracts.upload import Upload
from pilotlight.errors import BrokenDocumentError, ConflictError, NotFoundError
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore

Shown = TypeVar("Shown", FileObject, BatchObject)
OUTPUT_ID = re.compile(rf"file-({upload.ID_PATTERN})-(\d+)")
RESULT_ID = re.compile(rf"file-({upload.ID_PATTERN})-(output|errors)")


@dataclass(frozen=True)
class StoredFile:
    """A file, and the key of its bytes."""

    file_object: FileObject
    path: str


class FileStore:
    """The files of a store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def save_file(self, upload_record: Upload, data: bytes) -> FileObject:
        """Write a whole file."""
        self.store.put(upload.content_path(f"file-{upload_record.id}"), data)
        return self.mark_complete(upload_record)

    def mark_complete(self, upload_record: Upload) -> FileObject:
        """Record that a file is complete, for good; return the file."""
        document = Document(self.store, f"{upload.UPLOADS_FOLDER}/{upload_record.id}/file.json", Upload)
        return self._to_file_object(document.create_or_read(upload_record))

    def find_file(self, file_id: str) -> StoredFile:
        """Find a file by its id; raise `NotFoundError` when there is none, or it is not complete."""
        result = RESULT_ID.fullmatch(file_id)
        if result is not None:
            return self._find_batch_result(file_id, result[1], result[2])
        answer = OUTPUT_ID.fullmatch(file_id)
        if answer is not None:
            return self._find_stored_output(file_id, f"{upload.ANSWERS_FOLDER}/{answer[1]}/{answer[2]}")
        upload_record = Document(self.store, f"{upload.upload_folder(file_id)}/file.json", Upload).read_or_none()
        if upload_record is None:
            raise NotFoundError(f"There is no file {file_id!r}; GET /v1/files lists them.")
        return StoredFile(self._to_file_object(upload_record), upload.content_path(file_id))

    def iterate_files(self, *, oldest_first: bool = False) -> Iterator[FileObject]:
        """Iterate over the uploaded files, the newest first or last."""
        names = self.store.list_folders(upload.UPLOADS_FOLDER)
        for name in names if oldest_first else reversed(names):
            try:
                yield self.find_file(f"file-{name}").file_object
            except NotFoundError:
                continue  # not complete yet, or written by another program
            except BrokenDocumentError as exc:
                yield build_broken_file(name, str(exc))

    def delete_file(self, file_id: str) -> None:
        """Delete an uploaded file; raise `ConflictError` for the results of a batch."""
        if RESULT_ID.fullmatch(file_id) or OUTPUT_ID.fullmatch(file_id):
            raise ConflictError(f"{file_id} is an answer, and stays as long as the bucket keeps those.")
        with suppress(BrokenDocumentError):  # what cannot be read can be deleted
            self.find_file(file_id)
        folder = upload.upload_folder(file_id)
        for path in (f"{folder}/file.json", f"{folder}/content", *self.store.list_paths(f"{folder}/parts")):
            self.store.delete(path)

    def read_progress(self, batch_request: BatchRequest) -> tuple[FileProgress | None, BatchManifest | None]:
        """Read a batch's progress and its manifest, None for what is not there yet."""
        progress = Document(self.store, f"{batch_request.results_folder}/progress.json", FileProgress)
        return progress.read_or_none(), self.read_manifest(batch_request.id)

    def read_manifest(self, batch_id: str) -> BatchManifest | None:
        """Read the manifest of a batch's results; return None while there is none."""
        return Document(self.store, f"{results_folder(batch_id)}/manifest.json", BatchManifest).read_or_none()

    def read_batch_request(self, batch_id: str) -> BatchRequest:
        """Read a batch's request; raise `NotFoundError` when there is none of that id."""
        batch_request = self.open_batch_request(batch_id).read_or_none()
        if batch_request is None:
            raise NotFoundError(f"There is no batch {batch_id!r}; GET /v1/batches lists them.")
        return batch_request

    def open_batch_request(self, batch_id: str) -> Document[BatchRequest]:
        """Open the document of a batch's request; raise `NotFoundError` for an id that is not a batch's."""
        return Document(self.store, batch_document_path(batch_id, "order"), BatchRequest)

    def _find_batch_result(self, file_id: str, batch: str, what: str) -> StoredFile:
        manifest = self.read_manifest(f"batch_{batch}")
        path = (manifest.result if what == "output" else manifest.refusals) if manifest is not None else ""
        if manifest is None or not path:
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

    def _find_stored_output(self, file_id: str, path: str) -> StoredFile:
        """Find an output that was too large for a response."""
        size = self.store.get_size(path)
        created_at = parse_creation_time(file_id.removeprefix("file-"))
        uri = f"{self.store.url}/{path}"
        file_object = FileObject(
            id=file_id, bytes=size, created_at=created_at, filename=file_id, purpose="user_data", s3_uri=uri
        )
        return StoredFile(file_object, path)

    def _to_file_object(self, upload_record: Upload) -> FileObject:
        return FileObject(
            id=f"file-{upload_record.id}",
            bytes=upload_record.bytes,
            created_at=upload_record.created_at,
            filename=upload_record.filename,
            purpose=upload_record.purpose,
            s3_uri=f"{self.store.url}/{upload.content_path(f'file-{upload_record.id}')}",
        )


def build_broken_file(name: str, error: str) -> FileObject:
    """Build the row of a file whose document is broken: its id says when it was made."""
    created_at = parse_creation_time(name)
    return FileObject(
        id=f"file-{name}",
        bytes=0,
        created_at=created_at,
        filename="",
        purpose="",
        status="error",
        status_details=error,
    )


def parse_creation_time(sortable_id: str) -> int:
    """Return when an id was generated, in Unix seconds."""
    return int(sortable_id[:12], 16) // 1000


def skip_past(items: Iterable[Shown], last_id: str) -> Iterator[Shown]:
    """Skip the items up to the one with the id `last_id`; without an id, none."""
    passed = not last_id
    for each in items:
        if passed:
            yield each
        passed = passed or each.id == last_id

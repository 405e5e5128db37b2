"""Routes of batches. A batch is requested here; the batch worker, which gets an event, answers it.

The state of a batch is not stored: it follows from the documents that are, which are the request, its cancellation, the
progress of the file and the manifest of its results.
"""

import time
from collections.abc import Iterator
from typing import Annotated

from msgspec import json

from functions.batch_api.file_store import FileStore, parse_creation_time, skip_past
from functions.batch_api.files import to_page_response
from functions.batch_api.idempotency import IdempotencyKeys
from pilotlight.api.http import Request, Response
from pilotlight.api.powertools_router import Query, TypedRoutes
from pilotlight.api.schemas.openai import (
    BatchError,
    BatchErrors,
    BatchObject,
    BatchStatus,
    CreateBatchBody,
    RequestCounts,
)
from pilotlight.aws.eventbridge import EventBus
from pilotlight.contracts.batch import (
    BATCHES_FOLDER,
    BatchCancellation,
    BatchManifest,
    BatchRequest,
    FileProgress,
    batch_document_path,
    parse_model_endpoint,
    to_unix_seconds,
)
from pilotlight.errors import AlreadyExistsError, BrokenDocumentError, ConflictError, NotFoundError, UnavailableError
from pilotlight.storage.documents import Document

SOURCE = "pilotlight.batches"  # of the events that this function may send
MAX_PAGE_SIZE = 100  # of a page
DEFAULT_PAGE_SIZE = 20  # as OpenAI's
HOUR_S = 3600


class BatchEndpoints:
    """The routes of batches over a file store."""

    def __init__(self, file_store: FileStore, idempotency_keys: IdempotencyKeys, bus: EventBus) -> None:
        self._file_store = file_store
        self._store = file_store.store
        self._idempotency_keys = idempotency_keys
        self._bus = bus

    def routes(self) -> TypedRoutes:
        """Return the endpoints by route and verb."""
        return {
            "/v1/batches": {"POST": self.create, "GET": self.list},
            "/v1/batches/{batch}": {"GET": self.show},
            "/v1/batches/{batch}/cancel": {"POST": self.cancel},
        }

    def create(self, request: Request, body: CreateBatchBody) -> Response:
        """Request a batch; its state shows later what is wrong with its file."""
        parse_model_endpoint(body.endpoint)
        self._file_store.find_file(body.input_file_id)
        name = self._idempotency_keys.reserve_id(request, json.encode(body))
        created = int(time.time())
        batch_request = BatchRequest(
            id=f"batch_{name}",
            endpoint=body.endpoint,
            input_file_id=body.input_file_id,
            completion_window=body.completion_window,
            created_at=created,
            expires_at=created + int(body.completion_window[:-1]) * HOUR_S,
            metadata=body.metadata,
            by=request.caller,
        )
        return Response.json(self._to_batch(self._submit(batch_request)))

    def list(
        self, after: str = "", limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = DEFAULT_PAGE_SIZE
    ) -> Response:
        """List batches, the newest first."""
        return to_page_response(skip_past(self._iterate_batches(), after), limit)

    def show(self, batch: str) -> Response:
        """Return one batch."""
        return Response.json(self._to_batch(self._file_store.read_batch_request(batch)))

    def cancel(self, request: Request, batch: str) -> Response:
        """Cancel a batch: its worker checks every other second, and what is answered by then stays."""
        batch_request = self._file_store.read_batch_request(batch)
        manifest = self._file_store.read_manifest(batch_request.id)
        if manifest is not None and manifest.stopped != "cancelled":
            state = get_batch_status(batch_request, None, manifest, None)
            raise ConflictError(f"{batch_request.id} is {state} already; there is nothing to cancel.")
        try:
            self._open_cancellation(batch_request.id).create(BatchCancellation(int(time.time()), request.caller))
        except AlreadyExistsError:
            return Response.json(self._to_batch(batch_request))
        self._bus.publish(SOURCE, batch_request.id)  # a batch without a worker needs one to finish it
        return Response.json(self._to_batch(batch_request))

    def _submit(self, batch_request: BatchRequest) -> BatchRequest:
        """Store a request and send its event; return the stored one. A request whose event fails is removed."""
        document = self._file_store.open_batch_request(batch_request.id)
        stored = document.create_or_read(batch_request)
        progress, _ = self._file_store.read_progress(stored) if stored is not batch_request else (None, None)
        if progress is None:
            try:
                self._bus.publish(SOURCE, stored.id)
            except UnavailableError:
                self._store.delete(document.path)
                raise
        return stored

    def _iterate_batches(self) -> Iterator[BatchObject]:
        for name in reversed(self._store.list_folders(BATCHES_FOLDER)):
            try:
                yield self._to_batch(self._file_store.read_batch_request(f"batch_{name}"))
            except NotFoundError:
                continue  # removed meanwhile
            except BrokenDocumentError as exc:
                yield build_broken_batch(name, str(exc))

    def _to_batch(self, batch_request: BatchRequest) -> BatchObject:
        progress, manifest = self._file_store.read_progress(batch_request)
        cancel = self._open_cancellation(batch_request.id).read_or_none()
        return to_batch_object(batch_request, progress, manifest, cancel)

    def _open_cancellation(self, batch_id: str) -> Document[BatchCancellation]:
        return Document(self._store, batch_document_path(batch_id, "cancel"), BatchCancellation)


def build_broken_batch(name: str, error: str) -> BatchObject:
    """Build the row of a batch of which a document is broken: its id says when it was requested."""
    created_at = parse_creation_time(name)
    return BatchObject(
        id=f"batch_{name}",
        endpoint="",
        input_file_id="",
        completion_window="",
        status="failed",
        created_at=created_at,
        expires_at=created_at,
        errors=BatchErrors(data=[BatchError(code="broken_document", message=error)]),
        request_counts=RequestCounts(),
    )


def get_batch_status(
    batch_request: BatchRequest,
    progress: FileProgress | None,
    manifest: BatchManifest | None,
    cancel: BatchCancellation | None,
) -> BatchStatus:
    """Return a batch's status as OpenAI names it."""
    if manifest is not None:
        return "failed" if manifest.refused else manifest.stopped or "completed"
    if cancel is not None:
        return "cancelling"
    if time.time() > batch_request.expires_at:
        return "expired"
    if progress is None:
        return "validating"
    return "finalizing" if progress.joining else "in_progress"


def to_batch_object(
    batch_request: BatchRequest,
    progress: FileProgress | None,
    manifest: BatchManifest | None,
    cancel: BatchCancellation | None,
) -> BatchObject:
    """Build the response for a batch."""
    state, number = get_batch_status(batch_request, progress, manifest, cancel), batch_request.id.removeprefix("batch_")
    end_time = {f"{state}_at": to_unix_seconds(manifest.ended)} if manifest is not None else {}
    counts, has_output = manifest or progress, manifest is not None and not manifest.refused
    return BatchObject(
        id=batch_request.id,
        endpoint=batch_request.endpoint,
        input_file_id=batch_request.input_file_id,
        completion_window=batch_request.completion_window,
        status=state,
        created_at=batch_request.created_at,
        expires_at=batch_request.expires_at,
        errors=to_batch_errors(manifest) if manifest is not None else None,
        output_file_id=f"file-{number}-output" if has_output else None,
        error_file_id=f"file-{number}-errors" if manifest is not None and manifest.refusals else None,
        in_progress_at=to_unix_seconds(counts.started) if counts is not None else None,
        finalizing_at=to_unix_seconds(counts.joining) if counts is not None else None,
        cancelling_at=cancel.at if cancel is not None else None,
        request_counts=RequestCounts(total=counts.total, completed=counts.answered, failed=counts.failed)
        if counts is not None
        else RequestCounts(),
        metadata=batch_request.metadata,
        **end_time,  # type: ignore[arg-type]  # one of the times of an end
    )


def to_batch_errors(manifest: BatchManifest) -> BatchErrors | None:
    """Build the errors of a batch that was refused as a whole; None for any other."""
    if not manifest.refused:
        return None
    line_errors = [BatchError(code=wrong.code, message=wrong.error, line=wrong.line) for wrong in manifest.errors]
    return BatchErrors(data=line_errors or [BatchError(code="invalid_file", message=manifest.refused)])

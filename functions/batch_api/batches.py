"""Routes of batches. A batch is requested here; the batch worker, which gets an event, answers it.

The state of a batch is not stored: it follows from the documents that are, which are the request, its cancellation, the
progress of the file and the manifest of its results. A caller's batches are those of his tenant.
"""

import time
from contextlib import suppress
from typing import Annotated

from msgspec import json

from functions.batch_api.file_store import FileStore, skip_past
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
    BatchCancellation,
    BatchManifest,
    BatchRequest,
    FileProgress,
    parse_model_endpoint,
    to_unix_seconds,
)
from pilotlight.errors import AlreadyExistsError, ConflictError, InvalidInputError, UnavailableError
from pilotlight.storage.object_store import ObjectStore

SOURCE = "pilotlight.batches"  # of the events that this function may send
MAX_PAGE_SIZE = 100  # of a page
DEFAULT_PAGE_SIZE = 20  # as OpenAI's
HOUR_S = 3600


class BatchEndpoints:
    """The routes of batches over a store."""

    def __init__(self, store: ObjectStore, idempotency_keys: IdempotencyKeys, bus: EventBus) -> None:
        self._store = store
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
        file_store = FileStore(self._store, request.tenant)
        upload_record = file_store.find_file(body.input_file_id).upload_record
        if upload_record is None:
            raise InvalidInputError(f"{body.input_file_id} is an answer; a batch answers an uploaded file.")
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
            tenant=request.tenant,
            input_content=upload_record.content,
            input_e_tag=upload_record.e_tag,
        )
        return Response.json(read_batch(file_store, self._submit(file_store, batch_request)))

    def list(
        self,
        request: Request,
        after: str = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = DEFAULT_PAGE_SIZE,
    ) -> Response:
        """List batches, the newest first."""
        file_store = FileStore(self._store, request.tenant)
        found = skip_past(file_store.iterate_batch_requests(), after)
        return to_page_response((read_batch(file_store, each) for each in found), limit)

    def show(self, request: Request, batch: str) -> Response:
        """Return one batch."""
        file_store = FileStore(self._store, request.tenant)
        return Response.json(read_batch(file_store, file_store.read_batch_request(batch)))

    def cancel(self, request: Request, batch: str) -> Response:
        """Cancel a batch: its worker checks every other second, and what is answered by then stays.

        Each request sends an event, since a batch without a worker needs one to finish it, and an earlier request may
        have failed before its own.
        """
        file_store = FileStore(self._store, request.tenant)
        batch_request = file_store.read_batch_request(batch)
        manifest = file_store.read_manifest(batch_request.id)
        if manifest is not None and manifest.stopped != "cancelled":
            state = get_batch_status(batch_request, None, manifest, None)
            raise ConflictError(f"{batch_request.id} is {state} already; there is nothing to cancel.")
        if manifest is None:
            with suppress(AlreadyExistsError):
                file_store.open_cancellation(batch_request.id).create(
                    BatchCancellation(int(time.time()), request.caller)
                )
            self._bus.publish(SOURCE, batch_request.target)
        return Response.json(read_batch(file_store, batch_request))

    def _submit(self, file_store: FileStore, batch_request: BatchRequest) -> BatchRequest:
        """Store a request and send its event; return the stored one. A request whose event fails is removed."""
        document = file_store.open_batch_request(batch_request.id)
        stored = document.create_or_read(batch_request)
        progress, _ = file_store.read_progress(stored) if stored is not batch_request else (None, None)
        if progress is None:
            try:
                self._bus.publish(SOURCE, stored.target)
            except UnavailableError:
                self._store.delete(document.path)
                raise
        return stored


def read_batch(file_store: FileStore, batch_request: BatchRequest) -> BatchObject:
    """Read how far a batch is, and build the response for it."""
    progress, manifest = file_store.read_progress(batch_request)
    cancel = file_store.open_cancellation(batch_request.id).read_or_none()
    return to_batch_object(batch_request, progress, manifest, cancel)


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

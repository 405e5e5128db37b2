"""What the routes of batches answer. A batch is ordered here; the batch function, which is told by event, answers it.

Its state is nowhere written down: it follows from what lies there, the order, its cancellation, the progress of the
file and the manifest of its results.
"""

import time
from collections.abc import Iterator

from msgspec import json

from functions.batch_api.file_store import Shelf, after
from functions.batch_api.files import limit, page
from functions.batch_api.idempotency import Once
from functions.batch_api.openai_http import read
from pilotlight.api.http import Request, Response
from pilotlight.api.router import Routes
from pilotlight.api.schemas.openai import Batch, BatchError, BatchErrors, NewBatch, RequestCounts, Status
from pilotlight.aws.eventbridge import Bus
from pilotlight.contracts.batch import ORDERS, Cancel, Order, Progress, Summary, model_of, of_batch, seconds
from pilotlight.contracts.manifest import decode, encode
from pilotlight.errors import AlreadyExistsError, ConflictError, NotFoundError, UnavailableError

SOURCE = "pilotlight.batches"  # of the events that this function may send
MOST = 100  # of a page
USUAL = 20  # as OpenAI's
HOUR_S = 3600


class Orders:
    """Batches of the files on a shelf."""

    def __init__(self, shelf: Shelf, once: Once, bus: Bus) -> None:
        self._shelf = shelf
        self._store = shelf.store
        self._once = once
        self._bus = bus

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml."""
        return {
            "/v1/batches": {"POST": self.create, "GET": self.list},
            "/v1/batches/{batch}": {"GET": self.show},
            "/v1/batches/{batch}/cancel": {"POST": self.cancel},
        }

    def create(self, request: Request) -> Response:
        """Order a batch. Nobody waits for it; what is wrong with its file is told by its state."""
        asked = read(request, NewBatch)
        model_of(asked.endpoint)
        self._shelf.find(asked.input_file_id)
        name = self._once.id(request, json.encode(asked))
        created = int(time.time())
        order = Order(
            id=f"batch_{name}",
            endpoint=asked.endpoint,
            input_file_id=asked.input_file_id,
            completion_window=asked.completion_window,
            created_at=created,
            expires_at=created + int(asked.completion_window[:-1]) * HOUR_S,
            metadata=asked.metadata,
            by=request.caller,
        )
        return Response.json(self._shown(self._begun(order)))

    def list(self, request: Request) -> Response:
        """Batches, the newest first."""
        found = after(self._orders(), request.query.get("after", ""))
        return page(map(self._shown, found), limit(request, MOST, USUAL))

    def show(self, request: Request) -> Response:
        """One batch."""
        return Response.json(self._shown(self._shelf.order(request.parameters["batch"])))

    def cancel(self, request: Request) -> Response:
        """Stop a batch: who works on it looks every other second; what is answered by then stays."""
        order = self._shelf.order(request.parameters["batch"])
        summary = self._shelf.summary(order.id)
        if summary is not None and summary.stopped != "cancelled":
            state = status(order, None, summary, None)
            raise ConflictError(f"{order.id} is {state} already; there is nothing to cancel.")
        try:
            self._store.create(of_batch(order.id, "cancel"), encode(Cancel(int(time.time()), request.caller)))
        except AlreadyExistsError:
            return Response.json(self._shown(order))
        self._bus.tell(SOURCE, order.id)  # where nobody works on it, somebody is to finish it
        return Response.json(self._shown(order))

    def _begun(self, order: Order) -> Order:
        """The order as it lies there, told to who answers it; one that nobody could be told of is taken back."""
        path, fresh = of_batch(order.id, "order"), True
        try:
            self._store.create(path, encode(order))
        except AlreadyExistsError:
            order, fresh = decode(self._store.get(path).data, Order, path), False
        progress, _ = self._shelf.progress(order) if not fresh else (None, None)
        if progress is None:
            try:
                self._bus.tell(SOURCE, order.id)
            except UnavailableError:
                self._store.delete(path)
                raise
        return order

    def _orders(self) -> Iterator[Order]:
        for name in reversed(self._store.folders(ORDERS)):
            try:
                yield self._shelf.order(f"batch_{name}")
            except NotFoundError:
                continue  # taken back in this moment

    def _shown(self, order: Order) -> Batch:
        progress, summary = self._shelf.progress(order)
        try:
            path = of_batch(order.id, "cancel")
            cancel = decode(self._store.get(path).data, Cancel, path)
        except NotFoundError:
            cancel = None
        return shown(order, progress, summary, cancel)


def status(order: Order, progress: Progress | None, summary: Summary | None, cancel: Cancel | None) -> Status:
    """A batch's state in OpenAI's words."""
    if summary is not None:
        return "failed" if summary.refused else summary.stopped or "completed"
    if cancel is not None:
        return "cancelling"
    if time.time() > order.expires_at:
        return "expired"
    if progress is None:
        return "validating"
    return "finalizing" if progress.joining else "in_progress"


def shown(order: Order, progress: Progress | None, summary: Summary | None, cancel: Cancel | None) -> Batch:
    """A batch as it is shown."""
    state, number = status(order, progress, summary, cancel), order.id.removeprefix("batch_")
    ended = {f"{state}_at": seconds(summary.ended)} if summary is not None else {}
    counted, told = summary or progress, summary is not None and not summary.refused
    return Batch(
        id=order.id,
        endpoint=order.endpoint,
        input_file_id=order.input_file_id,
        completion_window=order.completion_window,
        status=state,
        created_at=order.created_at,
        expires_at=order.expires_at,
        errors=errors(summary) if summary is not None else None,
        output_file_id=f"file-{number}-output" if told else None,
        error_file_id=f"file-{number}-errors" if summary is not None and summary.refusals else None,
        in_progress_at=seconds(counted.started) if counted is not None else None,
        finalizing_at=seconds(counted.joining) if counted is not None else None,
        cancelling_at=cancel.at if cancel is not None else None,
        request_counts=RequestCounts(total=counted.total, completed=counted.answered, failed=counted.failed)
        if counted is not None
        else RequestCounts(),
        metadata=order.metadata,
        **ended,  # type: ignore[arg-type]  # one of the times of an end
    )


def errors(summary: Summary) -> BatchErrors | None:
    """Why a batch was refused as a whole."""
    if not summary.refused:
        return None
    listed = [BatchError(code=wrong.code, message=wrong.error, line=wrong.line) for wrong in summary.errors]
    return BatchErrors(data=listed or [BatchError(code="invalid_file", message=summary.refused)])

"""Where Lambda enters: settings are read once, and each event is answered by what it means."""

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from functions.batch_worker.batch_files import Files, Spread
from functions.batch_worker.dispatch import Sender
from functions.batch_worker.events import (
    Job,
    Message,
    Occurrence,
    is_notification,
    of_event,
    of_notification,
    of_record,
    of_step,
)
from functions.batch_worker.predictor import Answers
from functions.batch_worker.queue_messages import Messages
from functions.batch_worker.usage import Books
from pilotlight.api.large_tensors import Uploads
from pilotlight.api.request_context import Bill, Trace
from pilotlight.api.router import status_of, where
from pilotlight.api.usage_log import ledger
from pilotlight.errors import InvalidInputError, PilotlightError
from pilotlight.inference import recording
from pilotlight.observability import correlation
from pilotlight.runtime.model_manager import Catalog
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore, open_store

if TYPE_CHECKING:
    from pilotlight.capture.recorder import Recorder

LOG = logging.getLogger("pilotlight.batch")


class Batch:
    """A Lambda handler for queues, buckets and buses."""

    def __init__(
        self,
        messages: Messages,
        files: Files,
        sender: Sender,
        books: Books | None = None,
        recorder: "Recorder | None" = None,
    ) -> None:
        self._messages = messages
        self._files = files
        self._sender = sender
        self._books = books
        self._recorder = recorder

    def __call__(self, event: Mapping[str, Any], context: object) -> dict[str, Any]:
        """See to everything that an event tells of.

        Of a queue's records those that failed are told by id, for the queue to deliver again; an event of the bus that
        fails raises, for Lambda to try again. What was done comes back as sentences.
        """
        try:
            return self._answer(event, Trace.of(event, context).ends)
        finally:
            if self._books is not None:
                self._books.flush()
            if self._recorder is not None:
                self._recorder.catch_up()  # Lambda freezes what is written later

    def _answer(self, event: Mapping[str, Any], ends: float) -> dict[str, Any]:
        if is_notification(event.get("Records")):
            return {"done": [self._file(of_notification(record), ends) for record in event["Records"]]}
        if "Records" in event:
            return self._queue(event["Records"], ends)
        if "step" in event:
            return self._files.step(of_step(event), ends)
        occurrence = of_event(event)
        if isinstance(occurrence, Message):
            return {"done": [self._private(occurrence, ends)]}
        return {"done": [self._file(occurrence, ends)]}

    def _file(self, job: Job, ends: float) -> str:
        return self._files.see_to(job.name, ends, (job.tenant, job.correlation))

    def _private(self, message: Message, ends: float) -> str:
        """Answer an event's message; Lambda logs what is raised, and a refusal would quote what was sent."""
        try:
            return self._noted(message, ends, of=1)
        except InvalidInputError as exc:
            raise InvalidInputError(f"Event {message.key} is refused: {type(exc).__name__}.") from None

    def _queue(self, records: list[dict[str, Any]], ends: float) -> dict[str, Any]:
        from aws_lambda_powertools.utilities.batch import (  # 0.1 s to import, which no file's cold start waits for
            BatchProcessor,
            EventType,
            SqsFifoPartialProcessor,
        )

        ordered = bool(records) and records[0].get("eventSourceARN", "").endswith(".fifo")
        processor = SqsFifoPartialProcessor() if ordered else BatchProcessor(EventType.SQS)
        processor.raise_on_entire_batch_failure = False
        with processor(records=records, handler=lambda record: self._record(record.raw_event, ends, len(records))):
            processor.process()
        return dict(processor.response())

    def _record(self, record: Mapping[str, Any], ends: float, of: int) -> str:
        """One record; what goes wrong is said in the log, without a byte of what was asked."""
        try:
            correlation.begin("")
            return self._done(of_record(record), ends, of)
        except PilotlightError as exc:
            why = type(exc).__name__ if isinstance(exc, InvalidInputError) else str(exc)  # the former would quote it
            LOG.error("Message %s failed: %s", record.get("messageId"), why)  # noqa: TRY400 - the sentence tells all
            raise
        except Exception as exc:
            LOG.error("Message %s failed: %s\n%s", record.get("messageId"), type(exc).__name__, where(exc))  # noqa: TRY400
            raise

    def _done(self, occurrence: Occurrence, ends: float, of: int) -> str:
        if isinstance(occurrence, Message):
            return self._noted(occurrence, ends, of)
        self._sender.resume(occurrence.name)  # a file has an invocation of its own
        return occurrence.name

    def _noted(self, message: Message, ends: float, of: int) -> str:
        """Answer a message, one of `of` in this invocation, and note what came of it."""
        trace, status = Trace(ends), 500
        trace.correlation = correlation.begin(message.correlation)
        try:
            path = self._messages.see_to(message, ends, trace)
            status = 200
        except PilotlightError as exc:
            status = status_of(exc)
            raise
        finally:
            if self._books is not None:
                self._books.message(message, trace, status, of)
        return path


def build(settings: Settings, store: ObjectStore | None = None) -> Batch:
    """A handler for these settings."""
    store = store or open_store(settings.store)
    catalog = Catalog.of(settings, store)
    recorder = recording(settings, catalog)
    answers = Answers(catalog, settings.model, Uploads(catalog.registry, settings.tensor_bytes), recorder)
    sender = Sender(settings.reply_queues.replace(",", " ").split())
    spread = Spread(settings.spreader, settings.spread_bytes, settings.spread_at_once)
    correlation.install()
    books = Books(Bill(settings.memory_mb), ledger(settings.call_seconds))
    files = Files(store, answers, sender, spread, books)
    return Batch(Messages(store, answers, sender), files, sender, books, recorder)


handle = build(Settings.from_environment(os.environ))

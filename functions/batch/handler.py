"""Where Lambda enters: settings are read once, and each event is answered by what it means."""

import logging
import os
import traceback
from collections.abc import Mapping
from typing import Any

from functions.batch.answers import Answers
from functions.batch.files import Files, Spread
from functions.batch.messages import Messages
from functions.batch.occurrences import Message, Occurrence, of_event, of_record, of_step
from functions.batch.sender import Sender
from pilotlight.api.remote_data import Uploads
from pilotlight.api.trace import Trace
from pilotlight.errors import InvalidInputError, PilotlightError
from pilotlight.registry import Registry
from pilotlight.runtime.catalog import Catalog
from pilotlight.runtime.warm import WarmModels
from pilotlight.settings import Settings
from pilotlight.signature import PublicKey
from pilotlight.storage import ObjectStore, open_store

LOG = logging.getLogger("pilotlight.batch")


class Batch:
    """A Lambda handler for queues, buckets and buses."""

    def __init__(self, messages: Messages, files: Files, sender: Sender) -> None:
        self._messages = messages
        self._files = files
        self._sender = sender

    def __call__(self, event: Mapping[str, Any], context: object) -> dict[str, Any]:
        """See to everything that an event tells of.

        Of a queue's records those that failed are told by id, for the queue to deliver again; an event of the bus that
        fails raises, for Lambda to try again. What was done comes back as sentences.
        """
        ends = Trace.of(event, context).ends
        if "Records" in event:
            return self._queue(event["Records"], ends)
        if "step" in event:
            return self._files.step(of_step(event), ends)
        occurrence = of_event(event)
        if isinstance(occurrence, Message):
            return {"done": [self._private(occurrence, ends)]}
        return {"done": [self._files.see_to(occurrence.name, ends)]}

    def _private(self, message: Message, ends: float) -> str:
        """Answer an event's message; Lambda logs what is raised, and a refusal would quote what was sent."""
        try:
            return self._messages.see_to(message, ends)
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
        with processor(records=records, handler=lambda record: self._record(record.raw_event, ends)):
            processor.process()
        return dict(processor.response())

    def _record(self, record: Mapping[str, Any], ends: float) -> str:
        """One record; what goes wrong is said in the log, without a byte of what was asked."""
        try:
            return self._done(of_record(record), ends)
        except PilotlightError as exc:
            why = type(exc).__name__ if isinstance(exc, InvalidInputError) else str(exc)  # the former would quote it
            LOG.error("Message %s failed: %s", record.get("messageId"), why)  # noqa: TRY400 - the sentence tells all
            raise
        except Exception as exc:
            where = "".join(traceback.format_tb(exc.__traceback__))
            LOG.error("Message %s failed: %s\n%s", record.get("messageId"), type(exc).__name__, where)  # noqa: TRY400
            raise

    def _done(self, occurrence: Occurrence, ends: float) -> str:
        if isinstance(occurrence, Message):
            return self._messages.see_to(occurrence, ends)
        self._sender.resume(occurrence.name)  # a file has an invocation of its own
        return occurrence.name


def build(settings: Settings, store: ObjectStore | None = None) -> Batch:
    """A handler for these settings."""
    store = store or open_store(settings.store)
    trusted = PublicKey.parse(settings.signing_key) if settings.signing_key else None
    catalog = Catalog(
        Registry(store, trusted),
        WarmModels(settings.model_bytes),
        memory_mb=settings.memory_mb,
        alias_seconds=settings.alias_seconds,
    )
    answers = Answers(catalog, settings.model, Uploads(catalog.registry, settings.tensor_bytes))
    sender = Sender(settings.reply_queues.replace(",", " ").split())
    spread = Spread(settings.spreader, settings.spread_bytes, settings.spread_at_once)
    return Batch(Messages(store, answers, sender), Files(store, answers, sender, spread), sender)


handle = build(Settings.from_environment(os.environ))

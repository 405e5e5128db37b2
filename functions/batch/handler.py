"""Where Lambda enters: settings are read once, and each event is answered by what it means."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from functions.batch.answers import Answers
from functions.batch.files import Files
from functions.batch.messages import Messages
from functions.batch.occurrences import Message, Occurrence, of_event, of_record
from functions.batch.sender import Sender
from pilotlight.api.trace import Trace
from pilotlight.errors import PilotlightError
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
        occurrence = of_event(event)
        if isinstance(occurrence, Message):
            return {"done": [self._messages.see_to(occurrence, ends)]}
        return {"done": [self._files.see_to(occurrence.uri, ends)]}

    def _queue(self, records: list[dict[str, Any]], ends: float) -> dict[str, Any]:
        from aws_lambda_powertools.utilities.batch import (  # 0.1 s to import, which no file's cold start waits for
            BatchProcessor,
            EventType,
            SqsFifoPartialProcessor,
        )

        ordered = bool(records) and records[0].get("eventSourceARN", "").endswith(".fifo")
        processor: BatchProcessor = (
            SqsFifoPartialProcessor() if ordered else BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)
        )
        if ordered:
            processor.raise_on_entire_batch_failure = False
        with processor(records=records, handler=lambda record: self._record(record.raw_event, ends)):
            processor.process()
        return dict(processor.response())

    def _record(self, record: Mapping[str, Any], ends: float) -> str:
        """One record; what goes wrong is said in the log, without a byte of what was asked."""
        try:
            return self._done(of_record(record), ends)
        except PilotlightError as exc:
            LOG.error("Message %s failed: %s", record.get("messageId"), exc)  # noqa: TRY400 - the sentence tells all
            raise
        except Exception:
            LOG.exception("Message %s failed.", record.get("messageId"))
            raise

    def _done(self, occurrence: Occurrence, ends: float) -> str:
        if isinstance(occurrence, Message):
            return self._messages.see_to(occurrence, ends)
        self._sender.resume(occurrence.uri)  # a file has an invocation of its own
        return occurrence.uri


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
    answers, sender = Answers(catalog, settings.model), Sender(settings.reply_queues.replace(",", " ").split())
    return Batch(Messages(store, answers, sender), Files(store, answers, sender), sender)


handle = build(Settings.from_environment(os.environ))

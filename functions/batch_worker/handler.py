"""The Lambda handler: reads the settings once, and answers each event by its kind."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from functions.batch_worker.events import (
    Chatter,
    InferenceMessage,
    WorkerEvent,
    parse_bus_event,
    parse_map_step,
    parse_queue_record,
    parse_service_event,
)
from functions.batch_worker.file_handler import FanOut, FileHandler
from functions.batch_worker.message_handler import MessageHandler
from functions.batch_worker.outbound_messages import Dispatcher
from functions.batch_worker.predictor import Predictor
from functions.batch_worker.usage_log import BatchUsageLog
from pilotlight.api.call_cost import CostMeter
from pilotlight.api.large_tensors import UploadedTensors
from pilotlight.api.model_statistics import ModelStatistics
from pilotlight.api.request_context import RequestContext
from pilotlight.api.router import format_traceback, get_status_code
from pilotlight.api.usage_log import create_usage_log
from pilotlight.errors import InvalidInputError, PilotlightError
from pilotlight.inference import InferenceService, create_environment_memory, create_recorder
from pilotlight.observability import correlation
from pilotlight.runtime.inference_deadline import DeadlineRunner
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore, open_store

if TYPE_CHECKING:
    from pilotlight.capture.recorder import CaptureRecorder

LOG = logging.getLogger("pilotlight.batch")


class BatchWorker:
    """A Lambda handler for queues, buckets and buses."""

    def __init__(
        self,
        message_handler: MessageHandler,
        file_handler: FileHandler,
        dispatcher: Dispatcher,
        usage_log: BatchUsageLog | None = None,
        recorder: "CaptureRecorder | None" = None,
    ) -> None:
        self._message_handler = message_handler
        self._batch_files = file_handler
        self._dispatcher = dispatcher
        self._usage_log = usage_log
        self._recorder = recorder

    def __call__(self, event: Mapping[str, Any] | Sequence[Any], context: object) -> dict[str, Any]:
        """Handle everything in an event, and return sentences about what was done.

        Of the records of a queue, the failed ones are returned by id, and the queue delivers them again. An event of
        the bus that fails raises, and Lambda tries again. A pipe of EventBridge sends its records as they are.
        """
        if isinstance(event, Sequence) and not isinstance(event, str):
            event = {"Records": event}
        if not isinstance(event, Mapping):
            raise InvalidInputError(f"The event is a {type(event).__name__}, and no object or list of records.")
        try:
            return self._route_event(event, RequestContext.from_event(event, context).deadline)
        finally:
            if self._usage_log is not None:
                self._usage_log.flush()
            if self._recorder is not None:
                self._recorder.drain()  # Lambda freezes what is written later

    def _route_event(self, event: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        if is_queue_batch(event):
            return self._handle_queue(event["Records"], deadline)
        if "step" in event:
            return self._batch_files.handle_step(parse_map_step(event), deadline)
        found = parse_service_event(event)
        return {"done": [self._handle_event(each, deadline) for each in found or [parse_bus_event(event)]]}

    def _handle_event(self, event: WorkerEvent | Chatter, deadline: float) -> str:
        if isinstance(event, Chatter):
            return drop_chatter(event)
        if isinstance(event, InferenceMessage):
            return self._handle_bus_message(event, deadline)
        return self._batch_files.handle(event.name, deadline, (event.sender, event.correlation))

    def _handle_bus_message(self, message: InferenceMessage, deadline: float) -> str:
        """Answer an event's message; Lambda logs exceptions, and an error text would quote the message."""
        try:
            return self._handle_message(message, deadline, message_count=1)
        except InvalidInputError as exc:
            raise InvalidInputError(f"Event {message.key} is refused: {type(exc).__name__}.") from None

    def _handle_queue(self, records: list[dict[str, Any]], deadline: float) -> dict[str, Any]:
        from aws_lambda_powertools.utilities.batch import (  # 0.1 s to import, which no file's cold start waits for
            BatchProcessor,
            EventType,
            SqsFifoPartialProcessor,
        )

        is_fifo = bool(records) and records[0].get("eventSourceARN", "").endswith(".fifo")
        processor = (  # in a queue with groups, what follows a failure waits behind it, in its group alone
            SqsFifoPartialProcessor(skip_group_on_error=True) if is_fifo else BatchProcessor(EventType.SQS)
        )
        processor.raise_on_entire_batch_failure = False
        with processor(
            records=records, handler=lambda record: self._handle_record(record.raw_event, deadline, len(records))
        ):
            processor.process()
        return dict(processor.response())

    def _handle_record(self, record: Mapping[str, Any], deadline: float, message_count: int) -> str:
        """Handle one record; log an error without any byte of the request."""
        try:
            correlation.set_correlation_id("")
            found = parse_queue_record(record)
            return ", ".join([self._handle_queue_event(each, deadline, message_count) for each in found])
        except PilotlightError as exc:
            reason = type(exc).__name__ if isinstance(exc, InvalidInputError) else str(exc)  # the former would quote it
            LOG.error("Message %s failed: %s", record.get("messageId"), reason)  # noqa: TRY400 - the sentence has the reason
            raise
        except Exception as exc:
            LOG.error("Message %s failed: %s\n%s", record.get("messageId"), type(exc).__name__, format_traceback(exc))  # noqa: TRY400
            raise

    def _handle_queue_event(self, worker_event: WorkerEvent | Chatter, deadline: float, message_count: int) -> str:
        if isinstance(worker_event, Chatter):
            return drop_chatter(worker_event)
        if isinstance(worker_event, InferenceMessage):
            return self._handle_message(worker_event, deadline, message_count)
        self._dispatcher.request_resume(worker_event.name)  # a file has an invocation of its own
        return worker_event.name

    def _handle_message(self, message: InferenceMessage, deadline: float, message_count: int) -> str:
        """Answer a message, one of `message_count` in this invocation, and log its usage."""
        trace, status = RequestContext(deadline), 500
        trace.correlation = correlation.set_correlation_id(message.correlation)
        try:
            path = self._message_handler.handle(message, deadline, trace)
            status = 200
        except PilotlightError as exc:
            status = get_status_code(exc)
            raise
        finally:
            if self._usage_log is not None:
                self._usage_log.log_message(message, trace, status, message_count)
        return path


def is_queue_batch(event: Mapping[str, Any]) -> bool:
    """Return whether an event is a batch of a queue, whose failed records are told one by one."""
    records = event.get("Records")
    first = records[0] if isinstance(records, list) and records else None
    return records == [] or (isinstance(first, Mapping) and "body" in first)


def drop_chatter(chatter: Chatter) -> str:
    """Log what is dropped, and say so."""
    LOG.info("Dropped, since it asks for nothing: %s.", chatter.kind)
    return f"{chatter.kind} asks for nothing; it is dropped."


def build_batch_worker(settings: Settings, store: ObjectStore | None = None) -> BatchWorker:
    """Build a handler for these settings."""
    store = store or open_store(settings.store)
    model_manager = ModelManager.from_settings(settings, store)
    recorder = create_recorder(settings, model_manager)
    service = InferenceService(
        model_manager, ModelStatistics(), DeadlineRunner(), recorder, create_environment_memory(settings)
    )
    predictor = Predictor(
        service, settings.model, UploadedTensors(model_manager.registry, settings.tensor_memory_budget)
    )
    dispatcher = Dispatcher(settings.reply_queues.replace(",", " ").split(), settings.event_resource)
    fan_out = FanOut(settings.spreader, settings.spread_bytes, settings.spread_at_once)
    correlation.install_log_record_factory()
    usage_log = BatchUsageLog(CostMeter(settings.memory_mb), create_usage_log(settings.call_seconds))
    file_handler = FileHandler(store, predictor, dispatcher, fan_out, usage_log)
    return BatchWorker(MessageHandler(store, predictor, dispatcher), file_handler, dispatcher, usage_log, recorder)


handle = build_batch_worker(Settings.from_environment(os.environ))

"""Answer files of the inbox and inputs of batches, by one invocation after the other or by many in parallel.

A file of a certain size is spread over the map of a state machine (infra/events.yaml), whose steps call this function:

    split    cuts the file into byte ranges and writes spans.json for the map
    answer   answers one byte range, as far as the time allows
    join     joins the parts of the result

Without a state machine, or after it has failed, each invocation starts the next one.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from functions.batch_worker.events import MapStep
from functions.batch_worker.file_job import FileJob
from functions.batch_worker.inbox_file import TABLE_SUFFIX, BatchInput, InboxFile, parse_inbox_uri
from functions.batch_worker.outbound_messages import Dispatcher
from functions.batch_worker.parquet import convert_table, has_object
from functions.batch_worker.predictor import Predictor
from functions.batch_worker.usage_log import BatchUsageLog
from pilotlight.contracts.batch import BatchManifest, BatchRequest, batch_document_path
from pilotlight.contracts.codec import encode_document, format_utc_now
from pilotlight.errors import ConflictError, InvalidInputError, NotFoundError
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore

RESERVE_S = 15.0  # at the end of an invocation, for writing answers and requesting the next invocation
SPAN_BYTES = 16_000_000  # of a file that is spread
MAX_SPANS = 2_000  # of a file: the result of each must fit into the 256 kB of a state


@dataclass(frozen=True)
class FanOut:
    """When a file is spread over a map, and with how many invocations; without a state machine, none is."""

    state_machine: str = ""  # ARN
    threshold: int = 64_000_000  # bytes of a file from which on it is
    max_concurrency: int = 10  # invocations that it may keep busy


class FileHandler:
    """Answers files of a store and writes the results to its outbox."""

    def __init__(
        self,
        store: ObjectStore,
        predictor: Predictor,
        dispatcher: Dispatcher,
        fan_out: FanOut = FanOut(),
        usage_log: BatchUsageLog | None = None,
    ) -> None:
        self._store = store
        self._predictor = predictor
        self._dispatcher = dispatcher
        self._fan_out = fan_out
        self._usage_log = usage_log

    def handle(self, target: str, deadline: float, origin: tuple[str, str] = ("", "")) -> str:
        """Answer as much of a file as the time allows, and describe in a sentence what was done.

        `deadline` is on time.monotonic's clock. `origin` is the tenant and the correlation id of the event that named
        the file.
        """
        if target.endswith("/"):  # as S3's console creates them
            return f"{target} is a folder, in which there is nothing to answer."
        inbox_file = self._find_file(target)
        try:
            inbox_file = self._convert_if_table(inbox_file, deadline)
            file_job = self._create_job(inbox_file, deadline, origin)
            if self._should_fan_out(file_job.input_file.size) and self._dispatcher.start_map(
                self._fan_out.state_machine, target, file_job.input_file.e_tag
            ):
                return f"{inbox_file.path} is spread."
            return file_job.run(partial(self._dispatcher.request_resume, target))
        except ConflictError as exc:
            return f"{inbox_file.path} is left to somebody else: {exc}"
        except NotFoundError:
            if not isinstance(inbox_file, BatchInput) or has_object(self._store, inbox_file.path):
                raise
            return self._fail_missing_input(inbox_file)

    def handle_step(self, step: MapStep, deadline: float) -> dict[str, Any]:
        """Run one step of the state machine, which retries after an exception."""
        file_job = self._create_job(self._convert_if_table(self._find_file(step.job), deadline), deadline)
        if step.step == "answer":
            return {"done": file_job.answer_range(step.start)}
        if step.step == "join":
            return {"said": file_job.join_parts()}
        return self._split_file(step.job, file_job)

    def _split_file(self, target: str, file_job: FileJob) -> dict[str, Any]:
        length = max(SPAN_BYTES, file_job.input_file.size // MAX_SPANS + 1)
        progress = file_job.load_or_create_progress(length)
        starts = [{"start": span.start} for span in progress.spans if not (span.is_done or progress.refused)]
        path = f"{self._find_file(target).folder}/spans.json"
        self._store.put(path, msgspec.json.encode(starts))
        bucket, _, prefix = self._store.url.removeprefix("s3://").partition("/")
        return {
            "job": target,
            "spans": len(starts),
            "at_once": self._fan_out.max_concurrency,
            "bucket": bucket,
            "key": f"{prefix}/{path}".lstrip("/"),
        }

    def _fail_missing_input(self, batch_input: BatchInput) -> str:
        """Mark a batch as failed, since its file was deleted before it was answered."""
        reason = f"The file {batch_input.batch_request.input_file_id} is not there any more."
        manifest = BatchManifest(
            input=batch_input.path,
            bytes=0,
            e_tag="",
            sha256="",
            result="",
            refused=reason,
            ended=format_utc_now("milliseconds"),
        )
        self._store.put(f"{batch_input.folder}/manifest.json", encode_document(manifest))
        return f"{batch_input.path} is refused: {reason}"

    def _should_fan_out(self, size: int) -> bool:
        return bool(self._fan_out.state_machine) and size >= self._fan_out.threshold

    def _create_job(self, inbox_file: InboxFile, deadline: float, origin: tuple[str, str] = ("", "")) -> FileJob:
        if isinstance(inbox_file, BatchInput):
            origin = (
                inbox_file.batch_request.by,
                inbox_file.batch_request.id,
            )  # of the batch: its tenant, and the id by which the tenant knows it
        return FileJob(self._store, self._predictor, inbox_file, deadline - RESERVE_S, self._usage_log, origin)

    def _convert_if_table(self, inbox_file: InboxFile, deadline: float) -> InboxFile:
        """Convert a table to JSON lines; return any other file as it is."""
        return (
            convert_table(self._store, inbox_file, deadline - RESERVE_S)
            if inbox_file.suffix == TABLE_SUFFIX
            else inbox_file
        )

    def _find_file(self, target: str) -> InboxFile:
        """Find the file of a target: a URI of the inbox, or the id of a batch."""
        if not target.startswith("batch_"):
            return parse_inbox_uri(self._store.url, target)
        path = batch_document_path(target, "order")
        batch_request = Document(self._store, path, BatchRequest).read()
        if batch_request.id != target:
            raise InvalidInputError(f"{path} is the order of {batch_request.id}, not of {target}.")
        return BatchInput.from_batch_request(batch_request)

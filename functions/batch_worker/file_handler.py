"""Answer files of the inbox and inputs of batches, by one invocation after the other or by many in parallel.

A file of a certain size is spread over the map of a state machine (infra/events.yaml), whose steps call this function:

    split    cuts the file into byte ranges and writes spans.json for the map
    answer   answers one byte range, as far as the time allows
    join     joins the parts of the result

Without a state machine, or after it has failed, each invocation starts the next one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from functions.batch_worker.events import MapStep
from functions.batch_worker.file_job import FileJob
from functions.batch_worker.inbox_file import TABLE_SUFFIX, BatchInput, InboxFile, parse_inbox_uri
from functions.batch_worker.outbound_messages import Dispatcher
from functions.batch_worker.parquet import convert_table
from functions.batch_worker.predictor import Predictor
from functions.batch_worker.usage_log import BatchUsageLog
from pilotlight.contracts.batch import BatchManifest, BatchRequest, batch_request_path, is_batch_target
from pilotlight.contracts.codec import encode_document, format_utc_now
from pilotlight.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore

RESERVE_S = 15.0  # at the end of an invocation, for writing answers and requesting the next invocation
SPAN_BYTES = 16_000_000  # of a file that is spread
MAX_SPANS = 2_000  # of a file: the result of each must fit into the 256 kB of a state


class UnknownBatchError(NotFoundError):
    """No batch of that id was ordered in this store."""


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

        `deadline` is on time.monotonic's clock. `origin` is the sender and the correlation id of the event that named
        the file.
        """
        if target.endswith("/"):  # as S3's console creates them
            return f"{target} is a folder, in which there is nothing to answer."
        try:
            inbox_file = self._find_file(target)
        except UnknownBatchError as exc:
            return str(exc)  # another try would not find it either
        try:
            inbox_file = self._convert_if_table(inbox_file, deadline)
            file_job = self._create_job(inbox_file, deadline, origin)
            if self._should_fan_out(file_job.input_file.size) and self._dispatcher.start_map(
                self._fan_out.state_machine, target, file_job.input_file.e_tag
            ):
                return f"{inbox_file.path} is spread."
            return file_job.run(partial(self._dispatcher.request_resume, target))
        except ConflictError as exc:
            if isinstance(inbox_file, BatchInput) and not self._has_input(inbox_file):
                return self._fail_missing_input(inbox_file)
            return f"{inbox_file.path} is left to somebody else: {exc}"
        except NotFoundError:
            if not isinstance(inbox_file, BatchInput) or self._has_input(inbox_file):
                raise
            return self._fail_missing_input(inbox_file)

    def handle_step(self, step: MapStep, deadline: float) -> dict[str, Any]:
        """Run one step of the state machine, which retries after an exception."""
        inbox_file = self._find_file(step.job)
        try:
            file_job = self._create_job(self._convert_if_table(inbox_file, deadline), deadline)
            if step.step == "answer":
                return {"done": file_job.answer_range(step.start)}
            if step.step == "join":
                return {"said": file_job.join_parts()}
            return self._split_file(step.job, file_job)
        except (ConflictError, NotFoundError):
            if not isinstance(inbox_file, BatchInput) or self._has_input(inbox_file):
                raise
            said = self._fail_missing_input(inbox_file)
            return {"done": True, "said": said} if step.step != "split" else self._list_spans(step.job, inbox_file, [])

    def _split_file(self, target: str, file_job: FileJob) -> dict[str, Any]:
        length = max(SPAN_BYTES, file_job.input_file.size // MAX_SPANS + 1)
        progress = file_job.load_or_create_progress(length)
        starts = [{"start": span.start} for span in progress.spans if not (span.is_done or progress.refused)]
        return self._list_spans(target, self._find_file(target), starts)

    def _list_spans(self, target: str, inbox_file: InboxFile, starts: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """Write the list of spans for the map, and return what the state machine needs to read it."""
        path = f"{inbox_file.folder}/spans.json"
        self._store.put(path, msgspec.json.encode(starts))
        bucket, _, prefix = self._store.url.removeprefix("s3://").partition("/")
        return {
            "job": target,
            "spans": len(starts),
            "at_once": self._fan_out.max_concurrency,
            "bucket": bucket,
            "key": f"{prefix}/{path}".lstrip("/"),
        }

    def _has_input(self, batch_input: BatchInput) -> bool:
        """Return whether a batch's file is still there, as it was when the batch was requested."""
        try:
            _, e_tag = self._store.get_size_and_e_tag(batch_input.path)
        except NotFoundError:
            return False
        return batch_input.expected_e_tag in ("", e_tag)

    def _fail_missing_input(self, batch_input: BatchInput) -> str:
        """Mark a batch as failed, since its file was deleted before it was answered; one that has ended stays so."""
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
        try:
            self._store.create(f"{batch_input.folder}/manifest.json", encode_document(manifest))
        except AlreadyExistsError:
            return f"{batch_input.path} is answered already."
        return f"{batch_input.path} is refused: {reason}"

    def _should_fan_out(self, size: int) -> bool:
        return bool(self._fan_out.state_machine) and size >= self._fan_out.threshold

    def _create_job(self, inbox_file: InboxFile, deadline: float, origin: tuple[str, str] = ("", "")) -> FileJob:
        if isinstance(inbox_file, BatchInput):
            batch_request = inbox_file.batch_request
            # Whom its cost belongs to, as of calls over HTTP, and the id by which the caller knows it.
            origin = (batch_request.tenant or batch_request.by, batch_request.id)
        return FileJob(self._store, self._predictor, inbox_file, deadline - RESERVE_S, self._usage_log, origin)

    def _convert_if_table(self, inbox_file: InboxFile, deadline: float) -> InboxFile:
        """Convert a table to JSON lines; return any other file as it is."""
        return (
            convert_table(self._store, inbox_file, deadline - RESERVE_S)
            if inbox_file.suffix == TABLE_SUFFIX
            else inbox_file
        )

    def _find_file(self, target: str) -> InboxFile:
        """Find the file of a target: a URI of the inbox, or a batch; its own document says whose it is."""
        if not is_batch_target(target):
            return parse_inbox_uri(self._store.url, target)
        path = batch_request_path(target)
        batch_request = Document(self._store, path, BatchRequest).read_or_none()
        if batch_request is None:
            raise UnknownBatchError(f"There is no batch {target} here: it was withdrawn, or is of another stack.")
        if batch_request.target != target:
            raise InvalidInputError(f"{path} is the order of {batch_request.target}, not of {target}.")
        return BatchInput.from_batch_request(batch_request)

"""Answer a file in parts, so that a killed invocation repeats nothing: the next one continues after the last part.

    1. progress.json holds for each byte range of the input up to which byte it is answered
    2. the next part is written under its extent, then progress.json is swapped for one that counts it
    3. after the last part, the parts are joined to the result, manifest.json is written, the parts are removed

A part that progress.json does not count is not part of the result. `progress` decides which invocation may write when,
`caution` how a range goes on after its worker was killed.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from msgspec import structs

from functions.batch_worker import caution
from functions.batch_worker.inbox_file import InboxFile
from functions.batch_worker.input_file import InputFile
from functions.batch_worker.predictor import Predictor
from functions.batch_worker.progress import ProgressDocument, add_part, build_manifest
from functions.batch_worker.record_reader import InputItem
from functions.batch_worker.usage_log import BatchUsageLog
from pilotlight.api.request_context import RequestContext
from pilotlight.contracts.batch import Block, ByteRange, Caution, FileProgress, LineError, ResultPart
from pilotlight.contracts.codec import encode_document, format_utc_now
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import (
    DeadlineError,
    InvalidInputError,
    NotFoundError,
    PilotlightError,
    UnavailableError,
    shorten_message,
)
from pilotlight.observability.correlation import set_correlation_id
from pilotlight.storage.object_store import ObjectStore

LOG = logging.getLogger("pilotlight.batch")
PART_NAME = re.compile(r"[0-9]{15}-[0-9]{15}(\.errors)?\.jsonl")
WATCH_S = 2.0  # seconds between two checks whether the file is cancelled


@dataclass
class ResultBuffer:
    """What one invocation has answered since the last part."""

    start: int
    end: int
    line: int
    answer_lines: list[bytes] = field(default_factory=list)
    error_lines: list[bytes] = field(default_factory=list)  # for formats with an error file
    size: int = 0
    errors: list[LineError] = field(default_factory=list)
    lines_by_version: dict[str, int] = field(default_factory=dict)  # and how many lines each has answered
    trace: RequestContext = field(default_factory=RequestContext)

    @classmethod
    def from_range(cls, byte_range: ByteRange) -> "ResultBuffer":
        """Create an empty buffer at the position of a byte range."""
        return cls(byte_range.position, byte_range.position, byte_range.line)

    def add_line(self, item: InputItem, text: bytes, *, to_error_file: bool = False) -> None:
        """Add a line of the result."""
        (self.error_lines if to_error_file else self.answer_lines).append(text)
        self.size += len(text)
        self.end, self.line = item.end, item.number

    @property
    def answered_count(self) -> int:
        """How many lines have an answer."""
        return len(self.answer_lines) + len(self.error_lines) - len(self.errors)

    @property
    def is_full(self) -> bool:
        """Whether the buffer is large enough for a part."""
        return self.end - self.start >= caution.PART_BYTES or self.size >= caution.PART_BYTES


class FileJob:
    """One invocation's work on one file."""

    def __init__(
        self,
        store: ObjectStore,
        predictor: Predictor,
        inbox_file: InboxFile,
        deadline: float,
        usage_log: BatchUsageLog | None = None,
        origin: tuple[str, str] = ("", ""),
    ) -> None:
        """`origin` is whom the cost of a new file belongs to, and its correlation id."""
        self._store = store
        self._usage_log = usage_log
        self._origin = origin
        self._fee_charged = False  # the invocation's fee
        self._predictor = predictor
        self._inbox_file = inbox_file
        self._line_format = inbox_file.line_format
        self._deadline = deadline
        self._progress_document = ProgressDocument(store, inbox_file.folder)
        self._idle = True  # nothing is answered yet
        self._is_stopped = False  # by the time, or by its owner
        self._last_stop_check = 0.0  # so that the first line is preceded by a check
        self.input_file = InputFile(store, inbox_file)

    def run(self, request_resume: Callable[[], None]) -> str:
        """Answer the file up to its end or until the time is up; then request another invocation."""
        progress = self.load_or_create_progress()
        if progress.state == "done":
            return f"{self._inbox_file.path} is answered already."
        start_position = progress.position
        before = progress
        progress = self._progress_document.claim_range(progress, invocations=1)
        self._refuse_after_many_deaths(progress)
        while (span := self._progress_document.find_claimed_range(progress)) is not None:
            if self._is_to_be_handed_over(before, span):
                return self._hand_over(span, request_resume)
            progress = self._answer_range(progress, span)
            if not is_range_done(progress, span.start):
                break
            before = progress
            progress = self._progress_document.claim_range(progress)
        stop_reason = self._inbox_file.get_stop_reason(self._store)
        unfinished = not all(span.is_done for span in progress.spans) or time.monotonic() > self._deadline
        if unfinished and not stop_reason and not progress.refused:
            return self._pause(progress, start_position, request_resume)
        return self._finish(progress, stop_reason)

    def answer_range(self, start: int) -> bool:
        """Answer the byte range at `start` as far as the time allows, and return whether it is done."""
        progress = self._load_progress()
        if progress is None or start not in {span.start for span in progress.spans}:
            if progress is not None and progress.state == "done":
                return True
            raise NotFoundError(f"{self._inbox_file.path} has no span at {start}; it is to be split first.")
        if is_range_done(progress, start) or self._inbox_file.get_stop_reason(self._store):
            return True
        unclaimed, progress = progress, self._progress_document.claim_range(progress, start, invocations=1)
        self._refuse_after_many_deaths(progress)
        before = self._progress_document.find_claimed_range(progress)
        if before is not None and self._is_to_be_handed_over(unclaimed, before):
            self._progress_document.release_range()
            return False  # the next state has attempts of its own
        if before is not None:
            progress = self._answer_range(progress, before)
            if get_position(progress, start) == before.position and not self._inbox_file.get_stop_reason(self._store):
                raise UnavailableError(
                    f"{self._inbox_file.path} does not come on: no time for a line at {before.position}."
                )
        return is_range_done(progress, start) or bool(self._inbox_file.get_stop_reason(self._store))

    def join_parts(self) -> str:
        """Join the parts once every byte range is done; raise `UnavailableError` before that."""
        progress = self.load_or_create_progress()
        if progress.state == "done":
            return f"{self._inbox_file.path} is answered already."
        stop_reason = self._inbox_file.get_stop_reason(self._store)
        missing = [span.start for span in progress.spans if not span.is_done]
        if missing and not stop_reason and not progress.refused:
            raise UnavailableError(f"{self._inbox_file.path} is not answered yet: {len(missing)} spans are unfinished.")
        return self._finish(progress, stop_reason)

    def load_or_create_progress(self, min_bytes: int | None = None) -> FileProgress:
        """Load the progress of this file; create it for a new or replaced one, in ranges of `min_bytes`."""
        existing = self._load_progress()
        if existing is not None:
            return existing
        refused, errors, total = self.input_file.validate()
        fresh = FileProgress(
            input=self._inbox_file.path,
            bytes=self.input_file.size,
            e_tag=self.input_file.e_tag,
            model=self._resolve_default_model(),
            tenant=self._origin[0],
            correlation=self._origin[1],
            total=total,
            refused=refused,
            errors=tuple(errors),
            spans=self.input_file.split_ranges(None if refused else min_bytes),
            started=format_utc_now("milliseconds"),
            worker=self._progress_document.worker,
        )
        if self._progress_document.has_previous:
            self._store.delete(f"{self._inbox_file.folder}/manifest.json")  # of the file that was there before
        set_correlation_id(fresh.correlation)
        return self._progress_document.write_initial(fresh)

    def _load_progress(self) -> FileProgress | None:
        """Load the progress of a file that has begun, and use its correlation id in the log from here on."""
        existing = self._progress_document.read_if_current(self.input_file.size, self.input_file.e_tag)
        if existing is not None:
            set_correlation_id(existing.correlation)
        return existing

    def _resolve_default_model(self) -> str:
        """Resolve the version that answers lines without a model, from the first line to the last."""
        reference = self._predictor.find_default_model(self._inbox_file.model)
        return str(self._predictor.resolve_version(reference)) if reference is not None else ""

    def _pause(self, progress: FileProgress, start_position: int, request_resume: Callable[[], None]) -> str:
        if progress.position == start_position < progress.bytes:
            raise UnavailableError(
                f"{self._inbox_file.path} does not come on: there was no time for a line at {start_position}."
            )
        request_resume()
        return f"{self._inbox_file.path} is answered to {progress.percent} %; it goes on in another invocation."

    def _refuse_after_many_deaths(self, progress: FileProgress) -> None:
        """Raise `UnavailableError` for a file that ends processes without an end; its event becomes a dead letter."""
        if progress.deaths > caution.MAX_DEATHS:
            self._progress_document.release_range()
            raise UnavailableError(
                f"{self._inbox_file.path} has ended the process {progress.deaths} times, the last time after byte "
                f"{progress.position}; it is not tried any more. Remove the lines there, and upload it again."
            )

    def _is_to_be_handed_over(self, progress: FileProgress, claimed: ByteRange) -> bool:
        """Return whether the claim of a range found a death after which this event may have no attempt left."""
        before = next(span for span in progress.spans if span.start == claimed.start)
        return caution.is_to_be_handed_over(before, claimed)

    def _hand_over(self, span: ByteRange, request_resume: Callable[[], None]) -> str:
        """Request another invocation, whose event has attempts of its own."""
        self._progress_document.release_range()
        request_resume()
        return (
            f"{self._inbox_file.path} ended the process again after byte {span.position}; it goes on carefully in "
            "another invocation."
        )

    def _answer_range(self, progress: FileProgress, byte_range: ByteRange) -> FileProgress:
        """Answer until the byte range or the time ends, carefully where a worker has ended without a word."""
        try:
            span: ByteRange | None = byte_range
            while span is not None and not span.is_done and not self._is_stopped:
                if span.caution is None or progress.set_aside >= caution.MAX_SET_ASIDE:
                    progress = self._answer_parts(progress, span)
                else:
                    progress = self._answer_block(progress, span, span.caution)
                span = self._progress_document.find_claimed_range(progress)
            self._progress_document.release_range()
        except Exception:  # it ends in order: what ends it is told to its caller
            with suppress(PilotlightError):  # as when the store is away, or another worker has the range
                self._progress_document.release_range()
            raise
        return self._progress_document.latest or progress

    def _answer_block(self, progress: FileProgress, span: ByteRange, known: Caution) -> FileProgress:
        """Answer the next block of a range, noted before it is begun; set its line aside if that ended a process."""
        items = self.input_file.iterate_items(span)
        block = next(caution.iterate_blocks(items, span.position, known), [])
        buffer = ResultBuffer.from_range(span)
        if known.sets_aside and block:
            LOG.error("Line %d of %s is set aside.", block[0].number, self._inbox_file.path)
            self._add_error(block[0], buffer, PilotlightError(caution.SET_ASIDE))
            return self._write(progress, buffer, set_aside=1)
        end = block[-1].end if block else span.end  # blank lines at the end
        progress = self._progress_document.note_block(progress, Block(end, is_single=len(block) == 1))
        for item in block:
            if not self._try_item(progress, item, buffer):
                return self._write(progress, buffer)
        buffer.end = end
        return self._write(progress, buffer)

    def _answer_parts(self, progress: FileProgress, byte_range: ByteRange) -> FileProgress:
        """Answer and write part by part until the byte range or the time ends, or the file is cancelled."""
        buffer = ResultBuffer.from_range(byte_range)
        for item in self.input_file.iterate_items(byte_range):
            if not self._try_item(progress, item, buffer):
                return self._write(progress, buffer)
            if buffer.is_full:
                progress = self._write(progress, buffer)
                buffer = ResultBuffer(buffer.end, buffer.end, buffer.line)
        buffer.end = byte_range.end  # blank lines at the end
        return self._write(progress, buffer)

    def _try_item(self, progress: FileProgress, item: InputItem, buffer: ResultBuffer) -> bool:
        """Answer one item, and return whether there was time for it."""
        if self._is_over():
            self._is_stopped = True
            return False
        try:
            self._add(progress, item, buffer)
        except DeadlineError:
            self._is_stopped = True
            return False
        except UnavailableError:
            self._write(progress, buffer)
            raise
        self._idle = False
        return True

    def _is_over(self) -> bool:
        """Return whether the time is up or the file is cancelled."""
        at = time.monotonic()
        if at - self._last_stop_check > WATCH_S:
            self._last_stop_check = at
            return at > self._deadline or bool(self._inbox_file.get_stop_reason(self._store))
        return at > self._deadline

    def _add(self, progress: FileProgress, item: InputItem, buffer: ResultBuffer) -> None:
        """Add one item's line to the result: the answer, or the error."""
        try:
            if isinstance(item.body, InvalidInputError):
                raise item.body
            if progress.set_aside >= caution.MAX_SET_ASIDE and self._has_caution(progress):
                raise PilotlightError(caution.NOT_TRIED)  # noqa: TRY301 - it becomes the line's error as any other
            reference = item.body.get_reference() or (ModelReference.parse(progress.model) if progress.model else None)
            answer, version = self._predictor.predict(
                item.body, reference, self._deadline, tenant=self._inbox_file.tenant
            )
        except PilotlightError as exc:
            if isinstance(exc, UnavailableError) and not (self._idle and isinstance(exc, DeadlineError)):
                raise  # it may go better later, but not for a line that had a whole invocation
            self._add_error(item, buffer, exc)
            return
        buffer.lines_by_version[version] = buffer.lines_by_version.get(version, 0) + 1
        buffer.add_line(item, self._line_format.format_answer(item, answer))

    def _has_caution(self, progress: FileProgress) -> bool:
        span = self._progress_document.find_claimed_range(progress)
        return span is not None and span.caution is not None

    def _add_error(self, item: InputItem, buffer: ResultBuffer, error: PilotlightError) -> None:
        """Add the line of an item without an answer to the result."""
        buffer.errors.append(LineError(item.number, shorten_message(str(error))))
        buffer.add_line(
            item, self._line_format.format_error(item, error), to_error_file=self._line_format.has_error_file
        )

    def _write(self, progress: FileProgress, buffer: ResultBuffer, *, set_aside: int = 0) -> FileProgress:
        """Write a part, then count it in progress.json."""
        if buffer.end == buffer.start:
            return progress
        result_part = ResultPart(buffer.start, buffer.end, bool(buffer.answer_lines), bool(buffer.error_lines))
        if result_part.answers:
            self._store.put(f"{self._inbox_file.folder}/{result_part.object_name}", b"".join(buffer.answer_lines))
        if result_part.refusals:
            self._store.put(f"{self._inbox_file.folder}/{result_part.errors_name}", b"".join(buffer.error_lines))
        after = self._progress_document.update(
            progress,
            lambda found: structs.replace(
                add_part(found, self._progress_document.range_start, buffer.line, result_part, buffer.errors),
                answered=found.answered + buffer.answered_count,
                set_aside=found.set_aside + set_aside,
                versions=tuple(sorted({*buffer.lines_by_version, *found.versions})),
            ),
        )
        self._log_usage(after, buffer)
        return after

    def _log_usage(self, progress: FileProgress, buffer: ResultBuffer) -> None:
        """Log the cost of a part that counts."""
        if self._usage_log is not None:
            origin = {"tenant": progress.tenant, "correlation": progress.correlation}
            self._usage_log.log_part(
                buffer.trace, buffer.lines_by_version, len(buffer.errors), is_first=not self._fee_charged, **origin
            )
            self._fee_charged = True

    def _finish(self, progress: FileProgress, stop_reason: str = "") -> str:
        """Join the parts, write the manifest, then remove the parts."""
        self._progress_document.range_start = None
        progress = self._progress_document.update(
            progress, lambda found: structs.replace(found, joining=found.joining or format_utc_now("milliseconds"))
        )
        result_path = "" if progress.refused else self._inbox_file.result_path
        errors_path = self._inbox_file.errors_path if any(part.refusals for part in progress.parts) else ""
        if result_path:
            self._store.put_chunks(
                result_path, self._iterate_part_bytes(part.object_name for part in progress.parts if part.answers)
            )
        if errors_path:
            self._store.put_chunks(
                errors_path, self._iterate_part_bytes(part.errors_name for part in progress.parts if part.refusals)
            )
        sha256 = self.input_file.compute_sha256()
        manifest = build_manifest(
            progress, sha256=sha256, result=result_path, refusals=errors_path, stopped=stop_reason
        )
        self._store.put(f"{self._inbox_file.folder}/manifest.json", encode_document(manifest))
        self._progress_document.update(progress, mark_done)
        self._delete_parts()
        if progress.refused:
            return f"{self._inbox_file.path} is refused: {progress.refused}"
        return f"{self._inbox_file.path} is {stop_reason or 'answered'}: {result_path}."

    def _delete_parts(self) -> None:
        """Delete the parts; a file `.../parts/x.jsonl` of the inbox may have results of its own beside them."""
        folder = f"{self._inbox_file.folder}/parts/"
        for path in list(self._store.list_paths(folder.rstrip("/"))):
            if PART_NAME.fullmatch(path.removeprefix(folder)):
                self._store.delete(path)

    def _iterate_part_bytes(self, names: Iterator[str]) -> Iterator[bytes]:
        """Yield the bytes of the parts in the order of the input."""
        for name in names:
            yield from map(bytes, self._store.stream(f"{self._inbox_file.folder}/{name}"))


def get_position(progress: FileProgress, start: int) -> int | None:
    """Return up to which byte the range that begins at `start` is answered."""
    return next((span.position for span in progress.spans if span.start == start), None)


def is_range_done(progress: FileProgress, start: int) -> bool:
    """Return whether the byte range that begins at `start` is answered."""
    return any(span.is_done for span in progress.spans if span.start == start)


def mark_done(progress: FileProgress) -> FileProgress:
    """Mark a file as done, and forget its parts and byte ranges, which are not needed any more."""
    return structs.replace(progress, state="done", percent=100.0, parts=(), spans=())

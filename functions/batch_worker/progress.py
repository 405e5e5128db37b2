"""progress.json of one file, in the hands of one worker: read, claimed, counted up, all by compare-and-swap.

Spans may have workers at the same time. Whoever loses a swap to the worker of another span does it again; whoever loses
it to one of his own span stops, since another is at work there.
"""

import random
import time
import uuid
from collections.abc import Callable
from typing import Any

from msgspec import structs

from pilotlight.contracts.batch import (
    MAX_LISTED_ERRORS,
    BatchManifest,
    ByteRange,
    FileProgress,
    LineError,
    ResultPart,
)
from pilotlight.contracts.codec import decode_document, encode_document, format_utc_now
from pilotlight.errors import ChangedError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

MAX_SWAPS = 100  # attempts, while workers of other spans are faster
ProgressChange = Callable[[FileProgress], FileProgress]


class ProgressDocument:
    """The document below a folder, as this worker last saw it."""

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._store = store
        self._path = f"{folder}/progress.json"
        self._e_tag = ""
        self.worker = uuid.uuid4().hex  # so that no two workers write the same bytes
        self.range_start: int | None = None  # of the span that is worked on

    def read_if_current(self, size: int, e_tag: str) -> FileProgress | None:
        """The document, unless it is of a file that was there before."""
        try:
            stored = self._store.get(self._path)
        except NotFoundError:
            return None
        self._e_tag = stored.e_tag
        existing = decode_document(stored.data, FileProgress, self._path)
        return existing if (existing.e_tag, existing.bytes) == (e_tag, size) else None

    def write_initial(self, initial: FileProgress) -> FileProgress:
        """Write a file's first document in the place of `existing`; `ConflictError` beside another."""
        if self._e_tag:
            return self.update(initial, lambda progress: progress)
        self._store.create(self._path, encode_document(initial))
        self._e_tag = self._store.get(self._path).e_tag
        return initial

    @property
    def has_previous(self) -> bool:
        """Whether `load_or_create_progress` would write over a document."""
        return bool(self._e_tag)

    def claim_range(self, progress: FileProgress, start: int | None = None, invocations: int = 0) -> FileProgress:
        """Say that the span, by default the first that is not done, is this worker's from now on."""
        unfinished = [span.start for span in progress.spans if not span.is_done and not progress.refused]
        self.range_start = start if start is not None else next(iter(unfinished), None)
        if self.range_start is None and not invocations:
            return progress
        return self.update(
            progress,
            lambda found: structs.replace(
                found,
                spans=change_range(found, self.range_start, worker=self.worker),
                invocations=found.invocations + invocations,
            ),
        )

    def update(self, progress: FileProgress, change: ProgressChange) -> FileProgress:
        """Write how far it is now; `ChangedError` when somebody else has written of the same span."""
        for _ in range(MAX_SWAPS):
            after = structs.replace(change(progress), updated=format_utc_now("milliseconds"), worker=self.worker)
            written = self._try_replace(after)
            stored = self._store.get(self._path)
            current, self._e_tag = decode_document(stored.data, FileProgress, self._path), stored.e_tag
            if self._is_unchanged(current, after):
                return current
            if written or not self._is_unchanged(current, progress):
                break
            progress = current
            time.sleep(random.uniform(0.01, 0.2))  # noqa: S311 - s, so that two do not meet again
        raise ChangedError(f"{self._path} was changed by somebody else.")

    def find_claimed_range(self, progress: FileProgress) -> ByteRange | None:
        """The span that is worked on."""
        return next((span for span in progress.spans if span.start == self.range_start), None)

    def _try_replace(self, after: FileProgress) -> bool:
        try:
            self._store.replace(self._path, encode_document(after), self._e_tag)
        except ChangedError:
            return False
        return True

    def _is_unchanged(self, one: FileProgress, other: FileProgress) -> bool:
        """Whether two documents say the same of this worker's span; without a span, of everything."""
        if self.range_start is None:
            return one == other
        return self.find_claimed_range(one) == self.find_claimed_range(other) and (one.e_tag, one.state) == (
            other.e_tag,
            other.state,
        )


def change_range(progress: FileProgress, start: int | None, **changes: Any) -> tuple[ByteRange, ...]:  # noqa: ANN401 - fields of a span
    """The spans, with changes to the one that begins at `start`."""
    return tuple(structs.replace(span, **changes) if span.start == start else span for span in progress.spans)


def add_part(
    progress: FileProgress, start: int | None, line: int, new_part: ResultPart, new_errors: list[LineError]
) -> FileProgress:
    """How far it is with one more part of the span that begins at `start`, whose last line is `line`."""
    after = change_range(progress, start, position=new_part.end, line=line)
    position = sum(span.position - span.start for span in after)
    errors = sorted((*progress.errors, *new_errors), key=lambda wrong: wrong.line)
    parts = (*progress.parts, new_part) if new_part.answers or new_part.refusals else progress.parts
    return structs.replace(
        progress,
        spans=after,
        position=position,
        percent=round(100 * position / max(1, progress.bytes), 1),
        line=sum(span.line - span.first for span in after),
        failed=progress.failed + len(new_errors),
        errors=tuple(errors[:MAX_LISTED_ERRORS]),
        parts=tuple(sorted(parts, key=lambda part: part.start)),
    )


def build_manifest(progress: FileProgress, **more: Any) -> BatchManifest:  # noqa: ANN401 - fields of the manifest
    """What came of a file."""
    return BatchManifest(
        input=progress.input,
        bytes=progress.bytes,
        e_tag=progress.e_tag,
        refused=progress.refused,
        correlation=progress.correlation,
        lines=progress.answered + progress.failed,
        total=progress.total,
        answered=progress.answered,
        failed=progress.failed,
        versions=progress.versions,
        errors=progress.errors,
        invocations=max(1, progress.invocations),
        started=progress.started,
        joining=progress.joining,
        ended=format_utc_now("milliseconds"),
        **more,
    )

"""progress.json of one file, as one worker reads, claims and updates it, always by compare-and-swap.

Byte ranges may have workers at the same time. A worker that loses a swap to the worker of another range repeats it; one
that loses it to a worker of its own range stops, since that one has taken the range over.
"""

import random
import time
import uuid
from collections.abc import Callable
from typing import Any

from msgspec import structs

from functions.batch_worker.caution import begin_range, ease_caution
from pilotlight.contracts.batch import (
    MAX_LISTED_ERRORS,
    BatchManifest,
    Block,
    ByteRange,
    FileProgress,
    LineError,
    ResultPart,
)
from pilotlight.contracts.codec import format_utc_now
from pilotlight.errors import ChangedError
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore

MAX_SWAPS = 100  # attempts, while workers of other ranges are faster
ProgressChange = Callable[[FileProgress], FileProgress]


class ProgressDocument:
    """The document in a folder, as this worker last read it."""

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._document = Document(store, f"{folder}/progress.json", FileProgress)
        self._e_tag = ""
        self.worker = uuid.uuid4().hex  # so that no two workers write the same bytes
        self.range_start: int | None = None  # of the range that this worker has
        self.latest: FileProgress | None = None  # as this worker last wrote it

    def read_if_current(self, size: int, e_tag: str) -> FileProgress | None:
        """Read the document; return None where there is none, or it is of a former file."""
        found = self._document.read_with_e_tag_or_none()
        if found is None:
            return None
        existing, self._e_tag = found
        return existing if (existing.e_tag, existing.bytes) == (e_tag, size) else None

    def write_initial(self, initial: FileProgress) -> FileProgress:
        """Write a file's first document, over that of a former file; raise `ConflictError` when another was faster."""
        if self._e_tag:
            return self.update(initial, lambda progress: progress)
        self._document.create(initial)
        _, self._e_tag = self._document.read_with_e_tag()
        return initial

    @property
    def has_previous(self) -> bool:
        """Whether `write_initial` would write over a document."""
        return bool(self._e_tag)

    def claim_range(self, progress: FileProgress, start: int | None = None, invocations: int = 0) -> FileProgress:
        """Claim a range for this worker, by default the first that is not done."""
        unfinished = [span.start for span in progress.spans if not span.is_done and not progress.refused]
        self.range_start = start if start is not None else next(iter(unfinished), None)
        if self.range_start is None and not invocations:
            return progress
        return self.update(progress, lambda found: self._begin_claimed_range(found, invocations))

    def _begin_claimed_range(self, found: FileProgress, invocations: int) -> FileProgress:
        span = self.find_claimed_range(found)
        return structs.replace(
            found,
            spans=tuple(
                structs.replace(begin_range(each), worker=self.worker) if each is span else each for each in found.spans
            ),
            invocations=found.invocations + invocations,
            deaths=found.deaths + int(span is not None and span.block is not None),
        )

    def note_block(self, progress: FileProgress, block: Block) -> FileProgress:
        """Note what this worker answers next."""
        return self.update(
            progress, lambda found: structs.replace(found, spans=change_range(found, self.range_start, block=block))
        )

    def release_range(self) -> None:
        """Note that this worker ends in order; for one that ends without a word, nobody calls this."""
        latest = self.latest
        span = self.find_claimed_range(latest) if latest is not None else None
        if latest is not None and span is not None and span.block is not None:
            self.update(
                latest, lambda found: structs.replace(found, spans=change_range(found, self.range_start, block=None))
            )

    def update(self, progress: FileProgress, change: ProgressChange) -> FileProgress:
        """Write the changed progress; raise `ChangedError` when another worker has written to the same range."""
        for _ in range(MAX_SWAPS):
            after = structs.replace(change(progress), updated=format_utc_now("milliseconds"), worker=self.worker)
            written = self._try_replace(after)
            current, self._e_tag = self._document.read_with_e_tag()
            if self._is_unchanged(current, after):
                self.latest = current
                return current
            if written or not self._is_unchanged(current, progress):
                break
            progress = current
            time.sleep(random.uniform(0.01, 0.2))  # noqa: S311 - s, so that two do not collide again
        raise ChangedError(f"{self._document.path} was changed by somebody else.")

    def find_claimed_range(self, progress: FileProgress) -> ByteRange | None:
        """Find the range that this worker has."""
        return next((span for span in progress.spans if span.start == self.range_start), None)

    def _try_replace(self, after: FileProgress) -> bool:
        try:
            self._document.replace(after, self._e_tag)
        except ChangedError:
            return False
        return True

    def _is_unchanged(self, one: FileProgress, other: FileProgress) -> bool:
        """Return whether two documents agree about this worker's range; without a range, about everything."""
        if self.range_start is None:
            return one == other
        return self.find_claimed_range(one) == self.find_claimed_range(other) and (one.e_tag, one.state) == (
            other.e_tag,
            other.state,
        )


def change_range(progress: FileProgress, start: int | None, **changes: Any) -> tuple[ByteRange, ...]:  # noqa: ANN401 - fields of a range
    """Return the ranges, with changes to the one that begins at `start`."""
    return tuple(structs.replace(span, **changes) if span.start == start else span for span in progress.spans)


def add_part(
    progress: FileProgress, start: int | None, line: int, new_part: ResultPart, new_errors: list[LineError]
) -> FileProgress:
    """Add a part, whose last line is `line`, to the range that begins at `start`."""
    after = tuple(advance_range(span, new_part.end, line) if span.start == start else span for span in progress.spans)
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


def advance_range(span: ByteRange, position: int, line: int) -> ByteRange:
    """Return the range once it is answered up to `position`; at its end, its worker is not at work any more."""
    advanced = ease_caution(structs.replace(span, position=position, line=line))
    return structs.replace(advanced, block=None) if advanced.is_done else advanced


def build_manifest(progress: FileProgress, **more: Any) -> BatchManifest:  # noqa: ANN401 - fields of the manifest
    """Build the manifest of a file's results."""
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

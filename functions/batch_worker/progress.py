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

from pilotlight.contracts.batch import MOST_ERRORS, Part, Progress, Span, Summary, Wrong, now
from pilotlight.contracts.manifest import decode, encode
from pilotlight.errors import ChangedError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

SWAPS = 100  # attempts, while workers of other spans are faster
Change = Callable[[Progress], Progress]


class Tally:
    """The document below a folder, as this worker last saw it."""

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._store = store
        self._path = f"{folder}/progress.json"
        self._e_tag = ""
        self.worker = uuid.uuid4().hex  # so that no two workers write the same bytes
        self.start: int | None = None  # of the span that is worked on

    def known(self, size: int, e_tag: str) -> Progress | None:
        """The document, unless it is of a file that was there before."""
        try:
            stored = self._store.get(self._path)
        except NotFoundError:
            return None
        self._e_tag = stored.e_tag
        known = decode(stored.data, Progress, self._path)
        return known if (known.e_tag, known.bytes) == (e_tag, size) else None

    def begin(self, fresh: Progress) -> Progress:
        """The first document of a file, in the place of one that `known` has seen; `ConflictError` beside another."""
        if self._e_tag:
            return self.swap(fresh, lambda progress: progress)
        self._store.create(self._path, encode(fresh))
        self._e_tag = self._store.get(self._path).e_tag
        return fresh

    @property
    def replaces(self) -> bool:
        """Whether `begin` would write over a document."""
        return bool(self._e_tag)

    def claim(self, progress: Progress, start: int | None = None, invocations: int = 0) -> Progress:
        """Say that the span, by default the first that is not done, is this worker's from now on."""
        left = [span.start for span in progress.spans if not span.done and not progress.refused]
        self.start = start if start is not None else next(iter(left), None)
        if self.start is None and not invocations:
            return progress
        return self.swap(
            progress,
            lambda found: structs.replace(
                found,
                spans=spans(found, self.start, worker=self.worker),
                invocations=found.invocations + invocations,
            ),
        )

    def swap(self, progress: Progress, change: Change) -> Progress:
        """Write how far it is now; `ChangedError` when somebody else has written of the same span."""
        for _ in range(SWAPS):
            after = structs.replace(change(progress), updated=now(), worker=self.worker)
            written = self._replaced(after)
            stored = self._store.get(self._path)
            found, self._e_tag = decode(stored.data, Progress, self._path), stored.e_tag
            if self._same(found, after):
                return found
            if written or not self._same(found, progress):
                break
            progress = found
            time.sleep(random.uniform(0.01, 0.2))  # noqa: S311 - s, so that two do not meet again
        raise ChangedError(f"{self._path} was changed by somebody else.")

    def span(self, progress: Progress) -> Span | None:
        """The span that is worked on."""
        return next((span for span in progress.spans if span.start == self.start), None)

    def _replaced(self, after: Progress) -> bool:
        try:
            self._store.replace(self._path, encode(after), self._e_tag)
        except ChangedError:
            return False
        return True

    def _same(self, one: Progress, other: Progress) -> bool:
        """Whether two documents say the same of this worker's span; without a span, of everything."""
        if self.start is None:
            return one == other
        return self.span(one) == self.span(other) and (one.e_tag, one.state) == (other.e_tag, other.state)


def spans(progress: Progress, start: int | None, **changes: Any) -> tuple[Span, ...]:  # noqa: ANN401 - fields of a span
    """The spans, with changes to the one that begins at `start`."""
    return tuple(structs.replace(span, **changes) if span.start == start else span for span in progress.spans)


def counted(progress: Progress, start: int | None, line: int, extent: Part, failed: list[Wrong]) -> Progress:
    """How far it is with one more part of the span that begins at `start`, whose last line is `line`."""
    after = spans(progress, start, position=extent.end, line=line)
    position = sum(span.position - span.start for span in after)
    errors = sorted((*progress.errors, *failed), key=lambda wrong: wrong.line)
    parts = (*progress.parts, extent) if extent.answers or extent.refusals else progress.parts
    return structs.replace(
        progress,
        spans=after,
        position=position,
        percent=round(100 * position / max(1, progress.bytes), 1),
        line=sum(span.line - span.first for span in after),
        failed=progress.failed + len(failed),
        errors=tuple(errors[:MOST_ERRORS]),
        parts=tuple(sorted(parts, key=lambda part: part.start)),
    )


def summed(progress: Progress, **more: Any) -> Summary:  # noqa: ANN401 - fields of the manifest
    """What came of a file."""
    return Summary(
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
        ended=now(),
        **more,
    )

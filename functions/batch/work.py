"""A file, answered in parts: killed at any moment, it goes on behind the last part and repeats nothing.

    1. progress.json says of each span of the input up to which byte it is answered
    2. the next part is written under its extent, then progress.json is swapped for one that counts it
    3. behind the last part they are joined to the result, manifest.json is written, the parts are removed

A part that progress.json does not count is no part of the result. Spans may have workers at the same time: whoever loses
a swap to another span's worker does it again, whoever loses it to one of his own span stops: another is at work.
"""

import hashlib
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from msgspec import structs

from functions.batch import lines
from functions.batch.answers import Answers
from functions.batch.bodies import Picture
from functions.batch.inbox import IMAGES, KINDS, LINES, File
from functions.batch.lines import Item
from functions.batch.spans import spans
from pilotlight.batches import MOST_ERRORS, Part, Progress, Span, Summary, Wrong, now
from pilotlight.contracts import Reference, decode, encode
from pilotlight.errors import (
    ChangedError,
    DeadlineError,
    InvalidInputError,
    NotFoundError,
    PilotlightError,
    UnavailableError,
    UnsupportedError,
)
from pilotlight.storage import ObjectStore

PART_BYTES = 4_000_000  # of the input, or of answers: what a killed invocation may lose
PART = re.compile(r".*/parts/\d{15}-\d{15}(\.errors)?\.jsonl")
LARGEST = 50_000_000  # bytes of a file that is not read in lines
LARGEST_BATCH = 1_000_000_000  # bytes: all of it is examined within one invocation
WATCH_S = 2.0  # how often it is looked whether somebody has cancelled
SWAPS = 100  # attempts, while workers of other spans are faster


@dataclass
class Slice:
    """What one invocation has answered since the last part."""

    start: int
    end: int
    line: int
    answers: list[bytes] = field(default_factory=list)
    refusals: list[bytes] = field(default_factory=list)  # where they stand apart
    size: int = 0
    failed: list[Wrong] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)

    @classmethod
    def after(cls, span: Span) -> "Slice":
        """An empty one, behind what is answered."""
        return cls(span.position, span.position, span.line)

    def add(self, item: Item, text: bytes, *, apart: bool = False) -> None:
        """One more line of the result."""
        (self.refusals if apart else self.answers).append(text)
        self.size += len(text)
        self.end, self.line = item.end, item.number

    @property
    def count(self) -> int:
        """How many lines have an answer or a refusal."""
        return len(self.answers) + len(self.refusals)

    @property
    def full(self) -> bool:
        """Whether it is time for a part."""
        return self.end - self.start >= PART_BYTES or self.size >= PART_BYTES


class Work:
    """One invocation's work on one file."""

    def __init__(self, store: ObjectStore, answers: Answers, found: File, ends: float) -> None:
        self._store = store
        self._answers = answers
        self._file = found
        self._form = found.form
        self._ends = ends
        self._name = uuid.uuid4().hex  # so that no two workers write the same bytes
        self._bytes, self._stamp = store.stamp(found.path)
        self._path = f"{found.folder}/progress.json"
        self._e_tag = ""  # of progress.json
        self._start: int | None = None  # of the span that is worked on
        self._idle = True  # nothing is answered yet
        self._watched = time.monotonic()

    @property
    def bytes(self) -> int:
        """Of the input."""
        return self._bytes

    @property
    def stamp(self) -> str:
        """The input's e_tag."""
        return self._stamp

    # --- the whole file, span after span ---------------------------------------------------------------------------

    def go_on(self, hand_on: Callable[[], None]) -> str:
        """From where the file stands to its end, or to that of the time; then somebody else is to go on."""
        progress = self.begin()
        if progress.state == "done":
            return f"{self._file.path} is answered already."
        begun = progress.position
        progress = self._claim(progress, invocations=1)
        while (span := self._span(progress)) is not None:
            progress = self._parts(progress)
            if not self._done(progress, span.start):
                break
            progress = self._claim(progress)
        stopped = self._file.stopped(self._store)
        unfinished = not all(span.done for span in progress.spans) or time.monotonic() > self._ends
        if unfinished and not stopped and not progress.refused:
            return self._pause(progress, begun, hand_on)
        return self._finish(progress, stopped)

    def _pause(self, progress: Progress, begun: int, hand_on: Callable[[], None]) -> str:
        if progress.position == begun < progress.bytes:
            raise UnavailableError(f"{self._file.path} does not come on: there was no time for a line at {begun}.")
        hand_on()
        return f"{self._file.path} is answered to {progress.percent} %; it goes on in another invocation."

    # --- one span of it, while others see to the others ------------------------------------------------------------

    def answer(self, start: int) -> bool:
        """Answer the span that begins at that byte, as far as there is time; whether it is done, or need not be."""
        progress = self._known()
        if progress is None or start not in {span.start for span in progress.spans}:
            raise NotFoundError(f"{self._file.path} has no span at {start}; it is to be split first.")
        if progress.state == "done" or self._done(progress, start) or self._file.stopped(self._store):
            return True
        self._start = start
        begun = self._span(progress)
        progress = self._parts(self._claim(progress, start, invocations=1))
        after = self._span(progress)
        if begun is not None and after is not None and after.position == begun.position < after.end:
            raise UnavailableError(f"{self._file.path} does not come on: there was no time for a line at {start}.")
        return self._done(progress, start) or bool(self._file.stopped(self._store))

    def join(self) -> str:
        """Put the parts together when every span is done; `UnavailableError` while one is not."""
        progress = self.begin()
        if progress.state == "done":
            return f"{self._file.path} is answered already."
        stopped = self._file.stopped(self._store)
        missing = [span.start for span in progress.spans if not span.done]
        if missing and not stopped and not progress.refused:
            raise UnavailableError(f"{self._file.path} is not answered yet: {len(missing)} spans are unfinished.")
        return self._finish(progress, stopped)

    # --- progress.json ---------------------------------------------------------------------------------------------

    def begin(self, length: int | None = None) -> Progress:
        """How far the file is; a new one, and one that was replaced since, begins, in spans of so many bytes."""
        known = self._known()
        if known is not None:
            return known
        fresh = self._fresh(length)
        if self._e_tag:
            self._store.delete(f"{self._file.folder}/manifest.json")  # of the file that was there before
            return self._swap(fresh, lambda progress: progress)
        self._store.create(self._path, encode(fresh))
        self._e_tag = self._store.get(self._path).e_tag
        return fresh

    def _known(self) -> Progress | None:
        """The document, unless it is of a file that was there before."""
        try:
            stored = self._store.get(self._path)
        except NotFoundError:
            return None
        self._e_tag = stored.e_tag
        known = decode(stored.data, Progress, self._path)
        return known if (known.e_tag, known.bytes) == (self._stamp, self._bytes) else None

    def _fresh(self, length: int | None) -> Progress:
        refused, wrong, total = self._examined()
        cut = (*LINES, ".csv")
        apart = length is not None and not refused and self._file.kind in cut
        found = spans(self._blocks(0, self._bytes), length or 1, quoted=self._file.kind == ".csv") if apart else ()
        return Progress(
            input=self._file.path,
            bytes=self._bytes,
            e_tag=self._stamp,
            model=self._model(),
            total=total,
            refused=refused,
            errors=tuple(wrong),
            spans=tuple(found) or (Span(0, self._bytes, 0, 0, 0),),
            started=now(),
            worker=self._name,
        )

    def _model(self) -> str:
        """The version that answers lines which name no model, from the first line to the last."""
        meant = self._answers.default(self._file.model)
        return str(self._answers.version(meant)) if meant is not None else ""

    def _claim(self, progress: Progress, start: int | None = None, invocations: int = 0) -> Progress:
        """Say that the span, by default the first that is not done, is this worker's from now on."""
        left = [span.start for span in progress.spans if not span.done and not progress.refused]
        self._start = start if start is not None else next(iter(left), None)

        def claimed(found: Progress) -> Progress:
            own = tuple(
                structs.replace(span, worker=self._name) if span.start == self._start else span for span in found.spans
            )
            return structs.replace(found, spans=own, invocations=found.invocations + invocations)

        return progress if self._start is None and not invocations else self._swap(progress, claimed)

    def _swap(self, progress: Progress, change: Callable[[Progress], Progress]) -> Progress:
        """Write how far it is now; `ChangedError` when somebody else has written of the same span."""
        for _ in range(SWAPS):
            after = structs.replace(change(progress), updated=now(), worker=self._name)
            written = self._replaced(after)
            stored = self._store.get(self._path)
            found, self._e_tag = decode(stored.data, Progress, self._path), stored.e_tag
            if self._same(found, after):
                return found
            if written or not self._same(found, progress):
                break
            progress = found
            time.sleep(random.uniform(0.01, 0.2))  # noqa: S311 - so that two do not meet again
        raise ChangedError(f"{self._path} was changed by somebody else.")

    def _replaced(self, after: Progress) -> bool:
        try:
            self._store.replace(self._path, encode(after), self._e_tag)
        except ChangedError:
            return False
        return True

    def _same(self, one: Progress, other: Progress) -> bool:
        """Whether two documents say the same of this worker's span; without a span, of everything."""
        if self._start is None:
            return one == other
        return self._span(one) == self._span(other) and (one.e_tag, one.state) == (other.e_tag, other.state)

    def _span(self, progress: Progress) -> Span | None:
        return next((span for span in progress.spans if span.start == self._start), None)

    def _done(self, progress: Progress, start: int) -> bool:
        return any(span.done for span in progress.spans if span.start == start)

    # --- the input -------------------------------------------------------------------------------------------------

    def _examined(self) -> tuple[str, Sequence[Wrong], int]:
        """Why the file is refused as a whole, in a sentence and line by line, and how many requests it holds."""
        try:
            self._check()
        except (InvalidInputError, UnsupportedError) as exc:
            return str(exc), (), 0
        total, wrong = self._form.examined(lines.lines(self._blocks(0, self._bytes)) if self._form.apart else ())
        return (f"{len(wrong)} lines are wrong." if wrong else ""), wrong, total

    def _check(self) -> None:
        """Refuse a file that cannot be read at all."""
        kind = self._file.kind
        if kind == ".parquet":
            raise UnsupportedError(
                "Parquet is not read here, since its reader does not fit beside the models; send CSV."
            )
        if kind not in KINDS:
            raise InvalidInputError(f"A file that ends in {kind!r} is not read; send one of {', '.join(KINDS)}.")
        if kind not in (*LINES, ".csv") and self._bytes > LARGEST:
            raise InvalidInputError(f"The file has {self._bytes:,} bytes; a {kind} may have {LARGEST:,}.")
        if self._form.apart and self._bytes > LARGEST_BATCH:
            raise InvalidInputError(f"The file has {self._bytes:,} bytes; a batch may have {LARGEST_BATCH:,}.")
        if kind == ".csv":
            self._header()

    def _header(self) -> list[str]:
        return lines.header(lines.lines(self._blocks(0, self._bytes)))

    def _blocks(self, start: int, end: int) -> Iterator[bytes]:
        return self._store.blocks(self._file.path, start, end, self._stamp)

    def _items(self, span: Span) -> Iterator[Item]:
        """What is still to be answered of a span."""
        if span.done:
            return
        kind = self._file.kind
        if kind not in (*LINES, ".csv"):
            data = b"".join(self._blocks(0, self._bytes))
            yield Item(1, len(data), Picture(data) if kind in IMAGES else lines.parsed(data))
            return
        found = lines.lines(self._blocks(span.position, span.end), span.position, span.line)
        if kind in LINES:
            yield from lines.bodies(found, self._form.parsed)
            return
        names = self._header()
        rows = lines.rows(names, found)
        if span.position == 0:
            next(rows, None)  # the header itself
        yield from rows

    # --- answering -------------------------------------------------------------------------------------------------

    def _parts(self, progress: Progress) -> Progress:
        """Answer and write part by part until the span or the time is at its end, or somebody has cancelled."""
        span = self._span(progress)
        if span is None:
            return progress
        part = Slice.after(span)
        for item in self._items(span):
            if self._over():
                return self._write(progress, part)
            try:
                self._add(progress, item, part)
            except DeadlineError:
                return self._write(progress, part)
            except UnavailableError:
                self._write(progress, part)
                raise
            self._idle = False
            if part.full:
                progress = self._write(progress, part)
                part = Slice(part.end, part.end, part.line)
        part.end = span.end  # blank lines at the end
        return self._write(progress, part)

    def _over(self) -> bool:
        """Whether the time is, or the file has been cancelled."""
        at = time.monotonic()
        if at - self._watched > WATCH_S:
            self._watched = at
            return at > self._ends or bool(self._file.stopped(self._store))
        return at > self._ends

    def _add(self, progress: Progress, item: Item, part: Slice) -> None:
        """The result's line for one item: the answer, or what is wrong."""
        try:
            if isinstance(item.body, InvalidInputError):
                raise item.body
            meant = item.body.reference() or (Reference.parse(progress.model) if progress.model else None)
            answer, version = self._answers.answer(item.body, meant, self._ends)
        except PilotlightError as exc:
            if isinstance(exc, UnavailableError) and not (self._idle and isinstance(exc, DeadlineError)):
                raise  # it may go better later, but not for a line that had a whole invocation
            part.failed.append(Wrong(item.number, str(exc)))
            part.add(item, self._form.refusal(item, exc), apart=self._form.apart)
            return
        part.versions.add(version)
        part.add(item, self._form.answer(item, answer))

    def _write(self, progress: Progress, part: Slice) -> Progress:
        """A part, and then that it counts."""
        if part.end == part.start:
            return progress
        extent = Part(part.start, part.end, bool(part.answers), bool(part.refusals))
        if extent.answers:
            self._store.put(f"{self._file.folder}/{extent.name}", b"".join(part.answers))
        if extent.refusals:
            self._store.put(f"{self._file.folder}/{extent.errors}", b"".join(part.refusals))
        return self._swap(progress, lambda found: counted(found, self._start, part, extent))

    # --- the end ---------------------------------------------------------------------------------------------------

    def _finish(self, progress: Progress, stopped: str = "") -> str:
        """Join the parts, write the manifest, then remove what nobody needs any more."""
        self._start = None
        refused = progress.refused
        progress = self._swap(progress, lambda found: structs.replace(found, joining=found.joining or now()))
        result = "" if refused else self._file.result
        refusals = self._file.refusals if any(part.refusals for part in progress.parts) else ""
        if result:
            self._store.write(result, self._joined(part.name for part in progress.parts if part.answers))
        if refusals:
            self._store.write(refusals, self._joined(part.errors for part in progress.parts if part.refusals))
        summary = summed(progress, sha256=self._sha256(), result=result, refusals=refusals, stopped=stopped)
        self._store.put(f"{self._file.folder}/manifest.json", encode(summary))
        self._swap(progress, lambda found: structs.replace(found, state="done", percent=100.0, parts=(), spans=()))
        for path in filter(PART.fullmatch, list(self._store.paths(f"{self._file.folder}/parts"))):
            self._store.delete(path)
        why = f" as far as it came: it is {stopped}" if stopped else ""
        return (
            f"{self._file.path} is refused: {refused}" if refused else f"{self._file.path} is answered{why}: {result}."
        )

    def _joined(self, names: Iterator[str]) -> Iterator[bytes]:
        """The parts' bytes in the order of the input."""
        for name in names:
            yield from map(bytes, self._store.stream(f"{self._file.folder}/{name}"))

    def _sha256(self) -> str:
        digest = hashlib.sha256()
        for chunk in self._blocks(0, self._bytes):
            digest.update(chunk)
        return digest.hexdigest()


def counted(progress: Progress, start: int | None, part: Slice, extent: Part) -> Progress:
    """The progress with one more part of the span that begins at `start`."""
    spans = tuple(
        structs.replace(span, position=part.end, line=part.line) if span.start == start else span
        for span in progress.spans
    )
    position = sum(span.position - span.start for span in spans)
    errors = sorted((*progress.errors, *part.failed), key=lambda wrong: wrong.line)
    parts = (*progress.parts, extent) if part.count else progress.parts
    return structs.replace(
        progress,
        spans=spans,
        position=position,
        percent=round(100 * position / max(1, progress.bytes), 1),
        line=sum(span.line - span.first for span in spans),
        answered=progress.answered + part.count - len(part.failed),
        failed=progress.failed + len(part.failed),
        versions=tuple(sorted(part.versions.union(progress.versions))),
        errors=tuple(errors[:MOST_ERRORS]),
        parts=tuple(sorted(parts, key=lambda each: each.start)),
    )


def summed(progress: Progress, **more: str) -> Summary:
    """What came of a file."""
    names = (
        "input",
        "bytes",
        "e_tag",
        "refused",
        "total",
        "answered",
        "failed",
        "versions",
        "errors",
        "started",
        "joining",
    )
    told = {name: getattr(progress, name) for name in names}
    lines_ = progress.answered + progress.failed
    return Summary(**told, **more, lines=lines_, invocations=max(1, progress.invocations), ended=now())  # type: ignore[arg-type]

"""A file, answered in parts: killed at any moment, it goes on behind the last part and repeats nothing.

    1. progress.json says of each span of the input up to which byte it is answered
    2. the next part is written under its extent, then progress.json is swapped for one that counts it
    3. behind the last part they are joined to the result, manifest.json is written, the parts are removed

A part that progress.json does not count is no part of the result. Who may write it when says the tally.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from msgspec import structs

from functions.batch_worker.input_file import Reading
from functions.batch_worker.line_reader import Item
from functions.batch_worker.paths import File
from functions.batch_worker.predictor import Answers
from functions.batch_worker.progress import Tally, counted, summed
from functions.batch_worker.usage import Books
from pilotlight.api.request_context import Trace
from pilotlight.contracts.batch import Part, Progress, Span, Wrong, now
from pilotlight.contracts.manifest import Reference, encode
from pilotlight.errors import DeadlineError, InvalidInputError, NotFoundError, PilotlightError, UnavailableError
from pilotlight.observability import correlation as correlations
from pilotlight.storage.object_store import ObjectStore

PART_BYTES = 4_000_000  # of the input, or of answers: what a killed invocation may lose
PART = re.compile(r".*/parts/\d{15}-\d{15}(\.errors)?\.jsonl")
WATCH_S = 2.0  # how often it is looked whether somebody has cancelled


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
    versions: dict[str, int] = field(default_factory=dict)  # and how many lines each has answered
    trace: Trace = field(default_factory=Trace)

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
    def right(self) -> int:
        """How many lines have an answer."""
        return len(self.answers) + len(self.refusals) - len(self.failed)

    @property
    def full(self) -> bool:
        """Whether it is time for a part."""
        return self.end - self.start >= PART_BYTES or self.size >= PART_BYTES


class Work:
    """One invocation's work on one file."""

    def __init__(
        self,
        store: ObjectStore,
        answers: Answers,
        found: File,
        ends: float,
        books: Books | None = None,
        origin: tuple[str, str] = ("", ""),
    ) -> None:
        """`origin` is the tenant and the correlation of a file that begins."""
        self._store = store
        self._books = books
        self._origin = origin
        self._paid = False  # the invocation's fee
        self._answers = answers
        self._file = found
        self._form = found.form
        self._ends = ends
        self._tally = Tally(store, found.folder)
        self._idle = True  # nothing is answered yet
        self._watched = 0.0  # so that it is looked before the first line
        self.reading = Reading(store, found)

    def go_on(self, hand_on: Callable[[], None]) -> str:
        """From where the file stands to its end, or to that of the time; then somebody else is to go on."""
        progress = self.begin()
        if progress.state == "done":
            return f"{self._file.path} is answered already."
        begun = progress.position
        progress = self._tally.claim(progress, invocations=1)
        while (span := self._tally.span(progress)) is not None:
            progress = self._parts(progress, span)
            if not done(progress, span.start):
                break
            progress = self._tally.claim(progress)
        stopped = self._file.stopped(self._store)
        unfinished = not all(span.done for span in progress.spans) or time.monotonic() > self._ends
        if unfinished and not stopped and not progress.refused:
            return self._pause(progress, begun, hand_on)
        return self._finish(progress, stopped)

    def answer(self, start: int) -> bool:
        """Answer the span that begins at that byte, as far as there is time; whether nothing is left to do for it."""
        progress = self._known()
        if progress is None or start not in {span.start for span in progress.spans}:
            if progress is not None and progress.state == "done":
                return True
            raise NotFoundError(f"{self._file.path} has no span at {start}; it is to be split first.")
        if done(progress, start) or self._file.stopped(self._store):
            return True
        progress = self._tally.claim(progress, start, invocations=1)
        before = self._tally.span(progress)
        if before is not None:
            progress = self._parts(progress, before)
            if self._tally.span(progress) == before and not self._file.stopped(self._store):
                raise UnavailableError(f"{self._file.path} does not come on: no time for a line at {before.position}.")
        return done(progress, start) or bool(self._file.stopped(self._store))

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

    def begin(self, length: int | None = None) -> Progress:
        """How far the file is; a new one, and one that was replaced since, begins, in spans of so many bytes."""
        known = self._known()
        if known is not None:
            return known
        refused, wrong, total = self.reading.examined()
        fresh = Progress(
            input=self._file.path,
            bytes=self.reading.size,
            e_tag=self.reading.e_tag,
            model=self._model(),
            tenant=self._origin[0],
            correlation=self._origin[1],
            total=total,
            refused=refused,
            errors=tuple(wrong),
            spans=self.reading.spans(None if refused else length),
            started=now(),
            worker=self._tally.worker,
        )
        if self._tally.replaces:
            self._store.delete(f"{self._file.folder}/manifest.json")  # of the file that was there before
        correlations.begin(fresh.correlation)
        return self._tally.begin(fresh)

    def _known(self) -> Progress | None:
        """How far the file is, if it has begun; what is logged from here on bears its correlation."""
        known = self._tally.known(self.reading.size, self.reading.e_tag)
        if known is not None:
            correlations.begin(known.correlation)
        return known

    def _model(self) -> str:
        """The version that answers lines which name no model, from the first line to the last."""
        meant = self._answers.default(self._file.model)
        return str(self._answers.version(meant)) if meant is not None else ""

    def _pause(self, progress: Progress, begun: int, hand_on: Callable[[], None]) -> str:
        if progress.position == begun < progress.bytes:
            raise UnavailableError(f"{self._file.path} does not come on: there was no time for a line at {begun}.")
        hand_on()
        return f"{self._file.path} is answered to {progress.percent} %; it goes on in another invocation."

    def _parts(self, progress: Progress, span: Span) -> Progress:
        """Answer and write part by part until the span or the time is at its end, or somebody has cancelled."""
        part = Slice.after(span)
        for item in self.reading.items(span):
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
        part.versions[version] = part.versions.get(version, 0) + 1
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
        after = self._tally.swap(
            progress,
            lambda found: structs.replace(
                counted(found, self._tally.start, part.line, extent, part.failed),
                answered=found.answered + part.right,
                versions=tuple(sorted({*part.versions, *found.versions})),
            ),
        )
        self._note(after, part)
        return after

    def _note(self, progress: Progress, part: Slice) -> None:
        """What the part cost, once it counts."""
        if self._books is not None:
            origin = {"tenant": progress.tenant, "correlation": progress.correlation}
            self._books.part(part.trace, part.versions, len(part.failed), first=not self._paid, **origin)
            self._paid = True

    def _finish(self, progress: Progress, stopped: str = "") -> str:
        """Join the parts, write the manifest, then remove what nobody needs any more."""
        self._tally.start = None
        progress = self._tally.swap(progress, lambda found: structs.replace(found, joining=found.joining or now()))
        result = "" if progress.refused else self._file.result
        refusals = self._file.refusals if any(part.refusals for part in progress.parts) else ""
        if result:
            self._store.write(result, self._joined(part.name for part in progress.parts if part.answers))
        if refusals:
            self._store.write(refusals, self._joined(part.errors for part in progress.parts if part.refusals))
        sha256 = self.reading.sha256()
        summary = summed(progress, sha256=sha256, result=result, refusals=refusals, stopped=stopped)
        self._store.put(f"{self._file.folder}/manifest.json", encode(summary))
        self._tally.swap(progress, ended)
        for path in filter(PART.fullmatch, list(self._store.paths(f"{self._file.folder}/parts"))):
            self._store.delete(path)
        if progress.refused:
            return f"{self._file.path} is refused: {progress.refused}"
        return f"{self._file.path} is {stopped or 'answered'}: {result}."

    def _joined(self, names: Iterator[str]) -> Iterator[bytes]:
        """The parts' bytes in the order of the input."""
        for name in names:
            yield from map(bytes, self._store.stream(f"{self._file.folder}/{name}"))


def done(progress: Progress, start: int) -> bool:
    """Whether the span that begins at that byte is answered."""
    return any(span.done for span in progress.spans if span.start == start)


def ended(progress: Progress) -> Progress:
    """The last thing that is said of a file: nobody need know any more where it was cut."""
    return structs.replace(progress, state="done", percent=100.0, parts=(), spans=())

"""A file of the inbox, answered in parts: killed at any moment, it goes on behind the last part and repeats nothing.

    1. progress.json says up to which byte the input is answered
    2. the next part is written under its extent, then progress.json is swapped for one that counts it
    3. behind the last part they are joined to the result, manifest.json is written, the parts are removed

A part that progress.json does not count is no part of the result. Whoever loses the swap stops: another is at work.
"""

import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import structs

from functions.batch import lines
from functions.batch.answers import Answers
from functions.batch.bodies import Picture
from functions.batch.books import Books
from functions.batch.inbox import IMAGES, KINDS, LINES, File, file
from functions.batch.lines import Item
from functions.batch.progress import MOST_ERRORS, Part, Progress, Summary, Wrong, now
from functions.batch.sender import Sender
from pilotlight import correlation as correlations
from pilotlight.api.trace import Trace
from pilotlight.contracts import Reference, decode, encode
from pilotlight.errors import (
    ChangedError,
    ConflictError,
    DeadlineError,
    InvalidInputError,
    NotFoundError,
    PilotlightError,
    UnavailableError,
    UnsupportedError,
)
from pilotlight.storage import ObjectStore

RESERVE_S = 15.0  # of an invocation, kept to write what is answered and to hand on
PART_BYTES = 4_000_000  # of the input, or of answers: what a killed invocation may lose
PART = re.compile(r".*/parts/\d{15}-\d{15}\.jsonl")
LARGEST = 50_000_000  # bytes of a file that is not read in lines


@dataclass
class Slice:
    """What one invocation has answered since the last part."""

    start: int
    end: int
    line: int
    answers: list[bytes] = field(default_factory=list)
    size: int = 0
    failed: list[Wrong] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)  # and how many lines each has answered
    trace: Trace = field(default_factory=Trace)

    def add(self, item: Item, text: bytes) -> None:
        """One more line of the result."""
        self.answers.append(text)
        self.size += len(text)
        self.end, self.line = item.end, item.number

    @property
    def full(self) -> bool:
        """Whether it is time for a part."""
        return self.end - self.start >= PART_BYTES or self.size >= PART_BYTES


class Files:
    """Answers files of a store's inbox into its outbox."""

    def __init__(self, store: ObjectStore, answers: Answers, sender: Sender, books: Books | None = None) -> None:
        self._store = store
        self._answers = answers
        self._sender = sender
        self._books = books

    def see_to(self, uri: str, ends: float, tenant: str = "", correlation: str = "") -> str:
        """Answer as much as there is time for; what was done, as a sentence. `ends` is on time.monotonic's clock."""
        found = file(self._store.url, uri)
        work = Work(self._store, self._answers, found, ends - RESERVE_S, self._books, (tenant, correlation))
        try:
            return work.go_on(lambda: self._sender.resume(uri))
        except ConflictError as exc:
            return f"{found.path} is left to somebody else: {exc}"


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
        self._answers = answers
        self._file = found
        self._ends = ends
        self._books = books
        self._origin = origin
        self._paid = False  # the invocation's fee
        self._name = uuid.uuid4().hex  # so that no two workers write the same bytes
        self._e_tag = ""  # of progress.json
        self._idle = True  # nothing is answered yet

    def go_on(self, hand_on: Callable[[], None]) -> str:
        """From where the file stands to its end, or to that of the time; then somebody else is to go on."""
        progress = self._progress()
        correlations.begin(progress.correlation)
        if progress.state == "done":
            return f"{self._file.path} is answered already."
        try:
            self._check(progress)
        except (InvalidInputError, UnsupportedError) as exc:
            return self._finish(progress, refused=str(exc))
        begun = progress.position
        progress = self._swap(progress, invocations=progress.invocations + 1)
        progress = self._parts(progress)
        if progress.position < progress.bytes or time.monotonic() > self._ends:
            return self._pause(progress, begun, hand_on)
        return self._finish(progress)

    def _pause(self, progress: Progress, begun: int, hand_on: Callable[[], None]) -> str:
        if progress.position == begun < progress.bytes:
            raise UnavailableError(f"{self._file.path} does not come on: there was no time for a line at {begun}.")
        hand_on()
        return f"{self._file.path} is answered to {progress.percent} %; it goes on in another invocation."

    def _progress(self) -> Progress:
        """How far the file is; a new one, and one that was replaced since, begins."""
        size, e_tag = self._store.stamp(self._file.path)
        path = f"{self._file.folder}/progress.json"
        try:
            stored = self._store.get(path)
        except NotFoundError:
            stored = None
        if stored is not None:
            self._e_tag = stored.e_tag
            known = decode(stored.data, Progress, path)
            if (known.e_tag, known.bytes) == (e_tag, size):
                return known
            self._store.delete(f"{self._file.folder}/manifest.json")  # of the file that was there before
        started = now()
        tenant, correlation = self._origin
        fresh = Progress(
            input=self._file.path,
            bytes=size,
            e_tag=e_tag,
            correlation=correlation,
            tenant=tenant,
            model=self._model(),
            started=started,
            worker=self._name,
        )
        if stored is not None:
            return self._swap(fresh)
        self._store.create(path, encode(fresh))
        self._own(path, fresh)
        return fresh

    def _model(self) -> str:
        """The version that answers lines which name no model, from the first line to the last."""
        meant = self._answers.default(self._file.model)
        return str(self._answers.version(meant)) if meant is not None else ""

    def _swap(self, progress: Progress, **changes: Any) -> Progress:  # noqa: ANN401 - fields of the document
        """Write how far it is now; `ChangedError` when somebody else has."""
        path = f"{self._file.folder}/progress.json"
        after = structs.replace(progress, updated=now(), worker=self._name, **changes)
        self._store.replace(path, encode(after), self._e_tag)
        self._own(path, after)
        return after

    def _own(self, path: str, written: Progress) -> None:
        """The e_tag of what was just written, unless somebody else has written since."""
        stored = self._store.get(path)
        if stored.data != encode(written):
            raise ChangedError(f"{path} was changed by somebody else.")
        self._e_tag = stored.e_tag

    def _check(self, progress: Progress) -> None:
        """Refuse a file that cannot be read at all."""
        kind = self._file.kind
        if kind == ".parquet":
            raise UnsupportedError(
                "Parquet is not read here, since its reader does not fit beside the models; send CSV."
            )
        if kind not in KINDS:
            raise InvalidInputError(f"A file that ends in {kind!r} is not read; send one of {', '.join(KINDS)}.")
        if kind not in (*LINES, ".csv") and progress.bytes > LARGEST:
            raise InvalidInputError(f"The file has {progress.bytes:,} bytes; a {kind} may have {LARGEST:,}.")
        if kind == ".csv":
            self._header(progress)

    def _header(self, progress: Progress) -> list[str]:
        return lines.header(lines.lines(self._blocks(progress, 0)))

    def _blocks(self, progress: Progress, start: int) -> Iterator[bytes]:
        return self._store.blocks(self._file.path, start, progress.bytes, progress.e_tag)

    def _items(self, progress: Progress) -> Iterator[Item]:
        """What is still to be answered."""
        if progress.position >= progress.bytes:
            return
        kind = self._file.kind
        if kind not in (*LINES, ".csv"):
            data = b"".join(self._blocks(progress, 0))
            yield Item(1, len(data), Picture(data) if kind in IMAGES else lines.parsed(data))
            return
        chunks = self._blocks(progress, progress.position)
        found = lines.lines(chunks, progress.position, progress.line)
        if kind in LINES:
            yield from lines.bodies(found)
            return
        names = self._header(progress)
        rows = lines.rows(names, found)
        if progress.position == 0:
            next(rows, None)  # the header itself
        yield from rows

    def _parts(self, progress: Progress) -> Progress:
        """Answer and write part by part until the file or the time is at its end."""
        part = Slice(progress.position, progress.position, progress.line)
        for item in self._items(progress):
            if time.monotonic() > self._ends:
                return self._write(progress, part)
            try:
                part.add(item, self._line(progress, item, part))
            except DeadlineError:
                return self._write(progress, part)
            except UnavailableError:
                self._write(progress, part)
                raise
            self._idle = False
            if part.full:
                progress = self._write(progress, part)
                part = Slice(progress.position, progress.position, progress.line)
        part.end = progress.bytes  # blank lines at the end
        return self._write(progress, part)

    def _line(self, progress: Progress, item: Item, part: Slice) -> bytes:
        """The result's line for one item: the V2 answer or the error, behind the number of its line."""
        try:
            if isinstance(item.body, InvalidInputError):
                raise item.body
            meant = item.body.reference() or (Reference.parse(progress.model) if progress.model else None)
            answer, version = self._answers.answer(item.body, meant, self._ends)
        except PilotlightError as exc:
            if isinstance(exc, UnavailableError) and not (self._idle and isinstance(exc, DeadlineError)):
                raise  # it may go better later, but not for a line that had a whole invocation
            part.failed.append(Wrong(item.number, str(exc)))
            return msgspec.json.encode(part.failed[-1]) + b"\n"
        part.versions[version] = part.versions.get(version, 0) + 1
        return b'{"line":%d,%b\n' % (item.number, answer[1:])

    def _write(self, progress: Progress, part: Slice) -> Progress:
        """A part, and then that it counts."""
        if part.end == part.start:
            return progress
        extent = Part(part.start, part.end)
        if part.answers:
            self._store.put(f"{self._file.folder}/{extent.name}", b"".join(part.answers))
        after = self._swap(
            progress,
            position=part.end,
            percent=round(100 * part.end / max(1, progress.bytes), 1),
            line=part.line,
            answered=progress.answered + len(part.answers) - len(part.failed),
            failed=progress.failed + len(part.failed),
            versions=tuple(sorted({*part.versions, *progress.versions})),
            errors=(*progress.errors, *part.failed)[:MOST_ERRORS],
            parts=(*progress.parts, extent) if part.answers else progress.parts,
        )
        self._note(after, part)
        return after

    def _note(self, progress: Progress, part: Slice) -> None:
        """What the part cost, once it counts."""
        if self._books is not None:
            origin = {"tenant": progress.tenant, "correlation": progress.correlation}
            self._books.part(part.trace, part.versions, len(part.failed), first=not self._paid, **origin)
            self._paid = True

    def _finish(self, progress: Progress, refused: str = "") -> str:
        """Join the parts, write the manifest, then remove what nobody needs any more."""
        result = "" if refused else self._file.result
        if result:
            self._store.write(result, self._joined(progress))
        summary = Summary(
            input=progress.input,
            bytes=progress.bytes,
            e_tag=progress.e_tag,
            sha256=self._sha256(progress),
            result=result,
            refused=refused,
            correlation=progress.correlation,
            lines=progress.answered + progress.failed,
            answered=progress.answered,
            failed=progress.failed,
            versions=progress.versions,
            errors=progress.errors,
            invocations=max(1, progress.invocations),
            started=progress.started,
            ended=now(),
        )
        self._store.put(f"{self._file.folder}/manifest.json", encode(summary))
        self._swap(progress, state="done", percent=100.0, parts=())
        for path in filter(PART.fullmatch, list(self._store.paths(f"{self._file.folder}/parts"))):
            self._store.delete(path)
        return f"{self._file.path} is refused: {refused}" if refused else f"{self._file.path} is answered: {result}."

    def _joined(self, progress: Progress) -> Iterator[bytes]:
        """The parts' bytes in the order of the input."""
        for part in progress.parts:
            yield from map(bytes, self._store.stream(f"{self._file.folder}/{part.name}"))

    def _sha256(self, progress: Progress) -> str:
        digest = hashlib.sha256()
        for chunk in self._blocks(progress, 0):
            digest.update(chunk)
        return digest.hexdigest()

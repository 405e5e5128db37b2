"""Files of the inbox and inputs of batches, answered by one invocation after the other, or by many at once.

A file from a certain size on is spread over a state machine's map (infra/events.yaml), whose steps come back here:

    split    cuts the file into spans, writes spans.json for the map
    answer   answers one of them, as far as there is time
    join     puts the parts together

Without a state machine, or when it has failed, one invocation hands on to the next.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from functions.batch_worker.dispatch import Sender
from functions.batch_worker.events import Step
from functions.batch_worker.file_job import Work
from functions.batch_worker.paths import TABLE, File, Ordered, file
from functions.batch_worker.predictor import Answers
from functions.batch_worker.rows import is_there, laid_out
from functions.batch_worker.usage import Books
from pilotlight.contracts.batch import Order, Summary, now, of_batch
from pilotlight.contracts.manifest import decode, encode
from pilotlight.errors import ConflictError, InvalidInputError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

RESERVE_S = 15.0  # of an invocation, kept to write what is answered and to hand on
SPAN_BYTES = 16_000_000  # of a file that is spread
MOST_SPANS = 2_000  # of a file: what each says when it is done must fit into the 256 kB of a state


@dataclass(frozen=True)
class Spread:
    """When a file is spread, and over what; no state machine, no spreading."""

    machine: str = ""  # ARN
    threshold: int = 64_000_000  # bytes of a file from which on it is
    at_once: int = 10  # invocations that it may keep busy


class Files:
    """Answers files of a store into its outbox."""

    def __init__(
        self,
        store: ObjectStore,
        answers: Answers,
        sender: Sender,
        spread: Spread = Spread(),
        books: Books | None = None,
    ) -> None:
        self._store = store
        self._answers = answers
        self._sender = sender
        self._spread = spread
        self._books = books

    def see_to(self, job: str, ends: float, origin: tuple[str, str] = ("", "")) -> str:
        """Answer as much as there is time for; what was done, as a sentence. `ends` is on time.monotonic's clock.

        `origin` is the tenant and the correlation of the event that told of it.
        """
        if job.endswith("/"):  # as S3's console makes one
            return f"{job} is a folder, in which there is nothing to answer."
        found = self._found(job)
        try:
            found = self._readable(found, ends)
            work = self._work(found, ends, origin)
            if self._is_spread(work.reading.size) and self._sender.spread(
                self._spread.machine, job, work.reading.e_tag
            ):
                return f"{found.path} is spread."
            return work.go_on(partial(self._sender.resume, job))
        except ConflictError as exc:
            return f"{found.path} is left to somebody else: {exc}"
        except NotFoundError:
            if not isinstance(found, Ordered) or is_there(self._store, found.path):
                raise
            return self._gone(found)

    def step(self, step: Step, ends: float) -> dict[str, Any]:
        """One step of the state machine; what is raised is tried again by it."""
        work = self._work(self._readable(self._found(step.job), ends), ends)
        if step.step == "answer":
            return {"done": work.answer(step.start)}
        if step.step == "join":
            return {"said": work.join()}
        return self._split(step.job, work)

    def _split(self, job: str, work: Work) -> dict[str, Any]:
        length = max(SPAN_BYTES, work.reading.size // MOST_SPANS + 1)
        progress = work.begin(length)
        starts = [{"start": span.start} for span in progress.spans if not (span.done or progress.refused)]
        path = f"{self._found(job).folder}/spans.json"
        self._store.put(path, msgspec.json.encode(starts))
        bucket, _, prefix = self._store.url.removeprefix("s3://").partition("/")
        return {
            "job": job,
            "spans": len(starts),
            "at_once": self._spread.at_once,
            "bucket": bucket,
            "key": f"{prefix}/{path}".lstrip("/"),
        }

    def _gone(self, found: Ordered) -> str:
        """A batch whose file was deleted before it was answered has failed."""
        why = f"The file {found.order.input_file_id} is not there any more."
        summary = Summary(input=found.path, bytes=0, e_tag="", sha256="", result="", refused=why, ended=now())
        self._store.put(f"{found.folder}/manifest.json", encode(summary))
        return f"{found.path} is refused: {why}"

    def _is_spread(self, size: int) -> bool:
        return bool(self._spread.machine) and size >= self._spread.threshold

    def _work(self, found: File, ends: float, origin: tuple[str, str] = ("", "")) -> Work:
        if isinstance(found, Ordered):
            origin = (found.order.by, found.order.id)  # whoever ordered it, and what he knows it by
        return Work(self._store, self._answers, found, ends - RESERVE_S, self._books, origin)

    def _readable(self, found: File, ends: float) -> File:
        """The file, or what is read in its place."""
        return laid_out(self._store, found, ends - RESERVE_S) if found.kind == TABLE else found

    def _found(self, job: str) -> File:
        """The file that a job means: an address in the inbox, or a batch's id."""
        if not job.startswith("batch_"):
            return file(self._store.url, job)
        path = of_batch(job, "order")
        order = decode(self._store.get(path).data, Order, path)
        if order.id != job:
            raise InvalidInputError(f"{path} is the order of {order.id}, not of {job}.")
        return Ordered.of(order)

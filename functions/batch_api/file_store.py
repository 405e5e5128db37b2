"""Files of the store as OpenAI's API knows them: uploads, and the output and error files of batches.

It knows names and documents, not requests.
"""

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pilotlight.api.schemas.openai import FileObject
from pilotlight.contracts import upload
from pilotlight.contracts.batch import Order, Progress, Summary, of_batch, results, seconds
from pilotlight.contracts.manifest import Document, decode, encode
from pilotlight.contracts.upload import Upload
from pilotlight.errors import AlreadyExistsError, ConflictError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

Shown = TypeVar("Shown", FileObject, Order)
ANSWER = re.compile(rf"file-({upload.ID})-(\d+)")
RESULT = re.compile(rf"file-({upload.ID})-(output|errors)")


@dataclass(frozen=True)
class Found:
    """A file, and where its bytes lie."""

    shown: FileObject
    path: str


class Shelf:
    """The files of a store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def put(self, told: Upload, data: bytes) -> FileObject:
        """A whole file."""
        self.store.put(upload.content(f"file-{told.id}"), data)
        return self.whole(told)

    def whole(self, told: Upload) -> FileObject:
        """Say that the bytes of a file are all there; once said, it stays so."""
        path = f"{upload.FOLDER}/{told.id}/file.json"
        try:
            self.store.create(path, encode(told))
        except AlreadyExistsError:
            told = decode(self.store.get(path).data, Upload, path)
        return self._shown(told)

    def find(self, name: str) -> Found:
        """A file by its id; `NotFoundError` when it is not there, or not whole."""
        result = RESULT.fullmatch(name)
        if result is not None:
            return self._result(name, result[1], result[2])
        answer = ANSWER.fullmatch(name)
        if answer is not None:
            return self._answer(name, f"{upload.ANSWERS}/{answer[1]}/{answer[2]}")
        path = f"{upload.folder(name)}/file.json"
        try:
            told = decode(self.store.get(path).data, Upload, path)
        except NotFoundError as exc:
            raise NotFoundError(f"There is no file {name!r}; GET /v1/files lists them.") from exc
        return Found(self._shown(told), upload.content(name))

    def files(self, *, oldest_first: bool = False) -> Iterator[FileObject]:
        """Everything that was uploaded, the newest first or last."""
        names = self.store.folders(upload.FOLDER)
        for name in names if oldest_first else reversed(names):
            try:
                yield self.find(f"file-{name}").shown
            except NotFoundError:
                continue  # on its way, or put there by somebody else

    def remove(self, name: str) -> None:
        """Delete what was uploaded; `ConflictError` for the file of a batch, which goes with that."""
        if RESULT.fullmatch(name) or ANSWER.fullmatch(name):
            raise ConflictError(f"{name} is an answer, and stays as long as the bucket keeps those.")
        folder = upload.folder(self.find(name).shown.id)
        for path in (f"{folder}/file.json", f"{folder}/content", *self.store.paths(f"{folder}/parts")):
            self.store.delete(path)

    def progress(self, order: Order) -> tuple[Progress | None, Summary | None]:
        """How far a batch is, and what came of it."""
        return self._document(f"{order.folder}/progress.json", Progress), self.summary(order.id)

    def summary(self, batch: str) -> Summary | None:
        """What came of a batch."""
        return self._document(f"{results(batch)}/manifest.json", Summary)

    def order(self, name: str) -> Order:
        """A batch by its id."""
        path = of_batch(name, "order")
        found = self._document(path, Order)
        if found is None:
            raise NotFoundError(f"There is no batch {name!r}; GET /v1/batches lists them.")
        return found

    def _document(self, path: str, kind: type[Document]) -> Document | None:
        try:
            return decode(self.store.get(path).data, kind, path)
        except NotFoundError:
            return None

    def _result(self, name: str, batch: str, what: str) -> Found:
        summary = self.summary(f"batch_{batch}")
        path = (summary.result if what == "output" else summary.refusals) if summary is not None else ""
        if summary is None or not path:
            raise NotFoundError(f"There is no file {name!r}; GET /v1/batches/batch_{batch} says how far the batch is.")
        shown = FileObject(
            id=name,
            bytes=self.store.size(path),
            created_at=seconds(summary.ended) or int(time.time()),
            filename=f"batch_{batch}_{what}.jsonl",
            purpose="batch_output",
            s3_uri=f"{self.store.url}/{path}",
        )
        return Found(shown, path)

    def _answer(self, name: str, path: str) -> Found:
        """An output that was too large to be sent."""
        size = self.store.size(path)
        made = int(name[5:17], 16) // 1000  # ms, as new_id puts it there
        uri = f"{self.store.url}/{path}"
        shown = FileObject(id=name, bytes=size, created_at=made, filename=name, purpose="user_data", s3_uri=uri)
        return Found(shown, path)

    def _shown(self, told: Upload) -> FileObject:
        return FileObject(
            id=f"file-{told.id}",
            bytes=told.bytes,
            created_at=told.created_at,
            filename=told.filename,
            purpose=told.purpose,
            s3_uri=f"{self.store.url}/{upload.content(f'file-{told.id}')}",
        )


def after(found: Iterable[Shown], last: str) -> Iterator[Shown]:
    """What follows the one with the id `last`; everything without one."""
    passed = not last
    for each in found:
        if passed:
            yield each
        passed = passed or each.id == last

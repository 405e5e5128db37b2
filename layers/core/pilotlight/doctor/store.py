"""What a store must do: answer, be read, and keep its word on the two conditional writes that carry the registry."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from pilotlight.doctor.finding import Check, FaultError, NotCheckedError
from pilotlight.errors import AlreadyExistsError, ChangedError, DeniedError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

FOLDER = "doctor"  # no handler reads there, and no event of the stack starts anything there


def checks(store: ObjectStore) -> tuple[Check, ...]:
    """All of them; the last two write an object that nobody reads, and remove it."""
    return (
        Check("store", lambda: reads(store)),
        Check("create-only writes", lambda: creates_once(store)),
        Check("compare-and-swap", lambda: swaps(store)),
    )


def reads(store: ObjectStore) -> str:
    """Whether it answers a listing."""
    began = time.perf_counter()
    names = store.folders("models")
    return f"{store.url} answers in {(time.perf_counter() - began) * 1000:.0f} ms; {len(names)} models lie there."


def creates_once(store: ObjectStore) -> str:
    """Whether a second create-only write is refused: it is what gives each version's number to one publisher."""
    with scratch(store) as path:
        refuses(lambda: store.create(path, b"2"), AlreadyExistsError, store, "writes over what is there")
        if store.get(path).data != b"1":
            raise FaultError(f"{store.url} refused a second create-only write, and yet made it; use another store.")
    return "An object is created once, and a second time refused."


def swaps(store: ObjectStore) -> str:
    """Whether a write with a stale e_tag is refused: it is what moves an alias."""
    with scratch(store) as path:
        stale = store.get(path).e_tag
        store.replace(path, b"2", stale)
        refuses(lambda: store.replace(path, b"3", stale), ChangedError, store, "swaps what has changed meanwhile")
        if store.get(path).data != b"2":
            raise FaultError(f"{store.url} did not keep the first of two swaps; use another store.")
    return "An object is swapped while it is as it was read, and then refused."


def refuses(write: Callable[[], None], refusal: type[Exception], store: ObjectStore, instead: str) -> None:
    """Fail a store that does not refuse the write."""
    try:
        write()
    except refusal:
        return
    raise FaultError(
        f"{store.url} {instead}, so that two who publish or promote at once would both succeed; use a store with "
        "conditional writes, such as S3 or a disk."
    )


@contextmanager
def scratch(store: ObjectStore) -> Iterator[str]:
    """The path of a new object that holds `1`; it is removed at the end, and looked for."""
    path = f"{FOLDER}/{uuid4().hex}"
    try:
        store.create(path, b"1")
    except DeniedError as exc:
        raise NotCheckedError(f"These credentials may not write {FOLDER}/; try those that publish. {exc}") from exc
    try:
        yield path
    finally:
        store.delete(path)
    try:
        store.size(path)
    except NotFoundError:
        return
    raise FaultError(f"{store.url} does not delete: {path} is still there; remove it by hand.")

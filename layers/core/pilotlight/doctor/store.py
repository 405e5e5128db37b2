"""Check what a store must do: answer, be readable, and hold the two conditional writes that the registry needs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from pilotlight.doctor.broken_documents import find_broken_documents
from pilotlight.doctor.finding import CheckFailedError, HealthCheck, NotCheckedError, join_names
from pilotlight.errors import AlreadyExistsError, ChangedError, DeniedError, NotFoundError
from pilotlight.storage.object_store import ObjectStore

SCRATCH_FOLDER = "doctor"  # no handler reads there, and no event of the stack starts anything there


def list_store_checks(store: ObjectStore, *, deep: bool = False) -> tuple[HealthCheck, ...]:
    """List all checks; two of them write an object that nothing else reads, and remove it. If deep, read documents."""
    return (
        HealthCheck("store", lambda: check_reads(store)),
        HealthCheck("create-only writes", lambda: check_create_only(store)),
        HealthCheck("compare-and-swap", lambda: check_compare_and_swap(store)),
        *([HealthCheck("documents", lambda: check_documents(store))] if deep else []),
    )


def check_reads(store: ObjectStore) -> str:
    """Check that the store answers a listing."""
    began = time.perf_counter()
    names = store.list_folders("models")
    return f"{store.url} answers in {(time.perf_counter() - began) * 1000:.0f} ms; {len(names)} models lie there."


def check_documents(store: ObjectStore) -> str:
    """Check that every document can be read."""
    broken = [one.path for one in find_broken_documents(store)]
    if broken:
        raise CheckFailedError(f"{join_names(broken)} cannot be read; `pilotlight doctor --repair` mends what it can.")
    return "Every document can be read."


def check_create_only(store: ObjectStore) -> str:
    """Check that a second create-only write is refused: this gives each version's number to one publisher."""
    with create_scratch_object(store) as path:
        check_write_refused(lambda: store.create(path, b"2"), AlreadyExistsError, store, "writes over what is there")
        if store.get(path).data != b"1":
            raise CheckFailedError(
                f"{store.url} refused a second create-only write, and yet made it; use another store."
            )
    return "An object is created once, and a second time refused."


def check_compare_and_swap(store: ObjectStore) -> str:
    """Check that a write with a stale e_tag is refused: this protects aliases."""
    with create_scratch_object(store) as path:
        stale = store.get(path).e_tag
        store.replace(path, b"2", stale)
        check_write_refused(
            lambda: store.replace(path, b"3", stale), ChangedError, store, "swaps what has changed meanwhile"
        )
        if store.get(path).data != b"2":
            raise CheckFailedError(f"{store.url} did not keep the first of two swaps; use another store.")
    return "An object is swapped while it is as it was read, and then refused."


def check_write_refused(
    write: Callable[[], None], refusal: type[Exception], store: ObjectStore, behaviour: str
) -> None:
    """Fail a store that does not refuse the write."""
    try:
        write()
    except refusal:
        return
    raise CheckFailedError(
        f"{store.url} {behaviour}, so that two who publish or promote at once would both succeed; use a store with "
        "conditional writes, such as S3 or a disk."
    )


@contextmanager
def create_scratch_object(store: ObjectStore) -> Iterator[str]:
    """Create an object that holds `1`, yield its path, then remove it and check that it is gone."""
    path = f"{SCRATCH_FOLDER}/{uuid4().hex}"
    try:
        store.create(path, b"1")
    except DeniedError as exc:
        raise NotCheckedError(
            f"These credentials may not write {SCRATCH_FOLDER}/; try those that publish. {exc}"
        ) from exc
    try:
        yield path
    finally:
        store.delete(path)
    try:
        store.get_size(path)
    except NotFoundError:
        return
    raise CheckFailedError(f"{store.url} does not delete: {path} is still there; remove it by hand.")

"""A store that keeps its word passes; one that breaks it in any way is told so, and nothing is left behind."""

from pathlib import Path

import pytest

from pilotlight.doctor.finding import CheckResult, run_check
from pilotlight.doctor.store import list_store_checks
from pilotlight.errors import AlreadyExistsError, ChangedError, DeniedError, StoreError
from pilotlight.storage.object_store import ObjectStore, open_store


def examined(store: ObjectStore) -> dict[str, CheckResult]:
    return {one.check: one for one in map(run_check, list_store_checks(store))}


def test_every_kind_of_store_passes_and_keeps_nothing(store: ObjectStore) -> None:
    assert {one.state for one in examined(store).values()} == {"passes"}
    assert list(store.list_paths("doctor")) == []


class Broken(ObjectStore):
    """A store in memory, to be broken in one way."""

    def __init__(self) -> None:
        super().__init__("memory://", open_store("memory://")._store)


class Away(Broken):
    def list_folders(self, prefix: str) -> list[str]:
        raise StoreError(f"The store failed at {prefix}: connection refused")


class Overwrites(Broken):
    def create(self, path: str, data: bytes) -> None:
        self.put(path, data)


class RefusesTooLate(Broken):
    def create(self, path: str, data: bytes) -> None:
        if data != b"1":
            self.put(path, data)
            raise AlreadyExistsError("There is something.")
        super().create(path, data)


class ComparesNothing(Broken):
    def replace(self, path: str, data: bytes, e_tag: str) -> None:
        self.put(path, data)


class SwapsTooLate(Broken):
    def replace(self, path: str, data: bytes, e_tag: str) -> None:
        self.put(path, data)
        if data == b"3":
            raise ChangedError("It was changed.")


class Keeps(Broken):
    def delete(self, path: str) -> None:
        """Forget to."""


class ReadOnly(Broken):
    def create(self, path: str, data: bytes) -> None:
        raise DeniedError(f"The store failed at {path}: AccessDenied")


@pytest.mark.parametrize(
    ("kind", "failing", "words"),
    [
        (Away, {"store"}, "connection refused"),
        (Overwrites, {"create-only writes"}, "writes over what is there"),
        (RefusesTooLate, {"create-only writes"}, "and yet made it"),
        (ComparesNothing, {"compare-and-swap"}, "swaps what has changed meanwhile"),
        (SwapsTooLate, {"compare-and-swap"}, "did not keep the first of two swaps"),
        (Keeps, {"create-only writes", "compare-and-swap"}, "does not delete: doctor/"),
    ],
)
def test_a_store_that_does_not_keep_its_word(kind: type[Broken], failing: set[str], words: str) -> None:
    store = kind()
    found = examined(store)
    assert {name for name, one in found.items() if one.state == "fails"} == failing
    assert all(words in found[name].said for name in failing)
    assert kind is Keeps or list(store.list_paths("doctor")) == []


def test_who_may_only_read_is_told_so() -> None:
    found = examined(ReadOnly())
    assert found["create-only writes"].state == found["compare-and-swap"].state == "not checked"
    assert "may not write doctor/" in found["compare-and-swap"].said


def test_a_disk_store_has_no_rest_on_disk(tmp_path: Path) -> None:
    examined(open_store(str(tmp_path / "store")))
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []

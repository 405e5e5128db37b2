"""One document, read and written alike in every kind of store, and by many writers at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Struct
from msgspec.structs import replace

from pilotlight.errors import (
    AlreadyExistsError,
    BrokenDocumentError,
    ChangedError,
    ConflictError,
    NotFoundError,
)
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes

PATH = "some/where.json"
WRITERS, TURNS = 16, 3


class Tally(Struct, frozen=True):
    names: tuple[str, ...] = ()
    count: int = 0


@pytest.fixture
def document(store: ObjectStore) -> Document[Tally]:
    return Document(store, PATH, Tally)


def add(name: str) -> Callable[[Tally], Tally]:
    return lambda tally: replace(tally, names=(*tally.names, name), count=tally.count + 1)


def test_what_is_not_there_is_not_found_or_none(document: Document[Tally]) -> None:
    assert document.read_or_none() is None
    assert document.read_with_e_tag_or_none() is None
    for read in (document.read, document.read_with_e_tag, lambda: document.update(add("a"))):
        with pytest.raises(NotFoundError, match=f"There is nothing at .*{PATH}"):
            read()


def test_what_was_written_is_read(document: Document[Tally]) -> None:
    for tally in (Tally(("a",), 1), Tally()):
        document.write(tally)
        value, e_tag = document.read_with_e_tag()
        assert document.read() == document.read_or_none() == value == tally
        assert e_tag
        assert document.read_with_e_tag_or_none() == (value, e_tag)


def test_it_is_stored_as_json_that_people_can_read(document: Document[Tally]) -> None:
    document.write(Tally(("a",), 1))
    assert document.store.get(PATH).data == b'{\n  "names": [\n    "a"\n  ],\n  "count": 1\n}\n'


def test_only_the_first_creates(document: Document[Tally]) -> None:
    document.create(Tally(("first",)))
    with pytest.raises(AlreadyExistsError, match=f"There is something at .*{PATH} already"):
        document.create(Tally(("second",)))
    assert document.read().names == ("first",)


def test_who_does_not_create_gets_what_is_there(document: Document[Tally]) -> None:
    first, second = Tally(("first",)), Tally(("second",))
    assert document.create_or_read(first) is first
    assert document.create_or_read(second) == first
    assert document.read() == first


def test_a_stale_e_tag_replaces_nothing(document: Document[Tally]) -> None:
    document.create(Tally())
    _, e_tag = document.read_with_e_tag()
    document.replace(Tally(("newer",)), e_tag)
    with pytest.raises(ChangedError, match=f"{PATH} was changed by somebody else"):
        document.replace(Tally(("late",)), e_tag)
    assert document.read().names == ("newer",)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is not a Tally: Input data was truncated."),
        (b"{", "is not a Tally: Input data was truncated."),
        (b"\xff\xfe", "is not a Tally: JSON is malformed: invalid character (byte 0)."),
        (
            b'{"names": ["\xff"]}',
            "is not a Tally: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte.",
        ),
        (b'{"other": ' + b"[" * 100_000, "is not a Tally: It is nested too deeply."),
        (b'{"count": 1e400}', "is not a Tally: Number out of range - at `$.count`."),
        (b"[1]", "is not a Tally: Expected `object`, got `array`."),
        (b'{"count": "1"}', "is not a Tally: Expected `int`, got `str` - at `$.count`."),
    ],
)
def test_what_is_no_document_is_refused_with_its_place_and_field(store: ObjectStore, data: bytes, text: str) -> None:
    store.put(PATH, data)
    document = Document(store, PATH, Tally, "Write it anew.")
    reads: list[Callable[[], object]] = [
        document.read,
        document.read_or_none,
        document.read_with_e_tag_or_none,
        lambda: document.create_or_read(Tally()),
        lambda: document.update(add("a"), initial=Tally()),
    ]
    for read in reads:
        with pytest.raises(BrokenDocumentError) as raised:
            read()
        assert str(raised.value) == f"{PATH} {text} Write it anew."
    assert str(document.read_or_error()) == f"{PATH} {text} Write it anew."
    assert store.get(PATH).data == data


def test_an_update_swaps_what_is_there(document: Document[Tally]) -> None:
    document.create(Tally(("a",), 1))
    assert document.update(add("b")) == document.read() == Tally(("a", "b"), 2)


def test_an_update_creates_from_an_initial_value(document: Document[Tally]) -> None:
    assert document.update(add("a"), initial=Tally(count=5)) == document.read() == Tally(("a",), 6)
    assert document.update(add("b"), initial=Tally(count=50)) == document.read() == Tally(("a", "b"), 7)


def test_an_update_that_changes_nothing_writes_nothing(document: Document[Tally]) -> None:
    initial = Tally()
    assert document.update(lambda tally: tally, initial=initial) is initial
    assert document.read_or_none() is None
    document.create(Tally(("a",)))
    before = document.read_with_e_tag()
    assert document.update(lambda tally: tally) == before[0]
    assert document.read_with_e_tag() == before


@pytest.mark.parametrize("attempts", [1, 2, 5])
@pytest.mark.parametrize(("initial", "error"), [(None, ChangedError), (Tally(), AlreadyExistsError)])
def test_an_update_gives_up_after_its_attempts(
    document: Document[Tally], attempts: int, initial: Tally | None, error: type[ConflictError]
) -> None:
    if initial is None:
        document.write(Tally())
    seen: list[Tally] = []

    def overtake(tally: Tally) -> Tally:
        seen.append(tally)
        document.write(Tally(("other",), len(seen)))
        return add("late")(tally)

    with pytest.raises(error if attempts == 1 else ChangedError):
        document.update(overtake, attempts, initial=initial)
    assert [tally.count for tally in seen] == list(range(attempts))
    assert document.read() == Tally(("other",), attempts)


def test_an_update_that_was_overtaken_begins_with_the_newer_document(document: Document[Tally]) -> None:
    document.write(Tally())

    def overtake_once(tally: Tally) -> Tally:
        if not tally.names:
            document.update(add("faster"))
        return add("slower")(tally)

    assert document.update(overtake_once, attempts=2) == document.read() == Tally(("faster", "slower"), 2)


def test_an_error_of_the_change_is_no_lost_swap(document: Document[Tally]) -> None:
    document.write(Tally())
    calls: list[Tally] = []

    def refuse(tally: Tally) -> Tally:
        calls.append(tally)
        raise ChangedError("it had been ended before")

    with pytest.raises(ChangedError, match="ended before"):
        document.update(refuse)
    assert len(calls) == 1


def test_a_read_and_an_update_cost_one_and_two_requests() -> None:
    requests: list[str] = []

    class CountingStore(fakes.FaultyStore):
        def replace(self, path: str, data: bytes, e_tag: str) -> None:
            requests.append("replace")
            super().replace(path, data, e_tag)

    store = CountingStore()
    document = Document(store, PATH, Tally)
    document.create(Tally())
    for read in (document.read, document.read_or_none, document.read_with_e_tag, document.read_with_e_tag_or_none):
        store.reads.clear()
        read()
        assert store.reads == [PATH]
    store.reads.clear()
    document.update(add("a"))
    assert (store.reads, requests) == ([PATH], ["replace"])


def test_many_writers_lose_nothing(document: Document[Tally]) -> None:
    """They race for the first document too."""
    start = Barrier(WRITERS)

    def write(number: int) -> None:
        start.wait()
        for turn in range(TURNS):
            document.update(add(f"{number}/{turn}"), attempts=10 * WRITERS * TURNS, initial=Tally())

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    found = document.read()
    assert sorted(found.names) == sorted(f"{number}/{turn}" for number in range(WRITERS) for turn in range(TURNS))
    assert found.count == WRITERS * TURNS
    for number in range(WRITERS):  # each writer's own in their order
        own = [name for name in found.names if name.startswith(f"{number}/")]
        assert own == [f"{number}/{turn}" for turn in range(TURNS)]


def test_many_creators_agree_on_one_document(document: Document[Tally]) -> None:
    start = Barrier(WRITERS)

    def create(number: int) -> Tally:
        start.wait()
        return document.create_or_read(Tally((str(number),)))

    with ThreadPoolExecutor(WRITERS) as pool:
        found = set(pool.map(create, range(WRITERS)))
    assert found == {document.read()}


@given(st.lists(st.text()), st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_any_document_comes_back(names: list[str], count: int) -> None:
    document = Document(open_store("memory://"), PATH, Tally)
    document.write(Tally(tuple(names), count))
    assert document.read() == Tally(tuple(names), count)


class DocumentMachine(RuleBasedStateMachine):
    """Whatever is done in whatever order, a document is what a variable would be."""

    def __init__(self) -> None:
        super().__init__()
        self.document = Document(open_store("memory://"), PATH, Tally)
        self.expected: Tally | None = None
        self.e_tags: list[tuple[Tally, str]] = []

    @rule(count=st.integers(0, 3))
    def write(self, count: int) -> None:
        self.document.write(Tally(count=count))
        self.expected = Tally(count=count)

    @rule(count=st.integers(0, 3))
    def create(self, count: int) -> None:
        try:
            self.document.create(Tally(count=count))
        except AlreadyExistsError:
            assert self.expected is not None
        else:
            assert self.expected is None
            self.expected = Tally(count=count)

    @rule(count=st.integers(0, 3))
    def create_or_read(self, count: int) -> None:
        self.expected = self.expected or Tally(count=count)
        assert self.document.create_or_read(Tally(count=count)) == self.expected

    @rule(count=st.integers(0, 3))
    def update(self, count: int) -> None:
        self.expected = add("x")(self.expected or Tally(count=count))
        assert self.document.update(add("x"), 1, initial=Tally(count=count)) == self.expected

    @rule()
    def delete(self) -> None:
        self.document.store.delete(PATH)
        self.expected = None

    @rule()
    def remember(self) -> None:
        if self.expected is not None:
            self.e_tags.append(self.document.read_with_e_tag())

    @rule(count=st.integers(0, 3))
    def replace(self, count: int) -> None:
        for seen, e_tag in self.e_tags:
            try:
                self.document.replace(Tally(("y",), count), e_tag)
            except ChangedError:
                continue
            assert seen == self.expected
            self.expected = Tally(("y",), count)

    @invariant()
    def is_as_expected(self) -> None:
        assert self.document.read_or_none() == self.expected


TestDocumentMachine = DocumentMachine.TestCase

"""The recorder: sampled, bounded, in files of their own, and nobody is failed for it."""

import gzip
import re
import threading
from collections.abc import Iterator
from itertools import cycle, repeat

import msgspec
import numpy as np
import pytest

from pilotlight.capture import masking, recorder
from pilotlight.capture.record import CaptureRecord
from pilotlight.capture.recorder import CaptureRecorder
from pilotlight.contracts.capture_policy import CapturePolicy
from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import DeniedError
from pilotlight.storage.object_store import ObjectStore, StoredObject, open_store
from tests import fakes

ALWAYS = repeat(0.0)
ROW = np.array([[1, 2, 3]], np.float32)


@pytest.fixture
def store() -> ObjectStore:
    return open_store("memory://")


def made(
    store: ObjectStore, rate: float = 1.0, seconds: float = 60.0, chance: Iterator[float] = ALWAYS
) -> CaptureRecorder:
    return CaptureRecorder(lambda: store, rate, seconds, chance=lambda: next(chance))


def ask(keeper: CaptureRecorder, manifest: Manifest, times: int = 1) -> None:
    for _ in range(times):
        keeper.offer(manifest, {"x": ROW}, {"x": ROW}, {"y": ROW * 2})
        keeper.notify()


def lines(store: ObjectStore) -> list[CaptureRecord]:
    files = sorted(store.list_paths("captures"))
    return [
        msgspec.json.decode(row, type=CaptureRecord)
        for path in files
        for row in gzip.decompress(store.get(path).data).split(b"\n")
        if row
    ]


def test_a_request_is_kept_under_its_model_version_date_and_hour(store: ObjectStore) -> None:
    keeper = made(store)
    ask(keeper, fakes.stepped(None))
    keeper.flush()
    (path,) = store.list_paths("captures")
    assert re.fullmatch(r"captures/double/1/\d{4}-\d\d-\d\d/\d\d/[0-9a-f]{12}-0\.jsonl\.gz", path)
    (kept,) = lines(store)
    assert kept.features == {"x[0]": [1.0], "x[1]": [2.0], "x[2]": [3.0]}


def test_a_tenants_requests_lie_below_a_folder_of_his_own(store: ObjectStore) -> None:
    keeper = made(store)
    for tenant in ("acme", "", "acme", "Acme"):
        keeper.offer(fakes.stepped(None), {"x": ROW}, {"x": ROW}, {"y": ROW * 2}, tenant)
    keeper.flush()
    folders = sorted(path.split("/1/")[0] for path in store.list_paths("captures"))
    assert folders == ["captures/double", "captures/tenant=_41cme/double", "captures/tenant=acme/double"]
    assert len(lines(store)) == 4


def test_what_waits_for_many_tenants_is_bounded(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_PENDING_BYTES", 1000)
    keeper = made(store, seconds=3600)
    for count in range(20):
        for _ in range(2):  # the first is written at once, the second waits
            keeper.offer(fakes.stepped(None), {"x": ROW}, {"x": ROW}, {"y": ROW * 2}, f"tenant {count}")
            keeper.drain()
    assert sum(pending.size_bytes for pending in keeper._pending.values()) < 1000
    keeper.flush()
    assert len(lines(store)) == 40


def test_a_tenant_who_asks_no_more_is_forgotten(store: ObjectStore) -> None:
    clock = fakes.Clock()
    keeper = CaptureRecorder(lambda: store, 1.0, 60.0, clock=lambda: clock.now, chance=lambda: 0.0)
    for count in range(20):
        keeper.offer(fakes.stepped(None), {"x": ROW}, {"x": ROW}, {"y": ROW * 2}, f"tenant {count}")
        keeper.drain()
        clock.tick(61)
    assert len(keeper._pending) == 1
    assert len(lines(store)) == 20


def test_so_many_are_kept_as_the_rate_says(store: ObjectStore) -> None:
    keeper = made(store, rate=0.25, chance=cycle([0.1, 0.25, 0.5, 0.9]))
    ask(keeper, fakes.stepped(None), 40)
    keeper.flush()
    assert len(lines(store)) == 10


def test_the_first_line_is_written_at_once_and_the_next_ones_together(store: ObjectStore) -> None:
    keeper = made(store, seconds=3600)
    ask(keeper, fakes.stepped(None))
    fakes.eventually(lambda: len(list(store.list_paths("captures"))) == 1)
    ask(keeper, fakes.stepped(None), 5)
    keeper.flush()
    assert len(list(store.list_paths("captures"))) == 2
    assert len(lines(store)) == 6


def test_lines_that_wait_are_written_when_their_time_has_come(store: ObjectStore) -> None:
    keeper = made(store, seconds=0.05)
    ask(keeper, fakes.stepped(None))
    fakes.eventually(lambda: len(lines(store)) == 1)
    ask(keeper, fakes.stepped(None))
    fakes.eventually(lambda: len(lines(store)) == 2)


def test_many_lines_are_written_before_their_time(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_FILE_BYTES", 1)
    keeper = made(store, seconds=3600)
    for count in (1, 2):
        ask(keeper, fakes.stepped(None))
        fakes.eventually(lambda count=count: len(lines(store)) == count)  # type: ignore[misc]  # mypy takes the default for an argument


def test_two_environments_do_not_meet(store: ObjectStore) -> None:
    for keeper in (made(store), made(store)):
        ask(keeper, fakes.stepped(None))
        keeper.flush()
    assert len(list(store.list_paths("captures"))) == 2


def test_a_policy_of_off_keeps_nothing_and_starts_nothing(store: ObjectStore) -> None:
    keeper = made(store)
    ask(keeper, msgspec.structs.replace(fakes.stepped(None), capture=CapturePolicy(keep="off")), 3)
    keeper.flush()
    assert keeper._thread is None
    assert lines(store) == []


def test_what_waits_is_bounded_and_what_is_let_go_is_said(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recorder, "MAX_WAITING", 3)
    keeper = made(store)
    for _ in range(10):
        keeper.offer(fakes.stepped(None), {}, {"x": ROW}, {"y": ROW})
    keeper.flush()
    assert len(lines(store)) == 3
    assert "7 requests came faster" in capsys.readouterr().out


def test_what_waits_is_bounded_in_bytes(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_WAITING_BYTES", 2 * 2 * ROW.nbytes)
    keeper = made(store)
    for _ in range(10):
        keeper.offer(fakes.stepped(None), {}, {"x": ROW}, {"y": ROW})
    keeper.flush()
    assert len(lines(store)) == 2


class Full(ObjectStore):
    """A store that takes nothing."""

    def __init__(self) -> None:
        inner = open_store("memory://")
        super().__init__(inner.url, inner._store)

    def create(self, path: str, data: bytes) -> None:
        raise DeniedError("The store is full.")


def test_a_store_that_takes_nothing_is_said_and_fails_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    keeper = made(Full())
    ask(keeper, fakes.stepped(None))
    keeper.flush()
    assert "CaptureLost" in capsys.readouterr().out
    ask(keeper, fakes.stepped(None))
    keeper.flush()


def test_what_goes_wrong_is_said_without_a_byte_of_the_request(
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> CaptureRecord:
        raise ValueError("could not convert 'secret-471147'")

    monkeypatch.setattr(masking, "build_record", broken)
    keeper = made(store)
    ask(keeper, fakes.stepped(None))
    keeper.flush()
    said = capsys.readouterr()
    assert "CaptureLost" in said.out
    assert "471147" not in said.out + said.err + caplog.text
    assert lines(store) == []


def test_a_hash_is_looked_for_once_in_a_while_where_there_is_no_key() -> None:
    looked: list[str] = []

    class Watching(Full):
        def get(self, path: str) -> StoredObject:
            looked.append(path)
            raise DeniedError("no")

    keeper = made(Watching())
    hashing = msgspec.structs.replace(fakes.stepped(None), capture=CapturePolicy(mask={"x": "hash"}))
    for _ in range(3):
        ask(keeper, hashing)
        keeper.flush()
    assert looked == ["secrets/capture-key"]


def test_offering_from_many_threads_loses_nothing(store: ObjectStore) -> None:
    keeper = made(store)
    manifest = fakes.stepped(None)
    threads = [threading.Thread(target=ask, args=(keeper, manifest, 20)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keeper.flush()
    assert len(lines(store)) == 160

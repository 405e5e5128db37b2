"""The hot swap: who answers while a version comes in, when it may not, and when the alias moves again meanwhile."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import LoadingError, ModelRefusedError, NotFoundError
from pilotlight.registry.registry import Registry, alias_path
from pilotlight.runtime import hot_swap
from pilotlight.runtime.model_cache import LoadedModel, ModelCache
from pilotlight.runtime.model_loader import REFUSED_SECONDS
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.single_flight import BackgroundTask
from tests import fakes

CHAMPION = ModelReference("double")


class Rig:
    """A warm environment that serves double:1, where double:2 squares."""

    def __init__(self, budget: int = 10_000, golden: bytes | None = None) -> None:
        self.store, self.clock = fakes.FaultyStore(), fakes.Clock()
        self.registry = Registry(self.store)
        self.catalog = ModelManager(
            self.registry, ModelCache(budget), memory_mb=1769, alias_seconds=10, clock=self.clock
        )
        fakes.publish(self.registry, of="double")
        fakes.publish(self.registry, of="square", golden=golden)
        assert self.answer() == (1, 6)

    def answer(self) -> tuple[int, float]:
        """The version that answers, and what it makes of 3."""
        model = self.catalog.get_model(CHAMPION)
        return model.manifest.version, run(model)

    def move(self, version: int) -> None:
        self.registry.move_alias("double", "champion", version, actor="test", reason="test")

    def look(self, seconds: float = 10) -> None:
        """Let the alias grow old, ask once, and wait for the look that this sets off."""
        self.clock.tick(seconds)
        self.catalog.get_model(CHAMPION)
        self.catalog.wait_for_background()


class Gate:
    """A change of what is read that changes nothing, but waits until it is opened."""

    def __init__(self) -> None:
        self.reached, self._open = threading.Event(), threading.Event()

    def __call__(self, data: bytes) -> bytes:
        self.reached.set()
        assert self._open.wait(10)
        return data

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def run(model: LoadedModel) -> float:
    (result,) = model.session.run({"x": np.full((1, 3), 3, np.float32)}).values()
    return float(result[0, 0])


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def test_the_old_version_answers_until_the_new_one_is_open(gate: Gate) -> None:
    rig = Rig()
    rig.move(2)
    rig.store.bend("versions/2/model.onnx", gate)
    rig.clock.tick(10)
    assert rig.answer() == (1, 6)
    assert gate.reached.wait(10)
    assert rig.answer() == (1, 6)
    gate.open()
    rig.catalog.wait_for_background()
    assert rig.answer() == (2, 9)


def test_a_request_ends_on_the_session_that_it_began_with() -> None:
    rig = Rig()
    begun = rig.catalog.get_model(CHAMPION)
    rig.move(2)
    rig.look()
    assert rig.answer() == (2, 9)
    assert rig.catalog.model_cache.keys() == [("double", 2)]
    assert run(begun) == 6


def test_a_version_that_another_alias_serves_stays_open() -> None:
    rig = Rig()
    rig.move(2)
    rig.registry.move_alias("double", "stable", 1, actor="test", reason="test")
    rig.catalog.get_model(ModelReference("double", None, "stable"))
    rig.look()
    assert sorted(rig.catalog.model_cache.keys()) == [("double", 1), ("double", 2)]


def test_rollback_goes_to_a_lower_number() -> None:
    rig = Rig()
    for version, expected in ((2, 9), (1, 6), (2, 9)):
        rig.move(version)
        rig.look()
        assert rig.answer() == (version, expected)


def test_golden_requests_are_replayed_first() -> None:
    rig = Rig(golden=fakes.golden([1, 2, 3], [1, 4, 9]))
    rig.move(2)
    rig.look()
    assert rig.answer() == (2, 9)


@pytest.mark.parametrize(
    ("golden", "hint"),
    [
        (fakes.golden([1, 2, 3], [1, 4, 9.5]), r"double:2 is refused: Golden request 1 is answered 0\.5 away"),
        (fakes.golden([1, 2, 3], [1, 4]), "with 'y' of shape"),
        (fakes.golden([1, 2, 3], [1, 4, 9], output="z"), "with 'z' missing"),
        (b"{}", "double:2 is refused: golden.json is not a Golden"),
    ],
)
def test_a_version_that_answers_otherwise_than_recorded_does_not_serve(
    golden: bytes, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(golden=golden)
    rig.move(2)
    rig.look()
    assert rig.answer() == (1, 6)
    assert '"SwapFailed"' in capsys.readouterr().out
    with pytest.raises(ModelRefusedError, match=hint):
        rig.catalog.get_model(ModelReference("double", 2))


def test_a_version_that_was_refused_is_tried_again_after_a_while() -> None:
    rig = Rig()
    rig.store.bend("versions/2/model.onnx", flip)
    rig.move(2)
    for _ in range(3):
        rig.look()
    assert sum("versions/2/model.onnx" in path for path in rig.store.reads) == 1
    rig.store.heal()
    rig.look(REFUSED_SECONDS)
    assert rig.answer() == (2, 9)


def test_a_late_thread_does_not_move_the_alias_back(gate: Gate) -> None:
    rig = Rig()
    fakes.publish(rig.registry, of="double")
    rig.move(2)
    rig.store.bend("versions/2/model.onnx", gate)
    rig.clock.tick(10)
    rig.catalog.get_model(CHAMPION)
    assert gate.reached.wait(10)
    rig.move(3)
    rig.catalog._alias_cache.refresh(("double", "champion"))  # a faster look
    gate.open()
    rig.catalog.wait_for_background()
    assert rig.answer()[0] == 1
    rig.look()
    assert rig.answer()[0] == 3


def test_a_document_from_the_past_is_passed_over() -> None:
    rig = Rig()
    before = rig.store.get(alias_path("double", "champion")).data
    rig.move(2)
    rig.look()
    rig.store.bend("champion.json", lambda _: before)
    rig.store.e_tags["champion.json"] = "stale"
    rig.look()
    assert rig.answer() == (2, 9)


def test_moves_are_in_order_where_a_clock_is_behind() -> None:
    rig = Rig()
    ahead = AliasDocument(2, 1, "test", "2100-01-01T00:00:00+00:00", "a machine with a wrong clock")
    rig.store.put(alias_path("double", "champion"), encode_document(ahead))
    rig.look()
    assert rig.answer() == (2, 9)
    rig.move(1)
    assert rig.registry.load_alias("double", "champion").at < ahead.at
    rig.look()
    assert rig.answer() == (1, 6)


def test_a_store_that_hangs_delays_no_request(gate: Gate) -> None:
    rig = Rig()
    rig.store.bend("champion.json", gate)
    rig.store.reads.clear()
    rig.clock.tick(10)
    for _ in range(3):
        assert rig.answer() == (1, 6)
    assert gate.reached.wait(10)
    assert len(rig.store.reads) == 1


def test_a_very_old_alias_is_looked_at_first() -> None:
    rig = Rig()
    rig.move(2)
    rig.clock.tick(10 * hot_swap.STALE_FACTOR)
    assert rig.answer() == (2, 9)


def test_a_very_old_alias_waits_no_longer_than_patience(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_swap, "STALE_WAIT_SECONDS", 0.05)
    rig = Rig()
    rig.move(2)
    rig.store.bend("versions/2/model.onnx", gate)
    rig.clock.tick(10 * hot_swap.STALE_FACTOR)
    assert rig.answer() == (1, 6)


def test_a_very_old_alias_leaves_half_of_the_time_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, waited_until = Rig(), list[float]()

    def wait_until(task: BackgroundTask[None], deadline: float) -> bool:
        waited_until.append(deadline)
        return False

    monkeypatch.setattr(BackgroundTask, "wait_until", wait_until)
    rig.clock.tick(10 * hot_swap.STALE_FACTOR)
    begin = time.monotonic()
    assert rig.catalog.get_model(CHAMPION, begin + 2).manifest.version == 1
    end = time.monotonic()
    assert begin + 1 <= waited_until[0] <= (begin + 2 + end) / 2


def test_a_manifest_waits_for_its_alias_no_longer_than_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    monkeypatch.setattr(BackgroundTask, "wait_until", lambda task, deadline: False)
    with pytest.raises(LoadingError, match="has not said yet what double@candidate is"):
        rig.catalog.resolve_manifest(ModelReference("double", alias="candidate"), time.monotonic())


def test_two_that_do_not_fit_together_are_swapped_one_by_one() -> None:
    rig = Rig(budget=100)  # each takes 86
    rig.move(2)
    rig.look()
    assert rig.answer() == (2, 9)
    assert rig.catalog.model_cache.keys() == [("double", 2)]


def test_the_old_one_does_not_make_way_for_rotten_bytes() -> None:
    rig = Rig(budget=100)
    rig.store.bend("versions/2/model.onnx", flip)
    rig.move(2)
    rig.look()
    assert rig.catalog.model_cache.keys() == [("double", 1)]
    assert rig.answer() == (1, 6)


def test_the_old_one_comes_back_when_the_next_fails_its_golden_requests() -> None:
    rig = Rig(budget=100, golden=fakes.golden([1, 2, 3], [0, 0, 0]))
    rig.move(2)
    rig.look()
    assert rig.answer() == (1, 6)


def test_a_request_waits_for_the_version_that_the_old_one_made_way_for(gate: Gate) -> None:
    rig = Rig(budget=100)
    rig.move(2)
    opened: list[tuple[int, float]] = []
    rig.store.bend("golden", gate)
    rig.store.bend("versions/2/model.onnx", gate)
    rig.clock.tick(10)
    rig.catalog.get_model(CHAMPION)
    assert gate.reached.wait(10)
    rig.catalog.model_cache.evict(("double", 1))
    waiting = threading.Thread(target=lambda: opened.append(rig.answer()))
    waiting.start()
    gate.open()
    waiting.join(10)
    assert opened == [(2, 9)]


def test_a_deleted_alias_is_gone() -> None:
    rig = Rig()
    rig.store.delete(alias_path("double", "champion"))
    rig.look()
    with pytest.raises(NotFoundError):
        rig.answer()


def test_a_load_that_takes_longer_than_the_request_is_told(gate: Gate) -> None:
    rig = Rig()
    rig.store.bend("versions/2/model.onnx", gate)
    with pytest.raises(LoadingError, match=r"double:2 is being opened, for \d+ s so far; try again in 1 s") as told:
        rig.catalog.get_model(ModelReference("double", 2), deadline=swap_end(0.1))
    assert told.value.retry_after == 1
    gate.open()
    rig.catalog.wait_for_background()
    assert run(rig.catalog.get_model(ModelReference("double", 2))) == 9


def test_no_load_begins_that_cannot_end_in_time() -> None:
    rig = Rig()
    rig.catalog.resolve_manifest(ModelReference("double", 2))
    with pytest.raises(LoadingError, match=r"takes about 0\.1 s to open, and this request has 0\.0 s left"):
        rig.catalog.get_model(ModelReference("double", 2), deadline=swap_end(0.0))
    assert not [path for path in rig.store.reads if "versions/2/model.onnx" in path]


def swap_end(seconds: float) -> float:
    """A moment on the clock of requests."""
    return time.monotonic() + seconds

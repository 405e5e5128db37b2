"""What was fetched before anybody asked answers as if it had been fetched then."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pilotlight.contracts.names import ModelReference
from pilotlight.errors import BrokenDocumentError, DoesNotFitError, ModelRefusedError, NotFoundError, StoreError
from pilotlight.registry.registry import Registry
from pilotlight.runtime.alias_cache import AliasCache
from pilotlight.runtime.model_cache import ModelCache
from pilotlight.runtime.model_files import open_model_files
from pilotlight.runtime.model_loader import ModelLoader
from pilotlight.runtime.model_manager import ModelManager
from pilotlight.runtime.prefetch import parse_references, start_prefetch
from pilotlight.runtime.prefetched_store import PrefetchedStore
from tests import fakes

CHAMPION = ModelReference("double")
ROOT = Path(__file__).parents[3]


class Rig:
    """A store with two versions, of which the second is the champion."""

    def __init__(self) -> None:
        self.store = fakes.FaultyStore()
        self.registry = Registry(self.store)
        fakes.publish(self.registry, of="double")
        fakes.publish(self.registry, of="square")
        self.registry.move_alias("double", "champion", 2, actor="test", reason="test")
        self.store.reads.clear()

    def start(self, *names: str, seconds: float = 10, budget: int = 10_000) -> PrefetchedStore:
        """Preload, and wait until that is over."""
        before = set(threading.enumerate())
        ahead = start_prefetch(
            self.store, parse_references(" ".join(names)), max_age_seconds=seconds, budget_bytes=budget
        )
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
        return ahead

    def catalog(self, ahead: PrefetchedStore, budget: int = 10_000) -> ModelManager:
        return ModelManager(Registry(ahead), ModelCache(budget), memory_mb=1769, alias_seconds=10)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def answer(catalog: ModelManager, reference: ModelReference = CHAMPION) -> float:
    (result,) = catalog.get_model(reference).session.run({"x": np.full((1, 3), 3, np.float32)}).values()
    return float(result[0, 0])


@pytest.mark.parametrize("name", ["double", "double@champion", "double:2"])
def test_nothing_is_read_twice(rig: Rig, name: str) -> None:
    catalog = rig.catalog(rig.start(name))
    read = len(rig.store.reads)
    assert answer(catalog, ModelReference.parse(name)) == 9
    assert len(rig.store.reads) == read


def test_an_empty_setting_reads_nothing(rig: Rig) -> None:
    catalog = rig.catalog(rig.start())
    assert rig.store.reads == []
    assert answer(catalog) == 9


def test_several_models_are_fetched(rig: Rig) -> None:
    fakes.publish(rig.registry, name="other", of="double")
    catalog = rig.catalog(rig.start("double,", "other"))
    read = len(rig.store.reads)
    assert (answer(catalog), answer(catalog, ModelReference("other"))) == (9, 6)
    assert len(rig.store.reads) == read


def test_a_model_that_was_not_preloaded_is_fetched_when_asked_for(rig: Rig) -> None:
    catalog = rig.catalog(rig.start("double"))
    assert answer(catalog, ModelReference("double", 1)) == 6
    assert answer(catalog) == 9


@pytest.mark.parametrize("rot", [lambda data: data[:-1], lambda data: b"\0" + data[1:], lambda data: data + b"\0"])
def test_a_rotten_version_is_refused_and_the_previous_one_answers(rig: Rig, rot: Callable[[bytes], bytes]) -> None:
    rig.store.bend("versions/2/model.onnx", rot)
    catalog = rig.catalog(rig.start("double"))
    assert answer(catalog) == 6
    with pytest.raises(ModelRefusedError, match=r"double:2 is refused: model\.onnx holds"):
        catalog.get_model(ModelReference("double", 2))
    assert sum("versions/2/model.onnx" in path for path in rig.store.reads) == 1


def test_a_store_that_is_away_is_said_where_the_model_is_asked_for(rig: Rig) -> None:
    rig.store.fail("models/")
    catalog = rig.catalog(rig.start("double"))
    with pytest.raises(StoreError, match="connection refused"):
        catalog.get_model(CHAMPION)
    rig.store.heal()
    assert answer(catalog) == 9


def test_a_store_that_fails_at_the_files_is_said_once(rig: Rig) -> None:
    rig.store.fail("model.onnx")
    catalog = rig.catalog(rig.start("double:2"))
    with pytest.raises(StoreError, match="connection refused"):
        catalog.get_model(ModelReference("double", 2))
    rig.store.heal()
    assert answer(catalog, ModelReference("double", 2)) == 9


def test_garbage_in_the_store_does_not_stop_the_start(rig: Rig) -> None:
    rig.store.bend("champion.json", lambda _: b"{")
    catalog = rig.catalog(rig.start("double"))
    with pytest.raises(BrokenDocumentError, match=r"champion\.json is not a AliasDocument"):
        catalog.get_model(CHAMPION)


def test_wrong_names_do_not_stop_the_start(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    catalog = rig.catalog(rig.start("double:", "a b/c", "nothing", "double"))
    assert "PILOTLIGHT_PRELOAD: 'double:' ends in ':'" in caplog.text
    assert answer(catalog) == 9
    with pytest.raises(NotFoundError, match="There is no model 'nothing'"):
        catalog.get_model(ModelReference("nothing"))


def test_a_model_that_does_not_fit_is_not_fetched(rig: Rig) -> None:
    catalog = rig.catalog(rig.start("double", budget=10), budget=10)
    with pytest.raises(DoesNotFitError):
        catalog.get_model(CHAMPION)
    assert not [path for path in rig.store.reads if path.endswith(".onnx")]


def test_an_alias_that_was_read_too_long_ago_is_read_again(rig: Rig) -> None:
    catalog = rig.catalog(rig.start("double", seconds=0))
    rig.registry.move_alias("double", "champion", 1, actor="test", reason="test")
    assert answer(catalog) == 6


def test_files_of_a_version_that_nobody_wants_any_more_are_let_go_of(rig: Rig) -> None:
    ahead = rig.start("double:2")
    laid = ahead._files["double", 2].result()
    assert ahead.take_prefetched_files("double", 1) is None
    with pytest.raises(FileNotFoundError):
        Path(laid.path).stat()


def test_files_that_are_chosen_are_fetched_beside_those_that_were_prefetched(rig: Rig) -> None:
    ahead = rig.start("double:2")
    manifest = rig.registry.load_manifest("double", 2)
    with open_model_files(ahead, manifest, manifest.get_file("model.onnx")) as path:
        assert Path(path).read_bytes() == fakes.graph("square")
    with open_model_files(ahead, manifest) as path:
        assert Path(path).read_bytes() == fakes.graph("square")
    assert sum("versions/2/model.onnx" in path for path in rig.store.reads) == 2
    assert ahead.take_prefetched_files("double", 2) is None


def test_who_asks_early_waits_for_what_is_on_its_way(rig: Rig) -> None:
    may_go_on = threading.Event()

    def slow(data: bytes) -> bytes:
        may_go_on.wait(10)
        return data

    rig.store.bend("champion.json", slow)
    ahead = start_prefetch(rig.store, parse_references("double"), max_age_seconds=10, budget_bytes=10_000)
    threading.Timer(0.05, may_go_on.set).start()
    assert answer(rig.catalog(ahead)) == 9
    assert len(rig.store.reads) == len(set(rig.store.reads))


def anticipated(rig: Rig) -> ModelManager:
    """A catalog that has tried to open the model before anybody asked."""
    catalog = rig.catalog(rig.start("double"))
    anticipate(catalog)
    return catalog


def anticipate(catalog: ModelManager) -> None:
    """Open the champion before it is asked for, and wait until that is over."""
    catalog.load_in_background(CHAMPION)
    for thread in threading.enumerate():
        if thread.name == "anticipate":
            thread.join(10)


def test_who_asks_finds_open_what_was_anticipated(rig: Rig) -> None:
    catalog = anticipated(rig)
    assert catalog.model_cache.keys() == [("double", 2)]
    assert answer(catalog) == 9
    assert len(rig.store.reads) == len(set(rig.store.reads))


def test_who_asks_while_it_is_being_opened_waits_for_that(rig: Rig) -> None:
    catalog = rig.catalog(rig.start("double"))
    catalog.load_in_background(CHAMPION)
    assert answer(catalog) == 9
    assert len(rig.store.reads) == len(set(rig.store.reads))


@pytest.mark.parametrize(
    ("owner", "look"), [(AliasCache, "get_cached"), (ModelCache, "get"), (ModelLoader, "raise_if_refused")]
)
@pytest.mark.parametrize(("rotten", "expected"), [(False, 9), (True, 6)])
def test_what_is_opened_between_a_look_and_the_load_is_not_opened_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, owner: type, look: str, rotten: bool, expected: float
) -> None:
    if rotten:
        rig.store.bend("versions/2/model.onnx", lambda data: data[:-1])
    catalog, as_it_was = rig.catalog(rig.start("double")), getattr(owner, look)

    def overtaken(self: object, key: object) -> object:
        found = as_it_was(self, key)
        monkeypatch.undo()
        anticipate(catalog)
        return found

    monkeypatch.setattr(owner, look, overtaken)
    assert answer(catalog) == expected
    assert len(rig.store.reads) == len(set(rig.store.reads))


def test_what_was_anticipated_in_vain_is_opened_when_asked_for(rig: Rig) -> None:
    rig.store.fail("model.onnx")
    catalog = anticipated(rig)
    rig.store.heal()
    assert answer(catalog) == 9


def test_what_was_refused_early_is_told_to_who_asks(rig: Rig) -> None:
    rig.store.bend("versions/2/model.onnx", lambda data: data[:-1])
    catalog = anticipated(rig)
    assert answer(catalog) == 6
    with pytest.raises(ModelRefusedError, match=r"double:2 is refused: model\.onnx holds"):
        catalog.get_model(ModelReference("double", 2))
    assert sum("versions/2/model.onnx" in path for path in rig.store.reads) == 1


def test_the_module_that_fetches_imports_neither_numpy_nor_onnxruntime() -> None:
    code = "import sys, pilotlight.runtime.prefetch; print([m for m in ('numpy', 'onnxruntime') if m in sys.modules])"
    environment = {"PYTHONPATH": str(ROOT / "layers/core")}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

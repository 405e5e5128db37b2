"""What an environment remembers of the versions that it has tried to open."""

import threading

import pytest

from pilotlight.errors import ModelRefusedError
from pilotlight.registry import retention
from pilotlight.registry.registry import Registry
from pilotlight.registry.signing import PublicKey
from pilotlight.runtime.model_cache import LoadedModel, ModelCache
from pilotlight.runtime.model_loader import REFUSED_SECONDS, ModelLoader
from tests import fakes

KEY = ("double", 2)
FOREVER = float("inf")


class Rig:
    """A loader over a store with two versions, of which the first is the champion."""

    def __init__(self) -> None:
        self.store, self.clock = fakes.FaultyStore(), fakes.Clock()
        self.registry = Registry(self.store)
        fakes.publish(self.registry, of="double")
        fakes.publish(self.registry, of="square")
        self.store.reads.clear()
        self.loader = ModelLoader(self.registry, ModelCache(10_000), memory_mb=1769, check_seconds=10, clock=self.clock)


def test_those_that_ask_at_once_get_one_model() -> None:
    rig, models = Rig(), list[LoadedModel]()
    threads = [threading.Thread(target=lambda: models.append(rig.loader.open_model(KEY, FOREVER))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(models) == 8
    assert len({id(model) for model in models}) == 1
    assert len(rig.store.reads) == len(set(rig.store.reads))


def test_an_open_model_is_waited_for_once() -> None:
    rig = Rig()
    assert rig.loader.open_model(KEY, FOREVER) is rig.loader.open_model(KEY, FOREVER)
    assert rig.loader.wait_count == 1


def test_a_refusal_closes_the_version_until_it_is_old() -> None:
    rig = Rig()
    rig.loader.open_model(KEY, FOREVER)
    rig.loader.refuse_version(KEY, ModelRefusedError("double:2 is refused: it answers otherwise than recorded"))
    assert rig.loader.is_refused(KEY)
    assert rig.loader.model_cache.get(KEY) is None
    with pytest.raises(ModelRefusedError, match="otherwise than recorded"):
        rig.loader.open_model(KEY, FOREVER)
    rig.clock.tick(REFUSED_SECONDS)
    assert not rig.loader.is_refused(KEY)
    assert rig.loader.open_model(KEY, FOREVER).key == KEY


def test_a_version_without_a_trusted_signature_is_reported_and_served_once_it_is_signed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once a minute, since every request reads the manifest again: it may be signed by then."""
    rig, anybody = Rig(), PublicKey((1 << 2048) + 1, 65537)
    loader = ModelLoader(
        Registry(rig.store, anybody), ModelCache(10_000), memory_mb=1769, check_seconds=10, clock=rig.clock
    )
    for _ in range(3):
        with pytest.raises(ModelRefusedError, match="double:2 is refused: it is not signed"):
            loader.open_model(KEY, FOREVER)
    assert capsys.readouterr().out.count('"ModelRefused":1') == 1
    rig.clock.tick(REFUSED_SECONDS)
    with pytest.raises(ModelRefusedError):
        loader.get_manifest(KEY)
    assert capsys.readouterr().out.count('"ModelRefused":1') == 1
    loader.registry = rig.registry  # which trusts everybody
    assert loader.open_model(KEY, FOREVER).key == KEY


def test_nothing_is_remembered_of_a_deleted_version() -> None:
    rig = Rig()
    rig.loader.open_model(KEY, FOREVER)
    rig.loader.mark_verified(KEY)
    rig.store.delete("models/double/aliases/candidate.json")
    retention.delete_version(rig.registry, *KEY)
    rig.clock.tick(10)
    rig.loader.schedule_deletion_check(KEY)
    rig.loader.wait_for_background(FOREVER)
    assert not rig.loader.is_verified(KEY)
    assert rig.loader.model_cache.get(KEY) is None

"""When an alias is stale, and what its readers get while the store is slow."""

import threading
import time

import pytest

from pilotlight.errors import LoadingError, NotFoundError, StoreError
from pilotlight.registry.registry import Registry, alias_path
from pilotlight.runtime.alias_cache import AliasCache
from tests import fakes

KEY = ("double", "champion")


class Rig:
    def __init__(self) -> None:
        self.store, self.clock = fakes.FaultyStore(), fakes.Clock()
        fakes.publish(Registry(self.store), of="double")
        self.store.reads.clear()
        self.aliases = AliasCache(Registry(self.store), 10, self.clock)


def test_an_alias_ages_from_its_last_read() -> None:
    rig = Rig()
    assert rig.aliases.get_age(KEY) is None
    rig.aliases.get_or_read(KEY)
    rig.clock.tick(7)
    rig.aliases.get_or_read(KEY)
    assert rig.aliases.get_age(KEY) == 7
    rig.aliases.refresh(KEY)
    assert rig.aliases.get_age(KEY) == 0
    rig.aliases.expire_all()
    assert rig.aliases.get_age(KEY) == float("inf")


def test_a_store_that_is_away_is_not_asked_again_at_once() -> None:
    rig = Rig()
    known = rig.aliases.get_or_read(KEY)
    rig.store.fail("champion.json")
    rig.clock.tick(10)
    assert rig.aliases.refresh(KEY).document == known.document
    assert rig.aliases.get_age(KEY) == 0


def test_an_alias_that_was_deleted_is_not_known_any_more() -> None:
    rig = Rig()
    rig.aliases.get_or_read(KEY)
    rig.store.delete(alias_path(*KEY))
    with pytest.raises(NotFoundError):
        rig.aliases.refresh(KEY)
    assert rig.aliases.get_cached(KEY) is None


def test_one_read_serves_all_that_wait_for_an_alias() -> None:
    rig = Rig()
    may_go_on = threading.Event()

    def slow(data: bytes) -> bytes:
        assert may_go_on.wait(10)
        return data

    rig.store.bend("champion.json", slow)
    with pytest.raises(LoadingError, match="has not said yet what double@champion is; try again") as late:
        rig.aliases.wait_for_read(KEY, time.monotonic())
    assert late.value.retry_after == 1
    may_go_on.set()
    rig.aliases.wait_for_read(KEY, float("inf"))
    assert rig.aliases.get_cached(KEY) is not None
    assert len(rig.store.reads) == 1


def test_a_first_read_that_fails_is_raised() -> None:
    rig = Rig()
    rig.store.fail("champion.json")
    with pytest.raises(StoreError, match="connection refused"):
        rig.aliases.wait_for_read(KEY, float("inf"))

"""Which keys are believed and for how long, what they cost to look up, and what a store that is away changes."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functions.authorize import api_keys
from functions.authorize.api_keys import FRESH_S, RELIST_S, RETRY_S, STALE_S, KeyCache, authenticate_key, find_key
from functions.authorize.caller import Caller
from functions.authorize.errors import KeysUnavailableError, RefusedError
from pilotlight.api_keys.key_store import KeyStore, NewKey, UsageMeter
from pilotlight.contracts.api_key import generate_key, key_path
from pilotlight.errors import StoreError
from tests.fakes import Clock, FaultyStore

METER = "0123456789abcdef" * 2
WHOLE = f"plk_{'a' * 12}_{'A' * 43}"
NEARLY = [WHOLE[:-1], WHOLE + "A", WHOLE.upper(), WHOLE.replace("plk", "sk"), WHOLE.replace("aa_", "a1_")]
NEARLY += [f"Basic {WHOLE}", f"Bearer {WHOLE}, {WHOLE}", WHOLE.replace("A", "\u0410"), WHOLE.replace("_A", "/../A")]


class KeyStoreWorld(FaultyStore):
    """A store that counts its listings too, with the cache of an environment over it."""

    def __init__(self) -> None:
        super().__init__()
        self.listings = 0
        self.is_away = False
        self.clock = Clock()
        self.keys = KeyStore(self)
        self.cache = KeyCache(self, self.clock)
        self.listings = 0

    def list_paths(self, prefix: str) -> Iterator[str]:
        self.listings += 1
        if self.is_away:
            raise StoreError("The store is away.")
        return super().list_paths(prefix)

    def go_away(self) -> None:
        self.is_away = True
        self.fail("keys/")

    def come_back(self) -> None:
        self.is_away = False
        self.heal()

    def create(self, path: str, data: bytes) -> None:
        super().create(path, data)

    def add(self, name: str = "ci", **more: Any) -> NewKey:  # noqa: ANN401 - as `create_key`
        created = self.keys.create_key(name, ("infer",), actor="test", **more)
        self.reads.clear()
        self.listings = 0
        return created

    def ask(self, key: str, now: datetime | None = None) -> Caller:
        event = {"headers": {"Authorization": f"Bearer {key}"}}
        return authenticate_key(event, self.cache, METER, lambda: now or datetime.now(UTC))

    def opens(self, key: str) -> bool:
        try:
            self.ask(key)
        except RefusedError:
            return False
        return True


@pytest.fixture
def world() -> KeyStoreWorld:
    return KeyStoreWorld()


def test_a_key_says_who_calls_and_who_meters_it(world: KeyStoreWorld) -> None:
    own, plain = world.add("own", tenant="acme", meter=UsageMeter("v" * 20, "id")), world.add("plain")
    assert world.ask(own.key) == Caller(own.document.id, "acme", frozenset({"infer"}), "own", "v" * 20)
    world.clock.tick(RELIST_S)
    assert world.ask(plain.key) == Caller(plain.document.id, "", frozenset({"infer"}), "plain", METER)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer KEY"},
        {"authorization": "bearer  KEY "},
        {"x-api-key": "KEY"},
        {"X-API-Key": " KEY"},
        {"Authorization": "Bearer none", "X-Api-Key": "KEY"},  # what openai sends with a header of its own
        {"Authorization": "Basic dXNlcjpwYXNz", "X-Api-Key": "KEY"},  # a proxy's
        {"Authorization": "Bearer KEY", "x-api-key": "KEY"},
    ],
)
def test_a_key_comes_in_either_header(world: KeyStoreWorld, headers: dict[str, str]) -> None:
    key = world.add().key
    sent = {name: value.replace("KEY", key) for name, value in headers.items()}
    assert find_key({"headers": sent}) == key
    assert find_key({"multiValueHeaders": {name: [value] for name, value in sent.items()}}) == key


def test_two_different_keys_are_refused(world: KeyStoreWorld) -> None:
    one, other = world.add("one").key, world.add("other").key
    for event in (
        {"headers": {"authorization": f"Bearer {one}", "x-api-key": other}},
        {"multiValueHeaders": {"x-api-key": [one, other]}},
    ):
        with pytest.raises(RefusedError, match="two keys"):
            find_key(event)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["authorization", "x-api-key", "Authorization", "cookie"]),
        st.text(max_size=80) | st.text(max_size=80).map("Bearer ".__add__) | st.sampled_from(NEARLY),
    )
)
def test_what_has_not_the_form_of_a_key_costs_no_read(world: KeyStoreWorld, headers: dict[str, str]) -> None:
    with pytest.raises(RefusedError):
        authenticate_key({"headers": headers}, world.cache, METER)
    assert (world.reads, world.listings) == ([], 0)


def test_a_wrong_secret_opens_nothing(world: KeyStoreWorld) -> None:
    key = world.add().key
    other = generate_key()[1]
    assert not world.opens(key[:17] + other[17:])
    assert not world.opens(key[:-1] + ("A" if key[-1] != "A" else "B"))
    assert world.opens(key)


def test_the_document_of_another_id_opens_nothing(world: KeyStoreWorld) -> None:
    """A document is bound to its place: what was copied to another id is no key."""
    created = world.add()
    other_id, _ = generate_key()
    world.put(key_path(other_id), world.get(key_path(created.document.id)).data)
    assert not world.opens(created.key.replace(created.document.id, other_id))
    renamed = world.get(key_path(created.document.id)).data.replace(created.document.id.encode(), other_id.encode())
    world.put(key_path(other_id), renamed)
    world.clock.tick(FRESH_S)
    assert not world.opens(created.key.replace(created.document.id, other_id))


def test_a_known_key_is_read_once_a_minute(world: KeyStoreWorld) -> None:
    key = world.add().key
    for _ in range(10):
        assert world.opens(key)
    assert (len(world.reads), world.listings) == (1, 1)
    world.clock.tick(FRESH_S)
    assert world.opens(key)
    assert (len(world.reads), world.listings) == (2, 1)


def test_a_revoked_key_is_dead_within_the_minute(world: KeyStoreWorld) -> None:
    created = world.add()
    assert world.opens(created.key)
    world.keys.revoke_key(created.document.id)
    world.clock.tick(FRESH_S - 1)
    assert world.opens(created.key)
    world.clock.tick(1)
    assert not world.opens(created.key)


def test_a_removed_document_is_dead_within_the_minute(world: KeyStoreWorld) -> None:
    created = world.add()
    assert world.opens(created.key)
    world.delete(key_path(created.document.id))
    world.clock.tick(FRESH_S)
    assert not world.opens(created.key)


def test_an_expired_key_is_dead_at_once(world: KeyStoreWorld) -> None:
    end = datetime.now(UTC) + timedelta(days=1)
    key = world.add(expires=end).key
    assert world.ask(key, end - timedelta(seconds=1)).key_name == "ci"
    with pytest.raises(RefusedError, match="is expired"):
        world.ask(key, end)


def test_unknown_ids_cost_a_listing_in_five_seconds_and_no_read(world: KeyStoreWorld) -> None:
    key = world.add().key
    for _ in range(1000):
        assert not world.opens(generate_key()[1])
    assert (world.reads, world.listings) == ([], 1)
    assert world.opens(key)  # the listing had it
    assert len(world.cache._cached) == 1  # and nothing is kept of the others


def test_a_new_key_works_five_seconds_after_the_listing(world: KeyStoreWorld) -> None:
    assert not world.opens(generate_key()[1])
    key = world.add().key
    world.clock.tick(RELIST_S)
    assert world.opens(key)


def test_a_store_that_is_away_leaves_known_keys_alive_for_a_while(world: KeyStoreWorld) -> None:
    known, unknown = world.add("known").key, world.add("unknown").key
    assert world.opens(known)
    world.go_away()
    world.clock.tick(FRESH_S)
    assert world.opens(known)
    with pytest.raises(KeysUnavailableError):
        world.ask(generate_key()[1])
    with pytest.raises(KeysUnavailableError):
        world.ask(unknown)
    world.clock.tick(STALE_S - FRESH_S)
    with pytest.raises(KeysUnavailableError):
        world.ask(known)
    world.come_back()
    world.clock.tick(RETRY_S)
    assert world.opens(known)
    assert world.opens(unknown)


def test_a_store_that_has_just_failed_is_not_asked_again(world: KeyStoreWorld) -> None:
    known = world.add().key
    assert world.opens(known)
    world.go_away()
    world.clock.tick(FRESH_S)
    before = len(world.reads)
    for _ in range(20):
        assert world.opens(known)
    assert len(world.reads) == before + 1


def test_a_broken_document_costs_its_own_key_alone(world: KeyStoreWorld) -> None:
    broken, whole = world.add("broken"), world.add("whole")
    world.put(key_path(broken.document.id), b'{"id":')
    assert not world.opens(broken.key)
    assert world.opens(whole.key)


def test_the_cache_is_bounded(world: KeyStoreWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "MAX_CACHED_KEYS", 2)
    every = [world.add(f"key-{number}").key for number in range(4)]
    assert all(world.opens(key) for key in every)
    assert len(world.cache._cached) == 2


def test_no_byte_of_a_secret_is_in_a_reason(world: KeyStoreWorld) -> None:
    created = world.add()
    wrong = created.key[:-4] + "AAAA"
    with pytest.raises(RefusedError) as raised:
        world.ask(wrong)
    assert created.document.id in str(raised.value)
    assert not re.search(re.escape(wrong[17:25]), str(raised.value))

"""Keys in any store: created once, listed with the broken ones, found by name or id, rotated and revoked."""

import pytest

from pilotlight.api_keys.key_store import BrokenKey, KeyStore, UsageMeter, list_key_ids, read_key
from pilotlight.contracts.api_key import key_path
from pilotlight.errors import AlreadyExistsError, BrokenDocumentError, ConflictError, InvalidInputError, NotFoundError
from pilotlight.storage.object_store import ObjectStore


@pytest.fixture
def keys(store: ObjectStore) -> KeyStore:
    """On every kind of store."""
    return KeyStore(store)


def test_a_key_is_stored_as_a_hash(keys: KeyStore, store: ObjectStore) -> None:
    created = keys.create_key("ci", ("infer", "batch"), actor="ann", tenant="acme")
    stored = store.get(key_path(created.document.id)).data.decode()
    assert created.key.split("_", 2)[2] not in stored
    assert read_key(store, created.document.id) == created.document
    assert created.document.matches(created.key)
    assert list_key_ids(store) == {created.document.id}


def test_the_name_of_a_valid_key_is_taken(keys: KeyStore) -> None:
    first = keys.create_key("ci", ("infer",), actor="ann")
    with pytest.raises(AlreadyExistsError, match="There is a valid key 'ci' already"):
        keys.create_key("ci", ("admin",), actor="ann")
    keys.revoke_key(first.document.id)
    second = keys.create_key("ci", ("admin",), actor="ann")
    assert keys.find_id("ci") == second.document.id
    assert keys.find_id(first.document.id) == first.document.id


@pytest.mark.parametrize(
    ("name", "scopes", "tenant", "said"),
    [
        ("", ("infer",), "", "is not a name of a key"),
        ("a b", ("infer",), "", "is not a name of a key"),
        ("ci", (), "", "has no scope, and would open nothing"),
        ("ci", ("infer",), "a/b", "is no name of a tenant"),
        ("ci", ("infer",), "..", "is no name of a tenant"),
    ],
)
def test_what_no_key_may_have_is_said_and_nothing_is_written(
    keys: KeyStore, name: str, scopes: tuple[str, ...], tenant: str, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        keys.create_key(name, scopes, actor="ann", tenant=tenant)  # type: ignore[arg-type]  # some are no scopes
    assert keys.list_keys() == ([], [])


def test_revoking_again_changes_nothing(keys: KeyStore) -> None:
    created = keys.create_key("ci", ("infer",), actor="ann")
    revoked = keys.revoke_key(created.document.id)
    assert revoked is not None
    assert revoked.revoked is not None
    assert keys.revoke_key(created.document.id) == revoked


def test_a_broken_document_costs_that_key_alone_and_can_be_mended(keys: KeyStore, store: ObjectStore) -> None:
    whole, broken = (keys.create_key(name, ("infer",), actor="ann").document for name in ("whole", "broken"))
    store.put(key_path(broken.id), store.get(key_path(broken.id)).data[:40])
    found, problems = keys.list_keys()
    assert (found, [one.id for one in problems]) == ([whole], [broken.id])
    assert isinstance(problems[0], BrokenKey)
    keys.create_key("another", ("infer",), actor="ann")
    assert keys.find_id("whole") == whole.id
    assert keys.revoke_key(keys.find_id(broken.id)) is None
    assert keys.list_keys()[1] == []


def test_a_document_of_another_id_is_broken(keys: KeyStore, store: ObjectStore) -> None:
    one, other = (keys.create_key(name, ("infer",), actor="ann").document for name in ("one", "other"))
    store.put(key_path(other.id), store.get(key_path(one.id)).data)
    with pytest.raises(BrokenDocumentError, match=f"its id is '{one.id}'"):
        read_key(store, other.id)


def test_an_unknown_name_is_said(keys: KeyStore) -> None:
    with pytest.raises(NotFoundError, match="There is no key 'nobody'"):
        keys.find_id("nobody")


def test_two_racing_creators_leave_a_name_that_must_be_told_apart(keys: KeyStore) -> None:
    one = keys.create_key("ci", ("infer",), actor="ann").document
    other = keys._write_key("ci", ("infer",), "", None, UsageMeter(), "bob").document
    with pytest.raises(ConflictError, match="name one by its id"):
        keys.find_id("ci")
    keys.revoke_key(other.id)
    assert keys.find_id("ci") == one.id


def test_a_rotated_key_keeps_all_but_its_secret(keys: KeyStore) -> None:
    old = keys.create_key("ci", ("infer",), actor="ann", tenant="acme", meter=UsageMeter("v" * 20, "id")).document
    new = keys.rotate_key(old, actor="bob", expires=None)
    assert (new.document.name, new.document.scopes, new.document.tenant) == ("ci", ("infer",), "acme")
    assert (new.document.usage_key, new.document.usage_key_id) == ("v" * 20, "id")
    assert keys.find_id("ci") == new.document.id
    revoked = keys.revoke_key(old.id)
    assert revoked is not None
    assert revoked.usage_key_id == ""  # the meter is the new one's, and does not go with the old

"""Create, list and revoke API keys in the store. Who holds the store's credentials may do it; no function may."""

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import NamedTuple

from msgspec.structs import replace

from pilotlight.contracts.api_key import (
    ID_PATTERN,
    KEYS_FOLDER,
    TENANT_PATTERN,
    ApiKey,
    generate_key,
    hash_key,
    key_path,
)
from pilotlight.contracts.names import check_name
from pilotlight.contracts.scopes import Scope
from pilotlight.errors import AlreadyExistsError, BrokenDocumentError, ConflictError, InvalidInputError, NotFoundError
from pilotlight.storage.documents import Document
from pilotlight.storage.object_store import ObjectStore

READERS = 16  # threads that read documents


class NewKey(NamedTuple):
    """A key that was just created; `key` is shown once, and stored nowhere."""

    document: ApiKey
    key: str


class BrokenKey(NamedTuple):
    """A document that cannot be read: the key opens nothing, and revoking its id removes it."""

    id: str
    problem: str


class UsageMeter(NamedTuple):
    """The key of API Gateway that meters calls; `id` only if it was made for one key alone, and goes with it."""

    value: str = ""
    id: str = ""


STACK_METER = UsageMeter()  # the stack's own, which the authorizer knows


class KeyStore:
    """The keys of one store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def create_key(
        self,
        name: str,
        scopes: Sequence[Scope],
        *,
        actor: str,
        tenant: str = "",
        expires: datetime | None = None,
        meter: UsageMeter = STACK_METER,
    ) -> NewKey:
        """Create a key; raise `AlreadyExistsError` if a valid one has that name."""
        self.check_key(name, scopes, tenant)
        return self._write_key(name, scopes, tenant, expires, meter, actor)

    def rotate_key(self, old: ApiKey, *, actor: str, expires: datetime | None) -> NewKey:
        """Create a key like another one, with its meter, then revoke that one."""
        meter = UsageMeter(old.usage_key, old.usage_key_id)
        created = self._write_key(old.name, old.scopes, old.tenant, expires, meter, actor)
        # The meter goes with the new key from now on.
        self._open_document(old.id).update(lambda one: replace(one, revoked=datetime.now(UTC), usage_key_id=""))
        return created

    def _write_key(
        self,
        name: str,
        scopes: Sequence[Scope],
        tenant: str,
        expires: datetime | None,
        meter: UsageMeter,
        actor: str,
    ) -> NewKey:
        key_id, key = generate_key()
        document = ApiKey(
            id=key_id,
            name=name,
            sha256=hash_key(key),
            scopes=tuple(scopes),
            created=datetime.now(UTC),
            by=actor,
            tenant=tenant,
            expires=expires,
            usage_key=meter.value,
            usage_key_id=meter.id,
        )
        self._open_document(key_id).create(document)
        return NewKey(document, key)

    def check_key(self, name: str, scopes: Sequence[Scope], tenant: str) -> None:
        """Raise `InvalidInputError` for what no key may have, and `AlreadyExistsError` for the name of a valid one."""
        check_name(name, "name of a key")
        if not scopes:
            raise InvalidInputError(f"The key {name!r} has no scope, and would open nothing; give it one.")
        check_tenant(tenant)
        now = datetime.now(UTC)
        if any(one.name == name and one.get_state(now) == "valid" for one in self.list_keys()[0]):
            raise AlreadyExistsError(f"There is a valid key {name!r} already; revoke it first, or take another name.")

    def list_keys(self) -> tuple[list[ApiKey], list[BrokenKey]]:
        """List the keys, the newest last, and those whose documents cannot be read."""
        paths = [path for path in self._store.list_paths(KEYS_FOLDER) if path.endswith(".json")]
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(self._read_or_explain, sorted(paths)))
        keys = sorted((one for one in found if isinstance(one, ApiKey)), key=lambda one: one.created)
        return keys, [one for one in found if isinstance(one, BrokenKey)]

    def find_id(self, name_or_id: str) -> str:
        """Find the id of a key by its id or name; of several with one name, the valid one."""
        keys, broken = self.list_keys()
        if name_or_id in {*(one.id for one in keys), *(one.id for one in broken)}:
            return name_or_id
        named = [one for one in keys if one.name == name_or_id]
        valid = [one for one in named if one.get_state(datetime.now(UTC)) == "valid"]
        if not named:
            raise NotFoundError(f"There is no key {name_or_id!r}; `pilotlight keys list` shows those that there are.")
        if len(valid) > 1:
            raise ConflictError(f"{len(valid)} keys are called {name_or_id!r}: name one by its id, {_join_ids(valid)}.")
        return (valid or named)[-1].id

    def revoke_key(self, key_id: str) -> ApiKey | None:
        """Revoke a key, once; return None where its document could not be read and was removed instead."""

        def revoke(old: ApiKey) -> ApiKey:
            return old if old.revoked is not None else replace(old, revoked=datetime.now(UTC))

        try:
            return self._open_document(key_id).update(revoke)
        except BrokenDocumentError:
            self._store.delete(key_path(key_id))
            return None

    def _read_or_explain(self, path: str) -> ApiKey | BrokenKey | None:
        key_id = path.removeprefix(f"{KEYS_FOLDER}/").removesuffix(".json")
        try:
            return read_key(self._store, key_id)
        except NotFoundError:  # removed since it was listed
            return None
        except BrokenDocumentError as exc:
            return BrokenKey(key_id, str(exc))

    def _open_document(self, key_id: str) -> Document[ApiKey]:
        return open_key_document(self._store, key_id)


def read_key(store: ObjectStore, key_id: str) -> ApiKey:
    """Read the document of a key; raise `BrokenDocumentError` for one that is broken, or of another key."""
    return open_key_document(store, key_id).read()


def open_key_document(store: ObjectStore, key_id: str) -> Document[ApiKey]:
    """Open the document of a key."""
    return Document(store, key_path(key_id), ApiKey, f"`pilotlight keys revoke {key_id}` removes it.", id=key_id)


def list_key_ids(store: ObjectStore) -> frozenset[str]:
    """List the ids of all keys, by one request for each thousand."""
    names = (path.removeprefix(f"{KEYS_FOLDER}/").removesuffix(".json") for path in store.list_paths(KEYS_FOLDER))
    return frozenset(name for name in names if re.fullmatch(ID_PATTERN, name))


def check_tenant(tenant: str) -> None:
    """Raise `InvalidInputError` for what is no name of a tenant; it may be empty."""
    if tenant and re.fullmatch(TENANT_PATTERN, tenant) is None:
        raise InvalidInputError(
            f"{tenant!r} is no name of a tenant: 1 to 64 of A-Z a-z 0-9 . _ @ -, the first a letter or digit."
        )


def _join_ids(keys: Iterable[ApiKey]) -> str:
    return " or ".join(one.id for one in keys)

"""A promotion that somebody has asked for, from the asking to what came of it.

    models/<name>/promotions/<id>.json   written when it is asked for, and once more when it is done

The gate takes minutes, a caller of the API has 29 s. So this document is where one looks: the function that is asked
writes it and starts the gate by an event with the same content, and the gate's function writes how it ended.
"""

import uuid
from typing import Literal

from msgspec.structs import replace

from pilotlight.contracts.manifest import Errand, Version, check_name, decode, encode
from pilotlight.errors import NotFoundError
from pilotlight.registry.alias_updates import now
from pilotlight.storage.object_store import ObjectStore


def asked(model: str, version: Version, alias: str, *, by: str, force: bool, why: str) -> Errand:
    """A new errand."""
    return Errand(uuid.uuid4().hex, model, version, alias, by, now(), force, why)


def ended(errand: Errand, state: Literal["promoted", "refused", "failed"], said: str) -> Errand:
    """The errand with what came of it."""
    return replace(errand, state=state, said=said, done=now())


def keep(store: ObjectStore, errand: Errand) -> Errand:
    """Write an errand down as it is now."""
    store.put(errand_path(errand.model, errand.id), encode(errand))
    return errand


def find(store: ObjectStore, model: str, identity: str) -> Errand:
    """The errand of that id; `NotFoundError` when nobody has asked for it."""
    path = errand_path(check_name(model, "model name"), check_name(identity, "promotion's id"))
    try:
        return decode(store.get(path).data, Errand, path)
    except NotFoundError as exc:
        raise NotFoundError(f"There is no promotion {identity!r} of {model!r}; POST .../promote gives its id.") from exc


def errand_path(model: str, identity: str) -> str:
    """The key of an errand."""
    return f"models/{model}/promotions/{identity}.json"

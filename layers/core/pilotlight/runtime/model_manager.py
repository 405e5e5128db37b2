"""The models of a store as requests see them: which open model answers for a reference.

Aliases are followed, versions loaded on demand, refused ones passed over. It knows references and which part of the
runtime answers for them, not the protocol that asks. What it stands on:

    model_manager -> hot_swap -> model_loader -> model_cache
                              -> alias_cache
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from threading import Thread

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import LoadingError, NotFoundError, PilotlightError, SuspendedError, UnavailableError
from pilotlight.registry.registry import Registry
from pilotlight.registry.signing import PublicKey
from pilotlight.runtime.alias_cache import AliasCache, AliasKey
from pilotlight.runtime.hot_swap import HotSwap
from pilotlight.runtime.model_cache import LoadedModel, ModelCache, VersionKey
from pilotlight.runtime.model_loader import ModelLoader
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore


class ModelManager:
    """The models of a store as one environment serves them. Requests come one at a time; loads run beside them."""

    def __init__(
        self,
        registry: Registry,
        model_cache: ModelCache,
        *,
        memory_mb: int,
        alias_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = registry
        self.model_cache = model_cache
        self._alias_cache = AliasCache(registry, alias_seconds, clock)
        # A version that is named is looked at as often as an alias, so that both changes are noticed equally soon.
        self._loader = ModelLoader(registry, model_cache, memory_mb=memory_mb, check_seconds=alias_seconds, clock=clock)
        self._hot_swap = HotSwap(self._loader, self._alias_cache)

    @classmethod
    def from_settings(cls, settings: Settings, store: ObjectStore) -> "ModelManager":
        """The models of a store as a function with these settings serves them, with nothing loaded yet."""
        public_key = PublicKey.parse(settings.signing_key) if settings.signing_key else None
        model_cache = ModelCache(settings.model_memory_budget)
        return cls(
            Registry(store, public_key), model_cache, memory_mb=settings.memory_mb, alias_seconds=settings.alias_seconds
        )

    @property
    def wait_count(self) -> int:
        """How often a request has waited for a model to be opened."""
        return self._loader.wait_count

    def resolve_manifest(self, reference: ModelReference) -> Manifest:
        """What the store says of the version that is meant, without loading it; `NotFoundError` if there is none."""
        version = reference.version
        if version is None:
            key = reference.name, reference.alias
            self._hot_swap.refresh_if_stale(key, inf)
            version = self._hot_swap.get_active_version(key) or self._alias_cache.get_or_read(key).document.version
        else:
            self._loader.schedule_deletion_check((reference.name, version))
        return self._loader.get_manifest((reference.name, version))

    def get_model(self, reference: ModelReference, deadline: float = inf) -> LoadedModel:
        """The open model that answers for the reference; `deadline` is until when to wait, on time.monotonic's clock.

        A version that is named is served or refused with `ModelRefusedError`. Behind an alias, the version that serves
        answers until the next one has proved itself; where none does yet, a version that cannot be opened is passed
        over for the one that the alias pointed to before. `LoadingError` when the time does not suffice.
        """
        if reference.version is not None:
            self._loader.schedule_deletion_check((reference.name, reference.version))
            return self._loader.open_model((reference.name, reference.version), deadline)
        key = reference.name, reference.alias
        self._hot_swap.refresh_if_stale(key, deadline)
        self._raise_if_suspended(reference)
        model = self._hot_swap.get_active_model(key)
        return model if model is not None else self._load_first(key, deadline)

    def load_in_background(self, reference: ModelReference) -> None:
        """Open this one beside what the caller does next; if it fails, the request that needs it asks again."""

        def open_it() -> None:
            with suppress(PilotlightError):  # a refusal is remembered, and raised to the request that asks
                self.get_model(reference)

        Thread(target=open_it, name="anticipate", daemon=True).start()

    def get_alias_document(self, reference: ModelReference) -> AliasDocument | None:
        """What the alias says, as last read; None where a version is named, or nothing is known of the alias yet."""
        cached = self._alias_cache.get_cached((reference.name, reference.alias)) if reference.version is None else None
        return cached.document if cached is not None else None

    def load_beside(self, key: VersionKey, active: VersionKey) -> LoadedModel | None:
        """Return another version than the active one once it is open and verified; see `HotSwap.load_beside`."""
        return self._hot_swap.load_beside(key, active)

    def reconnect(self, store: ObjectStore) -> None:
        """Read on through another connection to the store, and look at every alias again before it is believed."""
        self.registry.store = store
        self._alias_cache.expire_all()

    def wait_for_background(self, seconds: float = 60.0) -> None:
        """Wait until nothing is being read or opened beside the requests, so many seconds at most."""
        deadline = time.monotonic() + seconds
        self._hot_swap.wait_for_background(deadline)
        self._loader.wait_for_background(deadline)

    def _raise_if_suspended(self, reference: ModelReference) -> None:
        """`SuspendedError` for an alias that was taken out of service, as last read."""
        cached = self._alias_cache.get_cached((reference.name, reference.alias))
        if cached is not None and cached.document.suspended is not None:
            raise build_suspended_error(reference, cached.document)

    def _load_first(self, key: AliasKey, deadline: float) -> LoadedModel:
        """Open a version for an alias that has none open: cold, or its model had to make room for another."""
        # A swap that is running may be opening the next version, in the only room that there is.
        model = self._hot_swap.wait_for_swap(key, deadline)
        if model is not None:
            return model
        failures: list[PilotlightError] = []
        for version in self._list_candidates(key):
            try:
                model = self._loader.open_model((key[0], version), deadline)
            except LoadingError:
                raise
            except (UnavailableError, NotFoundError) as exc:
                failures.append(exc)
            else:
                self._hot_swap.set_active_version(key, version)
                return model
        raise failures[0]

    def _list_candidates(self, key: AliasKey) -> Iterator[int]:
        """The versions that may answer for an alias: the one that has proved itself, the right one, the one before."""
        document = self._alias_cache.get_or_read(key).document
        active = self._hot_swap.get_active_version(key)
        yield from dict.fromkeys(v for v in (active, document.version, document.previous) if v is not None)


def build_suspended_error(reference: ModelReference, document: AliasDocument) -> SuspendedError:
    """The error for an alias that was taken out of service: since when, why, and what works instead; not by whom."""
    suspension = document.suspended
    reason = f"since {suspension.at[:19]}Z: {suspension.reason}" if suspension is not None else "for now"
    return SuspendedError(
        f"{reference} is unloaded {reason}. POST /v2/repository/models/{reference.name}/load resumes it; "
        f"{reference.name}:{document.version} is served when it is named."
    )

"""The models of a store as requests use them: find or open the model for a reference.

Aliases are followed, versions are loaded on demand, and refused ones are skipped. This module depends on references
and on the other parts of the runtime, not on the protocol of a request. Its dependencies:

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
from pilotlight.runtime.model_cache import SESSION_OVERHEAD_BYTES, LoadedModel, ModelCache, VersionKey
from pilotlight.runtime.model_loader import ModelLoader
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore


class ModelManager:
    """The models of a store in one environment. Requests come one at a time; loads run in the background."""

    def __init__(
        self,
        registry: Registry,
        model_cache: ModelCache,
        *,
        memory_mb: int,
        alias_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        cache_bytes: int | None = None,
    ) -> None:
        """Create a manager; language models are opened only with `cache_bytes`, as by `ModelLoader`."""
        self.registry = registry
        self.model_cache = model_cache
        self.memory_mb = memory_mb
        self._alias_cache = AliasCache(registry, alias_seconds, clock)
        # A named version is checked as often as an alias, so that changes of both are noticed equally soon.
        self._loader = ModelLoader(
            registry,
            model_cache,
            memory_mb=memory_mb,
            check_seconds=alias_seconds,
            clock=clock,
            cache_bytes=cache_bytes,
        )
        self._hot_swap = HotSwap(self._loader, self._alias_cache)

    @classmethod
    def from_settings(cls, settings: Settings, store: ObjectStore, *, generates_text: bool = False) -> "ModelManager":
        """Create the manager of a function with these settings, with no model loaded yet.

        Without `generates_text`, it refuses language models, whose engine the function does not bring.
        """
        public_key = PublicKey.parse(settings.signing_key) if settings.signing_key else None
        model_cache = ModelCache(settings.model_memory_budget, SESSION_OVERHEAD_BYTES)
        return cls(
            Registry(store, public_key),
            model_cache,
            memory_mb=settings.memory_mb,
            alias_seconds=settings.alias_seconds,
            cache_bytes=settings.key_value_memory_budget if generates_text else None,
        )

    @property
    def wait_count(self) -> int:
        """The number of times that a request has waited for a model to be opened."""
        return self._loader.wait_count

    def resolve_manifest(self, reference: ModelReference, deadline: float = inf) -> Manifest:
        """Return the manifest of the reference's version, without loading the model.

        It waits for an unknown alias until `deadline`, on time.monotonic's clock. Raises `NotFoundError` if there is
        no such version, `LoadingError` if there is not enough time.
        """
        version = reference.version
        if version is None:
            key = reference.name, reference.alias
            self._hot_swap.refresh_if_stale(key, deadline)
            version = self._hot_swap.get_active_version(key) or self._alias_cache.get_or_read(key).document.version
        else:
            self._loader.schedule_deletion_check((reference.name, version))
        return self._loader.get_manifest((reference.name, version))

    def get_model(self, reference: ModelReference, deadline: float = inf) -> LoadedModel:
        """Return the open model for the reference; wait for it until `deadline`, on time.monotonic's clock.

        A named version is served, or refused with `ModelRefusedError`. Behind an alias, the active version serves until
        the next one is verified; if none is active yet and the version cannot be opened, the one that the alias pointed
        to before is used instead. Raises `LoadingError` if there is not enough time.
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
        """Open this model in the background; if that fails, the request that needs the model tries again."""

        def open_it() -> None:
            with suppress(PilotlightError):  # a refusal is kept, and raised to the request that needs the model
                self.get_model(reference)

        Thread(target=open_it, name="anticipate", daemon=True).start()

    def get_alias_document(self, reference: ModelReference) -> AliasDocument | None:
        """Return the alias document as last read; None if a version is named or the alias was not read yet."""
        cached = self._alias_cache.get_cached((reference.name, reference.alias)) if reference.version is None else None
        return cached.document if cached is not None else None

    def load_beside(self, key: VersionKey, active: VersionKey) -> LoadedModel | None:
        """Return another version than the active one once it is open and verified; see `HotSwap.load_beside`."""
        return self._hot_swap.load_beside(key, active)

    def reconnect(self, store: ObjectStore) -> None:
        """Replace the connection to the store, and read every alias again before its next use."""
        self.registry.store = store
        self._alias_cache.expire_all()

    def wait_for_background(self, seconds: float = 60.0) -> None:
        """Wait until nothing is being read or opened in the background, at most `seconds`."""
        deadline = time.monotonic() + seconds
        self._hot_swap.wait_for_background(deadline)
        self._loader.wait_for_background(deadline)

    def _raise_if_suspended(self, reference: ModelReference) -> None:
        """Raise `SuspendedError` if the alias, as last read, was taken out of service."""
        cached = self._alias_cache.get_cached((reference.name, reference.alias))
        if cached is not None and cached.document.suspended is not None:
            raise build_suspended_error(reference, cached.document)

    def _load_first(self, key: AliasKey, deadline: float) -> LoadedModel:
        """Open a version for an alias without an open one: after a cold start, or after its model was evicted."""
        # A running swap may be opening the next version, and hold all the memory for models.
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
        """List the versions that may serve for an alias: the active one, the one it points to, the previous one."""
        document = self._alias_cache.get_or_read(key).document
        active = self._hot_swap.get_active_version(key)
        yield from dict.fromkeys(v for v in (active, document.version, document.previous) if v is not None)


def build_suspended_error(reference: ModelReference, document: AliasDocument) -> SuspendedError:
    """Build the error for a suspended alias: since when, why, and what works instead, but not who suspended it."""
    suspension = document.suspended
    reason = f"since {suspension.at[:19]}Z: {suspension.reason}" if suspension is not None else "for now"
    return SuspendedError(
        f"{reference} is unloaded {reason}. POST /v2/repository/models/{reference.name}/load resumes it; "
        f"{reference.name}:{document.version} is served when it is named."
    )

"""Which open model answers for a reference: aliases are followed, versions loaded on demand, broken ones passed over.

It knows the registry and warm memory, not the protocol that asks. A version that is to take over from one that serves
comes in by `runtime.swap`, beside the requests.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import ceil, inf
from threading import Thread
from typing import TypeVar

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import (
    LoadingError,
    ModelRefusedError,
    NotFoundError,
    PilotlightError,
    SuspendedError,
    UnavailableError,
)
from pilotlight.observability.emf import count
from pilotlight.registry.registry import Registry, version_path
from pilotlight.registry.signing import PublicKey
from pilotlight.runtime.alias_cache import AliasCache, AliasKey, CachedAlias
from pilotlight.runtime.assets import load_assets
from pilotlight.runtime.hot_swap import STALE_FACTOR, STALE_WAIT_SECONDS, HotSwap
from pilotlight.runtime.load_time import LoadTimeEstimator
from pilotlight.runtime.malloc import return_freed_memory
from pilotlight.runtime.model_cache import LoadedModel, ModelCache, VersionKey
from pilotlight.runtime.model_files import open_model_files
from pilotlight.runtime.session import open_session
from pilotlight.runtime.single_flight import BackgroundTask, SingleFlight
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore

Document = TypeVar("Document")
LOG = logging.getLogger("pilotlight.runtime")
REFUSED_SECONDS = 60.0  # a version that was refused is not fetched again for so long
MAX_LOAD_WAIT_SECONDS = 25.0  # s that a request can wait for a load at most; the gateway gives up after 29


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
        self.wait_count = 0  # how often a request has waited for a model to be opened
        self._memory_mb = memory_mb
        self._alias_seconds = alias_seconds
        self._clock = clock
        self._manifests: dict[VersionKey, Manifest] = {}  # never change, but a version may be deleted
        self._last_seen: dict[VersionKey, float] = {}  # when a version was last seen in the store, on the clock
        self._alias_cache = AliasCache(registry, clock)
        self._active_versions: dict[
            AliasKey, int
        ] = {}  # the version that answers for an alias; set by requests and swaps
        self._refusals: dict[VersionKey, tuple[ModelRefusedError, float]] = {}
        self._load_times = LoadTimeEstimator()
        self._model_loads: SingleFlight[VersionKey, LoadedModel] = SingleFlight(self._load_version)
        self._alias_reads: SingleFlight[AliasKey, CachedAlias] = SingleFlight(self._alias_cache.get_or_read)
        self._manifest_reads: SingleFlight[VersionKey, Manifest] = SingleFlight(self.get_manifest)
        hot_swap = HotSwap(self, self._alias_cache, self._active_versions)
        self._alias_refreshes: SingleFlight[AliasKey, None] = SingleFlight(hot_swap.refresh)
        self._deletion_checks: SingleFlight[VersionKey, None] = SingleFlight(self._forget_if_deleted)
        self._side_loads: SingleFlight[tuple[VersionKey, VersionKey], None] = SingleFlight(hot_swap.load_beside)
        self._verified_versions: set[VersionKey] = set()  # versions that have been tried out

    @classmethod
    def from_settings(cls, settings: Settings, store: ObjectStore) -> "ModelManager":
        """The models of a store as a function with these settings serves them, with nothing loaded yet."""
        public_key = PublicKey.parse(settings.signing_key) if settings.signing_key else None
        model_cache = ModelCache(settings.model_memory_budget)
        return cls(
            Registry(store, public_key), model_cache, memory_mb=settings.memory_mb, alias_seconds=settings.alias_seconds
        )

    def resolve_manifest(self, reference: ModelReference) -> Manifest:
        """What the store says of the version that is meant, without loading it; `NotFoundError` if there is none."""
        version = reference.version
        if version is None:
            key = reference.name, reference.alias
            self._refresh_if_stale(key, inf)
            version = self._active_versions.get(key) or self._get_alias_version(key)
        else:
            self._schedule_deletion_check((reference.name, version))
        return self.get_manifest((reference.name, version))

    def get_manifest(self, key: VersionKey) -> Manifest:
        """The manifest of a version."""
        if key not in self._manifests:
            self._manifests[key] = self.registry.load_manifest(*key)
            self._last_seen[key] = self._clock()
        return self._manifests[key]

    def get_model(self, reference: ModelReference, deadline: float = inf) -> LoadedModel:
        """The open model that answers for the reference; `deadline` is until when to wait, on time.monotonic's clock.

        A version that is named is served or refused with `ModelRefusedError`. Behind an alias, the version that serves
        answers until the next one has proved itself; where none does yet, a version that cannot be opened is passed
        over for the one that the alias pointed to before. `LoadingError` when the time does not suffice.
        """
        if reference.version is not None:
            self._schedule_deletion_check((reference.name, reference.version))
            return self._open_version((reference.name, reference.version), deadline)
        key = reference.name, reference.alias
        self._refresh_if_stale(key, deadline)
        self._raise_if_suspended(reference)
        model = self._active_model(key)
        return model if model is not None else self._load_first(key, deadline)

    def load_in_background(self, reference: ModelReference) -> None:
        """Open this one beside what the caller does next; if it fails, the request that needs it asks again."""

        def open_it() -> None:
            with suppress(PilotlightError):  # a refusal has been noted, and is told to who asks
                self.get_model(reference)

        Thread(target=open_it, name="anticipate", daemon=True).start()

    def get_alias_document(self, reference: ModelReference) -> AliasDocument | None:
        """What the alias says, as last read; None where a version is named, or nothing is known of the alias yet."""
        cached = self._alias_cache.get_cached((reference.name, reference.alias)) if reference.version is None else None
        return cached.document if cached is not None else None

    def load_beside(self, key: VersionKey, active: VersionKey) -> LoadedModel | None:
        """Another version than the one that serves, open and proved; None while it is being opened beside requests.

        `ModelRefusedError` when it cannot be, or does not fit into memory beside the one that serves.
        """
        model = self.model_cache.get(key)
        if model is not None and key in self._verified_versions:
            return model
        self.raise_if_refused(key)
        if self.model_cache.get(active) is not None:
            self._side_loads.start((key, active))
        return None

    def wait_for_background(self, seconds: float = 60.0) -> None:
        """Wait until nothing is being read or opened beside the requests, so many seconds at most."""
        deadline = time.monotonic() + seconds
        for task in (*self._alias_refreshes.running(), *self._deletion_checks.running(), *self._side_loads.running()):
            task.wait_until(deadline)
        for load in self._model_loads.running():
            load.wait_until(deadline)

    def _refresh_if_stale(self, key: AliasKey, deadline: float) -> None:
        """See to it that the alias is known, and looked at again in its time.

        Beside the request, unless it is very old: a machine that was frozen for an hour has had no time to look, so the
        request gives the look some, and goes on with what serves if that is not enough.
        """
        cached = self._alias_cache.get_cached(key)
        if cached is None:
            self._wait_for_document(self._alias_reads.start(key), deadline, f"{key[0]}@{key[1]}")
            return
        age = self._clock() - cached.read_at
        if age < self._alias_seconds:
            return
        refresh = self._alias_refreshes.start(key)
        if age >= STALE_FACTOR * self._alias_seconds:
            refresh.wait_until(min(deadline, time.monotonic() + STALE_WAIT_SECONDS))

    def _schedule_deletion_check(self, key: VersionKey) -> None:
        """See to it that the deletion of a version that callers name is noticed as soon as the move of an alias is.

        An alias's own version needs no look: it cannot be deleted.
        """
        now = self._clock()
        if now - self._last_seen.get(key, now) >= self._alias_seconds:
            self._last_seen[key] = now
            self._deletion_checks.start(key)

    def _forget_if_deleted(self, key: VersionKey) -> None:
        """Forget a version that is not there any more; a store that does not answer says nothing of it."""
        try:
            self.registry.store.get_size(version_path(*key, "manifest.json"))
        except NotFoundError:
            self._manifests.pop(key, None)
            self._last_seen.pop(key, None)
            self._verified_versions.discard(key)
            self.model_cache.evict(key)

    def _raise_if_suspended(self, reference: ModelReference) -> None:
        """`SuspendedError` for an alias that was taken out of service, as last read."""
        cached = self._alias_cache.get_cached((reference.name, reference.alias))
        if cached is not None and cached.document.suspended is not None:
            raise build_suspended_error(reference, cached.document)

    def _active_model(self, key: AliasKey) -> LoadedModel | None:
        """The open model of the version that serves under the alias."""
        version = self._active_versions.get(key)
        return self.model_cache.get((key[0], version)) if version is not None else None

    def _get_alias_version(self, key: AliasKey) -> int:
        """The version that the alias points to, as last read."""
        return self._alias_cache.get_or_read(key).document.version

    def _load_first(self, key: AliasKey, deadline: float) -> LoadedModel:
        """Open a version for an alias that has none open: cold, or its model had to make room for another."""
        refresh = self._alias_refreshes.find_running(key)
        # A swap under way may be opening the next version, in the only room that there is.
        if refresh is not None and refresh.wait_until(deadline):
            model = self._active_model(key)
            if model is not None:
                return model
        failures: list[PilotlightError] = []
        for version in self._list_candidates(key):
            try:
                model = self._open_version((key[0], version), deadline)
            except LoadingError:
                raise
            except (UnavailableError, NotFoundError) as exc:
                failures.append(exc)
            else:
                self._active_versions[key] = version
                return model
        raise failures[0]

    def reconnect(self, store: ObjectStore) -> None:
        """Read on through another connection to the store, and look at every alias again before it is believed."""
        self.registry.store = store
        self._alias_cache.expire_all()

    def _list_candidates(self, key: AliasKey) -> Iterator[int]:
        """The versions that may answer for an alias: the one that has proved itself, the right one, the one before."""
        document = self._alias_cache.get_or_read(key).document
        active = self._active_versions.get(key)
        yield from dict.fromkeys(v for v in (active, document.version, document.previous) if v is not None)

    def _open_version(self, key: VersionKey, deadline: float) -> LoadedModel:
        """The open version; waits for it to be opened, and no longer than `deadline`."""
        model = self.model_cache.get(key)
        if model is not None:
            return model
        self.raise_if_refused(key)
        manifest = self._manifests.get(key) or self._wait_for_document(
            self._manifest_reads.start(key), deadline, f"{key[0]}:{key[1]}"
        )
        self._raise_if_too_late(manifest, deadline)
        self.wait_count += 1
        started_at = time.monotonic()
        load = self._model_loads.start(key)
        if not load.wait_until(deadline):
            raise self._build_loading_error(
                manifest, f"is being opened, for {time.monotonic() - load.started_at:.0f} s so far"
            )
        model = load.result()
        if (
            load.started_at >= started_at
        ):  # otherwise the environment may have been frozen meanwhile, and the time says nothing
            self._load_times.record_load(key, manifest.served_bytes, time.monotonic() - started_at)
        return model

    def _wait_for_document(self, read: BackgroundTask[Document], deadline: float, what: str) -> Document:
        """A document of the store, if it comes in time."""
        if read.wait_until(deadline):
            return read.result()
        raise LoadingError(f"The store has not said yet what {what} is; try again.", retry_after=1)

    def _raise_if_too_late(self, manifest: Manifest, deadline: float) -> None:
        """Begin no load that this request cannot await; one that no request can goes on while callers come again."""
        key = manifest.name, manifest.version
        left, needed = (
            max(0.0, deadline - time.monotonic()),
            self._load_times.estimate_seconds(key, manifest.served_bytes),
        )
        if left < needed <= MAX_LOAD_WAIT_SECONDS:
            raise self._build_loading_error(
                manifest, f"takes about {needed:.1f} s to open, and this request has {left:.1f} s left"
            )

    def _build_loading_error(self, manifest: Manifest, reason: str) -> LoadingError:
        key = manifest.name, manifest.version
        wait = max(1, ceil(self._load_times.estimate_seconds(key, manifest.served_bytes)))
        return LoadingError(f"{manifest.name}:{manifest.version} {reason}; try again in {wait} s.", retry_after=wait)

    def mark_verified(self, key: VersionKey) -> None:
        """The version has answered its golden requests."""
        self._verified_versions.add(key)

    def start_load(self, key: VersionKey) -> BackgroundTask[LoadedModel]:
        """Begin to open a version, or join in."""
        return self._model_loads.start(key)

    def refuse_version(self, key: VersionKey, error: ModelRefusedError) -> None:
        """Close a version, say why in log and metrics, and do not try it again for a while."""
        self.model_cache.evict(key)
        self._refusals[key] = error, self._clock()
        LOG.error("%s", error)
        count("ModelRefused", model=key[0])

    def raise_if_refused(self, key: VersionKey) -> None:
        """`ModelRefusedError` while the version's last refusal is fresh."""
        error, refused_at = self._refusals.get(key, (None, 0.0))
        if error is not None and self._clock() - refused_at < REFUSED_SECONDS:
            raise error.with_traceback(None)  # otherwise each raise would add to its traceback

    def _load_version(self, key: VersionKey) -> LoadedModel:
        """Fetch, check and open a version, in a thread of its own; the outcome is kept either way.

        Another load may have ended after whoever began this one had looked: what that one kept counts.
        """
        model = self.model_cache.get(key)
        if model is not None:
            return model
        self.raise_if_refused(key)
        manifest = self.get_manifest(key)
        try:
            self.model_cache.reserve_room(manifest)
            model = self._fetch_and_open(manifest)
        except ModelRefusedError as exc:
            self.refuse_version(key, exc)
            raise
        finally:
            self.model_cache.release_room(key)
        self.model_cache.put(model)
        return model

    def _fetch_and_open(self, manifest: Manifest) -> LoadedModel:
        # Where no version of the model is open, a request is waiting for this one: it should answer soon.
        is_first = manifest.name not in {name for name, _ in list(self.model_cache.keys())}
        with open_model_files(self.registry.store, manifest) as path, return_freed_memory():
            session = open_session(path, self._memory_mb, quick=is_first)
        check_graph_signature(manifest, "inputs", session.inputs, manifest.inputs)
        check_graph_signature(manifest, "outputs", session.outputs, manifest.outputs)
        return LoadedModel(manifest, session, manifest.served_bytes, load_assets(self.registry.store, manifest))


def build_suspended_error(reference: ModelReference, document: AliasDocument) -> SuspendedError:
    """The error for an alias that was taken out of service: since when, why, and what works instead; not by whom."""
    suspension = document.suspended
    reason = f"since {suspension.at[:19]}Z: {suspension.reason}" if suspension is not None else "for now"
    return SuspendedError(
        f"{reference} is unloaded {reason}. POST /v2/repository/models/{reference.name}/load resumes it; "
        f"{reference.name}:{document.version} is served when it is named."
    )


def check_graph_signature(
    manifest: Manifest, kind: str, actual: Sequence[TensorSpec], declared: Sequence[TensorSpec]
) -> None:
    """Refuse a graph whose signature is not the one that its manifest promises to callers."""
    graph, contract = ([(spec.name, spec.datatype, spec.v2_shape) for spec in specs] for specs in (actual, declared))
    if graph != contract:
        raise ModelRefusedError(
            f"{manifest.name}:{manifest.version} is refused: the graph's {kind} are {graph}, the manifest promises "
            f"{contract}; publish the model again as a new version."
        )

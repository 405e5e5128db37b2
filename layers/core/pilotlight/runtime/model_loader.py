"""Open versions in the background: each once at a time, and refused ones not again for a while.

This module keeps each version's manifest, refusal, verification and load time. It does not depend on aliases or on
which version serves.
"""

import logging
import time
from collections.abc import Callable, Sequence
from math import ceil, inf

from pilotlight.contracts.manifest import Manifest, TensorSpec
from pilotlight.errors import InvalidInputError, LoadingError, ModelRefusedError, NotFoundError
from pilotlight.observability.emf import count
from pilotlight.registry.registry import Registry, version_path
from pilotlight.runtime import malloc
from pilotlight.runtime.fetch_progress import FETCHES
from pilotlight.runtime.load_time import OPEN_BYTES_PER_S, LoadTimeEstimator
from pilotlight.runtime.model_cache import Assets, LoadedModel, ModelCache, VersionKey
from pilotlight.runtime.model_files import open_model_files, read_asset
from pilotlight.runtime.session import open_session
from pilotlight.runtime.single_flight import BackgroundTask, SingleFlight, wait_for_document
from pilotlight.storage.object_store import ObjectStore

LOG = logging.getLogger("pilotlight.runtime")
MAX_MANIFESTS = 1000  # that are kept, of about 10 kB each
REFUSED_SECONDS = 60.0  # s after a refusal during which the version is not fetched again
MIN_TOLD_BYTES = 1_000_000  # of a fetch whose progress is told
MAX_LOAD_WAIT_SECONDS = 25.0  # s that a request can wait for a load; the gateway gives up after 29 s
SignatureEntry = tuple[str, str, list[int]]  # of a tensor: its name, datatype and shape in V2


class ModelLoader:
    """Opens the versions of a store into a model cache. Thread-safe."""

    def __init__(
        self,
        registry: Registry,
        model_cache: ModelCache,
        *,
        memory_mb: int,
        check_seconds: float,
        clock: Callable[[], float],
        cache_bytes: int | None = None,
    ) -> None:
        """Open versions; language models only with `cache_bytes`, which each of them may keep of keys and values."""
        self.registry = registry
        self.model_cache = model_cache
        self.wait_count = 0  # times that a request has waited for a model to be opened
        self._memory_mb = memory_mb
        self._cache_bytes = cache_bytes
        self._check_seconds = check_seconds  # s between two checks whether a version was deleted
        self._clock = clock
        self._manifests: dict[VersionKey, Manifest] = {}  # immutable, but a version may be deleted
        self._last_seen: dict[VersionKey, float] = {}  # time on the clock when a version was last in the store
        self._refusals: dict[VersionKey, tuple[ModelRefusedError, float]] = {}  # each with its time on the clock
        self._reports: dict[VersionKey, float] = {}  # when a version without a trusted signature was last reported
        self._verified_versions: set[VersionKey] = set()  # those that answered their golden requests correctly
        self._load_times = LoadTimeEstimator()
        self._manifest_reads: SingleFlight[VersionKey, Manifest] = SingleFlight(self.get_manifest)
        self._loads: SingleFlight[VersionKey, LoadedModel] = SingleFlight(self._load_version)
        self._deletion_checks: SingleFlight[VersionKey, None] = SingleFlight(self._forget_if_deleted)

    def get_manifest(self, key: VersionKey) -> Manifest:
        """Return the manifest of a version; read it if it is not known yet."""
        if key not in self._manifests:
            self._manifests[key] = self._read_manifest(key)
            self._last_seen[key] = self._clock()
            self._drop_oldest_manifests()
        return self._manifests[key]

    def _read_manifest(self, key: VersionKey) -> Manifest:
        """Read a manifest; report one that nobody trusted has signed, which the next request reads again."""
        try:
            return self.registry.load_manifest(*key)
        except ModelRefusedError as exc:
            now = self._clock()
            if now - self._reports.get(key, -inf) >= REFUSED_SECONDS:
                self._reports[key] = now
                report_refusal(key, exc)
            raise

    def _drop_oldest_manifests(self) -> None:
        """Forget the manifests that were read first, beyond `MAX_MANIFESTS`; an open version has its own."""
        for key in list(self._manifests)[:-MAX_MANIFESTS]:
            self._manifests.pop(key, None)
            self._last_seen.pop(key, None)

    def open_model(self, key: VersionKey, deadline: float) -> LoadedModel:
        """Return the open version; wait until `deadline`, on time.monotonic's clock, for it to be opened.

        Raises `LoadingError` if there is not enough time, `ModelRefusedError` if the version cannot be served.
        """
        model = self.model_cache.get(key)
        if model is not None:
            return model
        self.raise_if_refused(key)
        manifest = self._manifests.get(key) or wait_for_document(
            self._manifest_reads.start(key), deadline, f"{key[0]}:{key[1]}"
        )
        self._check_task(manifest)
        self._raise_if_too_late(manifest, deadline)
        return self._wait_for_load(manifest, deadline)

    def start_load(self, key: VersionKey) -> BackgroundTask[LoadedModel]:
        """Start to open a version, or join the load that is running."""
        return self._loads.start(key)

    def mark_verified(self, key: VersionKey) -> None:
        """Record that the version answered its golden requests correctly."""
        self._verified_versions.add(key)

    def is_verified(self, key: VersionKey) -> bool:
        """Return whether the version answered its golden requests correctly in this environment."""
        return key in self._verified_versions

    def refuse_version(self, key: VersionKey, error: ModelRefusedError) -> None:
        """Close a version, report it, and refuse it for `REFUSED_SECONDS`."""
        self.model_cache.evict(key)
        self._refusals[key] = error, self._clock()
        report_refusal(key, error)

    def is_refused(self, key: VersionKey) -> bool:
        """Return whether the version was refused within `REFUSED_SECONDS`."""
        return self._find_refusal(key) is not None

    def raise_if_refused(self, key: VersionKey) -> None:
        """Raise `ModelRefusedError` if the version was refused within `REFUSED_SECONDS`."""
        error = self._find_refusal(key)
        if error is not None:
            raise error.with_traceback(None)  # otherwise each raise would add to its traceback

    def schedule_deletion_check(self, key: VersionKey) -> None:
        """Check in the background, once in `check_seconds`, whether a version that callers name was deleted."""
        now = self._clock()
        if now - self._last_seen.get(key, now) >= self._check_seconds:
            self._last_seen[key] = now
            self._deletion_checks.start(key)

    def wait_for_background(self, deadline: float) -> None:
        """Wait until no version is being checked or opened, at most until `deadline`."""
        self._deletion_checks.wait_for_all(deadline)
        self._loads.wait_for_all(deadline)

    def _find_refusal(self, key: VersionKey) -> ModelRefusedError | None:
        error, refused_at = self._refusals.get(key, (None, 0.0))
        return error if self._clock() - refused_at < REFUSED_SECONDS else None

    def _forget_if_deleted(self, key: VersionKey) -> None:
        """Forget a version whose manifest was deleted; other errors of the store are no sign of that."""
        try:
            self.registry.store.get_size(version_path(*key, "manifest.json"))
        except NotFoundError:
            self._manifests.pop(key, None)
            self._last_seen.pop(key, None)
            self._verified_versions.discard(key)
            self.model_cache.evict(key)

    def _raise_if_too_late(self, manifest: Manifest, deadline: float) -> None:
        """Raise `LoadingError` instead of starting a load that this request cannot wait for.

        A load that takes longer than any request can wait is started: it continues while callers try again.
        """
        left, needed = max(0.0, deadline - time.monotonic()), self._estimate_seconds(manifest)
        if left < needed <= MAX_LOAD_WAIT_SECONDS:
            raise self._build_loading_error(
                manifest, f"takes about {needed:.1f} s to open, and this request has {left:.1f} s left"
            )

    def _wait_for_load(self, manifest: Manifest, deadline: float) -> LoadedModel:
        """Start a load or join a running one, wait for it, and record the time that it took."""
        key = manifest.name, manifest.version
        self.wait_count += 1
        started_at = time.monotonic()
        load = self._loads.start(key)
        if not load.wait_until(deadline):
            raise self._build_progress_error(manifest, time.monotonic() - load.started_at)
        model = load.result()
        # An earlier load may have been frozen with the environment, so its time is no measurement.
        if load.started_at >= started_at:
            self._load_times.record_load(key, manifest.served_bytes, time.monotonic() - started_at)
        return model

    def _build_progress_error(self, manifest: Manifest, seconds: float) -> LoadingError:
        """Build the error for a load that has been running for `seconds`, with the bytes that have arrived."""
        fetch = FETCHES.find((manifest.name, manifest.version))
        left = max(0.0, self._estimate_seconds(manifest) - seconds)
        said = f"is being opened, for {seconds:.0f} s so far"
        if fetch is not None and fetch.total_bytes >= MIN_TOLD_BYTES:
            said += f", with {fetch.fetched_bytes / 1e6:,.0f} of {fetch.total_bytes / 1e6:,.0f} MB fetched"
            fetch_left = fetch.estimate_seconds_left()
            left = left if fetch_left is None else fetch_left + fetch.total_bytes / OPEN_BYTES_PER_S
        return self._build_loading_error(manifest, said, left)

    def _build_loading_error(self, manifest: Manifest, reason: str, seconds_left: float | None = None) -> LoadingError:
        seconds = self._estimate_seconds(manifest) if seconds_left is None else seconds_left
        wait = max(1, ceil(seconds))
        return LoadingError(f"{manifest.name}:{manifest.version} {reason}; try again in {wait} s.", retry_after=wait)

    def _estimate_seconds(self, manifest: Manifest) -> float:
        return self._load_times.estimate_seconds((manifest.name, manifest.version), manifest.served_bytes)

    def _load_version(self, key: VersionKey) -> LoadedModel:
        """Fetch, check and open a version in its own thread; keep the model, or the refusal.

        Another load may have ended between the caller's check and the start of this one: then its outcome counts.
        """
        model = self.model_cache.get(key)
        if model is not None:
            return model
        self.raise_if_refused(key)
        manifest = self.get_manifest(key)
        self._check_task(manifest)
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

    def _check_task(self, manifest: Manifest) -> None:
        """Raise `InvalidInputError` for a language model where none is opened, with the routes that answer for it."""
        if manifest.decoder is not None and self._cache_bytes is None:
            name = manifest.name
            raise InvalidInputError(
                f"{name}:{manifest.version} is a language model, which answers at /v2/models/{name}/generate, "
                "/v1/chat/completions and /v1/completions."
            )

    def _fetch_and_open(self, manifest: Manifest) -> LoadedModel:
        allocated_bytes = malloc.count_allocated_bytes()
        if manifest.decoder is not None and self._cache_bytes is not None:
            from pilotlight.runtime.language_model_loading import open_language_model  # few functions generate

            opened = open_language_model(self.registry.store, manifest, self._memory_mb, self._cache_bytes)
            return LoadedModel(
                manifest, opened.session, self._compute_size(manifest, allocated_bytes), language_model=opened.model
            )
        # If no version of the model is open, a request is waiting for this one, which should answer soon.
        is_first = manifest.name not in {name for name, _ in list(self.model_cache.keys())}
        with open_model_files(self.registry.store, manifest) as path, malloc.return_freed_memory():
            session = open_session(path, self._memory_mb, quick=is_first)
        check_graph_signature(manifest, "inputs", session.inputs, manifest.inputs)
        check_graph_signature(manifest, "outputs", session.outputs, manifest.outputs)
        assets = load_assets(self.registry.store, manifest)
        return LoadedModel(manifest, session, self._compute_size(manifest, allocated_bytes), assets)

    def _compute_size(self, manifest: Manifest, allocated_before: int) -> int:
        """Compute what a version counts for that was opened since `allocated_before` bytes were allocated."""
        return self.model_cache.compute_size(manifest, malloc.count_allocated_bytes() - allocated_before)


def report_refusal(key: VersionKey, error: ModelRefusedError) -> None:
    """Log why a version is not served, and count the metric of the alarm `Refused`."""
    LOG.error("%s", error)
    count("ModelRefused", model=key[0])


def load_assets(store: ObjectStore, manifest: Manifest) -> Assets:
    """Fetch and check the assets of a version; raises `ModelRefusedError` as `open_model_files` does."""
    return Assets({file.path: read_asset(store, manifest, file) for file in manifest.asset_files})


def check_graph_signature(
    manifest: Manifest, kind: str, actual: Sequence[TensorSpec], declared: Sequence[TensorSpec]
) -> None:
    """Refuse a graph whose signature differs from its manifest."""
    graph, contract = ([(spec.name, spec.datatype, spec.v2_shape) for spec in specs] for specs in (actual, declared))
    if graph != contract and not is_refined_signature(graph, contract):
        raise ModelRefusedError(
            f"{manifest.name}:{manifest.version} is refused: the graph's {kind} are {graph}, the manifest promises "
            f"{contract}; publish the model again as a new version."
        )


def is_refined_signature(graph: Sequence[SignatureEntry], contract: Sequence[SignatureEntry]) -> bool:
    """Return whether the manifest only adds how many dimensions a tensor has, which onnxruntime does not always say."""
    return len(graph) == len(contract) and all(
        given == promised or (given[:2] == promised[:2] and not given[2] and set(promised[2]) == {-1})
        for given, promised in zip(graph, contract, strict=True)
    )

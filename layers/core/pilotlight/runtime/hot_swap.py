"""The verified hot swap: in the background, read an alias again, then open and verify its next version.

It runs in a thread that Lambda may freeze at any point, so no correctness depends on its progress: its result becomes
visible by one assignment, and only if the alias still has the document that the thread read (decision 0019).
"""

import logging
import time
from math import inf
from pathlib import Path

from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import (
    BrokenDocumentError,
    DoesNotFitError,
    InvalidInputError,
    ModelRefusedError,
    PilotlightError,
)
from pilotlight.observability.emf import count
from pilotlight.runtime.alias_cache import AliasCache, AliasKey, CachedAlias
from pilotlight.runtime.golden import GoldenDocument
from pilotlight.runtime.golden_replay import replay_document
from pilotlight.runtime.model_cache import LoadedModel, VersionKey
from pilotlight.runtime.model_files import RUNTIME, build_refused_error, find_mismatch, open_model_files
from pilotlight.runtime.model_loader import ModelLoader
from pilotlight.runtime.single_flight import SingleFlight
from pilotlight.storage.object_store import ObjectStore

LOG = logging.getLogger("pilotlight.runtime")
STALE_FACTOR = 6.0  # multiples of the maximum age; a request waits while an older alias is read again
# s that such a request waits, enough for about 200 MB on Lambda; then the active version answers.
STALE_WAIT_SECONDS = 5.0


class HotSwap:
    """The active version of each alias, and the replacement of it when the alias moves."""

    def __init__(self, loader: ModelLoader, alias_cache: AliasCache) -> None:
        self._loader = loader
        self._model_cache = loader.model_cache
        self._alias_cache = alias_cache
        self._active_versions: dict[AliasKey, int] = {}  # set by requests and swaps
        self._refreshes: SingleFlight[AliasKey, None] = SingleFlight(self._refresh)
        self._side_loads: SingleFlight[tuple[VersionKey, VersionKey], None] = SingleFlight(self._open_beside)

    def get_active_version(self, key: AliasKey) -> int | None:
        """Return the version that serves under the alias; None before the first one is open."""
        return self._active_versions.get(key)

    def set_active_version(self, key: AliasKey, version: int) -> None:
        """Make an open version the one that serves under the alias."""
        self._active_versions[key] = version

    def get_active_model(self, key: AliasKey) -> LoadedModel | None:
        """Return the model that serves under the alias; None if it is not open."""
        version = self._active_versions.get(key)
        return self._model_cache.get((key[0], version)) if version is not None else None

    def refresh_if_stale(self, key: AliasKey, deadline: float) -> None:
        """Read an unknown alias; read a stale one again in the background and swap in its version.

        A request waits for the refresh of a very old alias, since an environment that was frozen for an hour had no
        time for it: at most `STALE_WAIT_SECONDS` and half of its time, after which the active version answers.
        """
        age, max_age = self._alias_cache.get_age(key), self._alias_cache.max_age_seconds
        if age is None:
            self._alias_cache.wait_for_read(key, deadline)
        elif age >= max_age:
            refresh = self._refreshes.start(key)
            if age >= STALE_FACTOR * max_age:
                now = time.monotonic()
                refresh.wait_until(now + min(STALE_WAIT_SECONDS, (deadline - now) / 2))

    def wait_for_swap(self, key: AliasKey, deadline: float) -> LoadedModel | None:
        """Wait until `deadline` for a running refresh of the alias; return the model that serves after it."""
        refresh = self._refreshes.find_running(key)
        return self.get_active_model(key) if refresh is not None and refresh.wait_until(deadline) else None

    def load_beside(self, key: VersionKey, active: VersionKey) -> LoadedModel | None:
        """Return a version once it is open and verified; None while it is being opened beside the active one.

        Raises `ModelRefusedError` if it cannot be opened, or does not fit into memory beside the active one.
        """
        model = self._model_cache.get(key)
        if model is not None and self._loader.is_verified(key):
            return model
        self._loader.raise_if_refused(key)
        if self._model_cache.get(active) is not None:
            self._side_loads.start((key, active))
        return None

    def wait_for_background(self, deadline: float) -> None:
        """Wait until no alias is being read and no version is being opened, at most until `deadline`."""
        self._refreshes.wait_for_all(deadline)
        self._side_loads.wait_for_all(deadline)

    def _refresh(self, key: AliasKey) -> None:
        """Read the alias; if it has moved, open, verify and swap in its version. Never raises."""
        try:
            self._refresh_alias(key)
        except PilotlightError as exc:
            LOG.warning("%s@%s keeps version %s: %s", *key, self._active_versions.get(key), exc)
            count("SwapFailed", model=key[0])
        except Exception:  # the last resort: no caller reads this thread's result, so a bug must reach the log
            LOG.exception("%s@%s keeps version %s", *key, self._active_versions.get(key))

    def _refresh_alias(self, key: AliasKey) -> None:
        cached = self._alias_cache.refresh(key)
        active, target = self._active_versions.get(key), cached.document.version
        if active is None or active == target or self._loader.is_refused((key[0], target)):
            return
        manifest = self._loader.get_manifest((key[0], target))
        self._free_memory(manifest, (key[0], active))
        self._load_and_verify(manifest)
        self._activate(key, cached, active)

    def _open_beside(self, keys: tuple[VersionKey, VersionKey]) -> None:
        """Open and verify the first version without closing the second, which is active."""
        key, active = keys
        try:
            manifest = self._loader.get_manifest(key)
        except BrokenDocumentError as exc:
            self._loader.refuse_version(key, ModelRefusedError(str(exc)))  # it is not read again with each request
            raise
        if not self._model_cache.can_fit_beside(manifest, active):
            error = DoesNotFitError(f"{key[0]}:{key[1]} does not fit beside version {active[1]}.")
            self._loader.refuse_version(key, error)
            raise error
        self._load_and_verify(manifest)
        self._loader.mark_verified(key)

    def _load_and_verify(self, manifest: Manifest) -> None:
        """Open a version and replay its golden requests; on failure, close it and refuse it for `REFUSED_SECONDS`."""
        key = manifest.name, manifest.version
        load = self._loader.start_load(key)
        load.wait_until(inf)
        model = load.result()
        try:
            verify_golden_requests(self._loader.registry.store, model)
        except ModelRefusedError as exc:
            self._loader.refuse_version(key, exc)
            raise

    def _free_memory(self, manifest: Manifest, active: VersionKey) -> None:
        """If memory cannot hold both versions, check the next one's stored files and close the active one."""
        key = manifest.name, manifest.version
        self._model_cache.check_fits(manifest)
        if self._model_cache.get(key) is not None or self._model_cache.can_fit_beside(manifest, active):
            return
        try:
            check_stored_files(self._loader.registry.store, manifest)
        except ModelRefusedError as exc:
            self._loader.refuse_version(key, exc)
            raise
        LOG.warning("%s:%d and %s:%d do not fit into memory together", *active, *key)
        self._model_cache.evict(active)

    def _activate(self, key: AliasKey, refreshed: CachedAlias, active: int) -> None:
        """Swap the active version, unless the alias has moved meanwhile: then the refresh that saw that decides."""
        cached = self._alias_cache.get_cached(key)
        if cached is None or cached.e_tag != refreshed.e_tag:
            return
        self._active_versions[key] = refreshed.document.version
        LOG.info("%s@%s went from version %d to %d", *key, active, refreshed.document.version)
        if not any(alias[0] == key[0] and version == active for alias, version in dict(self._active_versions).items()):
            self._model_cache.evict((key[0], active))


def verify_golden_requests(store: ObjectStore, model: LoadedModel) -> None:
    """Replay the version's golden requests, if it has any; `ModelRefusedError` if an answer differs."""
    manifest = model.manifest
    if manifest.golden is None:
        return
    with open_model_files(store, manifest, manifest.get_file(manifest.golden)) as path:
        content = Path(path).read_bytes()
    try:
        replay_document(decode_document(content, GoldenDocument, manifest.golden), model)
    except (ModelRefusedError, InvalidInputError) as exc:
        raise ModelRefusedError(f"{manifest.name}:{manifest.version} is refused: {exc}") from exc


def check_stored_files(store: ObjectStore, manifest: Manifest) -> None:
    """Read the served files without storing them; `ModelRefusedError` if they differ from the manifest."""
    for file in manifest.get_serving_files(RUNTIME):
        if mismatch := find_mismatch(store, manifest, file):
            raise build_refused_error(manifest, file, mismatch)

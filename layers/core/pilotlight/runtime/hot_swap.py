"""The verified hot swap: beside the requests an alias is read again, and its next version proves itself.

It runs in a thread that the machine may freeze at any point, so nothing waits for it to be right: what it does becomes
visible by one assignment, and only if the alias still says then what it said when the thread began (decision 0019).
"""

import logging
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import DoesNotFitError, InvalidInputError, ModelRefusedError, PilotlightError
from pilotlight.observability.emf import count
from pilotlight.runtime.alias_cache import AliasCache, AliasKey, CachedAlias
from pilotlight.runtime.golden import GoldenDocument, replay_exchanges
from pilotlight.runtime.model_cache import LoadedModel, VersionKey
from pilotlight.runtime.model_files import RUNTIME, build_refused_error, find_mismatch, open_model_files
from pilotlight.runtime.session import Session
from pilotlight.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from pilotlight.runtime.model_manager import ModelManager

LOG = logging.getLogger("pilotlight.runtime")
STALE_FACTOR = 6.0  # multiples of the time to live; an alias older than this is re-read while its request waits
STALE_WAIT_SECONDS = (
    5.0  # s that such a request waits, enough for some 200 MB on Lambda; then it is answered by what serves
)


class HotSwap:
    """Looks at an alias, and brings in the version that it points to."""

    def __init__(
        self, model_manager: "ModelManager", alias_cache: AliasCache, active_versions: MutableMapping[AliasKey, int]
    ) -> None:
        self._model_manager = model_manager
        self._alias_cache = alias_cache
        self._active_versions = active_versions

    def refresh(self, key: AliasKey) -> None:
        """Read the alias; when it has moved, open, prove and swap in its version. Never raises."""
        try:
            self._refresh_alias(key)
        except PilotlightError as exc:
            LOG.warning("%s@%s keeps version %s: %s", *key, self._active_versions.get(key), exc)
            count("SwapFailed", model=key[0])
        except Exception:  # the last resort: nobody awaits this thread's result, so a bug of ours must reach the log
            LOG.exception("%s@%s keeps version %s", *key, self._active_versions.get(key))

    def load_beside(self, keys: tuple[VersionKey, VersionKey]) -> None:
        """Open and prove the first version beside the second, which serves, and never in its place."""
        key, active = keys
        manifest, model_cache = self._model_manager.get_manifest(key), self._model_manager.model_cache
        if not model_cache.can_fit_beside(manifest, active):
            raise self._refuse_version(
                key, DoesNotFitError(f"{key[0]}:{key[1]} does not fit beside version {active[1]}.")
            )
        self._load_and_verify(key, manifest)
        self._model_manager.mark_verified(key)

    def _refuse_version(self, key: VersionKey, error: ModelRefusedError) -> ModelRefusedError:
        self._model_manager.refuse_version(key, error)
        return error

    def _refresh_alias(self, key: AliasKey) -> None:
        cached = self._alias_cache.refresh(key)
        active, target = self._active_versions.get(key), cached.document.version
        if active is None or active == target or self._is_refused((key[0], target)):
            return
        self._verify((key[0], target), (key[0], active))
        self._activate(key, cached, active)

    def _is_refused(self, key: VersionKey) -> bool:
        try:
            self._model_manager.raise_if_refused(key)
        except ModelRefusedError:
            return True
        return False

    def _verify(self, key: VersionKey, active: VersionKey) -> None:
        """Open the version and replay its golden requests; whatever is wrong is raised and the version closed."""
        manifest = self._model_manager.get_manifest(key)
        self._free_memory(manifest, active)
        self._load_and_verify(key, manifest)

    def _load_and_verify(self, key: VersionKey, manifest: Manifest) -> None:
        """Open a version and replay its golden requests; one that fails is closed, and not tried again for a while."""
        task = self._model_manager.start_load(key)
        task.wait_until(float("inf"))
        model: LoadedModel = task.result()
        try:
            verify_golden_requests(self._model_manager.registry.store, manifest, model.session)
        except ModelRefusedError as exc:
            raise self._refuse_version(key, exc) from exc

    def _free_memory(self, manifest: Manifest, active: VersionKey) -> None:
        """Close the version that serves where memory does not hold both, once the next one's bytes are known good."""
        model_cache = self._model_manager.model_cache
        model_cache.check_fits(manifest)
        if model_cache.get((manifest.name, manifest.version)) is None and not model_cache.can_fit_beside(
            manifest, active
        ):
            try:
                check_stored_files(self._model_manager.registry.store, manifest)
            except ModelRefusedError as exc:
                raise self._refuse_version((manifest.name, manifest.version), exc) from exc
            LOG.warning("%s:%d and %s:%d do not fit into memory together", *active, manifest.name, manifest.version)
            model_cache.evict(active)

    def _activate(self, key: AliasKey, refreshed: CachedAlias, active: int) -> None:
        """The swap itself, unless the alias has moved on meanwhile: then the look that saw that decides."""
        cached = self._alias_cache.get_cached(key)
        if cached is None or cached.e_tag != refreshed.e_tag:
            return
        self._active_versions[key] = refreshed.document.version
        LOG.info("%s@%s went from version %d to %d", *key, active, refreshed.document.version)
        if not any(alias[0] == key[0] and version == active for alias, version in dict(self._active_versions).items()):
            self._model_manager.model_cache.evict((key[0], active))


def verify_golden_requests(store: ObjectStore, manifest: Manifest, session: Session) -> None:
    """Replay the version's golden requests, where it has some; `ModelRefusedError` when an answer differs."""
    if manifest.golden is None:
        return
    with open_model_files(store, manifest, manifest.get_file(manifest.golden)) as path:
        document = Path(path).read_bytes()
    try:
        replay_exchanges(decode_document(document, GoldenDocument, manifest.golden), session)
    except (ModelRefusedError, InvalidInputError) as exc:
        raise ModelRefusedError(f"{manifest.name}:{manifest.version} is refused: {exc}") from exc


def check_stored_files(store: ObjectStore, manifest: Manifest) -> None:
    """Read what would be opened through without keeping it; `ModelRefusedError` when it is not what was promised."""
    for file in manifest.get_serving_files(RUNTIME):
        if mismatch := find_mismatch(store, manifest, file):
            raise build_refused_error(manifest, file, mismatch)

"""The verified hot swap: beside the requests an alias is read again, and its next version proves itself.

It runs in a thread that the machine may freeze at any point, so nothing waits for it to be right: what it does becomes
visible by one assignment, and only if the alias still says then what it said when the thread began (decision 0019).
"""

import logging
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from pilotlight.contracts.manifest import Manifest, decode
from pilotlight.errors import DoesNotFitError, InvalidInputError, ModelRefusedError, PilotlightError
from pilotlight.observability.emf import count
from pilotlight.runtime.alias_cache import Aliases, AliasKey, Followed
from pilotlight.runtime.golden import Golden, replay
from pilotlight.runtime.model_cache import Key, WarmModel
from pilotlight.runtime.model_files import RUNTIME, fetched, refused, unlike
from pilotlight.runtime.session import Session
from pilotlight.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from pilotlight.runtime.model_manager import Catalog

LOG = logging.getLogger("pilotlight.runtime")
LATE = 6.0  # multiples of the time to live; an alias older than this is re-read while its request waits
PATIENCE = 5.0  # s that such a request waits, enough for some 200 MB on Lambda; then it is answered by what serves


class Swap:
    """Looks at an alias, and brings in the version that it points to."""

    def __init__(self, catalog: "Catalog", aliases: Aliases, serving: MutableMapping[AliasKey, int]) -> None:
        self._catalog = catalog
        self._aliases = aliases
        self._serving = serving

    def look(self, key: AliasKey) -> None:
        """Read the alias; when it has moved, open, prove and swap in its version. Never raises."""
        try:
            self._look(key)
        except PilotlightError as exc:
            LOG.warning("%s@%s keeps version %s: %s", *key, self._serving.get(key), exc)
            count("SwapFailed", model=key[0])
        except Exception:  # the last resort: nobody awaits this thread's result, so a bug of ours must reach the log
            LOG.exception("%s@%s keeps version %s", *key, self._serving.get(key))

    def try_out(self, keys: tuple[Key, Key]) -> None:
        """Open and prove the first version beside the second, which serves, and never in its place."""
        key, serving = keys
        manifest, warm = self._catalog.manifest_of(key), self._catalog.warm
        if not warm.fits_beside(manifest, serving):
            raise self._refused(key, DoesNotFitError(f"{key[0]}:{key[1]} does not fit beside version {serving[1]}."))
        self._rehearsed(key, manifest)
        self._catalog.proven(key)

    def _refused(self, key: Key, error: ModelRefusedError) -> ModelRefusedError:
        self._catalog.refuse(key, error)
        return error

    def _look(self, key: AliasKey) -> None:
        followed = self._aliases.read(key)
        serving, wanted = self._serving.get(key), followed.document.version
        if serving is None or serving == wanted or self._was_refused((key[0], wanted)):
            return
        self._prove((key[0], wanted), (key[0], serving))
        self._take_over(key, followed, serving)

    def _was_refused(self, key: Key) -> bool:
        try:
            self._catalog.raise_if_refused(key)
        except ModelRefusedError:
            return True
        return False

    def _prove(self, key: Key, serving: Key) -> None:
        """Open the version and replay its golden requests; whatever is wrong is raised and the version closed."""
        manifest = self._catalog.manifest_of(key)
        self._make_way(manifest, serving)
        self._rehearsed(key, manifest)

    def _rehearsed(self, key: Key, manifest: Manifest) -> None:
        """Open a version and replay its golden requests; one that fails is closed, and not tried again for a while."""
        load = self._catalog.load(key)
        load.ended_before(float("inf"))
        model: WarmModel = load.result()
        try:
            rehearse(self._catalog.registry.store, manifest, model.session)
        except ModelRefusedError as exc:
            raise self._refused(key, exc) from exc

    def _make_way(self, manifest: Manifest, serving: Key) -> None:
        """Close the version that serves where memory does not hold both, once the next one's bytes are known good."""
        warm = self._catalog.warm
        warm.check(manifest)
        if warm.get((manifest.name, manifest.version)) is None and not warm.fits_beside(manifest, serving):
            try:
                check_bytes(self._catalog.registry.store, manifest)
            except ModelRefusedError as exc:
                raise self._refused((manifest.name, manifest.version), exc) from exc
            LOG.warning("%s:%d and %s:%d do not fit into memory together", *serving, manifest.name, manifest.version)
            warm.close(serving)

    def _take_over(self, key: AliasKey, followed: Followed, serving: int) -> None:
        """The swap itself, unless the alias has moved on meanwhile: then the look that saw that decides."""
        known = self._aliases.known(key)
        if known is None or known.e_tag != followed.e_tag:
            return
        self._serving[key] = followed.document.version
        LOG.info("%s@%s went from version %d to %d", *key, serving, followed.document.version)
        if not any(alias[0] == key[0] and version == serving for alias, version in dict(self._serving).items()):
            self._catalog.warm.close((key[0], serving))


def rehearse(store: ObjectStore, manifest: Manifest, session: Session) -> None:
    """Replay the version's golden requests, where it has some; `ModelRefusedError` when an answer differs."""
    if manifest.golden is None:
        return
    with fetched(store, manifest, manifest.file(manifest.golden)) as path:
        document = Path(path).read_bytes()
    try:
        replay(decode(document, Golden, manifest.golden), session)
    except (ModelRefusedError, InvalidInputError) as exc:
        raise ModelRefusedError(f"{manifest.name}:{manifest.version} is refused: {exc}") from exc


def check_bytes(store: ObjectStore, manifest: Manifest) -> None:
    """Read what would be opened through without keeping it; `ModelRefusedError` when it is not what was promised."""
    for file in manifest.serving(RUNTIME):
        if why := unlike(store, manifest, file):
            raise refused(manifest, file, why)

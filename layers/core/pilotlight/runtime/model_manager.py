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

from pilotlight.contracts.manifest import AliasDocument, Manifest, Reference, TensorSpec
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
from pilotlight.runtime.alias_cache import Aliases, AliasKey, Followed
from pilotlight.runtime.assets import bring
from pilotlight.runtime.hot_swap import LATE, PATIENCE, Swap
from pilotlight.runtime.load_time import Pace
from pilotlight.runtime.malloc import returning
from pilotlight.runtime.model_cache import Key, WarmModel, WarmModels
from pilotlight.runtime.model_files import fetched
from pilotlight.runtime.session import open_session
from pilotlight.runtime.single_flight import Load, Loads
from pilotlight.settings import Settings
from pilotlight.storage.object_store import ObjectStore

Document = TypeVar("Document")
LOG = logging.getLogger("pilotlight.runtime")
REFUSED_SECONDS = 60.0  # a version that was refused is not fetched again for so long
LONGEST = 25.0  # s that a request can wait for a load at most; the gateway gives up after 29


class Catalog:
    """The models of a store as one environment serves them. Requests come one at a time; loads run beside them."""

    def __init__(
        self,
        registry: Registry,
        warm: WarmModels,
        *,
        memory_mb: int,
        alias_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = registry
        self.warm = warm
        self.waits = 0  # how often a request has waited for a model to be opened
        self._memory_mb = memory_mb
        self._alias_seconds = alias_seconds
        self._clock = clock
        self._manifests: dict[Key, Manifest] = {}  # never change, but a version may be deleted
        self._seen: dict[Key, float] = {}  # when a version was last seen in the store, on the clock
        self._aliases = Aliases(registry, clock)
        self._serving: dict[AliasKey, int] = {}  # the version that answers for an alias; set by requests and swaps
        self._refused: dict[Key, tuple[ModelRefusedError, float]] = {}
        self._pace = Pace()
        self._loads: Loads[Key, WarmModel] = Loads(self._load)
        self._reads: Loads[AliasKey, Followed] = Loads(self._aliases.get)
        self._records: Loads[Key, Manifest] = Loads(self.manifest_of)
        swap = Swap(self, self._aliases, self._serving)
        self._looks: Loads[AliasKey, None] = Loads(swap.look)
        self._lookups: Loads[Key, None] = Loads(self._look_up)
        self._tries: Loads[tuple[Key, Key], None] = Loads(swap.try_out)
        self._proven: set[Key] = set()  # versions that have been tried out

    @classmethod
    def of(cls, settings: Settings, store: ObjectStore) -> "Catalog":
        """The models of a store as a function with these settings serves them, with nothing loaded yet."""
        trusted = PublicKey.parse(settings.signing_key) if settings.signing_key else None
        warm = WarmModels(settings.model_bytes)
        return cls(Registry(store, trusted), warm, memory_mb=settings.memory_mb, alias_seconds=settings.alias_seconds)

    def manifest(self, reference: Reference) -> Manifest:
        """What the store says of the version that is meant, without loading it; `NotFoundError` if there is none."""
        version = reference.version
        if version is None:
            key = reference.name, reference.alias
            self._follow(key, inf)
            version = self._serving.get(key) or self._known(key)
        else:
            self._look_after((reference.name, version))
        return self.manifest_of((reference.name, version))

    def manifest_of(self, key: Key) -> Manifest:
        """The manifest of a version."""
        if key not in self._manifests:
            self._manifests[key] = self.registry.manifest(*key)
            self._seen[key] = self._clock()
        return self._manifests[key]

    def model(self, reference: Reference, ends: float = inf) -> WarmModel:
        """The open model that answers for the reference; `ends` is until when to wait, on time.monotonic's clock.

        A version that is named is served or refused with `ModelRefusedError`. Behind an alias, the version that serves
        answers until the next one has proved itself; where none does yet, a version that cannot be opened is passed
        over for the one that the alias pointed to before. `LoadingError` when the time does not suffice.
        """
        if reference.version is not None:
            self._look_after((reference.name, reference.version))
            return self._open((reference.name, reference.version), ends)
        key = reference.name, reference.alias
        self._follow(key, ends)
        self._raise_if_suspended(reference)
        model = self._served(key)
        return model if model is not None else self._first(key, ends)

    def anticipate(self, reference: Reference) -> None:
        """Open this one beside what the caller does next; if it fails, the request that needs it asks again."""

        def open_it() -> None:
            with suppress(PilotlightError):  # a refusal has been noted, and is told to who asks
                self.model(reference)

        Thread(target=open_it, name="anticipate", daemon=True).start()

    def document(self, reference: Reference) -> AliasDocument | None:
        """What the alias says, as last read; None where a version is named, or nothing is known of the alias yet."""
        known = self._aliases.known((reference.name, reference.alias)) if reference.version is None else None
        return known.document if known is not None else None

    def beside(self, key: Key, serving: Key) -> WarmModel | None:
        """Another version than the one that serves, open and proved; None while it is being opened beside requests.

        `ModelRefusedError` when it cannot be, or does not fit into memory beside the one that serves.
        """
        model = self.warm.get(key)
        if model is not None and key in self._proven:
            return model
        self.raise_if_refused(key)
        if self.warm.get(serving) is not None:
            self._tries.begin((key, serving))
        return None

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until nothing is being read or opened beside the requests, so many seconds at most."""
        ends = time.monotonic() + seconds
        for look in (*self._looks.under_way(), *self._lookups.under_way(), *self._tries.under_way()):
            look.ended_before(ends)
        for load in self._loads.under_way():
            load.ended_before(ends)

    def _follow(self, key: AliasKey, ends: float) -> None:
        """See to it that the alias is known, and looked at again in its time.

        Beside the request, unless it is very old: a machine that was frozen for an hour has had no time to look, so the
        request gives the look some, and goes on with what serves if that is not enough.
        """
        known = self._aliases.known(key)
        if known is None:
            self._awaited(self._reads.begin(key), ends, f"{key[0]}@{key[1]}")
            return
        age = self._clock() - known.at
        if age < self._alias_seconds:
            return
        look = self._looks.begin(key)
        if age >= LATE * self._alias_seconds:
            look.ended_before(min(ends, time.monotonic() + PATIENCE))

    def _look_after(self, key: Key) -> None:
        """See to it that the deletion of a version that callers name is noticed as soon as the move of an alias is.

        An alias's own version needs no look: it cannot be deleted.
        """
        now = self._clock()
        if now - self._seen.get(key, now) >= self._alias_seconds:
            self._seen[key] = now
            self._lookups.begin(key)

    def _look_up(self, key: Key) -> None:
        """Forget a version that is not there any more; a store that does not answer says nothing of it."""
        try:
            self.registry.store.size(version_path(*key, "manifest.json"))
        except NotFoundError:
            self._manifests.pop(key, None)
            self._seen.pop(key, None)
            self._proven.discard(key)
            self.warm.close(key)

    def _raise_if_suspended(self, reference: Reference) -> None:
        """`SuspendedError` for an alias that was taken out of service, as last read."""
        known = self._aliases.known((reference.name, reference.alias))
        if known is not None and known.document.suspended is not None:
            raise suspended(reference, known.document)

    def _served(self, key: AliasKey) -> WarmModel | None:
        """The open model of the version that serves under the alias."""
        version = self._serving.get(key)
        return self.warm.get((key[0], version)) if version is not None else None

    def _known(self, key: AliasKey) -> int:
        """The version that the alias points to, as last read."""
        return self._aliases.get(key).document.version

    def _first(self, key: AliasKey, ends: float) -> WarmModel:
        """Open a version for an alias that has none open: cold, or its model had to make room for another."""
        look = self._looks.find(key)
        # A swap under way may be opening the next version, in the only room that there is.
        if look is not None and look.ended_before(ends):
            model = self._served(key)
            if model is not None:
                return model
        failures: list[PilotlightError] = []
        for version in self._candidates(key):
            try:
                model = self._open((key[0], version), ends)
            except LoadingError:
                raise
            except (UnavailableError, NotFoundError) as exc:
                failures.append(exc)
            else:
                self._serving[key] = version
                return model
        raise failures[0]

    def refresh(self, store: ObjectStore) -> None:
        """Read on through another connection to the store, and look at every alias again before it is believed."""
        self.registry.store = store
        self._aliases.forget()

    def _candidates(self, key: AliasKey) -> Iterator[int]:
        """The versions that may answer for an alias: the one that has proved itself, the right one, the one before."""
        document = self._aliases.get(key).document
        serving = self._serving.get(key)
        yield from dict.fromkeys(v for v in (serving, document.version, document.previous) if v is not None)

    def _open(self, key: Key, ends: float) -> WarmModel:
        """The open version; waits for it to be opened, and no longer than `ends`."""
        model = self.warm.get(key)
        if model is not None:
            return model
        self.raise_if_refused(key)
        manifest = self._manifests.get(key) or self._awaited(self._records.begin(key), ends, f"{key[0]}:{key[1]}")
        self._raise_if_too_late(manifest, ends)
        self.waits += 1
        began = time.monotonic()
        load = self._loads.begin(key)
        if not load.ended_before(ends):
            raise self._loading(manifest, f"is being opened, for {time.monotonic() - load.began:.0f} s so far")
        model = load.result()
        if load.began >= began:  # otherwise the environment may have been frozen meanwhile, and the time says nothing
            self._pace.note(key, manifest.bytes, time.monotonic() - began)
        return model

    def _awaited(self, read: Load[Document], ends: float, what: str) -> Document:
        """A document of the store, if it comes in time."""
        if read.ended_before(ends):
            return read.result()
        raise LoadingError(f"The store has not said yet what {what} is; try again.", retry_after=1)

    def _raise_if_too_late(self, manifest: Manifest, ends: float) -> None:
        """Begin no load that this request cannot await; one that no request can goes on while callers come again."""
        key = manifest.name, manifest.version
        left, needed = max(0.0, ends - time.monotonic()), self._pace.seconds(key, manifest.bytes)
        if left < needed <= LONGEST:
            raise self._loading(manifest, f"takes about {needed:.1f} s to open, and this request has {left:.1f} s left")

    def _loading(self, manifest: Manifest, why: str) -> LoadingError:
        key = manifest.name, manifest.version
        wait = max(1, ceil(self._pace.seconds(key, manifest.bytes)))
        return LoadingError(f"{manifest.name}:{manifest.version} {why}; try again in {wait} s.", retry_after=wait)

    def proven(self, key: Key) -> None:
        """The version has answered its golden requests."""
        self._proven.add(key)

    def load(self, key: Key) -> Load[WarmModel]:
        """Begin to open a version, or join in."""
        return self._loads.begin(key)

    def refuse(self, key: Key, error: ModelRefusedError) -> None:
        """Close a version, say why in log and metrics, and do not try it again for a while."""
        self.warm.close(key)
        self._refused[key] = error, self._clock()
        LOG.error("%s", error)
        count("ModelRefused", model=key[0])

    def raise_if_refused(self, key: Key) -> None:
        """`ModelRefusedError` while the version's last refusal is fresh."""
        error, at = self._refused.get(key, (None, 0.0))
        if error is not None and self._clock() - at < REFUSED_SECONDS:
            raise error.with_traceback(None)  # otherwise each raise would add to its traceback

    def _load(self, key: Key) -> WarmModel:
        """Fetch, check and open a version, in a thread of its own; the outcome is kept either way.

        Another load may have ended after whoever began this one had looked: what that one kept counts.
        """
        model = self.warm.get(key)
        if model is not None:
            return model
        self.raise_if_refused(key)
        manifest = self.manifest_of(key)
        try:
            self.warm.make_room(manifest)
            model = self._opened(manifest)
        except ModelRefusedError as exc:
            self.refuse(key, exc)
            raise
        finally:
            self.warm.give_up(key)
        self.warm.put(model)
        return model

    def _opened(self, manifest: Manifest) -> WarmModel:
        # Where no version of the model is open, a request is waiting for this one: it should answer soon.
        first = manifest.name not in {name for name, _ in list(self.warm.keys())}
        with fetched(self.registry.store, manifest) as path, returning():
            session = open_session(path, self._memory_mb, quick=first)
        agree(manifest, "inputs", session.inputs, manifest.inputs)
        agree(manifest, "outputs", session.outputs, manifest.outputs)
        return WarmModel(manifest, session, manifest.bytes, bring(self.registry.store, manifest))


def suspended(reference: Reference, document: AliasDocument) -> SuspendedError:
    """The error for an alias that was taken out of service: since when, why, and what works instead; not by whom."""
    pause = document.suspended
    why = f"since {pause.at[:19]}Z: {pause.reason}" if pause is not None else "for now"
    return SuspendedError(
        f"{reference} is unloaded {why}. POST /v2/repository/models/{reference.name}/load resumes it; "
        f"{reference.name}:{document.version} is served when it is named."
    )


def agree(manifest: Manifest, what: str, found: Sequence[TensorSpec], promised: Sequence[TensorSpec]) -> None:
    """Refuse a graph whose signature is not the one that its manifest promises to callers."""
    graph, contract = ([(spec.name, spec.datatype, spec.free_shape) for spec in specs] for specs in (found, promised))
    if graph != contract:
        raise ModelRefusedError(
            f"{manifest.name}:{manifest.version} is refused: the graph's {what} are {graph}, the manifest promises "
            f"{contract}; publish the model again as a new version."
        )

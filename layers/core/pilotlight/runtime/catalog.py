"""Which open model answers for a reference: aliases are followed, versions loaded on demand, broken ones passed over.

It knows the registry and warm memory, not the protocol that asks.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pilotlight.contracts import AliasDocument, Manifest, Reference, TensorSpec
from pilotlight.errors import ModelRefusedError, NotFoundError, PilotlightError, SuspendedError, UnavailableError
from pilotlight.metrics import count
from pilotlight.registry import Registry
from pilotlight.runtime.assets import bring
from pilotlight.runtime.files import fetched
from pilotlight.runtime.session import open_session
from pilotlight.runtime.warm import Key, WarmModel, WarmModels

LOG = logging.getLogger("pilotlight.runtime")
REFUSED_SECONDS = 60.0  # a version that was refused is not fetched again for so long


@dataclass(frozen=True)
class Followed:
    """An alias as last read, and when, in the clock's seconds."""

    document: AliasDocument
    at: float


class Catalog:
    """The models of a store as one environment serves them."""

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
        self._memory_mb = memory_mb
        self._alias_seconds = alias_seconds
        self._clock = clock
        self._manifests: dict[Key, Manifest] = {}  # never change, so they never go stale
        self._aliases: dict[tuple[str, str], Followed] = {}
        self._good: dict[tuple[str, str], int] = {}  # the version that last answered for an alias
        self._refused: dict[Key, tuple[ModelRefusedError, float]] = {}

    def manifest(self, reference: Reference) -> Manifest:
        """What the store says of the version that is meant, without loading it; `NotFoundError` if there is none."""
        version = reference.version or self._follow(reference).version
        key = reference.name, version
        if key not in self._manifests:
            self._manifests[key] = self.registry.manifest(*key)
        return self._manifests[key]

    def model(self, reference: Reference) -> WarmModel:
        """The open model that answers for the reference.

        A version that is named is served or refused with `ModelRefusedError`. Behind an alias, a version that cannot be
        opened is passed over for the one that answered last, then for the one that the alias pointed to before.
        """
        if reference.version is not None:
            return self._version(reference.name, reference.version)
        failures: list[PilotlightError] = []
        for version in self._candidates(reference):
            try:
                model = self._version(reference.name, version)
            except (UnavailableError, NotFoundError) as exc:
                failures.append(exc)
            else:
                self._good[reference.name, reference.alias] = version
                return model
        raise failures[0]

    def refresh(self, registry: Registry) -> None:
        """Read on through another registry, and believe no alias that was read before."""
        self.registry = registry
        self._aliases.clear()

    def _candidates(self, reference: Reference) -> Iterator[int]:
        """The versions that may answer for an alias, the right one first, none twice; none if it is suspended."""
        document = self._follow(reference)
        if document.suspended is not None:
            raise suspended(reference, document)
        last_good = self._good.get((reference.name, reference.alias))
        yield from dict.fromkeys(v for v in (document.version, last_good, document.previous) if v is not None)

    def _follow(self, reference: Reference) -> AliasDocument:
        """The alias's document, at most `alias_seconds` old; older only while the store does not answer rightly."""
        key, now = (reference.name, reference.alias), self._clock()
        known = self._aliases.get(key)
        if known is not None and now - known.at < self._alias_seconds:
            return known.document
        try:
            document = self.registry.alias(*key)
        except UnavailableError as exc:
            if known is None:
                raise
            LOG.warning("%s keeps version %d: %s", reference, known.document.version, exc)
            document = known.document
        self._aliases[key] = Followed(document, now)
        return document

    def _version(self, name: str, version: int) -> WarmModel:
        key = name, version
        model = self.warm.get(key)
        if model is not None:
            return model
        self._raise_if_refused(key)
        try:
            return self._load(self.manifest(Reference(name, version)))
        except ModelRefusedError as exc:
            self._refused[key] = exc, self._clock()
            LOG.error("%s", exc)  # noqa: TRY400 - the sentence tells all; a traceback would not add to it
            count("ModelRefused", model=name)
            raise

    def _raise_if_refused(self, key: Key) -> None:
        error, at = self._refused.get(key, (None, 0.0))
        if error is not None and self._clock() - at < REFUSED_SECONDS:
            raise error.with_traceback(None)  # else each raise would lengthen it

    def _load(self, manifest: Manifest) -> WarmModel:
        self.warm.make_room(manifest)
        with fetched(self.registry.store, manifest) as path:
            session = open_session(path, self._memory_mb, quick=True)
        agree(manifest, "inputs", session.inputs, manifest.inputs)
        agree(manifest, "outputs", session.outputs, manifest.outputs)
        model = WarmModel(manifest, session, manifest.bytes, bring(self.registry.store, manifest))
        self.warm.put(model)
        return model


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

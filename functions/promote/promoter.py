"""What is to be done when something has happened. The only code on AWS that moves aliases without a person."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from functions.promote.events import Asked, Occurrence, Published, Stopped
from functions.promote.policy import Policy
from pilotlight.contracts.manifest import CHAMPION, AliasDocument, Canary, Errand
from pilotlight.errors import ChangedError, NotFoundError, PilotlightError, StoreError
from pilotlight.gate import promotion_request as errands
from pilotlight.gate.evaluation import Gate
from pilotlight.gate.promotion import Force, promote
from pilotlight.gate.verdict import Verdict
from pilotlight.observability.emf import count
from pilotlight.registry import alias_updates
from pilotlight.registry.signing import Signer

BY = "functions/promote"


@dataclass(frozen=True)
class Duties:
    """Gate and policy, and what they are used for."""

    gate: Gate
    policy: Policy
    signer: Signer | None = None  # of what passes

    def see_to(self, occurrence: Occurrence) -> Iterator[str]:
        """Do what the occurrence asks for, and say what was done."""
        if isinstance(occurrence, Published):
            yield self._published(occurrence)
        elif isinstance(occurrence, Stopped):
            yield self._stopped(occurrence)
        elif isinstance(occurrence, Asked):
            yield self._asked(occurrence.errand)
        else:
            yield from self._ended()

    def _published(self, published: Published) -> str:
        """A new version goes through the gate; what a passed one becomes, the policy says."""
        name, version = published.model, published.version
        self.gate.registry.introduce(self.gate.registry.manifest(name, version))  # where its publisher might not
        if self._champion(name) == version:
            return self._first(name, version)
        if self.policy.moves and not self.policy.weight:
            outcome = promote(self.gate, name, version, by=BY, signer=self.signer)
            verdict, done = outcome.verdict, "is champion now"
        else:
            verdict, done = self._examined(name, version), "passed the gate"
        if verdict.waits:
            return verdict.why
        count("GatePassed" if verdict.passed else "GateRefused", model=name)
        if not verdict.passed:
            return f"{name}:{version} is refused. {verdict.why}"
        return self._try(name, version) if self.policy.weight else f"{name}:{version} {done}."

    def _first(self, name: str, version: int) -> str:
        """The first version serves already, with nothing to be measured against; to be signed it must pass."""
        said = f"{name}:{version} is the first version, and champion already."
        if self.signer is None:
            return said
        verdict = self._examined(name, version)
        return f"{said} It is signed." if verdict.passed else f"{said} It is not signed, so not served: {verdict.why}"

    def _examined(self, name: str, version: int) -> Verdict:
        """The gate's verdict; what passes is signed, also for whom a person promotes later."""
        verdict = self.gate.examine(name, version, CHAMPION, by=BY)
        if verdict.passed and self.signer is not None:
            self.gate.registry.sign(name, version, self.signer, by=BY)
        return verdict

    def _asked(self, errand: Errand) -> str:
        """A promotion by hand, over HTTP: through the gate as any, and the errand says how it ended.

        What fails for good is said there and not raised, since Lambda would repeat the event; a store that is away is.
        """
        name, version, alias = errand.model, errand.version, errand.alias
        force = Force(errand.by, errand.why) if errand.force else None
        try:
            outcome = promote(self.gate, name, version, alias, by=errand.by, force=force, signer=self.signer)
        except StoreError:
            raise
        except PilotlightError as exc:
            done = errands.ended(errand, "failed", str(exc))
        else:
            count("GatePassed" if outcome.verdict.passed else "GateRefused", model=name)
            done = errands.ended(errand, "promoted" if outcome.moved else "refused", outcome.verdict.why)
        errands.keep(self.gate.registry.store, done)
        return f"{name}:{version} for {alias}, asked for by {errand.by}: {done.state}. {done.said}"

    def _try(self, name: str, version: int) -> str:
        """Begin the canary of the policy."""
        canary = Canary(version, alias_updates.until(self.policy.bake))
        begun = f"canary for {self.policy.bake}, as the policy says"
        self.gate.registry.change(
            name, CHAMPION, lambda old: alias_updates.tried(old, canary, self.policy.weight, BY, begun)
        )
        return f"{name}:{version} passed the gate and is tried on some requests for {self.policy.bake}."

    def _stopped(self, stopped: Stopped) -> str:
        """A canary that an environment has stopped is taken from all of them, once."""

        def ended(document: AliasDocument) -> AliasDocument:
            if document.canary is None or document.canary.version != stopped.version:
                raise ChangedError("it had been ended before")
            return alias_updates.without_shares(document, BY, f"canary {stopped.version} failed: {stopped.why}")

        try:
            self.gate.registry.change(stopped.model, stopped.alias, ended)
        except ChangedError as exc:
            return f"The canary {stopped.model}:{stopped.version} was left as it is: {exc}"
        count("CanaryRolledBack", model=stopped.model)
        return f"The canary {stopped.model}:{stopped.version} was rolled back: {stopped.why}"

    def _ended(self) -> Iterator[str]:
        """Canaries whose bake time is over and that nobody has stopped become what the alias points to."""
        registry, now = self.gate.registry, datetime.now(UTC)
        for name in registry.models():
            for alias, document in registry.aliases(name).items():
                canary = document.canary
                if canary is not None and datetime.fromisoformat(canary.until) <= now:
                    yield self._settle(name, alias, canary)

    def _settle(self, name: str, alias: str, canary: Canary) -> str:
        """Through the gate once more, since the champion may be another one by now."""
        outcome = promote(self.gate, name, canary.version, alias, by=BY)
        if outcome.moved is not None:
            count("CanaryPromoted", model=name)
            return f"{name}@{alias} is version {canary.version}: its canary held until {canary.until}."
        reason = f"canary {canary.version} held, but the gate refuses it: {outcome.verdict.why}"
        self.gate.registry.change(name, alias, lambda old: alias_updates.without_shares(old, BY, reason))
        return f"{name}@{alias} stays: {reason}"

    def _champion(self, name: str) -> int | None:
        try:
            return self.gate.registry.alias(name, CHAMPION).version
        except NotFoundError:
            return None

"""The reaction to each event. The only code on AWS that moves aliases without a person."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from functions.promote.events import CanaryFailed, PromotionEvent, PromotionRequested, VersionPublished
from functions.promote.policy import PromotionPolicy
from pilotlight.contracts.alias import AliasDocument, Canary
from pilotlight.contracts.names import CHAMPION
from pilotlight.contracts.promotion import PromotionRequest
from pilotlight.errors import ChangedError, NotFoundError, PilotlightError, StoreError
from pilotlight.gate.evaluation import QualityGate
from pilotlight.gate.promotion import GateOverride, promote_version
from pilotlight.gate.promotion_request import finish_request, save_request
from pilotlight.gate.verdict import Verdict
from pilotlight.observability.emf import count
from pilotlight.registry import alias_updates
from pilotlight.registry.signing import Signer

LOG = logging.getLogger("pilotlight.promote")
ACTOR = "functions/promote"


@dataclass(frozen=True)
class Promoter:
    """The gate, the policy, and the handlers of all events."""

    gate: QualityGate
    policy: PromotionPolicy
    signer: Signer | None = None  # signs what passes

    def handle(self, event: PromotionEvent) -> Iterator[str]:
        """Handle the event, and yield what was done."""
        if isinstance(event, VersionPublished):
            yield self._handle_version_published(event)
        elif isinstance(event, CanaryFailed):
            yield self._handle_canary_failed(event)
        elif isinstance(event, PromotionRequested):
            yield self._handle_promotion_request(event.request)
        else:
            yield from self._promote_finished_canaries()

    def _handle_version_published(self, event: VersionPublished) -> str:
        """Run a new version through the gate; if it passes, follow the policy."""
        name, version = event.model, event.version
        self.gate.registry.assign_initial_aliases(
            self.gate.registry.load_manifest(name, version)
        )  # the publisher's role may lack that permission
        if self._find_champion(name) == version:
            return self._handle_first_version(name, version)
        if self.policy.is_automatic and not self.policy.canary_weight:
            outcome = promote_version(self.gate, name, version, actor=ACTOR, signer=self.signer)
            verdict, done = outcome.verdict, "is champion now"
        else:
            verdict, done = self._evaluate_version(name, version), "passed the gate"
        if verdict.is_awaiting_approval:
            return verdict.reason
        count("GatePassed" if verdict.passed else "GateRefused", model=name)
        if not verdict.passed:
            return f"{name}:{version} is refused. {verdict.reason}"
        return self._start_canary(name, version) if self.policy.canary_weight else f"{name}:{version} {done}."

    def _handle_first_version(self, name: str, version: int) -> str:
        """Handle a first version, which is champion already and has no rival; to be signed it must pass."""
        message = f"{name}:{version} is the first version, and champion already."
        if self.signer is None:
            return message
        verdict = self._evaluate_version(name, version)
        return (
            f"{message} It is signed."
            if verdict.passed
            else f"{message} It is not signed, so not served: {verdict.reason}"
        )

    def _evaluate_version(self, name: str, version: int) -> Verdict:
        """Run the gate and return its verdict; sign what passes, also for a later promotion by a person."""
        verdict = self.gate.evaluate(name, version, CHAMPION, actor=ACTOR)
        if verdict.passed and self.signer is not None:
            self.gate.registry.sign_manifest(name, version, self.signer, actor=ACTOR)
        return verdict

    def _handle_promotion_request(self, request: PromotionRequest) -> str:
        """Promote by hand, over HTTP: run the gate as always, and save the outcome in the request's document.

        A permanent failure is saved there and not raised, since Lambda would repeat the event; a store error is raised.
        """
        name, version, alias = request.model, request.version, request.alias
        force = GateOverride(request.by, request.why) if request.force else None
        try:
            outcome = promote_version(
                self.gate, name, version, alias, actor=request.by, override=force, signer=self.signer
            )
        except StoreError:
            raise
        except PilotlightError as exc:
            finished = finish_request(request, "failed", str(exc))
        else:
            count("GatePassed" if outcome.verdict.passed else "GateRefused", model=name)
            finished = finish_request(
                request, "promoted" if outcome.alias_document else "refused", outcome.verdict.reason
            )
        save_request(self.gate.registry.store, finished)
        return f"{name}:{version} for {alias}, asked for by {request.by}: {finished.state}. {finished.said}"

    def _start_canary(self, name: str, version: int) -> str:
        """Start the policy's canary."""
        canary = Canary(version, alias_updates.compute_bake_end(self.policy.bake_time))
        reason = f"canary for {self.policy.bake_time}, as the policy says"
        self.gate.registry.update_alias(
            name,
            CHAMPION,
            lambda old: alias_updates.start_canary(old, canary, self.policy.canary_weight, ACTOR, reason),
        )
        return f"{name}:{version} passed the gate and is tried on some requests for {self.policy.bake_time}."

    def _handle_canary_failed(self, event: CanaryFailed) -> str:
        """Take a canary that one environment has stopped from all of them, once."""

        def end_canary(document: AliasDocument) -> AliasDocument:
            canary = document.canary
            if canary is None or canary.version != event.version or event.until not in ("", canary.until):
                raise ChangedError("it had been ended before")
            return alias_updates.clear_traffic_split(document, ACTOR, f"canary {event.version} failed: {event.why}")

        try:
            self.gate.registry.update_alias(event.model, event.alias, end_canary)
        except ChangedError as exc:
            return f"The canary {event.model}:{event.version} was left as it is: {exc}"
        count("CanaryRolledBack", model=event.model)
        return f"The canary {event.model}:{event.version} was rolled back: {event.why}"

    def _promote_finished_canaries(self) -> Iterator[str]:
        """Promote the canaries whose bake time is over and that no environment has stopped."""
        registry, now = self.gate.registry, datetime.now(UTC)
        for name, listing in registry.load_all_aliases().items():
            for alias, error in listing.errors.items():
                LOG.error("%s@%s is left as it is: %s", name, alias, error)
                yield f"{name}@{alias} is left as it is: {error}"
            for alias, document in listing.documents.items():
                canary = document.canary
                if canary is not None and datetime.fromisoformat(canary.until) <= now:
                    yield self._settle_canary(name, alias, canary)

    def _settle_canary(self, name: str, alias: str, canary: Canary) -> str:
        """Promote a canary, or leave it for the next tick; one model's failure does not stop the others."""
        try:
            return self._promote_canary(name, alias, canary)
        except PilotlightError as exc:
            LOG.error("The canary %s:%d is not settled: %s", name, canary.version, exc)  # noqa: TRY400 - the sentence is enough
            return f"The canary {name}:{canary.version} is not settled: {exc}"

    def _promote_canary(self, name: str, alias: str, canary: Canary) -> str:
        """Run the gate again, since the champion may have changed, and promote the canary."""
        outcome = promote_version(self.gate, name, canary.version, alias, actor=ACTOR)
        if outcome.alias_document is not None:
            count("CanaryPromoted", model=name)
            return f"{name}@{alias} is version {canary.version}: its canary held until {canary.until}."
        reason = f"canary {canary.version} held, but the gate refuses it: {outcome.verdict.reason}"
        self.gate.registry.update_alias(name, alias, lambda old: alias_updates.clear_traffic_split(old, ACTOR, reason))
        return f"{name}@{alias} stays: {reason}"

    def _find_champion(self, name: str) -> int | None:
        try:
            return self.gate.registry.load_alias(name, CHAMPION).version
        except NotFoundError:
            return None

"""Through the gate to an alias: examine, then move by compare-and-swap; only this module moves a champion forward."""

from dataclasses import dataclass

from msgspec import Struct

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.names import CHAMPION
from pilotlight.errors import ChangedError, NotFoundError
from pilotlight.gate.evaluation import QualityGate
from pilotlight.gate.verdict import Verdict
from pilotlight.registry import alias_updates
from pilotlight.registry.signing import Signer


class GateOverride(Struct, frozen=True):
    """Somebody's word against the gate's: who moves a refused version all the same, and why."""

    by: str
    why: str


@dataclass(frozen=True)
class PromotionResult:
    """What came of it: the verdict, and the alias's document if it was moved."""

    verdict: Verdict
    alias_document: AliasDocument | None


def promote_version(
    gate: QualityGate,
    name: str,
    version: int,
    alias: str = CHAMPION,
    *,
    actor: str,
    override: GateOverride | None = None,
    signer: Signer | None = None,
) -> PromotionResult:
    """Examine a version and, if it passes or is forced, sign it where versions are signed, and point the alias to it.

    `ChangedError` when the alias was moved while the gate measured against where it pointed before.
    """
    verdict = gate.evaluate(name, version, alias, actor=actor)
    if not verdict.passed and override is None:
        return PromotionResult(verdict, None)
    if signer is not None:
        gate.registry.sign_manifest(name, version, signer, actor=actor)
    reason = "passed the gate" if verdict.passed or override is None else f"forced by {override.by}: {override.why}"
    return PromotionResult(verdict, move_alias(gate, verdict, reason))


def move_alias(gate: QualityGate, verdict: Verdict, reason: str) -> AliasDocument:
    """Point the alias of a verdict to its version, if it still points to what that was measured against."""

    def point_to_version(document: AliasDocument) -> AliasDocument:
        if document.version == verdict.version and not document.shares:
            return document
        if verdict.champion is not None and document.version != verdict.champion:
            raise ChangedError(
                f"{verdict.name}@{verdict.alias} was moved to version {document.version} while version "
                f"{verdict.version} was measured against {verdict.champion}; promote again."
            )
        return alias_updates.point_to(document, verdict.version, verdict.by, reason)

    try:
        return gate.registry.update_alias(verdict.name, verdict.alias, point_to_version)
    except NotFoundError:
        return gate.registry.move_alias(verdict.name, verdict.alias, verdict.version, actor=verdict.by, reason=reason)

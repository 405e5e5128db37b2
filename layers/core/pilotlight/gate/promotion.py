"""Promote a version: evaluate it, then move the alias by compare-and-swap. No other module moves a champion forward."""

from dataclasses import dataclass

from msgspec import Struct

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.names import CHAMPION
from pilotlight.errors import BrokenDocumentError, ChangedError, NotFoundError
from pilotlight.gate.evaluation import QualityGate
from pilotlight.gate.verdict import Verdict
from pilotlight.registry import alias_updates
from pilotlight.registry.signing import Signer


class GateOverride(Struct, frozen=True):
    """An override of the gate: who promotes a refused version, and why."""

    by: str
    why: str


@dataclass(frozen=True)
class PromotionResult:
    """The result of a promotion: the verdict, and the alias's document if the alias was moved."""

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
    """Evaluate a version and, if it passes or is forced, point the alias to it.

    Where versions are signed, it is signed first. Raises `ChangedError` if the alias was moved while the gate measured
    the version against the earlier champion. A broken alias is replaced if the version is forced.
    """
    verdict = gate.evaluate(name, version, alias, actor=actor, ignore_broken_champion=override is not None)
    if not verdict.passed and override is None:
        return PromotionResult(verdict, None)
    if signer is not None:
        gate.registry.sign_manifest(name, version, signer, actor=actor)
    reason = "passed the gate" if verdict.passed or override is None else f"forced by {override.by}: {override.why}"
    try:
        return PromotionResult(verdict, move_alias(gate, verdict, reason))
    except BrokenDocumentError:
        if override is None:
            raise
        reason = f"replaces a broken document; {reason}"
        mended = gate.registry.replace_broken_alias(name, alias, version, actor=actor, reason=reason)
        return PromotionResult(verdict, mended)


def move_alias(gate: QualityGate, verdict: Verdict, reason: str) -> AliasDocument:
    """Point the verdict's alias to its version, if it still points to the champion that the gate measured against."""

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

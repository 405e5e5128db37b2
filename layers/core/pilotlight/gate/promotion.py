"""Through the gate to an alias: examine, then move by compare-and-swap; only this module moves a champion forward."""

from dataclasses import dataclass

from msgspec import Struct

from pilotlight.contracts.manifest import CHAMPION, AliasDocument
from pilotlight.errors import ChangedError, NotFoundError
from pilotlight.gate.evaluation import Gate
from pilotlight.gate.verdict import Verdict
from pilotlight.registry import alias_updates
from pilotlight.registry.signing import Signer


class Force(Struct, frozen=True):
    """Somebody's word against the gate's: who moves a refused version all the same, and why."""

    by: str
    why: str


@dataclass(frozen=True)
class Promotion:
    """What came of it: the verdict, and the alias's document if it was moved."""

    verdict: Verdict
    moved: AliasDocument | None


def promote(
    gate: Gate,
    name: str,
    version: int,
    alias: str = CHAMPION,
    *,
    by: str,
    force: Force | None = None,
    signer: Signer | None = None,
) -> Promotion:
    """Examine a version and, if it passes or is forced, sign it where versions are signed, and point the alias to it.

    `ChangedError` when the alias was moved while the gate measured against where it pointed before.
    """
    verdict = gate.examine(name, version, alias, by=by)
    if not verdict.passed and force is None:
        return Promotion(verdict, None)
    if signer is not None:
        gate.registry.sign(name, version, signer, by=by)
    reason = "passed the gate" if verdict.passed or force is None else f"forced by {force.by}: {force.why}"
    return Promotion(verdict, move(gate, verdict, reason))


def move(gate: Gate, verdict: Verdict, reason: str) -> AliasDocument:
    """Point the alias of a verdict to its version, if it still points to what that was measured against."""

    def pointed(document: AliasDocument) -> AliasDocument:
        if document.version == verdict.version and not document.shares:
            return document
        if verdict.champion is not None and document.version != verdict.champion:
            raise ChangedError(
                f"{verdict.name}@{verdict.alias} was moved to version {document.version} while version "
                f"{verdict.version} was measured against {verdict.champion}; promote again."
            )
        return alias_updates.moved(document, verdict.version, verdict.by, reason)

    try:
        return gate.registry.change(verdict.name, verdict.alias, pointed)
    except NotFoundError:
        return gate.registry.move(verdict.name, verdict.alias, verdict.version, by=verdict.by, reason=reason)

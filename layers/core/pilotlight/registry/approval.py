"""Approval of versions by people: pending until a person approves or rejects the version.

    approvals/<name>/<n>.json   create-only, then compare-and-swap; where no publisher may write

The gate measures what a version can do; the approval decides whether it may serve. Former releases kept decisions
beside the version, where its publisher could forge them: of those a rejection still counts, and an approval must be
given again (infra/decisions/0066).
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.codec import format_utc_now
from pilotlight.contracts.names import Version
from pilotlight.errors import ConflictError
from pilotlight.registry import alias_updates
from pilotlight.registry.registry import Registry, RegistryDocument, judgement_path, version_path

DecisionState = Literal["approved", "rejected"]


class Approval(Struct, frozen=True):
    """What was decided of a version, by whom, when and why; each decision replaces the one before."""

    name: str = ""
    version: Annotated[int, Meta(ge=0)] = 0
    state: Literal["pending", "approved", "rejected"] = "pending"
    by: str = ""
    at: str = ""  # RFC 3339, UTC; empty while it is pending
    why: str = ""
    number: Annotated[int, Meta(ge=0)] = 0  # of this decision among all of the version; 0 while it is pending


def load_approval(registry: Registry, name: str, version: Version) -> Approval:
    """Load the decision about a version, pending where there is none; the version itself is not looked up."""
    return (
        open_approval(registry, name, version).read_or_none()
        or load_earlier_rejection(registry, name, version)
        or Approval(name, version)
    )


def load_earlier_rejection(registry: Registry, name: str, version: Version) -> Approval | None:
    """Load a rejection that a former release kept beside the version; an approval there may be its publisher's."""
    path = version_path(name, version, "approval.json")
    earlier = RegistryDocument(registry.store, path, Approval).read_or_none()
    return replace(earlier, name=name, version=version) if earlier and earlier.state == "rejected" else None


def record_decision(
    registry: Registry, name: str, version: Version, state: DecisionState, *, actor: str, reason: str
) -> Approval:
    """Approve or reject a version; the same again changes nothing. Raise `ConflictError` when a decision was faster."""
    registry.load_manifest(name, version)

    def decide(old: Approval) -> Approval:
        if old.state == state:
            return old
        return replace(old, state=state, by=actor, at=format_utc_now(), why=reason, number=old.number + 1)

    initial = load_earlier_rejection(registry, name, version) or Approval(name, version)
    return open_approval(registry, name, version).update(decide, attempts=1, initial=initial)


def blocking_reason(registry: Registry, name: str, version: Version, *, required: bool) -> str | None:
    """Return why a version may not serve: it is rejected, or not approved where it must be; None if it may."""
    decision = load_approval(registry, name, version)
    if decision.state == "rejected":
        return f"{name}:{version} was rejected by {decision.by or 'somebody'}: {decision.why.rstrip('.')}."
    if required and decision.state == "pending":
        return f"{name}:{version} waits for approval, which this stack asks for."
    return None


def refuse_unapproved(registry: Registry, name: str, version: Version, *, required: bool) -> None:
    """Raise `ConflictError` for a version that may not serve."""
    if (reason := blocking_reason(registry, name, version, required=required)) is not None:
        raise ConflictError(f"{reason} Approve it first.")


def rollback_alias(registry: Registry, name: str, document: AliasDocument, actor: str, reason: str) -> AliasDocument:
    """Roll the alias back; raise `ConflictError` if the version that would serve again was rejected since."""
    restored = alias_updates.roll_back(document, actor, reason)
    if restored.version != document.version:
        refuse_unapproved(registry, name, restored.version, required=False)
    return restored


def open_approval(registry: Registry, name: str, version: Version) -> RegistryDocument[Approval]:
    """Open the document of the decision about a version."""
    return RegistryDocument(registry.store, approval_path(name, version), Approval, name=name, version=version)


def approval_path(name: str, version: int) -> str:
    """Return the key of the decision about a version."""
    return judgement_path("approvals", name, version)

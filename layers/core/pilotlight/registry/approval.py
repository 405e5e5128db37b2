"""Whether people want a version: pending until somebody approves or rejects it, kept beside the version.

    models/<name>/versions/<n>/approval.json   create-only, then compare-and-swap

The gate asks what a version can do, this asks whether it may. It knows the registry's store, not who is asking.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.codec import decode_document, encode_document, format_utc_now
from pilotlight.contracts.names import Version
from pilotlight.errors import ConflictError, InvalidInputError, ModelRefusedError, NotFoundError
from pilotlight.registry import alias_updates
from pilotlight.registry.registry import Registry, version_path

DecisionState = Literal["approved", "rejected"]


class Approval(Struct, frozen=True):
    """What was decided of a version, by whom, when and why; each decision replaces the one before."""

    state: Literal["pending", "approved", "rejected"] = "pending"
    by: str = ""
    at: str = ""  # RFC 3339, UTC; empty while it is pending
    why: str = ""
    number: Annotated[int, Meta(ge=0)] = 0  # of this decision among all of the version; 0 while it is pending


PENDING = Approval()


def load_approval(registry: Registry, name: str, version: Version) -> Approval:
    """What was decided of a version; pending where nothing was. Whether there is such a version is not asked."""
    return load_approval_with_e_tag(registry, name, version)[0]


def record_decision(
    registry: Registry, name: str, version: Version, state: DecisionState, *, actor: str, reason: str
) -> Approval:
    """Approve or reject; the same decision again changes nothing, `ConflictError` when somebody else was faster."""
    registry.load_manifest(name, version)
    old, e_tag = load_approval_with_e_tag(registry, name, version)
    if old.state == state:
        return old
    decision = replace(old, state=state, by=actor, at=format_utc_now(), why=reason, number=old.number + 1)
    path = approval_path(name, version)
    if e_tag is None:
        registry.store.create(path, encode_document(decision))
    else:
        registry.store.replace(path, encode_document(decision), e_tag)
    return decision


def blocking_reason(registry: Registry, name: str, version: Version, *, required: bool) -> str | None:
    """Why a version may not serve: it was rejected, or must be approved and is not. None if it may."""
    decision = load_approval(registry, name, version)
    if decision.state == "rejected":
        return f"{name}:{version} was rejected by {decision.by or 'somebody'}: {decision.why.rstrip('.')}."
    if required and decision.state == "pending":
        return f"{name}:{version} waits for approval, which this stack asks for."
    return None


def refuse_unapproved(registry: Registry, name: str, version: Version, *, required: bool) -> None:
    """`ConflictError` for a version that may not serve."""
    if (reason := blocking_reason(registry, name, version, required=required)) is not None:
        raise ConflictError(f"{reason} Approve it first.")


def rollback_alias(registry: Registry, name: str, document: AliasDocument, actor: str, reason: str) -> AliasDocument:
    """The alias rolled back; `ConflictError` when a version would serve again that was rejected since."""
    restored = alias_updates.roll_back(document, actor, reason)
    if restored.version != document.version:
        refuse_unapproved(registry, name, restored.version, required=False)
    return restored


def load_approval_with_e_tag(registry: Registry, name: str, version: Version) -> tuple[Approval, str | None]:
    """A decision and its e_tag, which is None where there is none."""
    path = approval_path(name, version)
    try:
        stored = registry.store.get(path)
        return decode_document(stored.data, Approval, path), stored.e_tag
    except NotFoundError:
        return PENDING, None
    except InvalidInputError as exc:
        raise ModelRefusedError(str(exc)) from exc


def approval_path(name: str, version: Version) -> str:
    """The key of the decision about a version."""
    return version_path(name, version, "approval.json")

"""Removal of versions that a policy does not keep, and of files that no manifest names: first a plan, then the removal.

A version's number is never used again: its claim stays. The manifest is removed first, so that a version disappears at
once for every reader.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.manifest import Manifest
from pilotlight.errors import ConflictError, InvalidInputError
from pilotlight.registry.registry import JUDGEMENT_FOLDERS, Registry, RegistryDocument, judgement_path, version_path

GRACE = timedelta(days=1)  # an upload without a manifest may still be running for so long
KEPT_FILES = frozenset({"claim.json"})


@dataclass(frozen=True)
class PruningPlan:
    """The versions and files of a model to remove, and why the others stay."""

    model: str
    versions: tuple[int, ...]  # that no alias needs and the policy does not keep
    orphan_paths: tuple[str, ...]  # paths of files without a manifest
    kept_reasons: Mapping[int, str] = field(default_factory=dict)  # version to reason


def plan_pruning(registry: Registry, name: str, keep_latest: int, now: datetime | None = None) -> PruningPlan:
    """Plan what to remove when the newest `keep_latest` versions stay, and all that aliases need."""
    if keep_latest < 1:
        raise InvalidInputError(f"keep {keep_latest} versions would leave none to go back to; keep 1 or more.")
    versions, needed_reasons = registry.list_versions(name), find_needed_versions(registry.load_aliases(name))
    newest = dict.fromkeys(versions[-keep_latest:], "among the newest")
    kept_reasons = {
        version: needed_reasons.get(version) or newest[version]
        for version in versions
        if version in needed_reasons | newest
    }
    removable = tuple(version for version in versions if version not in kept_reasons)
    return PruningPlan(
        name, removable, tuple(find_orphan_files(registry, name, versions, now or datetime.now(UTC))), kept_reasons
    )


def check_model_exists(registry: Registry, name: str) -> None:
    """Raise `NotFoundError` when nothing of the model is stored, not even an unfinished upload."""
    if next(registry.store.list_paths(f"models/{name}/versions"), None) is None:
        registry.load_manifest(name, 1)  # raises `NotFoundError` if there is no such model


def prune(registry: Registry, plan: PruningPlan) -> None:
    """Remove what a plan names; a version that an alias needs by now stays, and raises an error."""
    for version in plan.versions:
        delete_version(registry, plan.model, version)
    for path in plan.orphan_paths:
        registry.store.delete(path)


def delete_version(registry: Registry, name: str, version: int) -> None:
    """Remove a version for good; raise `ConflictError` while an alias needs it."""
    manifest = registry.load_manifest(name, version)
    refuse_needed(registry, name, version)
    document = RegistryDocument(registry.store, version_path(name, version, "manifest.json"), Manifest)
    registry.store.delete(document.path)
    try:
        refuse_needed(registry, name, version)
    except ConflictError:  # an alias was pointed to it meanwhile
        document.create(manifest)
        raise
    for file in list(registry.store.list_paths(f"models/{name}/versions/{version}")):
        if file.rsplit("/", 1)[-1] not in KEPT_FILES:
            registry.store.delete(file)
    for folder in JUDGEMENT_FOLDERS:
        registry.store.delete(judgement_path(folder, name, version))


def refuse_needed(registry: Registry, name: str, version: int) -> None:
    """Raise `ConflictError` for a version that an alias needs, with the reason."""
    reason = find_needed_versions(registry.load_aliases(name)).get(version)
    if reason is not None:
        raise ConflictError(f"{name}:{version} cannot be deleted: {reason}.")


def find_needed_versions(aliases: Mapping[str, AliasDocument]) -> dict[int, str]:
    """Find the versions that aliases need, each with the reason."""
    reasons: dict[int, str] = {}
    for alias, document in aliases.items():
        if document.previous is not None:
            reasons.setdefault(document.previous, f"a rollback of the alias {alias!r} would go back to it")
    for alias, document in aliases.items():
        for share in (*document.shares, *([document.shadow] if document.shadow else [])):
            reasons[share.version] = f"the alias {alias!r} sends it a part of its requests"
    return reasons | {document.version: f"the alias {alias!r} points to it" for alias, document in aliases.items()}


def find_orphan_files(registry: Registry, name: str, versions: list[int], now: datetime) -> Iterator[str]:
    """Find files of uncommitted uploads that have not changed within the grace period."""
    committed = {str(version) for version in versions}
    for path, modified_at in registry.store.list_modification_times(f"models/{name}/versions"):
        number, _, file = path.removeprefix(f"models/{name}/versions/").partition("/")
        if number not in committed and file not in KEPT_FILES and modified_at < now - GRACE:
            yield path

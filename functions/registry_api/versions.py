"""The registry's routes of models and versions: list, show, approve, delete, prune."""

from typing import Annotated

from pilotlight.api.http import JSON, Request, Response
from pilotlight.api.powertools_router import ModelName, PathVersion, Query, TypedRoutes
from pilotlight.api.schemas.registry import (
    ApprovalBody,
    DeletedVersion,
    ModelDetail,
    ModelList,
    ModelSummary,
    PruneBody,
    PruneResult,
    VersionSummary,
)
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import CHAMPION, ModelReference
from pilotlight.errors import BrokenDocumentError, ConflictError, NotFoundError
from pilotlight.gate.verdict import open_verdict
from pilotlight.registry import retention
from pilotlight.registry.approval import load_approval, record_decision
from pilotlight.registry.registry import AliasListing, Registry, version_path

MAX_NEWEST = 99_999  # versions in a response
DEFAULT_NEWEST = 50  # versions in a response by default: each costs a read of the store
VERSION = "/registry/models/{model}/versions/{version}"


class VersionEndpoints:
    """The routes of models and versions over a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def routes(self) -> TypedRoutes:
        """Return the endpoints by route and verb; where a route only reads, `{version}` may be an alias."""
        return {
            "/registry/models": {"GET": self.list},
            "/registry/models/{model}": {"GET": self.show},
            "/registry/models/{model}/prune": {"POST": self.prune},
            VERSION: {"GET": self.show_version, "DELETE": self.delete},
            f"{VERSION}/manifest": {"GET": self.get_manifest},
            f"{VERSION}/report": {"GET": self.get_report},
            f"{VERSION}/verdict": {"GET": self.get_verdict},
            f"{VERSION}/files": {"GET": self.list_files},
            f"{VERSION}/approval": {"GET": self.get_approval, "PUT": self.decide},
        }

    def list(self) -> Response:
        """List every model."""
        return Response.json(ModelList([self._to_model_row(name) for name in self._registry.list_models()]))

    def show(self, model: ModelName, newest: Annotated[int, Query(ge=1, le=MAX_NEWEST)] = DEFAULT_NEWEST) -> Response:
        """Return a model with its aliases and its newest versions; `?newest=200` returns more."""
        versions = self._registry.list_versions(model)
        if not versions:
            self._registry.load_manifest(model, 1)  # raises `NotFoundError` if there is no such model
        aliases = self._registry.load_aliases(model)
        shown = [self._to_version_summary(model, version, aliases) for version in versions[: -newest - 1 : -1]]
        return Response.json(ModelDetail(model, aliases.documents, shown, len(versions), aliases.errors))

    def show_version(self, model: ModelName, version: str) -> Response:
        """Return the summary of a version."""
        manifest = self._resolve_manifest(model, version)
        aliases = self._registry.load_aliases(manifest.name)
        return Response.json(self._to_version_summary(manifest.name, manifest.version, aliases))

    def get_manifest(self, model: ModelName, version: str) -> Response:
        """Return the commit record of a version."""
        return Response.json(self._resolve_manifest(model, version))

    def list_files(self, model: ModelName, version: str) -> Response:
        """List the files of a version, with size and sha256."""
        return Response.json(self._resolve_manifest(model, version).files)

    def get_report(self, model: ModelName, version: str) -> Response:
        """Return the report on a version's variants that was published with it."""
        manifest = self._resolve_manifest(model, version)
        if manifest.report is None:
            raise NotFoundError(f"{manifest.name}:{manifest.version} was published without a report.")
        return self._read_json_file(version_path(manifest.name, manifest.version, manifest.report))

    def get_verdict(self, model: ModelName, version: str) -> Response:
        """Return the gate's last verdict on a version."""
        manifest = self._resolve_manifest(model, version)
        verdict = open_verdict(self._registry.store, manifest.name, manifest.version).read_or_none()
        if verdict is None:
            raise NotFoundError(f"{manifest.name}:{manifest.version} has not been examined by the gate yet.")
        return Response.json(verdict)

    def get_approval(self, model: ModelName, version: str) -> Response:
        """Return the decision about a version."""
        manifest = self._resolve_manifest(model, version)
        return Response.json(load_approval(self._registry, manifest.name, manifest.version))

    def decide(self, request: Request, model: ModelName, version: PathVersion, body: ApprovalBody) -> Response:
        """Approve or reject a version, of which its publisher can only reject it; the same again changes nothing."""
        if body.state == "approved" and request.identity:
            refuse_publisher(self._registry.load_manifest(model, version), request.actor)
        decision = record_decision(self._registry, model, version, body.state, actor=request.actor, reason=body.why)
        return Response.json(decision)

    def delete(self, model: ModelName, version: PathVersion) -> Response:
        """Remove a version for good; 409 while an alias needs it."""
        retention.delete_version(self._registry, model, version)
        return Response.json(DeletedVersion(f"{model}:{version}"))

    def prune(self, model: ModelName, body: PruneBody) -> Response:
        """Remove old versions that no alias needs, or list them."""
        retention.check_model_exists(self._registry, model)
        plan = retention.plan_pruning(self._registry, model, body.keep)
        if not body.dry_run:
            retention.prune(self._registry, plan)
        kept = {str(version): why for version, why in plan.kept_reasons.items()}
        versions = [*map(str, plan.versions)]
        return Response.json(PruneResult(model, versions, [*plan.orphan_paths], kept, done=not body.dry_run))

    def _to_model_row(self, name: str) -> ModelSummary:
        champion, error = None, None
        try:
            champion = str(self._registry.load_alias(name, CHAMPION).version)
        except NotFoundError:
            pass  # its first publisher died before it had one
        except BrokenDocumentError as exc:
            error = str(exc)
        return ModelSummary(name, [*map(str, self._registry.list_versions(name))], champion, error)

    def _to_version_summary(self, name: str, version: int, listing: AliasListing) -> VersionSummary:
        aliases = [alias for alias, document in listing.documents.items() if document.version == version]
        try:
            manifest = self._registry.load_manifest(name, version)
        except BrokenDocumentError as exc:
            return VersionSummary(str(version), aliases, None, 0, None, {}, None, "", "", str(exc))
        approval, error = None, None
        try:
            approval = load_approval(self._registry, name, version).state
        except BrokenDocumentError as exc:
            error = str(exc)
        return VersionSummary(
            version=str(version),
            aliases=aliases,
            serve=manifest.serve,
            bytes=manifest.served_bytes,
            metric=manifest.metric,
            metrics={precision: variant.metrics for precision, variant in manifest.variants.items()},
            approval=approval,
            created=manifest.created,
            by=manifest.by,
            error=error,
        )

    def _resolve_manifest(self, model: str, version: str) -> Manifest:
        """Load the manifest of the version or alias in the path."""
        reference = ModelReference.from_selector(model, version)
        return self._registry.load_manifest(reference.name, self._registry.resolve_reference(reference))

    def _read_json_file(self, path: str) -> Response:
        """Return a JSON document of the store as it is."""
        return Response(200, self._registry.store.get(path).data, {"content-type": JSON})


def refuse_publisher(manifest: Manifest, actor: str) -> None:
    """Raise `ConflictError` for a caller who would approve a version of his own (infra/decisions/0079)."""
    if actor == manifest.by:
        raise ConflictError(
            f"{manifest.name}:{manifest.version} was published by {actor}, and who publishes judges nothing: somebody "
            "else approves it."
        )

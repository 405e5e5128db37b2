"""What the registry's routes answer about models and versions: what there is, what was found, what may go."""

from pilotlight.api.http import JSON, UNKNOWN_CALLER, Request, Response
from pilotlight.api.router import Routes
from pilotlight.api.schemas import registry
from pilotlight.api.schemas.registry import (
    ApprovalBody,
    DeletedVersion,
    ModelDetail,
    ModelList,
    ModelSummary,
    PruneBody,
    PruneResult,
    VersionSummary,
    get_path_version,
)
from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import CHAMPION, ModelReference, check_name
from pilotlight.errors import NotFoundError
from pilotlight.gate.verdict import verdict_path
from pilotlight.registry import retention
from pilotlight.registry.approval import load_approval, record_decision
from pilotlight.registry.registry import Registry, version_path

DEFAULT_NEWEST = 50  # versions that are shown unless asked otherwise: each costs a read of the store
VERSION = "/registry/models/{model}/versions/{version}"


class VersionEndpoints:
    """Models and versions over a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml; where one only reads, `{version}` may be an alias."""
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

    def list(self, request: Request) -> Response:
        """Every model."""
        return Response.json(ModelList([self._to_model_row(name) for name in self._registry.list_models()]))

    def show(self, request: Request) -> Response:
        """A model with its aliases and its newest versions; `?newest=200` shows more."""
        name, newest = parse_model_name(request), registry.parse_query_number(request.query, "newest", DEFAULT_NEWEST)
        versions = self._registry.list_versions(name)
        if not versions:
            self._registry.load_manifest(name, 1)  # which says that there is no such model
        aliases = self._registry.load_aliases(name)
        shown = [self._to_version_summary(name, version, aliases) for version in versions[: -newest - 1 : -1]]
        return Response.json(ModelDetail(name, aliases, shown, len(versions)))

    def show_version(self, request: Request) -> Response:
        """A version in a few words."""
        manifest = self._resolve_manifest(request)
        return Response.json(
            self._to_version_summary(manifest.name, manifest.version, self._registry.load_aliases(manifest.name))
        )

    def get_manifest(self, request: Request) -> Response:
        """The commit record of a version."""
        return Response.json(self._resolve_manifest(request))

    def list_files(self, request: Request) -> Response:
        """The files of a version, with size and sha256."""
        return Response.json(self._resolve_manifest(request).files)

    def get_report(self, request: Request) -> Response:
        """What was measured of a version's variants, as it was published."""
        manifest = self._resolve_manifest(request)
        if manifest.report is None:
            raise NotFoundError(f"{manifest.name}:{manifest.version} was published without a report.")
        return self._read_json_file(version_path(manifest.name, manifest.version, manifest.report))

    def get_verdict(self, request: Request) -> Response:
        """What the gate found when it last examined a version."""
        manifest = self._resolve_manifest(request)
        try:
            return self._read_json_file(verdict_path(manifest.name, manifest.version))
        except NotFoundError:
            raise NotFoundError(f"{manifest.name}:{manifest.version} has not been examined by the gate yet.") from None

    def get_approval(self, request: Request) -> Response:
        """Whether people want a version."""
        manifest = self._resolve_manifest(request)
        return Response.json(load_approval(self._registry, manifest.name, manifest.version))

    def decide(self, request: Request) -> Response:
        """Approve or reject a version; the same again changes nothing."""
        decision = registry.parse_body(request.body, ApprovalBody, "a decision about a version")
        name, version = parse_model_name(request), get_path_version(request.parameters)
        actor, reason = request.caller or UNKNOWN_CALLER, decision.why
        return Response.json(record_decision(self._registry, name, version, decision.state, actor=actor, reason=reason))

    def delete(self, request: Request) -> Response:
        """Remove a version for good; 409 while an alias needs it."""
        name, version = parse_model_name(request), get_path_version(request.parameters)
        retention.delete_version(self._registry, name, version)
        return Response.json(DeletedVersion(f"{name}:{version}"))

    def prune(self, request: Request) -> Response:
        """Remove old versions that no alias needs, or say which those are."""
        body, name = registry.parse_body(request.body, PruneBody, "an order to prune"), parse_model_name(request)
        retention.check_model_exists(self._registry, name)
        plan = retention.plan_pruning(self._registry, name, body.keep)
        if not body.dry_run:
            retention.prune(self._registry, plan)
        kept = {str(version): why for version, why in plan.kept_reasons.items()}
        versions = [*map(str, plan.versions)]
        return Response.json(PruneResult(name, versions, [*plan.orphan_paths], kept, done=not body.dry_run))

    def _to_model_row(self, name: str) -> ModelSummary:
        try:
            champion = str(self._registry.load_alias(name, CHAMPION).version)
        except NotFoundError:
            champion = None
        return ModelSummary(name, [*map(str, self._registry.list_versions(name))], champion)

    def _to_version_summary(self, name: str, version: int, aliases: dict[str, AliasDocument]) -> VersionSummary:
        manifest = self._registry.load_manifest(name, version)
        return VersionSummary(
            version=str(version),
            aliases=[alias for alias, document in aliases.items() if document.version == version],
            serve=manifest.serve,
            bytes=manifest.served_bytes,
            metric=manifest.metric,
            metrics={precision: variant.metrics for precision, variant in manifest.variants.items()},
            approval=load_approval(self._registry, name, version).state,
            created=manifest.created,
            by=manifest.by,
        )

    def _resolve_manifest(self, request: Request) -> Manifest:
        """The manifest of the version or alias that the path names."""
        reference = ModelReference.from_selector(parse_model_name(request), request.parameters["version"])
        return self._registry.load_manifest(reference.name, self._registry.resolve_reference(reference))

    def _read_json_file(self, path: str) -> Response:
        """A JSON document of the store, as it lies there."""
        return Response(200, self._registry.store.get(path).data, {"content-type": JSON})


def parse_model_name(request: Request) -> str:
    """The model that the path names."""
    return check_name(request.parameters["model"], "model name")

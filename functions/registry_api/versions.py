"""What the registry's routes answer about models and versions: what there is, what was found, what may go."""

from pilotlight.api.http import JSON, Request, Response
from pilotlight.api.router import Routes
from pilotlight.api.schemas import registry
from pilotlight.api.schemas.registry import Decision, Model, Models, Prune, Pruned, Removed, Row, Summary, version_of
from pilotlight.contracts.manifest import CHAMPION, AliasDocument, Manifest, Reference, check_name
from pilotlight.errors import NotFoundError
from pilotlight.gate.verdict import verdict_path
from pilotlight.registry import retention
from pilotlight.registry.approval import approval, decide
from pilotlight.registry.registry import Registry, version_path

NOBODY = "an unnamed caller"  # the gateway knows no name for one without credentials
NEWEST = 50  # versions that are shown unless asked otherwise: each costs a read of the store
VERSION = "/registry/models/{model}/versions/{version}"


class Versions:
    """Models and versions over a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml; where one only reads, `{version}` may be an alias."""
        return {
            "/registry/models": {"GET": self.list},
            "/registry/models/{model}": {"GET": self.show},
            "/registry/models/{model}/prune": {"POST": self.prune},
            VERSION: {"GET": self.version, "DELETE": self.delete},
            f"{VERSION}/manifest": {"GET": self.manifest},
            f"{VERSION}/report": {"GET": self.report},
            f"{VERSION}/verdict": {"GET": self.verdict},
            f"{VERSION}/files": {"GET": self.files},
            f"{VERSION}/approval": {"GET": self.approval, "PUT": self.decide},
        }

    def list(self, request: Request) -> Response:
        """Every model."""
        return Response.json(Models([self._row(name) for name in self._registry.models()]))

    def show(self, request: Request) -> Response:
        """A model with its aliases and its newest versions; `?newest=200` shows more."""
        name, newest = model(request), registry.whole(request.query, "newest", NEWEST)
        versions = self._registry.versions(name)
        if not versions:
            self._registry.manifest(name, 1)  # which says that there is no such model
        aliases = self._registry.aliases(name)
        shown = [self._summary(name, version, aliases) for version in versions[: -newest - 1 : -1]]
        return Response.json(Model(name, aliases, shown, len(versions)))

    def version(self, request: Request) -> Response:
        """A version in a few words."""
        meant = self._meant(request)
        return Response.json(self._summary(meant.name, meant.version, self._registry.aliases(meant.name)))

    def manifest(self, request: Request) -> Response:
        """The commit record of a version."""
        return Response.json(self._meant(request))

    def files(self, request: Request) -> Response:
        """The files of a version, with size and sha256."""
        return Response.json(self._meant(request).files)

    def report(self, request: Request) -> Response:
        """What was measured of a version's variants, as it was published."""
        manifest = self._meant(request)
        if manifest.report is None:
            raise NotFoundError(f"{manifest.name}:{manifest.version} was published without a report.")
        return self._file(version_path(manifest.name, manifest.version, manifest.report))

    def verdict(self, request: Request) -> Response:
        """What the gate found when it last examined a version."""
        manifest = self._meant(request)
        try:
            return self._file(verdict_path(manifest.name, manifest.version))
        except NotFoundError:
            raise NotFoundError(f"{manifest.name}:{manifest.version} has not been examined by the gate yet.") from None

    def approval(self, request: Request) -> Response:
        """Whether people want a version."""
        manifest = self._meant(request)
        return Response.json(approval(self._registry, manifest.name, manifest.version))

    def decide(self, request: Request) -> Response:
        """Approve or reject a version; the same again changes nothing."""
        decision = registry.read(request.body, Decision, "a decision about a version")
        name, version = model(request), version_of(request.parameters)
        by, why = request.caller or NOBODY, decision.why
        return Response.json(decide(self._registry, name, version, decision.state, by=by, why=why))

    def delete(self, request: Request) -> Response:
        """Remove a version for good; 409 while an alias needs it."""
        name, version = model(request), version_of(request.parameters)
        retention.delete(self._registry, name, version)
        return Response.json(Removed(f"{name}:{version}"))

    def prune(self, request: Request) -> Response:
        """Remove old versions that no alias needs, or say which those are."""
        asked, name = registry.read(request.body, Prune, "an order to prune"), model(request)
        retention.check_there(self._registry, name)
        plan = retention.plan(self._registry, name, asked.keep)
        if not asked.dry_run:
            retention.carry_out(self._registry, plan)
        kept = {str(version): why for version, why in plan.kept.items()}
        versions = [*map(str, plan.versions)]
        return Response.json(Pruned(name, versions, [*plan.orphans], kept, done=not asked.dry_run))

    def _row(self, name: str) -> Row:
        try:
            champion = str(self._registry.alias(name, CHAMPION).version)
        except NotFoundError:
            champion = None
        return Row(name, [*map(str, self._registry.versions(name))], champion)

    def _summary(self, name: str, version: int, aliases: dict[str, AliasDocument]) -> Summary:
        manifest = self._registry.manifest(name, version)
        return Summary(
            version=str(version),
            aliases=[alias for alias, document in aliases.items() if document.version == version],
            serve=manifest.serve,
            bytes=manifest.bytes,
            metric=manifest.metric,
            metrics={precision: variant.metrics for precision, variant in manifest.variants.items()},
            approval=approval(self._registry, name, version).state,
            created=manifest.created,
            by=manifest.by,
        )

    def _meant(self, request: Request) -> Manifest:
        """The manifest of the version or alias that the path names."""
        meant = Reference.select(model(request), request.parameters["version"])
        return self._registry.manifest(meant.name, self._registry.resolve(meant))

    def _file(self, path: str) -> Response:
        """A JSON document of the store, as it lies there."""
        return Response(200, self._registry.store.get(path).data, {"content-type": JSON})


def model(request: Request) -> str:
    """The model that the path names."""
    return check_name(request.parameters["model"], "model name")

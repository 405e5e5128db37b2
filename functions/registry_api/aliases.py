"""What the registry's routes answer about aliases: where they point, how they came there, and where they go next.

Each answer carries the number of the alias's document as its ETag; a change with an If-Match is made to that document
or not at all. Every change is one compare-and-swap, with the caller's name in it. A promotion is not made here: it is
handed to the promote function, which alone opens models.
"""

from collections.abc import Callable

from functions.registry_api.versions import NOBODY, model
from pilotlight.api.http import Request, Response
from pilotlight.api.router import Routes
from pilotlight.api.schemas import registry
from pilotlight.api.schemas.registry import Promote, Rollback, Shadow, Split, Try, accepts, named, number, tag
from pilotlight.aws.lambda_invoke import Function
from pilotlight.contracts.manifest import AliasDocument, Errand, Share, check_alias
from pilotlight.errors import InvalidInputError, NotFoundError, PilotlightError, PreconditionError
from pilotlight.gate import promotion_request
from pilotlight.registry import alias_updates
from pilotlight.registry.approval import go_back, refuse_unapproved
from pilotlight.registry.registry import Registry

ALIAS = "/registry/models/{model}/aliases/{alias}"
AGAIN_S = "2"  # after which it is worth to look how a promotion goes


class Moves:
    """Aliases over a registry; `promoter` is the function that promotes."""

    def __init__(self, registry: Registry, promoter: Function, *, approval: bool = False) -> None:
        self._registry = registry
        self._promoter = promoter
        self._approval = approval  # whether a version must be approved before it serves

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml."""
        return {
            "/registry/models/{model}/aliases": {"GET": self.all},
            "/registry/models/{model}/promotions/{promotion}": {"GET": self.promotion},
            ALIAS: {"GET": self.alias},
            f"{ALIAS}/history": {"GET": self.history},
            f"{ALIAS}/promote": {"POST": self.promote},
            f"{ALIAS}/rollback": {"POST": self.rollback},
            f"{ALIAS}/canary": {"POST": self.canary},
            f"{ALIAS}/split": {"POST": self.split},
            f"{ALIAS}/shadow": {"POST": self.shadow},
        }

    def all(self, request: Request) -> Response:
        """Every alias of a model, by its name."""
        name = model(request)
        found = self._registry.aliases(name)
        if not found and not self._registry.versions(name):
            self._registry.manifest(name, 1)  # which says that there is no such model
        return Response.json(found)

    def alias(self, request: Request) -> Response:
        """Where an alias points."""
        return told(self._registry.alias(model(request), alias(request)))

    def history(self, request: Request) -> Response:
        """Every document that an alias has had, oldest first, the current one last."""
        documents = self._registry.history(model(request), alias(request))
        return Response.json(documents, etag=tag(documents[-1]))

    def promotion(self, request: Request) -> Response:
        """How a promotion goes."""
        return Response.json(
            promotion_request.find(self._registry.store, model(request), request.parameters["promotion"])
        )

    def promote(self, request: Request) -> Response:
        """Hand a promotion to the gate: 202, and where to see how it ended; 200 if it is there already."""
        asked = registry.read(request.body, Promote, "an order to promote")
        if asked.force and not asked.why.strip():
            raise InvalidInputError("To force a version past the gate, say why: the history keeps it.")
        name, there = model(request), alias(request)
        version = self._registry.resolve(named(name, asked.version))
        self._registry.manifest(name, version)
        document = self._current(request, name, there)
        by = request.caller or NOBODY
        wanted = promotion_request.asked(name, version, there, by=by, force=asked.force, why=asked.why)
        if document is not None and document.version == version and not document.shares:
            done = promotion_request.ended(wanted, "promoted", f"{name}@{there} points to version {version} already.")
            return seen(promotion_request.keep(self._registry.store, done), 200)
        if not asked.force:
            refuse_unapproved(self._registry, name, version, required=self._approval)
        return seen(self._handed(wanted), 202)

    def rollback(self, request: Request) -> Response:
        """End the alias's trial or, without one, point it to where it pointed before."""
        why = registry.read(request.body, Rollback, "an order to roll back").why
        name, by = model(request), request.caller or NOBODY
        return self._changed(request, lambda old: go_back(self._registry, name, old, by, why))

    def canary(self, request: Request) -> Response:
        """Try a version on a share of the requests, or end the trial."""
        asked, by = registry.read(request.body, Try, "a canary"), request.caller or NOBODY
        if not asked.percent:
            return self._changed(request, lambda old: alias_updates.without_shares(old, by, asked.why))
        self._check(request, number(asked.version))
        trial, weight = asked.canary(alias_updates.until(asked.bake)), alias_updates.weight(asked.percent)
        return self._changed(request, lambda old: alias_updates.tried(old, trial, weight, by, asked.why))

    def split(self, request: Request) -> Response:
        """Share the requests out among versions."""
        asked, by = registry.read(request.body, Split, "a split"), request.caller or NOBODY
        shares = tuple(Share(number(part.version), alias_updates.weight(part.percent)) for part in asked.shares)
        for share in shares:
            self._check(request, share.version)
        return self._changed(request, lambda old: alias_updates.shared(old, shares, by, asked.why))

    def shadow(self, request: Request) -> Response:
        """Send copies of requests to another version too, or no longer."""
        asked, by = registry.read(request.body, Shadow, "a shadow"), request.caller or NOBODY
        self._registry.manifest(model(request), number(asked.version))
        copied = Share(number(asked.version), alias_updates.weight(asked.percent)) if asked.percent else None
        return self._changed(request, lambda old: alias_updates.shadowed(old, copied, by, asked.why))

    def _check(self, request: Request, version: int) -> None:
        """The version exists, and may answer callers."""
        self._registry.manifest(model(request), version)
        refuse_unapproved(self._registry, model(request), version, required=self._approval)

    def _changed(self, request: Request, of: Callable[[AliasDocument], AliasDocument]) -> Response:
        """Swap the alias's document, if it is the one that the caller has seen."""

        def changed(document: AliasDocument) -> AliasDocument:
            check_unmoved(request, document)
            return of(document)

        return told(self._registry.change(model(request), alias(request), changed))

    def _current(self, request: Request, name: str, alias: str) -> AliasDocument | None:
        """The alias's document, if it has one, and if the caller knows it as it is."""
        try:
            document = self._registry.alias(name, alias)
        except NotFoundError:
            document = None
        check_unmoved(request, document)
        return document

    def _handed(self, wanted: Errand) -> Errand:
        """Write the errand down, then start the function that runs it; one that nobody will run is not left open."""
        promotion_request.keep(self._registry.store, wanted)
        try:
            self._promoter.send(errand=wanted)
        except PilotlightError as exc:
            promotion_request.keep(self._registry.store, promotion_request.ended(wanted, "failed", str(exc)))
            raise
        return wanted


def check_unmoved(request: Request, document: AliasDocument | None) -> None:
    """`PreconditionError` where an If-Match names another document than the alias has now."""
    current = tag(document) if document else None
    if not accepts(request.headers.get("if-match"), current):
        now = f"is at number {current}, version {document.version}" if document else "does not exist"
        raise PreconditionError(
            f"The alias {request.parameters['alias']!r} {now}, and If-Match names {request.headers['if-match']}; "
            "read it again and decide anew."
        )


def alias(request: Request) -> str:
    """The alias that the path names."""
    return check_alias(request.parameters["alias"])


def told(document: AliasDocument) -> Response:
    """An alias's document with its number as the ETag."""
    return Response.json(document, etag=tag(document))


def seen(wanted: Errand, status: int) -> Response:
    """A promotion, and where it stands; relative to the route that it was asked by, so that the stage stays."""
    headers = {"location": f"../../promotions/{wanted.id}"} | ({"retry-after": AGAIN_S} if status == 202 else {})
    return Response.json(wanted, status, **headers)

"""The registry's routes of aliases: their documents, their history, and changes.

Each response has the number of the alias's document as its ETag; a change with an If-Match is made to that document or
not at all. Every change is one compare-and-swap and records the caller's name. The promote function, which alone opens
models, runs the promotions.
"""

from collections.abc import Callable

from pilotlight.api.http import Request, Response
from pilotlight.api.powertools_router import AliasName, ModelName, TypedRoutes
from pilotlight.api.schemas.registry import (
    BrokenAlias,
    CanaryBody,
    PromoteBody,
    RollbackBody,
    ShadowBody,
    TrafficSplitBody,
    build_reference,
    format_etag,
    is_if_match_satisfied,
    parse_version_number,
)
from pilotlight.aws.lambda_invoke import LambdaFunction
from pilotlight.contracts.alias import AliasDocument, TrafficShare
from pilotlight.contracts.promotion import PromotionRequest
from pilotlight.errors import (
    BrokenDocumentError,
    InvalidInputError,
    NotFoundError,
    PilotlightError,
    PreconditionError,
)
from pilotlight.gate import promotion_request
from pilotlight.registry import alias_updates
from pilotlight.registry.approval import refuse_unapproved, rollback_alias
from pilotlight.registry.registry import Registry

ALIAS = "/registry/models/{model}/aliases/{alias}"
RETRY_AFTER_S = "2"  # after which a client polls a promotion again


class AliasEndpoints:
    """The routes of aliases; `promoter` is the function that promotes."""

    def __init__(self, registry: Registry, promoter: LambdaFunction, *, approval_required: bool = False) -> None:
        self._registry = registry
        self._promoter = promoter
        self._approval_required = approval_required  # whether a version must be approved before it serves

    def routes(self) -> TypedRoutes:
        """Return the endpoints by route and verb."""
        return {
            "/registry/models/{model}/aliases": {"GET": self.list_aliases},
            "/registry/models/{model}/promotions/{promotion}": {"GET": self.get_promotion},
            ALIAS: {"GET": self.get_alias},
            f"{ALIAS}/history": {"GET": self.get_history},
            f"{ALIAS}/promote": {"POST": self.promote},
            f"{ALIAS}/rollback": {"POST": self.rollback},
            f"{ALIAS}/canary": {"POST": self.set_canary},
            f"{ALIAS}/split": {"POST": self.set_split},
            f"{ALIAS}/shadow": {"POST": self.set_shadow},
        }

    def list_aliases(self, model: ModelName) -> Response:
        """Return every alias of a model, by its name; a broken one has an error in place of its document."""
        listing = self._registry.load_aliases(model)
        found = listing.documents | {alias: BrokenAlias(error) for alias, error in listing.errors.items()}
        if not found and not self._registry.list_versions(model):
            self._registry.load_manifest(model, 1)  # raises `NotFoundError` if there is no such model
        return Response.json(found)

    def get_alias(self, model: ModelName, alias: AliasName) -> Response:
        """Return an alias's document."""
        return to_alias_response(self._registry.load_alias(model, alias))

    def get_history(self, model: ModelName, alias: AliasName) -> Response:
        """Return every document that an alias has had, oldest first, the current one last."""
        documents = self._registry.load_alias_history(model, alias)
        if isinstance(current := documents[-1], AliasDocument):
            return Response.json(documents, etag=format_etag(current))
        return Response.json(documents)

    def get_promotion(self, model: ModelName, promotion: str) -> Response:
        """Return the state of a promotion."""
        return Response.json(promotion_request.load_request(self._registry.store, model, promotion))

    def promote(self, request: Request, model: ModelName, alias: AliasName, body: PromoteBody) -> Response:
        """Request a promotion: 202 with the location of its result; 200 if the alias points to the version already."""
        if body.force and not body.why.strip():
            raise InvalidInputError("To force a version past the gate, say why: the history keeps it.")
        version = self._registry.resolve_reference(build_reference(model, body.version))
        self._registry.load_manifest(model, version)
        document = self._find_current(request, model, alias, ignore_broken=body.force)
        promotion = promotion_request.new_request(
            model, version, alias, actor=request.actor, force=body.force, reason=body.why
        )
        if document is not None and document.version == version and not document.shares:
            finished = promotion_request.finish_request(
                promotion, "promoted", f"{model}@{alias} points to version {version} already."
            )
            return to_promotion_response(promotion_request.save_request(self._registry.store, finished), 200)
        if not body.force:
            refuse_unapproved(self._registry, model, version, required=self._approval_required)
        return to_promotion_response(self._submit_promotion(promotion), 202)

    def rollback(self, request: Request, model: ModelName, alias: AliasName, body: RollbackBody) -> Response:
        """End the alias's canary or, without one, point it to its previous version."""
        actor, reason = request.actor, body.why
        return self._update_alias(
            request, model, alias, lambda old: rollback_alias(self._registry, model, old, actor, reason)
        )

    def set_canary(self, request: Request, model: ModelName, alias: AliasName, body: CanaryBody) -> Response:
        """Start a canary on a share of the requests, or end it."""
        actor = request.actor
        if not body.percent:
            return self._update_alias(
                request, model, alias, lambda old: alias_updates.clear_traffic_split(old, actor, body.why)
            )
        self._check_version(model, parse_version_number(body.version))
        trial, weight = (
            body.to_canary(alias_updates.compute_bake_end(body.bake)),
            alias_updates.weight_from_percent(body.percent),
        )
        return self._update_alias(
            request, model, alias, lambda old: alias_updates.start_canary(old, trial, weight, actor, body.why)
        )

    def set_split(self, request: Request, model: ModelName, alias: AliasName, body: TrafficSplitBody) -> Response:
        """Split the requests among versions."""
        actor = request.actor
        shares = tuple(
            TrafficShare(parse_version_number(part.version), alias_updates.weight_from_percent(part.percent))
            for part in body.shares
        )
        for share in shares:
            self._check_version(model, share.version)
        return self._update_alias(
            request, model, alias, lambda old: alias_updates.set_traffic_split(old, shares, actor, body.why)
        )

    def set_shadow(self, request: Request, model: ModelName, alias: AliasName, body: ShadowBody) -> Response:
        """Send copies of requests to another version, or end that."""
        actor = request.actor
        self._registry.load_manifest(model, parse_version_number(body.version))
        shadow_share = (
            TrafficShare(parse_version_number(body.version), alias_updates.weight_from_percent(body.percent))
            if body.percent
            else None
        )
        return self._update_alias(
            request, model, alias, lambda old: alias_updates.set_shadow(old, shadow_share, actor, body.why)
        )

    def _check_version(self, model: str, version: int) -> None:
        """Check that a version exists and may answer callers."""
        self._registry.load_manifest(model, version)
        refuse_unapproved(self._registry, model, version, required=self._approval_required)

    def _update_alias(
        self, request: Request, model: str, alias: str, change: Callable[[AliasDocument], AliasDocument]
    ) -> Response:
        """Swap the alias's document, if it satisfies the request's If-Match."""

        def change_if_unmoved(document: AliasDocument) -> AliasDocument:
            check_if_match(request, document)
            return change(document)

        return to_alias_response(self._registry.update_alias(model, alias, change_if_unmoved))

    def _find_current(self, request: Request, model: str, alias: str, *, ignore_broken: bool) -> AliasDocument | None:
        """Return the alias's document if it satisfies the request's If-Match; None for a new or broken alias."""
        try:
            document = self._registry.load_alias(model, alias)
        except NotFoundError:
            document = None
        except BrokenDocumentError:
            if not ignore_broken:
                raise
            document = None
        check_if_match(request, document)
        return document

    def _submit_promotion(self, promotion: PromotionRequest) -> PromotionRequest:
        """Store the request and start the promote function; where that fails, the request has failed too."""
        promotion_request.save_request(self._registry.store, promotion)
        try:
            self._promoter.invoke_async(errand=promotion)
        except PilotlightError as exc:
            promotion_request.save_request(
                self._registry.store, promotion_request.finish_request(promotion, "failed", str(exc))
            )
            raise
        return promotion


def check_if_match(request: Request, document: AliasDocument | None) -> None:
    """Raise `PreconditionError` if an If-Match names another document than the alias's current one."""
    current = format_etag(document) if document else None
    if not is_if_match_satisfied(request.headers.get("if-match"), current):
        now = f"is at number {current}, version {document.version}" if document else "does not exist"
        raise PreconditionError(
            f"The alias {request.parameters['alias']!r} {now}, and If-Match names {request.headers['if-match']}; "
            "read it again and decide anew."
        )


def to_alias_response(document: AliasDocument) -> Response:
    """Build the response for an alias, with its document's number as the ETag."""
    return Response.json(document, etag=format_etag(document))


def to_promotion_response(promotion: PromotionRequest, status: int) -> Response:
    """Build the response for a promotion; its location is relative, so that the gateway's stage stays in the path."""
    headers = {"location": f"../../promotions/{promotion.id}"} | (
        {"retry-after": RETRY_AFTER_S} if status == 202 else {}
    )
    return Response.json(promotion, status, **headers)

"""What the registry's routes answer about aliases: where they point, how they came there, and where they go next.

Each answer carries the number of the alias's document as its ETag; a change with an If-Match is made to that document
or not at all. Every change is one compare-and-swap, with the caller's name in it. A promotion is not made here: it is
handed to the promote function, which alone opens models.
"""

from collections.abc import Callable

from functions.registry_api.versions import parse_model_name
from pilotlight.api.http import UNKNOWN_CALLER, Request, Response
from pilotlight.api.router import Routes
from pilotlight.api.schemas import registry
from pilotlight.api.schemas.registry import (
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
from pilotlight.contracts.names import check_alias
from pilotlight.contracts.promotion import PromotionRequest
from pilotlight.errors import InvalidInputError, NotFoundError, PilotlightError, PreconditionError
from pilotlight.gate import promotion_request
from pilotlight.registry import alias_updates
from pilotlight.registry.approval import refuse_unapproved, rollback_alias
from pilotlight.registry.registry import Registry

ALIAS = "/registry/models/{model}/aliases/{alias}"
RETRY_AFTER_S = "2"  # after which it is worth to look how a promotion goes


class AliasEndpoints:
    """Aliases over a registry; `promoter` is the function that promotes."""

    def __init__(self, registry: Registry, promoter: LambdaFunction, *, approval_required: bool = False) -> None:
        self._registry = registry
        self._promoter = promoter
        self._approval_required = approval_required  # whether a version must be approved before it serves

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml."""
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

    def list_aliases(self, request: Request) -> Response:
        """Every alias of a model, by its name."""
        name = parse_model_name(request)
        found = self._registry.load_aliases(name)
        if not found and not self._registry.list_versions(name):
            self._registry.load_manifest(name, 1)  # which says that there is no such model
        return Response.json(found)

    def get_alias(self, request: Request) -> Response:
        """Where an alias points."""
        return to_alias_response(self._registry.load_alias(parse_model_name(request), parse_alias_name(request)))

    def get_history(self, request: Request) -> Response:
        """Every document that an alias has had, oldest first, the current one last."""
        documents = self._registry.load_alias_history(parse_model_name(request), parse_alias_name(request))
        return Response.json(documents, etag=format_etag(documents[-1]))

    def get_promotion(self, request: Request) -> Response:
        """How a promotion goes."""
        return Response.json(
            promotion_request.load_request(
                self._registry.store, parse_model_name(request), request.parameters["promotion"]
            )
        )

    def promote(self, request: Request) -> Response:
        """Hand a promotion to the gate: 202, and where to see how it ended; 200 if it is there already."""
        body = registry.parse_body(request.body, PromoteBody, "an order to promote")
        if body.force and not body.why.strip():
            raise InvalidInputError("To force a version past the gate, say why: the history keeps it.")
        name, alias_name = parse_model_name(request), parse_alias_name(request)
        version = self._registry.resolve_reference(build_reference(name, body.version))
        self._registry.load_manifest(name, version)
        document = self._find_current(request, name, alias_name)
        actor = request.caller or UNKNOWN_CALLER
        promotion = promotion_request.new_request(
            name, version, alias_name, actor=actor, force=body.force, reason=body.why
        )
        if document is not None and document.version == version and not document.shares:
            finished = promotion_request.finish_request(
                promotion, "promoted", f"{name}@{alias_name} points to version {version} already."
            )
            return to_promotion_response(promotion_request.save_request(self._registry.store, finished), 200)
        if not body.force:
            refuse_unapproved(self._registry, name, version, required=self._approval_required)
        return to_promotion_response(self._submit_promotion(promotion), 202)

    def rollback(self, request: Request) -> Response:
        """End the alias's trial or, without one, point it to where it pointed before."""
        reason = registry.parse_body(request.body, RollbackBody, "an order to roll back").why
        name, actor = parse_model_name(request), request.caller or UNKNOWN_CALLER
        return self._update_alias(request, lambda old: rollback_alias(self._registry, name, old, actor, reason))

    def set_canary(self, request: Request) -> Response:
        """Try a version on a share of the requests, or end the trial."""
        body, actor = registry.parse_body(request.body, CanaryBody, "a canary"), request.caller or UNKNOWN_CALLER
        if not body.percent:
            return self._update_alias(request, lambda old: alias_updates.clear_traffic_split(old, actor, body.why))
        self._check_version(request, parse_version_number(body.version))
        trial, weight = (
            body.to_canary(alias_updates.compute_bake_end(body.bake)),
            alias_updates.weight_from_percent(body.percent),
        )
        return self._update_alias(request, lambda old: alias_updates.start_canary(old, trial, weight, actor, body.why))

    def set_split(self, request: Request) -> Response:
        """Share the requests out among versions."""
        body, actor = registry.parse_body(request.body, TrafficSplitBody, "a split"), request.caller or UNKNOWN_CALLER
        shares = tuple(
            TrafficShare(parse_version_number(part.version), alias_updates.weight_from_percent(part.percent))
            for part in body.shares
        )
        for share in shares:
            self._check_version(request, share.version)
        return self._update_alias(request, lambda old: alias_updates.set_traffic_split(old, shares, actor, body.why))

    def set_shadow(self, request: Request) -> Response:
        """Send copies of requests to another version too, or no longer."""
        body, actor = registry.parse_body(request.body, ShadowBody, "a shadow"), request.caller or UNKNOWN_CALLER
        self._registry.load_manifest(parse_model_name(request), parse_version_number(body.version))
        shadow_share = (
            TrafficShare(parse_version_number(body.version), alias_updates.weight_from_percent(body.percent))
            if body.percent
            else None
        )
        return self._update_alias(request, lambda old: alias_updates.set_shadow(old, shadow_share, actor, body.why))

    def _check_version(self, request: Request, version: int) -> None:
        """The version exists, and may answer callers."""
        self._registry.load_manifest(parse_model_name(request), version)
        refuse_unapproved(self._registry, parse_model_name(request), version, required=self._approval_required)

    def _update_alias(self, request: Request, change: Callable[[AliasDocument], AliasDocument]) -> Response:
        """Swap the alias's document, if it is the one that the caller has seen."""

        def change_if_unmoved(document: AliasDocument) -> AliasDocument:
            check_if_match(request, document)
            return change(document)

        return to_alias_response(
            self._registry.update_alias(parse_model_name(request), parse_alias_name(request), change_if_unmoved)
        )

    def _find_current(self, request: Request, name: str, alias_name: str) -> AliasDocument | None:
        """The alias's document, if it has one, and if the caller knows it as it is."""
        try:
            document = self._registry.load_alias(name, alias_name)
        except NotFoundError:
            document = None
        check_if_match(request, document)
        return document

    def _submit_promotion(self, promotion: PromotionRequest) -> PromotionRequest:
        """Write the errand down, then start the function that runs it; one that nobody will run is not left open."""
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
    """`PreconditionError` where an If-Match names another document than the alias has now."""
    current = format_etag(document) if document else None
    if not is_if_match_satisfied(request.headers.get("if-match"), current):
        now = f"is at number {current}, version {document.version}" if document else "does not exist"
        raise PreconditionError(
            f"The alias {request.parameters['alias']!r} {now}, and If-Match names {request.headers['if-match']}; "
            "read it again and decide anew."
        )


def parse_alias_name(request: Request) -> str:
    """The alias that the path names."""
    return check_alias(request.parameters["alias"])


def to_alias_response(document: AliasDocument) -> Response:
    """An alias's document with its number as the ETag."""
    return Response.json(document, etag=format_etag(document))


def to_promotion_response(promotion: PromotionRequest, status: int) -> Response:
    """A promotion, and where it stands; relative to the route that it was asked by, so that the stage stays."""
    headers = {"location": f"../../promotions/{promotion.id}"} | (
        {"retry-after": RETRY_AFTER_S} if status == 202 else {}
    )
    return Response.json(promotion, status, **headers)

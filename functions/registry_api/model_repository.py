"""The routes of V2's model repository extension. They open no model.

The store is the repository, and every version in it is served on demand. So `load` and `unload` move no bytes: they
resume and suspend the champion, which takes effect in each environment when it next reads the alias (decision 0014).
"""

from typing import Any

from pilotlight.api.http import Request, Response
from pilotlight.api.powertools_router import ModelName, TypedRoutes
from pilotlight.api.schemas.registry import Flag
from pilotlight.api.schemas.request_body import request_body
from pilotlight.contracts.alias import AliasDocument, Suspension
from pilotlight.contracts.names import CHAMPION
from pilotlight.errors import BrokenDocumentError, NotFoundError, UnsupportedError
from pilotlight.registry.registry import Registry

OTHER_BODY = "is not one of the repository extension"  # an error's text for a body of another form
DEFAULT_REASON = "unloaded by POST /v2/repository"


@request_body(OTHER_BODY, extra="ignore")
class IndexBody:
    """The body of an index request, which may be empty."""

    ready: Flag = False  # only those that answer


@request_body(OTHER_BODY, extra="ignore")
class LoadBody:
    """The body of a load or unload request, which may be empty."""

    parameters: dict[str, Any] | None = None


class RepositoryEndpoints:
    """The routes of the repository extension over a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def routes(self) -> TypedRoutes:
        """Return the endpoints by route and verb."""
        return {
            "/v2/repository/index": {"POST": self.index},
            "/v2/repository/models/{model}/load": {"POST": self.load},
            "/v2/repository/models/{model}/unload": {"POST": self.unload},
        }

    def index(self, body: IndexBody) -> Response:
        """List every version with its state; those of an unloaded model are unavailable, but answer by number."""
        rows = [row for name in self._registry.list_models() for row in self._list_versions(name)]
        return Response.json([row for row in rows if row["state"] == "READY" or not body.ready])

    def load(self, request: Request, model: ModelName, body: LoadBody) -> Response:
        """Put the champion back into service."""
        refuse_overrides(body.parameters or {})
        document = self._registry.resume_alias(model, CHAMPION, actor=request.actor, reason="loaded")
        return to_change_response(model, document)

    def unload(self, request: Request, model: ModelName, body: LoadBody) -> Response:
        """Take the champion out of service; callers see `parameters.reason`."""
        reason = str((body.parameters or {}).get("reason") or DEFAULT_REASON)
        document = self._registry.suspend_alias(model, CHAMPION, actor=request.actor, reason=reason)
        return to_change_response(model, document)

    def _list_versions(self, name: str) -> list[dict[str, str]]:
        try:
            state, reason = get_model_state(self._find_champion(name))
        except BrokenDocumentError as exc:
            state, reason = "UNAVAILABLE", str(exc)
        versions = self._registry.list_versions(name)
        return [{"name": name, "version": str(version), "state": state, "reason": reason} for version in versions]

    def _find_champion(self, name: str) -> AliasDocument | None:
        try:
            return self._registry.load_alias(name, CHAMPION)
        except NotFoundError:
            return None  # its publisher failed between the commit and the alias: served by number, or as candidate


def get_model_state(champion: AliasDocument | None) -> tuple[str, str]:
    """Return a model's state as the extension names it, and the reason for it."""
    if champion is None:
        return "UNAVAILABLE", "has no champion yet; its versions answer by number"
    return ("READY", "") if champion.suspended is None else ("UNAVAILABLE", format_suspension(champion.suspended))


def format_suspension(suspension: Suspension) -> str:
    """Format why and since when an alias is suspended; not by whom, since every caller may read the index."""
    return f"{suspension.reason} (since {suspension.at[:19]}Z)"


def to_change_response(model: str, champion: AliasDocument) -> Response:
    """Build the response to a change: the model's state now; the protocol requires no body."""
    state, reason = get_model_state(champion)
    version = str(champion.version)
    return Response.json({"name": model, "version": version, "state": state, "reason": reason})


def refuse_overrides(parameters: dict[str, Any]) -> None:
    """Refuse to replace configuration or files of a version, which is immutable."""
    override = next((name for name in parameters if name == "config" or name.startswith("file:")), None)
    if override is not None:
        raise UnsupportedError(
            f"The parameter {override!r} is not served: a version never changes. Publish another one with "
            "`pilotlight publish`, and move the alias."
        )

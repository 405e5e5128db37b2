"""What each route of V2's model repository extension answers. Nothing here opens a model.

The store itself is the repository, and every version of it is served on demand. So `load` and `unload` move no bytes:
they suspend and resume the champion, which every environment notices when it next reads the alias (decision 0014).
"""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from pilotlight.api.http import UNKNOWN_CALLER, Request, Response
from pilotlight.api.router import Routes
from pilotlight.contracts.alias import AliasDocument, Suspension
from pilotlight.contracts.names import CHAMPION, check_name
from pilotlight.errors import InvalidInputError, NotFoundError, UnsupportedError
from pilotlight.registry.registry import Registry

DEFAULT_REASON = "unloaded by POST /v2/repository"


class IndexBody(Struct):
    """The body of an index request, which may be empty."""

    ready: bool = False  # only those that answer


class LoadBody(Struct):
    """The body of a load or unload request, which may be empty."""

    parameters: dict[str, Any] | None = None


Body = TypeVar("Body", IndexBody, LoadBody)


class RepositoryEndpoints:
    """The repository extension over a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def routes(self) -> Routes:
        """The table of routes, spelled as in template.yaml."""
        return {
            "/v2/repository/index": {"POST": self.index},
            "/v2/repository/models/{model}/load": {"POST": self.load},
            "/v2/repository/models/{model}/unload": {"POST": self.unload},
        }

    def index(self, request: Request) -> Response:
        """Every version with its state; an unloaded model's versions are unavailable, though they answer by number."""
        only_ready = read_body(request.body, IndexBody).ready
        rows = [row for name in self._registry.list_models() for row in self._list_versions(name)]
        return Response.json([row for row in rows if row["state"] == "READY" or not only_ready])

    def load(self, request: Request) -> Response:
        """Put the champion back into service."""
        refuse_overrides(read_body(request.body, LoadBody).parameters or {})
        actor = request.caller or UNKNOWN_CALLER
        return to_change_response(
            request, self._registry.resume_alias(read_model_name(request), CHAMPION, actor=actor, reason="loaded")
        )

    def unload(self, request: Request) -> Response:
        """Take the champion out of service; `parameters.reason` is shown to whoever asks for it."""
        reason = str((read_body(request.body, LoadBody).parameters or {}).get("reason") or DEFAULT_REASON)
        document = self._registry.suspend_alias(
            read_model_name(request), CHAMPION, actor=request.caller or UNKNOWN_CALLER, reason=reason
        )
        return to_change_response(request, document)

    def _list_versions(self, name: str) -> list[dict[str, str]]:
        state, reason = get_model_state(self._find_champion(name))
        versions = self._registry.list_versions(name)
        return [{"name": name, "version": str(version), "state": state, "reason": reason} for version in versions]

    def _find_champion(self, name: str) -> AliasDocument | None:
        try:
            return self._registry.load_alias(name, CHAMPION)
        except NotFoundError:
            return None  # its publisher died between the commit and the alias: served by number, or as candidate


def get_model_state(champion: AliasDocument | None) -> tuple[str, str]:
    """A model's state in the extension's words, and the reason for it."""
    if champion is None:
        return "UNAVAILABLE", "has no champion yet; its versions answer by number"
    return ("READY", "") if champion.suspended is None else ("UNAVAILABLE", format_suspension(champion.suspended))


def format_suspension(suspension: Suspension) -> str:
    """Why an alias is suspended and since when; by whom stays in the store, since anybody may ask for the index."""
    return f"{suspension.reason} (since {suspension.at[:19]}Z)"


def to_change_response(request: Request, champion: AliasDocument) -> Response:
    """The answer to a change; the protocol asks for no body, so this one shows what is true now."""
    state, reason = get_model_state(champion)
    version = str(champion.version)
    return Response.json({"name": read_model_name(request), "version": version, "state": state, "reason": reason})


def read_model_name(request: Request) -> str:
    """The model that the path names."""
    return check_name(request.parameters["model"], "model name")


def read_body(body: bytes, kind: type[Body]) -> Body:
    """A body as what it should be; an empty one is all defaults."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidInputError(f"The body is not one of the repository extension: {exc}.") from exc


def refuse_overrides(parameters: dict[str, Any]) -> None:
    """A version is immutable: neither its configuration nor its files can be replaced on the way in."""
    override = next((name for name in parameters if name == "config" or name.startswith("file:")), None)
    if override is not None:
        raise UnsupportedError(
            f"The parameter {override!r} is not served: a version never changes. Publish another one with "
            "`pilotlight publish`, and move the alias."
        )

"""The registry of a server, over HTTP: `Client.registry`.

    with Client("https://host/prod", key=key) as client:
        client.registry.promote("digits", 3)

This module has the routes and their forms; `client` sends the requests.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from pilotlight.api.schemas import registry
from pilotlight.api.schemas.registry import CanaryBody, ModelDetail, ModelList, ModelSummary, PromoteBody, RollbackBody
from pilotlight.contracts.alias import AliasDocument
from pilotlight.contracts.names import CHAMPION
from pilotlight.contracts.promotion import PromotionRequest
from pilotlight.errors import UnavailableError

ApiCall = Callable[..., bytes]  # verb, path, body, headers
Answer = TypeVar("Answer")
PROMOTION_TIMEOUT_S = 900.0  # the promote function's own Timeout
POLL_INTERVAL_S = 0.5


class RemoteRegistry:
    """Versions and aliases of a server; the errors are those of the client.

    `expected_number` is the number of the alias's document on which the caller's decision is based: if the document is
    newer, the change is refused with `PreconditionError`.
    """

    def __init__(self, call: ApiCall) -> None:
        self._call = call

    def list_models(self) -> list[ModelSummary]:
        """List every model with its versions and its champion."""
        return self._request(ModelList, "GET", "").models

    def get_model(self, name: str) -> ModelDetail:
        """Get a model with its aliases and its newest versions."""
        return self._request(ModelDetail, "GET", f"/{name}")

    def get_alias(self, name: str, alias: str = CHAMPION) -> AliasDocument:
        """Get the document of an alias."""
        return self._request(AliasDocument, "GET", build_alias_path(name, alias))

    def get_alias_history(self, name: str, alias: str = CHAMPION) -> list[AliasDocument]:
        """Get every document that the alias has had, oldest first."""
        return self._request(list[AliasDocument], "GET", f"{build_alias_path(name, alias)}/history")

    def promote(
        self,
        name: str,
        version: int | None = None,
        alias: str = CHAMPION,
        *,
        force: bool = False,
        reason: str = "",
        expected_number: int | None = None,
        wait_s: float = PROMOTION_TIMEOUT_S,
    ) -> PromotionRequest:
        """Promote a version, by default the candidate, to the alias through the gate, and wait for the result.

        The result's `state` is promoted, refused or failed; `UnavailableError` is raised if it takes longer than
        `wait_s`. With `wait_s` 0 it may still be `asked`.
        """
        deadline = time.monotonic() + wait_s
        request = self._post(
            PromotionRequest,
            f"{build_alias_path(name, alias)}/promote",
            PromoteBody(version, force, reason),
            expected_number,
        )
        while request.state == "asked" and wait_s:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"The promotion {request.id} of {name} has not ended after {wait_s:g} s; ask again."
                )
            time.sleep(POLL_INTERVAL_S)
            request = self.get_promotion(name, request.id)
        return request

    def get_promotion(self, name: str, promotion_id: str) -> PromotionRequest:
        """Get the state of a promotion."""
        return self._request(PromotionRequest, "GET", f"/{name}/promotions/{promotion_id}")

    def rollback(
        self, name: str, alias: str = CHAMPION, *, reason: str, expected_number: int | None = None
    ) -> AliasDocument:
        """End the alias's canary or, without one, point it to where it pointed before."""
        return self._post(
            AliasDocument, f"{build_alias_path(name, alias)}/rollback", RollbackBody(reason), expected_number
        )

    def set_canary(
        self, name: str, trial: CanaryBody, alias: str = CHAMPION, *, expected_number: int | None = None
    ) -> AliasDocument:
        """Try a version on a share of the alias's requests; 0 percent ends the canary."""
        return self._post(AliasDocument, f"{build_alias_path(name, alias)}/canary", trial, expected_number)

    def _post(self, body_type: type[Answer], target: str, body: object, expected_number: int | None) -> Answer:
        headers = {"if-match": f'"{expected_number}"'} if expected_number is not None else {}
        return self._request(body_type, "POST", target, msgspec.json.encode(body), headers)

    def _request(self, body_type: type[Answer], *call: Any) -> Answer:  # noqa: ANN401 - verb, path, body, headers
        verb, target, *rest = call
        return registry.parse_response(self._call(verb, f"/registry/models{target}", *rest), body_type)


def build_alias_path(name: str, alias: str) -> str:
    """Build the path of an alias."""
    return f"/{name}/aliases/{alias}"

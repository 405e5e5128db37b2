"""The registry of a server, over HTTP: what `Client.registry` gives.

    with Client("https://host/prod", headers={"x-api-key": key}) as client:
        client.registry.promote("digits", 3)

It knows the routes and their forms, not how they are called.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from pilotlight.api.schemas import registry
from pilotlight.api.schemas.registry import Model, Models, Promote, Rollback, Row, Try
from pilotlight.contracts.manifest import CHAMPION, AliasDocument, Errand
from pilotlight.errors import UnavailableError

Call = Callable[..., bytes]  # verb, path, body, headers
Answer = TypeVar("Answer")
WAIT_S = 900.0  # the promote function's own Timeout
PAUSE_S = 0.5


class RemoteRegistry:
    """Versions and aliases of a server; errors are those of the client.

    `seen` is the number of the alias's document that the caller has decided by: a change of a newer one is refused with
    `PreconditionError`.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def models(self) -> list[Row]:
        """Every model with its versions and its champion."""
        return self._read(Models, "GET", "").models

    def show(self, name: str) -> Model:
        """A model with its aliases and its newest versions."""
        return self._read(Model, "GET", f"/{name}")

    def alias(self, name: str, alias: str = CHAMPION) -> AliasDocument:
        """Where an alias points."""
        return self._read(AliasDocument, "GET", of(name, alias))

    def history(self, name: str, alias: str = CHAMPION) -> list[AliasDocument]:
        """Every document that the alias has had, oldest first."""
        return self._read(list[AliasDocument], "GET", f"{of(name, alias)}/history")

    def promote(
        self,
        name: str,
        version: int | None = None,
        alias: str = CHAMPION,
        *,
        force: bool = False,
        why: str = "",
        seen: int | None = None,
        wait_s: float = WAIT_S,
    ) -> Errand:
        """Bring a version, the candidate unless named, to the alias through the gate, and wait for how that ends.

        Its `state` says so: promoted, refused or failed; `UnavailableError` when it takes longer than `wait_s`. With
        `wait_s` 0 it may still be `asked`.
        """
        until = time.monotonic() + wait_s
        errand = self._post(Errand, f"{of(name, alias)}/promote", Promote(version, force, why), seen)
        while errand.state == "asked" and wait_s:
            if time.monotonic() > until:
                raise UnavailableError(
                    f"The promotion {errand.id} of {name} has not ended after {wait_s:g} s; ask again."
                )
            time.sleep(PAUSE_S)
            errand = self.promotion(name, errand.id)
        return errand

    def promotion(self, name: str, identity: str) -> Errand:
        """How a promotion goes."""
        return self._read(Errand, "GET", f"/{name}/promotions/{identity}")

    def rollback(self, name: str, alias: str = CHAMPION, *, why: str, seen: int | None = None) -> AliasDocument:
        """End the alias's trial or, without one, go back to where it pointed before."""
        return self._post(AliasDocument, f"{of(name, alias)}/rollback", Rollback(why), seen)

    def canary(self, name: str, trial: Try, alias: str = CHAMPION, *, seen: int | None = None) -> AliasDocument:
        """Try a version on a share of the alias's requests; 0 percent ends the trial."""
        return self._post(AliasDocument, f"{of(name, alias)}/canary", trial, seen)

    def _post(self, kind: type[Answer], where: str, body: msgspec.Struct, seen: int | None) -> Answer:
        headers = {"if-match": f'"{seen}"'} if seen is not None else {}
        return self._read(kind, "POST", where, msgspec.json.encode(body), headers)

    def _read(self, kind: type[Answer], *call: Any) -> Answer:  # noqa: ANN401 - verb, path, body, headers
        verb, where, *rest = call
        return registry.answered(self._call(verb, f"/registry/models{where}", *rest), kind)


def of(name: str, alias: str) -> str:
    """The path of an alias."""
    return f"/{name}/aliases/{alias}"

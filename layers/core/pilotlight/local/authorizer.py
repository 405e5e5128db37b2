"""The API's TOKEN authorizer: asked before a route that wants it, believed for as long as the template says.

As a REST API does it: a header that does not have the form is a 401 without a call; so is a function that fails with
the word `Unauthorized`; a policy that does not allow the method and path is a 403, and what else goes wrong is the
authorizer's failure. A policy is kept for its token, whatever route comes next. Sources: API Gateway Developer Guide,
Use API Gateway Lambda authorizers; IAM User Guide, Policy evaluation logic. This module knows no processes.
"""

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from pilotlight.local.gateway_errors import DENIED, NO_AUTHORIZER, UNAUTHORIZED, GatewayError
from pilotlight.local.proxy_events import ACCOUNT_ID, API_ID, Request
from pilotlight.local.routes import Match
from pilotlight.local.template import Authorizer

Invoke = Callable[[str, bytes], Awaitable[bytes]]  # a function's logical id and an event, to the handler's JSON
Said = Mapping[str, Any]

HEADER = b"authorization"
MOST = 10_000  # policies that are kept; the oldest goes first
REFUSED = "Unauthorized"  # the text of an error that means a 401


class Guard:
    """Asks the authorizer of one API; `clock` is in seconds."""

    def __init__(
        self, authorizer: Authorizer, stage: str, invoke: Invoke, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._authorizer = authorizer
        self._stage = stage
        self._invoke = invoke
        self._clock = clock
        self._pattern = re.compile(authorizer.pattern)
        self._kept: dict[str, tuple[float, Said]] = {}  # by token: until when, and what was said

    async def check(self, request: Request, match: Match) -> dict[str, Any] | None:
        """What the function is told of the caller; None for a route that asks nobody; `GatewayError` for a refusal."""
        if match.route.resource not in self._authorizer.resources:
            return None
        token = next((value.decode("latin-1") for name, value in request.headers if name == HEADER), "")
        if not token or not self._pattern.search(token):
            raise GatewayError(UNAUTHORIZED, REFUSED)
        arn = f"arn:aws:execute-api:us-east-1:{ACCOUNT_ID}:{API_ID}/{self._stage}/{request.method}{match.path}"
        said = await self._said(token, arn)
        if not allows(said, arn):
            raise GatewayError(DENIED, "User is not authorized to access this resource")
        return {"principalId": said["principalId"], **said.get("context", {})}

    async def _said(self, token: str, arn: str) -> Said:
        """The authorizer's answer, an old one while it holds."""
        until, said = self._kept.get(token, (0.0, {}))
        if said and self._clock() < until:
            return said
        said = await self._asked(token, arn)
        self._kept.pop(token, None)
        while len(self._kept) >= MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[token] = (self._clock() + self._authorizer.ttl_s, said)
        return said

    async def _asked(self, token: str, arn: str) -> Said:
        event = {"type": "TOKEN", "authorizationToken": token, "methodArn": arn}
        try:
            said = json.loads(await self._invoke(self._authorizer.function, json.dumps(event).encode()))
        except GatewayError as exc:
            if exc.said == REFUSED:
                raise GatewayError(UNAUTHORIZED, REFUSED) from exc
            raise GatewayError(NO_AUTHORIZER, f"{self._authorizer.function} did not decide: {exc}") from exc
        if not isinstance(said, dict) or not said.get("principalId") or not list(_statements(said)):
            raise GatewayError(NO_AUTHORIZER, f"{self._authorizer.function} answered no principalId with a policy.")
        return said


def allows(said: Said, arn: str) -> bool:
    """Whether a policy allows a call: something does, and nothing denies it."""
    effects = {one.get("Effect") for one in _statements(said) if _is_about(one, arn)}
    return effects == {"Allow"}


def _statements(said: Said) -> Iterator[Mapping[str, Any]]:
    document = said.get("policyDocument")
    listed = _list(document.get("Statement")) if isinstance(document, dict) else []
    yield from (one for one in listed if isinstance(one, dict))


def _is_about(statement: Mapping[str, Any], arn: str) -> bool:
    is_call = any(_matches(action, "execute-api:Invoke") for action in _list(statement.get("Action")))
    return is_call and any(_matches(resource, arn) for resource in _list(statement.get("Resource")))


def _matches(pattern: object, text: str) -> bool:
    """IAM's wildcards: `*` for any characters, slashes too, `?` for one."""
    words = re.escape(str(pattern)).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(words, text, re.DOTALL) is not None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]

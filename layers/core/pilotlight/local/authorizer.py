"""The API's TOKEN authorizer: called before a route that requires it, and cached for the template's TTL.

As in a REST API: a header of the wrong form is a 401 without a call; a function that fails with the text `Unauthorized`
is a 401 too; a policy that does not allow the method and path is a 403, and any other failure is the authorizer's. A
policy is cached by its token, for all routes. Sources: API Gateway Developer Guide, Use API Gateway Lambda authorizers;
IAM User Guide, Policy evaluation logic. This module knows no processes.
"""

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from pilotlight.local.gateway_errors import DENIED, NO_AUTHORIZER, UNAUTHORIZED, GatewayError
from pilotlight.local.proxy_events import ACCOUNT_ID, API_ID, HttpRequest
from pilotlight.local.routes import RouteMatch
from pilotlight.local.template import AuthorizerSpec

Invoke = Callable[[str, bytes], Awaitable[bytes]]  # a function's logical id and an event, to the handler's JSON
AuthorizerAnswer = Mapping[str, Any]

HEADER = b"authorization"
MAX_CACHED_ANSWERS = 10_000  # policies that are cached; the oldest is dropped first
UNAUTHORIZED_MESSAGE = "Unauthorized"  # the text of an error that means a 401


class LocalAuthorizer:
    """Calls the authorizer of one API; `clock` is in seconds."""

    def __init__(
        self, authorizer: AuthorizerSpec, stage: str, invoke: Invoke, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._authorizer = authorizer
        self._stage = stage
        self._invoke = invoke
        self._clock = clock
        self._pattern = re.compile(authorizer.pattern)
        self._cached_answers: dict[str, tuple[float, AuthorizerAnswer]] = {}  # by token: expiry time, and the answer

    async def authorize_request(self, request: HttpRequest, match: RouteMatch) -> dict[str, Any] | None:
        """Return the authorizer's context for the function, None for a route without it; or raise `GatewayError`."""
        if match.route.resource not in self._authorizer.resources:
            return None
        token = next((value.decode("latin-1") for name, value in request.headers if name == HEADER), "")
        if not token or not self._pattern.search(token):
            raise GatewayError(UNAUTHORIZED, UNAUTHORIZED_MESSAGE)
        arn = f"arn:aws:execute-api:us-east-1:{ACCOUNT_ID}:{API_ID}/{self._stage}/{request.method}{match.path}"
        answer = await self._get_answer(token, arn)
        if not is_call_allowed(answer, arn):
            raise GatewayError(DENIED, "User is not authorized to access this resource")
        return {"principalId": answer["principalId"], **answer.get("context", {})}

    async def _get_answer(self, token: str, arn: str) -> AuthorizerAnswer:
        """Return the authorizer's answer, from the cache until it expires."""
        until, answer = self._cached_answers.get(token, (0.0, {}))
        if answer and self._clock() < until:
            return answer
        answer = await self._invoke_authorizer(token, arn)
        self._cached_answers.pop(token, None)
        while len(self._cached_answers) >= MAX_CACHED_ANSWERS:
            del self._cached_answers[next(iter(self._cached_answers))]
        self._cached_answers[token] = (self._clock() + self._authorizer.ttl_s, answer)
        return answer

    async def _invoke_authorizer(self, token: str, arn: str) -> AuthorizerAnswer:
        event = {"type": "TOKEN", "authorizationToken": token, "methodArn": arn}
        try:
            answer = json.loads(await self._invoke(self._authorizer.function, json.dumps(event).encode()))
        except GatewayError as exc:
            if exc.function_error == UNAUTHORIZED_MESSAGE:
                raise GatewayError(UNAUTHORIZED, UNAUTHORIZED_MESSAGE) from exc
            raise GatewayError(NO_AUTHORIZER, f"{self._authorizer.function} did not decide: {exc}") from exc
        if not isinstance(answer, dict) or not answer.get("principalId") or not list(_iter_statements(answer)):
            raise GatewayError(NO_AUTHORIZER, f"{self._authorizer.function} answered no principalId with a policy.")
        return answer


def is_call_allowed(answer: AuthorizerAnswer, arn: str) -> bool:
    """Return whether a policy allows a call: a statement allows it, and none denies it."""
    effects = {one.get("Effect") for one in _iter_statements(answer) if _is_statement_about(one, arn)}
    return effects == {"Allow"}


def _iter_statements(answer: AuthorizerAnswer) -> Iterator[Mapping[str, Any]]:
    document = answer.get("policyDocument")
    listed = _to_list(document.get("Statement")) if isinstance(document, dict) else []
    yield from (one for one in listed if isinstance(one, dict))


def _is_statement_about(statement: Mapping[str, Any], arn: str) -> bool:
    is_call = any(_matches_wildcard(action, "execute-api:Invoke") for action in _to_list(statement.get("Action")))
    return is_call and any(_matches_wildcard(resource, arn) for resource in _to_list(statement.get("Resource")))


def _matches_wildcard(pattern: object, text: str) -> bool:
    """Match IAM's wildcards: `*` for any characters, slashes too, `?` for one."""
    words = re.escape(str(pattern)).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(words, text, re.DOTALL) is not None


def _to_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]

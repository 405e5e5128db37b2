"""The API's authorizer: called before a route that requires it, and cached for the template's TTL.

As in a REST API: a TOKEN authorizer gets a header, which must have the right form, a REQUEST authorizer gets the whole
request without its body. A missing header is a 401 without a call, if answers are cached by it. A function that fails
with the text `Unauthorized` is a 401 too; a policy that does not allow the method and path is a 403, and any other
failure is the authorizer's. Answers are cached for all routes. Sources: API Gateway Developer Guide, Use API Gateway
Lambda authorizers; API reference, CreateAuthorizer, identitySource; IAM User Guide, Policy evaluation logic. This
module knows no processes.
"""

import ipaddress
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pilotlight.errors import UnsupportedError
from pilotlight.local.gateway_errors import DENIED, NO_AUTHORIZER, UNAUTHORIZED, GatewayError
from pilotlight.local.proxy_events import ACCOUNT_ID, API_ID, HttpRequest, build_authorizer_request
from pilotlight.local.routes import RouteMatch
from pilotlight.local.template import AuthorizerSpec, Stack

Invoke = Callable[[str, bytes], Awaitable[bytes]]  # a function's logical id and an event, to the handler's JSON
AuthorizerAnswer = Mapping[str, Any]
Identity = tuple[str, ...]  # the values of the identity headers

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
        self._pattern = None if authorizer.pattern is None else re.compile(authorizer.pattern)
        self._cached_answers: dict[Identity, tuple[float, AuthorizerAnswer]] = {}  # with the time when each expires

    async def authorize_request(self, request: HttpRequest, match: RouteMatch) -> dict[str, Any] | None:
        """Return the authorizer's context for the function, None for a route without it; or raise `GatewayError`."""
        if match.route.resource not in self._authorizer.resources:
            return None
        identity = self._read_identity(request)
        arn = f"arn:aws:execute-api:us-east-1:{ACCOUNT_ID}:{API_ID}/{self._stage}/{request.method}{match.path}"
        answer = self._get_cached_answer(identity)
        if answer is None:
            answer = await self._invoke_authorizer(self._build_event(request, match, identity, arn))
            self._keep_answer(identity, answer)
        if not is_call_allowed(answer, arn):
            raise GatewayError(DENIED, "User is not authorized to access this resource")
        return {"principalId": answer["principalId"], **answer.get("context", {})}

    def _read_identity(self, request: HttpRequest) -> Identity:
        """Read the headers by which answers are cached; raise `GatewayError` if one is missing or of a wrong form."""
        sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        identity = tuple(sent.get(name, "") for name in self._authorizer.identity_headers)
        is_form_wrong = self._pattern is not None and not self._pattern.search(identity[0])
        if is_form_wrong or not all(identity):
            raise GatewayError(UNAUTHORIZED, UNAUTHORIZED_MESSAGE)
        return identity

    def _build_event(self, request: HttpRequest, match: RouteMatch, identity: Identity, arn: str) -> dict[str, Any]:
        if self._pattern is not None:
            return {"type": "TOKEN", "authorizationToken": identity[0], "methodArn": arn}
        return {"type": "REQUEST", "methodArn": arn, **build_authorizer_request(request, match)}

    def _get_cached_answer(self, identity: Identity) -> AuthorizerAnswer | None:
        until, answer = self._cached_answers.get(identity, (0.0, None))
        return answer if answer and self._clock() < until else None

    def _keep_answer(self, identity: Identity, answer: AuthorizerAnswer) -> None:
        if not self._authorizer.ttl_s:
            return
        self._cached_answers.pop(identity, None)
        while len(self._cached_answers) >= MAX_CACHED_ANSWERS:
            del self._cached_answers[next(iter(self._cached_answers))]
        self._cached_answers[identity] = (self._clock() + self._authorizer.ttl_s, answer)

    async def _invoke_authorizer(self, event: Mapping[str, Any]) -> AuthorizerAnswer:
        try:
            answer = json.loads(await self._invoke(self._authorizer.function, json.dumps(event).encode()))
        except GatewayError as exc:
            if exc.function_error == UNAUTHORIZED_MESSAGE:
                raise GatewayError(UNAUTHORIZED, UNAUTHORIZED_MESSAGE) from exc
            raise GatewayError(NO_AUTHORIZER, f"{self._authorizer.function} did not decide: {exc}") from exc
        if not isinstance(answer, dict) or not answer.get("principalId") or not list(_iter_statements(answer)):
            raise GatewayError(NO_AUTHORIZER, f"{self._authorizer.function} answered no principalId with a policy.")
        return answer


def apply_auth(stack: Stack, host: str, parameters: Mapping[str, str]) -> Stack:
    """Leave out the authorizer on loopback, unless the parameter Auth asks for it; on other addresses it stays.

    Raise `UnsupportedError` for Auth=iam, since only AWS knows its principals.
    """
    if parameters.get("Auth") == "iam":
        raise UnsupportedError("Auth=iam cannot be checked on this machine: only AWS knows the signers; use keys.")
    if stack.authorizer is None or "Auth" in parameters or not is_loopback(host):
        return stack
    kept = {name: spec for name, spec in stack.functions.items() if name != stack.authorizer.function}
    return replace(stack, functions=kept, authorizer=None)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address; a name other than localhost may lead anywhere."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


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

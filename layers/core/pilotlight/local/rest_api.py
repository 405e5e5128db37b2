"""The REST API as an ASGI application: it reads a request, finds its route and function, and sends the answer.

It joins routes, translation and pools, formats errors by the template's GatewayResponses, and writes one access line
per request to the logger `pilotlight.local`. It knows neither processes nor the server that runs it.
"""

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

from pilotlight.local.authorizer import LocalAuthorizer
from pilotlight.local.gateway_errors import FAILED, NO_ROUTE, GatewayError
from pilotlight.local.invoke_api import read_body
from pilotlight.local.origin_policy import OriginPolicy
from pilotlight.local.pool import EnvironmentPool
from pilotlight.local.proxy_events import (
    HttpRequest,
    HttpResponse,
    ProxyEventEncoder,
    parse_handler_reply,
    parse_stream_prelude,
)
from pilotlight.local.routes import RouteMatch, RouteTable
from pilotlight.local.runtime_api import Invocation
from pilotlight.local.stream_relay import StreamRelay
from pilotlight.local.streamed_answers import StreamedAnswer, collect_answer
from pilotlight.local.template import ApiRoute, GatewayLimits, GatewayResponse, Stack

Scope = MutableMapping[str, Any]
Receive = Callable[[], Coroutine[Any, Any, dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

AWS_BODY = '{"message":$context.error.messageString}'  # of an API without GatewayResponses
SERVER_ERROR = 500  # the statuses from here on are not the client's fault
DEFAULT_RESPONSE = GatewayResponse(None, None)

log = logging.getLogger("pilotlight.local")


class AwsService(Protocol):
    """One of AWS's APIs that functions call, at the same address."""

    def can_handle(self, scope: Scope) -> bool:
        """Return whether a request is for this API."""

    async def handle_request(self, scope: Scope, receive: Receive) -> HttpResponse:
        """Answer a request to this API."""


class RestApi:
    """One API of one stack; `pools` are by their function's logical id, `services` answer for AWS's own APIs.

    `authorizer` calls the stack's authorizer, if it has one; `policy` refuses foreign hosts and pages.
    """

    def __init__(
        self,
        stack: Stack,
        pools: Mapping[str, EnvironmentPool],
        limits: GatewayLimits,
        services: Sequence[AwsService] = (),
        authorizer: LocalAuthorizer | None = None,
        policy: OriginPolicy | None = None,
    ) -> None:
        self._policy = policy or OriginPolicy("localhost")
        self._services = services
        self._authorizer = authorizer
        self._routes = RouteTable(stack.routes, stack.stage)
        self._event_encoder = ProxyEventEncoder(stack, limits)
        self._responses = stack.gateway_responses
        self._pools = pools
        self._limit = limits.body_bytes
        self._relay = StreamRelay(limits)
        self._id_prefix = str(uuid4())[:-12]
        self._ids = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        request_id = f"{self._id_prefix}{next(self._ids):012x}"  # looks like a UUID, at a tenth of the cost
        invocation: Invocation | None = None
        stream: StreamedAnswer | None = None
        try:
            self._policy.check_request(scope)
            preflight = self._policy.answer_preflight(scope)
            service = next((each for each in self._services if each.can_handle(scope)), None)
            if preflight is not None:
                response = preflight
            elif service is not None:
                response = await service.handle_request(scope, receive)
            else:
                match = self._match_route(scope)
                invocation = await self._build_invocation(scope, receive, match, request_id)
                response, stream = await self._invoke(match.route, invocation)
        except GatewayError as error:
            log.log(logging.WARNING if error.kind.status >= SERVER_ERROR else logging.DEBUG, "%s", error)
            response = self._format_error(error)
        request_id_value = request_id.encode()
        ids = [(b"x-amzn-requestid", request_id_value), (b"x-amz-apigw-id", request_id_value)]
        headers = [*response.headers, *self._policy.build_cors_headers(scope), *ids]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if stream is None:
            await send({"type": "http.response.body", "body": response.body})
        else:
            await self._relay.send_stream(stream, scope, receive, send)
        if log.isEnabledFor(logging.INFO):
            took_ms = (time.perf_counter() - started) * 1000
            path = scope["raw_path"].decode("latin-1")  # still encoded, so that it cannot break the line
            log.info(
                "%s %s %d %.1f ms%s", scope["method"], path, response.status, took_ms, _format_cold_start(invocation)
            )

    async def _invoke(self, route: ApiRoute, invocation: Invocation) -> tuple[HttpResponse, StreamedAnswer | None]:
        """Invoke a route's function; return its response, and what sends the body of a streamed one."""
        pool = self._pools[route.function]
        if not route.streams:
            answer = await pool.invoke_within_limit(invocation)
            whole = answer if isinstance(answer, bytes) else await collect_answer(answer)
            return parse_handler_reply(whole), None
        answer = await pool.invoke_within_limit(invocation, self._relay.limits.stream_s)
        if isinstance(answer, bytes):
            text = "the route streams, and the function has not: no prelude"
            raise GatewayError(FAILED, f"Internal server error: malformed Lambda proxy response: {text}.")
        try:
            return parse_stream_prelude(answer.prelude), answer
        except GatewayError:
            answer.cancel()
            raise

    def _match_route(self, scope: Scope) -> RouteMatch:
        match = self._routes.match(scope["method"], scope["raw_path"].decode("latin-1"))
        if match is None:
            raise GatewayError(NO_ROUTE, "Missing Authentication Token")
        return match

    async def _build_invocation(self, scope: Scope, receive: Receive, match: RouteMatch, request_id: str) -> Invocation:
        """Build the invocation for a request, after reading all of it."""
        now = time.time()
        request = HttpRequest(
            method=scope["method"],
            query=scope["query_string"],
            headers=scope["headers"],
            body=await read_body(receive, self._limit),
            source_ip=scope["client"][0] if scope["client"] else "",
            protocol=f"HTTP/{scope['http_version']}",
            request_id=request_id,
            trace_id=f"Root=1-{int(now):08x}-{request_id.replace('-', '')[:24]}",
            received=now,
        )
        authorizer = None if self._authorizer is None else await self._authorizer.authorize_request(request, match)
        event = self._event_encoder.encode(request, match, authorizer)
        outcome = asyncio.get_running_loop().create_future()
        return Invocation(request_id, request.trace_id, event, outcome, lambda: _is_gone(receive))

    def _format_error(self, error: GatewayError) -> HttpResponse:
        """Format an error by its own GatewayResponse, else by DEFAULT_4XX or DEFAULT_5XX, else as AWS does."""
        kind, message = error.kind, str(error)
        own = self._responses.get(kind.response, DEFAULT_RESPONSE)
        default = self._responses.get("DEFAULT_4XX" if kind.status < SERVER_ERROR else "DEFAULT_5XX", DEFAULT_RESPONSE)
        body = own.body or default.body or AWS_BODY
        body = body.replace("$context.error.messageString", json.dumps(message))
        content = body.replace("$context.error.message", message).encode()
        headers = {
            b"content-type": b"application/json",
            b"content-length": b"%d" % len(content),
            b"x-amzn-errortype": kind.error_type.encode(),
            **dict(kind.headers),
            **{name.lower().encode(): value.encode("latin-1") for name, value in own.headers},
        }
        return HttpResponse(own.status or default.status or kind.status, list(headers.items()), content)


def _is_gone(receive: Receive) -> bool:
    """Return whether the client has disconnected: one step of `receive`, whose next message can only be that.

    A task that waits for that message would cost each queued request as much as its translation does.
    """
    step = receive()
    try:
        step.send(None)
    except StopIteration:
        return True
    finally:
        step.close()
    return False


def _format_cold_start(invocation: Invocation | None) -> str:
    """Format the init time as in Lambda's REPORT line: only with the first invocation of an environment."""
    return "" if invocation is None or invocation.cold_ms is None else f" cold {invocation.cold_ms:.0f} ms"

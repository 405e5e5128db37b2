"""Lambda's Invoke API, so that a function starts another one here with the same boto3 call as on AWS.

    POST /2015-03-31/functions/{name}/invocations     X-Amz-Invocation-Type: Event, RequestResponse, DryRun

Only for callers on this machine that know the gateway's secret. Source of the forms: AWS Lambda API reference, Invoke;
Lambda quotas. This module knows neither routes nor processes.
"""

import json
import re
from collections.abc import Callable, Collection, Coroutine, MutableMapping
from typing import Any
from urllib.parse import unquote

from pilotlight.local.background_tasks import BackgroundTasks, Invoke
from pilotlight.local.control_secret import ControlSecret
from pilotlight.local.gateway_errors import (
    CLIENT_GONE,
    INVALID_REQUEST,
    NO_FUNCTION,
    THROTTLED,
    TOO_LARGE,
    GatewayError,
)
from pilotlight.local.proxy_events import HttpResponse
from pilotlight.local.template import GatewayLimits

Scope = MutableMapping[str, Any]
Receive = Callable[[], Coroutine[Any, Any, dict[str, Any]]]

PATH = re.compile(r"/2015-03-31/functions/([^/]+)/invocations/?")
ASYNC_EVENT_BYTES = 1024 * 1024  # Lambda's limit of an event for which nobody waits


class InvokeApi:
    """Invokes functions by name."""

    def __init__(
        self, functions: Collection[str], invoke: Invoke, limits: GatewayLimits, secret: ControlSecret
    ) -> None:
        self._functions = functions
        self._secret = secret
        self._invoke = invoke
        self._limit = limits.event_bytes
        self._background_tasks = BackgroundTasks(invoke)

    def can_handle(self, scope: Scope) -> bool:
        """Return whether a request is for this API."""
        return scope["method"] == "POST" and PATH.fullmatch(self._secret.split_path(scope["raw_path"])[1]) is not None

    async def handle_request(self, scope: Scope, receive: Receive) -> HttpResponse:
        """Answer an Invoke request."""
        try:
            name = self._find_function(self._secret.check_caller(scope))
            event = await read_body(receive, self._limit) or b"{}"
            kind = dict(scope["headers"]).get(b"x-amz-invocation-type", b"RequestResponse").decode("latin-1")
            return await self._start_function(name, event, kind)
        except GatewayError as error:
            return _build_error_response(error)

    def _find_function(self, path: str) -> str:
        """Find the function that a path names: by name or ARN, with or without a qualifier."""
        found = PATH.fullmatch(path)
        text = unquote(found[1]) if found else path
        name = re.sub(r"^.*:?function:", "", text).partition(":")[0]
        if name not in self._functions:
            raise GatewayError(NO_FUNCTION, f"Function not found: {text}; there are {', '.join(self._functions)}.")
        return name

    async def _start_function(self, name: str, event: bytes, kind: str) -> HttpResponse:
        _check_json(event)
        if kind == "DryRun":
            return HttpResponse(204, [], b"")
        if kind == "Event":
            _check_async_size(len(event))
            self._background_tasks.start(self._background_tasks.invoke_function(name, event))
            return _build_response(202, b"")
        if kind != "RequestResponse":
            raise GatewayError(
                INVALID_REQUEST, f"{kind!r} is no InvocationType; RequestResponse, Event and DryRun are."
            )
        try:
            return _build_response(200, await self._invoke(name, event), (b"x-amz-executed-version", b"$LATEST"))
        except GatewayError as exc:
            if exc.kind is THROTTLED:
                raise
            body = json.dumps({"errorMessage": str(exc), "errorType": exc.kind.error_type}).encode()
            return _build_response(200, body, (b"x-amz-function-error", b"Unhandled"))


async def read_body(receive: Receive, limit: int) -> bytes:
    """Read the body of a request; refuse it as soon as it exceeds the limit."""
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GatewayError(CLIENT_GONE, "The client went away before it had sent its body.")
        chunk, more = message["body"], message["more_body"]
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise GatewayError(
                TOO_LARGE, f"Request Too Long: the body is larger than the {limit} bytes that are taken."
            )
    return b"".join(chunks)


def _check_async_size(size: int) -> None:
    if size > ASYNC_EVENT_BYTES:
        raise GatewayError(
            TOO_LARGE,
            f"{size} byte payload is too large for the Event invocation type (limit {ASYNC_EVENT_BYTES} bytes)",
        )


def _check_json(event: bytes) -> None:
    try:
        json.loads(event)
    except (ValueError, RecursionError) as exc:
        raise GatewayError(INVALID_REQUEST, f"Could not parse request body into json: {exc}.") from exc


def _build_response(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> HttpResponse:
    own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return HttpResponse(status, [*own, *headers], body)


def _build_error_response(error: GatewayError) -> HttpResponse:
    """Build the response for an error in the Lambda API's form."""
    body = json.dumps({"Type": "User", "Message": str(error)}).encode()
    return _build_response(error.kind.status, body, (b"x-amzn-errortype", error.kind.error_type.encode()))

"""Translate between HTTP and a Lambda proxy integration, payload format 1.0: request to event, handler's reply to HTTP.

As in a REST API: `path` stays percent-encoded while path parameters and query are decoded, a body whose type is one of
the API's binary media types is sent as base64, and a reply of any other shape than statusCode, headers,
multiValueHeaders, body, isBase64Encoded is a 502. msgspec does the JSON and the base64: for 1 MB of tensors it takes a
third of the time of json and binascii. This module knows no sockets, routes or environments.
"""

import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from pilotlight.local.gateway_errors import FAILED, TOO_LARGE, GatewayError
from pilotlight.local.routes import RouteMatch
from pilotlight.local.template import GatewayLimits, Stack

ACCOUNT_ID = "123456789012"  # as in AWS's own examples
API_ID = "local"

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a header's name; RFC 9110, token
_NOT_IN_VALUE = re.compile("[\x00-\x08\x0a-\x1f\x7f]")  # a line break here would start a second answer
_CONNECTION_HEADERS = frozenset(
    {"content-length", "transfer-encoding", "connection", "keep-alive"}
)  # of the connection, not of the response
_WITHOUT_BODY = frozenset({204, 304})


class HttpRequest(NamedTuple):
    """An HTTP request that has been read in full; header names are in lower case."""

    method: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    source_ip: str
    protocol: str
    request_id: str
    trace_id: str
    received: float  # s since the epoch


class HttpResponse(NamedTuple):
    """An HTTP response; header names are in lower case and include content-length if there may be a body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class ProxyEventEncoder:
    """Encodes the events of one API."""

    def __init__(self, stack: Stack, limits: GatewayLimits) -> None:
        self._stage = stack.stage
        self._binary = stack.binary_media_types
        self._limit = limits.event_bytes
        self._encode = msgspec.json.Encoder().encode

    def encode(self, request: HttpRequest, match: RouteMatch, authorizer: Mapping[str, Any] | None = None) -> bytes:
        """Encode the event as JSON, with the authorizer's context; `GatewayError` if it is too large for Lambda."""
        single, multiple = _collect_headers(request)
        query = parse_qsl(request.query.decode("latin-1"), keep_blank_values=True) if request.query else ()
        is_binary = bool(request.body) and self._is_binary(single.get("content-type", ""))
        event = self._encode({
            "resource": match.route.resource,
            "path": match.path,
            "httpMethod": request.method,
            "headers": single,
            "multiValueHeaders": multiple,
            "queryStringParameters": dict(query) or None,
            "multiValueQueryStringParameters": _group_values(query) or None,
            "pathParameters": match.parameters or None,
            "stageVariables": None,
            "requestContext": self._build_context(request, match, single, authorizer),
            "body": request.body if is_binary else request.body.decode(errors="replace") or None,  # bytes -> base64
            "isBase64Encoded": is_binary,
        })  # fmt: skip
        self._check_size(len(event))
        return event

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise GatewayError(
                TOO_LARGE,
                f"Request Too Long: the event is {size} bytes, and Lambda takes {self._limit} at most. "
                "A body in base64 is a third longer than it was; send fewer items at once.",
            )

    def _is_binary(self, content_type: str) -> bool:
        return "*/*" in self._binary or content_type.partition(";")[0].strip().lower() in self._binary

    def _build_context(
        self, request: HttpRequest, match: RouteMatch, headers: Mapping[str, str], authorizer: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        domain = headers.get("host", "")
        return {
            **({} if authorizer is None else {"authorizer": authorizer}),
            "accountId": ACCOUNT_ID,
            "apiId": API_ID,
            "stage": self._stage,
            "resourceId": "local",
            "resourcePath": match.route.resource,
            "httpMethod": request.method,
            "path": f"/{self._stage}{match.path}",
            "protocol": request.protocol,
            "requestId": request.request_id,
            "extendedRequestId": request.request_id,
            "requestTime": _format_clf_time(int(request.received)),
            "requestTimeEpoch": int(request.received * 1000),
            "domainName": domain,
            "domainPrefix": domain.partition(".")[0],
            "identity": {
                "accessKey": None,
                "accountId": None,
                "apiKey": None,  # of the gateway, which meters and is told by the authorizer; nothing meters here
                "apiKeyId": None,
                "caller": None,
                "sourceIp": request.source_ip,
                "user": None,
                "userAgent": headers.get("user-agent"),
                "userArn": None,
            },
        }


def build_authorizer_request(request: HttpRequest, match: RouteMatch) -> dict[str, Any]:
    """Build what a REQUEST authorizer gets of a request: all but its body."""
    single, multiple = _collect_headers(request)
    query = parse_qsl(request.query.decode("latin-1"), keep_blank_values=True) if request.query else ()
    return {
        "resource": match.route.resource,
        "path": match.path,
        "httpMethod": request.method,
        "headers": single,
        "multiValueHeaders": multiple,
        "queryStringParameters": dict(query),
        "multiValueQueryStringParameters": _group_values(query),
        "pathParameters": match.parameters,
        "stageVariables": {},
        "requestContext": {"identity": {"sourceIp": request.source_ip}, "requestId": request.request_id},
    }


def _collect_headers(request: HttpRequest) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Collect the client's headers and those that API Gateway adds: each name's last value, and all of its values."""
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
    pairs.append(("x-forwarded-for", request.source_ip))
    pairs.append(("x-forwarded-proto", "http"))
    pairs.append(("x-amzn-trace-id", request.trace_id))
    return dict(pairs), _group_values(pairs)


def _group_values(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped


@lru_cache(maxsize=1)
def _format_clf_time(second: int) -> str:
    """Format `09/Apr/2015:12:34:56 +0000`, once a second."""
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second))


Scalar = str | int | float | bool


class _HandlerReply(msgspec.Struct):
    """What a handler returns; the body stays JSON until it is known to be text or base64."""

    statusCode: Annotated[int, msgspec.Meta(ge=200, le=599)]  # noqa: N815  # AWS's name
    headers: dict[str, Scalar] | None = None
    multiValueHeaders: dict[str, list[Scalar]] | None = None  # noqa: N815  # AWS's name
    body: msgspec.Raw = msgspec.Raw(b"null")
    isBase64Encoded: bool | None = None  # noqa: N815  # AWS's name


_decode_reply = msgspec.json.Decoder(_HandlerReply).decode
_decode_text = msgspec.json.Decoder(str | None).decode
_decode_base64 = msgspec.json.Decoder(bytes | None).decode


def parse_handler_reply(payload: bytes) -> HttpResponse:
    """Parse a handler's JSON to the HTTP response; `GatewayError` explains what is malformed."""
    try:
        reply = _decode_reply(payload)
    except msgspec.DecodeError as exc:
        raise _build_reply_error(f"{exc}") from exc
    headers = _collect_reply_headers(reply)
    body = _decode_body(reply)
    if reply.statusCode in _WITHOUT_BODY:
        return HttpResponse(reply.statusCode, headers, b"")
    if not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", b"application/json"))  # as a REST API does
    headers.append((b"content-length", b"%d" % len(body)))
    return HttpResponse(reply.statusCode, headers, body)


def parse_stream_prelude(prelude: bytes) -> HttpResponse:
    """Parse the status and headers before a streamed body; `GatewayError` explains what is malformed."""
    try:
        reply = _decode_reply(prelude)
    except msgspec.DecodeError as exc:
        raise _build_reply_error(f"{exc}") from exc
    headers = _collect_reply_headers(reply)
    if reply.statusCode not in _WITHOUT_BODY and not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", b"application/octet-stream"))
    return HttpResponse(reply.statusCode, headers, b"")


def _decode_body(reply: _HandlerReply) -> bytes:
    try:
        if reply.isBase64Encoded:
            return _decode_base64(reply.body) or b""
        return (_decode_text(reply.body) or "").encode()
    except msgspec.DecodeError as exc:
        what = "base64, as its isBase64Encoded says" if reply.isBase64Encoded else "a string, as by json.dumps"
        raise _build_reply_error(f"its body is not {what} ({exc})") from exc


def _collect_reply_headers(reply: _HandlerReply) -> list[tuple[bytes, bytes]]:
    """Collect `multiValueHeaders`, then `headers` whose names are not among them, without the connection's headers."""
    multiple = {name.lower(): values for name, values in (reply.multiValueHeaders or {}).items()}
    single = {name.lower(): value for name, value in (reply.headers or {}).items()}
    pairs = [(name, value) for name, values in multiple.items() for value in values]
    pairs += [(name, value) for name, value in single.items() if name not in multiple]
    return [_encode_header(name, value) for name, value in pairs if name not in _CONNECTION_HEADERS]


def _encode_header(name: str, value: Scalar) -> tuple[bytes, bytes]:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if _NOT_IN_VALUE.search(text) or not _NAME.fullmatch(name):
        raise _build_reply_error(f"header {name!r} has the value {text!r}, which HTTP cannot carry")
    return name.encode(), text.encode("latin-1", errors="replace")


def _build_reply_error(problem: str) -> GatewayError:
    return GatewayError(FAILED, f"Internal server error: malformed Lambda proxy response: {problem}.")

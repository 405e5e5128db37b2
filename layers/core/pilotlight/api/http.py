"""One HTTP request and one response, in the form of API Gateway's REST proxy integration for Lambda."""

import binascii
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec
import pybase64
from msgspec import Struct, field

from pilotlight.api.request_context import RequestContext
from pilotlight.errors import InvalidInputError, UnsupportedError

Body = TypeVar("Body")
JSON = "application/json"
ENCODING_HEADER = "content-encoding"
UNKNOWN_CALLER = "an unnamed caller"  # the gateway knows no name for one without credentials
REQUIRED_KEYS = ("resource", "httpMethod")  # by which a request is routed
MAX_RESPONSE_BYTES = 6_270_000  # of a body as it is sent: Lambda takes 6,291,556 bytes, with 10,240 of headers at most
ESCAPED_TWICE = (b'"', b"\\")  # characters that take one more byte in the JSON that is sent
LINE_SEPARATORS = ("\u2028".encode(), "\u2029".encode())  # AWS's client writes 6 bytes for these 3
CONTROL_CHARACTERS = bytes(range(32))  # and up to 6 bytes for each of these
UNSUPPORTED_HINT = (
    "HTTP APIs, function URLs and load balancers send another; put the REST API of template.yaml before it."
)


class Request(Struct, frozen=True):
    """A request as the handler sees it; header names are in lower case."""

    method: str
    resource: str  # the route as the template spells it: /v2/models/{model}
    parameters: Mapping[str, str]  # of the path
    headers: Mapping[str, str]
    body: bytes
    id: str
    query: Mapping[str, str] = field(default_factory=dict)  # of a name that comes twice, the last
    context: Mapping[str, Any] = field(default_factory=dict)  # what else the gateway knows
    trace: RequestContext = field(default_factory=RequestContext)

    @classmethod
    def from_event(cls, event: Mapping[str, Any], trace: RequestContext | None = None) -> "Request":
        """Read a REST proxy event; raise `InvalidInputError` when its body is called base64 and is not.

        Events of other gateways, which have no resources, raise `UnsupportedError`.
        """
        if "resource" not in event or "httpMethod" not in event:
            raise UnsupportedError(
                f"The event is no request of a REST API: {', '.join(REQUIRED_KEYS)} is not in it. {UNSUPPORTED_HINT}"
            )
        context = event.get("requestContext") or {}
        return cls(
            method=event["httpMethod"],
            resource=event["resource"],
            parameters=event.get("pathParameters") or {},
            headers=collect_headers(event),
            body=decode_event_body(event.get("body"), is_base64=bool(event.get("isBase64Encoded"))),
            id=context.get("requestId", ""),
            query=event.get("queryStringParameters") or {},
            context=context,
            trace=trace or RequestContext(),
        )

    @property
    def caller(self) -> str:
        """The caller's name by the gateway: an IAM principal, a token's subject, a key's name, an address."""
        return get_caller(self.context)

    @property
    def tenant(self) -> str:
        """The tenant to whom the caller belongs, by the authorizer; empty for the stack's own callers."""
        return get_tenant(self.context)

    @property
    def identity(self) -> str:
        """The caller's name if the gateway has authenticated it; empty otherwise, and never an address or a header."""
        return get_identity(self.context)

    @property
    def actor(self) -> str:
        """The caller's name where a document records who changed it; never empty."""
        return self.caller or UNKNOWN_CALLER


class Response(Struct, frozen=True):
    """A response: a status, and a body of bytes that are text unless `binary`."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    binary: bool = False

    @classmethod
    def json(cls, content: object, status: int = 200, **headers: str) -> "Response":
        """Build a response in JSON; NaN and infinities become null, since JSON does not have them."""
        return cls(status, msgspec.json.encode(content), {"content-type": JSON, **headers})

    def to_event(self) -> dict[str, Any]:
        """Return the response in the form of the proxy integration."""
        return {
            "statusCode": self.status,
            "headers": dict(self.headers),
            "body": pybase64.b64encode_as_string(self.body) if self.binary else self.body.decode(),
            "isBase64Encoded": self.binary,
        }


class StreamedResponse(Struct, frozen=True):
    """A response that is sent while it is made: all that can fail must have been settled before the first chunk.

    Closing `chunks`, a generator, tells what makes them that nobody reads on.
    """

    status: int
    chunks: Iterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_event(self) -> dict[str, Any]:
        """Return the response for the runtime client of streaming functions, which sends the chunks as they come."""
        return {"statusCode": self.status, "headers": dict(self.headers), "body": self.chunks}


def collect_headers(event: Mapping[str, Any]) -> dict[str, str]:
    """Collect the headers by name in lower case: the last line of each, as the gateway gives it.

    Content encodings are a list, which proxies continue in a line of their own (RFC 9110, 5.3); each of them counts.
    """
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    if ENCODING_HEADER in headers:
        multiple = {name.lower(): values for name, values in (event.get("multiValueHeaders") or {}).items()}
        headers[ENCODING_HEADER] = ", ".join(multiple.get(ENCODING_HEADER) or [headers[ENCODING_HEADER]])
    return headers


def is_sendable(body: bytes, *, binary: bool) -> bool:
    """Return whether Lambda sends a response with this body; the environment of one that it does not send ends."""
    if len(body) * len("\\u0000") <= MAX_RESPONSE_BYTES:  # however much is escaped
        return True
    return count_sent_bytes(body, binary=binary) <= MAX_RESPONSE_BYTES


def count_sent_bytes(body: bytes, *, binary: bool) -> int:
    """Count the bytes of a body as it is sent: in base64, or as a string in JSON, whose escapes are counted."""
    if binary:
        return (len(body) + 2) // 3 * 4
    escapes = sum(map(body.count, ESCAPED_TWICE)) + 3 * sum(map(body.count, LINE_SEPARATORS))
    return len(body) + escapes + 5 * (len(body) - len(body.translate(None, CONTROL_CHARACTERS)))


def get_caller(context: Mapping[str, Any]) -> str:
    """Return the best name that the gateway has for the caller; empty when it has none."""
    identity, authorizer = context.get("identity") or {}, context.get("authorizer") or {}
    claims = authorizer.get("claims") or {}
    names = [claims.get(key) for key in ("email", "cognito:username", "sub")]
    names = [identity.get("userArn"), *names, authorizer.get("key"), authorizer.get("principalId")]
    names.append(identity.get("apiKeyId"))
    return next((str(name) for name in (*names, identity.get("sourceIp")) if name), "")


def get_tenant(context: Mapping[str, Any]) -> str:
    """Return the tenant in the authorizer's context; empty for callers of the stack's own."""
    return str((context.get("authorizer") or {}).get("tenant") or "")


def get_identity(context: Mapping[str, Any]) -> str:
    """Return the name that an authorizer or a signature proves: a key's name, a token's subject, an IAM principal.

    It is empty for callers whom nobody has authenticated: an API key of the gateway only meters.
    """
    identity, authorizer = context.get("identity") or {}, context.get("authorizer") or {}
    return str(authorizer.get("principalId") or identity.get("userArn") or "")


def decode_event_body(body: str | None, *, is_base64: bool) -> bytes:
    """Decode the body of an event: the gateway encodes all of them, SAM's local one only some.

    pybase64 takes 0.1 ms for a tensor of 1 MB, Python's own base64 takes 6 (infra/docs/performance.md).
    """
    if body is None:
        return b""
    if not is_base64:
        return body.encode()
    try:
        return pybase64.b64decode(body, validate=True)
    except binascii.Error as exc:
        raise InvalidInputError(f"The event calls its body base64, but it is not: {exc}.") from exc

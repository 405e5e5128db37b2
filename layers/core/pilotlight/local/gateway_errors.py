"""The errors that the gateway itself answers, as API Gateway would.

The module maps each error to a template's GatewayResponse and to its default status; it does not send them.
"""

from dataclasses import dataclass

from pilotlight.errors import PilotlightError


@dataclass(frozen=True)
class GatewayErrorKind:
    """One of API Gateway's kinds of error: its GatewayResponse, its usual status, and its `x-amzn-errortype`.

    `headers` are for what only a later request can get.
    """

    response: str
    status: int
    error_type: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


_LATER = ((b"retry-after", b"1"),)  # s


NO_ROUTE = GatewayErrorKind("MISSING_AUTHENTICATION_TOKEN", 403, "MissingAuthenticationTokenException")
UNAUTHORIZED = GatewayErrorKind("UNAUTHORIZED", 401, "UnauthorizedException")
DENIED = GatewayErrorKind("ACCESS_DENIED", 403, "AccessDeniedException")
NO_AUTHORIZER = GatewayErrorKind("AUTHORIZER_FAILURE", 500, "InternalServerErrorException")
TOO_LARGE = GatewayErrorKind("REQUEST_TOO_LARGE", 413, "RequestTooLargeException")
FAILED = GatewayErrorKind("DEFAULT_5XX", 502, "InternalServerErrorException")
NO_FUNCTION = GatewayErrorKind("DEFAULT_4XX", 404, "ResourceNotFoundException")  # of the Invoke API, like the next one
INVALID_REQUEST = GatewayErrorKind("DEFAULT_4XX", 400, "InvalidRequestContentException")
ALREADY_EXISTS = GatewayErrorKind("DEFAULT_4XX", 412, "PreconditionFailed")  # of uploads, like the next one: S3's
STORE_FAILED = GatewayErrorKind("DEFAULT_5XX", 503, "ServiceUnavailableException", _LATER)
STOPPING = GatewayErrorKind("DEFAULT_5XX", 503, "ServiceUnavailableException", (*_LATER, (b"connection", b"close")))
CONNECTIONS_USED_UP = GatewayErrorKind("DEFAULT_5XX", 503, "ServiceUnavailableException", _LATER)
THROTTLED = GatewayErrorKind("THROTTLED", 429, "TooManyRequestsException", _LATER)
TOO_SLOW = GatewayErrorKind("DEFAULT_4XX", 408, "RequestTimeoutException")
HEAD_TOO_LARGE = GatewayErrorKind("DEFAULT_4XX", 431, "RequestHeaderFieldsTooLargeException")
MISDIRECTED = GatewayErrorKind("DEFAULT_4XX", 421, "MisdirectedRequestException")  # of a name that is not ours
MALFORMED = GatewayErrorKind("DEFAULT_4XX", 400, "BadRequestException")  # no HTTP
BAD_HOST = GatewayErrorKind("DEFAULT_4XX", 400, "BadRequestException")
FOREIGN_PAGE = GatewayErrorKind("DEFAULT_4XX", 403, "ForbiddenException")  # a page of another site asks
TIMED_OUT = GatewayErrorKind("INTEGRATION_TIMEOUT", 504, "InternalServerErrorException")
CLIENT_GONE = GatewayErrorKind(
    "DEFAULT_4XX", 499, "ClientGone"
)  # the client never reads this answer; nginx's number, for the access log


class GatewayError(PilotlightError):
    """The request ends with this kind of error and text; `function_error` is the error of a function that failed."""

    def __init__(self, kind: GatewayErrorKind, message: str, function_error: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.function_error = function_error

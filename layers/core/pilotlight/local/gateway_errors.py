"""The errors that the gateway answers itself, as API Gateway would.

It knows which GatewayResponse of a template words an error and which status that has by default, not how to send it.
"""

from dataclasses import dataclass

from pilotlight.errors import PilotlightError


@dataclass(frozen=True)
class GatewayErrorKind:
    """One of API Gateway's kinds of error: its GatewayResponse, its usual status, and its `x-amzn-errortype`."""

    response: str
    status: int
    error_type: str


NO_ROUTE = GatewayErrorKind("MISSING_AUTHENTICATION_TOKEN", 403, "MissingAuthenticationTokenException")
UNAUTHORIZED = GatewayErrorKind("UNAUTHORIZED", 401, "UnauthorizedException")
DENIED = GatewayErrorKind("ACCESS_DENIED", 403, "AccessDeniedException")
NO_AUTHORIZER = GatewayErrorKind("AUTHORIZER_FAILURE", 500, "InternalServerErrorException")
TOO_LARGE = GatewayErrorKind("REQUEST_TOO_LARGE", 413, "RequestTooLargeException")
FAILED = GatewayErrorKind("DEFAULT_5XX", 502, "InternalServerErrorException")
NO_FUNCTION = GatewayErrorKind("DEFAULT_4XX", 404, "ResourceNotFoundException")  # of the Invoke API, as the next
INVALID_REQUEST = GatewayErrorKind("DEFAULT_4XX", 400, "InvalidRequestContentException")
STOPPING = GatewayErrorKind("DEFAULT_5XX", 503, "ServiceUnavailableException")
TIMED_OUT = GatewayErrorKind("INTEGRATION_TIMEOUT", 504, "InternalServerErrorException")
CLIENT_GONE = GatewayErrorKind(
    "DEFAULT_4XX", 499, "ClientGone"
)  # nobody reads this answer; nginx's number, for the access log


class GatewayError(PilotlightError):
    """The request ends here, with this kind of error and text; `function_error` is that of a function that failed."""

    def __init__(self, kind: GatewayErrorKind, message: str, function_error: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.function_error = function_error

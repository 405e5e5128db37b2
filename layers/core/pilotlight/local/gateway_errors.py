"""The errors that the gateway answers itself, as API Gateway would.

It knows which GatewayResponse of a template words an error and which status that has by default, not how to send it.
"""

from dataclasses import dataclass

from pilotlight.errors import PilotlightError


@dataclass(frozen=True)
class Kind:
    """One of API Gateway's kinds of error: its GatewayResponse, its usual status, and its `x-amzn-errortype`."""

    response: str
    status: int
    error_type: str


NO_ROUTE = Kind("MISSING_AUTHENTICATION_TOKEN", 403, "MissingAuthenticationTokenException")
UNAUTHORIZED = Kind("UNAUTHORIZED", 401, "UnauthorizedException")
DENIED = Kind("ACCESS_DENIED", 403, "AccessDeniedException")
NO_AUTHORIZER = Kind("AUTHORIZER_FAILURE", 500, "InternalServerErrorException")
TOO_LARGE = Kind("REQUEST_TOO_LARGE", 413, "RequestTooLargeException")
FAILED = Kind("DEFAULT_5XX", 502, "InternalServerErrorException")
NO_FUNCTION = Kind("DEFAULT_4XX", 404, "ResourceNotFoundException")  # of the Invoke API, as the next
WRONG = Kind("DEFAULT_4XX", 400, "InvalidRequestContentException")
STOPPING = Kind("DEFAULT_5XX", 503, "ServiceUnavailableException")
TIMED_OUT = Kind("INTEGRATION_TIMEOUT", 504, "InternalServerErrorException")
CLIENT_GONE = Kind("DEFAULT_4XX", 499, "ClientGone")  # nobody reads this answer; nginx's number, for the access log


class GatewayError(PilotlightError):
    """The request ends here, with this kind of error and text; `said` is the text of a function that failed."""

    def __init__(self, kind: Kind, message: str, said: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.said = said

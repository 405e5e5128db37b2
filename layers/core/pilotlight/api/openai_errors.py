"""Errors below /v1, in the form in which OpenAI's clients show them: `str(exception)` has the message."""

from pilotlight.api.http import Response
from pilotlight.api.schemas.openai import ErrorDetails, OpenAIErrorBody
from pilotlight.errors import (
    ContextLengthError,
    FieldError,
    LimitExceededError,
    LoadingError,
    NotFoundError,
    PilotlightError,
    shorten_message,
)

ERROR_TYPES = {400: "invalid_request_error", 404: "invalid_request_error", 409: "conflict_error"}
SERVER_ERROR = 500  # from this status on the caller is not at fault
UNSUPPORTED = "unsupported_parameter"
CODES: dict[type[PilotlightError], str] = {
    ContextLengthError: "context_length_exceeded",
    NotFoundError: "model_not_found",
    LoadingError: "model_loading",
    LimitExceededError: "rate_limit_exceeded",
}  # of errors that a request to a model may meet; clients decide by them


def to_openai_error(status: int, message: str, **headers: str) -> Response:
    """Build an error in OpenAI's form."""
    return Response.json(OpenAIErrorBody(ErrorDetails(message, get_error_type(status))), status, **headers)


def to_model_error(error: PilotlightError, status: int, **headers: str) -> Response:
    """Build the error of a request to a model, with the code by which clients decide what to do."""
    return Response.json(describe_error(error, status), status, **headers)


def describe_error(error: PilotlightError, status: int) -> OpenAIErrorBody:
    """Describe an error in OpenAI's form, for an answer of that status or for a frame of a stream."""
    message, kind = shorten_message(str(error)), get_error_type(status)
    if isinstance(error, FieldError):
        return OpenAIErrorBody(ErrorDetails(message, kind, error.param, error.code))
    code = next((CODES[one] for one in type(error).__mro__ if one in CODES), None)
    return OpenAIErrorBody(ErrorDetails(message, kind, "model" if code == CODES[NotFoundError] else None, code))


def get_error_type(status: int) -> str:
    """Return OpenAI's type of the errors of a status."""
    return ERROR_TYPES.get(status, "server_error" if status >= SERVER_ERROR else "invalid_request_error")

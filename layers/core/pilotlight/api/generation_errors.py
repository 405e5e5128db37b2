"""Errors of the generate function's routes, in the form that the clients of each family show.

OpenAI's read `error.message`, Anthropic's the same beside `type: error`, Triton's an `error` that is a text.
"""

from typing import Any

from pilotlight.api.http import Response
from pilotlight.api.openai_errors import to_openai_error
from pilotlight.api.router import ErrorFormatter, build_error_response

ANTHROPIC_PATH, TRITON_PATH = "/v1/messages", "/v2/"
# Source: Anthropic's API reference, Errors.
ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip
SERVER_ERROR = 500


def choose_error_formatter(resource: str) -> ErrorFormatter:
    """Choose what builds the errors of a route."""
    if resource.startswith(ANTHROPIC_PATH):
        return to_anthropic_error
    return build_error_response if resource.startswith(TRITON_PATH) else to_openai_error


def to_anthropic_error(status: int, message: str, **headers: str) -> Response:
    """Build an error in Anthropic's form."""
    return Response.json(describe_anthropic_error(status, message), status, **headers)


def describe_anthropic_error(status: int, message: str) -> dict[str, Any]:
    """Describe an error in Anthropic's form, for an answer of that status or for an event of a stream."""
    kind = ANTHROPIC_TYPES.get(status, "api_error" if status >= SERVER_ERROR else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}

"""Errors below /v1, in the form in which OpenAI's clients show them: `str(exception)` has the message."""

from pilotlight.api.http import Response

ERROR_TYPES = {400: "invalid_request_error", 404: "invalid_request_error", 409: "conflict_error"}
SERVER_ERROR = 500  # from this status on the caller is not at fault


def to_openai_error(status: int, message: str, **headers: str) -> Response:
    """Build an error in OpenAI's form."""
    kind = ERROR_TYPES.get(status, "server_error" if status >= SERVER_ERROR else "invalid_request_error")
    return Response.json({"error": {"message": message, "type": kind, "param": None, "code": None}}, status, **headers)

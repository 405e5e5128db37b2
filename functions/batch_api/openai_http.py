"""Forms and errors as OpenAI's clients send and show them."""

from typing import NamedTuple

from pilotlight.api.http import Request, Response
from pilotlight.api.multipart_form import FORM_TYPE, parse_form
from pilotlight.errors import InvalidInputError, UnsupportedTypeError

ERROR_TYPES = {400: "invalid_request_error", 404: "invalid_request_error", 409: "conflict_error"}
SERVER_ERROR = 500  # from this status on the caller is not at fault


class MultipartForm(NamedTuple):
    """A form with one file in it."""

    fields: dict[str, str]
    filename: str
    data: bytes


def to_openai_error(status: int, message: str, **headers: str) -> Response:
    """Build an error in OpenAI's form."""
    kind = ERROR_TYPES.get(status, "server_error" if status >= SERVER_ERROR else "invalid_request_error")
    return Response.json({"error": {"message": message, "type": kind, "param": None, "code": None}}, status, **headers)


def parse_multipart_form(request: Request, name: str) -> MultipartForm:
    """Parse a multipart form with a file in the field `name`."""
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith(FORM_TYPE):
        raise UnsupportedTypeError(
            f"The body is {content_type or 'of no type'}; send {FORM_TYPE} with a {name!r} in it."
        )
    parts = {part.name: part for part in parse_form(request.body, content_type)}
    file_part = parts.get(name)
    if file_part is None:
        raise InvalidInputError(f"The form has {sorted(parts)}, but no {name!r}.")
    fields = {key: part.text for key, part in parts.items() if key != name and not part.filename}
    return MultipartForm(fields, file_part.filename or "file", file_part.data)

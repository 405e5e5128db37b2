"""Forms as OpenAI's clients send them."""

from typing import NamedTuple

from functions.batch_api.form_filenames import find_filename
from pilotlight.api.http import Request
from pilotlight.api.multipart_form import FORM_TYPE, parse_form
from pilotlight.errors import InvalidInputError, UnsupportedTypeError


class MultipartForm(NamedTuple):
    """A form with one file in it."""

    fields: dict[str, str]
    filename: str
    data: bytes


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
    fields = {key: decode_field(part.data) for key, part in parts.items() if key != name and not part.filename}
    return MultipartForm(fields, find_filename(file_part.disposition, file_part.filename), file_part.data)


def decode_field(data: bytes) -> str:
    """Decode a field: UTF-8, or else Latin-1, as old programs on Windows write it."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")

"""Forms as OpenAI's clients send them."""

from io import BytesIO
from typing import NamedTuple

from multipart import MultipartError, MultipartParser, parse_options_header

from pilotlight.api.http import Request
from pilotlight.errors import InvalidInputError, UnsupportedTypeError

MAX_BODY_BYTES = 10_000_000  # bytes of a body, above the gateway's limit


class MultipartForm(NamedTuple):
    """A form with one file in it."""

    fields: dict[str, str]
    filename: str
    data: bytes


def parse_multipart_form(request: Request, name: str) -> MultipartForm:
    """Parse a multipart form with a file in the field `name`."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise UnsupportedTypeError(
            f"The body is {kind or 'of no type'}; send multipart/form-data with a {name!r} in it."
        )
    try:
        parser = MultipartParser(
            BytesIO(request.body),
            options["boundary"],
            len(request.body),
            memory_limit=MAX_BODY_BYTES,
            spool_limit=MAX_BODY_BYTES,
        )
        parts = {part.name: part for part in parser}
    except (MultipartError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"The body is no multipart form: {exc}.") from exc
    file_part = parts.get(name)
    if file_part is None:
        raise InvalidInputError(f"The form has {sorted(map(str, parts))}, but no {name!r}.")
    fields = {str(key): part.value for key, part in parts.items() if key != name and not part.filename}
    return MultipartForm(fields, file_part.filename or "file", file_part.raw)

"""Forms as OpenAI's clients send them."""

from collections.abc import Mapping
from io import BytesIO
from typing import NamedTuple

from multipart import MultipartError, MultipartParser, MultipartPart, parse_options_header

from functions.batch_api.form_filenames import find_filename
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
    boundary = options["boundary"]
    try:
        return read_form(parse_parts(request.body, boundary, "utf8"), name)
    except UnicodeDecodeError:  # a name that is not UTF-8, as old programs on Windows write it
        return read_form(parse_parts(request.body, boundary, "latin-1"), name)


def read_form(parts: Mapping[str, MultipartPart], name: str) -> MultipartForm:
    """Read the fields of a form, and the file in its field `name`."""
    file_part = parts.get(name)
    if file_part is None:
        raise InvalidInputError(f"The form has {sorted(map(str, parts))}, but no {name!r}.")
    fields = {str(key): part.value for key, part in parts.items() if key != name and not part.filename}
    return MultipartForm(fields, find_filename(file_part.disposition, file_part.filename), file_part.raw)


def parse_parts(body: bytes, boundary: str, charset: str) -> dict[str, MultipartPart]:
    """Parse the parts of a form by their names; raise `UnicodeDecodeError` for headers of another charset."""
    try:
        parser = MultipartParser(
            BytesIO(body),
            boundary,
            len(body),
            charset=charset,
            memory_limit=MAX_BODY_BYTES,
            spool_limit=MAX_BODY_BYTES,
        )
        return {part.name: part for part in parser}
    except MultipartError as exc:
        if len(exc.args) > 1 and isinstance(exc.args[1], UnicodeDecodeError):
            raise exc.args[1] from exc
        raise InvalidInputError(f"The body is no multipart form: {exc}.") from exc

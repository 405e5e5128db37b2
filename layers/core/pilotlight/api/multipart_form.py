"""Parse `multipart/form-data`, as browsers and curl -F send files: the only module that imports multipart.

It knows the form's parts, not what they are for.
"""

from io import BytesIO
from typing import NamedTuple

from multipart import MultipartError, MultipartParser, parse_options_header

from pilotlight.errors import InvalidInputError, UnsupportedTypeError

FORM_TYPE = "multipart/form-data"
MAX_PARTS = 1_000  # of a form; each takes some 20 us and 2 kB beside its bytes


class FormPart(NamedTuple):
    """A part of a form: a field, or a file if it has a file's name or a media type of its own."""

    name: str
    filename: str
    media_type: str  # in lower case, without parameters; text/plain for a field
    data: bytes
    disposition: str = ""  # the header that names it, in which clients write names of files in several ways

    @property
    def text(self) -> str:
        """The data as text; raise `InvalidInputError` if it is not UTF-8."""
        try:
            return self.data.decode()
        except UnicodeDecodeError as exc:
            raise InvalidInputError(f"The form's field {self.name!r} is not UTF-8: {exc.reason}.") from exc


def parse_form(body: bytes, content_type: str) -> list[FormPart]:
    """Parse a form to its parts in their order; all of it stays in memory."""
    kind, options = parse_options_header(content_type)
    if kind.lower() != FORM_TYPE or not options.get("boundary"):
        found = f"{kind} without a boundary" if kind.lower() == FORM_TYPE else kind or "of no type"
        raise UnsupportedTypeError(f"The body is {found}; send {FORM_TYPE}; boundary=..., as HTTP clients do.")
    try:
        return parse_parts(body, options["boundary"], "utf8")
    except UnicodeDecodeError:  # a name that is not UTF-8, as old programs on Windows write it
        return parse_parts(body, options["boundary"], "latin-1")


def parse_parts(body: bytes, boundary: str, charset: str) -> list[FormPart]:
    """Parse the parts of a form; raise `UnicodeDecodeError` for headers of another charset."""
    size = len(body) + 1
    try:
        parser = MultipartParser(
            BytesIO(body),
            boundary,
            len(body),
            charset=charset,
            part_limit=MAX_PARTS,
            memory_limit=size,
            spool_limit=size,
        )
        return [
            FormPart(
                part.name,
                part.filename or "",
                part.content_type.partition(";")[0].strip().lower(),
                part.raw,
                part.disposition or "",
            )
            for part in parser
        ]
    except (MultipartError, LookupError) as exc:
        if len(exc.args) > 1 and isinstance(exc.args[1], UnicodeDecodeError):
            raise exc.args[1] from exc
        raise InvalidInputError(f"The body is no multipart form: {exc}.") from exc

"""Parse `multipart/form-data`, as browsers and curl -F send files: the only module that imports multipart.

It knows the form's parts, not what they are for.
"""

import base64
import binascii
import quopri
import re
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import NamedTuple

from multipart import MultipartError, MultipartParser, MultipartPart, parse_options_header

from pilotlight.api.text_encoding import convert_to_utf8
from pilotlight.errors import InvalidInputError, UnsupportedTypeError

FORM_TYPE = "multipart/form-data"
FIELD_TYPE = "text/plain"  # of a part that says nothing else; RFC 7578, 4.4
# How a part's bytes are written, by mail libraries; clients of HTTP send them as they are, and may say so.
TRANSFER_ENCODINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "base64": lambda data: base64.b64decode(b"".join(data.split()), validate=True),
    "quoted-printable": quopri.decodestring,
}
UNQUOTED_BOUNDARY = re.compile(r';\s*boundary=([^\s";]+)', re.IGNORECASE)  # with signs that need quotes
PLAIN_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})
MAX_PARTS = 1_000  # of a form; each takes some 20 us and 2 kB beside its bytes


class FormPart(NamedTuple):
    """A part of a form: a field, or a file if it has a file's name or a media type of its own."""

    name: str
    filename: str
    media_type: str  # in lower case, without parameters; text/plain for a field
    data: bytes
    disposition: str = ""  # the header that names it, in which clients write names of files in several ways
    content_type: str = ""  # the header as it is, with the charset if it declares one

    @property
    def text(self) -> str:
        """The data as text; raise `InvalidInputError` if it is not UTF-8, nor of the charset that the part declares."""
        try:
            return convert_to_utf8(self.data, self.content_type).decode()
        except UnicodeDecodeError as exc:
            raise InvalidInputError(f"The form's field {self.name!r} is not UTF-8: {exc.reason}.") from exc


def parse_form(body: bytes, content_type: str) -> list[FormPart]:
    """Parse a form to its parts in their order; all of it stays in memory."""
    kind, options = parse_options_header(content_type)
    unquoted = UNQUOTED_BOUNDARY.search(content_type)
    boundary = unquoted[1] if unquoted is not None else options.get("boundary")
    if kind.lower() != FORM_TYPE or not boundary:
        found = f"{kind} without a boundary" if kind.lower() == FORM_TYPE else kind or "of no type"
        raise UnsupportedTypeError(f"The body is {found}; send {FORM_TYPE}; boundary=..., as HTTP clients do.")
    try:
        return parse_parts(body, boundary, "utf8")
    except UnicodeDecodeError:  # a name that is not UTF-8, as old programs on Windows write it
        return parse_parts(body, boundary, "latin-1")


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
        return [build_part(part) for part in parser]
    except (MultipartError, LookupError) as exc:
        if len(exc.args) > 1 and isinstance(exc.args[1], UnicodeDecodeError):
            raise exc.args[1] from exc
        raise InvalidInputError(f"The body is no multipart form: {exc}.") from exc


def build_part(part: MultipartPart) -> FormPart:
    """Build one part; its bytes are those before they were encoded for the transfer."""
    headers = {name.lower(): value for name, value in part.headerlist}
    media_type = part.content_type.partition(";")[0].strip().lower()
    data = decode_transfer(part.raw, part.name, headers.get("content-transfer-encoding", ""))
    content_type = headers.get("content-type", "")
    return FormPart(part.name, part.filename or "", media_type, data, part.disposition or "", content_type)


def decode_transfer(data: bytes, name: str, encoding: str) -> bytes:
    """Decode a part by its `Content-Transfer-Encoding`; RFC 2045, 6."""
    encoding = encoding.strip().lower()
    if encoding in PLAIN_ENCODINGS:
        return data
    if encoding not in TRANSFER_ENCODINGS:
        raise UnsupportedTypeError(
            f"The form's part {name!r} has the Content-Transfer-Encoding {encoding[:40]!r}; send its bytes as they are."
        )
    try:
        return TRANSFER_ENCODINGS[encoding](data)
    except binascii.Error as exc:
        raise InvalidInputError(f"The form's part {name!r} is not base64, as it says: {exc}.") from exc

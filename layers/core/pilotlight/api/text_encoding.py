"""The encoding of a body of text: UTF-8, or what its `Content-Type` or its byte order mark says.

Sources: RFC 9110, 8.3 (parameters of media types); RFC 8259, 8.1 (JSON is UTF-8, and a reader may ignore a mark).
"""

import codecs
from collections.abc import Mapping

from pilotlight.errors import InvalidInputError, UnsupportedTypeError

UTF8_NAMES = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii"})
# Encodings in which Windows, Excel and older programs write; each decodes to one text or to an error.
CODECS: Mapping[str, str] = {
    "utf-8-sig": "utf-8-sig",
    "utf-16": "utf-16", "utf16": "utf-16", "utf-16le": "utf-16-le", "utf-16be": "utf-16-be",
    "utf-32": "utf-32", "utf-32le": "utf-32-le", "utf-32be": "utf-32-be",
    "iso-8859-1": "latin-1", "iso8859-1": "latin-1", "latin-1": "latin-1", "latin1": "latin-1",
    "iso-8859-15": "iso-8859-15", "windows-1252": "cp1252", "cp1252": "cp1252",
}  # fmt: skip
# Longer ones first: UTF-16's begins UTF-32's too.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def find_charset(content_type: str) -> str:
    """Find the charset that a `Content-Type` declares, in lower case; empty if it declares none."""
    if "harset" not in content_type and "HARSET" not in content_type:  # hardly any has one
        return ""
    parameters = (part.partition("=") for part in content_type.split(";")[1:])
    return next(
        (value.strip(" \t\"'").lower() for name, _, value in parameters if name.strip().lower() == "charset"), ""
    )


def convert_to_utf8(body: bytes, content_type: str) -> bytes:
    """Convert a body to UTF-8 without a byte order mark.

    Raises `UnsupportedTypeError` for a charset that is not read, `InvalidInputError` for bytes that are not of it.
    """
    charset = find_charset(content_type)
    mark = next((mark for mark in MARKS if body.startswith(mark[0])), None)
    if charset in UTF8_NAMES:
        if mark is None:
            return body
        if mark[1] == "utf-8":
            return body.removeprefix(codecs.BOM_UTF8)
        return decode_text(body, mark[1])
    if charset not in CODECS:
        raise UnsupportedTypeError(f"The charset {charset[:40]!r} is not served; use utf-8.")
    return decode_text(body, mark[1] if mark is not None and charset.startswith("utf") else CODECS[charset])


def decode_text(body: bytes, codec: str) -> bytes:
    """Convert a text of another encoding to UTF-8, without a mark."""
    try:
        return body.decode(codec).removeprefix("\ufeff").encode()
    except UnicodeError as exc:
        raise InvalidInputError(f"The body is not {codec}, as its mark or its charset says: {exc}.") from exc

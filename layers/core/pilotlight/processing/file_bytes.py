"""Decode the elements of an input that are files: bytes in binary form, base64 or a data URL in JSON.

Base64 may be that of URLs (RFC 4648, 5), without padding and with line breaks. Source of data URLs: RFC 2397.
"""

import base64
import binascii
from collections.abc import Iterable
from urllib.parse import unquote, unquote_to_bytes

from pilotlight.errors import InvalidInputError

URL_SIGNS = str.maketrans("-_", "+/")  # in place of which the alphabet of URLs has others
WEB_SCHEMES = ("http://", "https://", "s3://", "gs://", "file://", "blob:")


def describe_other_format(file: bytes, formats: Iterable[tuple[int, bytes, str]], taken: str) -> str:
    """Describe what a file that is not taken is, by its bytes at a place, to end a sentence; empty if unknown."""
    name = next((name for place, start, name in formats if file.startswith(start, place)), "")
    return f", which is {name}; convert it to {taken}" if name else ""


def decode_file_bytes(element: bytes | str) -> bytes:
    """Decode a file's bytes, with or without a data URL's prefix; the error is the end of a sentence about the file."""
    if isinstance(element, bytes):
        return element
    if element[:5].lower() == "data:":
        return decode_data_url(element)
    if element.lower().startswith(WEB_SCHEMES):
        raise InvalidInputError(f"is the address {element[:100]!r}, which is not fetched; send the file in base64")
    return decode_base64(element)


def decode_data_url(url: str) -> bytes:
    """Decode the file in a data URL: in base64, or its bytes as they are or percent-encoded."""
    head, comma, data = url.partition(",")
    if not comma:
        raise InvalidInputError("is a data URL without a comma before its data")
    if head.lower().endswith(";base64"):
        return decode_base64(unquote(data))
    return unquote_to_bytes(data)


def decode_base64(text: str) -> bytes:
    """Decode base64 of either alphabet."""
    signs = "".join(text.split()).translate(URL_SIGNS).rstrip("=")
    try:
        return base64.b64decode(signs + "=" * (-len(signs) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInputError(f"is not base64, which JSON needs for bytes: {exc}") from exc

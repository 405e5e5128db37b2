"""Decode the elements of an input that are files: bytes in binary form, base64 in JSON."""

import base64
import binascii

from pilotlight.errors import InvalidInputError


def decode_file_bytes(element: bytes | str) -> bytes:
    """Decode a file's bytes, with or without a data URL's prefix; the error is the end of a sentence about the file."""
    if isinstance(element, bytes):
        return element
    text = element.partition(";base64,")[2] if element.startswith("data:") else element
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInputError(f"is not base64, which JSON needs for bytes: {exc}") from exc

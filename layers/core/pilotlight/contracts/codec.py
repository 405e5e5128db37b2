"""Encode documents for the store and decode them, with errors that name the source and the wrong field."""

from datetime import UTC, datetime
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from pilotlight.errors import InvalidInputError

DocumentT = TypeVar("DocumentT", bound=Struct)


def encode_document(document: Struct) -> bytes:
    """Encode a document as indented JSON, since people open them in the store."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def decode_document(data: bytes, document_type: type[DocumentT], source: str) -> DocumentT:
    """Decode and check a document; `InvalidInputError` names the source and the wrong field."""
    try:
        return msgspec.json.decode(data, type=document_type)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"{source} is not a {document_type.__name__}: {exc}.") from exc
    except RecursionError as exc:  # of an unknown field, which msgspec reads to its end
        raise InvalidInputError(f"{source} is not a {document_type.__name__}: It is nested too deeply.") from exc


def check_timestamps(document: Struct, *names: str) -> None:
    """Raise `ValueError` for a field that is neither empty nor RFC 3339 with its offset from UTC.

    For `__post_init__`, whose errors msgspec reports as those of an invalid document: whoever computes with the time
    later could not say which document it came from.
    """
    for name in names:
        text = getattr(document, name)
        if text and not is_timestamp(text):
            raise ValueError(f"`{name}` is {text!r}, not a time such as 2026-11-29T12:00:00+00:00")


def is_timestamp(text: str) -> bool:
    """Return whether the text is RFC 3339 with its offset from UTC."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def format_utc_now(timespec: Literal["auto", "milliseconds"] = "auto") -> str:
    """Return the time as RFC 3339 in UTC, as documents have it; "auto" is to the microsecond."""
    return datetime.now(UTC).isoformat(timespec=timespec)

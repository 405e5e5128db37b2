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
    except (msgspec.ValidationError, msgspec.DecodeError) as exc:
        raise InvalidInputError(f"{source} is not a {document_type.__name__}: {exc}.") from exc


def format_utc_now(timespec: Literal["auto", "milliseconds"] = "auto") -> str:
    """Return the time as RFC 3339 in UTC, as documents have it; "auto" is to the microsecond."""
    return datetime.now(UTC).isoformat(timespec=timespec)
